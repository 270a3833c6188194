"""The nouns that everything in Lydite passes around.

Records are frozen `msgspec.Struct`s: strict JSON in both directions, unknown fields refused, and no non-finite number,
because msgspec writes NaN as null in silence. `Metric`, `Task` and `Group` hold functions, so they are dataclasses
and never written: a Run stores the name, version and fingerprint of its task instead.

Log-probabilities are in nats. A missing score is `None` with a status, never 0 and never NaN.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import msgspec

from lydite.checks import check_decoding, finite


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag=True):
    """The base of all records: frozen, keyword-only, tagged with its name, strict when read."""


# ---------------------------------------------------------------------------------------------- data


class Message(Record, frozen=True, kw_only=True):
    """One turn of a dialogue."""

    role: Literal["system", "user", "assistant"]
    content: str


Context = str | tuple[Message, ...]
"""What a model is given before it answers: plain text, or messages for its chat template."""


class Sample(Record, frozen=True, kw_only=True):
    """The unit of scoring: one question, one minimal pair, one document."""

    id: str
    """Unique within the task; survives reordering of the file."""
    input: str = ""
    """The text that a reader of the report should see first (the question, the document)."""
    choices: tuple[str, ...] = ()
    gold: tuple[int, ...] = ()
    """Indices of the right choices."""
    targets: tuple[str, ...] = ()
    """Reference texts; any of them is right."""
    fields: dict[str, Any] = {}
    """The row that templates see; JSON values only."""
    cluster: str | None = None
    """Samples that share a passage, paradigm ... share a cluster; errors are then clustered."""
    metadata: dict[str, str] = {}
    """Labels to slice by in reports: subject, language, phenomenon ..."""


# ------------------------------------------------------------------------------------------ requests


class Decoding(Record, frozen=True, kw_only=True):
    """How text is generated; names as in transformers' GenerationConfig, and as in SGLang for what the answer must be."""

    max_new_tokens: int = 256
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    """0: no limit."""
    top_p: float = 1.0
    min_p: float = 0.0
    """Tokens less likely than so many times the most likely one are left out."""
    typical_p: float = 1.0
    """Locally typical sampling: the mass of tokens whose surprise is nearest to the entropy; 1: off."""
    num_beams: int = 1
    length_penalty: float = 1.0
    repetition_penalty: float = 1.0
    """Divides positive and multiplies negative logits of tokens that stand in the prompt or the new text."""
    presence_penalty: float = 0.0
    """Taken off the logits of tokens that stand in the new text."""
    stop_strings: tuple[str, ...] = ()
    """The text is cut before the first of them."""
    one_line: bool = False
    """The text ends with its first line; line breaks before that line, with which many models begin, do not count."""
    regex: str | None = None
    """The whole answer matches this regular expression (Rust's syntax, no look-around). At most one of `regex`,
    `json_schema` and `choices` is set; each begins with the answer's first character, a leading space included."""
    json_schema: str | dict[str, Any] | None = None
    """The answer is JSON of this schema; given as an object or its text, kept as text so that options can be keys."""
    choices: tuple[str, ...] = ()
    """The answer is one of these texts; none: it is free."""

    def __post_init__(self) -> None:
        if isinstance(self.json_schema, dict):  # the order of properties is kept: answers follow it
            msgspec.structs.force_setattr(self, "json_schema", msgspec.json.encode(self.json_schema).decode())
        check_decoding(self)

    @property
    def is_constrained(self) -> bool:
        """Whether not every text may be written."""
        return self.regex is not None or self.json_schema is not None or bool(self.choices)


class ScoreRequest(Record, frozen=True, kw_only=True):
    """Asks for log p(continuation | context)."""

    sample_id: str
    index: int
    """Number of the request within its sample."""
    context: str = ""
    messages: tuple[Message, ...] = ()
    """Instead of `context`: the model applies its chat template and the continuation begins its next turn."""
    continuation: str
    """Carries its own leading space."""
    window: Literal["none", "max_context", "disjoint"] = "none"
    """How a continuation longer than the model is scored: `none` truncates the context from the left; `max_context`
    slides so that each token sees the most context that the model allows; `disjoint` cuts it into pieces."""


class GenerateRequest(Record, frozen=True, kw_only=True):
    """Asks for text that continues a prompt."""

    sample_id: str
    index: int
    prompt: str = ""
    messages: tuple[Message, ...] = ()
    decoding: Decoding = Decoding()
    seed: int = 0


class LabelRequest(Record, frozen=True, kw_only=True):
    """Asks a classification or regression head about one text or a pair."""

    sample_id: str
    index: int
    text: str
    text_pair: str | None = None
    labels: tuple[str, ...] = ()


class SpanRequest(Record, frozen=True, kw_only=True):
    """Asks an extractive head for the span of the passage that answers the question."""

    sample_id: str
    index: int
    question: str
    passage: str


Request = ScoreRequest | GenerateRequest | LabelRequest | SpanRequest
RequestKind = Literal["score", "generate", "label", "span"]
REQUEST_KINDS: dict[type, RequestKind] = {
    ScoreRequest: "score",
    GenerateRequest: "generate",
    LabelRequest: "label",
    SpanRequest: "span",
}


# ------------------------------------------------------------------------------------------- answers


class LogProbs(Record, frozen=True, kw_only=True):
    """Log-probabilities of the scored tokens, in order, in nats."""

    tokens: tuple[str, ...]
    logprobs: tuple[float, ...]
    greedy: bool
    """Whether each scored token is the most likely one given those before it."""
    rule: str
    """How it was scored (`causal`, `pseudo`, ...); different rules are never ranked against each other."""
    join: Literal["clean", "spanned"] = "clean"
    """`spanned`: a token crosses the border of context and continuation, so scoring starts at the last common token border before it."""
    num_truncated: int = 0
    """Tokens of context dropped on the left because the model is too short."""

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, self.logprobs)):
            finite("LogProbs", *self.logprobs)
        if len(self.tokens) != len(self.logprobs):
            raise ValueError(f"LogProbs has {len(self.tokens)} tokens but {len(self.logprobs)} numbers")

    @property
    def total(self) -> float:
        """log p(continuation | context)."""
        return math.fsum(self.logprobs)


class Completion(Record, frozen=True, kw_only=True):
    """Generated text, without the prompt and cut before the stop string."""

    text: str
    num_tokens: int
    finish: Literal["stop", "length"]
    """`stop`: the model or a stop string ended it; `length`: it was cut by max_new_tokens."""
    num_truncated: int = 0
    """Tokens of the prompt dropped on the left."""


class LabelProbs(Record, frozen=True, kw_only=True):
    """Probabilities over the labels of a LabelRequest (or one number for regression)."""

    probs: tuple[float, ...]
    num_truncated: int = 0
    """Tokens that were cut off because the model is too short."""

    def __post_init__(self) -> None:
        finite("LabelProbs", *self.probs)


class Span(Record, frozen=True, kw_only=True):
    """A span of the passage; `text` is empty where the head says that there is no answer."""

    start: int
    end: int
    text: str
    no_answer_prob: float | None = None

    def __post_init__(self) -> None:
        finite("Span", self.no_answer_prob)


class Failure(Record, frozen=True, kw_only=True):
    """The model could not answer this request; the sample is counted as failed, never as wrong."""

    reason: str
    transient: bool = False
    """It may be answered the next time (a server that was busy or away): a run that is continued asks again."""


Output = LogProbs | Completion | LabelProbs | Span | Failure


# -------------------------------------------------------------------------------- scores and metrics


class Score(Record, frozen=True, kw_only=True):
    """What one metric says of one sample."""

    sample_id: str
    metric: str
    value: float | None
    status: Literal["ok", "no_answer", "error"] = "ok"
    """`no_answer`: the model answered, but no answer could be read from it (a wrong answer: the value is its score);
    `error`: no score at all (the value is None)."""
    stats: tuple[float, ...] = ()
    """Sufficient statistics for metrics with `finish`; empty for means of `value`."""
    answer: str | None = None
    """The answer as it was read from the output, for people and for audits."""
    by: str = "auto"
    """"auto", "judge:..." or "human:..."."""
    note: str = ""

    def __post_init__(self) -> None:
        finite("Score", self.value, *self.stats)
        if (self.value is None) != (self.status == "error"):
            raise ValueError(f"Score {self.metric} of {self.sample_id}: a missing value and status 'error' go together")


@dataclass(frozen=True, kw_only=True)
class Metric:
    """Per-sample statistics plus a function of their sum.

    With neither `finish` nor `finish_rows` the metric is the mean of the samples' values.
    """

    name: str
    higher_is_better: bool = True
    unit: str = ""
    """"proportion" for values that are all 0 or 1; else "nats", "bits", "chars" ... or empty."""
    bounds: tuple[float, float] | None = None
    """Least and largest value of a sample, where there are such; 0 and 1 for proportions without saying so."""
    version: int = 1
    finish: Callable[[Any], Any] | None = None
    """Sums of the samples' stats, numpy array [..., k], to values [...]; vectorised over leading axes."""
    finish_rows: Callable[[Any, Any], float] | None = None
    """For metrics that are no function of a sum: rows [n, k] and weights [n] to one value."""


class MetricInfo(Record, frozen=True, kw_only=True):
    """What a run folder remembers of a Metric."""

    name: str
    higher_is_better: bool
    unit: str = ""
    version: int = 1


class Estimate(Record, frozen=True, kw_only=True):
    """A metric's value over samples, with its uncertainty. Value, stderr and interval are None where nothing could be scored."""

    metric: str
    value: float | None
    stderr: float | None
    interval: tuple[float, float] | None
    level: float = 0.95
    method: str = ""
    """How the interval was made: wilson, wilson effective, t, bootstrap; clustered wilson, clustered t, clustered
    bootstrap; pooled wilson, pooled t. Empty where nothing was scored."""
    n: int
    """Samples that were scored."""
    n_failed: int
    """Samples with no score; they are not in `n`."""
    num_clusters: int | None = None
    """Clusters among the scored samples, where any share one; None: they count as independent."""
    chance: float | None = None
    """What guessing gets, averaged over the scored samples; None where guessing has no meaning."""
    signature: str = ""

    def __post_init__(self) -> None:
        finite("Estimate", self.value, self.stderr, self.chance, *(self.interval or ()))


# --------------------------------------------------------------------------------------------- models


class ModelInfo(Record, frozen=True, kw_only=True):
    """What a model says of itself."""

    name: str
    """Short name for tables and folders."""
    family: str
    """causal, masked, seq2seq, ngram, lstm, server, null ..."""
    rule: str
    """The rule of its LogProbs."""
    can: tuple[RequestKind, ...]
    parameters: int | None = None
    max_tokens: int | None = None
    """Longest sequence in tokens; None: no limit."""
    dtype: str | None = None
    fingerprint: str
    """Hash of the weights: equal fingerprints answer equally."""
    source: str = ""
    """The spec that load_model was given, or the folder."""
    settings: dict[str, Any] = {}
    """Everything else that changes answers: bos policy, revision, quantisation, chat template hash ..."""


@dataclass
class Usage:
    """What a model has done so far; `evaluate` reads it for speeds. The only mutable thing that a model shows."""

    tokens_requested: int = 0
    """Token positions of all requests, each counted in full."""
    tokens_computed: int = 0
    """Token positions that really went through the network (prompts)."""
    tokens_generated: int = 0
    load_seconds: float = 0.0
    kernel: str = ""
    """Which matrix kernel was chosen for this machine, and why."""
    """Time that load_model took."""


class Model(Protocol):
    """Anything that answers requests. It never sees tasks, gold answers or metrics."""

    info: ModelInfo
    usage: Usage

    def answer(self, requests: Sequence[Request]) -> Iterator[tuple[int, Output]]:
        """Yields (position in `requests`, output) as batches finish: exactly one for each request.

        Values do not depend on batch size, order or neighbours beyond float rounding. A request that cannot be
        answered yields a Failure; NaN or infinite log-probabilities are a Failure too.
        """
        ...


# ---------------------------------------------------------------------------------------------- tasks

View = Callable[[Sample, Context], Sequence[Request]]


@dataclass(frozen=True, kw_only=True)
class Task:
    """Data plus small functions.

    `prompt` makes the whole context of a sample and is what `adapt.prompt.prompted` replaces when shots or a chat
    template are asked for; a view then turns (sample, context) into requests; `score` turns outputs into Scores,
    one for each metric, status "error" where an output is a Failure.
    """

    name: str
    version: int = 1
    samples: Callable[[str], Iterable[Sample]]
    """Split ("test": what is evaluated; "shots": where examples come from) to samples, in a fixed order."""
    prompt: Callable[[Sample], Context] = lambda sample: ""
    shot: Callable[[Sample], tuple[str, str]] | None = None
    """A sample as a solved example: (question as in the prompt, answer with its leading space). None: takes no shots."""
    views: Mapping[str, View]
    """By kind: score, generate, label, span. The first that the model can answer is the default."""
    score: Callable[[Sample, Sequence[Output]], Sequence[Score]]
    metrics: tuple[Metric, ...]
    """The headline metric first."""
    chance: Callable[[Sample], Mapping[str, float]] = lambda sample: {}
    """What guessing gets on this sample, by metric."""
    description: str = ""
    """Instruction placed once before shots and question, with its own trailing line breaks."""
    delimiter: str = "\n\n"
    """Between shots."""
    shots: int = 0
    """Number of examples used when nothing else is asked for."""
    source: str = ""
    licence: str = ""
    fingerprint: str = ""
    """Hash of data files and templates."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Whatever else shaped the requests (shots, seed, chat ...); goes into the run's config and signature."""
    origin: Mapping[str, str] = field(default_factory=dict)
    """Where it was found (task file, data folder; a commit of the hub once samples were read); goes into the run's
    environment, not its config."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Tasks (or groups) that are reported together."""

    name: str
    members: tuple[str, ...]
    """Names of tasks or of other groups."""
    weighting: Literal["samples", "tasks"] = "samples"
    """"samples": every sample counts alike; "tasks": every member counts alike."""
    description: str = ""


class TaskInfo(Record, frozen=True, kw_only=True):
    """What a run folder remembers of a Task."""

    name: str
    version: int
    fingerprint: str = ""
    source: str = ""
    licence: str = ""
    metrics: tuple[MetricInfo, ...] = ()
    settings: dict[str, Any] = {}


# ----------------------------------------------------------------------------------------------- runs


class SampleRecord(Record, frozen=True, kw_only=True):
    """One line of samples.jsonl: everything needed to re-score, report and compare without model or data."""

    id: str
    sample: Sample
    requests: tuple[Request, ...]
    outputs: tuple[Output, ...]
    scores: tuple[Score, ...]

    def __post_init__(self) -> None:
        if len(self.requests) != len(self.outputs):
            raise ValueError(f"{self.id} has {len(self.requests)} requests but {len(self.outputs)} outputs")


class Timing(Record, frozen=True, kw_only=True):
    """Wall-clock seconds and sizes, summed over the parts of an interrupted run."""

    seconds: float = 0.0
    """Time inside evaluate."""
    load_seconds: float = 0.0
    tokens_requested: int = 0
    tokens_computed: int = 0
    tokens_generated: int = 0
    peak_memory_bytes: int = 0
    """Largest resident size of the process so far."""
    kernel: str = ""
    """Which matrix kernel was chosen, and why; empty where there was no choice."""


class GroupEstimates(Record, frozen=True, kw_only=True):
    """Estimates of one group of tasks for one model."""

    model: str
    group: str
    members: tuple[str, ...]
    """Names of the leaf tasks that went in."""
    parts: tuple[str, ...] = ()
    """Names of the direct members, tasks or groups, which `weighting` weighs; empty: the leaf tasks themselves."""
    weighting: Literal["samples", "tasks"]
    estimates: tuple[Estimate, ...]


class Run(Record, frozen=True, kw_only=True):
    """run.json: one model on one task."""

    schema: int = 1
    id: str
    """Hash of the config."""
    status: Literal["running", "done", "interrupted"]
    model: ModelInfo
    task: TaskInfo
    view: str
    config: dict[str, Any]
    """Everything that decides the numbers; another config refuses to resume."""
    n_samples: int
    """How many samples the run has when complete."""
    estimates: tuple[Estimate, ...] = ()
    environment: dict[str, str] = {}
    timing: Timing = Timing()
    created: str = ""
    """ISO 8601, UTC."""
