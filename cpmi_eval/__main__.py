"""``python -m cpmi_eval`` is ``cpmi-eval``."""

from cpmi_eval.cli import main

main()
