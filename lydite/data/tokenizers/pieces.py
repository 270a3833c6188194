"""How text is cut before a tokenizer's model sees it, and how tokens become text again.

Chinese is written without spaces, so rules made for English glue whole clauses into one piece: training then counts
clauses instead of words. Here a run of Chinese characters stands apart from letters, digits and
punctuation, full-width punctuation is punctuation, and a run is cut into pieces of bounded length (`MAX_RUN`), which keeps
the table of pieces small on any corpus. English is cut as GPT-4 cuts it, digits in groups of three at most.
"""

from typing import Literal

from tokenizers import Regex, decoders, normalizers, pre_tokenizers

Kind = Literal["bpe", "wordpiece", "unigram", "characters"]
Normalization = Literal["none", "nfc", "nfkc"]
MAX_RUN = 16
"""Most Chinese characters in one piece of byte-level BPE."""
_HAN = r"\p{Han}"
PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)"
    rf"|{_HAN}{{1,{MAX_RUN}}}"
    rf"|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}&&[^{_HAN}]]+"
    r"|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Pieces of byte-level BPE; the alternatives are those of GPT-4's cl100k_base but for the runs of Chinese characters."""
_WIDE = r"\u3001-\u3003\u3008-\u3020\u3030\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65\u2014\u2018-\u201d\u2026\u00b7"
"""Chinese and full-width punctuation."""
_BYTE_LOOKALIKE = r"<(?=0x[0-9A-F]{2}>)"
"""Cut out, so that a text that holds "<0x41>" does not become the token of byte 41."""
_SPACE = "▁"


def bpe_splitter() -> pre_tokenizers.PreTokenizer:
    """The cut before byte-level BPE, characters left as they are."""
    return pre_tokenizers.Split(Regex(PATTERN), "isolated")


def byte_level() -> pre_tokenizers.PreTokenizer:
    """The same cut, and each byte written as one printable character (GPT-2's alphabet)."""
    return pre_tokenizers.Sequence([bpe_splitter(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def bert_normalizer(lowercase: bool) -> normalizers.Normalizer:
    """BERT's own: control characters out, Chinese characters apart, accents off where letters are made small."""
    return normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=lowercase
    )


def normalizer(form: Normalization, lowercase: bool) -> normalizers.Normalizer | None:
    """Unicode form and small letters; None where text stays as it is."""
    steps: list[normalizers.Normalizer] = []
    if form != "none":
        steps.append(normalizers.NFC() if form == "nfc" else normalizers.NFKC())
    if lowercase:
        steps.append(normalizers.Lowercase())
    return normalizers.Sequence(steps) if steps else None


def unigram_normalizer(form: Normalization, lowercase: bool, lossy_spaces: bool) -> normalizers.Normalizer | None:
    """`normalizer`, and where white space is kept, one "▁" before the text and one for each space. (Metaspace would
    put none before a text that begins with a space, and that space would be lost.)"""
    first = normalizer(form, lowercase)
    if lossy_spaces:
        return first
    steps = [normalizers.Prepend(_SPACE), normalizers.Replace(" ", _SPACE)]
    return normalizers.Sequence([first, *steps] if first is not None else steps)


def unigram_splitter(lossy_spaces: bool) -> pre_tokenizers.PreTokenizer:
    """SentencePiece's cut at spaces, which go to the word after them as "▁"; Chinese runs and punctuation apart.

    `lossy_spaces`: any white space is one space, as the families of SentencePiece have it. Otherwise all of it stays.
    """
    steps: list[pre_tokenizers.PreTokenizer]
    if lossy_spaces:
        steps = [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme="always"),
        ]
    else:
        steps = [
            pre_tokenizers.Split(_SPACE, "merged_with_next"),
            pre_tokenizers.Split(Regex(r"[\r\n]+"), "isolated"),
        ]
    cuts = rf"[{_WIDE}]|{_HAN}+|{_BYTE_LOOKALIKE}"
    return pre_tokenizers.Sequence([*steps, pre_tokenizers.Split(Regex(cuts), "isolated")])


def unigram_decoder(byte_fallback: bool) -> decoders.Decoder:
    """ "▁" to spaces but for the first; byte tokens to the characters that they spell."""
    steps: list[decoders.Decoder] = [decoders.Replace(_SPACE, " ")]
    if byte_fallback:
        steps.append(decoders.ByteFallback())
    return decoders.Sequence([*steps, decoders.Fuse(), decoders.Strip(" ", 1, 0)])


def characters_splitter() -> pre_tokenizers.PreTokenizer:
    """Every character by itself; the lookalikes of byte tokens need no rule, since no token of two characters is made."""
    return pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")


def characters_decoder(byte_fallback: bool) -> decoders.Decoder:
    """Tokens put together with nothing between."""
    return decoders.Sequence([*([decoders.ByteFallback()] if byte_fallback else []), decoders.Fuse()])
