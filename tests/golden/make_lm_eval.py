"""What lm-evaluation-harness asks, for the invented rows of tests/tasks/understanding.py.

    python tests/golden/make_lm_eval.py

Run it where lm-evaluation-harness 0.4.13 is installed (Lydite does not need it); it writes lm_eval.json beside itself:
for each of our tasks the (context, continuation) pairs of its first two samples, without examples and with the first two
rows of the other split as examples, as lm-evaluation-harness's own task files render them.
"""

import functools
import json
import re
import sys
import types
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from tests.tasks.understanding import HUB, PAWSX, XNLI  # noqa: E402

THEIRS = {
    "glue_cola": "cola",
    "glue_sst2": "sst2",
    "glue_mrpc": "mrpc",
    "glue_qqp": "qqp",
    "glue_mnli_matched": "mnli",
    "glue_mnli_mismatched": "mnli_mismatch",
    "glue_qnli": "qnli",
    "glue_rte": "rte",
    "glue_wnli": "wnli",
    "superglue_boolq": "boolq",
    "superglue_cb": "cb",
    "superglue_copa": "copa",
    "superglue_multirc": "multirc",
    "superglue_record": "record",
    "superglue_rte": "sglue_rte",
    "superglue_wic": "wic",
    "superglue_wsc": "wsc",
    "wsc273": "wsc273",
    "winogender": "winogender_all",
    "crows_pairs": "crows_pairs_english",
    "bbq_age": "bbq",
    **{f"xnli_{code}": f"xnli_{code}" for code in XNLI},
    **{f"pawsx_{code}": f"paws_{code}" for code in PAWSX},
}
"""Our task to theirs."""
T5 = {
    f"superglue_{name}": f"super_glue-{name}-t5-prompt"
    for name in ("boolq", "cb", "copa", "multirc", "record", "rte", "wic", "wsc")
}
"""Our task to theirs in text-to-text."""


@functools.cache
def _index():
    """Task to its file. lm-evaluation-harness's own index reads thousands of files and takes minutes."""
    import lm_eval.tasks

    top = Path(lm_eval.tasks.__file__).parent
    folders = ("glue", "super_glue", "wsc273", "winogender", "crows_pairs", "bbq", "xnli", "paws-x")
    files = [path for folder in folders for path in (top / folder).rglob("*.yaml")]
    names = {re.search(r"^task: *[\"']?([^\"'\n]+)", path.read_text(), re.MULTILINE): path for path in files}
    return {match[1].strip(): path for match, path in names.items() if match}


def _task(name, rows, shots):
    from datasets import Dataset, DatasetDict
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    test, train = Dataset.from_list(rows["test"]), Dataset.from_list(rows.get("shots", rows["test"]))
    names = ("validation", "validation_matched", "validation_mismatched", "test")
    splits = DatasetDict({"train": train} | dict.fromkeys(names, test))
    # Their own task file, over our rows and with the first examples instead of random ones.
    config = load_yaml(_index()[name], resolve_func=True)
    config |= {
        "custom_dataset": lambda **_: splits,
        "num_fewshot": shots,
        "fewshot_config": {"sampler": "first_n"},
    }
    config.pop("tag", None)
    return ConfigurableTask(config=config)


def _requests(name, rows, shots):
    """{sample: [[context, continuation], ...]}"""
    task = _task(name, rows, shots)
    task.build_all_requests(limit=None)
    found = {}
    for instance in task.instances:
        context, rest = instance.args[:2]
        found.setdefault(instance.doc_id, []).append([context, rest if isinstance(rest, str) else ""])
    return found


def _first(found, number=2):
    return [found[key] for key in sorted(found)[:number]]


def main():
    # Their ReCoRD wants a module that transformers 5 no longer has; only its metrics use it.
    stub = types.ModuleType("transformers.data.metrics.squad_metrics")
    sys.modules.setdefault("transformers.data.metrics", types.ModuleType("transformers.data.metrics"))
    sys.modules["transformers.data.metrics.squad_metrics"] = stub
    result = {"plain": {}, "shots": {}, "text_to_text": {}}
    for ours, theirs in THEIRS.items():
        result["plain"][ours] = _first(_requests(theirs, HUB[ours], 0), 6 if ours == "superglue_multirc" else 2)
        if "shots" in HUB[ours] and ours != "superglue_multirc":
            # Their MultiRC turns yes and no round in its examples (see docs/tasks.md).
            result["shots"][ours] = _first(_requests(theirs, HUB[ours], 2))
    for ours, theirs in T5.items():
        result["text_to_text"][ours] = _first(_requests(theirs, HUB[ours], 0), 6 if ours == "superglue_multirc" else 2)
    text = json.dumps(result, ensure_ascii=False, indent=1) + "\n"
    (HERE / "lm_eval.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
