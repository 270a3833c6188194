"""The peer's side, run with the peer's own Python: lm-evaluation-harness's `hf` backend and transformers' `generate`.

    peer.py build  --tasks DIR --task NAME [--docs N] --out FILE           the task's requests as JSON lines
    peer.py answer --model DIR --dtype D --batch N --requests FILE --out FILE
    peer.py decode --model DIR --dtype D --batch N --requests FILE --out FILE
    peer.py prompts --model DIR --requests FILE --count N --words N --tokens N --out FILE

`answer` and `decode` time the work alone; what starts the process measures the whole of it. Imports nothing of Lydite.
"""

import argparse
import importlib.metadata
import json
import time
from pathlib import Path

GREEDY = {"do_sample": False}


def build(args):
    """Writes the requests that the harness would make, in its order and with the seed of its own command line."""
    from lm_eval.tasks import TaskManager, get_task_dict

    task = get_task_dict([args.task], TaskManager(include_path=args.tasks, include_defaults=False))[args.task]
    task.set_fewshot_seed(1234)
    task.build_all_requests(limit=args.docs, rank=0, world_size=1)
    with open(args.out, "w", encoding="utf-8") as file:
        for instance in task.instances:
            line = {
                "kind": instance.request_type,
                "doc": instance.doc_id,
                "index": instance.idx,
                "args": list(instance.args),
                "gold": task.doc_to_target(instance.doc),
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def read(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def answer(args):
    """Answers all requests with HFLM; the seconds are those of its own call."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    start = time.perf_counter()
    model = HFLM(pretrained=args.model, dtype=args.dtype, device="cpu", batch_size=args.batch)
    loaded = time.perf_counter() - start
    requests = [
        Instance(line["kind"], {}, tuple(line["args"]), line["index"], (args.model, line["doc"], 1))
        for line in read(args.requests)
    ]
    [kind] = {instance.request_type for instance in requests}
    start = time.perf_counter()
    answers = getattr(model, kind)(requests)
    seconds = time.perf_counter() - start
    write(args.out, seconds=seconds, load_seconds=loaded, answers=answers)


def decode(args):
    """transformers' generate, `batch` prompts at a time, padded on the left; stops where the model ends its text."""
    model, tokenizer, loaded = load(args.model, args.dtype)
    lines = read(args.requests)
    generate(model, tokenizer, [lines[0]["prompt"]], 2)
    start = time.perf_counter()
    answers = []
    for first in range(0, len(lines), args.batch):
        prompts = [line["prompt"] for line in lines[first : first + args.batch]]
        answers += generate(model, tokenizer, prompts, lines[0]["tokens"])
    seconds = time.perf_counter() - start
    count = sum(new for _, new in answers)
    write(args.out, seconds=seconds, load_seconds=loaded, answers=answers, tokens_generated=count)


def prompts(args):
    """Beginnings of documents after which the model writes at least so many tokens: both sides then write equally many."""
    model, tokenizer, _ = load(args.model, "float32")
    found = []
    texts = [" ".join(line["args"][0].split()[: args.words]) for line in read(args.requests)]
    for first in range(0, len(texts), 32):
        some = texts[first : first + 32]
        for text, (_, count) in zip(some, generate(model, tokenizer, some, args.tokens), strict=True):
            if count == args.tokens:
                found.append(text)
        if len(found) >= args.count:
            break
    with open(args.out, "w", encoding="utf-8") as file:
        for text in found[: args.count]:
            file.write(json.dumps({"prompt": text, "tokens": args.tokens}, ensure_ascii=False) + "\n")


def load(folder, dtype):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    start = time.perf_counter()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    return model, tokenizer, time.perf_counter() - start


def generate(model, tokenizer, texts, tokens):
    """(text, number of new tokens) for each prompt."""
    import torch

    batch = tokenizer(texts, return_tensors="pt", padding=True)
    with torch.inference_mode():
        out = model.generate(**batch, max_new_tokens=tokens, pad_token_id=tokenizer.pad_token_id, **GREEDY)
    new = out[:, batch["input_ids"].shape[1] :].tolist()
    ends = [row.index(tokenizer.eos_token_id) if tokenizer.eos_token_id in row else len(row) for row in new]
    return [(tokenizer.decode(row[:end]), end) for row, end in zip(new, ends, strict=True)]


def write(path, **found):
    names = ("lm_eval", "transformers", "torch")
    versions = {name: importlib.metadata.version(name) for name in names}
    Path(path).write_text(json.dumps({**found, "versions": versions}, ensure_ascii=False), encoding="utf-8")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["build", "answer", "decode", "prompts"])
    for name in ("tasks", "task", "model", "dtype", "requests", "out"):
        parser.add_argument(f"--{name}")
    for name in ("docs", "batch", "count", "words", "tokens"):
        parser.add_argument(f"--{name}", type=int)
    args = parser.parse_args()
    {"build": build, "answer": answer, "decode": decode, "prompts": prompts}[args.what](args)


if __name__ == "__main__":
    main()
