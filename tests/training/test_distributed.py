"""Processes that cannot meet: one clear line after a time, never a silent wait."""

import threading
from datetime import timedelta

import pytest
from torch.distributed import HashStore

from lydite.errors import ProcessError, UserError
from lydite.training import distributed
from lydite.training.distributed import World, _own_part, num_strangers


def meet(ranks, size):
    """What each of the processes comes to, by its place in `ranks`: True, or the error's line."""
    store, found = HashStore(), [None] * len(ranks)

    def one(place):
        try:
            _own_part(store, ranks[place], size)
            found[place] = True
        except ProcessError as error:
            found[place] = str(error)

    threads = [threading.Thread(target=one, args=(place,)) for place in range(len(ranks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    return found


def test_all_that_come_meet():
    assert meet([0, 1, 2], 3) == [True, True, True]


@pytest.mark.parametrize(
    ("ranks", "size", "place", "line"),
    [
        ([0, 1], 3, 0, r"process 0 of 3 waited .* for an answer of process 2\)"),
        ([0, 1], 3, 1, "process 1 of 3 waited .* for an answer of process 0"),
        ([1], 2, 0, "process 1 of 2 waited .* for an answer of process 0"),
        ([0], 2, 0, "process 0 of 2 waited .* for an answer of process 1"),
    ],
)
def test_who_waits_in_vain_says_for_whom(monkeypatch, ranks, size, place, line):
    monkeypatch.setattr(distributed, "MEETING", timedelta(seconds=0.3))
    error = meet(ranks, size)[place]
    assert "start them all with torchrun, or each with a RANK of its own" in error
    with pytest.raises(ProcessError, match=line):
        raise ProcessError(error)


def test_of_two_processes_with_one_rank_one_is_told(monkeypatch):
    """srun with a RANK that is not each task's own: the second never hears its word."""
    monkeypatch.setattr(distributed, "MEETING", timedelta(seconds=0.5))
    found = meet([0, 1, 1], 2)
    assert any(isinstance(one, str) and "waited" in one for one in found[1:])


def test_srun_alone_is_named(monkeypatch):
    for name in ("RANK", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    assert num_strangers() == 0
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    assert num_strangers() == 0
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    assert num_strangers() == 4
    monkeypatch.setenv("RANK", "0")
    assert num_strangers() == 0


@pytest.mark.parametrize("device", ["nonsense", "mps:7", "xpu"])
def test_a_device_that_is_not_here_is_one_line(device):
    with pytest.raises(UserError, match=rf"^--device {device} cannot be used \(.*\); cpu always can$"):
        World(device)
