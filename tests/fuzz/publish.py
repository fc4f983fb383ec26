"""Any routing keys and bodies pass the hub, and what is delivered is one JSON object of one name.

That is: `Hub.publish` never raises, says what became of a message in one of its words, and every
frame that it queues is read by another JSON parser as an object whose only key is the name, with
the publisher's bytes as the value. Books stay within their bounds.
"""

from __future__ import annotations

import json
from collections import deque
from typing import Any

from rango_gevent.hub.hub import DELIVERED, DROPPED, NOBODY, STORED, Hub, HubLimits
from rango_gevent.hub.stream import Stream
from rango_gevent.model import Event
from tests.fuzz.common import payload

_PART = b"\xff\xff"  # parts keys and bodies: key, body, key, body, ...
_LIMITS = HubLimits(
    queue_frames=6,
    event_bytes=400,
    books=3,
    books_bytes=1200,
    book_increments=4,
    book_bytes=900,
)
_OUTCOMES = {DELIVERED, NOBODY, STORED, *DROPPED}


class _Queue:
    """The least that the hub needs of a queue."""

    def __init__(self) -> None:
        self._items: deque[Event] = deque()
        self.put_nowait = self._items.append
        self.get_nowait = self._items.popleft
        self.qsize = self._items.__len__


class _Client:
    """A user with every role who never reads: frames stay in the queues."""

    role, notices = "admin", False

    def __init__(self, uid: str) -> None:
        self.uid: str | None = uid
        self.streams: dict[str, Stream] = {}


def check(data: bytes) -> None:
    """Publish some messages to a hub with a subscriber for most of them."""
    parts = data.split(_PART)
    hub = Hub(allows=lambda prefix, role: True, make_queue=_Queue, limits=_LIMITS)
    bodies = parts[1::2]
    for number, (key, body) in enumerate(zip(parts[::2], bodies)):
        # as the decoder has it: a short string of AMQP
        text = key[:255].decode("utf-8", "surrogateescape")
        _subscribe(hub, text)
        assert hub.publish(text, body, float(number)) in _OUTCOMES
        for book in hub.books.values():
            assert len(book) <= _LIMITS.book_increments
            # a snapshot alone is bounded as every event is
            assert book.bytes <= _LIMITS.book_bytes or not len(book)
    assert len(hub.books) <= _LIMITS.books
    assert hub.shelf.bytes <= _LIMITS.books_bytes
    for batch in hub.take_dirty():
        assert len(batch.waiting) <= _LIMITS.queue_frames
        for item in batch.waiting:
            _check_frame(item.frame, batch.stream, bodies)


def _subscribe(hub: Hub, key: str) -> None:
    """Subscribe to what such a key should reach."""
    scope, _, rest = key.partition(".")
    uid, _, name = rest.rpartition(".")
    client = _Client(uid)
    live = f"{name[:-5]}-inc" if name.endswith("-snap") else name
    if scope == "private":
        hub.subscribe(client, [live])
    elif scope in ("public", "global"):
        hub.subscribe(client, [f"{uid or scope}.{live}"])
    else:
        hub.subscribe(client, [f"{scope}.{uid or scope}.{live}"])


def _check_frame(frame: bytes, stream: Stream, bodies: list[bytes]) -> None:
    (name,) = _strict(payload(frame))
    topic = stream.topic.partition(".")[2] if stream.kind == "prefixed" else stream.topic
    assert name in (topic, f"{topic[:-4]}-snap" if topic.endswith("-inc") else topic)
    assert any(frame.endswith(b'":' + body + b"}") for body in bodies), "another body"


def _strict(text: str) -> dict[str, Any]:
    """Parse JSON, refusing what is not, and two members of the outer object under one name."""
    outer: list[tuple[str, Any]] = []

    def note(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        outer[:] = pairs  # the outermost object comes last
        return dict(pairs)

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    # numbers as their lengths: Python refuses to convert very long ones
    decoder = json.JSONDecoder(
        object_pairs_hook=note, parse_constant=refuse, parse_int=len, parse_float=len
    )
    found = decoder.decode(text)
    assert isinstance(found, dict)
    assert len(outer) == 1
    return found


def _messages(*parts: bytes) -> bytes:
    return _PART.join(parts)


SEEDS = (
    _messages(b"public.eurusd.trades", b'{"trades":[{"tid":1,"price":"1.20"}]}'),
    _messages(b"global.tickers", b'{"eurusd":{"last":"1"}}', b"private.ID1.order", b'{"id":1}'),
    _messages(b"admin.btcusd.sys", b"[1,2.5e-3,null]", b"admin.sys", b'"x"'),
    _messages(b"public.a.ob-snap", b'{"asks":[]}', b"public.a.ob-inc", b'{"bids":["1","2"]}'),
    _messages(*(b"public.a.ob-snap", b"{}") * 2, *(b"public.a.ob-inc", b"1") * 6),
    _messages(b"public.-inca.ob-snap", b"{}"),
    _messages(*(b"private.a.ob-snap", b"{}"), *(b"p.a.ob-snap", b"{}")),
    _messages(b"public.a.\xff", b"{}", b"public.\xc3\xa9.x", b'"\xc3\xa9"', b'public.a".b', b"0"),
    _messages(b"public.a.b", b'"\\ud800"', b"public.a.b", b'"\\ud83d\\ude00"'),
    _messages(b"public.a.b", b"01", b"a", b"", b"a.b.c.d", b"{}", b"private.a", b"1"),
    _messages(b"public.a.b", b'{"a":1,"a":2}', b"public.a.b", b'1,"x":2', b"public.a.b", b"1}{"),
    _messages(b"public.a.b", b" [[[[[[[[]]]]]]]] \n"),
    _messages(b"public.a.b", b"NaN", b"public.a.b", b"-Infinity", b"public.a.b", b"\xef\xbb\xbf1"),
)
WORDS = (
    _PART, b"public.", b"global.", b"private.", b"admin.", b"-snap", b"-inc", b"ob-snap", b"null",
    b"true", b"\\u", b"\\ud800", b"\\udc00", b"NaN", b"1e400", b"-0", b'":', b"\x7f", b"\xc3\xa9",
)  # fmt: skip
