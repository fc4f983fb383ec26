"""The ways in which tokens come with a handshake: what is found where, and what is answered."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rango_gevent.auth import ways
from rango_gevent.auth.ways import Ways, chosen, protocols

TOKEN = "eyJhbGciOiJFZERTQSJ9.eyJ1aWQiOiJJRDEifQ.c2lnbmF0dXJl"
PROTOCOL = "HTTP_SEC_WEBSOCKET_PROTOCOL"
ALL = Ways(ways.NAMES, "session")


def found(of: Ways = ALL, *, is_checked: bool = True, **environ: Any) -> str | None:
    """Return the token that is found."""
    offer = of.offer(environ, is_checked=is_checked)
    return offer.token if offer else None


@pytest.mark.parametrize(
    ("environ", "token"),
    [
        ({}, None),
        ({"HTTP_AUTHORIZATION": "bearer T"}, "T"),
        ({"HTTP_AUTHORIZATION": "Basic dTpw"}, None),
        ({PROTOCOL: f"rango.v1, bearer.{TOKEN}"}, TOKEN),
        ({PROTOCOL: f"bearer.{TOKEN}"}, TOKEN),
        ({PROTOCOL: f"bearer.{TOKEN},graphql-ws"}, TOKEN),
        ({PROTOCOL: "rango.v1, bearer.T, bearer.U"}, "T"),
        ({PROTOCOL: "rango.v1, bearer."}, None),
        ({PROTOCOL: "rango.v1"}, None),
        ({PROTOCOL: f"Bearer.{TOKEN}"}, None),
        ({PROTOCOL: f"rango.v1, bearer.{TOKEN} x"}, None),
        ({PROTOCOL: f"rango.v1,, bearer.{TOKEN}"}, None),
        ({"HTTP_COOKIE": "a=b; session=T; c=d"}, "T"),
        ({"HTTP_COOKIE": 'session="T"'}, "T"),
        ({"HTTP_COOKIE": "session=T;session=U"}, "T"),
        ({"HTTP_COOKIE": "xsession=T; sessionx=T; Session=T; session"}, None),
        ({"HTTP_COOKIE": "session="}, None),
        ({"QUERY_STRING": "stream=a.b&token=T"}, "T"),
        ({"QUERY_STRING": "token=a%2Eb+c"}, "a.b c"),
        ({"QUERY_STRING": "xtoken=T&Token=T&token"}, None),
        ({"HTTP_AUTHORIZATION": "Bearer T", PROTOCOL: "bearer.U", "HTTP_COOKIE": "session=V"}, "T"),
        ({"HTTP_AUTHORIZATION": "Basic x", "HTTP_COOKIE": "session=V"}, "V"),
    ],
)
def test_where_a_token_is_found(environ: dict[str, str], token: str | None) -> None:
    """The first way that has one decides."""
    assert found(**environ) == token


OF_EACH = {
    ways.HEADER: {"HTTP_AUTHORIZATION": "Bearer T"},
    ways.SUBPROTOCOL: {PROTOCOL: "bearer.T"},
    ways.COOKIE: {"HTTP_COOKIE": "session=T"},
    ways.QUERY: {"QUERY_STRING": "token=T"},
}


@pytest.mark.parametrize("way", OF_EACH)
def test_each_way_can_be_closed(way: str) -> None:
    """It then finds nothing; the others go on."""
    others = Ways([name for name in ways.NAMES if name != way], "session")
    for name, environ in OF_EACH.items():
        assert found(others, **environ) == (None if name == way else "T")
        assert found(Ways([way], "session"), **environ) == ("T" if name == way else None)


def test_what_is_open_by_default() -> None:
    """A query ends up in logs, and a cookie has no name."""
    default = Ways()
    assert found(default, **OF_EACH[ways.QUERY]) is None
    assert found(default, **OF_EACH[ways.COOKIE]) is None
    assert found(default, **OF_EACH[ways.HEADER]) == "T"
    assert found(default, **OF_EACH[ways.SUBPROTOCOL]) == "T"


def test_a_cookie_counts_for_checked_origins_only() -> None:
    """The browser sends it whatever page asks for the connection."""
    assert found(**OF_EACH[ways.COOKIE], is_checked=False) is None
    for way in (ways.HEADER, ways.SUBPROTOCOL, ways.QUERY):
        assert found(**OF_EACH[way], is_checked=False) == "T"


@pytest.mark.parametrize(
    ("offered", "answer"),
    [
        ("rango.v1", "rango.v1"),
        (f"bearer.{TOKEN}, rango.v1", "rango.v1"),
        ("graphql-ws, rango.v1", "rango.v1"),
        ("graphql-ws, other", "graphql-ws"),
        (f"bearer.{TOKEN}, graphql-ws", "graphql-ws"),
        (f"bearer.{TOKEN}", ""),
        ("x" * 65, ""),
        ("a b", ""),
        ("a\r\nb", ""),
        ("", ""),
        (None, ""),
    ],
)
def test_what_is_answered(offered: str | None, answer: str) -> None:
    """Ours, else one of theirs that means nothing, so that browsers go on; never the token."""
    assert chosen(protocols({PROTOCOL: offered}), "rango.v1") == answer


@given(st.text(), st.text(), st.text(), st.text())
def test_any_headers_are_looked_at(header: str, offered: str, cookie: str, query: str) -> None:
    """Nothing is raised; what is answered was offered, is printable, and is not what was found."""
    environ = {
        "HTTP_AUTHORIZATION": header,
        PROTOCOL: offered,
        "HTTP_COOKIE": cookie,
        "QUERY_STRING": query,
    }
    ALL.offer(environ, is_checked=True)
    answer = chosen(protocols(environ), "rango.v1")
    assert not answer or (answer in offered and answer.isascii() and answer.isprintable())
    assert not answer.startswith("bearer.")
