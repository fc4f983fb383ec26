"""Klines and tickers of a simulated exchange, computed anew from the trades that it published."""

from __future__ import annotations

import bisect
from collections import Counter, defaultdict
from decimal import Decimal
from typing import Any

import pytest
from demo_events import MARKETS, SEEDS, bodies, run, ticks
from hypothesis import given, settings
from hypothesis import strategies as st

from rango_gevent.demo.exchange import Exchange
from rango_gevent.marketdata.periods import PERIODS, end_of, start_of


@settings(max_examples=6, deadline=None)
@given(seed=SEEDS, step_s=st.sampled_from((0.2, 1.0, 7.3)))
def test_klines_sum_up_the_trades_of_their_period(seed: int, step_s: float) -> None:
    """Each kline is what the trades published before it make of its period, to the last digit."""
    trades: dict[str, list[tuple[int, Decimal, Decimal]]] = defaultdict(list)
    sent: dict[tuple[str, str], dict[int, list[Any]]] = defaultdict(dict)
    for key, body in bodies(
        run(Exchange(seed=seed), 400, step_s), r"public\.\w+\.(trades|kline.*)"
    ):
        _, market, stream = key.split(".")
        if stream == "trades":
            trade = body["trades"][0]
            new = (trade["date"], Decimal(trade["price"]), Decimal(trade["amount"]))
            trades[market].append(new)
            continue
        start_s, period_s = body[0], PERIODS[stream[6:]]
        assert start_s == start_of(period_s, start_s)
        sent[market, stream][start_s] = body
        assert body == [start_s, *ohlcv(trades[market], start_s, period_s)]
    assert len(sent) == len(MARKETS) * len(PERIODS)
    for (market, stream), klines in sent.items():
        period_s = PERIODS[stream[6:]]
        running = {max(klines), start_of(period_s, trades[market][-1][0])}
        for start_s in {start_of(period_s, date) for date, _, _ in trades[market]} - running:
            final = [start_s, *ohlcv(trades[market], start_s, period_s)]
            assert klines[start_s] == final, "a closed kline was not sent in its final state"


def ohlcv(trades: list[tuple[int, Decimal, Decimal]], start_s: int, period_s: int) -> list[Decimal]:
    """Compute open, high, low, close and volume of a period from its trades."""
    first = bisect.bisect_left(trades, (start_s,))  # dates never run backwards
    inside = trades[first : bisect.bisect_left(trades, (end_of(period_s, start_s),), first)]
    prices = [price for _, price, _ in inside]
    volume = sum((amount for _, _, amount in inside), Decimal(0))
    return [prices[0], max(prices), min(prices), prices[-1], volume]


def test_klines_and_tickers_come_once_a_second() -> None:
    """At five ticks a second every fifth tick sums up, and a quiet second has no kline."""
    for number, events in enumerate(ticks(Exchange(), 200)):
        seconds = Counter(key for key, _ in bodies(events, r"public\.(global\.tickers|.*kline.*)"))
        for market in MARKETS:  # the second that is over, and the one that runs
            seconds[f"public.{market}.kline-1s"] -= seconds[f"public.{market}.kline-1s"] > 1
        assert set(seconds.values()) <= {0, 1}
        assert seconds["public.global.tickers"] == (number % 5 == 0)


def test_a_ticker_sums_up_the_last_day() -> None:
    """Its numbers agree with each other, and grow by just the trades in between."""
    last: dict[str, str] = {}
    traded: dict[str, Decimal] = defaultdict(Decimal)
    amounts: dict[str, Decimal] = {}
    for key, body in bodies(run(Exchange(), 500), r"public\.\w+\.(trades|tickers)"):
        if key.endswith("trades"):
            market = key.split(".")[1]
            last[market] = body["trades"][0]["price"]
            traded[market] += Decimal(body["trades"][0]["amount"])
            continue
        assert tuple(body) == MARKETS
        for market, ticker in body.items():
            names = ("low", "avg_price", "high", "open", "last", "volume", "amount")
            low, average, high, opened, close, volume, amount = (Decimal(ticker[n]) for n in names)
            assert low <= average <= high
            assert low <= opened <= high
            assert low <= close <= high
            assert ticker["last"] == last.get(market, ticker["last"])
            assert volume / amount == pytest.approx(average, rel=Decimal("0.0001"))
            assert ticker["price_change_percent"] == f"{100 * (close / opened - 1):+.2f}%"
            assert isinstance(ticker["at"], int)
            if market in amounts:
                assert amount - amounts[market] == traded[market]
            amounts[market] = amount
            traded[market] = Decimal(0)
    assert set(amounts) == set(MARKETS)
    assert ticker["name"] == "LTC/BTC"
    assert (ticker["base_unit"], ticker["quote_unit"]) == ("ltc", "btc")


def test_a_ticker_forgets_what_is_older_than_a_day() -> None:
    """After more than a day it holds the last 24 hours, to the minute."""
    trades: list[tuple[int, Decimal]] = []
    for key, body in bodies(run(Exchange(), 1600, step_s=60), r"public\.(btcusd|global)\.t.*"):
        if key.endswith("trades"):
            trades.append((body["trades"][0]["date"], Decimal(body["trades"][0]["amount"])))
    ticker = body["btcusd"]
    oldest_s = start_of(60, ticker["at"] + 1 - 24 * 3600)
    assert trades[0][0] < oldest_s
    recent = sum(amount for date_s, amount in trades if date_s >= oldest_s)
    assert Decimal(ticker["amount"]) == recent
