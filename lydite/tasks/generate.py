"""Free generation: the model writes, an answer is read from its text by rules, and metrics compare it with targets.

Reading and comparing are pure functions of (sample, text), so stored outputs can be scored again with other rules.
An output in which no rule finds an answer counts as a wrong answer with status "no_answer", not as a failure. The
rules read targets too ("... #### 18" is 18); a target in which they find nothing stays as it is.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lydite.metrics import rouge, translation
from lydite.metrics.extract import extract, extract_by, parse_rules
from lydite.metrics.text import EXACT_MATCH, F1, Judge, Normalization, exact_match, token_f1
from lydite.tasks.common import Samples, failed, failure, generate_request
from lydite.types import Completion, Context, Decoding, Metric, Output, Request, Sample, Score, Task


@dataclass(frozen=True)
class Grader:
    """A metric with the rules that read the answer for it."""

    metric: Metric
    judge: Judge
    rules: tuple[str, ...] = ()
    """See lydite.metrics.extract."""


def grader(name: str, rules: Sequence[str] = (), how: Normalization | None = None, language: str = "en") -> Grader:
    """The grader of a metric by its name, one of GRADERS. Without `how`, exact_match compares answers as numbers where
    the rules read numbers, and else as they are; f1 normalises as SQuAD does."""
    if name in translation.NAMES:
        metric = translation.translation_metric(name, language)
        return Grader(metric.metric, metric.judge, tuple(rules))
    if name in rouge.TYPES:
        return rouge_grader(name, language, rules=rules)
    comparison: Normalization = how or ("number" if "last_number" in rules else "none")
    words: Normalization = how if how in ("mlqa", "trivia") else "squad"
    judges: dict[str, tuple[Metric, Judge]] = {
        "exact_match": (EXACT_MATCH, lambda a, t: (exact_match(a, t, comparison, language), ())),
        "f1": (F1, lambda a, t: (token_f1(a, t, language, words), ())),
    }
    metric_of, judge = judges[name]
    return Grader(metric_of, judge, tuple(rules))


def rouge_grader(name: str, language: str = "en", *, stem: bool = False, rules: Sequence[str] = ()) -> Grader:
    """The grader of one type of ROUGE. All types of an answer are computed together, the first time that one is asked."""
    [metric] = [one for one in rouge.METRICS if one.name == name]

    def judge(answer: str, targets: Sequence[str]) -> tuple[float, tuple[float, ...]]:
        return _rouge(answer, tuple(targets), language, stem)[name].f1, ()

    return Grader(metric, judge, tuple(rules))


@functools.lru_cache(maxsize=64)
def _rouge(answer: str, targets: tuple[str, ...], language: str, stem: bool) -> dict[str, rouge.Overlap]:
    return rouge.rouge(answer, targets, language=language, stem=stem)


def metric_signatures(
    names: Sequence[str], language: str = "en", *, stem: bool = False, num_references: int = 0
) -> dict[str, str]:
    """What signatures say of the metrics among `names` that can be computed in several ways; 0 references: it varies."""
    said = {
        name: translation.translation_metric(name, language).signature(num_references)
        for name in translation.NAMES
        if name in names
    }
    if any(name in rouge.TYPES for name in names):
        said["rouge"] = rouge.signature(language, stem=stem, num_references=num_references)
    return said


GRADERS = ("exact_match", "f1", *rouge.TYPES, *translation.NAMES)


def generation_task(
    name: str,
    samples: Samples,
    question: Callable[[Sample], str],
    graders: Sequence[Grader],
    decoding: Decoding,
    *,
    answer: Callable[[Sample], str] = lambda sample: " " + sample.targets[0],
    description: str = "",
    **fields: Any,
) -> Task:
    """A Task over samples with `targets`, any of which is right. `answer` is the solved form in shots, with its leading
    space."""
    metrics = tuple(one.metric for one in graders)
    rules = [parse_rules(one.rules) for one in graders]

    def view(sample: Sample, context: Context) -> Sequence[Request]:
        return [generate_request(sample, context, decoding)]

    def score(sample: Sample, outputs: Sequence[Output]) -> Sequence[Score]:
        reason = failure(outputs)
        if reason is not None:
            return failed(sample, metrics, reason)
        [output] = outputs
        assert isinstance(output, Completion), f"{sample.id}: written answers are Completions"
        cut = ["cut at max_new_tokens"] if output.finish == "length" else []
        scores = []
        for one, parsed in zip(graders, rules, strict=True):
            found, rule = extract_by(output.text, parsed, len(sample.choices))
            # With one rule there is nothing to tell; with several, which of them found it is part of the answer.
            by = [f"read by {one.rules[rule]}"] if rule is not None and len(parsed) > 1 else []
            targets = [extract(target, parsed, len(sample.choices)) or target for target in sample.targets]
            value, stats = one.judge(found or "", targets)
            scores.append(
                Score(
                    sample_id=sample.id,
                    metric=one.metric.name,
                    value=value,
                    status="no_answer" if found is None else "ok",
                    stats=stats,
                    answer=found,
                    note="; ".join(cut + by),
                )
            )
        return scores

    return Task(
        name=name,
        samples=samples,
        prompt=lambda sample: description + question(sample),
        shot=lambda sample: (question(sample), answer(sample)),
        views={"generate": view},
        score=score,
        metrics=metrics,
        description=description,
        **fields,
    )
