"""tokenizers.html: a comparison of tokenizers as one page that needs no network and no script.

Texts and names reach the page through the template alone, which escapes them.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lydite
from lydite.data.tokenizers.compare import Comparison, TextCounts
from lydite.report import text
from lydite.report.page import environment
from lydite.report.plots import MARKERS, WIDTH
from lydite.report.svg import MUTED, NUM_COLORS, RULE, drawing, model_color
from lydite.runs import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HERE = Path(__file__).parent
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
Value = Callable[[TextCounts], float]


def write_page(found: Comparison, path: Path) -> None:
    """Makes the page."""
    write_bytes(path, render(found).encode("utf-8", "replace"))


def render(found: Comparison) -> str:
    """The page as text."""
    names = [text.one_line(row.name) for row in found.rows]
    by_words = [place for place, count in enumerate(found.rows[0].counts) if count.unit == "word"]
    by_characters = [place for place in range(len(found.rows[0].counts)) if place not in by_words]
    panels = [
        _panel(
            found, "Bytes a token", "longer is better", lambda c: c.bytes_per_token, range(len(found.rows[0].counts))
        ),
        _panel(found, "Tokens a word", "shorter is better", lambda c: c.fertility, by_words),
        _panel(found, "Tokens a character", "shorter is better", lambda c: c.fertility, by_characters),
    ]
    context = {
        "version": lydite.__version__,
        "style": (HERE / "page.css").read_text("utf-8"),
        "policy": POLICY,
        "models": [
            {"name": name, "color": place % NUM_COLORS, "marker": MARKERS[place % len(MARKERS)]}
            for place, name in enumerate(names)
        ],
        "num_texts": len(found.rows[0].counts),
        "panels": [panel for panel in panels if panel],
        "texts": [_text_rows(found, place) for place in range(len(found.rows[0].counts))],
        "rows": [_facts(row) for row in found.rows],
        "broken": [
            {
                "name": text.one_line(row.name),
                "text": text.one_line(c.text),
                "before": text.clean(c.broken[0]),
                "after": text.clean(c.broken[1]),
            }
            for row in found.rows
            for c in row.counts
            if c.broken
        ],
    }
    return environment().get_template("tokenizers.html").render(context)


def _facts(row: Any) -> dict[str, str]:
    return {
        "name": text.one_line(row.name),
        "kind": row.kind,
        "vocab_size": f"{row.vocab_size:,}",
        "used": f"{row.num_used:,} ({100 * row.num_used / row.vocab_size:.1f}%)",
        "speed": f"{row.bytes_per_second / 1e6:.2f} MB/s",
    }


def _text_rows(found: Comparison, place: int) -> dict[str, Any]:
    first = found.rows[0].counts[place]
    return {
        "name": text.one_line(first.text),
        "unit": first.unit,
        "size": f"{first.num_texts:,} texts, {first.num_characters:,} characters, {first.num_bytes:,} bytes",
        "rows": [
            {
                "tokens": f"{count.num_tokens:,}",
                "bytes": f"{count.bytes_per_token:.3f}",
                "characters": f"{count.characters_per_token:.3f}",
                "fertility": f"{count.fertility:.3f}",
                "unknown": _share(count.num_unknown, count.num_tokens),
                "exact": _share(count.num_exact, count.num_texts),
            }
            for count in (row.counts[place] for row in found.rows)
        ],
    }


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f}% ({part:,})" if 0 < part < whole else ("none" if part == 0 else "all")


def _panel(found: Comparison, title: str, note: str, value: Value, places: Sequence[int]) -> dict[str, str] | None:
    """Bars, a group a text and a bar a tokenizer."""
    if not places:
        return None
    lane, gap, top = 17.0, 26.0, 4.0
    height = len(places) * (len(found.rows) * lane + gap)
    values = [[value(row.counts[place]) for row in found.rows] for place in places]

    def draw(figure: "Figure") -> None:
        axes = figure.add_axes((14 / WIDTH, 22 / (height + 30), (WIDTH - 64) / WIDTH, height / (height + 30)))
        axes.patch.set_visible(False)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.tick_params(length=3, width=1, color=RULE, pad=3)
        axes.set_yticks([])
        axes.set_ylim(height, 0)
        axes.set_xlim(0, max(map(max, values)))
        across = axes.get_yaxis_transform()
        for group, place in enumerate(places):
            y = group * (len(found.rows) * lane + gap)
            label = text.cut_middle(text.one_line(found.rows[0].counts[place].text), 46)
            axes.text(0, y + top + 9, label, transform=across, va="center_baseline", weight="bold")
            for number, bar in enumerate(values[group]):
                middle = y + gap - 4 + (number + 0.5) * lane
                axes.barh(middle, bar, height=lane - 5, color=model_color(number))
                axes.text(bar, middle, f" {bar:.2f}", va="center_baseline", color=MUTED, fontsize=10)

    summary = "; ".join(
        f"{text.one_line(found.rows[0].counts[place].text)}: "
        + ", ".join(f"{text.one_line(row.name)} {value(row.counts[place]):.2f}" for row in found.rows)
        for place in places
    )
    name = title.lower().replace(" ", "-")
    return {"title": title, "note": note, "svg": drawing(name, f"{title}. {summary}", WIDTH, height + 30, draw)}
