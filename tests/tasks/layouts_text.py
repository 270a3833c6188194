"""Small invented rows of the benchmarks of reading, summarising and translating: original files, and the hub's rows."""

import gzip
import hashlib
import json
from pathlib import Path

PARAGRAPH = "The mill on the Arn was built in 1204. It burned down twice."
QUESTIONS = (
    ("q1", "When was the mill built?", ["1204", "in 1204"], 33),
    ("q2", "How often did it burn down?", ["twice"], 54),
)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _dump(path: Path, value: object) -> None:
    _write(path, json.dumps(value, ensure_ascii=False))


def _squad_file(path: Path, asked: list[dict], title: str = "Mill", context: str = PARAGRAPH) -> None:
    _dump(path, {"version": "v", "data": [{"title": title, "paragraphs": [{"context": context, "qas": asked}]}]})


def _squad(folder: Path) -> None:
    asked = [
        {"id": name, "question": text, "answers": [{"text": one, "answer_start": start} for one in answers]}
        for name, text, answers, start in QUESTIONS
    ]
    _squad_file(folder / "squad/dev-v1.1.json", asked)
    _squad_file(folder / "squad/train-v1.1.json", asked, context="Long ago. " + PARAGRAPH)
    nothing = {
        "id": "q3",
        "question": "Who owned it?",
        "answers": [],
        "is_impossible": True,
        "plausible_answers": [{"text": "Arn", "answer_start": 12}],
    }
    known = [one | {"is_impossible": False} for one in asked]
    _squad_file(folder / "squad/dev-v2.0.json", [*known, nothing])
    _squad_file(folder / "squad/train-v2.0.json", [nothing, *known], context="Long ago. " + PARAGRAPH)


def _mlqa(folder: Path) -> None:
    for split in ("dev", "test"):
        for language, context, question, answer in (
            ("en", PARAGRAPH, "When was it built?", "1204"),
            ("zh", "磨坊建于1204年。", "Wann wurde sie gebaut?", "1204年"),
        ):
            other = "de" if language == "zh" else "en"
            asked = [{"id": "m1", "question": question, "answers": [{"text": answer, "answer_start": 4}]}]
            name = f"{split}-context-{language}-question-{other}.json"
            _squad_file(folder / "MLQA_V1" / split / name, asked, context=context)


def _closed_book(folder: Path) -> None:
    data = [
        {
            "QuestionId": f"tc_{i}",
            "Question": f"Which river turns mill no. {i}?",
            "Answer": {"Value": "Arn", "Aliases": ["Arn", "River Arn", "The_Arn"], "NormalizedAliases": ["arn"]},
        }
        for i in range(3)
    ]
    for split in ("dev", "train"):
        _dump(folder / f"triviaqa-unfiltered/unfiltered-web-{split}.json", {"Data": data, "Split": split})
    rows = [{"question": f"who built mill no. {i}", "answer": ["Ida", "Ida Holt"]} for i in range(3)]
    for split in ("dev", "train"):
        _write(folder / f"nq_open/NQ-open.{split}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    lisp = '(list (description "Ida \\"Red\\" Holt") (description Arn) (description "St. John"))'
    asked = [{"url": "http://x/en/ida", "targetValue": lisp, "utterance": f"who is no. {i}?"} for i in range(3)]
    for split in ("test", "train"):
        _dump(folder / f"webquestions/webquestions.examples.{split}.json", asked)


def _coqa(folder: Path) -> None:
    def turns(*texts: str) -> list[dict]:
        return [{"input_text": text, "turn_id": i, "span_text": text} for i, text in enumerate(texts, 1)]

    story = {
        "id": "s1",
        "source": "wikipedia",
        "filename": "mill.txt",
        "story": PARAGRAPH,
        "questions": turns("When was it built?", "And then?"),
        "answers": turns("1204", "it burned down"),
        "additional_answers": {"0": turns("in 1204", "It burned"), "1": turns("1204", "burned twice")},
    }
    for split in ("dev", "train"):
        _dump(folder / f"coqa/coqa-{split}-v1.0.json", {"version": "1.0", "data": [story]})


STORY = "The old mill burned down\n\nNobody was hurt.\n\n@highlight\n\nOld mill burns\n\n@highlight\n\nNobody hurt ."


def _summaries(folder: Path) -> None:
    address = "http://web.archive.org/mill"
    name = hashlib.sha1(address.encode()).hexdigest()
    for split in ("test", "train"):
        _write(folder / f"cnn_dailymail/url_lists/all_{split}.txt", address + "\n")
        row = {"document": "It burned at night.\nNobody was hurt.", "summary": "A mill has burned down.", "id": "9"}
        _write(folder / f"xsum/{split}.jsonl", json.dumps(row) + "\n")
        chat = {"id": "13", "dialogue": "Ida: Fire!\r\nTom: I come", "summary": "Tom comes to the fire."}
        _dump(folder / f"samsum/{split}.json", [chat])
    _write(folder / f"cnn_dailymail/dailymail/stories/{name}.story", STORY)


PAIRS = {"en": "A mill burns.\nTwo men look on.\n", "de": "Eine Mühle brennt.\nZwei Männer sehen zu.\n"}


def _parallel(folder: Path) -> None:
    (folder / "multi30k").mkdir()
    for stem in ("test_2016_flickr", "train"):
        for language, text in PAIRS.items():
            with gzip.open(folder / f"multi30k/{stem}.{language}.gz", "wt", encoding="utf-8") as file:
                file.write(text)
    for kind, language in (("src", "de"), ("ref", "en")):
        segments = "".join(
            f'<seg id="{i}"> {line} &amp; so on </seg>\n' for i, line in enumerate(PAIRS[language].splitlines(), 1)
        )
        text = f'<srcset setid="newstest2014" srclang="any">\n<doc docid="1">\n<p>\n{segments}</p>\n</doc>\n</srcset>\n'
        _write(folder / f"wmt14/newstest2014-deen-{kind}.{language}.sgm", text)
    for code, language in (("eng_Latn", "en"), ("deu_Latn", "de")):
        for split in ("dev", "devtest"):
            _write(folder / f"flores200_dataset/{split}/{code}.{split}", PAIRS[language])


def make_texts(folder: Path) -> Path:
    """A data folder with a few rows of every benchmark of texts."""
    for write in (_squad, _mlqa, _closed_book, _coqa, _summaries, _parallel):
        write(folder)
    return folder


def _hub_squad(title: bool, unanswerable: bool) -> list[dict]:
    rows = [
        {"id": name, "context": PARAGRAPH, "question": text, "answers": {"text": a, "answer_start": [start] * len(a)}}
        for name, text, a, start in QUESTIONS
    ]
    if unanswerable:
        nothing = {"text": [], "answer_start": []}
        rows.append({"id": "q3", "context": PARAGRAPH, "question": "Who owned it?", "answers": nothing})
    return [{"title": "Mill", **row} if title else row for row in rows]


HUB: dict[str, list[dict]] = {
    "squad": _hub_squad(True, False),
    "squad2": _hub_squad(True, True),
    "mlqa_zh_de": [
        {
            "context": "磨坊建于1204年。",
            "question": "Wann wurde sie gebaut?",
            "answers": {"answer_start": [4], "text": ["1204年"]},
            "id": "m1",
        }
    ],
    "triviaqa": [
        {
            "question": f"Which river turns mill no. {i}?",
            "question_id": f"tc_{i}",
            "question_source": "",
            "answer": {"aliases": ["Arn", "River Arn", "The_Arn"], "normalized_aliases": ["arn"], "value": "Arn"},
        }
        for i in range(3)
    ],
    "nq_open": [{"question": f"who built mill no. {i}", "answer": ["Ida", "Ida Holt"]} for i in range(3)],
    "webqs": [
        {"url": "http://x/en/ida", "question": f"who is no. {i}?", "answers": ['Ida "Red" Holt', "Arn", "St. John"]}
        for i in range(3)
    ],
    "coqa": [
        {
            "id": "s1",
            "source": "wikipedia",
            "story": PARAGRAPH,
            "questions": {"input_text": ["When was it built?", "And then?"], "turn_id": [1, 2]},
            "answers": {"input_text": ["1204", "it burned down"], "turn_id": [1, 2]},
            "additional_answers": {
                "0": {"input_text": ["in 1204", "It burned"], "turn_id": [1, 2]},
                "1": {"input_text": ["1204", "burned twice"], "turn_id": [1, 2]},
                "2": None,
            },
        }
    ],
    "cnn_dailymail": [
        {
            "article": "The old mill burned down . Nobody was hurt.",
            "highlights": "Old mill burns .\nNobody hurt .",
            "id": hashlib.sha1(b"http://web.archive.org/mill").hexdigest(),
        }
    ],
    "xsum": [
        {"document": "It burned at night.\nNobody was hurt.", "summary": "A mill has burned down.", "id": "9"},
    ],
    "samsum": [{"id": "13", "dialogue": "Ida: Fire!\r\nTom: I come", "summary": "Tom comes to the fire."}],
    "multi30k_en_de": [
        {"en": "A mill burns.", "de": "Eine Mühle brennt."},
        {"en": "Two men look on.", "de": "Zwei Männer sehen zu."},
    ],
    "wmt14_de_en": [
        {"translation": {"de": "Eine Mühle brennt. & so on", "en": "A mill burns. & so on"}},
        {"translation": {"de": "Zwei Männer sehen zu. & so on", "en": "Two men look on. & so on"}},
    ],
    "flores_en_de": [
        {"id": 1, "sentence_eng_Latn": "A mill burns.", "sentence_deu_Latn": "Eine Mühle brennt."},
        {"id": 2, "sentence_eng_Latn": "Two men look on.", "sentence_deu_Latn": "Zwei Männer sehen zu."},
    ],
}
"""What `datasets` gives for the rows that `make_texts` writes."""
