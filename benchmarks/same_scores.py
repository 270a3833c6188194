"""A model that `lydite pretrain` made, scored by Lydite, by plain transformers, and by lm-evaluation-harness.

    python benchmarks/same_scores.py runs/sotu_decoder/model --text $LYDITE_DATA/corpora/moby_dick.txt --peer PYTHON

Requests are made from a text file: after so many words of a paragraph, how likely are the next ones? Lydite answers them
itself. PYTHON, of an environment in which lm-eval is installed and Lydite is not needed, loads the folder with
AutoModelForCausalLM and AutoTokenizer, and with lm-eval's `hf` model, and answers the same. float32 everywhere. Exit code 1
where a total differs by more than 1e-3 nats.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

PEER = """
import json, sys
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import AutoModelForCausalLM, AutoTokenizer

folder, requests, out = sys.argv[1], json.load(open(sys.argv[2])), sys.argv[3]
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
plain = []
with torch.inference_mode():
    for context, continuation in requests:
        before = tokenizer(context)["input_ids"]
        whole = tokenizer(context + continuation)["input_ids"]
        logprobs = model(torch.tensor([whole])).logits[0].log_softmax(-1)
        plain.append(sum(float(logprobs[at - 1, whole[at]]) for at in range(len(before), len(whole))))
lm = HFLM(pretrained=folder, dtype="float32", device="cpu", batch_size=8)
made = [Instance("loglikelihood", {}, tuple(pair), number) for number, pair in enumerate(requests)]
harness = [total for total, _ in lm.loglikelihood(made)]
json.dump({"transformers": plain, "lm-eval": harness}, open(out, "w"))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--peer", type=Path, required=True, help="a Python in whose environment lm-eval is installed")
    parser.add_argument("--number", type=int, default=50)
    parser.add_argument("--words", type=int, default=8, help="of the context, and of the continuation")
    chosen = parser.parse_args()
    requests = requests_of(chosen.text.read_text(encoding="utf-8"), chosen.number, chosen.words)
    found = {"lydite": ours(chosen.model, requests)}
    with tempfile.TemporaryDirectory() as folder:
        asked, out = Path(folder, "requests.json"), Path(folder, "answers.json")
        asked.write_text(json.dumps(requests))
        subprocess.run([str(chosen.peer), "-c", PEER, str(chosen.model.absolute()), str(asked), str(out)], check=True)
        found |= json.loads(out.read_text())
    worst = 0.0
    for name in ("transformers", "lm-eval"):
        apart = max(abs(a - b) for a, b in zip(found["lydite"], found[name], strict=True))
        worst = max(worst, apart)
        print(f"{len(requests)} requests, {name}: largest difference of a total {apart:.1e} nats")
    print(f"sum of all totals: {', '.join(f'{name} {sum(totals):.4f}' for name, totals in found.items())}")
    return 0 if worst < 1e-3 else 1


def requests_of(text: str, number: int, words: int) -> list[tuple[str, str]]:
    """(context, continuation with its leading space) of paragraphs spread over the text."""
    paragraphs = [" ".join(one.split()) for one in text.split("\n\n")]
    long = [one.split() for one in paragraphs if len(one.split()) >= 2 * words]
    if not long:
        raise SystemExit(f"the text has no paragraph of {2 * words} words")
    chosen = long[:: max(1, len(long) // number)][:number]
    return [(" ".join(one[:words]), " " + " ".join(one[words : 2 * words])) for one in chosen]


def ours(folder: Path, requests: list[tuple[str, str]]) -> list[float]:
    from lydite.models import load_model
    from lydite.types import LogProbs, ScoreRequest

    asked = [
        ScoreRequest(sample_id=str(number), index=0, context=context, continuation=continuation)
        for number, (context, continuation) in enumerate(requests)
    ]
    totals = [0.0] * len(asked)
    for number, answer in load_model(str(folder)).answer(asked):
        assert isinstance(answer, LogProbs), answer
        totals[number] = answer.total
    return totals


if __name__ == "__main__":
    sys.exit(main())
