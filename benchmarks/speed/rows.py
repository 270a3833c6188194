"""The rows of the benchmark: which requests, of which model, and how many.

A row's requests are built by lm-evaluation-harness itself and given to both systems as they are.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["choice", "last_word", "rolling", "generate", "decode", "growth"]
DTYPES = ("float32", "bfloat16")
PEER_BATCHES = (1, 8, 32)


@dataclass(frozen=True)
class Row:
    """One line of the tables."""

    name: str
    title: str
    kind: Kind
    model: str
    """Folder below the peer's home."""
    task: str
    """lm-evaluation-harness's name of the task."""
    docs: int | None
    """Documents of the whole row; None: all of the task."""
    tune_docs: int | None
    """Documents on which the peer's best batch size is looked for; None: all of the row."""
    aim: float
    """How many times faster than the peer Lydite should be in float32."""
    batch: int | None = None
    """Prompts that are handed over at one time (decode), documents (growth)."""


_DECODE = "{} prompts at a time, 128 new tokens each"
ROWS = (
    Row("letters", "5 shots, letters (CMMLU agronomy)", "choice", "gemma270", "loc_cmmlu", None, 16, 30),
    Row(
        "full_text", "5 shots, full-text choices (CMMLU agronomy)", "choice", "gemma270", "loc_cmmlu_text", None, 12, 40
    ),
    Row("pairs", "minimal pairs, no shots (BLiMP)", "choice", "gemma270", "loc_blimp", None, 96, 8),
    Row("ten_shots", "10 random shots a question (ARC-Challenge)", "choice", "smol", "loc_arcc", 100, 10, 8),
    Row("last_word", "last word, nothing shared (LAMBADA)", "last_word", "smol", "loc_lambada", 300, 64, 2),
    Row("rolling", "rolling perplexity, 10 documents (WikiText)", "rolling", "smol", "loc_wikitext", 10, None, 2),
    Row("gsm8k", "5 random shots, 128 new tokens (GSM8K)", "generate", "smol", "loc_gsm8k", 24, 8, 3),
    Row(
        "rolling_wide",
        "rolling perplexity, 12 documents (WikiText)",
        "rolling",
        "gemma270",
        "loc_wikitext",
        12,
        3,
        1,
    ),
    *(
        Row(
            f"decode_{n}",
            _DECODE.format(n),
            "decode",
            "smol",
            "loc_wikitext",
            max(n, 4 if n == 1 else 16),
            None,
            aim,
            batch=n,
        )
        for n, aim in ((1, 1.7), (8, 1.7), (32, 4.0))
    ),
    *(
        Row(f"growth_{n}", f"{n} document{'s' * (n > 1)}", "growth", "smol", "loc_wikitext", n, None, 0, batch=n)
        for n in (1, 10, 100)
    ),
)
NEW_TOKENS = 128
PROMPT_WORDS = 48
"""Words of a document that are the prompt of a decoding row."""


def rows_named(names: str) -> list[Row]:
    """Rows by name or by the beginning of a name, with commas between; empty: all."""
    if not names:
        return list(ROWS)
    wanted = [name.strip() for name in names.split(",")]
    for name in wanted:
        if not any(row.name == name or row.name.startswith(f"{name}_") for row in ROWS):
            raise SystemExit(f"no row {name!r}; there are {', '.join(row.name for row in ROWS)}")
    return [row for row in ROWS if any(row.name == name or row.name.startswith(f"{name}_") for name in wanted)]
