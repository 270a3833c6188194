"""From a GGUF file's vocabulary to a tokenizer.json.

A GGUF file stores tokens, merges (or scores), token types and the name of a pre-tokenizer, and leaves the rest to
llama.cpp's code. Two kinds are rebuilt here, with the `tokenizers` library:

- `gpt2`: byte-level BPE. How text is cut before the merges is decided by `tokenizer.ggml.pre`; an unknown name is
  refused, because the default cut gives other tokens in silence (SmolLM2 cuts digits apart: with GPT-2's cut, a blank
  line before a number becomes two tokens instead of one).
- `llama`: sentencepiece BPE with byte fallback. Merges are recovered from the vocabulary, best score first, as
  sentencepiece itself merges.

Tokens marked as control become special tokens; user-defined ones become added tokens that are never cut.
Patterns follow llama.cpp's `llama-vocab.cpp` and the tokenizer.json files of the original checkpoints.
"""

from collections.abc import Mapping
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE

from lydite.errors import ModelError

_UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 2, 3, 4, 5, 6
_SPACE = "\u2581"

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_GPT2_NAMES = {"gpt-2", "mpt", "olmo", "jais"}
_DIGIT_NAMES = {"smollm", "starcoder", "refact", "command-r", "codeshell"}
"""Each digit alone, then GPT-2's cut."""
_SPLITS = {"llama-bpe": _LLAMA3, "llama3": _LLAMA3, "llama-v3": _LLAMA3, "qwen2": _QWEN2, "deepseek-r1-qwen": _QWEN2}
_NFC_NAMES = {"qwen2", "deepseek-r1-qwen"}
"""Their original tokenizers normalise to NFC first."""

_END_OF_TURN = ("<|im_end|>", "<|endoftext|>", "<end_of_turn>", "<|eot_id|>", "<|end_of_text|>", "<|end|>", "</s>")


def build_tokenizer(metadata: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that the metadata of a GGUF file describes, adding BOS and EOS as the file says.

    Raises ModelError for a kind or a pre-tokenizer that is not known here.
    """
    tokens, kinds = _vocabulary(metadata)
    model = metadata.get("tokenizer.ggml.model")
    if model == "gpt2":
        tokenizer = _byte_level(metadata, tokens)
    elif model == "llama":
        tokenizer = _sentencepiece(metadata, tokens, kinds)
    else:
        raise ModelError(
            f"the GGUF file has a tokenizer of kind {model!r}; gpt2 and llama are known: use the original checkpoint"
        )
    vocabulary = tokenizer.get_vocab(with_added_tokens=False)
    marked = [(token, kind) for token, kind in zip(tokens, kinds, strict=True) if kind in (_CONTROL, _USER_DEFINED)]
    # A run of blanks is spelled with sentencepiece's own blank in the vocabulary; the merges build it.
    marked = [(token, kind) for token, kind in marked if token in vocabulary]
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t, k in marked if k == _CONTROL])
    tokenizer.add_tokens([AddedToken(t, normalized=False, special=False) for t, k in marked if k == _USER_DEFINED])
    if tokenizer.get_vocab_size() != len(tokens):
        raise ModelError("the GGUF file lists a token twice; use the original checkpoint")
    _add_borders(tokenizer, metadata, tokens)
    return tokenizer


def tokenizer_config(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The contents of tokenizer_config.json: special tokens, and whether BOS is added."""
    tokens, _ = _vocabulary(metadata)
    names = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    named = {name: _token(metadata, tokens, key) for name, key in names.items()}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": _adds(metadata, "bos"),
        "add_eos_token": _adds(metadata, "eos"),
        "clean_up_tokenization_spaces": False,
        **{name: token for name, token in named.items() if token is not None},
    }


def stop_ids(metadata: Mapping[str, Any]) -> list[int]:
    """The ids that end a text: EOS first, then the control tokens that end a turn or a document in a chat."""
    tokens, kinds = _vocabulary(metadata)
    eos = metadata.get("tokenizer.ggml.eos_token_id")
    first = [int(eos)] if isinstance(eos, int) and 0 <= eos < len(tokens) else []
    others = [
        index
        for index, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind == _CONTROL and token in _END_OF_TURN and index not in first
    ]
    return first + others


def _vocabulary(metadata: Mapping[str, Any]) -> tuple[list[str], list[int]]:
    tokens = metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not tokens:
        raise ModelError("the GGUF file holds no vocabulary; use the original checkpoint")
    kinds = metadata.get("tokenizer.ggml.token_type", [1] * len(tokens))
    if len(kinds) != len(tokens):
        raise ModelError(f"the GGUF file has {len(tokens)} tokens but {len(kinds)} token types; fetch it again")
    return tokens, kinds


def _byte_level(metadata: Mapping[str, Any], tokens: list[str]) -> Tokenizer:
    merges = metadata.get("tokenizer.ggml.merges")
    if merges is None:
        raise ModelError("the GGUF file has a byte-level vocabulary without merges; use the original checkpoint")
    pairs = [merge.split(" ") for merge in merges]
    if any(len(pair) != 2 for pair in pairs):
        raise ModelError("the GGUF file has a merge that is not a pair; fetch it again")
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=[(left, right) for left, right in pairs]))
    name = str(metadata.get("tokenizer.ggml.pre", ""))
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if name in _GPT2_NAMES:
        tokenizer.pre_tokenizer = gpt2
    elif name in _DIGIT_NAMES:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), gpt2])
    elif name in _SPLITS:
        split = pre_tokenizers.Split(Regex(_SPLITS[name]), behavior="isolated")
        plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, plain])
    else:
        known = ", ".join(sorted(_GPT2_NAMES | _DIGIT_NAMES | set(_SPLITS)))
        raise ModelError(
            f"the GGUF file cuts text by the pre-tokenizer {name!r}, which is not known ({known} are): "
            "use the original checkpoint"
        )
    if name in _NFC_NAMES:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentencepiece(metadata: Mapping[str, Any], tokens: list[str], kinds: list[int]) -> Tokenizer:
    spelled = [_SPACE * len(token) if token and not token.strip(" ") else token for token in tokens]
    scores = metadata.get("tokenizer.ggml.scores")
    if scores is None or len(scores) != len(tokens):
        raise ModelError("the GGUF file has a sentencepiece vocabulary without scores; use the original checkpoint")
    unknown = _token(metadata, tokens, "unknown")
    tokenizer = Tokenizer(
        BPE(
            vocab={token: index for index, token in enumerate(spelled)},
            merges=_merges(spelled, kinds, scores),
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    prefixed = bool(metadata.get("tokenizer.ggml.add_space_prefix", True))
    replace = normalizers.Replace(" ", _SPACE)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), replace]) if prefixed else replace
    steps = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefixed else steps)
    return tokenizer


def _merges(tokens: list[str], kinds: list[int], scores: list[float]) -> list[tuple[str, str]]:
    """Every pair of tokens that makes a third one, in the order in which sentencepiece would join them.

    Sentencepiece matches user-defined tokens before it merges at all, so theirs come first, in the order of the file
    (their scores say nothing: Gemma gives all of them the same).
    """
    skipped = (_UNKNOWN, _CONTROL, _UNUSED, _BYTE)
    index = {token: i for i, (token, kind) in enumerate(zip(tokens, kinds, strict=True)) if kind not in skipped}
    found = []
    for token, i in index.items():
        first = (0, float(i)) if kinds[i] == _USER_DEFINED else (1, -scores[i])
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in index and right in index:
                found.append((first, i, -cut, (left, right)))
    found.sort(key=lambda item: item[:3])
    return [item[3] for item in found]


def _token(metadata: Mapping[str, Any], tokens: list[str], key: str) -> str | None:
    index = metadata.get(f"tokenizer.ggml.{key}_token_id")
    return tokens[index] if isinstance(index, int) and 0 <= index < len(tokens) else None


def _adds(metadata: Mapping[str, Any], key: str) -> bool:
    # llama.cpp adds BOS to a sentencepiece vocabulary that does not say otherwise.
    default = key == "bos" and metadata.get("tokenizer.ggml.model") == "llama"
    return bool(metadata.get(f"tokenizer.ggml.add_{key}_token", default))


def _add_borders(tokenizer: Tokenizer, metadata: Mapping[str, Any], tokens: list[str]) -> None:
    bos = _token(metadata, tokens, "bos") if _adds(metadata, "bos") else None
    eos = _token(metadata, tokens, "eos") if _adds(metadata, "eos") else None
    if bos is None and eos is None:
        return
    before, after = [bos] if bos else [], [eos] if eos else []
    named = [(token, tokens.index(token)) for token in dict.fromkeys([*before, *after])]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[*before, "$A", *after], pair=[*before, "$A", *before, "$B:1", *after], special_tokens=named
    )
