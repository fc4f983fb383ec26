"""What goes over the wire from a client's side, and what is told of it. Pure: text in, text out.

URLs and tokens as people give them, requests and events as the gateway takes and sends them, and
ends of connections in words.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

from websockets.exceptions import ConnectionClosed, InvalidStatus

from rango_gevent.errors import ConfigError, RangoError, Refused
from rango_gevent.protocol import close
from rango_gevent.protocol.refusals import Refusal

_SCHEMES = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
_ENDPOINTS = ("/public", "/private")
_REQUEST_BYTES = 500  # Rango takes messages of up to 512
_STATUS_SHOWN = 200  # characters of a refusal's body

_decode = json.JSONDecoder().raw_decode


class Event(NamedTuple):
    """An event: the stream's name and the JSON text that was published."""

    name: str
    body: str


class ConnectionLost(RangoError):
    """A connection could not be made, or ended.

    Args:
        text: what happened.
        code: the close code, None when there was none.
    """

    def __init__(self, text: str, code: int | None = None) -> None:
        super().__init__(text)
        self.code = code


def endpoint(url: str, *, private: bool) -> str:
    """Return the URL to connect to: ``/public`` or ``/private`` is added unless it is there.

    Raises:
        ConfigError: it is no URL of a WebSocket server.
    """
    try:
        parts = urlsplit(url)
        scheme, host, _ = _SCHEMES[parts.scheme], parts.hostname, parts.port
    except (ValueError, KeyError):
        host = None
    if not host or "@" in parts.netloc or not url.isprintable() or " " in url:
        raise ConfigError(f"url {url!r}: give one such as ws://127.0.0.1:8080 or wss://host/path")
    path = parts.path.rstrip("/")
    if not path.endswith(_ENDPOINTS):
        path += "/private" if private else "/public"
    return urlunsplit((scheme, parts.netloc, path, parts.query, ""))


def checked_token(token: str) -> str:
    """Return a token as it goes into the header, with or without the word in front.

    Raises:
        ConfigError: it cannot be one.
    """
    token = token.strip()
    if token.startswith("Bearer "):
        token = token[len("Bearer ") :].strip()
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError("the token holds blanks or other characters that no JWT has")
    return token


def split_event(text: str) -> Event | None:
    """Take ``{"name":body}`` apart without parsing the body; None when it is something else."""
    if not text.startswith('{"') or not text.endswith("}"):
        return None
    try:
        name, end = _decode(text, 1)
    except ValueError:
        return None
    if text[end : end + 1] != ":":
        return None
    return Event(name, text[end + 1 : -1])


def held_names(event: Event) -> list[str] | None:
    """Return the names in the reply to a request; None when it is another reply."""
    try:
        reply = json.loads(event.body)
    except (ValueError, RecursionError):
        return None
    names = reply.get("streams") if isinstance(reply, dict) else None
    return names if isinstance(names, list) else None


def requests(action: str, names: Iterable[str]) -> Iterator[str]:
    """Encode a request for names as messages of at most 500 bytes where names allow that."""
    batch: list[str] = []
    for name in names:
        if batch and len(_request(action, [*batch, name]).encode()) > _REQUEST_BYTES:
            yield _request(action, batch)
            batch = []
        batch.append(name)
    if batch:
        yield _request(action, batch)


def _request(action: str, names: list[str]) -> str:
    return json.dumps({"event": action, "streams": names})


def reconnect_when(code: int | None) -> str:
    """Return what a close code means for a client: a word of `protocol.close`."""
    reason = close.BY_CODE.get(code or 0)
    return reason.reconnect if reason else close.LATER


def lost(error: ConnectionClosed) -> ConnectionLost:
    """Translate the end of a connection; who closed first gave the reason."""
    frame = error.rcvd
    if error.sent is not None and not error.rcvd_then_sent:
        frame = error.sent
    if frame is None:
        return ConnectionLost("the connection was cut")
    text = f"the connection was closed: {frame.code} {frame.reason}".rstrip()
    return ConnectionLost(text, frame.code)


def refused(error: InvalidStatus) -> Refused:
    """Translate a status other than 101, with the server's own words."""
    status = error.response.status_code
    body = (error.response.body or b"").decode("utf-8", "replace")
    text = body.strip().split("\n")[0][:_STATUS_SHOWN] or error.response.reason_phrase
    return Refused(Refusal(status, "handshake", f"refused with HTTP {status}: {text}"))


def reason(error: Exception) -> str:
    """Return an error's own words, its kind when it has none."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
