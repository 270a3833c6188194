"""Trajectories: resumed = uninterrupted bit for bit, 1 x 8 = 8 x 1, and a plain PyTorch loop as the oracle."""

import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

from lydite.errors import ModelError, RunError, UserError
from lydite.training import checkpoints
from lydite.training.batch import Loss
from lydite.training.data import read_data
from lydite.training.log import EvalLine, EventLine, StepLine, read_log
from lydite.training.network import build_network
from lydite.training.objectives import causal
from lydite.training.start import pretrain
from tests.families import bytelevel
from tests.training.tinyrun import MODEL, curve, tiny_recipe, write_text

NO_DROPOUT = {"family": "gpt2", "config": MODEL | {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text") / "text.txt")


class Killed(BaseException):
    """What kill -9 is to the loop: it ends wherever it is, and writes nothing."""


def run_until(recipe, folder, step):
    def on_line(line):
        if isinstance(line, StepLine) and line.step == step:
            raise Killed

    with pytest.raises(Killed):
        pretrain(recipe, folder, on_line=on_line)


VARIANTS = {
    "adamw": {},
    "muon, bfloat16 with masters": {"optimizer": "muon", "dtype": "bfloat16"},
    "adafactor, moving average": {"optimizer": "adafactor", "average": "ema", "average_decay": 0.9},
    "sorted by length": {"length_window": 24, "gradient_accumulation_steps": 2},
}


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_resumed_three_times_is_the_uninterrupted_run_bit_for_bit(text, tmp_path, variant):
    """Killed after steps 4, 5 and 10, where checkpoints stand at 3, 6 and 9; with dropout."""
    recipe = tiny_recipe(text, training=variant)
    whole = pretrain(recipe, tmp_path / "whole")
    for step in (4, 5, 10):
        run_until(recipe, tmp_path / "killed", step)
    resumed = pretrain(recipe, tmp_path / "killed")
    assert curve(tmp_path / "killed") == curve(tmp_path / "whole")
    assert len(curve(tmp_path / "whole")) == 12
    one, other = (load_file(folder / "model.safetensors") for folder in (whole, resumed))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    validations = [[e.loss for e in read_log(tmp_path / f) if isinstance(e, EvalLine)] for f in ("whole", "killed")]
    assert validations[0] == validations[1]


def test_finished_run_is_not_done_again(text, tmp_path):
    recipe = tiny_recipe(text, training={"max_steps": 3})
    pretrain(recipe, tmp_path)
    steps = []
    pretrain(recipe, tmp_path, on_line=lambda line: steps.append(line) if isinstance(line, StepLine) else None)
    assert not steps
    assert len(curve(tmp_path)) == 3


def test_same_steps_as_a_plain_loop(text, tmp_path):
    """Losses and gradient norms against AdamW and cross_entropy of PyTorch over the logits of transformers."""
    recipe = tiny_recipe(text, model=NO_DROPOUT, training={"max_steps": 6, "warmup_steps": 0, "schedule": "constant"})
    pretrain(recipe, tmp_path)
    data = read_data(recipe.data)
    network = build_network(recipe.model, ["causal"], data.tokenizer, 0)
    network.train()
    decayed = [weight for weight in network.parameters() if weight.dim() >= 2]
    plain = [weight for weight in network.parameters() if weight.dim() < 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=3e-3, betas=(0.9, 0.95))
    objective = causal.make_causal(data.train, data.tokenizer, causal.Causal(context=16, end_of_document=False), 0)
    for step, loss, norm, _ in curve(tmp_path):
        batch = objective.collate([objective.example(0, index) for index in range(8 * step - 8, 8 * step)])
        logits = network(**batch.inputs).logits
        wanted = cross_entropy(logits.flatten(0, 1), batch.targets["tokens"].flatten())
        wanted.backward()
        theirs = torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        assert loss == pytest.approx(wanted.item(), rel=1e-5)
        assert norm == pytest.approx(theirs.item(), rel=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_accumulation_changes_nothing(text, tmp_path, dtype):
    tolerance = {"float32": 1e-5, "bfloat16": 2e-2}[dtype]
    curves = []
    for parts in (1, 8, 3):
        table = {"gradient_accumulation_steps": parts, "max_steps": 5, "dtype": dtype}
        pretrain(tiny_recipe(text, model=NO_DROPOUT, training=table), tmp_path / str(parts))
        curves.append(curve(tmp_path / str(parts)))
    for other in curves[1:]:
        for one, two in zip(curves[0], other, strict=True):
            assert one == pytest.approx(two, rel=tolerance)


def test_bfloat16_masters_learn_as_float32_does(text, tmp_path):
    losses = {}
    for dtype in ("float32", "bfloat16", "autocast"):
        table = {"dtype": dtype, "max_steps": 20}
        pretrain(tiny_recipe(text, model=NO_DROPOUT, training=table, save={"every": 20}), tmp_path / dtype)
        losses[dtype] = [line[1] for line in curve(tmp_path / dtype)]
    assert losses["float32"][-1] < 0.9 * losses["float32"][0]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.02)
    assert losses["autocast"] == pytest.approx(losses["float32"], rel=0.02)


def test_plain_transformers_loads_the_model(text, tmp_path):
    """With the loss that the last validation had, in nats per token and bits per byte."""
    recipe = tiny_recipe(text, training={"max_steps": 4, "dtype": "bfloat16"}, data={"validation": 0.2})
    out = pretrain(recipe, tmp_path)
    line = next(line for line in read_log(tmp_path) if isinstance(line, EvalLine))
    network, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    assert network.dtype == torch.float32
    assert network.lm_head.weight is network.transformer.wte.weight
    held = text.read_text()[int(text.stat().st_size * 0.8) :]
    ids = torch.tensor(tokenizer(held)["input_ids"])
    assert tokenizer.decode(ids) == held
    total = 0.0
    with torch.no_grad():
        for start in range(0, len(ids) - 1, 16):
            piece = ids[start : start + 17]
            logits = network(piece[None, :-1]).logits[0]
            total += cross_entropy(logits, piece[1:], reduction="sum").item()
    assert line.loss == pytest.approx(total / (len(ids) - 1), rel=0.02)  # the loop's own is in bfloat16
    assert line.bits_per_byte == pytest.approx(line.loss / 0.6931471805599453, rel=1e-9)  # a byte a token here


def test_altered_checkpoint_is_named_and_the_one_before_used(text, tmp_path):
    recipe = tiny_recipe(text)
    pretrain(recipe, tmp_path / "whole")
    run_until(recipe, tmp_path / "torn", 8)
    place = tmp_path / "torn" / "checkpoints" / "step-00000006" / "optimizer.safetensors"
    data = bytearray(place.read_bytes())
    data[-1] ^= 1
    place.write_bytes(data)
    said = []
    pretrain(recipe, tmp_path / "torn", say=said.append)
    assert "step-00000006 is damaged (optimizer.safetensors is not what was written)" in said[0]
    assert curve(tmp_path / "torn") == curve(tmp_path / "whole")


def test_torn_state_and_half_a_checkpoint_are_survived(text, tmp_path):
    recipe = tiny_recipe(text)
    pretrain(recipe, tmp_path / "whole")
    run_until(recipe, tmp_path / "torn", 8)
    folder = tmp_path / "torn" / "checkpoints"
    state = folder / "step-00000006" / "state.json"
    state.write_bytes(state.read_bytes()[:50])
    shutil.copytree(folder / "step-00000003", folder / ".step-00000009.tmp")  # as kill -9 leaves it
    (tmp_path / "torn" / "log.jsonl").open("ab").write(b'{"kind":"step","st')
    pretrain(recipe, tmp_path / "torn")
    assert curve(tmp_path / "torn") == curve(tmp_path / "whole")


def test_full_disk_leaves_the_last_checkpoint(text, tmp_path, monkeypatch):
    recipe = tiny_recipe(text)
    real, count = checkpoints.save_file, 0

    def full(tensors, path):
        nonlocal count
        count += "model" in path
        if count == 2:
            real(tensors, path)
            raise OSError(28, "No space left on device")
        real(tensors, path)

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(RunError, match=r"step-00000006: No space left on device; free space .* continues from step 3"):
        pretrain(recipe, tmp_path / "full")
    assert [path.name for path in (tmp_path / "full" / "checkpoints").iterdir()] == ["step-00000003"]
    monkeypatch.setattr(checkpoints, "save_file", real)
    pretrain(recipe, tmp_path / "full")
    pretrain(recipe, tmp_path / "whole")
    assert curve(tmp_path / "full") == curve(tmp_path / "whole")


def test_another_recipe_or_other_data_is_refused(text, tmp_path):
    pretrain(tiny_recipe(text, training={"max_steps": 2}), tmp_path)
    with pytest.raises(RunError, match=r"another recipe \(training.learning_rate was 0.003, now 0.1\)"):
        pretrain(tiny_recipe(text, training={"max_steps": 2, "learning_rate": 0.1}), tmp_path)
    other = write_text(tmp_path / "other.txt", seed=1)
    shutil.copy(other, tmp_path / "again.txt")
    changed = tiny_recipe(other, training={"max_steps": 2})
    with pytest.raises(RunError, match="run on other data"):
        pretrain(changed, tmp_path)
    pretrain(changed, tmp_path / "new")
    pretrain(tiny_recipe(tmp_path / "again.txt", training={"max_steps": 2}), tmp_path / "new")  # the same tokens
    pretrain(tiny_recipe(text, training={"max_steps": 2}, save={"every": 1, "keep": 1}), tmp_path)  # may change


def spoil(monkeypatch, steps):
    """The loss of those steps (from 1) is not a number."""
    real, seen = causal.CausalBlocks.loss, 0

    def loss(self, network, batch):
        nonlocal seen
        out = real(self, network, batch)
        seen += network.training
        if seen in steps and network.training:
            parts = {name: replace(part, sum=part.sum * float("nan")) for name, part in out.parts.items()}
            return Loss(parts)
        return out

    monkeypatch.setattr(causal.CausalBlocks, "loss", loss)


def test_nan_stops_with_the_batch_saved(text, tmp_path, monkeypatch):
    spoil(monkeypatch, {5})
    with pytest.raises(UserError, match=r"step 5: the loss is nan; its batch is in .*bad-step-5"):
        pretrain(tiny_recipe(text), tmp_path)
    batch = load_file(tmp_path / "bad-step-5" / "batch.safetensors")
    assert batch["0.inputs.input_ids"].shape == (8, 16)
    assert (tmp_path / "bad-step-5" / "batch.json").exists()
    assert len(curve(tmp_path)) == 4


def test_nan_is_skipped_by_rule(text, tmp_path, monkeypatch):
    spoil(monkeypatch, {5, 6})
    pretrain(tiny_recipe(text, training={"on_nan": "skip"}), tmp_path)
    events = [line.what for line in read_log(tmp_path) if isinstance(line, EventLine)]
    assert events == ["begun", "skipped: the loss is nan", "skipped: the loss is nan", "finished"]
    assert [line[0] for line in curve(tmp_path)] == [1, 2, 3, 4, 7, 8, 9, 10, 11, 12]


def test_more_bad_steps_than_are_skipped_end_the_run(text, tmp_path, monkeypatch):
    spoil(monkeypatch, set(range(1, 13)))
    with pytest.raises(UserError, match=r"step 11: .* nan, after 10 that were skipped; .* in another --out$"):
        pretrain(tiny_recipe(text, training={"on_nan": "skip"}), tmp_path)


def test_weights_to_start_from_that_are_not_there(text, tmp_path):
    recipe = tiny_recipe(text, model={"family": "", "config": {}, "init": str(tmp_path / "none")})
    with pytest.raises(ModelError, match=r"model\.init: .*none is no folder of a model"):
        pretrain(recipe, tmp_path / "run")


def test_patience_ends_the_run_and_keeps_the_best(text, tmp_path):
    table = {"max_steps": 40, "learning_rate": 0.5, "schedule": "constant", "explode_factor": 0}
    recipe = tiny_recipe(text, training=table, eval={"every": 1, "patience": 3, "max_rows": 4})
    out = pretrain(recipe, tmp_path)
    evals = [line for line in read_log(tmp_path) if isinstance(line, EvalLine)]
    best = min(evals, key=lambda line: line.loss)
    assert evals[-1].step == best.step + 3 < 40
    kept = load_file(tmp_path / "checkpoints" / f"step-{best.step:08d}" / "model.safetensors")
    assert torch.equal(load_file(out / "model.safetensors")["transformer.wpe.weight"], kept["transformer.wpe.weight"])
    assert pretrain(recipe, tmp_path) == out  # ended is ended
    assert len([line for line in read_log(tmp_path) if isinstance(line, EvalLine)]) == len(evals)


def test_last_checkpoints_are_averaged(text, tmp_path):
    table = {"average": "last", "average_last": 2, "max_steps": 6}
    out = pretrain(tiny_recipe(text, training=table), tmp_path)
    name = "transformer.h.0.ln_1.weight"
    two = [load_file(p / "model.safetensors")[name] for p in sorted((tmp_path / "checkpoints").iterdir())]
    assert len(two) == 2
    torch.testing.assert_close(load_file(out / "model.safetensors")[name], (two[0] + two[1]) / 2)
    # What the log says last is the loss of what is saved.
    still = {"max_steps": 1, "warmup_steps": 0, "learning_rate": 0.0}
    pretrain(tiny_recipe(text, model={"family": "", "config": {}, "init": str(out)}, training=still), tmp_path / "same")
    said, again = (
        [line.loss for line in read_log(run) if isinstance(line, EvalLine)] for run in (tmp_path, tmp_path / "same")
    )
    assert said == pytest.approx(again, rel=1e-5)


def test_positions_that_are_never_trained_are_told_of(text, tmp_path):
    said = []
    recipe = tiny_recipe(
        text, model={"family": "gpt2", "config": {**MODEL, "n_positions": 64}}, training={"max_steps": 2}
    )
    pretrain(recipe, tmp_path / "long", say=said.append)
    assert len(said) == 1
    assert "takes 64 positions and rows have 16" in said[0]
    assert "set model.config.n_positions = 16, or evaluate with --set max_tokens=16" in said[0]
    pretrain(tiny_recipe(text, training={"max_steps": 2}), tmp_path / "fits", say=said.append)
    assert len(said) == 1


def test_continuing_from_a_checkpoint_of_transformers(text, tmp_path):
    first = pretrain(tiny_recipe(text, training={"max_steps": 8}), tmp_path / "first")
    recipe = tiny_recipe(
        text, model={"family": "", "config": {}, "init": str(first)}, training={"max_steps": 1, "warmup_steps": 0}
    )
    pretrain(recipe, tmp_path / "second")
    assert curve(tmp_path / "second")[0][1] < curve(tmp_path / "first")[0][1]


def test_a_damaged_checkpoint_is_written_again_and_never_averaged(text, tmp_path):
    recipe = tiny_recipe(text, training={"average": "last", "average_last": 4}, save={"every": 3, "keep": 9})
    run_until(recipe, tmp_path, 8)
    (tmp_path / "checkpoints" / "step-00000006" / "model.safetensors").write_bytes(b"torn")
    pretrain(recipe, tmp_path)
    folders = sorted((tmp_path / "checkpoints").iterdir())
    assert [folder.name[-2:] for folder in folders] == ["03", "06", "09", "12"]
    assert all(checkpoints.check(folder)[1] is not None for folder in folders)
    folders[1].joinpath("model.safetensors").write_bytes(b"torn")
    assert [folder.name[-2:] for folder in checkpoints.Checkpoints(tmp_path).whole()] == ["03", "09", "12"]


def test_the_last_validation_is_logged_once(text, tmp_path):
    """Killed right after it: the run goes on from the checkpoint before it."""
    recipe = tiny_recipe(text)

    def on_line(line):
        if isinstance(line, EvalLine):
            raise Killed

    with pytest.raises(Killed):
        pretrain(recipe, tmp_path, on_line=on_line)
    pretrain(recipe, tmp_path)
    assert [line.step for line in read_log(tmp_path) if isinstance(line, EvalLine)] == [12]


def test_what_is_done_with_a_bad_step_may_be_decided_then(text, tmp_path, monkeypatch):
    spoil(monkeypatch, {5})
    with pytest.raises(UserError, match=r"or continue with --set training\.on_nan=skip"):
        pretrain(tiny_recipe(text), tmp_path)
    pretrain(tiny_recipe(text, training={"on_nan": "skip", "explode_factor": 9}), tmp_path)
    assert len(curve(tmp_path)) == 12


def test_rows_that_are_longer_than_the_network_takes(text, tmp_path):
    recipe = tiny_recipe(text, objective=[{"name": "causal", "context": 64}])
    with pytest.raises(ModelError, match=r"rows of 64 positions are longer than the network's n_positions = 16"):
        pretrain(recipe, tmp_path)


def test_rows_that_leave_no_room_for_the_positions_that_roberta_skips(text, tmp_path):
    bytelevel().save_pretrained(tmp_path / "tokenizer")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    tables = {
        "model": {"family": "roberta", "config": sizes | {"max_position_embeddings": 18}},
        "data": {"tokenizer": str(tmp_path / "tokenizer")},
    }
    with pytest.raises(ModelError, match=r"rows of 17 .* max_position_embeddings = 18 less the 2 that are never used"):
        pretrain(tiny_recipe(text, objective=[{"name": "masked", "context": 17}], **tables), tmp_path / "long")
    fits = tiny_recipe(text, objective=[{"name": "masked", "context": 16}], training={"max_steps": 2}, **tables)
    pretrain(fits, tmp_path / "fits")


def test_what_a_killed_process_left_of_a_model_is_removed(text, tmp_path):
    (tmp_path / ".model.1.tmp").mkdir()
    (tmp_path / ".model.ab.old").mkdir()
    pretrain(tiny_recipe(text, training={"max_steps": 1, "warmup_steps": 0}), tmp_path)
    assert not list(tmp_path.glob(".model.*"))


def test_a_full_disk_at_the_last_file_of_a_checkpoint(text, tmp_path, monkeypatch):
    def full(path, record):
        try:
            raise OSError(28, "No space left on device")
        except OSError as error:
            raise RunError(f"cannot write {path}") from error

    monkeypatch.setattr(checkpoints, "write_json", full)
    with pytest.raises(RunError, match=r"step-00000003: No space left on device; free space .* from the beginning"):
        pretrain(tiny_recipe(text), tmp_path)
    assert not list((tmp_path / "checkpoints").iterdir())
