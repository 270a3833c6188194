"""Can the bundled suite be answered without reading it? Baselines that only see the choices must land on chance.

    python examples/mini_baselines.py [TABLE.md]

For every kind of task with choices: the longest and the shortest choice, each position, and a naive Bayes classifier
over character and word n-grams of the choices, trained on four fifths of a language's items and tried on the last
fifth (cross-validation, repeated). Where the choices are labels, the same over the words of half the question. A
baseline passes where chance lies within its 95% interval over the items of both languages. Ends with code 1 where one
does not.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from lydite.stats import clopper_pearson
from lydite.tasks import list_tasks, load_tasks
from lydite.types import Sample

FOLDS = 5
REPEATS = 10


def ngrams(text: str, words: bool) -> list[str]:
    """Character n-grams of orders 1 to 3 with marked ends, or words and pairs of words."""
    units = ["^", *(text.lower().split() if words else text.lower()), "$"]
    orders = (1, 2) if words else (1, 2, 3)
    return ["\x1f".join(units[i : i + n]) for n in orders for i in range(len(units) - n + 1)]


Bags = list[list[list[str]]]
"""n-grams by sample and choice."""

PARTS = {"mini_nli": "hypothesis", "mini_paraphrase": "sentence2", "mini_word_sense": "sentence2"}
"""Half of a question, which alone must not give the label away."""


def choice_bags(samples: Sequence[Sample], words: bool) -> Bags:
    """The n-grams of each choice."""
    return [[ngrams(choice, words) for choice in sample.choices] for sample in samples]


def part_bags(samples: Sequence[Sample], part: str) -> Bags:
    """The words of one part of the question, with the label that each choice is: what a reader of that part knows."""
    grams = [ngrams(str(sample.fields[part]), words=True) for sample in samples]
    return [[[f"{label} {gram}" for gram in bag] for label in s.choices] for s, bag in zip(samples, grams, strict=True)]


def naive_bayes(samples: Sequence[Sample], bags: Bags) -> list[float]:
    """Credit a sample, when the choice whose n-grams look most like those of gold choices elsewhere is picked."""
    vocabulary = {gram: i for i, gram in enumerate(sorted({g for sample in bags for bag in sample for g in bag}))}
    counts = [np.zeros((len(sample), len(vocabulary))) for sample in bags]
    for sample, rows in zip(bags, counts, strict=True):
        for bag, row in zip(sample, rows, strict=True):
            np.add.at(row, [vocabulary[gram] for gram in bag], 1)
    totals = np.zeros(len(samples))
    for repeat in range(REPEATS):
        fold = folds(samples, np.random.default_rng(repeat))
        for held_out in range(FOLDS):
            sums = np.ones((2, len(vocabulary)))  # one of everything: Laplace's smoothing
            for index in np.flatnonzero(fold != held_out):
                for number, row in enumerate(counts[index]):
                    sums[int(number in samples[index].gold)] += row
            weights = np.log(sums / sums.sum(1, keepdims=True))
            for index in np.flatnonzero(fold == held_out):
                totals[index] += share(list(counts[index] @ (weights[1] - weights[0])), samples[index])
    return list(totals / REPEATS)


def folds(samples: Sequence[Sample], generator: np.random.Generator) -> np.ndarray:
    """A fold for each sample, with the gold positions spread evenly: where labels are fixed, a fold with one label too
    many would leave one too few to learn from, and the classifier would land below chance for no merit of the items."""
    gold = np.array([sample.gold[0] for sample in samples])
    order = np.lexsort([generator.random(len(samples)), gold])
    fold = np.empty(len(samples), dtype=int)
    fold[order] = np.arange(len(samples)) % FOLDS
    return fold


def share(values: Sequence[float], sample: Sample) -> float:
    """1 where the largest value is that of a gold choice; ties share."""
    tied = [i for i, value in enumerate(values) if np.isclose(value, max(values), rtol=0, atol=1e-9)]
    return len(set(tied) & set(sample.gold)) / len(tied)


def baselines(samples: Sequence[Sample], part: str | None) -> dict[str, list[float]]:
    """Credit of each sample under each baseline."""
    rules: dict[str, Callable[[Sample], list[float]]] = {
        "longest": lambda s: [float(len(choice)) for choice in s.choices],
        "shortest": lambda s: [-float(len(choice)) for choice in s.choices],
    }
    credit = {name: [share(rule(sample), sample) for sample in samples] for name, rule in rules.items()}
    if any(sample.gold != (0,) for sample in samples):  # pairs are stored good first, and scored without an order
        for place in range(len(samples[0].choices)):
            credit[f"position {place}"] = [float(place in sample.gold) for sample in samples]
    credit["characters"] = naive_bayes(samples, choice_bags(samples, words=False))
    credit["words"] = naive_bayes(samples, choice_bags(samples, words=True))
    if part:
        credit[f"words of {part}"] = naive_bayes(samples, part_bags(samples, part))
    return credit


def main() -> int:
    entries = {entry.name: entry for entry in list_tasks()}
    lines = ["| kind | baseline | acc | 95% interval | chance | on chance |", "|---|---|---|---|---|---|"]
    failed = 0
    for kind in entries["mini"].members:
        halves = [list(task.samples("test")) for task in load_tasks([kind])[0]]
        if not halves[0][0].choices:
            continue
        chance = float(np.mean([1 / len(sample.choices) for half in halves for sample in half]))
        found = [baselines(half, PARTS.get(kind)) for half in halves]
        for name in found[0]:
            credit = [value for half in found for value in half[name]]
            # Exact, for the credit in whole items: shared ties and repeats make fractions.
            low, high = clopper_pearson(round(sum(credit)), len(credit))
            verdict = "yes" if low <= chance <= high else "NO"
            failed += verdict == "NO"
            value = f"{np.mean(credit):.3f} | [{low:.3f}, {high:.3f}] | {chance:.3f}"
            lines.append(f"| {kind} | {name} | {value} | {verdict} |")
    table = "\n".join(lines)
    print(table)
    print(f"\n{len(lines) - 2} baselines, {failed} not on chance")
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(table + "\n", encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
