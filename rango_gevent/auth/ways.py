"""The ways in which a token may come: one table, a row each.

Each way looks into the variables of a handshake and finds a token or nothing. The first one that
finds a token decides, in the order of the table; which of them are open is a setting. A browser
cannot set the Authorization header of a WebSocket, so there are four for handshakes and one after
them, `MESSAGE`; `RANGER` is how bots of the older sibling do the same.
"""

from __future__ import annotations

import re
from typing import Callable, Collection, Mapping, NamedTuple
from urllib.parse import unquote_plus

HEADER = "header"
SUBPROTOCOL = "subprotocol"
COOKIE = "cookie"
QUERY = "query"
MESSAGE = "message"
RANGER = "ranger"

_SCHEME = "bearer "
_BEARER = "bearer."
_PROTOCOLS = "HTTP_SEC_WEBSOCKET_PROTOCOL"
_MAX_PROTOCOL_BYTES = 64
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)  # RFC 9110 section 5.6.2

Environ = Mapping[str, object]


def bearer(header_value: str | None) -> str | None:
    """Return the token of an Authorization header, or None if it does not hold exactly one.

    The word ``Bearer`` may be in any case (RFC 9110 section 11.1); one space follows it.
    """
    if header_value is None or header_value[: len(_SCHEME)].lower() != _SCHEME:
        return None
    token = header_value[len(_SCHEME) :]
    return token if token.split() == [token] else None


def protocols(environ: Environ) -> list[str]:
    """Return the subprotocols that a client offers, its token among them if it is there.

    A header that is no list of tokens (RFC 6455 section 4.1) offers none.
    """
    offered = environ.get(_PROTOCOLS)
    if not isinstance(offered, str):
        return []
    names = [name.strip(" \t") for name in offered.split(",")]
    return names if all(map(_TOKEN.fullmatch, names)) else []


def chosen(offered: Collection[str], known: str) -> str:
    """Return the subprotocol to answer with, empty for none; never one that holds a token.

    Browsers end a connection whose server chooses none of those that they offered, so a name
    that nobody knows is chosen too: it means nothing here.
    """
    if known in offered:
        return known
    names = (n for n in offered if not n.startswith(_BEARER) and len(n) <= _MAX_PROTOCOL_BYTES)
    return next(names, "")


def _in_header(environ: Environ, cookie: str) -> str | None:
    value = environ.get("HTTP_AUTHORIZATION")
    return bearer(value) if isinstance(value, str) else None


def _in_subprotocol(environ: Environ, cookie: str) -> str | None:
    if _PROTOCOLS not in environ:
        return None
    names = (name for name in protocols(environ) if name.startswith(_BEARER))
    return next(names, "")[len(_BEARER) :] or None


def _in_cookie(environ: Environ, cookie: str) -> str | None:
    """Find the first cookie of a name (RFC 6265 section 4.2)."""
    value = environ.get("HTTP_COOKIE")
    if not cookie or not isinstance(value, str):
        return None
    for pair in value.split(";"):
        name, equals, found = pair.strip(" \t").partition("=")
        if equals and name == cookie:
            return found.strip('"') or None
    return None


def _in_query(environ: Environ, cookie: str) -> str | None:
    query = environ.get("QUERY_STRING")
    if not isinstance(query, str):
        return None
    for field in query.split("&"):
        if field.startswith("token="):
            return unquote_plus(field[len("token=") :], "latin-1") or None
    return None


class Way(NamedTuple):
    """A row of the table.

    Attributes:
        find: finds a token in a handshake's variables and the name of the cookie.
        is_told: a client whose token is refused is told, where it may stay without; Rango's own
            way leaves it in the dark.
        by_browser: the browser sends the token by itself, whatever page asks it to connect.
    """

    find: Callable[[Environ, str], str | None]
    is_told: bool = True
    by_browser: bool = False


OF_HANDSHAKES = {
    HEADER: Way(_in_header, is_told=False),
    SUBPROTOCOL: Way(_in_subprotocol),
    COOKIE: Way(_in_cookie, by_browser=True),
    QUERY: Way(_in_query),
}
NAMES = (*OF_HANDSHAKES, MESSAGE, RANGER)
DEFAULT = tuple(name for name in NAMES if name != QUERY)


class Offer(NamedTuple):
    """A token that came with a handshake, and the way it came."""

    token: str
    way: Way


class Ways:
    """The ways that are open for handshakes.

    Args:
        names: of the ways, out of `NAMES`.
        cookie: name of the cookie; empty: no cookie is looked at.
    """

    def __init__(self, names: Collection[str] = DEFAULT, cookie: str = "") -> None:
        self._open = [way for name, way in OF_HANDSHAKES.items() if name in names]
        self._cookie = cookie

    def offer(self, environ: Environ, *, is_checked: bool) -> Offer | None:
        """Return the token that a handshake brings.

        Args:
            environ: variables of the handshake.
            is_checked: it comes from a page whose origin was found in a list, or is our own. What
                a browser sends by itself counts for nothing else (RFC 6455 section 10.2).
        """
        for way in self._open:
            if is_checked or not way.by_browser:
                token = way.find(environ, self._cookie)
                if token:
                    return Offer(token, way)
        return None
