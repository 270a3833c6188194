"""What transformers asks of the classes of our Transformer: which settings they take and what they can do.

Contract: a class refuses a shape that it is not for; flash attention is offered only where it leaves nothing out.
"""

from transformers import PreTrainedModel

from lydite.errors import ModelError
from lydite.models.transformer_config import SHAPES
from lydite.models.transformer_config import LyditeTransformerConfig as Config


class LyditeTransformerPreTrainedModel(PreTrainedModel):
    """The base of the network, of its stacks, and of every class with a head."""

    config_class = Config
    base_model_prefix = "model"
    shapes: tuple[str, ...] = SHAPES
    """What the class can be built from."""
    supports_gradient_checkpointing = True
    _no_split_modules = ("Block",)
    _skip_keys_device_placement = ("past_key_values",)
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    def __init__(self, config: Config) -> None:
        """Raises ModelError for a config of another shape."""
        if config.shape not in self.shapes:
            raise ModelError(f"{type(self).__name__} needs the shape {' or '.join(self.shapes)}, not {config.shape}")
        super().__init__(config)

    @property
    def _supports_flash_attn(self) -> bool:
        """Flash attention would leave biases on distances out in silence."""
        return self.config.position not in ("relative", "alibi")
