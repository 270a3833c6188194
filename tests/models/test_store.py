"""Entries of the cache are complete or absent, whatever kills a process, and are made anew when they are damaged."""

import errno
import subprocess
import sys

import pytest

from lydite.errors import ModelError
from lydite.models import store


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LYDITE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Maker:
    def __init__(self, content=b"weights"):
        self.calls = 0
        self.content = content

    def __call__(self, scratch, target):
        self.calls += 1
        (scratch / "download").write_bytes(b"x" * 100)
        (target / "model.safetensors").write_bytes(self.content)
        (target / "config.json").write_text("{}")
        self.file_number = (target / "model.safetensors").stat().st_ino
        return "0" * 64


def test_made_once_and_then_read(cache):
    make, folder = Maker(), store.entry_folder("pypi:a==1#m.gguf")
    assert folder.parent == cache / "models"
    assert folder.name.startswith("m.gguf-")
    for _ in range(2):
        assert store.make_entry(folder, "pypi:a==1#m.gguf", make) == folder
    assert make.calls == 1
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", store.MANIFEST, "model.safetensors"]
    assert [path.name for path in folder.parent.iterdir() if "tmp" in path.name] == []
    # Renamed, not copied: a copy could be seen half done.
    assert (folder / "model.safetensors").stat().st_ino == make.file_number
    manifest = store.read_entry(folder)
    assert manifest.spec == "pypi:a==1#m.gguf"
    assert manifest.files["model.safetensors"].size == 7


def test_different_specs_and_versions_have_different_folders(cache, monkeypatch):
    first = store.entry_folder("pypi:a==1#m.gguf")
    assert store.entry_folder("pypi:a==2#m.gguf") != first
    monkeypatch.setattr(store, "VERSION", store.VERSION + 1)
    assert store.entry_folder("pypi:a==1#m.gguf") != first
    assert store.entry_folder("pypi:a==1#../../..//x y").parent == cache / "models"


def damage_bits(folder):
    (folder / "model.safetensors").write_bytes(b"weighty")  # same size


def cut(folder):
    (folder / "model.safetensors").write_bytes(b"weigh")


def remove_a_file(folder):
    (folder / "config.json").unlink()


def tear_the_manifest(folder):
    (folder / store.MANIFEST).write_text('{"schema": 1, "fil')


@pytest.mark.parametrize("damage", [damage_bits, cut, remove_a_file, tear_the_manifest])
def test_a_damaged_entry_is_made_anew(cache, damage):
    make, folder = Maker(), store.entry_folder("a")
    store.make_entry(folder, "a", make)
    damage(folder)
    assert store.read_entry(folder) is None
    store.make_entry(folder, "a", make)
    assert make.calls == 2
    assert (folder / "model.safetensors").read_bytes() == b"weights"


def test_a_failure_leaves_nothing(cache):
    def fail(scratch, target):
        (target / "model.safetensors").write_bytes(b"half")
        raise ModelError("no")

    folder = store.entry_folder("a")
    with pytest.raises(ModelError, match="no"):
        store.make_entry(folder, "a", fail)
    assert [path.name for path in folder.parent.iterdir() if not path.name.endswith(".lock")] == []


@pytest.mark.parametrize(
    ("code", "message"),
    [(errno.ENOSPC, "the disk is full at .*LYDITE_CACHE"), (errno.EROFS, "cannot be written.*set LYDITE_CACHE")],
)
def test_a_disk_that_cannot_be_written(cache, code, message):
    def fail(scratch, target):
        raise OSError(code, "what the system says")

    with pytest.raises(ModelError, match=message) as caught:
        store.make_entry(store.entry_folder("a"), "a", fail)
    assert "\n" not in str(caught.value)


def test_a_cache_that_is_a_file(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LYDITE_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelError, match="set LYDITE_CACHE"):
        store.make_entry(store.entry_folder("a"), "a", Maker())


SLOW = """
import sys, time
from lydite.models import store

def make(scratch, target):
    (target / "model.safetensors").write_bytes(b"half")
    print("begun", flush=True)
    time.sleep(float(sys.argv[1]))
    (target / "model.safetensors").write_bytes(b"whole")
    print("made", flush=True)
    return "0" * 64

folder = store.make_entry(store.entry_folder("a"), "a", make)
print((folder / "model.safetensors").read_text(), flush=True)
"""


def start(seconds):
    return subprocess.Popen(
        [sys.executable, "-c", SLOW, str(seconds)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_killed_in_the_middle(cache):
    process = start(60)
    assert process.stdout.readline() == "begun\n"
    process.kill()
    process.communicate()
    folder = store.entry_folder("a")
    assert not folder.exists()
    leftovers = [path for path in folder.parent.iterdir() if ".tmp-" in path.name]
    assert len(leftovers) == 1
    make = Maker()
    store.make_entry(folder, "a", make)  # the lock died with the process
    assert make.calls == 1
    assert [path for path in folder.parent.iterdir() if ".tmp-" in path.name] == []


def test_two_processes_at_once(cache):
    first = start(1.0)
    assert first.stdout.readline() == "begun\n"
    second = start(0)
    out, err = second.communicate()
    assert out == "whole\n"  # it waited and made nothing
    assert "waiting for another process" in err
    assert first.communicate()[0] == "made\nwhole\n"


def test_remove(cache):
    folder = store.entry_folder("a")
    assert store.remove_entry(folder) == 0
    store.make_entry(folder, "a", Maker())
    assert store.remove_entry(folder) > 7
    assert not folder.exists()


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.delenv("LYDITE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert store.cache_folder() == tmp_path / "lydite"
    monkeypatch.setenv("LYDITE_CACHE", "~/elsewhere")
    assert store.cache_folder().name == "elsewhere"
    assert "~" not in str(store.cache_folder())
