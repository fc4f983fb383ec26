"""Counts of subscriptions: true in sum, and by topic for what is published on, in bounds."""

from __future__ import annotations

import pytest
from test_hub_hub import AT, Subscriber, counts, make_hub

from rango_gevent.hub import topics as topics_module


def test_a_topic_that_nobody_published_on_is_in_the_sum_only() -> None:
    """A client may ask for any name, so names alone make no series."""
    hub, one = make_hub(), Subscriber("ID1", "admin")
    hub.subscribe(one, ["a.b", "order", "admin.a.b"])
    assert counts(hub) == {}
    assert hub.topics.held == {"public": 1, "private": 1, "prefixed": 1}


def test_a_topic_is_counted_from_its_first_event_on() -> None:
    """Whoever came first, the publisher or the client."""
    hub, one = make_hub(), Subscriber("ID1", "admin")
    hub.publish("public.a.b", b"1", AT)
    hub.subscribe(one, ["a.b", "c.d", "order", "admin.a.b"])
    assert counts(hub) == {("public", "a.b"): 1}
    for key in ("public.c.d", "private.ID2.order", "admin.a.b"):
        hub.publish(key, b"1", AT)
    assert counts(hub) == {
        ("public", "a.b"): 1,
        ("public", "c.d"): 1,
        ("private", "order"): 1,
        ("prefixed", "admin.a.b"): 1,
    }


def test_a_book_is_one_topic() -> None:
    """Its snapshots are published under another name than that which clients hold."""
    hub = make_hub()
    hub.publish("public.m.ob-snap", b"1", AT)
    hub.subscribe(Subscriber(), ["m.ob-inc", "m.ob-snap"])
    assert counts(hub) == {("public", "m.ob-inc"): 1}


def test_other_names_with_each_scrape_make_no_series() -> None:
    """A client that subscribes ever other names does not grow what a monitor keeps."""
    hub, one = make_hub(), Subscriber()
    hub.publish("public.a.b", b"1", AT)
    seen: set[tuple[str, str]] = set()
    for scrape in range(20):
        hub.subscribe(one, ["a.b", *(f"m{scrape}.{number}" for number in range(500))])
        seen |= counts(hub).keys()
        hub.unsubscribe(one, list(one.streams))
    assert seen == {("public", "a.b")}


def test_topics_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the bound all are forgotten, and with its next event each is there again."""
    monkeypatch.setattr(topics_module, "MAX_PUBLISHED", 10)
    hub, one = make_hub(), Subscriber("ID1")
    hub.subscribe(one, ["a.b", "order"])
    for _ in range(3):
        for number in range(25):
            hub.publish(f"public.m{number}.trades", b"1", AT)
            assert sum(map(len, hub.topics._published.values())) <= 10
        for key in ("public.a.b", "private.ID1.order") * 2:  # the one may push out the other
            hub.publish(key, b"1", AT)
        assert counts(hub) == {("public", "a.b"): 1, ("private", "order"): 1}
    hub.drop(one)
    assert counts(hub) == {}
