"""What traded, summed up: klines and tickers, made from trades as `rango marketdata` makes them.

The desk is that program's, its store is in memory and keeps a day. Before the first tick the
hours of a day are made up, so that a ticker has something to sum up.
"""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Iterable, Sequence

from rango_gevent.demo.instruments import Instrument
from rango_gevent.demo.tape import Event
from rango_gevent.marketdata.announcer import Announcer
from rango_gevent.marketdata.candles import Candle
from rango_gevent.marketdata.desk import Changes, Desk, Limits, Saved
from rango_gevent.marketdata.market import Head, MarketChanges
from rango_gevent.marketdata.memory import MemoryStore
from rango_gevent.marketdata.periods import DAY, HOUR, MINUTE, PERIODS, start_of

_HOURS_A_DAY = 24
_PAST_TRADES_AN_HOUR = 5_000  # of a typical size; about what the markets go on to do
_LIMITS = Limits(trades=200, late_s=60.0)
_KEEP_S = {
    period: MINUTE if period == 1 else DAY + 2 * HOUR if period < DAY else 400 * DAY
    for period in PERIODS.values()
}
_NEVER_S = 1e12

Hour = Candle
"""An hour whose beginning is counted from the first tick's hour, in hours."""


class Charts:
    """Candles of all markets.

    Args:
        instruments: what is traded.
        past: the hours before the first tick, of each market.
    """

    def __init__(self, instruments: Sequence[Instrument], past: dict[str, list[Hour]]) -> None:
        self._past = past
        self._store = MemoryStore()
        self._desk = Desk(self._store.read, _LIMITS)
        self._announcer = Announcer(
            self._desk,
            periods=frozenset(PERIODS.values()),
            quotes=tuple({instrument.quote for instrument in instruments}),
            is_flat=False,  # somebody always trades
            midnight=_midnight,
            over_s=_NEVER_S,
        )

    def take(self, events: Iterable[Event], now_s: float) -> None:
        """Take the trades among events."""
        if self._past:
            self._begin(int(now_s))
        for event in events:
            self._desk.take(event.routing_key, event.body, now_s)

    def _begin(self, now_s: int) -> None:
        """Let the past end where the first tick is."""
        hour_s = start_of(HOUR, now_s)
        heads = []
        for name, hours in self._past.items():
            placed = [hour.copy(hour_s + hour.start_s * HOUR) for hour in hours]
            for hour in placed:
                hour.first = hour.last = (float(hour.start_s), 0)
            head = Head(name, float(hour_s - 1), (float(hour_s), 0), 0, 0)
            heads.append(head)
            rows = [(HOUR, hour.row()) for hour in placed]
            self._store.save(Changes(None, [MarketChanges(head, rows, [], [], [])]))
        self._desk.restore(Saved(None, [(head, []) for head in heads]))
        self._past = {}

    def summaries(self, now_s: float) -> list[Event]:
        """Return the candles that changed, and the tickers; and let go of what is old."""
        found = self._announcer.klines(now_s) + self._announcer.tickers(now_s)
        changes = self._desk.collect()
        self._store.save(changes)
        self._desk.saved(changes)
        oldest = {period: int(now_s) - keep_s for period, keep_s in _KEEP_S.items()}
        for name in self._desk.markets:
            self._store.prune(name, oldest)
        return [Event(one.key, one.body) for one in found]


def _midnight(at_s: float) -> int:
    return start_of(DAY, at_s)


def past_hours(instrument: Instrument, rng: random.Random) -> list[Hour]:
    """Invent the hours before the first tick, the oldest first."""
    hours: list[Hour] = []
    close = instrument.home_ticks
    for number in range(1, _HOURS_A_DAY):
        opened = round(close * (1 + rng.gauss(0, 0.004)))
        lots = round(instrument.typical_lots * _PAST_TRADES_AN_HOUR * (0.5 + rng.random()))
        high, low = round(max(opened, close) * 1.001), round(min(opened, close) * 0.999)
        prices = {
            "open": Decimal(instrument.price(opened)),
            "close": Decimal(instrument.price(close)),
            "high": Decimal(instrument.price(high)),
            "low": Decimal(instrument.price(low)),
        }
        volume = Decimal(instrument.amount(lots))
        deal = volume * sum(prices.values(), Decimal(0)) / len(prices)
        key = (0.0, 0)
        hours.append(
            Candle(-number, first=key, last=key, volume=volume, deal=deal, count=0, **prices)
        )
        close = opened
    hours.reverse()
    return hours
