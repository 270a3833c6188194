"""`torchrun ... -m lydite evaluate`: what each of several processes does with the command that all of them were given.

Process 0 leads: it alone reads the command line, prints and writes; whatever it does about models is shared with the
others (models/distributed.py). The others do not even look at the command line. Without RANK and WORLD_SIZE in the
environment nothing here happens, and torch.distributed is not imported.

Contract: one line says what went wrong, whichever process it went wrong in: the leader's, or, when the leader is gone,
that of the first of the others to notice.
"""

import os
import signal
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lydite.errors import ProcessError, UserError
from lydite.models.messages import Load
from lydite.models.team import Place, Team, join
from lydite.types import Model

_TEAM: list[Team] = []
"""The team that this process leads, if any: a process has one, as it has one command line."""
_TOLD: list[int] = []
"""SIGTERMs that came."""


def several() -> bool:
    """Whether this process is one of several of the same run."""
    return "RANK" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1"


def run(arguments: Sequence[str], command: Callable[[], int], say: Callable[[str, int], int]) -> int:
    """This process's part of the command line `arguments`, which `command` carries out; the exit code. `say` prints a
    line and returns its second argument."""
    leads = os.environ["RANK"] == "0"
    verb = next((word for word in arguments if not word.startswith("-")), "")
    if verb == "pretrain":  # torch.distributed's own group; every process reads the command line and trains its share
        return command()
    if verb != "evaluate":
        return command() if leads else 0
    signal.signal(signal.SIGTERM, _told)
    try:
        place = Place.read(os.environ)
        return _lead(place, command) if leads else _follow(place, say)
    except KeyboardInterrupt:  # while the processes met, or after the command had said its line
        return 130
    except UserError as error:
        return say(f"error: {error}", 1) if leads else 1


def why() -> str:
    """The beginning of the line about an interruption that was not the user's."""
    return "told to end, as torchrun does when another of its processes has ended: " if _TOLD else ""


def _told(number: int, frame: object) -> None:
    """SIGTERM ends a process as Ctrl-C does: what was finished is written, and a line says so. A second one is passed over."""
    _TOLD.append(number)
    if len(_TOLD) == 1:
        raise KeyboardInterrupt


def _lead(place: Place, command: Callable[[], int]) -> int:
    team = join(place)
    _TEAM.append(team)
    try:
        return command()
    finally:
        _TEAM.clear()
        _TOLD.append(0)  # from here on there is nothing left to interrupt
        team.close()


def _follow(place: Place, say: Callable[[str, int], int]) -> int:
    from lydite.models.distributed import serve

    warnings.simplefilter("ignore")
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for the rest of the process
    team = join(place)
    try:
        serve(team)
        return 0
    except ProcessError as error:
        return say(f"error: {error}", 1) if team.claim("said") else 1
    except KeyboardInterrupt:
        try:
            team.look_at(0)
        except ProcessError as error:
            return say(f"error: {error}", 1) if team.claim("said") else 1
        return 130
    finally:
        _TOLD.append(0)
        team.close()


# --------------------------------------------------------------------------------- for `lydite evaluate`


def own_device(device: str, settings: Mapping[str, Any]) -> str:
    """The leader's own device. Raises UserError where the settings do not suit several processes."""
    if not _TEAM:
        return device
    if "device_map" in settings:
        raise UserError("device_map spreads one model over devices, several processes copy it; leave one of them out")
    from lydite.models import distributed

    return distributed.own_device(device)


def shared(model: Model, load: Load) -> Model:
    """The model as all processes answer for it together; itself where there is one process."""
    if not _TEAM:
        return model
    from lydite.models.distributed import share

    return share(model, load, _TEAM[0])
