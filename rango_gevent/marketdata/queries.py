"""Questions and answers in ViaBTC's words: klines, deals, price, state, today. Pure.

Prices and amounts in answers are strings with all digits, times are Unix seconds.
"""

from __future__ import annotations

from inspect import signature
from typing import Any, Callable

from rango_gevent.marketdata import views
from rango_gevent.marketdata.candles import Candle, together
from rango_gevent.marketdata.desk import Desk
from rango_gevent.marketdata.market import Market, filled
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

INVALID, INTERNAL, NO_METHOD = 1, 2, 4
_MAX_DEALS = 10_000
_MAX_STATE_S = 7 * DAY
_LATEST_S = 1 << 40
# how many candles before a time to look through for the last price, the finest first
_LOOK_BACK = {1: 1000, MINUTE: 1500, HOUR: 800, DAY: 4000}


class QueryError(Exception):
    """A question has no answer.

    Attributes:
        code: ViaBTC's number.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Queries:
    """Answers about the market data of a desk.

    Args:
        desk: the market data.
        now: Unix time.
        midnight: returns when the day of a time began, Unix time, wherever that is.
        is_flat: put flat candles where nothing traded.
        max_points: candles of one answer at most.
    """

    def __init__(
        self,
        desk: Desk,
        now: Callable[[], float],
        midnight: Callable[[float], int],
        *,
        is_flat: bool,
        max_points: int,
    ) -> None:
        self._desk = desk
        self._now = now
        self._midnight = midnight
        self._is_flat = is_flat
        self._max_points = max_points
        self._methods: dict[str, Callable[..., Any]] = {
            "kline.query": self._klines,
            "deals.query": self._deals,
            "price.query": self._price,
            "state.query": self._state,
            "today.query": self._today,
        }

    def ask(self, method: object, params: object) -> Any:
        """Answer a question.

        Raises:
            QueryError: there is no such method, or its parameters are wrong.
        """
        answer = self._methods.get(method) if isinstance(method, str) else None
        if answer is None:
            raise QueryError(NO_METHOD, "method not found")
        if not isinstance(params, list):
            raise QueryError(INVALID, "invalid argument: params must be a list")
        try:
            signature(answer).bind(*params)
        except TypeError:
            raise QueryError(INVALID, f"invalid argument: {method} takes other params") from None
        self._desk.fold()
        return answer(*params)

    def _market(self, name: object) -> Market:
        """Return a market; ViaBTC's clients write names in capitals, Peatio's keys do not."""
        market = None
        if isinstance(name, str):
            market = self._desk.markets.get(name) or self._desk.markets.get(name.lower())
        if market is None:
            raise QueryError(INVALID, "invalid argument: no such market")
        return market

    def _klines(self, market: object, start: object, end: object, interval: object) -> Any:
        found = self._market(market)
        period = _whole(interval, 1, MONTH, "interval")
        if not is_interval(period):
            raise QueryError(INVALID, "invalid argument: no such interval")
        start_s = _whole(start, 0, _LATEST_S, "start")
        end_s = min(_whole(end, 0, _LATEST_S, "end"), int(self._now()))
        if (end_s - start_s) / period > self._max_points:
            raise QueryError(INVALID, f"invalid argument: more than {self._max_points} candles")
        return [
            views.kline_row(candle, str(market))
            for candle in self._candles(found, period, start_s, end_s + 1)
        ]

    def _candles(self, market: Market, period: int, start_s: int, end_s: int) -> list[Candle]:
        """Return candles of any interval, from the one of a time to before another."""
        kept = kept_period(period)
        begin_s = start_of(period, start_s)
        if start_s >= end_s:
            return []
        last_s = end_of(period, start_of(period, end_s - 1))
        candles = market.candles(kept, begin_s, last_s)
        if kept != period:
            candles = _regrouped(candles, period)
        if not self._is_flat:
            return candles
        return filled(candles, period, begin_s, end_s, before(market, begin_s))

    def _deals(self, market: object, limit: object, last_id: object) -> list[dict[str, Any]]:
        count = _whole(limit, 1, _MAX_DEALS, "limit")
        newer_than = _whole(last_id, 0, 1 << 63, "last_id")
        trades = [one for one in self._market(market).trades() if one.id > newer_than]
        return [views.deal(trade) for trade in reversed(trades[-count:])]

    def _price(self, market: object) -> str:
        return views.text(_last(self._market(market)).close)

    def _state(self, market: object, period: object) -> dict[str, Any]:
        found = self._market(market)
        period_s = _whole(period, 1, _MAX_STATE_S, "period")
        return views.state(period_s, self._since(found, period_s), _last(found).close)

    def _today(self, market: object) -> dict[str, str]:
        found = self._market(market)
        end_s = self._end(found)
        since_midnight = found.between(self._midnight(self._now()), end_s)
        return views.today(since_midnight, self._since(found, DAY), _last(found).close)

    def _since(self, market: Market, period_s: int) -> Candle | None:
        """Sum up the last seconds: to the second up to an hour, to the minute beyond."""
        end_s = self._end(market)
        if period_s > HOUR:
            return market.between(end_s - period_s, end_s)
        return together(end_s - period_s, market.candles(1, end_s - period_s, end_s))

    def _end(self, market: Market) -> int:
        """Return the end of now; a trade may lie a little ahead of the clock."""
        return int(max(self._now(), market.newest_s)) + 1


def is_interval(period: int) -> bool:
    """Tell whether ViaBTC's marketprice takes an interval."""
    if period < MINUTE:
        return MINUTE % period == 0
    if period < HOUR:
        return period % MINUTE == 0 and HOUR % period == 0
    if period < DAY:
        return period % HOUR == 0 and DAY % period == 0
    if period < WEEK:
        return period % DAY == 0
    return period in (WEEK, MONTH)


def kept_period(period: int) -> int:
    """Return the longest period that is kept and that an interval is made of."""
    if period in (WEEK, MONTH):
        return period
    return max(kept for kept in PERIODS.values() if kept <= period and period % kept == 0)


def before(market: Market, start_s: int) -> Candle | None:
    """Return a candle that closed last before a time."""
    for period, count in _LOOK_BACK.items():
        end_s = start_of(period, start_s)
        candles = market.candles(period, end_s - count * period, end_s)
        if candles:
            return candles[-1]
    return None


def _regrouped(candles: list[Candle], period: int) -> list[Candle]:
    groups: dict[int, list[Candle]] = {}
    for candle in candles:
        groups.setdefault(start_of(period, candle.start_s), []).append(candle)
    whole = (together(start_s, inside) for start_s, inside in groups.items())
    return [candle for candle in whole if candle is not None]


def _last(market: Market) -> Candle:
    last = market.last
    if last is None:
        raise QueryError(INVALID, "invalid argument: nothing traded yet")
    return last


def _whole(value: object, low: int, high: int, what: str) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise QueryError(INVALID, f"invalid argument: {what} from {low} to {high}")
    return value
