"""Files for the test servers of GLUE, SuperGLUE and CLUE, from runs over their unlabelled test splits.

    lydite evaluate MODEL --tasks glue_test --out runs/server
    python -m lydite.submission runs/server/MODEL submission

Each task becomes the file that the server expects: GLUE a table of index and prediction, SuperGLUE and CLUE a JSON object
a line.
The server wants every row, so runs with a limit are refused; a row without an answer gets the first label, and how many
there were is told.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from lydite.errors import LyditeError, RunError
from lydite.runs import find_runs, read_run, read_samples
from lydite.tasks.clue_labels import IFLYTEK, TNEWS
from lydite.types import Run, SampleRecord

NUMBERS, RTE = ("0", "1"), ("entailment", "not_entailment")
MNLI = ("entailment", "neutral", "contradiction")
LOWER, TITLE = ("false", "true"), ("False", "True")
CHINESE_NLI = ("neutral", "entailment", "contradiction")

TABLES: Mapping[str, tuple[str, Sequence[str]]] = {
    "glue_cola_test": ("CoLA", NUMBERS),
    "glue_sst2_test": ("SST-2", NUMBERS),
    "glue_mrpc_test": ("MRPC", NUMBERS),
    "glue_stsb_test": ("STS-B", ()),
    "glue_qqp_test": ("QQP", NUMBERS),
    "glue_mnli_matched_test": ("MNLI-m", MNLI),
    "glue_mnli_mismatched_test": ("MNLI-mm", MNLI),
    "glue_qnli_test": ("QNLI", RTE),
    "glue_rte_test": ("RTE", RTE),
    "glue_wnli_test": ("WNLI", NUMBERS),
    "glue_ax_test": ("AX", MNLI),
}
"""Task to the name of its table and how the server spells the labels; none: a number."""
LINES: Mapping[str, tuple[str, Sequence[str | int]]] = {
    "superglue_boolq_test": ("BoolQ", LOWER),
    "superglue_cb_test": ("CB", ("entailment", "contradiction", "neutral")),
    "superglue_copa_test": ("COPA", (0, 1)),
    "superglue_multirc_test": ("MultiRC", ()),
    "superglue_record_test": ("ReCoRD", ()),
    "superglue_rte_test": ("RTE", RTE),
    "superglue_wic_test": ("WiC", LOWER),
    "superglue_wsc_test": ("WSC", TITLE),
    "superglue_axb_test": ("AX-b", RTE),
    "superglue_axg_test": ("AX-g", RTE),
}
"""Task to the name of its file and how the server spells the labels; none: the answer has a form of its own."""
CLUE: Mapping[str, tuple[str, Sequence[str]]] = {
    "clue_afqmc_test": ("afqmc", NUMBERS),
    "clue_tnews_test": ("tnews11", tuple(TNEWS)),
    "clue_iflytek_test": ("iflytek", tuple(IFLYTEK)),
    "clue_cmnli_test": ("cmnli", CHINESE_NLI),
    "clue_ocnli_test": ("ocnli_50k", CHINESE_NLI),
    "clue_cluewsc2020_test": ("cluewsc11", ("true", "false")),
    "clue_csl_test": ("csl", NUMBERS),
}
"""Task to the name of its file for CLUE 1.1, before _predict.json, and how the server spells the labels."""


def write_submission(runs: Path, out: Path) -> dict[str, int]:
    """Writes a file for each run of a test split below `runs`; file name to the number of rows without an answer.

    Raises RunError where there is no such run, two are of one task, or one has not answered every row.
    """
    found: dict[str, Path] = {}
    for leaf in find_runs(runs):
        run = read_run(leaf)
        if run.task.name not in {*TABLES, *LINES, *CLUE}:
            continue
        if run.task.name in found:
            raise RunError(f"{runs} holds two runs of {run.task.name}; name the folder of one model")
        _complete(leaf, run)
        found[run.task.name] = leaf
    if not found:
        raise RunError(f"no run of a test split in {runs}; evaluate glue_test, superglue_test or clue_test first")
    out.mkdir(parents=True, exist_ok=True)
    told = {}
    for task, leaf in found.items():
        records = sorted(read_samples(leaf), key=lambda record: int(record.id))
        if task in TABLES:
            name, lines = f"{TABLES[task][0]}.tsv", _table(records, TABLES[task][1])
        elif task in CLUE:
            name, lines = f"{CLUE[task][0]}_predict.json", _clue(records, CLUE[task][1])
        else:
            name, lines = f"{LINES[task][0]}.jsonl", _objects(task, records, LINES[task][1])
        (out / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        told[name] = sum(_answer(record) is None for record in records)
    return told


def _complete(leaf: Path, run: Run) -> None:
    if run.status != "done" or run.config.get("limit") is not None:
        raise RunError(f"{leaf} has not answered every row; evaluate it to the end, without --limit")


def _answer(record: SampleRecord) -> str | None:
    """What was read from the outputs, by the task's only metric."""
    return next((score.answer for score in record.scores if score.by == "auto"), None)


def _index(record: SampleRecord) -> int:
    answer = _answer(record)
    return 0 if answer is None else record.sample.choices.index(answer)


def _table(records: Sequence[SampleRecord], labels: Sequence[str]) -> Iterator[str]:
    yield "index\tprediction"
    for record in records:
        yield f"{record.id}\t{labels[_index(record)] if labels else _answer(record) or '0.000'}"


def _clue(records: Sequence[SampleRecord], labels: Sequence[str]) -> Iterator[str]:
    for record in records:
        yield msgspec.json.encode({"id": int(record.id), "label": labels[_index(record)]}).decode()


def _objects(task: str, records: Sequence[SampleRecord], labels: Sequence[str | int]) -> Iterator[str]:
    forms: dict[str, Callable[[Sequence[SampleRecord]], Iterator[object]]] = {
        "superglue_multirc_test": _multirc,
        "superglue_record_test": _record,
    }
    rows = forms[task](records) if task in forms else _plain(records, labels)
    for row in rows:
        yield msgspec.json.encode(row).decode()


def _plain(records: Sequence[SampleRecord], labels: Sequence[str | int]) -> Iterator[object]:
    for record in records:
        yield {"idx": int(record.id), "label": labels[_index(record)]}


def _record(records: Sequence[SampleRecord]) -> Iterator[object]:
    for record in records:
        answer = _answer(record) or record.sample.choices[0]
        yield {"idx": record.sample.fields["idx"]["query"], "label": answer}


def _multirc(records: Sequence[SampleRecord]) -> Iterator[object]:
    """A line a paragraph, its questions and their answer options nested. Ties and what was not read count as wrong."""
    passages: dict[int, list[object]] = {}
    for record in records:
        idx = record.sample.fields["idx"]
        judged = (_answer(record) or ",".join("?" * len(record.sample.choices))).split(",")
        answers = [
            {"idx": number, "label": int(one == "1")} for number, one in zip(idx["answers"], judged, strict=True)
        ]
        passages.setdefault(idx["paragraph"], []).append({"idx": idx["question"], "answers": answers})
    for paragraph, questions in passages.items():
        yield {"idx": paragraph, "passage": {"questions": questions}}


def main(arguments: Sequence[str]) -> None:
    """The command line: RUNS OUT."""
    if len(arguments) != 2:
        sys.exit("usage: python -m lydite.submission RUNS OUT")
    try:
        told = write_submission(Path(arguments[0]), Path(arguments[1]))
    except LyditeError as error:
        sys.exit(f"lydite: error: {error}")
    for name, missing in told.items():
        print(
            f"{Path(arguments[1]) / name}"
            + (f": {missing} rows had no answer and got the first label" if missing else "")
        )


if __name__ == "__main__":
    main(sys.argv[1:])
