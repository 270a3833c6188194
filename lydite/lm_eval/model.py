"""`LyditeLM`: a Lydite model as lm-evaluation-harness sees a model, registered there as `lydite`.

    lm_eval.simple_evaluate(model=LyditeLM("path/to/checkpoint"), tasks=[...])

Their requests become ours, so that what the choices of a question share is computed once; answers go to their cache
(`--use_cache`) as soon as all requests of a document are answered, because choices are cut together. lm-evaluation-harness
knows no failed sample: where a request has no score, everything else is answered and kept first, and then one line says
so.

`parity=true`: tokens by their rules instead of ours (engine/parity.py). Two quirks are not repeated, because they depend
on what else is asked: `hf` reads a wrong position where two requests differ only in where the context ends (its
`logits_cache`), and rows of a generation batch run on until the last one stops, thinking included.
"""

import hashlib
import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import jinja2
import lm_eval.models  # noqa: F401  # their registry fills itself only while it is empty: ours must not be the first in it
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model
from tqdm import tqdm

import lydite
from lydite.errors import ModelError
from lydite.lm_eval.arguments import MAX_GEN_TOKS, read_arguments, read_decoding
from lydite.models import load_model
from lydite.types import Completion, Failure, GenerateRequest, LogProbs, Model, Output, ScoreRequest

log = logging.getLogger(__name__)

BLOCK = 4096
"""Requests handed to the model at a time, or as many as one document has."""
_SEEDS = 1 << 20


@register_model("lydite")
class LyditeLM(LM):  # type: ignore[misc]  # lm_eval is untyped
    """`pretrained`: a model that load_model knows, or a Model; `options`: see lydite.lm_eval.arguments."""

    backend: ClassVar[str] = "causal"

    def __init__(self, pretrained: str | Model, **options: Any) -> None:
        super().__init__()
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ModelError("--model lydite runs in one process; start it without accelerate launch or torchrun")
        chosen = read_arguments(options)
        self.arguments = chosen
        if isinstance(pretrained, str):
            from lydite.models.devices import usable

            device = usable(chosen.device)
            if chosen.device is not None and device != chosen.device:
                log.warning("there is no %s here; the model goes to the %s", chosen.device, device)
            self.model = load_model(
                pretrained,
                dtype=chosen.dtype,
                device=device,
                trust_remote_code=chosen.trust_remote_code,
                settings=chosen.settings,
            )
            self._device = device
        else:
            if chosen.settings:
                raise ModelError(f"{min(chosen.settings)} cannot be changed on a model that is loaded already")
            self.model = pretrained
        self.batch_sizes: dict[int, int] = {}

    # ------------------------------------------------------------------------------------ who it is

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of a causal checkpoint; None for models without one."""
        from lydite.models.causal import CausalModel

        return self.model.encoder.tokenizer if isinstance(self.model, CausalModel) else None

    @property
    def eot_token_id(self) -> int | None:
        """The token that ends a text."""
        return None if self.tokenizer is None else self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int | None:
        """The token before an empty context."""
        from lydite.models.causal import CausalModel

        lead = self.model.encoder.lead if isinstance(self.model, CausalModel) else ()
        return lead[0] if lead else None

    @property
    def max_length(self) -> int | None:
        """Longest input in tokens."""
        return self.model.info.max_tokens

    @property
    def max_gen_toks(self) -> int:
        """Tokens that are written where a task does not say how many."""
        return MAX_GEN_TOKS

    @property
    def batch_size(self) -> str:
        """Batches are filled by tokens."""
        return "auto"

    @property
    def tokenizer_name(self) -> str:
        """Keys their cache of rendered requests: weights, tokenizer and template."""
        return f"{self.model.info.name}-{self.model.info.fingerprint}-{self._template_hash()}"

    def _template_hash(self) -> str:
        template = "" if self.tokenizer is None else str(self.tokenizer.chat_template)
        return hashlib.sha256(template.encode()).hexdigest()[:12]

    def get_model_info(self) -> dict[str, Any]:
        """What their results file says of the model; `lydite_rules` is whose rules made the numbers."""
        info = self.model.info
        return {
            "model_num_parameters": info.parameters if info.parameters is not None else -1,
            "model_dtype": info.dtype or "",
            "model_revision": info.settings.get("revision") or "main",
            "model_sha": info.fingerprint,
            "lydite_version": lydite.__version__,
            "lydite_rules": info.settings.get("rules", "lydite"),
            "lydite_rule": info.rule,
            "lydite_settings": dict(info.settings),
        }

    # ----------------------------------------------------------------------------------------- chat

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The template's text, for their log; a name chooses among several."""
        if chat_template is False or chat_template is None:
            return None
        template = None if self.tokenizer is None else self.tokenizer.chat_template
        if not template:
            raise ModelError(f"{self.model.info.name} has no chat template; leave --apply_chat_template out")
        if isinstance(template, dict):
            name = chat_template if isinstance(chat_template, str) else "default"
            if name not in template:
                raise ModelError(f"the model has no chat template {name!r}; it has {', '.join(sorted(template))}")
            return str(template[name])
        return str(template)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Messages as the model's template writes them; without a generation prompt the last turn stays open.

        A template that refuses these messages gets them without the system turn, with a warning, as in `hf`.
        """
        self.chat_template(True)
        try:
            return self._render(chat_history, add_generation_prompt)
        except jinja2.TemplateError as error:
            log.warning("the chat template refuses these messages (%s); the system turn is left out", error)
        try:
            return self._render([turn for turn in chat_history if turn["role"] != "system"], add_generation_prompt)
        except jinja2.TemplateError as error:
            raise ModelError(f"the model's chat template refuses these messages: {error}") from error

    def _render(self, turns: list[dict[str, str]], add_generation_prompt: bool) -> str:
        from lydite.models.causal import CausalModel

        assert isinstance(self.model, CausalModel)
        text = self.tokenizer.apply_chat_template(
            turns,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
            **self.model.encoder.chat_options,
        )
        return str(text)

    # ------------------------------------------------------------------------------------- requests

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """(log p(continuation | context) in nats, whether greedy decoding would have written it) of each request."""
        if self.arguments.thinking:
            raise ModelError("enable_thinking=True is for tasks that generate; leave it out for log-likelihoods")
        ours = [
            ScoreRequest(sample_id=_sample(r), index=r.idx, context=r.args[0], continuation=r.args[1]) for r in requests
        ]

        def pair(position: int, output: Output) -> tuple[float, bool] | None:
            if isinstance(output, LogProbs):
                return output.total, output.greedy
            return (-math.inf, False) if _impossible(output) else None

        return self._run("loglikelihood", requests, ours, pair, disable_tqdm)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """log p(text) in nats, in windows that each predict as many tokens as the model holds; 0 for no text."""
        ours = [
            ScoreRequest(sample_id=_sample(r), index=r.idx, continuation=r.args[0], window="disjoint") for r in requests
        ]

        def total(position: int, output: Output) -> float | None:
            if isinstance(output, LogProbs):
                return output.total
            if not requests[position].args[0]:
                return 0.0
            return -math.inf if _impossible(output) else None

        return self._run("loglikelihood_rolling", requests, ours, total, disable_tqdm)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """The text after each prompt, cut before the first stop string."""
        eos = None if self.tokenizer is None else self.tokenizer.eos_token
        seen: dict[tuple[str, int], int] = {}
        ours, stops = [], []
        for request in requests:
            decoding = read_decoding(request.args[1], eos)
            stops.append(decoding.stop_strings)
            if self.arguments.think_end_token:  # the stop strings are for the answer, not for the thinking
                decoding = read_decoding({**request.args[1], "until": []})
            # Repeats of a sampled request differ in their index, so each has a seed of its own.
            key = (_sample(request), request.idx)
            turn = seen[key] = seen.get(key, -1) + 1
            index = request.idx * _SEEDS + turn if decoding.do_sample else request.idx
            ours.append(
                GenerateRequest(sample_id=_sample(request), index=index, prompt=request.args[0], decoding=decoding)
            )

        def text(position: int, output: Output) -> str | None:
            return self._answer_of(output.text, stops[position]) if isinstance(output, Completion) else None

        return self._run("generate_until", requests, ours, text, disable_tqdm)

    def _answer_of(self, text: str, stops: Sequence[str]) -> str:
        """What comes after the thinking, cut before the first stop string."""
        end = self.arguments.think_end_token
        if not end:
            return text
        text = text.rpartition(end)[2].lstrip() if end in text else text
        return text[: min((text.find(stop) for stop in stops if stop in text), default=len(text))]

    def _run(
        self,
        method: str,
        requests: Sequence[Instance],
        ours: Sequence[ScoreRequest | GenerateRequest],
        read: Callable[[int, Output], Any],
        disable_tqdm: bool,
    ) -> list[Any]:
        """What `read` makes of each answer, in the order of the requests; None of it may be None in the end."""
        answers: list[Any] = [None] * len(ours)
        failures: dict[int, str] = {}
        with tqdm(total=len(ours), disable=disable_tqdm, desc=f"Running {method} requests") as bar:
            for documents in _blocks(ours):
                copies: dict[object, list[int]] = {}
                for position in (position for positions in documents.values() for position in positions):
                    copies.setdefault(_key(ours[position]), []).append(position)
                asked = [positions[0] for positions in copies.values()]
                missing = {name: len(positions) for name, positions in documents.items()}
                for number, output in self.model.answer([ours[position] for position in asked]):
                    name = ours[asked[number]].sample_id
                    for position in copies[_key(ours[asked[number]])]:
                        answers[position] = read(position, output)
                        if answers[position] is None:
                            failures[position] = (
                                output.reason if isinstance(output, Failure) else "no answer of this kind"
                            )
                        missing[name] -= 1
                        bar.update()
                    if not missing[name]:
                        for position in documents[name]:
                            if position not in failures:
                                self.cache_hook.add_partial(method, requests[position].args, answers[position])
        if failures:
            first = min(failures)
            raise ModelError(
                f"{len(failures)} of {len(ours)} requests have no score, and lm-evaluation-harness cannot go on without; "
                f"the first, document {requests[first].doc_id} of {requests[first].task_name}: {failures[first]}"
            )
        return answers


def _sample(request: Instance) -> str:
    """One name a document: its requests are cut together and share their prefixes."""
    return f"{request.task_name}:{request.doc_id}"


def _key(request: ScoreRequest | GenerateRequest) -> object:
    """Equal for requests that have the same answer and are of the same document."""
    if isinstance(request, GenerateRequest):
        return request.sample_id, request.prompt, request.decoding, request.index if request.decoding.do_sample else 0
    return request.sample_id, request.context, request.continuation


def _blocks(ours: Sequence[ScoreRequest | GenerateRequest]) -> Iterator[dict[str, list[int]]]:
    """Positions by document, in blocks of about BLOCK requests; a document is never divided."""
    documents: dict[str, list[int]] = {}
    for position, request in enumerate(ours):
        documents.setdefault(request.sample_id, []).append(position)
    block: dict[str, list[int]] = {}
    size = 0
    for name, positions in documents.items():
        block[name] = positions
        size += len(positions)
        if size >= BLOCK:
            yield block
            block, size = {}, 0
    if block:
        yield block


def _impossible(output: Output) -> bool:
    """Whether a model said that something has probability zero, which `hf` says as minus infinity."""
    return isinstance(output, Failure) and output.reason == "zero probability"
