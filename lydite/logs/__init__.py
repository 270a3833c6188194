"""Other systems' logs as runs, and runs as other systems' logs.

    lm-evaluation-harness   results_*.json with samples_*.jsonl beside it (written by --log_samples)
    lighteval               results/MODEL/results_*.json with details/MODEL/*/details_*.parquet (--save-details)
    Inspect                 .eval and .json logs

`as_runs` turns logs into run folders, which `compare` and `report` then read like any others.

Contract: logs are data. Nothing in them is evaluated, imported or fetched; a file that does not fit is one UserError that
names it. A number is taken over as a metric only where the samples give it: what a log reports is computed again from
its samples, and where that does not agree, the reported number stands alone, without samples and without an interval.
"""

from lydite.logs.find import as_runs, write_runs
from lydite.logs.tables import metric_of

__all__ = ["as_runs", "metric_of", "write_runs"]
