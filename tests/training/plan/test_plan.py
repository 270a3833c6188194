"""Plans: parameters as transformers counts and papers print them, operations as PyTorch counts them, memory, time, mistakes."""

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

from lydite.errors import UserError
from lydite.models.own import register
from lydite.training.plan import Machine, Recipe, Training, read_machine, read_recipe
from lydite.training.plan.network import NoHead, make_config, measure_pass, measure_shape, objective_of
from lydite.training.plan.plan import make_plan
from lydite.training.plan.recipe import parse_bytes

MACHINE = Machine(name="m", memory=16 * 2**30, peak={"float32": 1e12, "bfloat16": 2e12}, utilisation=0.5)
TINY = {
    "gpt2": {"n_layer": 2, "n_embd": 32, "n_head": 4, "vocab_size": 96, "n_positions": 64},
    "llama": {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2}
    | {"intermediate_size": 48, "vocab_size": 96},
    "bert": {
        "num_hidden_layers": 2,
        "hidden_size": 32,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "vocab_size": 96,
    },
    "t5": {"num_layers": 2, "d_model": 32, "d_kv": 8, "num_heads": 4, "d_ff": 64, "vocab_size": 96},
    "bart": {"encoder_layers": 2, "decoder_layers": 2, "d_model": 32, "encoder_attention_heads": 4}
    | {"decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "vocab_size": 96},
}
AUTO = {"causal": AutoModelForCausalLM, "masked": AutoModelForMaskedLM, "seq2seq": AutoModelForSeq2SeqLM}


def shape_of(family, **keys):
    training = Training(batch=1, sequence_length=16)
    config = make_config(Recipe(model={"family": family, **keys}, training=training), Path())
    return config, measure_shape(config, objective_of(config, training))


@pytest.mark.parametrize(
    ("family", "keys", "published"),
    [
        ("gpt2", {}, 124_439_808),
        ("bert", {}, 109_482_240 + 2 * 768 + 30_522),
        ("t5", {}, 60_506_624),  # T5-small
        ("llama", {"num_hidden_layers": 32}, 6_738_415_616),  # Llama 2 7B
        ("roberta", {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1}, 124_697_433),
    ],
)
def test_parameters_are_the_published_ones(family, keys, published):
    """BERT-base is 109,482,240 with its pooler (590,592), which the masked objective leaves out, and without its head: a matrix of
    768 x 768 with its bias (590,592), a LayerNorm (2 x 768) and a bias a token (30,522)."""
    assert shape_of(family, **keys)[1].parameters == published


@pytest.mark.parametrize("family", TINY)
def test_parameters_and_operations_are_those_of_the_real_network(family):
    config, shape = shape_of(family, **TINY[family])
    model = AUTO[shape.objective].from_config(config, attn_implementation="eager").eval()
    assert shape.parameters == model.num_parameters()
    ids = torch.zeros(3, 16, dtype=torch.long)
    inputs = {"input_ids": ids} | ({"decoder_input_ids": ids[:, :8]} if shape.objective == "seq2seq" else {})
    with FlopCounterMode(display=False) as counter:
        model(**inputs)
    training = Training(batch=3, sequence_length=16, target_length=8, labelled=1.0)
    plan = make_plan(Recipe(model={"family": family, **TINY[family]}, training=training), MACHINE)
    positions = 3 * (16 + (8 if shape.objective == "seq2seq" else 0))
    assert plan.is_counted
    assert plan.forward_per_token * positions == pytest.approx(counter.get_total_flops(), rel=1e-9)
    if plan.formula_per_token is not None:
        assert plan.formula_per_token == pytest.approx(3 * plan.forward_per_token, rel=1e-9)


def test_formula_by_hand():
    """GPT-2 of width 32: a layer multiplies 12 x 32 x 32 weights, the head 32 x 96; attention 12 L a T."""
    recipe = Recipe(model={"family": "gpt2", **TINY["gpt2"]}, training=Training(batch=1, steps=10, sequence_length=64))
    plan = make_plan(recipe, MACHINE)
    assert plan.formula_per_token == 6 * (2 * 12 * 32 * 32 + 32 * 96) + 12 * 2 * 32 * 64
    assert plan.tokens == 640
    assert plan.operations == pytest.approx(640 * plan.formula_per_token)
    assert plan.seconds == pytest.approx(plan.operations / (1e12 * 0.5))


def test_only_labelled_positions_meet_the_head():
    given = {"family": "bert", **TINY["bert"]}
    whole, some = (
        make_plan(Recipe(model=given, training=Training(batch=2, sequence_length=32, labelled=share)), MACHINE)
        for share in (1.0, None)
    )
    assert whole.forward_per_token - some.forward_per_token == pytest.approx(2 * 0.85 * 32 * 96)


@pytest.mark.parametrize("family", ["gpt2", "bert", "t5"])
def test_saved_bytes_are_those_of_a_real_pass(family):
    """The same sum over a pass with numbers in it."""
    training = Training(batch=2, sequence_length=16, target_length=8)
    config, shape = shape_of(family, **TINY[family])
    found = measure_pass(config, shape.objective, training, 2)
    model = AUTO[shape.objective].from_config(config, attn_implementation="sdpa").train()
    model.set_output_embeddings(NoHead())
    own = {weight.untyped_storage().data_ptr() for weight in [*model.parameters(), *model.buffers()]}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (tensor, storage.nbytes())
        return tensor

    ids = torch.zeros(2, 16, dtype=torch.long)
    inputs = {"input_ids": ids} | ({"decoder_input_ids": ids[:, :8]} if family == "t5" else {})
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(**inputs)
    assert found.saved_bytes == pytest.approx(sum(size for _, size in kept.values()), rel=0.02)


def test_memory_by_optimizer_and_sharding():
    def memory(devices=1, **keys):
        training = Training(batch=4, sequence_length=32, **keys)
        machine = Machine(name="m", devices=devices, memory=2**40, peak={"float32": 1e12})
        return make_plan(Recipe(model={"family": "gpt2", **TINY["gpt2"]}, training=training), machine).memory

    plain = memory()
    parameters = 96 * 32 + 64 * 32 + 2 * (12 * 32 * 32 + 13 * 32) + 2 * 32
    assert (plain.weights, plain.gradients, plain.optimizer) == (4 * parameters, 4 * parameters, 8 * parameters)
    matrices = 2 * 12 * 32 * 32
    assert memory(optimizer="muon").optimizer == 4 * (matrices + 2 * (parameters - matrices))
    assert memory(optimizer="adafactor").optimizer < 4 * parameters // 8
    assert memory(optimizer="sgd").optimizer == 4 * parameters
    sharded = memory(devices=4, parallel="fsdp")
    assert sharded.optimizer == 8 * parameters // 4
    assert sharded.gradients == parameters
    assert memory(devices=4).optimizer == plain.optimizer
    assert memory(gradient_checkpointing=True).activations < plain.activations
    assert memory(micro_batch=1).activations == pytest.approx(plain.activations / 4, rel=0.05)


def test_a_run_with_repeated_data(tmp_path):
    (tmp_path / "r.toml").write_text(
        '[model]\nfamily = "gpt2"\nn_layer = 1\n[data]\ntokens = 1e6\nepochs = 4\n'
        "[training]\nbatch_size = 10\nsequence_length = 100\nlearning_rate = 1e-3\n"
    )
    recipe = read_recipe(tmp_path / "r.toml", {"training.dtype": "bfloat16"})
    assert recipe.training.steps == 4000
    assert recipe.training.dtype == "bfloat16"
    assert recipe.unused == ("training.learning_rate",)
    plan = make_plan(recipe, MACHINE)
    assert plan.data.epochs == 4
    assert 3.7e6 < plan.data.effective_tokens < 3.8e6
    assert plan.data.loss > plan.data.loss_if_fresh
    assert any("learning_rate" in note for note in plan.notes)


def test_a_machine_file(tmp_path):
    (tmp_path / "node.toml").write_text(
        'devices = 8\nmemory = "80 GiB"\nbandwidth = "100 GB/s"\n[peak]\nbfloat16 = 989e12\n'
    )
    machine = read_machine(tmp_path / "node.toml")
    assert (machine.name, machine.memory, machine.bandwidth) == ("node", 80 * 2**30, 1e11)
    training = Training(batch=64, steps=10, sequence_length=32, dtype="bfloat16")
    plan = make_plan(Recipe(model={"family": "gpt2", **TINY["gpt2"]}, training=training), machine)
    assert plan.micro_batch == 8
    # An all-reduce sends 2 x 7/8 of the gradients' bytes.
    assert plan.seconds_sending == pytest.approx(10 * 2 * 7 / 8 * 4 * plan.shape.parameters / 1e11)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("[model]\n", "no table \\[training\\]"),
        ("[model\n", "is not TOML"),
        ('[model]\nfamily="gpt2"\n[training]\nbatch=1\nsteps=1\n', "no sequence_length"),
        ('[model]\nfamily="gpt2"\n[training]\nbatch=1\nsequence_length=8\n', "name steps"),
        ('[model]\nfamily="gpt2"\n[training]\nbatch=0\nsteps=1\nsequence_length=8\n', "1 or more"),
        (
            '[model]\nfamily="gpt2"\n[training]\nbatch=1\nsteps=1\nsequence_length=8\noptimizer="magic"\n',
            "Invalid enum",
        ),
        ('[model]\nfamily="gpt9"\n[training]\nbatch=1\nsteps=1\nsequence_length=8\n', "gpt9"),
        ('[model]\nfamily="gpt2"\nn_layers=1\n[training]\nbatch=1\nsteps=1\nsequence_length=8\n', "it knows n_layer"),
        ('[model]\nconfig="no.json"\n[training]\nbatch=1\nsteps=1\nsequence_length=8\n', "no file"),
        ("[model]\nx=1\n[training]\nbatch=1\nsteps=1\nsequence_length=8\n", "needs family"),
        ('[model]\nfamily="gpt2"\n[training]\nbatch=1\nsteps=1\nsequence_length=4096\n', "1024 positions"),
        ('[model]\nfamily="gpt2"\n[data]\ncorpus="x"\n[training]\nbatch=1\nsequence_length=8\n', "is no corpus"),
    ],
)
def test_mistakes_in_a_recipe(tmp_path, recipe, message):
    (tmp_path / "r.toml").write_text(recipe)
    with pytest.raises(UserError, match=message):
        make_plan(read_recipe(tmp_path / "r.toml"), MACHINE, folder=tmp_path)


def test_sizes():
    assert (parse_bytes("80 GiB"), parse_bytes("1.5GB/s"), parse_bytes("12")) == (80 * 2**30, 1_500_000_000, 12)
    with pytest.raises(UserError, match="write it as in"):
        parse_bytes("many")


def test_config_json(tmp_path):
    AutoConfig.for_model("gpt2", **TINY["gpt2"]).save_pretrained(tmp_path)
    recipe = Recipe(model={"config": "config.json", "n_layer": 1}, training=Training(batch=1, sequence_length=8))
    assert make_config(recipe, tmp_path).n_layer == 1
    assert make_config(recipe, tmp_path).n_embd == 32


def test_our_transformer_as_a_recipe_names_it():
    """What the configuration derives (heads of keys, from those of queries) is derived from the recipe, not from the defaults."""
    register()
    keys = {"shape": "encoder-decoder", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    config, shape = shape_of("lydite_transformer", **keys, num_attention_heads=4, vocab_size=96)
    assert config.num_key_value_heads == 4
    assert shape.objective == "seq2seq"
    assert shape.parameters == AutoModelForSeq2SeqLM.from_config(config).num_parameters()
