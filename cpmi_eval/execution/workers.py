"""A run spread over workers, each with a model of its own, through Ray: several GPUs, several machines.

This module says what is asked for and costs nothing to import; :mod:`cpmi_eval.execution.driver` does it.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass

from cpmi_eval import settings
from cpmi_eval.errors import ModelError, UsageError

MAX_RESTARTS = 10
_ADDRESS = re.compile(r"\[?[\w.:-]+\]?:\d{1,5}")


@dataclass(frozen=True)
class Workers:
    """Who scores a run. How it is carried out, not what it is: a run may go on with other workers.

    ``address``: of a running Ray cluster, ``host:port``, or ``auto`` for the one that this machine is part of;
    ``None`` starts one on this machine and ends it with the run. ``max_restarts``: how many workers in a row may be
    lost without a batch being finished in between; beyond that the run stops.
    """

    count: int
    address: str | None = None
    max_restarts: int = MAX_RESTARTS

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            UsageError: numbers out of range, or no address.
            ModelError: Ray is not installed.
        """
        settings.integer("workers", self.count, 1)
        settings.integer("max_restarts", self.max_restarts, 0)
        if self.address is not None and self.address != "auto" and not _ADDRESS.fullmatch(str(self.address)):
            raise UsageError(f"ray_address must be auto or host:port, not {self.address!r}")
        if importlib.util.find_spec("ray") is None:
            raise ModelError("workers need Ray: pip install 'cpmi-eval[ray]'")

    @classmethod
    def asked(cls, count: int | None, address: str | None) -> Workers | None:
        """Return who is asked for with ``workers`` and ``ray_address``; ``None``: this process alone.

        Raises:
            UsageError: an address without a number of workers, or what cannot be meant.
        """
        if count is not None:
            return cls(count, address)
        if address is not None:
            raise UsageError("ray_address says where workers run; say how many: --workers N")
        return None
