"""ROUGE by Lydite and by rouge-score, side by side on the same pairs: seconds and every number.

    python benchmarks/rouge_speed.py --data DATA --peer PYTHON [--write docs/benchmarks.md]

DATA holds xsum/test.sample.jsonl (or test.jsonl); PYTHON is an interpreter with rouge-score installed. Pairs of article
length are an article and the same with its lines shuffled and a fifth of its words left out, and an article with another;
pairs of summary length are a summary and the first line of its article. Times are processor seconds of one process, so
that a busy machine does not move them; both sides walk the same pairs three times by turns, and the median counts. The
first pass of each side is told apart: it fills Lydite's cache of stems.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

BEGIN, END = "<!-- rouge: begin -->", "<!-- rouge: end -->"
TYPES = ["rouge1", "rouge2", "rougeL", "rougeLsum"]

PEER = """
import json, sys, time
pairs, stem, out = json.load(open(sys.argv[1])), sys.argv[2] == "stem", sys.argv[3]
from rouge_score import rouge_scorer
scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"], use_stemmer=stem)
scorer.score("warm running", "up running")
start = time.process_time()
found = [scorer.score(target, answer) for answer, target in pairs]
seconds = time.process_time() - start
json.dump({"passes": [seconds], "values": [[one[name].fmeasure for name in sorted(one)] for one in found]}, open(out, "w"))
"""

OURS = """
import json, sys, time
pairs, stem, out = json.load(open(sys.argv[1])), sys.argv[2] == "stem", sys.argv[3]
from lydite.metrics.rouge import rouge
rouge("warm running", ["up running"], stem=stem)
passes = []
for _ in range(2):
    start = time.process_time()
    found = [rouge(answer, [target], stem=stem) for answer, target in pairs]
    passes.append(time.process_time() - start)
json.dump({"passes": passes, "values": [[one[name].f1 for name in sorted(one)] for one in found]}, open(out, "w"))
"""


def make_pairs(data: Path, number: int) -> dict[str, list[tuple[str, str]]]:
    """(answer, target) pairs by kind."""
    path = next(path for name in ("test.jsonl", "test.sample.jsonl") if (path := data / "xsum" / name).is_file())
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rng = random.Random(7)
    long = [row["document"] for row in rows if 300 <= len(row["document"].split()) <= 600][: 2 * number]
    half = len(long) // 2
    articles = []
    for mine, other in zip(long[:half], long[half:], strict=False):
        lines = mine.split("\n")
        rng.shuffle(lines)
        kept = "\n".join(" ".join(word for word in line.split() if rng.random() < 0.8) for line in lines)
        articles += [(kept, mine), (other, mine)]
    summaries = [(row["document"].split("\n")[0], row["summary"]) for row in rows[: 4 * number]]
    return {"article": articles[:number], "summary": summaries}


def run(python: str, code: str, pairs: Path, stem: str) -> dict:
    """One side on all pairs, in a process of its own."""
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        subprocess.run([python, "-c", code, str(pairs), stem, out.name], check=True)
        return json.loads(Path(out.name).read_text())


def measure(python: str, pairs: list[tuple[str, str]], stem: str, rounds: int) -> dict[str, float]:
    """Milliseconds a pair on both sides, and the largest difference of any F1."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(pairs, file)
        file.flush()
        both = [
            (run(python, PEER, Path(file.name), stem), run(sys.executable, OURS, Path(file.name), stem))
            for _ in range(rounds)
        ]
    theirs = statistics.median(peer["passes"][0] for peer, _ in both) / len(pairs) * 1e3
    first, again = (statistics.median(ours["passes"][i] for _, ours in both) / len(pairs) * 1e3 for i in (0, 1))
    peer, ours = both[0]
    worst = max(
        abs(a - b)
        for one, two in zip(peer["values"], ours["values"], strict=True)
        for a, b in zip(one, two, strict=True)
    )
    return {"theirs": theirs, "first": first, "again": again, "worst": worst}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--peer", required=True)
    parser.add_argument("--number", type=int, default=60, help="pairs of article length; four times as many summaries")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", type=Path, help="a page with the marks rouge: begin and rouge: end")
    options = parser.parse_args()
    lines = [
        "| pairs | words | stems | rouge-score | Lydite, first pass | again | times faster | largest difference |",
        "| --- | --: | --- | --: | --: | --: | --: | --: |",
    ]
    for kind, pairs in make_pairs(options.data, options.number).items():
        words = round(statistics.mean(len(text.split()) for pair in pairs for text in pair))
        for stem in ("plain", "stem"):
            one = measure(options.peer, pairs, stem, options.rounds)
            faster = f"{one['theirs'] / one['first']:.0f} to {one['theirs'] / one['again']:.0f}"
            lines.append(
                f"| {len(pairs)} of {kind} length | {words} | {'Porter' if stem == 'stem' else 'no'} | {one['theirs']:.2f} ms | "
                f"{one['first']:.2f} ms | {one['again']:.2f} ms | {faster} | {one['worst']:.0e} |"
            )
            print(lines[-1], flush=True)
    if options.write:
        page = options.write.read_text(encoding="utf-8")
        before, _, rest = page.partition(BEGIN)
        _, _, after = rest.partition(END)
        table = "\n".join(lines)
        options.write.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
