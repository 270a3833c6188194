"""lm-evaluation-harness's own rules for tokens, where a number must be theirs to the last digit.

Chosen by the model setting `rules=lm_eval`. They differ from ours (engine/tokens.py) in five places, and all five are
kept as they are there (0.4.13: `api/model.py`, `models/huggingface.py`, `utils.py`):

* The join. Context and whole text are tokenized apart, and the continuation is whatever the whole has more than the
  context has tokens. Where a token spans the border, tokens are scored twice, not at all, or do not belong to the text;
  where nothing is left, they stop, and so it is a Failure here.
* An empty context is BOS (else EOS). A continuation that begins with that token loses it.
* Cutting from the left takes BOS away like any other token.
* Whole documents: what the tokenizer puts before a text is scored like the text, so with a tokenizer that adds BOS,
  BOS is predicted from BOS. Later windows have no BOS.
* `add_bos_token` stands for all special tokens.

Contract: that of Encoder; only `none` and `disjoint` windows exist there, `disjoint` without a context.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from transformers import PreTrainedTokenizerBase

from lydite.engine.tokens import Encoded, Encoder, Window
from lydite.types import Failure, ScoreRequest

DEFAULT_MAX_TOKENS = 2048
"""Theirs, where neither config nor tokenizer names a length."""
_SLICE = 512


class LmEvalEncoder(Encoder):
    """An Encoder that cuts texts as lm-evaluation-harness's `hf` model does."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_tokens: int | None,
        add_bos_token: bool | None = None,
        chat_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(tokenizer, max_tokens=max_tokens or DEFAULT_MAX_TOKENS, chat_options=chat_options)
        self.add_bos_token = add_bos_token
        self._said = super().settings
        self.prefix = ()  # nothing survives a cut from the left
        if tokenizer.bos_token_id is not None:
            self.lead = (tokenizer.bos_token_id,)

    @property
    def settings(self) -> dict[str, Any]:
        """As the base class says them, with what differs here."""
        return self._said | {"rules": "lm_eval", "add_bos_token": self.add_bos_token, "max_context_stride": None}

    # ---------------------------------------------------------------------------------------- texts

    def prompt_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Prompts for generation: special tokens as the tokenizer has them, none before a text that brings BOS."""
        bos = self.tokenizer.bos_token
        wanted = [False if bos and text.startswith(bos) else self._flag() for text in texts]
        found = {
            special: self._ids([t for t, w in zip(texts, wanted, strict=True) if w is special], special)
            for special in (True, False)
        }
        return [found[special][text] for text, special in zip(texts, wanted, strict=True)]

    def _flag(self) -> bool:
        return True if self.add_bos_token is None else self.add_bos_token

    def _ids(self, texts: Iterable[str], special: bool) -> dict[str, list[int]]:
        """Token ids of each distinct text."""
        distinct = list(dict.fromkeys(texts))
        found: dict[str, list[int]] = {}
        for start in range(0, len(distinct), _SLICE):
            some = distinct[start : start + _SLICE]
            found.update(zip(some, self.tokenizer(some, add_special_tokens=special)["input_ids"], strict=True))
        return found

    def _scored_ids(self, texts: Iterable[str]) -> dict[str, list[int]]:
        """The same, without special tokens for texts that begin with the leading token's own text."""
        start = self.tokenizer.decode(list(self.lead)) if self.lead else None
        plain: list[str] = []
        full: list[str] = []
        for text in texts:
            (plain if start is not None and text.startswith(start) else full).append(text)
        return self._ids(full, self._flag()) | self._ids(plain, False)

    # ------------------------------------------------------------------------------------- requests

    def encode(self, requests: Sequence[ScoreRequest]) -> list[Encoded | Failure]:
        """One Encoded, or the reason why there is none, for each request; no request depends on another."""
        answers: list[Encoded | Failure] = []
        for start in range(0, len(requests), _SLICE):
            some = requests[start : start + _SLICE]
            pairs = [_pair(self.render(r.messages) if r.messages else r.context, r.continuation) for r in some]
            alone = self._ids((continuation for context, continuation in pairs if context is None), False)
            whole = self._scored_ids(
                text for context, continuation in pairs for text in (context or "", (context or "") + continuation)
            )
            for request, (context, continuation) in zip(some, pairs, strict=True):
                if request.window == "none":
                    answers.append(self._pair_window(context, continuation, alone, whole))
                elif request.window == "disjoint" and context is None:
                    answers.append(self._rolling(whole[continuation]))
                else:
                    answers.append(Failure(reason="lm-eval's rules know no such windows; leave rules=lm_eval out"))
        return answers

    def _pair_window(
        self,
        context: str | None,
        continuation: str,
        alone: Mapping[str, list[int]],
        whole: Mapping[str, list[int]],
    ) -> Encoded | Failure:
        """Context and continuation as one window; `alone`: continuations without any special token."""
        if not continuation:
            return Failure(reason="the continuation is empty, and lm-eval stops there")
        if context is None:
            scored = alone[continuation]
            return self._window(list(self.lead), scored[1:] if scored[:1] == list(self.lead) else scored, "clean")
        before, joined = whole[context], whole[context + continuation]
        clean = joined[: len(before)] == before
        return self._window(before, joined[len(before) :], "clean" if clean else "spanned")

    def _window(self, before: list[int], scored: list[int], join: Literal["clean", "spanned"]) -> Encoded | Failure:
        assert self.max_tokens is not None
        if not scored:
            return Failure(reason="no token is left for the continuation, and lm-eval stops there")
        if not before:
            return Failure(reason="nothing stands before the first scored token, and lm-eval stops there")
        if len(scored) > self.max_tokens:
            return Failure(reason=f"the continuation has {len(scored)} tokens, more than the model's {self.max_tokens}")
        ids = np.asarray((before + scored)[-(self.max_tokens + 1) :], dtype=np.int32)
        return Encoded([Window(ids, len(ids) - len(scored))], join, len(before) + len(scored) - len(ids))

    def _rolling(self, tokens: list[int]) -> Encoded | Failure:
        """Their rolling windows with one token of context; the last one is filled up on its left."""
        assert self.max_tokens is not None
        if not tokens:
            return Failure(reason="the text has no tokens")
        if not self.lead:
            return Failure(reason="the tokenizer has neither BOS nor EOS to stand before the first scored token")
        ids, longest = np.asarray(tokens, dtype=np.int32), self.max_tokens
        first = min(longest, len(ids))
        windows = [Window(np.concatenate([np.asarray(self.lead, dtype=np.int32), ids[:first]]), 1)]
        done = first
        while done < len(ids):
            end = min(done + longest, len(ids))
            begin = end - longest - 1
            windows.append(Window(ids[begin:end], done - begin))
            done = end
        return Encoded(windows)


def _pair(context: str, continuation: str) -> tuple[str | None, str]:
    """White space at the end of a context belongs to the continuation; None: there was no context at all."""
    if not context:
        return None, continuation
    kept = context.rstrip()
    return kept, context[len(kept) :] + continuation
