"""Published bodies in the dialect's shapes, whatever they hold."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rango_gevent.viabtc import shapes
from rango_gevent.viabtc.names import NameRules, Names
from rango_gevent.viabtc.shapes import Ticker

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=14) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=30,
)
WORDS = [
    "trades", "tid", "id", "price", "amount", "date", "taker_type", "order", "event", "market",
    "state", "last", "open", "today", "currency", "balance", "locked", "available", "created_at",
]  # fmt: skip
ODD = st.dictionaries(st.sampled_from(WORDS), JSON) | JSON


@given(ODD)
def test_anything_is_read_without_an_error(said: Any) -> None:
    """What has another form gives nothing, or decimal strings."""
    names = Names()
    for deal in shapes.deals(said):
        assert isinstance(deal["price"], str)
        assert json.dumps(deal)
    shapes.order(said, names, "1")
    shapes.balances(said)
    if isinstance(said, dict):
        ticker = Ticker(said)
        assert isinstance(ticker.last, str)
        ticker.state()
        ticker.today()
    body = json.dumps(said).encode()
    shapes.candle(body, "M")
    shapes.begins_at(body)


@given(
    st.lists(
        st.fixed_dictionaries(
            {"tid": st.integers(0, 99) | st.just("7"), "date": st.integers(0, 9) | st.just(1.5)},
            optional={
                "price": st.sampled_from(["1", "1.50", "1e3", "x", 7, "-1", ".5"]),
                "amount": st.sampled_from(["2", "0.00000001", 2.5, None]),
                "taker_type": st.sampled_from(["sell", "buy", None, 3]),
                "more": st.just([1]),
            },
        ),
        max_size=4,
    )
)
def test_deals_are_the_same_by_the_short_way_and_the_long_one(trades: list[Any]) -> None:
    """What is read faster is what would be read anyway, the newest first."""
    body = json.dumps({"trades": trades}).encode()
    found = [(id, json.loads(deal)) for id, deal in shapes.deals_json(body)]
    expected = shapes.deals({"trades": trades})
    assert found == [(deal["id"], deal) for deal in reversed(expected)]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"[1,2,5,1,3,9]", [1, "2", "3", "5", "1", "9", "0", "M"]),
        (b"[1,2.50,5,1,3,1e-8,7]", [1, "2.50", "3", "5", "1", "0.00000001", "7", "M"]),
        (b'[1,"2","5","1","3","9"]', [1, "2", "3", "5", "1", "9", "0", "M"]),
        (b"[1,2,5,1,3]", None),
        (b'["x",2,5,1,3,9]', None),
        (b'{"k":[1]}', None),
        (b"[1,2,5,1,3,null]", None),
        (b"[1,2,5,1,3,1e9999]", None),
    ],
)
def test_candles(body: bytes, expected: list[Any] | None) -> None:
    """Open, high, low, close become open, close, high, low; numbers keep their digits."""
    assert shapes.candle(body, "M") == expected


@pytest.mark.parametrize(
    ("body", "start_s"),
    [(b"[1700000000,1]", 1700000000), (b" [ 17.0 ,1]", 17), (b'["1",2]', None), (b"{}", None)],
)
def test_the_beginning_of_a_candle(body: bytes, start_s: int | None) -> None:
    """Is read without the rest."""
    assert shapes.begins_at(body) == start_s


@pytest.mark.parametrize(
    ("said", "volume", "deal"),
    [
        ({"amount": "2", "volume": "10"}, "2", "10"),
        ({"volume": "2", "avg_price": "5"}, "2", "10"),
        ({"volume": "2"}, "2", "0"),
        ({"amount": "2", "volume": "10", "deal": "11"}, "2", "11"),
    ],
)
def test_the_two_volumes_of_a_ticker(said: dict[str, Any], volume: str, deal: str) -> None:
    """The base currency's and the quote currency's."""
    state = Ticker(said).state()
    assert (state["volume"], state["deal"]) == (volume, deal)


def test_today_where_the_publisher_knows_it() -> None:
    """Its open, high and low are those since midnight."""
    said = {"last": "3", "open": "1", "high": "9", "low": "0", "today": {"open": "2", "high": "4"}}
    assert Ticker(said).today() == {
        "open": "2", "last": "3", "high": "4", "low": "0", "volume": "0", "deal": "0",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("state", "executed", "event"),
    [
        ("wait", "0", 1),
        ("wait", "0.5", 2),
        ("done", "1", 3),
        ("cancel", "0", 3),
        ("reject", "0", 3),
    ],
)
def test_events_of_orders(state: str, executed: str, event: int) -> None:
    """Put, update, finish."""
    found = shapes.order({"market": "m", "state": state, "executed_volume": executed}, Names(), "x")
    assert found is not None
    assert found[1][0] == event


def test_names_by_the_table() -> None:
    """In both directions; others follow the rule for the case."""
    names = Names(NameRules(markets={"BTCBCH": "bchbtc"}, periods={60: "1min"}))
    assert names.stream_of("BTCBCH") == "bchbtc"
    assert names.market_of("bchbtc") == "BTCBCH"
    assert names.stream_of("ETHBTC") == "ethbtc"
    assert names.market_of("ethbtc") == "ETHBTC"
    assert names.type_of("kline", names.period(60) or "") == "kline-1min"
    assert names.period(300) is None
    same = Names(NameRules(is_lower=False))
    assert same.stream_of("ethBTC") == "ethBTC"
    assert same.market_of("ethBTC") == "ethBTC"


@pytest.mark.parametrize("name", ["", "A" * 16, "A.B", "A:B", "*", "A B", "\u00c4", 7, None, True])
def test_names_that_are_none(name: Any) -> None:
    """They could not be a part of a routing key, or are too long."""
    assert Names().stream_of(name) is None
    assert Names().asset(name) is None
