"""lm-eval's own command line, with ``cpmi-hf`` among its models; arguments and output are lm-eval's.

python -m cpmi_eval.lm_eval run --model cpmi-hf --model_args pretrained=smollm2-135m --tasks ...
python -m cpmi_eval.lm_eval tasks     # prints the folder of this package's tasks, for --include_path
"""

from __future__ import annotations

import sys

import click

from cpmi_eval.errors import UsageError
from cpmi_eval.lm_eval import TASKS


def main() -> None:
    """Print the task folder, or run lm-eval on the arguments given."""
    if sys.argv[1:2] == ["tasks"]:
        if sys.argv[2:]:
            raise UsageError(f"tasks takes no arguments, not {' '.join(sys.argv[2:])}")
        click.echo(TASKS)
        return
    from lm_eval._cli import HarnessCLI
    from lm_eval.utils import setup_logging

    setup_logging()
    parser = HarnessCLI()
    parser.execute(parser.parse_args())


if __name__ == "__main__":
    try:
        main()
    except UsageError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
