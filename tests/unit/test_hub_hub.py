"""The hub: who gets which frame, what is dropped and counted, and that no call ever yields.

Clients are plain subscribers here, and a stream's queue is a deque: the hub asks for no more.
"""

from __future__ import annotations

import ast
import inspect
import json
import random
import time
from collections import deque
from pathlib import Path
from typing import Any, Callable

import gevent
import greenlet
import pytest
from gevent.event import Event
from gevent.queue import SimpleQueue
from hypothesis import example, given
from hypothesis import strategies as st

from rango_gevent.errors import RequestError
from rango_gevent.hub import hub as hub_module
from rango_gevent.hub.hub import Hub, HubLimits
from rango_gevent.hub.stream import Batch, Stream
from rango_gevent.model import Segment
from rango_gevent.protocol import frames, messages

AT = 1_700_000_000.0


class Queue(deque):  # type: ignore[type-arg]  # of events; Python 3.9 takes no argument here
    """The least that serves as a queue of frames."""

    put_nowait = deque.append
    get_nowait = deque.popleft
    qsize = deque.__len__


class Subscriber:
    """A client as the hub sees it."""

    def __init__(self, uid: str | None = None, role: str = "", *, notices: bool = False) -> None:
        self.uid = uid
        self.role = role
        self.notices = notices
        self.streams: dict[str, Stream] = {}


def make_hub(limits: HubLimits | None = None, **more: Any) -> Hub:
    """Return a hub where admins may see what begins with admin."""
    return Hub(
        allows=lambda prefix, role: (prefix, role) == ("admin", "admin"),
        make_queue=Queue,
        limits=limits,
        **more,
    )


def frame(name: str, body: str) -> bytes:
    """Return the frame of an event."""
    return frames.event(messages.event_head(name), body.encode())


def taken(hub: Hub) -> dict[str, list[bytes]]:
    """Drain the hub and return the frames that waited, by address."""
    return {batch.stream.address: [w.frame for w in batch.waiting] for batch in hub.take_dirty()}


def delivered(hub: Hub, subscriber: Subscriber) -> list[bytes]:
    """Drain the hub and return what one subscriber gets of it, in order of publishing."""
    found = []
    for stream, waiting, _, joined in hub.take_dirty():
        if subscriber in stream.subscribers:
            found += [w for w in waiting if w.sequence > joined.get(subscriber, 0)]
    return [item.frame for item in sorted(found, key=lambda event: event.sequence)]


# -- subscribing --------------------------------------------------------------------------------


def test_an_event_goes_to_those_who_hold_its_stream() -> None:
    """One frame waits once, however many subscribers there are."""
    hub, one, other, third = make_hub(), Subscriber(), Subscriber(), Subscriber()
    hub.subscribe(one, ["m.trades", "n.trades"])
    hub.subscribe(other, ["m.trades"])
    hub.subscribe(third, ["n.trades"])
    assert hub.publish("public.m.trades", b"1", AT) == hub_module.DELIVERED
    (batch,) = hub.take_dirty()
    (event,) = batch.waiting
    assert (event.sequence, event.frame, event.body, event.at_s) == (
        1,
        frame("m.trades", "1"),
        b"1",
        AT,
    )
    assert list(batch.stream.subscribers) == [one, other]
    assert batch.joined == {}


def test_an_event_that_nobody_holds_costs_nothing() -> None:
    """No stream is made for it, and nothing waits."""
    hub = make_hub()
    assert hub.publish("public.m.trades", b"1", AT) == hub_module.NOBODY
    assert hub.take_dirty() == []
    assert hub.streams == {"public": {}, "private": {}, "prefixed": {}}


def test_private_events_go_to_their_user() -> None:
    """Two connections of one user both get them, another user and an anonymous one never."""
    hub = make_hub()
    one, again, other, nobody = (
        Subscriber("ID1"),
        Subscriber("ID1"),
        Subscriber("ID2"),
        Subscriber(),
    )
    for subscriber in (one, again, other, nobody):
        assert hub.subscribe(subscriber, ["order"]) == []
    assert nobody.streams == {}
    hub.publish("private.ID1.order", b"1", AT)
    (batch,) = hub.take_dirty()
    assert list(batch.stream.subscribers) == [one, again]
    assert batch.waiting[0].frame == frame("order", "1")


def test_a_uid_with_dots_reaches_nobody_elses_events() -> None:
    """A token's uid is text of somebody else; it never makes another user's address."""
    hub = make_hub()
    sly = Subscriber("ID1.order")
    hub.subscribe(sly, ["order", "", "x"])
    for key in ("private.ID1.order", "private.order.order", "private.ID1.x", "private.ID1."):
        assert hub.publish(key, b"1", AT) == hub_module.NOBODY


def test_prefixed_streams_need_a_role() -> None:
    """Who may not have one is told, and holds nothing; the rest of the request is served."""
    hub, admin, member = make_hub(), Subscriber("ID1", "admin"), Subscriber("ID2", "member")
    names = ["admin.m.sys", "m.trades"]
    assert hub.subscribe(admin, names) == []
    assert hub.subscribe(member, names) == [messages.refused("admin.m.sys")]
    assert list(member.streams) == ["m.trades"]
    hub.publish("admin.m.sys", b"1", AT)
    (batch,) = hub.take_dirty()
    assert list(batch.stream.subscribers) == [admin]
    assert batch.waiting[0].frame == frame("m.sys", "1")


def test_names_are_listed_public_and_prefixed_first() -> None:
    """Rango's order: public and prefixed, then private, each in order of subscription."""
    hub, subscriber = make_hub(), Subscriber("ID1", "admin")
    hub.subscribe(subscriber, ["order", "m.trades", "trade", "admin.m.sys", "a.b"])
    assert hub.names(subscriber) == ["m.trades", "admin.m.sys", "a.b", "order", "trade"]
    hub.unsubscribe(subscriber, ["m.trades"])
    hub.subscribe(subscriber, ["m.trades"])
    assert hub.names(subscriber) == ["admin.m.sys", "a.b", "m.trades", "order", "trade"]


def test_subscriptions_are_counted_once() -> None:
    """The gauge goes up and down under one name, and an empty topic leaves it."""
    hub, one, other = make_hub(), Subscriber("ID1", "admin"), Subscriber("ID2")
    for key in ("public.m.trades", "private.ID9.order", "admin.m.sys"):
        hub.publish(key, b"1", AT)
    hub.subscribe(one, ["m.trades", "m.trades", "order", "admin.m.sys"])
    hub.subscribe(one, ["m.trades"])
    hub.subscribe(other, ["m.trades", "order"])
    assert counts(hub) == {
        ("public", "m.trades"): 2,
        ("private", "order"): 2,
        ("prefixed", "admin.m.sys"): 1,
    }
    hub.unsubscribe(other, ["m.trades", "m.trades", "unheld"])
    assert counts(hub)["public", "m.trades"] == 1
    hub.drop(one)
    hub.drop(one)
    assert counts(hub) == {("private", "order"): 1}
    assert hub.topics.held == {"public": 0, "private": 1, "prefixed": 0}
    hub.drop(other)
    assert counts(hub) == {}
    assert hub.topics.total == 0
    assert hub.streams == {"public": {}, "private": {}, "prefixed": {}}


def counts(hub: Hub) -> dict[tuple[str, str], int]:
    """Return the subscriptions of each topic that is counted by itself."""
    told = hub.topics.counts()
    return {(kind, topic): count for kind in told for topic, count in told[kind].items()}


def test_a_newcomer_gets_nothing_that_was_published_before() -> None:
    """Frames that wait for others are from before its time."""
    hub, one, other = make_hub(), Subscriber(), Subscriber()
    hub.subscribe(one, ["m.trades"])
    hub.publish("public.m.trades", b"1", AT)
    hub.subscribe(other, ["m.trades"])
    hub.publish("public.m.trades", b"2", AT)
    (batch,) = hub.take_dirty()
    assert batch.joined == {other: 1}
    assert [w.sequence for w in batch.waiting] == [1, 2]


def test_subscribing_again_loses_nothing_that_waits() -> None:
    """A held stream without a book has no replay that could stand in for what waits."""
    hub, one = make_hub(), Subscriber()
    hub.subscribe(one, ["m.trades"])
    hub.publish("public.m.trades", b"1", AT)
    hub.subscribe(one, ["m.trades"])
    hub.publish("public.m.trades", b"2", AT)
    assert delivered(hub, one) == [frame("m.trades", "1"), frame("m.trades", "2")]


def test_a_stream_that_comes_again_is_a_new_one() -> None:
    """What waits in the stream that everybody left is not for those who come after."""
    hub, one, other = make_hub(), Subscriber(), Subscriber()
    hub.subscribe(one, ["m.trades"])
    hub.publish("public.m.trades", b"1", AT)
    hub.drop(one)
    hub.subscribe(other, ["m.trades"])
    hub.publish("public.m.trades", b"2", AT)
    assert delivered(hub, other) == [frame("m.trades", "2")]


def test_the_first_waiting_frame_wakes_the_dispatcher() -> None:
    """Once for all streams until they are taken."""
    calls: list[int] = []
    hub, one = make_hub(wake=lambda: calls.append(1)), Subscriber()
    hub.subscribe(one, ["m.trades", "n.trades"])
    for key in ("public.m.trades", "public.m.trades", "public.n.trades"):
        hub.publish(key, b"1", AT)
    assert calls == [1]
    hub.take_dirty()
    hub.publish("public.n.trades", b"1", AT)
    assert calls == [1, 1]


def test_queues_are_used_again() -> None:
    """Silent streams hold none: the hub makes as many as waited at once."""
    made: list[Queue] = []

    def make_queue() -> Queue:
        made.append(Queue())
        return made[-1]

    hub = Hub(allows=lambda prefix, role: False, make_queue=make_queue)
    one = Subscriber()
    hub.subscribe(one, [f"m{n}.trades" for n in range(50)])
    for _ in range(3):
        for n in range(50):
            hub.publish(f"public.m{n}.trades", b"1", AT)
            assert len(hub.take_dirty()) == 1
    assert len(made) == 1


# -- books --------------------------------------------------------------------------------------

SNAP, INC = "public.m.ob-snap", "public.m.ob-inc"


def replay(hub: Hub, subscriber: Subscriber | None = None) -> bytes:
    """Subscribe to the book and return what comes back."""
    return b"".join(map(sent, hub.subscribe(subscriber or Subscriber(), ["m.ob-inc"])))


def sent(part: bytes | Segment) -> bytes:
    """Return the bytes of what is to be sent."""
    return part if isinstance(part, bytes) else b"".join(event.frame for event in part.events)


def snap(number: int) -> bytes:
    """Return the frame of a snapshot."""
    return frame("m.ob-snap", str(number))


def inc(number: int) -> bytes:
    """Return the frame of an increment."""
    return frame("m.ob-inc", str(number))


def test_a_newcomer_gets_the_snapshot_and_all_since() -> None:
    """Under their own names, in order, before anything live."""
    hub = make_hub()
    assert hub.publish(SNAP, b"1", AT) == hub_module.STORED
    assert hub.publish(INC, b"2", AT) == hub_module.STORED
    assert hub.publish(INC, b"3", AT) == hub_module.STORED
    one = Subscriber()
    assert replay(hub, one) == snap(1) + inc(2) + inc(3)
    assert hub.publish(INC, b"4", AT) == hub_module.DELIVERED
    assert delivered(hub, one) == [inc(4)]


def test_what_waits_is_in_the_replay_already() -> None:
    """A newcomer among waiting increments gets none of them twice."""
    hub, one, other = make_hub(), Subscriber(), Subscriber()
    hub.publish(SNAP, b"1", AT)
    replay(hub, one)
    hub.publish(INC, b"2", AT)
    assert replay(hub, other) == snap(1) + inc(2)
    hub.publish(INC, b"3", AT)
    (batch,) = hub.take_dirty()
    assert batch.joined == {other: 2}


def test_a_snapshot_is_stored_and_not_broadcast() -> None:
    """Those who follow the increments need none."""
    hub, one = make_hub(), Subscriber()
    hub.publish(SNAP, b"1", AT)
    hub.subscribe(one, ["m.ob-inc", "m.ob-snap"])
    hub.publish(INC, b"2", AT)
    assert hub.publish(SNAP, b"2", AT) == hub_module.STORED
    hub.publish(INC, b"3", AT)
    assert delivered(hub, one) == [inc(2), inc(3)]
    assert replay(hub) == snap(2) + inc(3)


def test_subscribing_again_replays_again() -> None:
    """As Rango does, and what waited is not sent a second time."""
    hub, one = make_hub(), Subscriber()
    hub.publish(SNAP, b"1", AT)
    replay(hub, one)
    hub.publish(INC, b"2", AT)
    assert replay(hub, one) == snap(1) + inc(2)
    hub.publish(INC, b"3", AT)
    assert delivered(hub, one) == [inc(3)]


def test_an_increment_before_the_first_snapshot_is_dropped() -> None:
    """Nobody could make use of it."""
    hub, one = make_hub(), Subscriber()
    replay(hub, one)
    assert hub.publish(INC, b"1", AT) == hub_module.NO_SNAPSHOT
    assert +hub.dropped == {hub_module.NO_SNAPSHOT: 1}
    assert hub.take_dirty() == []


def test_public_and_global_scopes_share_their_books() -> None:
    """Both scopes lead to the same topics."""
    hub = make_hub()
    hub.publish("global.m.ob-snap", b"1", AT)
    hub.publish(INC, b"2", AT)
    assert replay(hub) == snap(1) + inc(2)


def test_the_first_snapshot_goes_to_all_who_wait() -> None:
    """Increments before it go to nobody; after it there is no gap, for whoever came when."""
    hub, early, late = make_hub(), Subscriber(), Subscriber()
    hub.subscribe(early, ["m.ob-inc"])
    assert hub.publish(INC, b"1", AT) == hub_module.NO_SNAPSHOT
    assert hub.publish(SNAP, b"2", AT) == hub_module.DELIVERED
    hub.publish(INC, b"3", AT)
    assert replay(hub, late) == snap(2) + inc(3)
    hub.publish(INC, b"4", AT)
    batches = hub.take_dirty()
    assert [w.frame for batch in batches for w in batch.waiting] == [snap(2), inc(3), inc(4)]
    assert batches[0].joined == {late: 3}
    assert hub.publish(SNAP, b"5", AT) == hub_module.STORED


@pytest.mark.parametrize(
    ("last", "snapshot", "is_sent"),
    [
        ('{"sequence":7}', '{"sequence":6}', True),
        ('{"sequence":7}', '{"sequence":7}', False),
        ('{"sequence":7}', '{"sequence":8}', False),
        ('{"a":{"sequence":1},"sequence":7}', '{"a":{"sequence":9},"sequence":6}', True),
        ('{"a":"\\ud800","sequence":7}', '{"sequence":6,"a":"\\ud800"}', True),
        (f'{{"a":"{"x" * 70_000}","sequence":7}}', f'{{"a":"{"x" * 300}","sequence":0}}', True),
        (f'{{"sequence":{10**30}}}', '{"sequence":0}', True),
        ('{"sequence":7}', "{}", False),
        ("{}", '{"sequence":6}', False),
        ('{"sequence":"7"}', '{"sequence":6}', False),
        ('{"sequence":7}', '{"sequence":null}', False),
        ('{"sequence":7}', '{"sequence":6.5}', False),
        ("[7]", '{"sequence":6}', False),
        ('{"sequence":7}', "6", False),
        ('{"sequence":7}', "[" * 500 + "]" * 500, False),
    ],
)
def test_a_book_that_begins_anew_goes_to_all_who_hold_it(
    last: str, snapshot: str, is_sent: bool
) -> None:
    """When its sequence falls behind, what they hold is of an engine that is gone."""
    hub, one = make_hub(), Subscriber()
    hub.publish(SNAP, b'{"sequence":1}', AT)
    replay(hub, one)
    hub.publish(INC, last.encode(), AT)
    outcome = hub.publish(SNAP, snapshot.encode(), AT)
    assert outcome == (hub_module.DELIVERED if is_sent else hub_module.STORED)
    sent = [frame("m.ob-snap", snapshot)] if is_sent else []
    assert delivered(hub, one) == [frame("m.ob-inc", last), *sent]


def test_the_last_snapshot_counts_where_no_increment_came() -> None:
    """An engine may begin anew before it says anything else."""
    hub, one = make_hub(), Subscriber()
    hub.publish(SNAP, b'{"sequence":5}', AT)
    replay(hub, one)
    assert hub.publish(SNAP, b'{"sequence":5}', AT) == hub_module.STORED
    assert hub.publish(SNAP, b'{"sequence":1}', AT) == hub_module.DELIVERED
    assert delivered(hub, one) == [frame("m.ob-snap", '{"sequence":1}')]


def test_who_asked_for_notices_hears_which_books_are_not_there() -> None:
    """All of a request in one notice, behind the replays; of books alone."""
    hub, one, other = make_hub(), Subscriber("ID1", "admin", notices=True), Subscriber()
    hub.publish(SNAP, b"1", AT)
    hub.publish("public.s.ob-snap", b"1", AT)
    hub.shelf.drop("s.ob-inc", AT)
    names = ["s.ob-inc", "m.ob-inc", "n.ob-inc", "a.b", "a.b-snap", "ob-inc", "admin.m.ob-inc"]
    notice = messages.resync(["s.ob-inc", "n.ob-inc"])

    def answers(subscriber: Subscriber, names: list[str]) -> list[bytes]:
        return [sent(part) for part in hub.subscribe(subscriber, names)]

    assert answers(one, names) == [snap(1), notice]
    assert answers(one, ["n.ob-inc", "a.b"]) == [messages.resync(["n.ob-inc"])]
    assert answers(one, ["m.ob-inc", "a.b"]) == [snap(1)]
    assert answers(other, names) == [snap(1), messages.refused("admin.m.ob-inc")]


@pytest.mark.parametrize(
    ("key", "name"), [("private.ID1.ob-snap", "ob-inc"), ("admin.m.ob-snap", "admin.m.ob-inc")]
)
def test_other_scopes_keep_no_books(key: str, name: str) -> None:
    """A snapshot goes out at once, renamed, and a newcomer gets no replay."""
    hub, one = make_hub(), Subscriber("ID1", "admin")
    hub.subscribe(one, [name])
    assert hub.publish(key, b"1", AT) == hub_module.DELIVERED
    assert delivered(hub, one) == [frame(name.replace("admin.", ""), "1")]
    assert hub.books == {}
    assert hub.subscribe(Subscriber("ID1", "admin"), [name]) == []


def test_a_private_name_like_a_books_address_gets_no_replay() -> None:
    """Books are of public streams; no other kind finds them."""
    hub = make_hub()
    hub.publish(SNAP, b"1", AT)
    assert hub.subscribe(Subscriber("m"), ["ob-inc"]) == []


# -- bounds -------------------------------------------------------------------------------------


class Stale:
    """What the hub says about books that it dropped."""

    def __init__(self) -> None:
        self.books: list[str] = []

    def __call__(self, address: str, why: str) -> None:
        """Note a book; the reason is for the log."""
        assert why
        self.books.append(address)


def test_a_book_past_its_increments_is_stale() -> None:
    """It is dropped and said once; live increments go on; the next snapshot goes to everyone."""
    stale = Stale()
    hub, one = make_hub(HubLimits(book_increments=2), on_stale=stale), Subscriber()
    hub.publish(SNAP, b"0", AT)
    replay(hub, one)
    for number in range(1, 6):
        assert hub.publish(INC, b"%d" % number, AT) == hub_module.DELIVERED
        assert len(hub.books["m.ob-inc"]) <= 2
    assert stale.books == ["m.ob-inc"]
    assert hub.books_dropped == 1
    newcomer = Subscriber()
    assert replay(hub, newcomer) == b""
    assert hub.publish(SNAP, b"5", AT + 3) == hub_module.DELIVERED
    hub.publish(INC, b"6", AT + 3)
    assert hub.stale_s == 3
    (batch,) = hub.take_dirty()
    assert [w.frame for w in batch.waiting] == [
        inc(1),
        inc(2),
        inc(3),
        inc(4),
        inc(5),
        snap(5),
        inc(6),
    ]
    assert batch.joined == {newcomer: 6}
    assert replay(hub) == snap(5) + inc(6)


def test_a_book_past_its_bytes_is_stale() -> None:
    """All frames of a book count, the snapshot among them."""
    hub = make_hub(HubLimits(book_bytes=500))
    hub.publish(SNAP, b"1" * 200, AT)
    hub.publish(INC, b"2" * 200, AT)
    assert 400 < hub.books["m.ob-inc"].bytes < 500
    hub.publish(INC, b"3" * 200, AT)
    assert hub.books["m.ob-inc"].bytes == 0
    assert replay(hub) == b""
    assert hub.books_dropped == 1


def test_the_number_of_books_is_bounded() -> None:
    """The one that nobody used for longest makes room for a new one."""
    stale = Stale()
    hub = make_hub(HubLimits(books=2), on_stale=stale)
    for market in ("a", "b", "c"):
        assert hub.publish(f"public.{market}.ob-snap", b"1", AT) == hub_module.STORED
    assert list(hub.books) == ["b.ob-inc", "c.ob-inc"]
    assert stale.books == ["a.ob-inc"]
    assert hub.books_dropped == 1
    assert hub.publish("public.a.ob-inc", b"2", AT) == hub_module.NO_SNAPSHOT


def test_junk_books_push_out_junk() -> None:
    """A book that is read, and one that is alive, stay; those who read feel nothing."""
    hub, one = make_hub(HubLimits(books=10)), Subscriber()
    for key in (SNAP, "public.alive.ob-snap"):
        hub.publish(key, b"1", AT)
    assert replay(hub, one) == snap(1)
    for number in range(100):
        hub.publish(f"public.junk{number}.ob-snap", b"1", AT)
        hub.publish("public.alive.ob-inc", b"2", AT)
        assert len(hub.books) <= 10
    assert {"m.ob-inc", "alive.ob-inc"} <= set(hub.books)
    assert hub.books_dropped == 92
    hub.publish(INC, b"3", AT)
    assert delivered(hub, one) == [inc(3)]
    assert replay(hub) == snap(1) + inc(3)


def test_who_holds_a_book_that_was_forgotten_gets_its_next_snapshot() -> None:
    """Like that of a book that was never there; it is said before that it is stale."""
    stale = Stale()
    hub, one, other = make_hub(HubLimits(books=1), on_stale=stale), Subscriber(), Subscriber()
    hub.publish(SNAP, b"1", AT)
    replay(hub, one)
    hub.subscribe(other, ["n.ob-inc"])
    hub.publish("public.n.ob-snap", b"1", AT)
    assert stale.books == ["m.ob-inc"]
    assert delivered(hub, other) == [frame("n.ob-snap", "1")]
    assert hub.publish(INC, b"2", AT) == hub_module.NO_SNAPSHOT
    assert hub.publish(SNAP, b"3", AT) == hub_module.DELIVERED
    hub.publish(INC, b"4", AT)
    assert delivered(hub, one) == [snap(3), inc(4)]


def test_the_bytes_of_all_books_are_bounded() -> None:
    """Past it the book that was not used for longest is stale; those that are held stay longer."""
    stale = Stale()
    hub, one = make_hub(HubLimits(books_bytes=1000), on_stale=stale), Subscriber()
    hub.publish(SNAP, b"1" * 300, AT)
    replay(hub, one)
    for market in ("a", "b", "c"):
        hub.publish(f"public.{market}.ob-snap", b"1" * 300, AT)
        assert hub.shelf.bytes <= 1000
    assert stale.books == ["a.ob-inc"]
    for _ in range(3):
        hub.publish(INC, b"2" * 200, AT)
        assert hub.shelf.bytes <= 1000
    assert stale.books == ["a.ob-inc", "b.ob-inc", "c.ob-inc"]
    assert hub.shelf.stale == 3
    hub.publish(INC, b"2" * 200, AT)
    assert stale.books[3:] == ["m.ob-inc"]
    assert hub.shelf.bytes == 0
    assert len(delivered(hub, one)) == 4
    assert hub.publish(SNAP, b"3", AT) == hub_module.DELIVERED


def test_a_body_of_the_largest_size_is_taken() -> None:
    """One byte more is dropped, before anything looks into it."""
    hub, one = make_hub(HubLimits(event_bytes=10)), Subscriber()
    hub.subscribe(one, ["m.trades"])
    assert hub.publish("public.m.trades", b"1" * 10, AT) == hub_module.DELIVERED
    assert hub.publish("public.m.trades", b"1" * 11, AT) == hub_module.BODY_TOO_BIG


def test_a_body_is_refused_by_its_size_alone() -> None:
    """It counts as if it had come, and what is refused so is what would be dropped."""
    hub = make_hub(HubLimits(event_bytes=10))
    assert hub.refusal("public.m.trades", 10) == ""
    assert hub.refusal("bad", 10) == ""
    assert not +hub.received
    assert hub.refusal("public.m.trades", 11) == hub_module.BODY_TOO_BIG
    assert hub.refusal("public.m.trades", 1 << 40) == hub_module.BODY_TOO_BIG
    assert hub.refusal("bad", 11) == hub_module.BAD_KEY
    assert +hub.received == {"public": 2}
    assert +hub.dropped == {hub_module.BODY_TOO_BIG: 2, hub_module.BAD_KEY: 1}


def test_a_queue_is_bounded() -> None:
    """What is too much is dropped and counted; what waits already is delivered."""
    hub, one = make_hub(HubLimits(queue_frames=2)), Subscriber()
    hub.subscribe(one, ["m.trades", "n.trades"])
    outcomes = [hub.publish("public.m.trades", b"%d" % n, AT) for n in range(4)]
    assert outcomes == [hub_module.DELIVERED] * 2 + [hub_module.QUEUE_FULL] * 2
    assert hub.publish("public.n.trades", b"9", AT) == hub_module.DELIVERED
    assert +hub.dropped == {hub_module.QUEUE_FULL: 2}
    assert taken(hub) == {
        "m.trades": [frame("m.trades", "0"), frame("m.trades", "1")],
        "n.trades": [frame("n.trades", "9")],
    }


def test_a_book_whose_queue_is_full_is_stale_once() -> None:
    """Its subscribers missed an increment and need a snapshot; that is said once, not for each."""
    stale = Stale()
    hub, one = make_hub(HubLimits(queue_frames=2), on_stale=stale), Subscriber()
    hub.publish(SNAP, b"0", AT)
    replay(hub, one)
    for number in range(1, 7):
        hub.publish(INC, b"%d" % number, AT)
    assert stale.books == ["m.ob-inc"]
    assert hub.books_dropped == 1
    assert replay(hub) == b""


def test_a_stale_book_whose_snapshot_found_no_room_stays_stale() -> None:
    """Those who wait for the snapshot have not got it, so the next one is sent again."""
    hub, one = make_hub(HubLimits(queue_frames=1)), Subscriber()
    hub.publish(SNAP, b"0", AT)
    replay(hub, one)
    hub.publish(INC, b"1", AT)
    assert hub.publish(INC, b"2", AT) == hub_module.QUEUE_FULL
    assert hub.publish(SNAP, b"2", AT) == hub_module.QUEUE_FULL
    assert delivered(hub, one) == [inc(1)]
    assert hub.publish(SNAP, b"2", AT) == hub_module.DELIVERED
    hub.publish(SNAP, b"3", AT)
    assert delivered(hub, one) == [snap(2)]


def test_books_are_stale_after_an_outage() -> None:
    """What was published meanwhile was missed: everyone gets the next snapshot."""
    stale = Stale()
    hub, one = make_hub(on_stale=stale), Subscriber()
    for market in ("m", "n"):
        hub.publish(f"public.{market}.ob-snap", b"1", AT)
    replay(hub, one)
    hub.drop_books(AT, "the broker was lost")
    hub.drop_books(AT + 1, "the broker was lost")
    assert sorted(stale.books) == ["m.ob-inc", "n.ob-inc"]
    assert replay(hub) == b""
    assert hub.publish(SNAP, b"2", AT + 4) == hub_module.DELIVERED
    assert hub.stale_s == 4
    assert delivered(hub, one) == [snap(2)]


def test_the_keys_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Publishers with a new key for each message cost time, never memory without end."""
    monkeypatch.setattr(hub_module, "_MAX_ROUTES", 10)
    hub, one = make_hub(), Subscriber()
    hub.subscribe(one, ["m7.trades"])
    for number in range(100):
        hub.publish(f"public.m{number}.trades", b"1", AT)
        assert len(hub._routes) <= 10
    assert hub.publish("public.m7.trades", b"2", AT) == hub_module.DELIVERED


def test_subscriptions_of_all_clients_are_bounded() -> None:
    """Past the bound a request is refused as a whole; what is held already is no news."""
    hub, one, other = make_hub(HubLimits(subscriptions=3)), Subscriber(), Subscriber()
    hub.subscribe(one, ["a.b", "c.d"])
    with pytest.raises(RequestError, match="Too many streams"):
        hub.subscribe(other, ["a.b", "e.f"])
    assert other.streams == {}
    assert (hub.refused, hub.topics.total) == (2, 2)
    hub.subscribe(one, ["a.b", "c.d", "e.f", "e.f"])
    hub.subscribe(one, ["a.b"])
    assert hub.topics.total == 3
    with pytest.raises(RequestError):
        hub.subscribe(other, ["a.b"])
    hub.unsubscribe(one, ["a.b"])
    hub.subscribe(other, ["a.b"])
    assert (hub.refused, hub.topics.total) == (3, 3)


# -- what is dropped ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key", ["", "a", "a.b.c.d", "private.order", "private..order", "public.\udcff.a", "\udcff"]
)
def test_keys_that_fit_no_stream_are_counted(key: str) -> None:
    """AMQP allows any bytes as a key; what is no text can be no name."""
    hub = make_hub()
    for _ in range(2):
        assert hub.publish(key, b"1", AT) == hub_module.BAD_KEY
    assert +hub.dropped == {hub_module.BAD_KEY: 2}
    assert not +hub.received


GOOD_BODIES = [
    b"1", b"-0", b"1.5e-7", b'""', b"[]", b"{}", b"null", b"true", b'{"a":[1,{"b":null}]}',
    b' \t\r\n{"a" : 1}\n', b"12345678901234567890123", b'"\\u00e9\\ud83d\\ude00"',
    "\"é😀\u2028\x7f\"".encode(), b'{"a":1,"a":2}', b"0.10000000000000000001",
    b'"\\ud800"', b'["\\udc00\\ud800", "\\uDBFFx"]', b"[" * 500 + b"]" * 500,
]  # fmt: skip
BAD_BODIES = [
    b"", b" ", b"NaN", b"Infinity", b"-Infinity", b"{'x':1}", b'{"x":1,}', b"[1,]", b"01", b"1.",
    b".5", b"+1", b"1e", b"--1", b"0x1", b'"a\tb"', b'"a\nb"', b'"a\x00b"', b"1 2", b"{}{}", b'{"a"}',
    b'{"a":1', b"[1 2]", b"nul", b"True", b'"a', b"'a'", b"{1:2}", b'"\\x41"', b'"\\u12"', b'"\xff"',
    b'"\xc3"', b'"\xed\xa0\x80"', b'"\xc0\x80"', b"\xef\xbb\xbf1", b"// a\n1", b"\x00", b"[" * 100_000,
    b'"\\ud800', b'["\\ud800",]', b'["\\ud800", NaN]', b'"\\ud800\xff"', b'"\\ud800\t"',
]  # fmt: skip


@pytest.mark.parametrize("body", GOOD_BODIES)
def test_good_bodies_pass_unchanged(body: bytes) -> None:
    """Any JSON text, in any layout, with numbers of any length."""
    hub, one = make_hub(), Subscriber()
    hub.subscribe(one, ["m.trades"])
    assert hub.publish("public.m.trades", body, AT) == hub_module.DELIVERED
    assert delivered(hub, one)[0].endswith(b'{"m.trades":' + body + b"}")


@pytest.mark.parametrize("body", BAD_BODIES, ids=lambda body: repr(body[:12]))
@pytest.mark.parametrize("key", ["public.m.trades", INC, SNAP, "private.ID1.order"])
def test_bad_bodies_are_dropped_and_counted(key: str, body: bytes) -> None:
    """One broken message would break every client's parser; the stream goes on without it."""
    hub = make_hub()
    assert hub.publish(key, body, AT) == hub_module.BAD_BODY
    assert +hub.dropped == {hub_module.BAD_BODY: 1}
    assert hub.books == {}


WITH_SURROGATES = (
    b'"', b"\\", b"\\ud800", b"\\uDBFF", b"\\udc00", b"\\uDFFF", b"ud8", b"d800", b"\\u00e9", b"\\ud7ff",
    "\u00e9".encode(), b"\xed\xa0\x80", b"[", b"]", b",", b"1", b"{", b":", b"}",
)  # fmt: skip


def is_json(body: bytes) -> bool:
    """Tell whether another strict parser takes a body."""

    def refuse(word: str) -> None:
        raise ValueError(word)

    try:
        json.loads(body.decode(), parse_constant=refuse, parse_int=len)
    except (ValueError, RecursionError):
        return False
    return True


json_texts = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
).flatmap(
    lambda value: st.booleans().map(lambda ascii: json.dumps(value, ensure_ascii=ascii).encode())
)


@given(
    st.binary(max_size=12)
    | st.text('{}[]",:\\0123eE+-.truefalsn\t u', max_size=12).map(str.encode)
    | st.lists(st.sampled_from(WITH_SURROGATES), max_size=6).map(b"".join)
)
@example(b'"\\ud800"')
def test_any_body_is_judged_as_by_another_strict_parser(body: bytes) -> None:
    """What the hub lets through any JSON parser reads, and nothing good is dropped."""
    assert (make_hub().publish("public.a.b", body, AT) == hub_module.NOBODY) is is_json(body)


@given(json_texts, st.data())
def test_any_damage_to_a_body_is_judged_alike(body: bytes, data: st.DataObject) -> None:
    """The same for JSON texts with some of their bytes replaced, left out or added."""
    start = data.draw(st.integers(0, len(body)))
    end = data.draw(st.integers(start, min(len(body), start + 2)))
    body = body[:start] + data.draw(st.binary(max_size=2)) + body[end:]
    assert (make_hub().publish("public.a.b", body, AT) == hub_module.NOBODY) is is_json(body)


def test_a_large_body_with_a_lone_surrogate_is_judged_quickly() -> None:
    """Several times as fast as by the parser that takes such bodies by itself."""
    hub, body = make_hub(HubLimits(event_bytes=2 << 20)), b'["\\ud800",' + b"1," * 500_000 + b"1]"

    def cost_s(work: Callable[[], object]) -> float:
        started_s = time.process_time()
        work()
        return time.process_time() - started_s

    for _ in range(3):
        ours_s = min(cost_s(lambda: hub.publish("public.a.b", body, AT)) for _ in range(3))
        if 2 * ours_s < cost_s(lambda: is_json(body)):
            return
    raise AssertionError("a publisher of such bodies holds everybody up")


def test_messages_are_counted_by_kind() -> None:
    """Also those that nobody holds, and those whose body is dropped."""
    hub = make_hub()
    for key in ("public.a.b", "global.b", "private.ID1.b", "admin.a.b", SNAP, INC, "bad"):
        hub.publish(key, b"1", AT)
    hub.publish("public.a.b", b"", AT)
    assert +hub.received == {"public": 5, "private": 1, "prefixed": 1}


def test_every_reason_to_drop_is_in_the_table() -> None:
    """Metrics and the log of drops know them by it."""
    words = {
        value
        for name, value in vars(hub_module).items()
        if name.isupper() and isinstance(value, str) and not name.startswith("_")
    }
    passed = {hub_module.DELIVERED, hub_module.NOBODY, hub_module.STORED}
    assert words == passed | set(hub_module.DROPPED)


# -- no method yields -----------------------------------------------------------------------------


def switches_during(work: Callable[[], object]) -> int:
    """Return how often greenlets switched while the work ran, with another one ready to run."""
    seen: list[str] = []
    waiting = gevent.spawn(lambda: None)
    previous = greenlet.settrace(lambda event, greenlets: seen.append(event))
    try:
        work()
    finally:
        greenlet.settrace(previous)
    waiting.join()
    return len(seen)


def test_the_tracer_sees_switches() -> None:
    """What the next test relies on."""
    assert switches_during(lambda: gevent.sleep(0)) > 0
    assert switches_during(lambda: None) == 0


def every_public_call() -> dict[str, Callable[[], object]]:
    """Return calls of all public methods of a hub with gevent's own parts, books and bounds."""
    work = Event()
    limits = HubLimits(queue_frames=2, books=2, book_increments=2, event_bytes=100)
    hub = Hub(
        allows=lambda prefix, role: role == "admin",
        make_queue=SimpleQueue,
        wake=work.set,
        limits=limits,
    )
    people = [Subscriber("ID1", "admin"), Subscriber("ID1"), Subscriber()]
    names = ["m.ob-inc", "m.trades", "order", "admin.a.b", "x.y"]
    keys = [SNAP, INC, INC, INC, INC, SNAP, "public.m.trades", "private.ID1.order", "admin.a.b"]
    keys += ["bad", "public.n.ob-snap", "public.o.ob-snap", "public.none.x"]

    def subscribe() -> None:
        for subscriber in people:
            hub.subscribe(subscriber, names)

    def publish() -> None:
        for key in keys * 3:
            for body in (b"1", b'"' + "é".encode() + b'"', b"nope", b"1" * 200):
                hub.publish(key, body, AT)

    return {
        "subscribe": subscribe,
        "publish": publish,
        "refusal": lambda: [hub.refusal(key, 200) for key in keys],
        "names": lambda: [hub.names(subscriber) for subscriber in people],
        "may_have": lambda: [hub.may_have(who, "private", "order") for who in people],
        "take_dirty": hub.take_dirty,
        "drop_books": lambda: hub.drop_books(AT, "test"),
        "unsubscribe": lambda: [hub.unsubscribe(subscriber, names[:2]) for subscriber in people],
        "drop": lambda: [hub.drop(subscriber) for subscriber in people],
    }


def test_no_method_of_the_hub_yields() -> None:
    """Under gevent, in any order, no public method lets another greenlet run.

    So no lock is needed, and a replay and its subscription cannot be parted.
    """
    calls = every_public_call()
    public = {
        name
        for name, value in vars(Hub).items()
        if not name.startswith("_")
        and (inspect.isroutine(value) or isinstance(value, staticmethod))
    }
    assert set(calls) == public
    order = ["subscribe", "publish", "take_dirty", *calls]
    shuffled = random.Random(7)
    for _ in range(20):
        for name in order:
            assert switches_during(calls[name]) == 0, name
        shuffled.shuffle(order)


def test_the_hub_could_not_yield_if_it_wanted_to() -> None:
    """No module of the room imports anything that waits."""
    for path in Path(hub_module.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.split(".")[0] in (
                    "__future__", "array", "bisect", "collections", "operator", "typing", "msgspec",
                    "rango_gevent",
                ), f"{path.name} imports {name}"  # fmt: skip


# -- small parts ----------------------------------------------------------------------------------


def test_a_batch_is_what_waits_in_one_stream() -> None:
    """Stream, frames, and who came among them."""
    stream = Stream("public", "a.b", "a.b")
    assert Batch(stream, [], 0, {}) == (stream, [], 0, {})
