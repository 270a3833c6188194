"""Files for the test servers, from runs over unlabelled rows."""

import json

import pytest

from lydite.errors import RunError
from lydite.evaluate import evaluate
from lydite.submission import write_submission
from lydite.tasks import load_tasks
from lydite.types import LogProbs, ModelInfo, Usage


class Last:
    """Likes the last choice best."""

    info = ModelInfo(name="last", family="null", rule="null", can=("score",), fingerprint="f")

    def __init__(self):
        self.usage = Usage()

    def answer(self, requests):
        for position, request in enumerate(requests):
            yield position, LogProbs(tokens=("x",), logprobs=(float(request.index) - 99,), greedy=False, rule="null")


def data(folder):
    def lines(path, rows):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(row + "\n" for row in rows), encoding="utf-8")

    lines(folder / "glue/CoLA/test.tsv", ["index\tsentence", "0\tIt rains.", "1\tRains it."])
    lines(folder / "glue/RTE/test.tsv", ["index\tsentence1\tsentence2", "0\tIt rains.\tIt pours."])
    lines(folder / "glue/STS-B/test.tsv", ["index\tsentence1\tsentence2", "0\tIt rains.\tIt pours."])
    wic = {"word": "mill", "sentence1": "A mill.", "sentence2": "They mill.", "idx": 0,
           "start1": 2, "end1": 6, "start2": 5, "end2": 9}  # fmt: skip
    lines(folder / "superglue/WiC/test.jsonl", [json.dumps(wic)])
    asked = [{"question": "q", "idx": 3, "answers": [{"text": "a", "idx": 7}, {"text": "b", "idx": 8}]}]
    lines(
        folder / "superglue/MultiRC/test.jsonl", [json.dumps({"idx": 5, "passage": {"text": "t", "questions": asked}})]
    )
    story = {"text": "Ann met Bob.", "entities": [{"start": 0, "end": 2}, {"start": 8, "end": 10}]}
    row = {"idx": 4, "passage": story, "qas": [{"idx": 9, "query": "@placeholder left"}]}
    lines(folder / "superglue/ReCoRD/test.jsonl", [json.dumps(row)])
    return folder


def clue(folder):
    """CLUE's test splits in its own files: without labels, two of them made anew for 1.1."""
    rows = {
        "afqmc/test": {"sentence1": "怎么还款", "sentence2": "如何还款", "id": 0},
        "tnews_public/test1.1": {"id": 0, "sentence": "磨坊开张了", "keywords": ""},
        "iflytek/test": {"id": 0, "sentence": "能叫车"},
        "ocnli/test": {"id": 0, "sentence1": "门开着", "sentence2": "门"},
        "cluewsc2020/test1.1": {"text": "老李见到老王，他很高兴。", "id": 0,
                                "target": {"span1_text": "老李", "span1_index": 0, "span2_text": "他", "span2_index": 7}},
    }  # fmt: skip
    for name, row in rows.items():
        path = folder / "clue" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    return folder


def test_clue(tmp_path):
    names = [f"clue_{name}_test" for name in ("afqmc", "tnews", "iflytek", "ocnli", "cluewsc2020")]
    tasks, _ = load_tasks(names, data_dir=clue(tmp_path / "data"))
    for task in tasks:
        evaluate(Last(), task, out=tmp_path / "runs")
    write_submission(tmp_path / "runs", tmp_path / "out")
    found = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "out").iterdir()}
    # The last label of each, as CLUE's submission guide has them: {"id": 0, "label": "0"}.
    last = {"afqmc": "1", "tnews11": "116", "iflytek": "118", "ocnli_50k": "contradiction", "cluewsc11": "false"}
    assert found == {f"{name}_predict.json": f'{{"id":0,"label":"{label}"}}\n' for name, label in last.items()}
    [group] = [group for group in load_tasks(["clue_test"])[1] if group.name == "clue_test"]
    assert len(group.members) == 7


TASKS = [f"glue_{name}_test" for name in ("cola", "rte", "stsb")]
TASKS += [f"superglue_{name}_test" for name in ("wic", "multirc", "record")]


def test_official_layouts(tmp_path):
    tasks, _ = load_tasks(TASKS, data_dir=data(tmp_path / "data"))
    for task in tasks:
        run = evaluate(Last(), task, out=tmp_path / "runs")
        assert [(estimate.metric, estimate.value) for estimate in run.estimates] == [("answered", 1.0)]
    assert write_submission(tmp_path / "runs", tmp_path / "out") == dict.fromkeys(
        ["CoLA.tsv", "RTE.tsv", "STS-B.tsv", "WiC.jsonl", "MultiRC.jsonl", "ReCoRD.jsonl"], 0
    )
    files = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "out").iterdir()}
    assert files["CoLA.tsv"] == "index\tprediction\n0\t1\n1\t1\n"
    assert files["RTE.tsv"] == "index\tprediction\n0\tnot_entailment\n"
    index, grade = files["STS-B.tsv"].splitlines()[1].split("\t")
    assert index == "0"
    assert 4 < float(grade) < 5
    assert json.loads(files["WiC.jsonl"]) == {"idx": 0, "label": "true"}
    nested = {"questions": [{"idx": 3, "answers": [{"idx": 7, "label": 0}, {"idx": 8, "label": 0}]}]}
    assert json.loads(files["MultiRC.jsonl"]) == {"idx": 5, "passage": nested}
    assert json.loads(files["ReCoRD.jsonl"]) == {"idx": 9, "label": "Bob"}


def test_parts_of_a_split_and_other_runs_are_refused(tmp_path):
    [task], _ = load_tasks(["glue_cola_test"], data_dir=data(tmp_path / "data"))
    evaluate(Last(), task, out=tmp_path / "runs", limit=1)
    with pytest.raises(RunError, match="without --limit"):
        write_submission(tmp_path / "runs", tmp_path / "out")
    [mini], _ = load_tasks(["mini_nli_en"])
    evaluate(Last(), mini, out=tmp_path / "other")
    with pytest.raises(RunError, match="glue_test"):
        write_submission(tmp_path / "other", tmp_path / "out")
