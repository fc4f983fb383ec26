"""What is published: candles that changed, and tickers. Pure.

A candle goes out when it changed since the last time and is not long over: a chart goes on from
there, and the past is for `queries`. At the beginning of a minute a period in which nothing
traded yet begins flat, where that is wanted.
"""

from __future__ import annotations

import json
from typing import Any, Callable, NamedTuple

from rango_gevent.marketdata import views
from rango_gevent.marketdata.candles import Candle, flat
from rango_gevent.marketdata.desk import Desk
from rango_gevent.marketdata.market import Market, Place
from rango_gevent.marketdata.periods import DAY, MINUTE, NAMES, end_of, start_of

TICKERS = "public.global.tickers"
_OVER_S = 10  # a candle that ended so long ago is published no more

_encode = json.JSONEncoder(separators=(",", ":")).encode


class Announcement(NamedTuple):
    """A message to publish, and the candle that it shows."""

    key: str
    body: bytes
    market: str = ""
    place: Place = (0, 0)


class Announcer:
    """Finds out what is to be published.

    Args:
        desk: the market data.
        periods: whose candles are published, in seconds.
        quotes: known quote currencies.
        is_flat: begin periods flat in which nothing traded yet.
        midnight: returns when the day of a time began, Unix time, wherever that is.
        over_s: candles that ended longer ago are not published.
    """

    def __init__(
        self,
        desk: Desk,
        *,
        periods: frozenset[int],
        quotes: tuple[str, ...],
        is_flat: bool,
        midnight: Callable[[float], int],
        over_s: float = _OVER_S,
    ) -> None:
        self._desk = desk
        self._periods = periods
        self._quotes = quotes
        self._is_flat = is_flat
        self._midnight = midnight
        self._over_s = over_s
        self._minute = 0
        self._tickers: dict[str, dict[str, Any]] = {}
        self._flat_from: dict[tuple[str, int], int] = {}
        self._stale: set[str] = set()  # markets whose ticker is to be made anew
        self._told = b""

    # -- candles ----------------------------------------------------------------------------------

    def klines(self, now_s: float, *, is_live: bool = True) -> list[Announcement]:
        """Return the candles to publish, each market's in order.

        Args:
            now_s: Unix time.
            is_live: trades come as they happen: only then has a period without one no trade.
        """
        self._desk.fold()
        found: list[Announcement] = []
        for market in self._desk.markets.values():
            if market.unpublished:
                self._stale.add(market.name)
                places, market.unpublished = sorted(market.unpublished), set()
                for period, start_s in places:
                    if period in self._periods and end_of(period, start_s) > now_s - self._over_s:
                        found += self._kline(market, period, start_s)
        minute = int(now_s) // MINUTE
        if minute != self._minute:
            self._minute = minute
            self._stale.update(self._desk.markets)
            if self._is_flat and is_live:
                found += self._flat_ones(now_s)
        return found

    def _kline(self, market: Market, period: int, start_s: int) -> list[Announcement]:
        candle = market.candle(period, start_s)
        if candle is None:  # all its trades were cancelled
            last = market.last
            candle = None if last is None else flat(start_s, last.close)
        return [] if candle is None else [_announcement(market, period, candle)]

    def _flat_ones(self, now_s: float) -> list[Announcement]:
        found = []
        for market in self._desk.markets.values():
            last = market.last
            for period in self._periods:
                if last is None or period < MINUTE:
                    continue
                start_s = start_of(period, now_s)
                newest = market.newest(period)
                begun_s = self._flat_from.get((market.name, period), 0)
                if start_s > max(begun_s, newest.start_s if newest else 0):
                    self._flat_from[market.name, period] = start_s
                    found.append(_announcement(market, period, flat(start_s, last.close)))
        return found

    def not_published(self, announcements: list[Announcement]) -> None:
        """Note that these are to be published again, as they are then."""
        for one in announcements:
            if one.market in self._desk.markets:
                self._desk.markets[one.market].unpublished.add(one.place)
            else:
                self._told = b""

    # -- tickers ----------------------------------------------------------------------------------

    def tickers(self, now_s: float) -> list[Announcement]:
        """Return the tickers of all markets, when one of them changed."""
        for name in sorted(self._stale):
            made = self._ticker(self._desk.markets[name], now_s)
            if made is not None:
                self._tickers[name] = made
        self._stale.clear()
        body = _encode(dict(sorted(self._tickers.items()))).encode()
        if body == self._told or not self._tickers:
            return []
        self._told = body
        return [Announcement(TICKERS, body)]

    def _ticker(self, market: Market, now_s: float) -> dict[str, Any] | None:
        last = market.last
        if last is None:
            return None
        end_s = int(max(now_s, market.newest_s)) + 1
        return views.ticker(
            views.units_of(market.name, self._quotes),
            market.between(end_s - DAY, end_s),
            market.between(self._midnight(now_s), end_s),
            last.close,
            int(market.newest_s),
        )


def _announcement(market: Market, period: int, candle: Candle) -> Announcement:
    key = f"public.{market.name}.kline-{NAMES[period]}"
    return Announcement(key, views.kline(candle), market.name, (period, candle.start_s))
