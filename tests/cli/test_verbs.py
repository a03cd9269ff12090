"""A command of one's own is one file and one entry point."""

import click
import pytest
from commandline import Cli
from shop import Register

from cpmi_eval import registry

pytestmark = pytest.mark.usefixtures("plain")


@click.command("count")
@click.argument("words", nargs=-1)
def count(words: tuple[str, ...]) -> None:
    """Count words."""
    click.echo(len(words))


def test_a_verb_is_a_plug_in(cli: Cli, register: Register) -> None:
    register("verbs", "count", count)
    assert cli("count", "a", "b").out == "2\n"
    assert "Count words." in cli("--help").out
    assert cli("count", "--help").code == 0


def test_one_that_cannot_be_imported_is_listed_and_says_why(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.BUILTIN["verbs"], "broken", "a_package_that_nobody_has:verb")
    registry.entries.cache_clear()
    try:
        assert "cannot be imported; call it to see why" in cli("--help").out
        done = cli("broken")
    finally:
        monkeypatch.undo()
        registry.entries.cache_clear()
    assert (done.code, done.out) == (2, "")
    assert "the verb 'broken' of cpmi-eval cannot be imported from a_package_that_nobody_has:verb" in done.err


def test_the_programs_own_verbs_stay(cli: Cli, register: Register) -> None:
    register("verbs", "show", count)
    assert "Count words." not in cli("show", "--help").out
