"""What a tokenizer is to be: the settings of `lydite tokenizer train`, checked together before any text is read."""

from typing import Literal

from lydite.data.tokenizers.families import Family, family_named
from lydite.data.tokenizers.pieces import Kind, Normalization
from lydite.errors import UserError
from lydite.types import Record

KINDS: tuple[Kind, ...] = ("bpe", "wordpiece", "unigram", "characters")
DEFAULT_FAMILY: dict[str, str] = {"bpe": "gpt2", "wordpiece": "bert", "unigram": "t5", "characters": "gpt2"}
NUM_BYTES = 256
UNK = "<unk>"
"""Stands for unknown characters where the family has no token of its own for them (GPT-2's is the end of a text)."""


class TokenizerSettings(Record, frozen=True, kw_only=True):
    """Everything that shapes a tokenizer, but the text."""

    kind: Kind = "bpe"
    family: str = "gpt2"
    vocab_size: int = 16_384
    """Tokens in all: special tokens, bytes and reserved ones counted."""
    lowercase: bool = False
    normalization: Normalization | None = None
    """Default: nfc for unigram, none for the others. nfkc also makes full-width punctuation and digits half-width."""
    character_coverage: float | None = None
    """Share of the text's characters that get tokens of their own; the rarest beyond it are spelled as bytes, or unknown.
    Default: 0.9995 with bytes to fall back on, else 1."""
    byte_fallback: bool | None = None
    """Unknown characters as tokens of their bytes. Default: yes for unigram, no for characters; bpe always has them."""
    min_frequency: int = 2
    """A pair seen less often is not merged (bpe and wordpiece)."""
    multiple_of: int = 1
    """vocab_size is rounded up to a multiple of this (64 helps matrix products); where the text gives fewer tokens, reserved
    ones fill up to a multiple."""

    def described(self) -> Family:
        """The family. Raises UserError where settings do not go together."""
        family = family_named(self.family)
        if self.kind not in KINDS:
            raise UserError(f"--kind {self.kind!r} is not known; choose one of {', '.join(KINDS)}")
        if self.character_coverage is not None and not 0.9 <= self.character_coverage <= 1:
            raise UserError("character_coverage is a share between 0.9 and 1")
        if min(self.min_frequency, self.multiple_of) < 1:
            raise UserError("min_frequency and multiple_of must be 1 or more")
        if self.kind == "wordpiece" and self.byte_fallback:
            raise UserError("WordPiece has no bytes to fall back on; leave byte_fallback out, or choose another --kind")
        if self.kind == "bpe" and self.byte_fallback is False:
            raise UserError("byte-level BPE is made of bytes; leave byte_fallback out, or choose another --kind")
        if self.kind == "wordpiece" and self.normalization not in (None, "none"):
            raise UserError("WordPiece normalizes as BERT does; leave normalization out, or choose another --kind")
        room = self.num_pieces(family)
        if room < 16:
            least = self.vocab_size - room + 16
            raise UserError(
                f"--vocab-size {self.vocab_size} leaves no room beside the special tokens; take {least} or more"
            )
        return family

    @property
    def has_bytes(self) -> bool:
        """Whether any text can be written in its tokens."""
        default = self.kind in ("bpe", "unigram")
        return default if self.byte_fallback is None else self.byte_fallback

    @property
    def form(self) -> Literal["none", "nfc", "nfkc"]:
        return self.normalization or ("nfc" if self.kind == "unigram" else "none")

    @property
    def coverage(self) -> float:
        if self.character_coverage is not None:
            return self.character_coverage
        return 0.9995 if self.has_bytes else 1.0

    def also(self, family: Family) -> tuple[str, ...]:
        """A token for unknown characters where they are needed and the family has none of its own."""
        unknown = family.roles["unk_token"]
        needed = self.kind in ("wordpiece", "characters", "unigram") and unknown == family.roles.get("eos_token")
        return (UNK,) if needed else ()

    def num_pieces(self, family: Family) -> int:
        """Tokens left for pieces of text."""
        whole = -(-self.vocab_size // self.multiple_of) * self.multiple_of
        return whole - len(family.specials) - len(self.also(family)) - NUM_BYTES * self.has_bytes
