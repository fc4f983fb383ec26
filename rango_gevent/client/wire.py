"""What goes over the wire from a client's side, and what is told of it. Pure: text in, text out.

URLs and tokens as people give them, requests and events as the gateway takes and sends them, and
ends of connections in words.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from websockets.exceptions import ConnectionClosed, InvalidStatus

from rango_gevent.client.model import ConnectionLost
from rango_gevent.errors import ConfigError, RangoError, Refused
from rango_gevent.protocol import close
from rango_gevent.protocol.refusals import Refusal

_SCHEMES = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
_ENDPOINTS = ("/public", "/private")
_REQUEST_BYTES = 500  # Rango takes messages of up to 512
_MORE_BYTES = 90  # an id, and the position of a stream that comes back
_STATUS_SHOWN = 200  # characters of a refusal's body
_AT = ',"at":"'
_POSITION_CHARACTERS = 40

# Of these a gateway would say the same again; 401 with a token that may be another one, and all
# others, are worth a try.
_FINAL_STATUSES = {400, 401, 403, 404, 405, 410, 426}
_UNAUTHORIZED = 401
_UNKNOWN_EVENT = 1002  # of subprotocol rango.v1
# What this side closes with when bytes arrive that are no frames: the next ones may be.
_GARBLED = (1002, 1007)
# Codes of gateways newer or older than the table.
_MORE_CODES = {4401: close.NOW, 4403: close.NEVER}

_decode = json.JSONDecoder().raw_decode


class Message(NamedTuple):
    """A message taken apart: the name of its first member, and that member's JSON text."""

    name: str
    body: str


class Reply(NamedTuple):
    """A reply, or an error.

    Attributes:
        message: the word of a success, such as ``subscribed``; None for an error.
        error: the text of an error; None for a success.
        code: the number of an error, where the gateway gives one.
        number: the id of the request.
        value: the whole object.
    """

    message: str | None
    error: str | None
    code: int | None
    number: int | str | None
    value: dict[str, Any]

    def streams(self) -> list[str] | None:
        """Return the names that are held; None when it lists none."""
        success = self.value.get("success")
        names = success.get("streams") if isinstance(success, dict) else None
        return names if isinstance(names, list) else None

    def get(self, name: str) -> Any:
        """Return a member of the success; None without one."""
        success = self.value.get("success")
        return success.get(name) if isinstance(success, dict) else None


class End(NamedTuple):
    """How a connection, or the attempt to make one, ended.

    Attributes:
        reason: in words.
        code: close code or HTTP status, None without one.
        when: to come back: a word of `protocol.close`.
        retry_after_s: seconds that the gateway asked to stay away, None when it did not.
        error: what to raise when there is no coming back.
    """

    reason: str
    code: int | None = None
    when: str = close.LATER
    retry_after_s: float | None = None
    error: RangoError | None = None


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
        shown = "..." if "@" in url or "?" in url else repr(url)  # they may hold secrets
        raise ConfigError(f"url {shown}: give one such as ws://127.0.0.1:8080 or wss://host/path")
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


def split_event(text: str) -> Message | None:
    """Take ``{"name":body}`` apart without parsing the body; None when it is something else."""
    if not text.startswith('{"') or not text.endswith("}"):
        return None
    end = text.find('"', 2)
    name = text[2:end]
    if "\\" in name:
        try:
            name, end = _decode(text, 1)
        except ValueError:
            return None
        end -= 1
    if end < 0 or text[end + 1 : end + 2] != ":":
        return None
    return Message(name, text[end + 2 : -1])


def split_position(body: str) -> tuple[str, str | None]:
    """Take the position off an event's text (``…,"at":"12-ab"``); None when it has none.

    No JSON value ends like that by itself: within one a quote has a backslash before it.
    """
    if not body.endswith('"'):
        return body, None
    start = body.rfind(_AT, max(0, len(body) - len(_AT) - _POSITION_CHARACTERS - 1))
    position = body[start + len(_AT) : -1]
    if start < 1 or not position or '"' in position or "\\" in position:
        return body, None
    return body[:start], position


def parse_object(text: str) -> dict[str, Any]:
    """Read a JSON object; an empty one for everything else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def parse_reply(text: str) -> Reply | None:
    """Read a reply or an error; None when it is something else."""
    value = parse_object(text)
    number, code = value.get("id"), value.get("code")
    number = number if isinstance(number, (int, str)) else None
    success, error = value.get("success"), value.get("error")
    if isinstance(success, dict):
        return Reply(str(success.get("message")), None, None, number, value)
    if isinstance(error, dict):  # Ranger's form
        error = error.get("message")
    if not isinstance(error, str):
        return None
    return Reply(None, error, code if isinstance(code, int) else None, number, value)


def is_unknown_event(reply: Reply) -> bool:
    """Tell whether a gateway does not know what it was asked, in Rango's words or by number."""
    return "Invalid event" in (reply.error or "") or reply.code == _UNKNOWN_EVENT


def expiry_s(token: str) -> float | None:
    """Return when a JWT says that it expires, seconds since 1970; None when it does not say."""
    try:
        claims = token.split(".")[1]
        value = json.loads(urlsafe_b64decode(claims + "=" * (-len(claims) % 4))).get("exp")
    except (ValueError, IndexError, AttributeError, RecursionError):
        return None  # an opaque one, or none at all
    return float(value) if isinstance(value, (int, float)) else None


def held_names(event: Message) -> list[str] | None:
    """Return the names in the reply to a request; None when it is another reply."""
    try:
        reply = json.loads(event.body)
    except (ValueError, RecursionError):
        return None
    names = reply.get("streams") if isinstance(reply, dict) else None
    return names if isinstance(names, list) else None


def requests(
    action: str, names: Iterable[str], most_bytes: int = _REQUEST_BYTES
) -> Iterator[list[str]]:
    """Cut names into lists whose requests have at most so many bytes, where names allow that."""
    batch: list[str] = []
    size = empty = len(encode_request({"event": action, "streams": []})) + _MORE_BYTES
    for name in names:
        name_bytes = len(encode_request({"": name}).encode()) - 4
        if batch and size + name_bytes > most_bytes:
            yield batch
            batch, size = [], empty
        batch.append(name)
        size += name_bytes
    if batch:
        yield batch


def encode_request(request: Mapping[str, Any]) -> str:
    """Encode a request as JSON without blanks."""
    return json.dumps(request, separators=(",", ":"))


def reconnect_when(code: int | None) -> str:
    """Return what a close code means for a client: a word of `protocol.close`."""
    reason = close.BY_CODE.get(code or 0)
    return reason.reconnect if reason else _MORE_CODES.get(code or 0, close.LATER)


def lost(error: ConnectionClosed) -> ConnectionLost:
    """Translate the end of a connection; who closed first gave the reason."""
    frame = error.rcvd
    if error.sent is not None and not error.rcvd_then_sent:
        frame = error.sent
    if frame is None:
        cause = f": {reason(error.__cause__)}" if isinstance(error.__cause__, OSError) else ""
        return ConnectionLost(f"the connection was cut{cause}")
    text = f"the connection was closed: {frame.code} {frame.reason}".rstrip()
    return ConnectionLost(text, frame.code)


def refused(error: InvalidStatus) -> Refused:
    """Translate a status other than 101, with the server's own words."""
    status = error.response.status_code
    body = (error.response.body or b"").decode("utf-8", "replace")
    text = body.strip().split("\n")[0][:_STATUS_SHOWN] or error.response.reason_phrase
    return Refused(Refusal(status, "handshake", f"refused with HTTP {status}: {text}"))


def end_of(error: Exception, url: str, *, fresh_token: bool) -> End:
    """Return how a connection ended, by the exception that ended it.

    Args:
        error: as ``websockets`` or the system raised it.
        url: the gateway's.
        fresh_token: the next attempt may come with another token.
    """
    if isinstance(error, InvalidStatus):
        why = refused(error)
        final = why.status in _FINAL_STATUSES and not (why.status == _UNAUTHORIZED and fresh_token)
        after_s = retry_after_s(error.response.headers.get("Retry-After") or "")
        return End(str(why), why.status, close.NEVER if final else close.LATER, after_s, why)
    if isinstance(error, ConnectionClosed):
        gone = lost(error)
        is_ours = error.sent is not None and not error.rcvd_then_sent
        when = close.LATER if is_ours and gone.code in _GARBLED else reconnect_when(gone.code)
        return End(str(gone), gone.code, when, None, gone)
    gone = ConnectionLost(f"cannot connect to {bare(url)}: {reason(error)}")
    return End(str(gone), None, close.LATER, None, gone)


def retry_after_s(text: str) -> float | None:
    """Read a Retry-After header in seconds; its other form, a date, counts as none."""
    return float(text) if text.isascii() and text.isdigit() else None


def bare(url: str) -> str:
    """Return a URL without its query, which may hold a secret."""
    return url.partition("?")[0]


def with_parameters(url: str, *parameters: str) -> str:
    """Return a URL with more in its query, such as ``resume=1``; what is there stays as it is."""
    query = "&".join(parameters)
    return f"{url}{'&' if '?' in url else '?'}{query}" if query else url


def without_streams(url: str) -> str:
    """Return a URL whose query subscribes to nothing; what else is there stays as it is."""
    base, _, query = url.partition("?")
    rest = [part for part in query.split("&") if part and part.partition("=")[0] != "stream"]
    return f"{base}?{'&'.join(rest)}" if rest else base


def names_in_url(url: str) -> list[str]:
    """Return the streams that a URL's own query subscribes to."""
    pairs = parse_qsl(urlsplit(url).query)
    return [name for key, value in pairs if key == "stream" for name in value.split(",") if name]


def reason(error: Exception) -> str:
    """Return an error's own words, its kind when it has none."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
