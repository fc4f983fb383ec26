"""Bindings: fixed ones stay, others follow what clients hold, within bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rango_gevent.protocol import routing
from rango_gevent.protocol.routing import PREFIXED, PRIVATE, PUBLIC
from rango_gevent.source.bindings import Bindings, key_of


def following(most: int = 1000, keep_s: float = 60.0) -> Bindings:
    """Return bindings that follow clients."""
    return Bindings(["control"], follows=True, most=most, keep_s=keep_s)


def matches(binding: str, key: str) -> bool:
    """Tell whether a topic exchange would route a key by a binding (AMQP 0-9-1, 3.1.3.3)."""
    return _words_match(binding.split("."), key.split("."))


def _words_match(pattern: list[str], words: list[str]) -> bool:
    if not pattern:
        return not words
    if pattern[0] == "#":
        return _words_match(pattern[1:], words) or (
            bool(words) and _words_match(pattern, words[1:])
        )
    if not words or pattern[0] not in ("*", words[0]):
        return False
    return _words_match(pattern[1:], words[1:])


# -- which key brings a stream --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "address", "key"),
    [
        (PUBLIC, "btcusd.trades", "public.btcusd.*"),
        (PUBLIC, "btcusd.ob-inc", "public.btcusd.*"),
        (PUBLIC, "global.tickers", "public.global.*"),
        (PUBLIC, "*.trades", "public.*.trades"),
        (PUBLIC, "btcusd.*", "public.btcusd.*"),
        (PRIVATE, "ID1.order", "private.ID1.*"),
        (PREFIXED, "admin.btcusd.sys", "admin.#"),
    ],
)
def test_the_binding_of_a_stream(kind: str, address: str, key: str) -> None:
    """One binding for a market, a user, a prefix."""
    assert key_of(kind, address) == key


@pytest.mark.parametrize(
    ("kind", "address"),
    [
        (PUBLIC, "#.trades"),
        (PUBLIC, ".trades"),
        (PUBLIC, "btcusd.#"),
        (PUBLIC, "x" * 300 + ".trades"),
        (PRIVATE, "a.b.order"),
        (PRIVATE, "#.order"),
        (PRIVATE, ".order"),
        (PREFIXED, "#.a.b"),
        (PREFIXED, "*.a.b"),
        (PREFIXED, ".a.b"),
    ],
)
def test_names_that_no_message_can_have_bind_nothing(kind: str, address: str) -> None:
    """Above all not everything, which a name made of wildcards would ask for."""
    assert key_of(kind, address) is None


words = st.text("ab-", min_size=1, max_size=3)


@given(st.sampled_from(["public", "global", "private", "admin"]), words, words)
def test_the_binding_brings_each_message_of_the_stream(scope: str, stream: str, type_: str) -> None:
    """Whatever a key's stream is: its binding, or the one that always is there, matches it."""
    key = f"{scope}.{stream}.{type_}"
    route = routing.parse_key(key)
    assert route is not None
    binding = key_of(route.kind, route.address)
    assert binding is not None
    assert matches(binding, key) or matches("global.#", key)


# -- fixed ----------------------------------------------------------------------------------------


def test_fixed_ones_do_not_follow() -> None:
    """What clients hold changes nothing."""
    bindings = Bindings(["#"], follows=False)
    assert not bindings.held(PUBLIC, "btcusd.trades", True, 0.0)
    assert bindings.change(0.0) == ([], [])
    assert list(bindings.bound) == ["#"]


# -- following ------------------------------------------------------------------------------------


def test_a_first_subscriber_binds_at_once() -> None:
    """A second stream of the market needs nothing."""
    bindings = following()
    assert bindings.held(PUBLIC, "btcusd.trades", True, 0.0)
    assert bindings.change(0.0) == (["public.btcusd.*"], [])
    assert not bindings.held(PUBLIC, "btcusd.ob-inc", True, 0.0)
    assert bindings.change(0.0) == ([], [])


def test_what_nobody_holds_stays_for_a_while() -> None:
    """Somebody who comes back meanwhile costs no binding."""
    bindings = following(keep_s=60.0)
    bindings.held(PUBLIC, "btcusd.trades", True, 0.0)
    bindings.change(0.0)
    bindings.held(PUBLIC, "btcusd.trades", False, 10.0)
    assert bindings.change(69.0) == ([], [])
    assert not bindings.held(PUBLIC, "btcusd.trades", True, 69.5)
    assert bindings.change(200.0) == ([], [])
    bindings.held(PUBLIC, "btcusd.trades", False, 200.0)
    assert bindings.change(260.0) == ([], ["public.btcusd.*"])


def test_the_market_of_a_book_stays_bound() -> None:
    """Its increments must all come, or newcomers would get a book with holes."""
    bindings = following()
    bindings.held(PUBLIC, "btcusd.ob-inc", True, 0.0)
    bindings.change(0.0)
    bindings.held(PUBLIC, "btcusd.ob-inc", False, 1.0)
    assert bindings.change(1e6) == ([], [])


def test_too_many_of_a_kind_are_bound_as_a_whole() -> None:
    """And apart again when half of the bound is enough."""
    bindings = following(most=4, keep_s=0.0)
    for number in range(5):
        bindings.held(PRIVATE, f"ID{number}.order", True, 0.0)
    assert bindings.change(0.0).bind == ["private.#"]
    assert not bindings.held(PRIVATE, "ID9.order", True, 0.0)
    for number in (9, 4, 3):
        bindings.held(PRIVATE, f"ID{number}.order", False, 1.0)
    assert bindings.change(1.0) == ([], [])
    bindings.held(PRIVATE, "ID2.order", False, 2.0)
    assert bindings.change(2.0) == (["private.ID0.*", "private.ID1.*"], ["private.#"])


def test_some_in_turn_are_all_after_a_while() -> None:
    """Each is bound again now and then, few at a time."""
    bindings = following()
    for number in range(7):
        bindings.held(PUBLIC, f"m{number}.trades", True, 0.0)
    bindings.change(0.0)
    seen = [key for _ in range(3) for key in bindings.some(3)]
    assert len(bindings.bound) == 9
    assert set(seen) == set(bindings.bound)
    assert bindings.some(100) == list(bindings.bound)


steps = st.lists(
    st.tuples(st.integers(0, 7), st.sampled_from(["trades", "ob-inc"]), st.booleans()), max_size=60
)


@given(steps, st.integers(1, 5))
def test_whoever_holds_a_stream_is_served(steps: list[tuple[int, str, bool]], most: int) -> None:
    """After any changes each held stream is matched, and no more is bound than may be."""
    bindings = following(most=most, keep_s=3.0)
    held: set[str] = set()
    now_s = 0.0
    for number, type_, is_held in steps:
        now_s += 1.0
        address = f"m{number}.{type_}"
        if is_held == (address in held):
            continue
        bindings.held(PUBLIC, address, is_held, now_s)
        (held.add if is_held else held.discard)(address)
        bindings.change(now_s)
        for one in held:
            assert any(matches(binding, f"public.{one}") for binding in bindings.bound)
        assert len(bindings.bound) <= most + 2
