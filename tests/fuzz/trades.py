"""Any bodies pass the desk of market data, and its candles say what its trades say.

That is: `Desk.take` never raises and counts each message, every number that comes out is finite,
questions are answered or refused, and a desk that goes on from what was saved says the same.
"""

from __future__ import annotations

import json

from rango_gevent.marketdata.announcer import Announcer
from rango_gevent.marketdata.desk import Desk, Limits
from rango_gevent.marketdata.memory import MemoryStore
from rango_gevent.marketdata.periods import DAY, PERIODS, start_of
from rango_gevent.marketdata.queries import Queries, QueryError

_PART = b"\xff\xff"  # parts bodies
_NOW_S = 1_700_000_000.0
_LIMITS = Limits(trades=10, late_s=5000.0, markets=3)


def check(data: bytes) -> None:
    """Take some messages, save them, and look at what came of them."""
    store = MemoryStore()
    desk = Desk(store.read, _LIMITS)
    for number, body in enumerate(data.split(_PART)):
        desk.take(f"public.m{number % 4}.trades", body, _NOW_S)
    changes = desk.collect()
    store.save(changes)
    desk.saved(changes)
    again = Desk(store.read, _LIMITS)
    again.restore(store.load())
    assert _shown(desk) == _shown(again)
    for name, market in desk.markets.items():
        for period in PERIODS.values():
            candles = market.candles(period, 0, 1 << 40)
            trades = sum(candle.count for candle in candles)
            assert trades == sum(c.count for c in market.candles(1, 0, 1 << 40)), name
            for candle in candles:
                assert 0 < candle.low <= min(candle.open, candle.close)
                assert max(candle.open, candle.close) <= candle.high
                assert candle.volume > 0
                assert start_of(period, candle.first[0]) == candle.start_s


def _shown(desk: Desk) -> list[object]:
    """Return what a desk tells others."""
    announcer = Announcer(
        desk,
        periods=frozenset(PERIODS.values()),
        quotes=("usd",),
        is_flat=True,
        midnight=lambda at_s: start_of(DAY, at_s),
    )
    announcer.klines(_NOW_S)
    told = [json.loads(one.body) for one in announcer.tickers(_NOW_S)]
    queries = Queries(
        desk, lambda: _NOW_S, lambda at_s: start_of(DAY, at_s), is_flat=True, max_points=100
    )
    for name in desk.markets:
        for method, params in (("deals.query", [name, 100, 0]), ("state.query", [name, 3600])):
            try:
                told.append(queries.ask(method, params))
            except QueryError as error:
                told.append(str(error))
    return told


SEEDS = [
    b'{"trades":[{"tid":1,"taker_type":"buy","date":1699999999,"price":"1.5","amount":"2"}]}',
    _PART.join(
        b'{"trades":[{"tid":%d,"date":%d,"price":"%d","amount":"0.5"}]}' % (n, 1699999990 + n, n)
        for n in range(1, 30)
    ),
    _PART.join(
        b'{"trades":[{"tid":4,"date":1699999999,"price":"1","amount":"%s"}]}' % amount
        for amount in (b"2", b"", b"", b"", b"3", b"", b"", b"", b"0", b"", b"", b"", b"2")
    ),
    b'{"trades":[{"id":"7","date":1699999999123,"price":1e-20,"amount":1e20,"taker_type":"sell"}]}',
    b'{"trades":[{"tid":1,"date":1e11,"price":"NaN","amount":"Infinity"}]}',
    b'{"trades":[]}',
    b'{"trades":[{"tid":4,"date":1699999999,"price":"1","amount":"0"}]}',
    b'{"trades":[{"tid":4,"date":19999,"price":"1","amount":"1"}]}',
]
WORDS = [_PART, b"1e", b'"', b"-0", b"sNaN", b"null", b"9" * 30, b",", b"{", b"]", b"0.", b'"tid":']
