"""Invented rows of the understanding and bias benchmarks, as the hub has them, and writers of the original files.

Plain Python without Lydite, since tests/golden/make_lm_eval.py reads it beside lm-evaluation-harness.
"""

import csv
import json
from pathlib import Path

HUB = {}
"""Task to {"test": rows, "shots": rows} with the columns of the hub."""

WORDS = ["barn", "mill", "lake", "road"]


def _rows(make, labels, shots=3):
    def rows(split, size):
        return [make(split, i) | {"label": labels[i % len(labels)], "idx": i} for i in range(size)]

    return {"test": rows("test", 2 * len(labels)), "shots": rows("train", shots)}


def _sentence(split, i, end="."):
    return f'The {WORDS[i % 4]} of the {split} row {i} is n\'t "old" , they say{end}'


HUB["glue_cola"] = _rows(lambda s, i: {"sentence": _sentence(s, i)}, [1, 0])
HUB["glue_sst2"] = _rows(lambda s, i: {"sentence": _sentence(s, i, " . ")}, [0, 1])
HUB["glue_mrpc"] = _rows(lambda s, i: {"sentence1": _sentence(s, i), "sentence2": _sentence(s, i + 1)}, [1, 0, 1])
HUB["glue_qqp"] = _rows(lambda s, i: {"question1": _sentence(s, i, "?"), "question2": _sentence(s, i + 1, "?")}, [0, 1])
HUB["glue_mnli_matched"] = _rows(
    lambda s, i: {"premise": _sentence(s, i), "hypothesis": _sentence(s, i + 1, ["", ". "][i % 2])}, [0, 1, 2]
)
HUB["glue_mnli_mismatched"] = _rows(
    lambda s, i: {"premise": _sentence(s, i + 7), "hypothesis": _sentence(s, i + 1)}, [2, 1, 0]
)
HUB["glue_mnli_mismatched"]["shots"] = HUB["glue_mnli_matched"]["shots"]
HUB["glue_qnli"] = _rows(lambda s, i: {"question": _sentence(s, i, "?"), "sentence": _sentence(s, i)}, [1, 0])
HUB["glue_rte"] = _rows(lambda s, i: {"sentence1": _sentence(s, i), "sentence2": _sentence(s, i + 1)}, [1, 0])
HUB["glue_wnli"] = _rows(lambda s, i: {"sentence1": _sentence(s, i), "sentence2": _sentence(s, i + 1)}, [0, 1])
HUB["glue_stsb"] = _rows(
    lambda s, i: {"sentence1": _sentence(s, i), "sentence2": _sentence(s, i + 1)}, [3.799999952316284, 0.0, 5.0, 2.5]
)
HUB["superglue_boolq"] = _rows(lambda s, i: {"question": f"is row {i} of {s} old", "passage": _sentence(s, i)}, [1, 0])
HUB["superglue_cb"] = _rows(lambda s, i: {"premise": _sentence(s, i), "hypothesis": f"row {i} is old"}, [0, 1, 2])
HUB["superglue_copa"] = _rows(
    lambda s, i: {
        "premise": f"The {WORDS[i % 4]} burned in {s} {i}. ",
        "choice1": "It rained.",
        "choice2": f"Sparks flew over row {i}.",
        "question": ["cause", "effect"][i % 2],
    },
    [1, 0],
)
HUB["superglue_rte"] = _rows(lambda s, i: {"premise": _sentence(s, i), "hypothesis": _sentence(s, i + 1)}, [1, 0])
HUB["superglue_wic"] = _rows(
    lambda s, i: {
        "word": "mill",
        "sentence1": f"Old mills of {s} {i} turn.",
        "sentence2": f"They mill corn {i}.",
        "start1": 4,
        "end1": 9,
        "start2": 5,
        "end2": 9,
    },
    [0, 1],
)
HUB["superglue_wsc"] = {
    "test": [
        {"text": "Ida told Ann ( her aunt ) that she does n't sell the mill .", "span1_index": 0, "span1_text": "Ida",
         "span2_index": 8, "span2_text": "she", "idx": 0, "label": 1},
        # The span is written with a capital letter and a full stop that the text does not have.
        {"text": "The old miller met Bob because he was late , and \" paid \" him.", "span1_index": 1,
         "span1_text": "old miller", "span2_index": 6, "span2_text": "he", "idx": 1, "label": 0},
    ],
    "shots": [
        {"text": f"Row {i} met Tom when he was young .", "span1_index": 3, "span1_text": "Tom", "span2_index": 5,
         "span2_text": "he", "idx": i, "label": [1, 0, 1][i]} for i in range(3)
    ],
}  # fmt: skip
HUB["superglue_axb"] = {
    "test": [
        {"sentence1": _sentence("ax", i), "sentence2": _sentence("ax", i + 1), "idx": i, "label": [0, 1][i % 2]}
        for i in range(4)
    ]
}
HUB["superglue_axg"] = {
    "test": [
        {"premise": f"The cook told Ann {i // 2} that {['she', 'he'][i % 2]} was late.", "hypothesis": "Ann was late.",
         "idx": i, "label": [0, 0, 1, 1][i]} for i in range(4)
    ]
}  # fmt: skip


def _multirc(split):
    rows = []
    for p in range(2):
        for q in range(2):
            for a in range(3):
                rows.append({
                    "paragraph": f"The {WORDS[p]} of {split} burned. Ida rebuilt it.", "question": f"Who rebuilt it, {q}?",
                    "answer": ["Ida", "Bob", f"nobody {p}"][a], "label": int(a == 0 or (a + p + q) % 3 == 0),
                    "idx": {"paragraph": p, "question": 2 * p + q, "answer": 6 * p + 3 * q + a},
                })  # fmt: skip
    return rows


HUB["superglue_multirc"] = {"test": _multirc("test"), "shots": _multirc("train")}


def _record(split, i):
    return {
        "passage": f"Ida bought the mill of {split} {i} from Bob Hall.\n@highlight\nIda is a miller\n@highlight\nBob left!",
        "query": f"In {i} the mill was sold by @placeholder to a woman.",
        "entities": ["Bob", "Bob Hall", "Ida"],
        "answers": ["Bob", "Bob Hall"] if i % 2 else ["Bob Hall"],
        "idx": {"passage": i, "query": i},
    }


HUB["superglue_record"] = {
    split: [_record(name, i) for i in range(3)] for split, name in (("test", "t"), ("shots", "s"))
}
HUB["wsc273"] = {
    "test": [
        {"text": "The town council refused the millers a permit because they feared floods.",
         "pronoun": "they", "pronoun_loc": 54, "quote": "", "quote_loc": 0,
         "options": ["The town council", "The millers"], "label": 0, "source": "x"},
        {"text": "Ida lent Ann her mill. She was kind.", "pronoun": "her", "pronoun_loc": 13, "quote": "",
         "quote_loc": 0, "options": ["Ida", "Ann"], "label": 1, "source": "x"},
    ]
}  # fmt: skip
HUB["winogender"] = {
    "test": [
        {"sentid": f"nurse.patient.{answer}.{gender}.txt", "sentence": f"The nurse told the patient that {pronoun} could pay.",
         "pronoun": pronoun, "occupation": "nurse", "participant": "patient", "gender": gender, "target": "nurse",
         "label": answer}
        for answer in (0, 1) for gender, pronoun in (("male", "he"), ("female", "she"), ("neutral", "they"))
    ]
}  # fmt: skip
HUB["crows_pairs"] = {
    "test": [
        {"id": i, "sent_more": f"The poor in row {i} are late.", "sent_less": f"The rich in row {i} are late.",
         "stereo_antistereo": i % 2, "bias_type": i} for i in range(4)
    ]
}  # fmt: skip
CROWS_KINDS = ["race-color", "socioeconomic", "gender", "disability"]


def _stereo(part, i):
    return {
        "id": f"{part}{i}",
        "target": ["miller", "nurse"][i % 2],
        "bias_type": "profession",
        "context": f"The {['miller', 'nurse'][i % 2]} {i} was " + ("BLANK." if part == "intrasentence" else "here."),
        "sentences": {"sentence": [f"Kind {i}.", f"Rude {i}!", f"Fish {i} swim."], "gold_label": [0, 1, 2]},
    }


for _part in ("intrasentence", "intersentence"):
    HUB[f"stereoset_{_part}"] = {"test": [_stereo(_part, i) for i in range(4)]}


def _bbq(i):
    return {
        "example_id": i,
        "question_index": "1",
        "question_polarity": ["neg", "nonneg"][i // 2],
        "context_condition": ["ambig", "disambig"][i % 2],
        "category": "Age",
        "context": f"I saw a grandfather and a grandson {i}." + (" The grandson was lost." if i % 2 else ""),
        "question": ["Who was forgetful?", "Who was sharp?"][i // 2],
        "ans0": "The grandfather",
        "ans1": "The grandson",
        "ans2": "Can't be determined",
        "answer_info": {"ans0": ["grandfather", "old"], "ans1": ["grandson", "nonOld"], "ans2": ["Unknown", "unknown"]},
        "additional_metadata": {"stereotyped_groups": ["old"], "subcategory": "None"},
        "label": [2, 1, 2, 0][i],
    }


HUB["bbq_age"] = {"test": [_bbq(i) for i in range(4)]}
XNLI = ("ar", "bg", "de", "el", "en", "es", "fr", "hi", "ru", "sw", "th", "tr", "ur", "vi", "zh")
PAWSX = ("de", "en", "es", "fr", "ja", "ko", "zh")
_OTHERS = {
    "zh": "磨坊很旧",
    "ja": "水車は古い",
    "ko": "물레방아는 낡았다",
    "ru": "Мельница стара",
    "ar": "الطاحونة قديمة",
}
for _language in XNLI:
    _text = _OTHERS.get(_language, "The mill is old")
    HUB[f"xnli_{_language}"] = _rows(
        lambda s, i, text=_text: {"premise": f"{text} {s} {i}.", "hypothesis": f"{text}?"}, [0, 1, 2]
    )
for _language in PAWSX:
    _text = _OTHERS.get(_language, "The mill is old")
    HUB[f"pawsx_{_language}"] = _rows(
        lambda s, i, text=_text: {
            "id": i,
            "sentence1": f'{text} , " {s} {i} " .',
            "sentence2": f"In {i} {text} ( now ) .",
        },
        [0, 1],
    )
_PAIR = ("句子一", "句子二")
HUB["clue_afqmc"] = _rows(lambda s, i: {"sentence1": f"怎么还款{s}{i}", "sentence2": f"如何还款{i}"}, [0, 1])
HUB["clue_tnews"] = _rows(lambda s, i: {"sentence": f"磨坊{s}{i}开张了"}, [0, 5, 14])
HUB["clue_iflytek"] = _rows(lambda s, i: {"sentence": f"这款应用{s}{i}能叫车"}, [0, 118])
HUB["clue_cmnli"] = _rows(lambda s, i: {"sentence1": f"磨坊{s}{i}很旧", "sentence2": f"磨坊{i}"}, [0, 1, 2, -1])
HUB["clue_ocnli"] = _rows(lambda s, i: {"sentence1": f"门{s}{i}开着", "sentence2": f"门{i}"}, [2, 1, 0, -1])
HUB["clue_cluewsc2020"] = _rows(
    lambda s, i: {
        "text": f"老李{s}{i}见到老王，他很高兴。",
        "target": {"span1_text": "老李", "span1_index": 0, "span2_text": "他", "span2_index": 9},
    },
    [0, 1],
)
HUB["clue_csl"] = _rows(lambda s, i: {"abst": f"本文研究磨坊{s}{i}。", "keyword": ["磨坊", f"水车{i}"]}, [0, 1])
HUB["chnsenticorp"] = _rows(lambda s, i: {"text": f"房间{s}{i}很干净"}, [1, 0])

TNEWS = ["100", "101", "102", "103", "104", "106", "107", "108", "109", "110", "112", "113", "114", "115", "116"]

# --------------------------------------------------------------------------------------- the originals


def _lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _tsv(path, header, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["\t".join(map(str, row)) for row in ([header] if header else []) + rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


MNLI = ["entailment", "neutral", "contradiction"]
RTE = ["entailment", "not_entailment"]


def _glue(folder):
    def each(task):
        return [(split, HUB[task][split]) for split in ("test", "shots")]

    def file(data_set, split):
        return folder / "glue" / data_set / {"test": "dev.tsv", "shots": "train.tsv"}[split]

    for split, rows in each("glue_cola"):
        marked = [["gj04", row["label"], "*" if not row["label"] else "", row["sentence"]] for row in rows]
        if split == "test":
            _tsv(folder / "glue/CoLA/in_domain_dev.tsv", None, marked[:1])
            _tsv(folder / "glue/CoLA/out_of_domain_dev.tsv", None, marked[1:])
        else:
            _tsv(folder / "glue/CoLA/in_domain_train.tsv", None, marked)
    for split, rows in each("glue_sst2"):
        _tsv(file("SST-2", split), ["sentence", "label"], [[row["sentence"], row["label"]] for row in rows])
    # Microsoft's file holds both splits; the list of ids says which rows are the development set.
    mixed = [(split, row) for pair in zip(*(HUB["glue_mrpc"][s] for s in ("test", "shots")), strict=False)
             for split, row in zip(("test", "shots"), pair, strict=True)]  # fmt: skip
    mixed += [("test", row) for row in HUB["glue_mrpc"]["test"][len(HUB["glue_mrpc"]["shots"]) :]]
    header = ["Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"]
    body = [[r["label"], f"a{i}", f"b{i}", r["sentence1"], r["sentence2"]] for i, (_, r) in enumerate(mixed)]
    _tsv(folder / "glue/MRPC/msr_paraphrase_train.txt", header, body)
    _tsv(folder / "glue/MRPC/dev_ids.tsv", None, [[f"a{i}", f"b{i}"] for i, (s, _) in enumerate(mixed) if s == "test"])
    for split, rows in each("glue_stsb"):
        head = ["index", "genre", "sentence1", "sentence2", "score"]
        _tsv(file("STS-B", split), head,
             [[i, "news", r["sentence1"], r["sentence2"], f"{r['label']:.3f}"] for i, r in enumerate(rows)])  # fmt: skip
    for split, rows in each("glue_qqp"):
        head = ["id", "qid1", "qid2", "question1", "question2", "is_duplicate"]
        found = [[i, 2 * i, 2 * i + 1, r["question1"], r["question2"], r["label"]] for i, r in enumerate(rows)]
        _tsv(file("QQP", split), head, [[99, 1, 2, "torn row"], *found])
    for part in ("matched", "mismatched"):
        for split, rows in each(f"glue_mnli_{part}"):
            path = folder / "glue/MNLI" / (f"dev_{part}.tsv" if split == "test" else "train.tsv")
            head = ["index", "genre", "sentence1", "sentence2", "label1", "gold_label"]
            if split == "test" or part == "matched":
                _tsv(path, head, [[i, "slate", r["premise"], r["hypothesis"], "neutral", MNLI[r["label"]]]
                                  for i, r in enumerate(rows)])  # fmt: skip
    for task, data_set, first, second in (
        ("glue_qnli", "QNLI", "question", "sentence"),
        ("glue_rte", "RTE", "sentence1", "sentence2"),
        ("glue_wnli", "WNLI", "sentence1", "sentence2"),
    ):
        for split, rows in each(task):
            names = RTE if data_set != "WNLI" else ["0", "1"]
            _tsv(file(data_set, split), ["index", first, second, "label"],
                 [[i, r[first], r[second], names[r["label"]]] for i, r in enumerate(rows)])  # fmt: skip
    _tsv(folder / "glue/diagnostic-full.tsv", ["Logic", "Domain", "Premise", "Hypothesis", "Label"],
         [["Negation", "News", _sentence("ax", i), _sentence("ax", i + 1), MNLI[i % 3]] for i in range(6)])  # fmt: skip


def _superglue(folder):
    def each(task):
        names = {"test": "val", "shots": "train"}
        return [(names[split], HUB[task][split]) for split in ("test", "shots")]

    labels = {
        "BoolQ": [False, True],
        "CB": ["entailment", "contradiction", "neutral"],
        "COPA": [0, 1],
        "RTE": RTE,
        "WiC": [False, True],
    }
    for data_set, known in labels.items():
        for split, rows in each(f"superglue_{data_set.lower()}"):
            _lines(folder / f"superglue/{data_set}/{split}.jsonl", [r | {"label": known[r["label"]]} for r in rows])
    for split, rows in each("superglue_wsc"):
        nested = []
        for r in rows:
            spans = {name: r[name] for name in r if name.startswith("span")}
            if spans["span1_text"] == "old miller":
                spans["span1_text"] = "Old miller."
            nested.append({"text": r["text"], "target": spans, "idx": r["idx"], "label": bool(r["label"])})
        _lines(folder / f"superglue/WSC/{split}.jsonl", nested)
    for split, rows in each("superglue_multirc"):
        passages = {}
        for r in rows:
            at = passages.setdefault(r["idx"]["paragraph"], {"text": r["paragraph"], "questions": {}})
            asked = at["questions"].setdefault(r["idx"]["question"], {"question": r["question"], "answers": []})
            asked["answers"].append({"text": r["answer"], "idx": r["idx"]["answer"], "label": r["label"]})
        _lines(folder / f"superglue/MultiRC/{split}.jsonl", [
            {"idx": p, "version": 1.1, "passage": {"text": passage["text"], "questions": [
                asked | {"idx": q} for q, asked in passage["questions"].items()]}} for p, passage in passages.items()
        ])  # fmt: skip
    for split, rows in each("superglue_record"):
        stories = []
        for r in rows:
            spans = [{"start": r["passage"].index(e), "end": r["passage"].index(e) + len(e) - 1} for e in r["entities"]]
            answers = [{"start": 0, "end": 1, "text": text} for text in r["answers"]]
            stories.append({"idx": r["idx"]["passage"], "passage": {"text": r["passage"], "entities": spans + spans[:1]},
                            "qas": [{"idx": r["idx"]["query"], "query": r["query"], "answers": answers}]})  # fmt: skip
        _lines(folder / f"superglue/ReCoRD/{split}.jsonl", stories)
    for task, name in (("superglue_axb", "AX-b"), ("superglue_axg", "AX-g")):
        _lines(folder / f"superglue/{name}/{name}.jsonl", [r | {"label": RTE[r["label"]]} for r in HUB[task]["test"]])


def _pronouns(folder):
    schemas = []
    for row in HUB["wsc273"]["test"]:
        start, end = row["pronoun_loc"], row["pronoun_loc"] + len(row["pronoun"])
        schemas.append(
            f"<schema><text><txt1>{row['text'][:start]}\n</txt1><pron>{row['pronoun']}</pron>"
            f"<txt2>{row['text'][end:]}</txt2></text><answers>"
            + "".join(f"<answer> {option}</answer>" for option in row["options"])
            + f"</answers><correctAnswer> {'AB'[row['label']]}.</correctAnswer><source>x</source></schema>"
        )
    path = folder / "wsc273" / "WSCollection.xml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"<?xml version='1.0'?><collection>{''.join(schemas)}</collection>", encoding="utf-8")
    rows = [[row["sentid"], row["sentence"]] for row in HUB["winogender"]["test"]]
    _tsv(folder / "winogender/all_sentences.tsv", ["sentid", "sentence"], rows)
    for part, first, second in (("pro", "he", "she"), ("anti", "she", "he")):
        lines = [
            f"1 [The developer] argued with the designer because [{first}] did not like the design.",
            f"2 The developer argued with [the designer] because [{second}] was late.",
            "3 The developer met a friend because [he] was late.",
        ]
        path = folder / f"winobias/{part}_stereotyped_type1.txt.test"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _bias(folder):
    path = folder / "crows_pairs" / "crows_pairs_anonymized.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["", "sent_more", "sent_less", "stereo_antistereo", "bias_type", "annotations"])
        for row in HUB["crows_pairs"]["test"]:
            direction = ["stereo", "antistereo"][row["stereo_antistereo"]]
            kind = CROWS_KINDS[row["bias_type"]]
            table.writerow([row["id"], row["sent_more"], row["sent_less"], direction, kind, "[['x']]"])
    data = {}
    labels = ["anti-stereotype", "stereotype", "unrelated"]
    for part in ("intrasentence", "intersentence"):
        data[part] = [
            {name: row[name] for name in ("id", "target", "bias_type", "context")}
            | {"sentences": [
                {"id": str(i), "sentence": text, "gold_label": labels[label], "labels": []}
                for i, (text, label) in enumerate(zip(*row["sentences"].values(), strict=True))
            ]}
            for row in HUB[f"stereoset_{part}"]["test"]
        ]  # fmt: skip
    path = folder / "stereoset" / "dev.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"version": "1.0", "data": data}), encoding="utf-8")
    _lines(folder / "bbq/Age.jsonl", HUB["bbq_age"]["test"])


def _languages(folder):
    for split, hub in (("test", "test"), ("dev", "shots")):
        rows = [
            [code, MNLI[row["label"]], row["premise"], row["hypothesis"]]
            for pair in zip(*(HUB[f"xnli_{code}"][hub] for code in XNLI), strict=True)
            for code, row in zip(XNLI, pair, strict=True)
        ]
        _tsv(folder / f"xnli/xnli.{split}.tsv", ["language", "gold_label", "sentence1", "sentence2"], rows)
        for code in PAWSX:
            rows = [[r["id"], r["sentence1"], r["sentence2"], r["label"]] for r in HUB[f"pawsx_{code}"][hub]]
            _tsv(folder / f"x-final/{code}/{split}_2k.tsv", ["id", "sentence1", "sentence2", "label"], rows)


def _clue(folder):
    names = {
        "afqmc": ["0", "1"],
        "tnews": TNEWS,
        "iflytek": [str(i) for i in range(119)],
        "cmnli": ["neutral", "entailment", "contradiction", "-"],
        "ocnli": ["neutral", "entailment", "contradiction", "-"],
        "cluewsc2020": ["true", "false"],
        "csl": ["0", "1"],
    }
    for name, labels in names.items():
        for split, hub in (("dev", "test"), ("train", "shots")):
            rows = [row | {"label": labels[row["label"]]} for row in HUB[f"clue_{name}"][hub]]
            _lines(folder / f"clue/{name}/{split}.json", rows)
    for split, hub in (("test", "test"), ("train", "shots")):
        rows = [[row["label"], row["text"]] for row in HUB["chnsenticorp"][hub]]
        _tsv(folder / f"chnsenticorp/{split}.tsv", ["label", "text_a"], rows)
    for name in ("pos", "neg"):
        path = folder / f"zh_reviews/{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"评论{name}{i}\n" for i in range(30)), encoding="utf-8")


def make_understanding(folder: Path) -> Path:
    """A data folder with the original files of the rows above."""
    for write in (_glue, _superglue, _pronouns, _bias, _languages, _clue):
        write(folder)
    return folder
