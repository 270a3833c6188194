"""The table of results as CSV, markdown and LaTeX: complete and escaped, nothing shortened."""

import csv
import re
from collections.abc import Sequence
from io import StringIO
from typing import TYPE_CHECKING

from lydite.report import text
from lydite.report.rows import best
from lydite.types import Estimate

if TYPE_CHECKING:
    from lydite.report.table import Line

CSV_COLUMNS = (
    "model", "name", "kind", "depth", "metric", "value", "low", "high", "level", "stderr", "method", "n", "n_failed",
    "chance", "best", "signature",
)  # fmt: skip


def as_csv(lines: "Sequence[Line]", models: Sequence[str]) -> str:
    """One line a model and number, in full precision; an empty field is a missing number. Names that begin like a
    formula get a quote in front."""
    file = StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for line in lines:
        for model, value in zip(models, line.estimates(models), strict=True):
            if value is None:
                continue
            low, high = value.interval or (None, None)
            kind = "group" if line.row.is_group else "task"
            writer.writerow(
                [
                    text.sheet_text(model), text.sheet_text(line.row.name), kind, line.depth,
                    text.sheet_text(line.metric), value.value, low, high, value.level, value.stderr, value.method,
                    value.n, value.n_failed, value.chance, int(best(line.row, line.metric) == model),
                    text.sheet_text(value.signature),
                ]
            )  # fmt: skip
    return file.getvalue()


def as_markdown(lines: "Sequence[Line]", models: Sequence[str]) -> str:
    """A pipe table; the best model in bold where its lead is larger than its uncertainty. Signatures follow as a list."""
    header = ["task", "metric", *(_markdown(model) for model in models), "n", "failed", "chance"]
    body = []
    for line in lines:
        name = "&emsp;" * line.depth + _markdown(line.row.name)
        found = line.estimates(models)
        cells = [_cell(value, found) for value in found]
        winner = best(line.row, line.metric)
        cells = [f"**{c}**" if model == winner else c for model, c in zip(models, cells, strict=True)]
        body.append([name, _markdown(line.metric), *cells, *_counts(found)])
    rule = ["---", "---", *("---:" for _ in range(len(models) + 3))]
    table = "\n".join("| " + " | ".join(row) + " |" for row in [header, rule, *body])
    signatures = "\n".join(f"- {_markdown(signature)}" for signature in _signatures(lines, models))
    return f"{table}\n" + (f"\n{signatures}\n" if signatures else "")


def as_latex(lines: "Sequence[Line]", models: Sequence[str]) -> str:
    """A booktabs tabular; signatures stand above it as comments."""
    header = ["task", "metric", *(_latex(model) for model in models), "$n$", "failed", "chance"]
    body = []
    for line in lines:
        name = r"\quad " * line.depth + _latex(line.row.name)
        found = line.estimates(models)
        cells = [_cell(value, found) for value in found]
        winner = best(line.row, line.metric)
        cells = [rf"\textbf{{{c}}}" if model == winner else c for model, c in zip(models, cells, strict=True)]
        cells = [f"{{{c}}}" if c.startswith("[") else c for c in cells]
        body.append([name, _latex(line.metric), *cells, *_counts(found)])
    comments = [f"% {signature}" for signature in _signatures(lines, models)]
    rule = [r"\midrule"] if body else []
    table = [" & ".join(row).replace("–", "--") + r" \\" for row in [header, *body]]
    return "\n".join(
        [
            "% needs \\usepackage{booktabs}",
            *comments,
            rf"\begin{{tabular}}{{ll{'r' * (len(models) + 3)}}}",
            r"\toprule",
            table[0],
            *rule,
            *table[1:],
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def _cell(value: Estimate | None, row: Sequence[Estimate | None]) -> str:
    if value is None:
        return "–"
    places = text.decimals(e for e in row if e)
    return f"{text.number(value.value, places)} {text.interval(value, places)}".rstrip()


def _counts(row: Sequence[Estimate | None]) -> list[str]:
    """n, failed and chance; models that differ are told apart by slashes."""
    found = [e for e in row if e]
    columns = [
        [str(e.n) for e in found],
        [str(e.n_failed) for e in found],
        ["–" if e.chance is None else text.number(e.chance, 3) for e in found],
    ]
    return [column[0] if len(set(column)) == 1 else " / ".join(column) for column in columns]


def _signatures(lines: "Sequence[Line]", models: Sequence[str]) -> list[str]:
    return [text.one_line(e.signature) for line in lines for e in line.estimates(models) if e and e.signature]


def _markdown(value: str) -> str:
    return re.sub(r"([\\`*_\[\]<>|~&])", r"\\\1", text.one_line(value))


_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
}  # fmt: skip


def _latex(value: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text.one_line(value))
