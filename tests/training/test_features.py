"""What a recipe can switch on beside the plain loop: carried streams, compilation, checkpointed activations, TensorBoard."""

import sys
from types import ModuleType

import pytest
from torch import nn

from lydite.training.log import EvalLine, ScoreLine, StepLine, read_log
from lydite.training.start import pretrain
from lydite.training.trackers import Trackers
from tests.training.test_loop import NO_DROPOUT, run_until
from tests.training.tinyrun import curve, tiny_recipe, write_text

LSTM = {
    "model": {
        "family": "lydite_lstm",
        "config": {"embedding_size": 16, "hidden_size": 24, "num_hidden_layers": 2},
    },
    "objective": [
        {"name": "causal", "layout": "streams", "streams": 8, "context": 16, "end_of_document": False},
    ],
}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text") / "text.txt", size=6000)


def recipe_for(text, **training):
    return tiny_recipe(text, model=NO_DROPOUT, training=training)


@pytest.mark.parametrize("parts", [1, 2])
def test_carried_streams_resume_bit_for_bit(text, tmp_path, parts):
    """An LSTM whose state goes from step to step, over the end of an epoch, killed twice."""
    recipe = tiny_recipe(text, **LSTM, training={"gradient_accumulation_steps": parts, "max_steps": 50})
    pretrain(recipe, tmp_path / "whole")
    for step in (20, 44):
        run_until(recipe, tmp_path / "killed", step)
    pretrain(recipe, tmp_path / "killed")
    assert curve(tmp_path / "killed") == curve(tmp_path / "whole")
    [held] = [line for line in read_log(tmp_path / "whole") if isinstance(line, EvalLine)]
    assert held.bits_per_byte < 4.5


def test_compiled_blocks_make_the_same_curve(text, tmp_path, monkeypatch):
    compiled = []
    plain = nn.Module.compile

    def through_the_graph(self):
        compiled.append(type(self).__name__)
        plain(self, backend="aot_eager")  # traced and differentiated as a graph, without a C++ compiler

    monkeypatch.setattr(nn.Module, "compile", through_the_graph)
    pretrain(recipe_for(text, max_steps=4), tmp_path / "plain")
    pretrain(recipe_for(text, max_steps=4, compile=True), tmp_path / "compiled")
    assert compiled == ["GPT2Block", "GPT2Block"]
    for mine, other in zip(curve(tmp_path / "compiled"), curve(tmp_path / "plain"), strict=True):
        assert mine == pytest.approx(other, rel=1e-4)


def test_checkpointed_activations_make_the_same_curve(text, tmp_path):
    """With dropout: what is computed again drops the same numbers."""
    curves = []
    for on in (False, True):
        recipe = tiny_recipe(text, training={"gradient_checkpointing": on, "max_steps": 5})
        pretrain(recipe, tmp_path / str(on))
        curves.append(curve(tmp_path / str(on)))
    for mine, other in zip(*curves, strict=True):
        assert mine == pytest.approx(other, rel=1e-5)


def test_tensorboard_hears_what_the_log_holds(text, tmp_path, monkeypatch):
    """Through a stand-in for its writer, with the names that the board shows."""
    heard, closed = [], []

    class SummaryWriter:
        def __init__(self, folder):
            self.folder = folder

        def add_scalar(self, name, value, step):
            heard.append((name, value, step))

        def close(self):
            closed.append(self.folder)

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    recipe = recipe_for(text, max_steps=3)
    trackers = Trackers(["tensorboard"], tmp_path / "run", recipe)
    pretrain(recipe, tmp_path / "run", on_line=trackers.show)
    trackers.show(ScoreLine(step=3, task="toy", metric="acc", value=0.5))
    trackers.close()
    steps = [line for line in read_log(tmp_path / "run") if isinstance(line, StepLine)]
    assert [(value, step) for name, value, step in heard if name == "train/loss"] == [
        (line.loss, line.step) for line in steps
    ]
    assert {name for name, _, _ in heard} >= {"train/learning_rate", "train/grad_norm", "validation/loss", "toy/acc"}
    assert closed == [str(tmp_path / "run" / "tensorboard")]


def test_tensorboard_itself(text, tmp_path):
    board = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    recipe = recipe_for(text, max_steps=3)
    trackers = Trackers(["tensorboard"], tmp_path / "run", recipe)
    pretrain(recipe, tmp_path / "run", on_line=trackers.show)
    trackers.close()
    found = board.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    found.Reload()
    assert [event.step for event in found.Scalars("train/loss")] == [1, 2, 3]
