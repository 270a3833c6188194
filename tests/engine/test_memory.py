"""Memory given back and embeddings in half precision: nothing is lost, whatever happens."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lydite.engine.embedding import halve_embedding
from lydite.engine.linear import choose_kernel
from lydite.engine.memory import FilePages, Stretch, _clean
from tests.tiny import tiny_model


def resident(tensor: torch.Tensor) -> int:
    """kB of the tensor's mapping that are in memory."""
    inside = False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        head = line.split()
        if not head[0].endswith(":"):
            low, high = (int(number, 16) for number in head[0].split("-"))
            inside = low <= tensor.data_ptr() < high
        elif inside and head[0] == "Rss:":
            return int(head[1])
    return -1


@pytest.mark.skipif(sys.platform != "linux", reason="mappings are read from /proc")
@pytest.mark.parametrize("written", [False, True])
def test_pages_of_a_file_leave_and_come_back(tmp_path, written):
    expected = torch.randn(512, 512)
    save_file({"a": expected}, tmp_path / "a.safetensors")
    [mapped] = load_file(tmp_path / "a.safetensors").values()
    if mapped.untyped_storage().nbytes() == mapped.nbytes and resident(mapped) == 0:
        pytest.skip("this safetensors reads whole files")
    assert torch.equal(mapped, expected)
    if written:  # such pages exist in memory only
        mapped[3, 4] = expected[3, 4] = 7.0
    before = resident(mapped)
    FilePages().forget(mapped)
    if not written:
        assert resident(mapped) < before
    assert torch.equal(mapped, expected)


def test_a_mapping_is_clean_where_nothing_was_written_and_nothing_that_was_written_is_swapped_out():
    """As proc_pid_smaps(5) has them; a written page that was swapped out is no longer counted as anonymous."""
    rows = [("a", "/f", 0, 0), ("b", "/f", 4, 0), ("c", "/f", 0, 4), ("d", "", 0, 0), ("e", "/g h", 0, 0)]
    lines = [
        line
        for low, path, anonymous, swap in rows
        for line in (
            f"{low}000-{low}800 rw-p 00000000 fe:00 12 {path}\n",
            f"Rss: 8 kB\nAnonymous: {anonymous} kB\nSwap: {swap} kB\nVmFlags: rd wr mr\n",
        )
    ]
    assert list(_clean("".join(lines).splitlines())) == [(0xA000, 0xA800), (0xE000, 0xE800)]


def test_memory_of_ones_own_is_left_alone():
    own = torch.randn(1024, 1024)
    expected = own.clone()
    pages = FilePages()
    pages.forget(own)
    pages.forget(own[1:3])
    pages.forget(own.T)
    assert torch.equal(own, expected)


def test_stretches_are_what_a_conversion_gives():
    weight = torch.randn(10, 3).to(torch.bfloat16)
    stretch = Stretch(weight, torch.float32)
    for start in range(0, 10, 4):
        assert torch.equal(stretch.rows(start, start + 4), weight[start : start + 4].float())
    assert Stretch(weight, torch.bfloat16).rows(2, 4).data_ptr() == weight[2:].data_ptr()


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "gpt2"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_halved_embedding_gives_the_same_bits_and_comes_back(architecture, dtype):
    model = tiny_model(architecture)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(dtype).float())
    model.get_input_embeddings().padding_idx = 7
    plain, before = copy.deepcopy(model), dict(model.named_parameters())
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    ids = torch.tensor([[7, 3, 3, 0], [1, 7, 2, 9]])
    expected = plain.get_input_embeddings()(ids)
    with torch.inference_mode():
        halved = halve_embedding(model, model.get_output_embeddings())
        assert halved is not None
        assert halved.tied == tied
        assert halved.table.dtype == dtype
        assert torch.equal(model.get_input_embeddings()(ids), expected)
        halved.undo()
    after = dict(model.named_parameters())
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], value) for name, value in plain.named_parameters())
    assert model.get_input_embeddings().padding_idx == 7
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == tied


def test_what_half_precision_cannot_hold_and_what_others_use_stays():
    assert halve_embedding(tiny_model("llama"), None) is None  # float32 numbers
    model = tiny_model("gemma3")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(torch.bfloat16).float())
    assert halve_embedding(model, None) is None  # its head is not ours to take
    other = tiny_model("gpt2")
    with torch.no_grad():
        other.lm_head.weight.copy_(other.lm_head.weight.to(torch.bfloat16).float())
    other.transformer.second = other.get_input_embeddings()  # one embedding in two places (BART, once it was resized)
    assert halve_embedding(other, other.get_output_embeddings()) is None
    model.get_input_embeddings().max_norm = 1.0
    assert halve_embedding(model, model.get_output_embeddings()) is None


def test_a_head_that_float16_cannot_hold_gives_the_embedding_back():
    model = tiny_model("gemma3")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(torch.bfloat16).float())
        model.get_input_embeddings().weight[5, 0] = 2.0**-60
        model.get_input_embeddings().weight[5, 1] = 3.0
    table = model.get_input_embeddings().weight
    expected = table.clone()
    kernel = choose_kernel(model, "float16")
    assert kernel.name == "float16"
    head = model.get_output_embeddings()
    if type(head) is nn.Linear:
        assert isinstance(model.get_input_embeddings(), nn.Embedding)
        assert head.weight is model.get_input_embeddings().weight
    kernel.restore()
    assert torch.equal(model.get_input_embeddings().weight, expected)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


GROWTH = """
import sys
{first}
import torch
from pathlib import Path
rows, weight = torch.randn(500, 640).to(torch.bfloat16), torch.randn(2048, 640).to(torch.bfloat16)
packed = torch.ops.mkldnn._reorder_linear_weight(weight, 512)
def held():
    for count in range(held.last, held.last - 150, -1):  # ever smaller ones, so that what is new takes no more than what is old
        torch.ops.mkldnn._linear_pointwise(rows[:count], packed, None, "none", [], "")
        torch.nn.functional.linear(rows[:count], weight)
    held.last = count
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
held.last = 500
before = held()
print((held() - before) / 2**20)
"""
"""MiB that products of 150 more shapes take once 150 are known."""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc says what a process holds")
@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN")
def test_products_of_ever_new_shapes_hold_no_more_memory():
    def growth(first: str) -> float:
        clean = (
            "import os; [os.environ.pop(n, None) for n in ('LRU_CACHE_CAPACITY', 'ONEDNN_PRIMITIVE_CACHE_CAPACITY')]"
        )
        done = subprocess.run(
            [sys.executable, "-c", GROWTH.format(first=f"{clean}; {first}")], capture_output=True, text=True, check=True
        )
        return float(done.stdout)

    assert growth("import lydite") < max(30, growth("pass") / 4)
