"""docs/tasks.md is what the registry says."""

from pathlib import Path

from lydite.tasks import list_tasks
from lydite.tasks.overview import markdown

PAGE = Path(__file__).parents[2] / "docs" / "tasks.md"


def test_the_page_is_up_to_date(monkeypatch):
    monkeypatch.delenv("LYDITE_DATA", raising=False)
    assert PAGE.read_text(encoding="utf-8") == markdown(), "run: python -m lydite.tasks.overview docs/tasks.md"


def test_every_task_and_group_is_on_it():
    page = markdown()
    for entry in list_tasks():
        if entry.members:
            assert f"| `{entry.name}` |" in page
    for name in ("arc_easy", "lambada", "mini_nli_zh", "xquad_zh"):
        assert f"`{name}`" in page
