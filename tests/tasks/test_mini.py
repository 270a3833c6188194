"""The bundled suite: sizes, balance, fields, and that it cannot be answered without reading it."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from lydite.tasks import list_tasks, load_tasks
from lydite.tasks.minisuite import FOLDER, KINDS

FILES = sorted(FOLDER.glob("*.jsonl"))


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_at_least_twelve_kinds_with_forty_to_eighty_items_half_of_them_chinese():
    assert len(KINDS) >= 12
    for kind in KINDS:
        tasks, _ = load_tasks([f"mini_{kind}"])
        sizes = [len(list(task.samples("test"))) for task in tasks]
        assert 40 <= sum(sizes) <= 80, kind
        assert sizes[0] == sizes[1], kind


def test_every_data_file_has_its_task_file():
    assert {path.stem for path in FILES} == {path.stem for path in FOLDER.glob("*.toml")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_ids_count_up_and_fields_are_alike(path):
    items = rows(path)
    assert [item["id"] for item in items] == [f"{path.stem}-{i:02d}" for i in range(1, len(items) + 1)]
    assert len({tuple(item) for item in items}) == 1
    assert len({json.dumps([v for k, v in item.items() if k != "id"]) for item in items}) == len(items)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_labels_and_gold_positions_are_balanced(path):
    items = rows(path)
    if "gold" not in items[0]:
        pytest.skip("no choices")
    if "choices" in items[0]:
        counts = Counter(item["gold"] for item in items)
        assert all(len(item["choices"]) == len(set(item["choices"])) == 4 for item in items)
        assert set(counts) == {0, 1, 2, 3}
    else:
        counts = Counter(item["gold"] for item in items)
        assert len(counts) in (2, 3)
    assert max(counts.values()) - min(counts.values()) <= (1 if "choices" in items[0] else 0)


def test_the_whole_suite_renders_offline():
    tasks, groups = load_tasks(["mini", "mini_en", "mini_zh"])
    assert len(tasks) == 2 * len(KINDS)
    for task in tasks:
        for sample in task.samples("test"):
            [*requests] = task.views[next(iter(task.views))](sample, task.prompt(sample))
            assert requests
    english, chinese = (next(g for g in groups if g.name == name) for name in ("mini_en", "mini_zh"))
    assert set(english.members) | set(chinese.members) == {task.name for task in tasks}
    assert not set(english.members) & set(chinese.members)


def test_chinese_prompts_hold_no_english_words_outside_code_and_translation():
    for task in load_tasks(["mini_zh"])[0]:
        if "translate" in task.name or "code" in task.name:
            continue
        assert not any(word in task.description for word in ("Question", "Answer", "Passage"))


def test_every_entry_of_the_suite_is_known():
    names = {entry.name for entry in list_tasks()}
    assert {f"mini_{kind}" for kind in KINDS} <= names


def test_baselines_that_do_not_read_land_on_chance(tmp_path):
    script = Path(__file__).parents[2] / "examples" / "mini_baselines.py"
    table = tmp_path / "table.md"
    done = subprocess.run([sys.executable, script, table], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 not on chance" in done.stdout
    assert all("| yes |" in line for line in table.read_text().splitlines()[2:])
