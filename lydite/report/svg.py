"""Matplotlib's SVG, made fit to stand inside a page.

The text stays text in the page's own font, colours become the page's variables so that light and dark mode share one
drawing, ids get a prefix so that many drawings share one document, and what a browser does not need goes.
"""

import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Callable
from io import StringIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUM_COLORS = 8
"""Model colours that the style sheet defines; further models differ by their marker."""
INK, MUTED, RULE, GOLD, PAPER = "#010101", "#020202", "#030303", "#040404", "#050505"
_NAMES = {INK: "ink", MUTED: "muted", RULE: "rule", GOLD: "gold", PAPER: "paper"}
_SVG = "{http://www.w3.org/2000/svg}"
_XLINK = "{http://www.w3.org/1999/xlink}href"
_SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "lydite",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 11,
    "text.parse_math": False,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 11,
    "axes.linewidth": 1,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 10.5,
    "text.color": INK,
    "axes.unicode_minus": True,
}


def model_color(position: int) -> str:
    """Placeholder for the colour of the model at this position."""
    return f"#0a0a{position % NUM_COLORS:02x}"


def drawing(name: str, title: str, width: float, height: float, draw: "Callable[[Figure], None]") -> str:
    """An <svg> element of `width` x `height` CSS pixels that `draw` fills; `title` says to a screen reader what it shows."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*[Gg]lyph.*")
        figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        figure.patch.set_visible(False)
        draw(figure)
        file = StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _adapt(file.getvalue(), name, title)


def _adapt(source: str, name: str, title: str) -> str:
    root = ET.fromstring(source)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{_SVG}metadata", f"{_SVG}style"):
                parent.remove(child)
    for element in root.iter():
        _rename(element, name)
        if "style" in element.attrib:
            element.set("style", _style(element.get("style", "")))
        element.tag = element.tag.removeprefix(_SVG)
        element.tail = None
        if element.tag not in ("text", "tspan", "title"):
            element.text = None
    root.attrib = {"viewBox": root.get("viewBox", ""), "role": "img", "aria-label": title, "class": "drawing"}
    return ET.tostring(root, encoding="unicode")


def _rename(element: ET.Element, name: str) -> None:
    """Prefixes the ids that something refers to, and drops the others."""
    for key, value in list(element.attrib.items()):
        if key == "id":
            if element.tag in (f"{_SVG}g", f"{_SVG}text"):
                del element.attrib[key]
            else:
                element.set(key, f"{name}-{value}")
        elif key == _XLINK:
            del element.attrib[key]
            element.set("href", f"#{name}-{value.removeprefix('#')}")
        elif "url(#" in value:
            element.set(key, value.replace("url(#", f"url(#{name}-"))


def _style(style: str) -> str:
    style = re.sub(r"font: ([^;]*?)([\d.]+)px[^;]*", _font, style)
    return re.sub(r"#0[0-9a-f]{5}\b", lambda match: _color(match.group()), style)


def _font(match: "re.Match[str]") -> str:
    bold = "; font-weight: 600" if re.search(r"bold|[6-9]00", match.group(1)) else ""
    return f"font-size: {match.group(2)}px{bold}"


def _color(placeholder: str) -> str:
    if placeholder.startswith("#0a0a"):
        return f"var(--model-{int(placeholder[5:], 16)})"
    return f"var(--{_NAMES[placeholder]})" if placeholder in _NAMES else placeholder
