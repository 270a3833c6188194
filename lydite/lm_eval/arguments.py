"""What lm-evaluation-harness says to a model, in our words: `--model_args` and the options of a generation request.

Arguments are those of its `hf` model where they mean the same. One that has no meaning here is accepted with a warning
that says so, unless it says what is done anyway; one that would change numbers and is not known here is refused.
"""

import difflib
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from lydite.errors import ModelError
from lydite.types import Decoding

log = logging.getLogger(__name__)

OURS = (
    "batch_tokens",
    "packing",
    "kernel",
    "chat_template",
    "source",
    "device_map",
    "add_bos_token",
    "prefix_token_id",
)
"""Model settings that are passed on by their names; None leaves them alone."""

MEANINGLESS: dict[str, tuple[tuple[Any, ...], str]] = {
    "batch_size": ((1, "1", "auto"), "batches are filled by tokens, within batch_tokens"),
    "max_batch_size": ((64,), "batches are filled by tokens, within batch_tokens"),
    "logits_cache": ((True,), "equal prefixes are always computed once"),
    "softmax_dtype": (("float32",), "log-probabilities are always computed in float32"),
    "attn_implementation": ((), "the engine brings its own attention"),
    "low_cpu_mem_usage": ((True,), "weights are always read so"),
    "offload_folder": (("./offload",), "nothing is written out"),
    "use_cache": ((True,), "the engine keeps keys and values itself"),
}
"""Name to (values that say what is done anyway, why another one has no effect)."""

REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "backend": (("default", "causal"), "only causal models are known here"),
    "tokenizer": ((), "save the tokenizer beside the weights"),
    "subfolder": (("",), "give the subfolder itself as pretrained"),
    "truncation": ((False,), "long prompts are cut from the left"),
    "mixed_precision_dtype": ((), "give dtype"),
    "use_fast_tokenizer": ((True,), "joins are found with a fast tokenizer"),
    "max_memory_per_gpu": ((), "give device_map"),
    "max_cpu_memory": ((), "give device_map"),
    "tp_plan": ((), "give device_map"),
    "peft": ((), "merge the adapter and save the model"),
    "delta": ((), "add the weights and save the model"),
    "autogptq": ((False,), "quantised checkpoints that transformers reads by itself need no argument"),
    "gptqmodel": ((False,), "quantised checkpoints that transformers reads by itself need no argument"),
    "gguf_file": ((), "give the path of the .gguf file as pretrained"),
    "load_in_4bit": ((False,), "give a checkpoint that is quantised already"),
    "load_in_8bit": ((False,), "give a checkpoint that is quantised already"),
    "quantization_config": ((), "give a checkpoint that is quantised already"),
}
"""Arguments of `hf` that would change what is computed: (values that change nothing, the mend)."""

_MEANT = (
    "pretrained",
    "revision",
    "dtype",
    "device",
    "trust_remote_code",
    "max_length",
    "parallelize",
    "parity",
    "think_end_token",
    "enable_thinking",
    "chat_template_args",
)


@dataclass(frozen=True)
class Arguments:
    """`--model_args`, understood."""

    dtype: str = "auto"
    """As stored, like `hf`."""
    device: str | None = None
    trust_remote_code: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    """For load_model."""
    think_end_token: str | None = None
    thinking: bool = False


def read_arguments(given: Mapping[str, Any]) -> Arguments:
    """Raises ModelError with one line for what cannot be done; warns of what has no meaning."""
    for key, value in given.items():
        _check(key, value)
    settings: dict[str, Any] = {key: given[key] for key in OURS if given.get(key) is not None}
    if given.get("revision") not in (None, "main"):
        settings["revision"] = str(given["revision"])
    if given.get("max_length") is not None:
        settings["max_tokens"] = given["max_length"]
    if given.get("parallelize"):
        settings.setdefault("device_map", "auto")
    if given.get("parity"):
        settings["rules"] = "lm_eval"
    chat = dict(given.get("chat_template_args") or {})
    if given.get("enable_thinking") is not None:
        chat["enable_thinking"] = given["enable_thinking"]
    if chat:
        settings["chat_options"] = chat
    end = given.get("think_end_token")
    if end is not None and (not isinstance(end, str) or not end or end.isdigit()):
        raise ModelError(f"think_end_token={end!r} must be the text that ends the thinking, such as </think>")
    if given.get("enable_thinking") and end is None:
        raise ModelError("enable_thinking=True needs think_end_token, the text that ends the thinking")
    return Arguments(
        dtype=str(given.get("dtype") or "auto").removeprefix("torch."),
        device=given.get("device"),
        trust_remote_code=bool(given.get("trust_remote_code")),
        settings=settings,
        think_end_token=end,
        thinking=bool(given.get("enable_thinking")),
    )


def _check(key: str, value: Any) -> None:
    if key in MEANINGLESS:
        same, why = MEANINGLESS[key]
        if value is not None and value not in same and not str(value).startswith("auto:"):
            log.warning("%s=%s has no meaning for --model lydite: %s", key, value, why)
    elif key in REFUSED:
        same, mend = REFUSED[key]
        if value is not None and value not in same:
            raise ModelError(f"{key}={value} is not supported by --model lydite: {mend}")
    elif key not in OURS and key not in _MEANT:
        known = sorted({*OURS, *_MEANT, *MEANINGLESS} - {"pretrained"})
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
        raise ModelError(f"unknown model argument {key!r} for --model lydite; {hint}")


# ---------------------------------------------------------------------------------------- generation

MAX_GEN_TOKS = 256
"""Theirs, where a task says nothing."""
_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""Names of one option; the first that is given counts, as there."""
_AS_THEY_ARE = ("top_p", "top_k", "num_beams", "length_penalty", "repetition_penalty")


def read_decoding(given: Mapping[str, Any], eos: str | None = None) -> Decoding:
    """Their generation options as Decoding; `eos`, the text of the end token, stops too, as there.

    Sampling happens only where do_sample, or a temperature without do_sample, asks for it. Raises ModelError for an
    option that is not known here.
    """
    options = {key: value for key, value in given.items() if value is not None}
    until = options.pop("until", [])
    lengths = [options.pop(name) for name in _LENGTHS if name in options]
    temperature = float(options.pop("temperature", 0.0))
    sample = bool(options.pop("do_sample", temperature > 0))
    chosen = {name: options.pop(name) for name in _AS_THEY_ARE if name in options}
    if options:
        key = min(options)
        mend = (
            "use max_gen_toks"
            if key == "max_length"
            else f"known are until, do_sample, temperature, {', '.join((*_LENGTHS[:1], *_AS_THEY_ARE))}"
        )
        raise ModelError(f"unknown generation option {key!r}; {mend}")
    if sample and not (temperature > 0 and math.isfinite(temperature)):
        raise ModelError(f"do_sample=True needs a temperature above 0, not {temperature}")
    stops = [until] if isinstance(until, str) else list(until)
    if "" in stops:
        log.warning("the empty stop string, which would end every answer after one token, is left out")
    if eos:
        stops.append(eos)
    try:
        return msgspec.convert(
            {
                "max_new_tokens": int(lengths[0]) if lengths else MAX_GEN_TOKS,
                "do_sample": sample,
                "temperature": temperature if sample else 1.0,
                "stop_strings": tuple(dict.fromkeys(stop for stop in stops if stop)),
                **(chosen if sample else {k: v for k, v in chosen.items() if k not in ("top_p", "top_k")}),
            },
            Decoding,
        )
    except (msgspec.ValidationError, ValueError, TypeError) as error:
        raise ModelError(f"generation options {dict(given)}: {error}") from error
