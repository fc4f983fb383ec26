"""Requests that clients send, and the replies and events that they receive.

Texts of replies are those of Rango, to the byte: clients in the field match on them.
Parsing is by ujson (fast, and a client's request is only read for names); names are
checked here for everything that ujson lets through, such as lone surrogates.
"""

from __future__ import annotations

from typing import Iterable, NamedTuple
from urllib.parse import unquote_to_bytes

import ujson

from rango_gevent.errors import RequestError
from rango_gevent.protocol import frames

SUBSCRIBE = "subscribe"
UNSUBSCRIBE = "unsubscribe"
PING = "ping"

PONG_FRAME = frames.text(b"pong")


class Request(NamedTuple):
    """A client's request: `SUBSCRIBE`, `UNSUBSCRIBE` or `PING`, and the names it holds."""

    action: str
    names: tuple[str, ...]


class NameLimits(NamedTuple):
    """Bounds on what one client may ask for: names held at once, bytes of one name."""

    max_names: int
    max_name_bytes: int


def parse_request(text: str, limits: NameLimits) -> Request | None:
    """Parse a message from a client; None when it is blank.

    Raises:
        RequestError: with the text of the reply.
    """
    text = text.strip()
    if not text:
        return None
    if text == "ping":
        return Request(PING, ())
    try:
        message = ujson.loads(text)
    except (ValueError, OverflowError, RecursionError) as error:
        raise RequestError(f"Could not parse message: {_plain(error)}") from None
    if message is None:
        message = {}  # as Go's decoder takes it
    if not isinstance(message, dict):
        raise RequestError("Could not parse message: not a JSON object")
    action = message.get("event")
    if action not in (SUBSCRIBE, UNSUBSCRIBE):
        raise RequestError("Could not parse Type: Invalid event")
    if "streams" not in message:
        raise RequestError("No streams provided")
    return Request(action, _names_in(message["streams"], limits))


def _plain(error: Exception) -> str:
    """Describe a parse error without quoting what the client sent."""
    return str(error).encode("ascii", "replace").decode()[:200]


def _names_in(streams: object, limits: NameLimits) -> tuple[str, ...]:
    if isinstance(streams, (str, dict)):
        return ()  # as Rango counts them
    if not isinstance(streams, list):
        raise RequestError("Could not parse streams: not a list")
    return check_names(streams, limits)


def check_names(names: Iterable[object], limits: NameLimits) -> tuple[str, ...]:
    """Return the names, each once, when every one of them can be a stream's name.

    Raises:
        RequestError: too many names, or one that is no string, too long, or holds unprintable
            characters or lone surrogates.
    """
    checked = tuple(dict.fromkeys(_check_name(name, limits.max_name_bytes) for name in names))
    if len(checked) > limits.max_names:
        raise RequestError(f"Too many streams: the limit is {limits.max_names}")
    return checked


def _check_name(name: object, max_bytes: int) -> str:
    if not isinstance(name, str):
        raise RequestError("Could not parse streams: a name is not a string")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise RequestError("Could not parse streams: a name is not valid Unicode") from None
    if size > max_bytes:
        raise RequestError(f"Stream name too long: the limit is {max_bytes} bytes")
    if not name.isprintable():
        raise RequestError("Could not parse streams: a name holds unprintable characters")
    return name


def names_in_query(query: str, limits: NameLimits) -> tuple[str, ...]:
    """Read the names of ``?stream=a.b,c.d&stream=e.f``, URL-decoded, empty ones left out.

    Args:
        query: as WSGI has it: bytes as Latin-1, percent escapes untouched.
        limits: bounds on the names.

    Raises:
        RequestError: as `check_names`.
    """
    names: list[str] = []
    for field in query.split("&"):
        key, _, value = field.partition("=")
        if key == "stream":
            try:
                decoded = unquote_to_bytes(value.replace("+", " ").encode("latin-1")).decode()
            except UnicodeError:
                raise RequestError("Could not parse streams: not UTF-8") from None
            names.extend(name for name in decoded.split(",") if name)
    return check_names(names, limits)


def event_head(name: str) -> bytes:
    """Return the bytes before an event's body: ``{"<name>":``."""
    return b"{" + _dumps(name) + b":"


def error(text: str) -> bytes:
    """Encode ``{"error": text}`` as a frame."""
    return frames.text(_dumps({"error": text}))


def refused(name: str) -> bytes:
    """Encode the notice that a role may not have a prefixed stream, as a frame."""
    return frames.text(_dumps({"success": {"message": f"cannot subscribe to {name}"}}))


def subscribed(names: list[str]) -> bytes:
    """Encode the reply to `SUBSCRIBE` as a frame; names are all that the client holds."""
    return _held("subscribed", names)


def unsubscribed(names: list[str]) -> bytes:
    """Encode the reply to `UNSUBSCRIBE` as a frame; names are all that the client holds."""
    return _held("unsubscribed", names)


def resync(names: list[str]) -> bytes:
    """Encode the notice that books are stale until their next snapshot, as a frame.

    Only clients that connected with ``notices=1`` get it: Rango knows no such message.
    """
    return frames.text(_dumps({"event": "resync", "streams": names}))


def _held(message: str, names: list[str]) -> bytes:
    return frames.text(_dumps({"success": {"message": message, "streams": names}}))


def _dumps(value: object) -> bytes:
    return ujson.dumps(value, ensure_ascii=False, escape_forward_slashes=False).encode()
