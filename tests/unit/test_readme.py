"""The README says what the code does: tables are compared with what they are made from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rango_gevent.cli import SUBCOMMANDS
from rango_gevent.commands.config import markdown_table
from rango_gevent.metrics import TABLE
from rango_gevent.protocol import close

_ROOT = Path(__file__).resolve().parents[2]
_README = (_ROOT / "README.md").read_text()


def test_the_table_of_settings_is_the_code_s() -> None:
    """Between its marks the README holds what `rango config --markdown` prints."""
    begin = _README.index("\n", _README.index("<!-- settings:")) + 1
    assert _README[begin : _README.index("<!-- end of settings -->")].strip() == markdown_table()


def test_every_command_is_named() -> None:
    """The README's table has each subcommand, and none that is gone."""
    table = _README.partition("### Commands")[2].partition("###")[0]
    assert set(re.findall(r"`rango ([a-z]+)", table)) == set(SUBCOMMANDS)


def test_every_close_code_is_explained() -> None:
    """The README's table has each row of the code's, with its text and its advice."""
    for reason in close.SENT:
        row = re.search(rf"^\| {reason.code} \| (.*?) \|.*\| (.*?) \|$", _README, re.MULTILINE)
        assert row is not None, reason
        assert row.groups() == (reason.text, reason.reconnect)


@pytest.mark.parametrize("name", sorted(TABLE))
def test_every_metric_is_named(name: str) -> None:
    """Each metric of ours is in the README, in full or as a part of a list."""
    words = set(re.findall(r"\w+", _README))
    prefixes = [name[:i] for i in range(len(name)) if name[i] == "_"]
    short = {name[len(prefix) :] for prefix in prefixes}
    found = {name, f"{name}_total"} & words or {f"{tail}_total" for tail in short} & words
    assert found or name.startswith("promhttp_"), name


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#:]+)\)", _README))))
def test_links_lead_somewhere(target: str) -> None:
    """Every relative link of the README is a file of the tree."""
    assert (_ROOT / target).exists()
