"""Classification and regression heads of transformers (...ForSequenceClassification): labels for one text or a pair.

A request names the labels that it wants probabilities for, in its own order; they are found among the head's own names
(`id2label`), upper and lower case alike. A head that never got names (LABEL_0, LABEL_1 ...) takes as many labels as it has
in their order. A head with a single output gives its number as it is, and is asked without labels.

Contract: probabilities are a softmax over the labels that were asked for, so they sum to one; labels that the head does
not have are a Failure that names those it has. Texts too long for the model lose their end, the longer of a pair first,
and the tokens that went are counted.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from lydite.engine.budget import batch_rows
from lydite.engine.joined import Joined, PairTokenizer
from lydite.errors import ModelError
from lydite.models.checkpoint import CheckpointSettings, open_checkpoint, read_settings, said_of
from lydite.models.heads import HeadRunner
from lydite.types import Failure, LabelProbs, LabelRequest, ModelInfo, Output, Request, Usage

_NO_NAME = re.compile(r"LABEL_\d+")


class ClassifierModel:
    """Answers LabelRequests with one classification or regression head.

    `labels`: the head's own, in the order of its outputs; none: a regression head.
    """

    def __init__(self, info: ModelInfo, tokenizer: PairTokenizer, runner: HeadRunner, labels: Sequence[str]) -> None:
        self.info = info
        self.usage = Usage(kernel=f"{runner.kernel.name} ({runner.kernel.reason})")
        self.tokenizer = tokenizer
        self.runner = runner
        self.labels = tuple(labels)

    def network(self) -> PreTrainedModel:
        """The transformers model with its ordinary layers, fit for training; what inference had changed is undone."""
        self.runner.kernel.restore()
        return self.runner.model

    def answer(self, requests: Sequence[Request]) -> Iterator[tuple[int, Output]]:
        """Exactly one (position, output) for each request, as batches finish."""
        asked: list[tuple[int, LabelRequest, list[int]]] = []
        for index, request in enumerate(requests):
            if not isinstance(request, LabelRequest):
                yield index, Failure(reason=f"a classification head cannot answer a {type(request).__name__}")
                continue
            columns = self.columns(request.labels)
            if isinstance(columns, Failure):
                yield index, columns
            else:
                asked.append((index, request, columns))
        rows, dropped = self._join([request for _, request, _ in asked])
        before = self.runner.num_computed
        for batch, out in self.runner.run(rows):
            self.usage.tokens_computed += self.runner.num_computed - before
            before = self.runner.num_computed
            for i, logits in zip(batch, out.logits.float().cpu(), strict=True):
                index, _, columns = asked[i]
                yield index, self._output(logits, columns, dropped[i])

    def columns(self, labels: Sequence[str]) -> list[int] | Failure:
        """The head's outputs for these labels; none for the number of a regression head."""
        if not self.labels:
            if len(labels) > 1:
                return Failure(reason=f"the head gives one number, no probabilities of {', '.join(labels)}")
            return []
        shown = ", ".join(self.labels)
        if not labels:
            return Failure(reason=f"the head has the labels {shown}, but the request asks for one number")
        known = {label.casefold(): number for number, label in enumerate(self.labels)}
        if all(label.casefold() in known for label in labels):
            return [known[label.casefold()] for label in labels]
        if len(labels) == len(self.labels) and all(_NO_NAME.fullmatch(label) for label in self.labels):
            return list(range(len(labels)))
        return Failure(
            reason=f"the head has the labels {shown}, not {', '.join(labels)}; name them in id2label of its config.json"
        )

    def _join(self, requests: Sequence[LabelRequest]) -> tuple[list[Joined], list[int]]:
        """Each request's texts as one row, and how many of their tokens were cut off."""
        texts = [[r.text] if r.text_pair is None else [r.text, r.text_pair] for r in requests]
        distinct = list(dict.fromkeys(text for some in texts for text in some))
        found = {text: encoding.ids for text, encoding in zip(distinct, self.tokenizer.encode(distinct), strict=True)}
        rows, dropped = [], []
        for some in texts:
            parts = [found[text] for text in some]
            kept = self._fit(parts)
            rows.append(self.tokenizer.join(*kept))
            dropped.append(sum(map(len, parts)) - sum(map(len, kept)))
            self.usage.tokens_requested += len(rows[-1].ids)
        return rows, dropped

    def _fit(self, parts: Sequence[Sequence[int]]) -> list[Sequence[int]]:
        """The texts cut at their ends to the model's length, the longer one first (as `longest_first` in tokenizers)."""
        longest = self.info.max_tokens
        room = sum(map(len, parts)) if longest is None else longest - self.tokenizer.num_special(len(parts))
        if sum(map(len, parts)) <= room:
            return list(parts)
        sizes = [room]
        if len(parts) == 2:
            short = min(len(parts[0]), len(parts[1]), room // 2)
            sizes = [room - short, short] if len(parts[0]) > len(parts[1]) else [short, room - short]
        return [part[:size] for part, size in zip(parts, sizes, strict=True)]

    def _output(self, logits: torch.Tensor, columns: Sequence[int], dropped: int) -> Output:
        values = logits[list(columns)].double().softmax(dim=0) if columns else logits.double()
        if not all(map(math.isfinite, values.tolist())):
            return Failure(reason="not a number among the head's outputs")
        return LabelProbs(probs=tuple(values.tolist()), num_truncated=dropped)


def load_classifier(
    folder: Path,
    *,
    name: str,
    source: str,
    dtype: str = "float32",
    device: str = "cpu",
    settings: Mapping[str, Any] | None = None,
) -> ClassifierModel:
    """A ClassifierModel from a local checkpoint folder; arguments and errors as of load_causal, CheckpointSettings."""
    chosen = read_settings(settings, CheckpointSettings)
    with open_checkpoint(folder, AutoModelForSequenceClassification, chosen, dtype=dtype, device=device) as opened:
        config = opened.network.config
        if config.problem_type == "multi_label_classification":
            raise ModelError(f"{name} gives several labels to a text at once, which no request asks for")
        number = int(config.num_labels)
        labels = () if number == 1 else tuple(str(config.id2label[i]) for i in range(number))
        tokenizer = PairTokenizer(opened.tokenizer)
        longest = opened.max_tokens(chosen.max_tokens)
        if longest is not None and longest <= tokenizer.num_special(2):
            raise ModelError(f"max_tokens={longest} leaves no room between the special tokens; raise it")
        pad = opened.tokenizer.pad_token_id
        if pad is None:
            raise ModelError(
                f"the tokenizer of {name} names no padding token; set pad_token in its tokenizer_config.json"
            )
        config.pad_token_id = pad  # heads of decoders look for the last token by it
        runner = HeadRunner(
            opened.network,
            pad=pad,
            segments=tokenizer.has_segments,
            batch_tokens=chosen.batch_tokens or batch_rows(*opened.size),
            kernel=chosen.kernel,
        )
        info = opened.info(
            name=name,
            source=source,
            rule=("classifier", "labels"),
            can=("label",),
            max_tokens=longest,
            settings={"labels": list(labels)} | said_of(opened.network, chosen, runner.kernel.name),
        )
    return ClassifierModel(info, tokenizer, runner, labels)
