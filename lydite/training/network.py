"""The network of a recipe: a family of transformers (or one of ours) with the head that its objective needs.

Contract: no override is dropped in silence; vocabulary and special tokens are the tokenizer's; the same seed gives the
same weights. What `save` writes, plain transformers loads.
"""

import difflib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from lydite.errors import ModelError, RunError, UserError
from lydite.training.recipe import ModelTable

HEADS = {
    "causal": "AutoModelForCausalLM",
    "prefix": "AutoModelForCausalLM",
    "prefix:encoder-decoder": "AutoModelForSeq2SeqLM",
    "permutation": "AutoModelForCausalLM",
    "masked": "AutoModelForMaskedLM",
    "seq2seq": "AutoModelForSeq2SeqLM",
    "denoising": "AutoModelForSeq2SeqLM",
    "span_corruption": "AutoModelForSeq2SeqLM",
    "replaced": "AutoModelForPreTraining",
    "next_sentence": "AutoModelForPreTraining",
    "sentence_order": "AutoModelForPreTraining",
}
"""Class of transformers by objective (recipe.kind_of). Objectives with a second task beside masks need the pre-training head."""


def build_network(table: ModelTable, objectives: list[str], tokenizer: Any, seed: int) -> PreTrainedModel:
    """The network, in float32, freshly drawn or read from `init`. Raises ModelError and UserError."""
    if table.family.startswith("lydite_") or _kind(table.init).startswith("lydite_"):
        from lydite.models.own import register

        register()
    if table.init and not (Path(table.init) / "config.json").is_file():
        raise ModelError(f"model.init: {table.init} is no folder of a model, which has config.json; check the path")
    head = getattr(transformers, head_class(objectives))
    torch.manual_seed(seed)
    options = {"attn_implementation": table.attention} if table.attention else {}
    try:
        if table.init:
            with quiet():
                network = head.from_pretrained(table.init, dtype=torch.float32, local_files_only=True, **options)
        else:
            network = head.from_config(make_config(table, tokenizer), dtype=torch.float32, **options)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if "Unrecognized configuration class" in line:
            line = (
                f"transformers has no {head.__name__} of {table.family or table.init}, which {', '.join(objectives)} trains; "
                "docs/objectives.md says which families learn what"
            )
        raise ModelError(f"[model] cannot be built: {line}") from error
    assert isinstance(network, PreTrainedModel)
    if network.config.is_encoder_decoder and head.__name__ != "AutoModelForSeq2SeqLM":
        raise ModelError(
            f"{type(network).__name__} is an encoder-decoder; {', '.join(objectives)} trains networks of one stack"
        )
    size = network.get_input_embeddings().num_embeddings
    if size < len(tokenizer):
        raise ModelError(f"the network has {size} embeddings and the tokenizer {len(tokenizer)} tokens; set vocab_size")
    return network


def head_class(objectives: list[str]) -> str:
    """The class that serves all objectives; UserError where they need different ones."""
    found = {HEADS.get(name, "AutoModelForCausalLM") for name in objectives}
    if found == {"AutoModelForMaskedLM", "AutoModelForPreTraining"}:
        return "AutoModelForPreTraining"
    if len(found) > 1:
        raise UserError(f"the objectives {', '.join(objectives)} need different heads; train them one after another")
    return found.pop()


def make_config(table: ModelTable, tokenizer: Any) -> PreTrainedConfig:
    """The family's config with overrides, vocabulary and special tokens."""
    try:
        default = AutoConfig.for_model(table.family)
    except ValueError as error:
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

        near = difflib.get_close_matches(table.family, CONFIG_MAPPING_NAMES, 3, 0.5)
        mend = f"did you mean {' or '.join(near)}?" if near else "name a model_type of transformers"
        raise ModelError(f"unknown family {table.family!r}; {mend}") from error
    known = set(default.to_dict()) | set(type(default).attribute_map)
    for key in table.config:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1, 0.5)
            mend = f"did you mean {near[0]}?" if near else "see the config of that family in transformers"
            raise UserError(f"unknown key model.config.{key} of {table.family}; {mend}")
    # What the tokenizer does not have, the network must not claim: the family's default is a token of another vocabulary.
    special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    if tokenizer.pad_token_id is not None:
        special["pad_token_id"] = tokenizer.pad_token_id
    if getattr(default, "forced_eos_token_id", None) is not None:  # what BART writes where it may write no more
        special["forced_eos_token_id"] = tokenizer.eos_token_id
    chosen: dict[str, Any] = {"vocab_size": len(tokenizer), **special, **table.config}
    try:
        config = AutoConfig.for_model(table.family, **chosen)
    except (TypeError, ValueError, StrictDataclassError) as error:
        line = str(error).strip().splitlines()[-1].strip()  # the last says what, those before where in the library
        raise ModelError(f"model.config does not fit {table.family}: {line}") from error
    if config.is_encoder_decoder and "decoder_start_token_id" not in table.config:
        config.decoder_start_token_id = _start(table.family, default, special)
    return config


def _start(family: str, default: PreTrainedConfig, special: Mapping[str, int | None]) -> int | None:
    """What a decoder begins with: the tokenizer's token of the role that it has in the family (BART's is the end of a
    sentence), and padding where the config does not say (T5)."""
    usual = getattr(default, "decoder_start_token_id", None)
    roles = ["pad_token_id", "bos_token_id", "eos_token_id"]
    if family == "mbart":  # its own is a language, which a recipe's tokenizer does not have
        roles = ["eos_token_id"]
    elif usual is not None:
        roles.sort(key=lambda role: getattr(default, role, None) != usual)
    return next((special[role] for role in roles if special.get(role) is not None), None)


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars of transformers; its setting comes back afterwards."""
    bars = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        if bars:
            transformers.utils.logging.enable_progress_bar()


def _kind(folder: str) -> str:
    """model_type of a checkpoint; empty where there is none to read (from_pretrained then says why)."""
    if not folder:
        return ""
    try:
        return str(json.loads((Path(folder) / "config.json").read_text(encoding="utf-8")).get("model_type"))
    except (OSError, ValueError):
        return ""


def save(network: PreTrainedModel, weights: Mapping[str, Tensor], tokenizer: Any, folder: Path) -> None:
    """Writes a folder that plain transformers loads, in float32, in one step: config.json, model.safetensors, tokenizer.

    `weights`: float32, by the names of `network.named_parameters()`.
    """
    named = {id(weight): weights[name].detach() for name, weight in network.named_parameters() if name in weights}
    # Tied weights stand in state_dict under each of their names, and must still be one tensor.
    state = {
        name: named.get(id(tensor), tensor.detach()) for name, tensor in network.state_dict(keep_vars=True).items()
    }
    state = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    for left in (*folder.parent.glob(f".{folder.name}.*.tmp"), *folder.parent.glob(f".{folder.name}.*.old")):
        shutil.rmtree(left, ignore_errors=True)  # by a process that was killed: a run folder has one at a time
    was = network.config.dtype
    try:
        with quiet():
            network.save_pretrained(str(beside), state_dict=state)
        network.config.dtype = torch.float32  # save_pretrained writes that of the network as it computes
        network.config.save_pretrained(str(beside))
        tokenizer.save_pretrained(str(beside))
        for path in beside.iterdir():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        _replace(beside, folder)
    except OSError as error:
        raise RunError(f"cannot write {folder}: {error.strerror}; free space and run the same command") from error
    finally:
        network.config.dtype = was
        shutil.rmtree(beside, ignore_errors=True)


def _replace(beside: Path, folder: Path) -> None:
    if folder.exists():
        grave = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.old")
        os.replace(folder, grave)
        os.replace(beside, folder)
        shutil.rmtree(grave, ignore_errors=True)
    else:
        os.replace(beside, folder)
