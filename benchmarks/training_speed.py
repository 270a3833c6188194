"""Tokens a second of `lydite pretrain` beside transformers' Trainer: same network, batches, dtype, optimizer and schedule.

    python benchmarks/training_speed.py --write docs/benchmarks.md          # all rows, half an hour on two cores
    python benchmarks/training_speed.py --shapes causal --dtypes bfloat16 --steps 3

Data is made up (words by Zipf's law), so that nothing needs to be fetched. Both get the same batches in the same order and
start from the same weights without dropout, so their losses must agree: the table shows the largest difference. The sides
run in turns in one process; the median step counts, without the first ones. Trainer's bfloat16 is autocast, and its network
has the attention that transformers chooses; ours is bfloat16 weights with float32 masters unless `--ours autocast` is given.
Tokens are real ones, without padding, of encoder and decoder together.
"""

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import PreTrainedTokenizerFast, Trainer, TrainerCallback, TrainingArguments

from lydite.training import network as networks
from lydite.training import speed
from lydite.training.distributed import World
from lydite.training.log import StepLine
from lydite.training.loop import Job, Loop
from lydite.training.objectives import make_objective
from lydite.training.recipe import make_recipe
from lydite.training.start import attended

sys.path.insert(0, str(Path(__file__).parent))
from speed.measure import machine

BEGIN, END = "<!-- training: begin -->", "<!-- training: end -->"
BLOCK = {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 1024}
SHAPES: dict[str, dict[str, Any]] = {
    "causal": {
        "family": "gpt2",
        "said": "GPT-2: 6 layers, 256 wide, context 256",
        "aim": 1.7,
        "rows": 16,
        "config": {
            "n_layer": 6,
            "n_head": 4,
            "n_embd": 256,
            "n_positions": 256,
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
        },
        "objective": {"name": "causal", "context": 256, "end_of_document": False},
    },
    "masked": {
        "family": "bert",
        "said": "BERT: 6 layers, 256 wide, rows of 256, 15% masked",
        "aim": 3.0,
        "rows": 16,
        "config": {
            **BLOCK,
            "max_position_embeddings": 256,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
        "objective": {"name": "masked", "context": 256},
    },
    "seq2seq": {
        "family": "bart",
        "said": "BART: 3 + 3 layers, 256 wide, pairs of 6 to 40 words",
        "aim": 3.0,
        "rows": 128,
        "config": {
            "d_model": 256,
            "encoder_layers": 3,
            "decoder_layers": 3,
            "max_position_embeddings": 64,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 1024,
            "decoder_ffn_dim": 1024,
            "dropout": 0.0,
        },
        "objective": {"name": "seq2seq", "label_smoothing": 0.0, "group": 1024},
    },
}
SPECIAL = ["<pad>", "<eos>", "<unk>", "<mask>", "<cls>", "<sep>"]


def made_up_tokenizer(size: int) -> PreTrainedTokenizerFast:
    """Numbers as words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = [*SPECIAL, *(str(number) for number in range(size - len(SPECIAL)))]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {name.strip("<>"): name for name in SPECIAL}
    return PreTrainedTokenizerFast(tokenizer_object=core, **{f"{name}_token": word for name, word in names.items()})


def made_up_data(shape: str, rows: int, vocab: int) -> tuple[list[np.ndarray], list[np.ndarray] | None]:
    """Documents, and their targets where the shape has two sides; enough for `rows` rows."""
    chance = np.random.default_rng(0)

    def words(size: int) -> np.ndarray:
        return (chance.zipf(1.2, size=size) % (vocab - len(SPECIAL)) + len(SPECIAL)).astype(np.int32)

    if shape != "seq2seq":
        stream = words(257 * (rows + 32))
        return [stream[i : i + 4096] for i in range(0, len(stream), 4096)], None
    lengths = np.clip(np.round(np.exp(chance.normal(2.5, 0.35, (rows, 2)))), 6, 40).astype(int)
    return [words(a) for a, _ in lengths], [words(b) for _, b in lengths]


def recipe_of(shape: str, dtype: str, steps: int, rows: int, vocab: int) -> Any:
    kind = SHAPES[shape]
    return make_recipe(
        {
            "model": {"family": kind["family"], "config": kind["config"] | {"vocab_size": vocab}},
            "data": {"text": ["-"], "tokenizer": "characters"},
            "objective": [kind["objective"]],
            "training": {
                "max_steps": steps,
                "batch_size": rows,
                "learning_rate": 1e-3,
                "schedule": "linear",
                "weight_decay": 0.1,
                "dtype": dtype,
            },
            "save": {"every": 10**6, "keep": 1},
        }
    )


def made(recipe: Any, data: Any, tokenizer: Any, model: Any) -> tuple[str, Any, Any]:
    """The objective's name, the objective, and a fresh network."""
    name = recipe.objective[0]["name"]
    settings = {key: value for key, value in recipe.objective[0].items() if key != "name"}
    documents, targets = data
    objective = make_objective(name, documents, tokenizer, settings, 0, targets=targets)
    return name, objective, networks.build_network(model, [name], tokenizer, 0)


def ours(recipe: Any, data: Any, tokenizer: Any) -> dict[str, Any]:
    """Seconds, tokens and loss of each step, and the share of the matrix peak."""
    seconds, losses, tokens = [], [], []

    def on_line(line: Any) -> None:
        if isinstance(line, StepLine):
            seconds.append(line.seconds)
            tokens.append(line.tokens)
            losses.append(line.loss)

    with tempfile.TemporaryDirectory() as folder:
        _, objective, network = made(recipe, data, tokenizer, attended(recipe, "cpu"))
        Loop(Job(recipe, Path(folder), World(), network, tokenizer, objective, on_line=on_line)).run()
    return {
        "seconds": np.diff([0.0, *seconds]).tolist(),
        "tokens": np.diff([0, *tokens]).tolist(),
        "losses": losses,
        "operations": operations(network, objective, recipe),
    }


def operations(network: Any, objective: Any, recipe: Any) -> float:
    """Of a step, as the training log counts them; 0 where a network is not of the kind that they are known of."""
    work = speed.work_of(network)
    rows = [objective.example(0, index) for index in range(recipe.training.batch_size)]
    batch = objective.collate(rows)
    if work is None:
        return 0.0
    return work.operations(batch.num_tokens, max(batch.counts.values()), batch.inputs["input_ids"].shape[1])


def theirs(recipe: Any, data: Any, tokenizer: Any) -> dict[str, Any]:
    """The same with Trainer; labels are handed over already shifted, so that both predict the same tokens."""
    table = recipe.training
    name, objective, network = made(recipe, data, tokenizer, recipe.model)
    rows = [objective.example(0, index) for index in range(table.max_steps * table.batch_size)]
    marks: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            marks.append(time.perf_counter())

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            marks.append(time.perf_counter())

    def collate(examples: list[Any]) -> dict[str, Any]:
        batch = objective.collate(examples)
        labels = batch.targets["tokens"]
        return {**batch.inputs, "labels": labels, **({"shift_labels": labels} if name == "causal" else {})}

    class InOrder(Trainer):
        def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=table.max_steps,
            per_device_train_batch_size=table.batch_size,
            learning_rate=table.learning_rate,
            lr_scheduler_type="linear",
            weight_decay=table.weight_decay,
            adam_beta1=table.adam_beta1,
            adam_beta2=table.adam_beta2,
            max_grad_norm=table.max_grad_norm,
            optim="adamw_torch_fused",
            bf16=table.dtype != "float32",
            use_cpu=True,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            remove_unused_columns=False,
            disable_tqdm=True,
            dataloader_num_workers=0,
        )
        trainer = InOrder(model=network, args=arguments, train_dataset=rows, data_collator=collate, callbacks=[Clock()])
        trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    return {"seconds": np.diff(marks)[::2].tolist(), "losses": losses}


def measured(shape: str, dtype: str, chosen: argparse.Namespace) -> dict[str, Any]:
    """One row: both sides in turns, `chosen.repeats` times; the medians."""
    rows, tokenizer = chosen.rows or SHAPES[shape]["rows"], made_up_tokenizer(chosen.vocab)
    data = made_up_data(shape, rows * (chosen.steps + 1), chosen.vocab)
    first = min(3, chosen.steps // 2)
    own = recipe_of(shape, chosen.ours if dtype == "bfloat16" else dtype, chosen.steps, rows, chosen.vocab)
    other = recipe_of(shape, dtype, chosen.steps, rows, chosen.vocab)
    mine = [ours(own, data, tokenizer)]
    peers = [theirs(other, data, tokenizer)]
    for _ in range(chosen.repeats - 1):
        peers.append(theirs(other, data, tokenizer))
        mine.append(ours(own, data, tokenizer))
    tokens = mine[0]["tokens"][first:]

    def rate(sides: list[dict[str, Any]]) -> float:
        return statistics.median(
            count / seconds for side in sides for count, seconds in zip(tokens, side["seconds"][first:], strict=True)
        )

    pairs = list(zip(mine[0]["losses"], peers[0]["losses"], strict=True))
    peak = speed.peak_of(own.training.dtype, torch.device("cpu"))
    step = statistics.median(seconds for side in mine for seconds in side["seconds"][first:])
    return {
        "shape": shape,
        "dtype": dtype,
        "theirs": rate(peers),
        "ours": rate(mine),
        "times": rate(mine) / rate(peers),
        "largest_difference": max(abs(a / b - 1) for a, b in pairs),
        "first_and_last_loss": [pairs[0][0], pairs[-1][0]],
        "of_the_peak": mine[0]["operations"] / step / peak if peak else 0.0,
    }


def profiled(shape: str, dtype: str, chosen: argparse.Namespace) -> list[tuple[str, float, float]]:
    """(operator, seconds of a step, share) of our side, the longest first."""
    rows, tokenizer = chosen.rows or SHAPES[shape]["rows"], made_up_tokenizer(chosen.vocab)
    recipe = recipe_of(shape, dtype, chosen.steps, rows, chosen.vocab)
    data = made_up_data(shape, rows * (chosen.steps + 1), chosen.vocab)
    with tempfile.TemporaryDirectory() as folder:
        _, objective, network = made(recipe, data, tokenizer, attended(recipe, "cpu"))
        loop = Loop(Job(recipe, Path(folder), World(), network, tokenizer, objective))
        loop._write = lambda *lines: None  # type: ignore[method-assign]  # no log
        loop._train_step()
        with torch.profiler.profile() as profile:
            for _ in range(chosen.steps - 1):
                loop._train_step()
    events = profile.key_averages()
    whole = sum(event.self_cpu_time_total for event in events)
    found = sorted(events, key=lambda event: -event.self_cpu_time_total)[:10]
    return [
        (event.key, event.self_cpu_time_total / 1e6 / (chosen.steps - 1), event.self_cpu_time_total / whole)
        for event in found
    ]


def page(rows: list[dict[str, Any]], profile: list[tuple[str, float, float]], chosen: argparse.Namespace) -> str:
    """What stands between the marks."""
    here = machine()
    lines = [
        f"{here['processor']} ({here.get('instructions', '')}), {torch.get_num_threads()} threads; python {platform.python_version()}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}. {chosen.steps} steps, vocabulary {chosen.vocab:,}, "
        f"runs of each: {chosen.repeats} (medians).",
        "",
        "| shape | dtype | Trainer, tokens/s | Lydite, tokens/s | times | aim | largest difference of a loss | of the peak |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        kind = SHAPES[row["shape"]]
        aim = f"{kind['aim']:g}x" if row["dtype"] == "bfloat16" else "-"
        lines.append(
            f"| {kind['said']} | {row['dtype']} | {row['theirs']:,.0f} | {row['ours']:,.0f} | {row['times']:.2f}x | {aim} | "
            f"{row['largest_difference']:.1e} | {row['of_the_peak']:.0%} |".replace("| 0% |", "| - |")
        )
    if profile:
        lines += ["", "What remains of our causal step in bfloat16, by operator:", ""]
        lines += ["| operator | ms of a step | share |", "| --- | ---: | ---: |"]
        lines += [f"| `{name}` | {1000 * seconds:.0f} | {share:.0%} |" for name, seconds, share in profile]
    return "\n".join(lines)


def write(path: Path, text: str) -> None:
    """Replaces what stands between the marks of `path`."""
    before, begin, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{path} has no marks {BEGIN} and {END}")
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default=",".join(SHAPES), help="with commas between; default: all")
    parser.add_argument("--dtypes", default="bfloat16,float32", help="bfloat16, float32 or both")
    parser.add_argument("--ours", choices=["bfloat16", "autocast"], default="bfloat16", help="our kind of bfloat16")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rows", type=int, default=0, help="of a step; default: what each shape says")
    parser.add_argument("--vocab", type=int, default=16384)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--profile", choices=["yes", "no"], default="yes", help="of our causal step in bfloat16")
    parser.add_argument("--write", type=Path, help="a page with the two marks between which the tables go")
    chosen = parser.parse_args()
    shapes, dtypes = chosen.shapes.split(","), chosen.dtypes.split(",")
    if set(shapes) - set(SHAPES) or set(dtypes) - {"bfloat16", "float32"} or chosen.steps < 2:
        raise SystemExit(f"shapes are {', '.join(SHAPES)}; dtypes bfloat16 and float32; steps 2 or more")
    rows = []
    for shape in shapes:
        for dtype in dtypes:
            rows.append(measured(shape, dtype, chosen))
            print(json.dumps(rows[-1]), flush=True)
    profile = profiled("causal", chosen.ours, chosen) if chosen.profile == "yes" and "causal" in shapes else []
    text = page(rows, profile, chosen)
    print(text)
    if chosen.write:
        write(chosen.write, text)


if __name__ == "__main__":
    main()
