"""One pass over a run's samples: what the page's counts, plots and browser need, and no more in memory.

Of every sample a `Light` row stays; whole records stay only for the samples that the browser will show. Which those
are depends on the task's and the sample's name alone, so that all models show the same ones.
"""

import hashlib
import heapq
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lydite.runs import read_samples
from lydite.types import Completion, Failure, LabelProbs, LogProbs, Run, SampleRecord, Score, ScoreRequest

KEEP_FAILED = 40
"""Failed samples that are shown beyond the hashed choice: they are what a person looks for."""


@dataclass(frozen=True, slots=True)
class Light:
    """What remains of a sample."""

    id: str
    score: Score | None
    """Of the headline metric."""
    cluster: str | None
    metadata: dict[str, str]
    confidence: float | None
    """For choices: the largest softmax share of the choices' total log-probabilities, or of the head's probabilities."""
    credit: float | None
    """1 where the most confident choice is right, 0 where not; choices that tie share it."""
    bits_per_byte: float | None
    """For scored documents."""


@dataclass
class Digest:
    """One run, digested."""

    run: Run
    label: str
    folder: Path
    rows: list[Light] = field(default_factory=list)
    kept: dict[str, SampleRecord] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)
    num_truncated: int = 0
    num_spanned: int = 0
    num_cut: int = 0
    """Samples with a completion that max_new_tokens ended."""
    num_no_answer: int = 0

    @property
    def headline(self) -> str:
        """Name of the task's first metric."""
        names = [m.name for m in self.run.task.metrics] or [e.metric for e in self.run.estimates]
        return names[0] if names else ""


def order_key(task: str, id: str) -> bytes:
    """Where a sample stands in the order in which samples are shown."""
    return hashlib.blake2b(f"{task}\x1f{id}".encode("utf-8", "replace"), digest_size=8).digest()


def digest(run: Run, label: str, folder: Path, keep: int) -> Digest:
    """Reads the samples of a run once and keeps `keep` whole records, and failed ones beyond them."""
    found = Digest(run, label, folder)
    heap: list[tuple[int, str]] = []
    failed: list[str] = []
    for record in _records(found):
        light = _light(record, found.headline)
        found.rows.append(light)
        _count(found, record)
        key = -int.from_bytes(order_key(run.task.name, record.id), "big")
        if light.score is None or light.score.status == "error":
            if len(failed) < KEEP_FAILED:
                failed.append(record.id)
                found.kept[record.id] = record
        elif len(heap) < keep:
            heapq.heappush(heap, (key, record.id))
            found.kept[record.id] = record
        elif keep and key > heap[0][0]:
            _, dropped = heapq.heapreplace(heap, (key, record.id))
            del found.kept[dropped]
            found.kept[record.id] = record
    return found


def complete(digests: Sequence[Digest]) -> None:
    """Fetches the records that one model's digest kept and another's, of the same task, did not."""
    wanted = {id for one in digests for id in one.kept}
    for one in digests:
        missing = wanted - one.kept.keys()
        missing &= {row.id for row in one.rows}
        if missing:
            one.kept.update({r.id: r for r in read_samples(one.folder) if r.id in missing})


def _records(found: Digest) -> Iterable[SampleRecord]:
    return read_samples(found.folder) if (found.folder / "samples.jsonl").exists() else ()


def _light(record: SampleRecord, headline: str) -> Light:
    score = next((s for s in record.scores if s.metric == headline and s.by == "auto"), None)
    shares = choice_shares(record)
    tied = top_choices(shares)
    credit = sum(choice in record.sample.gold for choice in tied) / len(tied) if tied else None
    return Light(
        record.id,
        score,
        record.sample.cluster,
        record.sample.metadata,
        max(shares) if shares else None,
        credit if record.sample.gold else None,
        bits_per_byte(record),
    )


def _count(found: Digest, record: SampleRecord) -> None:
    reasons = {output.reason for output in record.outputs if isinstance(output, Failure)}
    errors = {score.note or "no reason given" for score in record.scores if score.status == "error"}
    found.failures.update(reasons or errors)
    found.num_truncated += any(isinstance(o, LogProbs | Completion) and o.num_truncated > 0 for o in record.outputs)
    found.num_spanned += any(isinstance(o, LogProbs) and o.join == "spanned" for o in record.outputs)
    found.num_cut += any(isinstance(o, Completion) and o.finish == "length" for o in record.outputs)
    found.num_no_answer += any(score.status == "no_answer" for score in record.scores)


def choice_outputs(record: SampleRecord) -> tuple[LogProbs | Failure, ...]:
    """The outputs of the sample's choices, in their order; empty where the record is not of that kind.

    The first requests are the choices'; others (unconditional ones, say) follow them.
    """
    count = len(record.sample.choices)
    pairs = list(zip(record.requests, record.outputs, strict=True))[:count]
    if not count or len(pairs) < count:
        return ()
    fit = [o for r, o in pairs if isinstance(r, ScoreRequest) and isinstance(o, LogProbs | Failure)]
    return tuple(fit) if len(fit) == count else ()


def choice_shares(record: SampleRecord) -> list[float]:
    """Probabilities over the sample's choices; empty where it has none or one of them failed."""
    if len(record.outputs) == 1 and isinstance(head := record.outputs[0], LabelProbs):
        return list(head.probs) if len(head.probs) == len(record.sample.choices) > 1 else []
    totals = [o.total for o in choice_outputs(record) if isinstance(o, LogProbs)]
    if len(totals) < 2 or len(totals) != len(record.sample.choices):
        return []
    highest = max(totals)
    weights = [math.exp(total - highest) for total in totals]
    return [weight / math.fsum(weights) for weight in weights]


def top_choices(shares: Sequence[float]) -> list[int]:
    """Positions of the largest share: one, or several that tie."""
    return [position for position, share in enumerate(shares) if share == max(shares)]


def bits_per_byte(record: SampleRecord) -> float | None:
    """Of a record that scores one whole document: -log2 p / UTF-8 bytes; None for other kinds."""
    if len(record.requests) != 1 or record.sample.choices:
        return None
    request, output = record.requests[0], record.outputs[0]
    if not isinstance(request, ScoreRequest) or not isinstance(output, LogProbs) or request.window == "none":
        return None
    size = len(request.continuation.encode("utf-8", "replace"))
    return -output.total / math.log(2) / size if size else None
