"""Clients that come back, over real sockets: the line they wait in, breaks, overflows, pings."""

from __future__ import annotations

import json
import time
from typing import Any, Iterator

import gevent
import pytest
from delivery_room import LIMITS, Peer, Room, delivery_room, limits, wait_until

from rango_gevent.delivery.heartbeat import Heartbeat
from rango_gevent.delivery.outbox import SlowPolicy
from rango_gevent.delivery.session import Manner
from rango_gevent.hub.history import GAP, OTHER_HISTORY, History, HistoryLimits
from rango_gevent.hub.hub import HubLimits
from rango_gevent.model import make_position, position_text
from rango_gevent.protocol import close

RESUMES = Manner(resumes=True)


def history(*, is_own: bool = True) -> History:
    """Return one with generous bounds."""
    return History(HistoryLimits(), lambda: 0.0, 0xABCD if is_own else None)


@pytest.fixture
def room() -> Iterator[Room]:
    """A room with a history of its own, and small queues."""
    with delivery_room(history=history(), hub_limits=HubLimits(queue_frames=5)) as made:
        yield made


def hear(peer: Peer) -> dict[str, Any]:
    """Return the next message."""
    found: dict[str, Any] = json.loads(peer.receive())
    return found


def test_who_comes_back_is_read_and_pinged_when_it_is_answered(room: Room) -> None:
    """Before that nobody would read its answers; what it sent meanwhile is answered then."""
    room.set_heartbeat(Heartbeat())
    _, first = room.connect(manner=RESUMES)
    at = hear(first)["success"]["at"]
    room.publish("public.a.t", "1")
    client, peer = room.connect("a.t", manner=RESUMES, since=at)
    assert len(room.heartbeat) == 1
    peer.say("ping")
    assert hear(peer)["a.t"] == 1
    assert hear(peer)["success"]["events"] == 1
    assert peer.receive() == "pong"
    assert len(room.heartbeat) == 2
    assert client.open


def test_one_that_goes_while_it_waits_leaves_nothing(room: Room) -> None:
    """The room checks that at its end."""
    client, _ = room.connect("a.t", manner=RESUMES, since="1-0000abcd")
    client.lost()
    gevent.sleep(0.01)
    assert len(room.heartbeat) == 0
    assert room.hub.topics.total == 0


def test_many_who_come_back_take_turns(room: Room) -> None:
    """A step of each lasts as long as it lasts; between them everything else goes on."""
    _, first = room.connect(manner=RESUMES)
    at = hear(first)["success"]["at"]
    for number in range(500):
        room.publish("public.a.t", str(number))
    peers = [room.connect("a.t", manner=RESUMES, since=at)[1] for _ in range(50)]
    _, other = room.connect("b.t")
    other.say("ping")
    other.receive()
    assert other.receive() == "pong"
    for peer in peers:
        assert [hear(peer)["a.t"] for _ in range(500)] == list(range(500))
        assert hear(peer)["success"]["recovered"] is True


def test_a_break_is_told_between_what_came_before_and_after_it(room: Room) -> None:
    """To those who come back by positions; others hear nothing of it."""
    _, peer = room.connect("a.t", manner=RESUMES)
    _, plain = room.connect("a.t")
    hear(peer)
    plain.receive()
    room.publish("public.a.t", "1")
    assert room.hub.history is not None
    room.hub.history.clear(GAP)
    room.registry.history_broke(GAP)
    room.publish("public.a.t", "2")
    room.round()
    before, told, after = (hear(peer) for _ in range(3))
    assert (before["a.t"], after["a.t"]) == (1, 2)
    assert told == {"event": "position", "at": None, "reason": GAP}
    assert [plain.receive() for _ in range(2)] == ['{"a.t":1}', '{"a.t":2}']


def test_nobody_hears_what_comes_after_a_break_before_he_is_told(room: Room) -> None:
    """However many have to be told: the source waits, and everything else goes on."""
    peers = [room.connect("a.t", manner=RESUMES)[1] for _ in range(200)]
    _, other = room.connect()
    for peer in [*peers, other]:
        hear(peer)

    def lose() -> None:
        room.registry.history_broke(OTHER_HISTORY)
        room.publish("public.a.t", "1")
        room.round()

    source = gevent.spawn(lose)
    other.say("ping")
    assert other.receive() == "pong"
    source.join()
    for peer in peers:
        assert hear(peer)["reason"] == OTHER_HISTORY
        assert hear(peer)["a.t"] == 1


def test_one_that_misses_an_event_is_closed(room: Room) -> None:
    """It gets it when it comes back; others go on without it, as ever."""
    client, peer = room.connect("a.t", "b.t", manner=RESUMES)
    other, plain = room.connect("a.t")
    at = hear(peer)["success"]["at"]
    plain.receive()
    for number in range(7):
        room.publish("public.a.t", str(number))
    room.publish("public.b.t", "7")
    room.round()
    assert client.ended_by is close.SLOW
    assert other.open
    assert peer.receive_to_the_end()[-1].opcode == 8
    _, again = room.connect("a.t", "b.t", manner=RESUMES, since=at)
    assert [list(hear(again).values())[0] for _ in range(8)] == list(range(8))


def test_one_that_lags_is_closed_whatever_the_policy() -> None:
    """Nothing is left out for it."""
    small = limits(outbox_bytes=10_000)
    with delivery_room(small, history=history()) as room:
        room.dispatcher.set_policies(SlowPolicy("latest"))
        client, peer = room.connect("a.t", manner=RESUMES, buffer=4096)
        other, _ = room.connect("a.t", buffer=4096)
        hear(peer)
        for _ in range(100):
            room.publish("public.a.t", json.dumps("x" * 2000))
            room.round()
        assert client.ended_by is close.SLOW
        assert other.open


def test_a_silent_client_is_told_with_its_ping(room: Room) -> None:
    """One that has just been served is not."""
    client, peer = room.connect("a.t", manner=RESUMES)
    _, plain = room.connect("a.t")
    hear(peer)
    plain.receive()
    room.publish("public.b.t", "1")
    client.ping(1.0)
    assert hear(peer) == {"event": "position", "at": position_text(room.hub.history.newest)}  # type: ignore[union-attr]
    assert peer.receive_frame().opcode == 9
    room.publish("public.a.t", "2")
    room.round()
    assert hear(peer)["a.t"] == 2
    client.ping(2.0)
    assert peer.receive_frame().opcode == 9, "the event said where it stands"


def test_one_whose_event_comes_soon_waits_for_it_and_nobody_else_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """This instance lags behind the one that the client comes from."""
    monkeypatch.setattr("rango_gevent.delivery.arrivals._WAIT_S", 60.0)
    with delivery_room(history=history(is_own=False)) as room:
        room.hub.publish("public.a.t", b"1", 0.0, make_position(1, 1))
        later = position_text(make_position(3, 3))
        _, ahead = room.connect("a.t", manner=RESUMES, since=later)
        _, other = room.connect("a.t", manner=RESUMES, since=position_text(make_position(1, 1)))
        assert hear(other)["success"]["recovered"] is True
        gevent.sleep(0.05)
        for number in (2, 3, 4):
            room.hub.publish("public.a.t", b"%d" % number, 0.0, make_position(number, number))
        assert hear(ahead)["a.t"] == 4
        assert hear(ahead)["success"]["recovered"] is True


def test_one_that_is_ahead_of_all_is_told_after_a_while() -> None:
    """And a request for it is answered like a handshake."""
    with delivery_room(LIMITS, history=history(is_own=False)) as room:
        room.hub.publish("public.a.t", b"1", 0.0, make_position(1, 1))
        _, peer = room.connect(manner=RESUMES)
        hear(peer)
        far = position_text(make_position(1 << 60, 3))
        peer.say(json.dumps({"event": "subscribe", "streams": ["a.t"], "since": far}))
        assert hear(peer)["success"]["reason"] == "ahead"
        wait_until(lambda: not len(room.registry.arrivals))


def test_what_is_kept_for_one_alone_is_not_kept_for_ever() -> None:
    """Who takes a byte now and then is not waited for: others would share nothing of it."""
    patient = limits(replay_s=60, send_buffer_bytes=4096)
    with delivery_room(patient, history=history()) as room:
        _, first = room.connect(manner=RESUMES)
        at = hear(first)["success"]["at"]
        for _ in range(500):
            room.publish("public.a.t", json.dumps("x" * 2000))
        client, peer = room.connect("a.t", manner=RESUMES, since=at, buffer=4096)
        _, other = room.connect("a.t", manner=RESUMES, since=at)
        for _ in range(500):
            hear(other)
        room.registry.limits = room.registry.limits._replace(replay_s=0.5)
        while client.open:
            peer.sock.recv(10)
            gevent.sleep(0.02)
        assert client.ended_by is close.SLOW
        assert hear(other)["success"]["recovered"] is True
        assert room.registry.outbox_bytes < 300_000


def test_who_looks_in_vain_pays_for_it(room: Room) -> None:
    """Its further requests wait, as if what it asked for had been sent."""
    room.registry.desk.limits = room.registry.desk.limits._replace(
        replay_events=100, reply_bytes_per_s=1e4
    )
    client, peer = room.connect(manner=RESUMES)
    at = hear(peer)["success"]["at"]
    for number in range(101):
        room.publish("public.a.t", str(number))
    for _ in range(3):
        peer.say(json.dumps({"event": "subscribe", "streams": ["a.t"], "since": at}))
        peer.say(json.dumps({"event": "unsubscribe", "streams": ["a.t"]}))
    began_s = time.monotonic()
    for _ in range(3):
        assert hear(peer)["success"]["reason"] == "too_many"
        hear(peer)
    assert time.monotonic() - began_s > 0.8, "a second's worth is free, each costs one"
    assert client.open


def test_one_that_is_closed_while_it_waits_is_read_to_its_end(room: Room) -> None:
    """Its answer to the close frame ends it, not a deadline."""
    client, peer = room.connect("a.t", manner=RESUMES, since="1-0000abcd")
    client.close(close.RESTART)
    peer.receive_to_the_end()
    peer.answer_close()
    wait_until(lambda: len(room.registry) == 0)
