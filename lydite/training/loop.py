"""The training loop: one path for every objective, optimizer and number of processes, read in five minutes.

A step: the feed's rows are cut into micro-batches; the counts of labelled positions are added up over all of them and all
processes before the network runs, so every backward pass is already in scale and the gradient is that of the mean over
the whole step, however it was cut; clip, guard, update, average, log; then validate and save where it is time.

Contract: killed at any moment, the same command continues from the last checkpoint, and on a CPU the curve is that of an
uninterrupted run bit for bit: data is a function of its place, schedules of the step, and torch's generator is seeded
anew for each step. SIGTERM and Ctrl-C end the run after the step under way, with a checkpoint; a second Ctrl-C at once.
"""

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from lydite.errors import Interrupted, UserError
from lydite.process import resident_peak
from lydite.training import checkpoints, network
from lydite.training.average import MovingAverage, mean_of, used
from lydite.training.batch import TrainBatch
from lydite.training.checkpoints import Checkpoints, State
from lydite.training.distributed import Parallel, World, clip
from lydite.training.feed import Feed, Place, micro_batches
from lydite.training.guard import Guard, save_bad_step
from lydite.training.layers import quicken
from lydite.training.log import EvalLine, EventLine, Line, Log, StepLine
from lydite.training.objectives import Objective
from lydite.training.optimizers import Optimizers, Weights
from lydite.training.recipe import Recipe
from lydite.training.schedules import factor
from lydite.training.speed import Work
from lydite.training.step import Step, Sums, full, validation_loss
from lydite.training.unigram import Labels

OnEval = Callable[[Path, int], Sequence[Line]]
"""Judges the checkpoint folder that it is given at that step; lines for the log come back."""


@dataclass
class Job:
    """Everything that a run is made of; built by start.py."""

    recipe: Recipe
    folder: Path
    world: World
    network: Any
    """The PreTrainedModel that is saved."""
    tokenizer: Any
    train: Objective
    validation: Objective | None = None
    bytes_per_label: float = 0.0
    """UTF-8 bytes of the validation text for each of its tokens, ends included; 0 where the loss is no likelihood."""
    work: Work | None = None
    peak: float = 0.0
    """Operations a second of all processes together; 0: not known."""
    on_eval: OnEval | None = None
    on_line: Callable[[Line], None] = lambda line: None
    say: Callable[[str], None] = lambda line: None


class Loop:
    """One run, from its last checkpoint to its end."""

    def __init__(self, job: Job) -> None:
        self.job, self.recipe, self.world = job, job.recipe, job.world
        table = self.table = job.recipe.training
        root = job.train.wrap(job.network).to(job.world.device)
        if job.world.device.type == "cpu" and not table.compile:
            quicken(root)
        self.step_module = Step(root, table.dtype == "autocast", job.world.device)
        halves = table.dtype == "bfloat16"
        several = job.world.size > 1
        sharded = self.sharded = several and table.parallel == "fsdp"
        if not sharded:  # masters are cast before a wrapper looks at the weights
            self.weights = Weights(root, masters=halves)
        self.parallel = Parallel(self.step_module, job.world, table.parallel, bfloat16=halves)
        if sharded:
            self.weights = Weights(root, masters=False)
        self.root = root.train()
        self.optimizers = Optimizers(self.weights, root, table)
        self.average = MovingAverage(self.weights, table.average_decay) if table.average == "ema" else None
        self.feed = Feed(
            job.train,
            batch_size=table.batch_size,
            batch_tokens=table.batch_tokens,
            window=table.length_window,
            seed=table.seed,
        )
        self.guard = Guard(table)
        self.labels = Labels()
        self.checkpoints = Checkpoints(
            job.folder, rank=self.world.rank, size=self.world.size, barrier=self.world.barrier
        )
        self.state = State(step=0, place=Place(), tokens=0, seconds=0.0, losses=[], num_processes=self.world.size)
        self.saved = 0
        """Step of the checkpoint that this process wrote or read last; one of its own name may be damaged."""
        self.told = self.all_told = False
        """Whether this process, or any of them, was told to end."""

    # ------------------------------------------------------------------------------------------- run

    def run(self) -> Path:
        """Trains to the end and returns the folder of the finished model. Raises UserError and Interrupted."""
        self._resume()
        out = self.job.folder / "model"
        if self._has_ended() and out.is_dir():
            return out
        with _signals(self), contextlib.ExitStack() as stack:
            if self.world.leads:
                self.log = Log(self.job.folder, self.state.step)
                stack.callback(self.log.close)
            self._event("begun" if not self.state.step else "continued")
            while not self._has_ended():
                self._train_step()
                step, last = self.state.step, self.state.step == self.table.max_steps
                every = self.recipe.eval.every
                # Before it is saved, so that it is not done twice; the mean of checkpoints is judged when there is one.
                if (last and self.table.average != "last") or (every and step % every == 0):
                    self._validate()
                # Several processes must agree on the step; they do when they count the next one's labels.
                told = self.all_told if self.world.size > 1 else self.told
                if step % self.recipe.save.every == 0 or told or self._has_ended():
                    self._save()
                if told and not last:
                    raise Interrupted(f"interrupted after step {step}, which is saved")
            self._finish(out)
            if self.world.leads and self._is_plain and (hint := self.labels.hint(self.guard.losses)):
                self.job.say(hint)
            self._write(EventLine(step=self.state.step, what="finished", peak_memory_bytes=resident_peak()))
        return out

    def _has_ended(self) -> bool:
        """Whether all steps are done, or patience is at an end."""
        patience = self.recipe.eval.patience
        return self.state.step >= self.table.max_steps or bool(patience and self.state.num_worse >= patience)

    @property
    def _is_plain(self) -> bool:
        """Whether the loss is the mean of nats a label and nothing else."""
        return list(self.step_module.shape) == ["tokens"] and not any(
            table.get("label_smoothing", 0.1 if table["name"] == "seq2seq" else 0) for table in self.recipe.objective
        )

    def _write(self, *lines: Line) -> None:
        if self.world.leads:
            self.log.write(*lines)
            for line in lines:
                self.job.on_line(line)

    def _event(self, what: str) -> None:
        self._write(EventLine(step=self.state.step, what=what))

    # ------------------------------------------------------------------------------------------ step

    def _train_step(self) -> None:
        start = time.perf_counter()
        step = self.state.step
        rows, of_all = self.feed.next(self.world.rank, self.world.size)
        pieces = micro_batches(rows, self.table.gradient_accumulation_steps, of_all // self.world.size)
        batches = [self.job.train.collate(piece).to(self.world.device) for piece in pieces]
        counts, tokens = self._counts(batches)
        seed = np.random.SeedSequence((self.table.seed, step, self.world.rank)).generate_state(1)[0]
        torch.manual_seed(int(seed))
        sums = Sums()
        for number, batch in enumerate(batches):
            with self.world.wire(), self.parallel.gradients(number == len(batches) - 1):
                total, parts = self.parallel.module(self.job.train, batch, counts)
                (total * self.parallel.scale).backward()
            self.weights.collect()
            sums.add(parts, self.step_module.shape)
        sums = sums.over(self.world)
        loss = sums.loss()
        self.labels.add(batches)
        with self.world.wire():
            norm = clip(self.weights.grads(), self.table.max_grad_norm)
        rate = self._learning_rate(step)
        if self._is_good(loss, norm, batches):
            self.optimizers.step(rate)
            self.weights.publish()
            if self.average is not None:
                self.average.update(self.weights, step + 1)
        self.weights.zero_grad()
        seconds = time.perf_counter() - start
        self.state = msgspec.structs.replace(
            self.state,
            step=step + 1,
            place=self.feed.place,
            tokens=self.state.tokens + tokens,
            seconds=self.state.seconds + seconds,
        )
        if math.isfinite(loss) and math.isfinite(norm) and (step + 1) % self.recipe.log.every == 0:
            self._write(
                StepLine(
                    step=step + 1,
                    loss=loss,
                    parts=sums.means(),
                    learning_rate=rate,
                    grad_norm=norm,
                    tokens=self.state.tokens,
                    tokens_per_second=tokens / seconds,
                    peak=self._peak(batches, counts, tokens, seconds),
                    seconds=self.state.seconds,
                )
            )

    def _counts(self, batches: list[TrainBatch]) -> tuple[dict[str, int], int]:
        """Labelled positions by pool and real tokens, of the step over all processes."""
        counts: dict[str, int] = {}
        tokens = 0
        own = {"counts": [batch.counts for batch in batches], "tokens": sum(batch.num_tokens for batch in batches)}
        for message in self.world.gather(own | {"told": self.told}):
            tokens += message["tokens"]
            self.all_told = self.all_told or message["told"]
            for batch in message["counts"]:
                for pool, count in batch.items():
                    counts[pool] = counts.get(pool, 0) + count
        return counts, tokens

    def _learning_rate(self, step: int) -> float:
        table = self.table
        return table.learning_rate * factor(
            table.schedule,
            step,
            warmup=table.warmup_steps,
            steps=table.max_steps,
            floor=table.min_lr_rate,
            decay=table.decay_steps,
        )

    def _is_good(self, loss: float, norm: float, batches: list[TrainBatch]) -> bool:
        """Whether the update is made; raises UserError where the run ends here."""
        problem = self.guard.problem(loss, norm)
        if not problem:
            self.guard.good(loss)
            return True
        if self.guard.stops():
            step, rank = self.state.step + 1, self.world.rank
            raise save_bad_step(self.job.folder, step, problem, batches, rank, self.table.on_nan)
        self._write(EventLine(step=self.state.step + 1, what=f"skipped: {problem}"))
        return False

    def _peak(self, batches: list[TrainBatch], counts: dict[str, int], tokens: int, seconds: float) -> float | None:
        work, peak = self.job.work, self.job.peak
        ids = batches[0].inputs.get("input_ids")
        if work is None or not peak or ids is None:
            return None
        labels = max(counts.values(), default=0)
        return work.operations(tokens, labels, ids.shape[1]) / seconds / peak

    # ------------------------------------------------------------------------------------ validation

    def _validate(self) -> None:
        start = time.perf_counter()
        step = self.state.step
        with used(self.weights, self.average):
            if self.job.validation is not None:
                loss, parts, bits = self._validation_loss(self.job.validation)
                if not math.isfinite(loss):
                    raise UserError(f"step {step}: the validation loss is {loss}; lower the learning rate")
                is_best = self.state.best_loss is None or loss < self.state.best_loss
                self.state = msgspec.structs.replace(
                    self.state,
                    best_loss=loss if is_best else self.state.best_loss,
                    best_step=step if is_best else self.state.best_step,
                    num_worse=0 if is_best else self.state.num_worse + 1,
                )
                seconds = time.perf_counter() - start
                self._write(
                    EvalLine(step=step, loss=loss, parts=parts, bits_per_byte=bits, seconds=seconds, is_best=is_best)
                )
            if self.job.on_eval is not None:
                place = self.job.folder / "latest"
                self._export(self._averaged(), place)
                if self.world.leads:
                    self._write(*self.job.on_eval(place, step))
                self.world.barrier()
        if self.recipe.eval.patience and self.state.best_step == step:
            self._save()

    def _validation_loss(self, objective: Objective) -> tuple[float, dict[str, float], float | None]:
        """The loss over the validation rows, its parts, and bits per byte."""
        total = objective.num_examples(0)
        count = min(total, self.recipe.eval.max_rows or total)
        parts = self.table.gradient_accumulation_steps
        as_in_training = max(self.world.size, (self.table.batch_size or 32 * self.world.size * parts) // parts)
        rows = objective.rows or self.recipe.eval.batch_size or as_in_training
        if objective.rows:  # whole steps of streams, of which each process keeps its own
            count = max(1, count // rows) * rows
        sums = validation_loss(self.step_module, objective, self.world, rows=rows, count=count)
        bits = None
        if self.job.bytes_per_label:
            bits = sums.loss() / math.log(2) / self.job.bytes_per_label
        return sums.loss(), sums.means(), bits

    # ------------------------------------------------------------------------------------ checkpoints

    def _parts(self) -> dict[str, dict[str, Tensor]]:
        parts = {"model": dict(self.weights.named) | self._buffers(), "optimizer": self.optimizers.tensors()}
        if self.average is not None:
            parts["average"] = self.average.tensors
        return parts

    def _buffers(self) -> dict[str, Tensor]:
        """What a network keeps beside its weights (none of those that follow from the config)."""
        saved = self.root.state_dict()
        return {f"buffer:{name}": tensor for name, tensor in self.root.named_buffers() if name in saved}

    def _save(self) -> None:
        if self.state.step == self.saved:
            return
        state = msgspec.structs.replace(self.state, losses=list(self.guard.losses), num_skipped=self.guard.num_skipped)
        self.checkpoints.save(state, self._parts(), self.job.train.carried(), sharded=self.sharded)
        self.saved = self.state.step
        self.checkpoints.prune(self.recipe.save.keep, self.state.best_step if self.recipe.eval.patience else 0)

    def _resume(self) -> None:
        found = self.checkpoints.last(self.job.say if self.world.leads else lambda line: None)
        if found is None:
            return
        path, state = found
        self._load(path)
        self.saved = state.step
        self.job.train.carry(self.checkpoints.carried(path, state))
        self.feed.place = state.place
        self.guard.losses.extend(state.losses)
        self.guard.num_skipped = state.num_skipped
        self.state = msgspec.structs.replace(state, num_processes=self.world.size, sha256={}, losses=[])

    def _load(self, path: Path) -> None:
        if checkpoints.is_sharded(path) or self.sharded:
            # Tensors are filled in place; the optimizer's are made by an update that changes nothing.
            for weight in self.weights.named.values():
                weight.grad = torch.zeros_like(weight)
            self.optimizers.step(0.0)
            self.weights.zero_grad()
            checkpoints.read_shards(path, self._parts())
            self.weights.publish()
            return
        model = checkpoints.read_part(path, "model")
        optimizer = checkpoints.read_part(path, "optimizer")
        assert model is not None, path
        self.weights.load(model)
        for name, buffer in self._buffers().items():
            buffer.copy_(model[name])
        self.optimizers.load({name: tensor.to(self.world.device) for name, tensor in (optimizer or {}).items()})
        if self.average is not None:
            self.average.load(checkpoints.read_part(path, "average") or model)

    # -------------------------------------------------------------------------------------------- end

    def _averaged(self) -> dict[str, Tensor]:
        return self.average.tensors if self.average is not None else self.weights.named

    def _finish(self, out: Path) -> None:
        """The best weights where patience watched, else the average, else the last, as RUN/model."""
        tensors = self._averaged()
        if self.recipe.eval.patience and self.state.best_step:
            self._load(self.checkpoints.path(self.state.best_step))
            tensors = self._averaged()
        elif self.table.average == "last":
            self.weights.load(mean_of(self.checkpoints.whole()[-self.table.average_last :]))
            self._validate()
        self._export(tensors, out)

    def _export(self, tensors: dict[str, Tensor], out: Path) -> None:
        """Writes a folder that plain transformers loads; `tensors` are named as in the module that is trained."""
        whole = {name: full(tensor) for name, tensor in tensors.items()}
        if self.world.leads:
            names = {id(weight): name for name, weight in self.root.named_parameters()}
            own = {
                name: whole[names[id(weight)]]
                for name, weight in self.job.network.named_parameters()
                if names[id(weight)] in whole
            }
            network.save(self.job.network, own, self.job.tokenizer, out)
        self.world.barrier()


@contextlib.contextmanager
def _signals(loop: Loop) -> Iterator[None]:
    """SIGTERM and the first Ctrl-C let the step under way end; the second Ctrl-C is what it always was."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def told(number: int, frame: Any) -> None:
        loop.told = True
        loop.job.say("told to end: saving after the step under way")
        signal.signal(signal.SIGINT, signal.default_int_handler)

    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, told)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
