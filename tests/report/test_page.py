"""The page as a file: complete, well formed, inert, and true to the numbers; no browser is needed here."""

import base64
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from lydite.errors import RunError
from lydite.report import write_report
from lydite.report.page import heat
from tests.report.records import choice, document, estimate, generation, group, run, write_out

VOID = {"meta", "link", "input", "br", "hr", "img", "col", "wbr"}
HOSTILE = (
    "</script><script>document.title='PWNED'</script><img src=x onerror=\"document.title='PWNED'\">"
    "'\"`{{ 7*7 }}{% raw %}<!--<svg onload=alert(1)>\u202egnp\u2066\x00\x07\x1b[31m\ufffe]]>&lt;&amp; 😀👩‍👩‍👧 石头 $x^2$ \\u003c"
)
ATTRIBUTE = (
    "\"><style>body{display:none}</style><iframe src='https://example.org'></iframe><a href='javascript:alert(1)' x=\""
)


class Reader(HTMLParser):
    """Elements, ids, visible text, and whether every tag is closed in order."""

    def __init__(self, source):
        super().__init__(convert_charrefs=True)
        self.ids, self.stack, self.elements, self.text, self.scripts = [], [], [], [], []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.elements.append((tag, attributes))
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.stack.pop()

    def handle_endtag(self, tag):
        assert self.stack, tag
        assert self.stack.pop() == tag, f"{tag} closed out of order"

    def handle_data(self, data):
        if self.stack and self.stack[-1] == "script":
            self.scripts.append(data)
        elif not self.stack or self.stack[-1] != "style":
            self.text.append(data)


def page(out):
    source = write_report(out).read_text(encoding="utf-8")
    return source, Reader(source)


def plain_out(tmp_path):
    colours = [
        choice(f"c{i}", totals=(-1.0 - i % 3, -2.0), metadata={"hue": "warm" if i % 2 else "cool"}) for i in range(12)
    ]
    sums = [generation(f"g{i}", f"so it is {i}", right=i % 2 == 0, answer=str(i)) for i in range(5)]
    books = [document(f"d{i}", "once upon a time " * 3, 0.5 + i / 10) for i in range(6)]
    runs = []
    for name, value in (("small", 0.6), ("large", 0.9)):
        runs += [
            (run("colours", name, (estimate(value, chance=0.5),), n_samples=12), colours),
            (run("sums", name, (estimate(value - 0.2, metric="exact_match"),), view="generate", n_samples=5), sums),
            (
                run("books", name, (estimate(value, metric="bits_per_byte"),), lower=("bits_per_byte",), n_samples=6),
                books,
            ),
        ]
    groups = [
        group("all", ("colours", "sums"), estimate(value, metric="average"), name)
        for name, value in (("small", 0.5), ("large", 0.8))
    ]
    return write_out(tmp_path, runs, groups)


def hostile_out(tmp_path):
    evil = HOSTILE + ATTRIBUTE
    records = [
        choice(
            "a" + evil,
            question=evil,
            choices=(evil, evil + "2"),
            metadata={evil: evil, "k": evil},
            shots=("s" + evil + "\n") * 9,
        ),
        choice("b", question=evil, metadata={evil: "other", "k": "v"}, shots=("s" + evil + "\n") * 9),
        choice("c", failure=evil),
        generation("d", evil * 2, right=False, answer=evil, prompt=evil),
        document("e", evil),
    ]
    one = run("colours", "m" + ATTRIBUTE + HOSTILE, (estimate(0.7, metric="acc"), estimate(0.6, metric=evil)))
    info = run("t" + evil, "m" + ATTRIBUTE + HOSTILE)
    return write_out(
        tmp_path, [(one, records), (info, [choice("z")])], [group(evil, ("colours",), estimate(0.5), one.model.name)]
    )


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Source and reader of the two pages that most tests look at."""
    found = {"plain": plain_out, "hostile": hostile_out}
    return {name: page(make(tmp_path_factory.mktemp(name))) for name, make in found.items()}


@pytest.mark.parametrize("name", ["plain", "hostile"])
def test_well_formed_with_unique_ids(pages, name):
    _, reader = pages[name]
    assert reader.stack == []
    assert len(reader.ids) == len(set(reader.ids))
    for tag, attributes in reader.elements:
        for key in ("href", "xlink:href"):
            if attributes.get(key, "").startswith("#"):
                assert attributes[key][1:] in reader.ids, (tag, attributes[key])
        for reference in re.findall(r"url\(#([^)]*)\)", str(attributes)):
            assert reference in reader.ids


@pytest.mark.parametrize("name", ["plain", "hostile"])
def test_asks_for_nothing_and_runs_nothing_foreign(pages, name):
    source, reader = pages[name]
    tags = [tag for tag, _ in reader.elements]
    assert not {"iframe", "img", "object", "embed", "link", "base", "form", "video", "audio", "foreignobject"} & set(
        tags
    )
    assert tags.count("script") == 2
    assert tags.count("style") == 1
    for tag, attributes in reader.elements:
        assert not [key for key in attributes if key.startswith("on")], (tag, attributes)
        assert "src" not in attributes
        assert attributes.get("href", "#").startswith("#"), attributes
    assert "@import" not in source
    assert "url(" not in re.search(r"<style>(.*?)</style>", source, re.S).group(1)


def test_policy_admits_its_script_only(pages):
    source, reader = pages["hostile"]
    policy = next(a["content"] for tag, a in reader.elements if tag == "meta" and a.get("http-equiv"))
    script = re.search(r"<script>(.*?)</script>", source, re.S).group(1)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; ")
    assert f"script-src 'sha256-{digest}';" in policy
    assert "unsafe" not in policy.replace("style-src 'unsafe-inline'", "")
    assert source.index("Content-Security-Policy") < source.index("<style>")
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|setTimeout\(\s*['\"`]", script
    )


def test_foreign_text_is_shown_not_obeyed(pages):
    source, reader = pages["hostile"]
    for sign in "\u202e\u2066\x00\x07\x1b\ufffe":
        assert sign not in source
    assert "PWNED" in "".join(reader.text)
    assert "{{ 7*7 }}" in "".join(reader.text)
    data = json.loads(reader.scripts[0])
    assert not re.search(r"[<>&\u2028\u2029]", reader.scripts[0])
    said = json.dumps(data, ensure_ascii=False)
    assert "</script><script>document.title" in said
    assert "⟦RLO⟧gnp" in said
    assert "👩‍👩‍👧 石头" in said


def test_numbers_and_samples_stand_without_javascript(pages):
    _, reader = pages["plain"]
    said = re.sub(r"\s+", " ", "".join(reader.text))
    for expected in (
        "0.900",
        "[0.860, 0.940]",
        "0.600",
        "so it is 2",
        "The sky is",
        "once upon a time",
        "CC0",
        "a book",
        "75%",
        "python",
    ):
        assert expected in said, expected
    assert "acc 0.9 | n 100" in said
    assert ("div", {"id": "browser", "hidden": None}) in reader.elements


def test_the_best_and_what_is_at_chance_are_marked(pages):
    source, _ = pages["plain"]
    cells = re.findall(r'<td class="value ([^"]*)"[^>]*>\s*<span class="v">([\d.]+)</span>', source)
    assert {value for classes, value in cells if "best" in classes} == {"0.800", "0.900", "0.700", "0.600"}
    assert [classes for classes, value in cells if value == "0.500"] == [""]  # a group without chance
    assert source.count("(best)") == 4


def test_summary_says_what_the_numbers_carry(pages):
    source, _ = pages["plain"]
    said = re.search(r'<p class="summary">(.*?)</p>', source, re.S).group(1)
    assert "large leads on 2 of 3 tasks." in said  # not on books, where less is better
    assert "3 leads are larger than the uncertainty: 2 by large and 1 by small." in said


def test_no_samples_no_estimates(tmp_path):
    begun = run(estimates=(), status="running", n_samples=50)
    source, reader = page(write_out(tmp_path, [(begun, [])]))
    assert reader.stack == []
    assert "no run here has been finished" in source
    assert "0 of 50 samples" in source


def test_nothing_to_report(tmp_path):
    with pytest.raises(RunError, match="no runs"):
        write_report(tmp_path)


def test_one_leaf_folder(tmp_path):
    out = plain_out(tmp_path)
    path = write_report(out / "small" / "colours")
    assert path == out / "small" / "colours" / "report.html"
    assert "small" in path.read_text(encoding="utf-8")


def test_the_same_folder_gives_the_same_page(tmp_path):
    out = plain_out(tmp_path)
    first = write_report(out).read_bytes()
    command = [
        sys.executable,
        "-c",
        f"from pathlib import Path; from lydite.report import write_report; write_report(Path({str(out)!r}))",
    ]
    subprocess.run(command, check=True, env={"PYTHONHASHSEED": "7", "PATH": ""})
    assert (out / "report.html").read_bytes() == first


def test_torch_is_not_imported(tmp_path):
    out = plain_out(tmp_path)
    code = (
        "import sys; from lydite.cli.app import main\n"
        f"try:\n    main(['report', {str(out)!r}])\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "assert not {'torch', 'transformers', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(out / "report.html")


def test_large_runs_are_sampled_and_the_page_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("lydite.report.page.MAX_KEPT", 30)
    out = write_out(tmp_path, [(run(), [choice(f"i{i}") for i in range(100)])])
    _, reader = page(out)
    task = json.loads(reader.scripts[0])["tasks"][0]
    assert len(task["cards"]) == 30
    assert task["total"] == 100


@pytest.mark.parametrize(
    ("token", "level"),
    [
        (["x", None], 0),
        (["x", 0.0], 0),
        (["x", -0.5], 0),
        (["x", -0.8], 1),
        (["long", -4.0], 5),
        (["x", -7.3], 9),
        (["石头", -8.0, 5], 5),
        (["", -8.0, 2], 9),
    ],
)
def test_heat(token, level):
    assert heat(token) == level
