"""Lydite beside lm-evaluation-harness on the same requests: time, memory, and whether the numbers are the same.

    python benchmarks/lm_eval_speed.py --peers PATH/TO/shared/peers [--rows letters,pairs] [--dtype float32] [--repeats 3]

`--peers` is the folder with the peer's setup.sh (which builds its own virtual environment, the models and the task data,
once) and its task files. The harness builds the requests; both systems answer the same ones, in a process each, with the
same weights, dtype and number of threads, in turns. The peer runs at the best of several batch sizes, found on a part of
the row. Everything is kept in --out (results.json after every process): the same command continues where it was stopped,
`--redo` measures the named rows anew, and `--docs docs` writes the tables and the plot.

Contract: `seconds` are those of answering alone on both sides, tokenization included; `whole_seconds` are those of the
process, from its start, with imports and loading, but without the building of the requests, which is outside of both.
"""

import argparse
import importlib.metadata
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from speed import tables
from speed.compare import compare
from speed.measure import Finished, Measurement, State, free_bytes, load_state, machine, run, save_state
from speed.rows import DTYPES, NEW_TOKENS, PEER_BATCHES, PROMPT_WORDS, Row, rows_named

HERE = Path(__file__).resolve().parent
OURS = {"float32": ("default", "auto", "fastest"), "bfloat16": ("default", "auto")}
"""The kernels that Lydite runs with: PyTorch's, the one chosen among those that only round differently, and, where the user
allows products in bfloat16, the fastest of all."""


class Bench:
    """One run of the benchmark: where things are, and what was measured so far."""

    def __init__(self, args: argparse.Namespace, home: Path) -> None:
        self.args = args
        self.home = home
        self.out = Path(args.out).resolve()
        self.out.mkdir(parents=True, exist_ok=True)
        self.path = self.out / "results.json"
        self.state = load_state(self.path)
        self._check_state()

    def _check_state(self) -> None:
        """A state of another machine, of other versions or of another size is never mixed with this one's."""
        now = State(limit=self.args.limit, machine=machine(), versions=_versions(self.home))
        if self.state.measurements:
            for name in ("limit", "machine", "versions"):
                old, new = getattr(self.state, name), getattr(now, name)
                if old != new:
                    raise SystemExit(f"{self.path} is of another {name} ({old}, now {new}); name another --out")
        self.state.limit, self.state.machine, self.state.versions = now.limit, now.machine, now.versions
        self.state.command = shlex.join(["python", *sys.argv])

    def save(self) -> None:
        save_state(self.path, self.state)

    # ------------------------------------------------------------------------------- single processes

    def ours(self, what: str, **options: Any) -> Finished:
        return self._process([sys.executable, str(HERE / "speed/ours.py"), what], options)

    def peer(self, what: str, **options: Any) -> Finished:
        return self._process([str(self.home / "venv/bin/python"), str(HERE / "speed/peer.py"), what], options)

    def _process(self, command: list[str], options: dict[str, Any]) -> Finished:
        words = [word for key, value in options.items() if value is not None for word in (f"--{key}", str(value))]
        limit = int(free_bytes() * 0.9)
        log = self.out / "last.log"
        return run([*command, *words], log=log, cwd=self.home / "data", memory_bytes=limit)

    def must(self, finished: Finished, what: str) -> None:
        if finished.status != "done":
            raise SystemExit(f"{what}: {finished.status}; see {self.out / 'last.log'}")

    # ------------------------------------------------------------------------------- what is asked

    def requests(self, row: Row, *, tuning: bool = False) -> Path:
        """The file with a row's requests; `tuning`: of a part of its documents."""
        docs = (tuning and row.tune_docs) or row.docs
        if self.args.limit:
            docs = min(docs or self.args.limit, self.args.limit)
        if row.kind == "decode":
            return self._prompts(row, docs or 1)
        path = self.out / f"{row.task}-{docs or 'all'}.jsonl"
        if not path.exists():
            scratch = path.with_suffix(".part")
            options = {"tasks": self.args.peers / "tasks", "task": row.task, "docs": docs, "out": scratch}
            self.must(self.peer("build", **options), f"building {row.task}")
            scratch.rename(path)
        return path

    def _prompts(self, row: Row, count: int) -> Path:
        """Prompts of the decoding rows: the first ones of one list."""
        tokens, most = (8, self.args.limit) if self.args.limit else (NEW_TOKENS, 32)
        path, source = self.out / f"prompts-{most}.jsonl", Row(**{**vars(row), "kind": "rolling", "docs": 4 * most})
        if not path.exists():
            scratch = path.with_suffix(".part")
            options = {"count": most, "words": PROMPT_WORDS, "tokens": tokens, "out": scratch}
            model, texts = self.home / row.model, self.requests(source)
            self.must(self.peer("prompts", model=model, requests=texts, **options), "choosing prompts")
            scratch.rename(path)
        part = self.out / f"prompts-{most}-{count}.jsonl"
        part.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:count]), encoding="utf-8")
        return part

    def count_work(self, row: Row) -> None:
        if row.name not in self.state.work:
            file = self.out / "work.json"
            options = {"model": self.home / row.model, "requests": self.requests(row), "out": file}
            self.must(self.ours("work", **options), f"counting {row.name}")
            self.state.work[row.name] = json.loads(file.read_text())
            self.save()

    def measure_peaks(self) -> None:
        if not self.state.peaks:
            file = self.out / "peak.json"
            self.must(self.ours("peak", out=file), "measuring the matrix peak")
            found = json.loads(file.read_text())
            self.state.peaks = {name: found[name] for name in DTYPES}
            say(", ".join(f"{name} {peak / 1e9:,.0f} GFLOP/s" for name, peak in self.state.peaks.items()))
            self.save()

    # ------------------------------------------------------------------------------- measuring

    def measure(
        self, row: Row, dtype: str, system: str, *, batch: int = 0, tuning: bool = False, repeat: int = 0
    ) -> Measurement:
        """One process, unless it was measured before."""
        key = {"row": row.name, "dtype": dtype, "system": system, "batch": batch, "tuning": tuning, "repeat": repeat}
        for known in self.state.measurements:
            if all(getattr(known, name) == value for name, value in key.items()):
                if known.status == "done" or known.status.startswith("killed"):
                    return known
                self.state.measurements.remove(known)  # what failed is tried again
                break
        file = self.out / f"answers-{'-'.join(str(value) for value in key.values())}.json"
        file.unlink(missing_ok=True)
        what = "decode" if row.kind == "decode" else "answer"
        options: dict[str, Any] = {"model": self.home / row.model, "dtype": dtype, "out": file}
        options["requests"] = self.requests(row, tuning=tuning)
        if system == "lm-eval":
            done = self.peer(what, batch=batch, **options)
        else:
            done = self.ours(what, kernel=system, batch=row.batch if row.kind == "decode" else None, **options)
        found = Measurement(**key, status=done.status, whole_seconds=done.seconds, peak_bytes=done.peak_bytes)
        if done.status == "done":
            wrote = json.loads(file.read_text(encoding="utf-8"))
            found.seconds, found.load_seconds, found.answers = wrote["seconds"], wrote["load_seconds"], file.name
            for name in ("kernel", "tokens_computed", "tokens_generated"):
                setattr(found, name, wrote.get(name, getattr(found, name)))
        self.state.measurements.append(found)
        self.save()
        part = f" (part, batch {batch})" if tuning else f" (batch {batch})" if batch else f" ({found.kernel})"
        time = f"{found.seconds:8.2f} s" if found.seconds is not None else "         -"
        say(
            f"  {system + part:<52.52} {time}  whole {done.seconds:7.1f} s  {done.peak_bytes / 2**30:5.2f} GiB  {done.status}"
        )
        return found

    def batches(self, row: Row, dtype: str) -> list[int]:
        """The peer's batch sizes, the fastest on a part of the row first; without those with which it did not finish."""
        if row.kind == "decode":
            return [row.batch or 1]
        tried = [self.measure(row, dtype, "lm-eval", batch=batch, tuning=True) for batch in PEER_BATCHES]
        good = [one for one in tried if one.seconds is not None]
        return [one.batch for one in sorted(good, key=lambda one: one.seconds or 0)]

    def peer_row(self, row: Row, dtype: str, batches: list[int], repeat: int) -> None:
        """The peer on the whole row, at the fastest batch size that gets through it."""
        for batch in batches:
            if self.measure(row, dtype, "lm-eval", batch=batch, repeat=repeat).status == "done":
                return

    def row(self, row: Row, dtype: str) -> None:
        say(f"{row.title} - {row.model}, {dtype}")
        self.count_work(row)
        has_peer = row.kind != "growth"
        batches = self.batches(row, dtype) if has_peer else []
        for repeat in range(self.args.repeats):
            # In turns, and in the other order every second time.
            systems = [*(OURS[dtype] if has_peer else ["auto"]), "lm-eval"]
            for system in systems[:: -1 if repeat % 2 else 1]:
                if system == "lm-eval":
                    self.peer_row(row, dtype, batches, repeat)
                else:
                    self.measure(row, dtype, system, repeat=repeat)
        for system in OURS[dtype] if has_peer else ():
            self._compare(row, dtype, system)
        if has_peer:
            for system in OURS[dtype]:
                say(f"  {tables.summary(self.state, row, dtype, system)}")

    def _compare(self, row: Row, dtype: str, system: str) -> None:
        def answers(name: str) -> Any:
            done = [m for m in tables.of(self.state, row.name, dtype, name) if m.answers]
            return json.loads((self.out / done[0].answers).read_text(encoding="utf-8"))["answers"] if done else None

        ours = answers(system)
        if ours is not None:
            lines = [json.loads(line) for line in self.requests(row).read_text(encoding="utf-8").splitlines()]
            found = compare(row.kind, lines, ours, answers("lm-eval"))
            self.state.comparisons[f"{row.name} {dtype} {system}"] = found
            self.save()

    def forget(self, rows: list[Row], dtypes: list[str]) -> None:
        """--redo: what was measured of these rows is dropped."""
        names = {row.name for row in rows}
        kept = [m for m in self.state.measurements if not (m.row in names and m.dtype in dtypes)]
        self.state.measurements = kept
        for name in names:
            self.state.work.pop(name, None)
        self.save()


def say(line: str) -> None:
    print(line, flush=True)


def _versions(home: Path) -> dict[str, str]:
    names = ("lm_eval", "transformers", "torch")
    code = f"import importlib.metadata as m, json; print(json.dumps({{n: m.version(n) for n in {names!r}}}))"
    theirs = json.loads(subprocess.run([home / "venv/bin/python", "-c", code], capture_output=True, check=True).stdout)
    ours = {name: importlib.metadata.version(name) for name in ("lydite", "transformers", "torch")}
    both = {f"{name} (peer)": version for name, version in theirs.items() if name != "lm_eval"}
    return {"python": sys.version.split()[0], "lm-eval": theirs["lm_eval"], **ours, **both}


def _home(peers: Path) -> Path:
    """The peer's built folder; its setup.sh is run where there is none yet."""
    home = Path(os.environ.get("LYDITE_PEERS", Path.home() / ".cache/lydite-peers"))
    built = all(
        (home / name).exists() for name in ("venv/bin/lm_eval", "data/wikitext2_pages.jsonl", "smol", "gemma270")
    )
    if not built:
        say(f"building the peer in {home}; this takes minutes")
        done = subprocess.run([peers / "setup.sh"], stdout=subprocess.PIPE, check=True, text=True)
        home = Path(done.stdout.strip().splitlines()[-1])
    return home


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, required=True, help="folder with the peer's setup.sh and tasks/")
    parser.add_argument("--rows", default="", help="names or beginnings of names, with commas between; default: all")
    parser.add_argument("--dtype", default=",".join(DTYPES), help="float32, bfloat16 or both with a comma between")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--limit", type=int, help="at most that many documents a row: a trial, no measurement")
    parser.add_argument("--out", type=Path, default=Path("runs/lm_eval_speed"))
    parser.add_argument("--redo", action="store_true", help="measure the named rows anew")
    parser.add_argument("--docs", type=Path, help="write benchmarks.md, .json and .png there")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the running process is ended too
    args.peers = args.peers.resolve()
    rows, dtypes = rows_named(args.rows), args.dtype.split(",")
    if unknown := set(dtypes) - set(DTYPES):
        raise SystemExit(f"no dtype {min(unknown)!r} here; there are {', '.join(DTYPES)}")
    bench = Bench(args, _home(args.peers))
    if args.redo:
        bench.forget(rows, dtypes)
    bench.measure_peaks()
    for row in rows:
        for dtype in dtypes:
            bench.row(row, dtype)
    if args.docs:
        tables.write_docs(bench.state, args.docs)
        say(f"wrote {args.docs / 'benchmarks.md'}")


if __name__ == "__main__":
    main()
