"""Candles of a market against the simplest way to sum up its trades."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from market_trades import LIMITS, NOW_S, body, desk, oracle, save, trade

from rango_gevent.marketdata.desk import Desk, Limits, Place
from rango_gevent.marketdata.memory import MemoryStore
from rango_gevent.marketdata.periods import DAY, HOUR, MINUTE, MONTH, PERIODS
from rango_gevent.marketdata.trades import Trade

KEY = "public.btcusd.trades"
AMOUNTS = st.decimals("0.00000001", "1000", allow_nan=False, places=8)
PRICES = st.decimals("0.01", "99999999", allow_nan=False, places=2)
TIMES = st.one_of(
    st.floats(0, 90, allow_nan=False).map(lambda s: NOW_S + s),
    st.integers(0, 40 * DAY).map(lambda s: NOW_S + s),
)
TRADES = st.lists(st.tuples(TIMES, PRICES, AMOUNTS), min_size=1, max_size=40)
FAR_S = NOW_S + 50 * DAY


def rows(made: Desk, period: int, market: str = "btcusd") -> list[tuple[Any, ...]]:
    """Return what a market's candles hold, in the shape of the oracle."""
    return [
        (c.start_s, c.open, c.high, c.low, c.close, c.volume, c.deal)
        for c in made.markets[market].candles(period, 0, 2**40)
    ]


def take(made: Desk, *trades: Trade) -> None:
    """Take trades in, each as a message."""
    for one in trades:
        made.take(KEY, body(one), FAR_S)


def agree(made: Desk, trades: list[Trade]) -> None:
    """Check the candles of all periods."""
    made.fold()
    for period in PERIODS.values():
        assert rows(made, period) == oracle(trades, period)


@settings(deadline=None)
@given(TRADES, st.data())
def test_candles_sum_up_the_trades_in_whatever_order_they_came(
    drawn: list[tuple[float, Decimal, Decimal]], data: st.DataObject
) -> None:
    """Saved, forgotten and loaded again in between, with duplicates: to the last digit."""
    trades = [Trade(at, n, p, a, "buy") for n, (at, p, a) in enumerate(drawn)]
    store = MemoryStore()
    made = desk(store)
    for one in data.draw(st.permutations(trades)):
        take(made, one)
        what = data.draw(st.sampled_from(("go on", "fold", "save", "crash", "again")))
        if what == "again":
            take(made, one)
        if what == "fold":
            made.fold()
        if what in ("save", "crash"):
            save(made, store)
        if what == "crash":
            made = desk(store)
    agree(made, trades)
    save(made, store)
    agree(desk(store), trades)


@settings(deadline=None)
@given(TRADES, st.data())
def test_corrections_leave_what_the_corrected_trades_would_have_made(
    drawn: list[tuple[float, Decimal, Decimal]], data: st.DataObject
) -> None:
    """Another price or amount replaces a trade, an amount of 0 takes it away."""
    trades = {n: Trade(at, n, p, a, "buy") for n, (at, p, a) in enumerate(drawn)}
    store = MemoryStore()
    made = desk(store)
    take(made, *trades.values())
    if data.draw(st.booleans()):
        save(made, store)
    for _ in range(data.draw(st.integers(1, 6))):
        if not trades:
            break
        number = data.draw(st.sampled_from(sorted(trades)))
        amount = data.draw(st.one_of(st.just(Decimal(0)), AMOUNTS))
        new = trades[number]._replace(price=data.draw(PRICES), amount=amount)
        take(made, new)
        trades[number] = new
        if not amount:
            del trades[number]
        if data.draw(st.booleans()):
            save(made, store)
            made = desk(store)
    agree(made, list(trades.values()))
    assert made.inexact == 0


def test_a_cancelled_trade_does_not_come_back() -> None:
    """A late duplicate of it changes nothing."""
    made = desk(MemoryStore())
    take(made, trade(1, NOW_S), trade(2, NOW_S + 1, "11"), trade(2, NOW_S + 1, "11", "0"))
    take(made, trade(2, NOW_S + 1, "11"))
    agree(made, [trade(1, NOW_S)])
    assert made.counts == {"new": 2, "cancelled": 1, "duplicate": 1}


def test_a_late_trade_is_taken_within_the_window_and_dropped_behind_it() -> None:
    """The window is counted from the newest trade, not from the clock."""
    made = desk(MemoryStore(), Limits(late_s=100))
    take(made, trade(1, NOW_S), trade(2, NOW_S - 100), trade(3, NOW_S - 100.5))
    agree(made, [trade(1, NOW_S), trade(2, NOW_S - 100)])
    assert made.drops == {"late": 1}


def test_what_may_have_been_known_and_is_forgotten_is_late() -> None:
    """With few trades known a duplicate is never taken for a new one."""
    made = desk(MemoryStore(), Limits(trades=10, late_s=1e9))
    trades = [trade(n, NOW_S + n) for n in range(50)]
    for one in trades:
        take(made, one)
        made.fold()
    take(made, *trades)
    agree(made, trades)
    assert made.counts["duplicate"] + made.drops["late"] == 50
    assert 10 <= made.counts["duplicate"] <= 12


def test_a_new_id_is_taken_however_late_its_time_is() -> None:
    """Ids grow as a rule: one that is higher than all that were forgotten cannot be known."""
    store, limits = MemoryStore(), Limits(trades=10, late_s=1e9)
    made = desk(store, limits)
    trades = [trade(n, NOW_S + 100 + n) for n in range(50)]
    for one in trades:
        take(made, one)
        save(made, store)
    late = [trade(n, NOW_S + n, "7") for n in range(50, 90)]
    for one in late:
        take(made, one, one)
        save(made, store)
        made = desk(store, limits)
        take(made, one)
    agree(made, [*trades, *late])


def test_one_trade_ahead_of_time_does_not_make_the_others_late() -> None:
    """What is forgotten is the oldest by its time, not by when it came."""
    made = desk(MemoryStore(), Limits(trades=10, late_s=1000))
    trades = [trade(1, NOW_S + 50), *(trade(n, NOW_S + n / 100) for n in range(2, 90))]
    for one in trades:
        take(made, one)
        made.fold()
    agree(made, trades)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "shape"),
        (b"[]", "shape"),
        (b'{"trades":[1]}', "shape"),
        (b'{"trades":[{"tid":1,"date":1700000000,"price":"x","amount":"1"}]}', "shape"),
        (b'{"trades":[{"tid":1,"date":1700000000,"price":"NaN","amount":"1"}]}', "price"),
        (b'{"trades":[{"tid":1,"date":1700000000,"price":"sNaN","amount":"1"}]}', "price"),
        (b'{"trades":[{"tid":1,"date":1700000000,"price":"Infinity","amount":"1"}]}', "price"),
        (b'{"trades":[{"tid":1,"date":1700000000,"price":"-1","amount":"1"}]}', "price"),
        (b'{"trades":[{"tid":1,"date":1700000000,"price":"0","amount":"1"}]}', "price"),
        (b'{"trades":[{"tid":1,"date":1700000000,"price":"1e999999","amount":"1"}]}', "price"),
        (b'{"trades":[{"tid":1,"date":1700000000,"price":1e400,"amount":"1"}]}', "price"),
        (b'{"trades":[{"tid":1,"date":1700000000,"price":"1","amount":"-1"}]}', "amount"),
        (b'{"trades":[{"tid":1,"date":1700000000,"price":"1","amount":"NaN"}]}', "amount"),
        (b'{"trades":[{"tid":1,"date":0,"price":"1","amount":"1"}]}', "date"),
        (b'{"trades":[{"tid":1,"date":-5,"price":"1","amount":"1"}]}', "date"),
        (b'{"trades":[{"tid":1,"date":1e300,"price":"1","amount":"1"}]}', "date"),
        (b'{"trades":[{"date":1700000000,"price":"1","amount":"1"}]}', "id"),
        (b'{"trades":[{"tid":-1,"date":1700000000,"price":"1","amount":"1"}]}', "id"),
        (b'{"trades":[{"tid":"a","date":1700000000,"price":"1","amount":"1"}]}', "id"),
        (b'{"trades":[{"tid":1,"date":2000000000,"price":"1","amount":"1"}]}', "ahead"),
        (b'{"trades":[{"tid":1,"date":1700000000,"price":"1","amount":"0"}]}', "late"),
        (b'{"trades":[{"tid":1,"date":1700000000,"price":"' + b"1" * 41 + b'","amount":"1"}]}',
         "price"),
    ],
)  # fmt: skip
def test_garbage_is_dropped_counted_and_told(text: bytes, reason: str) -> None:
    """Each by a reason of its own, and what comes after it is taken."""
    told = []
    store = MemoryStore()
    made = Desk(store.read, LIMITS, lambda *words: told.append(words))
    made.take(KEY, text, NOW_S, Place(7, 1))
    assert made.drops == {reason: 1}
    assert [(words[0], words[1]) for words in told] == [(reason, KEY)]
    assert made.place == Place(7, 1)
    made.take(KEY, body(trade(9, NOW_S)), NOW_S)
    agree(made, [trade(9, NOW_S)])


@pytest.mark.parametrize("market", ["", "a b", "x" * 33, "*", "a.b", "\udcff"])
def test_a_market_that_no_stream_can_be_named_after_is_dropped(market: str) -> None:
    """Nothing could be published for it."""
    made = desk(MemoryStore())
    made.take(f"public.{market}.trades", body(trade(1, NOW_S)), NOW_S)
    assert made.drops == {"market": 1}
    assert not made.markets


def test_numbers_and_milliseconds_are_taken_too() -> None:
    """As other publishers write them."""
    made = desk(MemoryStore())
    made.take(
        KEY,
        b'{"trades":[{"id":"5","date":1700000000250,"price":0.10000000000000000001,"amount":3}]}',
        NOW_S + 1,
    )
    price = Decimal("0.10000000000000000001")
    agree(made, [Trade(NOW_S + 0.25, 5, price, Decimal(3), "buy")])


def test_there_is_a_bound_on_markets() -> None:
    """A publisher of garbage names does not fill the memory."""
    made = desk(MemoryStore(), Limits(markets=2))
    for number in range(5):
        made.take(f"public.m{number}.trades", body(trade(1, NOW_S)), NOW_S)
        made.take(f"public.g{number}.trades", b"{}", NOW_S)
    assert set(made.markets) == {"m0", "m1"}
    assert made.drops == {"markets": 3, "shape": 5}


def test_memory_holds_few_candles() -> None:
    """What is saved is let go, and read again when a late trade needs it."""
    store = MemoryStore()
    made = desk(store)
    trades = [trade(n, NOW_S + 60 * n) for n in range(3000)]
    for one in trades:
        take(made, one)
        save(made, store)
    market = made.markets["btcusd"]
    assert sum(len(held) for held in market._held.values()) < 14 * 5 + 26
    late = trade(9999, NOW_S + 7, "99")
    take(made, late)
    agree(made, [*trades, late])


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3 * DAY), PRICES, AMOUNTS), min_size=1, max_size=60),
    st.integers(0, 3 * DAY),
    st.data(),
)
def test_the_last_hours_are_summed_up_by_the_minute(
    drawn: list[tuple[int, Decimal, Decimal]], start: int, data: st.DataObject
) -> None:
    """From a minute on to now, wherever the hours lie."""
    store = MemoryStore()
    made = desk(store)
    trades = [Trade(NOW_S + at, n, p, a, "buy") for n, (at, p, a) in enumerate(sorted(drawn))]
    for one in trades:
        take(made, one)
        if data.draw(st.booleans()):
            save(made, store)
    made.fold()
    market = made.markets["btcusd"]
    for start_s in (int(NOW_S) + start, int(NOW_S) + start + MINUTE, int(NOW_S)):
        begin_s = start_s - start_s % MINUTE
        end_s = int(NOW_S) + 4 * DAY
        whole = market.between(start_s, end_s)
        expected = oracle([one for one in trades if one.at_s >= begin_s], MONTH * 10**5)
        found = whole and (whole.open, whole.high, whole.low, whole.close, whole.volume, whole.deal)
        assert found == (expected[0][1:] if expected else None)


def test_a_correction_whose_parts_are_gone_corrects_the_sums() -> None:
    """Where the short candles were pruned, prices of the long ones stay, and that is counted."""
    store = MemoryStore()
    made = desk(store)
    hour_s = int(NOW_S) - int(NOW_S) % HOUR
    take(made, trade(1, hour_s, "5", "2"), trade(2, hour_s + 600, "7", "1"))
    save(made, store)
    store.prune("btcusd", dict.fromkeys([s for s in PERIODS.values() if s < HOUR], 2**40))
    made = desk(store)
    take(made, trade(1, hour_s, "5", "1"))
    assert rows(made, HOUR) == [
        (hour_s, Decimal(5), Decimal(7), Decimal(5), Decimal(7), Decimal(2), Decimal(12))
    ]
    assert made.inexact > 0
