"""`LyditeLM` beside lm-evaluation-harness's own `hf` model on tiny random checkpoints."""

import functools
import json
import math
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("lm_eval")

import lm_eval
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from lydite.errors import ModelError
from lydite.lm_eval.model import LyditeLM
from tests.lm_eval.configurations import all_tasks, chat_tasks
from tests.tiny import save_tiny

NEAR = 2e-4
"""Nats of a whole request, float32, weights ten times as large as at the start."""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Without their list of installed packages, which takes longer than all that is tested here."""
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)


def checkpoint(tmp_path_factory, bos: bool):
    name = "with_bos" if bos else "without_bos"
    return str(save_tiny(tmp_path_factory.mktemp(name), "llama", scale=10, bos=bos, chat=True, max_tokens=128))


@pytest.fixture(scope="module", params=[False, True], ids=["no_bos", "bos"])
def both(request, tmp_path_factory):
    folder = checkpoint(tmp_path_factory, request.param)
    return HFLM(folder, device="cpu", dtype="float32", batch_size=4), LyditeLM(
        folder, device="cpu", dtype="float32", parity=True
    )


def run(lm, tasks, **options):
    manager = TaskManager(include_defaults=False)
    return lm_eval.simple_evaluate(
        lm, tasks=tasks, task_manager=manager, bootstrap_iters=0, log_samples=True, **options
    )


def same_requests(ours, theirs):
    """Every request of every sample: the same arguments, log-probabilities within rounding, the same text."""
    count = 0
    for name, samples in theirs["samples"].items():
        for mine, other in zip(ours["samples"][name], samples, strict=True):
            assert [list(a) for a in mine["arguments"]] == [list(a) for a in other["arguments"]]
            for a, b in zip(mine["resps"], other["resps"], strict=True):
                count += 1
                if isinstance(b[0], str):
                    assert a == b, name
                    continue
                (left, *greedy), (right, *their_greedy) = np.atleast_1d(a[0]), np.atleast_1d(b[0])
                assert left == pytest.approx(right, abs=NEAR), (name, mine["arguments"])
                assert greedy == their_greedy
    return count


def same_metrics(ours, theirs):
    for name, metrics in theirs["results"].items():
        for key, value in metrics.items():
            if isinstance(value, float | int):
                assert ours["results"][name][key] == pytest.approx(value, rel=1e-4), (name, key)


def test_every_request_and_metric_is_theirs(both):
    theirs, ours = (run(lm, all_tasks()) for lm in both)
    assert same_requests(ours, theirs) > 80
    same_metrics(ours, theirs)
    assert ours["config"]["lydite_rules"] == "lm_eval"


def test_chat_templates(both):
    theirs, ours = (
        run(lm, chat_tasks(), apply_chat_template=True, fewshot_as_multiturn=True, system_instruction="Be brief.")
        for lm in both
    )
    assert same_requests(ours, theirs) == 19
    same_metrics(ours, theirs)


@pytest.mark.parametrize("add_bos_token", [True, False])
def test_add_bos_token(tmp_path_factory, add_bos_token):
    folder = checkpoint(tmp_path_factory, True)
    options = {"device": "cpu", "dtype": "float32", "add_bos_token": add_bos_token}
    requests = [
        instance("loglikelihood", ("The quick brown", " fox"), 0),
        instance("loglikelihood", ("", "The fox"), 1),
    ]
    theirs, ours = HFLM(folder, **options), LyditeLM(folder, parity=True, **options)
    for mine, other in zip(ours.loglikelihood(requests), theirs.loglikelihood(requests), strict=True):
        assert mine[0] == pytest.approx(other[0], abs=NEAR)


def instance(kind, arguments, doc_id, idx=0, repeats=1):
    return Instance(kind, {}, arguments, idx, ("made", doc_id, repeats))


CUT = ("The ca", "t sat on the mat")
"""Tokenized alone, the context ends inside a token of the whole."""


def test_joins_inside_a_token(both):
    """Their cut in parity mode, whole tokens in the default; both say so."""
    theirs, ours = both
    requests = [instance("loglikelihood", CUT, 0)]
    [(right, _)], [(left, _)] = theirs.loglikelihood(requests), ours.loglikelihood(requests)
    assert left == pytest.approx(right, abs=NEAR)
    default = LyditeLM(ours.model.info.source, device="cpu", dtype="float32")
    [(whole, _)] = default.loglikelihood(requests)
    assert abs(whole - right) > 0.1
    assert default.get_model_info()["lydite_rules"] == "lydite"


def test_bos_is_not_predicted_from_bos_by_default(tmp_path_factory):
    folder = checkpoint(tmp_path_factory, True)
    texts = [instance("loglikelihood_rolling", ("The cat sat on the mat.",), 0)]
    [theirs] = HFLM(folder, device="cpu", dtype="float32").loglikelihood_rolling(texts)
    [parity] = LyditeLM(folder, device="cpu", dtype="float32", parity=True).loglikelihood_rolling(texts)
    [ours] = LyditeLM(folder, device="cpu", dtype="float32").loglikelihood_rolling(texts)
    [(scored, _)] = HFLM(folder, device="cpu", dtype="float32").loglikelihood(
        [instance("loglikelihood", ("", texts[0].args[0]), 0)]
    )
    assert parity == pytest.approx(theirs, abs=NEAR)
    assert ours == pytest.approx(scored, abs=NEAR)  # the same text after BOS, without log p(BOS | BOS)
    assert ours - theirs > 0.1


def test_what_has_no_score_ends_with_one_line_and_keeps_the_rest(both):
    theirs, ours = both
    kept = []
    ours.cache_hook.add_partial = lambda kind, arguments, answer: kept.append((kind, arguments, answer))
    requests = [instance("loglikelihood", ("The cat", ""), 0), instance("loglikelihood", ("The cat", " sat"), 1)]
    with pytest.raises(
        ModelError, match=r"1 of 2 requests have no score.*document 0 of made: the continuation is empty"
    ):
        ours.loglikelihood(requests)
    assert [arguments for _, arguments, _ in kept] == [("The cat", " sat")]
    nothing = [instance("loglikelihood_rolling", ("",), 0)]
    assert ours.loglikelihood_rolling(nothing) == pytest.approx(theirs.loglikelihood_rolling(nothing), abs=NEAR)


def test_sampled_repeats_differ_and_come_again(both):
    _, ours = both
    options = {"until": [], "do_sample": True, "temperature": 1.0, "max_gen_toks": 8}
    requests = [instance("generate_until", ("The cat", options), 0, repeats=4)] * 4
    texts = ours.generate_until(requests)
    assert len(set(texts)) > 1
    assert ours.generate_until(requests) == texts


def test_use_cache_and_log_samples_through_their_command_line(tmp_path, tmp_path_factory, monkeypatch, capsys):
    from lydite.lm_eval.command import main

    folder = checkpoint(tmp_path_factory, False)
    rows = [
        {"q": "The cat sat on the", "c": ["mat", "dog"], "a": 0},
        {"q": "The dog sleeps", "c": ["on", "off"], "a": 0},
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (tmp_path / "own.yaml").write_text(
        f"task: own\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {tmp_path}/rows.jsonl}}}}\n"
        "output_type: multiple_choice\ntest_split: test\ndoc_to_text: q\ndoc_to_target: a\ndoc_to_choice: c\n"
        "metric_list: [{metric: acc}]\n",
        encoding="utf-8",
    )
    # Their index of built-in tasks takes longer than all that is tested here.
    monkeypatch.setattr(
        "lm_eval.tasks.TaskManager.__init__", functools.partialmethod(TaskManager.__init__, include_defaults=False)
    )
    arguments = [
        "--model",
        "lydite",
        "--model_args",
        f"pretrained={folder},dtype=float32",
        "--tasks",
        str(tmp_path / "own.yaml"),
    ]
    arguments += [
        "--device",
        "cpu",
        "--use_cache",
        str(tmp_path / "cache"),
        "--log_samples",
        "--output_path",
        str(tmp_path / "out"),
    ]
    for _ in range(2):
        monkeypatch.setattr("sys.argv", ["lydite-lm-eval", *arguments])
        main()
    assert "|acc" in capsys.readouterr().out
    [first, second] = sorted((tmp_path / "out").rglob("results_*.json"))
    left, right = (json.loads(path.read_text(encoding="utf-8"))["results"]["own"] for path in (first, second))
    assert left == right
    assert list((tmp_path / "out").rglob("samples_own_*.jsonl"))
    monkeypatch.setattr(
        "sys.argv",
        [
            "lydite-lm-eval",
            "--model",
            "lydite",
            "--model_args",
            "pretrained=no/where/at/all",
            "--tasks",
            str(tmp_path / "own.yaml"),
        ],
    )
    with pytest.raises(SystemExit, match=r"^lydite-lm-eval: [^\n]*no/where/at/all[^\n]*$"):
        main()


def test_their_own_models_are_there_beside_ours():
    code = "import lydite.lm_eval.model\nfrom lm_eval.api.registry import get_model\nprint(get_model('dummy'), get_model('lydite'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "DummyLM" in done.stdout
    assert "LyditeLM" in done.stdout


def test_a_null_model_lands_on_chance():
    lm = LyditeLM("random")
    requests = [instance("loglikelihood", ("a", f" {word}"), i) for i, word in enumerate(("b", "c"))]
    assert all(math.isfinite(total) for total, _ in lm.loglikelihood(requests))
    with pytest.raises(ModelError, match="no chat template"):
        lm.chat_template(True)
