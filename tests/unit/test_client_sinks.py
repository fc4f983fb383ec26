"""A book that lives in a client: how it comes back after gaps, cuts and words of the gateway."""

from __future__ import annotations

import json

import pytest
from test_client_core import INVALID, Scene

from rango_gevent.client.orderbook import OrderBook
from rango_gevent.client.sinks import BookSink

SNAPSHOT = '{"m.ob-snap":{"asks":[["9","1"]],"bids":[["7","1"]],"sequence":1}}'


def increment(sequence: int) -> str:
    """Return an event."""
    return f'{{"m.ob-inc":{{"bids":["8","1"],"sequence":{sequence}}}}}'


def scene_with_book(**more: bool) -> tuple[Scene, BookSink]:
    """Return a live client with a book that has its snapshot."""
    scene = Scene(**more)
    sink = BookSink(scene.core, "m.ob-inc", OrderBook(), lambda: None)
    scene.live()
    (request,) = scene.send()
    scene.hear(SNAPSHOT)
    scene.reply(request, "m.ob-inc")
    assert sink.book.is_synced
    return scene, sink


def kinds(sink: BookSink) -> list[str]:
    """Take all changes."""
    found = []
    while (change := sink.changes.take()) is not None:
        found.append(change.kind)
    return found


def asked(scene: Scene) -> list[str]:
    """Return the requests that go out within the spread of waits."""
    requests = scene.send()
    scene.now_s += 1
    return [request["event"] for request in [*requests, *scene.send()]]


def test_a_gap_asks_for_the_snapshot_on_the_same_connection() -> None:
    """After a random wait, once; increments in between are left out."""
    scene, sink = scene_with_book()
    reasons: list[str] = []
    sink.invalid.append(reasons.append)
    for sequence in (2, 4, 5):
        scene.hear(increment(sequence))
    assert reasons == ["sequence 4 after 2"]
    assert kinds(sink) == ["sync", "update", "invalid"]
    assert asked(scene) == ["snapshot"]
    scene.hear(SNAPSHOT)
    scene.hear(increment(2))
    scene.reply(scene.sent[-1][1], "m.ob-inc")
    assert kinds(sink) == ["sync", "update"]
    assert asked(scene) == []
    assert scene.core.stats(0).resyncs == 1


def test_waits_for_the_snapshot_are_spread() -> None:
    """All who hold a book see its gap at once, and must not ask at once."""
    moments = set()
    for seed in range(20):
        scene, _ = scene_with_book()
        scene.core._jitter.seed(seed)
        scene.hear(increment(3))
        moments.add(scene.core.next_at_s(scene.link) - scene.now_s)
    assert len(moments) == 20
    assert all(0 <= moment <= 1 for moment in moments)


def test_a_gap_of_the_publishers_own_is_not_asked_about_all_the_time() -> None:
    """The snapshot comes with the same gap behind it: waits grow."""
    scene, sink = scene_with_book()
    scene.hear(increment(3))
    for _ in range(600):
        scene.now_s += 0.1
        scene.hear('{"x.y":1}')
        for request in scene.send():
            scene.hear(SNAPSHOT)
            scene.hear(increment(3))
            scene.reply(request, "m.ob-inc")
    asked = [request["event"] for _, request in scene.sent if request["event"] == "snapshot"]
    assert 3 <= len(asked) <= 12
    assert not sink.book.is_synced


def test_a_gateway_without_snapshots_is_subscribed_again() -> None:
    """Rango sends a book to whoever subscribes it: so it is let go and asked for again."""
    scene, sink = scene_with_book(echoes=False)
    scene.hear(increment(3))
    assert asked(scene) == ["snapshot"]
    scene.answer(scene.sent[-1][1], {"error": INVALID})
    unsubscribe, subscribe = scene.send()
    assert (unsubscribe["event"], subscribe["event"]) == ("unsubscribe", "subscribe")
    scene.reply(unsubscribe)
    scene.hear(SNAPSHOT)
    scene.reply(subscribe, "m.ob-inc")
    assert sink.book.is_synced
    scene.hear(increment(9))
    scene.now_s += 2
    assert asked(scene) == ["unsubscribe", "subscribe"]


def test_a_book_without_a_snapshot_asks_again() -> None:
    """The gateway may not have it yet, and Rango never sends what came later."""
    scene, _ = scene_with_book()
    scene.hear(increment(3))
    for _ in range(3):
        assert asked(scene) == ["snapshot"]
        scene.reply(scene.sent[-1][1])
        scene.now_s += 15
        scene.hear(increment(4))
        scene.now_s += 15


def test_a_cut_makes_it_invalid_until_the_snapshot() -> None:
    """With the reason; a book's own way to be whole again is no gap."""
    scene, sink = scene_with_book()
    kinds(sink)
    scene.lose()
    assert sink.reason == "cut"
    scene.live()
    (request,) = scene.send()
    scene.hear(SNAPSHOT)
    scene.reply(request, "m.ob-inc")
    assert kinds(sink) == ["invalid", "sync"]
    assert scene.gaps() == []


def test_the_gateways_word_that_it_is_stale_counts() -> None:
    """Nothing is asked: the snapshot will be sent."""
    scene, sink = scene_with_book()
    scene.hear('{"event":"resync","streams":["m.ob-inc","x.ob-inc"]}')
    assert sink.reason == "the gateway waits for the next snapshot"
    assert asked(scene) == []
    scene.hear(SNAPSHOT)
    assert sink.book.is_synced


@pytest.mark.parametrize("more", [{}, {"sequence": None}])
def test_changes_that_nobody_takes_are_let_go(more: dict[str, object]) -> None:
    """The book is right all the same, and nothing counts as dropped."""
    scene, sink = scene_with_book()
    for sequence in range(2, 3000):
        body = {"bids": ["8", str(sequence)], "sequence": sequence, **more}
        scene.hear(json.dumps({"m.ob-inc": body}))
    assert str(sink.book.best_bid and sink.book.best_bid.amount) == "2999"
    assert len(kinds(sink)) == 1000
    assert scene.core.stats(0).dropped == 0


def test_a_second_holder_gets_the_snapshot_too() -> None:
    """A stream that is held already is asked for its snapshot."""
    scene, first = scene_with_book()
    second = BookSink(scene.core, "m.ob-inc", OrderBook(float), lambda: None)
    assert asked(scene) == ["snapshot"]
    scene.hear(SNAPSHOT)
    assert second.book.is_synced
    second.close()
    assert asked(scene) == []
    first.close()
    assert asked(scene) == ["unsubscribe"]
