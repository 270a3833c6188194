"""COMET: a trained metric of translation that reads source, answer and reference (Rei et al. 2020), by its own package.

The package brings its own models and training code, so it is no dependency here: `pip install unbabel-comet`. The model
is downloaded by it once, or named as a local checkpoint file.
"""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lydite.errors import ModelError
from lydite.judge.second_pass import Triple
from lydite.types import Metric

DEFAULT = "Unbabel/wmt22-comet-da"


class Comet:
    """The scorer for a COMET model: a name that the package knows, or the path of a .ckpt file. Of several references the
    best score counts. Raises ModelError where the package is missing or the model cannot be loaded."""

    metrics: tuple[Metric, ...] = (Metric(name="comet"),)

    def __init__(self, model: str = DEFAULT, *, batch_size: int = 8) -> None:
        if importlib.util.find_spec("comet") is None:
            raise ModelError("COMET needs its own package: pip install unbabel-comet")
        import comet

        try:
            path = model if Path(model).is_file() else comet.download_model(model)
            self._model: Any = comet.load_from_checkpoint(path)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ModelError(f"COMET model {model}: {(str(error).splitlines() or ['?'])[0]}; name another") from error
        self.name = f"comet:{model}"
        self._batch_size = batch_size

    def score(self, triples: Sequence[Triple]) -> list[Mapping[str, float]]:
        """One score for each triple."""
        rows = [{"src": t.source, "mt": t.answer, "ref": target} for t in triples for target in t.targets]
        scores = iter(self._model.predict(rows, batch_size=self._batch_size, gpus=0, progress_bar=False)["scores"])
        return [{"comet": max(float(next(scores)) for _ in triple.targets)} for triple in triples]
