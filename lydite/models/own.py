"""Our own architectures, made known to transformers so that its Auto classes load them like any other.

Contract: after `register()` every Auto class (and so load_model, training, peft ...) knows the model_types of ours;
calling it again does nothing.
"""

from functools import cache

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForPreTraining,
    AutoModelForQuestionAnswering,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
)

from lydite.models import transformer_heads as heads
from lydite.models.transformer import LyditeTransformerModel
from lydite.models.transformer_config import LyditeTransformerConfig

_TRANSFORMER = {
    AutoModel: LyditeTransformerModel,
    AutoModelForCausalLM: heads.LyditeTransformerForCausalLM,
    AutoModelForMaskedLM: heads.LyditeTransformerForMaskedLM,
    AutoModelForPreTraining: heads.LyditeTransformerForPreTraining,
    AutoModelForSeq2SeqLM: heads.LyditeTransformerForConditionalGeneration,
    AutoModelForSequenceClassification: heads.LyditeTransformerForSequenceClassification,
    AutoModelForQuestionAnswering: heads.LyditeTransformerForQuestionAnswering,
}


@cache
def register() -> None:
    """Make `lydite_transformer` known to transformers."""
    AutoConfig.register(LyditeTransformerConfig.model_type, LyditeTransformerConfig)
    for auto, ours in _TRANSFORMER.items():
        auto.register(LyditeTransformerConfig, ours)
