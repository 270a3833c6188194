"""Masked models: both pseudo-log-likelihoods against plain loops, windows, filled masks, names of their metrics."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer, pipeline

from lydite.cli.app import main
from lydite.engine.masked import centred, pieces
from lydite.engine.reader import like_lengths
from lydite.evaluate import evaluate, rescore
from lydite.models.masked import MaskedModel, load_masked
from lydite.runs import read_run
from lydite.tasks.heldout import heldout_task
from lydite.types import Failure, LogProbs, Sample, ScoreRequest
from tests.families import MASKED, save_family
from tests.tiny import TEXTS


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    top = tmp_path_factory.mktemp("masked")
    return {name: save_family(top / name, name) for name in MASKED}


def load(folder: Path, **settings: object) -> MaskedModel:
    return load_masked(folder, name="tiny", source=str(folder), settings=settings)


def score(model: MaskedModel, *pairs: tuple[str, str], window: str = "none") -> list[LogProbs]:
    requests = [
        ScoreRequest(sample_id=f"s{i}", index=0, context=c, continuation=t, window=window)
        for i, (c, t) in enumerate(pairs)
    ]
    outputs = dict(model.answer(requests))
    assert all(isinstance(output, LogProbs) for output in outputs.values()), outputs
    return [outputs[i] for i in range(len(pairs))]


def plain_loop(folder: Path, text: str, count: int, l2r: bool) -> list[float]:
    """The last `count` tokens before the closing special one, each masked in turn, one forward each, no batches."""
    model, tokenizer = AutoModelForMaskedLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    encoded = tokenizer(text)
    ids, words = encoded["input_ids"], encoded.word_ids()
    values = []
    for position in range(len(ids) - 1 - count, len(ids) - 1):
        masked = list(ids)
        masked[position] = tokenizer.mask_token_id
        for later in range(position + 1, len(ids)):
            if l2r and words[later] is not None and words[later] == words[position]:
                masked[later] = tokenizer.mask_token_id
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([masked])).logits[0, position]
        values.append(float(logits.log_softmax(-1)[ids[position]]))
    return values


@pytest.mark.parametrize("pll", ["original", "within_word_l2r"])
@pytest.mark.parametrize("name", MASKED)
def test_scores_equal_a_loop_over_positions(name: str, pll: str, folders: dict[str, Path]) -> None:
    model = load(folders[name], pll=pll)
    pairs = [("", "The wisdom of foolish dogs."), ("The cat sat", " on the matsimatsi."), (TEXTS[6][:6], "我们去公园")]
    for (context, continuation), output in zip(pairs, score(model, *pairs), strict=True):
        expected = plain_loop(folders[name], context + continuation, len(output.tokens), pll == "within_word_l2r")
        assert output.logprobs == pytest.approx(expected, abs=1e-4)
        assert output.rule == ("pseudo" if pll == "original" else "pseudo:within_word_l2r")
    assert model.scorer.reader.head.__class__.__name__ == "Head", "the head is read in stretches, not by own logits"


def minicons(folder: Path, text: str, metric: str) -> list[float]:
    """The published definition of minicons 0.3 (scorer.MaskedLMScorer.prepare_text and token_score), written down anew:
    all maskings of a sentence as one batch, mask indices [1:-1], log-softmax at each masked position."""
    model, tokenizer = AutoModelForMaskedLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    encoded = tokenizer(text)
    ids, word_ids = torch.tensor(encoded["input_ids"]), encoded.word_ids()
    sets = []
    for place in range(len(ids)):
        more = [j for j in range(place + 1, len(ids)) if word_ids[j] == word_ids[place]]
        sets.append([place, *(more if metric == "within_word_l2r" and word_ids[place] is not None else [])])
    rows = []
    for mask_set in sets[1:-1]:
        row = ids.clone()
        row[mask_set] = tokenizer.mask_token_id
        rows.append(row)
    with torch.inference_mode():
        logprobs = model(input_ids=torch.stack(rows)).logits.log_softmax(-1)
    return [float(logprobs[i, i + 1, ids[i + 1]]) for i in range(len(rows))]


@pytest.mark.parametrize("pll", ["original", "within_word_l2r"])
def test_scores_equal_minicons_definition(pll: str, folders: dict[str, Path]) -> None:
    for name in ("bert", "albert"):
        [output] = score(load(folders[name], pll=pll), ("", TEXTS[4]))
        assert output.logprobs == pytest.approx(minicons(folders[name], TEXTS[4], pll), abs=1e-4)


def test_the_two_rules_differ_in_words_of_several_tokens_only(folders: dict[str, Path]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folders["bert"])
    # Which pieces the library learns is not the same each time, so a word of several is looked for.
    word = next(w for w in ("matsi", "catsa", "dogit", "theon", "hesat", "wasmat") if len(pieces := tokenizer.tokenize(w)) > 1
                and tokenizer.unk_token not in pieces)  # fmt: skip
    text = f"{TEXTS[3]} {word}"
    one, other = (score(load(folders["bert"], pll=pll), ("", text))[0] for pll in ("original", "within_word_l2r"))
    words = tokenizer(text).word_ids()[1:-1]
    for i, owner in enumerate(words):
        if owner not in words[i + 1 :]:  # nothing of its word follows
            assert one.logprobs[i] == pytest.approx(other.logprobs[i], abs=1e-5)
    assert one.logprobs != pytest.approx(other.logprobs, abs=2e-5)


def test_equal_maskings_are_computed_once(folders: dict[str, Path]) -> None:
    """Two sentences that differ in one word share the masking of that word; a repeated request costs nothing."""
    model = load(folders["bert"])
    words = [
        word
        for word in ["the", "cat", "mat", "dog", "is", "it", "was", "he", "she", "on"]
        if len(model.encoder.text_ids([word])[0]) == 1
    ]
    one, two = (f"He said that {word} sat." for word in words[:2])
    score(model, ("", one))
    alone = model.usage.tokens_computed
    size = model.encoder.whole(one).size
    again = load(folders["bert"])
    score(again, ("", one), ("", two), ("", one))
    assert alone == size * (size - 2)
    assert again.usage.tokens_computed == 2 * alone - size
    assert again.usage.tokens_requested == 3 * alone


def test_windows(folders: dict[str, Path]) -> None:
    """Every token is scored once; in pieces each by itself, with the most context in the middle of a window."""
    short = load(folders["bert"], max_tokens=18)
    text = " ".join(TEXTS[:3])
    [ids] = short.encoder.text_ids([text])
    [cut] = score(short, ("", text), window="disjoint")
    [slid] = score(short, ("", text), window="max_context")
    assert [len(cut.tokens), len(slid.tokens)] == [len(ids)] * 2
    tokenizer = short.encoder.tokenizer
    network = AutoModelForMaskedLM.from_pretrained(folders["bert"])

    def at(begin: int, place: int, size: int = 16) -> float:
        """Place scored in the window that begins at `begin`, for a token whose word has no later one."""
        row = [tokenizer.cls_token_id, *ids[begin : begin + size], tokenizer.sep_token_id]
        row[1 + place - begin] = tokenizer.mask_token_id
        with torch.inference_mode():
            return float(
                network(input_ids=torch.tensor([row])).logits[0, 1 + place - begin].log_softmax(-1)[ids[place]]
            )

    words = tokenizer(text, add_special_tokens=False).word_ids()
    singles = [i for i in range(len(ids)) if words.count(words[i]) == 1]
    assert len(singles) > 10
    for i in singles:
        assert cut.logprobs[i] == pytest.approx(at(i // 16 * 16, i), abs=1e-4)
        begin = min(max(0, i // 8 * 8 - 4), len(ids) - 16)
        assert slid.logprobs[i] == pytest.approx(at(begin, i), abs=1e-4)


def test_a_long_context_is_cut_from_the_left_and_counted(folders: dict[str, Path]) -> None:
    short = load(folders["roberta"], max_tokens=20, pll="original")
    context = " ".join(TEXTS)
    [output] = score(short, (context, " The end"))
    [ids] = short.encoder.text_ids([context + " The end"])
    assert output.num_truncated == len(ids) - 18
    network, tokenizer = AutoModelForMaskedLM.from_pretrained(folders["roberta"]), short.encoder.tokenizer
    expected = []
    for place in range(19 - len(output.tokens), 19):
        row = [tokenizer.cls_token_id, *ids[-18:], tokenizer.sep_token_id]
        wanted, row[place] = row[place], tokenizer.mask_token_id
        with torch.inference_mode():
            expected.append(float(network(input_ids=torch.tensor([row])).logits[0, place].log_softmax(-1)[wanted]))
    assert output.logprobs == pytest.approx(expected, abs=1e-4)
    request = ScoreRequest(sample_id="s", index=0, continuation=context)
    [(_, failure)] = short.answer([request])
    assert isinstance(failure, Failure)
    assert "max_context" in failure.reason


def test_the_length_of_roberta_leaves_its_padding_positions_out(folders: dict[str, Path]) -> None:
    assert load(folders["roberta"]).info.max_tokens == 64  # 66 rows, the first two never used
    assert load(folders["bert"]).info.max_tokens == 64


@pytest.mark.parametrize("span", [centred, pieces])
def test_spans_cover_each_token_once(span: Any) -> None:
    for length, start, room in [(50, 0, 16), (50, 7, 16), (17, 16, 16), (33, 0, 1), (40, 39, 7)]:
        scored: list[int] = []
        for begin, first, last, end in span(length, start, room):
            assert 0 <= begin <= first < last <= end <= length
            assert end - begin <= room
            scored += range(first, last)
        assert scored == list(range(start, length))


def test_batches_hold_little_padding() -> None:
    lengths = np.random.default_rng(0).integers(1, 90, 400).tolist()
    batches = like_lengths(lengths, 512)
    assert sorted(i for batch in batches for i in batch) == list(range(400))
    area = sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)
    assert all(len(batch) * max(lengths[i] for i in batch) <= 512 for batch in batches)
    assert area - sum(lengths) <= area / 16
    assert like_lengths([], 512) == []
    assert [len(batch) for batch in like_lengths([9, 9, 9], 4)] == [1, 1, 1]


# ------------------------------------------------------------------------------------------ filled masks


@pytest.mark.parametrize("name", MASKED)
def test_filled_masks_equal_the_pipeline_of_transformers(name: str, folders: dict[str, Path]) -> None:
    model = load(folders[name])
    theirs = pipeline(
        "fill-mask",
        model=AutoModelForMaskedLM.from_pretrained(folders[name]),
        tokenizer=AutoTokenizer.from_pretrained(folders[name]),
        top_k=3,
    )
    mask = model.encoder.tokenizer.mask_token
    found = dict(model.fill(["The [MASK] sat on the <mask>.", "nothing", "The cat [MASK]"], 3))
    for index, text in ((0, f"The {mask} sat on the {mask}."), (2, f"The cat {mask}")):
        expected = theirs(text)
        expected = expected if isinstance(expected[0], list) else [expected]
        ours = found[index]
        assert not isinstance(ours, Failure)
        for one, other in zip(ours, expected, strict=True):
            assert [c.prob for c in one] == pytest.approx([e["score"] for e in other], abs=1e-5)
            assert [c.token for c in one] == [model.encoder.text_of(e["token"]) for e in other]
    assert isinstance(found[1], Failure)
    assert "[MASK]" in found[1].reason


# ----------------------------------------------------------------------------------- names of the metrics


def test_a_masked_model_has_pseudo_perplexities(folders: dict[str, Path], tmp_path: Path) -> None:
    samples = [Sample(id=str(i), input=text) for i, text in enumerate(TEXTS[:3])]
    task = heldout_task("held", lambda split: samples)
    model = load(folders["bert"])
    run = evaluate(model, task, out=tmp_path)
    named = {estimate.metric: estimate for estimate in run.estimates}
    assert set(named) == {"bits_per_byte", "pseudo_byte_perplexity", "pseudo_word_perplexity"}
    assert "rule pseudo:within_word_l2r" in named["bits_per_byte"].signature
    outputs = score(model, *(("", text) for text in TEXTS[:3]))
    nats, num_bytes = -sum(o.total for o in outputs), sum(len(text.encode()) for text in TEXTS[:3])
    assert named["pseudo_byte_perplexity"].value == pytest.approx(math.exp(nats / num_bytes), rel=1e-6)
    before, after = rescore(tmp_path / "tiny" / "held", task)
    assert [e.metric for e in after.estimates] == [e.metric for e in before.estimates]
    assert [m.name for m in read_run(tmp_path / "tiny" / "held").task.metrics] == [e.metric for e in run.estimates]


def test_a_failed_sample_does_not_disturb_the_names(folders: dict[str, Path]) -> None:
    samples = [Sample(id="a", input=TEXTS[0]), Sample(id="b", input="")]
    run = evaluate(load(folders["bert"]), heldout_task("held", lambda split: samples))
    assert {(e.metric, e.n, e.n_failed) for e in run.estimates} == {
        ("bits_per_byte", 1, 1),
        ("pseudo_byte_perplexity", 1, 1),
        ("pseudo_word_perplexity", 1, 1),
    }


# --------------------------------------------------------------------------------------------- by command


def fill(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(["generate", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert isinstance(stop.value.code, int)
    return stop.value.code, out, err


def test_generate_fills_masks(folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = fill(capsys, folders["bert"], "The [MASK] sat on the mat.", "--set", "top_k=4")
    [(_, found)] = load(folders["bert"]).fill(["The [MASK] sat on the mat."], 4)
    assert not isinstance(found, Failure)
    assert (code, out.splitlines()) == (0, [f"{c.prob:.4f}\t{c.token!r}" for c in found[0]])
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"prompt": "The <mask> sat."}\n{"prompt": "no gap"}\n', encoding="utf-8")
    assert fill(capsys, folders["bert"], "--in", source, "--out", target)[0] == 2
    rows = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    answers = {row["prompt"]: row["completions"][0] for row in rows}
    assert len(answers["The <mask> sat."]["masks"][0]) == 5
    assert "no mask" in answers["no gap"]["failure"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("The cat",), 2, "no mask to fill"),
        (("The [MASK]", "--set", "temperature=2.0"), 1, "leave --set temperature out"),
        (("The [MASK]", "--chat"), 1, "leave --chat or --system out"),
    ],
)
def test_what_a_masked_model_does_not_write_is_one_line(
    arguments: tuple[str, ...],
    code: int,
    message: str,
    folders: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    found, _, err = fill(capsys, folders["bert"], *arguments)
    assert found == code
    assert message in err
    assert "Traceback" not in err
