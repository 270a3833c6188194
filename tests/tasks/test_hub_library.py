"""The hub's route through the real `datasets` library: rows that went through its Parquet files and types give the samples
that the original files give. Skipped where the library is not installed; nothing is fetched."""

import sys
import types

import pytest

from lydite.tasks import load_tasks
from tests.tasks import layouts_text, understanding
from tests.tasks.layouts_text import make_texts
from tests.tasks.understanding import make_understanding

datasets = pytest.importorskip("datasets")
pytestmark = pytest.mark.slow

UNDERSTANDING = [name for name in understanding.HUB if name != "glue_ax"]


class Library(types.ModuleType):
    """`load_dataset` over a Parquet file that is written from the rows of `self.rows`, by split."""

    def load_dataset(self, repository, configuration, *, split, revision):
        import pyarrow
        from pyarrow import parquet

        path = self.folder / f"{split}.parquet"
        parquet.write_table(pyarrow.Table.from_pylist(self.rows(split)), path)
        cache = str(self.folder / "cache")
        return datasets.load_dataset("parquet", data_files={split: str(path)}, split=split, cache_dir=cache)


@pytest.fixture
def library(tmp_path, monkeypatch):
    monkeypatch.delenv("LYDITE_DATA", raising=False)
    stand_in = Library("datasets")
    stand_in.folder = tmp_path
    monkeypatch.setitem(sys.modules, "datasets", stand_in)
    monkeypatch.setattr("lydite.tasks.sources.hub_is_possible", lambda: True)
    return stand_in


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("originals")
    make_understanding(folder)
    make_texts(folder)
    return folder


def one(name, data=None):
    [task], _ = load_tasks([name], data_dir=data)
    return task


@pytest.mark.parametrize("name", UNDERSTANDING)
def test_understanding(name, library, data):
    def rows(split):
        shots = split == "train" or (split == "validation" and name.startswith(("xnli", "pawsx")))
        return understanding.HUB[name]["shots" if shots else "test"]

    library.rows = rows
    for split in ("test", "shots") if one(name).shot is not None and "shots" in understanding.HUB[name] else ("test",):
        assert list(one(name).samples(split)) == list(one(name, data).samples(split))


@pytest.mark.parametrize("name", layouts_text.HUB)
def test_texts(name, library, data):
    library.rows = lambda split: layouts_text.HUB[name]
    assert list(one(name).samples("test")) == list(one(name, data).samples("test"))
