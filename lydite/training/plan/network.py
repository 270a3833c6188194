"""A network that holds no numbers: its parameters, operations and saved activations, exact for every architecture.

The model of transformers is made on the `meta` device, and one forward pass runs on PyTorch's fake tensors, which have shapes
and no data: what is multiplied is counted by `torch.utils.flop_counter`, and what autograd keeps for the backward pass is
summed up. The output head is left out of the pass and added by its formula, because Lydite multiplies only labelled
positions with it, in chunks.
"""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES

from lydite.errors import UserError
from lydite.models.checkpoint import quiet
from lydite.training.plan.recipe import Recipe, Training
from lydite.types import Record

_MAKERS = {"causal": AutoModelForCausalLM, "masked": AutoModelForMaskedLM, "seq2seq": AutoModelForSeq2SeqLM}


class Shape(Record, frozen=True, kw_only=True):
    """A network in numbers."""

    family: str
    objective: str
    parameters: int
    """All, shared ones counted once."""
    embedding_parameters: int
    """In tables that are looked up: tokens, positions, types; a tied output head among them."""
    multiplied: int
    """Weights that a position is multiplied with in the body, the output head left out; shared layers counted once."""
    head: int
    """Weights of the output head, tied or not."""
    layers: int
    width: int
    attention_width: int
    """Heads times their width."""
    vocab_size: int
    optimizer_rows: tuple[int, int, int]
    """Parameters of body matrices, other parameters, and rows and columns of all matrices (for Muon and Adafactor)."""


class Pass(Record, frozen=True, kw_only=True):
    """One forward pass over a micro-batch, the output head left out."""

    operations: int
    """Floating-point operations."""
    saved_bytes: int
    """What is kept for the backward pass, weights left out; under autocast their copies are among it."""


class NoHead(nn.Identity):
    """Stands in for an output head, so that a model hands out the states that the head would multiply."""

    bias = None


@quiet()
def make_config(recipe: Recipe, folder: Path) -> Any:
    """The configuration of [model]: a config.json, or a family with its own keys. Raises UserError."""
    model = dict(recipe.model)
    family = None
    try:
        if "config" in model:
            path = folder / str(model.pop("config"))
            if not path.exists():
                raise UserError(f"[model] config: no file {path}")
            config = AutoConfig.from_pretrained(str(path))
        elif isinstance(model.get("family"), str):
            family = model.pop("family")
            config = AutoConfig.for_model(family)
        else:
            raise UserError('[model] needs family = "gpt2" (or another of transformers), or config = "config.json"')
        known = set(config.to_dict()) | set(config.attribute_map)
        unknown = [key for key in model if key not in known]
        if unknown:
            raise UserError(
                f"[model] {unknown[0]} says nothing to {config.model_type}; it knows {_close(unknown[0], known)}"
            )
        if (
            family is not None
        ):  # not from its defaults: some were made of others (heads of keys of all heads), which change
            return type(config)(**_named(config, model))
        return type(config)(**(config.to_diff_dict() | _named(config, model)))
    except (ValueError, OSError, TypeError, KeyError) as error:
        raise UserError(f"[model]: {' '.join(str(error).split())[:300]}") from error


def _named(config: Any, model: dict[str, Any]) -> dict[str, Any]:
    """hidden_size and the like by the name that the family itself gives them."""
    return {config.attribute_map.get(key, key): value for key, value in model.items()}


def _close(key: str, known: set[str]) -> str:
    from difflib import get_close_matches

    return ", ".join(get_close_matches(key, known, n=3, cutoff=0.3) or sorted(known)[:5])


def objective_of(config: Any, training: Training) -> str:
    """The objective that was asked for, or that of the architecture."""
    if training.objective:
        return training.objective
    if config.is_encoder_decoder:
        return "seq2seq"
    if config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return "masked"
    if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise UserError(f"{config.model_type} has no head for language modelling in transformers")
    return "causal"


@quiet()
def make_network(config: Any, objective: str, *, attention: str = "sdpa") -> Any:
    """The model on the device that is current. Raises UserError where the family has no such head."""
    try:
        return _MAKERS[objective].from_config(config, attn_implementation=attention)
    except ValueError as error:
        if attention != "eager" and "attention" in str(error).lower():
            return make_network(config, objective, attention="eager")
        raise UserError(f"[model]: {' '.join(str(error).split())[:300]}") from error


def measure_shape(config: Any, objective: str) -> Shape:
    """Parameters, counted on a model that holds none."""
    with torch.device("meta"), _quiet():
        model = make_network(config, objective)
    model.tie_weights()
    head = model.get_output_embeddings()
    tables = {id(m.weight): m.weight for m in model.modules() if isinstance(m, nn.Embedding)}
    weights = {id(p): p for p in model.parameters()}
    body = {
        key: weight
        for key, weight in weights.items()
        if weight.dim() >= 2 and key not in tables and (head is None or key != id(head.weight))
    }
    matrices = sum(weight.numel() for weight in body.values())
    parameters = sum(weight.numel() for weight in weights.values())
    sizes = [weight.shape for weight in weights.values()]
    factored = sum(s.numel() // s[-1] + s.numel() // s[-2] if len(s) >= 2 else s.numel() for s in sizes)
    text = config.get_text_config(decoder=True)
    heads = text.num_attention_heads
    return Shape(
        family=config.model_type,
        objective=objective,
        parameters=parameters,
        embedding_parameters=sum(weight.numel() for weight in tables.values()),
        multiplied=matrices,
        head=0 if head is None else head.weight.numel(),
        layers=text.num_hidden_layers,
        width=text.hidden_size,
        attention_width=heads
        * (getattr(text, "head_dim", None) or getattr(text, "d_kv", None) or text.hidden_size // heads),
        vocab_size=text.vocab_size,
        optimizer_rows=(matrices, parameters - matrices, factored),
    )


def measure_pass(config: Any, objective: str, training: Training, micro_batch: int) -> Pass | None:
    """The pass on fake tensors; None where the architecture looks at its data and cannot run without."""
    try:
        operations = _run(config, objective, training, micro_batch, attention="eager", count=True)
        saved = _run(config, objective, training, micro_batch, attention="sdpa", count=False)
    except (RuntimeError, NotImplementedError, TypeError, AttributeError, IndexError):
        return None
    return Pass(operations=operations, saved_bytes=saved)


def _run(config: Any, objective: str, training: Training, micro_batch: int, *, attention: str, count: bool) -> int:
    """Operations (`count`) or bytes that autograd saves."""
    with FakeTensorMode(), _quiet():
        model = make_network(config, objective, attention=attention)
        model.train()
        model.set_output_embeddings(NoHead())
        for name, buffer in list(model.named_buffers()):
            if name == "final_logits_bias":  # BART adds it to what would be logits
                model.final_logits_bias = buffer[:, :1]
        inputs = make_inputs(config, objective, training, micro_batch)
        if count:
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                model(**inputs, **_flags(objective))
            return int(counter.get_total_flops())
        kept: dict[int, tuple[Tensor, int]] = {}
        own = {weight.untyped_storage()._cdata for weight in [*model.parameters(), *model.buffers()]}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in own:
                kept[storage._cdata] = (tensor, storage.nbytes())
            return tensor

        low = getattr(torch, training.dtype)
        with saved_tensors_hooks(pack, lambda tensor: tensor), autocast("cpu", low):
            model(**inputs, **_flags(objective))
        return sum(size for _, size in kept.values())


def autocast(device: str, dtype: torch.dtype) -> Any:
    """Products in `dtype`, weights as they are; nothing for float32."""
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device, dtype=dtype)


def make_inputs(config: Any, objective: str, training: Training, micro_batch: int) -> dict[str, Tensor]:
    """Token ids of a micro-batch, all zero but in shape as they will be."""
    inputs = {"input_ids": torch.zeros(micro_batch, training.sequence_length, dtype=torch.long)}
    if objective == "seq2seq":
        length = training.target_length or training.sequence_length
        inputs["decoder_input_ids"] = torch.zeros(micro_batch, length, dtype=torch.long)
    return inputs


def _flags(objective: str) -> dict[str, bool]:
    return {} if objective == "masked" else {"use_cache": False}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
