"""Trades as they come: bodies of ``public.<market>.trades`` taken apart and checked.

The shape is Peatio's: ``{"trades":[{"tid":1,"taker_type":"buy","date":1700000000,"price":"1.5",
"amount":"2"}]}``. ``id`` in place of ``tid`` is taken too, numbers in place of strings, fractions
of seconds, and milliseconds. Pure.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import NamedTuple, Optional, Union

import msgspec

from rango_gevent.marketdata.candles import Key

MAX_DIGITS = 40
_LEAST, _MOST = Decimal("1e-20"), Decimal("1e20")
_EARLIEST_S = 1e8  # 1973: less is something else than Unix time
_MILLISECONDS = 1e11  # such a number of seconds is the year 5138
_MAX_ID = 1 << 63
_MARKET = re.compile(r"[A-Za-z0-9_-]{1,32}")

_KEY_START, _KEY_END = "public.", ".trades"


class Trade(NamedTuple):
    """One trade; ``amount`` 0 stands for one that was cancelled."""

    at_s: float
    id: int
    price: Decimal
    amount: Decimal
    side: str

    @property
    def key(self) -> Key:
        """Return its place in the order of trades."""
        return (self.at_s, self.id)


class BadTrade(ValueError):
    """Something is no trade.

    Attributes:
        reason: a word for the metric.
    """

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Entry(msgspec.Struct, gc=False):
    """A trade as it came, not checked yet."""

    date: float
    price: Decimal
    amount: Decimal
    tid: Union[int, str, None] = None
    id: Union[int, str, None] = None
    taker_type: Optional[str] = None


class _Body(msgspec.Struct, gc=False):
    trades: list[Entry]


_decode = msgspec.json.Decoder(_Body).decode


def market_of(key: str) -> str | None:
    """Return the market that a routing key names; None for one that is not of trades.

    Raises:
        BadTrade: the market's name cannot be part of a stream's.
    """
    if not (key.startswith(_KEY_START) and key.endswith(_KEY_END)):
        return None
    market = key[len(_KEY_START) : -len(_KEY_END)]
    if not _MARKET.fullmatch(market):
        raise BadTrade("market", "a market's name is letters, digits, _ and -, 32 at most")
    return market


def entries(body: bytes) -> list[Entry]:
    """Take a body apart.

    Raises:
        BadTrade: it is not of Peatio's shape.
    """
    try:
        return _decode(body).trades
    except (msgspec.DecodeError, ValueError, RecursionError, ArithmeticError) as error:
        raise BadTrade("shape", f"not the shape of trades: {error}") from None


def checked(entry: Entry) -> Trade:
    """Return a trade.

    Raises:
        BadTrade: a value cannot be.
    """
    # hot path: once a trade
    price, amount, at_s = entry.price, entry.amount, entry.date
    if not _is_amount(price):
        raise BadTrade("price", "the price must be a number above 0, of 40 digits at most")
    if amount and not _is_amount(amount):
        raise BadTrade("amount", "the amount must be a number from 0 on, of 40 digits at most")
    if at_s >= _MILLISECONDS:
        at_s /= 1000
    if not _EARLIEST_S <= at_s < _MILLISECONDS:
        raise BadTrade("date", "the date must be Unix time, in seconds or milliseconds")
    number = entry.tid if entry.tid is not None else entry.id
    if type(number) is not int:
        number = _whole(number)
    if not 0 <= number < _MAX_ID:
        raise BadTrade("id", "tid must be a whole number")
    return Trade(at_s, number, price, amount, "sell" if entry.taker_type == "sell" else "buy")


def _is_amount(value: Decimal) -> bool:
    try:
        # NaN compares with an error; a number without an exponent has no more digits than text
        return _LEAST <= value <= _MOST and len(str(value)) <= MAX_DIGITS
    except ArithmeticError:
        return False


def _whole(value: object) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        return int(value)
    return -1
