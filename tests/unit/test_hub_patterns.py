"""Patterns of public names: who is subscribed to what, now and when a topic is new."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_hub_hub import AT, Subscriber, delivered, frame, make_hub

from rango_gevent.hub.hub import Hub, HubLimits
from rango_gevent.hub.patterns import Patterns, is_pattern, patterns_of


def pattern_hub(**limits: int) -> Hub:
    """Return a hub that knows patterns."""
    return make_hub(HubLimits(**limits), patterns=Patterns())


def subscribe(hub: Hub, subscriber: Subscriber, *names: str) -> list[object]:
    """Subscribe as a session does."""
    assert hub.patterns is not None
    return list(hub.subscribe(subscriber, hub.patterns.expand(names)))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("*.trades", True),
        ("btcusd.*", True),
        ("*.*", False),
        ("*", False),
        ("btcusd.trades", False),
        ("a*.trades", False),
        ("*.a.b", False),
        ("admin.*.sys", False),
        ("", False),
    ],
)
def test_what_is_a_pattern(name: str, expected: bool) -> None:
    """Two parts, one of them a star; private and prefixed names are none."""
    assert is_pattern(name) is expected


def test_a_pattern_finds_what_flows_and_what_begins_to() -> None:
    """Each event comes once, under its own name, also to who holds the name besides."""
    hub, one, other = pattern_hub(), Subscriber(), Subscriber()
    hub.publish("public.a.trades", b"0", AT)
    subscribe(hub, one, "*.trades", "a.trades", "b.*")
    subscribe(hub, other, "c.trades")
    assert Hub.names(one) == ["*.trades", "a.trades", "b.*"]
    for key in ("a.trades", "b.trades", "b.kline", "c.trades", "c.kline"):
        hub.publish(f"public.{key}", b"1", AT)
    hub.publish("private.x.trades", b"2", AT)
    hub.publish("trades.x.trades", b"2", AT)
    assert delivered(hub, one) == [
        frame(name, "1") for name in ("a.trades", "b.trades", "b.kline", "c.trades")
    ]
    assert Hub.names(one) == [
        "*.trades",
        "a.trades",
        "b.*",
        "b.trades",
        "b.kline",
        "c.trades",
    ]
    assert Hub.names(other) == ["c.trades"]


def test_books_come_with_all_that_belongs_to_them() -> None:
    """A replay of those that are there, the first snapshot of those that come."""
    hub, one = pattern_hub(), Subscriber(notices=True)
    hub.publish("public.a.ob-snap", b"1", AT)
    hub.publish("public.a.ob-inc", b"2", AT)
    (segment,) = subscribe(hub, one, "*.ob-inc")
    assert [event.body for event in segment.events] == [b"1", b"2"]  # type: ignore[attr-defined]
    hub.publish("public.b.ob-snap", b"3", AT)
    hub.publish("public.b.ob-inc", b"4", AT)
    assert delivered(hub, one) == [frame("b.ob-snap", "3"), frame("b.ob-inc", "4")]


def test_a_pattern_that_is_given_up_takes_its_topics_along() -> None:
    """But for those that another one holds; a topic that is given up alone stays so."""
    hub, one = pattern_hub(), Subscriber()
    for key in ("a.trades", "a.kline", "b.trades"):
        hub.publish(f"public.{key}", b"0", AT)
    subscribe(hub, one, "*.trades", "a.*")
    hub.unsubscribe(one, ["b.trades"])
    hub.publish("public.b.trades", b"1", AT)
    assert delivered(hub, one) == []
    assert hub.patterns is not None
    hub.unsubscribe(one, hub.patterns.narrow(["*.trades", "x.y"], one.streams))
    assert Hub.names(one) == ["a.trades", "a.*", "a.kline"]
    hub.unsubscribe(one, hub.patterns.narrow(["a.*"], one.streams))
    assert Hub.names(one) == []
    assert hub.streams["public"] == {}
    assert hub.topics.total == 0


def test_what_patterns_bring_is_bounded() -> None:
    """By the names of one client and by those of all; who has its share misses the rest."""
    hub, one, two = pattern_hub(names=3, subscriptions=5), Subscriber(), Subscriber()
    subscribe(hub, one, "*.t")
    subscribe(hub, two, "*.t")
    for index in range(5):
        hub.publish(f"public.{index}.t", b"0", AT)
    assert len(one.streams) == 3
    assert len(two.streams) == 2
    assert hub.topics.total == 5
    assert hub.refused == 7


def test_a_message_costs_no_look_up() -> None:
    """A topic is looked at when it is new, and not again."""
    hub, late = pattern_hub(), Subscriber()
    hub.publish("public.a.t", b"0", AT)
    hub.subscribe(late, ["*.t"])  # as if the topic had come before patterns were expanded
    for _ in range(3):
        hub.publish("public.a.t", b"0", AT)
    assert Hub.names(late) == ["*.t"]


def test_without_the_setting_they_are_names() -> None:
    """As they are to Rango."""
    hub, one = make_hub(), Subscriber()
    hub.subscribe(one, ["*.trades"])
    hub.publish("public.a.trades", b"1", AT)
    hub.publish("public.*.trades", b"2", AT)
    assert delivered(hub, one) == [frame("*.trades", "2")]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz")), max_size=12))
def test_expanding_is_what_matching_by_hand_gives(topics: list[tuple[str, str]]) -> None:
    """Whatever was published."""
    patterns = Patterns()
    for stream, type_ in topics:
        patterns.publish(f"{stream}.{type_}")
    names = {f"{stream}.{type_}" for stream, type_ in topics}
    for pattern in ("*.x", "a.*"):
        wanted = {name for name in names if pattern in patterns_of(name)}
        assert set(patterns.expand([pattern])) == wanted | {pattern}
