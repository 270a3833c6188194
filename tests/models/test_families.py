"""Which family a config.json names, for the configs that checkpoints on the hub carry."""

import json
from pathlib import Path

import pytest

from lydite.errors import ModelError
from lydite.models.families import family_of, family_of_config


@pytest.mark.parametrize(
    ("family", "config"),
    [
        ("causal", {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}),
        ("causal", {"model_type": "gpt2", "architectures": ["GPT2Model"]}),
        ("causal", {"model_type": "gpt2"}),
        ("causal", {"model_type": "gpt2", "architectures": ["GPT2DoubleHeadsModel"]}),
        ("causal", {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}),
        ("causal", {"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"]}),
        ("causal", {"model_type": "bert", "architectures": ["BertLMHeadModel"], "is_decoder": True}),
        ("causal", {"model_type": "xlm", "architectures": ["XLMWithLMHeadModel"], "causal": True}),
        ("causal", {"model_type": "mine", "architectures": ["MineForCausalLM"], "auto_map": {}}),
        ("masked", {"model_type": "xlm", "architectures": ["XLMWithLMHeadModel"]}),
        ("masked", {"model_type": "bert", "architectures": ["BertForMaskedLM"]}),
        ("masked", {"model_type": "bert", "architectures": ["BertForPreTraining"]}),
        ("masked", {"model_type": "roberta", "architectures": ["RobertaForMaskedLM"]}),
        ("masked", {"model_type": "electra", "architectures": ["ElectraForMaskedLM"]}),
        ("masked", {"model_type": "deberta-v2"}),
        ("masked", {"model_type": "lydite_transformer", "shape": "encoder"}),
        ("causal", {"model_type": "lydite_transformer", "shape": "decoder"}),
        ("seq2seq", {"model_type": "lydite_transformer", "shape": "encoder-decoder", "is_encoder_decoder": True}),
        ("seq2seq", {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True}),
        ("seq2seq", {"model_type": "bart", "architectures": ["BartModel"], "is_encoder_decoder": True}),
        ("permutation", {"model_type": "xlnet", "architectures": ["XLNetLMHeadModel"]}),
        (
            "classifier",
            {"model_type": "bart", "architectures": ["BartForSequenceClassification"], "is_encoder_decoder": 1},
        ),
        ("classifier", {"model_type": "xlnet", "architectures": ["XLNetForSequenceClassification"]}),
        ("span", {"model_type": "bert", "architectures": ["BertForQuestionAnswering"]}),
        ("span", {"model_type": "xlnet", "architectures": ["XLNetForQuestionAnsweringSimple"]}),
        ("lstm", {"model_type": "lydite_lstm", "architectures": ["LstmForCausalLM"]}),
        ("ngram", {"model_type": "lydite_ngram"}),
    ],
    ids=lambda value: (
        value if isinstance(value, str) else "-".join([value["model_type"], *value.get("architectures", [])])
    ),
)
def test_family(tmp_path: Path, family: str, config: dict[str, object]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert family_of(tmp_path) == family


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"model_type": "electra", "architectures": ["ElectraForPreTraining"]},
            "discriminator.*no language-model head",
        ),
        ({"model_type": "bert", "architectures": ["BertModel"]}, r"\(BertModel\) is a backbone without a head"),
        ({"model_type": "t5", "architectures": ["T5EncoderModel"]}, "backbone without a head"),
        ({"model_type": "bert", "architectures": ["BertForTokenClassification"]}, "labels single tokens"),
        ({"model_type": "xlnet", "architectures": ["XLNetForQuestionAnswering"]}, "XLNetForQuestionAnsweringSimple"),
        ({"model_type": "lydite_transformer", "shape": "ring"}, "shape 'ring'"),
        ({"model_type": "lydite_transformer", "architectures": ["LyditeTransformerModel"]}, "backbone without a head"),
        ({}, "checkpoint of no known type"),
        ({"model_type": "vit"}, "is a vit, which is no language model"),
    ],
)
def test_what_cannot_be_used_is_one_line(config: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        family_of_config(config, "mine")
    assert "\n" not in str(caught.value)


def test_folders_without_a_readable_config(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json"):
        family_of(tmp_path)
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(ModelError, match="no JSON object"):
        family_of(tmp_path)
    (tmp_path / "config.json").write_text('{"a": ')
    with pytest.raises(ModelError, match="cannot be read"):
        family_of(tmp_path)
