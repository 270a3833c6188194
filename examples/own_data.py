"""Your own data: six lines of TOML (own_data.toml) over rows of JSON (own_data.jsonl).

    python examples/own_data.py [MODEL]

The same from the shell: `lydite evaluate MODEL --tasks examples/own_data.toml`.
"""

import sys
from pathlib import Path

from lydite.adapt.prompt import prompted
from lydite.evaluate import evaluate
from lydite.models import load_model
from lydite.tasks import load_tasks


def main(spec: str = "random") -> None:
    model = load_model(spec)
    [task], _ = load_tasks([str(Path(__file__).with_name("own_data.toml"))])
    for shots in (0, 2):
        # Examples come from the same rows here, and never are the question itself.
        run = evaluate(model, prompted(task, shots=shots))
        headline = run.estimates[0]
        low, high = headline.interval
        print(f"{shots} shots: {headline.metric} {headline.value:.3f} [{low:.3f}, {high:.3f}], n {headline.n}")
    sample = next(iter(task.samples("test")))
    print(f"\nprompt of sample {sample.id} with two examples:\n{prompted(task, shots=2).prompt(sample)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
