"""The hub: subscribe, unsubscribe, drop, publish.

No method here yields: no I/O, no sleep, no blocking put. Each call is one step for every
greenlet of the process, so the registries need no lock, and a replay and the subscription
that follows it cannot be parted by an event.

Data comes in from the broker's consumer (`Hub.publish`) and goes out through the queues of
the streams: a stream with waiting frames is in ``dirty``, and the dispatcher takes it from
there with `Hub.take_dirty`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Callable, Iterable, NamedTuple, Protocol

import msgspec

from rango_gevent.hub.book import Book
from rango_gevent.hub.stream import Stream
from rango_gevent.model import Event, Segment
from rango_gevent.protocol import frames, messages, routing
from rango_gevent.protocol.routing import Route


class EventQueue(Protocol):
    """What the hub needs of a queue; gevent's `SimpleQueue` is one."""

    def put_nowait(self, item: Event) -> None:
        """Add an item; never waits."""

    def get_nowait(self) -> Event:
        """Take the oldest item; never waits."""

    def qsize(self) -> int:
        """Return the number of items."""


class Subscriber(Protocol):
    """A client as the hub sees it.

    Attributes:
        uid: user id of a verified token, None for anonymous.
        role: role of a verified token, empty for none.
        streams: names held and their streams, in order of subscription; the hub's to change.
    """

    uid: str | None
    role: str
    streams: dict[str, Stream]


class Batch(NamedTuple):
    """What waits in one stream: the events, and who joined after which of them."""

    stream: Stream
    waiting: list[Event]
    joined: dict[Subscriber, int]


class HubLimits(NamedTuple):
    """Bounds of a hub.

    Attributes:
        queue_frames: frames that may wait in one stream's queue.
        event_bytes: size of one published body.
        books: number of books.
        book_increments: increments of one book.
        book_bytes: size of one book.
    """

    queue_frames: int = 10_000
    event_bytes: int = 1 << 20
    books: int = 10_000
    book_increments: int = 10_000
    book_bytes: int = 16 << 20


_MAX_ROUTES = 50_000
_SPARE_QUEUES = 256

# Outcomes of `Hub.publish`, in the words of the metrics.
DELIVERED = "delivered"
NOBODY = "no_subscriber"
STORED = "stored"
BAD_KEY = "bad_routing_key"
BAD_BODY = "bad_json"
BODY_TOO_BIG = "too_big"
NO_SNAPSHOT = "increment_before_snapshot"
TOO_MANY_BOOKS = "too_many_books"
QUEUE_FULL = "stream_queue_full"
DROPPED = (BAD_KEY, BAD_BODY, BODY_TOO_BIG, NO_SNAPSHOT, TOO_MANY_BOOKS, QUEUE_FULL)

_check_json = msgspec.json.Decoder(msgspec.Raw).decode


class Hub:
    """Registries of streams and books.

    Args:
        allows: tells whether a role may subscribe under a prefix, ``(prefix, role) -> bool``.
        make_queue: makes a queue for one stream's waiting frames.
        wake: called when the first stream becomes dirty; must not switch greenlets.
        limits: bounds.
        on_stale: told the address of a book that was dropped, and why.
    """

    def __init__(
        self,
        *,
        allows: Callable[[str, str], bool],
        make_queue: Callable[[], EventQueue],
        wake: Callable[[], None] = lambda: None,
        limits: HubLimits | None = None,
        on_stale: Callable[[str, str], None] = lambda address, why: None,
    ) -> None:
        self.allows = allows
        self._make_queue = make_queue
        self.wake = wake
        self.on_stale = on_stale
        self.limits = limits or HubLimits()
        self.streams: dict[str, dict[str, Stream]] = {kind: {} for kind in routing.KINDS}
        self.books: dict[str, Book] = {}
        self.dirty: list[Stream] = []
        self.sequence = 0
        self.waiting = 0
        self.waiting_bytes = 0
        self.subscriptions: Counter[tuple[str, str]] = Counter()
        self.received: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.books_dropped = 0
        self.stale_s = 0.0
        self._routes: dict[str, tuple[Route, bytes, dict[str, Stream]] | None] = {}
        self._spare: list[EventQueue] = []

    # -- clients ------------------------------------------------------------------------

    def subscribe(self, subscriber: Subscriber, names: Iterable[str]) -> list[bytes | Segment]:
        """Subscribe to each name and return what must be sent before the reply.

        Replay and subscription are one step, so that no increment falls between them. A
        name that the subscriber may not have gives a notice (prefixed) or nothing (private).

        Returns:
            Notices as frames, and segments of books, in the order of the names.
        """
        out: list[bytes | Segment] = []
        for name in names:
            kind = routing.kind_of(name)
            if kind == routing.PREFIXED and not self.allows(
                routing.prefix_of(name), subscriber.role
            ):
                out.append(messages.refused(name))
                continue
            if kind == routing.PRIVATE and subscriber.uid is None:
                continue
            stream = self._stream(kind, name, subscriber)
            book = self.books.get(name) if kind == routing.PUBLIC else None
            replay = book is not None and book.live
            if replay or name not in subscriber.streams:
                # held already and no replay: what waits is still theirs
                stream.add(subscriber, self.sequence)
            if name not in subscriber.streams:
                subscriber.streams[name] = stream
                self.subscriptions[kind, stream.topic] += 1
            if book is not None and replay:
                out += book.replay()
        return out

    def _stream(self, kind: str, name: str, subscriber: Subscriber) -> Stream:
        address = name
        if kind == routing.PRIVATE:
            address = routing.private_address(subscriber.uid or "", name)
        registry = self.streams[kind]
        stream = registry.get(address)
        if stream is None:
            stream = registry[address] = Stream(kind, address, name)
        return stream

    def unsubscribe(self, subscriber: Subscriber, names: Iterable[str]) -> None:
        """Unsubscribe from each name; one that is not held changes nothing."""
        for name in names:
            stream = subscriber.streams.pop(name, None)
            if stream is not None:
                self._leave(stream, subscriber)

    def drop(self, subscriber: Subscriber) -> None:
        """Forget a subscriber; doing so twice is harmless."""
        self.unsubscribe(subscriber, list(subscriber.streams))

    def _leave(self, stream: Stream, subscriber: Subscriber) -> None:
        stream.discard(subscriber)
        key = (stream.kind, stream.topic)
        self.subscriptions[key] -= 1
        if not self.subscriptions[key]:
            del self.subscriptions[key]
        if not stream.subscribers:
            self.streams[stream.kind].pop(stream.address, None)

    @staticmethod
    def names(subscriber: Subscriber) -> list[str]:
        """Return the names that a subscriber holds: public and prefixed, then private."""
        held = subscriber.streams
        return [name for name in held if "." in name] + [n for n in held if "." not in n]

    # -- publishers ---------------------------------------------------------------------

    def publish(self, key: str, body: bytes, at_s: float, position: int = 0) -> str:
        """Route one message: check it, keep its book, queue its frame.

        Args:
            key: routing key.
            body: JSON text; reaches clients unchanged.
            at_s: Unix time at which it was published (or received).
            position: place in the source's history, 0 where there is none.

        Returns:
            What became of it: `DELIVERED`, `NOBODY`, `STORED` or one of `DROPPED`.
        """
        # hot path: 1.1 us with nobody subscribed, of which the JSON check is 0.3
        try:
            known = self._routes[key]
        except KeyError:
            known = self._learn(key)
        if known is None:
            return self._drop(BAD_KEY)
        route, head, registry = known
        self.received[route.kind] += 1
        if len(body) > self.limits.event_bytes:
            return self._drop(BODY_TOO_BIG)
        try:
            _check_json(body)
            if not body.isascii():
                body.decode()  # the check above does not look at UTF-8 inside strings
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            if not _has_lone_surrogates_only(body):
                return self._drop(BAD_BODY)
        if route.action:
            return self._publish_to_book(route, self._event(head, body, at_s, position), at_s)
        stream = registry.get(route.address)
        if stream is None:
            return NOBODY
        return self._enqueue(stream, self._event(head, body, at_s, position))

    def _event(self, head: bytes, body: bytes, at_s: float, position: int) -> Event:
        self.sequence += 1
        frame = frames.event(head, body)
        return Event(self.sequence, frame, len(frame) - len(body) - 1, at_s, position)

    def _learn(self, key: str) -> tuple[Route, bytes, dict[str, Stream]] | None:
        """Parse a routing key once and remember what it means, in bounds."""
        if len(self._routes) >= _MAX_ROUTES:
            self._routes.clear()
        known = None
        route = routing.parse_key(key) if _is_text(key) else None
        if route is not None:
            known = (route, messages.event_head(route.name), self.streams[route.kind])
        self._routes[key] = known
        return known

    def _drop(self, reason: str) -> str:
        self.dropped[reason] += 1
        return reason

    def _publish_to_book(self, route: Route, event: Event, at_s: float) -> str:
        book = self.books.get(route.address)
        if route.action == routing.SNAPSHOT:
            return self._store_snapshot(route.address, book, event, at_s)
        if book is None:
            return self._drop(NO_SNAPSHOT)
        if book.live:
            book.append(event)
            limits = self.limits
            if len(book) > limits.book_increments or book.bytes > limits.book_bytes:
                self._drop_book(route.address, book, at_s, "past its bound")
        return self._enqueue_of_book(route.address, book, event, at_s)

    def _store_snapshot(self, address: str, book: Book | None, event: Event, at_s: float) -> str:
        if book is None:
            if len(self.books) >= self.limits.books:
                return self._drop(TOO_MANY_BOOKS)
            book = self.books[address] = Book()
        stale_since = book.stale_since
        book.replace(event)
        if stale_since is None:
            return STORED
        # some who wait here were given no snapshot, or missed increments
        self.stale_s += max(0.0, at_s - stale_since)
        return self._enqueue_of_book(address, book, event, at_s)

    def _enqueue_of_book(self, address: str, book: Book, event: Event, at_s: float) -> str:
        """Queue a frame of a book; subscribers who miss one need the next snapshot."""
        stream = self.streams[routing.PUBLIC].get(address)
        if stream is None:
            return STORED
        outcome = self._enqueue(stream, event)
        if outcome == QUEUE_FULL and book.live:
            self._drop_book(address, book, at_s, "its subscribers missed a frame")
        return outcome

    def _drop_book(self, address: str, book: Book, at_s: float, why: str) -> None:
        book.drop(at_s)
        self.books_dropped += 1
        self.on_stale(address, why)

    def drop_books(self, at_s: float, why: str) -> None:
        """Make every book stale: what was published meanwhile was not received.

        Args:
            at_s: Unix time.
            why: for the log.
        """
        for address, book in self.books.items():
            if book.live:
                self._drop_book(address, book, at_s, why)

    def _enqueue(self, stream: Stream, event: Event) -> str:
        queue = stream.queue
        if queue is None:
            queue = stream.queue = self._spare.pop() if self._spare else self._make_queue()
            self.dirty.append(stream)
            if len(self.dirty) == 1:
                self.wake()
        elif queue.qsize() >= self.limits.queue_frames:
            return self._drop(QUEUE_FULL)
        self.waiting += 1
        self.waiting_bytes += len(event.frame)
        queue.put_nowait(event)
        return DELIVERED

    # -- the dispatcher -----------------------------------------------------------------

    def take_dirty(self) -> list[Batch]:
        """Take all waiting events, by stream."""
        self.waiting = self.waiting_bytes = 0
        dirty, self.dirty = self.dirty, []
        return [self._drain(stream) for stream in dirty]

    def _drain(self, stream: Stream) -> Batch:
        queue, joined = stream.queue, stream.joined
        stream.queue = stream.joined = None
        assert queue is not None, "a stream in `dirty` has a queue"
        waiting = [queue.get_nowait() for _ in range(queue.qsize())]
        if len(self._spare) < _SPARE_QUEUES:
            self._spare.append(queue)
        return Batch(stream, waiting, joined or {})


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_check_slowly = json.JSONDecoder(
    parse_constant=_refuse_constant, parse_int=len, parse_float=len
).decode


def _has_lone_surrogates_only(body: bytes) -> bool:
    """Tell whether a refused body is JSON all the same.

    The fast check wants escaped surrogates in pairs. JSON does not (RFC 8259 section 8.2),
    and Rango lets such a body pass.
    """
    if not _ESCAPED_SURROGATE.search(body):
        return False
    try:
        _check_slowly(body.decode())
    except (ValueError, RecursionError):
        return False
    return True


def _is_text(key: str) -> bool:
    """Tell whether a routing key is Unicode text; AMQP itself allows any bytes."""
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True
