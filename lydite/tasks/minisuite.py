"""The bundled suite `mini`."""

from lydite.tasks.entry import Entry


def entries() -> list[Entry]:
    return []
