"""The recipe of a training run serves a plan as it is: lengths, rows and labelled positions are those of its batches."""

import json

import pytest

from lydite.cli.plan import plan
from lydite.data.prepare.simple import save_bytes_tokenizer
from lydite.errors import UserError
from lydite.training.plan.trained import read_trained
from tests.families import wordpiece

TEXT = "The stone is black, and gold leaves a line on it. " * 80
MODEL = {
    "gpt2": "n_layer = 1\nn_head = 2\nn_embd = 16\nn_positions = 32",
    "bert": "num_hidden_layers = 1\nnum_attention_heads = 2\nhidden_size = 16\nintermediate_size = 32",
}


def write(tmp_path, family, objective, training="batch_size = 6"):
    (tmp_path / "text.txt").write_text(TEXT)
    path = tmp_path / "recipe.toml"
    path.write_text(
        f'[model]\nfamily = "{family}"\n[model.config]\n{MODEL[family]}\n'
        f'[data]\ntext = ["text.txt"]\ntokenizer = "{tmp_path / "words" if family == "bert" else "characters"}"\n'
        f"[[objective]]\n{objective}\n[training]\nmax_steps = 10\n{training}\n"
    )
    return path


def test_a_decoder(tmp_path):
    path = write(
        tmp_path,
        "gpt2",
        'name = "causal"\ncontext = 32',
        "batch_size = 6\ngradient_accumulation_steps = 2\ndtype = 'autocast'",
    )
    found = read_trained(path, ["training.max_steps=7"])
    training = found.training
    assert (training.batch, training.sequence_length, training.steps, training.micro_batch) == (6, 32, 7, 3)
    assert (training.dtype, training.objective, training.labelled) == ("bfloat16", "causal", 1.0)
    assert found.model["vocab_size"] == len(set(TEXT)) + 3
    assert found.unique_tokens == int(len(TEXT) * 0.9)


def test_masks_have_their_share_of_labels(tmp_path):
    wordpiece().save_pretrained(tmp_path / "words")
    training = read_trained(write(tmp_path, "bert", 'name = "masked"\ncontext = 32')).training
    assert training.objective == "masked"
    assert 0.08 < training.labelled < 0.22


def test_a_decoder_has_the_length_of_its_targets(tmp_path):
    """Sources of 40 letters; targets of 10, with the end of a sequence and padding to a multiple of 8 16 positions."""
    for name, text in (("source.txt", "a" * 40), ("target.txt", "b" * 10)):
        (tmp_path / name).write_text(f"{text}\n" * 20)
    (tmp_path / "bytes").mkdir()
    save_bytes_tokenizer(tmp_path / "bytes")
    path = tmp_path / "recipe.toml"
    path.write_text(
        '[model]\nfamily = "t5"\n[model.config]\nnum_layers = 1\nd_model = 16\nd_kv = 8\nnum_heads = 2\nd_ff = 32\n'
        f'[data]\nsource = "source.txt"\ntarget = "target.txt"\ntokenizer = "{tmp_path / "bytes"}"\n'
        '[[objective]]\nname = "seq2seq"\n[training]\nmax_steps = 10\nbatch_size = 4\n'
    )
    training = read_trained(path).training
    assert (training.batch, training.sequence_length, training.target_length) == (4, 40, 16)
    assert training.labelled == 11 / 16


def test_the_verb_takes_it(tmp_path, capsys):
    path = write(tmp_path, "gpt2", 'name = "causal"\ncontext = 32')
    machine = tmp_path / "machine.toml"
    machine.write_text('memory = "8 GiB"\n[peak]\nfloat32 = 1e12\n')
    assert plan(path, machine=machine, utilisation=0.5, set_=["training.max_steps=20"], json_=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["tokens"] == 20 * 6 * 32
    assert found["shape"]["family"] == "gpt2"


def test_counting_needs_no_plan(tmp_path):
    path = write(tmp_path, "gpt2", 'name = "causal"\ncontext = 32')
    with pytest.raises(UserError, match="counted"):
        read_trained(path, ["model.family=ngram"])
    for family in ("ngram", "lydite_ngram"):
        path.write_text(f'[model]\nfamily = "{family}"\n[data]\ntext = ["text.txt"]\ntokenizer = "characters"\n')
        with pytest.raises(UserError, match="nothing to plan"):
            plan(path)
