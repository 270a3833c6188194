"""Logs of other systems, made by hand in the forms that those systems write."""

import json
import math

QUESTIONS = [
    ("Which animal barks?", ["a cat", "a dog", "a fish"], 1, [-4.0, -1.0, -6.0]),
    ("What falls in winter?", ["snow", "sand", "salt"], 0, [-2.5, -2.0, -7.0]),
    ("What do bees make?", ["milk", "honey", "oil"], 1, [-5.0, -0.5, -3.0]),
    ("Where do fish live?", ["in trees", "in water", "in sand"], 1, [-3.0, -1.5, -2.0]),
]


def harness(folder, *, model="org/small", flips=(), shots=0, time="2026-01-02T03-04-05.000006", accuracy=None):
    """A folder as lm-eval writes it: multiple choice. `flips`: questions whose answer is another one."""
    folder.mkdir(parents=True, exist_ok=True)
    lines, right = [], []
    for number, (question, choices, gold, totals) in enumerate(QUESTIONS):
        totals = [-t - 8 for t in totals] if number in flips else totals
        hit = float(max(range(3), key=totals.__getitem__) == gold)
        right.append(hit)
        front = "Example\n\n" * shots + f"Question: {question}\nAnswer:"
        lines.append(
            {
                "doc_id": number,
                "doc": {"question": question, "choices": choices, "answer": gold},
                "target": str(gold),
                "arguments": {f"gen_args_{i}": {"arg_0": front, "arg_1": f" {c}"} for i, c in enumerate(choices)},
                "resps": [[[str(total), "False"]] for total in totals],
                "filtered_resps": [[str(total), "False"] for total in totals],
                "filter": "none",
                "metrics": ["acc"],
                "doc_hash": f"{number:064x}",
                "prompt_hash": "0" * 64,
                "target_hash": "1" * 64,
                "acc": hit,
            }
        )
    mean = sum(right) / len(right)
    stderr = math.sqrt(sum((x - mean) ** 2 for x in right) / (len(right) - 1) / len(right))
    results = {
        "results": {
            "animals": {
                "alias": "animals",
                "sample_len": 4,
                "acc,none": mean if accuracy is None else accuracy,
                "acc_stderr,none": stderr,
            }
        },
        "configs": {"animals": {"task": "animals", "output_type": "multiple_choice", "num_fewshot": shots}},
        "versions": {"animals": 1.0},
        "n-shot": {"animals": shots},
        "higher_is_better": {"animals": {"acc": True}},
        "n-samples": {"animals": {"original": 4, "effective": 4}},
        "config": {"model": "hf", "model_args": f"pretrained={model},dtype=float32", "limit": None, "batch_size": "8"},
        "date": 1767323045.0,
        "lm_eval_version": "0.4.13",
        "model_name": model,
        "task_hashes": {"animals": f"hash{shots}"},
    }
    (folder / f"results_{time}.json").write_text(json.dumps(results, indent=2))
    path = folder / f"samples_animals_{time}.jsonl"
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    return folder


def harness_task(folder, task, output_type, reported, rows):
    """One more task in a folder of its own: `rows` are (arguments, resps, fields of the line)."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, (arguments, answers, fields) in enumerate(rows):
        lines.append(
            {
                "doc_id": number,
                "doc": {"n": number},
                "target": "x",
                "arguments": {
                    f"gen_args_{i}": {f"arg_{j}": a for j, a in enumerate(args)} for i, args in enumerate(arguments)
                },
                "resps": answers,
                "filtered_resps": [],
                "filter": "none",
                "metrics": [],
                "doc_hash": f"{number + 100:064x}",
                **fields,
            }
        )
    results = {
        "results": {task: {"alias": task, **reported}},
        "configs": {task: {"output_type": output_type}},
        "versions": {task: 2},
        "config": {"model": "hf", "model_args": {"pretrained": "org/small"}},
        "higher_is_better": {task: {}},
    }
    (folder / "results_2026.json").write_text(json.dumps(results))
    (folder / f"samples_{task}_2026.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def inspect_log(model="openai/small", wrong=()):
    samples = []
    for number, (question, choices, gold, _) in enumerate(QUESTIONS):
        samples.append(
            {
                "id": number + 1,
                "epoch": 1,
                "input": [{"role": "user", "content": question}] if number % 2 else question,
                "choices": choices,
                "target": "ABC"[gold],
                "output": {
                    "model": model,
                    "choices": [{"message": {"role": "assistant", "content": "ANSWER: B"}, "stop_reason": "stop"}],
                    "usage": {"output_tokens": 4},
                },
                "scores": {"choice": {"value": "I" if number in wrong else "C", "answer": "B"}},
            }
        )
    right = [float(s["scores"]["choice"]["value"] == "C") for s in samples]
    mean = sum(right) / len(right)
    return {
        "version": 2,
        "status": "success",
        "eval": {
            "created": "2026-01-02T03:04:05+00:00",
            "task": "animals",
            "task_version": 0,
            "dataset": {"name": "animals"},
            "model": model,
            "config": {"limit": 4},
            "packages": {"inspect_ai": "0.3.99"},
        },
        "plan": {"config": {"temperature": 0.0}},
        "results": {
            "total_samples": 4,
            "completed_samples": 4,
            "scores": [
                {
                    "name": "choice",
                    "scorer": "choice",
                    "metrics": {
                        "accuracy": {"name": "accuracy", "value": mean},
                        "stderr": {"name": "stderr", "value": 0.2},
                    },
                }
            ],
        },
        "samples": samples,
    }


def lighteval_rows(later, wrong=()):
    rows = []
    for number, (question, choices, gold, _) in enumerate(QUESTIONS):
        metric = {"acc": 0 if number in wrong else 1}
        if later:
            doc = {"query": question, "choices": choices, "gold_index": gold}
            rows.append({"doc": doc, "metric": metric, "model_response": {"text": [choices[gold]]}})
        else:
            rows.append(
                {
                    "full_prompt": question,
                    "example": question,
                    "choices": choices,
                    "gold_index": [gold],
                    "metrics": metric,
                }
            )
    return rows
