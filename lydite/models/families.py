"""Which kind of model a checkpoint folder holds, read from its config.json alone.

The family decides which loader answers for the folder and by which rule it scores. A checkpoint says what it is by the
class that wrote it (`architectures`); where that is missing, its `model_type` and what transformers maps it to decide.

Contract: one family for every folder that `load_model` can load, and for every other a ModelError whose one line says
what the checkpoint is and what can be done with it. Importing this module imports neither torch nor transformers.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from lydite.errors import ModelError

Family = Literal["causal", "masked", "seq2seq", "permutation", "classifier", "span", "lstm", "ngram"]

_OWN: Mapping[str, Family] = {"lydite_ngram": "ngram", "lydite_lstm": "lstm"}
_SHAPES: Mapping[str, Family] = {"encoder": "masked", "decoder": "causal", "encoder-decoder": "seq2seq"}
"""Of our own Transformer (`lydite_transformer`)."""
_HEADS: tuple[tuple[str, Family], ...] = (
    ("ForSequenceClassification", "classifier"),
    ("ForQuestionAnswering", "span"),
    ("ForQuestionAnsweringSimple", "span"),
    ("ForMaskedLM", "masked"),
    ("ForCausalLM", "causal"),
)
"""How the names of classes end."""
_PERMUTATION = ("xlnet",)
_DECODERS = ("LMHeadModel", "DoubleHeadsModel")
_REFUSED = {
    "ElectraForPreTraining": "an ELECTRA discriminator: it tells replaced tokens from real ones and has no "
    "language-model head; load the generator (ElectraForMaskedLM) to score texts, or train a head on it for labels or spans",
    "XLNetForQuestionAnswering": "a span head with a beam search of its own; train an XLNetForQuestionAnsweringSimple",
    "ForTokenClassification": "a head that labels single tokens, which no request asks for; train a head for whole texts",
    "ForMultipleChoice": "a head that compares choices, which no request asks for; train a head for labels",
    "ForNextSentencePrediction": "a next-sentence head, which no request asks for; load its masked model (ForMaskedLM)",
}
_NO_HEAD = (
    "a backbone without a head: it gives vectors, but neither likelihoods nor labels nor spans; "
    "name a checkpoint with a head, or train one on it"
)


def family_of(folder: Path) -> Family:
    """The family of the checkpoint in `folder`; raises ModelError where there is none or it is of no use here."""
    config = read_config(Path(folder))
    if config is None:
        raise ModelError(
            f"{folder} is no checkpoint: it has no config.json; name a folder that save_pretrained has written"
        )
    return family_of_config(config, str(folder))


def family_of_config(config: Mapping[str, Any], shown: str) -> Family:
    """As `family_of`, for a config that was read; `shown` names the checkpoint in messages."""
    kind = str(config.get("model_type") or "")
    if kind in _OWN:
        return _OWN[kind]
    named = next((name for name in config.get("architectures") or () if isinstance(name, str)), "")
    for end, why in _REFUSED.items():
        if named.endswith(end):
            raise ModelError(f"{shown} is {why}")
    for end, family in _HEADS:
        if named.endswith(end):
            return family
    if kind == "lydite_transformer":
        return _own_shape(config, named, shown)
    if kind in _PERMUTATION:
        return "permutation"
    if config.get("is_encoder_decoder"):
        return "seq2seq"
    return _by_kind(config, kind, named, shown)


def read_config(folder: Path, shown: str | None = None) -> dict[str, Any] | None:
    """config.json of a folder; None where there is none. Raises ModelError where it cannot be read."""
    return read_json(folder / "config.json", shown or str(folder))


def read_json(path: Path, shown: str) -> dict[str, Any] | None:
    """A JSON object of a checkpoint; None where there is no such file. Raises ModelError where it cannot be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise ModelError(f"{shown}: {path.name} cannot be read ({error}); fetch the checkpoint again") from None
    if not isinstance(content, dict):
        raise ModelError(f"{shown}: {path.name} is no JSON object; fetch the checkpoint again")
    return content


def _own_shape(config: Mapping[str, Any], named: str, shown: str) -> Family:
    if named.endswith("Model"):
        raise ModelError(f"{shown} ({named}) is {_NO_HEAD}")
    shape = str(config.get("shape"))
    if shape not in _SHAPES:
        raise ModelError(f"{shown} has the shape {shape!r}; a lydite_transformer is one of {', '.join(_SHAPES)}")
    return _SHAPES[shape]


def _by_kind(config: Mapping[str, Any], kind: str, named: str, shown: str) -> Family:
    """What transformers loads a model of this type as, where the class says no more."""
    both = named.endswith("WithLMHeadModel")  # XLM: its config says whether it reads to the left only
    if config.get("is_decoder") or config.get("causal") or (named.endswith(_DECODERS) and not both):
        return "causal"
    # Imported here because it brings torch along.
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    bare = named.endswith("Model") and not both
    if kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not bare:
        return "masked"
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return "causal"  # also where its head, tied to the embeddings, was not saved
    if bare:
        raise ModelError(f"{shown} ({named}) is {_NO_HEAD}")
    if named and kind:
        return "causal"  # code that comes along with a checkpoint, or texts and images: the loader knows
    raise ModelError(
        f"{shown} is a {named or kind or 'checkpoint of no known type'}, which is no language model, classifier or "
        "span head that can be loaded; name a checkpoint of one"
    )
