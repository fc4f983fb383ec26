"""The hub: subscribe, unsubscribe, drop, publish.

No method here yields: no I/O, no sleep, no blocking put. Each call is one step for every
greenlet of the process, so the registries need no lock, and a replay and the subscription
that follows it cannot be parted by an event.

Data comes in from the broker's consumer (`Hub.publish`) and goes out through the queues of
the streams: a stream with waiting frames is in ``dirty``, and the dispatcher takes it from
there with `Hub.take_dirty`.
"""

from __future__ import annotations

from collections import Counter
from typing import Callable, Collection, Dict, Iterable, NamedTuple, Tuple

import msgspec

from rango_gevent.errors import RequestError
from rango_gevent.hub.body import check_json, has_lone_surrogates_only, is_before, is_text
from rango_gevent.hub.book import Book
from rango_gevent.hub.history import History, track
from rango_gevent.hub.patterns import Patterns, is_pattern, patterns_of
from rango_gevent.hub.shelf import Shelf
from rango_gevent.hub.stream import Batch, EventQueue, Stream, Subscriber
from rango_gevent.hub.topics import Topics
from rango_gevent.model import Event, Segment
from rango_gevent.protocol import codes, frames, messages, routing
from rango_gevent.protocol.routing import Route


class HubLimits(NamedTuple):
    """Bounds of a hub.

    Attributes:
        subscriptions: of all clients together.
        queue_frames: frames that may wait in one stream's queue.
        event_bytes: size of one published body.
        names: of one subscriber, when patterns bring it more.
        books: number of books.
        books_bytes: size of all books.
        book_increments: increments of one book.
        book_bytes: size of one book.
    """

    subscriptions: int = 2_000_000
    queue_frames: int = 10_000
    event_bytes: int = 1 << 20
    names: int = 1000
    books: int = 10_000
    books_bytes: int = 256 << 20
    book_increments: int = 10_000
    book_bytes: int = 16 << 20


_Known = Tuple[Route, bytes, Dict[str, Stream], str]  # with head, registry and track

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
QUEUE_FULL = "stream_queue_full"
DROPPED = (BAD_KEY, BAD_BODY, BODY_TOO_BIG, NO_SNAPSHOT, QUEUE_FULL)


class Hub:
    """Registries of streams and books.

    Args:
        allows: tells whether a role may subscribe under a prefix, ``(prefix, role) -> bool``.
        make_queue: makes a queue for one stream's waiting frames.
        wake: called when the first stream becomes dirty; must not switch greenlets.
        limits: bounds.
        on_stale: told the address of a book that was dropped, and why.
        on_held: told kind and address of a stream that somebody holds now, or nobody any more;
            must not switch greenlets.
        patterns: names such as ``*.trades`` are patterns; None: they are names.
        history: keeps what is published for who comes back; None: nobody does.

    Attributes:
        on_overflow: told a stream whose subscribers miss an event; must not switch greenlets.
    """

    def __init__(
        self,
        *,
        allows: Callable[[str, str], bool],
        make_queue: Callable[[], EventQueue],
        wake: Callable[[], None] = lambda: None,
        limits: HubLimits | None = None,
        on_stale: Callable[[str, str], None] = lambda address, why: None,
        on_held: Callable[[str, str, bool], None] = lambda kind, address, is_held: None,
        patterns: Patterns | None = None,
        history: History | None = None,
    ) -> None:
        self.allows = allows
        self._make_queue = make_queue
        self.wake = wake
        self.on_stale = on_stale
        self._on_held = on_held
        self.patterns = patterns
        self.history = history
        self.on_overflow: Callable[[Stream], None] = lambda stream: None
        self.limits = limits or HubLimits()
        self.streams: dict[str, dict[str, Stream]] = {kind: {} for kind in routing.KINDS}
        self.shelf = Shelf()
        self.books = self.shelf.books
        self.dirty: list[Stream] = []
        self.sequence = 0
        self.waiting = 0
        self.waiting_bytes = 0
        self.topics = Topics()
        self.refused = 0
        self.received: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.books_dropped = 0
        self.stale_s = 0.0
        self._routes: dict[str, _Known | None] = {}
        self._spare: list[EventQueue] = []

    # -- clients ------------------------------------------------------------------------

    def subscribe(
        self, subscriber: Subscriber, names: Collection[str], *, recovered: bool = False
    ) -> list[bytes | Segment]:
        """Subscribe to each name and return what must be sent before the reply.

        Replay and subscription are one step, so that no increment falls between them. A
        name that the subscriber may not have gives a notice (prefixed) or nothing (private).

        Args:
            subscriber: who.
            names: what.
            recovered: it is given what it missed, and needs no book afresh.

        Returns:
            Notices as frames, and segments of books, in the order of the names; last, for
            who asked for it, which books will be sent with their next snapshots.

        Raises:
            RequestError: with these all clients together would hold too many.
        """
        if self.topics.total + len(names) > self.limits.subscriptions:
            self._check_room(subscriber, names)
        out: list[bytes | Segment] = []
        missing: list[str] = []
        for name in names:
            kind = routing.kind_of(name)
            if not self.may_have(subscriber, kind, name):
                if kind == routing.PREFIXED:
                    out.append(messages.refused(name))
                continue
            stream = self._stream(kind, name, subscriber)
            book = self.books.get(name) if kind == routing.PUBLIC else None
            replay = book is not None and book.live and not recovered
            stream.is_recovered |= recovered
            if replay or name not in subscriber.streams:
                # held already and no replay: what waits is still theirs
                stream.add(subscriber, self.sequence)
            if name not in subscriber.streams:
                subscriber.streams[name] = stream
                self.topics.add(stream)
            if replay:
                out += self.shelf.replay(name)
            elif subscriber.notices and not recovered and self._is_book(name):
                missing.append(name)
        if missing:
            out.append(messages.resync(missing))
        return out

    def _is_book(self, name: str) -> bool:
        return routing.is_book(name) and (self.patterns is None or not is_pattern(name))

    def _check_room(self, subscriber: Subscriber, names: Collection[str]) -> None:
        wanted = len(set(names) - subscriber.streams.keys())
        if wanted and self.topics.total + wanted > self.limits.subscriptions:
            self.refused += wanted
            raise RequestError(
                "Too many streams: the server holds as many as it may", codes.TOO_MANY_STREAMS
            )

    def may_have(self, subscriber: Subscriber, kind: str, name: str) -> bool:
        """Tell whether a subscriber's identity allows it a name of a kind."""
        if kind == routing.PREFIXED:
            return self.allows(routing.prefix_of(name), subscriber.role)
        return kind == routing.PUBLIC or subscriber.uid is not None

    def _stream(self, kind: str, name: str, subscriber: Subscriber) -> Stream:
        address = name
        if kind == routing.PRIVATE:
            address = routing.private_address(subscriber.uid or "", name)
        registry = self.streams[kind]
        stream = registry.get(address)
        if stream is None:
            stream = registry[address] = Stream(kind, address, name)
            self._on_held(kind, address, True)
            if kind == routing.PUBLIC:
                self.shelf.hold(address, True)
        return stream

    def unsubscribe(self, subscriber: Subscriber, names: Iterable[str]) -> None:
        """Unsubscribe from each name; one that is not held changes nothing."""
        for name in names:
            stream = subscriber.streams.pop(name, None)
            if stream is not None:
                self._leave(stream, subscriber)

    def drop(self, subscriber: Subscriber) -> None:
        """Forget a subscriber; doing so twice is harmless."""
        for stream in subscriber.streams.values():
            self._leave(stream, subscriber)
        subscriber.streams.clear()

    def _leave(self, stream: Stream, subscriber: Subscriber) -> None:
        stream.discard(subscriber)
        self.topics.remove(stream)
        if not stream.subscribers:
            del self.streams[stream.kind][stream.address]
            self._on_held(stream.kind, stream.address, False)
            if stream.kind == routing.PUBLIC:
                self.shelf.hold(stream.address, False)

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
        route, head, registry, key = known
        self.received[route.kind] += 1
        if len(body) > self.limits.event_bytes:
            return self._drop(BODY_TOO_BIG)
        try:
            check_json(body)
            if not body.isascii():
                body.decode()  # the check above does not look at UTF-8 inside strings
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            if not has_lone_surrogates_only(body):
                return self._drop(BAD_BODY)
        if self.history is not None:
            position = self.history.append(key, head, body, position)
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

    def refusal(self, key: str, size: int) -> str:
        """Return why a body of this size would be dropped, and count it; empty: it may come.

        Args:
            key: routing key.
            size: bytes that are announced.
        """
        if size <= self.limits.event_bytes:
            return ""
        known = self._routes[key] if key in self._routes else self._learn(key)
        if known is None:
            return self._drop(BAD_KEY)
        self.received[known[0].kind] += 1
        return self._drop(BODY_TOO_BIG)

    def _learn(self, key: str) -> _Known | None:
        """Parse a routing key once and remember what it means, in bounds."""
        if len(self._routes) >= _MAX_ROUTES:
            self._routes.clear()
        known = None
        route = routing.parse_key(key) if is_text(key) else None
        if route is not None:
            registry = self.streams[route.kind]
            kept_under = track(route.kind, route.address, route.action)
            known = (route, messages.event_head(route.name), registry, kept_under)
            if route.kind == routing.PUBLIC and self.patterns is not None:
                self._match(self.patterns, route.address)
            if self.topics.publish(route, registry.get(route.address)):
                self._routes.clear()  # so that each is noted again
                if self.patterns is not None:
                    self.patterns.clear()
        self._routes[key] = known
        return known

    def _match(self, patterns: Patterns, address: str) -> None:
        """Subscribe whoever holds a pattern that a new topic matches, within the bounds."""
        if not patterns.publish(address):
            return
        registry = self.streams[routing.PUBLIC]
        for holder in [registry[p] for p in patterns_of(address) if p in registry]:
            for subscriber in holder.subscribers:
                if address in subscriber.streams:
                    continue
                if len(subscriber.streams) >= self.limits.names or not self._has_room():
                    self.refused += 1
                    continue
                stream = subscriber.streams[address] = self._stream(
                    routing.PUBLIC, address, subscriber
                )
                stream.add(subscriber, self.sequence)
                self.topics.add(stream)

    def _has_room(self) -> bool:
        return self.topics.total < self.limits.subscriptions

    def _drop(self, reason: str) -> str:
        self.dropped[reason] += 1
        return reason

    def _publish_to_book(self, route: Route, event: Event, at_s: float) -> str:
        address = route.address
        if route.action == routing.SNAPSHOT:
            return self._store_snapshot(address, event, at_s)
        book = self.books.get(address)
        if book is None:
            stream = self.streams[routing.PUBLIC].get(address)
            if stream is None or not stream.is_recovered:
                return self._drop(NO_SNAPSHOT)
            book = self.shelf.put_stale(address, at_s)  # who holds it has its snapshot
            self._make_room(at_s)
        if book.stale_since is None:
            self.shelf.append(address, book, event)
            limits = self.limits
            if book.count > limits.book_increments + 1 or book.bytes > limits.book_bytes:
                self._drop_book(address, at_s, "past its bound")
            elif self.shelf.bytes > limits.books_bytes:
                self._make_room(at_s)
        return self._enqueue_of_book(address, book, event, at_s)

    def _store_snapshot(self, address: str, event: Event, at_s: float) -> str:
        is_held = address in self.streams[routing.PUBLIC]
        book = self.books.get(address)
        # some who wait here were given no snapshot, or missed increments, or hold what is over
        is_awaited = book is None or book.stale_since is not None
        if book is not None and book.stale_since is not None:
            self.stale_s += max(0.0, at_s - book.stale_since)
        elif book is not None and is_held:
            is_awaited = is_before(event.body, book.newest.body)
        book = self.shelf.put(address, event, is_held)
        outcome = self._enqueue_of_book(address, book, event, at_s) if is_awaited else STORED
        self._make_room(at_s)
        return outcome

    def _make_room(self, at_s: float) -> None:
        """Let books go until the others are within their bounds together."""
        while len(self.books) > self.limits.books:
            address = self.shelf.first_to_go()
            if self.books[address].live:
                self._drop_book(address, at_s, "too many books")
            self.shelf.forget(address)
        while self.shelf.bytes > self.limits.books_bytes:
            self._drop_book(self.shelf.first_live_to_go(), at_s, "too many bytes of books")

    def _enqueue_of_book(self, address: str, book: Book, event: Event, at_s: float) -> str:
        """Queue a frame of a book; subscribers who miss one need the next snapshot."""
        stream = self.streams[routing.PUBLIC].get(address)
        if stream is None:
            return STORED
        outcome = self._enqueue(stream, event)
        if outcome == QUEUE_FULL and book.live:
            self._drop_book(address, at_s, "its subscribers missed a frame")
        return outcome

    def _drop_book(self, address: str, at_s: float, why: str) -> None:
        self.shelf.drop(address, at_s)
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
                self._drop_book(address, at_s, why)

    def _enqueue(self, stream: Stream, event: Event) -> str:
        queue = stream.queue
        if queue is None:
            queue = stream.queue = self._spare.pop() if self._spare else self._make_queue()
            self.dirty.append(stream)
            if len(self.dirty) == 1:
                self.wake()
        elif queue.qsize() >= self.limits.queue_frames:
            self.on_overflow(stream)
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
        size = sum([len(event.frame) for event in waiting])
        return Batch(stream, waiting, size, joined or {})
