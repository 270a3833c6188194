"""1 process = 2 processes, DDP and FSDP2 through torchrun, and checkpoints that another number of processes reads."""

import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from lydite.training.log import EventLine, read_log
from lydite.training.start import pretrain
from tests.training.processes import WAYS, recipe_for
from tests.training.tinyrun import curve, write_text


def torchrun(*arguments, processes=2, options=()):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    port = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    return subprocess.run([*command, *port, *options, "-m", *arguments], capture_output=True, text=True, timeout=600)


@pytest.mark.slow
@pytest.mark.parametrize("name", WAYS)
def test_two_processes_make_the_curve_of_one(tmp_path, name):
    text, one, two = write_text(tmp_path / "text.txt"), tmp_path / "one", tmp_path / "two"
    done = torchrun("tests.training.processes", name, str(two), str(text))
    assert done.returncode == 0, done.stderr[-3000:]
    recipe = recipe_for(name, text)
    out = pretrain(recipe, one)
    tolerance = 2e-2 if "bfloat16" in name else 2e-5
    for mine, other in zip(curve(one), curve(two), strict=True):
        assert mine == pytest.approx(other, rel=tolerance)
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (out, two / "model"))
    assert ours.keys() == theirs.keys()
    for key in ours if "bfloat16" not in name else ():
        torch.testing.assert_close(ours[key], theirs[key], rtol=1e-3, atol=1e-4)
    if name == "fsdp":
        shards = list((two / "checkpoints" / "step-00000003" / "shards").iterdir())
        assert len(shards) == 2
        assert {path.suffix for path in shards} == {".safetensors"}
    # What two processes wrote after step 3, one goes on with.
    shutil.rmtree(two / "checkpoints" / "step-00000006")
    shutil.rmtree(two / "model")
    pretrain(recipe, two)
    for mine, other in zip(curve(one), curve(two), strict=True):
        assert mine == pytest.approx(other, rel=tolerance)


@pytest.mark.slow
def test_torchrun_begins_again_where_a_process_died(tmp_path):
    """Checkpoints stand at 3 and 6; process 1 dies after step 5, all begin again, and the curve is that of one process."""
    text, one, two = write_text(tmp_path / "text.txt"), tmp_path / "one", tmp_path / "two"
    done = torchrun("tests.training.processes", "ddp", str(two), str(text), "5", options=["--max-restarts", "3"])
    assert done.returncode == 0, done.stderr[-3000:]
    events = [(line.step, line.what) for line in read_log(two) if isinstance(line, EventLine)]
    assert (tmp_path / "two.died").exists()
    assert events == [(0, "begun"), (3, "continued"), (6, "finished")]
    pretrain(recipe_for("ddp", text), one)
    for mine, other in zip(curve(one), curve(two), strict=True):
        assert mine == pytest.approx(other, rel=2e-5)
