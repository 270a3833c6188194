"""A run killed three times, its curve laid over that of the uninterrupted one.

    python benchmarks/killed_run.py recipes/shakespeare_char.toml --steps 300 --out killed --picture docs/results/killed.png

The same command runs twice as processes of their own: once it is left alone; once it is ended by `kill -9` at three steps
drawn from --seed, each time between two other checkpoints, and started again. Losses, gradient norms and learning rates of all steps
must be equal to the last bit, and so must the weights. Exit code 1 where they are not.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from lydite.training.log import StepLine, read_log


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--every", type=int, default=0, help="steps between checkpoints; default: a tenth")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--picture", type=Path)
    chosen = parser.parse_args()
    every = chosen.every or max(1, chosen.steps // 10)
    pairs = [f"training.max_steps={chosen.steps}", f"save.every={every}", "log.every=1", *chosen.set]

    def command(folder: Path) -> list[str]:
        words = [word for pair in pairs for word in ("--set", pair)]
        return [sys.executable, "-m", "lydite", "pretrain", str(chosen.recipe), "--quiet", "--out", str(folder), *words]

    subprocess.run(command(chosen.out / "whole"), check=True)
    places = drawn(chosen.steps, every, chosen.kills, chosen.seed)
    kills = [killed_at(command(chosen.out / "killed"), chosen.out / "killed", step) for step in places]
    subprocess.run(command(chosen.out / "killed"), check=True)
    whole, killed = (curve(chosen.out / name) for name in ("whole", "killed"))
    same = whole == killed
    weights = [(chosen.out / name / "model" / "model.safetensors").read_bytes() for name in ("whole", "killed")]
    print(f"killed after steps {', '.join(map(str, kills))}; checkpoints every {every}")
    print(f"{len(whole)} steps; curves equal to the last bit: {same}; weights: {weights[0] == weights[1]}")
    if chosen.picture:
        draw(chosen.picture, whole, killed, kills)
    return 0 if same and weights[0] == weights[1] else 1


def drawn(steps: int, every: int, kills: int, seed: int) -> list[int]:
    """Steps to kill at, in order: each after another checkpoint, so that every start does some of the run."""
    chance = random.Random(seed)
    after = range(every, steps - 1, every)
    if kills > len(after):
        raise SystemExit(
            f"{kills} kills need as many checkpoints before the end, and there are {len(after)}; lower --every"
        )
    return [
        chance.randrange(step + 1, min(step + every, steps - 1) + 1) for step in sorted(chance.sample(after, kills))
    ]


def killed_at(command: list[str], folder: Path, step: int) -> int:
    """Starts the command, kills it once the log has `step`, and returns the last step that the log has then."""
    # Until the run has read its checkpoint, the log is still that of the process that was killed; then it is a new file.
    before = inode(folder)
    process = subprocess.Popen(command)
    while process.poll() is None and (inode(folder) == before or last_step(folder) < step):
        time.sleep(0.02)
    if process.poll() is not None:
        raise SystemExit(f"the run ended by itself before step {step}, with exit code {process.returncode}")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return last_step(folder)


def inode(folder: Path) -> int:
    """Which file the log is; 0 where there is none yet."""
    path = folder / "log.jsonl"
    return path.stat().st_ino if path.exists() else 0


def last_step(folder: Path) -> int:
    """The last step that the log has whole; 0 where there is none yet."""
    if not (folder / "log.jsonl").exists():
        return 0
    return max((line.step for line in read_log(folder)), default=0)


def curve(folder: Path) -> list[tuple[int, float, float, float]]:
    """(step, loss, gradient norm, learning rate) of every step."""
    lines = [line for line in read_log(folder) if isinstance(line, StepLine)]
    return [(line.step, line.loss, line.grad_norm, line.learning_rate) for line in lines]


def draw(path: Path, whole: list[tuple[int, float, float, float]], killed: list, kills: list[int]) -> None:
    """Both losses by step, the killed one as points over the line of the other, and where it was killed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.4), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.plot([row[0] for row in whole], [row[1] for row in whole], color="#b8860b", linewidth=2.4, label="left alone")
    axes.plot([row[0] for row in killed], [row[1] for row in killed], color="black", linewidth=0.7, label="killed")
    for step in kills:
        axes.axvline(step, color="#3b6ea5", linewidth=0.8, linestyle="--")
    axes.set_xlabel("step")
    axes.set_ylabel("training loss, nats")
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})


if __name__ == "__main__":
    sys.exit(main())
