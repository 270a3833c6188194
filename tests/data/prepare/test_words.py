"""BPE in numpy beside `tokenizers` and `regex`: every id and every word."""

import random
import unicodedata

import numpy as np
import pytest
import regex
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from lydite.data.prepare import clauses, cutting
from lydite.data.prepare.bpe import LETTERS
from lydite.data.prepare.encode import Encoder
from lydite.data.prepare.tables import Table
from lydite.data.prepare.words import GPT2

HAN = "天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏闰余成岁律吕调阳云腾致雨露结为霜"


def clause(rng, size):
    return "".join(rng.choice(HAN) for _ in range(size))


def tokenizer(tmp_path, texts, size):
    found = Tokenizer(models.BPE())
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    found.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    )
    found.save(str(tmp_path / "tokenizer.json"))
    return found


def drawn(tmp_path, text, number, rng):
    """A BPE whose merges are drawn from a text: tokens tear characters wherever they can."""
    letters = dict(enumerate(LETTERS))
    held, merges = [letters[byte] for byte in text.encode()], []
    for _ in range(number):
        place = rng.randrange(len(held) - 1)
        pair = (held[place], held[place + 1])
        merges.append(pair)
        joined, place = [], 0
        while place < len(held):
            size = 2 if tuple(held[place : place + 2]) == pair else 1
            joined.append("".join(held[place : place + size]))
            place += size
        held = joined
    vocab = {token: number for number, token in enumerate(dict.fromkeys([*LETTERS, *map("".join, merges)]))}
    found = Tokenizer(models.BPE(vocab, list(dict.fromkeys(merges))))
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.save(str(tmp_path / "tokenizer.json"))
    return found


@pytest.mark.parametrize("size", [300, 500, 1500, "drawn"])
def test_clauses_have_the_ids_of_the_library(tmp_path, size):
    rng = random.Random(size)
    texts = ["，".join(clause(rng, rng.randrange(1, 12)) for _ in range(30)) for _ in range(60)]
    drawn_from = "".join(texts[:20])
    plain = drawn(tmp_path, drawn_from, 400, rng) if size == "drawn" else tokenizer(tmp_path, texts, size)
    encoder = Encoder(tmp_path)
    assert size != "drawn" or len(encoder._words._clauses._ends) > 64  # so some share a bit
    new = [clause(rng, rng.randrange(1, 60)) + " it's " + clause(rng, 5) + "é①。\n" for _ in range(200)]
    for text, ids in zip([*new, drawn_from], encoder._words.encode([*new, drawn_from]), strict=True):
        assert ids.tolist() == plain.encode(text).ids


def test_a_part_that_would_take_many_rounds_is_left_to_the_library(tmp_path):
    rng = random.Random(1)
    plain = tokenizer(tmp_path, [clause(rng, 50)] * 3 + ["天天天天"] * 9, 300)
    texts = [clause(rng, 30), "天" * 3 * clauses._LONGEST, clause(rng, 30)]
    encoder = Encoder(tmp_path)
    assert [ids is None for ids in encoder._words.encode(texts)] == [False, True, False]
    assert [ids.tolist() for ids, _ in encoder.encode(texts)] == [plain.encode(text).ids for text in texts]


def test_words_are_remembered_and_forgotten(tmp_path, monkeypatch):
    rng = random.Random(2)
    words = ["".join(rng.choice("abcdeé-") for _ in range(rng.randrange(1, 24))) for _ in range(300)]
    texts = [" ".join(rng.choices(words, k=20)) for _ in range(100)]
    plain = tokenizer(tmp_path, texts, 400)
    monkeypatch.setattr("lydite.data.prepare.words._MOST", 100)
    encoder = Encoder(tmp_path)
    for text in texts:
        assert encoder.encode([text])[0][0].tolist() == plain.encode(text).ids
    monkeypatch.setattr("lydite.data.prepare.words._BATCH", 1000)  # many texts are encoded in several batches
    assert [ids.tolist() for ids, _ in encoder.encode(texts)] == [plain.encode(text).ids for text in texts]


def test_cutting_is_that_of_the_expression():
    rng, expression = random.Random(3), regex.compile(GPT2)
    for letters in (" \n'stmdrevlx9.", " \n\t'stmdrevlxA19.,!  中文，。\u3000é“”①\xa0"):
        for _ in range(2000):
            texts = ["".join(rng.choices(letters, k=rng.randrange(14))) for _ in range(rng.randrange(1, 4))]
            joined = cutting.BETWEEN.join(texts)
            if joined:
                starts = cutting.word_starts(cutting.characters(joined))
                places = np.flatnonzero(starts).tolist()
                words = [joined[a:b] for a, b in zip(places, [*places[1:], len(joined)], strict=True)]
                assert [w for w in words if w != cutting.BETWEEN] == [w for t in texts for w in expression.findall(t)]
                assert words.count(cutting.BETWEEN) == len(texts) - 1


def test_kinds_of_known_characters_have_not_changed():
    def kind(category):
        return category[0] if category[0] in "LN" else "other"  # as are characters that were not assigned yet

    known = [chr(code) for code in range(1, 1 << 16) if cutting.kinds()[code]]
    assert len(known) > 22_000
    for character in known:
        before, now = unicodedata.ucd_3_2_0.category(character), unicodedata.category(character)
        assert kind(before) == kind(now), hex(ord(character))
        assert not cutting.UNKNOWN.search(character)
        fold = character.casefold()
        assert character.isascii() or len(fold) > 1 or not fold.isascii(), hex(ord(character))


def test_table_holds_what_a_dict_holds():
    rng = np.random.default_rng(4)
    keys = np.unique(rng.integers(0, 1 << 12, (3000, 2), np.uint64), axis=0)
    table, held = Table(2, len(keys)), {}
    for part in np.array_split(rng.permutation(keys), 7):
        for key, number in zip(part.tolist(), table.add([part[:, 0], part[:, 1]]).tolist(), strict=True):
            held[tuple(key)] = number
        asked = np.concatenate([keys, rng.integers(0, 1 << 12, (500, 2), np.uint64)])
        found = table.find([asked[:, 0], asked[:, 1]])
        assert found.tolist() == [held.get(tuple(key), 0) for key in asked.tolist()]
    table.clear()
    assert not table.find([keys[:, 0], keys[:, 1]]).any()
