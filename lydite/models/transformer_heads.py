"""Heads on our Transformer: what turns its states into logits over the vocabulary, labels, or spans.

Each is a class that transformers' Auto classes load (own.py registers them): ...ForCausalLM (shape decoder),
...ForMaskedLM and ...ForPreTraining (encoder), ...ForConditionalGeneration (encoder-decoder),
...ForSequenceClassification and ...ForQuestionAnswering (encoder or decoder).

Contract: outputs and losses are those of transformers' own classes of these names.

Axes: B texts, T tokens, S tokens of the encoder's text, D hidden_size, V vocab_size, K labels.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Cache, GenerationMixin
from transformers.modeling_outputs import (
    CausalLMOutputWithPast,
    MaskedLMOutput,
    QuestionAnsweringModelOutput,
    Seq2SeqLMOutput,
    SequenceClassifierOutput,
)
from transformers.modeling_utils import slice_logits_to_keep
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from lydite.errors import ModelError
from lydite.models.transformer import ACTIVATIONS, LyditeTransformerModel, make_norm
from lydite.models.transformer_base import LyditeTransformerPreTrainedModel
from lydite.models.transformer_config import LyditeTransformerConfig as Config


class LyditeTransformerForCausalLM(LyditeTransformerPreTrainedModel, GenerationMixin):
    """A decoder that says how likely each token of the vocabulary is to come next."""

    shapes = ("decoder",)
    _tied_weights_keys = {"lm_head.weight": "model.decoder.tokens.weight"}  # noqa: RUF012 (transformers defines it so)

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.model = LyditeTransformerModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        **options: Any,
    ) -> CausalLMOutputWithPast:
        """Tokens [B, T] -> logits [B, T, V]; labels [B, T] are the tokens themselves, moved to the left here."""
        options |= {"past_key_values": past_key_values, "position_ids": position_ids, "inputs_embeds": inputs_embeds}
        out = self.model(input_ids, attention_mask, **options)
        states = slice_logits_to_keep(out.last_hidden_state, logits_to_keep)
        logits = self.lm_head(states) * self.config.logit_scale
        loss = None if labels is None else self.loss_function(logits, labels, self.config.vocab_size, **options)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=out.past_key_values,
            hidden_states=out.hidden_states,
            attentions=out.attentions,
        )


class LyditeTransformerForConditionalGeneration(LyditeTransformerPreTrainedModel, GenerationMixin):
    """An encoder-decoder that says how likely each token is to come next in a text that answers another."""

    shapes = ("encoder-decoder",)
    _tied_weights_keys = {"lm_head.weight": "model.encoder.tokens.weight"}  # noqa: RUF012 (transformers defines it so)

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.model = LyditeTransformerModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.loss_type = "ForMaskedLM"  # labels stand where they are predicted: nothing is moved
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: Any = None,
        past_key_values: Cache | None = None,
        labels: Tensor | None = None,
        **options: Any,
    ) -> Seq2SeqLMOutput:
        """Tokens [B, S] and decoder tokens [B, T] (or labels [B, T], moved to the right) -> logits [B, T, V]."""
        if decoder_input_ids is None:
            if labels is None:
                raise ModelError("an encoder-decoder needs decoder_input_ids, or labels to make them from")
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        options |= {"encoder_outputs": encoder_outputs, "past_key_values": past_key_values}
        out = self.model(input_ids, attention_mask, decoder_input_ids, decoder_attention_mask, **options)
        logits = self.lm_head(out.last_hidden_state) * self.config.logit_scale
        loss = None if labels is None else self.loss_function(logits, labels, self.config.vocab_size, **options)
        rest = {key: value for key, value in out.items() if key != "last_hidden_state"}
        return Seq2SeqLMOutput(loss=loss, logits=logits, **rest)

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """Labels [B, T] -> what the decoder reads to predict them: the start token, then all but the last label."""
        start, pad = self.config.decoder_start_token_id, self.config.pad_token_id
        if start is None or pad is None:
            raise ModelError("labels need decoder_start_token_id and pad_token_id in the model's config")
        moved = torch.cat([torch.full_like(labels[:, :1], start), labels[:, :-1]], dim=1)
        return moved.masked_fill(moved == -100, pad)


class MaskedHead(nn.Module):
    """BERT's way from states to logits: one more layer, then the token embeddings turned around, with a bias a token."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = ACTIVATIONS[config.activation]
        self.norm = make_norm(config)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)

    def forward(self, states: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, V]."""
        logits: Tensor = self.decoder(self.norm(self.activation(self.dense(states))))
        return logits


class LyditeTransformerForMaskedLM(LyditeTransformerPreTrainedModel):
    """An encoder that says which tokens could stand in the place of each."""

    shapes = ("encoder",)
    _tied_weights_keys = {"head.decoder.weight": "model.encoder.tokens.weight"}  # noqa: RUF012 (transformers' way)

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.model = LyditeTransformerModel(config)
        self.head = MaskedHead(config)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        return self.head.decoder

    def set_output_embeddings(self, value: nn.Linear) -> None:
        self.head.decoder = value

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        **options: Any,
    ) -> MaskedLMOutput:
        """Tokens [B, T] -> logits [B, T, V]; labels [B, T] are -100 where nothing is asked."""
        out = self.model(input_ids, attention_mask, token_type_ids=token_type_ids, **options)
        logits = self.head(out.last_hidden_state)
        loss = None if labels is None else self.loss_function(logits, labels, self.config.vocab_size, **options)
        return MaskedLMOutput(loss=loss, logits=logits, hidden_states=out.hidden_states, attentions=out.attentions)


class Pooler(nn.Module):
    """One vector for a text: its first token's state through one more layer (Devlin et al. 2019)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, states: Tensor) -> Tensor:
        """[B, T, D] -> [B, D]."""
        return torch.tanh(self.dense(states[:, 0]))


@dataclass
class PreTrainingOutput(ModelOutput):
    """What ForPreTraining gives, named as BERT's."""

    loss: Tensor | None = None
    prediction_logits: Tensor | None = None
    seq_relationship_logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class LyditeTransformerForPreTraining(LyditeTransformerForMaskedLM):
    """As ForMaskedLM, and whether the second text of a pair follows the first (logit 0) or comes from elsewhere (1)."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.pooler = Pooler(config)
        self.next_sentence = nn.Linear(config.hidden_size, 2)
        self.loss_type = "ForMaskedLM"
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        next_sentence_label: Tensor | None = None,
        **options: Any,
    ) -> PreTrainingOutput:
        """Pairs [B, T] -> prediction_logits [B, T, V] and seq_relationship_logits [B, 2]; the losses are added."""
        out = self.model(input_ids, attention_mask, token_type_ids=token_type_ids, **options)
        tokens, follows = self.head(out.last_hidden_state), self.next_sentence(self.pooler(out.last_hidden_state))
        losses = []
        if labels is not None:
            losses.append(self.loss_function(tokens, labels, self.config.vocab_size, **options))
        if next_sentence_label is not None:
            losses.append(functional.cross_entropy(follows.float(), next_sentence_label))
        return PreTrainingOutput(
            loss=torch.stack(losses).sum() if losses else None,
            prediction_logits=tokens,
            seq_relationship_logits=follows,
            hidden_states=out.hidden_states,
            attentions=out.attentions,
        )


class LyditeTransformerForSequenceClassification(LyditeTransformerPreTrainedModel):
    """Labels for a text or a pair: from the first token of an encoder, or the last one of a decoder."""

    shapes = ("encoder", "decoder")

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.model = LyditeTransformerModel(config)
        if config.shape == "encoder":
            self.pooler = Pooler(config)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        **options: Any,
    ) -> SequenceClassifierOutput:
        """Tokens [B, T] -> logits [B, K]; labels [B], or [B, K] where several may hold (problem_type says which)."""
        out = self.model(input_ids, attention_mask, token_type_ids=token_type_ids, **options)
        states = out.last_hidden_state
        if self.config.shape == "encoder":
            summary = self.pooler(states)
        elif attention_mask is None:
            summary = states[:, -1]
        else:  # padding may stand on either side
            last = (attention_mask * torch.arange(1, states.shape[1] + 1, device=states.device)).argmax(dim=1)
            summary = states[torch.arange(len(states), device=states.device), last]
        logits = self.classifier(self.dropout(summary))
        loss = None
        if labels is not None:
            loss = self.loss_function(labels=labels, pooled_logits=logits, config=self.config)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=out.hidden_states, attentions=out.attentions
        )


class LyditeTransformerForQuestionAnswering(LyditeTransformerPreTrainedModel):
    """Where in a passage the answer to a question starts and ends."""

    shapes = ("encoder", "decoder")

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.model = LyditeTransformerModel(config)
        self.spans = nn.Linear(config.hidden_size, 2)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        **options: Any,
    ) -> QuestionAnsweringModelOutput:
        """Tokens [B, T] -> start_logits and end_logits [B, T]."""
        out = self.model(input_ids, attention_mask, token_type_ids=token_type_ids, **options)
        start, end = self.spans(out.last_hidden_state).unbind(dim=-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = self.loss_function(start, end, start_positions, end_positions)
        return QuestionAnsweringModelOutput(
            loss=loss,
            start_logits=start,
            end_logits=end,
            hidden_states=out.hidden_states,
            attentions=out.attentions,
        )
