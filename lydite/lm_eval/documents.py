"""One loaded task of lm-evaluation-harness: its documents as Samples, its requests as ours, its scores as ours.

A document's answers are put back into their Instances, go through their filters and `process_results`, and what comes
out is read by lydite.lm_eval.scoring. Filters see one document at a time; none of theirs looks at several.
"""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jinja2

from lydite.errors import DataError
from lydite.lm_eval.arguments import read_decoding
from lydite.lm_eval.scoring import Reading, carried, scores_of
from lydite.types import (
    Completion,
    Context,
    Failure,
    GenerateRequest,
    LogProbs,
    Output,
    Request,
    Sample,
    Score,
    ScoreRequest,
)

log = logging.getLogger(__name__)

ERRORS = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ImportError,
    ArithmeticError,
    jinja2.TemplateError,
)
"""What their code, and the code of a task, raises."""


class Documents:
    """`theirs`: a task whose requests are built; `readings`: how its metrics are read, by (metric, filter)."""

    def __init__(self, theirs: Any, readings: Mapping[tuple[str, str], Reading]) -> None:
        self.theirs = theirs
        self.readings = dict(readings)
        self.instances: dict[str, list[Any]] = {}
        for instance in theirs.instances:
            self.instances.setdefault(str(instance.doc_id), []).append(instance)
        for group in self.instances.values():
            group.sort(key=lambda instance: instance.idx)
        self.samples = [self._sample(name, group) for name, group in self.instances.items()]
        self._left_out: set[tuple[str, str]] = set()

    @property
    def generates(self) -> bool:
        """Whether any request asks for text."""
        return any(one.request_type == "generate_until" for group in self.instances.values() for one in group)

    def fingerprint(self) -> str:
        """Hash of every request and document."""
        digest = hashlib.sha256()
        for sample in self.samples:
            digest.update(json.dumps([sample.id, sample.fields], sort_keys=True, ensure_ascii=False).encode())
            for instance in self.instances[sample.id]:
                digest.update(repr((instance.request_type, instance.arguments, instance.repeats)).encode())
        return digest.hexdigest()[:16]

    # -------------------------------------------------------------------------------------- samples

    def _sample(self, name: str, group: Sequence[Any]) -> Sample:
        doc = group[0].doc
        fields = _plain(doc) if isinstance(doc, dict) else {"text": _plain(doc)}
        choices, gold, targets, question = self._shown(doc, group)
        return Sample(id=name, input=question, choices=choices, gold=gold, targets=targets, fields=fields)

    def _shown(self, doc: Any, group: Sequence[Any]) -> tuple[tuple[str, ...], tuple[int, ...], tuple[str, ...], str]:
        """Choices, gold indices, targets and question, for readers and for chance; scores do not depend on them."""
        theirs = self.theirs
        try:
            question, target = theirs.doc_to_text(doc), theirs.doc_to_target(doc)
            choices = theirs.doc_to_choice(doc) if theirs.get_config("doc_to_choice") is not None else []
        except ERRORS:
            return (), (), (), ""
        if theirs.OUTPUT_TYPE == "multiple_choice":
            # With several inputs the gold index stands where the text stands else.
            right = question if isinstance(question, int) else target
            gold = [choices.index(one) if isinstance(one, str) and one in choices else one for one in _listed(right)]
            known = tuple(one for one in gold if isinstance(one, int) and 0 <= one < len(choices))
            return tuple(map(str, choices)), known, (), question if isinstance(question, str) else ""
        if isinstance(target, int) and 0 <= target < len(choices):
            target = choices[target]
        return (), (), tuple(str(one) for one in _listed(target)), question if isinstance(question, str) else ""

    def chance(self, sample: Sample) -> dict[str, float]:
        """What guessing gets where choices are scored."""
        if not sample.choices or not sample.gold:
            return {}
        guess = len(set(sample.gold)) / len(sample.choices)
        accuracies = ("acc", "acc_norm", "acc_bytes", "acc_mutual_info")
        return {one.metric.name: guess for (metric, _), one in self.readings.items() if metric in accuracies}

    def context(self, sample: Sample) -> Context:
        """What stands before the first request's continuation."""
        first = self._of(sample)[0]
        return "" if first.request_type == "loglikelihood_rolling" else _context(first.args[0])

    def _of(self, sample: Sample) -> list[Any]:
        if sample.id not in self.instances:
            raise DataError(f"{self.theirs.task_name} has no document {sample.id} any more; its data has changed")
        return self.instances[sample.id]

    # ------------------------------------------------------------------------------------- requests

    def requests(self, sample: Sample, context: Context) -> Sequence[Request]:
        """Their requests in their order; a sampled one as often as the task repeats it."""
        made: list[Request] = []
        for instance in self._of(sample):
            for _ in range(_times(instance)):
                made.append(_request(sample, len(made), instance))
        return made

    def score(self, sample: Sample, outputs: Sequence[Output]) -> Sequence[Score]:
        """Their filters and metrics on the answers."""
        failed = next((output.reason for output in outputs if isinstance(output, Failure)), None)
        kept = [one.metric for key, one in self.readings.items() if key not in self._left_out]
        if failed is not None:
            return [Score(sample_id=sample.id, metric=m.name, value=None, status="error", note=failed) for m in kept]
        try:
            values, answers = self._process(sample, outputs)
        except ERRORS as error:
            note = f"lm-eval's scoring raised {type(error).__name__}: {' '.join(str(error).split())[:200]}"
            return [Score(sample_id=sample.id, metric=m.name, value=None, status="error", note=note) for m in kept]
        self._leave_out(values)
        readings = {key: one for key, one in self.readings.items() if key not in self._left_out}
        return scores_of(sample.id, readings, values, answers)

    def _process(self, sample: Sample, outputs: Sequence[Output]) -> tuple[dict[tuple[str, str], Any], dict[str, str]]:
        """Values by (metric, filter), and the answer that each filter left."""
        waiting = iter(outputs)
        copies = []
        for instance in self._of(sample):
            asked = [_answer(instance, next(waiting)) for _ in range(_times(instance))]
            repeats = max(1, instance.repeats or 1)
            copies.append(dataclasses.replace(instance, resps=asked * (repeats // len(asked)), filtered_resps={}))
        values: dict[tuple[str, str], Any] = {}
        answers: dict[str, str] = {}
        for one in self.theirs._filters:
            one.apply(copies)
            responses = [copy.filtered_resps[one.name] for copy in copies]
            found = self.theirs.process_results(copies[0].doc, responses)
            values.update({(metric, one.name): value for metric, value in found.items()})
            answers[one.name] = self._said(sample, responses)
        return values, answers

    def _said(self, sample: Sample, responses: Sequence[Any]) -> str:
        """The answer of a document, for people."""
        if len(responses) >= len(sample.choices) > 0:
            totals = [response[0] for response in responses[: len(sample.choices)]]
            return sample.choices[totals.index(max(totals))]
        return " | ".join(response for response in responses if isinstance(response, str))

    def _leave_out(self, values: Mapping[tuple[str, str], Any]) -> None:
        """Metrics whose values no run folder can hold, and values that no metric was declared for: one warning each."""
        kept = carried(self.readings, values)
        for metric, name in [*(set(self.readings) - set(kept)), *(values.keys() - self.readings.keys())]:
            if (metric, name) not in self._left_out:
                self._left_out.add((metric, name))
                log.warning(
                    "%s: the metric %s (filter %s) is left out: its values are no numbers, or the task declares no "
                    "aggregation for it; lydite-lm-eval shows it",
                    self.theirs.task_name,
                    metric,
                    name,
                )


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _plain(value: Any) -> Any:
    """A document's field as JSON."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, bytes):
        return [_plain(item) for item in value]
    return str(value)


def _context(given: Any) -> Context:
    assert isinstance(given, str | tuple), f"a context is text or messages, not {type(given).__name__}"
    return given


def _times(instance: Any) -> int:
    """How often a request is asked: repeats differ only where text is sampled."""
    sampled = instance.request_type == "generate_until" and read_decoding(instance.args[1]).do_sample
    return max(1, instance.repeats or 1) if sampled else 1


def _request(sample: Sample, index: int, instance: Any) -> Request:
    if instance.request_type == "loglikelihood_rolling":
        return ScoreRequest(sample_id=sample.id, index=index, continuation=instance.args[0], window="disjoint")
    context = _context(instance.args[0])
    # Text by the name of the field that holds it, messages by the other.
    text, messages = (context, ()) if isinstance(context, str) else ("", context)
    if instance.request_type == "generate_until":
        decoding = read_decoding(instance.args[1])
        return GenerateRequest(sample_id=sample.id, index=index, prompt=text, messages=messages, decoding=decoding)
    assert instance.request_type == "loglikelihood", f"unknown request {instance.request_type}"
    return ScoreRequest(
        sample_id=sample.id, index=index, context=text, messages=messages, continuation=instance.args[1]
    )


def _answer(instance: Any, output: Output) -> Any:
    """An output as their models return it."""
    if isinstance(output, Completion):
        return output.text
    assert isinstance(output, LogProbs), f"an answer to {instance.request_type} is not {type(output).__name__}"
    return output.total if instance.request_type == "loglikelihood_rolling" else (output.total, output.greedy)
