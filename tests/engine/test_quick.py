"""Quick token ids beside those of `tokenizers`: ids, cut, flags and windows must be the same for every text."""

import random

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lydite.engine.quick import QuickEncoder, quick_splitter
from lydite.engine.tokens import Encoder
from lydite.types import Failure, ScoreRequest
from tests.tiny import tiny_tokenizer

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
ODD = (
    "a",
    "b",
    "ab",
    "mat",
    " ",
    "  ",
    "\t",
    "\n",
    "\x1c",
    "\x85",
    "\u3000",
    "\u200b",
    "<s>",
    "<unk>",
    "今",
    "\U0001f600",
    "",
)


def spaces():
    words = models.WordLevel({"<unk>": 0, "<s>": 1, "</s>": 2, "a": 3, "ab": 4, "mat": 5}, unk_token="<unk>")
    return wrap(words, pre_tokenizers.WhitespaceSplit())


def characters(*, merges=False):
    known = {"<unk>": 0, "<s>": 1, "</s>": 2, "a": 3, "b": 4, " ": 5, "今": 6, "\n": 7}
    model = models.BPE(vocab=known, merges=[], unk_token="<unk>") if merges else models.WordLevel(known, "<unk>")
    return wrap(model, pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated"))


def wrap(model, cutter):
    core = Tokenizer(model)
    core.pre_tokenizer = cutter
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=core, **SPECIAL)


TOKENIZERS = {
    "spaces": spaces,
    "characters": characters,
    "characters as BPE": lambda: characters(merges=True),
    "byte-level BPE": tiny_tokenizer,
    "byte-level BPE with BOS": lambda: tiny_tokenizer(bos=True),
}


def requests(number=400, every=2):
    """All but every `every`-th sample have a context; 0: none has."""
    rng = random.Random(0)
    text = lambda most: "".join(rng.choice(ODD) for _ in range(rng.randrange(most)))  # noqa: E731
    made = []
    for i in range(number):
        context = text(6) if every and i % every else ""
        made += [ScoreRequest(sample_id=f"s{i}", index=k, context=context, continuation=text(6)) for k in range(2)]
    return made


@pytest.mark.parametrize("every", [0, 2])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_same_windows_as_from_tokenizers(name, every):
    tokenizer = TOKENIZERS[name]()
    quick = QuickEncoder(tokenizer, max_tokens=None, wants_bos=True)
    assert quick_splitter(tokenizer.backend_tokenizer) is not None
    plain = Encoder(tokenizer, max_tokens=None, wants_bos=True)
    asked = requests(every=every)
    num_answers = 0
    for request, one, other in zip(asked, quick.encode(asked), plain.encode(asked), strict=True):
        if isinstance(other, Failure):
            assert one == other
            continue
        assert (one.join, one.num_truncated) == (other.join, other.num_truncated), request
        for a, b in zip(one.windows, other.windows, strict=True):
            assert (a.ids.tolist(), a.first) == (b.ids.tolist(), b.first), request
            assert a.ids.dtype == np.int32
        num_answers += 1
    assert num_answers > 300


def test_a_plain_text_is_not_given_to_tokenizers():
    encoder = QuickEncoder(spaces(), max_tokens=None)
    encoder._backend = None
    [found] = encoder.encode([ScoreRequest(sample_id="s", index=0, continuation="a mat zebra")])
    assert found.windows[0].ids.tolist() == [1, 3, 5, 0]


def test_other_tokenizers_go_the_plain_way():
    core = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1}, "<unk>"))
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    assert quick_splitter(core) is None
    marked = {"<unk>": 0, "a": 1, "a</w>": 2}
    core = Tokenizer(models.BPE(vocab=marked, merges=[], unk_token="<unk>", end_of_word_suffix="</w>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    assert core.encode("a").ids == [2]
    assert quick_splitter(core) is None


def test_texts_of_tokens_that_were_and_were_not_seen_before():
    encoder = Encoder(tiny_tokenizer(), max_tokens=None)
    assert encoder.texts_of([70, 71]) == encoder.texts_of([70, 71]) == (encoder.text_of(70), encoder.text_of(71))
