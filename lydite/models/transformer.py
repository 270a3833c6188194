"""One compact Transformer, written to be read: encoder, decoder or both, with the parts that published models choose from.

It exists to explain the field and to pre-train from nothing; with the right settings and weights it gives the numbers of
transformers' BERT, RoBERTa, GPT-2, Llama, T5 and BART (tests/models/test_transformer_convert.py). Read it from top to
bottom: attention, feed-forward, block, stack, model; then transformer_positions.py and transformer_heads.py.
transformer_config.py explains every setting.

The path of a text: token ids -> vectors, with their positions -> blocks, in each of which tokens look at each other
(attention) and then each thinks for itself (feed-forward) -> states -> a head that gives logits, labels or spans.

Contract: the outputs, caches and keywords are those of transformers, so that its `generate`, saving and training work;
attention goes through its AttentionInterface, so that Lydite's engine can pack (biases on distances make it refuse).

Axes: B texts of a batch, T tokens that look, S tokens that are looked at, D hidden_size, F intermediate_size,
H heads that look (queries), G heads that are looked at (keys and values), C head_dim, V vocab_size.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Cache, DynamicCache, EncoderDecoderCache
from transformers import initialization as init
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput, BaseModelOutputWithPastAndCrossAttentions, Seq2SeqModelOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from lydite.errors import ModelError
from lydite.models.transformer_base import LyditeTransformerPreTrainedModel
from lydite.models.transformer_config import LyditeTransformerConfig as Config
from lydite.models.transformer_positions import alibi, angles, distance_bucket, rotate, sinusoid

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
    "silu": functional.silu,
}
Given = dict[str, Any]
"""What goes from the stack to every attention: mask, turn, bias, and options of the attention function."""


def make_norm(config: Config) -> nn.Module:
    """[.., D] -> [.., D]: numbers of mean 0 and variance 1 (layer) or of mean square 1 (rms), times learned weights."""
    kind = nn.LayerNorm if config.norm == "layer" else nn.RMSNorm
    return kind(config.hidden_size, eps=config.norm_eps)


# ----------------------------------------------------------------------------------------- attention


def attend(
    module: "Attention",
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    dropout: float = 0.0,
    position_bias: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """Attention as the formula has it: softmax(query key^T * scaling + bias) value (transformers calls this "eager").

    query [B, H, T, C], key and value [B, G, S, C], attention_mask [B, 1, T, S] of 0 and large negative numbers,
    position_bias [1, H, T, S] -> [B, T, H, C] and the weights [B, H, T, S].
    """
    key = key.repeat_interleave(module.num_key_value_groups, dim=1)  # [B, H, S, C]
    value = value.repeat_interleave(module.num_key_value_groups, dim=1)
    scores = query @ key.transpose(2, 3) * scaling  # [B, H, T, S]
    for term in (position_bias, attention_mask):
        scores = scores if term is None else scores + term
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    mixed = functional.dropout(weights, dropout) @ value  # [B, H, T, C]
    return mixed.transpose(1, 2).contiguous(), weights


class Attention(nn.Module):
    """Each token gathers what it needs from others: its query is compared with their keys, their values are mixed."""

    def __init__(self, config: Config, layer_idx: int, *, causal: bool) -> None:
        super().__init__()
        self.config, self.layer_idx, self.is_causal = config, layer_idx, causal
        self.head_dim = config.head_dim
        self.num_key_value_groups = config.num_attention_heads // config.num_key_value_heads
        self.scaling = self.head_dim**-0.5 if config.attention_scale is None else config.attention_scale
        wide, narrow = config.num_attention_heads * self.head_dim, config.num_key_value_heads * self.head_dim
        self.query = nn.Linear(config.hidden_size, wide, bias=config.attention_bias)
        self.key = nn.Linear(config.hidden_size, narrow, bias=config.attention_bias)
        self.value = nn.Linear(config.hidden_size, narrow, bias=config.attention_bias)
        self.output = nn.Linear(wide, config.hidden_size, bias=config.attention_bias)

    def forward(
        self,
        x: Tensor,
        memory: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        turn: tuple[Tensor, Tensor] | None = None,
        bias: Tensor | None = None,
        cache: Cache | None = None,
        **options: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """x [B, T, D] -> [B, T, D] and, where they exist, the weights [B, H, T, S].

        The tokens look at themselves and those in the cache, or at `memory` [B, S, D], which a cache keeps too. `turn`:
        cosines and sines of rotary positions, `bias` [1, H, T, S]: of relative ones.
        """
        query = self._heads(self.query(x))
        if turn is not None:
            query = rotate(query, *turn)
        if memory is None:
            key, value = self._heads(self.key(x)), self._heads(self.value(x))
            if turn is not None:
                key = rotate(key, *turn)
            if cache is not None:
                key, value = cache.update(key, value, self.layer_idx)
        else:
            key, value = self._remembered(memory, cache)
        if bias is not None:
            options["position_bias"] = bias
        function = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, attend)
        dropout = self.config.attention_dropout if self.training else 0.0
        mixed, weights = function(self, query, key, value, mask, scaling=self.scaling, dropout=dropout, **options)
        return self.output(mixed.flatten(2)), weights

    def _heads(self, x: Tensor) -> Tensor:
        """[B, T, H * C] -> [B, H, T, C]."""
        return x.view(*x.shape[:-1], -1, self.head_dim).transpose(1, 2)

    def _remembered(self, memory: Tensor, cache: Cache | None) -> tuple[Tensor, Tensor]:
        """Keys and values of the memory, computed once a text where there is a cache."""
        if cache is not None and cache.is_updated.get(self.layer_idx):
            layer = cache.cross_attention_cache.layers[self.layer_idx]
            return layer.keys, layer.values
        key, value = self._heads(self.key(memory)), self._heads(self.value(memory))
        if cache is not None:
            key, value = cache.cross_attention_cache.update(key, value, self.layer_idx)
            cache.is_updated[self.layer_idx] = True
        return key, value


def own_cache(cache: Cache | None) -> Cache | None:
    """The part of a cache that holds a decoder's own tokens."""
    return cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache


class FeedForward(nn.Module):
    """Each token for itself: widen, bend, narrow; a gated one multiplies what it bends by what it does not."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        wide = partial(nn.Linear, config.hidden_size, config.intermediate_size, bias=config.feed_forward_bias)
        self.activation = ACTIVATIONS[config.activation]
        self.gate = wide() if config.gated else None
        self.up = wide()
        self.down = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.feed_forward_bias)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, D], through [B, T, F]."""
        wide = self.activation(self.up(x)) if self.gate is None else self.activation(self.gate(x)) * self.up(x)
        narrow: Tensor = self.down(wide)
        return narrow


# ------------------------------------------------------------------------------------ block and stack


class Block(GradientCheckpointingLayer):
    """Attention to itself, to the memory (in the decoder of an encoder-decoder), feed-forward: each added to what came in."""

    def __init__(self, config: Config, layer_idx: int, *, causal: bool, cross: bool) -> None:
        super().__init__()
        self.is_pre_norm = config.norm_place == "pre"
        self.dropout = nn.Dropout(config.dropout)
        self.attention = Attention(config, layer_idx, causal=causal)
        self.attention_norm = make_norm(config)
        if cross:
            self.cross_attention = Attention(config, layer_idx, causal=False)
            self.cross_attention_norm = make_norm(config)
        self.feed_forward = FeedForward(config)
        self.feed_forward_norm = make_norm(config)

    def forward(
        self, x: Tensor, memory: Tensor | None, own: Given, cross: Given, past_key_values: Cache | None = None
    ) -> Tensor:
        """x [B, T, D] -> [B, T, D]; `memory` [B, S, D]; `own` and `cross` are what the two attentions are given."""
        cache = past_key_values
        x = self._add(x, self.attention_norm, lambda y: self.attention(y, cache=own_cache(cache), **own)[0])
        if memory is not None:
            look = partial(self.cross_attention, memory=memory, cache=cache, **cross)
            x = self._add(x, self.cross_attention_norm, lambda y: look(y)[0])
        return self._add(x, self.feed_forward_norm, self.feed_forward)

    def _add(self, x: Tensor, norm: nn.Module, layer: Callable[[Tensor], Tensor]) -> Tensor:
        """The residual connection, with the norm before the layer (Xiong et al. 2020) or after the sum (Vaswani et al.)."""
        if self.is_pre_norm:
            added: Tensor = x + self.dropout(layer(norm(x)))
            return added
        normed: Tensor = norm(x + self.dropout(layer(x)))
        return normed


class Stack(LyditeTransformerPreTrainedModel):
    """Embeddings, positions, blocks and a last norm: an encoder, or (`causal`) a decoder, that may look at a memory (`cross`).

    Fresh weights are normal with standard deviation `initializer_range`, biases 0, norms 1 (Devlin et al. 2019). With
    pre-norm, the matrices that write into the residual stream are smaller by the square root of the number of those
    (Radford et al. 2019, section 2.3), so that its variance does not grow with depth.
    """

    _can_record_outputs = {  # noqa: RUF012 (transformers defines it so)
        "hidden_states": Block,
        "attentions": OutputRecorder(Attention, index=1, layer_name="attention"),
        "cross_attentions": OutputRecorder(Attention, index=1, layer_name="cross_attention"),
    }

    def __init__(self, config: Config, *, causal: bool, cross: bool = False) -> None:
        super().__init__(config)
        self.causal, self.width = causal, config.hidden_size
        if not cross:  # the decoder of an encoder-decoder borrows the encoder's
            self.tokens = nn.Embedding(config.vocab_size, self.width)
        if config.position == "learned":
            self.positions = nn.Embedding((config.max_position_embeddings or 0) + config.position_offset, self.width)
        if config.position == "relative":
            self.distances = nn.Embedding(config.relative_num_buckets, config.num_attention_heads)
        if config.type_vocab_size:
            self.segments = nn.Embedding(config.type_vocab_size, self.width)
        self.embedding_norm = make_norm(config) if config.embedding_norm else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)
        depth = config.decoder_layers if cross else config.num_hidden_layers
        self.blocks = nn.ModuleList(Block(config, n, causal=causal, cross=cross) for n in range(depth))
        self.norm = make_norm(config) if config.norm_place == "pre" else None
        self.gradient_checkpointing = False
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        writers = [layer for name, layer in self.named_modules() if name.endswith((".output", ".down"))]
        if module in writers and self.norm is not None:
            init.normal_(module.weight, std=self.config.initializer_range / math.sqrt(len(writers)))

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        memory: tuple[Tensor, Tensor | None] | None = None,
        **options: Any,
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """Tokens [B, T] (or their vectors [B, T, D]) -> last_hidden_state [B, T, D].

        attention_mask [B, S]: 1 for tokens, 0 for padding; token_type_ids [B, T]: segments; memory: states [B, S, D] of
        an encoder and the mask of their tokens [B, S].
        """
        x = (self.tokens(input_ids) if inputs_embeds is None else inputs_embeds) * self.config.embedding_scale
        if self.causal and use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
            if memory is not None:
                past_key_values = EncoderDecoderCache(past_key_values, DynamicCache(config=self.config))
        cache = own_cache(past_key_values)
        start = 0 if cache is None else cache.get_seq_length()
        slots = torch.arange(x.shape[1], device=x.device) + start  # [T]: where each token stands in its row
        position_ids = slots[None] if position_ids is None else position_ids  # [B or 1, T]
        x = self.dropout(self.embedding_norm(self._place(x, position_ids, token_type_ids)))
        bias = self._bias(slots, x.shape[1] if cache is None else cache.get_mask_sizes(x.shape[1], 0)[0], x.dtype)
        turn = self._turn(position_ids, x.dtype)
        states, memory_mask = (None, None) if memory is None else memory
        if memory is not None:
            memory_mask = create_bidirectional_mask(self.config, x, memory_mask, encoder_hidden_states=states)
        if self.causal:
            mask = create_causal_mask(self.config, x, attention_mask, cache, position_ids)
        else:
            mask = create_bidirectional_mask(self.config, x, attention_mask)
        own, cross = {"mask": mask, "turn": turn, "bias": bias} | options, {"mask": memory_mask} | options
        for block in self.blocks:
            x = block(x, states, own, cross, past_key_values=past_key_values)
        x = x if self.norm is None else self.norm(x)
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=x, past_key_values=past_key_values)

    def _place(self, x: Tensor, positions: Tensor, segments: Tensor | None) -> Tensor:
        """Token vectors [B, T, D] with what is added to them: segments and absolute positions."""
        if self.config.type_vocab_size:
            x = x + self.segments(torch.zeros_like(positions) if segments is None else segments)
        elif segments is not None and segments.any():
            raise ModelError("this model has no segment embeddings (type_vocab_size is 0), so token_type_ids must be 0")
        if self.config.position == "learned":
            x = x + self.positions(positions + self.config.position_offset)
        if self.config.position == "sinusoidal":
            x = x + sinusoid(positions, self.width).to(x.dtype)
        return x

    def _turn(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
        """Cosines and sines [B, 1, T, C / 2] by which rotary positions turn queries and keys."""
        if self.config.position != "rotary":
            return None
        angle = angles(positions, self.config.head_dim, self.config.rope_theta)[:, None]
        return angle.cos().to(dtype), angle.sin().to(dtype)

    def _bias(self, slots: Tensor, num_keys: int, dtype: torch.dtype) -> Tensor | None:
        """[1, H, T, S]: what the distance of two tokens adds to the product of their query and key."""
        if self.config.position not in ("relative", "alibi"):
            return None
        distance = torch.arange(num_keys, device=slots.device) - slots[:, None]  # [T, S]
        if self.config.position == "alibi":
            return alibi(distance, self.config.num_attention_heads).to(dtype)
        buckets, farthest = self.config.relative_num_buckets, self.config.relative_max_distance
        numbers: Tensor = self.distances(distance_bucket(distance, buckets, farthest, causal=self.causal))  # [T, S, H]
        return numbers.permute(2, 0, 1)[None].to(dtype)


# ------------------------------------------------------------------------------------ model and heads


class LyditeTransformerModel(LyditeTransformerPreTrainedModel):
    """The network without a head: an encoder, a decoder, or an encoder whose states are the memory of a decoder."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        if config.shape != "decoder":
            self.encoder = Stack(config, causal=False)
        if config.shape != "encoder":
            self.decoder = Stack(config, causal=True, cross=config.is_encoder_decoder)
        self.post_init()

    @property
    def first(self) -> Stack:
        """The stack that reads the input and owns the token embeddings."""
        return self.decoder if self.config.shape == "decoder" else self.encoder

    def get_input_embeddings(self) -> nn.Module:
        """[B, T] -> [B, T, D]: a vector a token."""
        return self.first.tokens

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Put other token embeddings in their place."""
        self.first.tokens = value

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: Any = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        **options: Any,
    ) -> Any:
        """As Stack for an encoder or a decoder; an encoder-decoder reads input_ids [B, S] (or takes what it made of them
        before: encoder_outputs), then decoder_input_ids [B, T]. Options go to both."""
        if not self.config.is_encoder_decoder:
            if self.config.shape == "decoder":
                options |= {"past_key_values": past_key_values, "use_cache": use_cache}
            return self.first(input_ids, attention_mask, **options)
        if encoder_outputs is None:
            encoder_outputs = self.encoder(input_ids, attention_mask, **options)
        elif isinstance(encoder_outputs, tuple):
            encoder_outputs = BaseModelOutput(*encoder_outputs)
        out = self.decoder(
            inputs_embeds=self.encoder.tokens(decoder_input_ids),
            attention_mask=decoder_attention_mask,
            memory=(encoder_outputs[0], attention_mask),
            past_key_values=past_key_values,
            use_cache=use_cache,
            **{key: value for key, value in options.items() if key != "inputs_embeds"},
        )
        return Seq2SeqModelOutput(
            last_hidden_state=out.last_hidden_state,
            past_key_values=out.past_key_values,
            decoder_hidden_states=out.hidden_states,
            decoder_attentions=out.attentions,
            cross_attentions=out.cross_attentions,
            encoder_last_hidden_state=encoder_outputs[0],
            encoder_hidden_states=encoder_outputs.hidden_states,
            encoder_attentions=encoder_outputs.attentions,
        )
