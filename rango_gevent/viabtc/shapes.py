"""Published bodies made into the dialect's shapes. Pure.

Events come in Peatio's shapes, or in those that ViaBTC's own servers put into Kafka: both are told
apart by their form. Whatever is neither gives nothing, and never an error. Amounts and prices
become decimal strings, times numbers of seconds.
"""

from __future__ import annotations

import re
from decimal import Context, Decimal, InvalidOperation
from typing import Any, Iterable, List, Tuple, Union

import msgspec

from rango_gevent.viabtc.names import Names

_EXACT = Context(prec=100)
_MAX_DIGITS = 60
_MAX_EXPONENT = 40
_ZERO = "0"

_read_numbers = msgspec.json.Decoder(list[Decimal]).decode

PUT, UPDATE, FINISH = 1, 2, 3


def read(body: bytes) -> Any:
    """Decode a body; None for what cannot be read."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def number(value: object) -> Decimal | None:
    """Return a number, given as one or as text; None for what is none, or is absurd."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str, Decimal)):
        return None
    text = str(value)
    if len(text) > _MAX_DIGITS:
        return None
    try:
        found = Decimal(text)
    except InvalidOperation:
        return None
    return found if found.is_finite() and abs(found.adjusted()) <= _MAX_EXPONENT else None


def decimal(value: object) -> str | None:
    """Return a number as a decimal string, text as it came; None for what is no number."""
    found = number(value)
    if found is None:
        return None
    plain = isinstance(value, str) and "e" not in value and "E" not in value
    return value if plain and isinstance(value, str) else format(found, "f")


def product(one: object, other: object) -> str:
    """Return a product as a decimal string; 0 where one of both is no number."""
    a, b = number(one), number(other)
    if a is None or b is None:
        return _ZERO
    found = _EXACT.multiply(a, b)
    return format(found.normalize(_EXACT) if found else found, "f")


# -- deals --------------------------------------------------------------------------------


class _Trade(msgspec.Struct, gc=False):
    """A trade as nearly all publishers write it."""

    tid: int
    price: str
    amount: str
    date: Union[int, float]
    taker_type: str = ""


class _Trades(msgspec.Struct, gc=False):
    trades: List[_Trade]


class _Deal(msgspec.Struct, gc=False):
    id: int
    time: Union[int, float]
    price: str
    amount: str
    type: str


_read_trades = msgspec.json.Decoder(_Trades).decode
_is_plain = re.compile(r"[0-9]{1,30}(?:\.[0-9]{1,30})?").fullmatch
_encode = msgspec.json.Encoder().encode

DealJson = Tuple[int, bytes]
"""A deal's id, and its JSON."""


def deals_json(body: bytes) -> list[DealJson]:
    """Return the deals of a body as JSON, the newest first."""
    # hot path: 2 us where the trades are as nearly all publishers write them, else 8
    found: list[DealJson] = []
    try:
        for trade in reversed(_read_trades(body).trades):
            if not _is_plain(trade.price) or not _is_plain(trade.amount):
                break
            side = "sell" if trade.taker_type == "sell" else "buy"
            deal = _Deal(trade.tid, trade.date, trade.price, trade.amount, side)
            found.append((trade.tid, _encode(deal)))
        else:
            return found
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    return [(deal["id"], _encode(deal)) for deal in reversed(deals(read(body)))]


def deals(said: Any) -> list[dict[str, Any]]:
    """Return the deals of a body, oldest first: ``{"id","time","price","amount","type"}``."""
    if isinstance(said, list):
        found = [_viabtc_deal(said)]
    else:
        trades = said.get("trades") if isinstance(said, dict) else None
        found = [_deal(trade) for trade in trades] if isinstance(trades, list) else []
    return [deal for deal in found if deal is not None]


def _deal(trade: object) -> dict[str, Any] | None:
    if not isinstance(trade, dict):
        return None
    id = trade.get("tid", trade.get("id"))
    price, amount = decimal(trade.get("price")), decimal(trade.get("amount"))
    time = trade.get("date", trade.get("created_at", 0))
    if isinstance(id, str) and id.isdecimal() and id.isascii() and len(id) < 19:
        id = int(id)
    if type(id) is not int or price is None or amount is None:
        return None
    side = "sell" if trade.get("taker_type", trade.get("side")) == "sell" else "buy"
    return {"id": id, "time": _time(time), "price": price, "amount": amount, "type": side}


def _viabtc_deal(said: list[Any]) -> dict[str, Any] | None:
    """Read a deal with its time first, price and amount at 6 and 7, side at 10 and id at 11."""
    if len(said) < 12 or type(said[11]) is not int:
        return None
    price, amount = decimal(said[6]), decimal(said[7])
    if price is None or amount is None:
        return None
    side = "sell" if said[10] in (1, "sell") else "buy"
    return {"id": said[11], "time": _time(said[0]), "price": price, "amount": amount, "type": side}


def _time(value: object) -> int | float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    found = number(value)
    return 0 if found is None else float(found)


# -- candles ------------------------------------------------------------------------------


def candle(body: bytes, market: str) -> list[Any] | None:
    """Return ``[time, open, close, high, low, volume, deal, market]`` of Peatio's array.

    That is ``[time, open, high, low, close, volume]``, with the volume in the quote currency
    behind it where the publisher knows that.
    """
    try:
        said = _read_numbers(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _loose_candle(read(body), market)
    return _candle(said, market)


def _loose_candle(said: Any, market: str) -> list[Any] | None:
    """Read an array of which some members are no plain numbers."""
    if not isinstance(said, list):
        return None
    numbers = [number(value) for value in said[:7]]
    found = [value for value in numbers if value is not None]
    return _candle(found, market) if len(found) == len(numbers) else None


def _candle(said: list[Decimal], market: str) -> list[Any] | None:
    if len(said) < 6 or any(number(value) is None for value in said[:7]):
        return None
    open_, high, low, close, volume = (format(value, "f") for value in said[1:6])
    deal = format(said[6], "f") if len(said) > 6 else _ZERO
    return [int(said[0]), open_, close, high, low, volume, deal, market]


def begins_at(body: bytes) -> int | None:
    """Return the time of a candle's array without reading the rest of it."""
    head = body[:40].partition(b",")[0].strip()
    head = head[1:].strip() if head[:1] == b"[" else b""
    head = head.partition(b".")[0]
    return int(head) if head.isdigit() else None


# -- tickers ------------------------------------------------------------------------------


class Ticker:
    """What a market's ticker says, in the words of price, state and today.

    Args:
        said: Peatio's ticker: ``last``, ``open``, ``high``, ``low``, ``amount`` in the base
            currency and ``volume`` in the quote currency; where ``amount`` is missing ``volume`` is
            in the base currency. A publisher may know more: ``deal``, and a ``today`` with these.
    """

    def __init__(self, said: dict[str, Any]) -> None:
        self._said = said

    @property
    def last(self) -> str:
        """Return the last price."""
        return self._of(self._said, "last")

    @staticmethod
    def _of(said: dict[str, Any], *names: str) -> str:
        for name in names:
            found = decimal(said.get(name))
            if found is not None:
                return found
        return _ZERO

    def _sums(self) -> dict[str, str]:
        said = self._said
        volume = self._of(said, "amount", "volume")
        if "deal" in said:
            deal = self._of(said, "deal")
        elif "amount" in said:
            deal = self._of(said, "volume")
        else:
            deal = product(volume, said.get("avg_price"))
        return {"volume": volume, "deal": deal}

    def state(self) -> dict[str, Any]:
        """Return the last 24 hours."""
        said, last = self._said, self.last
        prices = {"open": self._of(said, "open"), "close": last}
        prices.update(high=self._of(said, "high"), low=self._of(said, "low"))
        return {"period": 86400, "last": last, **prices, **self._sums()}

    def today(self) -> dict[str, Any]:
        """Return today: since midnight where the publisher says so, else the last 24 hours."""
        day = self._said.get("today")
        said = day if isinstance(day, dict) else self._said
        prices = {name: self._of(said, name) for name in ("open", "high", "low")}
        return {
            "open": prices["open"],
            "last": self.last,
            "high": prices["high"],
            "low": prices["low"],
            **self._sums(),
        }


# -- orders and balances ------------------------------------------------------------------


def order(said: Any, names: Names, uid: str) -> tuple[str, list[Any]] | None:
    """Return the stream of an order's market, and ``[event, order]``."""
    if not isinstance(said, dict):
        return None
    if isinstance(said.get("order"), dict):  # ViaBTC's own
        market = names.stream_of(said["order"].get("market"))
        event = said.get("event")
        return (market, [event, said["order"]]) if market and type(event) is int else None
    market = said.get("market")
    if not isinstance(market, str) or not market:
        return None
    return market, [_event_of(said), _order(said, names.market_of(market), uid)]


def _event_of(said: dict[str, Any]) -> int:
    if said.get("state") not in ("wait", "pending"):
        return FINISH
    executed = number(said.get("executed_volume"))
    return UPDATE if executed else PUT


def _order(said: dict[str, Any], market: str, uid: str) -> dict[str, Any]:
    executed = decimal(said.get("executed_volume")) or _ZERO
    created = _time(said.get("created_at", said.get("at")))
    return {
        "id": said.get("id"),
        "market": market,
        "source": said.get("source") or "",
        "type": 2 if said.get("ord_type") == "market" else 1,
        "side": 1 if said.get("side", said.get("kind")) in ("sell", "ask") else 2,
        "user": int(uid) if uid.isdecimal() and uid.isascii() and len(uid) < 19 else uid,
        "ctime": created or _time(said.get("at")),
        "mtime": _time(said.get("updated_at")) or created,
        "price": decimal(said.get("price")) or _ZERO,
        "amount": decimal(said.get("origin_volume", said.get("volume"))) or _ZERO,
        "taker_fee": decimal(said.get("taker_fee")) or _ZERO,
        "maker_fee": decimal(said.get("maker_fee")) or _ZERO,
        "left": decimal(said.get("remaining_volume")) or _ZERO,
        "deal_stock": executed,
        "deal_money": product(executed, said.get("avg_price")),
        "deal_fee": decimal(said.get("deal_fee")) or _ZERO,
    }


def balances(said: Any) -> dict[str, dict[str, str] | None]:
    """Return assets and what there is of each; None where the event does not say."""
    if isinstance(said, list):  # ViaBTC's own: [time, user, asset, business, change]
        asset = said[2] if len(said) >= 5 else None
        return {asset: None} if isinstance(asset, str) and asset else {}
    if not isinstance(said, dict):
        return {}
    asset = said.get("currency", said.get("asset", said.get("currency_id")))
    if isinstance(asset, str) and asset:
        return {asset: _balance(said)}
    return {name: _balance(held) for name, held in said.items() if isinstance(held, dict)}


def _balance(said: dict[str, Any]) -> dict[str, str] | None:
    available = _first(said, ("available", "balance"))
    freeze = _first(said, ("freeze", "locked", "frozen"))
    if available is None:
        return None
    return {"available": available, "freeze": freeze or _ZERO}


def _first(said: dict[str, Any], names: Iterable[str]) -> str | None:
    found = (decimal(said.get(name)) for name in names)
    return next((value for value in found if value is not None), None)
