"""GSM8K: grade-school word problems (arXiv 2110.14168), each with several solutions to select among."""

from __future__ import annotations

from typing import ClassVar

from cpmi_eval.protocols import LoadOptions
from cpmi_eval.tasks import selection
from cpmi_eval.types import TaskData


class GSM8K:
    """Best-of-N selection; its settings are ``candidates`` (a file) and ``split`` (auto, blank or line)."""

    name: ClassVar[str] = "gsm8k"
    summary: ClassVar[str] = "select among solutions of grade-school problems (GSM8K): --candidates FILE"
    subsets: ClassVar[tuple[str, ...]] = ("test", "train")
    metrics: ClassVar[tuple[str, ...]] = ("best_of_n",)
    synthetic: ClassVar[bool] = False
    selects: ClassVar[bool] = True

    def load(self, options: LoadOptions) -> TaskData:
        """Return the candidates of one subset, ``test`` if none is named; see :func:`selection.load`."""
        return selection.load(self.name, options)
