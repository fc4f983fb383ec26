"""What questions are answered, in ViaBTC's words, and what is published."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from market_trades import body, desk, oracle, save, trade

from rango_gevent.marketdata.announcer import Announcer
from rango_gevent.marketdata.desk import Desk
from rango_gevent.marketdata.memory import MemoryStore
from rango_gevent.marketdata.periods import (
    DAY,
    HOUR,
    MINUTE,
    MONTH,
    PERIODS,
    WEEK,
    end_of,
    start_of,
)
from rango_gevent.marketdata.queries import Queries, QueryError, is_interval, kept_period
from rango_gevent.marketdata.trades import Trade
from rango_gevent.marketdata.views import units_of

NOW_S = 1_700_000_000
HOUR_S = NOW_S - NOW_S % HOUR


def market(*trades: Trade, name: str = "btcusd", store: MemoryStore | None = None) -> Desk:
    """Return a desk that has taken trades."""
    made = desk(store or MemoryStore())
    for one in trades:
        made.take(f"public.{name}.trades", body(one), NOW_S + 1e9)
    return made


def questions(made: Desk, now_s: float = NOW_S, flat: bool = True, points: int = 1000) -> Queries:
    """Return what answers; the day begins in UTC."""
    return Queries(
        made, lambda: now_s, lambda at_s: start_of(DAY, at_s), is_flat=flat, max_points=points
    )


def announcer(made: Desk, flat: bool = True) -> Announcer:
    """Return what publishes all periods."""
    return Announcer(
        made,
        periods=frozenset(PERIODS.values()),
        quotes=("usd", "usdt"),
        is_flat=flat,
        midnight=lambda at_s: start_of(DAY, at_s),
    )


# -- questions ------------------------------------------------------------------------------------


def test_klines_come_in_viabtcs_order() -> None:
    """Open, close, high, low; decimals as strings; gaps filled with the last close."""
    made = market(
        trade(1, HOUR_S, "8", "1"), trade(2, HOUR_S + 1, "9.50", "2"), trade(3, HOUR_S + 130, "7")
    )
    found = questions(made).ask("kline.query", ["btcusd", HOUR_S - 60, HOUR_S + 200, MINUTE])
    assert found == [
        [HOUR_S, "8", "9.50", "9.50", "8", "3", "27.00", "btcusd"],
        [HOUR_S + 60, "9.50", "9.50", "9.50", "9.50", "0", "0", "btcusd"],
        [HOUR_S + 120, "7", "7", "7", "7", "1", "7", "btcusd"],
        [HOUR_S + 180, "7", "7", "7", "7", "0", "0", "btcusd"],
    ]
    without = questions(made, flat=False).ask("kline.query", ["btcusd", HOUR_S - DAY, NOW_S, HOUR])
    assert len(without) == 1


def test_the_candle_in_which_the_start_lies_is_there_and_none_of_the_future() -> None:
    """A chart asks for some time until now."""
    made = market(trade(1, NOW_S - 10))
    found = questions(made).ask("kline.query", ["btcusd", NOW_S - 20, NOW_S + 10**9, DAY])
    assert [row[0] for row in found] == [start_of(DAY, NOW_S)]


def test_a_flat_candle_has_the_price_of_long_ago() -> None:
    """However far back the last trade lies."""
    store = MemoryStore()
    for ago_s in (5, 5000, 90_000, 40 * DAY, 900 * DAY):
        made = market(trade(1, NOW_S - ago_s, "12.5"), store=store)
        (row,) = questions(made).ask("kline.query", ["btcusd", NOW_S, NOW_S, 1])
        assert row[1:5] == ["12.5"] * 4


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.integers(0, 20 * DAY), min_size=1, max_size=40, unique=True),
    st.sampled_from([n for n in range(1, 3 * DAY + 1) if is_interval(n)] + [WEEK, MONTH]),
    st.booleans(),
)
def test_any_interval_of_viabtcs_is_summed_up(
    times: list[int], period: int, is_saved: bool
) -> None:
    """Also those that are not kept: from shorter ones."""
    trades = [trade(n, NOW_S - at, str(n + 1), str(n + 2)) for n, at in enumerate(times)]
    store = MemoryStore()
    made = market(*trades, store=store)
    if is_saved:
        save(made, store)
        made = desk(store)
    asked = questions(made, flat=False, points=10**10)
    found = asked.ask("kline.query", ["btcusd", 0, NOW_S, period])
    expected = oracle(trades, period)
    assert [(r[0], *map(Decimal, r[1:7])) for r in found] == [
        (start, opened, close, high, low, volume, deal)
        for start, opened, high, low, close, volume, deal in expected
    ]


def test_intervals_are_viabtcs() -> None:
    """Those of its marketprice, and what they are made of."""
    good = (1, 2, 30, 60, 120, 1800, 3600, 10_800, 43_200, DAY, 2 * DAY, 6 * DAY, WEEK, MONTH)
    assert all(map(is_interval, good))
    bad = (7, 45, 61, 2700 + 1, 25 * MINUTE, 5 * HOUR, 25 * HOUR, 8 * DAY, WEEK + DAY)
    assert not any(map(is_interval, bad))
    assert [kept_period(n) for n in (30, 120, 600, 10_800, 2 * DAY, MONTH)] == [
        1, 60, 300, 3600, DAY, MONTH,
    ]  # fmt: skip


def test_a_market_is_found_in_capitals_too() -> None:
    """And called as it was asked for."""
    asked = questions(market(trade(1, NOW_S)))
    assert asked.ask("price.query", ["BTCUSD"]) == "10"
    (row,) = asked.ask("kline.query", ["BTCUSD", NOW_S, NOW_S, DAY])
    assert row[-1] == "BTCUSD"


def test_deals_are_the_newest_first() -> None:
    """As many as wanted, with higher ids."""
    made = market(*(trade(n, NOW_S - 100 + n) for n in range(1, 6)), trade(9, NOW_S - 200))
    asked = questions(made)
    assert [deal["id"] for deal in asked.ask("deals.query", ["btcusd", 3, 0])] == [5, 4, 3]
    assert [deal["id"] for deal in asked.ask("deals.query", ["btcusd", 100, 3])] == [5, 4, 9]
    (deal,) = asked.ask("deals.query", ["btcusd", 1, 4])
    assert deal == {"id": 5, "time": NOW_S - 95, "price": "10", "amount": "1", "type": "buy"}


def test_state_and_today_are_viabtcs() -> None:
    """Over a rolling time, and since midnight with the sums of 24 hours."""
    midnight_s = start_of(DAY, NOW_S)
    made = market(
        trade(1, NOW_S - DAY - 120, "1", "1"),
        trade(2, midnight_s - 60, "2", "1"),
        trade(3, midnight_s + 60, "3", "1"),
        trade(4, NOW_S - 30, "5", "1"),
    )
    asked = questions(made)
    assert asked.ask("price.query", ["btcusd"]) == "5"
    assert asked.ask("today.query", ["btcusd"]) == {
        "last": "5", "open": "3", "high": "5", "low": "3", "volume": "3", "deal": "10",
    }  # fmt: skip
    assert asked.ask("state.query", ["btcusd", DAY]) == {
        "period": DAY, "last": "5", "open": "2", "close": "5", "high": "5", "low": "2",
        "volume": "3", "deal": "10",
    }  # fmt: skip
    assert asked.ask("state.query", ["btcusd", 10])["volume"] == "0"
    assert asked.ask("state.query", ["btcusd", 10])["open"] == "5"
    assert asked.ask("state.query", ["btcusd", 60])["volume"] == "1"
    assert asked.ask("state.query", ["btcusd", 7 * DAY])["volume"] == "4"


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("kline.query", ["nothing", 0, 1, 60], 1),
        ("kline.query", ["btcusd", 0, 1], 1),
        ("kline.query", ["btcusd", 0, NOW_S, 60], 1),
        ("kline.query", ["btcusd", 0, 1, 61], 1),
        ("kline.query", ["btcusd", -1, 1, 60], 1),
        ("kline.query", ["btcusd", "0", 1, 60], 1),
        ("kline.query", ["btcusd", True, 1, 60], 1),
        ("kline.query", [["btcusd"], 0, 1, 60], 1),
        ("kline.query", {"market": "btcusd"}, 1),
        ("kline.query", None, 1),
        ("deals.query", ["btcusd", 10_001, 0], 1),
        ("deals.query", ["btcusd", 0, 0], 1),
        ("state.query", ["btcusd", 7 * DAY + 1], 1),
        ("state.query", ["btcusd", float("nan")], 1),
        ("price.query", [], 1),
        ("price.query", ["btcusd", 1], 1),
        ("depth.query", ["btcusd", 1, "0"], 4),
        ("_klines", ["btcusd", 0, 1, 60], 4),
        (None, [], 4),
        (["price.query"], [], 4),
    ],
)
def test_what_has_no_answer_has_a_code(method: object, params: object, code: int) -> None:
    """1 for wrong parameters, 4 for methods that there are not."""
    with pytest.raises(QueryError) as caught:
        questions(market(trade(1, NOW_S))).ask(method, params)
    assert caught.value.code == code


# -- what is published ----------------------------------------------------------------------------


def published(found: list[Any]) -> dict[str, list[Any]]:
    """Return bodies by the end of their keys, numbers as they are written."""
    shown: dict[str, list[Any]] = {}
    for one in found:
        assert one.key.startswith("public.")
        shown.setdefault(one.key.split(".")[-1], []).append(json.loads(one.body, parse_float=str))
    return shown


def test_candles_that_changed_are_published_once() -> None:
    """Of every period, in Peatio's order, with all digits."""
    made = market(trade(1, NOW_S - 1, "10.10", "0.50"), trade(2, NOW_S, "9", "1"))
    tells = announcer(made)
    shown = published(tells.klines(NOW_S))
    assert set(shown) == {f"kline-{name}" for name in PERIODS}
    assert shown["kline-1s"] == [
        [NOW_S - 1, "10.10", "10.10", "10.10", "10.10", "0.50"],
        [NOW_S, 9, 9, 9, 9, 1],
    ]
    assert shown["kline-1h"] == [[HOUR_S, "10.10", "10.10", 9, 9, "1.50"]]
    assert tells.klines(NOW_S + 0.5) == []
    made.take("public.btcusd.trades", body(trade(3, NOW_S)), NOW_S)
    assert len(tells.klines(NOW_S + 1)) == len(PERIODS)


def test_what_is_long_over_is_not_published() -> None:
    """A backlog, or a trade that came late: only what still runs."""
    made = market(*(trade(n, NOW_S - 3000 + n * 60) for n in range(40)))
    shown = published(announcer(made, flat=False).klines(NOW_S))
    assert "kline-1s" not in shown
    assert "kline-1m" not in shown
    assert len(shown["kline-1h"]) == 1
    assert end_of(HOUR, shown["kline-1h"][0][0]) > NOW_S


def test_what_could_not_be_published_is_published_later_as_it_is_then() -> None:
    """Not as it was."""
    made = market(trade(1, NOW_S))
    tells = announcer(made)
    lost = tells.klines(NOW_S) + tells.tickers(NOW_S)
    made.take("public.btcusd.trades", body(trade(2, NOW_S, "11")), NOW_S)
    tells.not_published(lost)
    shown = published(tells.klines(NOW_S) + tells.tickers(NOW_S))
    assert shown["kline-1d"][0][1:] == [10, 11, 10, 11, 2]
    assert shown["tickers"][0]["btcusd"]["last"] == "11"


def test_a_silent_market_begins_minutes_flat_or_not_at_all() -> None:
    """At the beginning, once; and not while it is not known whether nothing trades."""
    at_s = HOUR_S - 90
    for is_flat in (True, False):
        made = market(trade(1, at_s, "7"))
        tells = announcer(made, is_flat)
        tells.klines(at_s)
        assert tells.klines(at_s + 1) == []
        shown = published(tells.klines(HOUR_S + 0.2))
        expected = [[HOUR_S, 7, 7, 7, 7, 0]] if is_flat else None
        assert shown.get("kline-1m") == expected
        assert shown.get("kline-1h") == expected
        assert "kline-1s" not in shown
        assert tells.klines(HOUR_S + 30) == []
        assert tells.klines(HOUR_S + 120, is_live=False) == []


def test_a_clock_that_jumps_back_takes_nothing_back() -> None:
    """No flat candle comes before one that was published."""
    made = market(trade(1, HOUR_S - 5, "7"))
    tells = announcer(made)
    tells.klines(HOUR_S - 5)
    tells.klines(HOUR_S + 3600)
    assert published(tells.klines(HOUR_S + 1)) == {}
    made.take("public.btcusd.trades", body(trade(2, HOUR_S + 1)), HOUR_S + 1)
    assert published(tells.klines(HOUR_S + 2))["kline-1h"] == [[HOUR_S, 10, 10, 10, 10, 1]]


def test_a_candle_whose_trades_were_cancelled_is_flat() -> None:
    """A client has seen it, and nothing takes a candle away."""
    made = market(trade(1, NOW_S - 5, "7"), trade(2, NOW_S, "9"))
    tells = announcer(made)
    tells.klines(NOW_S)
    made.take("public.btcusd.trades", body(trade(2, NOW_S, "9", "0")), NOW_S)
    shown = published(tells.klines(NOW_S + 1))
    assert shown["kline-1s"] == [[NOW_S, 7, 7, 7, 7, 0]]


def test_tickers_are_peatios() -> None:
    """All markets, when one changed; what rolls out of 24 hours changes it too."""
    made = market(
        trade(1, NOW_S - DAY + 90, "8", "1"), trade(2, NOW_S - 10, "12", "2"), name="btc_usdt"
    )
    made.take("public.ethusd.trades", body(trade(1, NOW_S)), NOW_S)
    tells = announcer(made)
    tells.klines(NOW_S)
    (found,) = published(tells.tickers(NOW_S))["tickers"]
    assert list(found) == ["btc_usdt", "ethusd"]
    assert found["btc_usdt"] == {
        "name": "BTC/USDT", "base_unit": "btc", "quote_unit": "usdt", "low": "8", "high": "12",
        "open": "8", "last": "12", "volume": "32", "amount": "3", "avg_price": "11",
        "price_change_percent": "+50.00%", "at": NOW_S - 10,
        "today": {"last": "12", "open": "12", "high": "12", "low": "12",
                  "volume": "3", "deal": "32"},
    }  # fmt: skip
    assert tells.tickers(NOW_S + 1) == []
    tells.klines(NOW_S + 200)
    (later,) = published(tells.tickers(NOW_S + 200))["tickers"]
    assert later["btc_usdt"]["amount"] == "2"
    assert later["btc_usdt"]["open"] == "12"


def test_a_market_in_which_nothing_traded_for_a_day_has_its_last_price() -> None:
    """And no volume."""
    made = market(trade(1, NOW_S, "8"))
    tells = announcer(made)
    tells.klines(NOW_S + 3 * DAY)
    (found,) = published(tells.tickers(NOW_S + 3 * DAY))["tickers"]
    shown = found["btcusd"]
    assert (shown["last"], shown["open"], shown["volume"]) == ("8", "8", "0")
    assert (shown["avg_price"], shown["price_change_percent"]) == ("8", "+0.00%")


@pytest.mark.parametrize(
    ("name", "units"),
    [
        ("btcusd", ("btc", "usd")),
        ("btcusdt", ("btc", "usdt")),
        ("btc_usdt", ("btc", "usdt")),
        ("usdt", ("u", "sdt")),
        ("doge-xyz", ("doge", "xyz")),
        ("dogexyz", ("doge", "xyz")),
        ("x", ("x", "x")),
    ],
)
def test_units_follow_from_the_name(name: str, units: tuple[str, str]) -> None:
    """The longest known quote currency wins."""
    assert units_of(name, ("usd", "usdt")) == units
