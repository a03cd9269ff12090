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
    top_k, penalty = sampling.top_k, sampling.repetition_penalty
    if dialect in ("vllm", "sglang"):
        return {"top_k": top_k or -1, "repetition_penalty": penalty, "min_p": 0.0}
    if dialect == "llama.cpp":
        return {"top_k": top_k, "repeat_penalty": penalty, "min_p": 0.0}
    if dialect == "transformers":
        own: JSON = {"do_sample": sampling.temperature > 0, "max_new_tokens": sampling.max_new_tokens}
        own |= {"top_k": top_k, "repetition_penalty": penalty}
        own |= {"temperature": sampling.temperature or 1.0, "top_p": sampling.top_p}
        return {"generation_config": json.dumps(own)}
    asked = [*([f"top_k={top_k:g}"] if top_k else []), *([f"repetition_penalty={penalty:g}"] if penalty != 1.0 else [])]
    if asked:
        raise ModelError(
            f"the server takes no {' and '.join(asked)}, as far as it can be told: set "
            "--labeler_args top_k=0,repetition_penalty=1.0, or say whose fields it takes with model_args "
            "extra=vllm|sglang|llama.cpp|transformers"
        )
    return {}
