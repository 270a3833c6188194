"""Saved folders behave as the family's own tokenizer class of transformers does, given the same vocabulary."""

import json
import shutil

import pytest
from transformers import (
    AlbertTokenizer,
    AutoTokenizer,
    BertTokenizer,
    GPT2Tokenizer,
    LlamaTokenizer,
    RobertaTokenizer,
    T5Tokenizer,
    XLNetTokenizer,
)

from lydite.data.tokenizers import FAMILIES, TokenizerSettings, save_tokenizer, train_tokenizer
from lydite.data.tokenizers.train import read_facts
from lydite.errors import UserError
from tests.data.tokenizers.test_train import CHINESE, ENGLISH

PAIRS = [("The dog sells shells", "wood"), ("the sea shore", "a fox and a dog in 1984")]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    top = tmp_path_factory.mktemp("tokenizers")
    for name, family in FAMILIES.items():
        given = TokenizerSettings(kind=family.kind, family=name, vocab_size=700)
        save_tokenizer(train_tokenizer(lambda: ENGLISH + CHINESE, given), top / name)
    return top


def load(folders, name):
    return AutoTokenizer.from_pretrained(folders / name)


def model(folders, name):
    return json.loads((folders / name / "tokenizer.json").read_text("utf-8"))["model"]


def theirs(folders, name):
    found = model(folders, name)
    vocab = found["vocab"]
    merges = [tuple(merge) for merge in found.get("merges", ())]
    scored = [tuple(item) for item in vocab] if isinstance(vocab, list) else None
    if name in ("bert", "electra"):
        return BertTokenizer(vocab=vocab, do_lower_case=False)
    if name in ("roberta", "bart"):
        return RobertaTokenizer(vocab=vocab, merges=merges)
    if name == "gpt2":
        return GPT2Tokenizer(vocab=vocab, merges=merges)
    if name == "t5":
        return T5Tokenizer(vocab=scored)
    if name == "albert":
        return AlbertTokenizer(vocab=scored, do_lower_case=False)
    if name == "xlnet":
        return XLNetTokenizer(vocab=scored)
    return LlamaTokenizer(vocab=vocab, merges=merges, add_bos_token=True)


@pytest.mark.parametrize("name", FAMILIES)
def test_template_special_tokens_and_inputs_are_the_familys(folders, name):
    ours, family = load(folders, name), theirs(folders, name)
    for role in FAMILIES[name].roles:
        assert getattr(ours, role) == getattr(family, role), role
        assert getattr(ours, f"{role}_id") == getattr(family, f"{role}_id"), role
    if name != "llama":  # cut at spaces by SentencePiece's "▁", which ours writes as bytes
        for first, second in PAIRS:
            a, b = ours(first, second), family(first, second)
            assert a["input_ids"] == b["input_ids"]
            if "token_type_ids" in b:
                assert a["token_type_ids"] == b["token_type_ids"]
    assert set(ours("a")) == {"input_ids", "attention_mask"} | (
        {"token_type_ids"} if name in ("bert", "electra", "albert", "xlnet") else set()
    )
    assert ours.padding_side == family.padding_side


@pytest.mark.parametrize(
    "text",
    ["Café doesn't, sure", "公园，很好！ok", "tab\tand\x00control\n", "한국어 日本語のカナ", "  ", "naïve—“quotes”"],
)
def test_bert_is_equal_on_any_text(folders, text):
    ours, family = load(folders, "bert"), theirs(folders, "bert")
    assert ours(text)["input_ids"] == family(text)["input_ids"]
    assert ours.decode(ours(text)["input_ids"]) == family.decode(family(text)["input_ids"])


def test_bert_lowercased_is_equal():
    given = TokenizerSettings(kind="wordpiece", family="bert", vocab_size=400, lowercase=True)
    found = train_tokenizer(lambda: ENGLISH + ["Café École"] * 3, given)
    family = BertTokenizer(vocab=json.loads(found.tokenizer.to_str())["model"]["vocab"], do_lower_case=True)
    for text in ("THE Café", "École!"):
        assert found.tokenizer.encode(text).ids == family(text)["input_ids"]


def test_t5s_sentinels_and_end(folders):
    ours = load(folders, "t5")
    size = len(ours)
    assert ours("<extra_id_0> fox <extra_id_1>")["input_ids"][0] == size - 1
    assert ours.convert_tokens_to_ids("<extra_id_99>") == size - 100
    assert ours("fox")["input_ids"][-1] == ours.eos_token_id == 1
    assert ours.decode(ours("the <extra_id_0> dog")["input_ids"], skip_special_tokens=True) == "the dog"


def test_xlnet_pads_at_the_left_and_ends_with_its_specials(folders):
    ours = load(folders, "xlnet")
    batch = ours(["fox", "the fox and the dog"], padding=True)
    assert batch["input_ids"][0][0] == ours.pad_token_id
    assert batch["input_ids"][1][-2:] == [ours.sep_token_id, ours.cls_token_id]
    assert batch["token_type_ids"][1][-1] == 2


def test_masks_take_the_space_before_them(folders):
    ours = load(folders, "roberta")
    assert ours("the <mask> dog")["input_ids"][-3] == ours.mask_token_id
    assert ours("the <mask>")["input_ids"] == ours("the<mask>")["input_ids"]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_beside_it_changes_nothing(folders, tmp_path, name):
    """AutoTokenizer looks at config.json too, and would take another class for some models."""
    shutil.copytree(folders / name, tmp_path / "x")
    (tmp_path / "x" / "config.json").write_text(json.dumps({"model_type": name}))
    text = "公园很好，fox <0x41>"
    assert AutoTokenizer.from_pretrained(tmp_path / "x")(text)["input_ids"] == load(folders, name)(text)["input_ids"]


@pytest.mark.parametrize("name", ["gpt2", "t5", "bert"])
def test_saved_again_by_transformers_it_is_the_same(folders, tmp_path, name):
    ours = load(folders, name)
    ours.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    for text in (*ENGLISH[:2], *CHINESE[:2]):
        assert again(text)["input_ids"] == ours(text)["input_ids"]


def test_gpt2_characters_know_the_unknown_from_the_end():
    found = train_tokenizer(lambda: ENGLISH, TokenizerSettings(kind="characters", vocab_size=100))
    assert found.config["unk_token"] == "<unk>"
    assert found.config["eos_token"] == "<|endoftext|>"


def test_a_folder_is_not_overwritten(folders, tmp_path):
    found = train_tokenizer(lambda: ENGLISH, TokenizerSettings(vocab_size=300))
    with pytest.raises(UserError, match="say --overwrite"):
        save_tokenizer(found, folders / "gpt2")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds other files"):
        save_tokenizer(found, tmp_path, overwrite=True)
    save_tokenizer(found, tmp_path / "a" / "b")
    save_tokenizer(found, tmp_path / "a" / "b", overwrite=True)
    assert read_facts(tmp_path / "a" / "b") == found.facts
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["b"]
