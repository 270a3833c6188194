"""From a recipe and a machine to a plan: parameters, operations, memory of a device, time, and what the laws say.

    operations   a training step is three forward passes (forward, and backward for inputs and for weights; Kaplan et al. 2020,
                 section 2.1): counted on the network itself, the output head 2 d V a labelled position. Beside it the usual
                 formula a token, 6 N + 12 L a T (Chowdhery et al. 2022, PaLM, appendix B), with N the weights that a token is
                 multiplied with, L layers, a heads times their width, T tokens of context. Attention counts in full, though
                 half of a causal one is masked.
    memory       weights, gradients and optimizer state in float32; activations as autograd saves them; logits in chunks.
    time         operations / (devices * peak * utilisation), and beside it what the devices send each other.

Contract: what is assumed stands in `notes`; a number that cannot be had is None.
"""

from pathlib import Path

from lydite.errors import UserError
from lydite.training.plan.laws import (
    MUENNIGHOFF,
    Optimum,
    constrained_loss,
    effective_tokens,
    optima,
)
from lydite.training.plan.network import Pass, Shape, make_config, measure_pass, measure_shape, objective_of
from lydite.training.plan.recipe import Machine, Recipe, Training
from lydite.types import Record

ASSUMED_UTILISATION = 0.3
"""Where none was measured: what well-kept loops reach, on processors and on graphics cards alike."""
LABELLED_WHEN_MASKED = 0.15
_FLOAT = 4
_PROGRAM = 600 * 2**20
"""Of a process that has loaded PyTorch and transformers; of a graphics card, its context."""
_CHUNK_ROWS = 512
"""Rows of logits that the loss holds at a time."""


class Memory(Record, frozen=True, kw_only=True):
    """Bytes of one device at the fullest moment of a step."""

    weights: int
    gradients: int
    optimizer: int
    activations: int | None
    logits: int
    program: int
    total: int | None


class Data(Record, frozen=True, kw_only=True):
    """What the law of repeated data says of the run."""

    unique_tokens: int
    epochs: float
    effective_tokens: float
    """What the passes are worth in fresh tokens."""
    loss: float
    loss_if_fresh: float
    """Nats a token on C4, with these tokens, and if none were repeated."""


class Plan(Record, frozen=True, kw_only=True):
    """What `lydite plan` says."""

    schema: int = 1
    shape: Shape
    training: Training
    machine: Machine
    micro_batch: int
    """Sequences that one device has in memory at a time."""
    tokens: int
    """Positions that the run goes through, the decoder's counted beside the encoder's."""
    forward_per_token: float
    """Operations of the forward pass a token, the head among them."""
    formula_per_token: float | None
    """6 N + 12 L a T; None where layers are shared or there are two stacks."""
    operations: float
    """Of the whole run, forward and backward."""
    is_counted: bool
    """Whether operations were counted on the network, and not taken from the formula."""
    memory: Memory
    utilisation: float
    is_assumed: bool
    """Whether the utilisation is a guess."""
    tokens_per_second: float | None
    seconds: float | None
    seconds_sending: float | None
    """If nothing of it is hidden behind computation."""
    optima: tuple[Optimum, ...]
    data: Data | None
    notes: tuple[str, ...]


def make_plan(recipe: Recipe, machine: Machine, *, folder: Path = Path()) -> Plan:
    """The plan; `folder` is where paths of the recipe start. Raises UserError."""
    config = make_config(recipe, folder)
    training = recipe.training
    objective = objective_of(config, training)
    shape = measure_shape(config, objective)
    notes = [f"not used by a plan: {', '.join(recipe.unused)}"] if recipe.unused else []
    longest = getattr(config, "max_position_embeddings", None)
    if isinstance(longest, int) and longest < training.sequence_length and objective != "seq2seq":
        raise UserError(
            f"the model has {longest} positions and sequence_length is {training.sequence_length}; make one fit"
        )
    share = training.batch / machine.devices
    micro = min(training.micro_batch or max(1, round(share)), max(1, round(share)))
    found = measure_pass(config, objective, training, micro)
    if training.gradient_checkpointing:
        notes.append("with checkpointing the forward pass runs twice: operations of the hardware are a third more")
    positions = training.sequence_length + _target(training, objective)
    labelled = _labelled(training, objective)
    formula = _formula(config, shape, training, objective, labelled)
    forward, counted = _forward(found, shape, training, micro, labelled), found is not None
    if forward is None:
        forward = (formula or 6 * (shape.multiplied + shape.head)) / 3
        notes.append(
            "the network could not be run without data: operations are the formula's, activations are not known"
        )
    tokens = training.batch * positions * (training.steps or 1)
    operations = 3.0 * forward * tokens
    utilisation = machine.utilisation or ASSUMED_UTILISATION
    peak = machine.peak.get(training.dtype)
    if peak is None:
        notes.append(f"no time: {machine.name} has no peak for {training.dtype}")
    again = 4 / 3 if training.gradient_checkpointing else 1.0
    speed = peak * machine.devices * utilisation / (3 * forward * again) if peak else None
    return Plan(
        shape=shape,
        training=training,
        machine=machine,
        micro_batch=micro,
        tokens=tokens,
        forward_per_token=forward,
        formula_per_token=formula,
        operations=operations,
        is_counted=counted,
        memory=_memory(found, shape, training, machine, micro),
        utilisation=utilisation,
        is_assumed=machine.utilisation is None,
        tokens_per_second=speed,
        seconds=tokens / speed if speed else None,
        seconds_sending=_sending(shape, training, machine),
        optima=tuple(optima(operations)),
        data=_data(recipe, shape, tokens),
        notes=tuple(notes + _doubts(objective, shape)),
    )


def _target(training: Training, objective: str) -> int:
    """Positions of the decoder beside those of the encoder."""
    return (training.target_length or training.sequence_length) if objective == "seq2seq" else 0


def _labelled(training: Training, objective: str) -> float:
    """Share of all positions that meet the output head."""
    share = training.labelled or (LABELLED_WHEN_MASKED if objective == "masked" else 1.0)
    target = _target(training, objective)
    return share * target / (training.sequence_length + target) if target else share


def _forward(found: Pass | None, shape: Shape, training: Training, micro: int, labelled: float) -> float | None:
    if found is None:
        return None
    positions = micro * (training.sequence_length + _target(training, shape.objective))
    return found.operations / positions + 2 * shape.head * labelled


def _formula(config: object, shape: Shape, training: Training, objective: str, labelled: float) -> float | None:
    if objective == "seq2seq" or getattr(config, "num_hidden_groups", None) or shape.family == "xlnet":
        return None
    attention = 12 * shape.layers * shape.attention_width * training.sequence_length
    return 6 * (shape.multiplied + shape.head * labelled) + attention


def _memory(found: Pass | None, shape: Shape, training: Training, machine: Machine, micro: int) -> Memory:
    parts = machine.devices if training.parallel == "fsdp" else 1
    weights = _FLOAT * shape.parameters // parts
    if parts > 1:  # the layer at work is gathered whole, and the next one is on its way
        weights += 2 * _FLOAT * shape.multiplied // max(shape.layers, 1)
    matrices, others, factored = shape.optimizer_rows
    state = {
        "adamw": 2 * shape.parameters,
        "muon": matrices + 2 * others,
        "adafactor": factored,
        "sgd": shape.parameters,
    }[training.optimizer]
    positions = micro * (_target(training, shape.objective) or training.sequence_length)
    share = training.labelled or (LABELLED_WHEN_MASKED if shape.objective == "masked" else 1.0)
    size = _FLOAT if training.dtype == "float32" else 2
    rows = min(_CHUNK_ROWS, round(positions * share) or 1)
    # The loss keeps the gradients of the labelled states and of the output embedding until it is reached backwards.
    logits = size * rows * shape.vocab_size + _FLOAT * round(positions * share) * shape.width + _FLOAT * shape.head
    activations = None
    if found is not None:
        layer = found.saved_bytes // max(shape.layers, 1)
        activations = found.saved_bytes + layer  # the gradients within a layer stand beside what was saved
        if training.gradient_checkpointing:
            border = size * micro * training.sequence_length * shape.width
            activations = min(activations, 2 * layer + shape.layers * border)
    known = weights + _FLOAT * shape.parameters // parts + _FLOAT * state // parts + logits + _PROGRAM
    return Memory(
        weights=weights,
        gradients=_FLOAT * shape.parameters // parts,
        optimizer=_FLOAT * state // parts,
        activations=activations,
        logits=logits,
        program=_PROGRAM,
        total=None if activations is None else known + activations,
    )


def _sending(shape: Shape, training: Training, machine: Machine) -> float | None:
    """Seconds of the run that devices send: an all-reduce of the gradients is 2 (n-1)/n of their size a device; sharded weights
    are gathered twice and their gradients scattered once, 3 (n-1)/n (Rajbhandari et al. 2020, ZeRO, section 7)."""
    if machine.devices == 1:
        return 0.0
    if machine.bandwidth is None:
        return None
    times = 3 if training.parallel == "fsdp" else 2
    a_step = times * (machine.devices - 1) / machine.devices * _FLOAT * shape.parameters / machine.bandwidth
    return a_step * (training.steps or 1)


def _data(recipe: Recipe, shape: Shape, tokens: int) -> Data | None:
    unique = recipe.unique_tokens
    if unique is None:
        return None
    epochs = tokens / unique
    fresh = min(tokens, unique)
    return Data(
        unique_tokens=unique,
        epochs=epochs,
        effective_tokens=effective_tokens(fresh, max(epochs, 1.0)),
        loss=constrained_loss(shape.parameters, fresh, max(epochs, 1.0)),
        loss_if_fresh=MUENNIGHOFF.loss(shape.parameters, tokens),
    )


def _doubts(objective: str, shape: Shape) -> list[str]:
    found = []
    if objective != "causal":
        found.append(f"the laws were measured on left-to-right models; for {objective} they are a direction only")
    if shape.parameters < 44e6:
        found.append("the model is smaller than those that Chinchilla's laws were measured on")
    return found
