"""For users of lm-eval: this package's scorer as a model (``cpmi-hf``), and ProcessBench as tasks.

Importing this registers the model, so that ``lm_eval.simple_evaluate(model="cpmi-hf", ...)`` finds it.
``python -m cpmi_eval.lm_eval`` does so and hands over to lm-eval's own command line; lm-eval has no entry points
through which it would find a model by itself. Nothing heavy is imported before the model is asked for.
"""

from __future__ import annotations

from pathlib import Path

MODEL = "cpmi-hf"
TASKS = Path(__file__).parent / "tasks"


def register() -> None:
    """Put the model into lm-eval's registry; twice is once. Raises ModuleNotFoundError: lm-eval is not installed."""
    try:
        import lm_eval.models  # noqa: F401 - fills the registry, which lm-eval does only while it is empty
        from lm_eval.api.registry import model_registry
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != "lm_eval":
            raise
        raise ModuleNotFoundError("cpmi_eval.lm_eval needs lm-eval: pip install 'cpmi-eval[lm-eval]'") from error
    if MODEL not in model_registry:
        model_registry.register(MODEL, target="cpmi_eval.lm_eval.model:CPMIHF")


register()
