"""One table over every family of models: mini, BLiMP and held-out text, with bits per byte as the common yardstick.

    python benchmarks/every_family.py --data DATA --out runs/families [--limit 20] [--write docs/models.md]

DATA holds corpora/tinyshakespeare.txt and blimp/. The networks are tiny and untrained (two layers of width 64, from their
family's config), the n-gram models are counted on the text; each has the tokenizer of its family, trained on the same text. So
the table does not say which family is good: it shows that all of them answer the same requests, by which rule, and what a
model that knows nothing gets. `lydite evaluate` scores the score tasks of mini in English, two paradigms of BLiMP and passages
from the end of the text, which nothing was trained on. Numbers by different rules stand in different parts of the table, and
`lydite compare` has to keep them apart, or this script fails. It takes half a minute of one core.
"""

import argparse
import contextlib
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- families: begin -->", "<!-- families: end -->"
MINI = ("grammar", "commonsense", "knowledge", "cloze", "sentiment", "nli", "paraphrase", "word_sense")
BLIMP = ("blimp_anaphor_gender_agreement", "blimp_determiner_noun_agreement_1")
HELD = "shakespeare"
PASSAGE = 240
"""Characters of a held-out passage, about: a masked model reads it once for each of its tokens."""

BERT = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
GPT2 = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256}
XLNET = {"d_model": 64, "n_layer": 2, "n_head": 4, "d_inner": 128}
T5 = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4}
BART = {
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    "max_position_embeddings": 256,
}
NETWORKS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "lstm": ("lydite_lstm", "gpt2", "causal", {"embedding_size": 64, "hidden_size": 64, "num_hidden_layers": 2}),
    "own-decoder": ("lydite_transformer", "gpt2", "causal", {**BERT, "shape": "decoder"}),
    "gpt2": ("gpt2", "gpt2", "causal", GPT2),
    "llama": ("llama", "llama", "causal", {**BERT, "num_key_value_heads": 2}),
    "qwen2": ("qwen2", "gpt2", "causal", {**BERT, "num_key_value_heads": 2}),
    "own-encoder": ("lydite_transformer", "bert", "masked", {**BERT, "shape": "encoder"}),
    "bert": ("bert", "bert", "masked", BERT),
    "roberta": ("roberta", "roberta", "masked", {**BERT, "type_vocab_size": 1}),
    "albert": ("albert", "albert", "masked", {**BERT, "embedding_size": 32}),
    "electra": ("electra", "electra", "masked", {**BERT, "embedding_size": 32}),
    "xlnet": ("xlnet", "xlnet", "causal", XLNET),
    "own-encoder-decoder": ("lydite_transformer", "t5", "seq2seq", {**BERT, "shape": "encoder-decoder"}),
    "t5": ("t5", "t5", "seq2seq", T5),
    "bart": ("bart", "bart", "seq2seq", BART),
}
"""Name to model_type, family of the tokenizer, objective, and sizes."""
NGRAMS = {"ngram": "kneser_ney", "ngram-backoff": "stupid_backoff"}


def make_models(text: str, folder: Path) -> list[Path]:
    """The folders of all models, made where they are not there yet."""
    from lydite.data.tokenizers import TokenizerSettings, save_tokenizer, train_tokenizer
    from lydite.models.own import register
    from lydite.training.data import load_tokenizer
    from lydite.training.network import build_network, save
    from lydite.training.recipe import ModelTable

    register()
    lines = [line for line in text.split("\n") if line.strip()]
    for family in sorted({tokenizer for _, tokenizer, _, _ in NETWORKS.values()}):
        if not (folder / f"tokenizer-{family}").exists():
            settings = TokenizerSettings(kind=kind_of(family), family=family, vocab_size=1024)
            save_tokenizer(train_tokenizer(lambda: lines, settings), folder / f"tokenizer-{family}")
    found = []
    for name, smoothing in NGRAMS.items():
        found.append(folder / name)
        if not (folder / name / "config.json").exists():
            count(lines, folder / "tokenizer-gpt2", folder / name, smoothing)
    for name, (family, tokenizer_family, objective, sizes) in NETWORKS.items():
        found.append(folder / name)
        if not (folder / name / "config.json").exists():
            tokenizer = load_tokenizer(str(folder / f"tokenizer-{tokenizer_family}"))
            network = build_network(ModelTable(family=family, config=sizes), [objective], tokenizer, seed=0)
            save(network, dict(network.named_parameters()), tokenizer, folder / name)
    return found


def kind_of(family: str) -> Any:
    """The kind of tokenizer that a family's published checkpoints have."""
    from lydite.data.tokenizers.families import FAMILIES

    return FAMILIES[family].kind


def count(lines: list[str], tokenizer: Path, folder: Path, smoothing: Any) -> None:
    """An n-gram model of the lines."""
    import numpy as np

    from lydite.models.ngram import NgramTraining, pretrain_ngram
    from lydite.training.data import load_tokenizer

    loaded = load_tokenizer(str(tokenizer))
    documents = [np.array(ids) for ids in loaded(lines, add_special_tokens=False)["input_ids"]]
    pretrain_ngram(documents, loaded, folder, NgramTraining(order=5, smoothing=smoothing))


def passages(text: str) -> Iterator[str]:
    """Whole lines of about PASSAGE characters."""
    held = ""
    for line in text.split("\n"):
        held += line + "\n"
        if len(held) >= PASSAGE:
            yield held.strip()
            held = ""


def lydite(*arguments: str) -> tuple[int, str]:
    """A command line, run here: exit code and what it printed."""
    from lydite.cli.app import main

    shown = io.StringIO()
    try:
        with contextlib.redirect_stdout(shown):
            main(list(arguments))
    except SystemExit as stop:
        return int(stop.code or 0), shown.getvalue()
    return 0, shown.getvalue()


def rows_of(out: Path) -> dict[str, list[dict[str, Any]]]:
    """Rule to a row a model: its name, parameters, means of the accuracies, bits per byte."""
    from lydite.runs import find_runs, read_run

    models: dict[str, dict[str, Any]] = {}
    for folder in find_runs(out):
        run = read_run(folder)
        row = models.setdefault(
            run.model.name, {"model": run.model, "mini": [], "blimp": [], "bits": None, "failed": 0}
        )
        value = {estimate.metric: estimate.value for estimate in run.estimates}
        row["failed"] += max(estimate.n_failed for estimate in run.estimates)
        if run.task.name.startswith("mini"):
            row["mini"].append(run.estimates[0].value)
        elif run.task.name.startswith("blimp"):
            row["blimp"].append(run.estimates[0].value)
        else:
            row["bits"] = next((number for name, number in value.items() if name.endswith("bits_per_byte")), None)
    rules: dict[str, list[dict[str, Any]]] = {}
    for row in models.values():
        rules.setdefault(row["model"].rule, []).append(row)
    return {rule: sorted(own, key=lambda row: row["bits"] or 0) for rule, own in sorted(rules.items())}


def check_compare(out: Path, rules: dict[str, list[dict[str, Any]]]) -> int:
    """How often `lydite compare` refused to rank a run among those of another rule; an error where it did rank one."""
    code, shown = lydite("compare", *[str(out / row["model"].name) for own in rules.values() for row in own], "--json")
    if code:
        raise SystemExit(f"lydite compare failed: {shown}")
    found = json.loads(shown)
    rule = {row["model"].name: name for name, own in rules.items() for row in own}
    for task in found["tasks"]:
        if len({rule[label] for label in task["systems"]}) > 1:
            raise SystemExit(f"lydite compare ranks models of different rules on {task['name']}")
    return sum("cannot be ranked together" in one["reason"] for one in found["not_compared"])


def table_of(rules: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown, a part a rule."""

    def mean(values: list[float]) -> str:
        return f"{sum(values) / len(values):.3f}" if values and None not in values else "-"

    lines = [
        "| rule | model | parameters | mini, accuracy | BLiMP, accuracy | held-out, bits per byte | failed |",
        "| --- | --- | --: | --: | --: | --: | --: |",
    ]
    for rule, own in rules.items():
        for row in own:
            bits = f"{row['bits']:.2f}" if row["bits"] is not None else "-"
            cells = [
                f"`{rule}`",
                row["model"].name,
                f"{row['model'].parameters:,}",
                mean(row["mini"]),
                mean(row["blimp"]),
            ]
            lines.append("| " + " | ".join([*cells, bits, str(row["failed"])]) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/families"))
    parser.add_argument("--limit", type=int, default=20, help="samples of each task")
    parser.add_argument("--write", type=Path, help=f"a page with the marks {BEGIN} and {END}")
    given = parser.parse_args()
    text = (given.data / "corpora" / "tinyshakespeare.txt").read_text(encoding="utf-8")
    cut = len(text) * 9 // 10
    models = make_models(text[:cut], given.out / "models")
    rows = given.out / f"{HELD}.jsonl"
    rows.write_text("".join(json.dumps({"text": one}) + "\n" for one in passages(text[cut:])), encoding="utf-8")
    task = given.out / f"{HELD}.toml"
    task.write_text(f'[task]\nname = "{HELD}"\nkind = "heldout"\ndata = "{rows.name}"\ntext = "{{{{text}}}}"\n')
    tasks = ",".join([*(f"mini_{name}_en" for name in MINI), *BLIMP, str(task)])
    runs = given.out / "runs"
    code, _ = lydite(
        "evaluate", *map(str, models), "--tasks", tasks, "--limit", str(given.limit),
        "--data-dir", str(given.data), "--out", str(runs),
    )  # fmt: skip
    if code not in (0, 2):
        raise SystemExit(f"lydite evaluate ended with {code}")
    rules = rows_of(runs)
    refused = check_compare(runs, rules)
    table = table_of(rules)
    print(table)
    print(f"lydite compare refused {refused} times to rank across rules, and did so nowhere")
    if given.write:
        page = given.write.read_text(encoding="utf-8")
        if BEGIN not in page or END not in page:
            sys.exit(f"{given.write} has no marks {BEGIN} and {END}")
        head, rest = page.split(BEGIN)
        given.write.write_text(f"{head}{BEGIN}\n\n{table}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
