"""How candles look to others: Peatio's klines and tickers, ViaBTC's answers. Pure."""

from __future__ import annotations

from decimal import Decimal, DivisionByZero, InvalidOperation
from typing import Any, Iterable

from rango_gevent.marketdata.candles import ZERO, Candle
from rango_gevent.marketdata.trades import Trade

_PERCENT_PLACES = Decimal("0.01")


def text(value: Decimal) -> str:
    """Return a number without an exponent."""
    return format(value, "f")


def kline(candle: Candle) -> bytes:
    """Return Peatio's array ``[start, open, high, low, close, volume]``, with all digits."""
    return (
        f"[{candle.start_s},{candle.open:f},{candle.high:f},{candle.low:f},"
        f"{candle.close:f},{candle.volume:f}]"
    ).encode()


def kline_row(candle: Candle, market: str) -> list[Any]:
    """Return ViaBTC's array ``[start, open, close, high, low, volume, deal, market]``."""
    numbers = (
        candle.open, candle.close, candle.high, candle.low, candle.volume, candle.deal,
    )  # fmt: skip
    return [candle.start_s, *map(text, numbers), market]


def state(period_s: int, candle: Candle | None, last: Decimal) -> dict[str, Any]:
    """Return ViaBTC's state of a market over some seconds; where nothing traded, the last price."""
    return {"period": period_s, "last": text(last), **_prices(candle, last), **_sums(candle)}


def today(since_midnight: Candle | None, day: Candle | None, last: Decimal) -> dict[str, str]:
    """Return ViaBTC's today: prices since midnight, sums over 24 hours."""
    prices = _prices(since_midnight, last)
    del prices["close"]
    return {"last": text(last), **prices, **_sums(day)}


def _prices(candle: Candle | None, last: Decimal) -> dict[str, str]:
    if candle is None:
        return dict.fromkeys(("open", "close", "high", "low"), text(last))
    return {
        "open": text(candle.open),
        "close": text(candle.close),
        "high": text(candle.high),
        "low": text(candle.low),
    }


def _sums(candle: Candle | None) -> dict[str, str]:
    volume, deal = (ZERO, ZERO) if candle is None else (candle.volume, candle.deal)
    return {"volume": text(volume), "deal": text(deal)}


def deal(trade: Trade) -> dict[str, Any]:
    """Return a trade as ViaBTC shows it."""
    return {
        "id": trade.id,
        "time": trade.at_s,
        "price": text(trade.price),
        "amount": text(trade.amount),
        "type": trade.side,
    }


def ticker(
    units: tuple[str, str],
    day: Candle | None,
    since_midnight: Candle | None,
    last: Decimal,
    at_s: int,
) -> dict[str, Any]:
    """Return Peatio's ticker, and in its ``today`` what ViaBTC calls so.

    Args:
        units: base and quote currency.
        day: the last 24 hours; None when nothing traded in them.
        since_midnight: the same of today.
        last: the last price.
        at_s: Unix time of the newest trade.
    """
    prices, sums = _prices(day, last), _sums(day)
    opened = last if day is None else day.open
    return {
        "name": "/".join(units).upper(),
        "base_unit": units[0],
        "quote_unit": units[1],
        "low": prices["low"],
        "high": prices["high"],
        "open": prices["open"],
        "last": text(last),
        "volume": sums["deal"],
        "amount": sums["volume"],
        "avg_price": text(last if day is None else _average(day, last)),
        "price_change_percent": f"{(100 * (last - opened) / opened).quantize(_PERCENT_PLACES):+f}%",
        "at": at_s,
        "today": today(since_midnight, day, last),
    }


def _average(day: Candle, last: Decimal) -> Decimal:
    """Return the average price, which alone of all numbers is rounded."""
    try:
        places = min(_places(day.high), _places(day.low))
        return (day.deal / day.volume).quantize(Decimal(1).scaleb(places))
    except (DivisionByZero, InvalidOperation):
        return last


def _places(value: Decimal) -> int:
    exponent = value.as_tuple().exponent
    return exponent if isinstance(exponent, int) else 0


def units_of(market: str, quotes: Iterable[str]) -> tuple[str, str]:
    """Cut a market's name into base and quote currency.

    Args:
        market: such as ``btcusd`` or ``btc_usd``.
        quotes: known quote currencies; of those that fit the longest counts. Where none does, it
            is the part behind the last ``_`` or ``-``, else the last three letters.
    """
    fits = [quote for quote in quotes if market.endswith(quote) and len(quote) < len(market)]
    if fits:
        quote = max(fits, key=len)
    else:
        quote = market.replace("-", "_").rpartition("_")[2]
        quote = quote if quote != market else market[-3:]
    base = market[: len(market) - len(quote)].strip("_-")
    return (base or market, quote)
