"""Null models: what a number looks like when nothing was understood. For chance checks, tests and documentation.

    uniform            every UTF-8 byte costs ln 256 nats, whatever stands before it. A true distribution over texts, so
                       its bits per byte are exactly 8; among choices it prefers the shortest, which shows how far
                       length alone goes. Generates the empty text (no answer can be read from it). Labels are equally
                       likely; the span is the whole passage.
    random             probability u in (0, 1) from a hash of (seed, context, continuation), with no effect of length:
                       the accuracy of choices lands on chance. (Divided by length, any log-probability favours long
                       choices, this one too.) Generates up to 8 random words, keyed likewise; labels and spans too.
    scripted:FILE      answers from a JSON file, or from a Python function (ScriptedModel): for tests of what happens
                       when a model fails, is slow, returns NaN, or Ctrl-C is pressed.

They answer every kind of request and import neither torch nor transformers. `usage` counts bytes as tokens.
"""

import hashlib
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec

from lydite.engine.stops import stop_in
from lydite.errors import ModelError
from lydite.types import (
    REQUEST_KINDS,
    Completion,
    Failure,
    GenerateRequest,
    LabelProbs,
    LabelRequest,
    LogProbs,
    ModelInfo,
    Output,
    Request,
    RequestKind,
    ScoreRequest,
    Span,
    SpanRequest,
    Usage,
)

NULL_NAMES = ("uniform", "random", "scripted")
ALL_KINDS: tuple[RequestKind, ...] = ("score", "generate", "label", "span")

_LN_256 = math.log(256)
_WORD_TEXT = (
    "the of and to in is was he for it with as his on be at by had not are but from or an they which one you were her "
    "all she there would their we him been has when who will 0 1 2 3 4 5 6 7 8 9 的 一 是 不 了 人 我 在 有 他 这 中 大 来"
)
_WORDS = _WORD_TEXT.split()


class NullModel:
    """A model that answers each request on its own, in order, from `one`."""

    def __init__(self, info: ModelInfo, one: Callable[[Request], Output]) -> None:
        self.info = info
        self.usage = Usage()
        self._one = one

    def answer(self, requests: Sequence[Request]) -> Iterator[tuple[int, Output]]:
        """Exactly one answer a request, in the order of the requests."""
        for position, request in enumerate(requests):
            output = self._one(request)
            self.usage.tokens_requested += len("".join(_texts(request)).encode())
            if isinstance(output, Completion):
                self.usage.tokens_generated += output.num_tokens
            yield position, output


def is_null(spec: str) -> bool:
    """Whether the spec names one of these models."""
    return spec.startswith("null:") or spec.partition(":")[0] in NULL_NAMES


def load_null(spec: str, settings: Mapping[str, Any]) -> NullModel:
    """The null model that `spec` names. Of the settings only `seed` (of `random`) concerns it: the others of a command
    are meant for the models that stand beside it."""
    name, _, file = spec.removeprefix("null:").partition(":")
    if name == "scripted":
        return scripted_from_file(Path(file), source=spec) if file else _refuse(spec)
    if file or name not in NULL_NAMES:
        return _refuse(spec)
    if name == "uniform":
        return uniform_model()
    seed = settings.get("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise ModelError(f"seed must be a whole number, not {seed!r}")
    return random_model(seed)


def _refuse(spec: str) -> NullModel:
    raise ModelError(f"no null model {spec!r}; there are uniform, random and scripted:FILE.json")


def _info(name: str, rule: str, fingerprint: str, **settings: Any) -> ModelInfo:
    return ModelInfo(
        name=name,
        family="null",
        rule=rule,
        can=ALL_KINDS,
        parameters=0,
        fingerprint=fingerprint,
        source=f"null:{name}",
        settings=settings,
    )


def _texts(request: Request) -> tuple[str, ...]:
    """Everything that a request shows to a model, in order."""
    if isinstance(request, ScoreRequest):
        return (request.context, *(f"{m.role}\n{m.content}" for m in request.messages), request.continuation)
    if isinstance(request, GenerateRequest):
        return (request.prompt, *(f"{m.role}\n{m.content}" for m in request.messages))
    if isinstance(request, LabelRequest):
        return (request.text, request.text_pair or "")
    return (request.question, request.passage)


# ----------------------------------------------------------------------------------- uniform and random


def uniform_model() -> NullModel:
    """Every byte costs ln 256 nats."""
    # Bytes from left to right are a likelihood like any causal model's, so it may stand beside one.
    return NullModel(_info("uniform", "causal", "uniform-1"), _uniform_answer)


def _uniform_answer(request: Request) -> Output:
    if isinstance(request, ScoreRequest):
        tokens = tuple(request.continuation)
        logprobs = tuple(-_LN_256 * len(token.encode("utf-8", "surrogatepass")) for token in tokens)
        return LogProbs(tokens=tokens, logprobs=logprobs, greedy=False, rule="causal")
    if isinstance(request, GenerateRequest):
        return Completion(text="", num_tokens=0, finish="stop")
    if isinstance(request, LabelRequest):
        count = len(request.labels)
        return LabelProbs(probs=(1 / count,) * count if count else (0.0,))
    return Span(start=0, end=len(request.passage), text=request.passage)


def random_model(seed: int = 0) -> NullModel:
    """Probabilities, words, labels and spans from a hash of the seed and the request's texts."""
    return NullModel(
        _info("random", "random", f"random-1-{seed}", seed=seed), lambda request: _random_answer(seed, request)
    )


def _random_answer(seed: int, request: Request) -> Output:
    texts = _texts(request)
    if isinstance(request, ScoreRequest):
        total = math.log(_uniform(seed, "score", *texts))
        return LogProbs(tokens=(request.continuation,), logprobs=(total,), greedy=False, rule="random")
    if isinstance(request, GenerateRequest):
        return _random_words(seed, request)
    if isinstance(request, LabelRequest):
        shares = [_uniform(seed, "label", *texts, label) for label in request.labels]
        return LabelProbs(probs=tuple(share / sum(shares) for share in shares) or (_uniform(seed, "number", *texts),))
    words = [(part.start(), part.end()) for part in re.finditer(r"\S+", request.passage)]
    if not words:
        return Span(start=0, end=0, text="")
    first = int(_uniform(seed, "first", *texts) * len(words))
    last = min(first + int(_uniform(seed, "length", *texts) * 5), len(words) - 1)
    start, end = words[first][0], words[last][1]
    return Span(start=start, end=end, text=request.passage[start:end])


def _random_words(seed: int, request: GenerateRequest) -> Completion:
    key = ("words", str(request.seed), *_texts(request))
    wanted = 1 + int(_uniform(seed, "count", *key) * 8)
    count = min(wanted, request.decoding.max_new_tokens)
    words = [_WORDS[int(_uniform(seed, str(number), *key) * len(_WORDS))] for number in range(count)]
    text = "".join(f" {word}" for word in words)
    end = stop_in(text, request.decoding)
    finish: Literal["stop", "length"] = "stop" if end is not None or count == wanted else "length"
    return Completion(text=text[:end], num_tokens=count, finish=finish)


def _uniform(seed: int, *parts: str) -> float:
    """A number in (0, 1) keyed by its arguments; the parts are told apart by their lengths."""
    digest = hashlib.sha256(str(seed).encode())
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(data) + data)
    return (int.from_bytes(digest.digest()[:6], "big") + 0.5) / 2**48


# ------------------------------------------------------------------------------------------- scripted


class Line(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One answer of a script. A line fits a request when everything that it names fits; the first that fits answers.

    Exactly one of `logprob`, `text`, `probs`, `span`, `failure`, `interrupt` is the answer.
    """

    kind: RequestKind | None = None
    sample_id: str | None = None
    index: int | None = None
    contains: str | None = None
    """A piece of the request's texts."""
    logprob: float | Literal["nan"] | None = None
    """log p(continuation | context) in nats; "nan": what a broken model returns."""
    text: str | None = None
    probs: tuple[float, ...] | None = None
    span: tuple[int, int] | None = None
    failure: str | None = None
    interrupt: bool = False
    """Presses Ctrl-C."""
    seconds: float = 0.0
    """How long the answer takes."""

    def fits(self, request: Request) -> bool:
        return (
            self.kind in (None, REQUEST_KINDS[type(request)])
            and self.sample_id in (None, request.sample_id)
            and self.index in (None, request.index)
            and (self.contains is None or self.contains in "\n".join(_texts(request)))
        )


class _Script(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    answers: tuple[Line, ...]


class Answerer(Protocol):
    """What ScriptedModel calls: a request to an Output, or to a plain value (a number for ScoreRequest, a text for
    GenerateRequest, a sequence of probabilities for LabelRequest, (start, end) for SpanRequest)."""

    def __call__(self, request: Request) -> Any: ...


class ScriptedModel(NullModel):
    """Answers from a Python function; whatever the function raises passes through.

    A number that is not finite becomes a Failure, as in a real model. `fingerprint` must differ where answers differ.
    """

    def __init__(self, answerer: Answerer, *, name: str = "scripted", fingerprint: str = "scripted") -> None:
        super().__init__(_info(name, "scripted", fingerprint), lambda request: _as_output(request, answerer(request)))


def scripted_from_file(path: Path, *, source: str) -> ScriptedModel:
    """The scripted model of a JSON file: {"answers": [{"contains": "Paris", "logprob": -1.0}, ...]} (see Line)."""
    try:
        content = path.read_bytes()
        script = msgspec.json.decode(content, type=_Script)
    except FileNotFoundError:
        raise ModelError(f"no script {path.absolute()}; name a JSON file of answers that exists") from None
    except OSError as error:
        raise ModelError(f"the script {path} cannot be read: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise ModelError(f"the script {path} does not fit: {error}") from None
    for number, line in enumerate(script.answers):
        answers = [line.logprob, line.text, line.probs, line.span, line.failure, line.interrupt or None]
        if sum(answer is not None for answer in answers) != 1:
            raise ModelError(
                f"the script {path}: answer {number} must have exactly one of logprob, text, probs, span, failure, "
                "interrupt"
            )

    def answer(request: Request) -> Any:
        line = next((line for line in script.answers if line.fits(request)), None)
        return Failure(reason="the script has no answer") if line is None else _play(line)

    model = ScriptedModel(answer, name=path.stem, fingerprint=hashlib.sha256(content).hexdigest()[:16])
    model.info = msgspec.structs.replace(model.info, source=source)
    return model


def _play(line: Line) -> Any:
    time.sleep(line.seconds)
    if line.interrupt:
        raise KeyboardInterrupt
    if line.failure is not None:
        return Failure(reason=line.failure)
    if line.logprob is not None:
        return math.nan if line.logprob == "nan" else line.logprob
    return next(answer for answer in (line.text, line.probs, line.span) if answer is not None)


def _as_output(request: Request, value: Any) -> Output:
    if isinstance(value, Output):
        return value
    if isinstance(request, ScoreRequest) and isinstance(value, int | float):
        if not math.isfinite(value):
            return Failure(reason=f"the model's log-probability is {value}")
        return LogProbs(tokens=(request.continuation,), logprobs=(float(value),), greedy=False, rule="scripted")
    if isinstance(request, GenerateRequest) and isinstance(value, str):
        return Completion(text=value, num_tokens=len(value.split()), finish="stop")
    if isinstance(request, LabelRequest) and isinstance(value, Sequence) and not isinstance(value, str):
        probs = tuple(float(prob) for prob in value)
        return (
            LabelProbs(probs=probs) if all(map(math.isfinite, probs)) else Failure(reason="a probability is no number")
        )
    if isinstance(request, SpanRequest) and isinstance(value, Sequence) and len(value) == 2:
        start, end = map(int, value)
        return Span(start=start, end=end, text=request.passage[start:end])
    return Failure(reason=f"the script answers a {type(request).__name__} with a {type(value).__name__}")
