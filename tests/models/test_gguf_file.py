"""Reading GGUF: values as written, and garbage as one line."""

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lydite.errors import ModelError
from lydite.models.gguf_file import read_gguf
from tests.models.ggufs import save_gguf


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    save_gguf(path, "llama")
    return path


def test_metadata_as_the_gguf_package_reads_it(tiny):
    read, oracle = read_gguf(tiny), gguf.GGUFReader(tiny)
    wanted = {name: field.contents() for name, field in oracle.fields.items() if not name.startswith("GGUF.")}
    assert read.metadata == wanted
    assert [tensor.name for tensor in read.tensors] == [tensor.name for tensor in oracle.tensors]


@pytest.mark.parametrize("kind", ["F32", "F16", "Q4_1", "Q8_0", "Q5_0", "Q4_0"])
def test_values_as_the_gguf_package_unpacks_them(tmp_path, kind, monkeypatch):
    monkeypatch.setattr("lydite.models.gguf_file._CHUNK_VALUES", 64 * 3)  # three rows at a time
    kind = gguf.GGMLQuantizationType[kind]
    values = np.random.default_rng(0).standard_normal((10, 64)).astype(np.float32)
    packed = gguf.quantize(values, kind)
    writer = gguf.GGUFWriter(str(tmp_path / "a.gguf"), "llama")
    writer.add_tensor("w", packed, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    head = read_gguf(tmp_path / "a.gguf")
    assert head.tensors[0].shape == (10, 64)
    pieces = list(head.rows(head.tensors[0]))
    assert [len(piece) for piece in pieces] == [3, 3, 3, 1]
    assert np.array_equal(np.concatenate(pieces), gguf.dequantize(packed, kind))


@pytest.mark.parametrize("content", [b"", b"GGUF", b"not a model at all" * 100, b"GGUF\x03\x00\x00\x00" + b"\xff" * 64])
def test_garbage(tmp_path, content):
    path = tmp_path / "garbage.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"garbage\.gguf") as caught:
        read_gguf(path)
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(ModelError, match="no such file"):
        read_gguf(tmp_path / "absent.gguf")


def test_an_incomplete_download(tiny, tmp_path):
    path = tmp_path / "half.gguf"
    path.write_bytes(tiny.read_bytes()[:-100])
    with pytest.raises(ModelError, match="incomplete"):
        read_gguf(path)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_heads_never_do_worse_than_a_model_error(tiny, tmp_path_factory, data):
    content = bytearray(tiny.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, 1500))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.none(), st.integers(0, len(content))))
    path = tmp_path_factory.mktemp("damaged") / "x.gguf"
    path.write_bytes(bytes(content[:cut]))
    try:
        tensors = read_gguf(path).tensors
    except ModelError as error:
        tensors, said = (), str(error)
    else:
        said = ""
    assert "\n" not in said
    assert all(np.prod(tensor.shape) < len(content) for tensor in tensors)
