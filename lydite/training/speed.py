"""How much of the machine a step uses: its floating-point operations over the time and the measured matrix peak.

Six operations a weight and position (two forward, four backward; Kaplan et al. 2020), the output head only where a label
stands, and 12 * layers * width * length for attention (Chowdhery et al. 2022, appendix B).
"""

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from lydite.engine.peak import matrix_peak, product_weights


@dataclass(frozen=True)
class Work:
    """What one position costs."""

    body: int
    head: int
    attention: int
    """layers * width."""

    def operations(self, positions: int, labels: int, length: int) -> float:
        """Of a step: `positions` in the body, `labels` in the head, rows of `length`."""
        return 6.0 * (self.body * positions + self.head * labels) + 12.0 * self.attention * length * positions


def work_of(network: PreTrainedModel) -> Work | None:
    """None where it cannot be counted (mixtures of experts, no head)."""
    weights = product_weights(network)
    if weights is None:
        return None
    config = network.config.get_text_config()
    layers, width = getattr(config, "num_hidden_layers", None), getattr(config, "hidden_size", None)
    attention = layers * width if isinstance(layers, int) and isinstance(width, int) else 0
    body, head = weights
    # Tokens of both sides are counted, and each goes through one of the two stacks: exact where both sides are as long.
    return Work(body // 2 if network.config.is_encoder_decoder else body, head, attention)


def peak_of(dtype: str, device: torch.device) -> float:
    """Floating-point operations a second of this process's fastest product, measured in about 0.2 s."""
    kind = torch.float32 if dtype == "float32" else torch.bfloat16
    return matrix_peak(kind, str(device), seconds=0.1, sizes=(1024,))
