"""Where a benchmark's rows come from: a local folder in the original layout, else the Hugging Face hub.

The folder is the `data_dir` that was asked for, else what LYDITE_DATA names. Nothing is read until samples are wanted,
so a task can score stored outputs on a machine without its data; a missing file is one DataError then.
"""

import importlib.util
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lydite.data.files import Row
from lydite.errors import DataError
from lydite.tasks.common import Samples, fingerprint
from lydite.types import Sample

_COMMIT = re.compile(r"@([0-9a-f]{40})/")
"""In the addresses of the files that `datasets` has fetched."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """The files of one benchmark."""

    files: Mapping[str, tuple[str, ...]]
    """Split to paths below the data folder; the first that exists is used."""
    read: Callable[[Path], Iterable[Row]]
    repository: str
    """On the hub; empty where no copy there gives the same samples."""
    configuration: str | None = None
    splits: Mapping[str, str]
    """Split to its name on the hub."""
    revision: str | None = None
    """On the hub; "refs/convert/parquet" where the main branch is a loading script, which `datasets` no longer runs."""
    beside: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """File name to names in the same folder that `read` opens too, so that they count in the fingerprint."""
    original: str = ""
    """Where the original files can be had."""
    reshape: Callable[[Iterable[Row]], Iterator[Row]] | None = None
    """Rows of the hub to rows as `read` gives them, where the two differ in more than names."""


@dataclass(frozen=True)
class Found:
    """A Source after looking for its files."""

    name: str
    source: Source
    folder: Path | None
    """The data folder that was searched."""
    paths: Mapping[str, Path]
    """Split to file, for the files that exist."""
    origin: dict[str, str]
    """Which file is evaluated (partial copies say so in their names), or which repository of the hub and, once it has been
    read, which commit; for the run's environment."""

    @property
    def is_local(self) -> bool:
        """Whether the split that is evaluated is on this machine."""
        return "test" in self.paths

    def rows(self, split: str) -> Iterator[Row]:
        """Yields (line, row) of a split. Raises DataError that says where it looked and how to get the data."""
        if split in self.paths:
            yield from self.source.read(self.paths[split])
        elif self.is_local or not self.source.repository or not hub_is_possible():
            raise self._missing(split)
        else:
            rows = enumerate(self._from_hub(split), 1)
            yield from self.source.reshape(rows) if self.source.reshape else rows

    def place(self, split: str) -> str:
        """How error messages call a split."""
        return str(self.paths.get(split, f"{self.source.repository} ({self.source.splits.get(split, split)})"))

    def fingerprint(self, *parts: str) -> str:
        """Hash of the parts and of the data files, or of their name on the hub."""
        hub = () if self.is_local else (self.source.repository, self.source.configuration or "")
        files = list(self.paths.values())
        files += [path.parent / name for path in files for name in self.source.beside.get(path.name, ())]
        return fingerprint([self.name, *parts, *hub], files)

    def _missing(self, split: str) -> DataError:
        wanted = " or ".join(self.source.files.get(split, (f"file for split {split!r}",)))
        looked = f"in {self.folder.resolve()}" if self.folder else "since no data folder is named"
        hub = "fetched from the hub" if hub_is_possible() else "fetched from the hub after pip install 'lydite[data]'"
        ways = [f"{self.source.original} has it"] if self.source.original else []
        if self.source.repository and not self.is_local:
            ways.append(f"{self.source.repository} can be {hub}")
        return DataError(
            f"{self.name}: no {wanted} {looked}; point --data-dir or LYDITE_DATA at a folder that holds it"
            + (f" ({', and '.join(ways)})" if ways else "")
        )

    def _from_hub(self, split: str) -> Iterator[dict[str, Any]]:
        from datasets import load_dataset

        if split not in self.source.splits:
            raise self._missing(split)
        try:
            rows = load_dataset(
                self.source.repository,
                self.source.configuration,
                split=self.source.splits[split],
                revision=self.source.revision,
            )
        except (OSError, ValueError, RuntimeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise DataError(
                f"{self.name}: cannot fetch {self.source.repository} from the hub ({reason}); "
                f"or point --data-dir or LYDITE_DATA at a folder that holds {self.source.files['test'][0]}"
            ) from error
        commits = sorted(set(_COMMIT.findall(" ".join(rows.download_checksums or ()))))
        if commits:
            self.origin["revision"] = ", ".join(commits)
        for row in rows:
            yield dict(row)


def hub_is_possible() -> bool:
    """Whether the `datasets` library is installed; it is not imported to find out."""
    return importlib.util.find_spec("datasets") is not None


def data_folder(data_dir: Path | None) -> Path | None:
    """The folder to search: the one asked for, else LYDITE_DATA, else none."""
    if data_dir is not None:
        return data_dir
    named = os.environ.get("LYDITE_DATA")
    return Path(named) if named else None


def find(name: str, source: Source, data_dir: Path | None) -> Found:
    """Looks for the files of a source. Missing ones are no error yet."""
    folder = data_folder(data_dir)
    paths = {}
    for split, candidates in source.files.items():
        existing = [folder / path for path in candidates if folder and (folder / path).is_file()]
        if existing:
            paths[split] = existing[0]
    data = str(paths["test"]) if "test" in paths else f"hub:{source.repository or 'none'}"
    return Found(name, source, folder, paths, {"data": data})


def samples_of(
    found: Found, make: Callable[[str, dict[str, Any]], Sample | None], *, ids: Literal["line", "row"] = "line"
) -> Samples:
    """Samples by split, each made by `make` from (id, row); None leaves a row out.

    The id is the line number, or the number of the row from 0 (the same in a file with a header and on the hub), marked
    with the split where examples come from, so that the two never meet.
    """

    def samples(split: str) -> Iterator[Sample]:
        mark = "" if split == "test" else f"{split}-"
        for number, (line, row) in enumerate(found.rows(split)):
            try:
                sample = make(f"{mark}{line if ids == 'line' else number}", row)
            except (KeyError, IndexError, TypeError, ValueError) as error:
                what = f"no column {error}" if isinstance(error, KeyError) else str(error)
                raise DataError(
                    f"{found.place(split)}, line {line}: {what}; this is not the layout of {found.name} "
                    f"(columns: {', '.join(map(str, row))})"
                ) from error
            if sample is not None:
                yield sample

    return samples
