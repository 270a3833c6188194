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
from lydite.models.lstm import LyditeLSTMConfig, LyditeLSTMForCausalLM, LyditeLSTMModel
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
_LSTM = {AutoModel: LyditeLSTMModel, AutoModelForCausalLM: LyditeLSTMForCausalLM}


@cache
def register() -> None:
    """Make `lydite_transformer` and `lydite_lstm` known to transformers."""
    AutoConfig.register(LyditeTransformerConfig.model_type, LyditeTransformerConfig)
    for auto, ours in _TRANSFORMER.items():
        auto.register(LyditeTransformerConfig, ours)
    AutoConfig.register(LyditeLSTMConfig.model_type, LyditeLSTMConfig)
    for auto, ours in _LSTM.items():
        auto.register(LyditeLSTMConfig, ours)
