"""Tables and pages from finished runs.

`tables` draws the screen's table (and its markdown, LaTeX and CSV forms); `write_report` makes OUT/report.html. Both
start from records alone: no model, no torch.
"""

from pathlib import Path

from lydite.report.table import tables

__all__ = ["tables", "write_report"]


def write_report(out: Path) -> Path:
    """Makes OUT/report.html from the run folders under `out` and returns its path; RunError if there are none."""
    from lydite.report.page import write_report as write

    return write(out)
