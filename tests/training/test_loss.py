"""The chunked loss against torch's cross_entropy (and, where this torch has it, its linear_cross_entropy)."""

import pytest
import torch
from torch.nn.functional import cross_entropy, linear

from lydite.training.loss import vocab_loss

N, D, V = 37, 16, 53


def make(dtype=torch.float32, bias=True, seed=0):
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(N, D, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(V, D, generator=generator).to(dtype).requires_grad_()
    offset = torch.randn(V, generator=generator).to(dtype).requires_grad_() if bias else None
    return states, weight, offset, torch.randint(V, (N,), generator=generator)


def both(arguments, **options):
    """Value and gradients, ours and torch's, of a loss that is scaled before backward."""
    out = []
    for ours in (True, False):
        states, weight, bias = (None if one is None else one.detach().clone().requires_grad_() for one in arguments[:3])
        labels = arguments[3]
        if ours:
            loss = vocab_loss(states, weight, bias, labels, **options)
        else:
            options.pop("chunk_rows", None)
            logits = linear(states.float(), weight.float(), None if bias is None else bias.float())
            loss = cross_entropy(logits, labels, reduction="sum", **options)
        (loss / 7).backward()
        out.append([loss.detach(), states.grad, weight.grad] + ([] if bias is None else [bias.grad]))
    return out


@pytest.mark.parametrize("chunk_rows", [1, 5, 37, 512])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_equals_cross_entropy(chunk_rows, bias, label_smoothing):
    ours, theirs = both(make(bias=bias), label_smoothing=label_smoothing, chunk_rows=chunk_rows)
    for one, other in zip(ours, theirs, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other, rtol=2e-6, atol=2e-6)


def test_bfloat16_weights_keep_float32_sums():
    ours, theirs = both(make(torch.bfloat16), chunk_rows=8)
    assert ours[0].dtype == torch.float32
    assert abs(ours[0] / theirs[0] - 1) < 2e-3
    for one, other in zip(ours[1:], theirs[1:], strict=True):
        assert one.dtype == torch.bfloat16
        assert (one - other).norm() < 1e-2 * other.norm()


def test_logits_far_apart_are_exact():
    """A label of probability e^-300 costs 300 nats, not infinity."""
    states = torch.tensor([[300.0], [-300.0]], requires_grad=True)
    loss = vocab_loss(states, torch.tensor([[1.0], [0.0]]), None, torch.tensor([1, 0]))
    loss.backward()
    assert loss.item() == 600
    assert states.grad.tolist() == [[1.0], [-1.0]]


def test_tied_embedding_gets_both_gradients():
    """The same weight looks words up and scores them; and a second use of the loss adds up."""
    _, weight, _, labels = make(bias=False)

    def run(loss_of):
        tied = weight.detach().clone().requires_grad_()
        first = loss_of(torch.nn.functional.embedding(labels, tied), tied, labels)
        second = loss_of(torch.tanh(torch.nn.functional.embedding(labels.flip(0), tied)), tied, labels)
        (first + 2 * second).backward()
        return tied.grad

    ours = run(lambda states, tied, labels: vocab_loss(states, tied, None, labels, chunk_rows=10))
    theirs = run(lambda states, tied, labels: cross_entropy(linear(states, tied), labels, reduction="sum"))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_gradient_is_scaled_and_may_be_asked_for_twice():
    states, weight, _, labels = make(bias=False)
    loss = vocab_loss(states, weight, None, labels)
    first = torch.autograd.grad(loss, [states, weight], retain_graph=True)
    second = torch.autograd.grad(loss * 3, [states, weight])
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(3 * one, other)


def test_only_what_needs_a_gradient_is_computed():
    states, weight, bias, labels = make()
    loss = vocab_loss(states, weight.detach(), bias.detach(), labels)
    loss.backward()
    assert states.grad is not None
    assert not vocab_loss(states.detach(), weight.detach(), None, labels).requires_grad
    with torch.no_grad():
        assert torch.equal(vocab_loss(states, weight, bias, labels), loss)


def test_no_rows():
    states, weight, bias, labels = make()
    loss = vocab_loss(states[:0], weight, bias, labels[:0])
    loss.backward()
    assert loss.item() == 0
    assert weight.grad.abs().sum() == 0


def test_autocast_multiplies_in_bfloat16_and_returns_float32_gradients():
    states, weight, bias, labels = make()
    with torch.autocast("cpu", torch.bfloat16):
        loss = vocab_loss(states, weight, bias, labels)
    loss.backward()
    assert loss.dtype == torch.float32
    assert weight.grad.dtype == states.grad.dtype == torch.float32
    exact = vocab_loss(states.detach(), weight.detach(), bias.detach(), labels)
    assert 0 < abs(loss.item() / exact.item() - 1) < 1e-2


def test_never_holds_the_logits_of_all_rows():
    """The largest tensor that is made has chunk_rows rows."""
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for one in out if isinstance(out, tuple | list) else [out]:
                if isinstance(one, torch.Tensor):
                    largest = max(largest, one.numel())
            return out

    states, weight, _, labels = make(bias=False)
    with Watch():
        vocab_loss(states, weight, None, labels, chunk_rows=8).backward()
    assert largest <= max(8 * V, V * D)
