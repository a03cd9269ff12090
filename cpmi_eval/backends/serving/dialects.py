"""What the OpenAI API has no name for: how each server takes top-k, the repetition penalty and greedy decoding.

Servers have defaults of their own (llama.cpp keeps the 40 likeliest tokens, transformers decodes greedily), so a
server whose fields are known is always told, also that something is off.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from cpmi_eval.errors import ModelError
from cpmi_eval.types import JSON, Sampling

OWNERS: Mapping[str, str] = {"vllm": "vllm", "sglang": "sglang", "llamacpp": "llama.cpp"}  # of /v1/models: owned_by
PROBED = ("vllm", "llama.cpp", "transformers")
NONSENSE: Mapping[str, tuple[JSON, ...]] = {  # what a server that knows the fields must refuse
    "vllm": ({"repetition_penalty": "many"}, {"top_k": "many"}),
    "llama.cpp": ({"repeat_penalty": "many"}, {"top_k": "many"}),
    "transformers": ({"generation_config": "{"},),
}


def fields(dialect: str, sampling: Sampling) -> JSON:
    """Return the fields beyond the API's own that say how to sample.

    Raises:
        ModelError: the server has none for what is asked.
    """
    if dialect in ("vllm", "sglang"):
        own = {"top_k": sampling.top_k or -1, "repetition_penalty": sampling.repetition_penalty}
        return {**own, "min_p": 0.0}
    if dialect == "llama.cpp":
        own = {"top_k": sampling.top_k, "repeat_penalty": sampling.repetition_penalty}
        return {**own, "min_p": 0.0}
    if dialect == "transformers":
        return {"generation_config": json.dumps(_generation_config(sampling))}
    changed = {"top_k": sampling.top_k, "repetition_penalty": sampling.repetition_penalty}
    off = {"top_k": 0, "repetition_penalty": 1.0}
    asked = [f"{name}={value:g}" for name, value in changed.items() if value != off[name]]
    if asked:
        raise ModelError(
            f"the server takes no {' and '.join(asked)}, as far as it can be told: set "
            "--labeler_args top_k=0,repetition_penalty=1.0, or say whose fields it takes with model_args "
            "extra=vllm|sglang|llama.cpp|transformers"
        )
    return {}


def _generation_config(sampling: Sampling) -> JSON:
    own: JSON = {"do_sample": sampling.temperature > 0, "max_new_tokens": sampling.max_new_tokens}
    own |= {"top_k": sampling.top_k, "repetition_penalty": sampling.repetition_penalty}
    return {**own, "temperature": sampling.temperature or 1.0, "top_p": sampling.top_p}


def of_owner(owner: object) -> str | None:
    """Return whose fields a server takes, by the owner that it gives its models."""
    return OWNERS.get(str(owner).casefold())
