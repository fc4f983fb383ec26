"""The hub against a plain model, under any order of operations.

The model knows of each subscriber and name what is still owed to it; it has no queues, no
sequences and no notion of who joined when. What comes out of both must be the same, byte by
byte: so between a replay and the live increments there is no gap and no duplicate.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from test_hub_hub import Queue, Subscriber, sent
from test_hub_hub import counts as told

from rango_gevent.hub import hub as hub_module
from rango_gevent.hub.history import History, HistoryLimits
from rango_gevent.hub.hub import Hub, HubLimits
from rango_gevent.protocol import frames, messages, routing

LIMITS = HubLimits(
    queue_frames=6,
    event_bytes=200,
    books=2,
    books_bytes=1900,
    book_increments=8,
    book_bytes=1200,
)

NAMES = [
    "m.ob-inc", "n.ob-inc", "o.ob-inc", "m.trades", "m.ob-snap", "order", "ob-inc", "admin.m.sys",
    "desk.m.sys", "admin.m.ob-inc",
]  # fmt: skip
KEYS = [
    "public.n.ob-snap", "public.n.ob-inc", "public.o.ob-snap", "public.o.ob-inc", "public.m.trades",
    "private.ID1.order", "private.ID2.order", "private.ID1.ob-snap", "admin.m.sys", "desk.m.sys",
    "admin.m.ob-snap", "bad", "private..order",
]  # fmt: skip
# one book is in the middle of it all, so that operations meet
names = st.just("m.ob-inc") | st.sampled_from(NAMES)
keys = st.sampled_from(
    ["public.m.ob-inc", "global.m.ob-inc", "public.m.ob-snap"]
) | st.sampled_from(KEYS)


class Person:
    """A subscriber and what the model knows of it."""

    def __init__(self, uid: str | None, role: str, *, notices: bool = False) -> None:
        self.subscriber = Subscriber(uid, role, notices=notices)
        self.owed: dict[str, list[tuple[int, bytes]]] = {}  # name: frames and their numbers
        self.got: list[bytes] = []
        self.wanted: list[bytes] = []

    def may_have(self, name: str) -> bool:
        """Tell whether the role or the uid allows a name."""
        if routing.kind_of(name) == routing.PREFIXED:
            return allows(name.split(".")[0], self.subscriber.role)
        return "." in name or self.subscriber.uid is not None

    def holds(self, kind: str, address: str) -> str | None:
        """Return the name under which it holds a stream, None when it does not."""
        for name in self.owed:
            if (routing.kind_of(name), self.address_of(name)) == (kind, address):
                return name
        return None

    def address_of(self, name: str) -> str:
        """Return the address of a name: private ones differ from user to user."""
        return name if "." in name else f"{self.subscriber.uid}.{name}"


def allows(prefix: str, role: str) -> bool:
    """Let admins see what begins with admin."""
    return (prefix, role) == ("admin", "admin")


class HubMachine(RuleBasedStateMachine):
    """Operations on a hub, each followed in the model."""

    @initialize()
    def start(self) -> None:
        """Begin with an empty hub and some people."""
        self.stale: list[str] = []
        self.hub = Hub(
            allows=allows,
            make_queue=Queue,
            limits=LIMITS,
            on_stale=lambda address, why: self.stale.append(address),
            history=History(HistoryLimits(20_000, 50, 60.0), lambda: 0.0, check=1),
        )
        self.hub.history.begin()  # type: ignore[union-attr]  # it is kept, and changes nothing
        self.people = [
            Person("ID1", "admin"),
            Person("ID1", "member"),
            Person("ID2", "", notices=True),
            Person(None, ""),
        ]
        self.number = 0
        self.began_at = 0  # the number at which the publisher began to count
        self.sequences: dict[str, int] = {}  # the last of each book
        self.published: set[tuple[str, str]] = set()
        self.waiting: Counter[tuple[str, str]] = Counter()  # frames since the last drain
        self.books: dict[str, list[bytes]] = {}  # an empty list is a stale book
        self.books_dropped = 0
        self.dropped: Counter[str] = Counter()
        self.publish(["public.m.ob-snap"], 0, 1)

    # -- clients ------------------------------------------------------------------------

    @rule(who=st.integers(0, 3), wanted=st.lists(names, min_size=1, max_size=3))
    def subscribe(self, who: int, wanted: list[str]) -> None:
        """Subscribe, perhaps again, perhaps to the same name twice."""
        person = self.people[who]
        expected, missing = [], []
        for name in wanted:
            if not person.may_have(name):
                if name.count(".") == 2:
                    expected.append(messages.refused(name))
                continue
            replay = self.books.get(name) or []
            if replay or name not in person.owed:
                person.owed[name] = []
            if replay:
                expected.append(b"".join(replay))
                person.wanted += replay
                person.got += replay
            elif person.subscriber.notices and routing.kind_of(name) == "public":
                missing += [name] if name.endswith("-inc") else []
        expected += [messages.resync(missing)] if missing else []
        found = [sent(part) for part in self.hub.subscribe(person.subscriber, wanted)]
        assert found == expected

    @rule(who=st.integers(0, 3))
    def subscribe_again(self, who: int) -> None:
        """Subscribe to all that is held already."""
        self.subscribe(who, list(self.people[who].owed))

    @rule(who=st.integers(0, 3), unwanted=st.lists(names, min_size=1, max_size=3))
    def unsubscribe(self, who: int, unwanted: list[str]) -> None:
        """Unsubscribe, perhaps from what is not held."""
        person = self.people[who]
        for name in unwanted:
            person.owed.pop(name, None)
        self.hub.unsubscribe(person.subscriber, unwanted)
        self.forget_left_streams()

    @rule(who=st.integers(0, 7))
    def drop(self, who: int) -> None:
        """Forget a subscriber, if it is there; it may come back."""
        if who >= len(self.people):
            return
        self.people[who].owed.clear()
        self.hub.drop(self.people[who].subscriber)
        self.forget_left_streams()

    def forget_left_streams(self) -> None:
        """What waits in a stream that everybody left counts for no bound any more."""
        for kind, address in list(self.waiting):
            if not self.holders(kind, address):
                del self.waiting[kind, address]

    def holders(self, kind: str, address: str) -> list[tuple[Person, str]]:
        """Return who holds a stream, and under which name."""
        found = [(person, person.holds(kind, address)) for person in self.people]
        return [(person, name) for person, name in found if name is not None]

    # -- publishers ---------------------------------------------------------------------

    @rule(
        keys=st.lists(keys, min_size=1, max_size=6),
        padding=st.sampled_from([0, 0, 0, 60, 150, 250]),
        broken=st.integers(0, 15),
    )
    def publish(self, keys: list[str], padding: int, broken: int) -> None:
        """Publish what was never published before, now and then broken."""
        for key in keys:
            self.publish_one(key, padding, broken)

    @rule(count=st.integers(1, 3))
    def publish_increments(self, count: int) -> None:
        """Publish what most messages are."""
        self.publish(["public.m.ob-inc"] * count, 0, 1)

    def publish_one(self, key: str, padding: int, broken: int) -> None:
        """Publish a message and compare what became of it."""
        self.number += 1
        body = (
            json.dumps({"sequence": self.number - self.began_at, "x": "x" * padding}).encode()
            if broken
            else b"{" + b"x" * padding
        )
        outcome = self.hub.publish(key, body, float(self.number))
        expected = self.expected_outcome(key, body, bool(broken))
        assert outcome == expected
        self.follow_who_went()
        if expected in hub_module.DROPPED:
            self.dropped[expected] += 1

    def expected_outcome(self, key: str, body: bytes, is_json: bool) -> str:
        """Follow a message in the model."""
        route = routing.parse_key(key)
        if route is None:
            return hub_module.BAD_KEY
        self.published.add((route.kind, route.address if "." in route.name else route.name))
        if len(body) > LIMITS.event_bytes:
            return hub_module.BODY_TOO_BIG
        if not is_json:
            return hub_module.BAD_BODY
        frame = frames.event(messages.event_head(route.name), body)
        if route.action == routing.EVENT:
            return self.send(route.kind, route.address, frame) or hub_module.NOBODY
        expected = self.expected_of_book(route.action, route.address, frame)
        self.sequences[route.address] = self.number - self.began_at
        return expected

    def expected_of_book(self, action: int, address: str, frame: bytes) -> str:
        """Follow a snapshot or an increment in the model."""
        book = self.books.get(address)
        if action == routing.SNAPSHOT:
            self.books[address] = [frame]
            if book and self.sequences[address] <= self.number - self.began_at:
                return hub_module.STORED
        elif book is None:
            return hub_module.NO_SNAPSHOT
        elif book:
            book.append(frame)
            if len(book) - 1 > LIMITS.book_increments or sum(map(len, book)) > LIMITS.book_bytes:
                self.make_stale(address)
        outcome = self.send(routing.PUBLIC, address, frame) or hub_module.STORED
        if outcome == hub_module.QUEUE_FULL:
            self.make_stale(address)
        return outcome

    def follow_who_went(self) -> None:
        """See that books went only for want of room, and those first that should."""
        for address in self.books.keys() - self.hub.books.keys():
            assert len(self.books) > LIMITS.books
            assert self.rank(address) == min(map(self.rank, self.books))
            self.make_stale(address)
            del self.books[address]
        went = [address for address, book in self.hub.books.items() if not book.live]
        for address in sorted(went, key=self.rank):
            if self.books[address]:
                frames = sum(len(frame) for book in self.books.values() for frame in book)
                assert 4 * frames > LIMITS.books_bytes  # joined, compressed and joined again
                live = [other for other, book in self.books.items() if book]
                assert self.rank(address) == min(map(self.rank, live))
                self.make_stale(address)

    def rank(self, address: str) -> tuple[bool, bool]:
        """Return who goes first: books that nobody holds, and of them the stale ones."""
        return bool(self.holders(routing.PUBLIC, address)), bool(self.books[address])

    def make_stale(self, address: str) -> None:
        """Forget a book's frames; nothing happens to one that is stale already."""
        if self.books[address]:
            self.books[address] = []
            self.books_dropped += 1

    def send(self, kind: str, address: str, frame: bytes) -> str:
        """Owe a frame to all who hold the stream; empty when nobody does."""
        holders = self.holders(kind, address)
        if not holders:
            return ""
        if self.waiting[kind, address] == LIMITS.queue_frames:
            return hub_module.QUEUE_FULL
        self.waiting[kind, address] += 1
        for person, name in holders:
            person.owed[name].append((self.number, frame))
        return hub_module.DELIVERED

    @rule(is_lost=st.integers(0, 3).map(lambda number: number == 0))
    def lose_the_broker(self, is_lost: bool) -> None:
        """Miss what is published meanwhile; not too often, for then no book is ever good."""
        if not is_lost:
            return
        for address in self.books:
            self.make_stale(address)
        self.hub.drop_books(float(self.number), "lost")

    @rule(is_time=st.integers(0, 3).map(lambda number: number == 0))
    def begin_anew(self, is_time: bool) -> None:
        """Let the publisher restart: it counts from the beginning."""
        if is_time:
            self.began_at = self.number

    # -- the dispatcher -----------------------------------------------------------------

    @rule(is_time=st.booleans())
    def let_the_dispatcher_run(self, is_time: bool) -> None:
        """Drain now and then, so that frames gather in between."""
        if is_time:
            self.drain()

    def drain(self) -> None:
        """Deliver all that waits, as the dispatcher does."""
        batches = self.hub.take_dirty()
        for person in self.people:
            found: list[Any] = []
            for stream, waiting, _, joined in batches:
                if person.subscriber in stream.subscribers:
                    last = joined.get(person.subscriber, 0)
                    found += [item for item in waiting if item.sequence > last]
            person.got += [item.frame for item in sorted(found, key=lambda event: event.sequence)]
            owed = sorted(item for pairs in person.owed.values() for item in pairs)
            person.wanted += [frame for _, frame in owed]
            for pairs in person.owed.values():
                pairs.clear()
        self.waiting.clear()

    # -- what always holds --------------------------------------------------------------

    @invariant()
    def everybody_got_what_was_owed(self) -> None:
        """The hub and the model delivered the same frames in the same order."""
        for person in self.people:
            assert person.got == person.wanted

    @invariant()
    def registries_agree(self) -> None:
        """Streams, subscriptions and books are those of the model; nothing else is held."""
        held: dict[str, set[str]] = {kind: set() for kind in routing.KINDS}
        for person in self.people:
            for name in person.owed:
                held[routing.kind_of(name)].add(person.address_of(name))
        assert {kind: set(streams) for kind, streams in self.hub.streams.items()} == held
        counts = Counter((routing.kind_of(n), n) for person in self.people for n in person.owed)
        assert told(self.hub) == {
            topic: count for topic, count in counts.items() if topic in self.published
        }
        for kind in routing.KINDS:
            of_kind = sum(count for (its, _), count in counts.items() if its == kind)
            assert self.hub.topics.held[kind] == of_kind
        for person in self.people:
            assert list(person.subscriber.streams) == list(person.owed)
        assert {a: b"".join(frames) for a, frames in self.books.items()} == {
            address: b"".join(map(sent, book.replay())) for address, book in self.hub.books.items()
        }

    @invariant()
    def counters_agree(self) -> None:
        """Drops are counted by reason, and a book's end is said once."""
        assert +self.hub.dropped == +self.dropped
        assert self.hub.books_dropped == len(self.stale) == self.books_dropped

    @invariant()
    def bounds_hold(self) -> None:
        """Nothing grows past its bound."""
        assert len(self.hub.books) <= LIMITS.books
        for address, book in self.hub.books.items():
            assert len(book) <= LIMITS.book_increments
            assert book.bytes <= LIMITS.book_bytes
            assert book.is_held is (address in self.hub.streams[routing.PUBLIC])
        assert self.hub.shelf.bytes <= LIMITS.books_bytes
        for stream in self.hub.dirty:
            assert stream.queue is not None
            assert 0 < stream.queue.qsize() <= LIMITS.queue_frames

    def teardown(self) -> None:
        """When everybody has left and all is taken, nothing is left."""
        if not hasattr(self, "hub"):
            return
        self.drain()
        self.everybody_got_what_was_owed()
        for person in self.people:
            self.hub.drop(person.subscriber)
            assert person.subscriber.streams == {}
        assert self.hub.streams == {kind: {} for kind in routing.KINDS}
        assert self.hub.topics.total == 0
        assert told(self.hub) == {}
        assert self.hub.take_dirty() == []


TestHub = HubMachine.TestCase
TestHub.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
