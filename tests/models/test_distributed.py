"""Several processes, one run: the same numbers as of one process, and a clear end where one of them is killed.

Most tests start the processes themselves, as torchrun would; the last ones start torchrun. No process group is made, of gloo
or another kind, because nothing in an evaluation is collective: the processes talk through the store that such a group
would be made with (docs/many-processes.md says why).
"""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lydite.errors import ModelError, UserError
from lydite.models.distributed import own_device
from lydite.models.messages import Answers, Over, Work, decode, encode
from lydite.models.shares import shares
from lydite.models.team import Place
from lydite.types import Completion, Decoding, GenerateRequest, LogProbs, ScoreRequest
from tests.models import one_process
from tests.tiny import save_tiny

TASK = """
[task]
name = "coin"
kind = "multiple_choice"
data = "coin.jsonl"
prompt = "{{question}}"
choices = "{{choices}}"
gold = "{{gold}}"
"""
TEXT = """
[task]
name = "write"
kind = "generation"
data = "coin.jsonl"
prompt = "{{question}}"
gold = "{{choices[0]}}"
max_new_tokens = 6
"""
TOP = Path(__file__).parents[2]
PATIENCE = 120
"""Seconds until a process that should have ended counts as stuck; a limit, not a measurement."""


@pytest.fixture(scope="module")
def server():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.models.one_process"])
    return context


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    top = tmp_path_factory.mktemp("several")
    save_tiny(top / "tiny", "llama", scale=10)
    rows = [
        {
            "question": f"The cat sat on mat {i // 4}. Question: is {i} even? Answer:",
            "choices": ["yes", "no, not at all"],
            "gold": i % 2,
        }
        for i in range(24)
    ]
    (top / "coin.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (top / "coin.toml").write_text(TASK, encoding="utf-8")
    (top / "write.toml").write_text(TEXT, encoding="utf-8")
    return top


def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def run(server, folder, out, *, size=2, tasks="coin.toml", faults=("", "")):
    """`lydite evaluate` in `size` processes; their exit codes (negative: the signal)."""
    arguments = ["evaluate", "tiny", "--tasks", tasks, "--out", out]
    common = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port())}
    processes = [
        server.Process(target=one_process.run, args=(folder, arguments, common | {"RANK": str(rank)}, faults[rank]))
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE)
    stuck = [rank for rank, process in enumerate(processes) if process.is_alive()]
    for rank in stuck:
        processes[rank].kill()
    assert not stuck, said(folder)
    return [process.exitcode for process in processes]


def said(folder):
    """The lines that users see as ours, of all processes."""
    lines = [line for rank in (0, 1) for line in (folder / f"err.{rank}").read_text().splitlines()]
    assert not any("Traceback" in line for line in lines), lines
    return [line for line in lines if line.startswith("lydite: ")]


def leaf(folder, out, task="coin"):
    return folder / out / "tiny" / task


def samples(folder, out, task="coin"):
    lines = (leaf(folder, out, task) / "samples.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert len({record["id"] for record in records}) == len(records)
    return {record["id"]: record for record in records}


def assert_same(folder, one, two, task="coin"):
    """Requests, decisions and estimates equal; log-probabilities within rounding."""
    first, second = samples(folder, one, task), samples(folder, two, task)
    assert first.keys() == second.keys()
    for key, record in first.items():
        other = second[key]
        assert record["requests"] == other["requests"]
        for a, b in zip(record["outputs"], other["outputs"], strict=True):
            assert b.get("logprobs", []) == pytest.approx(a.get("logprobs", []), abs=1e-4)
            assert {k: v for k, v in a.items() if k != "logprobs"} == {k: v for k, v in b.items() if k != "logprobs"}
        acc = [[s["value"] for s in r["scores"] if s["metric"] in ("acc", "exact_match")] for r in (record, other)]
        assert acc[0] == acc[1]
        assert acc[0]
    runs = [json.loads((leaf(folder, out, task) / "run.json").read_text()) for out in (one, two)]
    assert [r["status"] for r in runs] == ["done", "done"]
    assert runs[0]["id"] == runs[1]["id"]
    assert runs[0]["config"] == runs[1]["config"]
    for a, b in zip(runs[0]["estimates"], runs[1]["estimates"], strict=True):
        assert a["metric"] == b["metric"]
        assert b["value"] == pytest.approx(a["value"], abs=1e-5)
    return runs


def test_two_processes_are_one(server, folder):
    assert run(server, folder, "one", size=1, tasks="coin.toml,write.toml") == [0]
    assert run(server, folder, "two", tasks="coin.toml,write.toml") == [0, 0]
    assert (folder / "out.1").read_text() == (folder / "err.1").read_text() == ""
    assert "coin" in (folder / "out.0").read_text()
    for task in ("coin", "write"):
        one, two = assert_same(folder, "one", "two", task)
        assert one["estimates"][0]["signature"] == two["estimates"][0]["signature"]
        assert two["timing"]["kernel"].endswith(", 2 processes")
        # What the other process did is counted, and what both computed is little.
        assert two["timing"]["tokens_requested"] == one["timing"]["tokens_requested"]
        assert two["timing"]["tokens_computed"] < 1.2 * one["timing"]["tokens_computed"]


def test_a_killed_follower_is_a_clear_end_and_the_same_command_continues(server, folder):
    if not (folder / "one").exists():
        assert run(server, folder, "one", size=1) == [0]
    assert run(server, folder, "torn", faults=("", "die before answers")) == [1, -signal.SIGKILL]
    [line] = said(folder)
    assert "process 1 of 2 (pid " in line
    assert "has ended; what was finished is kept, and the same command continues" in line
    kept = samples(folder, "torn")
    assert 0 < len(kept) < 24  # the leader's own share
    before = (leaf(folder, "torn") / "samples.jsonl").read_bytes()
    assert run(server, folder, "torn") == [0, 0]
    assert (leaf(folder, "torn") / "samples.jsonl").read_bytes().startswith(before)
    assert_same(folder, "one", "torn")


def test_a_killed_leader_ends_the_others_with_a_line(server, folder):
    assert run(server, folder, "headless", faults=("die at fifth sample", "")) == [-signal.SIGKILL, 1]
    [line] = said(folder)
    assert "process 0 of 2 (pid " in line
    assert len(samples(folder, "headless")) == 4


def test_told_to_end_by_torchrun(server, folder):
    codes = run(server, folder, "told", faults=("", "end as torchrun does"))
    assert codes == [130, 130]
    [line] = said(folder)
    assert line.startswith(
        "lydite: told to end, as torchrun does when another of its processes has ended: interrupted: "
    )
    assert json.loads((leaf(folder, "told") / "run.json").read_text())["status"] == "interrupted"


def test_an_error_elsewhere_is_one_line(server, folder):
    assert run(server, folder, "unloaded", faults=("", "fail to load")) == [1, 0]
    [line] = said(folder)
    assert line.startswith("lydite: error: process 1 of 2: RuntimeError: no memory (one_process.py:")


def test_a_mistake_in_the_command_is_one_line(server, folder):
    assert run(server, folder, "nothing", tasks="no_such_task") == [1, 0]
    [line] = said(folder)
    assert "no_such_task" in line


@pytest.mark.parametrize("changes", [{}, {"RANK": "0", "WORLD_SIZE": "1"}])
def test_one_process_is_without_torch(folder, changes):
    code = (
        "import sys\nfrom lydite.cli.app import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    print(stop.code, 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, "evaluate", "random", "--tasks", "coin.toml", "--out", "plain", "--json"]
    done = subprocess.run(command, cwd=folder, env=os.environ | changes, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 False", done.stderr


@pytest.mark.parametrize("changes", [{"MASTER_PORT": "many"}, {"RANK": "2"}, {"RANK": "first"}])
def test_an_environment_that_does_not_say_who_is_who(changes):
    environment = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    assert Place.read(environment).size == 2
    with pytest.raises(UserError, match="torchrun"):
        Place.read(environment | changes)
    with pytest.raises(UserError, match="MASTER_ADDR"):
        Place.read({"RANK": "0", "WORLD_SIZE": "2"})


def test_each_process_takes_its_own_cuda_device(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert own_device("cpu") == "cpu"
    with pytest.raises(ModelError, match="LOCAL_RANK"):
        own_device("cuda")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert own_device("cuda") == "cuda:1"
    with pytest.raises(ModelError, match="give --device cuda"):
        own_device("cuda:0")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ModelError, match="there are 2 CUDA devices"):
        own_device("cuda")


# ----------------------------------------------------------------------------------------- torchrun


def torchrun(folder, module, out, fault=""):
    """`torchrun --nproc-per-node 2 -m MODULE evaluate ...`: its exit code and our lines."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port())]
    command += ["-m", module, "evaluate", "tiny", "--tasks", "coin.toml", "--out", out]
    environment = os.environ | {"LYDITE_TEST_FAULT": fault, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(TOP), environment.get("PYTHONPATH", "")])
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=2 * PATIENCE
    )
    return done.returncode, [line for line in done.stderr.splitlines() if line.startswith("lydite: ")]


@pytest.mark.slow
def test_torchrun_with_a_killed_process_and_the_same_command_again(server, folder):
    if not (folder / "one").exists():
        assert run(server, folder, "one", size=1) == [0]
    code, lines = torchrun(folder, "tests.models.under_torchrun", "torn_by_torchrun", "1:die before answers")
    assert code != 0
    [line] = lines  # whoever notices first, the leader or torchrun, which tells it to end
    assert "the same command continues" in line
    assert 0 < len(samples(folder, "torn_by_torchrun")) < 24
    assert torchrun(folder, "lydite", "torn_by_torchrun") == (0, [])
    assert_same(folder, "one", "torn_by_torchrun")


# ----------------------------------------------------------------------------------------- messages


def test_messages_keep_numbers_and_lone_surrogates():
    logprobs = LogProbs(tokens=("a", "b"), logprobs=(-0.1 - 0.2, -1e-300), greedy=False, rule="causal")
    text = Completion(text="half \ud83d", num_tokens=1, finish="stop")
    request = ScoreRequest(sample_id="s", index=0, context="a \udc00", continuation=" b")
    spent = {"tokens_requested": 1, "tokens_computed": 2, "tokens_generated": 3}
    for message in (
        Over(),
        Work(block=3, requests=(request,)),
        Answers(block=1, answers=((0, logprobs),), **spent),
        Answers(block=1, answers=((4, text), (0, logprobs)), **spent),
    ):
        assert decode(encode(message).encode()) == message
    with pytest.raises(msgspec.ValidationError):
        decode(b'{"type":"Over","more":1}')


# ------------------------------------------------------------------------------------------- shares


@st.composite
def some_requests(draw):
    texts = st.text("ab ", max_size=12)
    found = []
    for number in range(draw(st.integers(0, 12))):
        for index in range(draw(st.integers(1, 3))):
            kind = draw(st.booleans())
            of = {"sample_id": f"s{number}", "index": index}
            found.append(
                ScoreRequest(context=draw(texts), continuation=draw(texts), **of)
                if kind
                else GenerateRequest(prompt=draw(texts), **of)
            )
    return draw(st.permutations(found))


@settings(max_examples=60, deadline=None)
@given(requests=some_requests(), number=st.integers(1, 5))
def test_shares_are_a_partition_that_keeps_samples_together(requests, number):
    found = shares(requests, number)
    assert len(found) == number
    assert sorted(position for part in found for position in part) == list(range(len(requests)))
    homes = {}
    for home, part in enumerate(found):
        assert part == sorted(part)
        for position in part:
            assert homes.setdefault(requests[position].sample_id, home) == home


def test_shares_cost_alike_and_passages_stay_whole():
    """32 passages of which the first quarter is ten times as long, eight questions each, all mixed up."""
    requests = [
        ScoreRequest(
            sample_id=f"{passage}-{question}",
            index=0,
            context=f"{passage:02} said. " * (200 if passage < 8 else 20) + f"Question {question}?",
            continuation=" yes",
        )
        for question in range(8)
        for passage in range(32)
    ]
    found = shares(requests, 2)
    passages = [{requests[position].context[:2] for position in part} for part in found]
    assert not passages[0] & passages[1]
    # In tokens of four bytes, with about two for each question: no even cut goes between passages, but one that is
    # nearer than a passage's length.
    sizes = [sum(9 * (200 if int(name) < 8 else 20) / 4 + 8 * 2 for name in part) for part in passages]
    assert abs(sizes[0] - sizes[1]) <= 9 * 200 / 4


def test_shares_of_generation_count_new_tokens():
    requests = [
        GenerateRequest(
            sample_id=str(i), index=0, prompt=f"{i:03}", decoding=Decoding(max_new_tokens=1000 if i < 10 else 10)
        )
        for i in range(110)
    ]
    first, second = shares(requests, 2)
    assert abs(len(first) - 5) <= 1
    assert len(second) > 100
