"""How a table of settings is written, and how the texts of its rows become values.

A table is a frozen dataclass; a field's metadata is its row. The gateway has one
(`rango_gevent.settings.table`), and so has ``rango marketdata``. Pure.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Callable, Mapping, NamedTuple

from rango_gevent.errors import ConfigError
from rango_gevent.parsers import Problem, utf8


class Option(NamedTuple):
    """A row of the table.

    Attributes:
        env: environment variable.
        parse: turns text into the value; raises ValueError saying what is wanted.
        text: what the setting does, with its unit.
        flag: command-line flag without dashes, empty for none.
        secret: never shown.
        reload: SIGHUP takes a new value over; otherwise that needs a restart.
        show: turns the value into text that ``parse`` reads as that.
    """

    env: str
    parse: Callable[[str], Any]
    text: str
    flag: str = ""
    secret: bool = False
    reload: bool = True
    show: Callable[[Any], str] = str


def row(default: Any, option: Option) -> Any:
    """Return a field of a table; a type checker takes it for a value of what is annotated."""
    return dataclasses.field(default=default, repr=not option.secret, metadata={"option": option})


def rows(table: type[Any]) -> dict[str, Option]:
    """Return field name to row, in the table's order; fields without a row are left out."""
    return {
        field.name: field.metadata["option"]
        for field in dataclasses.fields(table)
        if "option" in field.metadata
    }


def parse_all(
    table: Mapping[str, Option], given: Mapping[str, tuple[str, str]]
) -> tuple[dict[str, Any], list[str]]:
    """Parse what was given.

    Args:
        table: field name to row.
        given: field name to where a text comes from, as its reader wrote it, and the text.

    Returns:
        values by field name, and what is wrong with the other texts, a line for each problem.
    """
    values: dict[str, Any] = {}
    problems: list[str] = []
    for name, (source, text) in given.items():
        option = table[name]
        try:
            values[name] = option.parse(utf8(text))
        except Problem as problem:
            told = "" if option.secret else f"={text!r}"
            problems.append(f"{source}{told}: {problem}")
        except ConfigError as error:
            problems += error.problems
    return values, problems
