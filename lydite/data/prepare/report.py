"""What each step did, counted: the `report` of corpus.json and the table on the screen.

Contract: for every source, what was read and cut is what was kept plus what was removed, reason by reason.
"""

from typing import Any

import msgspec

from lydite.data.prepare.clean import Counts

_NOT_REMOVED = ("read", "normalized", "cut")


class SourceReport(msgspec.Struct, kw_only=True):
    """One source. Pairs are [documents, UTF-8 bytes]."""

    read: list[int] = msgspec.field(default_factory=lambda: [0, 0])
    """Raw documents, and bytes of the file (with the JSON around them)."""
    normalized: int = 0
    """Documents that the normal form changed (white space at the ends aside)."""
    cut: int = 0
    """Documents more, since longer ones were cut."""
    special: int = 0
    """Special tokens within documents that came as tokens, taken out; those at their ends are not counted."""
    removed: Counts = msgspec.field(default_factory=dict)
    """Reason to what went: rules, languages, evaluation items, duplicates."""
    kept: list[int] = msgspec.field(default_factory=lambda: [0, 0])
    languages: dict[str, int] = msgspec.field(default_factory=dict)
    """Kept before duplicates were removed, where languages are known."""
    written: dict[str, list[int]] = msgspec.field(default_factory=dict)
    """Split to [documents, bytes, tokens], with repetition."""


class Report(msgspec.Struct, kw_only=True):
    """The whole."""

    sources: dict[str, SourceReport] = msgspec.field(default_factory=dict)
    repeats: dict[str, float] = msgspec.field(default_factory=dict)
    """Part of the mixture (source or language) to how often it is used; 1.5: half of its documents once more."""
    overlap_texts: dict[str, int] = msgspec.field(default_factory=dict)
    """Task to the texts of its items that were looked for."""
    overlap_too_short: dict[str, int] = msgspec.field(default_factory=dict)
    """Of these, so many have too few words to be found."""
    num_without_tokens: int = 0
    """Documents that the tokenizer turned into nothing."""
    notes: list[str] = msgspec.field(default_factory=list)
    """What a reader should know."""

    def add(self, source: str, counts: Counts, languages: list[str]) -> None:
        """The counts of a cleaned chunk."""
        entry = self.sources[source]
        for reason, (documents, size) in counts.items():
            if reason == "read":
                entry.read = [entry.read[0] + documents, entry.read[1] + size]
            elif reason == "normalized":
                entry.normalized += documents
            elif reason == "cut":
                entry.cut += documents
            elif reason == "special":
                entry.special += documents
            else:
                self.remove(source, reason, documents, size)
        for language in languages:
            if language:
                entry.languages[language] = entry.languages.get(language, 0) + 1

    def remove(self, source: str, reason: str, documents: int, size: int) -> None:
        """Documents of a source that go for a reason."""
        if documents:
            pair = self.sources[source].removed.setdefault(reason, [0, 0])
            pair[0] += documents
            pair[1] += size

    def to_builtins(self) -> dict[str, Any]:
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain
