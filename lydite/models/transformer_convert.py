"""Checkpoints of BERT, RoBERTa, GPT-2, Llama, T5 and BART -> our Transformer, and back, so that other tools load ours.

Only names and arrangement change: every number stays as it is, bit for bit, and so `export` after `import` gives the
weights that were there. What the two sides call their settings stands in transformer_layouts.py.

Contract: settings that a layout cannot hold, and weights that one side has no place for, are refused with one line that
names them. Dropouts and the spread of fresh weights, which no trained model depends on, are taken over where the other
side has them. Nothing is written unless all of it is.
"""

import copy
import json
import re
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel
from transformers.initialization import no_init_weights

from lydite.errors import ModelError
from lydite.models import own, transformer_heads
from lydite.models.checkpoint import quiet
from lydite.models.transformer_base import LyditeTransformerPreTrainedModel
from lydite.models.transformer_config import LyditeTransformerConfig as Config
from lydite.models.transformer_layouts import LAYOUTS, Layout

_PREFIX = "LyditeTransformer"
_OF_A_TOKENIZER = ("tokenizer*", "vocab*", "merges.txt", "*.model", "special_tokens_map.json", "added_tokens.json")
_COPIED = (*_OF_A_TOKENIZER, "chat_template*")
_CARRIED = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "id2label", "label2id")
"""Settings of both sides that are neither architecture nor weights."""
_FREE = {"dropout", "attention_dropout", "initializer_range", "use_cache", "tie_word_embeddings", *_CARRIED}
"""Our settings that do not change what a trained model computes, or that the weights themselves show."""
_OF_A_POSITION = {
    "learned": {"max_position_embeddings"},
    "rotary": {"rope_theta"},
    "relative": {"relative_num_buckets", "relative_max_distance"},
}
"""Settings that only one kind of positions reads."""


# --------------------------------------------------------------------------------------------- folders


def import_checkpoint(source: Path, target: Path) -> str:
    """The checkpoint in `source`, in one of LAYOUTS, as a lydite_transformer in the new folder `target`; gives the layout.

    Tokenizer and generation settings come along. Raises ModelError where it cannot be read, or holds what ours lacks.
    """
    config = _config(source)
    name = str(config.get("model_type"))
    layout = _layout(name)
    named = (config.get("architectures") or [next(iter(layout.classes.values()))])[0]
    if named not in layout.classes.values():
        raise ModelError(f"{source} holds a {named}; read are {', '.join(layout.classes.values())}")
    _write(source, target, lambda: from_theirs(_load(getattr(transformers, named), source)))
    return name


def export_checkpoint(source: Path, target: Path, layout: str) -> None:
    """The lydite_transformer in `source` in the new folder `target`, as transformers itself loads it in that layout.

    Raises ModelError where it cannot be read, or where the layout cannot hold it.
    """
    own.register()
    config = _config(source)
    if config.get("model_type") != Config.model_type:
        raise ModelError(
            f"{source} is a {config.get('model_type')}, not a lydite_transformer; convert it with --to lydite"
        )
    _layout(layout)
    named = (config.get("architectures") or [""])[0]
    ours = {f"{_PREFIX}{end}": end for one in LAYOUTS.values() for end in one.classes}
    if named not in ours:
        raise ModelError(f"{source} holds a {named or 'network without a head'}; written are {', '.join(sorted(ours))}")
    _write(source, target, lambda: to_theirs(_load(getattr(transformer_heads, named), source), layout))


def _layout(name: str) -> Layout:
    if name not in LAYOUTS:
        raise ModelError(f"no layout {name!r} is known here; there are {', '.join(LAYOUTS)}")
    return LAYOUTS[name]


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ModelError(f"{folder} is no checkpoint: it has no config.json") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder}: config.json cannot be read ({error})") from None
    if not isinstance(config, dict):
        raise ModelError(f"{folder}: config.json is no JSON object")
    return config


def _load(kind: type[PreTrainedModel], folder: Path) -> PreTrainedModel:
    try:
        model, report = kind.from_pretrained(
            str(folder), dtype="auto", use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"the model in {folder} cannot be read: {_line(error)}") from error
    if report["missing_keys"]:
        raise ModelError(
            f"the checkpoint {folder} lacks weights of its architecture: {min(report['missing_keys'])} ..."
        )
    return model


def _line(error: BaseException) -> str:
    """The first line of a library's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _write(source: Path, target: Path, make: Callable[[], PreTrainedModel]) -> None:
    """Model and tokenizer into `target`, which appears when everything is written."""
    if target.exists():
        raise ModelError(f"{target} exists already; name a new folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    with quiet(), tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as part:
        folder = Path(part) / target.name
        make().save_pretrained(folder)
        for path in sorted({path for pattern in _COPIED for path in source.glob(pattern) if path.is_file()}):
            shutil.copyfile(path, folder / path.name)
        _name_tokenizer(source, folder)
        folder.rename(target)


def _name_tokenizer(source: Path, folder: Path) -> None:
    """State the tokenizer's class, which transformers would else guess from the model_type, no longer the same."""
    path = folder / "tokenizer_config.json"
    if not any(path for pattern in _OF_A_TOKENIZER for path in folder.glob(pattern)):
        return
    settings = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if "tokenizer_class" not in settings:
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(source), local_files_only=True)
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise ModelError(f"the tokenizer in {source} cannot be read: {_line(error)}") from error
        settings["tokenizer_class"] = type(tokenizer).__name__
        path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


# --------------------------------------------------------------------------------------------- models


def from_theirs(model: PreTrainedModel) -> LyditeTransformerPreTrainedModel:
    """A model of transformers, of one of the LAYOUTS' classes, as ours: the same numbers under our names."""
    layout = _layout(model.config.model_type)
    end = next(ours for ours, theirs in layout.classes.items() if theirs == type(model).__name__)
    settings = layout.ours(model.config) | _carried(model.config)
    config = Config(**settings | {"tie_word_embeddings": _is_tied(model)})
    theirs = model.state_dict()
    made = _empty(getattr(transformer_heads, _PREFIX + end), config)
    names = layout.names(config)
    weights, used = {}, set()
    for key in made.state_dict():
        place = _place(key, names, layout)
        if place.key not in theirs:
            raise ModelError(f"the checkpoint has no {place.key}, which lydite_transformer needs")
        used.add(place.key)
        weights[key] = place.take(theirs[place.key])
    left = set(theirs) - used - _tied(model) - set(layout.zero)
    if left or any(theirs[key].any() for key in layout.zero):
        raise ModelError(
            f"lydite_transformer has no place for the checkpoint's {', '.join(sorted(left or layout.zero))}"
        )
    filled: LyditeTransformerPreTrainedModel = _filled(made, weights, model)
    return filled


def to_theirs(model: LyditeTransformerPreTrainedModel, layout_name: str) -> PreTrainedModel:
    """Our model as transformers' own class of that layout."""
    layout, config = _layout(layout_name), model.config
    end = type(model).__name__.removeprefix(_PREFIX)
    if end not in layout.classes:
        raise ModelError(f"the {layout_name} layout has no {end}; it has {', '.join(layout.classes)}")
    settings = check(config, layout_name)
    made = _empty(getattr(transformers, layout.classes[end]), getattr(transformers, layout.config)(**settings))
    names = layout.names(config)
    parts: dict[str, dict[int, Tensor]] = defaultdict(dict)
    for key, tensor in model.state_dict().items():
        place = _place(key, names, layout)
        parts[place.key][place.part] = tensor.T if place.is_turned else tensor
    weights = {key: torch.cat([found[n] for n in sorted(found)], dim=-1) for key, found in parts.items()}
    zeros = {key: torch.zeros(made.state_dict()[key].shape, dtype=model.dtype) for key in layout.zero}
    if not _is_tied(model):  # a config that always ties would overlook that these two differ
        made.all_tied_weights_keys.pop("lm_head.weight", None)
    return _filled(made, weights | zeros, model)


def check(ours: Config, layout_name: str) -> dict[str, Any]:
    """The settings of the layout's config for ours; raises ModelError that names what the layout cannot hold."""
    layout = _layout(layout_name)
    shape = "encoder-decoder" if "ForConditionalGeneration" in layout.classes else None
    shape = shape or ("encoder" if "ForMaskedLM" in layout.classes else "decoder")
    if ours.shape != shape:
        raise ModelError(f"the {layout_name} layout cannot hold shape={ours.shape}")
    settings = layout.theirs(ours)
    settings = _carried(ours) | {"tie_word_embeddings": ours.tie_word_embeddings} | settings
    back = Config(**layout.ours(getattr(transformers, layout.config)(**settings)))
    matter = {field.name for field in fields(Config)} - {field.name for field in fields(transformers.PreTrainedConfig)}
    matter -= _FREE
    for position, names in _OF_A_POSITION.items():
        matter -= set() if ours.position == position else names
    differ = sorted(name for name in matter if getattr(back, name) != getattr(ours, name))
    if differ:
        values = ", ".join(f"{name}={getattr(ours, name)}" for name in differ)
        raise ModelError(f"the {layout_name} layout cannot hold {values}")
    return settings


def _carried(config: transformers.PreTrainedConfig) -> dict[str, Any]:
    found = {name: getattr(config, name, None) for name in (*_CARRIED, "problem_type")}
    return {name: value for name, value in found.items() if value is not None}


def _is_tied(model: PreTrainedModel) -> bool:
    head = model.get_output_embeddings()
    return head is None or head.weight is model.get_input_embeddings().weight


def _tied(model: PreTrainedModel) -> set[str]:
    """Names of weights that share their numbers with others."""
    return {*model.all_tied_weights_keys, *model.all_tied_weights_keys.values()}


def _empty(kind: type[PreTrainedModel], config: transformers.PreTrainedConfig) -> PreTrainedModel:
    with no_init_weights():
        return kind(config)


def _filled(model: PreTrainedModel, weights: dict[str, Tensor], source: PreTrainedModel) -> Any:
    """The model with these weights; they must be all of its own, except for those that are tied to them.

    What `source` says about generation comes along.
    """
    for target, first in model.all_tied_weights_keys.items():
        if target in weights:
            weights.setdefault(first, weights[target])
    report = model.load_state_dict(weights, strict=False, assign=True)
    missing = set(report.missing_keys) - _tied(model)
    assert not missing, missing
    assert not report.unexpected_keys, report.unexpected_keys
    model.tie_weights(recompute_mapping=False)
    if source.can_generate():
        model.generation_config = copy.deepcopy(source.generation_config)
    return model.eval()


# --------------------------------------------------------------------------------------------- names


class _Place(NamedTuple):
    """Where one of our tensors stands in their checkpoint."""

    key: str
    part: int
    """Which third of the tensor (along its last axis); 0 also where it is all of it."""
    is_third: bool
    is_turned: bool

    def take(self, tensor: Tensor) -> Tensor:
        tensor = tensor.chunk(3, dim=-1)[self.part] if self.is_third else tensor
        return (tensor.T if self.is_turned else tensor).contiguous()


def _place(key: str, names: dict[str, str], layout: Layout) -> _Place:
    module, _, leaf = key.rpartition(".")
    number = re.search(r"\.blocks\.(\d+)\.", module)
    pattern = module if number is None else module.replace(number[0], ".blocks.#.")
    if pattern not in names:
        raise ModelError(f"the layout of a {layout.config} has no place for {key}")
    name, third = re.fullmatch(r"([^\[]*)(?:\[(\d)\])?", names[pattern]).groups()  # type: ignore[union-attr]
    name = name if number is None else name.replace("#", number[1])
    is_turned = leaf == "weight" and name.endswith(layout.turned) if layout.turned else False
    return _Place(f"{name}.{leaf}", int(third or 0), third is not None, is_turned)
