"""Text generation with shared prompt prefixes, one key/value store, and rows that come and go.

Prompts go through the network as a packed prefix tree (plan.py), so what several begin with is computed once. Then all
running texts take a step together; a text that is done leaves its slot, and when enough slots are free the next prompts
take them. Beam search, and models that cannot be packed, go through transformers' `generate` (decode_plain.py).

Contract: the same rules as for scoring decide what stands before the prompt; a prompt that leaves no room for
`max_new_tokens` is cut from the left and counted; a text depends on its request alone, not on what else is asked.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from lydite.engine.decode_plain import PlainGenerator
from lydite.engine.plan import SHARED_TOKENS, common
from lydite.engine.run import MAX_ROWS, DecodeRun, Text, Watcher
from lydite.engine.sampling import make_generator
from lydite.engine.score import Scorer
from lydite.engine.slots import Slots
from lydite.engine.texts import Prompt, Texts
from lydite.engine.tokens import Encoder
from lydite.types import Completion, Failure, GenerateRequest


class Generator:
    """Generates with the model of a Scorer; `batch_tokens` bounds the positions whose keys and values are held."""

    def __init__(self, scorer: Scorer, encoder: Encoder, *, batch_tokens: int, prompt_lookup: int = 0) -> None:
        self.scorer = scorer
        self.encoder = encoder
        self.texts = Texts(scorer.model, encoder)
        self.plain = PlainGenerator(scorer.model, self.texts, batch_tokens=batch_tokens)
        self.batch_tokens = batch_tokens
        self.prompt_lookup = prompt_lookup
        """How many tokens are guessed from the text before where all texts are greedy; 0: none."""
        self.watch: Watcher | None = None
        self.num_requested = 0
        self.num_computed = 0
        self.num_generated = 0

    def generate(self, requests: Sequence[GenerateRequest]) -> Iterator[tuple[int, Completion | Failure]]:
        """Yields (index, Completion) as texts are done."""
        rendered = [self.encoder.render(r.messages) if r.messages else r.prompt for r in requests]
        own: list[Text] = []
        plain: list[Prompt] = []
        for index, ids in enumerate(self.encoder.prompt_ids(rendered)):
            decoding = requests[index].decoding
            prompt = self.texts.fit(index, ids, decoding)
            if isinstance(prompt, Failure):
                yield index, prompt
                continue
            constraint = self.texts.constraints.make(decoding)
            if isinstance(constraint, Failure):
                yield index, constraint
                continue
            self.num_requested += len(prompt.ids)
            if self.scorer.can_decode and decoding.num_beams == 1:
                own.append(Text(prompt, decoding, make_generator(requests[index]), constraint))
            else:
                plain.append(prompt)
        if own:
            for text, answer in DecodeRun(self, own, self._slots(own)).answers():
                yield text.prompt.index, answer
        before = self.plain.num_computed
        for prompt, answer in self.plain.generate(plain, requests):
            self.num_computed += self.plain.num_computed - before
            before = self.plain.num_computed
            self.num_generated += answer.num_tokens if isinstance(answer, Completion) else 0
            yield prompt.index, answer

    def _slots(self, texts: Sequence[Text]) -> Slots:
        """As many slots as the budget has room for, each wide enough for all of the texts."""
        shared = _shared_prefix([text.prompt.ids for text in texts])
        width = max(text.num_positions for text in texts) + self.prompt_lookup - shared
        rows = max(1, min(MAX_ROWS, len(texts), (self.batch_tokens - shared) // width))
        return Slots(rows, width, num_shared=shared)


def _shared_prefix(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens all prompts begin with, their last ones left out; 0 where it is not worth a store of its own."""
    first = np.asarray(prompts[0])
    size = min(common(first, np.asarray(ids)) for ids in prompts)
    size = min(size, min(len(ids) for ids in prompts) - 1)
    return size if len(prompts) > 1 and size >= SHARED_TOKENS else 0
