"""Giving way: work in slices lets sockets, timers and greenlets have their turn after each."""

from __future__ import annotations

import time

import gevent
from gevent import socket as gsocket

from rango_gevent.turns import Turns, give_way


def test_a_socket_has_its_turn() -> None:
    """Bytes that have arrived are read in a few turns, though somebody always has work to do."""
    one, other = gsocket.socketpair()
    read: list[bytes] = []
    reader = gevent.spawn(lambda: read.append(other.recv(1)))
    gevent.sleep(0)
    one.send(b"x")
    for _ in range(4):
        give_way()
    assert read == [b"x"]
    reader.join()
    one.close()
    other.close()


def test_greenlets_and_timers_have_their_turn() -> None:
    """Whoever is ready runs before the work goes on."""
    seen: list[str] = []
    gevent.spawn(seen.append, "greenlet")
    timer = gevent.spawn_later(0, seen.append, "timer")
    for _ in range(3):
        give_way()
    assert sorted(seen) == ["greenlet", "timer"]
    timer.join()


def test_nothing_is_left_behind() -> None:
    """A million turns take no memory: each timer is closed."""
    hub = gevent.get_hub()
    before = hub.loop.activecnt
    for _ in range(10):
        give_way()
    assert hub.loop.activecnt == before


def busy(seconds: float) -> None:
    """Take the processor."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


def test_many_share_one_slice() -> None:
    """A hundred greenlets that do a little each do not hold the loop together."""
    turns = Turns(0.001)
    done: list[int] = []

    def work(number: int) -> None:
        for _ in range(3):
            turns.wait()
            busy(0.0005)
        done.append(number)

    workers = [gevent.spawn(work, number) for number in range(100)]
    waits = []
    while not all(worker.ready() for worker in workers):
        started = time.monotonic()
        give_way()
        waits.append(time.monotonic() - started)
    assert len(waits) > 50, "others had their turns in between"
    assert sorted(done) == list(range(100))


def test_one_alone_goes_on_at_once() -> None:
    """It costs no turn of the loop to be the only one, and leaves nothing behind."""
    turns = Turns(10.0)
    hub = gevent.get_hub()
    before = hub.loop.activecnt
    switched: list[int] = []
    gevent.spawn(switched.append, 1)
    for _ in range(5):
        turns.wait()
    assert switched == []
    for _ in range(3):
        give_way()
    assert hub.loop.activecnt == before


def test_those_in_line_keep_their_order() -> None:
    """First come, first served, and one that was killed in line is passed over."""
    turns = Turns(0.0)
    turns.wait()
    seen: list[int] = []

    def work(number: int) -> None:
        turns.wait()
        seen.append(number)

    workers = [gevent.spawn(work, number) for number in range(5)]
    gevent.sleep(0)
    workers[2].kill()
    gevent.joinall(workers, 5)
    assert seen == [0, 1, 3, 4]
