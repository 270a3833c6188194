"""SuperGLUE's Winograd schemas: does a pronoun refer to a given noun? (Levesque et al. 2012)

The files name spans by their place among the words split at white space. Some spans are not in their text as written;
they are mended as `wsc.fixed` on the hub mends them. In text-to-text the model writes the noun that the pronoun stands
for, and is right that it is the given one where one of the two contains the other's words (T5's rule).
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lydite.data.files import Row, read_jsonl
from lydite.metrics.choice import ACC
from lydite.tasks.classify import ANSWERED, read_label
from lydite.tasks.common import failure
from lydite.tasks.entry import Entry
from lydite.tasks.labelled import Spec, entries_of, load
from lydite.types import Completion, Output, Sample, Score, Task

NO_SPAN = ("Kamenev and Zinoviev", "Kamenev, Zinoviev, and Stalin")
"""Spans whose words stand apart in the text: nothing to mend."""
_LISTED = "a an few her his each every many much my our some that the their these this those which whose your"
SMALL_WORDS = frozenset(_LISTED.split())
"""Words that do not count when two nouns are compared, as in T5."""
PRONOUN_ELSEWHERE = {
    ('"Good for him," he said. ', "him"): '"Good for {} ," he said.',
    ("Some day they might want to use it , but", "it"): "Some day they might want to use {} , but",
}
"""Text around the pronoun where the given place is that of another word, and how T5 marks it."""


def read_wsc(path: Path) -> Iterator[Row]:
    """Rows with the fields that the hub has, from files that nest the spans."""
    for number, row in read_jsonl(path):
        yield number, {**row, **row.get("target", {})}


def _mended(fields: dict[str, Any]) -> dict[str, Any]:
    text = fields["text"]
    words = text.split()
    found = dict(fields)
    for span in ("span1", "span2"):
        said = fields[f"{span}_text"]
        if said in text or said in NO_SPAN:
            continue
        if "theyscold" in said:
            found["span2_index"] = 10
        first = words[int(fields[f"{span}_index"])]
        said = (said[0].lower() if first[0].islower() else said[0].upper()) + said[1:]
        found[f"{span}_text"] = said.rstrip(".").replace("\n", " ")
    return found


def detokenized(text: str) -> str:
    """lm-evaluation-harness's `general_detokenize`: no space before n't and signs, none inside brackets and quotes."""
    for apart, joined in ((" n't", "n't"), (" )", ")"), ("( ", "("), ('" ', '"'), (' "', '"')):
        text = text.replace(apart, joined)
    return re.sub(r" (['.,])", r"\1", text)


def marked(fields: Mapping[str, Any]) -> str:
    """The text with *stars* round the pronoun, as lm-evaluation-harness makes it."""
    text, pronoun = fields["text"], fields["span2_text"]
    before = " ".join(text.split()[: int(fields["span2_index"])])
    after = text[len(before) + len(pronoun) + 1 :]
    return detokenized(f"{before} *{pronoun}*{after}")


def _question(fields: Mapping[str, Any]) -> str:
    return (
        f"Passage: {marked(fields)}\nQuestion: In the passage above, does the pronoun "
        f'"*{fields["span2_text"]}*" refer to "*{fields["span1_text"]}*"?\nAnswer:'
    )


def _text_to_text(fields: Mapping[str, Any]) -> str:
    """T5's input: the text with the pronoun marked, and nothing else."""
    text: str = fields["text"]
    pronoun: str = fields["span2_text"]
    for (around, said), replacement in PRONOUN_ELSEWHERE.items():
        if said == pronoun and around in text:
            return "wsc: " + text.replace(around, replacement.format(f"*{pronoun}*"))
    words = text.split(" ")
    words[int(fields["span2_index"])] = f"*{pronoun}*"
    return "wsc: " + " ".join(words)


SPEC = Spec(
    name="superglue_wsc",
    description="Does a pronoun refer to a given noun?",
    files={
        "test": ("superglue/WSC/val.jsonl",),
        "shots": ("superglue/WSC/train.jsonl",),
        "server": ("superglue/WSC/test.jsonl",),
    },
    read=read_wsc,
    hub=("aps/super_glue", "wsc.fixed"),
    hub_splits={"test": "validation", "shots": "train", "server": "test"},
    columns={name: (name,) for name in ("text", "span1_text", "span2_text", "span1_index", "span2_index")},
    labels=("False", "True"),
    words=("no", "yes"),
    adapt=_mended,
    question=_question,
    text_to_text=_text_to_text,
    texts=lambda fields: [(marked(fields), fields["span1_text"])],
    metrics=(ACC,),
    source="https://super.gluebenchmark.com",
    licence="CC BY 4.0",
    splits="train 554, val 104 (evaluated), test 146 (server)",
    defects=(
        "63% of the validation labels are no, which most models fail to beat; some spans are not in their text as written "
        "and are mended as in wsc.fixed; T5 writes the noun itself, which the generate view reads by T5's rule"
    ),
)


def entries() -> list[Entry]:
    """superglue_wsc and its unlabelled test split."""
    labelled, server = entries_of(SPEC)
    return [
        dataclasses.replace(labelled, load=lambda data_dir: _load(False, data_dir)),
        dataclasses.replace(server, load=lambda data_dir: _load(True, data_dir)),
    ]


def _load(server: bool, data_dir: Path | None) -> Task:
    task = load(SPEC, server, data_dir)

    def score(sample: Sample, outputs: Sequence[Output]) -> Sequence[Score]:
        written = outputs[0]
        if (
            failure(outputs)
            or not isinstance(written, Completion)
            or read_label(written.text, (sample.choices,)) is not None
        ):
            return task.score(sample, outputs)
        return [_noun_score(sample, written.text, ANSWERED.name if server else ACC.name)]

    return dataclasses.replace(task, score=score)


def _noun_score(sample: Sample, text: str, metric: str) -> Score:
    """Scores a written noun: it says yes where it is the given noun, by T5's rule."""
    if not text.strip():
        return Score(sample_id=sample.id, metric=metric, value=0.0, status="no_answer")
    says = int(same_noun(text, sample.fields["span1_text"]))
    value = 1.0 if metric == ANSWERED.name else float(says in sample.gold)
    note = f"wrote {text.strip()!r:.60}"
    return Score(sample_id=sample.id, metric=metric, value=value, answer=sample.choices[says], note=note)


def same_noun(written: str, noun: str) -> bool:
    """Whether one of the two has all words of the other; "Bob's hat" is not "Bob". Case and small words do not count."""
    first, second = _plain(written), _plain(noun)
    if ("'" in first) != ("'" in second):
        return False
    a, b = set(first.split(" ")), set(second.split(" "))
    return a <= b or b <= a


def _plain(text: str) -> str:
    return " ".join(word for word in text.strip().lower().split(" ") if word not in SMALL_WORDS)
