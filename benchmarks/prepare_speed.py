"""`lydite prepare` beside a `datasets.map` pipeline that tokenizes and packs the same text: seconds, and every token.

    python benchmarks/prepare_speed.py --data DATA --peer PYTHON [--write docs/benchmarks.md]

DATA holds corpora/*.txt and zh_reviews/*.txt; PYTHON is an interpreter with datasets and transformers. The text is cut into
documents of about 3,000 characters, English and Chinese apart, and a byte-level BPE tokenizer of 16,384 tokens is trained on
each. The pipeline is that of transformers' run_clm.py: load_dataset, map(tokenize), map(group_texts) into blocks of 1,024,
both in batches of 1,000; with processes, and with the tokenizer's own threads. Lydite runs twice: only tokens (no duplicates
looked for, as in the pipeline), and with all that it does by default and the rules of Gopher on top. Sides take turns, each in a
process of its own; times are from the first line read to the last byte on disk, imports left out, by the clock and of the
processors (of all processes of a side together, which a busy machine hardly moves). Every document's ids are compared.

With --copies N both sides get N times the text, so that what a side does once (to start processes, to load a tokenizer) weighs
less: the first copy as it is; each further one a shuffle of all parts of all documents of a language (seeded by the number of the copy), cut
into documents of 3,000 characters again. Parts end behind . ! ? ; , or their Chinese forms, or a line break, so words and
clauses are those of the text, and documents are others: no two are equal or nearly so. Such copies have no word that the first
has not, as a larger natural text would have some.
"""

import argparse
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import unicodedata
from pathlib import Path

BEGIN, END = "<!-- prepare: begin -->", "<!-- prepare: end -->"
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f\ufeff]")
"""Not in texts that prepare has cleaned; so both sides get what is clean."""
ENGLISH = ("sotu.txt", "brown_plain.txt", "moby_dick.txt", "tinyshakespeare.txt")

PEER = """
import hashlib, itertools, json, os, resource, sys, time
rows, folder, cache, how, processes, out = sys.argv[1:]
os.environ["TOKENIZERS_PARALLELISM"] = "true" if how == "threads" else "false"
import datasets, transformers
datasets.disable_progress_bars()
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
block = 1024
def tokenize(batch):
    return tokenizer(batch["text"], add_special_tokens=False)
def group(batch):
    joined = {key: list(itertools.chain(*batch[key])) for key in batch}
    total = len(joined["input_ids"]) // block * block
    blocks = {key: [t[i : i + block] for i in range(0, total, block)] for key, t in joined.items()}
    blocks["labels"] = blocks["input_ids"].copy()
    return blocks
num_proc = int(processes) if how == "processes" else None
def spent():
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in both)
if __name__ == "__main__":
    start, begun = time.perf_counter(), spent()
    data = datasets.load_dataset("json", data_files=rows, split="train", cache_dir=cache)
    tokens = data.map(tokenize, batched=True, num_proc=num_proc, remove_columns=data.column_names)
    packed = tokens.map(group, batched=True, num_proc=num_proc)
    seconds, cpu = time.perf_counter() - start, spent() - begun
    digests = sorted(hashlib.sha1(json.dumps(row).encode()).hexdigest() for row in tokens["input_ids"])
    json.dump({"seconds": seconds, "cpu": cpu, "tokens": sum(map(len, tokens["input_ids"])), "digests": digests}, open(out, "w"))
"""

OURS = """
import hashlib, json, resource, sys, time
from pathlib import Path
from lydite.data.corpus import open_corpus
from lydite.data.prepare import prepare, read_recipe
rows, folder, cache, how, processes, out = sys.argv[1:]
only = ["exact_duplicates=false", "near_duplicates=false"]
more = ["rules=gopher_quality,gopher_repetition"]
def spent():
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in both)
if __name__ == "__main__":
    start, begun = time.perf_counter(), spent()
    recipe = read_recipe(None, [rows], ["validation=0", *(only if how == "tokens" else more)], folder)
    info = prepare(recipe, Path(cache), workers=int(processes))
    seconds, cpu = time.perf_counter() - start, spent() - begun
    split = open_corpus(cache).split("train")
    digests = sorted(hashlib.sha1(json.dumps(ids.tolist()).encode()).hexdigest() for ids in split)
    json.dump({"seconds": seconds, "cpu": cpu, "tokens": split.num_tokens, "digests": digests}, open(out, "w"))
"""


def documents(data: Path) -> dict[str, list[str]]:
    """Documents of whole lines, about 3,000 characters each."""
    english = [line for name in ENGLISH for line in (data / "corpora" / name).read_text(encoding="utf-8").split("\n")]
    chinese = [
        line
        for path in (data / "corpora/zh_classics.txt", data / "zh_reviews/pos.txt", data / "zh_reviews/neg.txt")
        for line in path.read_text(encoding="utf-8").split("\n")
    ]
    return {"English": list(_joined(english)), "Chinese": list(_joined(chinese))}


def _joined(lines):
    held, size = [], 0
    for line in lines:
        for start in range(0, len(line), 3000):  # a speech stands on one line
            held.append(_CONTROL.sub("", unicodedata.normalize("NFC", line[start : start + 3000])).strip())
            size += len(held[-1])
            if size >= 3000:
                yield "\n".join(held).strip()
                held, size = [], 0


_PART = re.compile("[^.!?;,。！？；，\n]*[.!?;,。！？；，\n]*")


def copied(texts: list[str], copies: int) -> list[str]:
    """The texts, and shuffles of them."""
    found = list(texts)
    for number in range(1, copies):
        parts = [part for text in texts for part in _PART.findall(text + "\n") if part]
        random.Random(number).shuffle(parts)
        held, size = [], 0
        for part in parts:
            held.append(part)
            size += len(part)
            if size >= 3000:
                found.append("".join(held).strip())
                held, size = [], 0
    return list(dict.fromkeys(found))


def train(texts: list[str], folder: Path) -> None:
    """A byte-level BPE tokenizer that both sides load."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=16384, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>", "model_max_length": 10**9}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def run(python: str, code: str, top: Path, how: str, processes: int) -> dict:
    """One side, in a process and with a cache of its own."""
    with tempfile.TemporaryDirectory(dir=top) as work:
        (Path(work) / "side.py").write_text(code)
        rows, folder, out = top / "rows.jsonl", top / "tokenizer", Path(work) / "out.json"
        command = [python, f"{work}/side.py", str(rows), str(folder), f"{work}/cache", how, str(processes), str(out)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{how}: {done.stderr[-2000:]}")
        return json.loads(out.read_text())


def measure(peer: str, texts: list[str], originals: int, processes: int, rounds: int) -> dict[str, dict]:
    """Seconds of each way, by turns, and what they made. The tokenizer is trained on the first `originals` texts."""
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        with open(top / "rows.jsonl", "w", encoding="utf-8") as file:
            file.writelines(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
        train(texts[:originals], top / "tokenizer")
        ways = {
            "processes": (peer, PEER),
            "threads": (peer, PEER),
            "tokens": (sys.executable, OURS),
            "all": (sys.executable, OURS),
        }
        found: dict[str, list[dict]] = {how: [] for how in ways}
        for _ in range(rounds):
            for how, (python, code) in ways.items():
                found[how].append(run(python, code, top, how, processes))
                print(f"{how}: {found[how][-1]['seconds']:.1f} s", file=sys.stderr, flush=True)
    return {how: {**passes[0], **_medians(passes)} for how, passes in found.items()}


def _medians(passes: list[dict]) -> dict[str, float]:
    return {key: statistics.median(one[key] for one in passes) for key in ("seconds", "cpu")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--peer", required=True)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=("English", "Chinese"), help="one of the two texts")
    parser.add_argument("--share", type=float, default=1.0, help="of the documents; less to try it")
    parser.add_argument("--copies", type=int, default=1, help="the text so often, shuffled anew; 1 is as it is")
    parser.add_argument("--write", type=Path, help="a page with the marks prepare: begin and prepare: end")
    options = parser.parse_args()
    lines = [
        "| text | MB | seconds | datasets.map, processes | threads | Lydite, tokens only | times faster | with all rules | "
        "times faster | documents whose ids are equal |",
        "| --- | --: | --- | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for language, texts in documents(options.data).items():
        if options.only not in (None, language):
            continue
        texts = list(dict.fromkeys(texts))[: int(len(texts) * options.share)]
        originals, texts = len(texts), copied(texts, options.copies)
        size = sum(len(text.encode()) for text in texts) / 1e6
        found = measure(options.peer, texts, originals, options.processes, options.rounds)
        equal = len(set(found["tokens"]["digests"]) & set(found["processes"]["digests"]))
        same = found["tokens"]["digests"] == found["processes"]["digests"]
        number = "all " + f"{len(texts):,}" if same else f"{equal:,} of {len(texts):,}"
        for key, title in (("seconds", "wall clock"), ("cpu", "processor")):
            best = min(found[how][key] for how in ("processes", "threads"))
            cells = [f"{found[how][key]:.1f} s ({size / found[how][key]:.1f} MB/s)" for how in found]
            cells.insert(3, f"{best / found['tokens'][key]:.1f}")
            cells.append(f"{best / found['all'][key]:.1f}")
            lines.append(f"| {language} | {size:.1f} | {title} | " + " | ".join([*cells, number]) + " |")
            print(lines[-1], flush=True)
    if options.write:
        page = options.write.read_text(encoding="utf-8")
        before, _, rest = page.partition(BEGIN)
        _, _, after = rest.partition(END)
        table = "\n".join(lines)
        options.write.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
