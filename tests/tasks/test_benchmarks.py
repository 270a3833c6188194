"""Benchmarks by name: prompts against golden files, and rows in every layout.

The golden files hold what a model is asked, worded as lm-evaluation-harness words it where it has the task. To change
one on purpose, delete it, run the tests once, and read what was written before committing it.
"""

import os
import re
from pathlib import Path

import pytest

from lydite.adapt.prompt import prompted
from lydite.errors import DataError
from lydite.tasks import list_tasks, load_tasks
from lydite.tasks.minisuite import FOLDER
from lydite.tasks.own import load_task_file
from lydite.tasks.wikitext import detokenize, read_documents
from lydite.types import Context, GenerateRequest, Sample
from tests.tasks.layouts import make_data, make_mini
from tests.tasks.nulls import broken, constant, empty, mean, take

GOLDEN = Path(__file__).parents[1] / "golden"
NAMES = (
    "blimp_causative",
    "arc_challenge",
    "arc_easy",
    "cmmlu_agronomy",
    "mmlu_astronomy",
    "lambada",
    "gsm8k",
    "wikitext2",
    "xquad_en",
    "xquad_zh",
)
MINI = tuple(entry.name for entry in list_tasks() if entry.name.startswith("mini_") and not entry.members)


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"))


def one(name, data=None):
    tasks, _ = load_tasks([name], data_dir=data)
    [task] = tasks
    return task


def shown(context: Context) -> str:
    if isinstance(context, str):
        return context
    return "".join(f"<{message.role}>{message.content}</{message.role}>" for message in context)


def rendered(task, shots=None) -> str:
    """All requests of the first sample. Line ends are marked, so that a trailing space is seen."""
    task = prompted(task, shots=shots)
    sample = next(iter(task.samples("test")))
    requests = task.views[next(iter(task.views))](sample, task.prompt(sample))
    parts = [shown(task.prompt(sample))]
    for request in requests:
        if isinstance(request, GenerateRequest):
            parts.append(f"[generate {request.decoding.max_new_tokens} stop {request.decoding.stop_strings!r}]")
        else:
            parts.append(f"[score {request.window}]{request.continuation}")
    parts.append(f"[gold {[*sample.gold, *sample.targets]} fields {sorted(sample.fields)}]")
    return "\n".join(parts).replace("\n", "⏎\n") + "\n"


@pytest.mark.parametrize("name", [*NAMES, *MINI])
def test_golden_prompts(name, data, tmp_path):
    if name in MINI:
        task = load_task_file(make_mini(tmp_path, FOLDER) / f"{name.removeprefix('mini_')}.toml")
        found = rendered(task)
    else:
        # Two examples are enough to see how shots look; the defaults are checked below.
        found = rendered(one(name, data), shots=2)
    path = GOLDEN / f"{name}.txt"
    if not path.exists():
        path.write_text(found, encoding="utf-8")
        pytest.fail(f"wrote {path}; read it, then run again")
    assert found == path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "shots", "by"),
    [
        ("arc_challenge", 25, None),
        ("cmmlu_agronomy", 5, "first_n"),
        ("mmlu_astronomy", 5, "first_n"),
        ("gsm8k", 5, None),
    ]
    + [(name, 0, None) for name in ("blimp_causative", "lambada", "wikitext2", "xquad_en")],
)
def test_default_shots(name, shots, by, data):
    task = one(name, data)
    assert (task.shots, task.settings.get("shots_by")) == (shots, by)
    assert prompted(task).settings["shots"] == shots


@pytest.mark.parametrize("name", [*NAMES, *MINI])
def test_source_licence_version_and_unique_ids(name, data):
    task = one(name, data)
    assert task.source
    assert task.licence
    assert task.version >= 1
    assert task.fingerprint
    ids = [sample.id for sample in task.samples("test")]
    assert len(set(ids)) == len(ids) >= 1
    assert ids == [sample.id for sample in task.samples("test")]


@pytest.mark.parametrize("name", [*NAMES, *MINI])
def test_null_models(name, data):
    task = one(name, data)
    assert {score.status for row in take(task, broken).values() for score in row} == {"error"}
    generated = next(iter(task.views)) == "generate"
    scores = take(task, empty if generated else constant)
    if generated:
        assert all(mean(scores[metric.name]) == 0.0 for metric in task.metrics)
    elif task.chance(next(iter(task.samples("test")))):
        expected = [task.chance(sample)["acc"] for sample in task.samples("test")]
        assert mean(scores["acc"]) == pytest.approx(sum(expected) / len(expected))


def test_the_fingerprint_follows_data(data, tmp_path):
    before = one("lambada", data).fingerprint
    other = make_data(tmp_path)
    assert one("lambada", other).fingerprint == before
    with open(other / "lambada" / "lambada_test.jsonl", "a", encoding="utf-8") as file:
        file.write('{"text": "one more passage"}\n')
    assert one("lambada", other).fingerprint != before


def test_the_validation_split_says_so(data, tmp_path):
    assert one("arc_challenge", data).settings == {"split": "validation"}
    other = make_data(tmp_path)
    (other / "arc" / "ARC-Challenge_validation.jsonl").rename(other / "arc" / "ARC-Challenge_test.jsonl")
    assert one("arc_challenge", other).settings == {}


def test_a_broken_row_is_named(data, tmp_path):
    other = make_data(tmp_path)
    path = other / "arc" / "ARC-Challenge_validation.jsonl"
    path.write_text(path.read_text() + '{"id": "x", "question": "q", "answerKey": "A"}\n')
    with pytest.raises(DataError, match=r"ARC-Challenge_validation.jsonl, line 3: no column 'choices'.*answerKey"):
        list(one("arc_challenge", other).samples("test"))


def test_detokenised_wikitext():
    # By the published steps: signs between @ and before punctuation, brackets and quotes, headings, 's.
    page = ' = Stone bridge = \n 1 @,@ 204 stones , ( nearly ) all " old " : the king \'s . \n'
    assert detokenize(page) == ' = Stone bridge =\n1,204 stones, (nearly) all "old": the king\'s. \n'.replace(
        ". \n", ".\n"
    )


def test_wikitext_documents(data, tmp_path):
    rows = list(read_documents(data / "wikitext-2-raw" / "wiki.test.raw"))
    assert [(line, row["page"].split("\n")[0].strip() or "-") for line, row in rows] == [
        (2, "= Stone bridge ="),
        (7, "= Old mill ="),
    ]


def test_wikitext_without_titles_is_cut_into_pages(tmp_path):
    path = tmp_path / "test.txt"
    lines = [f"line {i} " + "word " * 100 for i in range(40)]
    path.write_text("\n".join(lines), encoding="utf-8")
    pages = [row["page"] for _, row in read_documents(path)]
    assert "".join(pages) == "\n".join(lines) + "\n"
    assert all(6000 < len(page) < 6700 for page in pages[:-1])


def test_counts_are_those_of_the_file(data):
    sample = next(iter(one("wikitext2", data).samples("test")))
    page = next(iter(read_documents(data / "wikitext-2-raw" / "wiki.test.raw")))[1]["page"]
    assert sample.fields == {"num_words": len(re.split(r"\s+", page)), "num_bytes": len(page.encode())}
    assert len(sample.input) < len(page)


def test_gsm8k_reads_the_marked_number_first(data):
    from lydite.types import Completion

    task = one("gsm8k", data)
    sample = next(iter(task.samples("test")))
    assert sample.targets == ("1200",)

    def scores(text):
        return [s.value for s in task.score(sample, [Completion(text=text, num_tokens=1, finish="stop")])]

    assert scores("600+600=1200\n#### 1,200 figs out of 5") == [1.0, 1.0]
    assert scores("It is $1200.00.") == [1.0, 0.0]
    assert scores("#### 12") == [0.0, 0.0]


@pytest.mark.parametrize(
    ("language", "prompt"),
    # lm-evaluation-harness 0.4.13, lm_eval/tasks/xquad/*.yaml; in its Arabic word for "context" the last letter is missing
    [
        ("ar", "سياق: {c}\n\nسؤال: {q}\n\nإجابة:"),
        ("de", "Kontext: {c}\n\nFrage: {q}\n\nAntwort:"),
        ("el", "Συμφραζόμενα: {c}\n\nΕρώτηση: {q}\n\nΑπάντηση:"),
        ("en", "Context: {c}\n\nQuestion: {q}\n\nAnswer:"),
        ("es", "Contexto: {c}\n\nPregunta: {q}\n\nRespuesta:"),
        ("hi", "प्रसंग: {c}\n\nसवाल: {q}\n\nउत्तर:"),
        ("ro", "Context: {c}\n\nÎntrebare: {q}\n\nRăspuns:"),
        ("ru", "Контекст: {c}\n\nВопрос: {q}\n\nОтвет:"),
        ("th", "บริบท: {c}\n\nคำถาม: {q}\n\nคำตอบ:"),
        ("tr", "Bağlam: {c}\n\nSoru: {q}\n\nCevap:"),
        ("vi", "Bối cảnh: {c}\n\nCâu hỏi: {q}\n\nTrả lời:"),
        ("zh", "语境: {c}\n\n问题: {q}\n\n回答:"),
    ],
)
def test_xquad_asks_as_lm_eval_does(language, prompt):
    [task], _ = load_tasks([f"xquad_{language}"])
    sample = Sample(id="1", input="Q?", fields={"context": "C."})
    assert task.prompt(sample) == prompt.format(c="C.", q="Q?")


def test_xquad_questions_about_a_paragraph_are_a_cluster(data):
    samples = list(one("xquad_en", data).samples("test"))
    assert len({sample.cluster for sample in samples}) == 1


# ---------------------------------------------------------------------------------- groups and real data


def test_groups_use_what_is_there_and_say_what_is_missing(data):
    tasks, groups = load_tasks(["blimp", "cmmlu_stem", "cmmlu"], data_dir=data)
    assert [task.name for task in tasks] == ["blimp_causative", "blimp_passive_2", "cmmlu_astronomy", "cmmlu_agronomy"]
    blimp, stem, cmmlu = groups
    assert blimp.members == ("blimp_causative", "blimp_passive_2")
    assert "2 of 67 are here" in blimp.description
    assert "blimp_wh_island" in blimp.description
    assert stem.members == ("cmmlu_astronomy",)
    assert set(cmmlu.members) == {"cmmlu_astronomy", "cmmlu_agronomy"}


def test_official_categories_cover_all_subjects_once():
    entries = {entry.name: entry for entry in list_tasks()}
    for exam, number, overlapping in (("mmlu", 57, ()), ("cmmlu", 67, ("cmmlu_china_specific",))):
        groups = [e for n, e in entries.items() if e.members and n.startswith(f"{exam}_") and n not in overlapping]
        members = [member for group in groups for member in group.members]
        assert sorted(members) == sorted(entries[exam].members)
        assert len(members) == len(set(members)) == number
    assert len(entries["blimp"].members) == 67
    assert len(entries["cmmlu_china_specific"].members) == 15


REAL = os.environ.get("LYDITE_DATA")


@pytest.mark.skipif(not REAL, reason="LYDITE_DATA names no data folder")
@pytest.mark.parametrize(
    ("name", "at_least"),
    [
        ("blimp", 1000),
        ("arc_challenge", 200),
        ("cmmlu", 100),
        ("lambada", 100),
        ("gsm8k", 100),
        ("wikitext2", 50),
        ("xquad_en", 1190),
        ("xquad_zh", 1190),
    ],
)
def test_real_data(name, at_least):
    tasks, _ = load_tasks([name], data_dir=Path(REAL))
    for task in tasks:
        ready = prompted(task)
        samples = list(ready.samples("test"))
        assert len(samples) >= at_least
        assert len({sample.id for sample in samples}) == len(samples)
        for sample in samples[:50]:
            assert ready.views[next(iter(ready.views))](sample, ready.prompt(sample))
