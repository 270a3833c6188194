"""The same requests through lm-evaluation-harness's `hf` model and through Lydite's, number by number.

    python benchmarks/lm_eval_parity.py run --model DIR [--model DIR ...] --data DIR --out parity.json [--seconds 170]
    python benchmarks/lm_eval_parity.py table --out parity.json --docs docs/parity.md

`run` takes the configurations of CONFIGURATIONS one after the other, each on a few documents, float32, and keeps what it
has found after each; the same command goes on with what is missing, so that it can be run in short pieces. `--data` is
a folder with JSON lines of the benchmarks named below. lm-evaluation-harness and Lydite must be installed side by side.

Contract: prompts are made once, by lm-evaluation-harness, and both models answer the same Instances; every
log-probability, every greedy flag, every text and every metric is compared. `parity` is Lydite with `parity=true`;
`default` counts the requests whose number differs under Lydite's own rules, which is the size of the quirks.
"""

import argparse
import functools
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TOLERANCE, RELATIVE = 1e-3, 1e-5
"""Nats a request, or share of its log-probability: what float32 makes of a few hundred terms in two orders."""
_ACCURACIES = [{"metric": m, "aggregation": "mean", "higher_is_better": True} for m in ("acc", "acc_norm")]
_ARC = {
    "rows": "arc_challenge_validation.jsonl",
    "examples": "arc_challenge_train.jsonl",
    "output_type": "multiple_choice",
    "doc_to_text": "Question: {{question}}\nAnswer:",
    "doc_to_target": "{{choices.label.index(answerKey)}}",
    "doc_to_choice": "{{choices.text}}",
    "metric_list": _ACCURACIES,
}
_CMMLU = {
    "rows": "cmmlu_agronomy_test.jsonl",
    "examples": "cmmlu_agronomy_dev.jsonl",
    "output_type": "multiple_choice",
    "doc_to_text": "{{Question.strip()}}\nA. {{A}}\nB. {{B}}\nC. {{C}}\nD. {{D}}\n答案：",
    "doc_to_choice": ["A", "B", "C", "D"],
    "doc_to_target": "{{['A', 'B', 'C', 'D'].index(Answer)}}",
    "metric_list": _ACCURACIES,
}
_GSM8K = {
    "rows": "gsm8k_test.jsonl",
    "examples": "gsm8k_train.jsonl",
    "output_type": "generate_until",
    "doc_to_text": "Question: {{question}}\nAnswer:",
    "doc_to_target": "{{answer}}",
    "generation_kwargs": {"until": ["Question:", "\n\n"], "do_sample": False, "max_gen_toks": 32},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    "filter_list": [
        {
            "name": "strict",
            "filter": [{"function": "regex", "regex_pattern": r"#### (\-?[0-9\.\,]+)"}, {"function": "take_first"}],
        },
        {
            "name": "flexible",
            "filter": [
                {"function": "regex", "group_select": -1, "regex_pattern": r"(-?[$0-9.,]{2,})|(-?[0-9]+)"},
                {"function": "take_first"},
            ],
        },
    ],
}


@dataclass(frozen=True)
class Configuration:
    """`task`: keys of lm-evaluation-harness's YAML, with files of rows; `model`: model arguments beside float32."""

    about: str
    task: Mapping[str, Any]
    limit: int = 3
    model: Mapping[str, Any] = field(default_factory=dict)
    chat: bool = False


CONFIGURATIONS: dict[str, Configuration] = {
    "choices": Configuration("four choices after a question", _ARC),
    "choices-2-shots": Configuration("with two examples drawn by seed", {**_ARC, "num_fewshot": 2}, 2),
    "choices-chat": Configuration(
        "chat template, description as system turn, one example as turns",
        {**_ARC, "num_fewshot": 1, "description": "Answer the question."},
        2,
        chat=True,
    ),
    "letters-zh": Configuration(
        "Chinese, one-letter choices, first two examples",
        {**_CMMLU, "num_fewshot": 2, "fewshot_config": {"sampler": "first_n"}},
    ),
    "texts-zh": Configuration(
        "Chinese, whole choices",
        {
            **_CMMLU,
            "doc_to_text": "问题：{{Question.strip()}}\n答案：",
            "doc_to_choice": "{{[A|string,B|string,C|string,D|string]}}",
        },
    ),
    "pairs": Configuration(
        "minimal pairs, no context: BOS or EOS stands before them",
        {
            "rows": "blimp_aga.jsonl",
            "output_type": "multiple_choice",
            "doc_to_text": "",
            "doc_to_target": 0,
            "doc_to_choice": "{{[sentence_good, sentence_bad]}}",
            "metric_list": _ACCURACIES,
        },
        6,
    ),
    "information": Configuration(
        "choices with and without their question",
        {**_ARC, "metric_list": [{"metric": "acc_mutual_info", "aggregation": "mean", "higher_is_better": True}]},
        2,
    ),
    "joins": Configuration(
        "the context ends inside a word, so that tokens span the join",
        {
            **_ARC,
            "doc_to_text": "Question: {{question[:-4]}}",
            "target_delimiter": "",
            "doc_to_choice": "{% set found = [] %}{% for c in choices.text %}{% set _ = found.append(question[-4:] ~ ' ' ~ c) %}{% endfor %}{{found}}",
        },
    ),
    "trailing-space": Configuration(
        "the context ends in a space",
        {**_ARC, "doc_to_text": "Question: {{question}}\nAnswer: ", "target_delimiter": ""},
    ),
    "too-long": Configuration(
        "prompts cut from the left to 64 tokens", {**_ARC, "num_fewshot": 1}, model={"max_length": 64}
    ),
    "bos": Configuration("special tokens asked for", _ARC, 2, {"add_bos_token": True}),
    "no-bos": Configuration("special tokens forbidden", _ARC, 2, {"add_bos_token": False}),
    "last-word": Configuration(
        "LAMBADA's last words",
        {
            "rows": "lambada.jsonl",
            "output_type": "loglikelihood",
            "doc_to_text": "{{text.split(' ')[:-1]|join(' ')}}",
            "doc_to_target": "{{' ' + text.split(' ')[-1]}}",
            "metric_list": [{"metric": "perplexity"}, {"metric": "acc"}],
        },
        4,
    ),
    "documents": Configuration(
        "whole documents in windows of 256 tokens",
        {
            "rows": "wikitext2_pages.jsonl",
            "output_type": "loglikelihood_rolling",
            "doc_to_text": "",
            "doc_to_target": "{{page[:2500]}}",
            "metric_list": [{"metric": m} for m in ("word_perplexity", "byte_perplexity", "bits_per_byte")],
        },
        2,
        {"max_length": 256},
    ),
    "generation": Configuration("32 new tokens, stop strings, two filters", _GSM8K, 2),
    "generation-1-shot": Configuration("the same after an example", {**_GSM8K, "num_fewshot": 1}, 2),
    "generation-chat": Configuration("the same through the chat template", _GSM8K, 2, chat=True),
    "generation-cut": Configuration("prompts cut from the left to 64 - 32 tokens", _GSM8K, 2, {"max_length": 64}),
}


# ------------------------------------------------------------------------------------------- running


def _rows(path: Path, limit: int) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line, _ in zip(file, range(limit), strict=False)]


def _load(name: str, configuration: Configuration, data: Path) -> Any:
    """Their task over the first rows of the files."""
    from datasets import Dataset
    from lm_eval.tasks import TaskManager

    config = dict(configuration.task)
    sets = {"test": Dataset.from_list(_rows(data / config.pop("rows"), configuration.limit))}
    config["test_split"] = "test"
    examples = config.pop("examples", None)
    if examples:
        sets["train"] = Dataset.from_list(_rows(data / examples, 50))
        config["fewshot_split"] = "train"
    config = {"task": name, "num_fewshot": 0, **config, "custom_dataset": lambda **_: sets}
    return TaskManager(include_defaults=False).load([config])


def _evaluate(lm: Any, name: str, configuration: Configuration, data: Path) -> tuple[dict[str, Any], float]:
    """Their results for a model, and the seconds it answered."""
    from lm_eval.evaluator import evaluate

    loaded = _load(name, configuration, data)
    for task in loaded["tasks"].values():
        task.set_fewshot_seed(1234)
    start = time.perf_counter()
    results = evaluate(
        lm, loaded, bootstrap_iters=0, apply_chat_template=configuration.chat, fewshot_as_multiturn=configuration.chat
    )
    return results, time.perf_counter() - start


def _responses(results: Mapping[str, Any], name: str) -> list[Any]:
    """Every answer, document by document, the first filter's copy."""
    first = results["samples"][name][0]["filter"]
    return [r[0] for sample in results["samples"][name] if sample["filter"] == first for r in sample["resps"]]


def _number(answer: Any) -> float:
    return float(answer[0] if isinstance(answer, tuple | list) else answer)


def _metrics(results: Mapping[str, Any], name: str) -> dict[str, float]:
    return {
        key: float(value)
        for key, value in results["results"][name].items()
        if isinstance(value, float | int) and key != "sample_len"
    }


def _compare(theirs: Mapping[str, Any], ours: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Largest differences, and how many requests differ by more than rounding."""
    left, right = _responses(theirs, name), _responses(ours, name)
    assert len(left) == len(right)
    texts = isinstance(left[0], str)
    pairs = list(zip(left, right, strict=True))
    differences = [0.0 if texts else abs(_number(a) - _number(b)) for a, b in pairs]
    limits = [0.0 if texts else max(TOLERANCE, RELATIVE * abs(_number(a))) for a, _ in pairs]
    different = [
        a != b if texts else found > limit for (a, b), found, limit in zip(pairs, differences, limits, strict=True)
    ]
    flips = sum(isinstance(a, tuple) and a[1] != b[1] for a, b in pairs)
    other, mine = _metrics(theirs, name), _metrics(ours, name)
    return {
        "requests": len(left),
        "different": sum(different),
        "largest": None if texts else max(differences),
        "flips": flips,
        "metrics": max((abs(mine[key] - value) / max(abs(value), 1.0) for key, value in other.items()), default=0.0),
        "values": other,
    }


@functools.lru_cache(maxsize=1)
def _hf(model: Path, options: tuple[tuple[str, Any], ...]) -> Any:
    from lm_eval.models.huggingface import HFLM

    return HFLM(str(model), batch_size=4, device="cpu", dtype="float32", **dict(options))


@functools.lru_cache(maxsize=2)
def _ours(model: Path, parity: bool, options: tuple[tuple[str, Any], ...]) -> Any:
    from lydite.lm_eval.model import LyditeLM

    return LyditeLM(str(model), parity=parity, device="cpu", dtype="float32", **dict(options))


def one(model: Path, name: str, data: Path) -> dict[str, Any]:
    """One configuration on one model."""
    from lydite.errors import ModelError

    configuration = CONFIGURATIONS[name]
    options = tuple(configuration.model.items())
    if configuration.chat and not _hf(model, options).tokenizer.chat_template:
        return {"skipped": "no chat template"}
    theirs, their_seconds = _evaluate(_hf(model, options), name, configuration, data)
    ours, our_seconds = _evaluate(_ours(model, True, options), name, configuration, data)
    found = _compare(theirs, ours, name) | {"their_seconds": their_seconds, "our_seconds": our_seconds}
    try:
        default = _compare(theirs, _evaluate(_ours(model, False, options), name, configuration, data)[0], name)
        found["default_different"], found["default_largest"] = default["different"], default["largest"]
    except ModelError as error:
        found["default_error"] = str(error)
    return found


def run(models: Sequence[Path], data: Path, out: Path, seconds: float, only: Sequence[str]) -> None:
    """What is missing in `out`, until the time is over."""
    done: dict[str, Any] = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    start = time.monotonic()
    for model in models:
        for name in only or CONFIGURATIONS:
            key = f"{model.name}/{name}"
            if key in done:
                continue
            if time.monotonic() - start > seconds:
                print(f"time is over before {key}; the same command goes on")
                return
            done[key] = one(model, name, data)
            print(key, json.dumps(done[key]), flush=True)
            out.write_text(json.dumps(done, indent=1), encoding="utf-8")
    print("everything is done")


# --------------------------------------------------------------------------------------------- table

BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"


def table(out: Path, docs: Path) -> None:
    """Puts the table between the marks of the page."""
    done = json.loads(out.read_text(encoding="utf-8"))
    lines = [
        "| model | configuration | requests | largest difference, nats | greedy flips | largest difference of a metric | differ by default |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    order = list(CONFIGURATIONS)
    for key in sorted(done, key=lambda key: (order.index(key.partition("/")[2]), key)):
        found = done[key]
        model, _, name = key.partition("/")
        about = f"`{name}`: {CONFIGURATIONS[name].about}"
        if "skipped" in found:
            lines.append(f"| {model} | {about} | – | {found['skipped']} | | | |")
            continue
        largest = (
            f"{found['largest']:.1e}"
            if found["largest"] is not None
            else ("same texts" if not found["different"] else f"{found['different']} texts differ")
        )
        default = (found.get("default_error", "") and "stops") or str(found.get("default_different", ""))
        if found.get("default_different") and found.get("default_largest") is not None:
            default += f" (up to {found['default_largest']:.2g})"
        lines.append(
            f"| {model} | {about} | {found['requests']} | {largest} | {found['flips']} | {found['metrics']:.1e} | {default} |"
        )
    page = docs.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    docs.write_text(f"{before}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{after}", encoding="utf-8")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    running = verbs.add_parser("run")
    running.add_argument("--model", type=Path, action="append", required=True)
    running.add_argument("--data", type=Path, required=True)
    running.add_argument("--out", type=Path, required=True)
    running.add_argument("--seconds", type=float, default=170)
    running.add_argument("--only", nargs="*", default=[], choices=list(CONFIGURATIONS))
    printing = verbs.add_parser("table")
    printing.add_argument("--out", type=Path, required=True)
    printing.add_argument("--docs", type=Path, required=True)
    args = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    if args.verb == "run":
        run(args.model, args.data, args.out, args.seconds, args.only)
    else:
        table(args.out, args.docs)


if __name__ == "__main__":
    main()
