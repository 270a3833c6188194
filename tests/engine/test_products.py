"""Attention as products of oneDNN: PyTorch's attention is the oracle, for a piece and for whole models."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from lydite.engine import products
from lydite.models.causal import load_causal
from lydite.types import ScoreRequest
from tests.tiny import save_tiny

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("heads", "groups", "rows", "lead"), [(6, 2, 40, 0), (4, 1, 33, 7), (3, 3, 1, 12)])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_equals_pytorchs(monkeypatch, heads, groups, rows, lead, scale, dtype):
    monkeypatch.setattr(products, "_ROWS", 16)  # several stretches of rows
    torch.manual_seed(0)
    query = torch.randn(heads, rows, 8, dtype=dtype)
    keys, values = torch.randn(groups, lead + rows, 8, dtype=dtype), torch.randn(groups, lead + rows, 5, dtype=dtype)
    seen = torch.ones(rows, lead + rows, dtype=torch.bool).tril(lead)
    shape = (groups, heads // groups)
    expected = scaled_dot_product_attention(
        query.view(*shape, rows, 8).float(),
        keys[:, None].expand(*shape, -1, -1).float(),
        values[:, None].expand(*shape, -1, -1).float(),
        attn_mask=seen,
        scale=scale,
    ).flatten(0, 1)
    mask = torch.zeros(rows, lead + rows, dtype=dtype).masked_fill_(~seen, -torch.inf)
    close = 1e-6 if dtype == torch.float32 else 2e-2
    for given in (None, mask):
        found = products.attend(query, keys, values, given, lead, scale)
        assert found.dtype == dtype
        assert torch.allclose(found.float(), expected, atol=close)


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "mistral", "gemma3", "gpt2"])
def test_models_score_the_same_with_them(tmp_path, monkeypatch, architecture):
    folder = save_tiny(tmp_path, architecture, scale=10)
    requests = [
        ScoreRequest(sample_id=str(i), index=0, context="a stone is " * 12, continuation=f" black {i} gold " * 3)
        for i in range(6)
    ]

    def totals(kernel):
        model = load_causal(folder, name="tiny", source="tiny", settings={"kernel": kernel, "batch_tokens": 48})
        return [output.total for _, output in sorted(model.answer(requests), key=lambda pair: pair[0])]

    plain = totals("default")
    calls = []
    real = products.attend
    monkeypatch.setattr(products, "attend", lambda *given: calls.append(1) or real(*given))
    monkeypatch.setattr(products, "_LARGE", 1)
    monkeypatch.setattr(products.Products, "faster", lambda self, ours, theirs: ours())
    assert totals("onednn") == pytest.approx(plain, abs=1e-4)
    assert calls


def test_the_slower_way_is_left_alone():
    chooser = products.Products(allowed=True)
    query, keys = torch.zeros(2, 4096, 64), torch.zeros(1, 4096, 64)
    assert chooser.take(query, keys)
    assert not chooser.take(query[:, :8], keys[:, :8])
    chooser.gain = 0.7
    assert not chooser.take(query, keys)
    assert not products.Products(allowed=False).take(query, keys)
