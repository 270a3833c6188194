"""The catalogue's own models, fetched for real, against llama.cpp.

Token ids and log-probabilities were printed by llama.cpp (ik_llama.cpp through ik-llama-cpp-python 0.1.5, the same GGUF
files with their blocks unpacked to float32, CPU, no flash attention), not by Lydite.
"""

import pytest

from lydite.models import load_model
from lydite.models.sources import find_checkpoint
from lydite.types import Decoding, GenerateRequest, ScoreRequest

TEXT = "The capital of France is Paris. In 2024,\n\n12 apples cost   345 yen; 今天天气很好。"

# fmt: off
SMOLLM2 = (
    [504, 3575, 282, 4649, 314, 7042, 30, 533, 216, 34, 32, 34, 36, 28, 1116, 33, 34, 13855, 1708, 333, 35, 36, 37, 329,
     264, 43, 216, 15076, 228, 18614, 119, 18614, 119, 177, 125, 238, 29157, 226, 48392, 138, 19076],
    [-11.539, -0.338, -2.44, -0.451, -0.259, -0.38, -3.706, -1.813, -0.341, -0.058, -0.295, -2.966, -0.141, -14.599,
     -1.919, -2.337, -12.374, -4.702, -8.638, -2.373, -3.41, -3.676, -8.899, -2.102, -4.553, -1.277, -14.86, -3.462,
     -0.477, -0.004, -5.617, -0.309, -2.403, -0.698, -5.218, -5.976, -0.904, -2.685, -0.025, -3.018],
)
GEMMA3 = (
    [2, 818, 5279, 529, 7001, 563, 9079, 236761, 799, 236743, 236778, 236771, 236778, 236812, 236764, 108, 236770, 236778,
     36157, 2157, 139, 236800, 236812, 236810, 38977, 236793, 142652, 122362, 55824, 236924],
    [-2.937, -9.663, -0.866, -5.112, -1.352, -2.478, -0.875, -3.442, -1.97, -0.537, -0.007, -1.466, -2.756, -0.311,
     -8.934, -4.763, -2.639, -13.283, -5.399, -7.908, -2.935, -2.877, -2.911, -5.142, -5.794, -19.296, -9.497, -2.643,
     -2.664],
)
# fmt: on


def check(name, oracle, *, prompt, expected):
    ids, logprobs = oracle
    model = load_model(name)
    tokenizer = model.encoder.tokenizer
    assert tokenizer(TEXT)["input_ids"] == ids
    has_bos = ids[0] == tokenizer.bos_token_id
    first = tokenizer.decode([ids[0]])
    # Without BOS the first token is context; with it the whole text is scored.
    context, continuation = ("", TEXT) if has_bos else (first, TEXT.removeprefix(first))
    requests = [
        ScoreRequest(sample_id="a", index=0, context=context, continuation=continuation),
        GenerateRequest(sample_id="a", index=1, prompt=prompt, decoding=Decoding(max_new_tokens=8)),
    ]
    answers = dict(model.answer(requests))
    # float16 weights here, float16 keys and values there
    assert answers[0].logprobs == pytest.approx(logprobs, abs=0.05)
    assert expected in answers[1].text
    return model


@pytest.mark.real
def test_smollm2_like_llama_cpp():
    model = check("smollm2-135m-instruct", SMOLLM2, prompt="The capital of France is", expected="Paris")
    assert model.info.parameters == 134_515_008
    assert model.info.max_tokens == 8192
    tokenizer = model.encoder.tokenizer
    messages = [{"role": "user", "content": "Hi"}]
    chat = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert chat.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    assert tokenizer(chat)["input_ids"].count(1) == 3  # markers are single tokens


@pytest.mark.real
@pytest.mark.slow
def test_gemma3_like_llama_cpp():
    model = check("gemma-3-270m", GEMMA3, prompt="The three primary colours are red,", expected="blue")
    assert model.info.parameters == 268_098_176
    assert model.info.settings["bos"].startswith("<bos>")


@pytest.mark.real
def test_generation_stops_at_the_end_of_a_turn():
    from transformers import GenerationConfig

    folder = find_checkpoint("smollm2-135m-instruct").folder
    assert GenerationConfig.from_pretrained(folder).eos_token_id == [2, 0]
