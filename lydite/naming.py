"""What metrics are called under the rule by which a model scores.

A masked model has no perplexity, because its pseudo-log-likelihoods are not the probabilities of texts: what a task calls
`word_perplexity` is `pseudo_word_perplexity` there (Salazar et al. 2020). `bits_per_byte` keeps its name, so that one row
of a table shows all models; the rule stands in its signature, and models of different rules are never ranked.
"""

from collections.abc import Sequence
from dataclasses import replace

import msgspec

from lydite.types import Metric, Output, Sample, Score, Task

PSEUDO = "pseudo"
"""Rules that begin so are no likelihoods."""


def under_rule(task: Task, rule: str) -> Task:
    """The task with its metrics named as the rule wants them; the task itself where nothing changes."""
    names = {metric.name: name_under(metric.name, rule) for metric in task.metrics}
    if all(name == other for name, other in names.items()):
        return task

    def score(sample: Sample, outputs: Sequence[Output]) -> Sequence[Score]:
        return [_named(score, names.get(score.metric, score.metric)) for score in task.score(sample, outputs)]

    return replace(task, score=score, metrics=tuple(replace(m, name=names[m.name]) for m in task.metrics))


def metric_under(metrics: Sequence[Metric], name: str) -> Metric | None:
    """The metric that bears `name` under some rule; None where there is none."""
    for metric in metrics:
        for rule in ("", PSEUDO):
            if name_under(metric.name, rule) == name:
                return replace(metric, name=name)
    return None


def name_under(metric: str, rule: str) -> str:
    """What a metric is called under a rule."""
    is_perplexity = metric.endswith("perplexity") and not metric.startswith(PSEUDO)
    return f"{PSEUDO}_{metric}" if is_perplexity and rule.startswith(PSEUDO) else metric


def _named(score: Score, name: str) -> Score:
    return score if score.metric == name else msgspec.structs.replace(score, metric=name)
