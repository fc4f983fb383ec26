"""A connection that is listened to: over real sockets, beside others that notice nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from delivery_room import Room, delivery_room, limits, wait_until

from rango_gevent.admin.tailed import Tailed, leave, listen
from rango_gevent.admin.tape import Tape, TapeLimits
from rango_gevent.delivery.connection import Connection
from rango_gevent.delivery.outbox import CLOSE, LATEST, SlowPolicy
from rango_gevent.protocol import close


def tape() -> Tape:
    """Return a tape with wide bounds."""
    return Tape(TapeLimits(10_000, 10_000))


def told(found: Tape) -> list[tuple[str, str, str]]:
    """Return what was recorded, without times and sizes."""
    return [(each["way"], each["kind"], each["text"]) for each in found.take()[0]]


@pytest.mark.parametrize("deflate", [False, True])
def test_everything_is_recorded_as_it_was_before_compression(deflate: bool) -> None:
    """Requests, replies, events, pings and the end; the peer gets all of it too."""
    with delivery_room() as room:
        client, peer = room.connect("a.trades", deflate=deflate)
        other, other_peer = room.connect("a.trades")
        peer.receive()
        other_peer.receive()
        found = tape()
        assert listen(client, found)
        peer.say('{"event":"list","id":1}')
        reply = peer.receive()
        room.publish("public.a.trades", json.dumps({"x": "y" * 100}))
        room.round()
        event = peer.receive()
        assert other_peer.receive() == event
        client.ping(1.0)
        client.close(close.REVOKED)
        assert told(found) == [
            ("in", "text", '{"event":"list","id":1}'),
            ("out", "text", reply),
            ("out", "text", event),
            ("out", "ping", ""),
            ("out", "close", "4403 revoked"),
        ]
        client.lost()
        assert told(found) == [("out", "end", "revoked (4403)")]
        leave(client, found)
        assert room.registry.tapes == {}


def test_only_who_is_listened_to_is_another_class() -> None:
    """And only for so long; two may listen at once."""
    with delivery_room() as room:
        client, peer = room.connect("a.trades")
        other, _ = room.connect("a.trades")
        one, two = tape(), tape()
        assert listen(client, one)
        assert listen(client, two)
        assert (type(client), type(other)) == (Tailed, Connection)
        room.publish("public.a.trades", "1")
        room.round()
        leave(client, one)
        leave(client, one)
        assert type(client) is Tailed
        room.publish("public.a.trades", "2")
        room.round()
        leave(client, two)
        assert type(client) is Connection
        room.publish("public.a.trades", "3")
        room.round()
        assert [text for _, _, text in told(one)] == ['{"a.trades":1}']
        assert [text for _, _, text in told(two)] == ['{"a.trades":1}', '{"a.trades":2}']
        assert peer.receive_all(4)[1:] == ['{"a.trades":1}', '{"a.trades":2}', '{"a.trades":3}']


def test_a_connection_that_ends_meanwhile() -> None:
    """It cannot be listened to any more, and leaving it is harmless."""
    with delivery_room() as room:
        client, _ = room.connect()
        client.lost()
        found = tape()
        assert not listen(client, found)
        leave(client, found)
        assert type(client) is Connection


def lagging(room: Room, policy: str) -> tuple[Any, Any, Tape]:
    """Return a client that reads nothing, with bytes waiting for it, and its tape."""
    room.dispatcher.set_policies(SlowPolicy(policy))
    client, peer = room.connect("a.trades", buffer=4096)
    room.publish("public.a.trades", json.dumps("x" * 60_000))
    room.round()
    assert client.waits_since_s is not None
    found = tape()
    assert listen(client, found)
    return client, peer, found


@pytest.mark.parametrize("policy", [CLOSE, LATEST])
def test_a_client_that_lags_is_recorded_too(policy: str) -> None:
    """Each event once, whatever the policy does with it afterwards."""
    with delivery_room(limits(outbox_bytes=1 << 20)) as room:
        client, peer, found = lagging(room, policy)
        for n in (1, 2):
            room.publish("public.a.trades", str(n))
            room.round()
        assert [text for _, _, text in told(found)] == ['{"a.trades":1}', '{"a.trades":2}']
        peer.receive_all(2)
        while peer.receive() != '{"a.trades":2}':
            pass
        wait_until(lambda: client.waits_since_s is None, "the outbox to be empty")
        leave(client, found)
