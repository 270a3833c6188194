"""The settings of our Transformer: one record whose combinations are BERT, GPT-2, Llama, T5, BART and their relatives.

A setting says what changes the numbers of the network, and each is explained where it stands. docs/transformer.md has
the table of what gives which published model; transformer_convert.py reads and writes their checkpoints.

Contract: a combination that makes no sense is refused here, with one line; whatever is accepted can be built.
"""

from dataclasses import fields
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from lydite.errors import ModelError

SHAPES = ("encoder", "decoder", "encoder-decoder")
POSITIONS = ("learned", "sinusoidal", "rotary", "relative", "alibi", "none")
NORMS = ("layer", "rms")
NORM_PLACES = ("pre", "post")
ACTIVATIONS = ("relu", "gelu", "gelu_tanh", "silu")

if TYPE_CHECKING:
    Derived = int
else:
    Derived = int | None
"""A number that is worked out from the others where it is not given."""
_NOT_GIVEN: Any = None


@strict
class LyditeTransformerConfig(PreTrainedConfig):
    """What a LyditeTransformer is made of; raises ModelError for settings that contradict each other."""

    model_type = "lydite_transformer"
    keys_to_ignore_at_inference = ("past_key_values",)

    shape: str = "decoder"
    """encoder: every token sees all others; decoder: each sees those before it; encoder-decoder: a decoder that also
    looks at what an encoder made of another text."""
    vocab_size: int = 32000
    hidden_size: int = 512
    intermediate_size: Derived = _NOT_GIVEN
    """Width inside the feed-forward layers; None: 4 x hidden_size, or 8/3 of it, rounded up to a multiple of 64, where
    they are gated, so that three matrices have as many numbers as two (Shazeer 2020)."""
    num_hidden_layers: int = 8
    decoder_layers: Derived = _NOT_GIVEN
    """Of the decoder of an encoder-decoder; None: as many as the encoder has."""
    num_attention_heads: int = 8
    num_key_value_heads: Derived = _NOT_GIVEN
    """Fewer than heads: groups of heads share keys and values (Ainslie et al. 2023); None: each head has its own."""
    head_dim: Derived = _NOT_GIVEN
    """None: hidden_size / num_attention_heads."""
    attention_scale: float | None = None
    """Factor on the products of queries and keys; None: 1 / sqrt(head_dim). T5 has 1."""

    position: str = "rotary"
    """learned (a vector a position), sinusoidal (Vaswani et al. 2017), rotary (Su et al. 2021), relative (a learned
    number a head and bucket of distances: Raffel et al. 2020), alibi (a fixed slope a head: Press et al. 2022), none."""
    max_position_embeddings: int | None = 1024
    """Longest sequence: rows of the table of learned positions; elsewhere what the model was trained on, or None."""
    position_offset: int = 0
    """Unused rows before the first learned position: 2 in BART, padding index + 1 in RoBERTa."""
    rope_theta: float = 10000.0
    relative_num_buckets: int = 32
    relative_max_distance: int = 128

    norm: str = "rms"
    """layer: centred and scaled (Ba et al. 2016); rms: scaled only (Zhang and Sennrich 2019)."""
    norm_place: str = "pre"
    """pre: x + f(norm(x)), and a last norm after the blocks; post: norm(x + f(x))."""
    norm_eps: float = 1e-5
    embedding_norm: bool = False
    """A norm right after the embeddings, as in BERT and BART."""
    activation: str = "silu"
    """relu, gelu (exact), gelu_tanh (its approximation, as in GPT-2) or silu."""
    gated: bool = True
    """Feed-forward layers multiply act(gate(x)) by up(x): with silu SwiGLU, with gelu GEGLU (Shazeer 2020)."""
    attention_bias: bool = False
    feed_forward_bias: bool = False

    embedding_scale: float = 1.0
    """Factor on token embeddings; sqrt(hidden_size) in Vaswani et al. 2017."""
    type_vocab_size: int = 0
    """Segment embeddings: BERT's two tell the texts of a pair apart; 0: none."""
    tie_word_embeddings: bool = True
    """The output head is the token embedding turned around (Press and Wolf 2017)."""
    logit_scale: float = 1.0
    """Factor on logits of causal and seq2seq heads; 1 / sqrt(hidden_size) in the first T5."""

    dropout: float = 0.0
    """After the embeddings and after every attention and feed-forward layer."""
    attention_dropout: float = 0.0
    """On attention weights."""
    initializer_range: float = 0.02
    """Standard deviation of fresh weights; see LyditeTransformerPreTrainedModel."""

    use_cache: bool = True
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None
    decoder_start_token_id: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        own = {field.name for field in fields(self)}
        for key in kwargs:
            if close := get_close_matches(key, own, 1, 0.8):
                raise ModelError(f"lydite_transformer has no setting {key!r}; did you mean {close[0]!r}?")
        super().__post_init__(**kwargs)
        _one_of(self, "shape", SHAPES)
        _one_of(self, "position", POSITIONS)
        _one_of(self, "norm", NORMS)
        _one_of(self, "norm_place", NORM_PLACES)
        _one_of(self, "activation", ACTIVATIONS)
        self.is_encoder_decoder = self.shape == "encoder-decoder"
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        if self.head_dim is None:
            _divides(self, "num_attention_heads", "hidden_size")
            self.head_dim = self.hidden_size // self.num_attention_heads
        if self.intermediate_size is None:
            self.intermediate_size = -(-self.hidden_size * 8 // 192) * 64 if self.gated else 4 * self.hidden_size
        if self.is_encoder_decoder and self.decoder_layers is None:
            self.decoder_layers = self.num_hidden_layers
        self._check()

    def _check(self) -> None:
        for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"):
            if getattr(self, name) < 1:
                raise ModelError(f"{name} must be at least 1, not {getattr(self, name)}")
        _divides(self, "num_key_value_heads", "num_attention_heads")
        if self.decoder_layers is not None and not self.is_encoder_decoder:
            raise ModelError(f"decoder_layers is for the shape encoder-decoder; a {self.shape} has num_hidden_layers")
        if (self.position == "rotary" and self.head_dim % 2) or (
            self.position == "sinusoidal" and self.hidden_size % 2
        ):
            raise ModelError(f"{self.position} positions turn pairs of numbers, so the width must be even")
        if self.position == "learned" and self.max_position_embeddings is None:
            raise ModelError("learned positions need max_position_embeddings")
        if self.position_offset and self.position != "learned":
            raise ModelError(f"position_offset is for learned positions, not for {self.position} ones")
        if self.relative_num_buckets < 4 or self.relative_num_buckets % 4:
            raise ModelError(
                "relative_num_buckets must be a multiple of 4: half for each direction, half of them exact"
            )
        if self.relative_max_distance <= self.relative_num_buckets // 2:
            raise ModelError("relative_max_distance must be larger than half of relative_num_buckets")
        if self.shape == "encoder" and self.logit_scale != 1.0:
            raise ModelError("logit_scale is for causal and seq2seq heads; an encoder's must be 1")


def _one_of(config: LyditeTransformerConfig, name: str, known: tuple[str, ...]) -> None:
    if getattr(config, name) not in known:
        raise ModelError(f"{name} must be one of {', '.join(known)}, not {getattr(config, name)!r}")


def _divides(config: LyditeTransformerConfig, small: str, large: str) -> None:
    number = getattr(config, small)
    if number < 1 or getattr(config, large) % number:
        raise ModelError(f"{large} {getattr(config, large)} must be a multiple of {small} {number}")
