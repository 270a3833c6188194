"""The four kinds of tokenizers, each trained by the `tokenizers` library and put into its final form.

Byte-level BPE is trained on characters and then spelled in bytes: each character that was kept is first put together from
its bytes, then the merges of characters follow. The result is an ordinary byte-level BPE, in which no token holds a part of
one character and a part of the next; where bytes are merged by frequency, on Chinese, some do. On ASCII text it is the
same thing.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from lydite.data.tokenizers import pieces
from lydite.data.tokenizers.alphabet import Alphabet, continues
from lydite.data.tokenizers.families import Family
from lydite.data.tokenizers.settings import NUM_BYTES, UNK, TokenizerSettings

Make = Callable[[Iterator[str], TokenizerSettings, Family, Alphabet], Tokenizer]
_SCORE_OF_NO_PIECE = 0.0
"""Of tokens that are never pieces of a text: special ones, and bytes."""

_DECIMALS, _STEP = 4, 1e-4
"""Kept digits of Unigram's scores, and the library's step between characters without a score of their own."""


def bpe(texts: Iterator[str], settings: TokenizerSettings, family: Family, alphabet: Alphabet) -> Tokenizer:
    """Byte-level BPE whose tokens are whole characters or parts of a single one."""
    spelling = _spell(alphabet.kept)
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pieces.bpe_splitter()
    _normalize(trained, settings)
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet.kept) + settings.num_pieces(family) - len(spelling),
        min_frequency=settings.min_frequency,
        initial_alphabet=list(alphabet.kept),
        show_progress=False,
    )
    trained.train_from_iterator(texts, trainer)
    merges = spelling + [(_in_bytes(a), _in_bytes(b)) for a, b in _model(trained)["merges"]]
    middle = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *dict.fromkeys(a + b for a, b in merges)]
    tokenizer = Tokenizer(models.BPE(vocab=_ids(vocabulary(middle, settings, family)), merges=merges))
    tokenizer.pre_tokenizer = pieces.byte_level()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    _normalize(tokenizer, settings)
    return tokenizer


def wordpiece(texts: Iterator[str], settings: TokenizerSettings, family: Family, alphabet: Alphabet) -> Tokenizer:
    """BERT's WordPiece: every Chinese character is a word."""
    unknown = unknown_token(settings, family)
    trained = Tokenizer(models.WordPiece(unk_token=unknown))
    trained.normalizer = pieces.bert_normalizer(settings.lowercase)
    trained.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=settings.num_pieces(family),
        min_frequency=settings.min_frequency,
        limit_alphabet=len(alphabet.kept) + 1,  # the library's own limit is 1,000
        # Named beforehand, since the library would number them in an order that it draws anew each time. Any word of
        # known letters can then be written, too.
        special_tokens=sorted(f"##{character}" for character in alphabet.kept if continues(character)),
        show_progress=False,
    )
    trained.train_from_iterator(texts, trainer)
    vocab = _model(trained)["vocab"]
    names = vocabulary(sorted(vocab, key=vocab.__getitem__), settings, family)
    tokenizer = Tokenizer(models.WordPiece(vocab=_ids(names), unk_token=unknown, max_input_chars_per_word=100))
    tokenizer.normalizer = pieces.bert_normalizer(settings.lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    return tokenizer


def unigram(texts: Iterator[str], settings: TokenizerSettings, family: Family, alphabet: Alphabet) -> Tokenizer:
    """SentencePiece's Unigram, with bytes for what is not covered."""
    unknown = unknown_token(settings, family)
    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = pieces.unigram_splitter(family.lossy_spaces)
    normalizer = pieces.unigram_normalizer(settings.form, settings.lowercase, family.lossy_spaces)
    if normalizer is not None:
        trained.normalizer = normalizer
    trainer = trainers.UnigramTrainer(
        vocab_size=settings.num_pieces(family) + 1,  # its token for the unknown is put among ours
        unk_token=unknown,
        special_tokens=[unknown],
        show_progress=False,
    )
    trained.train_from_iterator(texts, trainer)
    scores = _settled({piece: score for piece, score in _model(trained)["vocab"] if piece != unknown}, alphabet)
    names = vocabulary([*_byte_tokens(settings), *scores], settings, family)
    scored = [(name, scores.get(name, _SCORE_OF_NO_PIECE)) for name in names]
    tokenizer = Tokenizer(models.Unigram(scored, unk_id=names.index(unknown), byte_fallback=settings.has_bytes))
    tokenizer.pre_tokenizer = pieces.unigram_splitter(family.lossy_spaces)
    tokenizer.decoder = pieces.unigram_decoder(settings.has_bytes)
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    return tokenizer


def characters(texts: Iterator[str], settings: TokenizerSettings, family: Family, alphabet: Alphabet) -> Tokenizer:
    """A token a character: the alphabet, in the order of Unicode, is the vocabulary, and nothing is left to train."""
    names = vocabulary([*_byte_tokens(settings), *sorted(alphabet.kept)], settings, family)
    unknown = unknown_token(settings, family)
    tokenizer = Tokenizer(models.BPE(vocab=_ids(names), merges=[], unk_token=unknown, byte_fallback=settings.has_bytes))
    tokenizer.pre_tokenizer = pieces.characters_splitter()
    tokenizer.decoder = pieces.characters_decoder(settings.has_bytes)
    _normalize(tokenizer, settings)
    return tokenizer


MAKE: dict[str, Make] = {"bpe": bpe, "wordpiece": wordpiece, "unigram": unigram, "characters": characters}


def vocabulary(middle: Iterable[str], settings: TokenizerSettings, family: Family) -> list[str]:
    """All tokens in the order of their ids: first specials, pieces, reserved ones up to the multiple, last specials."""
    front = [*family.first, *settings.also(family), *middle]
    found = dict.fromkeys(name for name in front if name not in family.last)
    reserved = -(len(found) + len(family.last)) % settings.multiple_of
    return [*found, *reserved_tokens(reserved), *family.last]


def reserved_tokens(count: int) -> list[str]:
    """Names of tokens that no text becomes."""
    return [f"<|reserved_{number}|>" for number in range(count)]


def unknown_token(settings: TokenizerSettings, family: Family) -> str:
    """What stands for a character that has no token."""
    return UNK if settings.also(family) else family.roles["unk_token"]


def _settled(scores: dict[str, float], alphabet: Alphabet) -> dict[str, float]:
    """The scores without what chance has in them: the library sums in an order that it draws anew each time, so that the last
    digits differ, and gives characters that no piece was left for steps above the lowest score in such an order. Four
    decimals are kept, and those steps go by frequency."""
    rounded = {piece: round(score, _DECIMALS) for piece, score in scores.items()}
    singles = [character for character in alphabet.kept if character in rounded]
    lowest = min(rounded.values()) + len(singles) * _STEP
    stepped = [character for character in singles if rounded[character] <= lowest]
    rounded.update(zip(stepped, sorted((rounded[c] for c in stepped), reverse=True), strict=True))
    return dict(sorted(rounded.items(), key=lambda item: (-item[1], item[0])))


def _normalize(tokenizer: Tokenizer, settings: TokenizerSettings) -> None:
    found = pieces.normalizer(settings.form, settings.lowercase)
    if found is not None:
        tokenizer.normalizer = found


def _spell(kept: Iterable[str]) -> list[tuple[str, str]]:
    """Merges that put characters of several bytes together, byte by byte; each makes one new token."""
    merges: dict[tuple[str, str], None] = {}
    for character in kept:
        spelled = _in_bytes(character)
        for end in range(2, len(spelled) + 1):
            merges.setdefault((spelled[: end - 1], spelled[end - 1]))
    return list(merges)


def _in_bytes(text: str) -> str:
    """The text with each byte as one printable character, in GPT-2's alphabet."""
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return "".join(piece for piece, _ in level.pre_tokenize_str(text))


def _model(tokenizer: Tokenizer) -> dict[str, Any]:
    model: dict[str, Any] = json.loads(tokenizer.to_str())["model"]
    return model


def _byte_tokens(settings: TokenizerSettings) -> list[str]:
    return [f"<0x{byte:02X}>" for byte in range(NUM_BYTES)] if settings.has_bytes else []


def _ids(names: Iterable[str]) -> dict[str, int]:
    return {name: place for place, name in enumerate(names)}
