"""Every exception that Lydite raises on purpose.

    LyditeError
    ├── UserError          a user's mistake; the command line prints its one line and exits with 1
    │   ├── DataError      a file is missing, undecodable, or a row does not fit
    │   ├── ModelError     a model cannot be found, read, or answer what is asked
    │   ├── TaskError      an unknown task, or a task file that does not fit
    │   ├── RunError       a run folder that cannot be used: locked, other settings, torn
    │   └── ProcessError   another process of the same run has ended, or could not do its part
    └── Interrupted        Ctrl-C after everything finished was written; exits with 130

The message of a UserError is one line that says what is wrong and names the mend. Broken promises between our
own functions are `assert`s, never these.
"""


class LyditeError(Exception):
    """The root of the tree."""


class UserError(LyditeError):
    """A user's mistake, with the mend in the message."""


class DataError(UserError):
    """A data file is missing, undecodable, or has a row that does not fit."""


class ModelError(UserError):
    """A model cannot be found, read, or answer what is asked of it."""


class TaskError(UserError):
    """An unknown task, or a task file that does not fit."""


class RunError(UserError):
    """A run folder that cannot be used: locked by another process, made with other settings, or damaged."""


class ProcessError(UserError):
    """Another process of the same run has ended, or could not do its part."""


class Interrupted(LyditeError):
    """The user pressed Ctrl-C; whatever was finished is in the run folder."""
