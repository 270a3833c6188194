"""Small invented rows in the original layouts of the benchmarks, so that tests need nobody's data."""

import csv
import json
from pathlib import Path


def _lines(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _csv(path: Path, rows: list[list]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def _blimp(folder: Path) -> None:
    for paradigm, good, bad in (
        ("causative", "Ann melts the ice.", "Ann vanishes the ice."),
        ("passive_2", "The door was opened.", "The door was arrived."),
    ):
        rows = [
            {"sentence_good": good, "sentence_bad": bad, "field": "syntax", "linguistics_term": "argument_structure"},
            {"sentence_good": f"Now {good}", "sentence_bad": f"Now {bad}", "field": "syntax", "linguistics_term": "a"},
        ]
        _lines(folder / "blimp" / f"{paradigm}.jsonl", rows)


def _arc(folder: Path) -> None:
    def row(name: str, question: str, answer: str, labels: str) -> dict:
        return {
            "id": name,
            "question": question,
            "choices": {"text": ["a rock", "a fish", "the wind", "a spoon"], "label": list(labels)},
            "answerKey": answer,
        }

    train = [row(f"T{i}", f"Which of these breathes water? (form {i})", "B", "ABCD") for i in range(30)]
    # The question of the first test row stands in the training split too, under another id.
    train.append(row("T-same", "Which of these can swim?", "B", "ABCD"))
    _lines(folder / "arc" / "ARC-Challenge_train.jsonl", train)
    test = [
        row("V1", "Which of these can swim?", "B", "ABCD"),
        row("V2", "Which of these moves leaves?", "3", "1234"),
    ]
    _lines(folder / "arc" / "ARC-Challenge_validation.jsonl", test)
    nested = {
        "id": "E1",
        "question": {
            "stem": "What is wet?",
            "choices": [{"text": "rain", "label": "A"}, {"text": "sand", "label": "B"}, {"text": "salt", "label": "C"}],
        },
        "answerKey": "A",
    }
    _lines(folder / "arc" / "ARC-Easy" / "ARC-Easy-Test.jsonl", [nested])
    more = [
        nested | {"id": f"E{i}", "question": nested["question"] | {"stem": f"Form {i}: what is wet?"}} for i in "23"
    ]
    _lines(folder / "arc" / "ARC-Easy" / "ARC-Easy-Train.jsonl", more)


def _exams(folder: Path) -> None:
    def chinese(i: int, what: str) -> list:
        return [i, f" 第{i}题：{what} ", "春", "夏", "秋", "冬", "ABCD"[i % 4]]

    head = ["", "Question", "A", "B", "C", "D", "Answer"]
    for subject in ("agronomy", "astronomy"):
        _csv(folder / f"cmmlu/dev/{subject}.csv", [head] + [chinese(i, "什么季节播种") for i in range(6)])
        _csv(folder / f"cmmlu/test/{subject}.csv", [head] + [chinese(i, "什么季节收割") for i in range(3)])
    for split, what in (("dev", "ripe"), ("test", "sour")):
        rows = [[f"Which fruit, no. {i}, is {what}?", "pear", "fig", "plum", "lime", "ABCD"[i % 4]] for i in range(6)]
        _csv(folder / f"mmlu/{split}/astronomy_{split}.csv", rows)


def _texts(folder: Path) -> None:
    passages = [{"text": "She filled the bucket with cold\n\nwell water"}, {"text": "He rowed home in his old boat"}]
    _lines(folder / "lambada" / "lambada_test.jsonl", passages)

    def problem(i: int) -> dict:
        answer = f"He picks {i} and {i}.\nThat is {i}+{i}=<<{i}+{i}={2 * i}>>{2 * i}.\n#### {2 * i}"
        return {"question": f"Tom picks {i} figs twice. How many has he?", "answer": answer}

    _lines(folder / "gsm8k" / "train.jsonl", [problem(i) for i in range(1, 9)])
    _lines(folder / "gsm8k" / "test.jsonl", [problem(600), problem(3)])
    raw = (
        " \n = Stone bridge = \n \n It was built in 1 @,@ 204 , they say , by the king 's masons . \n"
        ' = = Arches = = \n A well @-@ known one has ( nearly ) fallen ; nobody " cares " . \n'
        " = Old mill = \n The wheel turns at 3 @.@ 5 ° . \n"
    )
    path = folder / "wikitext-2-raw" / "wiki.test.raw"
    path.parent.mkdir(parents=True)
    path.write_text(raw, encoding="utf-8")


def _xquad(folder: Path) -> None:
    for language, context, question, answer in (
        ("en", "The mill stands by the river Arn.", "By which river does the mill stand?", "Arn"),
        ("zh", "磨坊在阿恩河边。", "磨坊在哪条河边？", "阿恩河"),
    ):
        asked = [{"id": f"{language}1", "question": question, "answers": [{"text": answer, "answer_start": 3}]}]
        asked.append(
            {"id": f"{language}2", "question": question + "?", "answers": [{"text": answer, "answer_start": 3}]}
        )
        data = {"data": [{"title": "Mill", "paragraphs": [{"context": context, "qas": asked}]}], "version": "1.1"}
        path = folder / "xquad" / f"xquad.{language}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(data), encoding="utf-8")


def make_data(folder: Path) -> Path:
    """A data folder with a few rows of every benchmark."""
    for write in (_blimp, _arc, _exams, _texts, _xquad):
        write(folder)
    return folder


MINI_ROWS: dict[str, dict[str, object]] = {
    "grammar_en": {"good": "She sings.", "bad": "She sing.", "phenomenon": "agreement"},
    "grammar_zh": {"good": "他唱歌。", "bad": "他歌唱了着。", "phenomenon": "aspect"},
    "commonsense_en": {"question": "He was thirsty, so he", "choices": ["drank.", "slept."], "gold": 0},
    "commonsense_zh": {"question": "口渴了应该做什么？", "choices": ["喝水", "睡觉"], "gold": 0},
    "knowledge_en": {"question": "What do bees make?", "choices": ["Milk", "Honey"], "gold": 1},
    "knowledge_zh": {"question": "蜜蜂酿的是", "choices": ["牛奶", "蜂蜜"], "gold": 1},
    "cloze_en": {"context": "It rained, so she opened her", "target": " umbrella"},
    "cloze_zh": {"context": "下雨了，她撑开了", "target": "伞"},
    "sentiment_en": {"text": "What a lovely day.", "gold": "positive"},
    "sentiment_zh": {"text": "白跑一趟。", "gold": "negative"},
    "nli_en": {"premise": "All doors are shut.", "hypothesis": "A door is open.", "gold": "contradiction"},
    "nli_zh": {"premise": "门都关着。", "hypothesis": "门是新的。", "gold": "neutral"},
    "paraphrase_en": {"sentence1": "He left early.", "sentence2": "He went before time.", "gold": "yes"},
    "paraphrase_zh": {"sentence1": "他走得早。", "sentence2": "他来得早。", "gold": "no"},
    "word_sense_en": {"word": "bank", "sentence1": "A bank lends.", "sentence2": "A river bank.", "gold": "different"},
    "word_sense_zh": {"word": "打", "sentence1": "打球。", "sentence2": "打篮球。", "gold": "same"},
    "reading_en": {"passage_id": "p", "passage": "Ida owns a mill.", "question": "Who owns it?", "answers": ["Ida"]},
    "reading_zh": {"passage_id": "p", "passage": "老李有磨坊。", "question": "谁有磨坊？", "answers": ["老李"]},
    "arithmetic_en": {"question": "What is 2 and 3?", "answer": "5", "steps": 1},
    "arithmetic_zh": {"question": "2加3是多少？", "answer": "5", "steps": 1},
    "code_en": {"code": ">>> 1 + 1", "answer": "2"},
    "code_zh": {"code": '>>> len("书")', "answer": "1"},
    "summary_en": {"document": "The mill burned. It was rebuilt.", "summaries": ["A mill was rebuilt."]},
    "summary_zh": {"document": "磨坊着火了，后来又重建了。", "summaries": ["磨坊火后重建。"]},
    "translate_en_zh": {"source": "It rains.", "references": ["下雨了。"]},
    "translate_zh_en": {"source": "下雨了。", "references": ["It rains.", "It is raining."]},
}


def make_mini(folder: Path, shipped: Path) -> Path:
    """The task files of the bundled suite over one invented row each, so that items can change without the prompts."""
    for name, row in MINI_ROWS.items():
        _lines(folder / f"{name}.jsonl", [{"id": "1", **row}])
        (folder / f"{name}.toml").write_bytes((shipped / f"{name}.toml").read_bytes())
    return folder
