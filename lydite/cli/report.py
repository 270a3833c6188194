"""`lydite report OUT`: make the page of finished runs again, from their folders alone."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    out: Annotated[Path, typer.Argument(help="The --out folder of `lydite evaluate`, or one run inside it.")],
) -> None:
    """Makes OUT/report.html from the runs in OUT and prints its path. Needs neither the model nor the data."""
    from lydite.report import write_report

    print(write_report(out))
