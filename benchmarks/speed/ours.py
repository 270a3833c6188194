"""Lydite's side: the same requests, through `load_model(...).answer(...)`, in a process of its own.

ours.py answer --model DIR --dtype D --kernel K --requests FILE --out FILE
ours.py decode --model DIR --dtype D --kernel K --batch N --requests FILE --out FILE
ours.py work   --model DIR --requests FILE --out FILE       what the requests are, counted without the engine
ours.py peak   --out FILE                                   the machine's matrix products
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from lydite.types import Completion, Decoding, GenerateRequest, LogProbs, Output, Request, ScoreRequest

Line = dict[str, Any]
RULES = {"rules": "lm_eval"}
"""Texts become tokens as they do there, so that both sides compute the same sequences."""


def read(path: str) -> list[Line]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def as_request(line: Line) -> Request:
    """A request of the harness as one of ours."""
    name, index, args = str(line["doc"]), line["index"], line["args"]
    if line["kind"] == "loglikelihood":
        context, continuation = args
        return ScoreRequest(sample_id=name, index=index, context=context, continuation=continuation)
    if line["kind"] == "loglikelihood_rolling":
        return ScoreRequest(sample_id=name, index=index, continuation=args[0], window="disjoint")
    prompt, options = args
    assert set(options) <= {"until", "do_sample", "max_gen_toks", "temperature"}, options
    assert not options["do_sample"]
    decoding = Decoding(max_new_tokens=options["max_gen_toks"], stop_strings=tuple(options["until"]))
    return GenerateRequest(sample_id=name, index=index, prompt=prompt, decoding=decoding)


def load(args: argparse.Namespace) -> tuple[Any, float]:
    start = time.perf_counter()
    from lydite.models import load_model

    model = load_model(args.model, dtype=args.dtype, settings={"kernel": args.kernel} | RULES)
    return model, time.perf_counter() - start


def as_answer(output: Output) -> list[Any]:
    if isinstance(output, LogProbs):
        return [output.total, output.greedy, output.join, len(output.tokens)]
    if isinstance(output, Completion):
        return [output.text, output.num_tokens]
    return [None, str(output)]


def answer(args: argparse.Namespace) -> None:
    model, loaded = load(args)
    requests = [as_request(line) for line in read(args.requests)]
    start = time.perf_counter()
    outputs = dict(model.answer(requests))
    seconds = time.perf_counter() - start
    write(args.out, model, seconds, loaded, [as_answer(outputs[i]) for i in range(len(requests))])


def decode(args: argparse.Namespace) -> None:
    model, loaded = load(args)
    lines = read(args.requests)
    requests = [
        GenerateRequest(
            sample_id=str(i), index=0, prompt=line["prompt"], decoding=Decoding(max_new_tokens=line["tokens"])
        )
        for i, line in enumerate(lines)
    ]
    warm = GenerateRequest(sample_id="warm", index=0, prompt=lines[0]["prompt"], decoding=Decoding(max_new_tokens=2))
    list(model.answer([warm]))
    model.usage.tokens_computed = model.usage.tokens_generated = model.usage.tokens_requested = 0
    answers: list[Any] = []
    start = time.perf_counter()
    for first in range(0, len(requests), args.batch):
        some = requests[first : first + args.batch]
        outputs = dict(model.answer(some))
        answers += [as_answer(outputs[i]) for i in range(len(some))]
    write(args.out, model, time.perf_counter() - start, loaded, answers)


def write(path: str, model: Any, seconds: float, loaded: float, answers: list[Any]) -> None:
    usage = model.usage
    found = {
        "seconds": seconds,
        "load_seconds": loaded,
        "answers": answers,
        "kernel": model.kernel,
        "engine": model.info.settings["engine"],
        "tokens_requested": usage.tokens_requested,
        "tokens_computed": usage.tokens_computed,
        "tokens_generated": usage.tokens_generated,
    }
    Path(path).write_text(json.dumps(found, ensure_ascii=False), encoding="utf-8")


def work(args: argparse.Namespace) -> None:
    """Counts distinct token positions and distinct scored positions with a set of prefixes, and the multiplications that
    one of each costs."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from lydite.engine.parity import LmEvalEncoder
    from lydite.engine.tokens import Encoded

    config = AutoConfig.from_pretrained(args.model)
    lines = read(args.requests)
    encoder = LmEvalEncoder(AutoTokenizer.from_pretrained(args.model), max_tokens=config.max_position_embeddings)
    naive = 0
    positions: set[int] = set()
    heads: set[int] = set()
    if "prompt" in lines[0] or lines[0]["kind"] == "generate_until":
        texts = [line["prompt"] if "prompt" in line else line["args"][0] for line in lines]
        sequences = [(ids, len(ids)) for ids in encoder.prompt_ids(texts)]
    else:
        encoded = encoder.encode([request for request in map(as_request, lines) if isinstance(request, ScoreRequest)])
        windows = [window for one in encoded if isinstance(one, Encoded) for window in one.windows]
        sequences = [(window.ids[:-1].tolist(), window.first - 1) for window in windows]
    for ids, first in sequences:
        naive += len(ids)
        prefix = 0
        for place, token in enumerate(ids):
            prefix = hash((prefix, token))
            positions.add(prefix)
            if place >= first:
                heads.add(prefix)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    head = model.get_output_embeddings()
    inner = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head)
    found = {
        "requests": len(lines),
        "docs": len({line.get("doc", i) for i, line in enumerate(lines)}),
        "naive_positions": naive,
        "positions": len(positions),
        "scored_positions": len(heads),
        "body_weights": inner,
        "head_weights": head.weight.numel(),
    }
    Path(args.out).write_text(json.dumps(found), encoding="utf-8")


def peak(args: argparse.Namespace) -> None:
    import torch

    from lydite.engine.peak import matrix_peak

    found = {name: matrix_peak(getattr(torch, name)) for name in ("float32", "bfloat16")}
    Path(args.out).write_text(json.dumps(found), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["answer", "decode", "work", "peak"])
    for name in ("model", "dtype", "kernel", "requests", "out"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--batch", type=int)
    args = parser.parse_args()
    {"answer": answer, "decode": decode, "work": work, "peak": peak}[args.what](args)


if __name__ == "__main__":
    main()
