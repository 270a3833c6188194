"""The page in headless Chromium: hostile texts stay inert, both widths fit, filters work, and it reads without scripts.

One browser looks at all of it (probe.html) and prints what it found; the tests judge that.
"""

import html
import json
import re
import shutil
import subprocess
import tempfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lydite.report import write_report
from tests.report.test_page import hostile_out, plain_out

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--window-size=1400,1000", "--virtual-time-budget=60000",
]  # fmt: skip


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def found():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind, make in (("plain", plain_out), ("hostile", hostile_out)):
            (folder / kind).mkdir()
            shutil.copy(write_report(make(folder / kind)), folder / f"{kind}.html")
        shutil.copy(Path(__file__).with_name("probe.html"), folder)
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=name))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/probe.html"
        command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={folder / 'profile'}", "--dump-dom", url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
        server.shutdown()
    match = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.S)
    assert match, done.stdout[-500:] + done.stderr[-2000:]
    return json.loads(html.unescape(match.group(1)))


@pytest.mark.parametrize("name", ["plain", "hostile", "hostile-open"])
@pytest.mark.parametrize("width", [390, 1280])
def test_fits_the_width(found, name, width):
    seen = found[f"{name}-{width}"]
    assert seen["inner"] == width
    assert seen["scroll"] <= width


@pytest.mark.parametrize("name", ["hostile-390", "hostile-1280", "hostile-open-390", "hostile-open-1280"])
def test_hostile_texts_are_inert(found, name):
    seen = found[name]
    assert seen["title"].endswith("· Lydite")
    assert seen["strange"] == 0
    assert seen["scripts"] == 2
    assert seen["text"] > 1000
    assert seen["cards"] > 0


def test_all_samples_can_be_paged(found):
    filters = found["filters"]
    assert filters["all"]["tally"] == "23 of 23 samples"
    assert filters["all"]["cards"] == 20
    assert filters["second"]["cards"] == 3


def test_filters(found):
    filters = found["filters"]
    assert filters["wrong"]["tally"] == "6 of 23 samples"  # 4 colours (ties go to the first choice) and 2 sums
    assert any("wrong" in state for state in filters["wrong"]["states"])
    assert filters["books"]["of"] == ["books"] * 6
    assert filters["search"]["ids"] == ["g3"]
    assert filters["nothing"]["cards"] == 0
    assert filters["model"]["sections"] == 20
    assert filters["link"] == ["sums"]


def test_surest_mistakes_come_first(found):
    # -1 - i % 3 against -2: the widest wrong margin is at i % 3 == 2
    assert int(found["filters"]["sure"][0].removeprefix("c")) % 3 == 2


@pytest.mark.parametrize("name", ["plain", "hostile"])
def test_paper_has_all_numbers_and_nothing_to_click(found, name):
    seen = found[f"paper-{name}"]
    assert seen["scroll"] <= 703
    assert seen["clipped"] == 0
    assert seen["controls"] == 0
    assert seen["before"] == seen["after"] > seen["shut"] == 0
    assert seen["signatures"] > 0
    assert seen["dark"].startswith("screen")
    assert seen["ground"] == "rgb(255, 255, 255)"


def test_without_scripts_samples_are_there(found):
    still = found["still"]
    assert still["cards"] == 12  # 4 of each task
    assert still["browser"] == 0
    assert still["scroll"] <= 390
