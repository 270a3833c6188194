"""A second pass over finished runs: neural metrics score stored answers, and their Scores stand beside the others.

A pass needs the run folder and a scorer, never the model that was judged. Scores carry `by="judge:NAME"`, so that no
automatic number changes, `lydite rescore` keeps them, and every one of them names the model that gave it.
"""

from lydite.judge.second_pass import Pass, Scorer, Triple, second_pass

__all__ = ["Pass", "Scorer", "Triple", "second_pass"]
