"""Requests that clients send, and the replies and events that they receive.

Texts of replies are those of Rango, to the byte: clients in the field match on them.
Parsing is by ujson (fast, and a client's request is only read for names); names are
checked here for everything that ujson lets through, such as lone surrogates.
"""

from __future__ import annotations

from typing import Iterable, Mapping, NamedTuple, Union
from urllib.parse import unquote_to_bytes

import ujson

from rango_gevent.errors import RequestError
from rango_gevent.protocol import codes, frames

SUBSCRIBE = "subscribe"
SUBSCRIBED = "subscribed"
UNSUBSCRIBE = "unsubscribe"
PING = "ping"
LIST = "list"
TIME = "time"
SNAPSHOT = "snapshot"
AUTH = "auth"
JWT = "jwt"  # Ranger's way to authenticate, which names no event

_WITH_STREAMS = (SUBSCRIBE, UNSUBSCRIBE, SNAPSHOT)
_EVENTS = (*_WITH_STREAMS, LIST, TIME, AUTH)

_MAX_ID = 1 << 63
_MAX_ID_BYTES = 64

Id = Union[int, str, None]

PONG_FRAME = frames.text(b"pong")


class Request(NamedTuple):
    """A client's request.

    Attributes:
        action: `PING`, an event's name, or `JWT`.
        names: streams that it names.
        token: of a request to authenticate; empty where there is none, or none that is text.
        id: what its reply carries; None for nothing.
        since: the position that a client says it stands at, None for none; empty: it is no text.
    """

    action: str
    names: tuple[str, ...] = ()
    token: str = ""
    id: Id = None
    since: str | None = None


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
        return Request(PING)
    message = read_object(text)
    number = id_of(message)
    try:
        return _request(message, limits)._replace(id=number)
    except RequestError as error:
        error.id = number
        raise


def read_object(text: str) -> dict[str, object]:
    """Read a request's object.

    Raises:
        RequestError: it is none.
    """
    try:
        message = ujson.loads(text)
    except (ValueError, OverflowError, RecursionError) as error:
        text = f"Could not parse message: {_plain(error)}"
        raise RequestError(text, codes.NOT_JSON) from None
    if message is None:
        return {}  # as Go's decoder takes it
    if not isinstance(message, dict):
        raise RequestError("Could not parse message: not a JSON object", codes.NOT_JSON)
    return message


def id_of(message: Mapping[str, object]) -> Id:
    """Return a request's id; one that is none is ignored, as Rango ignores all of them."""
    number = message.get("id")
    if isinstance(number, str):
        return number if _is_short(number) else None
    if isinstance(number, int) and not isinstance(number, bool):
        return number if -_MAX_ID <= number < _MAX_ID else None
    return None


def _is_short(text: str) -> bool:
    try:
        return len(text.encode()) <= _MAX_ID_BYTES
    except UnicodeEncodeError:
        return False


def _request(message: Mapping[str, object], limits: NameLimits) -> Request:
    action = message.get("event")
    if action is None and JWT in message:
        return Request(JWT, token=_token_in(message[JWT]))
    if not isinstance(action, str) or action not in _EVENTS:
        raise no_such_event()
    if action == AUTH:
        return Request(AUTH, token=_token_in(message.get("token")))
    if action not in _WITH_STREAMS:
        return Request(action)
    if "streams" not in message:
        raise RequestError("No streams provided", codes.NO_STREAMS)
    return Request(action, _names_in(message["streams"], limits), since=_since_in(message))


def _since_in(message: Mapping[str, object]) -> str | None:
    since = message.get("since")
    return since if isinstance(since, str) or since is None else ""


def _token_in(value: object) -> str:
    return value if isinstance(value, str) else ""


def no_such_event() -> RequestError:
    """Make the error for a request that nobody knows."""
    return RequestError("Could not parse Type: Invalid event", codes.NO_SUCH_EVENT)


def _plain(error: Exception) -> str:
    """Describe a parse error without quoting what the client sent."""
    return str(error).encode("ascii", "replace").decode()[:200]


def _names_in(streams: object, limits: NameLimits) -> tuple[str, ...]:
    if isinstance(streams, (str, dict)):
        return ()  # as Rango counts them
    if not isinstance(streams, list):
        raise RequestError("Could not parse streams: not a list", codes.NO_STREAMS)
    return check_names(streams, limits)


def check_names(names: Iterable[object], limits: NameLimits) -> tuple[str, ...]:
    """Return the names, each once, when every one of them can be a stream's name.

    Raises:
        RequestError: too many names, or one that is no string, too long, or holds unprintable
            characters or lone surrogates.
    """
    checked = tuple(dict.fromkeys(_check_name(name, limits.max_name_bytes) for name in names))
    if len(checked) > limits.max_names:
        raise too_many_streams(limits)
    return checked


def too_many_streams(limits: NameLimits) -> RequestError:
    """Make the error for more names than one client may hold."""
    return RequestError(
        f"Too many streams: the limit is {limits.max_names}", codes.TOO_MANY_STREAMS
    )


def _check_name(name: object, max_bytes: int) -> str:
    if not isinstance(name, str):
        raise _bad_name("Could not parse streams: a name is not a string")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise _bad_name("Could not parse streams: a name is not valid Unicode") from None
    if size > max_bytes:
        raise _bad_name(f"Stream name too long: the limit is {max_bytes} bytes")
    if not name.isprintable():
        raise _bad_name("Could not parse streams: a name holds unprintable characters")
    return name


def _bad_name(text: str) -> RequestError:
    return RequestError(text, codes.BAD_NAME)


def names_in_query(query: str, limits: NameLimits) -> tuple[str, ...]:
    """Read the names of ``?stream=a.b,c.d&stream=e.f``, URL-decoded, empty ones left out.

    Args:
        query: as WSGI has it: bytes as Latin-1, percent escapes untouched.
        limits: bounds on the names.

    Raises:
        RequestError: as `check_names`.
    """
    names: list[str] = []
    for key, _, value in _fields(query):
        if key == "stream":
            try:
                decoded = unquote_to_bytes(value.replace("+", " ").encode("latin-1")).decode()
            except UnicodeError:
                raise _bad_name("Could not parse streams: not UTF-8") from None
            names.extend(name for name in decoded.split(",") if name)
    return check_names(names, limits)


def since_in_query(query: str) -> str | None:
    """Return the position of ``?resume=1&since=``; None where there is none."""
    found = [value for key, _, value in _fields(query) if key == "since"]
    return unquote_to_bytes(found[0].encode("latin-1")).decode("latin-1") if found else None


def _fields(query: str) -> list[tuple[str, str, str]]:
    return [field.partition("=") for field in query.split("&")]


def event_head(name: str) -> bytes:
    """Return the bytes before an event's body: ``{"<name>":``."""
    return b"{" + _dumps(name) + b":"


def error(text: str, code: int | None = None, id: Id = None) -> bytes:
    """Encode ``{"error": text}`` as a frame.

    Args:
        text: what went wrong.
        code: its number; None leaves it out, as for clients of the plain protocol.
        id: of the request; None leaves it out.
    """
    return _reply({"error": text}, id, code)


def refused(name: str) -> bytes:
    """Encode the notice that a role may not have a prefixed stream, as a frame."""
    return frames.text(_dumps({"success": {"message": f"cannot subscribe to {name}"}}))


def held(
    message: str,
    names: list[str],
    id: Id = None,
    more: Mapping[str, object] | None = None,
    code: int | None = None,
) -> bytes:
    """Encode a reply that lists names as a frame.

    Args:
        message: what was done: ``subscribed``, ``unsubscribed``, ``list`` or ``snapshot``.
        names: all that the client holds; of a ``snapshot`` those that were replayed.
        id: of the request; None leaves it out.
        more: further members, for clients that come back by a position.
        code: number of what went wrong all the same; None leaves it out.
    """
    reply = {"message": message, "streams": names, **(more or {})}
    return _reply({"success": reply}, id, code)


def subscribed(names: list[str], id: Id = None) -> bytes:
    """Encode the reply to `SUBSCRIBE` as a frame; names are all that the client holds."""
    return held(SUBSCRIBED, names, id)


def unsubscribed(names: list[str], id: Id = None) -> bytes:
    """Encode the reply to `UNSUBSCRIBE` as a frame; names are all that the client holds."""
    return held("unsubscribed", names, id)


def time(now_s: float, id: Id = None) -> bytes:
    """Encode the reply to `TIME`, the Unix time to the millisecond, as a frame."""
    return _reply({"success": {"message": TIME, "time": round(now_s, 3)}}, id)


def authenticated(uid: str, ttl_s: int | None, id: Id = None) -> bytes:
    """Encode the reply to `AUTH` as a frame; the time to live is None without an expiry."""
    return _reply({"success": {"message": "authenticated", "uid": uid, "ttl": ttl_s}}, id)


def not_authenticated(told: str, code: int | None = None, id: Id = None) -> bytes:
    """Encode why a token was refused as a frame."""
    return error(f"authentication failed: {told}", code, id)


def ranger_authenticated(id: Id = None) -> bytes:
    """Encode Ranger's reply to `JWT` as a frame."""
    return _reply({"success": {"message": "Authenticated."}}, id)


def ranger_not_authenticated(code: int | None = None, id: Id = None) -> bytes:
    """Encode Ranger's refusal of a token as a frame."""
    return _reply({"error": {"message": "Authentication failed."}}, id, code)


def auth_expiring(in_s: int) -> bytes:
    """Encode the notice that a client's token ends soon as a frame."""
    return frames.text(_dumps({"event": "auth_expiring", "in": in_s}))


def resync(names: list[str]) -> bytes:
    """Encode the notice that books are stale until their next snapshot, as a frame.

    Only clients that connected with ``notices=1`` get it: Rango knows no such message.
    """
    return frames.text(_dumps({"event": "resync", "streams": names}))


def stands(at: str) -> bytes:
    """Encode the notice of where a client of ``resume=1`` stands, as a frame."""
    return frames.text(_dumps({"event": "position", "at": at}))


def history_broke(reason: str) -> bytes:
    """Encode the notice that nobody knows what was missed before it, as a frame."""
    return frames.text(_dumps({"event": "position", "at": None, "reason": reason}))


def _reply(reply: dict[str, object], id: Id, code: int | None = None) -> bytes:
    if code is not None:
        reply["code"] = code
    if id is not None:
        reply["id"] = id
    return frames.text(_dumps(reply))


def _dumps(value: object) -> bytes:
    return ujson.dumps(value, ensure_ascii=False, escape_forward_slashes=False).encode()
