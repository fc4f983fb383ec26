"""What traded, summed up: candles, klines and tickers.

A chart keeps one running candle a period and the hours of a day, and no more whatever happens.
Trades come in as ticks and lots; a kline and a ticker go out in the shapes of Peatio's events.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from typing import Any

from rango_gevent.demo.instruments import Instrument

KLINE_PERIODS_S = {"1m": 60, "5m": 300, "15m": 900, "1h": 3600}

_HOURS_A_DAY = 24
_PAST_TRADES_AN_HOUR = 5_000  # of a typical size; about what the markets go on to do


class Candle:
    """What traded in one period: prices in ticks, ``funds`` in ticks x lots."""

    __slots__ = ("close", "funds", "high", "lots", "low", "open", "start_s", "unpublished")

    def __init__(self, start_s: int, price: int) -> None:
        self.start_s = start_s
        self.open = self.high = self.low = self.close = price
        self.lots = 0
        self.funds = 0
        self.unpublished = False

    def add(self, price: int, lots: int) -> None:
        """Add a trade."""
        self.high = max(self.high, price)
        self.low = min(self.low, price)
        self.close = price
        self.lots += lots
        self.funds += price * lots
        self.unpublished = True


class Chart:
    """The running candle of each period, and the hours that make up the last day."""

    def __init__(self, past_hours: list[Candle]) -> None:
        self._running: dict[str, Candle] = {}
        self._hours = deque(past_hours, maxlen=_HOURS_A_DAY)

    def add(self, date_s: int, price: int, lots: int) -> Iterator[tuple[str, Candle]]:
        """Add a trade; yield the candles that it closed and that changed since they were sent."""
        for period, seconds in KLINE_PERIODS_S.items():
            start_s = date_s - date_s % seconds
            candle = self._running.get(period)
            if candle is None or candle.start_s != start_s:
                if candle is not None and candle.unpublished:
                    yield period, candle
                candle = self._running[period] = Candle(start_s, price)
                if period == "1h":
                    self._hours.append(candle)
            candle.add(price, lots)

    def changed(self) -> Iterator[tuple[str, Candle]]:
        """Yield the running candles that changed since they were sent."""
        return (entry for entry in self._running.items() if entry[1].unpublished)

    def day(self) -> Candle:
        """Sum up the last 24 hourly candles, the running one included."""
        day = Candle(0, self._hours[0].open)
        for hour in self._hours:
            day.high = max(day.high, hour.high)
            day.low = min(day.low, hour.low)
            day.lots += hour.lots
            day.funds += hour.funds
        day.close = self._hours[-1].close
        return day


def past_hours(instrument: Instrument, rng: random.Random) -> list[Candle]:
    """Invent the hours before the first tick, so that the ticker has a day to sum up."""
    hours: list[Candle] = []
    close = instrument.home_ticks
    for _ in range(_HOURS_A_DAY - 1):
        candle = Candle(0, round(close * (1 + rng.gauss(0, 0.004))))
        lots = round(instrument.typical_lots * _PAST_TRADES_AN_HOUR / 3 * (0.5 + rng.random()))
        turns = (max(candle.open, close) * 1.001, min(candle.open, close) * 0.999, close)
        for price in turns:
            candle.add(round(price), lots)
        hours.append(candle)
        close = candle.open
    hours.reverse()
    return hours


def kline(candle: Candle, instrument: Instrument) -> list[float]:
    """Return ``[start, open, high, low, close, volume]``, start in unix seconds."""
    # Dividing integers rounds correctly: the number prints as the decimal that it stands for.
    scale = 10**instrument.price_places
    prices = (candle.open, candle.high, candle.low, candle.close)
    volume = candle.lots / 10**instrument.amount_places
    return [candle.start_s, *(price / scale for price in prices), volume]


def ticker(day: Candle, instrument: Instrument, at_s: int) -> dict[str, Any]:
    """Show a day: ``volume`` in the quote currency, ``amount`` in the base."""
    return {
        "name": f"{instrument.base}/{instrument.quote}".upper(),
        "base_unit": instrument.base,
        "quote_unit": instrument.quote,
        "low": instrument.price(day.low),
        "high": instrument.price(day.high),
        "open": instrument.price(day.open),
        "last": instrument.price(day.close),
        "volume": instrument.total(day.funds),
        "amount": instrument.amount(day.lots),
        "avg_price": instrument.price(day.funds // day.lots),
        "price_change_percent": f"{100 * (day.close - day.open) / day.open:+.2f}%",
        "at": at_s,
    }
