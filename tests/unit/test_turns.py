"""Giving way: work in slices lets sockets, timers and greenlets have their turn after each."""

from __future__ import annotations

import gevent
from gevent import socket as gsocket

from rango_gevent.turns import give_way


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
