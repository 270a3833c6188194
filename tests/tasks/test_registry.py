"""Names, groups, where data is looked for, and `lydite tasks`."""

import json
import re
import subprocess
import sys
import time
import tracemalloc
import types

import pytest

from lydite.cli.app import make_app
from lydite.errors import DataError, TaskError, UserError
from lydite.tasks import list_tasks, load_tasks
from tests.tasks.layouts import make_data


@pytest.fixture(autouse=True)
def no_data_folder(monkeypatch):
    monkeypatch.delenv("LYDITE_DATA", raising=False)


def command(*arguments):
    make_app(arguments)(arguments, prog_name="lydite", standalone_mode=False)


def test_every_entry_says_what_a_user_must_know():
    for entry in list_tasks():
        assert entry.source, entry.name
        assert entry.licence, entry.name
        assert entry.description, entry.name
        assert entry.languages, entry.name
        assert (entry.load is None) == bool(entry.members), entry.name


def test_every_member_exists():
    names = {entry.name for entry in list_tasks()}
    assert all(member in names for entry in list_tasks() for member in entry.members)


@pytest.mark.parametrize(
    ("name", "said"),
    [("blimb", "did you mean blimp"), ("zzzz", "`lydite tasks` lists them, and a path ends in .toml or .py")],
)
def test_unknown_names(name, said):
    with pytest.raises(TaskError, match=re.escape(said)):
        load_tasks([name])


def test_each_task_comes_once(tmp_path):
    tasks, groups = load_tasks(["blimp", "blimp_passive_2", "blimp"], data_dir=make_data(tmp_path))
    assert [task.name for task in tasks] == ["blimp_causative", "blimp_passive_2"]
    assert len(groups) == 1


def test_mini_is_a_group_of_groups():
    tasks, groups = load_tasks(["mini"])
    by_name = {group.name: group for group in groups}
    assert by_name["mini"].weighting == "tasks"
    assert by_name["mini_grammar"].weighting == "samples"
    assert set(by_name["mini"].members) == set(by_name) - {"mini"}
    members = [member for name in by_name["mini"].members for member in by_name[name].members]
    assert sorted(members) == sorted(task.name for task in tasks)


def test_missing_data_is_one_line_with_every_route(tmp_path, monkeypatch):
    monkeypatch.setattr("lydite.tasks.sources.hub_is_possible", lambda: False)
    [task], _ = load_tasks(["gsm8k"], data_dir=tmp_path)
    with pytest.raises(DataError) as caught:
        list(task.samples("test"))
    message = str(caught.value)
    for part in ("gsm8k/test.jsonl", str(tmp_path), "--data-dir", "LYDITE_DATA", "openai/gsm8k", "lydite[data]"):
        assert part in message
    assert "\n" not in message
    with pytest.raises(DataError, match=r"no folder .*nowhere"):
        load_tasks(["gsm8k"], data_dir=tmp_path / "nowhere")


def test_missing_examples_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr("lydite.tasks.sources.hub_is_possible", lambda: True)
    data = make_data(tmp_path)
    (data / "gsm8k" / "train.jsonl").unlink()
    [task], _ = load_tasks(["gsm8k"], data_dir=data)
    assert len(list(task.samples("test"))) == 2
    with pytest.raises(DataError, match=r"no gsm8k/train.jsonl or gsm8k/train.sample.jsonl"):
        list(task.samples("shots"))


def test_the_data_folder_of_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("LYDITE_DATA", str(make_data(tmp_path)))
    [task], _ = load_tasks(["lambada"])
    assert [sample.targets for sample in task.samples("test")] == [("water",), ("boat",)]


def test_many_rows_load_quickly_and_one_by_one(tmp_path):
    folder = tmp_path / "gsm8k"
    folder.mkdir()
    rows = ({"question": f"What is {i} and {i}? " * 5, "answer": f"It is so.\n#### {i}"} for i in range(100_000))
    with open(folder / "test.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    [task], _ = load_tasks(["gsm8k"], data_dir=tmp_path)
    start = time.process_time()
    assert sum(1 for _ in task.samples("test")) == 100_000
    assert time.process_time() - start < 2  # 0.2 s on a machine of 2024
    tracemalloc.start()
    for number, _ in enumerate(task.samples("test")):
        if number == 20_000:
            break
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000  # bytes; the rows themselves are 4 MB


class FakeRows(list):
    """Rows as `datasets` gives them: with the addresses of the files that they came from."""

    download_checksums = {"hf://datasets/some/where@" + "0123456789" * 4 + "/test/0000.parquet": {"num_bytes": 1}}  # noqa: RUF012


class FakeHub(types.ModuleType):
    """Stands in for the `datasets` library."""

    def __init__(self, rows=(), error=None):
        super().__init__("datasets")
        self.rows, self.error, self.calls = rows, error, []

    def load_dataset(self, repository, configuration, *, split, revision):
        self.calls.append((repository, configuration, split))
        assert revision == ("refs/convert/parquet" if repository == "haonan-li/cmmlu" else None)
        if self.error:
            raise self.error
        return FakeRows(self.rows)


HUB = [
    ("blimp_causative", {"sentence_good": "a", "sentence_bad": "b", "field": "f", "linguistics_term": "l"},
     ("nyu-mll/blimp", "causative", "train"), "a"),
    ("mmlu_astronomy", {"question": " q ", "choices": ["w", "x", "y", "z"], "answer": 2, "subject": "astronomy"},
     ("cais/mmlu", "astronomy", "test"), "q"),
    ("cmmlu_agronomy", {"Question": "q", "A": "w", "B": "x", "C": "y", "D": "z", "Answer": "D"},
     ("haonan-li/cmmlu", "agronomy", "test"), "q"),
    ("arc_easy", {"id": "1", "question": "q", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "B"},
     ("allenai/ai2_arc", "ARC-Easy", "test"), "q"),
    ("lambada", {"text": "one two three"}, ("EleutherAI/lambada_openai", "default", "test"), "one two"),
    ("gsm8k", {"question": "q", "answer": "so\n#### 4"}, ("openai/gsm8k", "main", "test"), "q"),
    ("wikitext2", {"page": " = T = \n x , y"}, ("EleutherAI/wikitext_document_level", "wikitext-2-raw-v1", "test"),
     " = T =\nx, y"),
    ("xquad_zh", {"id": "1", "context": "c", "question": "q", "answers": {"text": ["t"], "answer_start": [0]}},
     ("google/xquad", "xquad.zh", "validation"), "q"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "row", "call", "shown"), HUB)
def test_rows_of_the_hub(name, row, call, shown, monkeypatch):
    hub = FakeHub([row])
    monkeypatch.setitem(sys.modules, "datasets", hub)
    monkeypatch.setattr("lydite.tasks.sources.hub_is_possible", lambda: True)
    [task], _ = load_tasks([name])
    assert hub.calls == []  # nothing is fetched before samples are wanted
    [sample] = list(task.samples("test"))
    assert hub.calls == [call]
    assert sample.input == shown
    assert task.origin == {"data": f"hub:{call[0]}", "revision": "0123456789" * 4}
    assert task.fingerprint


def test_the_commit_of_the_hub_goes_into_the_run(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", FakeHub([{"question": "q", "answer": "so\n#### 4"}]))
    monkeypatch.setattr("lydite.tasks.sources.hub_is_possible", lambda: True)
    monkeypatch.chdir(tmp_path)
    command("evaluate", "uniform", "--tasks", "gsm8k", "--shots", "0", "--out", "here")
    run = json.loads((tmp_path / "here/uniform/gsm8k/run.json").read_text())
    assert run["environment"]["data"] == "hub:openai/gsm8k"
    assert run["environment"]["revision"] == "0123456789" * 4


def test_a_hub_that_fails_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", FakeHub(error=RuntimeError("scripts are no longer supported\nmore")))
    monkeypatch.setattr("lydite.tasks.sources.hub_is_possible", lambda: True)
    [task], _ = load_tasks(["cmmlu_agronomy"])
    with pytest.raises(
        DataError, match=r"cannot fetch haonan-li/cmmlu.*no longer supported\).*cmmlu/test/agronomy.csv"
    ):
        list(task.samples("test"))


# ----------------------------------------------------------------------------------------- the verb


def test_the_list_fits_80_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    command("tasks")
    lines = capsys.readouterr().out.splitlines()
    table = lines[: lines.index("")]
    assert max(map(len, table)) <= 80
    text = "\n".join(lines)
    for name in ("mini", "blimp", "arc_challenge", "cmmlu", "mmlu_stem", "gsm8k", "wikitext2", "xquad_zh"):
        assert re.search(rf"^{name} ", text, re.MULTILINE)
    assert "blimp_causative" not in text


def test_all_and_json_list_everything(capsys):
    command("tasks", "--all")
    assert "blimp_causative" in capsys.readouterr().out
    command("tasks", "--json")
    entries = json.loads(capsys.readouterr().out)
    assert {entry["name"] for entry in entries} == {entry.name for entry in list_tasks()}


def test_one_task_with_its_prompt(capsys, tmp_path):
    data = make_data(tmp_path)
    command("tasks", "arc_challenge", "--data-dir", str(data), "--shots", "1")
    out = capsys.readouterr().out
    for part in (
        "CC BY-SA 4.0",
        "allenai.org",
        "acc 0.25",
        "samples      2",
        "shots 1",
        "Question: Which of these can swim?",
    ):
        assert part in out
    command("tasks", "arc_challenge", "--data-dir", str(data), "--shots", "1", "--chat", "--json")
    shown = json.loads(capsys.readouterr().out)
    assert [m["role"] for m in shown["requests"][0]["messages"]] == ["user", "assistant", "user"]
    assert shown["requests"][0]["continuation"] == "a rock"


def test_a_group(capsys, tmp_path):
    command("tasks", "blimp", "--data-dir", str(make_data(tmp_path)))
    assert "2 of 67 are here" in capsys.readouterr().out


def test_a_task_without_its_data_still_says_what_it_is(capsys, monkeypatch):
    monkeypatch.setattr("lydite.tasks.sources.hub_is_possible", lambda: False)
    with pytest.raises(DataError):
        command("tasks", "gsm8k")
    assert "github.com/openai/grade-school-math" in capsys.readouterr().out


def test_listing_is_light():
    code = "import sys; from lydite.tasks import list_tasks; list_tasks(); print({'torch', 'transformers', 'sacrebleu', 'pyarrow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_tokens_of_a_model(capsys, tmp_path):
    from tests.tiny import save_tiny

    model = save_tiny(tmp_path / "tiny", "llama")
    command("tasks", "mini_sentiment_zh", "--model", str(model or tmp_path / "tiny"))
    shown = capsys.readouterr().out.splitlines()[-1]
    assert re.sub(r"\(\d+\)\]", "]", shown).replace("][", "").endswith("很满意。]")
    with pytest.raises(UserError, match="uniform reads no tokens"):
        command("tasks", "mini_sentiment_zh", "--model", "uniform")


def test_pieces_of_characters_are_shown_together():
    from lydite.cli.tasks import _pieces

    raw = "a好b".encode()

    def decode(ids):
        return bytes(raw[i] for i in ids).decode("utf-8", errors="replace")

    assert _pieces([0, 1, 2, 3, 4], decode) == ["a", "好(3)", "b"]
    assert _pieces([0, 1, 2], decode)[0] == "a"
    assert _pieces([0, 1, 2], decode)[1].endswith("(2)")
