"""Greedy text of Lydite's decoder beside transformers' `generate`, token by token, on a real model.

    python benchmarks/decoding_parity.py MODEL FILE.jsonl [--field question] [--prompts 24] [--new-tokens 64]

The prompts are a field of a JSONL file. Lydite generates all of them together, transformers one by one, both in float32.
Where the texts part, the margin (nats) between the two most likely tokens of transformers' own logits at that place is
printed: rounding can only turn a choice whose margin is about as small as rounding itself.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from transformers import GenerationConfig

from lydite.models import load_model
from lydite.models.causal import CausalModel
from lydite.types import Completion, Decoding, GenerateRequest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("file", type=Path)
    parser.add_argument("--field", default="question")
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--new-tokens", type=int, default=64)
    args = parser.parse_args()
    rows = [json.loads(line) for line in args.file.read_text(encoding="utf-8").splitlines()[: args.prompts]]
    model = load_model(args.model, settings={"kernel": "default"})
    assert isinstance(model, CausalModel)
    decoding = Decoding(max_new_tokens=args.new_tokens)
    requests = [
        GenerateRequest(sample_id=str(i), index=0, prompt=f"Question: {row[args.field]}\nAnswer:", decoding=decoding)
        for i, row in enumerate(rows)
    ]
    ours: dict[int, list[int]] = {i: [] for i in range(len(rows))}
    model.generator.watch = lambda index, token: ours[index].append(token)
    start = time.perf_counter()
    answers = dict(model.answer(requests))
    seconds = time.perf_counter() - start
    assert all(isinstance(answer, Completion) for answer in answers.values())
    same, tokens, margins, peer = 0, 0, [], 0.0
    for index, ids in enumerate(model.encoder.prompt_ids([request.prompt for request in requests])):
        start = time.perf_counter()
        theirs = generate(model, ids, args.new_tokens)
        peer += time.perf_counter() - start
        tokens += len(theirs)
        parted = next((i for i, pair in enumerate(zip(ours[index], theirs)) if pair[0] != pair[1]), None)  # noqa: B905
        if parted is None:
            assert len(ours[index]) == len(theirs)
            same += 1
        else:
            margins.append(margin(model, ids + theirs[:parted]))
    print(
        f"{args.model}: {same} of {len(rows)} texts equal, {tokens} tokens; margins where they part (nats): {margins}"
    )
    print(f"together {seconds:.1f} s, transformers one by one {peer:.1f} s")


def generate(model: CausalModel, ids: list[int], new_tokens: int) -> list[int]:
    """One prompt alone through transformers; the new tokens, the one that ends the text included."""
    eos = sorted(model.generator.texts.eos)
    config = GenerationConfig(max_new_tokens=new_tokens, do_sample=False, eos_token_id=eos, pad_token_id=eos[0])
    prompt = torch.tensor([ids])
    with torch.inference_mode():
        out = model.scorer.model.generate(prompt, attention_mask=torch.ones_like(prompt), generation_config=config)
    return [int(token) for token in out[0, len(ids) :]]


def margin(model: CausalModel, ids: list[int]) -> float:
    """Nats between the two most likely next tokens."""
    with torch.inference_mode():
        logprobs = model.scorer.model(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1)
    best = logprobs.topk(2).values
    return float(best[0] - best[1])


if __name__ == "__main__":
    main()
