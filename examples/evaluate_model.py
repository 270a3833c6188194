"""Evaluate a model from Python and print its estimates.

    python examples/evaluate_model.py [MODEL] [TASK,TASK...] [LIMIT]

MODEL is anything that `lydite evaluate` takes. Without arguments: smollm2-135m-instruct on two small tasks. For a look
without a download: `python examples/evaluate_model.py random`.
"""

import sys

from lydite.evaluate import evaluate
from lydite.models import load_model
from lydite.tasks import load_tasks


def main(spec: str = "smollm2-135m-instruct", names: str = "mini_grammar_en,mini_nli_en", limit: str = "30") -> None:
    model = load_model(spec)
    tasks, _ = load_tasks(names.split(","))
    for task in tasks:
        # out=Path("runs/mine") would keep every sample in a folder, and continue it when it is there already.
        run = evaluate(model, task, limit=int(limit))
        for estimate in run.estimates:
            print(estimate.signature)


if __name__ == "__main__":
    main(*sys.argv[1:])
