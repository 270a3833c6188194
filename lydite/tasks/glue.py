"""GLUE: nine tasks of understanding English and the diagnostic set AX (Wang et al. 2019).

The score view is worded as in lm-evaluation-harness, the generate view as T5's text-to-text input. What is evaluated is
the labelled development set, as everywhere in the literature; `glue_cola_test` and so on are the unlabelled test
splits, whose runs `python -m lydite.submission` turns into files for the server. Each task's headline is what GLUE's average
takes of it: one metric, or the mean of two. MNLI counts once, as the mean of matched and mismatched; AX does not count.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from lydite.metrics.choice import ACC
from lydite.metrics.labels import ACC_F1, F1_POSITIVE, MCC
from lydite.tasks.entry import Entry
from lydite.tasks.glue_files import REPOSITORY, read_glue, read_mrpc
from lydite.tasks.labelled import Spec, entries_of, pair, spelled
from lydite.tasks.stsb import entries as stsb_entries

SOURCE = "https://gluebenchmark.com"
ENTAILMENT = ("entailment", "not_entailment")
MNLI_LABELS = ("entailment", "neutral", "contradiction")


def _paths(folder: str, *names: str) -> tuple[str, ...]:
    return tuple(f"glue/{folder}/{name}" for name in names)


def _usual(folder: str) -> dict[str, tuple[str, ...]]:
    """Where most data sets have their splits."""
    return {
        "test": _paths(folder, "dev.tsv"),
        "shots": _paths(folder, "train.tsv"),
        "server": _paths(folder, "test.tsv"),
    }


def _true_or_false(fields: Mapping[str, Any]) -> str:
    return f"{fields['sentence1']}\nQuestion: {fields['sentence2']} True or False?\nAnswer:"


def mnli_question(fields: Mapping[str, Any]) -> str:
    """lm-evaluation-harness's question for MNLI; the hypothesis gets a full stop where it has none."""
    hypothesis = fields["hypothesis"].strip()
    stop = "" if hypothesis.endswith(".") else "."
    return f"{fields['premise']}\nQuestion: {hypothesis}{stop} True, False or Neither?\nAnswer:"


def _spec(name: str, configuration: str | None = None, **fields: Any) -> Spec:
    defaults: dict[str, Any] = {
        "read": read_glue,
        "hub": (REPOSITORY, configuration or name),
        "hub_splits": {"test": "validation", "shots": "train", "server": "test"},
        "source": SOURCE,
        "metrics": (ACC,),
    }
    return Spec(name=f"glue_{name}", **defaults | fields)


def _pair_spec(name: str, first: str, second: str, columns: Mapping[str, tuple[str, ...]], **fields: Any) -> Spec:
    """A data set of two texts, which text-to-text names as the fields are named."""
    return _spec(
        name,
        columns=columns,
        text_to_text=spelled(name, {first: first, second: second}),
        texts=pair(first, second),
        **fields,
    )


_SENTENCES = {"sentence1": ("sentence1",), "sentence2": ("sentence2",)}
_MNLI_COLUMNS = {
    "premise": ("premise", "sentence1", "Premise"),
    "hypothesis": ("hypothesis", "sentence2", "Hypothesis"),
}

COLA = _spec(
    "cola",
    description="Is this sentence grammatical?",
    files={
        "test": _paths("CoLA", "dev.tsv", "in_domain_dev.tsv"),
        "shots": _paths("CoLA", "train.tsv", "in_domain_train.tsv"),
        "server": _paths("CoLA", "test.tsv"),
    },
    beside={"in_domain_dev.tsv": ("out_of_domain_dev.tsv",)},
    columns={"sentence": ("sentence",)},
    labels=("unacceptable", "acceptable"),
    words=("no", "yes"),
    question=lambda fields: f"{fields['sentence']}\nQuestion: Does this sentence make sense?\nAnswer:",
    text_to_text=spelled("cola", {"sentence": "sentence"}),
    texts=pair("sentence"),
    metrics=(MCC, ACC),
    licence="none stated",
    splits="train 8,551, dev 1,043 (evaluated), test 1,063 (server)",
    defects="70% of the sentences are acceptable, so accuracy flatters a model that always says yes; the headline is MCC",
)
SST2 = _spec(
    "sst2",
    description="Positive or negative review?",
    files=_usual("SST-2"),
    columns={"sentence": ("sentence",)},
    labels=("negative", "positive"),
    words=("negative", "positive"),
    question=lambda fields: f"{fields['sentence']}\nQuestion: Is this sentence positive or negative?\nAnswer:",
    text_to_text=spelled("sst2", {"sentence": "sentence"}),
    texts=pair("sentence"),
    licence="none stated",
    splits="train 67,349, dev 872 (evaluated), test 1,821 (server)",
    defects="training rows are phrases, not sentences; texts are lower-cased, tokenised and end in a space",
)
MRPC = _spec(
    "mrpc",
    description="Do two news sentences mean the same?",
    files={
        "test": _paths("MRPC", "dev.tsv", "dev_ids.tsv", "msr_paraphrase_test.txt"),
        "shots": _paths("MRPC", "train.tsv", "msr_paraphrase_train.txt"),
        "server": _paths("MRPC", "test.tsv", "msr_paraphrase_test.txt"),
    },
    read=read_mrpc,
    beside={
        "dev_ids.tsv": ("msr_paraphrase_train.txt",),
        "msr_paraphrase_train.txt": ("dev_ids.tsv",),
    },
    columns={"sentence1": ("sentence1", "#1 String"), "sentence2": ("sentence2", "#2 String")},
    label=("label", "Quality"),
    labels=("not_equivalent", "equivalent"),
    words=("no", "yes"),
    question=lambda fields: (
        f"Sentence 1: {fields['sentence1']}\nSentence 2: {fields['sentence2']}\n"
        "Question: Do both sentences mean the same thing?\nAnswer:"
    ),
    text_to_text=spelled("mrpc", {"sentence1": "sentence1", "sentence2": "sentence2"}),
    texts=pair("sentence1", "sentence2"),
    metrics=(ACC_F1, ACC, F1_POSITIVE),
    licence="Microsoft Research, research only",
    splits="train 3,668, dev 408 (evaluated), test 1,725 (labels public in Microsoft's own file)",
    other_splits={"msr_paraphrase_test.txt": "test"},
    defects=(
        "GLUE's development set is a list of ids (dev_ids.tsv) within Microsoft's training file; without the list "
        "Microsoft's labelled test file is evaluated, and the run's settings say split test. 68% are paraphrases, "
        "so F1 of always saying yes is 0.81"
    ),
)
QQP = _pair_spec(
    "qqp",
    "question1",
    "question2",
    {"question1": ("question1",), "question2": ("question2",)},
    description="Do two questions ask the same?",
    files=_usual("QQP"),
    label=("label", "is_duplicate"),
    labels=("not_duplicate", "duplicate"),
    words=("no", "yes"),
    question=lambda fields: (
        f"Question 1: {fields['question1']}\nQuestion 2: {fields['question2']}\n"
        "Question: Do both questions ask the same thing?\nAnswer:"
    ),
    metrics=(ACC_F1, ACC, F1_POSITIVE),
    licence="Quora, non-commercial",
    splits="train 363,846, dev 40,430 (evaluated), test 390,965 (server)",
    defects="a few lines lack fields and are left out, as on the hub; train and test have different label shares",
)


def _mnli(part: str, split: str, *originals: str, **fields: Any) -> Spec:
    return _spec(
        f"mnli_{part}",
        "mnli",
        description=f"Does a sentence follow from another? {part.capitalize()} genres",
        files={
            "test": _paths("MNLI", f"dev_{part}.tsv", *originals),
            "shots": _paths("MNLI", "train.tsv", "multinli_1.0_train.jsonl"),
            "server": _paths("MNLI", f"test_{part}.tsv"),
        },
        hub_splits={"test": f"validation_{part}", "shots": "train", "server": f"test_{part}"},
        columns=_MNLI_COLUMNS,
        label=("label", "gold_label"),
        labels=MNLI_LABELS,
        words=("True", "Neither", "False"),
        question=mnli_question,
        text_to_text=spelled("mnli", {"hypothesis": "hypothesis", "premise": "premise"}),
        texts=pair("premise", "hypothesis"),
        licence="OANC and others, see the corpus",
        splits=f"train 392,702, dev {split} (evaluated), test {'9,796' if part == 'matched' else '9,847'} (server)",
        defects=(
            "hypotheses alone give the label two times in three (Gururangan et al. 2018); lm-evaluation-harness asks "
            "'True, False or Neither' while T5 writes entailment, neutral, contradiction"
        ),
        **fields,
    )


MNLI_MATCHED = _mnli("matched", "9,815", "multinli_1.0_dev_matched.jsonl", "dev_matched.sample.jsonl")
MNLI_MISMATCHED = _mnli("mismatched", "9,832", "multinli_1.0_dev_mismatched.jsonl")
QNLI = _pair_spec(
    "qnli",
    "question",
    "sentence",
    {"question": ("question",), "sentence": ("sentence",)},
    description="Does this sentence answer the question?",
    files=_usual("QNLI"),
    labels=ENTAILMENT,
    words=("yes", "no"),
    question=lambda fields: (
        f"{fields['question']}\n{fields['sentence']}\nQuestion: Does this response answer the question?\nAnswer:"
    ),
    licence="CC BY-SA 4.0",
    splits="train 104,743, dev 5,463 (evaluated), test 5,463 (server)",
    defects="made from SQuAD, so models that saw SQuAD have seen it; the first release had a leak and was replaced",
)
RTE = _pair_spec(
    "rte",
    "sentence1",
    "sentence2",
    _SENTENCES,
    description="Does a sentence follow from another?",
    files=_usual("RTE"),
    labels=ENTAILMENT,
    words=("True", "False"),
    question=_true_or_false,
    licence="none stated",
    splits="train 2,490, dev 277 (evaluated), test 3,000 (server)",
    defects="277 rows: the interval is about 6 points to either side",
)
WNLI = _pair_spec(
    "wnli",
    "sentence1",
    "sentence2",
    _SENTENCES,
    description="Winograd sentences as entailment",
    files=_usual("WNLI"),
    labels=("not_entailment", "entailment"),
    words=("False", "True"),
    question=_true_or_false,
    licence="CC BY 4.0",
    splits="train 635, dev 71 (evaluated), test 146 (server)",
    defects=(
        "development rows share sentences with training rows under the opposite label, so a trained model falls below "
        "chance there; 71 rows tell little. Many papers leave it out"
    ),
)
AX = _spec(
    "ax",
    description="Diagnostic entailment pairs; not in the average",
    files={
        "test": (*_paths("AX", "diagnostic-full.tsv"), "glue/diagnostic-full.tsv"),
        "server": (*_paths("AX", "diagnostic.tsv", "test.tsv"), "glue/diagnostic.tsv"),
    },
    hub_splits={"server": "test"},
    columns=_MNLI_COLUMNS,
    label=("label", "Label"),
    labels=MNLI_LABELS,
    words=("True", "Neither", "False"),
    question=mnli_question,
    text_to_text=spelled("mnli", {"hypothesis": "hypothesis", "premise": "premise"}),
    texts=pair("premise", "hypothesis"),
    metadata={name.lower(): (name,) for name in ("Lexical Semantics", "Logic", "Knowledge", "Domain")},
    metrics=(MCC, ACC),
    licence="none stated",
    splits="diagnostic 1,104 (evaluated; no training split)",
    defects="the hub's copy has no labels; diagnostic-full.tsv of the GLUE site has them. lm-evaluation-harness has no such task",
)

SPECS = (COLA, SST2, MRPC, QQP, MNLI_MATCHED, MNLI_MISMATCHED, QNLI, RTE, WNLI, AX)
AVERAGED = tuple(f"glue_{name}" for name in ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli"))


def entries() -> list[Entry]:
    """The data sets with their test splits, MNLI as one, GLUE's average, and everything that the server wants."""
    leaves = [*stsb_entries(), *(entry for spec in SPECS for entry in entries_of(spec))]
    group = partial(Entry, kind="group", source=SOURCE, licence="see each task", weighting="tasks")
    return [
        *leaves,
        group(
            name="glue_mnli",
            description="MNLI, matched and mismatched",
            members=("glue_mnli_matched", "glue_mnli_mismatched"),
            listed=False,
        ),
        group(
            name="glue",
            description="Understanding English, nine tasks",
            members=AVERAGED,
            defects=(
                "papers differ in what they average: this is the leaderboard's mean over nine tasks, WNLI included, each "
                "the mean of its own metrics, MNLI once; AX (`glue_ax`) stands outside"
            ),
        ),
        group(
            name="glue_test",
            description="GLUE's test splits without labels, for the server",
            members=tuple(entry.name for entry in leaves if entry.name.endswith("_test")),
            listed=False,
        ),
    ]
