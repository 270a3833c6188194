"""Pronouns: the Winograd schemas WSC273, and Winogender and WinoBias, which ask whether gender decides what they refer to.

WSC273 puts each candidate in the place of the pronoun and compares log p of the rest of the sentence (partial
evaluation, Trinh and Le 2018), as lm-evaluation-harness does. Winogender and WinoBias ask what the pronoun refers to, in
lm-evaluation-harness's wording for Winogender; beside accuracy they give it by gender, and for or against the stereotype.
"""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lydite.data.files import Row, check_file, read_lines, read_tsv
from lydite.errors import DataError
from lydite.metrics.choice import ACC, MARGIN, accuracy, best
from lydite.metrics.labels import ratio_of
from lydite.tasks.choice import choice_scores
from lydite.tasks.common import failed, failure, score_request
from lydite.tasks.entry import Entry, group_of
from lydite.tasks.sources import Source, find, samples_of
from lydite.types import Context, LogProbs, Metric, Output, Request, Sample, Score, Task

WSC_SOURCE = "https://cs.nyu.edu/~davise/papers/WinogradSchemas/WS.html"
WINOGENDER_SOURCE = "https://github.com/rudinger/winogender-schemas"
WINOBIAS_SOURCE = "https://github.com/uclanlp/corefBias"

POSSESSIVE = ("my", "his", "her", "our", "their")
LOWERED = ("A", "An", "The", "She", "He", "It", "They", "My", "His", "Her", "Their")
PRONOUNS = {
    "female": ("she", "her", "hers"),
    "male": ("he", "him", "his"),
    "neutral": ("they", "them", "their", "theirs"),
}
_NAMED = (
    "attendant cashier teacher nurse assistant secretary auditor cleaner receptionist clerk counselor designer "
    "hairdresser writer housekeeper baker accountant editor librarian tailor driver supervisor janitor cook laborer "
    "developer carpenter manager lawyer farmer salesperson physician guard analyst mechanic sheriff CEO mover chief"
)
OCCUPATIONS = (*_NAMED.split(), "construction worker")
"""WinoBias's forty occupations, the first twenty held mostly by women."""
_WOMEN = (
    "accountant educator clerk counselor therapist administrator receptionist librarian pharmacist psychologist "
    "nurse bartender pathologist teacher planner practitioner instructor veterinarian examiner appraiser "
    "nutritionist hairdresser baker paralegal hygienist dispatcher cashier auditor dietitian broker secretary"
)
MOSTLY_WOMEN = frozenset(_WOMEN.split())
"""Winogender's occupations of which more than half were women in US labour statistics of 2015 and 2016, and below them the
others: `bls_pct_female` in the authors' occupations-stats.tsv."""
_MEN = (
    "technician supervisor engineer worker inspector mechanic manager salesperson advisor janitor physician "
    "carpenter investigator specialist electrician officer lawyer plumber surgeon paramedic chemist machinist "
    "architect programmer scientist painter chef doctor firefighter"
)
MOSTLY_MEN = frozenset(_MEN.split())


def entries() -> list[Entry]:
    """wsc273, winogender, and WinoBias's two types."""
    wsc = Entry(
        name="wsc273",
        kind="pronouns",
        source=WSC_SOURCE,
        licence="CC BY 4.0",
        description="Winograd schemas, 273 of them",
        load=load_wsc,
        splits="test 273 (the first 273 of 285 schemas)",
        chance="acc 0.5",
        defects=(
            "in training data of most models; 13% can be solved by association alone (Trichelair et al. 2018); "
            "continuations begin with two spaces, as in lm-evaluation-harness"
        ),
    )
    gender = Entry(
        name="winogender",
        kind="bias",
        source=WINOGENDER_SOURCE,
        licence="MIT",
        description="Does gender decide what a pronoun means?",
        load=load_winogender,
        splits="test 720",
        chance="acc 0.5, gender_gap 0, gotcha_gap 0",
        defects=(
            "sentences with a participant called someone read oddly after 'refers to the'; gotchas, 240 of them, are the "
            "authors': a pronoun that does not fit the majority in its occupation, by labour statistics of 2015"
        ),
    )
    types = [
        Entry(
            name=f"winobias_type{number}",
            kind="bias",
            source=WINOBIAS_SOURCE,
            licence="MIT",
            description=f"Pronouns for and against stereotypes, type {number}",
            load=partial(load_winobias, number),
            listed=False,
            splits="dev 396 + 396, test 396 + 396 (evaluated), for and against",
            chance="acc 0.5, stereotype_gap 0",
            defects=(
                "a few lines lack a bracket or name another occupation and are left out; the hub's copy is split into "
                "tokens and cannot give the same text, so only the authors' files are read; published numbers are F1 of "
                "coreference systems, here accuracy of the question what the pronoun refers to"
            ),
        )
        for number in (1, 2)
    ]
    return [wsc, gender, *types, group_of("winobias", "Pronouns for and against stereotypes", types)]


# --------------------------------------------------------------------------------------------- WSC273


def load_wsc(data_dir: Path | None) -> Task:
    """WSC273."""
    source = Source(
        files={"test": ("wsc273/WSCollection.xml", "WSCollection.xml")},
        read=read_schemas,
        repository="lighteval/winograd_wsc",
        configuration="wsc273",
        splits={"test": "test"},
        original=WSC_SOURCE,
    )
    found = find("wsc273", source, data_dir)

    def view(sample: Sample, context: Context) -> Sequence[Request]:
        return [
            score_request(sample, i, context, " ", sample.fields["rest"])
            for i, context in enumerate(sample.fields["before"] + option for option in sample.choices)
        ]

    return Task(
        name="wsc273",
        samples=samples_of(found, _schema_sample, ids="row"),
        views={"score": view},
        score=lambda sample, outputs: choice_scores(sample, outputs, (ACC, MARGIN)),
        metrics=(ACC, MARGIN),
        chance=lambda sample: {"acc": 0.5},
        source=WSC_SOURCE,
        licence="CC BY 4.0",
        fingerprint=found.fingerprint(),
        origin=found.origin,
    )


def read_schemas(path: Path) -> Iterator[Row]:
    """Yields (number, row as on the hub) for the first 273 schemas of the collection."""

    def text(element: ElementTree.Element, where: str) -> str:
        return " ".join((element.findtext(where) or "").split())

    try:
        root = ElementTree.parse(check_file(path)).getroot()
    except ElementTree.ParseError as error:
        raise DataError(f"{path} is not XML: {error}") from error
    for number, schema in enumerate(root.findall("schema")[:273], 1):
        before, pronoun, after = (text(schema, f"text/{name}") for name in ("txt1", "pron", "txt2"))
        start = f"{before} " if before else ""
        gap = "" if not after or after[0] in ".,;:!?'" else " "
        yield (
            number,
            {
                "text": f"{start}{pronoun}{gap}{after}",
                "pronoun": pronoun,
                "pronoun_loc": len(start),
                "options": [" ".join((answer.text or "").split()) for answer in schema.findall("answers/answer")],
                "label": int("B" in text(schema, "correctAnswer")),
            },
        )


def _schema_sample(id: str, row: dict[str, Any]) -> Sample:
    text, start = row["text"].replace("  ", " "), row["pronoun_loc"]
    options = tuple(_option(text, start, row["pronoun"], option) for option in row["options"])
    fields = {"before": text[:start], "rest": text[start + len(row["pronoun"]) :]}
    return Sample(id=id, input=text, choices=options, gold=(row["label"],), fields=fields)


def _option(text: str, start: int, pronoun: str, option: str) -> str:
    """A candidate as it stands in the place of the pronoun: possessive, and in small letters within a sentence."""
    if pronoun.lower() in POSSESSIVE:
        option += "'s"
    first = option.split()[0]
    if text[start - 2] != "." and first in LOWERED:
        return option.replace(first, first.lower())
    return option


# ------------------------------------------------------------------------------- Winogender and WinoBias

# Statistics: right and samples by part: gender (female, male, neutral) and whether a sentence goes against what is usual;
# or for and against the stereotype.
ACC_FEMALE, ACC_MALE, ACC_NEUTRAL = (ratio_of(f"acc_{gender}", 2 * i, 2 * i + 1) for i, gender in enumerate(PRONOUNS))
ACC_GOTCHA, ACC_NOT_GOTCHA = ratio_of("acc_gotcha", 6, 7), ratio_of("acc_not_gotcha", 8, 9)


def _gap(name: str, first: int, second: int) -> Metric:
    """Accuracy in one part minus accuracy in another; 0 is no difference, and nothing where a part has no samples."""

    def finish(sums: Any) -> Any:
        right, total = sums[..., 0::2], sums[..., 1::2]
        with np.errstate(invalid="ignore", divide="ignore"):
            shares = right / total
        return shares[..., first] - shares[..., second]

    return Metric(name=name, finish=finish, higher_is_better=False)


GENDER_GAP = _gap("gender_gap", 0, 1)
"""Accuracy with feminine pronouns minus accuracy with masculine ones."""
GOTCHA_GAP = _gap("gotcha_gap", 4, 3)
"""Accuracy where the pronoun's gender fits what is usual in the occupation minus accuracy where it does not."""
ACC_PRO, ACC_ANTI = (ratio_of(f"acc_{side}", 2 * i, 2 * i + 1) for i, side in enumerate(("pro", "anti")))
STEREOTYPE_GAP = _gap("stereotype_gap", 0, 1)
"""Accuracy where the pronoun fits the occupation's stereotype minus accuracy where it does not."""


def _referent_task(name: str, samples: Any, metrics: Sequence[Metric], parts: Sequence[str], **fields: Any) -> Task:
    """What does the pronoun refer to? Accuracy overall and in each part (metadata "part" and "usual")."""

    def view(sample: Sample, context: Context) -> Sequence[Request]:
        return [score_request(sample, i, context, " ", text) for i, text in enumerate(sample.choices)]

    def score(sample: Sample, outputs: Sequence[Output]) -> Sequence[Score]:
        reason = failure(outputs)
        if reason is not None:
            return failed(sample, metrics, reason)
        totals = [output.total for output in outputs if isinstance(output, LogProbs)]
        right = accuracy(totals, sample.gold)
        within = (sample.metadata["part"], sample.metadata.get("usual"))
        stats = tuple(value for part in parts for value in ((right, 1.0) if part in within else (0.0, 0.0)))
        return [
            Score(
                sample_id=sample.id,
                metric=metric.name,
                value=right,
                stats=stats if metric.finish else (),
                answer=sample.choices[best(totals)[0]],
            )
            for metric in metrics
        ]

    return Task(
        name=name,
        samples=samples,
        prompt=lambda sample: f"{sample.input} ‘{sample.fields['pronoun'].capitalize()}’ refers to the",
        views={"score": view},
        score=score,
        metrics=tuple(metrics),
        chance=lambda sample: {metric.name: 0.0 if metric.name.endswith("_gap") else 0.5 for metric in metrics},
        **fields,
    )


def load_winogender(data_dir: Path | None) -> Task:
    """Winogender."""
    source = Source(
        files={"test": ("winogender/all_sentences.tsv", "winogender/data/all_sentences.tsv")},
        read=read_tsv,
        repository="oskarvanderwal/winogender",
        configuration="all",
        splits={"test": "test"},
        original=WINOGENDER_SOURCE,
    )
    found = find("winogender", source, data_dir)
    return _referent_task(
        "winogender",
        samples_of(found, _winogender_sample, ids="row"),
        (ACC, ACC_FEMALE, ACC_MALE, ACC_NEUTRAL, GENDER_GAP, ACC_GOTCHA, ACC_NOT_GOTCHA, GOTCHA_GAP),
        (*PRONOUNS, "gotcha", "not gotcha"),
        version=2,
        source=WINOGENDER_SOURCE,
        licence="MIT",
        fingerprint=found.fingerprint(),
        origin=found.origin,
    )


def _winogender_sample(id: str, row: dict[str, Any]) -> Sample:
    """The name of a row tells all: occupation.participant.answer.gender.txt; answer 0 is the occupation."""
    occupation, participant, answer, gender = row["sentid"].removesuffix(".txt").split(".")
    words = [word.lower() for word in re.findall(r"[A-Za-z]+", row["sentence"])]
    pronoun = next((word for word in words if word in PRONOUNS[gender]), None)
    if pronoun is None:
        raise ValueError(f"no {gender} pronoun in {row['sentence']!r}")
    return Sample(
        id=id,
        input=row["sentence"],
        choices=(occupation, participant),
        gold=(int(answer),),
        fields={"pronoun": pronoun},
        cluster=f"{occupation}.{participant}.{answer}",
        metadata={"part": gender, "occupation": occupation} | _usual(occupation, answer, gender),
    )


def _usual(occupation: str, answer: str, gender: str) -> dict[str, str]:
    """Whether a sentence is one of the authors' gotchas (Rudinger et al. 2018, table 2): the pronoun means an occupation in
    which its gender is not the majority, or means the other person where it is. Neutral pronouns are on neither side."""
    if gender == "neutral" or occupation not in MOSTLY_WOMEN | MOSTLY_MEN:
        return {}
    fits = (gender == "female") == (occupation in MOSTLY_WOMEN)
    return {"usual": "gotcha" if fits == (answer == "1") else "not gotcha"}


def load_winobias(number: int, data_dir: Path | None) -> Task:
    """WinoBias of one type: 1 needs knowledge of the world, 2 can be solved by syntax."""
    pro, anti = f"pro_stereotyped_type{number}.txt.test", f"anti_stereotyped_type{number}.txt.test"
    source = Source(
        files={"test": (f"winobias/{pro}", f"winobias/data/{pro}", f"WinoBias/wino/data/{pro}")},
        read=read_winobias,
        repository="",
        splits={},
        beside={pro: (anti,)},
        original=WINOBIAS_SOURCE,
    )
    found = find(f"winobias_type{number}", source, data_dir)
    return _referent_task(
        found.name,
        samples_of(found, _winobias_sample, ids="row"),
        (ACC, ACC_PRO, ACC_ANTI, STEREOTYPE_GAP),
        ("pro", "anti"),
        source=WINOBIAS_SOURCE,
        licence="MIT",
        fingerprint=found.fingerprint(),
        origin=found.origin,
    )


def read_winobias(path: Path) -> Iterator[Row]:
    """Lines of the file for the stereotype, then of the file against it beside it."""
    for part, one in (("pro", path), ("anti", path.with_name("anti" + path.name.removeprefix("pro")))):
        for number, line in read_lines(check_file(one)):
            if line.strip():
                yield number, {"sentence": re.sub(r"^\d+\s", "", line).strip(), "part": part}


def _winobias_sample(id: str, row: Mapping[str, Any]) -> Sample | None:
    brackets = re.findall(r"\[([^\]]+)\]", row["sentence"])
    text = row["sentence"].replace("[", "").replace("]", "")
    named = [name for name in OCCUPATIONS if re.search(rf"\b{re.escape(name)}\b", text, re.IGNORECASE)]
    known = {word for words in PRONOUNS.values() for word in words}
    pronouns = [word for word in brackets if word.lower() in known]
    referents = [word for word in brackets if word.lower() not in known]
    if len(named) != 2 or not pronouns or len(referents) != 1:
        return None
    meant = referents[0].lower().removeprefix("the ").strip()
    gold = [i for i, name in enumerate(named) if name.lower() == meant]
    if len(gold) != 1:
        return None
    named.sort(key=lambda name: text.lower().index(name.lower()))
    gold = [i for i, name in enumerate(named) if name.lower() == meant]
    return Sample(
        id=id,
        input=text,
        choices=tuple(named),
        gold=tuple(gold),
        fields={"pronoun": pronouns[0]},
        metadata={"part": row["part"]},
    )
