"""`prepare`: sources to a corpus folder, in four steps, and what happens when one of them is interrupted.

The work stands in OUT/.prepare. The first two steps (read, resolve) are begun anew if they were not finished; the third keeps
every finished bucket; the fourth is begun anew. corpus.json comes last, when every shard is in its place. Work that belongs to
other sources or settings is thrown away, a complete corpus with others is refused.
"""

import contextlib
import hashlib
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

import lydite
from lydite.data.corpus import INFO, TOKENIZER, WORK, CorpusInfo, SplitInfo, read_info
from lydite.data.prepare.buckets import FIELDS, Buckets, bits_for, cannot_write
from lydite.data.prepare.clean import Cleaner
from lydite.data.prepare.encode import load_tokenizer, vocab_size
from lydite.data.prepare.languages import check_language_library
from lydite.data.prepare.overlap import BannedText, Overlap
from lydite.data.prepare.pieces import merge
from lydite.data.prepare.recipe import HUB, Recipe, Settings
from lydite.data.prepare.report import Report, SourceReport
from lydite.data.prepare.resolve import Sizes, mark_near_duplicates, plan, repeats, walk
from lydite.data.prepare.simple import copy_tokenizer, save_bytes_tokenizer, save_characters_tokenizer
from lydite.data.prepare.sources import File, find_files, read_chunks
from lydite.data.prepare.tokens import check_tokens
from lydite.data.prepare.workers import Bucket, Workers, available_cores, characters_of_bucket, clean_chunk, encode_one
from lydite.data.shards import token_dtype
from lydite.errors import DataError, RunError, UserError
from lydite.runs import content_hash, encode, lock, write_bytes, write_json

OVERLAPS = "overlaps.jsonl"
"""In the corpus: a line a document that went because it holds evaluation items."""
_SMALL = 4 << 20
"""Bytes of input for which starting processes does not pay."""
_UNKNOWN = 4 << 30
"""Bytes that a data set of the hub is taken to have."""

OnProgress = Callable[[str, int, int | None, int], None]
"""(step, bytes done, bytes in all or None, documents done)."""


class State(msgspec.Struct, frozen=True, kw_only=True):
    """WORK/state.json, written when the first two steps are done."""

    request: str
    """Hash of sources, settings and versions."""
    bits: int
    report: Report
    size: int
    """Bytes of text to encode, with repetition."""


class _Job(msgspec.Struct, frozen=True, kw_only=True):
    recipe: Recipe
    files: list[File]
    banned: list[BannedText]
    out: Path
    work: Path
    workers: Workers
    overlap: Overlap | None
    on_progress: OnProgress
    notes: list[str]
    request: dict[str, Any]
    """What decides the corpus, as corpus.json keeps it."""


def prepare(
    recipe: Recipe,
    out: Path,
    *,
    banned_texts: Iterable[BannedText] = (),
    workers: int | None = None,
    on_progress: OnProgress = lambda step, done, total, documents: None,
) -> CorpusInfo:
    """Makes the corpus folder `out`, or goes on with it, or finds it complete; returns its corpus.json.

    `banned_texts`: texts of evaluation items that no document may hold. `workers`: processes; default: one a core, and one
    alone for a few megabytes. Raises UserError for anything that a user can mend.
    """
    settings = recipe.settings
    if settings.needs_language and not all(source.language for source in recipe.sources):
        check_language_library()
    files = find_files(recipe.sources)
    known = _tokenizer_hash(recipe)
    notes = check_tokens([file.path for file in files if file.kind == "tokens"], recipe.tokenizer, settings.rules)
    banned = sorted(set(banned_texts))
    size = sum(file.size for file in files) + sum(_UNKNOWN for s in recipe.sources if s.path.startswith(HUB))
    overlap = Overlap(banned, settings.overlap_ngram, settings.overlap_min) if banned else None
    number = workers or (1 if size < _SMALL else available_cores())
    job = _Job(
        recipe=recipe,
        files=files,
        banned=banned,
        out=out,
        work=out / WORK,
        workers=Workers(number, Cleaner(settings, recipe.sources, overlap, Path(recipe.tokenizer))),
        overlap=overlap,
        on_progress=on_progress,
        notes=notes,
        request={
            "sources": _plain(recipe.sources),
            "files": [[str(file.path), file.path.stat().st_size] for file in files],
            "settings": _plain(settings),
            "tokenizer": known,
            "evaluation_items": content_hash(banned) if banned else None,
        },
    )
    with _locked(out):
        if (out / INFO).exists():
            return _complete(out, job.request)
        try:
            with job.workers:
                return _prepare(job, bits_for(size))
        except OSError as error:
            raise cannot_write(out, error) from error


def _plain(value: Any) -> Any:
    """As it is when it has been read again: lists where tuples were."""
    return msgspec.json.decode(msgspec.json.encode(value))


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    """The folder for this process alone; it holds a corpus, the work on one, or nothing."""
    if out.is_file():
        raise UserError(f"{out} is a file, and --out is a folder; choose another one")
    if out.is_dir() and not (out / INFO).exists() and not (out / WORK).is_dir():
        foreign = [path.name for path in out.iterdir() if path.name != ".lock"]
        if foreign:
            raise UserError(f"{out} holds other files ({foreign[0]} ...); choose an --out that is empty or new")
    with lock(out):
        yield


def _complete(out: Path, request: dict[str, Any]) -> CorpusInfo:
    """The corpus that is there already, if it is the one asked for."""
    info = read_info(out)
    if info.settings != request:
        differing = [key for key in request if info.settings.get(key) != request[key]]
        old, new = info.settings.get("settings", {}), request["settings"]
        inner = [f"{key} was {old.get(key)!r}, now {new[key]!r}" for key in new if old.get(key) != new[key]]
        names = ", ".join([key for key in differing if key != "settings"] + inner)
        raise RunError(f"{out} holds a corpus made otherwise ({names}); choose another --out, or delete it")
    shutil.rmtree(out / WORK, ignore_errors=True)  # of a process that ended between corpus.json and tidying up
    return info


def _tokenizer_hash(recipe: Recipe) -> str:
    """Names the tokenizer by its content; checks that it can be loaded before any work is done."""
    if not recipe.tokenizer:
        raise UserError(
            "name a --tokenizer: a folder that `lydite tokenizer train` or transformers saved, bytes or characters"
        )
    if recipe.tokenizer in ("bytes", "characters"):
        return recipe.tokenizer
    load_tokenizer(Path(recipe.tokenizer))
    return hashlib.sha256((Path(recipe.tokenizer) / "tokenizer.json").read_bytes()).hexdigest()[:16]


def _prepare(job: _Job, bits: int) -> CorpusInfo:
    begun = time.time()
    stamps = [[str(file.path), file.path.stat().st_mtime_ns] for file in job.files]
    state = _state(job, content_hash([job.request, stamps, bits, FIELDS, lydite.__version__], 32), bits)
    folder = _tokenizer(job, state)
    size = vocab_size(load_tokenizer(folder))
    dtype = token_dtype(size)
    report = state.report
    done = documents = 0
    names = [source.name for source in job.recipe.sources]
    job.on_progress("encode", 0, state.size, 0)
    buckets = (Bucket(job.work, number, folder, dtype, len(names)) for number in range(1 << bits))
    for piece in job.workers.ordered(encode_one, buckets):
        done += piece.size
        report.num_without_tokens += piece.num_without_tokens
        for split, entries in piece.written.items():
            documents += sum(entry[0] for entry in entries)
            for name, entry in zip(names, entries, strict=True):
                total = report.sources[name].written.setdefault(split, [0, 0, 0])
                report.sources[name].written[split] = [a + b for a, b in zip(total, entry, strict=True)]
        job.on_progress("encode", done, state.size, documents)
    splits = _merge(job, bits, dtype, state.size, documents)
    return _finish(job, folder, splits, dtype, size, report, begun)


def _state(job: _Job, request: str, bits: int) -> State:
    """The first two steps, done now or by an earlier process."""
    path = job.work / "state.json"
    if path.exists():
        with contextlib.suppress(msgspec.DecodeError, ValueError):
            state = msgspec.json.decode(path.read_bytes(), type=State)
            if state.request == request:
                return state
    if job.work.exists():
        shutil.rmtree(job.work)
    job.work.mkdir(parents=True)
    report, parts = _read(job, bits)
    size = _resolve(job, bits, report, parts)
    state = State(request=request, bits=bits, report=report, size=size)
    write_bytes(path, msgspec.json.encode(state))
    return state


def _read(job: _Job, bits: int) -> tuple[Report, list[str]]:
    """Step 1. The report so far, and the parts of the mixture."""
    sources, settings = job.recipe.sources, job.recipe.settings
    report = Report(sources={source.name: SourceReport() for source in sources}, notes=list(job.notes))
    if job.overlap is not None:
        report.overlap_texts, report.overlap_too_short = job.overlap.num_texts, job.overlap.num_too_short
    parts = {} if settings.mix_by == "language" else {source.name: number for number, source in enumerate(sources)}
    done = documents = 0
    total = sum(file.size for file in job.files) if not any(s.path.startswith(HUB) for s in sources) else None
    chunks = read_chunks(sources, job.files, settings.max_characters)
    with Buckets(job.work, bits) as buckets, open(job.work / OVERLAPS, "wb") as overlaps:
        for cleaned in job.workers.ordered(clean_chunk, chunks):
            name = sources[cleaned.source].name
            of_mixture = cleaned.languages if settings.mix_by == "language" else [name] * len(cleaned.texts)
            buckets.add(cleaned, [parts.setdefault(part, len(parts)) for part in of_mixture])
            report.add(name, cleaned.counts, cleaned.languages)
            for line in cleaned.overlaps:
                overlaps.write(encode(line) + b"\n")
            done += cleaned.size
            documents += cleaned.counts["read"][0]
            job.on_progress("read", done, total, documents)
    _check_languages(report, settings)
    return report, list(parts)


def _check_languages(report: Report, settings: Settings) -> None:
    if "gopher_quality" in settings.rules and not settings.needs_language:
        report.notes.append("gopher_quality: English stop words not asked for, since languages were not identified")


def _resolve(job: _Job, bits: int, report: Report, parts: Sequence[str]) -> int:
    """Step 2. Bytes of text that will be encoded."""
    settings, sources = job.recipe.settings, job.recipe.sources
    num_read = sum(entry.read[0] + entry.cut for entry in report.sources.values())
    if not num_read:
        raise DataError("the sources hold no document; check their paths")
    job.on_progress("duplicates", 0, None, num_read)
    if settings.near_duplicates:
        kept = num_read - sum(pair[0] for entry in report.sources.values() for pair in entry.removed.values())
        mark_near_duplicates(job.work, bits, kept, settings.near_threshold)
    sizes = Sizes(len(sources), len(parts))
    walk(job.work, bits, settings, sizes)
    for number, source in enumerate(sources):
        report.remove(source.name, "exact duplicate", *sizes.exact[number].tolist())
        report.remove(source.name, "near-duplicate", *sizes.near[number].tolist())
        report.sources[source.name].kept = sizes.kept[number].tolist()
    if not sizes.kept[:, 0].sum():
        raise DataError(f"no document is left: {_reasons(report)}; loosen the rules or languages")
    by_part = dict(zip(parts, sizes.part_bytes.tolist(), strict=True))
    weights = {source.name: source.weight for source in sources if source.weight is not None}
    report.repeats = repeats(by_part, weights, settings)
    plan(job.work, bits, [report.repeats[part] for part in parts], settings)
    return sum(round(by_part[part] * report.repeats[part]) for part in parts)


def _reasons(report: Report) -> str:
    total: dict[str, int] = {}
    for entry in report.sources.values():
        for reason, pair in entry.removed.items():
            total[reason] = total.get(reason, 0) + pair[0]
    most = sorted(total.items(), key=lambda item: -item[1])[:3]
    return ", ".join(f"{count:,} went for {reason!r}" for reason, count in most)


def _tokenizer(job: _Job, state: State) -> Path:
    """The folder of the tokenizer in WORK, made or copied there."""
    folder = job.work / TOKENIZER
    asked = job.recipe.tokenizer
    if (folder / "tokenizer.json").exists():
        return folder
    if asked == "bytes":
        save_bytes_tokenizer(folder)
    elif asked == "characters":
        found: set[str] = set()
        places = ((job.work, number) for number in range(1 << state.bits))
        for characters in job.workers.ordered(characters_of_bucket, places):
            found.update(characters)
        save_characters_tokenizer(folder, found)
    else:
        copy_tokenizer(Path(asked), folder)
    return folder


def _merge(job: _Job, bits: int, dtype: str, size: int, documents: int) -> dict[str, SplitInfo]:
    """Step 4."""
    shards = job.work / "shards"
    shutil.rmtree(shards, ignore_errors=True)
    shards.mkdir()
    done = 0
    job.on_progress("merge", 0, size, documents)
    for step in merge(job.work, 1 << bits, dtype, shards):
        if isinstance(step, dict):
            return step
        done += step
        job.on_progress("merge", done, size, documents)
    raise AssertionError("merge ends with the splits")


def _finish(
    job: _Job, folder: Path, splits: dict[str, SplitInfo], dtype: str, vocab: int, report: Report, begun: float
) -> CorpusInfo:
    if not splits["train"].num_documents:
        raise DataError("no document is left for training; lower --set validation, or give more text")
    if job.recipe.settings.validation and not splits["validation"].num_documents:
        report.notes.append("the split validation is empty: with so few documents none fell into it; raise validation")
    splits = {name: split for name, split in splits.items() if split.num_documents}
    tokenizer = hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest()
    shards = {name: [shard.sha256 for shard in split.shards] for name, split in splits.items()}
    info = CorpusInfo(
        hash=content_hash([dtype, vocab, tokenizer, shards], 32),
        dtype="uint16" if dtype == "uint16" else "uint32",
        vocab_size=vocab,
        splits=splits,
        settings=job.request,
        report=report.to_builtins(),
        environment={
            "lydite": lydite.__version__,
            "python": platform.python_version(),
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "seconds": f"{time.time() - begun:.1f}",
            "workers": str(job.workers.number),
        },
    )
    for old in job.out.glob("*-[0-9][0-9][0-9][0-9][0-9].*"):  # of a process that ended while it moved shards
        old.unlink()
    for path in sorted((job.work / "shards").iterdir()):
        os.replace(path, job.out / path.name)
    shutil.rmtree(job.out / TOKENIZER, ignore_errors=True)
    shutil.copytree(folder, job.out / TOKENIZER)
    if job.banned:
        os.replace(job.work / OVERLAPS, job.out / OVERLAPS)
    write_json(job.out / INFO, info)
    shutil.rmtree(job.work, ignore_errors=True)
    return info
