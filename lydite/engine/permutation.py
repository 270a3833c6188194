"""XLNet from left to right: each token is predicted from those before it, by the two streams of its own pre-training.

XLNet learns every order of a text, so it also knows this one: the permutation mask lets position i see positions before
i only, and a query stream, which knows where it stands but not what stands there, is asked at the scored positions (Yang
et al. 2019, arXiv:1906.08237). The probabilities of all continuations sum to one, as for a causal model, but the rule,
`permutation`, is another: the model was never trained on one order alone.

Contract: that of score.py. The text alone is read, without the <sep> and <cls> that the tokenizer puts behind it, because
they would have to be seen from the left; before the first scored token stands BOS where nothing else does.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from lydite.engine.reader import Place, Reader, Tally, like_lengths, padded
from lydite.engine.score import Scored
from lydite.engine.tokens import Window


class PermutationScorer:
    """Scores windows with one XLNet."""

    def __init__(self, reader: Reader, *, pad: int) -> None:
        self.reader = reader
        self.pad = pad

    def score(self, windows: Sequence[Window]) -> Iterator[tuple[int, Scored]]:
        """Yields (index, Scored) as soon as a window is read; each window exactly once."""
        rows: dict[tuple[bytes, int], list[int]] = {}
        for number, window in enumerate(windows):
            rows.setdefault((window.ids.tobytes(), window.first), []).append(number)
        owners = list(rows.values())
        tally = Tally([len(window.ids) - window.first for window in windows])
        for batch in like_lengths([len(windows[of[0]].ids) for of in owners], self.reader.batch_tokens):
            some = [windows[owners[i][0]] for i in batch]
            inputs, slots = left_to_right(some, self.pad)
            places = [
                Place(row * slots + slot, int(window.ids[window.first + slot]), number, slot)
                for row, (i, window) in enumerate(zip(batch, some, strict=True))
                for number in owners[i]
                for slot in range(len(window.ids) - window.first)
            ]
            states = self.reader.states(inputs)
            self.reader.num_computed += sum(len(window.ids) for window in some)
            for place, (logprob, greedy) in zip(places, self.reader.read(states, places), strict=True):
                scored = tally.add(place.owner, place.slot, logprob, greedy)
                if scored is not None:
                    yield place.owner, scored


def left_to_right(windows: Sequence[Window], pad: int) -> tuple[dict[str, torch.Tensor | bool], int]:
    """What XLNet is given for these windows, and how many positions each row asks for.

    perm_mask [B, T, T]: 1 where the first position may not see the second; target_mapping [B, slots, T]: the scored
    positions, nothing in slots that a row does not need (a position named twice would be added up).
    """
    ids, mask = padded([window.ids for window in windows], pad)
    length = ids.shape[1]
    slots = max(len(window.ids) - window.first for window in windows)
    targets = torch.zeros(len(windows), slots, length)
    for row, window in enumerate(windows):
        for slot, position in enumerate(range(window.first, len(window.ids))):
            targets[row, slot, position] = 1.0
    unseen = torch.from_numpy(np.triu(np.ones((length, length), dtype=np.float32)))
    return {
        "input_ids": ids,
        "attention_mask": mask.float(),
        "perm_mask": unseen.expand(len(windows), length, length),
        "target_mapping": targets,
        "use_mems": False,
    }, slots
