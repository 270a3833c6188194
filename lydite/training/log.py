"""log.jsonl of a run folder: what was measured at which step, one strict JSON record a line.

Contract: records up to the step that a run continues from are kept, later ones (of steps that are done again) are dropped,
and so is a torn last line: the file always tells one story. No torch here; the training page is drawn from this file.
"""

import math
import os
from pathlib import Path

import msgspec

from lydite.errors import RunError
from lydite.runs import encode, write_bytes

NAME = "log.jsonl"


class _Line(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """The base of all lines."""

    step: int
    """Updates that were done when it was written."""


class StepLine(_Line, frozen=True, kw_only=True, tag="step"):
    """One update."""

    loss: float
    """Weighted sum of the means of its parts, nats."""
    parts: dict[str, float]
    """Mean of each part, nats per labelled position or pair."""
    learning_rate: float
    grad_norm: float
    """Before clipping."""
    tokens: int
    """Read so far, without padding."""
    tokens_per_second: float
    peak: float | None = None
    """Fraction of the matrix peak of the machine, where both are known."""
    seconds: float
    """Of training so far."""


class EvalLine(_Line, frozen=True, kw_only=True, tag="eval"):
    """A validation."""

    loss: float
    parts: dict[str, float]
    bits_per_byte: float | None = None
    """Where the loss is a likelihood of all tokens."""
    seconds: float
    is_best: bool = False


class ScoreLine(_Line, frozen=True, kw_only=True, tag="score"):
    """A task of `lydite evaluate`."""

    task: str
    metric: str
    value: float
    low: float | None = None
    high: float | None = None


class TextLine(_Line, frozen=True, kw_only=True, tag="text"):
    """What the model wrote."""

    prompt: str
    text: str


class EventLine(_Line, frozen=True, kw_only=True, tag="event"):
    """Something that happened: begun, continued, skipped, finished."""

    what: str
    peak_memory_bytes: int = 0
    """Largest resident size of the process, where the run is finished; 0: not measured."""


Line = StepLine | EvalLine | ScoreLine | TextLine | EventLine
_DECODER = msgspec.json.Decoder(Line)


def read_log(folder: Path) -> list[Line]:
    """All complete lines; RunError where there is no log or it is damaged."""
    path = folder / NAME
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}; name a folder that `lydite pretrain` wrote") from error
    lines = []
    for number, line in enumerate(data.split(b"\n")[:-1], 1):
        try:
            lines.append(_DECODER.decode(line))
        except (msgspec.DecodeError, ValueError) as error:
            raise RunError(f"{path} line {number} is damaged ({error}); delete that line") from error
    return lines


class Log:
    """The file, open for writing, continued after `step`."""

    def __init__(self, folder: Path, step: int) -> None:
        self.path = folder / NAME
        kept = [line for line in read_log(folder) if line.step <= step] if self.path.exists() and step else []
        write_bytes(self.path, _bytes(kept))
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def write(self, *lines: Line) -> None:
        """Appends; RunError where the disk is full, with the log whole up to the line before."""
        for line in lines:
            data = _bytes([line])
            try:
                written = os.write(self._file, data)
                while written < len(data):
                    written += os.write(self._file, data[written:])
            except OSError as error:
                raise RunError(
                    f"cannot write {self.path}: {error.strerror}; free space and run the same command"
                ) from error

    def close(self) -> None:
        os.close(self._file)


def _bytes(lines: list[Line]) -> bytes:
    """JSON has no infinity: records that hold one are never made (guard.py stops before)."""
    for line in lines:
        assert not isinstance(line, StepLine) or math.isfinite(line.loss), line
    return b"".join(encode(line) + b"\n" for line in lines)
