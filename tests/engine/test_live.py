"""Texts that join a running batch: the texts that they are alone, wherever they join and whoever leaves."""

import threading
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from lydite.engine.echo import echo
from lydite.engine.live import Live, Ticket, Token
from lydite.engine.run import Likelihood
from lydite.engine.stops import has_stop, stop_in
from lydite.engine.stream import TextStream
from lydite.models.causal import CausalModel, load_causal
from lydite.types import Completion, Decoding, Failure, GenerateRequest
from tests.tiny import TEXTS, save_tiny

PROMPTS = [
    f"{TEXTS[i % 7]} The {word}"
    for i, word in enumerate(["cat", "dog", "mat", "fox", "age", "sun", "今天", "question", "answer"])
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("llama"), scale=6.0, max_tokens=512)


def load(folder: Path, **settings: object) -> CausalModel:
    return load_causal(folder, name="tiny", source="test", settings=settings)


@pytest.fixture(scope="module")
def model(folder: Path) -> CausalModel:
    return load(folder)


def ask(number: int, **decoding: object) -> GenerateRequest:
    options = {"max_new_tokens": 6 + 3 * number} | decoding
    return GenerateRequest(sample_id=str(number), index=0, prompt=PROMPTS[number], decoding=Decoding(**options))


def mixed() -> list[GenerateRequest]:
    sampled = {"do_sample": True, "temperature": 1.3, "top_p": 0.9}
    return [ask(i, **(sampled if i % 3 == 1 else {}), stop_strings=("he",) if i % 4 == 3 else ()) for i in range(9)]


def submit(live: Live, model: CausalModel, request: GenerateRequest, num_top: int | None = None) -> Ticket:
    [ids] = model.encoder.prompt_ids([request.prompt])
    return live.submit(ids, request, num_top=num_top)


def answer(ticket: Ticket) -> tuple[list[Token], Completion | Failure]:
    *tokens, last = list(ticket)
    assert all(isinstance(token, Token) for token in tokens)
    assert not isinstance(last, Token)
    return tokens, last  # type: ignore[return-value]


@pytest.mark.parametrize("settings", [{}, {"batch_tokens": 300}, {"prompt_lookup": 3, "batch_tokens": 700}])
def test_texts_that_join_at_any_time_are_what_they_are_alone(
    folder: Path, model: CausalModel, settings: dict[str, int]
) -> None:
    requests = mixed()
    alone = [dict(model.answer([request]))[0] for request in requests]
    model = load(folder, **settings)
    live = Live(model.generator)
    most: list[int] = []
    step = model.scorer.forward
    model.scorer.forward = lambda ids, **more: (most.append(live.num_open), step(ids, **more))[1]  # type: ignore[method-assign]
    try:
        tickets = [submit(live, model, requests[0])]
        for number in range(1, len(requests)):  # each joins when the one before has its first tokens
            tickets[-1].events.get()
            tickets.append(submit(live, model, requests[number]))
        assert [answer(ticket)[1] for ticket in tickets] == alone
    finally:
        live.close()
    assert max(most) > 1, "nothing ran beside another"


def test_slots_take_the_shape_that_the_texts_need(folder: Path, model: CausalModel) -> None:
    """The budget holds two long texts or many short ones; a long one waits until short ones have left, none is lost."""
    requests = [ask(i, max_new_tokens=n) for i, n in enumerate([5, 150, 6, 90, 4, 7])]
    alone = [dict(model.answer([request]))[0] for request in requests]
    model = load(folder, batch_tokens=420)
    live = Live(model.generator)
    try:
        tickets = [submit(live, model, request) for request in requests]
        assert [answer(ticket)[1] for ticket in tickets] == alone
    finally:
        live.close()


def test_a_cancelled_text_frees_its_slot(folder: Path, model: CausalModel) -> None:
    [alone] = dict(model.answer([ask(2, max_new_tokens=5)])).values()
    model = load(folder, batch_tokens=200)  # room for one of these texts
    live = Live(model.generator)
    try:
        first = submit(live, model, ask(0, max_new_tokens=170))
        second = submit(live, model, ask(1, max_new_tokens=170))
        third = submit(live, model, ask(2, max_new_tokens=5))
        first.events.get()
        second.cancel()
        first.cancel()
        tokens, last = answer(first)
        assert isinstance(last, Failure)
        assert len(tokens) < 169
        assert isinstance(answer(second)[1], Failure)
        assert answer(third)[1] == alone
    finally:
        live.close()


def test_closing_answers_everybody(model: CausalModel) -> None:
    live = Live(model.generator)
    tickets = [submit(live, model, ask(i, max_new_tokens=200)) for i in range(3)]
    live.close()
    tickets.append(submit(live, model, ask(0)))
    assert all(isinstance(answer(ticket)[1], Failure) for ticket in tickets)


def test_a_fault_of_the_decoder_ends_only_what_was_under_way(folder: Path) -> None:
    model = load(folder)
    live = Live(model.generator)
    whole = model.scorer.forward
    try:
        model.scorer.forward = lambda *a, **k: (_ for _ in ()).throw(RuntimeError("out of\nmemory"))  # type: ignore[method-assign]
        _, last = answer(submit(live, model, ask(0)))
        assert last == Failure(reason="the decoder failed: RuntimeError: out of memory")
        model.scorer.forward = whole  # type: ignore[method-assign]
        assert isinstance(answer(submit(live, model, ask(0)))[1], Completion)
    finally:
        live.close()


def naive(folder: Path, ids: list[int]) -> torch.Tensor:
    """Log-probabilities [T, V] after each token of a text."""
    network = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        return network(torch.tensor([ids])).logits[0].log_softmax(-1)


def check(found: list[Likelihood], logprobs: torch.Tensor, tokens: list[int], num_top: int) -> None:
    assert [one.logprob for one in found] == pytest.approx(logprobs[range(len(tokens)), tokens].tolist(), abs=1e-4)
    for one, row in zip(found, logprobs, strict=True):
        best = row.topk(num_top)
        assert [token for token, _ in one.top] == best.indices.tolist()
        assert [logprob for _, logprob in one.top] == pytest.approx(best.values.tolist(), abs=1e-4)


@pytest.mark.parametrize("options", [{}, {"do_sample": True, "temperature": 2.0, "repetition_penalty": 1.5}])
def test_likelihoods_are_the_models_own(folder: Path, model: CausalModel, options: dict[str, object]) -> None:
    """Whatever penalties and temperatures chose the tokens."""
    live = Live(model.generator)
    try:
        ticket = submit(live, model, ask(2, **options), num_top=3)
        other = submit(live, model, ask(3))
        tokens, last = answer(ticket)
        assert all(token.likelihood is None for token in answer(other)[0])
    finally:
        live.close()
    assert isinstance(last, Completion)
    new = [token.id for token in tokens]
    rows = naive(folder, ticket.ids + new)[len(ticket.ids) - 1 : -1]
    check([token.likelihood for token in tokens], rows, new, 3)  # type: ignore[misc]


@pytest.mark.parametrize("architecture", ["llama", "falcon"])
def test_echo_equals_a_plain_pass(architecture: str, tmp_path: Path) -> None:
    model = load(save_tiny(tmp_path, architecture, scale=6.0))
    texts = model.encoder.prompt_ids([TEXTS[2], TEXTS[2] + " More", "a"])
    for ids, found in zip(texts, echo(model.scorer, texts, 2), strict=True):
        assert found is not None
        logprobs = naive(tmp_path, ids)
        check(found, logprobs, [*ids[1:], int(logprobs[-1].argmax())], 2)


def test_echo_of_nan_fails_alone(folder: Path) -> None:
    model = load(folder)
    texts = model.encoder.prompt_ids(["The cat", "天"])
    poison = next(token for token in texts[1] if token not in texts[0])
    with torch.no_grad():
        model.scorer.model.get_input_embeddings().weight[poison] = torch.nan
    good, bad = echo(model.scorer, texts, 1)
    assert good is not None
    assert bad is None


def test_models_that_cannot_be_packed_and_beams_wait_for_their_turn(folder: Path, tmp_path: Path) -> None:
    for model, more in ((load(folder), {"num_beams": 2}), (load(save_tiny(tmp_path, "falcon", scale=6.0)), {})):
        live = Live(model.generator)
        try:
            tickets = [submit(live, model, ask(i, **(more if i % 2 else {}))) for i in range(3)]
            found = [answer(ticket)[1] for ticket in tickets]
            assert model.encoder is not None
            expected = [dict(model.answer([ask(i, **(more if i % 2 else {}))]))[0] for i in range(3)]
            assert found == expected
        finally:
            live.close()


def test_pieces_of_text_are_whole_characters_and_spell_the_answer(model: CausalModel) -> None:
    """Also where stop strings are cut off, and with characters of several tokens."""
    texts = model.generator.texts
    [before] = model.encoder.prompt_ids(["天气"])
    for written, decoding in [
        ("很好。我们去公园 and on", Decoding()),
        ("很好 STO STOP more", Decoding(stop_strings=("STOP",))),
        ("aab", Decoding(stop_strings=("ab",))),
        ("🎉 x 🎉", Decoding(stop_strings=("🎉🎉", "y"))),
        ("a\ufffd b", Decoding()),
        ("\n \n很好 and on\nmore", Decoding(one_line=True)),
        ("\nxyz STOP\nmore", Decoding(one_line=True, stop_strings=("STOP",))),
    ]:
        stream = TextStream(texts, before, decoding)
        [ids] = model.encoder.prompt_ids([written])
        pieces = []
        for count, token in enumerate(ids, 1):
            pieces.append(stream.push(token))
            if has_stop(decoding) and texts.has_stop(ids[:count], decoding):
                ids = ids[:count]
                break
        whole = texts.text(_prompt(before), ids, skip_special=True)
        expected = whole[: stop_in(whole, decoding)]
        assert "".join(pieces) + stream.rest(expected) == expected
        assert texts.finish(_prompt(before), ids, decoding).text == expected
        if "\ufffd" not in written:
            assert not any("\ufffd" in piece for piece in pieces)


def _prompt(ids: list[int]):  # type: ignore[no-untyped-def]
    from lydite.engine.texts import Prompt

    return Prompt(0, ids, 0)


def test_the_thread_ends(model: CausalModel) -> None:
    live = Live(model.generator)
    live.close()
    assert not any(thread.name == "lydite-live" for thread in threading.enumerate())
