"""A candle, and what two of them are together.

Which trade opened and which closed is told by time and id, not by the order in which they came. So
candles can be put together in any order and any grouping, and the sum of parts is the whole. Pure;
all numbers are exact decimals.
"""

from __future__ import annotations

from decimal import Context, Decimal
from typing import Iterable, Tuple

Key = Tuple[float, int]
"""Unix time of a trade and its id: the order of trades."""

ZERO = Decimal(0)
NO_KEY: Key = (0.0, 0)

# More digits than a sum of products of `trades.MAX_DIGITS` has: nothing is ever rounded.
EXACT = Context(prec=250)


class Candle:
    """What traded in one period.

    Attributes:
        start_s: when the period begins, Unix time.
        first: key of the trade that opened it.
        last: key of the trade that closed it.
        volume: amounts, in the base currency.
        deal: amounts times prices, in the quote currency.
        count: trades; 0 in a candle that was brought in as such.
    """

    __slots__ = (
        "close", "count", "deal", "first", "high", "last", "low", "open", "start_s", "volume",
    )  # fmt: skip

    def __init__(
        self,
        start_s: int,
        first: Key,
        open: Decimal,
        last: Key,
        close: Decimal,
        high: Decimal,
        low: Decimal,
        volume: Decimal,
        deal: Decimal,
        count: int,
    ) -> None:
        self.start_s = start_s
        self.first = first
        self.open = open
        self.last = last
        self.close = close
        self.high = high
        self.low = low
        self.volume = volume
        self.deal = deal
        self.count = count

    def add(self, key: Key, price: Decimal, amount: Decimal) -> None:
        """Add a trade."""
        # hot path: once a trade; under `EXACT` in the whole process nothing is rounded
        if key > self.last:
            self.last, self.close = key, price
        elif key < self.first:
            self.first, self.open = key, price
        if price > self.high:
            self.high = price
        elif price < self.low:
            self.low = price
        self.volume = EXACT.add(self.volume, amount)
        self.deal = EXACT.fma(price, amount, self.deal)
        self.count += 1

    def merge(self, other: Candle) -> None:
        """Add what another one holds."""
        if other.last > self.last:
            self.last, self.close = other.last, other.close
        if other.first < self.first:
            self.first, self.open = other.first, other.open
        if other.high > self.high:
            self.high = other.high
        if other.low < self.low:
            self.low = other.low
        self.volume = EXACT.add(self.volume, other.volume)
        self.deal = EXACT.add(self.deal, other.deal)
        self.count += other.count

    def copy(self, start_s: int) -> Candle:
        """Return one that holds the same and begins at another time."""
        return Candle(
            start_s, self.first, self.open, self.last, self.close,
            self.high, self.low, self.volume, self.deal, self.count,
        )  # fmt: skip

    def row(self) -> tuple[object, ...]:
        """Return all it holds."""
        return tuple(getattr(self, name) for name in FIELDS)

    def __eq__(self, other: object) -> bool:
        """Tell whether another one holds the same."""
        return isinstance(other, Candle) and self.row() == other.row()

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        """Show all it holds."""
        return f"Candle{self.row()}"


FIELDS = ("start_s", "first", "open", "last", "close", "high", "low", "volume", "deal", "count")


def of_trade(start_s: int, key: Key, price: Decimal, amount: Decimal) -> Candle:
    """Return the candle of a single trade."""
    deal = EXACT.multiply(price, amount)
    return Candle(start_s, key, price, key, price, price, price, amount, deal, 1)


def together(start_s: int, candles: Iterable[Candle]) -> Candle | None:
    """Return what candles are together; None when there are none."""
    whole: Candle | None = None
    for candle in candles:
        if whole is None:
            whole = candle.copy(start_s)
        else:
            whole.merge(candle)
    return whole


def flat(start_s: int, price: Decimal) -> Candle:
    """Return the candle of a period in which nothing traded."""
    return Candle(start_s, NO_KEY, price, NO_KEY, price, price, price, ZERO, ZERO, 0)
