"""Cards of the browser: what is shown, folded, flagged, cut and left out."""

import json

import msgspec

from lydite.report.cards import MAX_TEXT, MAX_TOKENS, task_cards, within_budget
from lydite.report.digest import Digest
from lydite.types import LabelProbs, LabelRequest, LogProbs, Message, Sample, SampleRecord, Score, ScoreRequest
from tests.report.records import choice, document, generation, run


def cards(*records, models=("a",), others=()):
    found = []
    for name, kept in zip(models, (records, *others), strict=True):
        one = Digest(run(name=name), name, None)
        one.kept = {record.id: record for record in kept}
        found.append(one)
    return task_cards(found, list(models))


def test_states_and_marks():
    _, found = cards(choice("a"), choice("b", totals=(-5.0, -1.0)), choice("c", failure="nan"))
    by_id = {card["id"]: card for card in found}
    assert [by_id[id]["answers"][0]["state"] for id in "abc"] == ["right", "wrong", "failed"]
    rows = by_id["b"]["answers"][0]["choices"]
    assert [row["chosen"] for row in rows] == [False, True]
    assert by_id["b"]["gold"] == [0]
    assert by_id["c"]["answers"][0]["outputs"] == [{"kind": "failure", "text": "nan"}]
    assert found[0]["id"] == "c", "failed samples come first"


def test_models_stand_side_by_side():
    _, found = cards(choice("a"), choice("b"), models=("a", "b"), others=([choice("a", totals=(-9.0, -1.0))],))
    by_id = {card["id"]: card for card in found}
    assert [answer["state"] for answer in by_id["a"]["answers"]] == ["right", "wrong"]
    assert by_id["b"]["answers"][1] is None


def test_other_prompts_are_shown_with_their_model():
    _, found = cards(choice("a", question="One?"), models=("a", "b"), others=([choice("a", question="Two?")],))
    assert found[0]["prompt"] == []
    assert [answer["prompt"] for answer in found[0]["answers"]] == [[["", "One?"]], [["", "Two?"]]]


def test_shared_shots_are_stored_once():
    shots = "".join(f"Question {i}? Answer {i}.\n" for i in range(20))
    shared, found = cards(choice("a", question="Why?", shots=shots), choice("b", question="Whence?", shots=shots))
    assert shared == shots
    assert sorted(card["prompt"][-1][1] for card in found) == ["Whence?", "Why?"]
    assert found[0]["prompt"][0] == ["shared", ""]
    assert shots.strip() not in json.dumps(found)


def test_a_short_or_lone_beginning_is_not_folded():
    assert cards(choice("a", question="Q: Why?"), choice("b", question="Q: How?"))[0] == ""
    assert cards(choice("a", shots="x\n" * 200))[0] == ""


def test_letters_show_their_choice():
    record = choice("a", choices=("blue", "green"))
    requests = tuple(
        msgspec.structs.replace(r, continuation=f" {letter}") for r, letter in zip(record.requests, "AB", strict=True)
    )
    _, found = cards(msgspec.structs.replace(record, requests=requests))
    assert [row["text"] for row in found[0]["answers"][0]["choices"]] == ["blue", "green"]
    _, found = cards(record)
    assert "text" not in found[0]["answers"][0]["choices"][0]


def test_flags():
    _, found = cards(
        choice("a", truncated=37), choice("b", join="spanned"), generation("c", "x", right=False, finish="length")
    )
    flags = {card["id"]: " ".join(card["answers"][0]["flags"]) for card in found}
    assert "37 tokens" in flags["a"]
    assert "spanned" in flags["b"]
    assert "max_new_tokens" in flags["c"]
    assert "no answer" in flags["c"]


def test_read_answers_are_shown_where_they_say_something():
    _, found = cards(
        generation("a", "it is 42, I think", right=True, answer="42"), generation("b", "42", right=True, answer="42")
    )
    assert {card["id"]: card["answers"][0]["read"] for card in found} == {"a": "42", "b": None}


def test_endless_texts_are_cut_and_say_so():
    _, found = cards(generation("a", "y" * 100_000, right=False), document("b", "z" * 5000))
    by_id = {card["id"]: card for card in found}
    said = by_id["a"]["answers"][0]["outputs"][0]["text"]
    assert len(said) < MAX_TEXT + 100
    assert "94,000 characters left out" in said
    tokens = by_id["b"]["answers"][0]["outputs"][0]["tokens"]
    assert len(tokens) == MAX_TOKENS + 1
    assert "4,300 more tokens" in tokens[-1][0]


def test_characters_in_pieces_are_read_whole():
    record = document("a", "石头")
    pieces = LogProbs(tokens=("\ufffd", "\ufffd", "头"), logprobs=(-1.0, -2.0, -0.5), greedy=False, rule="causal")
    _, found = cards(msgspec.structs.replace(record, outputs=(pieces,)))
    assert found[0]["answers"][0]["outputs"][0]["tokens"] == [["石", -3.0, 2], ["头", -0.5]]


def test_messages_labels_and_heads():
    message = ScoreRequest(sample_id="a", index=0, messages=(Message(role="user", content="hi"),), continuation="x")
    record = choice("a", choices=("x", "y"))
    record = msgspec.structs.replace(record, requests=(message, msgspec.structs.replace(message, index=1)))
    assert cards(record)[1][0]["prompt"] == [["user", "hi"]]
    head = SampleRecord(
        id="h",
        sample=Sample(id="h", choices=("no", "yes"), gold=(1,)),
        requests=(LabelRequest(sample_id="h", index=0, text="t", text_pair="u", labels=("no", "yes")),),
        outputs=(LabelProbs(probs=(0.2, 0.8)),),
        scores=(Score(sample_id="h", metric="acc", value=1.0),),
    )
    card = cards(head)[1][0]
    assert card["answers"][0]["outputs"] == [{"kind": "labels", "labels": [["no", 0.2], ["yes", 0.8]]}]
    assert card["prompt"] == [["", "t\n\nu"]]


def test_budget_is_shared_and_small_tasks_leave_theirs():
    small = [{"id": "s"}] * 4
    large = [{"id": "l" * 1000}] * 100
    found = within_budget({"large": large, "small": small}, 40_000)
    assert len(found["small"]) == 4
    assert 35 <= len(found["large"]) <= 39
    assert list(found) == ["large", "small"]
    assert len(within_budget({"huge": [{"id": "h" * 9000}] * 9}, 100)["huge"]) == 3
