"""The hub's route through the real `datasets` library: rows that went through its Parquet files and types give the samples
that the original files give. Skipped where the library is not installed; nothing is fetched."""

from types import SimpleNamespace

import pytest

from lydite.tasks import load_tasks
from tests.tasks import layouts_text, understanding
from tests.tasks.layouts_text import make_texts
from tests.tasks.understanding import make_understanding

datasets = pytest.importorskip("datasets")
pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
pytestmark = pytest.mark.slow

UNDERSTANDING = [name for name in understanding.HUB if name != "glue_ax"]


@pytest.fixture
def library(tmp_path, monkeypatch):
    """The library, whose `load_dataset` reads a Parquet file that is written from the rows of `rows`, by split."""
    real = datasets.load_dataset
    found = SimpleNamespace(rows=None)

    def load_dataset(repository, configuration, *, split, revision):
        path = tmp_path / f"{split}.parquet"
        parquet.write_table(pyarrow.Table.from_pylist(found.rows(split)), path)
        return real("parquet", data_files={split: str(path)}, split=split, cache_dir=str(tmp_path / "cache"))

    monkeypatch.delenv("LYDITE_DATA", raising=False)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return found


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
