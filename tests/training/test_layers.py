"""Dropout that draws 16 bits: its statistics, its gradient, and that it is a function of torch's generator; GELU in one."""

import pytest
import torch
from torch import nn
from transformers.activations import NewGELUActivation

from lydite.training.layers import QuickDropout, quicken


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_drops_and_scales_as_torch_does(p, dtype):
    torch.manual_seed(0)
    values = torch.ones(1001, 501, dtype=dtype, requires_grad=True)
    out = QuickDropout(p)(values)
    kept = out != 0
    spread = (p * (1 - p) / values.numel()) ** 0.5
    assert abs(float(kept.float().mean()) - (1 - p)) < 5 * spread
    exact = torch.nn.functional.dropout(torch.ones((), dtype=dtype), 0.0) / (1 - p)
    torch.testing.assert_close(out[kept], exact.to(dtype).expand(int(kept.sum())), rtol=1e-2, atol=0)
    (gradient,) = torch.autograd.grad(out.sum(), values)
    torch.testing.assert_close(gradient, out.detach())
    # Neighbours are independent: both dropped p squared of the time.
    both = (~kept[:, 1:] & ~kept[:, :-1]).float().mean()
    assert abs(float(both) - p * p) < 0.01


def test_is_a_function_of_the_generator():
    layer, values = QuickDropout(0.3), torch.randn(7, 5)
    torch.manual_seed(3)
    first = layer(values)
    torch.manual_seed(3)
    assert torch.equal(layer(values), first)
    assert not torch.equal(layer(values), first)


def test_nothing_is_dropped_where_nothing_should_be():
    values = torch.randn(3, 4)
    assert QuickDropout(0.5).eval()(values) is values
    assert QuickDropout(0.0)(values) is values
    assert torch.equal(QuickDropout(1.0)(values), torch.zeros(3, 4))


def test_a_network_is_quickened_in_place():
    network = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout(0.2), nn.Dropout1d(0.2)))
    quicken(network)
    assert [type(part).__name__ for part in network[1]] == ["QuickDropout", "Dropout1d"]
    assert network[1][0].p == 0.2


def test_gelu_is_that_of_transformers():
    values = torch.linspace(-6, 6, 1001, dtype=torch.float64, requires_grad=True)
    layer = NewGELUActivation()
    wanted = layer(values)
    (wanted_gradient,) = torch.autograd.grad(wanted.sum(), values)
    quicken(nn.ModuleList([layer]))
    assert isinstance(layer, nn.GELU)
    torch.testing.assert_close(layer(values), wanted, rtol=1e-9, atol=1e-12)
    (gradient,) = torch.autograd.grad(layer(values).sum(), values)
    torch.testing.assert_close(gradient, wanted_gradient, rtol=1e-9, atol=1e-12)
