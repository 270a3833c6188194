"""Task configurations of lm-evaluation-harness that between them ask for everything a model can be asked for.

Inline configurations with rows of their own, so that neither files nor a network are needed. Used by the parity tests.
"""

from typing import Any

TEXT = "The quick brown fox jumps over the lazy dog, and the dog sleeps on. It was the best of times, it was the worst of times. "
QA = [
    {"question": "Which animal jumps over the dog?", "choices": ["the fox", "a cat", "the mat"], "answer": 0},
    {"question": "What is seven plus five?", "choices": ["seven", "twelve", "nine"], "answer": 1},
    {
        "question": "Where did the cat sit?",
        "choices": ["on the mat", "on the dog", "in the age of wisdom"],
        "answer": 0,
    },
    {"question": "什么天气很好？", "choices": ["今天", "公园", "问题"], "answer": 0},
    {"question": "Who had seen her?", "choices": ["he", "they themselves", "she said"], "answer": 0},
]
PAIRS = [
    {"good": "The cat sits on the mat.", "bad": "The cat sit on the mat."},
    {"good": "They saw themselves.", "bad": "They saw himself."},
    {"good": "She said that he had seen her.", "bad": "She said that he have seen her."},
]
DOCUMENTS = [
    {"text": TEXT},
    {"text": "  Leading space and\nlines.\n"},
    {"text": "今天天气很好。我们去公园散步。"},
    {"text": TEXT * 6},
]
SUMS = [{"sum": f"{a} plus {b} is", "result": str(a + b)} for a, b in ((1, 2), (7, 5), (3, 4), (0, 9))]


def task(name: str, rows: list[dict[str, Any]], **config: Any) -> dict[str, Any]:
    """An inline configuration over `rows`, which are also where examples come from."""
    from datasets import Dataset

    data = {"test": Dataset.from_list(rows), "train": Dataset.from_list(rows)}
    return {"task": name, "custom_dataset": lambda **_: data, "test_split": "test", "num_fewshot": 0, **config}


CHOICES: dict[str, Any] = {
    "output_type": "multiple_choice",
    "doc_to_text": "Question: {{question}}\nAnswer:",
    "doc_to_target": "answer",
    "doc_to_choice": "choices",
    "metric_list": [{"metric": m, "aggregation": "mean", "higher_is_better": True} for m in ("acc", "acc_norm")],
}
GENERATED: dict[str, Any] = {
    "output_type": "generate_until",
    "doc_to_text": "{{sum}}",
    "doc_to_target": "{{result}}",
    "generation_kwargs": {"until": ["\n", "fox"], "do_sample": False, "max_gen_toks": 12},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}
ROLLING: dict[str, Any] = {
    "output_type": "loglikelihood_rolling",
    "doc_to_text": "",
    "doc_to_target": "text",
    "metric_list": [{"metric": m} for m in ("word_perplexity", "byte_perplexity", "bits_per_byte")],
}


def all_tasks() -> list[dict[str, Any]]:
    """Every configuration that needs no chat template."""
    long = [{**row, "question": TEXT * 4 + row["question"]} for row in QA]
    words = [
        {"text": "The quick brown fox jumps over the lazy", "last": "dog"},
        {"text": "A cat sits on a", "last": "mat"},
    ]
    blanks = [
        {"option1": "cat", "option2": "dog", "label": 0, "rest": "sits on the mat."},
        {"option1": "he", "option2": "they", "label": 1, "rest": "saw themselves."},
    ]
    brier = [
        {"metric": "brier_score", "aggregation": "brier_score", "higher_is_better": False},
        {"metric": "acc_bytes", "aggregation": "mean", "higher_is_better": True},
        {"metric": "mcc", "aggregation": "matthews_corrcoef", "higher_is_better": True},
    ]
    info = [{"metric": m, "aggregation": "mean", "higher_is_better": True} for m in ("acc", "acc_mutual_info")]
    filters = [
        {"name": "first", "filter": [{"function": "regex", "regex_pattern": r"(\w+)"}, {"function": "take_first"}]},
        {
            "name": "last",
            "filter": [
                {"function": "regex", "regex_pattern": r"(\w+)", "group_select": -1},
                {"function": "take_first"},
            ],
        },
    ]
    bleu = [{"metric": m, "aggregation": m, "higher_is_better": m != "ter"} for m in ("bleu", "chrf", "ter")]
    return [
        task("choices", QA, **CHOICES),
        task(
            "choices_shots",
            QA,
            **{**CHOICES, "num_fewshot": 2, "fewshot_split": "train", "description": "Read well.\n\n"},
        ),
        task(
            "choices_first",
            QA,
            **{**CHOICES, "num_fewshot": 2, "fewshot_split": "train", "fewshot_config": {"sampler": "first_n"}},
        ),
        task("choices_long", long, **CHOICES),
        task("choices_brier", QA, **{**CHOICES, "metric_list": brier}),
        task("choices_information", QA, **{**CHOICES, "metric_list": info}),
        task("choices_space", QA, **{**CHOICES, "doc_to_text": "{{question}} ", "target_delimiter": ""}),
        task("pairs", PAIRS, **{**CHOICES, "doc_to_text": "", "doc_to_target": 0, "doc_to_choice": "{{[good, bad]}}"}),
        task(
            "inputs",
            blanks,
            **{
                **CHOICES,
                "doc_to_text": "label",
                "doc_to_target": "{{rest}}",
                "doc_to_choice": "{{['Now the ' + option1, 'Now the ' + option2]}}",
            },
        ),
        task(
            "last_word",
            words,
            output_type="loglikelihood",
            doc_to_text="{{text}}",
            doc_to_target="{{' ' + last}}",
            metric_list=[{"metric": "perplexity"}, {"metric": "acc"}],
        ),
        task("documents", DOCUMENTS, **ROLLING),
        task("sums", SUMS, **GENERATED),
        task(
            "sums_filtered", SUMS, **{**GENERATED, "filter_list": filters, "num_fewshot": 1, "fewshot_split": "train"}
        ),
        task("sums_bleu", SUMS, **{**GENERATED, "metric_list": bleu}),
    ]


def chat_tasks() -> list[dict[str, Any]]:
    """Configurations for a chat template."""
    return [
        task("chat_choices", QA, **{**CHOICES, "num_fewshot": 1, "fewshot_split": "train", "description": "Answer."}),
        task("chat_sums", SUMS, **{**GENERATED, "num_fewshot": 1, "fewshot_split": "train"}),
    ]
