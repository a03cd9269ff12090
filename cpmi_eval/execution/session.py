"""The connection to Ray: a cluster that is running, or one on this machine for as long as a run lasts."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cpmi_eval.errors import UsageError

OBJECT_STORE_BYTES = 200_000_000  # texts and scores go through it, never weights; Ray's default is a third of memory
LOCAL = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",  # Ray's own default for a cluster it starts; set, it is not announced
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # no other machines: every service listens on the loopback address
}
OURS = {"RAY_USAGE_STATS_ENABLED": "0"}


@dataclass(frozen=True)
class Share:
    """What Ray sets aside for each worker."""

    cpus: int
    gpus: int


@dataclass(frozen=True)
class Session:
    """An open connection; ``own``: whether it was opened here, and so ends here."""

    own: bool

    def nodes(self) -> list[dict[str, float]]:
        """Return the resources of each machine that is alive."""
        import ray

        return [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]

    def close(self) -> None:
        """End the connection, and the cluster with it if it was started here."""
        import ray

        if self.own and ray.is_initialized():
            ray.shutdown()


def connect(address: str | None) -> Session:
    """Connect to the cluster at ``address``, or start one on this machine.

    A connection that the process has already is used, and left open.

    Raises:
        UsageError: nothing answers there, it is another Ray or Python, or the process is connected elsewhere.
    """
    if "ray" not in sys.modules:  # Ray reads these when it is imported
        for name, value in (LOCAL if address is None else OURS).items():
            os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        connected = ray.get_runtime_context().gcs_address
        if address not in (None, "auto", connected):
            raise UsageError(f"this process is connected to Ray at {connected}, not {address}; leave out ray_address")
        return Session(own=False)
    own: dict[str, Any] = {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    try:
        ray.init(
            address=address or "local",
            log_to_driver=False,
            logging_level="warning",
            configure_logging=False,
            **(own if address is None else {}),
        )
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise UsageError(f"cannot {_attempt(address)}: {error}") from error
    return Session(own=True)


def _attempt(address: str | None) -> str:
    if address is None:
        return "start Ray on this machine"
    which = "the Ray cluster of this machine" if address == "auto" else f"Ray at {address}"
    return f"connect to {which} (start one with `ray start`, and run this on one of its machines)"


def share(nodes: Sequence[dict[str, float]], count: int, device: str | None) -> Share:
    """Divide machines among ``count`` workers: a GPU each where there are any, else as many CPUs as all can have.

    Args:
        nodes: the machines' resources, as Ray names them.
        count: of workers.
        device: what the backend is told (``auto``, ``cpu``, ``cuda``, ...); ``None`` where no model runs.

    Raises:
        UsageError: there is less than that takes.
    """
    if device is not None and device.startswith("cuda:"):
        raise UsageError(f"--device {device} names one card, and each worker gets a card of its own: --device cuda")
    gpus = sum(int(node.get("GPU", 0)) for node in nodes)
    if device is not None and (device.startswith("cuda") or (device == "auto" and gpus)):
        if gpus < count:
            raise UsageError(
                f"Ray sees {gpus} GPUs on {len(nodes)} machines, and {count} workers need one each; ask for fewer "
                "workers, or --device cpu"
            )
        return Share(cpus=1, gpus=1)
    cores = [int(node.get("CPU", 0)) for node in nodes]
    fitting = [each for each in range(1, max(cores, default=0) + 1) if sum(n // each for n in cores) >= count]
    if not fitting:
        raise UsageError(f"Ray sees {sum(cores)} CPUs on {len(nodes)} machines: no room for {count} workers")
    return Share(cpus=fitting[-1], gpus=0)
