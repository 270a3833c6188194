"""An LSTM language model (Hochreiter and Schmidhuber 1997) with the regularisation of AWD-LSTM (Merity, Keskar and Socher
2017), as a `PreTrainedModel` that the Auto classes of transformers know by model_type `lydite_lstm`.

Embedding, layers of LSTM, output embedding (tied to the input by default, so that the last layer is as wide as the
embedding). Dropouts, each a setting, only while training:

    embedding_dropout   whole words: rows of the embedding matrix, the same ones wherever a word stands
    input_dropout       the embedded words       \\
    hidden_dropout      between layers            } one mask for all steps of a sequence (Gal and Ghahramani 2016)
    output_dropout      after the last layer     /
    weight_dropout      DropConnect on the hidden-to-hidden matrices, one mask for all steps

Contract: `state` is what the network remembers, for each layer (h [B, H], c [B, H]); a text read in pieces, the state
carried from one to the next, gives the same numbers as read at once. For truncated backpropagation the carried state is
detached (`detached`). Padding stands on the right (`attention_mask`), is never computed, and leaves the state as it was.

B: rows; T: steps; E: width of the embedding; H: width of a layer; V: vocabulary.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from lydite.errors import ModelError

State = tuple[tuple[Tensor, Tensor], ...]
"""For each layer (h [B, H], c [B, H])."""


@strict
class LyditeLSTMConfig(PreTrainedConfig):  # type: ignore[misc]  # transformers is untyped
    """Sizes and dropouts; the defaults are those of Merity et al. for Penn Treebank. ModelError for what makes no sense."""

    model_type = "lydite_lstm"

    vocab_size: int = 8192
    embedding_size: int = 400
    hidden_size: int = 1150
    """Of every layer, except for the last one of a tied model, which is as wide as the embedding."""
    num_hidden_layers: int = 3
    tie_word_embeddings: bool = True
    """Input and output embedding are one matrix (Press and Wolf 2017)."""
    initializer_range: float = 0.1
    """Embeddings are drawn evenly from this far on both sides of zero."""
    embedding_dropout: float = 0.1
    input_dropout: float = 0.4
    hidden_dropout: float = 0.25
    output_dropout: float = 0.4
    weight_dropout: float = 0.5
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    pad_token_id: int | None = None

    def __post_init__(self, **more: Any) -> None:
        super().__post_init__(**more)
        for name in ("embedding_dropout", "input_dropout", "hidden_dropout", "output_dropout", "weight_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ModelError(f"{name} must be 0 or more and below 1, not {getattr(self, name)}")
        if min(self.vocab_size, self.embedding_size, self.hidden_size, self.num_hidden_layers) < 1:
            raise ModelError("vocab_size, embedding_size, hidden_size and num_hidden_layers must be 1 or more")

    @property
    def widths(self) -> list[int]:
        """Of the input and of each layer; tied, the last layer is as wide as the embedding."""
        last = self.embedding_size if self.tie_word_embeddings else self.hidden_size
        return [self.embedding_size, *[self.hidden_size] * (self.num_hidden_layers - 1), last]


@dataclass
class LSTMOutput(ModelOutput):  # type: ignore[misc]  # transformers is untyped
    """What a forward pass gives."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    """[B, T, V]"""
    last_hidden_state: Tensor | None = None
    """[B, T, H]"""
    state: State | None = None


class LyditeLSTMPreTrainedModel(PreTrainedModel):  # type: ignore[misc]  # transformers is untyped
    """What backbone and model share: how weights begin."""

    config_class = LyditeLSTMConfig
    base_model_prefix = "lstm"

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Embedding):
            init.uniform_(module.weight, -self.config.initializer_range, self.config.initializer_range)
        elif isinstance(module, nn.Linear):
            init.uniform_(module.weight, -self.config.initializer_range, self.config.initializer_range)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.LSTM):
            bound = module.hidden_size**-0.5
            for weight in module.parameters():
                init.uniform_(weight, -bound, bound)


class LyditeLSTMModel(LyditeLSTMPreTrainedModel):
    """The backbone: token ids to the states of the last layer."""

    def __init__(self, config: LyditeLSTMConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.embedding_size)
        widths = config.widths
        self.layers = nn.ModuleList(nn.LSTM(before, after, batch_first=True) for before, after in pairwise(widths))
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.embedding = value

    def forward(
        self,
        input_ids: Tensor,
        state: State | None = None,
        attention_mask: Tensor | None = None,
        return_dict: bool = True,
    ) -> LSTMOutput:
        """input_ids [B, T] -> last_hidden_state [B, T, H] and the state after each row's last real token."""
        assert return_dict, "outputs have names"
        lengths = _lengths(attention_mask)
        values = self._embed(input_ids)
        carried = []
        for number, layer in enumerate(self.layers):
            assert isinstance(layer, nn.LSTM)
            before = self._start(layer, len(input_ids), values) if state is None else state[number]
            values, after = self._layer(layer, values, before, lengths)
            carried.append(after)
            last = number == len(self.layers) - 1
            values = self._locked(values, self.config.output_dropout if last else self.config.hidden_dropout)
        return LSTMOutput(last_hidden_state=values, state=tuple(carried))

    def _embed(self, input_ids: Tensor) -> Tensor:
        weight = self.embedding.weight
        if self.training and self.config.embedding_dropout:
            keep = 1 - self.config.embedding_dropout
            weight = weight * (torch.rand(len(weight), 1, device=weight.device) < keep).to(weight.dtype) / keep
        return self._locked(nn.functional.embedding(input_ids, weight), self.config.input_dropout)

    def _locked(self, values: Tensor, dropout: float) -> Tensor:
        """values [B, T, D] with one mask [B, 1, D] for all steps."""
        if not self.training or not dropout:
            return values
        mask = torch.rand(len(values), 1, values.shape[-1], device=values.device) < 1 - dropout
        return values * mask.to(values.dtype) / (1 - dropout)

    @staticmethod
    def _start(layer: nn.LSTM, rows: int, like: Tensor) -> tuple[Tensor, Tensor]:
        zeros = like.new_zeros(rows, layer.hidden_size)
        return zeros, zeros

    def _layer(
        self, layer: nn.LSTM, values: Tensor, before: tuple[Tensor, Tensor], lengths: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        own = dict(layer.named_parameters())
        dropped = nn.functional.dropout(own["weight_hh_l0"], self.config.weight_dropout, self.training)
        weights = [own["weight_ih_l0"], dropped, own["bias_ih_l0"], own["bias_hh_l0"]]
        hidden = [part.unsqueeze(0).contiguous() for part in before]
        if lengths is None:
            out, h, c = torch.lstm(values, hidden, weights, True, 1, 0.0, self.training, False, True)
            return out, (h[0], c[0])
        packed = pack_padded_sequence(values, lengths.cpu(), batch_first=True, enforce_sorted=False)
        order, back = packed.sorted_indices, packed.unsorted_indices
        assert order is not None
        assert back is not None
        hidden = [part.index_select(1, order) for part in hidden]
        data, h, c = torch.lstm(packed.data, packed.batch_sizes, hidden, weights, True, 1, 0.0, self.training, False)
        done = PackedSequence(data, packed.batch_sizes, order, back)
        out, _ = pad_packed_sequence(done, batch_first=True, total_length=values.shape[1])
        return out, (h[0].index_select(0, back), c[0].index_select(0, back))


class LyditeLSTMForCausalLM(LyditeLSTMPreTrainedModel):
    """The backbone with an output embedding: log p(next token | those before), from left to right."""

    _tied_weights_keys = {"lm_head.weight": "lstm.embedding.weight"}  # noqa: RUF012 - as transformers has it

    def __init__(self, config: LyditeLSTMConfig) -> None:
        super().__init__(config)
        self.lstm = LyditeLSTMModel(config)
        self.lm_head = nn.Linear(config.widths[-1], config.vocab_size)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.lstm.embedding

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.lstm.embedding = value

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def set_output_embeddings(self, value: nn.Linear) -> None:
        self.lm_head = value

    def forward(
        self,
        input_ids: Tensor,
        state: State | None = None,
        labels: Tensor | None = None,
        attention_mask: Tensor | None = None,
        return_dict: bool = True,
    ) -> LSTMOutput:
        """input_ids [B, T] -> logits [B, T, V], the state, and with labels [B, T] (the ids themselves, -100: not scored)
        the mean surprise of each label given those before it, as the causal models of transformers have it."""
        out = self.lstm(input_ids, state, attention_mask, return_dict)
        logits = self.lm_head(out.last_hidden_state)
        loss = None
        if labels is not None:
            loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten())
        return LSTMOutput(loss=loss, logits=logits, last_hidden_state=out.last_hidden_state, state=out.state)


def detached(state: State) -> State:
    """A state that carries numbers but no gradient: where truncated backpropagation cuts."""
    return tuple((h.detach(), c.detach()) for h, c in state)


def _lengths(attention_mask: Tensor | None) -> Tensor | None:
    """[B] real tokens of each row; None where all of them are."""
    if attention_mask is None or bool(attention_mask.all()):
        return None
    mask = attention_mask.bool()
    if bool((mask[:, 1:] & ~mask[:, :-1]).any()) or not bool(mask[:, 0].all()):
        raise ValueError("an LSTM reads from left to right: padding stands on the right, and each row has a token")
    return mask.sum(1)
