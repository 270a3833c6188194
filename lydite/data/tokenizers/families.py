"""What a family of models wants of its tokenizer: special tokens, where their ids stand, and what surrounds a text.

The values are those of the tokenizer classes of transformers for the published checkpoints (BERT, RoBERTa, T5 ...), so that
a model of the family trained on our tokenizer is read by other tools as its elders are. What text becomes which pieces
is not decided here but by the kind of tokenizer (pieces.py).
"""

from dataclasses import dataclass, field
from typing import Any

from tokenizers import AddedToken, Tokenizer, processors

from lydite.errors import UserError

NUM_SENTINELS = 100


@dataclass(frozen=True)
class Family:
    """The special tokens of a family and the template around a text."""

    kind: str
    """The kind of tokenizer that the family's published checkpoints have."""
    first: tuple[str, ...]
    """Special tokens with the first ids, in their order."""
    roles: dict[str, str]
    """Role as transformers names it (bos_token, mask_token ...) to token."""
    last: tuple[str, ...] = ()
    """Special tokens with the last ids, in their order."""
    single: str = "$A"
    pair: str = "$A $B"
    """Templates of `tokenizers`: sequence or token, and after the colon its token type."""
    lossy_spaces: bool = False
    """The family's text begins with a space and has no other white space than single spaces (SentencePiece's default)."""
    config: dict[str, Any] = field(default_factory=dict)
    """Further entries of tokenizer_config.json."""

    @property
    def specials(self) -> tuple[str, ...]:
        return self.first + self.last


_ENCODER_INPUTS = {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}
_PLAIN_INPUTS = {"model_input_names": ["input_ids", "attention_mask"]}
_BERT = Family(
    kind="wordpiece",
    first=("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    roles={
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    },
    single="[CLS]:0 $A:0 [SEP]:0",
    pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
    config=_ENCODER_INPUTS,
)
_ROBERTA = Family(
    kind="bpe",
    first=("<s>", "<pad>", "</s>", "<unk>"),
    last=("<mask>",),
    roles={
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "cls_token": "<s>",
        "sep_token": "</s>",
        "mask_token": "<mask>",
    },
    single="<s> $A </s>",
    pair="<s> $A </s> </s> $B </s>",
    config=_PLAIN_INPUTS,
)
FAMILIES: dict[str, Family] = {
    "gpt2": Family(
        kind="bpe",
        first=(),
        last=("<|endoftext|>",),
        roles={"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"},
        config=_PLAIN_INPUTS,
    ),
    "llama": Family(
        kind="bpe",
        first=("<unk>", "<s>", "</s>"),
        roles={"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"},
        single="<s>:0 $A:0",
        pair="<s>:0 $A:0 <s>:1 $B:1",
        config=_PLAIN_INPUTS | {"padding_side": "left"},
    ),
    "bert": _BERT,
    "electra": _BERT,
    "roberta": _ROBERTA,
    "bart": _ROBERTA,
    "albert": Family(
        kind="unigram",
        first=("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"),
        roles={
            "bos_token": "[CLS]",
            "eos_token": "[SEP]",
            "unk_token": "<unk>",
            "sep_token": "[SEP]",
            "pad_token": "<pad>",
            "cls_token": "[CLS]",
            "mask_token": "[MASK]",
        },
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        lossy_spaces=True,
        config=_ENCODER_INPUTS,
    ),
    "xlnet": Family(
        kind="unigram",
        first=("<unk>", "<s>", "</s>", "<cls>", "<sep>", "<pad>", "<mask>", "<eod>", "<eop>"),
        roles={
            "bos_token": "<s>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "sep_token": "<sep>",
            "pad_token": "<pad>",
            "cls_token": "<cls>",
            "mask_token": "<mask>",
        },
        single="$A:0 <sep>:0 <cls>:2",
        pair="$A:0 <sep>:0 $B:1 <sep>:1 <cls>:2",
        lossy_spaces=True,
        config=_ENCODER_INPUTS | {"padding_side": "left"},
    ),
    "t5": Family(
        kind="unigram",
        first=("<pad>", "</s>", "<unk>"),
        # The sentinels count down to the last id, as in T5's own vocabulary.
        last=tuple(f"<extra_id_{number}>" for number in reversed(range(NUM_SENTINELS))),
        roles={"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"},
        single="$A </s>",
        pair="$A </s> $B </s>",
        lossy_spaces=True,
        config=_PLAIN_INPUTS,
    ),
}
_STRIPS_BEFORE = ("<mask>",)
"""Mask tokens that take the space before them along, in RoBERTa, BART and XLNet."""


def family_named(name: str) -> Family:
    """The family of this name; UserError with the list of names if there is none."""
    if name not in FAMILIES:
        raise UserError(f"--family {name!r} is not known; choose one of {', '.join(FAMILIES)}")
    return FAMILIES[name]


def add_specials(tokenizer: Tokenizer, family: Family, also: tuple[str, ...] = ()) -> None:
    """Makes the family's special tokens (all of them in the vocabulary already) whole tokens, with its template."""
    names = (*family.first, *also, *family.last)
    before = tokenizer.get_vocab_size()
    tokenizer.add_special_tokens([added_token(name) for name in names])
    assert tokenizer.get_vocab_size() == before, "a special token is not in the vocabulary"
    used = {word.partition(":")[0] for word in f"{family.single} {family.pair}".split()} & set(names)
    if used:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=family.single,
            pair=family.pair,
            special_tokens=[(name, tokenizer.token_to_id(name)) for name in sorted(used)],
        )


def added_token(name: str) -> AddedToken:
    """A special token as `tokenizers` takes it."""
    return AddedToken(name, lstrip=name in _STRIPS_BEFORE, special=True, normalized=False)


def config_of(family: Family, also: tuple[str, ...] = ()) -> dict[str, Any]:
    """tokenizer_config.json; `also` holds the token for the unknown where the family has none of its own.

    The class is the general one, which takes tokenizer.json as it stands: the classes of the families would replace our
    rules of splitting, which know Chinese, by their own."""
    roles = family.roles | ({"unk_token": also[0]} if also else {})
    more = [name for name in family.specials if name not in roles.values()]
    extra = {"additional_special_tokens": more} if more else {}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        **{role: _described(name) for role, name in roles.items()},
        **extra,
        **family.config,
    }


def _described(name: str) -> str | dict[str, Any]:
    """A token as transformers reads it; those that take a space along say so."""
    if name not in _STRIPS_BEFORE:
        return name
    flags = {"lstrip": True, "rstrip": False, "normalized": False, "single_word": False, "special": True}
    return {"__type": "AddedToken", "content": name, **flags}
