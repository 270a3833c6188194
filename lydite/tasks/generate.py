"""Free generation: the model writes, an answer is read from its text by rules, and metrics compare it with targets.

Reading and comparing are pure functions of (sample, text), so stored outputs can be scored again with other rules.
An output in which no rule finds an answer counts as a wrong answer with status "no_answer", not as a failure. The
rules read targets too ("... #### 18" is 18); a target in which they find nothing stays as it is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lydite.metrics.extract import extract, parse_rules
from lydite.metrics.text import CHRF, EXACT_MATCH, F1, Judge, Normalization, chrf, exact_match, token_f1
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
    """The grader of a metric by its name: exact_match, f1 or chrf. Without `how`, answers are compared as numbers where
    the rules read numbers, and else as they are."""
    comparison: Normalization = how or ("number" if "last_number" in rules else "none")
    judges: dict[str, tuple[Metric, Judge]] = {
        "exact_match": (EXACT_MATCH, lambda a, t: (exact_match(a, t, comparison, language), ())),
        "f1": (F1, lambda a, t: (token_f1(a, t, language), ())),
        "chrf": (CHRF, chrf),
    }
    metric, judge = judges[name]
    return Grader(metric, judge, tuple(rules))


GRADERS = ("exact_match", "f1", "chrf")


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
        note = "cut at max_new_tokens" if output.finish == "length" else ""
        scores = []
        for one, parsed in zip(graders, rules, strict=True):
            found = extract(output.text, parsed, len(sample.choices))
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
                    note=note,
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
