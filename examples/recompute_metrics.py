"""Compute the metrics of a run again from its samples.jsonl, with other libraries: json, scipy and sacrebleu.

    python examples/recompute_metrics.py

Nothing of Lydite is used after the run but its file: a line of samples.jsonl holds the sample, what the model was asked,
what it answered, and the scores. `lydite rescore RUN` does the same with Lydite's own metrics, after a change of them.
"""

import contextlib
import json
import math
import tempfile
from pathlib import Path

import sacrebleu
from scipy.special import softmax

from lydite.cli.app import main as lydite


def totals(row: dict) -> list[float]:
    """log p of each scored text, in nats."""
    return [math.fsum(output["logprobs"]) for output in row["outputs"]]


def choices(rows: list[dict]) -> dict[str, float]:
    """Accuracy plain and by character, Brier score."""
    acc, by_character, brier = [], [], []
    for row in rows:
        sample = row["sample"]
        scored = totals(row)[: len(sample["choices"])]
        [gold] = sample["gold"]
        lengths = [len(choice) for choice in sample["choices"]]
        acc.append(max(range(len(scored)), key=scored.__getitem__) == gold)
        by_character.append(max(range(len(scored)), key=lambda i: scored[i] / lengths[i]) == gold)
        brier.append(sum((p - (i == gold)) ** 2 for i, p in enumerate(softmax(scored))))
    return {
        name: sum(values) / len(rows) for name, values in (("acc", acc), ("acc_norm", by_character), ("brier", brier))
    }


def last_words(rows: list[dict]) -> dict[str, float]:
    """Perplexity of the last word: exp of minus the mean log p."""
    return {"perplexity": math.exp(-sum(sum(totals(row)) for row in rows) / len(rows))}


def texts(rows: list[dict]) -> dict[str, float]:
    """chrF of the corpus, by sacrebleu, over every reference."""
    width = max(len(row["sample"]["targets"]) for row in rows)
    references = [[(row["sample"]["targets"] + [None] * width)[i] for row in rows] for i in range(width)]
    answers = [row["scores"][0]["answer"] or "" for row in rows]
    return {"chrf": sacrebleu.corpus_chrf(answers, references).score / 100}


AGAIN = {"mini_knowledge_en": choices, "mini_cloze_en": last_words, "mini_translate_zh_en": texts}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        with contextlib.suppress(SystemExit), contextlib.redirect_stdout(None):
            lydite(["evaluate", "random", "--tasks", ",".join(AGAIN), "--out", folder])
        for task, again in AGAIN.items():
            leaf = Path(folder) / "random" / task
            lines = (leaf / "samples.jsonl").read_text(encoding="utf-8").splitlines()
            run = json.loads((leaf / "run.json").read_text(encoding="utf-8"))
            stored = {estimate["metric"]: estimate["value"] for estimate in run["estimates"]}
            for name, value in again([json.loads(line) for line in lines]).items():
                assert math.isclose(value, stored[name], rel_tol=1e-9), (task, name, value, stored[name])
                print(f"{task} {name}: {value:.6f}, as in run.json")


if __name__ == "__main__":
    main()
