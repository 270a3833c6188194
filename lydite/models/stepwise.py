"""Answers of models that read one token after another and carry a state of their own: n-grams and LSTMs.

The model says how likely each next token is (`Stepper`); where a text ends, what its options mean and how it becomes text
is the engine's (engine/sampling.py, constrain.py, texts.py), the same as for every other model.

Contract: a text depends on its request alone; every option of Decoding is honoured, or the request is a Failure that
says which one is not.

V: vocabulary.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec
import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging

from lydite.engine.quick import QuickEncoder
from lydite.engine.run import Text
from lydite.engine.sampling import make_generator
from lydite.engine.texts import Texts
from lydite.engine.tokens import Encoded, Encoder
from lydite.errors import ModelError
from lydite.types import Completion, Failure, GenerateRequest, LogProbs, Output, Usage

MAX_ROWS = 64
"""Texts that are written at one time."""
_NAN = Failure(reason="not a number among the model's probabilities")


class StepSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `--set key=value` may say about each of these models."""

    chat_template: str | None = None
    """A file with the Jinja template to use instead of the tokenizer's own."""
    chat_options: dict[str, Any] = {}
    """Variables for the chat template."""
    revision: str | None = None
    """Of the hub; `find_checkpoint` has followed it."""
    trust_remote_code: bool = False
    """A command names it for all its models; these bring no code along."""


Chosen = TypeVar("Chosen", bound=StepSettings)


def read_settings(given: Mapping[str, Any] | None, kind: type[Chosen], what: str) -> Chosen:
    """The settings of one kind of model; raises ModelError for unknown keys and wrong types."""
    known = kind.__struct_fields__
    for key in given or {}:
        if key not in known:
            raise ModelError(f"unknown setting {key!r} of {what}; known are {', '.join(sorted(known))}")
    try:
        return msgspec.convert(dict(given or {}), kind, strict=False)
    except msgspec.ValidationError as error:
        raise ModelError(f"a model setting has the wrong type: {error}") from error


def read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in a folder."""
    try:
        with quiet():  # it warns of a config.json that is none of its own
            tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"the tokenizer in {folder} cannot be read: {line}") from error
    return tokenizer


@contextmanager
def quiet() -> Iterator[None]:
    """No chatter and no progress bars of transformers; its settings come back afterwards."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def make_encoder(tokenizer: PreTrainedTokenizerBase, chosen: StepSettings, *, begins: bool = False) -> Encoder:
    """The tokenizer for a model that has no longest text; it must have a token for where one begins or ends.

    `begins`: every text begins with BOS, if there is one, whether or not the tokenizer puts it there.
    """
    if chosen.chat_template is not None:
        path = Path(chosen.chat_template)
        if not path.is_file():
            raise ModelError(f"chat_template must be a file with a Jinja template; there is none at {path}")
        tokenizer.chat_template = path.read_text(encoding="utf-8")
    wants = True if begins and tokenizer.bos_token_id is not None else None
    encoder = QuickEncoder(tokenizer, max_tokens=None, wants_bos=wants, chat_options=chosen.chat_options)
    if not encoder.lead:
        raise ModelError("the tokenizer has neither bos_token nor eos_token; set one in its tokenizer_config.json")
    return encoder


class Stepper(Protocol):
    """A batch of texts as their model sees it."""

    def begin(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Read the prompts; logits [rows, V] of what comes next."""
        ...

    def step(self, rows: Sequence[int], tokens: Sequence[int]) -> Tensor:
        """Of the texts there were, `rows` go on, each with its token; logits [rows, V] of what comes next."""
        ...


def answer_of(encoded: Encoded, tokens: Sequence[str], logprobs: Sequence[float], *, greedy: bool, rule: str) -> Output:
    """A scored request as LogProbs of its tokens' texts, or as the Failure that its numbers are."""
    if not all(map(math.isfinite, logprobs)):
        if -math.inf in logprobs and not any(map(math.isnan, logprobs)):
            return Failure(reason="zero probability")
        return Failure(reason="not a number among the model's log-probabilities")
    return LogProbs(
        tokens=tuple(tokens),
        logprobs=tuple(logprobs),
        greedy=greedy,
        rule=rule,
        join=encoded.join,
        num_truncated=encoded.num_truncated,
    )


def write_texts(
    requests: Sequence[GenerateRequest], texts: Texts, stepper: Stepper, usage: Usage
) -> Iterator[tuple[int, Completion | Failure]]:
    """Yields (index, text) as texts are done; those of like lengths go together."""
    encoder = texts.encoder
    rendered = [encoder.render(r.messages) if r.messages else r.prompt for r in requests]
    ready: list[Text] = []
    for index, ids in enumerate(encoder.prompt_ids(rendered)):
        text = _prepare(index, ids, requests[index], texts)
        if isinstance(text, Failure):
            yield index, text
        else:
            ready.append(text)
    ready.sort(key=lambda text: len(text.prompt.ids))
    for start in range(0, len(ready), MAX_ROWS):
        yield from _run(ready[start : start + MAX_ROWS], texts, stepper, usage)


def _prepare(index: int, ids: list[int], request: GenerateRequest, texts: Texts) -> Text | Failure:
    if request.decoding.num_beams > 1:
        return Failure(reason="this kind of model writes without beam search; leave num_beams out")
    prompt = texts.fit(index, ids, request.decoding)
    if isinstance(prompt, Failure):
        return prompt
    constraint = texts.constraints.make(request.decoding)
    if isinstance(constraint, Failure):
        return constraint
    return Text(prompt, request.decoding, make_generator(request), constraint)


def _run(
    running: list[Text], texts: Texts, stepper: Stepper, usage: Usage
) -> Iterator[tuple[int, Completion | Failure]]:
    size = sum(len(text.prompt.ids) for text in running)
    usage.tokens_requested += size
    usage.tokens_computed += size
    with torch.inference_mode():
        logits = stepper.begin([text.prompt.ids for text in running])
    while running:
        done: list[tuple[int, Completion | Failure]] = []
        rows = []
        for row, text in enumerate(running):
            answer = _advance(text, logits[row], texts)
            usage.tokens_generated += not isinstance(answer, Failure)
            if answer is None:
                rows.append(row)
            else:
                done.append((text.prompt.index, answer))
        yield from done
        running = [running[row] for row in rows]
        if running:
            with torch.inference_mode():
                logits = stepper.step(rows, [text.new[-1] for text in running])


def _advance(text: Text, logits: Tensor, texts: Texts) -> Completion | Failure | None:
    """The text gets its next token from logits [V]; its answer if it ends with it."""
    if bool(logits.isnan().any()):
        return _NAN
    text.new.append(text.choose(logits))
    complete = False
    if text.constraint is not None:
        text.constraint.accept(text.new[-1])
        if text.constraint.failure is not None:
            return text.constraint.failure
        complete = text.constraint.is_done
    if complete or texts.is_done(text.new, text.decoding):
        return texts.finish(text.prompt, text.new, text.decoding, complete=complete)
    return None
