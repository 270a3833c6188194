"""SuperGLUE: eight harder tasks of understanding English, and two diagnostic sets (Wang et al. 2019).

Wording as in lm-evaluation-harness (score) and T5 (generate); the labelled validation sets are evaluated, and
`superglue_boolq_test` and so on are the unlabelled test splits for the server. Each task's headline is what the
average takes of it. MultiRC and ReCoRD, whose sample is a question with many answers, have files of their own.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from lydite.data.files import read_jsonl
from lydite.metrics.choice import ACC
from lydite.metrics.labels import ACC_MACRO_F1, MACRO_F1, MCC
from lydite.tasks import axg, multirc, record, wsc
from lydite.tasks.classify import Texts
from lydite.tasks.entry import Entry
from lydite.tasks.labelled import Spec, entries_of, pair, spelled

SOURCE = "https://super.gluebenchmark.com"
REPOSITORY = "aps/super_glue"
ENTAILMENT = ("entailment", "not_entailment")


def _files(folder: str, *more_shots: str) -> dict[str, tuple[str, ...]]:
    def paths(*names: str) -> tuple[str, ...]:
        return tuple(f"superglue/{folder}/{name}" for name in names)

    return {"test": paths("val.jsonl"), "shots": paths("train.jsonl", *more_shots), "server": paths("test.jsonl")}


def _spec(name: str, folder: str, **fields: Any) -> Spec:
    defaults: dict[str, Any] = {
        "files": _files(folder),
        "read": read_jsonl,
        "hub": (REPOSITORY, name),
        "hub_splits": {"test": "validation", "shots": "train", "server": "test"},
        "source": SOURCE,
        "metrics": (ACC,),
    }
    return Spec(name=f"superglue_{name}", **defaults | fields)


def _entailment(name: str, folder: str, premise: str, hypothesis: str, **fields: Any) -> Spec:
    """Two-way entailment; the diagnostic sets are asked as RTE is."""
    defaults: dict[str, Any] = {
        "columns": {"premise": ("premise", premise), "hypothesis": ("hypothesis", hypothesis)},
        "labels": ENTAILMENT,
        "words": ("True", "False"),
        "question": lambda row: f"{row['premise']}\nQuestion: {row['hypothesis']} True or False?\nAnswer:",
        "text_to_text": spelled("rte", {"hypothesis": "hypothesis", "premise": "premise"}),
        "texts": pair("premise", "hypothesis"),
    }
    return _spec(name, folder, **defaults | fields)


def _diagnostic(folder: str) -> dict[str, tuple[str, ...]]:
    paths = (f"superglue/{folder}/{folder}.jsonl", f"superglue/{folder}.jsonl")
    return {"test": paths, "server": paths}


def _copa_question(row: Mapping[str, Any]) -> str:
    """The premise without its full stop, and "because" or "therefore"."""
    connector = {"cause": "because", "effect": "therefore"}[row["question"]]
    return f"{row['premise'].strip()[:-1]} {connector}"


def _copa_choices(row: Mapping[str, Any]) -> tuple[str, ...]:
    # With a space of their own, as in lm-evaluation-harness, whose continuations have two.
    return tuple(f" {text[0].lower()}{text[1:]}" for text in (row["choice1"], row["choice2"]))


def _copa_texts(row: Mapping[str, Any]) -> Texts:
    return [(_copa_question(row), choice.strip()) for choice in _copa_choices(row)]


def _copa_text_to_text(row: Mapping[str, Any]) -> str:
    return spelled("copa", {name: name for name in ("choice1", "choice2", "premise", "question")})(row)


def _wic_question(row: Mapping[str, Any]) -> str:
    word = row["sentence1"][int(row["start1"]) : int(row["end1"])]
    return (
        f"Sentence 1: {row['sentence1']}\nSentence 2: {row['sentence2']}\n"
        f"Question: Is the word '{word}' used in the same way in the two sentences above?\nAnswer:"
    )


BOOLQ = _spec(
    "boolq",
    "BoolQ",
    description="Yes-or-no questions about a passage",
    files=_files("BoolQ", "train_first1000.jsonl"),
    columns={"passage": ("passage",), "question": ("question",)},
    label=("label", "answer"),
    labels=("False", "True"),
    words=("no", "yes"),
    question=lambda row: f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:",
    text_to_text=spelled("boolq", {"passage": "passage", "question": "question"}),
    texts=pair("question", "passage"),
    licence="CC BY-SA 3.0",
    splits="train 9,427, val 3,270 (evaluated), test 3,245 (server)",
    defects="62% of the answers are yes",
)
CB = _spec(
    "cb",
    "CB",
    description="Is the author committed to a clause?",
    columns={"premise": ("premise",), "hypothesis": ("hypothesis",)},
    labels=("entailment", "contradiction", "neutral"),
    words=("True", "False", "Neither"),
    question=lambda row: f"{row['premise']}\nQuestion: {row['hypothesis']}. True, False, or Neither?\nAnswer:",
    text_to_text=spelled("cb", {"hypothesis": "hypothesis", "premise": "premise"}),
    texts=pair("premise", "hypothesis"),
    metrics=(ACC_MACRO_F1, ACC, MACRO_F1),
    licence="research",
    splits="train 250, val 56 (evaluated), test 250 (server)",
    defects="5 of 56 validation rows are neutral, so macro F1 hangs on few rows",
)
COPA = _spec(
    "copa",
    "COPA",
    description="Which is the cause, which the effect?",
    columns={name: (name,) for name in ("premise", "choice1", "choice2", "question")},
    labels=("choice1", "choice2"),
    words=(),
    choices=_copa_choices,
    question=_copa_question,
    text_to_text=_copa_text_to_text,
    texts=_copa_texts,
    licence="BSD 2-clause",
    splits="train 400, val 100 (evaluated), test 500 (server)",
    defects="choices begin with two spaces, as in lm-evaluation-harness; 100 rows: the interval is 10 points to either side",
)
RTE = _entailment(
    "rte",
    "RTE",
    "premise",
    "hypothesis",
    description="Does a sentence follow from another?",
    licence="none stated",
    splits="train 2,490, val 277 (evaluated), test 3,000 (server)",
    defects="the same rows as GLUE's RTE; 277 rows: the interval is about 6 points to either side",
)
WIC = _spec(
    "wic",
    "WiC",
    description="One word in two sentences: same sense?",
    columns={name: (name,) for name in ("sentence1", "sentence2", "word", "start1", "end1")},
    labels=("False", "True"),
    words=("no", "yes"),
    question=_wic_question,
    text_to_text=spelled("wic", {name: name for name in ("sentence1", "sentence2", "word")}),
    texts=lambda row: [(f"{row['word']}: {row['sentence1']}", row["sentence2"])],
    licence="CC BY-NC 4.0",
    splits="train 5,428, val 638 (evaluated), test 1,400 (server)",
    defects="zero- and few-shot models up to large sizes stay near 0.5",
)
AXB = _entailment(
    "axb",
    "AX-b",
    "sentence1",
    "sentence2",
    description="Diagnostic entailment, two labels; not in the average",
    files=_diagnostic("AX-b"),
    hub_splits={"test": "test", "server": "test"},
    metrics=(MCC, ACC),
    licence="none stated",
    splits="diagnostic 1,104 (evaluated; no training split)",
    defects="asked as RTE, as T5 does; lm-evaluation-harness has no such task",
)
SPECS = (BOOLQ, CB, COPA, RTE, WIC, AXB)
AVERAGED = tuple(f"superglue_{name}" for name in ("boolq", "cb", "copa", "multirc", "record", "rte", "wic", "wsc"))


def entries() -> list[Entry]:
    """The data sets with their test splits, the average, and everything that the server wants."""
    leaves = [entry for spec in SPECS for entry in entries_of(spec)]
    leaves += [*wsc.entries(), *multirc.entries(), *record.entries(), *axg.entries()]
    group = partial(Entry, kind="group", source=SOURCE, licence="see each task", weighting="tasks")
    return [
        *leaves,
        group(
            name="superglue",
            description="Understanding English, eight harder tasks",
            members=AVERAGED,
            defects="the average is the leaderboard's: each task is the mean of its own metrics; AX-b and AX-g stand outside",
        ),
        group(
            name="superglue_test",
            description="SuperGLUE's test splits without labels, for the server",
            members=tuple(entry.name for entry in leaves if entry.name.endswith("_test")),
            listed=False,
        ),
    ]
