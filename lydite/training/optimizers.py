"""Optimizers by name, their groups of weights, and the float32 masters of bfloat16 weights.

AdamW, Muon and Adafactor are PyTorch's own. Muon moves the matrices inside the network (what is neither embedding nor
head, Jordan et al. 2024) with the update scaled to AdamW's size, so that one learning rate serves both (Liu et al. 2025);
the rest goes to AdamW. Weight decay shrinks matrices, never norms or biases.

Contract: all state is tensors, named `key:weight`, and goes into a safetensors file and back.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lydite.training.recipe import TrainingTable


class Weights:
    """The weights that are moved, by name: the module's own, or float32 masters of them where it computes in bfloat16."""

    def __init__(self, module: nn.Module, *, masters: bool) -> None:
        """With `masters` the module's floating-point weights are cast to bfloat16 in place; what they were is kept."""
        self.own = {name: weight for name, weight in module.named_parameters() if weight.requires_grad}
        self.named: dict[str, Tensor] = dict(self.own)
        self.masters = masters
        if masters:
            self.named = {name: nn.Parameter(weight.detach().float().clone()) for name, weight in self.own.items()}
            for weight in module.parameters():  # not buffers: transformers keeps rotary frequencies in float32 too
                if weight.is_floating_point():
                    weight.data = weight.data.to(torch.bfloat16)

    @torch.no_grad()
    def collect(self) -> None:
        """After a backward pass: adds the bfloat16 gradients to the masters'."""
        if not self.masters:
            return
        for name, weight in self.own.items():
            if weight.grad is None:
                continue
            master = self.named[name]
            master.grad = weight.grad.float() if master.grad is None else master.grad.add_(weight.grad)
            weight.grad = None

    @torch.no_grad()
    def publish(self) -> None:
        """After an update: the module computes with the new weights."""
        if self.masters:
            torch._foreach_copy_(list(self.own.values()), list(self.named.values()))

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> None:
        """Takes up values by name."""
        for name, tensor in self.named.items():
            tensor.copy_(tensors[name])
        self.publish()

    def grads(self) -> list[Tensor]:
        return [weight.grad for weight in self.named.values() if weight.grad is not None]

    def zero_grad(self) -> None:
        for weight in self.named.values():
            weight.grad = None


class Optimizers:
    """One or two optimizers of PyTorch as one."""

    def __init__(self, weights: Weights, module: nn.Module, table: TrainingTable) -> None:
        self.names = {id(weight): name for name, weight in weights.named.items()}
        embeddings = _embeddings(module)
        inside: list[Tensor] = []
        decayed: list[Tensor] = []
        plain: list[Tensor] = []
        for name, weight in weights.named.items():
            is_embedding = name in embeddings
            if table.optimizer == "muon" and weight.dim() == 2 and not is_embedding:
                inside.append(weight)
            elif weight.dim() >= 2 and (table.decay_embeddings or not is_embedding):
                decayed.append(weight)
            else:
                plain.append(weight)
        groups = [{"params": decayed, "weight_decay": table.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        groups = [group for group in groups if group["params"]]
        self.parts: list[Optimizer] = []
        if groups:
            self.parts.append(_adafactor(groups, table) if table.optimizer == "adafactor" else _adamw(groups, table))
        if inside:
            self.parts.append(
                torch.optim.Muon(
                    inside,
                    lr=table.learning_rate,
                    weight_decay=table.weight_decay,
                    momentum=table.muon_momentum,
                    adjust_lr_fn="match_rms_adamw",
                )
            )

    def step(self, learning_rate: float) -> None:
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = learning_rate
            part.step()

    def tensors(self) -> dict[str, Tensor]:
        """All state, by `key:weight`."""
        return {f"{key}:{name}": value for name, state in self._states() for key, value in state.items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Takes up what `tensors` gave."""
        by_name: dict[str, dict[str, Tensor]] = {}
        for full, value in tensors.items():
            key, _, name = full.partition(":")
            by_name.setdefault(name, {})[key] = value
        for part in self.parts:
            part.state.clear()
            for group in part.param_groups:
                for weight in group["params"]:
                    if state := by_name.get(self.names[id(weight)]):
                        part.state[weight] = state

    def _states(self) -> Iterator[tuple[str, dict[str, Tensor]]]:
        for part in self.parts:
            for weight, state in part.state.items():
                assert all(isinstance(value, Tensor) for value in state.values()), state.keys()
                yield self.names[id(weight)], state


def _adamw(groups: list[dict[str, object]], table: TrainingTable) -> Optimizer:
    betas = table.adam_beta1, table.adam_beta2
    return torch.optim.AdamW(groups, lr=table.learning_rate, betas=betas, eps=table.adam_epsilon, fused=True)


def _adafactor(groups: list[dict[str, object]], table: TrainingTable) -> Optimizer:
    return torch.optim.Adafactor(groups, lr=table.learning_rate)


def _embeddings(module: nn.Module) -> set[str]:
    """Names of the weights that look tokens up or score them."""
    heads = {
        id(head.weight)
        for part in module.modules()
        if isinstance(part, nn.Module) and (head := _output_embeddings(part)) is not None
    }
    tables = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}
    return {name for name, weight in module.named_parameters() if id(weight) in heads | tables}


def _output_embeddings(part: nn.Module) -> nn.Linear | None:
    from transformers import PreTrainedModel

    head = part.get_output_embeddings() if isinstance(part, PreTrainedModel) else None
    return head if isinstance(head, nn.Linear) else None
