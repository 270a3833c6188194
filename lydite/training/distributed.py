"""Several processes as one: who this process is, sums over all of them, and what wraps the module that is trained.

Started by `torchrun` (or anything that sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT), each process takes its share
of every step. `ddp`: each holds the whole network (DistributedDataParallel). `fsdp`: each holds a shard of every block
(FSDP2, `fully_shard`). Gradients are sums over processes here, not means: the loss is already divided by the counts of
the whole step.

Contract: without RANK in the environment nothing of torch.distributed is touched.
"""

import contextlib
import json
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lydite.errors import ProcessError, UserError

PATIENCE = timedelta(hours=2)
"""How long the others wait while process 0 judges."""
MEETING = timedelta(minutes=10)
"""How long a process that is there waits for those that have still to come when a run starts."""


def _device(name: str) -> torch.device:
    """Raises UserError for one that does not exist or is not here."""
    try:
        device = torch.device(name)
        if device.type != "cuda":  # which would take memory of the first one in each of several processes
            torch.empty(0, device=device)
        elif not torch.cuda.is_available():
            raise RuntimeError("there is no CUDA device here")
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        why = (str(error).splitlines() or [""])[0]
        raise UserError(f"--device {name} cannot be used ({why}); cpu always can") from error
    return device


class World:
    """This process among all of a run."""

    def __init__(self, device: str = "cpu") -> None:
        self.rank, self.size = 0, 1
        self.device = _device(device)
        if "RANK" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1":
            self._join(device)

    @property
    def leads(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.rank == 0

    def _join(self, device: str) -> None:
        if device == "cuda":
            self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
            torch.cuda.set_device(self.device)
        try:
            from torch.distributed.rendezvous import rendezvous

            store, rank, size = next(rendezvous("env://", timeout=MEETING))
            own = _own_part(store, rank, size)
            store.set_timeout(PATIENCE)
            torch.distributed.init_process_group(
                "nccl" if device == "cuda" else "gloo", store=own, rank=rank, world_size=size, timeout=PATIENCE
            )
        except (RuntimeError, ValueError) as error:
            raise _never_met((str(error).splitlines() or [""])[0]) from error
        self.rank, self.size = torch.distributed.get_rank(), torch.distributed.get_world_size()

    def close(self) -> None:
        if self.size > 1:
            torch.distributed.destroy_process_group()

    def gather(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        """Every process's message, by rank: JSON, so that all can add it up in one order and nothing is unpickled."""
        if self.size == 1:
            return [message]
        data = json.dumps(message).encode()
        sizes = [torch.zeros(1, dtype=torch.int64, device=self.device) for _ in range(self.size)]
        with self.wire():
            torch.distributed.all_gather(sizes, torch.tensor([len(data)], device=self.device))
            longest = max(int(size) for size in sizes)
            own = torch.zeros(longest, dtype=torch.uint8, device=self.device)
            own[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            all_of_them = [torch.empty_like(own) for _ in range(self.size)]
            torch.distributed.all_gather(all_of_them, own)
        return [json.loads(bytes(one[: int(size)].cpu().numpy())) for one, size in zip(all_of_them, sizes, strict=True)]

    def barrier(self) -> None:
        if self.size > 1:
            with self.wire():
                torch.distributed.barrier()

    @contextlib.contextmanager
    def wire(self) -> Iterator[None]:
        """A process that has gone, as one line."""
        try:
            yield
        except RuntimeError as error:
            if self.size == 1 or not _is_of_the_wire(error):
                raise
            raise ProcessError(
                f"process {self.rank} of {self.size} has lost the others; the last checkpoint is kept, and the same "
                "command continues"
            ) from error


def num_strangers() -> int:
    """How many processes srun started that were not told of each other; 0 where torchrun did, or there is one."""
    several = os.environ.get("SLURM_STEP_NUM_TASKS", "1")
    return int(several) if "RANK" not in os.environ and several.isdigit() and several != "1" else 0


def _own_part(store: Any, rank: int, size: int) -> Any:
    """A part of the store that no process wrote to before this start.

    torchrun gives processes that it starts again the store of those that died, and their addresses are still in it: who reads
    one of them waits for the dead. So process 0 names a new part, the others say hello with a new word, and each takes the
    part from an answer that repeats its word.
    """
    from torch._C._distributed_c10d import PrefixStore

    start, own = time.monotonic(), secrets.token_hex(8)

    def pause(missing: Callable[[], list[int]]) -> None:
        """ProcessError once it has been long enough: two processes of one rank, or one of an earlier start, never agree."""
        if time.monotonic() - start > MEETING.total_seconds():
            names = ", ".join(map(str, missing()))
            waited = f"{MEETING.total_seconds() / 60:g} minutes"
            raise _never_met(f"process {rank} of {size} waited {waited} for an answer of process {names}")
        time.sleep(0.02)

    if rank == 0:
        others, seen = range(1, size), None
        while not store.check([f"ok/{own}/{other}" for other in others]):
            if store.check([f"hello/{other}" for other in others]):
                found = {str(other): store.get(f"hello/{other}").decode() for other in others}
                if found != seen:
                    store.set("part", json.dumps({"name": own, "seen": found}))
                    seen = found
            pause(lambda: _without(store, "hello", others) or _without(store, f"ok/{own}", others))
        return PrefixStore(own, store)
    store.set(f"hello/{rank}", own)
    while True:
        answer = json.loads(store.get("part")) if store.check(["part"]) else {"seen": {}}
        if answer["seen"].get(str(rank)) == own:
            store.set(f"ok/{answer['name']}/{rank}", "yes")
            return PrefixStore(answer["name"], store)
        pause(lambda: [0])


def _without(store: Any, key: str, ranks: Iterable[int]) -> list[int]:
    """Those of `ranks` that have not written `key/rank`."""
    return [rank for rank in ranks if not store.check([f"{key}/{rank}"])]


def _never_met(why: str) -> ProcessError:
    """What to say where the processes of a run do not come together."""
    return ProcessError(
        f"the processes of the run cannot meet ({why}); start them all with torchrun, or each with a RANK of its own, and "
        "end those of an earlier start; for one process alone unset RANK and WORLD_SIZE"
    )


def _is_of_the_wire(error: RuntimeError) -> bool:
    """torch.distributed's own errors; what gloo raises inside a backward pass has no type of its own."""
    words = str(error).lower()
    return isinstance(error, torch.distributed.DistError) or any(
        word in words for word in ("gloo", "nccl", "connection", "processgroup")
    )


class Parallel:
    """The module as all processes train it together; itself where there is one process."""

    def __init__(self, module: nn.Module, world: World, kind: Literal["ddp", "fsdp"], *, bfloat16: bool) -> None:
        """`module` is sharded in place with fsdp. `bfloat16`: products in bfloat16 where shards are gathered."""
        self.world, self.module, self.kind = world, module, kind if world.size > 1 else "one"
        self.bfloat16 = bfloat16
        if self.kind == "fsdp":
            _shard(module, bfloat16)
        elif self.kind == "ddp":
            # Not every objective of a mixture uses every weight in each step.
            self.module = nn.parallel.DistributedDataParallel(
                module, broadcast_buffers=False, find_unused_parameters=True
            )

    @contextlib.contextmanager
    def gradients(self, is_last: bool) -> Iterator[None]:
        """Around forward and backward of a micro-batch: gradients are summed over the processes with the last one."""
        # Gradients in bfloat16 are added up in float32 masters, so each micro-batch's must be whole.
        if self.kind == "ddp" and not is_last and not self.bfloat16:
            assert isinstance(self.module, nn.parallel.DistributedDataParallel)
            with self.module.no_sync():
                yield
            return
        if self.kind == "fsdp":
            from torch.distributed.fsdp import FSDPModule

            assert isinstance(self.module, FSDPModule)
            self.module.set_requires_gradient_sync(is_last)
        yield

    @property
    def scale(self) -> int:
        """Both wrappers divide gradients by the number of processes; the loss is multiplied by it."""
        return self.world.size


def blocks(module: nn.Module) -> list[nn.Module]:
    """The network's repeated blocks, as transformers names them; none where it names none."""
    from transformers import PreTrainedModel

    names: set[str] = set()
    for part in module.modules():
        if isinstance(part, PreTrainedModel):
            names |= set(part._no_split_modules or ())
    return [part for part in module.modules() if type(part).__name__ in names]


def _shard(module: nn.Module, bfloat16: bool) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    device = next(module.parameters()).device.type
    mesh = init_device_mesh(device, (torch.distributed.get_world_size(),))
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if bfloat16 else None, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    for block in blocks(module):
        fully_shard(block, mesh=mesh, mp_policy=policy)
    # Resharded even at the root, so that weights that change between two forward passes are gathered anew.
    fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=True)


def clip(grads: list[Tensor], max_norm: float) -> float:
    """The norm of all gradients together, which are scaled down where it is above `max_norm` (0: never)."""
    from torch.distributed.tensor import DTensor

    if not grads:
        return 0.0
    total = torch.nn.utils.get_total_norm(grads)
    if isinstance(total, DTensor):
        total = total.full_tensor()
    norm = float(total)
    if max_norm and norm > max_norm:  # not for a norm that is no number
        torch._foreach_mul_(grads, max_norm / (norm + 1e-6))
    return norm


def check_shares(rows: int, parts: int, world: World) -> None:
    """UserError where a step has too few rows for each process's micro-batches."""
    if rows and rows < parts * world.size:
        raise UserError(
            f"training.batch_size of {rows} rows is less than {world.size} processes times {parts} micro-batches; raise it"
        )
