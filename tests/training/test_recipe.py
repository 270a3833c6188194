"""Recipes: what is wrong is said in one line that names the mend."""

import pytest

from lydite.errors import UserError
from lydite.training.recipe import config_of, make_recipe, read_recipe

GOOD = """
[model]
family = "gpt2"
[data]
text = ["text.txt"]
tokenizer = "characters"
[[objective]]
name = "causal"
context = 16
[training]
max_steps = 10
batch_size = 4
"""


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(GOOD)
    return path


def test_paths_of_the_file_are_seen_from_the_file(path):
    assert read_recipe(path).data.text == [str(path.parent / "text.txt")]
    assert read_recipe(path, ["data.text=here.txt"]).data.text == ["here.txt"]


def test_paths_begin_with_a_variable(path, monkeypatch):
    path.write_text(GOOD.replace('"text.txt"', '"$SOME_DATA/a/text.txt", "$SOME_DATA"'))
    monkeypatch.setenv("SOME_DATA", "/where")
    assert read_recipe(path).data.text == ["/where/a/text.txt", "/where"]
    assert read_recipe(path, ["data.text=$SOME_DATA/b.txt"]).data.text == ["/where/b.txt"]
    monkeypatch.delenv("SOME_DATA")
    with pytest.raises(UserError, match="the variable SOME_DATA is not set"):
        read_recipe(path)
    assert read_recipe(path, ["data.text=c.txt"]).data.text == ["c.txt"]


def test_set_means_what_the_line_in_the_file_would(path):
    overrides = ["training.max_steps=7", "objective.0.context=8", "model.config.n_layer=2", "training.schedule=wsd"]
    recipe = read_recipe(path, [*overrides, "training.decay_steps=3", "log.trackers=tensorboard"])
    assert (recipe.training.max_steps, recipe.training.schedule) == (7, "wsd")
    assert recipe.objective[0]["context"] == 8
    assert recipe.model.config == {"n_layer": 2}
    assert recipe.log.trackers == ["tensorboard"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.learning_rat=1", r"unknown key training.learning_rat; did you mean learning_rate\?"),
        ("modell.family=gpt2", r"unknown key modell; did you mean model\?"),
        ("training.max_steps=many", r"training.max_steps: Expected `int`, got `str`"),
        ("training.max_steps", "is not KEY=VALUE"),
        ("max_steps=3", "names no table; write training.max_steps"),
        ("objective.1.context=8", "none of the 1 objectives"),
        ("training.schedule=cosin", r"Invalid enum value 'cosin'"),
        ("training.max_steps=0", "max_steps must be 1 or more"),
        ("training.learning_rate=-1", "learning_rate is -1"),
        ("training.batch_tokens=100", "batch_size or batch_tokens, one of them"),
        ("training.average=last", "needs save.keep of as many"),
        ("model.init=folder", "family or init, one of them"),
        ("data.corpus=folder", "one of corpus, text, and source"),
        ("training.gradient_accumulation_steps=5", "fewer rows than gradient_accumulation_steps"),
        ("training.warmup_steps=11", "warmup_steps is more than the 10"),
    ],
)
def test_mistakes(path, override, message):
    with pytest.raises(UserError, match=message) as caught:
        read_recipe(path, [override])
    assert "\n" not in str(caught.value)


def test_files_that_are_no_recipes(tmp_path):
    with pytest.raises(UserError, match="there is no recipe"):
        read_recipe(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("a = ")
    with pytest.raises(UserError, match="is not TOML"):
        read_recipe(tmp_path / "bad.toml")
    (tmp_path / "latin.toml").write_bytes(b"# \xe9\n")
    with pytest.raises(UserError, match="is not TOML"):
        read_recipe(tmp_path / "latin.toml")
    with pytest.raises(UserError, match="missing required field `model`"):
        make_recipe({"data": {}})


def test_what_may_change_between_two_commands(path):
    plain = config_of(read_recipe(path))
    for free in ("save.every=7", "log.every=5", "eval.every=2", "training.gradient_accumulation_steps=2"):
        assert config_of(read_recipe(path, [free])) == plain
    for fixed in ("training.seed=1", "training.max_steps=11", "objective.0.context=8"):
        assert config_of(read_recipe(path, [fixed])) != plain
    assert config_of(read_recipe(path, ["eval.patience=2", "eval.every=1"])) != plain


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.length_window=1", "training.length_window of 1 rows is less than one step's"),
        ("eval.patience=2", "eval.patience needs eval.every"),
    ],
)
def test_settings_that_would_do_nothing(path, override, message):
    with pytest.raises(UserError, match=message):
        read_recipe(path, [override])
