"""What the READMEs and docs/ say is so: commands parse and run, paths exist, links lead somewhere."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest
import typer

from lydite.cli.app import VERBS, main, make_app
from lydite.tasks import load_tasks
from lydite.tasks.own import TaskFile

TOP = Path(__file__).parents[1]
READMES = [TOP / "README.md", TOP / "README.zh-CN.md"]
PAGES = [*READMES, TOP / "CHANGELOG.md", *sorted((TOP / "docs").glob("*.md"))]
NULL = {"smollm2-135m-instruct": "uniform"}
"""What stands in for pretrained models when commands are run."""


def blocks(path, language):
    text = path.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(path):
    """Word lists of the `lydite ...` commands in the page's shell blocks, without their comments."""
    lines = "".join(blocks(path, "bash")).replace("\\\n", " ").splitlines()
    return [words[1:] for words in (shlex.split(line, comments=True) for line in lines) if words[:1] == ["lydite"]]


def parameters(words):
    """Of the verb that a command line names; `lydite tokenizer train` is one of a group."""
    command = typer.main.get_command(make_app(words)).commands[words[0]]
    return getattr(command, "commands", {}).get(words[1], command).params if len(words) > 1 else command.params


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_command_has_a_known_verb_and_known_flags(path):
    for words in commands(path):
        assert words[0] in VERBS, words
        known = {flag for parameter in parameters(words) for flag in parameter.opts}
        for word in words[1:]:
            if word.startswith("-") and word != "-":
                assert word.split("=")[0] in known, f"lydite {shlex.join(words)}: no {word}"


def test_every_verb_is_shown_in_the_readme():
    assert {words[0] for words in commands(READMES[0])} == set(VERBS)


def test_both_readmes_hold_the_same_commands_code_and_pictures():
    english, chinese = READMES
    assert commands(english) == commands(chinese)
    for language in ("json", "python"):
        assert blocks(english, language) == blocks(chinese, language)
    assert [tomllib.loads(block) for block in blocks(english, "toml")] == [
        tomllib.loads(block) for block in blocks(chinese, "toml")
    ]
    assert tree(english) == tree(chinese)
    for kind in (r"!\[.*?\]\((.*?)\)", r"^#{1,3} ()", r"^\| `?(\w*)"):
        found = [re.findall(kind, path.read_text(encoding="utf-8"), re.MULTILINE) for path in READMES]
        assert len(found[0]) == len(found[1]), kind


def without_network(words):
    # What `pretrain` needs stands in recipes/, and takes minutes: tests/training runs it.
    return words[0] not in ("serve", "pretrain") and not {"--model", "--data-dir", "--fetch"} & set(words)


def test_the_readmes_commands_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LYDITE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LYDITE_DATA", raising=False)
    [toml], [rows] = blocks(READMES[0], "toml"), blocks(READMES[0], "json")
    Path("openbookqa.toml").write_text(toml, encoding="utf-8")
    Path("openbookqa.jsonl").write_text(rows, encoding="utf-8")
    # The folder that others read is made first, wherever the page explains it.
    todo = sorted(filter(without_network, commands(READMES[0])), key=lambda w: w[-2:] != ["--out", "runs/first"])
    assert len(todo) >= 10
    for words in todo:
        with pytest.raises(SystemExit) as stop:
            main([NULL.get(word, word) for word in words])
        assert stop.value.code == 0, f"lydite {shlex.join(words)}: {capsys.readouterr().err}"
    assert Path("runs/first/report.html").exists()
    assert Path("runs/second/uniform").is_dir()


def test_the_readmes_python_runs(capsys):
    [code] = blocks(READMES[0], "python")
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102 - our own page
    assert "mini_grammar_en@1" in capsys.readouterr().out


def tree(path):
    """Paths of the file tree: names at the beginnings of lines, two spaces a level."""
    [listing] = [block for block in blocks(path, "text") if block.startswith("lydite/\n")]
    found, parents = [], []
    for line in listing.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        parents = [*parents[:depth], line.split()[0]]
        found.append("".join(parents))
    return found


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.name)
def test_the_file_tree_names_what_is_there(path):
    listed = tree(path)
    for name in listed:
        assert (TOP / name).exists(), f"{path.name} lists {name}"
        assert (TOP / name).is_dir() == name.endswith("/"), name
    here = {f"lydite/{p.name}" + "/" * p.is_dir() for p in (TOP / "lydite").iterdir() if not p.name.startswith("__")}
    assert here - {"lydite/py.typed"} <= set(listed), "a room or file is missing from the tree"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_and_pictures_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if re.match(r"https?:", target):
            continue
        name, _, anchor = target.partition("#")
        page = path if not name else (path.parent / name)
        assert page.exists(), f"{path.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, f"{path.name} links to {target}"


def test_the_readme_counts_the_bundled_suite_as_it_is():
    tasks, groups = load_tasks(["mini"])
    sizes = [len(list(task.samples("test"))) for task in tasks]
    [whole] = [group for group in groups if group.name == "mini"]
    for path in READMES:
        text = path.read_text(encoding="utf-8")
        assert str(sum(sizes)) in text
        assert str(len(tasks)) in text
    assert len(whole.members) == 13
    assert (min(sizes), max(sizes)) == (24, 40)
    assert "24 to 40 items" in READMES[0].read_text(encoding="utf-8")


def test_the_page_on_tasks_names_every_key_of_a_task_file():
    text = (TOP / "docs" / "adding-a-task.md").read_text(encoding="utf-8")
    table = text.partition("### Keys")[2].partition("\n## ")[0]
    named = {name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert named == set(TaskFile.__struct_fields__)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_task_files_in_the_docs_load(path, tmp_path):
    for number, block in enumerate(blocks(path, "toml")):
        if "task" not in tomllib.loads(block):  # a recipe
            continue
        file = tmp_path / f"{number}.toml"
        file.write_text(block, encoding="utf-8")
        [rows] = blocks(path, "json")
        (tmp_path / tomllib.loads(block)["task"]["data"]).write_text(rows, encoding="utf-8")
        [task], _ = load_tasks([str(file)])
        assert list(task.samples("test"))
