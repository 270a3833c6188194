"""Our Transformer by itself: positions, masks, caches, training, and the engine on it."""

import math

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM, DynamicCache
from transformers.models.distilbert.modeling_distilbert import create_sinusoidal_embeddings
from transformers.models.t5.modeling_t5 import T5Attention

from lydite.errors import ModelError
from lydite.models import transformer_heads as heads
from lydite.models.causal import load_causal
from lydite.models.own import register
from lydite.models.transformer_config import POSITIONS, LyditeTransformerConfig
from lydite.models.transformer_positions import alibi, distance_bucket, sinusoid
from lydite.types import ScoreRequest
from tests.naive import naive
from tests.tiny import tiny_tokenizer

AUTO = {"encoder": AutoModelForMaskedLM, "decoder": AutoModelForCausalLM, "encoder-decoder": AutoModelForSeq2SeqLM}
register()


def config(**settings):
    small = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2}
    tokens = {"vocab_size": 50, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "decoder_start_token_id": 2}
    return LyditeTransformerConfig(**small | tokens | {"max_position_embeddings": 64} | settings)


def model(scale=8.0, **settings):
    """Random, with sharp attention."""
    chosen = config(**settings)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = AUTO[chosen.shape].from_config(chosen).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() > 1:
                parameter.mul_(scale)
    return made


def tokens(rows=2, length=12, seed=0):
    return torch.randint(3, 50, (rows, length), generator=torch.Generator().manual_seed(seed))


# ----------------------------------------------------------------------------------------- positions


def test_sinusoids_are_distilberts():
    table = torch.empty(20, 16)
    create_sinusoidal_embeddings(20, 16, table)
    assert torch.allclose(sinusoid(torch.arange(20)[None], 16)[0], table, atol=1e-6)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("buckets", "farthest"), [(32, 128), (8, 20), (12, 7)])
def test_buckets_are_t5s(causal, buckets, farthest):
    distance = torch.arange(-300, 301)[None]
    expected = T5Attention._relative_position_bucket(distance, not causal, buckets, farthest)
    assert torch.equal(distance_bucket(distance, buckets, farthest, causal=causal), expected)


def test_alibi_slopes_are_the_papers():
    """Section 3: for 8 heads 1/2, 1/4 ... 1/256; and their code's for 12 heads, of which the last four lie between."""
    one = torch.tensor([[-1]])
    assert alibi(one, 8).flatten().tolist() == [-(2.0**-n) for n in range(1, 9)]
    assert alibi(one, 12).flatten()[8:].tolist() == pytest.approx([-(2.0 ** -(n + 0.5)) for n in range(4)])


@pytest.mark.parametrize("position", ["rotary", "relative", "alibi", "none"])
def test_only_distances_matter_to_relative_positions(position):
    network, ids = model(position=position), tokens()
    with torch.inference_mode():
        here = network(ids).logits
        there = network(ids, position_ids=torch.arange(5, 17)[None]).logits
    assert torch.allclose(here, there, atol=1e-4)


@pytest.mark.parametrize("position", [name for name in POSITIONS if name != "none"])
def test_order_matters(position):
    """With the order of what it sees turned around the last token has other logits; without positions it has not."""
    ids = tokens(1)
    turned = torch.cat([ids[:, :-1].flip(1), ids[:, -1:]], dim=1)
    with torch.inference_mode():
        network, blind = model(position=position), model(position="none", num_hidden_layers=1)
        assert (network(ids).logits[:, -1] - network(turned).logits[:, -1]).abs().max() > 0.03
        assert torch.allclose(blind(ids).logits[:, -1], blind(turned).logits[:, -1], atol=1e-4)


# ------------------------------------------------------------------------------------ masks and caches


@pytest.mark.parametrize("position", POSITIONS)
def test_the_future_is_not_seen(position):
    network, ids = model(position=position), tokens()
    other = ids.clone()
    other[:, 8:] = 3
    with torch.inference_mode():
        assert torch.allclose(network(ids).logits[:, :8], network(other).logits[:, :8], atol=1e-5)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("position", POSITIONS)
def test_a_cache_changes_nothing(position, implementation):
    """Tokens in pieces of 5, 1, 4 and 2, the second row padded on the left, as `generate` does it."""
    network, ids = model(position=position), tokens()
    network.set_attn_implementation(implementation)
    mask = torch.ones_like(ids)
    mask[1, :3] = 0
    places = (mask.cumsum(1) - 1).clamp(min=0)
    cache, pieces = DynamicCache(config=network.config), []
    with torch.inference_mode():
        whole = network(ids, attention_mask=mask, position_ids=places).logits
        alone = network(ids[1:, 3:]).logits
        for start, stop in ((0, 5), (5, 6), (6, 10), (10, 12)):
            part = {"attention_mask": mask[:, :stop], "position_ids": places[:, start:stop], "past_key_values": cache}
            pieces.append(network(ids[:, start:stop], use_cache=True, **part).logits)
    assert torch.allclose(torch.cat(pieces, dim=1)[mask.bool()], whole[mask.bool()], atol=1e-4)
    assert torch.allclose(whole[1, 3:], alone[0], atol=1e-4)  # padding is not seen
    assert whole.std() > 0.5


@pytest.mark.parametrize("position", POSITIONS)
def test_an_encoder_decoders_cache_changes_nothing(position):
    network, ids, mask = model(position=position, shape="encoder-decoder", decoder_layers=3), tokens(), None
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    target = tokens(length=9, seed=1)
    with torch.inference_mode():
        whole = network(ids, mask, target).logits
        first = network(ids, mask, target[:, :4], use_cache=True)
        memory, cache, pieces = (first.encoder_last_hidden_state,), first.past_key_values, [first.logits]
        for n in range(4, 9):
            given = {"encoder_outputs": memory, "past_key_values": cache, "use_cache": True}
            pieces.append(network(None, mask, target[:, n : n + 1], **given).logits)
        alone = network(ids[1:, :7], None, target[1:]).logits
    assert torch.allclose(torch.cat(pieces, dim=1), whole, atol=1e-4)
    assert torch.allclose(whole[1], alone[0], atol=1e-4)
    assert len(cache.self_attention_cache) == len(cache.cross_attention_cache) == 3


@pytest.mark.parametrize("shape", AUTO)
def test_states_and_weights_of_every_layer_are_given(shape):
    network, ids = model(shape=shape, norm_place="post", embedding_norm=True), tokens()
    network.set_attn_implementation("eager")
    given = {"decoder_input_ids": tokens(length=5)} if shape == "encoder-decoder" else {}
    with torch.inference_mode():
        out = network(ids, **given, output_hidden_states=True, output_attentions=True)
    side = "encoder_" if given else ""
    assert [x.shape for x in out[f"{side}hidden_states"]] == [(2, 12, 32)] * 3
    assert [x.shape for x in out[f"{side}attentions"]] == [(2, 4, 12, 12)] * 2
    assert torch.allclose(out[f"{side}attentions"][0].sum(-1), torch.ones(2, 4, 12))
    if given:
        assert [x.shape for x in out.cross_attentions] == [(2, 4, 5, 12)] * 2


def test_segments_are_told_apart_or_refused():
    network, ids = model(shape="encoder", type_vocab_size=2), tokens()
    with torch.inference_mode():
        assert not torch.allclose(network(ids).logits, network(ids, token_type_ids=torch.ones_like(ids)).logits)
    with pytest.raises(ModelError, match="type_vocab_size"):
        model(shape="encoder")(ids, token_type_ids=torch.ones_like(ids))


# ------------------------------------------------------------------------------------------- the engine


@pytest.mark.parametrize("position", POSITIONS)
def test_the_engine_packs_it_or_says_why_not(position, tmp_path):
    tiny_tokenizer().save_pretrained(tmp_path)
    network = model(position=position, vocab_size=328, tie_word_embeddings=False, logit_scale=0.7)
    network.save_pretrained(tmp_path)
    loaded = load_causal(tmp_path, name="tiny", source=str(tmp_path))
    plain = "plain (Unsupported: attention asks for position_bias)"
    assert loaded.info.settings["engine"] == (plain if position in ("relative", "alibi") else "packed")
    assert "head" not in loaded.info.settings
    assert loaded.info.max_tokens == 64
    texts = ["The cat sat", " on the mat.", "The cats sit", "今天天气很好"]
    requests = [
        ScoreRequest(sample_id=str(n), index=0, context=context, continuation=more)
        for n, (context, more) in enumerate(zip(["The cat sat"] * 3 + ["问题"], texts, strict=True))
    ]
    encoded = list(loaded.encoder.encode(requests))
    answers = dict(loaded.answer(requests))
    for n, one in enumerate(encoded):
        [window] = one.windows
        expected, _ = naive(network, window.ids.tolist(), window.first)
        assert answers[n].logprobs == pytest.approx(expected, abs=1e-4)


# --------------------------------------------------------------------------------------------- training


def loss_of(network, ids):
    given = {"labels": ids}
    if network.config.shape == "encoder-decoder":
        return network(ids.flip(1), **given).loss
    if network.config.shape == "encoder":
        masked = torch.where(torch.arange(ids.shape[1]) % 3 == 0, 2, ids)
        return network(masked, labels=torch.where(masked == 2, ids, -100)).loss
    return network(ids, **given, use_cache=False).loss


@pytest.mark.parametrize("place", ["pre", "post"])
@pytest.mark.parametrize("shape", AUTO)
def test_one_batch_is_learned_by_heart(shape, place):
    network = model(1.0, shape=shape, norm_place=place, norm="layer" if place == "post" else "rms").train()
    ids = tokens(4, 9)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(300):
        loss = loss_of(network, ids)
        if loss < 0.1:
            break
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
        optimizer.step()
        optimizer.zero_grad()
    assert loss < 0.1


@pytest.mark.parametrize("position", ["rotary", "relative"])
@pytest.mark.parametrize("shape", AUTO)
def test_checkpointing_gives_the_same_gradients(shape, position):
    network, ids = model(shape=shape, position=position).train(), tokens()
    loss_of(network, ids).backward()
    before = [parameter.grad.clone() for parameter in network.parameters()]
    network.zero_grad()
    network.activation_checkpointing_enable()
    loss_of(network, ids).backward()
    assert all(torch.allclose(p.grad, g, atol=1e-5) for p, g in zip(network.parameters(), before, strict=True))


def test_fresh_weights_are_as_stated():
    """GPT-2's rule: 0.02, and 0.02 / sqrt(2 N) for what writes into the residual stream of N layers; BERT's: 0.02."""
    wide = {"hidden_size": 256, "num_hidden_layers": 8, "vocab_size": 300, "num_key_value_heads": 4}
    torch.manual_seed(0)
    for place, expected in (("pre", 0.02 / math.sqrt(16)), ("post", 0.02)):
        block = heads.LyditeTransformerForCausalLM(config(norm_place=place, **wide)).model.decoder.blocks[5]
        assert float(block.attention.query.weight.std()) == pytest.approx(0.02, rel=0.05)
        assert float(block.feed_forward.up.weight.std()) == pytest.approx(0.02, rel=0.05)
        assert float(block.attention.output.weight.std()) == pytest.approx(expected, rel=0.05)
        assert float(block.feed_forward.down.weight.std()) == pytest.approx(expected, rel=0.05)
    crossed = heads.LyditeTransformerForConditionalGeneration(config(shape="encoder-decoder", **wide)).model.decoder
    for layer in (crossed.blocks[0].cross_attention.output, crossed.blocks[7].feed_forward.down):
        assert float(layer.weight.std()) == pytest.approx(0.02 / math.sqrt(24), rel=0.05)


def test_lora_attaches():
    peft = pytest.importorskip("peft")
    network = model()
    lora = peft.get_peft_model(network, peft.LoraConfig(r=2, target_modules=["query", "value"], task_type="CAUSAL_LM"))
    lora(tokens(), labels=tokens()).loss.backward()
    trained = [name for name, parameter in lora.named_parameters() if parameter.grad is not None]
    assert len(trained) == 2 * 2 * 2
    assert all("lora_" in name for name in trained)


def test_labels_and_spans_are_learned():
    ids, mask = tokens(), torch.ones(2, 12, dtype=torch.long)
    mask[1, 7:] = 0
    for shape in ("encoder", "decoder"):
        network = heads.LyditeTransformerForSequenceClassification(config(shape=shape, num_labels=3)).eval()
        out = network(ids, mask, labels=torch.tensor([0, 2]))
        assert out.logits.shape == (2, 3)
        assert torch.allclose(out.logits[1], network(ids[1:, :7]).logits[0], atol=1e-5)
        assert float(out.loss) == pytest.approx(-float(out.logits.log_softmax(-1)[[0, 1], [0, 2]].mean()), abs=1e-5)
        spans = heads.LyditeTransformerForQuestionAnswering(config(shape=shape))(
            ids, mask, start_positions=torch.tensor([1, 2]), end_positions=torch.tensor([3, 2])
        )
        assert spans.start_logits.shape == spans.end_logits.shape == (2, 12)
        assert spans.loss > 0


def test_pairs_add_their_losses():
    network, ids = heads.LyditeTransformerForPreTraining(config(shape="encoder", type_vocab_size=2)).eval(), tokens()
    follows = torch.tensor([0, 1])
    both = network(ids, labels=ids, next_sentence_label=follows).loss
    parts = network(ids, labels=ids).loss + network(ids, next_sentence_label=follows).loss
    assert float(both) == pytest.approx(float(parts))


# ---------------------------------------------------------------------------------- saving and settings


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shape", AUTO)
def test_saving_and_loading_give_it_back(shape, tied, tmp_path):
    network = model(shape=shape, tie_word_embeddings=tied, position="learned", type_vocab_size=2)
    network.save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).to_diff_dict() == network.config.to_diff_dict()
    again, report = AUTO[shape].from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    first, second = network.state_dict(), again.state_dict()
    assert set(first) == set(second)
    assert all(torch.equal(first[key], second[key]) for key in first)
    for one in (network, again):
        assert (one.get_output_embeddings().weight is one.get_input_embeddings().weight) == tied
        one.resize_token_embeddings(60)
        assert one.get_output_embeddings().out_features == one.get_input_embeddings().num_embeddings == 60


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"shape": "both"}, "shape must be one of encoder, decoder, encoder-decoder, not 'both'"),
        ({"activation": "tanh"}, "activation must be one of"),
        ({"activaton": "relu"}, "did you mean 'activation'"),
        ({"hidden_size": 33}, "hidden_size 33 must be a multiple of num_attention_heads 4"),
        ({"num_key_value_heads": 3}, "multiple of num_key_value_heads 3"),
        ({"head_dim": 5}, "the width must be even"),
        ({"decoder_layers": 2}, "decoder_layers is for"),
        ({"position": "learned", "max_position_embeddings": None}, "need max_position_embeddings"),
        ({"position_offset": 2}, "position_offset is for learned"),
        ({"relative_num_buckets": 6}, "multiple of 4"),
        ({"num_hidden_layers": 0}, "at least 1"),
        ({"shape": "encoder", "logit_scale": 2.0}, "logit_scale"),
    ],
)
def test_settings_that_make_no_sense_are_one_line(settings, named):
    with pytest.raises(ModelError, match=named) as refused:
        config(**settings)
    assert "\n" not in str(refused.value)


def test_a_class_of_another_shape_is_refused():
    with pytest.raises(ModelError, match="LyditeTransformerForCausalLM needs the shape decoder, not encoder"):
        AutoModelForCausalLM.from_config(config(shape="encoder"))
    with pytest.raises(ModelError, match="decoder_start_token_id"):
        model(shape="encoder-decoder", decoder_start_token_id=None)(tokens(), labels=tokens())


def test_flash_attention_is_not_offered_where_it_would_drop_biases():
    assert [model(position=position)._supports_flash_attn for position in ("rotary", "relative", "alibi")] == [
        True,
        False,
        False,
    ]
