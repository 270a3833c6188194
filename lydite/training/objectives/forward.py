"""The loss over the vocabulary at labelled positions only, whatever the network.

transformers' models compute the logits of every position. Here two hooks stand in the way while the network runs: the
first hands only the labelled positions on to the prediction head (BERT's transform is skipped elsewhere too), the second
takes the states that reach the output embedding, gives them to `vocab_loss`, and lets the network go on with none. All of it
happens inside the network's own forward, so that wrappers (DistributedDataParallel, FSDP) see nothing unusual.

That is right only where the network's logits are what its output embedding gives, times a constant (no soft cap, no added
bias). Whether they are is tried once for each network, with made-up logits; where not, its own logits are used.

Shapes: B rows, L positions, N labelled positions, D width of states, V vocabulary.
"""

import inspect
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel

from lydite.errors import ModelError
from lydite.training.batch import IGNORE
from lydite.training.loss import vocab_loss

MULTIPLE = 64
"""Labelled positions are filled up to a multiple of this: oneDNN keeps code and buffers for each of the last 1,024 shapes of a
product, which came to 13 MB a step where masks label another number of positions every step."""
_FACTORS: WeakKeyDictionary[nn.Module, float | None] = WeakKeyDictionary()
"""By network, what its logits are multiplied with after the output embedding; None: they are changed in another way."""


def inner(network: nn.Module) -> nn.Module:
    """The network inside DistributedDataParallel or torch.compile."""
    while True:
        if isinstance(network, DistributedDataParallel):
            network = network.module
        elif isinstance(network, torch._dynamo.OptimizedModule):
            network = network._orig_mod
        else:
            return network


def token_loss(
    network: nn.Module, inputs: dict[str, Any], labels: Tensor, *, label_smoothing: float = 0.0
) -> tuple[Tensor, Any]:
    """(sum of nats over the labelled positions, float32; the network's output, without its logits).

    labels: [B, L] of the positions that the head sees, already shifted where the objective shifts; IGNORE: no label.
    """
    inside = inner(network)
    if inside not in _FACTORS:
        _FACTORS[inside] = _factor(inside, inputs, labels) if isinstance(inside, PreTrainedModel) else None
    factor = _FACTORS[inside]
    wanted = labels[labels != IGNORE]
    if factor is None:
        output = run(network, inputs)
        logits = token_logits(output)[labels != IGNORE].float()
        return cross_entropy(logits, wanted, label_smoothing=label_smoothing, reduction="sum"), output
    assert isinstance(inside, PreTrainedModel)
    taken: list[Tensor] = []

    def take(states: Tensor, head: nn.Linear) -> None:
        bias: Tensor | None = head.bias
        if factor != 1.0:
            states, bias = states * factor, None if bias is None else bias * factor
        taken.append(vocab_loss(states, head.weight, bias, wanted, label_smoothing=label_smoothing))

    with _Hooks(inside, labels, take):
        output = run(network, inputs)
    assert len(taken) == 1, "the hooks of a network were called once when it was tried, and not when it was trained"
    return taken[0], output


def run(network: nn.Module, inputs: dict[str, Any]) -> Any:
    """The network's output; without a store of keys and values where it would make one (which hides packed rows)."""
    parameters = inspect.signature(inner(network).forward).parameters
    return network(**inputs, use_cache=False) if "use_cache" in parameters else network(**inputs)


def token_logits(output: Any) -> Tensor:
    """[B, L, V] of a network's output, by whatever name."""
    for name in ("logits", "prediction_logits"):
        logits = getattr(output, name, None)
        if isinstance(logits, Tensor):
            return logits
    raise ModelError(
        f"{type(output).__name__} has no logits over the vocabulary; take an architecture with a language head"
    )


def filling(count: int) -> int:
    """Positions that are added to `count` labelled ones."""
    return -count % MULTIPLE


class _Hooks(ExitStack):
    """While entered: only labelled positions (and a few that fill them up) reach the head; their states [P, D] go to `take`."""

    def __init__(self, network: PreTrainedModel, labels: Tensor, take: Callable[[Tensor, nn.Linear], None]) -> None:
        super().__init__()
        head = network.get_output_embeddings()
        chosen = (labels.reshape(-1) != IGNORE).nonzero().squeeze(1)
        everything = len(chosen) == labels.numel()
        chosen = torch.cat([chosen, chosen.new_zeros(filling(len(chosen)))])
        reduced = False

        def reduce(states: Tensor) -> Tensor:
            flat = states.flatten(0, 1)
            return flat if everything else flat.index_select(0, chosen)

        def before_all(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            nonlocal reduced
            if not args or not isinstance(args[0], Tensor) or args[0].shape[:-1] != labels.shape:
                return None
            reduced = True
            return reduce(args[0])[None], *args[1:]

        def before_head(module: nn.Linear, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            states = args[0]
            if not reduced and states.shape[:-1] != labels.shape:
                return None  # never so in a network that passed the trial
            states = states.flatten(0, 1) if reduced else reduce(states)
            take(states, module)
            return (states.new_empty(1, 0, states.shape[1]),)

        around = _head_module(network, head)
        if around is not head:
            self.callback(around.register_forward_pre_hook(before_all).remove)
        self.callback(head.register_forward_pre_hook(before_head).remove)


def _head_module(network: PreTrainedModel, head: nn.Module) -> nn.Module:
    """The outermost module that holds the output embedding and not the backbone: BERT's `cls`, GPT-2's `lm_head`."""
    children: list[nn.Module] = list(network.children())
    for child in children:
        if child is not network.base_model and any(module is head for module in child.modules()):
            return child
    return head


def _factor(network: PreTrainedModel, inputs: dict[str, Any], labels: Tensor) -> float | None:
    """The constant between what the output embedding gives and the network's logits; None where there is no such, or the
    hooks are not called.

    The trial runs the row with the most labels, lets the embedding give made-up numbers (whole ones from -120 to 120, exact
    in every dtype and far beyond any soft cap), and looks for them in the output.
    """
    head = network.get_output_embeddings()
    if type(head) is not nn.Linear:
        return None
    row = int((labels != IGNORE).sum(1).argmax())
    one = {
        name: tensor[row : row + 1]
        for name, tensor in inputs.items()
        if isinstance(tensor, Tensor) and tensor.shape[0] == len(labels)
    }
    marked = labels[row : row + 1]
    made_up: list[Tensor] = []

    def invent(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        numbers = (torch.arange(output.shape[-1], device=output.device) + 121) % 241 - 120  # from 1 on
        made_up.append(numbers.to(output.dtype).expand_as(output))
        return made_up[-1]

    seen: list[Tensor] = []
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        with torch.no_grad(), _Hooks(network, marked, lambda states, _: seen.append(states)):
            run(network, one)
        around = head.register_forward_hook(invent)
        try:
            with torch.no_grad():
                logits = token_logits(run(network, one))
        finally:
            around.remove()
    finally:
        for module in training:
            module.training = True
    count = int((marked != IGNORE).sum())
    wanted = count if count == marked.numel() else count + filling(count)
    if len(seen) != 1 or len(seen[0]) != wanted or len(made_up) != 1:
        return None
    if logits.shape != made_up[0].shape:
        return None
    found, given = logits.float(), made_up[0].float()
    factor = float(found[given == 1][0])
    rounding = 1e-5 if logits.dtype == torch.float32 else 1e-2
    return factor if factor > 0 and torch.allclose(found, given * factor, rtol=rounding, atol=0) else None
