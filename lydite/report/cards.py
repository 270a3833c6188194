"""Samples as the browser shows them: one card a sample, the models' answers side by side.

A card is plain JSON, cleaned of characters that could obey instead of show (`text.clean`), cut where it is endless, and
drawn twice from the same data: by the template for readers without JavaScript, by page.js for the others.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from lydite.report import text
from lydite.report.align import stretches
from lydite.report.digest import Digest, choice_outputs, choice_shares, order_key, top_choices
from lydite.types import (
    Completion,
    Failure,
    GenerateRequest,
    LabelProbs,
    LogProbs,
    Message,
    Request,
    SampleRecord,
    Score,
    ScoreRequest,
    Span,
    SpanRequest,
)

BUDGET = 8_000_000
"""Bytes of JSON that all cards together may take."""
MAX_TEXT = 6_000
MAX_TOKENS = 700
MIN_SHARED = 160
"""A shared beginning shorter than this is not worth folding."""

Card = dict[str, Any]


def task_cards(digests: Sequence[Digest], models: Sequence[str]) -> tuple[str, list[Card]]:
    """(beginning that all prompts share, cards) of one task; failed samples first, then in the order of their hashed names."""
    ids = sorted({id for one in digests for id in one.kept}, key=lambda id: order_key(digests[0].run.task.name, id))
    records = {id: {one.label: one.kept[id] for one in digests if id in one.kept} for id in ids}
    shared = _shared(record for by_model in records.values() for record in by_model.values())
    headline = digests[0].headline
    cards = [_card(records[id], models, headline, shared) for id in ids]
    cards.sort(key=lambda card: not any(a and a["state"] == "failed" for a in card["answers"]))
    return text.clean(shared), cards


def _shared(records: Iterable[SampleRecord]) -> str:
    """The longest common beginning of all prompts up to a line's end, or nothing where it is short or the only one."""
    prompts = [_context(record.requests[0]) for record in records if record.requests]
    if len(set(prompts)) < 2:
        return ""
    first, last = min(prompts), max(prompts)  # what these two share, all between them share
    length = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    common = first[: first.rfind("\n", 0, length) + 1]
    return common if len(common) >= MIN_SHARED else ""


def _context(request: Request) -> str:
    if isinstance(request, ScoreRequest):
        return request.context
    if isinstance(request, GenerateRequest):
        return request.prompt
    if isinstance(request, SpanRequest):
        return f"{request.passage}\n\n{request.question}"
    return request.text if request.text_pair is None else f"{request.text}\n\n{request.text_pair}"


def _card(records: Mapping[str, SampleRecord], models: Sequence[str], headline: str, shared: str) -> Card:
    first = next(iter(records.values()))
    sample = first.sample
    same = len({r.requests and _prompt_key(r.requests[0]) for r in records.values()}) == 1
    answers = [_answer(records[m], headline, None if same else shared) if m in records else None for m in models]
    return {
        "id": text.one_line(sample.id),
        "prompt": _prompt(first, shared) if same else [],
        "gold": list(sample.gold),
        "targets": [_cut(target) for target in sample.targets[:8]],
        "labels": [[text.one_line(key), text.one_line(label)] for key, label in sample.metadata.items()],
        "answers": answers,
    }


def _prompt_key(request: Request) -> tuple[str, tuple[Message, ...]]:
    messages = request.messages if isinstance(request, ScoreRequest | GenerateRequest) else ()
    return _context(request), messages


def _prompt(record: SampleRecord, shared: str) -> list[list[str]]:
    """Parts of the prompt as (who, text): "" for plain text, "shared" for the task's shared beginning, or a role."""
    if not record.requests:
        return []
    context, messages = _prompt_key(record.requests[0])
    if messages:
        return [[message.role, _cut(message.content)] for message in messages]
    if shared and context.startswith(shared):
        return [["shared", ""], ["", _cut(context[len(shared) :])]]
    shown = context or ("" if record.sample.choices or _is_document(record) else record.sample.input)
    return [["", _cut(shown)]] if shown else []


def _is_document(record: SampleRecord) -> bool:
    request = record.requests[0]
    return isinstance(request, ScoreRequest) and request.window != "none"


def _answer(record: SampleRecord, headline: str, shared: str | None) -> dict[str, Any]:
    """One model's answer; `shared` is given where the models were asked with different prompts."""
    scores = [score for score in record.scores if score.metric == headline and score.by == "auto"] or list(
        record.scores
    )
    reasons = {output.reason for output in record.outputs if isinstance(output, Failure)}
    answer: dict[str, Any] = {
        "state": _state(scores[0] if scores else None),
        "scores": [_score(score, reasons) for score in record.scores],
        "flags": _flags(record),
        "read": _read(record, scores),
    }
    if shared is not None:
        answer["prompt"] = _prompt(record, shared)
    choices = choice_outputs(record)
    if choices and not all(isinstance(output, Failure) for output in choices):
        answer["choices"] = _choice_rows(record, choices)
    rest = list(zip(record.requests, record.outputs, strict=True))[len(choices) :]
    outputs = [_output(request, output) for request, output in rest[:8] if not isinstance(output, Failure)]
    outputs += [{"kind": "failure", "text": _cut(reason)} for reason in sorted(reasons)]
    if outputs:
        answer["outputs"] = outputs
    return answer


def _state(score: Score | None) -> str:
    if score is None or score.value is None:
        return "failed"
    if score.status == "no_answer":
        return "wrong"
    return {1.0: "right", 0.0: "wrong"}.get(score.value, "scored") if not score.stats else "scored"


def _score(score: Score, reasons: set[str]) -> list[str]:
    """Metric, value, status, note and rater; a note that only repeats why the request failed is left out."""
    value = "–" if score.value is None else f"{score.value:.4g}".replace("-", "−")
    return [
        text.one_line(score.metric),
        value,
        score.status,
        _cut("" if score.note in reasons else score.note),
        text.one_line(score.by),
    ]


def _read(record: SampleRecord, scores: Sequence[Score]) -> str | None:
    """The answer as the headline metric read it, where the reader cannot see it already."""
    answer = scores[0].answer if scores else None
    outputs = [output.text.strip() for output in record.outputs if isinstance(output, Completion | Span)]
    return None if answer is None or choice_outputs(record) or answer.strip() in outputs else _cut(answer)


def _flags(record: SampleRecord) -> list[str]:
    flags = []
    dropped = max((o.num_truncated for o in record.outputs if isinstance(o, LogProbs | Completion)), default=0)
    if dropped:
        flags.append(f"truncated: {text.plural(dropped, 'token')} of context left out")
    if any(isinstance(o, LogProbs) and o.join == "spanned" for o in record.outputs):
        flags.append("join spanned: a token crosses the border of context and continuation")
    if any(isinstance(o, Completion) and o.finish == "length" for o in record.outputs):
        flags.append("cut by max_new_tokens")
    if any(score.status == "no_answer" for score in record.scores):
        flags.append("no answer found in the output")
    return flags


def _choice_rows(record: SampleRecord, outputs: Sequence[LogProbs | Failure]) -> list[dict[str, Any]]:
    shares = choice_shares(record)
    chosen = top_choices(shares)
    contexts = {_context(request) for request in record.requests[: len(outputs)]}
    rows = []
    for position, output in enumerate(outputs):
        row: dict[str, Any] = {"chosen": position in chosen}
        if _continuation(record.requests[position]).strip() != record.sample.choices[position].strip():
            row["text"] = _cut(record.sample.choices[position])
        if isinstance(output, Failure):
            row["failure"] = _cut(output.reason)
        else:
            row |= {
                "total": f"{output.total:.2f}".replace("-", "−"),
                "tokens": _tokens(output, record.requests[position]),
            }
            row |= {"share": round(shares[position], 4)} if shares else {}
        if len(contexts) > 1:
            row["context"] = _cut(_context(record.requests[position]))
        rows.append(row)
    return rows


def _continuation(request: Request) -> str:
    return request.continuation if isinstance(request, ScoreRequest) else ""


def _tokens(output: LogProbs, request: Request) -> list[list[Any]]:
    """[text, nats] of each token; [text, nats, count] of several that spell characters only together."""
    found = stretches(output, _continuation(request), _context(request) if output.join == "spanned" else "")
    shown = [
        [text.clean(piece), round(nats, 2), *([count] if count > 1 else [])]
        for piece, nats, count in found[:MAX_TOKENS]
    ]
    left_out = sum(count for _, _, count in found[MAX_TOKENS:])
    return [*shown, [f" … {left_out:,} more tokens", None]] if left_out else shown


def _output(request: Request, output: Any) -> dict[str, Any]:
    if isinstance(output, Completion):
        return {"kind": "text", "text": _cut(output.text), "note": text.plural(output.num_tokens, "token")}
    if isinstance(output, Span):
        note = "" if output.no_answer_prob is None else f"p(no answer) {output.no_answer_prob:.3f}"
        return {"kind": "text", "text": _cut(output.text), "note": note}
    if isinstance(output, LabelProbs):
        labels = request.labels if not isinstance(request, ScoreRequest | GenerateRequest | SpanRequest) else ()
        names = labels if len(labels) == len(output.probs) else [str(i) for i in range(len(output.probs))]
        return {"kind": "labels", "labels": [[_cut(n), round(p, 4)] for n, p in zip(names, output.probs, strict=True)]}
    assert isinstance(output, LogProbs)
    greedy = ", each the most likely one" if output.greedy else ""
    total = f"{output.total:.2f}".replace("-", "−")
    note = f"{total} nats over {text.plural(len(output.tokens), 'token')}{greedy}"
    return {"kind": "tokens", "tokens": _tokens(output, request), "note": note}


def _cut(value: str) -> str:
    """Cleaned text with its middle left out where it is endless."""
    if len(value) > MAX_TEXT:
        half = MAX_TEXT // 2
        value = f"{value[:half]}\n[… {len(value) - 2 * half:,} characters left out …]\n{value[-half:]}"
    return text.clean(value)


def within_budget(cards: Mapping[str, list[Card]], budget: int = BUDGET) -> dict[str, list[Card]]:
    """For each task as many of its cards as fit into an equal share of `budget` bytes; what small tasks leave, others get."""
    sizes = {task: [len(msgspec.json.encode(card)) + 1 for card in found] for task, found in cards.items()}
    chosen: dict[str, list[Card]] = {}
    left, waiting = budget, sorted(cards, key=lambda task: sum(sizes[task]))
    for position, task in enumerate(waiting):
        share, spent, count = left // (len(waiting) - position), 0, 0
        for size in sizes[task]:
            if spent + size > share and count >= 3:
                break
            spent, count = spent + size, count + 1
        chosen[task] = cards[task][:count]
        left = max(left - spent, 0)
    return {task: chosen[task] for task in cards}
