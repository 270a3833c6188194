"""The recipe shakespeare_char.toml beside the same setting as a plain PyTorch loop, such as one writes in an afternoon.

    python benchmarks/shakespeare_loop.py --text tinyshakespeare.txt --repeats 3

Same text and held-out tenth, same shape (4 layers, 4 heads, 128 wide, context 64, 12 rows a step, 2,000 steps), optimizer and
schedule: nanoGPT's setting for a laptop, at four times its learning rate. Each run is a process of its own and is timed from its start to its end, imports
included; `lydite pretrain` also writes its checkpoints, its log, its page and what the model says. The plain loop takes
nanoGPT's estimate of both losses every 250 steps, as its README does (20 batches each); both are judged at the end by the
loss over the whole held-out text in blocks of the context.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parent.parent
LAYERS, HEADS, WIDTH, CONTEXT, ROWS, STEPS = 4, 4, 128, 64, 12, 2000
RATE, WARMUP, EVERY = 4e-3, 100, 250


class Block(nn.Module):
    """Attention and a feed-forward part, each behind its norm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, states: Tensor) -> Tensor:
        """[rows, length, D] -> the same"""
        rows, length, _ = states.shape
        heads = self.qkv(self.norm1(states)).view(rows, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(*heads, is_causal=True)
        states = states + self.out(seen.transpose(1, 2).reshape(rows, length, WIDTH))
        return states + self.down(F.gelu(self.up(self.norm2(states)), approximate="tanh"))


class Network(nn.Module):
    """A small GPT-2."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(size, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, size, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                last = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * LAYERS) if last else 0.02)
        self.head.weight = self.tokens.weight

    def forward(self, ids: Tensor) -> Tensor:
        """ids [rows, length] -> logits [rows, length, V]"""
        states = self.tokens(ids) + self.places(torch.arange(ids.shape[1]))
        return self.head(self.norm(self.blocks(states)))


def plain_loop(path: Path) -> float:
    """Trains as the recipe does; the loss over the held-out text in nats a character."""
    text = path.read_text(encoding="utf-8")
    letters = {letter: number for number, letter in enumerate(sorted(set(text)))}
    ids = torch.tensor([letters[letter] for letter in text])
    split = int(len(ids) * 0.9)
    parts = {"train": ids[:split], "validation": ids[split:]}
    torch.manual_seed(1337)
    network = Network(len(letters))
    weights = [p for p in network.parameters() if p.dim() > 1]
    others = [p for p in network.parameters() if p.dim() < 2]
    groups = [{"params": weights, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.99))

    def batch(part: str) -> tuple[Tensor, Tensor]:
        starts = torch.randint(len(parts[part]) - CONTEXT, (ROWS,)).tolist()
        rows = torch.stack([parts[part][start : start + CONTEXT + 1] for start in starts])
        return rows[:, :-1], rows[:, 1:]

    def loss_of(inputs: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(network(inputs).flatten(0, 1), labels.flatten())

    for step in range(STEPS):
        done = (step - WARMUP) / (STEPS - WARMUP)
        rate = RATE * (step + 1) / WARMUP if step < WARMUP else RATE * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = loss_of(*batch("train"))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        if step % EVERY == 0:
            with torch.no_grad():
                said = {part: sum(float(loss_of(*batch(part))) for _ in range(20)) / 20 for part in parts}
            print(f"step {step}: " + ", ".join(f"{part} {value:.3f}" for part, value in said.items()), flush=True)
    held = parts["validation"]
    count = (len(held) - 1) // CONTEXT
    inputs = held[: count * CONTEXT].view(count, CONTEXT)
    labels = held[1 : count * CONTEXT + 1].view(count, CONTEXT)
    with torch.no_grad():
        sums = [float(loss_of(i, j)) * len(i) for i, j in zip(inputs.split(256), labels.split(256), strict=True)]
    return sum(sums) / count


def recipe(text: Path, out: Path) -> float:
    """Runs `lydite pretrain`; the loss of its last validation in nats a character."""
    command = [
        sys.executable,
        "-m",
        "lydite",
        "pretrain",
        str(ROOT / "recipes/shakespeare_char.toml"),
        "--out",
        str(out),
    ]
    subprocess.run(
        [*command, "--set", f"data.text={text}"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return float([line["loss"] for line in lines if line["kind"] == "eval"][-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help="tinyshakespeare.txt")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--plain", action="store_true", help=argparse.SUPPRESS)  # one run of the plain loop, by itself
    args = parser.parse_args()
    if args.plain:
        print(f"loss {plain_loop(args.text):.4f}")
        return
    seconds: dict[str, list[float]] = {"plain loop": [], "lydite pretrain": []}
    losses: dict[str, float] = {}
    for _ in range(args.repeats):
        start = time.perf_counter()
        command = [sys.executable, __file__, "--text", str(args.text), "--plain"]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        seconds["plain loop"].append(time.perf_counter() - start)
        losses["plain loop"] = float(said.split()[-1])
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            losses["lydite pretrain"] = recipe(args.text.resolve(), Path(folder) / "run")
            seconds["lydite pretrain"].append(time.perf_counter() - start)
    for side, took in seconds.items():
        print(f"{side}: {statistics.median(took):.1f} s, held-out loss {losses[side]:.4f} nats a character")


if __name__ == "__main__":
    main()
