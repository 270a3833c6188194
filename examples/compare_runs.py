"""Compare two models from Python, sample by sample, from their run folders.

    python examples/compare_runs.py [MODEL] [MODEL]

From the shell: `lydite evaluate A B --tasks mini_nli_en --out runs/pair`, then `lydite compare runs/pair`.
"""

import sys
import tempfile
from pathlib import Path

from lydite.compare import compare
from lydite.evaluate import evaluate
from lydite.models import load_model
from lydite.tasks import load_tasks


def main(first: str = "uniform", second: str = "random") -> None:
    tasks, _ = load_tasks(["mini_nli_en", "mini_word_sense_en"])
    metrics = {(task.name, metric.name): metric for task in tasks for metric in task.metrics}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        for spec in (first, second):
            model = load_model(spec)
            for task in tasks:
                evaluate(model, task, out=out)
        # A run folder holds numbers and texts, not functions: the metric's own come from the task.
        found = compare([out], lambda run, name: metrics.get((run.task.name, name)))
    for difference in found.differences:
        print(f"settings differ: {difference.key} {difference.values}")
    for compared in found.tasks:
        [pair] = compared.pairs
        low, high = pair.difference.interval
        print(
            f"{compared.name}: {pair.a} - {pair.b} = {pair.difference.value:+.3f} [{low:+.3f}, {high:+.3f}] "
            f"on {compared.n_shared} shared samples, Holm p {pair.p_holm:.3f}, "
            f"could have found {pair.difference.detectable:.3f}"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
