"""`prepare` as a whole: what goes in comes out once, whatever the number of processes, and wherever it was killed."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lydite.data.corpus import INFO, WORK, open_corpus
from lydite.data.prepare import BannedText, prepare, read_recipe, run
from lydite.data.prepare.encode import load_tokenizer
from lydite.errors import DataError, LyditeError, RunError, UserError
from lydite.runs import lock

RNG = np.random.default_rng(3)
WORDS = [f"w{n}" for n in range(400)]
CHARACTERS = [chr(0x4E00 + n) for n in range(400)]


def text(length=40):
    return " ".join(RNG.choice(WORDS, length))


DOCUMENTS = [text() for _ in range(60)] + ["".join(RNG.choice(CHARACTERS, 60)) for _ in range(20)]


def jsonl(path, texts, **more):
    path.write_text("".join(json.dumps({"text": t, **more}) + "\n" for t in texts), encoding="utf-8")
    return str(path)


def make(out, sources, *pairs, tokenizer="bytes", **options):
    return prepare(read_recipe(None, [str(s) for s in sources], pairs, tokenizer), out, workers=1, **options)


def texts_of(out):
    corpus = open_corpus(out, verify=True)
    tokenizer = load_tokenizer(corpus.tokenizer)
    return {name: [tokenizer.decode(d.tolist()) for d in corpus.split(name)] for name in corpus.info.splits}


def test_everything_comes_out_once_in_another_order(tmp_path):
    info = make(tmp_path / "c", [jsonl(tmp_path / "a.jsonl", DOCUMENTS)], "validation=0.2")
    found = texts_of(tmp_path / "c")
    assert sorted(found["train"] + found["validation"]) == sorted(DOCUMENTS)
    assert found["train"] != [d for d in DOCUMENTS if d in set(found["train"])]
    assert 4 < len(found["validation"]) < 30
    split = info.splits["train"]
    assert split.num_bytes == sum(len(d.encode()) for d in found["train"]) == split.num_tokens
    assert split.num_characters == sum(map(len, found["train"]))
    assert not (tmp_path / "c" / WORK).exists()
    again = make(tmp_path / "d", [tmp_path / "a.jsonl"], "validation=0.2", "seed=1")
    assert again.hash != info.hash
    assert make(tmp_path / "e", [tmp_path / "a.jsonl"], "validation=0.2").hash == info.hash


def test_kinds_of_files_give_the_same_corpus(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq
    import zstandard

    plain = Path(jsonl(tmp_path / "a.jsonl", DOCUMENTS))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes()))
    (tmp_path / "c.jsonl.zst").write_bytes(zstandard.compress(plain.read_bytes()))
    pq.write_table(pa.table({"text": DOCUMENTS, "n": list(range(len(DOCUMENTS)))}), tmp_path / "d.parquet")
    (tmp_path / "e.txt").write_text("\ufeff" + "\r\n".join(DOCUMENTS), encoding="utf-8")
    (tmp_path / "f.txt.gz").write_bytes(gzip.compress("\n\n \n".join(DOCUMENTS).encode()))
    hashes = {
        make(tmp_path / f"out{n}", [tmp_path / name], *pairs).hash
        for n, (name, *pairs) in enumerate(
            [("a.jsonl",), ("b.jsonl.gz",), ("c.jsonl.zst",), ("d.parquet",), ("e.txt", "documents=line"),
             ("f.txt.gz", "documents=paragraph")]
        )
    }  # fmt: skip
    assert len(hashes) == 1


def test_folders_patterns_and_recipes(tmp_path):
    (tmp_path / "in/sub").mkdir(parents=True)
    jsonl(tmp_path / "in/a.jsonl", DOCUMENTS[:40])
    jsonl(tmp_path / "in/sub/b.jsonl", DOCUMENTS[40:])
    (tmp_path / "in/notes.pdf").write_bytes(b"%PDF")
    one = make(tmp_path / "o1", [tmp_path / "in"])
    two = make(tmp_path / "o2", [f"{tmp_path}/in/**/*.jsonl"])
    assert one.hash == two.hash
    (tmp_path / "r.toml").write_text(
        'tokenizer = "bytes"\nseed = 5\n[[source]]\npath = "in/a.jsonl"\nname = "a"\nweight = 1\n'
        '[[source]]\npath = "in/sub"\nname = "b"\nweight = 1\n'
    )
    recipe = read_recipe(tmp_path / "r.toml", [], ["validation=0", "max_repeats=2"])
    info = prepare(recipe, tmp_path / "o3", workers=1)
    rates = info.report["repeats"]
    sizes = {"a": sum(len(d.encode()) for d in DOCUMENTS[:40]), "b": sum(len(d.encode()) for d in DOCUMENTS[40:])}
    assert rates["a"] * sizes["a"] == pytest.approx(rates["b"] * sizes["b"])
    assert max(rates.values()) <= 2
    written = {name: source["written"]["train"] for name, source in info.report["sources"].items()}
    assert written["a"][1] / written["b"][1] == pytest.approx(1, rel=0.15)
    found = texts_of(tmp_path / "o3")["train"]
    low, high = int(rates["b"]), int(-(-rates["b"] // 1))
    assert {found.count(d) for d in DOCUMENTS[40:]} <= {low, high}


def test_duplicates_rules_and_evaluation_items_are_counted(tmp_path):
    changed = DOCUMENTS[0].replace(DOCUMENTS[0].split()[20], "other")
    banned = DOCUMENTS[5]
    extra = [DOCUMENTS[3], "  " + DOCUMENTS[4].replace(" ", "  "), changed + " end", "", "   "]
    source = jsonl(tmp_path / "a.jsonl", DOCUMENTS + extra)
    info = make(
        tmp_path / "c",
        [source],
        "near_threshold=0.6",
        banned_texts=[BannedText("quiz", "7", banned), BannedText("quiz", "8", "ok")],
    )
    [entry] = info.report["sources"].values()
    assert {reason: pair[0] for reason, pair in entry["removed"].items()} == {
        "exact duplicate": 2, "near-duplicate": 1, "empty": 2, "holds quiz": 1,
    }  # fmt: skip
    assert entry["read"][0] + entry["cut"] == entry["kept"][0] + sum(pair[0] for pair in entry["removed"].values())
    found = texts_of(tmp_path / "c")
    assert sorted(found["train"] + found.get("validation", [])) == sorted(d for d in DOCUMENTS if d != banned)
    [line] = map(json.loads, (tmp_path / "c/overlaps.jsonl").read_text().splitlines())
    assert (line["task"], line["item"], line["line"], line["file"]) == ("quiz", "7", 6, source)
    assert line["shared"] == " ".join(banned.split()[:13])
    assert info.report["overlap_too_short"] == {"quiz": 1}


def test_languages(tmp_path):
    pytest.importorskip("py3langid")
    english = [f"The {n} children went home after school because the weather was bad." for n in ("two", "three", "ten")]
    chinese = [f"今天天气不好，{n}个孩子放学以后就回家了。" for n in "两三十"]
    source = jsonl(tmp_path / "a.jsonl", english + chinese)
    pairs = ("near_duplicates=false", "validation=0")
    info = make(tmp_path / "c", [source], "languages=zh", *pairs)
    assert sorted(texts_of(tmp_path / "c")["train"]) == sorted(chinese)
    [entry] = info.report["sources"].values()
    assert entry["removed"] == {"language en": [3, sum(map(len, english))]}
    assert entry["languages"] == {"zh": 3}
    info = make(tmp_path / "d", [source], "mix_by=language", "temperature=1e6", *pairs)
    assert info.report["repeats"]["en"] * sum(map(len, english)) == pytest.approx(
        info.report["repeats"]["zh"] * sum(len(t.encode()) for t in chinese), rel=0.01
    )


def test_characters_tokenizer_knows_the_training_text(tmp_path):
    info = make(tmp_path / "c", [jsonl(tmp_path / "a.jsonl", DOCUMENTS)], "validation=0", tokenizer="characters")
    assert info.vocab_size == 4 + len(set("".join(DOCUMENTS)))
    assert info.splits["train"].num_tokens == sum(map(len, DOCUMENTS))
    assert sorted(texts_of(tmp_path / "c")["train"]) == sorted(DOCUMENTS)


def test_processes_and_buckets_do_not_move_a_token(tmp_path, monkeypatch):
    source = jsonl(tmp_path / "a.jsonl", DOCUMENTS + DOCUMENTS[:9])
    monkeypatch.setattr("lydite.data.prepare.sources.CHUNK", 4000)
    recipe = read_recipe(None, [source], ["validation=0.2", "temperature=1"], "bytes")
    one = prepare(recipe, tmp_path / "one", workers=1)
    two = prepare(recipe, tmp_path / "two", workers=2)
    monkeypatch.setattr(run, "bits_for", lambda size: 3)
    many = prepare(recipe, tmp_path / "many", workers=1)
    assert one.hash == two.hash == many.hash
    assert one.report == two.report == many.report


def test_copies_stand_at_the_same_places_for_any_number_of_buckets(tmp_path, monkeypatch):
    for name, part in (("a", DOCUMENTS[:70]), ("b", DOCUMENTS[70:])):
        jsonl(tmp_path / f"{name}.jsonl", part)
    (tmp_path / "r.toml").write_text("".join(f'[[source]]\npath = "{n}.jsonl"\nweight = 1\n' for n in "ab"))
    hashes = []
    for bits in (0, 2, 4):
        monkeypatch.setattr(run, "bits_for", lambda size, bits=bits: bits)
        hashes.append(prepare(read_recipe(tmp_path / "r.toml", [], [], "bytes"), tmp_path / f"o{bits}", workers=1).hash)
    assert len(set(hashes)) == 1


def test_long_documents_are_cut_and_a_large_text_file_becomes_many(tmp_path):
    (tmp_path / "book.txt").write_text("\n\n".join(DOCUMENTS), encoding="utf-8")
    info = make(tmp_path / "c", [tmp_path / "book.txt"], "max_characters=1000", "validation=0")
    found = texts_of(tmp_path / "c")["train"]
    assert len(found) > 8
    assert max(map(len, found)) <= 1000
    assert sorted(" ".join(found).split()) == sorted(" ".join(DOCUMENTS).split())
    info = make(
        tmp_path / "d", [jsonl(tmp_path / "a.jsonl", ["\n\n".join(DOCUMENTS)])], "max_characters=1000", "validation=0"
    )
    [entry] = info.report["sources"].values()
    assert entry["read"][0] == 1
    assert entry["cut"] == entry["kept"][0] - 1 > 7


def command(out, *sources, **more):
    words = [sys.executable, "-m", "lydite", "prepare", *map(str, sources), "--out", str(out), "--tokenizer", "bytes"]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)


@pytest.mark.parametrize("step", ["read", "duplicates", "encode", "merge"])
def test_stopped_in_any_step_the_same_command_continues(tmp_path, monkeypatch, step):
    source = jsonl(tmp_path / "a.jsonl", DOCUMENTS)
    monkeypatch.setattr(run, "bits_for", lambda size: 2)
    whole = make(tmp_path / "whole", [source])

    class Killed(BaseException):
        pass

    def stop(now, done, total, documents):
        if now == step:
            raise Killed

    with pytest.raises(Killed):
        make(tmp_path / "c", [source], on_progress=stop)
    with pytest.raises(DataError, match="is not complete; run the same"):
        open_corpus(tmp_path / "c")
    steps = []
    info = make(tmp_path / "c", [source], on_progress=lambda now, *rest: steps.append(now))
    assert info.hash == whole.hash
    assert info.report == whole.report
    assert ("read" in steps) == (step in ("read", "duplicates"))
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == sorted(p.name for p in (tmp_path / "whole").iterdir())


def test_killed_without_a_word_and_two_processes(tmp_path):
    source = jsonl(tmp_path / "a.jsonl", DOCUMENTS)
    with lock(tmp_path / "busy"), pytest.raises(RunError, match="in use by another process"):
        make(tmp_path / "busy", [source])
    process = command(tmp_path / "c", source)
    deadline = time.monotonic() + 30
    while not (tmp_path / "c" / WORK).exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    if not (tmp_path / "c" / INFO).exists():
        with pytest.raises(DataError, match=r"is not complete|no corpus in"):
            open_corpus(tmp_path / "c")
    assert make(tmp_path / "c", [source]).hash == make(tmp_path / "d", [source]).hash


def test_a_complete_corpus_is_found_and_never_overwritten(tmp_path):
    source = jsonl(tmp_path / "a.jsonl", DOCUMENTS)
    first = make(tmp_path / "c", [source])
    assert make(tmp_path / "c", [source]) == first
    with pytest.raises(RunError, match=r"made otherwise .*seed was 0, now 1"):
        make(tmp_path / "c", [source], "seed=1")
    jsonl(tmp_path / "a.jsonl", DOCUMENTS[:50])
    with pytest.raises(RunError, match=r"made otherwise .*files"):
        make(tmp_path / "c", [source])
    assert open_corpus(tmp_path / "c", verify=True).hash == first.hash


@pytest.mark.parametrize("harm", ["other byte", "torn", "lost", "sums torn", "sums lost"])
def test_a_piece_that_a_power_cut_harmed_is_encoded_anew(tmp_path, monkeypatch, harm):
    source = jsonl(tmp_path / "a.jsonl", DOCUMENTS)
    monkeypatch.setattr(run, "_merge", lambda *rest: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "c", [source])
    monkeypatch.undo()
    piece = tmp_path / "c" / WORK / "piece-0000"
    file = piece if "sums" in harm else piece.with_name("piece-0000.train.tokens")
    data = file.read_bytes()
    if "lost" in harm:
        file.unlink()
    else:
        file.write_bytes(data[:-9] if "torn" in harm else bytes([data[0] ^ 1]) + data[1:])
    assert make(tmp_path / "c", [source]).hash == make(tmp_path / "d", [source]).hash


def test_work_on_other_settings_is_begun_anew(tmp_path, monkeypatch):
    source = jsonl(tmp_path / "a.jsonl", DOCUMENTS)
    monkeypatch.setattr(run, "_merge", lambda *rest: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "c", [source], "seed=4")
    monkeypatch.undo()
    assert make(tmp_path / "c", [source]).hash == make(tmp_path / "d", [source]).hash


@pytest.mark.parametrize(
    ("content", "pairs", "message"),
    [
        (b'{"text": "a"}\n{"txt": "b"}\n', (), r"a.jsonl, line 2: no column 'text'; it has txt: use --set column=NAME"),
        (b'{"text": 3}\n', (), "line 1: column 'text' holds a int"),
        (b'{"text": "a"\n', (), "line 1: not a line of JSON"),
        (b'[1]\n', (), "a JSON object is needed, and this is a list"),
        (b'{"text": "caf\xe9"}\n', (), "line 1: 0xe9 is not UTF-8"),
        (b"", (), "the sources hold no document"),
        (b'{"text": " "}\n', (), "no document is left: 1 went for 'empty'"),
        (b'{"text": "a b"}\n', ("rules=gopher_quality",), "no document is left: 1 went for 'gopher_quality: few words'"),
        (b'{"text": "a b"}\n', ("rules=gofer",), "rules: unknown gofer; there are gopher_quality"),
        (b'{"text": "a b"}\n', ("sede=1",), "no setting 'sede'; there are normalize"),
        (b'{"text": "a b"}\n', ("seed=x",), "Expected `int`"),
        (b'{"text": "a b"}\n', ("validation=1",), "validation must be at least 0 and below 1"),
        (b'{"text": "a b"}\n', ("documents=page",), "Invalid enum value 'page'"),
        (b'{"text": "a b"}\n', ("seed",), "is not KEY=VALUE"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(tmp_path, content, pairs, message):
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        make(tmp_path / "c", [tmp_path / "a.jsonl"], *pairs)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "c" / INFO).exists()


def test_more_bad_input(tmp_path):
    source = jsonl(tmp_path / "a.jsonl", DOCUMENTS)
    (tmp_path / "bad.txt.gz").write_bytes(b"no gzip")
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"text": "x"}\n' * 999)[:-20])
    (tmp_path / "bad.jsonl.zst").write_bytes(b"no zstd")
    (tmp_path / "bad.parquet").write_bytes(b"no parquet")
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.pdf").write_bytes(b"")
    cases = {
        "nowhere.txt": "nowhere.txt does not exist; check the path",
        "*.md": "matches no file",
        "empty": "holds no file that ends in .txt",
        "x.pdf": "unknown kind of file; its name must end in",
        "bad.txt.gz": "cannot read .*bad.txt.gz",
        "cut.jsonl.gz": "cannot read .*cut.jsonl.gz",
        "bad.jsonl.zst": "cannot read .*bad.jsonl.zst",
        "bad.parquet": "not a readable Parquet file",
    }
    for name, message in cases.items():
        with pytest.raises(LyditeError, match=message):
            make(tmp_path / "c", [tmp_path / name])
    for options, message in (
        ({"tokenizer": ""}, "name a --tokenizer"),
        ({"tokenizer": str(tmp_path)}, "no tokenizer in .*save_pretrained"),
    ):
        with pytest.raises(UserError, match=message):
            make(tmp_path / "c", [source], **options)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match="is not a tokenizer"):
        make(tmp_path / "c", [source], tokenizer=str(tmp_path))
    with pytest.raises(DataError, match="is named twice"):
        make(tmp_path / "c", [source, tmp_path])
    with pytest.raises(UserError, match="holds other files"):
        make(tmp_path, [source])
    with pytest.raises(UserError, match="is a file, and --out is a folder"):
        make(Path(source), [source])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    source = jsonl(tmp_path / "a.jsonl", DOCUMENTS)
    for target in ("texts-0000", "piece-0000.train.tokens", "shards/train-00000.tokens"):
        out = tmp_path / target.replace("/", "-")

        def stop(step, *rest, out=out, target=target):
            first = {"texts-0000": "read", "piece-0000.train.tokens": "duplicates"}.get(target, "encode")
            if step == first and target != "texts-0000":
                path = out / WORK / target
                path.parent.mkdir(exist_ok=True)
                if not path.is_symlink():
                    path.symlink_to("/dev/full")

        if target == "texts-0000":
            real = run.Buckets.__init__

            def full(self, work, bits, real=real, target=target):
                (work / target).symlink_to("/dev/full")
                real(self, work, bits)

            monkeypatch.setattr(run.Buckets, "__init__", full)
        if target.startswith("shards"):
            monkeypatch.setattr(run.shutil, "rmtree", lambda path, **more: None)
            monkeypatch.setattr(Path, "mkdir", lambda self, *a, **k: os.makedirs(self, exist_ok=True))
        with pytest.raises(LyditeError, match=r"cannot write .*No space left on device") as error:
            make(out, [source], on_progress=stop)
        assert "\n" not in str(error.value)
        monkeypatch.undo()


def test_what_datatrove_writes_is_read(tmp_path):
    """A line as JsonlWriter of datatrove 0.10.1 wrote it, and the columns of its ParquetWriter."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    line = b'{"text":"document number 0 \xe6\x96\x87\xe6\xa1\xa3","id":"a.jsonl/0","metadata":{"url":"x","file_path":"in/a.jsonl"}}\n'
    (tmp_path / "out").mkdir()
    (tmp_path / "out/00000.jsonl.gz").write_bytes(gzip.compress(line))
    rows = {"text": ["document number 1"], "id": ["a.jsonl/1"], "metadata": [{"url": "x"}]}
    pq.write_table(pa.table(rows), tmp_path / "out/000_00001.parquet")
    make(tmp_path / "c", [tmp_path / "out"], "validation=0", "near_duplicates=false")
    assert sorted(texts_of(tmp_path / "c")["train"]) == ["document number 0 文档", "document number 1"]


def test_hub_data_sets_are_streamed(tmp_path, monkeypatch):
    import types

    asked = []

    def load_dataset(name, config, *, split, streaming):
        asked.append((name, config, split, streaming))
        return ({"body": d} for d in DOCUMENTS)

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    monkeypatch.setattr(run, "_UNKNOWN", 0)
    info = make(tmp_path / "c", ["hf:some/name:small@test"], "column=body")
    assert asked == [("some/name", "small", "test", True)]
    assert info.hash == make(tmp_path / "d", [jsonl(tmp_path / "a.jsonl", DOCUMENTS)]).hash
    with pytest.raises(DataError, match="no column 'text'; it has body"):
        make(tmp_path / "e", ["hf:some/name"])


@pytest.mark.slow
def test_memory_stays_flat(tmp_path):
    """Four times the text does not take more memory, once buckets are in use."""
    code = (
        "import resource, sys\nfrom pathlib import Path\nfrom lydite.data.prepare import prepare, read_recipe\n"
        "from lydite.data.prepare import buckets\nbuckets._BUCKET = 1 << 20\n"
        "prepare(read_recipe(None, [sys.argv[1]], ['documents=line'], 'bytes'), Path(sys.argv[2]), workers=1)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    peaks = []
    for size in (6, 24):
        path = tmp_path / f"{size}.txt"
        with open(path, "w") as file:
            while file.tell() < size << 20:
                file.write(" ".join(RNG.choice(WORDS, 3000)) + "\n")
        done = subprocess.run(
            [sys.executable, "-c", code, str(path), str(tmp_path / f"o{size}")],
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(int(done.stdout.split()[-1]) << 10)
    assert peaks[1] - peaks[0] < 12 << 20, peaks
