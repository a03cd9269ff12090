"""What transformers is given to load a checkpoint with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cpmi_eval import settings


def hub_args(args: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``revision``, where it is given, and ``trust_remote_code`` of a model's arguments.

    The latter is always there: what is not told, transformers may ask a person at the terminal.

    Raises:
        UsageError: ``trust_remote_code`` is neither true nor false.
    """
    trusted = settings.flag("model argument trust_remote_code", args.get("trust_remote_code", False))
    told = {} if args.get("revision") is None else {"revision": args["revision"]}
    return {**told, "trust_remote_code": trusted}
