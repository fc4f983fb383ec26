"""Liveness by a wheel: who is pinged when, who is closed, who is kept. The clock is the test's."""

from __future__ import annotations

import time
from collections import Counter
from typing import Iterator

import gevent
import pytest
from delivery_room import Peer, Room, as_segments, delivery_room, limits, wait_until
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Close, Opcode

from rango_gevent.delivery.connection import Connection
from rango_gevent.delivery.heartbeat import Heartbeat
from rango_gevent.protocol import close

INTERVAL_S, TIMEOUT_S = 5, 8  # the wheel has five slots; a pong is waited for for three seconds


class Wheel:
    """A heartbeat whose seconds pass when the test says so."""

    def __init__(self, room: Room, max_age_s: float = 0.0, interval_s: float = INTERVAL_S) -> None:
        self.room = room
        self.now = room.registry.clock.now_s
        self.heartbeat = Heartbeat(
            ping_interval_s=interval_s,
            pong_timeout_s=TIMEOUT_S,
            max_age_s=max_age_s,
            now=lambda: self.now,
        )
        room.set_heartbeat(self.heartbeat)

    def tick(self, seconds: int = 1) -> None:
        """Let seconds pass, and clients read and answer in each."""
        for _ in range(seconds):
            self.now += 1
            self.heartbeat.tick(self.now)
            settle(self.room)


def settle(room: Room) -> None:
    """Wait until everything that was sent has been read by the registry's clients."""
    gevent.sleep(0.001)
    wait_until(lambda: room.registry.greenlets == 0)


@pytest.fixture
def room() -> Iterator[Room]:
    """A room with a wheel yet to be made."""
    with delivery_room(limits(close_timeout_s=4.0)) as made:
        yield made


def connect(room: Room, count: int) -> list[tuple[Connection, Peer]]:
    """Connect clients and read their first reply."""
    pairs = [room.connect() for _ in range(count)]
    for _, peer in pairs:
        peer.receive()
        peer.sock.setblocking(False)
    return pairs


def pings(peer: Peer, is_answered: bool = True) -> int:
    """Read what is there; return the pings, and answer them if so wished."""
    try:
        while peer.read():
            pass
    except BlockingIOError:
        pass
    found, peer.frames = peer.frames, []
    answers = b"".join(peer.core.data_to_send())
    if is_answered and answers:
        peer.send(answers)
    return sum(frame.opcode is Opcode.PING for frame in found)


# -- pings ----------------------------------------------------------------------------------------


def test_each_client_is_pinged_once_an_interval(room: Room) -> None:
    """In a second of its own, so that the work is spread."""
    wheel = Wheel(room)
    pairs = connect(room, 12)
    seen: dict[int, list[int]] = {client.id: [] for client, _ in pairs}
    for second in range(3 * INTERVAL_S):
        wheel.tick()
        for client, peer in pairs:
            seen[client.id] += [second] * pings(peer)
        settle(room)
    for seconds in seen.values():
        assert len(seconds) == 3
        assert {later - earlier for earlier, later in zip(seconds, seconds[1:])} == {INTERVAL_S}
    by_second = Counter(seconds[0] for seconds in seen.values())
    assert max(by_second.values()) - min(by_second.values()) <= 1
    assert len(by_second) == INTERVAL_S


def test_a_ping_is_an_empty_frame(room: Room) -> None:
    """Nothing to remember: any sign of life is an answer."""
    wheel = Wheel(room)
    ((_, peer),) = connect(room, 1)
    peer.raw = b""
    while not peer.raw:
        wheel.tick()
        pings(peer)
    assert peer.raw == b"\x89\x00"


def test_a_client_that_lags_is_not_pinged(room: Room) -> None:
    """Bytes wait for it anyway; the writer knows whether it takes them."""
    wheel = Wheel(room)
    client, peer = room.connect(buffer=4096)
    while client.ready:
        client.offer(as_segments(b"\x81\x00" * 500))
    before = client.outbox_bytes
    for _ in range(INTERVAL_S):
        wheel.now += 1
        wheel.heartbeat.tick(wheel.now)
    assert client.outbox_bytes == before
    assert client.pinged_s == 0.0
    peer.close()


# -- who is closed --------------------------------------------------------------------------------


def test_a_client_that_answers_is_kept(room: Room) -> None:
    """For as long as it answers."""
    wheel = Wheel(room)
    pairs = connect(room, 3)
    for _ in range(5 * TIMEOUT_S):
        wheel.tick()
        assert all(pings(peer) <= 1 for _, peer in pairs)
        settle(room)
    assert all(client.open for client, _ in pairs)


def test_a_client_that_says_anything_is_kept(room: Room) -> None:
    """A request is a sign of life as good as a pong."""
    wheel = Wheel(room)
    ((client, peer),) = connect(room, 1)
    for _ in range(5 * TIMEOUT_S):
        wheel.tick()
        pings(peer, is_answered=False)
        peer.say(" ")
        settle(room)
    assert client.open


def test_a_silent_client_is_closed(room: Room) -> None:
    """With 4009, as many seconds after its ping as are given for the answer."""
    wheel = Wheel(room)
    ((client, peer), (other, kept)) = connect(room, 2)
    pinged_at = 0
    for second in range(1, 3 * TIMEOUT_S):
        wheel.tick()
        if pings(peer, is_answered=False) and not pinged_at:
            pinged_at = second
        if not client.open:
            break
        pings(kept)
        settle(room)
    assert second - pinged_at == TIMEOUT_S - INTERVAL_S
    assert client.ended_by is close.PING_TIMEOUT
    assert peer.core.close_rcvd == Close(4009, "no pong in time")
    assert other.open


def test_an_answer_to_an_older_ping_is_not_enough(room: Room) -> None:
    """A client that fell silent is closed, whatever it said before."""
    wheel = Wheel(room)
    ((client, peer),) = connect(room, 1)
    for _ in range(2 * INTERVAL_S):
        wheel.tick()
        pings(peer)
        settle(room)
    assert client.open
    wheel.tick(INTERVAL_S + TIMEOUT_S)
    assert client.ended_by is close.PING_TIMEOUT


def test_an_answer_in_the_second_of_its_ping_counts(room: Room) -> None:
    """The coarse clock does not stand between a ping and its pong."""
    wheel = Wheel(room)
    ((client, peer),) = connect(room, 1)
    for _ in range(INTERVAL_S):
        wheel.tick()
        pings(peer)  # at once, before the next second
        settle(room)
    assert client.seen_s >= client.pinged_s > 0
    wheel.tick(TIMEOUT_S - INTERVAL_S)
    assert client.open


@settings(max_examples=25, deadline=None)
@given(st.lists(st.booleans(), min_size=20, max_size=40))
def test_whoever_is_silent_for_too_long_is_closed_and_nobody_else(answers: list[bool]) -> None:
    """Any pattern of answering: closed exactly when a ping stayed without any sign of life."""
    with delivery_room() as room:
        wheel = Wheel(room)
        ((client, peer),) = connect(room, 1)
        pinged: float | None = None
        for is_answering in answers:
            wheel.tick()
            due = pinged is not None and wheel.now - pinged >= TIMEOUT_S - INTERVAL_S
            assert client.open is not due
            if due:
                return
            was_pinged = pings(peer, is_answered=is_answering) > 0
            if is_answering:
                peer.say(" ")
                settle(room)
                pinged = None
            elif was_pinged and pinged is None:
                pinged = wheel.now


# -- who leaves -----------------------------------------------------------------------------------


def test_a_closing_handshake_is_bounded(room: Room) -> None:
    """Who does not answer our close frame is given up; who does is gone before."""
    wheel = Wheel(room)
    ((silent, _), (polite, peer)) = connect(room, 2)
    silent.close(close.RESTART)
    polite.close(close.RESTART)
    ((until, _), _) = wheel.heartbeat._leaving
    assert until > time.monotonic()
    wheel.now = until - 4.0
    settle(room)
    pings(peer)
    peer.answer_close()
    wait_until(lambda: len(room.registry) == 1)
    wheel.tick(3)
    assert list(room.registry) == [silent]
    wheel.tick(2)
    assert list(room.registry) == []
    assert room.registry.closed["restart"] == 2
    assert not wheel.heartbeat._leaving


def test_clients_that_left_are_not_pinged(room: Room) -> None:
    """Nor is anything kept of them once the wheel has come round."""
    wheel = Wheel(room)
    pairs = connect(room, 6)
    wheel.tick(2)
    for client, _ in pairs:
        client.lost()
    wheel.tick(INTERVAL_S + TIMEOUT_S)
    assert not len(wheel.heartbeat)
    assert not wheel.heartbeat._awaited


def test_an_old_connection_is_closed() -> None:
    """At the first turn of its slot after its time; 0 means never."""
    for max_age_s, expected in ((7.0, close.TOO_OLD), (0.0, None)):
        with delivery_room() as room:
            wheel = Wheel(room, max_age_s)
            ((client, peer),) = connect(room, 1)
            ages = []
            while client.open and len(ages) < 30:
                wheel.tick()
                ages.append(wheel.now - client.opened_s)
                pings(peer)
                settle(room)
            assert client.ended_by is expected
            assert expected is None or 7 <= ages[-1] <= 7 + INTERVAL_S


# -- the loop -------------------------------------------------------------------------------------


def test_the_loop_ticks_and_measures_its_lateness(room: Room) -> None:
    """A process that stood still is late at the next tick, and does not make up for lost ticks."""
    wheel = Wheel(room)
    wheel.heartbeat.late_s = -1.0
    wheel.now -= 1.0  # so that the first tick is due by the time `run` looks again
    running = gevent.spawn(wheel.heartbeat.run)
    gevent.sleep(0)
    wheel.now += 61.5
    try:
        wait_until(lambda: wheel.heartbeat.late_s >= 0)
        assert wheel.heartbeat.late_s == 60.5
        assert room.registry.clock.now_s == wheel.now
    finally:
        running.kill()


def test_a_tick_over_many_clients_gives_way(room: Room) -> None:
    """A thousand pings in one slot do not hold the loop."""
    wheel = Wheel(room, interval_s=1)
    connect(room, 200)
    turns: list[int] = []
    other = gevent.spawn(lambda: [(turns.append(1), gevent.sleep(0)) for _ in range(1000)])
    gevent.sleep(0)
    before = len(turns)
    wheel.heartbeat.tick(wheel.now + 1)
    assert len(turns) - before >= 3
    other.kill()
