"""Which documents stay, how often each is used, and where: decided over rows of a few bytes, without the texts.

Exact duplicates: of equal keys the first document in the order of the input stays. Near-duplicates: in each group that
shares a band, a document goes that is `near_threshold` alike to the group's first, kept or not. So one pass settles it, in
memory that does not grow; a chain of ever later versions goes as a whole to its first one.

Mixture: a part of n_i bytes and share p_i is used r_i = p_i N / n_i times, where N is as large as it may be: no part more
often than `max_repeats` and, if that allows it, every part at least once. p_i is proportional to the stated weight, or to
n_i^(1/temperature) (Arivazhagan et al. 2019 for the formula; Muennighoff et al. 2023 for repeating up to four times). A
fraction of a repeat goes to documents by their hash. Copies stand anywhere in the shuffled order; a document of the split
`validation` is used at most once.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lydite.data.prepare.buckets import BAND, FIELDS, ROW, Rows, bucket_of, cannot_write, name, read_array, sync
from lydite.data.prepare.duplicates import HASHES, similarity
from lydite.data.prepare.ngrams import mix
from lydite.data.prepare.recipe import Settings

PLAN = np.dtype([*FIELDS, ("bucket", "<u2"), ("copy", "<u2"), ("validation", "<u1")])
"""A document as it will be used: its row, the bucket that holds its text, which copy it is, and its split."""
_PAIRS = 1 << 16


def mark_near_duplicates(work: Path, bits: int, num_documents: int, threshold: float) -> None:
    """Writes WORK/near: a byte a document, 1 where an earlier one is nearly alike."""
    path = work / "near"
    if not num_documents:
        path.write_bytes(b"")
        return
    near = np.memmap(path, np.uint8, "w+", shape=(num_documents,))
    signatures = np.memmap(work / "signatures", np.uint8, "r").reshape(-1, HASHES)
    assert len(signatures) == num_documents, "every document has a signature"
    for number in range(1 << bits):
        rows = read_array(work / name("bands", number), BAND)
        rows = rows[np.argsort(rows["hash"], kind="stable")]  # documents stand in order already
        if len(rows) < 2:
            continue
        starts = np.flatnonzero(np.r_[True, rows["hash"][1:] != rows["hash"][:-1]])
        first = np.repeat(starts, np.diff(np.r_[starts, len(rows)]))
        later = np.flatnonzero(first != np.arange(len(rows)))
        for begin in range(0, len(later), _PAIRS):
            some = later[begin : begin + _PAIRS]
            mine, theirs = rows["document"][some], rows["document"][first[some]]
            alike = similarity(signatures[mine], signatures[theirs]) >= threshold
            near[mine[alike]] = 1
    near.flush()


class Sizes:
    """What a first walk over all rows found: by source what went, by part of the mixture what is there for training."""

    def __init__(self, num_sources: int, num_parts: int) -> None:
        self.exact = np.zeros((num_sources, 2), np.int64)
        self.near = np.zeros((num_sources, 2), np.int64)
        self.kept = np.zeros((num_sources, 2), np.int64)
        """[sources, (documents, bytes)]."""
        self.part_bytes = np.zeros(num_parts, np.int64)


def walk(work: Path, bits: int, settings: Settings, sizes: Sizes) -> None:
    """First walk: marks duplicates in WORK/kept-* and counts."""
    near = (
        np.memmap(work / "near", np.uint8, "r") if settings.near_duplicates and (work / "near").stat().st_size else None
    )
    for number in range(1 << bits):
        rows = read_array(work / name("rows", number), ROW)
        exact = _repeats(rows) if settings.exact_duplicates else np.zeros(len(rows), bool)
        alike = ~exact & (near[rows["document"]] > 0) if near is not None else np.zeros(len(rows), bool)
        kept = ~exact & ~alike
        for mask, table in ((exact, sizes.exact), (alike, sizes.near), (kept, sizes.kept)):
            np.add.at(table, rows["source"][mask], np.stack([np.ones(mask.sum(), np.int64), rows["size"][mask]], 1))
        train = kept & ~is_validation(rows, settings.validation)
        np.add.at(sizes.part_bytes, rows["part"][train], rows["size"][train].astype(np.int64))
        (work / name("kept", number)).write_bytes(kept.astype(np.uint8).tobytes())


def _repeats(rows: Rows) -> NDArray[np.bool_]:
    """True where an earlier document has the same key."""
    order = np.lexsort((rows["document"], rows["low"], rows["high"]))
    high, low = rows["high"][order], rows["low"][order]
    again = np.zeros(len(rows), bool)
    again[order[1:]] = (high[1:] == high[:-1]) & (low[1:] == low[:-1])
    return again


def _fraction(values: NDArray[np.uint64], salt: int) -> NDArray[np.float64]:
    """A number in [0, 1) that follows from a key."""
    return mix(values ^ np.uint64(salt)).astype(np.float64) / 2.0**64


def is_validation(rows: Rows, share: float) -> NDArray[np.bool_]:
    """By the hash of the content: equal documents share a split, and a larger corpus keeps its documents in theirs."""
    return _fraction(rows["high"], 0x76616C69) < share


def repeats(sizes: Mapping[str, int], weights: Mapping[str, float], settings: Settings) -> dict[str, float]:
    """How often each part is used. `sizes`: bytes of each part; `weights`: stated shares, or none."""
    there = {part: size for part, size in sizes.items() if size}
    if weights:
        shares = {part: weights[part] for part in there}
    elif settings.temperature is not None:
        shares = {part: (size / max(there.values())) ** (1 / settings.temperature) for part, size in there.items()}
    else:
        return dict.fromkeys(sizes, 1.0)
    relative = {part: shares[part] / there[part] for part in there}
    if not relative:
        return dict.fromkeys(sizes, 1.0)
    scale = min(1 / min(relative.values()), settings.max_repeats / max(relative.values()))
    return {part: relative[part] * scale if part in there else 1.0 for part in sizes}


def plan(work: Path, bits: int, rates: Sequence[float], settings: Settings) -> None:
    """Second walk: writes WORK/plan-*, the rows of every document as often as it is used, by the bucket of its place."""
    rate = np.array(rates)
    try:
        files = [open(work / name("plan", number), "wb") for number in range(1 << bits)]  # noqa: SIM115
        for number in range(1 << bits):
            rows = read_array(work / name("rows", number), ROW)
            rows = rows[np.fromfile(work / name("kept", number), np.uint8) > 0]
            if not len(rows):
                continue
            wanted = rate[rows["part"]]
            copies = np.floor(wanted) + (_fraction(rows["low"], 0x636F7079) < wanted - np.floor(wanted))
            validation = is_validation(rows, settings.validation)
            copies = np.where(validation, np.minimum(copies, 1), copies).astype(np.int64)
            for copy in range(int(copies.max())):
                _append(files, rows[copies > copy], validation[copies > copy], number, copy, bits)
        for file in files:
            sync(file)
            file.close()
    except OSError as error:
        raise cannot_write(work, error) from error


def _append(files: Sequence[Any], rows: Rows, validation: NDArray[np.bool_], bucket: int, copy: int, bits: int) -> None:
    planned = np.zeros(len(rows), PLAN)
    for key, _ in FIELDS:
        planned[key] = rows[key]
    planned["bucket"], planned["copy"], planned["validation"] = bucket, copy, validation
    if copy:  # the copy's own place in the order
        planned["high"] = mix(rows["high"] + np.uint64(copy))
        planned["low"] = mix(rows["low"] + np.uint64(copy))
    places = bucket_of(planned["high"], bits)
    for place in np.unique(places):
        files[place].write(planned[places == place].tobytes())


def read_plan(work: Path, number: int) -> Rows:
    """The plan of a bucket, in the final order."""
    rows = read_array(work / name("plan", number), PLAN)
    return rows[np.lexsort((rows["copy"], rows["document"], rows["low"], rows["high"]))]
