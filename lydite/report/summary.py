"""What a run folder says in plain words: the headline paragraph, and what a reader must know before the numbers.

Contract: no sentence that the numbers do not carry. "Leads" is a better value; "by more than the uncertainty" is the
rule of `rows.best`.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from lydite.report import text
from lydite.report.breakdown import MANY
from lydite.report.digest import Digest
from lydite.report.rows import Row, best, comparable, leader, versus_chance


@dataclass(frozen=True)
class Warning:
    """One line above the numbers; `level` is "error" (numbers are missing) or "note" (numbers need it to be read)."""

    level: str
    text: str
    places: tuple[str, ...] = ()
    """Runs that it is about."""


def paragraph(top: Sequence[Row], models: Sequence[str], null: Collection[str] = ()) -> str:
    """One to four sentences. `null`: names of the null models, which are beaten or not but never lead."""
    tasks = [row for root in top for _, row in root.walk() if not row.is_group]
    found, noun = (top, "benchmark") if len(top) >= MANY else (tasks, "task")
    found = [row for row in found if row.cells(row.headline)]
    if not any(cell.estimate.value is not None for row in found for cell in row.cells(row.headline).values()):
        return "No number can be given yet: no run here has been finished."
    real = [model for model in models if model not in null] or list(models)
    sentences = _comparison(found, real, noun) if len(real) > 1 else []
    if len(real) == 1 and len(models) > 1:
        sentences = _beaten(found, real[0], [model for model in models if model != real[0]], noun)
    return " ".join([*sentences, *_chance(found, real, noun)])


def _beaten(found: Sequence[Row], model: str, others: Sequence[str], noun: str) -> list[str]:
    """One real model beside null models."""
    shared = [row for row in found if {model, *others} <= row.cells(row.headline).keys()]
    if not shared:
        return []
    count = sum(best(row, row.headline) == model for row in shared)
    names = text.join_words([text.one_line(other) for other in others])
    where = f"{count} of {text.plural(len(shared), noun)}" if len(shared) > 1 or not count else f"the one {noun}"
    return [f"{text.one_line(model)} beats {names} by more than the uncertainty on {where}."]


def _comparison(found: Sequence[Row], models: Sequence[str], noun: str) -> list[str]:
    shared = [row for row in found if sum(_has_value(row, model) for model in models) > 1]
    if not shared:
        return ["No two models were judged on the same task."]
    leaders = [(leader(row, row.headline), best(row, row.headline)) for row in shared]
    counts = Counter(name for name, _ in leaders if name and name in models)
    sure = Counter(name for _, name in leaders if name and name in models)
    total = text.plural(len(shared), noun)
    if not counts:
        return [f"No model leads on any of {total}."]
    name, count = counts.most_common(1)[0]
    whose = "it" if count == 1 else f"{count} of them"
    tied = [other for other, n in counts.items() if n == count and other != name]
    if tied:
        names = text.join_words([text.one_line(n) for n in [name, *tied]])
        sentences = [f"{names} lead on {count} of {total} each."]
    elif len(shared) == 1:
        sentences = [f"{text.one_line(name)} leads."]
    else:
        sentences = [f"{text.one_line(name)} leads on {count} of {total}."]
    supported = sum(sure.values())
    if supported == 0:
        sentences.append("No lead is larger than its uncertainty.")
    elif len(shared) == 1:
        sentences.append("Its lead is larger than its uncertainty.")
    elif supported == sure[name] == count and not tied:
        sentences.append(f"The lead is larger than its uncertainty on {'that one' if count == 1 else 'all ' + whose}.")
    elif list(sure) == [name] and not tied:
        sentences.append(f"{supported} of its leads {'is' if supported == 1 else 'are'} larger than the uncertainty.")
    else:
        leads = [f"{n} by {text.one_line(who)}" for who, n in sure.most_common()]
        verb = "lead is" if supported == 1 else "leads are"
        sentences.append(f"{supported} {verb} larger than the uncertainty: {text.join_words(leads)}.")
    return sentences


def _has_value(row: Row, model: str) -> bool:
    cell = row.cells(row.headline).get(model)
    return cell is not None and cell.estimate.value is not None


def _chance(found: Sequence[Row], models: Sequence[str], noun: str) -> list[str]:
    counts: list[tuple[str, Counter[str]]] = []
    for model in models:
        states: Counter[str] = Counter()
        for row in found:
            if model in row.cells(row.headline):
                states[versus_chance(row.cells(row.headline)[model].estimate, row.higher.get(row.headline, True))] += 1
        del states[""]
        if states.total():
            counts.append((text.one_line(model), states))
    if not counts or len(counts) > 4:
        return []
    parts = [f"{who} on {n['above']} of {n.total()}" for who, n in counts]
    nouns = f"{noun}s" if counts[0][1].total() > 1 else noun
    parts[0] += f" {nouns}"
    sentences = [f"Above chance, where guessing has a meaning: {text.join_words(parts)}."]
    below = [f"{who} on {n['below']}" for who, n in counts if n["below"]]
    return [*sentences, f"Worse than chance: {text.join_words(below)}."] if below else sentences


def warnings(digests: Sequence[Digest], top: Sequence[Row]) -> list[Warning]:
    """Errors first."""
    found = [*_unfinished(digests), *_failed(digests), *_limited(digests), *_terms(top)]
    found += _counted(
        digests, "num_truncated", "had context cut off on the left, because the model is too short for it"
    )
    found += _counted(digests, "num_cut", "had their output cut by max_new_tokens")
    found += _counted(digests, "num_no_answer", "gave an output in which no answer was found; they count as wrong")
    found += _counted(
        digests, "num_spanned", "had a token across the border of context and continuation; scoring starts before it"
    )
    return sorted(found, key=lambda one: one.level != "error")


def _where(one: Digest) -> str:
    return f"{text.one_line(one.run.task.name)} with {text.one_line(one.label)}"


def _unfinished(digests: Sequence[Digest]) -> list[Warning]:
    found = []
    for one in digests:
        if one.run.status != "done":
            done = f"{len(one.rows):,} of {text.plural(one.run.n_samples, 'sample')}"
            word = "was interrupted" if one.run.status == "interrupted" else "is not finished"
            found.append(f"{_where(one)} ({done})" if len(digests) > 1 else f"The run {word} after {done}.")
    if len(digests) == 1 and found:
        return [Warning("error", f"{found[0]} The same command continues it.")]
    if not found:
        return []
    return [
        Warning("error", f"{text.plural(len(found), 'run')} not finished. The same command continues.", tuple(found))
    ]


def _some(parts: Sequence[str], limit: int = 4) -> str:
    shown = list(parts[:limit])
    return text.join_words([*shown, f"{len(parts) - limit} more"] if len(parts) > limit else shown)


def _failed(digests: Sequence[Digest]) -> list[Warning]:
    reasons: Counter[str] = Counter()
    for one in digests:
        reasons.update(one.failures)
    rows = [(one, sum(row.score is None or row.score.value is None for row in one.rows)) for one in digests]
    total = sum(count for _, count in rows)
    if not total:
        return []
    why = _some([f"{text.cut_middle(text.one_line(reason), 120)} ({count})" for reason, count in reasons.most_common()])
    places = tuple(f"{_where(one)} ({count:,})" for one, count in sorted(rows, key=lambda row: -row[1]) if count)
    verb = "answer failed and is" if total == 1 else "answers failed and are"
    return [Warning("error", f"{total:,} {verb} counted as failed, not as wrong. Reason: {why}.", places)]


def _limited(digests: Sequence[Digest]) -> list[Warning]:
    limits = Counter(one.run.config["limit"] for one in digests if one.run.config.get("limit") is not None)
    if not limits:
        return []
    sizes = text.join_words([f"{limit:,}" for limit in sorted(limits)], "or")
    runs = "all runs" if limits.total() == len(digests) else f"{limits.total()} of {len(digests)} runs"
    return [Warning("note", f"Partial: {runs} took at most {sizes} samples of each task (limit), chosen by hash.")]


def _terms(top: Sequence[Row]) -> list[Warning]:
    """Tasks on which models were judged on different terms, so that they are not ranked."""
    tasks = [row for root in top for _, row in root.walk() if not row.is_group]
    mixed = tuple(text.one_line(row.name) for row in tasks if not comparable(row.cells(row.headline).values()))
    if not mixed:
        return []
    words = (
        "on which models were judged on different terms (version, view, rule or settings): they are not ranked there"
    )
    return [Warning("note", f"{text.plural(len(mixed), 'task')} {words}.", mixed)]


def _counted(digests: Sequence[Digest], name: str, words: str) -> list[Warning]:
    counts = {
        "num_truncated": [one.num_truncated for one in digests],
        "num_cut": [one.num_cut for one in digests],
        "num_no_answer": [one.num_no_answer for one in digests],
        "num_spanned": [one.num_spanned for one in digests],
    }[name]
    if not sum(counts):
        return []
    places = tuple(f"{_where(one)} ({count:,})" for one, count in zip(digests, counts, strict=True) if count)
    return [Warning("note", f"{text.plural(sum(counts), 'answer')} {words}.", places)]
