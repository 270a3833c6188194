"""Their tasks on our path: the numbers of `lm_eval.evaluate`, code only where it was allowed, and the run folder."""

import json
import sys

import pytest

pytest.importorskip("lm_eval")

import lm_eval
import numpy as np
from lm_eval.api import metrics as theirs
from lm_eval.tasks import TaskManager

from lydite.cli.app import main
from lydite.errors import TaskError
from lydite.evaluate import evaluate
from lydite.groups import group_estimates
from lydite.lm_eval.model import LyditeLM
from lydite.lm_eval.scoring import reading
from lydite.lm_eval.tasks import Options, _task, load_lm_eval_tasks
from lydite.models import load_model
from lydite.runs import find_runs, read_run
from tests.lm_eval.configurations import QA, all_tasks, chat_tasks
from tests.tiny import save_tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(save_tiny(tmp_path_factory.mktemp("tiny"), "llama", scale=10, bos=True, chat=True))


def harness(folder, configurations, monkeypatch, **options):
    """Their own evaluation of the same tasks, with our model in parity mode, which tests/lm_eval/test_model.py holds to
    their `hf` model."""
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)
    lm = LyditeLM(folder, device="cpu", dtype="float32", parity=True)
    manager = TaskManager(include_defaults=False)
    return lm_eval.simple_evaluate(lm, tasks=configurations, task_manager=manager, bootstrap_iters=0, **options)


@pytest.mark.parametrize("chat", [False, True], ids=["text", "chat"])
def test_metrics_are_those_of_their_own_evaluation(folder, monkeypatch, chat):
    made = chat_tasks() if chat else all_tasks()
    extra = {"apply_chat_template": True, "fewshot_as_multiturn": True} if chat else {}
    results = harness(folder, made, monkeypatch, **extra)
    model = load_model(folder, settings={"rules": "lm_eval"})
    loaded = TaskManager(include_defaults=False).load(chat_tasks() if chat else all_tasks())["tasks"]
    count = 0
    for name, task in loaded.items():
        run = evaluate(model, _task(name, task, Options(chat=chat)))
        for estimate in run.estimates:
            metric, _, key = estimate.metric.partition(",")
            expected = results["results"][name][f"{metric},{key or 'none'}"]
            assert estimate.value == pytest.approx(expected, rel=1e-5), (name, estimate.metric)
            assert "rules lm_eval" in estimate.signature
            assert estimate.n_failed == 0
            count += 1
    assert count == (3 if chat else 30)


NUMBERS = np.random.default_rng(0)
GOLD, GUESS = NUMBERS.integers(0, 2, 40), NUMBERS.integers(0, 2, 40)
CLASSES = NUMBERS.integers(0, 4, 40)
ITEMS = {
    "mean": (theirs.mean, [float(x) for x in NUMBERS.normal(size=40)]),
    "median": (theirs.median, [float(x) for x in NUMBERS.normal(size=40)]),
    "f1": (theirs.f1_score, list(zip(GOLD.tolist(), GUESS.tolist(), strict=True))),
    "mcc": (theirs.matthews_corrcoef, list(zip(CLASSES.tolist(), np.roll(CLASSES, 1).tolist(), strict=True))),
    "perplexity": (theirs.perplexity, [-1.5, -2.0, -0.25]),
    "weighted": (theirs.weighted_perplexity, [(-10.0, 4), (-3.0, 2), (0.0, 0)]),
    "bits": (theirs.bits_per_byte, [(-10.0, 40), (-3.0, 22)]),
    "brier": (theirs.brier_score, [(0, np.array([0.5, 0.5])), (1, np.array([0.2, 0.8]))]),
    "bleu": (theirs.bleu, [("the cat sat on the mat", "the cat sat on a mat"), ("he saw her", "he had seen her then")]),
    "chrf": (theirs.chrf, [("the cat sat", "the cat sits"), ("he saw her", "he had seen her")]),
    "chrf++": (theirs.chrfpp, [("the cat sat", "the cat sits"), ("he saw her", "he had seen her")]),
    "ter": (theirs.ter, [("the cat sat", "the cat sits"), ("he saw her", "he had seen her")]),
    "own": (lambda items: max(a - b for a, b in items), [(1.0, 2.0), (5.0, 0.5)]),
}


@pytest.mark.parametrize("name", ITEMS)
def test_each_aggregation_is_theirs_on_all_samples_and_on_a_resample(name):
    aggregation, items = ITEMS[name]
    one = reading(name, name, aggregation, True)
    read = [one.read(item) for item in items]
    weights = np.random.default_rng(1).multinomial(len(items), np.full(len(items), 1 / len(items)))
    for times in (np.ones(len(items), dtype=int), weights):
        expected = aggregation([item for item, count in zip(items, times, strict=True) for _ in range(count)])
        rows = np.array([stats if stats else (value,) for value, stats in read])
        if one.metric.finish is not None:
            found = float(one.metric.finish(times @ rows))
        elif one.metric.finish_rows is not None:
            found = one.metric.finish_rows(rows, times.astype(float))
        else:
            found = float(times @ rows[:, 0] / times.sum())
        assert found == pytest.approx(float(expected), rel=1e-9, nan_ok=True)


def write(path, text):
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def yaml_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    where = tmp_path / "yaml"
    where.mkdir()
    write(where / "rows.jsonl", "\n".join(map(json.dumps, QA)))
    write(
        where / "base.yaml",
        f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: {where}/rows.jsonl}}}}\noutput_type: multiple_choice\n"
        "test_split: test\ndoc_to_text: 'Question: {{question}}'\ndoc_to_target: answer\ndoc_to_choice: choices\n"
        "metric_list: [{metric: acc}]\nmetadata: {version: 2.0}\n",
    )
    write(where / "one.yaml", "task: one\ninclude: base.yaml\n")
    write(where / "two.yaml", "task: two\ninclude: base.yaml\ndoc_to_text: question\ntag: pair\n")
    write(
        where / "all.yaml",
        "group: all\ntask: [one, two]\naggregate_metric_list: [{metric: acc, weight_by_size: false}]\n",
    )
    write(
        where / "helper.py",
        "import pathlib\npathlib.Path(__file__).with_name('ran').touch()\ndef text(doc): return doc['question']\n",
    )
    write(where / "coded.yaml", "task: coded\ninclude: coded_base.yaml\n")
    write(where / "coded_base.yaml", "include: base.yaml\ndoc_to_text: !function helper.text\n")
    write(where / "group_of_code.yaml", "group: group_of_code\ntask: [one, coded]\n")
    write(where / "twice.yaml", "task: twice\ninclude: base.yaml\ninclude: coded_base.yaml\n")
    write(where / "merged.yaml", "task: merged\n<<: {include: coded_base.yaml}\n")
    return where


def test_groups_tags_files_and_versions(yaml_folder):
    tasks, groups = load_lm_eval_tasks(["lm_eval:all"], Options(include_path=yaml_folder))
    assert [task.name for task in tasks] == ["lm_eval:one", "lm_eval:two"]
    assert (groups[0].name, groups[0].weighting) == ("lm_eval:all", "tasks")
    assert tasks[0].version == 2
    assert tasks[0].settings["task_version"] == "2.0"
    runs = {task.name: evaluate(load_model("random"), task) for task in tasks}
    [group] = group_estimates("random", runs, groups)
    assert group.estimates[0].value == pytest.approx(np.mean([run.estimates[0].value for run in runs.values()]))
    assert runs["lm_eval:one"].estimates[0].chance == pytest.approx(1 / 3)
    assert [t.name for t in load_lm_eval_tasks(["lm_eval:pair"], Options(yaml_folder))[0]] == ["lm_eval:two"]
    assert [t.name for t in load_lm_eval_tasks([f"lm_eval:{yaml_folder}/one.yaml"], Options(yaml_folder))[0]] == [
        "lm_eval:one"
    ]


@pytest.mark.parametrize("name", ["coded", "group_of_code", "coded.yaml", "twice", "merged"])
def test_code_runs_only_where_it_is_allowed(yaml_folder, name):
    spec = "lm_eval:" + (str(yaml_folder / name) if name.endswith("yaml") else name)
    with pytest.raises(
        TaskError, match=r"runs code: !function helper\.text in .*coded_base\.yaml; read it, then allow it"
    ):
        load_lm_eval_tasks([spec], Options(include_path=yaml_folder))
    assert not (yaml_folder / "ran").exists()
    tasks, _ = load_lm_eval_tasks([spec], Options(include_path=yaml_folder, allow_code=True))
    assert (yaml_folder / "ran").exists()
    assert tasks[-1].samples("test")[0].input == QA[0]["question"]


def test_templates_read_rows_and_nothing_else(yaml_folder):
    write(
        yaml_folder / "sly.yaml",
        'task: sly\ninclude: base.yaml\ndoc_to_text: "{{question.__class__.__mro__[1].__subclasses__()}}"\n',
    )
    with pytest.raises(TaskError, match="unsafe"):
        load_lm_eval_tasks(["lm_eval:sly"], Options(include_path=yaml_folder))


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        ("metric_list: [{metric: ./made_up_metric.py}]", "the metric script"),
        ("metric_list: [{metric: acc, hf_evaluate: true}]", "hf_evaluate: true"),
        ("use_prompt: promptsource:x", "use_prompt"),
        ("dataset_path: pandas", "pickled data"),
        ("dataset_kwargs: {trust_remote_code: true}", "trust_remote_code"),
    ],
)
def test_other_ways_to_run_code_need_the_flag_too(yaml_folder, keys, what):
    write(yaml_folder / "other.yaml", f"task: other\ninclude: base.yaml\n{keys}\n")
    with pytest.raises(TaskError, match=what):
        load_lm_eval_tasks(["lm_eval:other"], Options(include_path=yaml_folder))


def test_mistakes_are_one_line(yaml_folder):
    with pytest.raises(TaskError, match=r"^no folder .*give --include-path"):
        load_lm_eval_tasks(["lm_eval:one"], Options(include_path=yaml_folder / "nowhere"))
    write(yaml_folder / "broken.yaml", "task: broken\ninclude: base.yaml\ndoc_to_text: '{{no_such_column}}'\n")
    with pytest.raises(TaskError, match=r"^lm-evaluation-harness cannot load broken: [^\n]*no_such_column[^\n]*$"):
        load_lm_eval_tasks(["lm_eval:broken"], Options(include_path=yaml_folder))


def command(*words):
    with pytest.raises(SystemExit) as stop:
        main(list(map(str, words)))
    return stop.value.code


def test_the_command_line_run_folder_from_and_rescore(yaml_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = ["--include-path", yaml_folder, "--out", tmp_path / "out"]
    assert command("evaluate", "random", "--tasks", "lm_eval:all,mini_nli_en", "--limit", 4, *options) == 0
    names = {read_run(leaf).task.name: leaf for leaf in find_runs(tmp_path / "out")}
    assert set(names) == {"lm_eval:one", "lm_eval:two", "mini_nli_en"}
    assert "lm_eval:all" in capsys.readouterr().out
    assert command("rescore", names["lm_eval:one"]) == 0
    assert command("evaluate", "uniform", "--from", names["lm_eval:one"], "--out", tmp_path / "again") == 0
    assert (tmp_path / "again" / "report.html").exists()
    assert command("evaluate", "random", "--tasks", "lm_eval:coded", *options) == 1
    assert "--trust-remote-code" in capsys.readouterr().err
    assert "lm_eval.tasks" in sys.modules
