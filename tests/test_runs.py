"""The run folder keeps what was finished, whatever happens."""

import os
import subprocess
import sys

import msgspec
import pytest

from lydite.errors import RunError
from lydite.runs import RunFolder, find_runs, lock, read_run, read_samples, safe_name, write_json
from lydite.types import ModelInfo, Run, Sample, SampleRecord, Score, TaskInfo


def make_run(**changes):
    run = Run(
        id="abc",
        status="running",
        model=ModelInfo(name="m", family="null", rule="null", can=("score",), fingerprint="f"),
        task=TaskInfo(name="t", version=1),
        view="score",
        config={"seed": 0},
        n_samples=3,
    )
    return msgspec.structs.replace(run, **changes)


def record(id):
    return SampleRecord(
        id=id, sample=Sample(id=id), requests=(), outputs=(), scores=(Score(sample_id=id, metric="acc", value=1.0),)
    )


def test_records_come_back(tmp_path):
    folder = RunFolder(tmp_path / "m" / "t", make_run())
    folder.append(record("一"))
    folder.close()
    assert read_run(tmp_path / "m" / "t") == make_run()
    assert list(read_samples(tmp_path / "m" / "t")) == [record("一")]
    assert find_runs(tmp_path) == find_runs(tmp_path / "m") == find_runs(tmp_path / "m" / "t") == [tmp_path / "m" / "t"]


@pytest.mark.parametrize("cut", [1, 7, 50])
def test_a_torn_last_line_is_dropped_and_the_rest_kept(tmp_path, cut):
    folder = RunFolder(tmp_path, make_run())
    folder.append(record("a"))
    folder.append(record("b"))
    folder.close()
    path = tmp_path / "samples.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    assert [r.id for r in read_samples(tmp_path)] == ["a"]
    again = RunFolder(tmp_path, make_run())
    assert [r.id for r in again.done] == ["a"]
    again.append(record("b"))
    again.close()
    assert [r.id for r in read_samples(tmp_path)] == ["a", "b"]


def test_damage_in_the_middle_is_an_error_with_its_line(tmp_path):
    folder = RunFolder(tmp_path, make_run())
    folder.append(record("a"))
    folder.append(record("b"))
    folder.close()
    path = tmp_path / "samples.jsonl"
    path.write_bytes(b"{oops\n" + path.read_bytes())
    with pytest.raises(RunError, match="line 1"):
        RunFolder(tmp_path, make_run())


def test_other_settings_are_refused_and_named(tmp_path):
    RunFolder(tmp_path, make_run()).close()
    with pytest.raises(RunError, match="seed was 0, now 1"):
        RunFolder(tmp_path, make_run(id="def", config={"seed": 1}))


def test_second_process_is_refused(tmp_path):
    code = f"from lydite.runs import lock\nfrom pathlib import Path\nwith lock(Path({str(tmp_path)!r})): pass"
    with lock(tmp_path):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert f"in use by another process (pid {os.getpid()})" in done.stderr
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_full_disk_is_one_line_and_keeps_the_old_file(tmp_path, monkeypatch):
    write_json(tmp_path / "run.json", {"old": 1})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space left"):
        write_json(tmp_path / "run.json", {"new": 2})
    assert msgspec.json.decode((tmp_path / "run.json").read_bytes()) == {"old": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_full_disk_while_appending(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    folder = RunFolder(tmp_path, make_run())
    real = folder._file
    folder._file = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(RunError, match="No space left"):
        folder.append(record("a"))
    folder.close()
    os.close(real)
    assert RunFolder(tmp_path, make_run()).done == []


def test_unknown_fields_and_non_finite_numbers_are_refused(tmp_path):
    write_json(tmp_path / "run.json", {**msgspec.to_builtins(make_run()), "extra": 1})
    with pytest.raises(RunError, match="extra"):
        read_run(tmp_path)
    with pytest.raises(ValueError, match="non-finite"):
        Score(sample_id="a", metric="acc", value=float("nan"))


@pytest.mark.parametrize(
    ("name", "folder"), [("org/model@main", "org-model-main"), ("../..", "unnamed"), ("模型 1", "模型-1")]
)
def test_safe_names(name, folder):
    assert safe_name(name) == folder


def test_long_names_keep_their_difference():
    a, b = safe_name("中" * 300 + "a"), safe_name("中" * 300 + "b")
    assert a != b
    assert max(len(a.encode()), len(b.encode())) <= 120
    assert safe_name("a" * 120) == "a" * 120


def test_another_schema_is_refused_with_a_mend(tmp_path):
    write_json(tmp_path / "run.json", make_run(schema=2))
    with pytest.raises(RunError, match=r"schema 2.*move .* away"):
        read_run(tmp_path)


def test_files_that_cannot_be_read_are_one_line(tmp_path):
    (tmp_path / "samples.jsonl").mkdir()
    with pytest.raises(RunError, match="cannot read"):
        list(read_samples(tmp_path))
    write_json(tmp_path / "run.json", make_run())
    with pytest.raises(RunError, match="cannot read"):
        RunFolder(tmp_path, make_run())
    (tmp_path / "run.json").unlink()
    (tmp_path / "run.json").mkdir()
    with pytest.raises(RunError, match="cannot read"):
        read_run(tmp_path)


def test_a_record_without_its_outputs_is_damage(tmp_path):
    line = msgspec.to_builtins(record("a")) | {
        "requests": [{"type": "ScoreRequest", "sample_id": "a", "index": 0, "continuation": "b"}]
    }
    (tmp_path / "samples.jsonl").write_bytes(msgspec.json.encode(line) + b"\n")
    with pytest.raises(RunError, match=r"line 1 is damaged .*1 requests but 0 outputs"):
        list(read_samples(tmp_path))


def test_a_path_that_is_no_text_can_be_written(tmp_path):
    # Python reads the bytes of a path that are not UTF-8 as lone surrogates.
    path = os.fsdecode(b"/data/caf\xe9")
    write_json(tmp_path / "run.json", make_run(environment={"data": path, path: "x"}))
    assert read_run(tmp_path).environment == {"data": "/data/caf\ufffd", "/data/caf\ufffd": "x"}
