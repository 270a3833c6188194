"""Comparing runs: the same samples, answered by several models, paired one by one.

    compare([Path("runs/a"), Path("runs/b")], find_metric) -> Comparison

A Comparison first says in which settings the runs differ and what was not compared and why; then, task by task, each
model's estimate on the samples that all of them share, the paired differences with intervals and tests, and letters
that group the models which no test tells apart.

Contract: two samples are the same if id and content are equal; where a run was read from another system's log, if the
document (two logs of lm-eval) or the prompt is the same. Models on a task are compared on the samples that all
of them have and none failed on. Nothing is compared over different versions or data of a task, or over likelihoods by
different rules. Run folders are only read; neither models nor data nor torch are needed. A Run does not hold the
functions of its metrics, so `find_metric` looks them up.
"""

from lydite.compare.records import Compared, Comparison, NotCompared, Pair, SettingDifference, System
from lydite.compare.tasks import FindMetric, compare

__all__ = ["Compared", "Comparison", "FindMetric", "NotCompared", "Pair", "SettingDifference", "System", "compare"]
