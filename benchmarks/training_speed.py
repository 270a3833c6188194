"""Tokens a second of `lydite pretrain` beside transformers' Trainer: same network, batches, dtype, optimizer and schedule.

    python benchmarks/training_speed.py --shape causal --dtype bfloat16 --steps 12

Data is made up (words by Zipf's law), so that nothing needs to be fetched. Both get the same batches in the same order and
start from the same weights, so their losses must agree: the table shows the largest difference. The median step counts,
after the first three. Trainer's bfloat16 is autocast; ours is bfloat16 weights with float32 masters unless
`--ours autocast` is given.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast, Trainer, TrainerCallback, TrainingArguments

from lydite.training import network as networks
from lydite.training.distributed import World
from lydite.training.log import StepLine
from lydite.training.loop import Job, Loop
from lydite.training.objectives import make_objective
from lydite.training.recipe import make_recipe

WIDTH = {"causal": "n_embd", "masked": "hidden_size"}
SHAPES: dict[str, dict[str, Any]] = {
    "causal": {
        "family": "gpt2",
        "config": {"n_layer": 6, "n_head": 4, "n_embd": 256, "n_positions": 256},
        "objective": {"name": "causal", "context": 256, "end_of_document": False},
    },
    "masked": {
        "family": "bert",
        "config": {
            "num_hidden_layers": 6,
            "num_attention_heads": 4,
            "hidden_size": 256,
            "intermediate_size": 1024,
            "max_position_embeddings": 256,
        },
        "objective": {"name": "masked", "context": 256},
    },
}
NO_DROPOUT = {
    "gpt2": {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    "bert": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
}


def made_up_tokenizer(size: int) -> PreTrainedTokenizerFast:
    """Numbers as words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    special = ["<pad>", "<eos>", "<unk>", "<mask>", "<cls>", "<sep>"]
    words = [*special, *(str(number) for number in range(size - len(special)))]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {"pad": "<pad>", "eos": "<eos>", "unk": "<unk>", "mask": "<mask>", "cls": "<cls>", "sep": "<sep>"}
    return PreTrainedTokenizerFast(tokenizer_object=core, **{f"{name}_token": word for name, word in names.items()})


def recipe_of(shape: str, dtype: str, steps: int, rows: int, vocab: int, dropout: bool) -> Any:
    kind = SHAPES[shape]
    config = kind["config"] | {"vocab_size": vocab} | ({} if dropout else NO_DROPOUT[kind["family"]])
    return make_recipe(
        {
            "model": {"family": kind["family"], "config": config},
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


def ours(recipe: Any, documents: list[np.ndarray], tokenizer: Any) -> dict[str, Any]:
    """Seconds and loss of each step."""
    seconds, losses = [], []

    def on_line(line: Any) -> None:
        if isinstance(line, StepLine):
            seconds.append(line.seconds)
            losses.append(line.loss)

    with tempfile.TemporaryDirectory() as folder:
        name = recipe.objective[0]["name"]
        settings = {key: value for key, value in recipe.objective[0].items() if key != "name"}
        objective = make_objective(name, documents, tokenizer, settings, 0)
        network = networks.build_network(recipe.model, [name], tokenizer, 0)
        Loop(Job(recipe, Path(folder), World(), network, tokenizer, objective, on_line=on_line)).run()
    return {"seconds": np.diff([0.0, *seconds]).tolist(), "losses": losses}


def theirs(recipe: Any, documents: list[np.ndarray], tokenizer: Any) -> dict[str, Any]:
    """The same with Trainer; labels are handed over already shifted, so that both predict the same tokens."""
    table, name = recipe.training, recipe.objective[0]["name"]
    settings = {key: value for key, value in recipe.objective[0].items() if key != "name"}
    objective = make_objective(name, documents, tokenizer, settings, 0)
    network = networks.build_network(recipe.model, [name], tokenizer, 0)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="causal")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--ours", choices=["bfloat16", "autocast"], default="bfloat16", help="Our kind of bfloat16.")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--vocab", type=int, default=16384)
    parser.add_argument("--dropout", action="store_true", help="With the family's dropout; losses then differ.")
    parser.add_argument("--only", choices=["ours", "theirs"], help="One side alone.")
    parser.add_argument("--profile", action="store_true", help="Our side's operators by time.")
    chosen = parser.parse_args()
    words = np.random.default_rng(0).zipf(1.2, size=chosen.rows * 257 * (chosen.steps + 2)) % (chosen.vocab - 6) + 6
    documents = [words[i : i + 4096].astype(np.int32) for i in range(0, len(words), 4096)]
    tokenizer = made_up_tokenizer(chosen.vocab)
    results = {}
    for side, run in (("ours", ours), ("theirs", theirs)):
        if chosen.only in (None, side):
            dtype = chosen.ours if side == "ours" and chosen.dtype == "bfloat16" else chosen.dtype
            recipe = recipe_of(chosen.shape, dtype, chosen.steps, chosen.rows, chosen.vocab, chosen.dropout)
            if chosen.profile and side == "ours":
                with torch.profiler.profile() as profile:
                    results[side] = run(recipe, documents, tokenizer)
                print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=25))
            else:
                results[side] = run(recipe, documents, tokenizer)
            step = statistics.median(results[side]["seconds"][3:])
            results[side] = {"tokens_per_second": chosen.rows * 256 / step, "step": step, **results[side]}
    if len(results) == 2:
        pairs = zip(results["ours"]["losses"], results["theirs"]["losses"], strict=True)
        results["largest_difference"] = max(abs(a / b - 1) for a, b in pairs)
        results["times"] = results["ours"]["tokens_per_second"] / results["theirs"]["tokens_per_second"]
    shown = {
        k: {n: x for n, x in v.items() if n != "seconds"} if isinstance(v, dict) else v for k, v in results.items()
    }
    print(json.dumps({**vars(chosen), **shown}, indent=1))


if __name__ == "__main__":
    main()
