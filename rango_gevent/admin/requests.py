"""What administrators may ask, read from text. Pure.

Every request is an object with an ``event`` and perhaps an ``id``, as in the ordinary protocol.
"""

from __future__ import annotations

import re
from typing import Mapping, NamedTuple

from rango_gevent.errors import RequestError
from rango_gevent.protocol import codes, messages
from rango_gevent.protocol.messages import Id

AUTH = "auth"
OVERVIEW = "overview"
CONNECTIONS = "connections"
TAIL = "tail"
UNTAIL = "untail"
DISCONNECT = "disconnect"
PING = "ping"

EVENTS = (AUTH, OVERVIEW, CONNECTIONS, TAIL, UNTAIL, DISCONNECT)

UID = "uid"
ADDRESS = "address"
STREAM = "stream"
FIELDS = (UID, ADDRESS, STREAM)

_CONN = re.compile(r"([0-9]{1,10})-([0-9]{1,15})", re.ASCII)
_MAX_VALUE = 1024


class Place(NamedTuple):
    """A connection of one of the workers: the worker's process id, the connection's number."""

    pid: int
    number: int

    def __str__(self) -> str:
        """Return it as `read_place` reads it."""
        return f"{self.pid}-{self.number}"


class Wanted(NamedTuple):
    """A request.

    Attributes:
        event: one of `EVENTS`, or `PING`.
        token: of `AUTH`.
        place: which connection, of `TAIL` and `DISCONNECT`.
        field: by what connections are found, one of `FIELDS`; empty: all of them.
        value: what that must be.
        id: what the reply carries; None for nothing.
    """

    event: str
    token: str = ""
    place: Place | None = None
    field: str = ""
    value: str = ""
    id: Id = None


def read_place(value: object) -> Place | None:
    """Return the connection that a text names, such as ``4711-12``; None for no such text."""
    found = _CONN.fullmatch(value) if isinstance(value, str) else None
    return Place(int(found[1]), int(found[2])) if found else None


def read_request(text: str) -> Wanted | None:
    """Read a request; None for a blank one.

    Raises:
        RequestError: with the text of the reply.
    """
    text = text.strip()
    if not text:
        return None
    if text == PING:
        return Wanted(PING)
    message = messages.read_object(text)
    number = messages.id_of(message)
    try:
        return _wanted(message)._replace(id=number)
    except RequestError as error:
        error.id = number
        raise


def _wanted(message: Mapping[str, object]) -> Wanted:
    event = message.get("event")
    if not isinstance(event, str) or event not in EVENTS:
        raise RequestError(f"No such event; give one of {', '.join(EVENTS)}", codes.NO_SUCH_EVENT)
    if event == AUTH:
        token = message.get("token")
        return Wanted(AUTH, token=token if isinstance(token, str) else "")
    if event == TAIL:
        return Wanted(TAIL, place=_place(message))
    if event == DISCONNECT:
        if UID not in message:
            return Wanted(DISCONNECT, place=_place(message))
        uid = _value(message[UID])
        if not uid or "conn" in message:
            raise RequestError("Give a uid or a conn, and not both", codes.BAD_NAME)
        return Wanted(DISCONNECT, field=UID, value=uid)
    if event == CONNECTIONS:
        return _query(message)
    return Wanted(event)


def _query(message: Mapping[str, object]) -> Wanted:
    given = [field for field in FIELDS if message.get(field) not in (None, "")]
    if len(given) > 1:
        raise RequestError(f"Give one of {', '.join(FIELDS)}, or none", codes.BAD_NAME)
    if not given:
        return Wanted(CONNECTIONS)
    return Wanted(CONNECTIONS, field=given[0], value=_value(message[given[0]]))


def _place(message: Mapping[str, object]) -> Place:
    place = read_place(message.get("conn"))
    if place is None:
        raise RequestError("Give a conn, such as 4711-12", codes.BAD_NAME)
    return place


def _value(value: object) -> str:
    if not isinstance(value, str) or len(value) > _MAX_VALUE:
        raise RequestError(f"Give a text of at most {_MAX_VALUE} characters", codes.BAD_NAME)
    return value
