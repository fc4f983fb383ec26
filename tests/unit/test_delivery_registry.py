"""The registry: who is in, what is counted, and what is said when somebody leaves."""

from __future__ import annotations

import gc
import json
import logging
import time
from typing import Iterator

import pytest
from delivery_room import LIMITS, Room, as_segments, delivery_room, limits, wait_until

from rango_gevent.auth.identity import Identity
from rango_gevent.delivery.connection import Connection
from rango_gevent.delivery.registry import ENDS
from rango_gevent.delivery.session import Session
from rango_gevent.protocol import close
from rango_gevent.turns import give_way


@pytest.fixture
def room() -> Iterator[Room]:
    """A room with generous limits."""
    with delivery_room() as made:
        yield made


def test_clients_are_counted_in_and_out(room: Room) -> None:
    """Each has a number of its own, never given twice."""
    first, _ = room.connect()
    second, peer = room.connect()
    assert list(room.registry) == [first, second]
    assert (first.id, second.id) == (1, 2)
    peer.close()
    wait_until(lambda: len(room.registry) == 1)
    third, _ = room.connect()
    assert third.id == 3
    assert room.registry.opened == 3


def test_the_list_may_change_while_it_is_read(room: Room) -> None:
    """Draining ends clients while it walks over them."""
    for _ in range(5):
        room.connect()
    for client in room.registry:
        client.lost()
    assert len(room.registry) == 0


def test_admission_knows_who_is_in(room: Room) -> None:
    """Whatever ends a connection gives its place back."""
    wanted = limits(admission=LIMITS.admission._replace(connections=2, per_uid=1))
    room.registry.set_limits(wanted, [], lambda frame: frame)
    _, peer = room.connect(uid="ID1")
    room.connect()
    with pytest.raises(Exception, match="full"):
        room.registry.admission.check("x", None)
    peer.close()
    wait_until(lambda: len(room.registry) == 1)
    room.registry.admission.check("x", "ID1")


def test_every_end_has_its_word() -> None:
    """The metrics show each from the start: a rate would miss the first event of a new series."""
    words = {reason.word for reason in close.TABLE}
    assert {"client_closed", "connection_lost"} | words == set(ENDS)
    assert len(ENDS) == len(set(ENDS))


def test_the_end_of_a_connection_is_one_line(
    room: Room, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its number, its address and the reason why it ended; and its duration is observed."""
    monkeypatch.setattr(logging.getLogger("rango_gevent"), "propagate", True)
    caplog.set_level(logging.INFO, "rango_gevent")
    client, peer = room.connect()
    peer.receive()
    client.close(close.RESTART)
    peer.receive_to_the_end()
    peer.answer_close()
    wait_until(lambda: len(room.registry) == 0)
    client.lost()
    (record,) = caplog.records
    assert record.getMessage().startswith("connection closed: restart (1012) after 0.")
    assert (record.__dict__["conn"], record.__dict__["peer"]) == (1, "peer")
    samples = {sample.name: sample.value for sample in room.duration.collect()[0].samples}
    assert samples["duration_seconds_count"] == 1
    assert 0 <= samples["duration_seconds_sum"] < 20


def test_debug_shows_openings_and_subscriptions(
    room: Room, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the user where there is one."""
    monkeypatch.setattr(logging.getLogger("rango_gevent"), "propagate", True)
    caplog.set_level(logging.DEBUG, "rango_gevent")
    _, peer = room.connect("m.t", uid="ID1")
    peer.receive()
    peer.ask("subscribe", "order")
    peer.receive()
    found = [(record.getMessage(), record.__dict__["uid"]) for record in caplog.records]
    assert found == [
        ("connection opened", "ID1"),
        ("holds 1 streams: m.t", "ID1"),
        ("holds 2 streams: m.t, order", "ID1"),
    ]


def test_readers_and_writers_are_counted_while_they_live(room: Room) -> None:
    """Also one that is killed before it began."""
    greenlet = room.registry.spawn(lambda: None)
    assert room.registry.greenlets == 1
    greenlet.kill(block=False)
    other = room.registry.spawn(lambda: None)
    other.join()
    wait_until(lambda: room.registry.greenlets == 0)


def test_only_those_who_asked_are_told_of_stale_books(room: Room) -> None:
    """And of the books that they hold."""
    _, asked = room.connect("m.ob-inc", notices=True)
    _, other = room.connect("n.ob-inc", notices=True)
    _, plain = room.connect("m.ob-inc")
    for peer in (asked, other):
        assert "resync" in peer.receive()  # there is no book yet
    room.registry.notify_stale("m.ob-inc")
    room.registry.notify_stale("nobody.ob-inc")
    for peer in (asked, other, plain):
        peer.receive()
        peer.say("ping")
    assert json.loads(asked.receive()) == {"event": "resync", "streams": ["m.ob-inc"]}
    assert [peer.receive() for peer in (asked, other, plain)] == ["pong"] * 3


def test_one_who_is_gone_does_not_stop_the_telling(room: Room) -> None:
    """It leaves the stream while its subscribers are told."""
    _, gone = room.connect("m.ob-inc", notices=True)
    _, peer = room.connect("m.ob-inc", notices=True)
    gone.reset()
    room.registry.notify_stale("m.ob-inc")
    received = [peer.receive() for _ in range(3)]
    assert ["resync" in text for text in received] == [True, False, True]
    assert len(room.registry) == 1


def test_a_book_is_told_to_be_stale_by_the_hub(room: Room) -> None:
    """Within the hub's own call: the notice overtakes nothing that it should not."""
    room.hub.on_stale = lambda address, why: room.registry.notify_stale(address)
    _, peer = room.connect("m.ob-inc", notices=True)
    room.publish("public.m.ob-snap", "1")
    room.round()
    assert [json.loads(peer.receive()) for _ in range(3)][2] == {"m.ob-snap": 1}
    room.hub.drop_books(0.0, "test")
    room.publish("public.m.ob-snap", "2")
    room.round()
    assert [json.loads(peer.receive()) for _ in range(2)] == [
        {"event": "resync", "streams": ["m.ob-inc"]},
        {"m.ob-snap": 2},
    ]


def test_what_waits_for_all_is_summed(room: Room) -> None:
    """For the metric."""
    clients = [room.connect("m.t", buffer=4096)[0] for _ in range(2)]
    for client in clients:
        while client.ready:
            client.offer(as_segments(b"\x81\x00" * 500))
        client.offer(as_segments(b"\x81\x00" * 500))
    assert room.registry.outbox_bytes == sum(client.outbox_bytes for client in clients) > 2000


def test_who_is_gone_is_no_garbage(room: Room) -> None:
    """Its memory comes back at once: nobody has to look for circles."""
    gc.collect()
    gc.disable()
    try:
        for number in range(60):
            _, peer = room.connect("m.t", "order", uid="ID1", buffer=4096 if number % 3 else None)
            if number % 2:
                peer.receive()
                peer.ask("subscribe", "n.t")
            if number % 5 == 0:
                room.publish("public.m.t", '"' + "x" * 20_000 + '"')
                room.round()
            peer.close()
        wait_until(lambda: len(room.registry) == 0 and room.registry.greenlets == 0)
        room.heartbeat.tick(time.monotonic() + 60)  # those whose closing it was to bound
        room.clients.clear()
        room.peers.clear()
        del _, peer
        for _ in range(20):
            give_way()  # until those who were killed have ended
        sessions = [one for one in gc.get_objects() if isinstance(one, Session)]
        assert [one for one in sessions if one.desk is room.registry.desk] == []
        found = [one for one in gc.get_objects() if isinstance(one, Connection)]
        assert [one for one in found if one._keeper is room.registry] == []
    finally:
        gc.enable()


def test_some_have_to_go(room: Room) -> None:
    """By who they are when their turn comes; all others stay."""
    pairs = [room.connect(uid="ID1") for _ in range(3)]
    other, _ = room.connect(uid="ID2")
    renewed = pairs[0][0]
    assert room.registry.disconnect(lambda identity: identity.uid == "ID1") == 3
    renewed.session.become(Identity("ID3", "", None))
    wait_until(lambda: room.registry.greenlets == 0)
    assert [client.open for client, _ in pairs] == [True, False, False]
    assert other.open
    assert pairs[1][0].ended_by is close.REVOKED
    assert room.registry.disconnect(lambda identity: identity.uid == "none") == 0
