"""Control messages: what is understood, and what is told of what is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rango_gevent.auth.control import Command, parse_commands


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"revoke":{"uid":"ID1","before":1700000000}}', [Command("revoke", "ID1", 1.7e9)]),
        (
            b'{"revoke":{"uid":"ID1","before":1700000000.5}}',
            [Command("revoke", "ID1", 1.7e9 + 0.5)],
        ),
        (b'{"revoke":{"uid":"ID1"}}', [Command("revoke", "ID1")]),
        (b'{"disconnect":{"uid":"ID1"}}', [Command("disconnect", "ID1")]),
        (
            b'{"disconnect":{"uid":"b"},"x":1,"revoke":{"uid":"a"}}',
            [Command("revoke", "a"), Command("disconnect", "b")],
        ),
    ],
)
def test_commands(body: bytes, expected: list[Command]) -> None:
    """One message may hold both."""
    assert parse_commands(body) == expected


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "neither revoke nor disconnect"),
        (b"{}", "neither revoke nor disconnect"),
        (b'{"revoke":"ID1"}', "revoke is not an object"),
        (b'{"disconnect":{}}', "disconnect names no uid"),
        (b'{"revoke":{"uid":""}}', "revoke names no uid"),
        (b'{"revoke":{"uid":5}}', "revoke names no uid"),
        (b'{"revoke":{"uid":"a","before":"now"}}', "before is not a Unix time"),
        (b'{"revoke":{"uid":"a","before":true}}', "before is not a Unix time"),
        (b'{"revoke":{"uid":"a","before":1e300}}', "before is not a Unix time"),
    ],
)
def test_what_is_no_command(body: bytes, problem: str) -> None:
    """It is said in one line that repeats nothing."""
    with pytest.raises(ValueError, match=f"^{problem}$"):
        parse_commands(body)


@given(st.binary())
def test_any_body_is_judged(body: bytes) -> None:
    """Nothing else is raised."""
    try:
        parse_commands(body)
    except ValueError as error:
        assert str(error).isprintable()
