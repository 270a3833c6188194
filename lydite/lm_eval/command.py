"""`lydite-lm-eval`: lm-evaluation-harness's own command line, with `--model lydite` available.

Every flag is theirs. Our own mistakes come as one line and exit code 1, as in `lydite`.
"""

import sys
from importlib import import_module

from lydite.errors import LyditeError


def main() -> None:
    """The console script. Ends the process where something is wrong."""
    try:
        from lm_eval.__main__ import cli_evaluate
    except ImportError as error:
        sys.exit(f"lydite-lm-eval: lm-evaluation-harness is not here ({error}); pip install 'lydite[lm-eval]'")
    import_module("lydite.lm_eval.model")  # registers the model

    try:
        cli_evaluate()
    except LyditeError as error:
        sys.exit(f"lydite-lm-eval: {' '.join(str(error).split())}")
    except KeyboardInterrupt:
        print("lydite-lm-eval: interrupted; with --use_cache the same command continues", file=sys.stderr)
        sys.exit(130)
