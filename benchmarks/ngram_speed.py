"""n-gram models by Lydite and by KenLM, side by side: training, reading, speed of scoring, and every log-probability.

    python benchmarks/ngram_speed.py --text FILE --peer PYTHON [--lmplz PROGRAM] [--write docs/benchmarks.md]

PYTHON is an interpreter with the package kenlm; PROGRAM is KenLM's trainer, where there is one. FILE is read a line a
document; every twentieth is held out. The tokens are those of a byte-level BPE of 8,192, trained here. Both sides score
the same held-out tokens, 40 to a text, from the same ARPA file: KenLM through `full_scores`, Lydite once from token ids
and once from texts through `model.answer`, with all that belongs to an answer; and once more from the held-out text as it
was written, which the model's own BPE has to cut first. Times are processor seconds of one thread;
of five passes the median counts.
"""

import argparse
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BEGIN, END = "<!-- ngram: begin -->", "<!-- ngram: end -->"
ORDER, VOCABULARY, TEXT = 5, 8192, 40

PEER = """
import json, sys, time
import kenlm
start = time.process_time()
model = kenlm.Model(sys.argv[1])
load = time.process_time() - start
lines = open(sys.argv[2], encoding="utf-8").read().split("\\n")
passes = []
for _ in range(5):
    start = time.process_time()
    found = [[score for score, _, _ in model.full_scores(line)] for line in lines]
    passes.append(time.process_time() - start)
json.dump({"load": load, "passes": passes, "scores": found}, open(sys.argv[3], "w"))
"""


def seconds_of(call):
    """(processor seconds, what the call gave)."""
    start = time.process_time()
    found = call()
    return time.process_time() - start, found


def peer(python: str, arpa: Path, lines: Path) -> dict:
    """What KenLM says of the lines."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        subprocess.run([python, "-c", PEER, str(arpa), str(lines), str(out)], check=True, stderr=subprocess.DEVNULL)
        return json.loads(out.read_text())


def tokenizer_of(lines: list[str]):
    """A byte-level BPE with <s> and </s>."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(lines, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>")


def measure(text: Path, python: str, lmplz: str | None, folder: Path) -> list[tuple[str, str, str]]:
    """Rows (what, Lydite, KenLM)."""
    import numpy as np

    from lydite.models import load_model
    from lydite.models.ngram import load_arpa, save_ngram
    from lydite.models.ngram_arpa import write_arpa
    from lydite.models.ngram_train import train_ngram
    from lydite.types import ScoreRequest

    lines = [line for line in text.read_text(encoding="utf-8").split("\n") if line.strip()]
    tokenizer = tokenizer_of(lines)
    names = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    ids = [np.array(e.ids) for e in tokenizer.backend_tokenizer.encode_batch(lines, add_special_tokens=False)]
    train = [document for i, document in enumerate(ids) if i % 20 != 19]
    held = np.concatenate([document for i, document in enumerate(ids) if i % 20 == 19])
    texts = [held[start : start + TEXT] for start in range(0, len(held), TEXT)]
    seconds, trained = seconds_of(lambda: train_ngram(train, order=ORDER, vocab_size=len(tokenizer), bos=0, eos=1))
    size = sum(len(lines[i].encode()) for i in range(len(lines)) if i % 20 != 19) / 1e6
    rows = [
        ("training text, MB", f"{size:.1f}", f"{size:.1f}"),
        ("tokens", f"{trained.num_tokens:,}", f"{trained.num_tokens:,}"),
        ("n-grams of all lengths", f"{sum(trained.table.num_ngrams):,}", ""),
    ]
    arpa, held_file = folder / "ours.arpa", folder / "held.txt"
    writing, _ = seconds_of(lambda: write_arpa(trained.table, arpa, names, bos=0, eos=1))
    held_lines = [" ".join(names[token] for token in one) for one in texts]
    held_file.write_text("\n".join(held_lines), encoding="utf-8")
    theirs = peer(python, arpa, held_file)
    reading, model = seconds_of(lambda: load_arpa_as_words(arpa, load_arpa))
    # As words, so that both sides get the same strings.
    requests = [ScoreRequest(sample_id=str(i), index=0, continuation=line) for i, line in enumerate(held_lines)]
    known = model.encoder.tokenizer.get_vocab()
    windows = [np.array([known["<s>"], *[known[names[t]] for t in one], known["</s>"]]) for one in texts]
    count = sum(len(window) - 1 for window in windows)
    save_ngram(folder / "model", trained, tokenizer, "kneser_ney")
    own = load_model(str(folder / "model"))
    raw = [ScoreRequest(sample_id=str(i), index=0, continuation=tokenizer.decode(one)) for i, one in enumerate(texts)]
    raw_count = sum(len(answer.logprobs) for _, answer in own.answer(raw))
    gc.freeze()  # as `lydite evaluate` does once a model is loaded
    table_passes, answer_passes, raw_passes = [], [], []
    for _ in range(5):
        seconds_table, scores = seconds_of(
            lambda: [
                model.table.score(windows[at : at + 1024], [1] * len(windows[at : at + 1024]))
                for at in range(0, len(windows), 1024)
            ]
        )
        table_passes.append(seconds_table)
        answer_passes.append(seconds_of(lambda: list(model.answer(requests)))[0])
        raw_passes.append(seconds_of(lambda: list(own.answer(raw)))[0])
    ours = np.concatenate([part.logprobs for part in scores]) / np.log(10)
    other = np.concatenate([np.array(one) for one in theirs["scores"]])
    rate = count / statistics.median(theirs["passes"])
    rows += [
        (f"train a {ORDER}-gram model, s", f"{seconds:.1f}", ""),
        ("write the ARPA file, s", f"{writing:.1f}", ""),
        ("read the ARPA file, s", f"{reading:.1f}", f"{theirs['load']:.1f}"),
        ("score from token ids, tokens/s", f"{count / statistics.median(table_passes):,.0f}", ""),
        ("score from text, tokens/s", f"{count / statistics.median(answer_passes):,.0f}", f"{rate:,.0f}"),
        ("score text as it was written, tokens/s", f"{raw_count / statistics.median(raw_passes):,.0f}", ""),
        ("largest difference, log10, same file", f"{np.abs(ours - other).max():.1e}", f"{count:,} tokens"),
    ]
    if lmplz:
        rows += compare_trainers(lmplz, [[names[t] for t in one] for one in train], folder)
    return rows


def load_arpa_as_words(path: Path, load):
    """Through a function of its own, so that reading is timed as a user meets it."""
    return load(path, source=str(path))


def compare_trainers(lmplz, train: list[list[str]], folder: Path) -> list[tuple[str, str, str]]:
    """lmplz on the same tokens: its seconds, and how far any of its numbers lies from ours over the same words."""
    import resource

    import numpy as np

    from lydite.models.ngram_arpa import arpa_table, read_arpa
    from lydite.models.ngram_train import train_ngram

    corpus, arpa = folder / "train.txt", folder / "theirs.arpa"
    corpus.write_text("".join(" ".join(one) + "\n" for one in train), encoding="utf-8")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with corpus.open() as source, arpa.open("w") as target:
        command = [lmplz, "-o", str(ORDER), "-S", "1G", "-T", str(folder), "--discount_fallback"]
        subprocess.run(command, stdin=source, stdout=target, stderr=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    file = read_arpa(arpa)
    known = {word.decode(): i for i, word in enumerate(file.words)}  # <unk> is a word that no text has
    theirs = arpa_table(file, np.arange(len(known)), len(known), path=arpa)
    documents = [np.array([known[token] for token in one]) for one in train]
    ours = train_ngram(documents, order=ORDER, vocab_size=len(known), bos=known["<s>"], eos=known["</s>"]).table
    largest = 0.0
    for one, two in zip(ours.levels, theirs.levels, strict=True):
        assert np.array_equal(one.words, two.words), "other n-grams"
        assert np.array_equal(one.offsets, two.offsets), "other n-grams"
        for mine, other in ((one.logprobs, two.logprobs), (one.backoffs, two.backoffs)):
            known_to_both = np.isfinite(other)
            gap = np.abs(mine[known_to_both].astype(np.float64) - other[known_to_both])
            largest = max(largest, float(gap.max(initial=0.0)) / np.log(10))
    return [
        ("lmplz, s, its ARPA file written", "", f"{seconds:.1f}"),
        ("n-grams of both models over the same words", f"{sum(ours.num_ngrams):,}", f"{sum(theirs.num_ngrams):,}"),
        ("largest difference of any number, log10", f"{largest:.1e}", ""),
    ]


def table_of(rows: list[tuple[str, str, str]]) -> str:
    return "\n".join(["| | Lydite | KenLM |", "| --- | ---: | ---: |", *[f"| {' | '.join(row)} |" for row in rows]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--peer", required=True, help="interpreter with the package kenlm")
    parser.add_argument("--lmplz", help="KenLM's trainer")
    parser.add_argument("--write", type=Path, help="a page with the two marks between which the table goes")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = table_of(measure(given.text, given.peer, given.lmplz, Path(folder)))
    print(table)
    if given.write:
        page = given.write.read_text(encoding="utf-8")
        if BEGIN not in page or END not in page:
            sys.exit(f"{given.write} has no marks {BEGIN} and {END}")
        head, rest = page.split(BEGIN)
        given.write.write_text(f"{head}{BEGIN}\n{table}\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
