"""One of several processes of a run, started by test_distributed.py from a server that has imported the slow libraries
once. It is what torchrun starts, `lydite ARGUMENTS` under its environment variables, but for a fault on request."""

import os
import signal
import sys

import torch
import torch.distributed
from transformers import LlamaForCausalLM  # noqa: F401 - so that children find it imported

import lydite.cli.evaluate
import lydite.models.causal
import lydite.models.distributed
import lydite.models.team
import lydite.report
import lydite.report.plots
import lydite.runs
from lydite.cli.app import main
from lydite.models.messages import Answers


def run(folder, arguments, environment, fault=""):
    """`fault` names one of FAULTS; standard output and error go to files of `folder`."""
    os.chdir(folder)
    os.environ.update(environment)
    torch.set_num_threads(1)
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(f"{name}.{environment['RANK']}", os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        os.dup2(file, number)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", closefd=False)
    if fault:
        FAULTS[fault]()
    main(arguments)


def _die_before_answers():
    """A follower is killed when it has done its work and is about to say so."""

    def post(team, rank, message):
        if isinstance(message, Answers):
            os.kill(os.getpid(), signal.SIGKILL)
        plain(team, rank, message)

    plain = lydite.models.team.Team.post
    lydite.models.team.Team.post = post


def _die_at_fifth_sample():
    """The leader is killed when four samples are written."""

    def append(folder, record):
        folder.num_appended = getattr(folder, "num_appended", 0) + 1
        if folder.num_appended == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        plain(folder, record)

    plain = lydite.runs.RunFolder.append
    lydite.runs.RunFolder.append = append


def _end_as_torchrun_does():
    """A follower that has done its work: the launcher ends all processes, as when a third one has died."""

    def post(team, rank, message):
        if isinstance(message, Answers):
            os.kill(team.peers[0].pid, signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
        plain(team, rank, message)

    plain = lydite.models.team.Team.post
    lydite.models.team.Team.post = post


def _fail_to_load():
    def load(message):
        raise RuntimeError("no\nmemory")

    lydite.models.distributed._load = load


FAULTS = {
    "die before answers": _die_before_answers,
    "die at fifth sample": _die_at_fifth_sample,
    "end as torchrun does": _end_as_torchrun_does,
    "fail to load": _fail_to_load,
}
