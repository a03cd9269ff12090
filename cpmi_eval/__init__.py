"""Evaluate step-level reward labelers and process reward models: quality, cost, leaderboards.

>>> import cpmi_eval
>>> result = cpmi_eval.evaluate("random", "synthetic", limit=20, output_path="runs/floor")
>>> result.results["synthetic"]["step_auc"].value
"""

from cpmi_eval.analysis.compare import Comparison, compare
from cpmi_eval.errors import UsageError
from cpmi_eval.metrics.outcome import Metric
from cpmi_eval.plan import RunConfig
from cpmi_eval.run import Progress, RunResult, evaluate
from cpmi_eval.types import Gold, Item, StepScores, Tokens, Trace

__version__ = "0.1.0"
__all__ = [
    "Comparison",
    "Gold",
    "Item",
    "Metric",
    "Progress",
    "RunConfig",
    "RunResult",
    "StepScores",
    "Tokens",
    "Trace",
    "UsageError",
    "__version__",
    "compare",
    "evaluate",
]
