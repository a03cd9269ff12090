"""Writing a run in the form of another program."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cpmi_eval.errors import StoreError, UnknownNameError, UsageError
from cpmi_eval.interchange import lm_eval, model_card
from cpmi_eval.interchange.described import describe
from cpmi_eval.record.door import replace_text

FORMATS = ("lm-eval", "model-index", "eval-results")


def export(run_dir: Path, form: str, to: Path, source_url: str | None = None) -> list[Path]:
    """Write a finished run in another program's form; return the files, those that were there already included.

    Args:
        run_dir: the run; it is only read.
        form: one of ``FORMATS``.
        to: the folder to write into (``lm-eval``: that of all its results, ``eval-results``: the root of the model's
            repository), or the file (``model-index``).
        source_url: of the two forms for the hub, where a reader finds more.

    Raises:
        UnknownNameError: no such form.
        UsageError: the run cannot be told in this form, or the form has no place for a source.
        StoreError: no finished run, or a file with other content is in the way.
    """
    if form not in FORMATS:
        raise UnknownNameError("format", form, FORMATS)
    if source_url is not None and form == "lm-eval":
        raise UsageError("lm-eval's files have no place for a source; drop --source_url")
    run = describe(run_dir)
    if form == "model-index":
        return _write({to: model_card.model_index(run, source_url)})
    files = lm_eval.files(run) if form == "lm-eval" else model_card.eval_results(run, source_url)
    if to.exists() and not to.is_dir():
        raise UsageError(f"{to} is a file; --format {form} writes into a folder")
    return _write({to / name: text for name, text in files.items()})


def _write(files: Mapping[Path, str]) -> list[Path]:
    """Write files, each atomically, once it is known that none of them is in the way of something else.

    Raises:
        UsageError: a folder has the name of a file.
        StoreError: a file with other content has, or the disk refuses.
    """
    try:
        for path, text in files.items():
            if path.is_dir():
                raise UsageError(f"{path} is a folder; name a file in it")
            if path.exists() and path.read_bytes() != text.encode():
                raise StoreError(
                    f"{path} exists and holds something else; remove it, or choose another place with --to"
                )
        for path, text in files.items():
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                replace_text(path, text)
    except OSError as error:
        raise StoreError(f"{path} cannot be read or written: {error}") from error
    return list(files)
