"""Routing keys and stream names: who may see what, by name alone.

A routing key is what a publisher writes, ``scope.stream.type``; a stream name is what a
client asks for. This module turns either into a kind and an address, and nothing else
in the package takes a key or a name apart.

=============  =====================  ==================  ======================
kind           routing key            client's name       address
=============  =====================  ==================  ======================
public         public.eurusd.trades   eurusd.trades       eurusd.trades
public         global.tickers         global.tickers      global.tickers
private        private.ID1.order      order (as uid ID1)  ID1.order
prefixed       admin.btcusd.sys       admin.btcusd.sys    admin.btcusd.sys
=============  =====================  ==================  ======================
"""

from __future__ import annotations

from typing import NamedTuple

PUBLIC = "public"
PRIVATE = "private"
PREFIXED = "prefixed"
KINDS = (PUBLIC, PRIVATE, PREFIXED)
DERIVED = "derived"  # streams that a dialect makes of others; nobody publishes on them

EVENT = 0
SNAPSHOT = 1
INCREMENT = 2

MAX_KEY_BYTES = 255  # a short string of AMQP

_NOT_IN_KEYS = set(" *#,")  # those of bindings, and what parts names in a request's query
_PUBLIC_SCOPES = ("public", "global")
_SNAP = "-snap"
_INC = "-inc"


class Route(NamedTuple):
    """Where a published message goes.

    Attributes:
        kind: one of `KINDS`.
        address: key of the stream in the registry of its kind.
        name: the name in the frame that clients receive.
        action: `EVENT`, `SNAPSHOT` or `INCREMENT`; books exist for public streams only.
    """

    kind: str
    address: str
    name: str
    action: int


def parse_key(key: str) -> Route | None:
    """Take a routing key apart; None when it fits no stream."""
    parts = key.split(".")
    if len(parts) == 3:
        scope, stream, type_ = parts
    elif len(parts) == 2:
        scope, type_ = parts
        stream = scope
    else:
        return None
    if scope in _PUBLIC_SCOPES:
        return _public(stream, type_)
    if scope == "private":
        # two parts name no user, and an empty uid belongs to nobody
        if len(parts) == 2 or not stream:
            return None
        type_ = _live_type(type_)
        return Route(PRIVATE, f"{stream}.{type_}", type_, EVENT)
    topic = f"{stream}.{_live_type(type_)}"
    return Route(PREFIXED, f"{scope}.{topic}", topic, EVENT)


def check_key(key: str) -> str:
    """Return a routing key that a publisher may use, strictly: what is likely a mistake is none.

    Raises:
        ValueError: the gateway would drop its events, or nobody could subscribe to them.
    """
    if len(key.encode()) > MAX_KEY_BYTES:
        raise ValueError(f"the routing key is longer than {MAX_KEY_BYTES} bytes")
    if parse_key(key) is None:
        raise ValueError(f"{key!r} fits no stream; give scope.stream.type or scope.type")
    if "" in key.split("."):
        raise ValueError(f"{key!r} has an empty part")
    if not key.isprintable() or set(key) & _NOT_IN_KEYS:
        raise ValueError(f"{key!r} holds a character that no stream's name should: a blank, *, #")
    return key


def _public(stream: str, type_: str) -> Route:
    if type_.endswith(_SNAP):
        name = f"{stream}.{type_}"
        return Route(PUBLIC, f"{stream}.{_live_type(type_)}", name, SNAPSHOT)
    name = f"{stream}.{type_}"
    return Route(PUBLIC, name, name, INCREMENT if type_.endswith(_INC) else EVENT)


def _live_type(type_: str) -> str:
    """Name the live stream that a snapshot's type belongs to: ``ob-snap`` -> ``ob-inc``."""
    return type_[: -len(_SNAP)] + _INC if type_.endswith(_SNAP) else type_


def kind_of(name: str) -> str:
    """Tell the kind of a name that a client asks for, by its number of dots."""
    dots = name.count(".")
    if dots == 0:
        return PRIVATE
    return PREFIXED if dots == 2 else PUBLIC


def is_book(name: str) -> bool:
    """Tell whether a public name is that of a book's increments."""
    return name.endswith(_INC) and name.count(".") == 1


def prefix_of(name: str) -> str:
    """Return the scope of a prefixed name, ``admin`` of ``admin.btcusd.sys``."""
    return name.split(".", 1)[0]


def private_address(uid: str, name: str) -> str:
    """Return the address of a user's private stream.

    A private name holds no dot, so the last dot always parts uid and name: two
    different pairs never share an address.
    """
    return f"{uid}.{name}"
