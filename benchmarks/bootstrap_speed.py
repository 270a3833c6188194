"""Seconds that an interval takes for each metric that a task here uses: 10,000 samples, 10,000 draws.

    python benchmarks/bootstrap_speed.py [--samples N] [--draws N] [--write docs/benchmarks.md]

Statistics are made at random, all rows different where a metric allows it, which is the slow case: equal rows are drawn
together. Metrics that are no function of a sum are given 2,000 draws at most (lydite.stats.estimates.MAX_ROW_RESAMPLES);
a mean needs none. Times are processor seconds of one thread.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy is loaded

import numpy as np

from lydite.metrics.labels import confusion
from lydite.stats.estimates import MAX_ROW_RESAMPLES, estimate, is_mean
from lydite.tasks import list_tasks
from lydite.types import Metric, Score

BEGIN, END = "<!-- bootstrap: begin -->", "<!-- bootstrap: end -->"
Rng = np.random.Generator


def _labels(rng: Rng) -> tuple[float, ...]:
    return tuple(confusion(int(rng.integers(3)), list(rng.dirichlet([1, 1, 1])), 3))


def _answers(rng: Rng) -> tuple[float, ...]:
    said, gold = rng.integers(1, 6, 2)
    return (2 * min(said, gold) * rng.random(), said + gold, gold * rng.random(), gold, float(rng.random() < 0.3), 1.0)


def _no_answer(rng: Rng) -> tuple[float, ...]:
    return (rng.random(), rng.random(), float(rng.random() < 0.5), float(rng.random() < 0.8))


def _bleu(rng: Rng) -> tuple[float, ...]:
    said = int(rng.integers(6, 40))
    totals = [max(said - order, 1) for order in range(4)]
    return (said, said + int(rng.integers(-4, 5)), *(int(rng.integers(0, total + 1)) for total in totals), *totals)


def _characters(orders: int) -> Callable[[Rng], tuple[float, ...]]:
    def make(rng: Rng) -> tuple[float, ...]:
        sizes = rng.integers(20, 200, (orders, 2))
        return tuple(float(x) for said, wanted in sizes for x in (said, wanted, rng.integers(0, min(said, wanted))))

    return make


def _parts(number: int) -> Callable[[Rng], tuple[float, ...]]:
    def make(rng: Rng) -> tuple[float, ...]:
        row = np.zeros(2 * number)
        part = int(rng.integers(number))
        row[2 * part : 2 * part + 2] = rng.random(), 1.0
        return tuple(row)

    return make


def _pair(rng: Rng) -> tuple[float, ...]:
    gold = rng.normal()
    return (gold + rng.normal(), gold)


def _rate(rng: Rng) -> tuple[float, ...]:
    return (rng.random() * 500, float(rng.integers(5, 200)))


def _term(rng: Rng) -> tuple[float, ...]:
    return (float(rng.integers(300)), float(rng.integers(2)), float(rng.integers(3)) / 2)


STATISTICS: dict[str, Callable[[Rng], tuple[float, ...]]] = {
    **dict.fromkeys(("mcc", "macro_f1", "acc_f1", "acc_macro_f1"), _labels),
    **dict.fromkeys(("f1_a", "f1_a_em"), _answers),
    **dict.fromkeys(("pearson", "spearman", "pearson_spearman"), _pair),
    **dict.fromkeys(("perplexity", "bits_per_byte", "byte_perplexity", "word_perplexity", "compression", "ter"), _rate),
    **dict.fromkeys(("best_exact_match", "best_f1"), _no_answer),
    **dict.fromkeys(("answerable_exact_match", "answerable_f1", "unanswerable_exact_match"), _parts(1)),
    **dict.fromkeys(("icat", "lms", "ss"), _term),
    "bleu": _bleu,
    "chrf": _characters(6),
    "chrf++": _characters(8),
    "gender_parity": lambda rng: (float(rng.integers(5000)), float(rng.integers(2))),
}
"""Metric to a maker of the statistics of one sample; others count by parts."""


def metrics() -> list[Metric]:
    """Every metric of every task, once; F1 of labels and of words are two."""
    found: dict[tuple[str, bool], Metric] = {}
    for entry in list_tasks():
        if entry.load is not None:
            for metric in entry.load(None).metrics:
                found.setdefault((metric.name, is_mean(metric)), metric)
    return list(found.values())


def scores(metric: Metric, number: int) -> list[Score]:
    """Made-up scores."""
    rng = np.random.default_rng(1)
    make = _labels if metric.name == "f1" else STATISTICS.get(metric.name, _parts(8))
    if is_mean(metric):
        values = rng.integers(2, size=number) if metric.unit == "proportion" else rng.random(number)
        return [Score(sample_id=str(i), metric=metric.name, value=float(x)) for i, x in enumerate(values)]
    return [
        Score(sample_id=str(i), metric=metric.name, value=0.0, stats=tuple(map(float, make(rng))))
        for i in range(number)
    ]


def table(samples: int, draws: int) -> list[str]:
    """Rows of the table; metrics of one kind that took about the same are one row."""
    rows: list[tuple[str, str, float, Any]] = []
    for metric in metrics():
        made = scores(metric, samples)
        start = time.process_time()
        found = estimate(metric, made, resamples=draws)
        seconds = time.process_time() - start
        kind = "mean" if is_mean(metric) else "sum" if metric.finish else "rows"
        rows.append((metric.name, kind, seconds, found.interval))
        print(f"{metric.name:22} {kind:5} {seconds:6.2f} s {found.interval}", flush=True)
    how = {
        "mean": "a mean: closed form",
        "sum": f"a function of sums: {draws:,} draws",
        "rows": f"a function of rows: {min(draws, MAX_ROW_RESAMPLES):,} draws",
    }
    lines = ["| metrics | how | seconds each |", "| --- | --- | ---: |"]
    for kind, words in how.items():
        mine = [(name, seconds) for name, one, seconds, _ in rows if one == kind]
        low, high = (pick(seconds for _, seconds in mine) for pick in (min, max))
        lines.append(f"| {', '.join(f'`{name}`' for name, _ in mine)} | {words} | {low:.2f} to {high:.2f} |")
    return lines


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--draws", type=int, default=10_000)
    parser.add_argument("--write", type=Path, help="put the table between the marks of this file")
    arguments = parser.parse_args()
    lines = table(arguments.samples, arguments.draws)
    print("\n".join(lines))
    if arguments.write:
        text = arguments.write.read_text(encoding="utf-8")
        before, rest = text.split(BEGIN)
        after = rest.split(END)[1]
        arguments.write.write_text(f"{before}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
