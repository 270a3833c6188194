"""The recipes of the repository: each is read, fits its family, and is named as its own comment says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from lydite.data.prepare.recipe import read_recipe as read_sources
from lydite.data.prepare.run import prepare
from lydite.models.own import register
from lydite.training.network import head_class, make_config
from lydite.training.objectives import OBJECTIVES
from lydite.training.recipe import kind_of, read_recipe
from tests.families import bytelevel

RECIPES = Path(__file__).parents[2] / "recipes"
TRAINED = sorted(path for path in RECIPES.glob("*.toml") if "[model]" in path.read_text(encoding="utf-8"))
COUNTED = ("ngram",)
"""Families that have no network."""


@pytest.mark.parametrize("path", TRAINED, ids=lambda path: path.stem)
def test_fits_its_family(path, monkeypatch):
    monkeypatch.setenv("LYDITE_DATA", "/data")
    recipe = read_recipe(path)
    assert f"lydite pretrain recipes/{path.name}" in path.read_text(encoding="utf-8")
    if recipe.model.family in COUNTED:
        return
    register()
    make_config(recipe.model, bytelevel())
    names = [kind_of(table) for table in recipe.objective]
    head_class(names)
    for table in recipe.objective:
        settings = {key: value for key, value in table.items() if key not in ("name", "weight", "corpus")}
        msgspec.convert(settings, OBJECTIVES[str(table["name"])].settings)
    # Twenty steps try all of it.
    read_recipe(path, ["training.max_steps=20", "training.warmup_steps=5"])


@pytest.mark.parametrize("name", ["english", "chinese"])
def test_corpora_name_sources_of_the_data_folder(name, monkeypatch):
    monkeypatch.setenv("LYDITE_DATA", "/data")
    found = read_sources(RECIPES / f"{name}_corpus.toml", [], [], "bytes")
    assert all(source.path.startswith("/data/") for source in found.sources)
    said = (RECIPES / f"{name}_corpus.toml").read_text(encoding="utf-8")
    families = re.search(r"for family in ([\w ]+);", said).group(1).split()
    read = {f"../runs/data/{name}-{family}" for family in families}
    used = {
        line.split('"')[1]
        for path in TRAINED
        for line in path.read_text().splitlines()
        if f"data/{name}-" in line and line.startswith("corpus")
    }
    assert used == read


def test_held_out_passages_of_a_corpus(tmp_path):
    (tmp_path / "text.txt").write_text(
        "".join(f"磨坊 {i}. A mill burns at {i}, and again at {i + 1}.\n" * 1 for i in range(60))
    )
    bytelevel().save_pretrained(tmp_path / "tokenizer")
    sources = read_sources(
        None,
        [str(tmp_path / "text.txt")],
        ["documents=line", "validation=0.3", "near_duplicates=false"],
        str(tmp_path / "tokenizer"),
    )
    prepare(sources, tmp_path / "corpus", workers=1)
    command = [sys.executable, "-m", "lydite", "evaluate", "uniform", "--tasks", str(RECIPES / "held_out.py")]
    env = os.environ | {"LYDITE_CORPUS": str(tmp_path / "corpus")}
    done = subprocess.run([*command, "--out", str(tmp_path / "out")], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert "bits_per_byte" in done.stdout
    del env["LYDITE_CORPUS"]
    done = subprocess.run([*command, "--out", str(tmp_path / "out2")], capture_output=True, text=True, env=env)
    assert done.returncode == 1
    assert "set LYDITE_CORPUS to a folder that `lydite prepare` made" in done.stderr
