"""`lydite evaluate` as a person meets it: exit codes, one line for a mistake, nothing lost."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TASK = """
[task]
name = "coin"
kind = "multiple_choice"
data = "coin.jsonl"
prompt = "{{question}}"
choices = "{{choices}}"
gold = "{{gold}}"
"""


@pytest.fixture
def folder(tmp_path):
    rows = [{"question": f"Is {i} even?", "choices": ["yes", "no"], "gold": i % 2} for i in range(20)]
    (tmp_path / "coin.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (tmp_path / "coin.toml").write_text(TASK, encoding="utf-8")
    return tmp_path


def script(folder, **answer):
    path = folder / "script.json"
    path.write_text(json.dumps({"answers": [answer]}), encoding="utf-8")
    return f"scripted:{path.name}"


def command(*words):
    return [sys.executable, "-m", "lydite", *words]


def lydite(folder, *words, code=0):
    done = subprocess.run(command(*words), cwd=folder, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == code, f"{done.returncode}: {done.stderr}"
    return done


def environment():
    root = str(Path(__file__).resolve().parents[2])
    return {key: value for key, value in os.environ.items() if key != "LYDITE_DATA"} | {"PYTHONPATH": root}


def one_line(done):
    lines = [line for line in done.stderr.splitlines() if line.startswith("lydite: ")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return lines[0]


def test_table_report_and_json(folder):
    done = lydite(folder, "evaluate", "random", "uniform", "--tasks", "coin.toml", "--out", "out")
    assert "coin" in done.stdout
    assert done.stdout.splitlines()[-1] == "report: out/report.html"
    assert (folder / "out" / "report.html").exists()
    found = json.loads(lydite(folder, "evaluate", "random", "--tasks", "coin.toml", "--out", "out", "--json").stdout)
    (run,) = found["runs"]
    assert {"model", "task", "folder", "estimates"} <= run.keys()
    assert (run["model"], run["task"], run["folder"]) == ("random", "coin", "out/random/coin")
    assert run["estimates"][0]["n"] == 20


@pytest.mark.parametrize("format", ["markdown", "latex", "csv"])
def test_formats(folder, format):
    done = lydite(folder, "evaluate", "random", "--tasks", "coin.toml", "--format", format)
    assert "coin" in done.stdout


def test_nan_is_failed_samples_and_exit_code_2(folder):
    model = script(folder, logprob="nan")
    done = lydite(folder, "evaluate", model, "--tasks", "coin.toml", "--out", "out", "--json", code=2)
    (estimate, *_) = json.loads(done.stdout)["runs"][0]["estimates"]
    assert (estimate["value"], estimate["n"], estimate["n_failed"]) == (None, 0, 20)


def test_ctrl_c_keeps_what_was_finished_and_the_same_command_continues(folder):
    answers = [{"sample_id": "7", "interrupt": True}, {"logprob": -1.0}]
    ids = [json.loads(line)["id"] for line in _samples(folder)]
    answers[0]["sample_id"] = ids[7]
    (folder / "script.json").write_text(json.dumps({"answers": answers}), encoding="utf-8")
    done = lydite(folder, "evaluate", "scripted:script.json", "--tasks", "coin.toml", "--out", "out", code=130)
    assert "7 of 20 samples" in one_line(done)
    kept = (folder / "out" / "script" / "coin" / "samples.jsonl").read_bytes().count(b"\n")
    assert kept == 7


def _samples(folder):
    lydite(folder, "evaluate", "uniform", "--tasks", "coin.toml", "--out", "ids")
    return (folder / "ids" / "uniform" / "coin" / "samples.jsonl").read_text(encoding="utf-8").splitlines()


def start_slow(folder):
    """A run of twenty samples that takes four seconds; returns when some are written."""
    model = script(folder, logprob=-1.0, seconds=0.1)
    process = subprocess.Popen(
        command("evaluate", model, "--tasks", "coin.toml", "--out", "out"),
        cwd=folder,
        env=environment(),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # a background job of a script ignores Ctrl-C, and so would its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    path = folder / "out" / "script" / "coin" / "samples.jsonl"
    deadline = time.monotonic() + 60
    while not (path.exists() and path.read_bytes().count(b"\n") >= 3):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    return process, path


def test_ctrl_c_twice_and_a_second_process(folder):
    process, path = start_slow(folder)
    second = lydite(folder, "evaluate", "uniform", "--tasks", "coin.toml", "--out", "out", code=1)
    assert f"in use by another process (pid {process.pid})" in one_line(second)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    kept = path.read_bytes().count(b"\n")
    assert kept >= 3
    done = lydite(folder, "evaluate", script(folder, logprob=-1.0, seconds=0.1), "--tasks", "coin.toml", "--out", "out")
    assert "coin" in done.stdout
    assert path.read_bytes().count(b"\n") == 20


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["evaluate", "random"], "name the --tasks"),
        (["evaluate", "random", "random", "--tasks", "coin.toml"], "named twice"),
        (["evaluate", "random", "--tasks", "coin.toml", "--set", "max_new_token=3"], "max_new_tokens"),
        (["evaluate", "random", "--tasks", "coin.toml", "--frob"], "--frob"),
        (["evaluate", "randon", "--tasks", "coin.toml"], "random"),
        (["evaluate", "random", "--tasks", "coins.toml"], "coins.toml"),
        (["evaluate", "random", "--tasks", "mini_gramar"], "mini_grammar"),
        (["evaluate", "random", "--tasks", "blimp", "--data-dir", "nowhere"], "nowhere"),
        (["evaluate", "random", "--tasks", "coin.toml", "--set", "top_p"], "KEY=VALUE"),
        (["evaluate", "random", "--tasks", "coin.toml", "--set", "view=label"], "no view 'label'"),
        (["evaluate", "random", "--tasks", "coin.toml", "--set", "temperature=1e999"], "non-finite"),
        (["evaluate", "random", "--tasks", "coin.toml", "--set", "max_new_tokens=-1"], "1 or more"),
        (["evaluate", "random", "--tasks", "coin.toml", "--set", "stop_strings="], "empty stop string"),
        (["evaluate", "random", "--tasks", ","], "name the --tasks"),
        (["evaluate", "random", "--tasks", "coin.toml", "--limit", "0"], "limit"),
        (["evaluate", "random", "--from", "nothing"], "no runs in nothing"),
        (["evaluate", "./empty", "--tasks", "coin.toml"], "empty"),
        (["report", "nothing"], "nothing"),
        (["compare", "nothing", "more"], "nothing"),
        (["rescore", "nothing"], "nothing"),
        (["evaluat"], "evaluate"),
        (["evaluate", "", "--tasks", "coin.toml"], "a model has an empty name"),
        (
            ["evaluate", "random", "--tasks", "coin.toml", "--dtype", "float8"],
            "unknown --dtype 'float8'; known: float32",
        ),
        (
            ["evaluate", "random", "--tasks", "lm_eval:arc_easy", "--set", "prompt=input"],
            "--set prompt=input is not for lm_eval: tasks",
        ),
        (["evaluate", "random", "--tasks", "coin.jsonl"], "coin.jsonl is data and no task"),
        (["evaluate", "random", "--tasks", "coin"], "did you mean coin.toml?"),
        (["tasks", "coin.toml", "--model", "random"], "random reads no tokens"),
        (["report", "loop"], "loop"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_1(folder, words, part):
    (folder / "empty").mkdir()
    (folder / "loop").symlink_to("loop")
    assert part in one_line(lydite(folder, *words, code=1))


def test_from_repeats_the_settings_on_another_model(folder):
    lydite(folder, "evaluate", "random", "--tasks", "coin.toml", "--limit", "5", "--seed", "3", "--out", "one")
    done = lydite(folder, "evaluate", "uniform", "--from", "one", "--out", "two", "--json")
    (run,) = json.loads(done.stdout)["runs"]
    assert run["estimates"][0]["n"] == 5
    assert "seed 3" in run["estimates"][0]["signature"]

    def ids(out, model):
        lines = (folder / out / model / "coin" / "samples.jsonl").read_text(encoding="utf-8").splitlines()
        return {json.loads(line)["id"] for line in lines}

    assert ids("one", "random") == ids("two", "uniform")


def test_rescore_applies_a_changed_task(folder):
    lydite(folder, "evaluate", "random", "--tasks", "coin.toml", "--out", "out")
    before = json.loads((folder / "out" / "random" / "coin" / "run.json").read_text(encoding="utf-8"))
    (folder / "coin.jsonl").unlink()  # neither model nor data are needed
    done = lydite(folder, "rescore", "out")
    assert "coin" in done.stdout
    after = json.loads((folder / "out" / "random" / "coin" / "run.json").read_text(encoding="utf-8"))
    assert [e["value"] for e in after["estimates"]] == [e["value"] for e in before["estimates"]]


def test_a_narrow_screen_keeps_numbers_and_names(folder):
    lydite(folder, "evaluate", "random", "--tasks", "coin.toml", "--out", "out")
    path = folder / "out" / "random" / "coin" / "run.json"
    estimates = json.loads(path.read_text(encoding="utf-8"))["estimates"]
    values = {e["metric"]: (e["value"], *e["interval"]) for e in estimates if e["metric"] != "margin"}
    narrow = environment() | {"COLUMNS": "30"}
    words = {"env": narrow, "cwd": folder, "capture_output": True, "text": True, "check": True}
    shown = subprocess.run(command("rescore", "out"), **words).stdout
    assert len(values) == 4
    for metric, (value, low, high) in values.items():
        assert f"metric {metric}," in shown
        for word in ("before", "now"):
            assert f"{word} {value:.3f} [{low:.3f}, {high:.3f}]" in shown
    listed = subprocess.run(command("tasks"), **words).stdout
    assert "arc_challenge" in listed
    assert "Challenge set" in " ".join(listed.split())
    assert "…" not in shown + listed


def test_foreign_names_are_shown_and_not_obeyed(folder):
    name = "[/b]\\u001b[31m\\u202e\\ncoin"
    (folder / "coin.toml").write_text(TASK.replace('"coin"', f'"{name}"'), encoding="utf-8")
    done = lydite(folder, "evaluate", "random", "--tasks", "coin.toml", "--out", "out")
    seen = [done.stdout, done.stderr]
    seen += [lydite(folder, *words).stdout for words in (("rescore", "out"), ("tasks", "coin.toml"))]
    for text in seen:
        assert "[/b]" in text
        assert not {"\x1b", "\u202e"} & set(text)


def test_names_that_would_share_a_folder_are_refused(folder):
    (folder / "coin.toml").write_text(TASK.replace('"coin"', '"a b"'), encoding="utf-8")
    (folder / "more.toml").write_text(TASK.replace('"coin"', '"a/b"'), encoding="utf-8")
    done = lydite(folder, "evaluate", "random", "--tasks", "coin.toml,more.toml", "--out", "out", code=1)
    assert "'a b' and 'a/b' would share the folder a-b" in one_line(done)
    assert not (folder / "out").exists()


def test_from_a_run_whose_settings_were_edited(folder):
    lydite(folder, "evaluate", "random", "--tasks", "coin.toml", "--out", "out")
    path = folder / "out" / "random" / "coin" / "run.json"
    run = json.loads(path.read_text(encoding="utf-8"))
    run["environment"]["command"] = '{"x": 1}'
    path.write_text(json.dumps(run), encoding="utf-8")
    assert "instead of --from" in one_line(lydite(folder, "evaluate", "uniform", "--from", "out", code=1))


def test_ctrl_c_before_anything_is_evaluated_says_so(folder):
    (folder / "slow.py").write_text("raise KeyboardInterrupt", encoding="utf-8")
    assert "interrupted" in one_line(lydite(folder, "evaluate", "random", "--tasks", "slow.py", code=130))


def test_a_closed_output_is_no_mistake(folder):
    words = " ".join(command("evaluate", "random", "--tasks", "coin.toml", "--out", "out"))
    done = subprocess.run(f"{words} >&-", shell=True, cwd=folder, stderr=subprocess.PIPE, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    assert (folder / "out" / "report.html").exists()


def test_a_task_file_that_is_named_twice_counts_once(folder):
    done = lydite(folder, "evaluate", "random", "--tasks", f"coin.toml,{folder}/coin.toml", "--json")
    assert len(json.loads(done.stdout)["runs"]) == 1


def test_a_screen_that_is_not_utf_8_and_a_folder_that_is_no_text(folder):
    (folder / "coin.toml").write_text(TASK.replace('"coin"', '"硬币"'), encoding="utf-8")
    out = os.fsdecode(b"caf\xe9")
    env = environment() | {"PYTHONIOENCODING": "ascii"}
    for words in (("evaluate", "random", "--tasks", "coin.toml", "--out", out), ("rescore", out), ("report", out)):
        done = subprocess.run(command(*words), cwd=folder, capture_output=True, check=False, env=env)
        assert done.returncode == 0, done.stderr
    assert (folder / out / "random" / "硬币" / "run.json").exists()
    assert b"report.html" in done.stdout


def test_reuse_takes_answers_of_earlier_runs(folder):
    model = script(folder, logprob=-1.0)
    env = environment() | {"LYDITE_CACHE": str(folder / "cache")}
    for out in ("one", "two"):
        words = command("evaluate", model, "--tasks", "coin.toml", "--out", out, "--reuse")
        subprocess.run(words, cwd=folder, check=True, env=env, capture_output=True)
    timings = [
        json.loads((folder / out / "script" / "coin" / "run.json").read_text(encoding="utf-8"))["timing"]
        for out in ("one", "two")
    ]
    assert timings[0]["tokens_requested"] > 0
    assert timings[1]["tokens_requested"] == 0
