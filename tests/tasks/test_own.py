"""Own data: what six lines make, and the one line that every mistake gets."""

import csv
import json
import textwrap

import pytest

from lydite.adapt.prompt import prompted
from lydite.errors import DataError, TaskError, UserError
from lydite.tasks import load_tasks
from lydite.types import Completion
from tests.tasks.nulls import constant, mean, take

SIX = """
[task]
name = "openbookqa"
kind = "multiple_choice"
data = "rows.jsonl"
prompt = "{{question}}"
choices = "{{choices}}"
gold = "{{gold}}"
"""
ROW = {"question": "What melts?", "choices": ["ice", "sand", "salt"], "gold": 0}


def write(folder, toml=SIX, rows=(ROW,), name="rows.jsonl"):
    if isinstance(rows, bytes):
        (folder / name).write_bytes(rows)
    else:
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "own.toml").write_text(textwrap.dedent(toml), encoding="utf-8")
    return folder / "own.toml"


def load(path):
    [task], groups = load_tasks([str(path)])
    assert groups == []
    return task


def task_with(folder, rows=(ROW,), **changes):
    """The task of SIX with keys changed, added, or (None) left out."""
    keys = {
        "name": "own",
        "kind": "multiple_choice",
        "data": "rows.jsonl",
        "prompt": "{{question}}",
        "choices": "{{choices}}",
        "gold": "{{gold}}",
    } | changes
    lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items() if value is not None]
    return load(write(folder, "[task]\n" + "\n".join(lines) + "\n", rows))


def samples(task):
    return list(task.samples("test"))


def requests(task):
    task = prompted(task)
    sample = samples(task)[0]
    return task.views[next(iter(task.views))](sample, task.prompt(sample))


# ------------------------------------------------------------------------------------------ it works


def test_six_lines(tmp_path):
    task = load(write(tmp_path))
    assert task.name == "openbookqa"
    assert [(r.context, r.continuation) for r in requests(task)] == [
        ("What melts?", " ice"),
        ("What melts?", " sand"),
        ("What melts?", " salt"),
    ]
    assert samples(task)[0].gold == (0,)
    assert mean(take(task, constant)["acc"]) == pytest.approx(1 / 3)
    assert task.origin["task_file"] == str(tmp_path / "own.toml")


def test_the_data_path_is_relative_to_the_file_not_to_the_process(tmp_path, monkeypatch):
    (tmp_path / "deep").mkdir()
    path = write(tmp_path / "deep")
    monkeypatch.chdir(tmp_path)
    [task], _ = load_tasks(["deep/own.toml"])
    assert len(samples(task)) == 1
    assert path.exists()


@pytest.mark.parametrize(
    ("gold", "index"),
    [(2, 2), ("2", 2), ("B", 1), ("b", 1), ("salt", 2), (" sand ", 1), (1.0, 1), ([0, 2], 0), (["ice"], 0)],
)
def test_gold_is_an_index_a_letter_or_a_text(tmp_path, gold, index):
    assert samples(task_with(tmp_path, [ROW | {"gold": gold}]))[0].gold[0] == index


def test_the_text_of_a_choice_comes_before_its_letter_and_number(tmp_path):
    rows = [ROW | {"choices": ["B", "A"], "gold": "A"}, ROW | {"choices": ["2", "1", "0"], "gold": "0"}]
    assert [sample.gold for sample in samples(task_with(tmp_path, rows))] == [(1,), (2,)]


def test_columns_of_a_csv_as_choices_and_as_lettered_list(tmp_path):
    with open(tmp_path / "rows.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["The question", "A", "B", "key"], ["Which?", "one", "two", "B"]])
    toml = """
    [task]
    name = "own"
    kind = "multiple_choice"
    data = "rows.csv"
    prompt = '''{{row["The question"]}}
    {{lettered}}
    Answer:'''
    choices = ["{{A}}", "{{B}}"]
    gold = "{{key}}"
    letters = true
    description = "Choose."
    metrics = ["brier", "acc"]
    """
    task = load(write(tmp_path, textwrap.dedent(toml).replace("    ", "")))
    assert [r.continuation for r in requests(task)] == [" A", " B"]
    assert requests(task)[0].context == "Choose.Which?\nA. one\nB. two\nAnswer:"
    assert [metric.name for metric in task.metrics] == ["brier", "acc"]
    assert list(take(task, constant)) == ["acc", "brier"]
    said = Completion(text="B", num_tokens=1, finish="stop")
    assert [score.value for score in task.score(samples(task)[0], [said])] == [1.0]


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist([ROW, ROW | {"gold": 1}]), tmp_path / "rows.parquet")
    write(tmp_path, SIX.replace("rows.jsonl", "rows.parquet"))
    assert [sample.gold for sample in samples(load(tmp_path / "own.toml"))] == [(0,), (1,)]


def test_minimal_pairs(tmp_path):
    rows = [{"right": "She runs.", "wrong": "She run."}]
    task = task_with(tmp_path, rows, kind="minimal_pairs", prompt=None, gold=None, choices=["{{right}}", "{{wrong}}"])
    assert [(r.context, r.continuation) for r in requests(task)] == [("", "She runs."), ("", "She run.")]
    assert mean(take(task, constant)["acc"]) == 0.5


def test_last_word_generation_and_heldout(tmp_path):
    row = {"text": "one two three", "context": "one two", "word": "three", "answers": ["Three!", "3"], "by": "Ann"}
    last = task_with(tmp_path, [row], kind="last_word", prompt="{{context}}", choices=None, gold="{{word}}")
    assert [(r.context, r.continuation) for r in requests(last)] == [("one two", " three")]
    held = task_with(tmp_path, [row], kind="heldout", prompt=None, choices=None, gold=None, cluster="{{by}}")
    assert [(r.context, r.continuation, r.window) for r in requests(held)] == [("", "one two three", "max_context")]
    assert samples(held)[0].cluster == "Ann"
    chosen = {"metrics": ["exact_match", "f1"], "normalize": "squad", "stop": ["\n", "."], "max_new_tokens": 7}
    written = task_with(
        tmp_path, [row], kind="generation", prompt="{{context}}", choices=None, gold="{{answers}}", **chosen
    )
    [request] = requests(written)
    assert (request.decoding.max_new_tokens, request.decoding.stop_strings) == (7, ("\n", "."))
    scores = written.score(samples(written)[0], [Completion(text=" three", num_tokens=1, finish="stop")])
    assert [(score.metric, score.value) for score in scores] == [("exact_match", 1.0), ("f1", 1.0)]


def test_extract_and_metadata(tmp_path):
    row = {"question": "2+2?", "gold": 4, "topic": "sums"}
    task = task_with(
        tmp_path, [row], kind="generation", choices=None, extract=["after:####", "last_number"], metadata=["topic"]
    )
    assert samples(task)[0].metadata == {"topic": "sums"}
    values = [
        task.score(samples(task)[0], [Completion(text=text, num_tokens=1, finish="stop")])[0].value
        for text in ("2 and 2 make 4.", "#### 4\nthen 5", "5")
    ]
    assert values == [1.0, 1.0, 0.0]


def test_shots_from_the_data_itself_never_hold_the_sample(tmp_path):
    rows = [ROW | {"question": f"What melts? {i % 3}"} for i in range(6)]
    task = prompted(task_with(tmp_path, rows, shots=2, delimiter="\n---\n"))
    for sample in samples(task):
        shown = task.prompt(sample).split("\n---\n")
        assert len(shown) == 3
        assert shown[-1] == sample.input
        assert not any(example.startswith(sample.input) for example in shown[:-1])


def test_shots_data_and_first_n(tmp_path):
    (tmp_path / "train.jsonl").write_text(
        "".join(json.dumps(ROW | {"question": f"t{i}", "gold": i % 3}) + "\n" for i in range(3)), encoding="utf-8"
    )
    task = prompted(task_with(tmp_path, shots=2, shots_data="train.jsonl", shots_by="first_n", description="D:"))
    assert task.prompt(samples(task)[0]) == "D:t0 ice\n\nt1 sand\n\nWhat melts?"


def test_ids_from_the_column_a_template_or_the_line(tmp_path):
    rows = [ROW | {"id": 7}, ROW | {"id": ""}, ROW]
    assert [sample.id for sample in samples(task_with(tmp_path, rows))] == ["7", "2", "3"]
    named = task_with(tmp_path, [ROW], id="q-{{gold}}")
    assert [sample.id for sample in samples(named)] == ["q-0"]


def test_the_fingerprint_follows_template_and_data(tmp_path):
    seen = {
        task_with(tmp_path).fingerprint,
        task_with(tmp_path, prompt="Q: {{question}}").fingerprint,
        task_with(tmp_path, [ROW, ROW]).fingerprint,
    }
    assert len(seen) == 3
    assert task_with(tmp_path).fingerprint in seen


def test_stored_outputs_score_without_the_data(tmp_path):
    task = task_with(tmp_path)
    [sample] = samples(task)
    outputs = [constant(request) for request in requests(task)]
    (tmp_path / "rows.jsonl").unlink()
    again = load(tmp_path / "own.toml")
    assert again.score(sample, outputs) == task.score(sample, outputs)


# ---------------------------------------------------------------------------------------- mistakes


def mistake(expected, call):
    with pytest.raises(expected) as caught:
        call()
    assert isinstance(caught.value, UserError)
    assert "\n" not in str(caught.value)
    return str(caught.value)


ROWS = [
    (ROW | {"choices": []}, {}, "line 2: choices is empty"),
    (ROW | {"choices": ["ice"]}, {}, "line 2: choices has 1, and at least two are needed"),
    (ROW | {"choices": ["ice", ""]}, {}, "line 2: choice 1 is empty"),
    (ROW | {"choices": "ice, sand"}, {}, "and a list is needed"),
    (ROW | {"choices": [["ice"], "sand"]}, {}, "a choice is ['ice'], and text is needed"),
    (ROW | {"gold": 3}, {}, "line 2: gold 3 is out of range; 3 choices have indices 0 to 2"),
    (ROW | {"gold": -1}, {}, "gold -1 is out of range"),
    (ROW | {"gold": "D"}, {}, "gold 'D' is out of range: neither index (0 to 2), letter nor text of a choice"),
    (ROW | {"gold": "iron"}, {}, "gold 'iron' is out of range"),
    (ROW | {"gold": "7"}, {}, "gold 7 is out of range"),
    (ROW | {"gold": None}, {}, "gold None is out of range"),
    (ROW | {"gold": True}, {}, "gold True is out of range"),
    (ROW | {"gold": [0, 1, 2]}, {}, "every choice is gold"),
    (ROW | {"gold": []}, {}, "line 2: gold is empty"),
    (ROW | {"question": None}, {}, "line 2: prompt gives nothing (the value is missing)"),
    (ROW | {"question": ["a"]}, {}, "line 2: prompt gives ['a'], and text is needed"),
    ({"q": 1}, {}, "line 2: choices: 'choices' is undefined; columns: q"),
    (ROW, {"prompt": "{{qestion}}?"}, "line 1: prompt: 'qestion' is undefined; columns: question, choices, gold"),
    (ROW, {"prompt": "{{question.text}}"}, "line 1: prompt: 'str object' has no attribute 'text'"),
    (ROW, {"prompt": "{{question.__class__.__mro__}}"}, "unsafe"),
    (ROW, {"prompt": "{{question + 1}}"}, "line 1: prompt:"),
    (ROW, {"metadata": ["topic"]}, "metadata: no column 'topic'; columns: question, choices, gold"),
    (ROW, {"id": "{{question}}"}, "line 2: the id 'What melts?' was used in line 1 already"),
    (ROW | {"gold": ""}, {"kind": "generation", "choices": None}, "line 2: gold is empty"),
    (ROW | {"gold": ["a", "b"]}, {"kind": "last_word", "choices": None}, "gold has 2 texts, and last_word needs one"),
    (ROW | {"question": ""}, {"kind": "heldout", "prompt": None, "choices": None, "gold": None, "text": "{{question}}"},
     "line 2: the text is empty"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "changes", "said"), ROWS)
def test_mistakes_in_rows_name_file_and_line(tmp_path, row, changes, said):
    message = mistake(DataError, lambda: samples(task_with(tmp_path, [ROW, row], **changes)))
    assert said in message
    assert str(tmp_path / "rows.jsonl") in message


def test_undecodable_bytes_name_line_and_byte(tmp_path):
    path = write(tmp_path, rows=json.dumps(ROW).encode() + b'\n{"question": "caf\xe9"}\n')
    assert "rows.jsonl, line 2, byte 18: 0xe9 is not UTF-8" in mistake(DataError, lambda: samples(load(path)))


def test_empty_and_missing_data(tmp_path):
    assert "has no rows" in mistake(DataError, lambda: samples(load(write(tmp_path, rows=b""))))
    (tmp_path / "rows.jsonl").unlink()
    message = mistake(DataError, lambda: prompted(load(tmp_path / "own.toml")))
    assert f"no file {tmp_path / 'rows.jsonl'}" in message


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"promt": "x"}, "unknown key 'promt' for multiple_choice; did you mean prompt? known: about, answer_prefix"),
        ({"max_new_tokens": 5}, "unknown key 'max_new_tokens' for multiple_choice"),
        ({"kind": "multiple"}, "kind = 'multiple' is not known; known: multiple_choice"),
        ({"kind": None}, "kind = None is not known"),
        ({"kind": ["generation"]}, "kind = ['generation'] is not known"),
        ({"name": " "}, "needs the key 'name'"),
        ({"name": None}, "needs the key 'name'"),
        ({"gold": None}, "multiple_choice needs the key 'gold'"),
        ({"shots": "two"}, "Expected `int`, got `str` - at `$.shots`"),
        ({"shots": -1}, "shots must be 0 or more"),
        ({"shots_by": "chance"}, "Invalid enum value 'chance'"),
        ({"prompt": "{{question"}, "prompt = '{{question' is not a template"),
        ({"metrics": ["accuracy"]}, "no metric 'accuracy' here; there are acc, acc_norm"),
        ({"kind": "generation", "choices": None, "metrics": ["bleu4"]}, "generation has no metric 'bleu4'"),
        ({"kind": "generation", "choices": None, "extract": ["number"]}, "unknown extract rule 'number'"),
        ({"kind": "generation", "choices": None, "extract": ["regex:("]}, "not a regular expression"),
        ({"kind": "generation", "choices": None, "normalize": "Squad"}, "Invalid enum value 'Squad'"),
        ({"kind": "generation", "choices": None, "stop": [""]}, "an empty stop string"),
    ],
)
def test_mistakes_in_the_task_file(tmp_path, changes, said):
    message = mistake(TaskError, lambda: task_with(tmp_path, **changes))
    assert said in message
    assert str(tmp_path / "own.toml") in message


def test_files_that_are_no_task_files(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text("[task\nname = 1")
    assert "is not TOML" in mistake(TaskError, lambda: load(path))
    path.write_text("[tasks]\nname = 'x'")
    assert "one table [task], and this one has [tasks]" in mistake(TaskError, lambda: load(path))
    path.write_bytes(b"[task]\nname = '\xff'")
    assert "own.toml, line 2, byte 9: 0xff is not UTF-8" in mistake(DataError, lambda: load(path))
    assert f"no file {tmp_path / 'no.toml'}" in mistake(DataError, lambda: load(tmp_path / "no.toml"))


PYTHON = """
from lydite.tasks.lastword import last_word_task
from lydite.types import Sample


def task():
    return last_word_task("mine", lambda split: [Sample(id="1", input="one two", targets=("three",))])
"""


def test_a_python_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(PYTHON, encoding="utf-8")
    task = load(path)
    assert task.name == "mine"
    assert task.fingerprint
    assert task.origin == {"task_file": str(path)}
    path.write_text(PYTHON.replace("def task", "def tusk"), encoding="utf-8")
    assert "no function task()" in mistake(TaskError, lambda: load(path))
    path.write_text("def task():\n    return 3\n", encoding="utf-8")
    assert "task() returned a int" in mistake(TaskError, lambda: load(path))
    path.write_text("def task(:\n", encoding="utf-8")
    assert "mine.py, line 1" in mistake(TaskError, lambda: load(path))
    path.write_text("def task():\n    return 1 / 0\n", encoding="utf-8")
    assert "mine.py, line 2: ZeroDivisionError" in mistake(TaskError, lambda: load(path))
    path.write_text("\nimport no_such_module\n", encoding="utf-8")
    assert "mine.py, line 2: ModuleNotFoundError" in mistake(TaskError, lambda: load(path))


@pytest.mark.parametrize("prompt", ["{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{{ 'a' * 10**18 }}"])
def test_a_template_without_an_end_is_a_mistake(tmp_path, prompt):
    task = task_with(tmp_path, prompt=prompt)
    assert "does not end, or its text is too long" in mistake(DataError, lambda: samples(task))


def test_two_files_with_one_name(tmp_path):
    path = write(tmp_path)
    again = tmp_path / "again.toml"
    again.write_text(path.read_text())
    assert "another task is called 'openbookqa'" in mistake(TaskError, lambda: load_tasks([str(path), str(again)]))
