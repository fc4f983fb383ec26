"""A simulated exchange: the events that a Peatio publishes, without the Peatio.

What lives here: ``Exchange``, whose ``tick(now_s)`` advances every market by one step and returns
the events of that step, each a routing key and the bytes of its JSON body, ready to be published.

Rules that hold:

- Pure: no clock, no I/O, no randomness but ``random.Random(seed)``. The same arguments and the same
  sequence of ``now_s`` give the same bytes. Memory is bounded whatever the number of ticks.
- Prices are integers in ticks and amounts integers in lots from end to end; only the text on the
  wire has a decimal point, so no float noise can show.
- A book is never crossed, not even between two increments of one tick, and keeps about ``DEPTH``
  levels a side. A snapshot is sent only right before an increment: snapshot with sequence n, then
  the increments n + 1, n + 2, ...
- In an increment the amount is the level's new total, and the empty text ``""`` says that the level
  is gone. That is what Peatio's matching engine sends (its total for a missing level is ``nil``,
  whose ``to_s`` is empty); front ends read any amount that counts as zero in the same way. A level
  that the book does not hold is never reported as gone.

Shapes: docs/api/websocket_api.md of Peatio, its Order#for_notify, Trade#for_notify and
Trade#for_global, and Matching::Engine. ``order`` carries ``uuid`` too, which front ends of
third-party engines look for. Every value of money is a decimal string, except in klines.

How it works: a price wanders around its starting value. Takers lift whatever levels it runs over,
and hit the best level now and then for no reason; makers quote where the spread grew wide, cancel,
and change their minds. The users' own orders rest in the same books and are filled by the same
takers, first in their level.
"""

from __future__ import annotations

import json
import math
import random
import re
import uuid
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

DEPTH = 300  # levels a side that the makers keep
KLINE_PERIODS_S = {"1m": 60, "5m": 300, "15m": 900, "1h": 3600}

_TICKS_PER_GAP = 20_000  # a book's levels lie 1/20000 of the price apart: 300 levels span 1.5 %
_WALK_STEP = 4e-5  # standard deviation of one step, relative: 50 % a year at 5 ticks/s
_WALK_PULL = 1e-6  # part of the way back home that a step takes: prices stay within some percent
_TAKER_CHANCE = 0.25  # of an unprovoked market order, per market and tick
_CANCEL_CHANCE = 0.15  # that a maker who changes a level takes it away
_TYPICAL_USD = 1500.0  # value of a typical level

_ORDER_CHANCE = 0.08  # that a user with room for an order places one, per tick
_MARKET_ORDER_CHANCE = 0.2
_OPEN_ORDERS_MAX = 3  # per user
_ORDER_LIFE_S = (4.0, 30.0)  # an order not filled by then is cancelled

_HOURS_A_DAY = 24
_PAST_TRADES_AN_HOUR = 5_000  # of a typical size; about what the markets go on to do
_MONEY_PLACES = 16  # Peatio's database keeps no more
_NAME = re.compile(r"[A-Za-z0-9_-]+")  # one word of a routing key, harmless in JSON
_USD_VALUES = {
    "bch": 400.0,
    "btc": 60_000.0,
    "dash": 30.0,
    "eth": 3_000.0,
    "eur": 1.1,
    "gbp": 1.3,
    "ltc": 80.0,
    "usd": 1.0,
    "usdc": 1.0,
    "usdt": 1.0,
    "xrp": 0.6,
}

_T = TypeVar("_T")
_encode = json.JSONEncoder(separators=(",", ":")).encode


class Event(NamedTuple):
    """One message for the broker: ``body`` is compact JSON in UTF-8."""

    routing_key: str
    body: bytes


class Exchange:
    """Several markets and a few users who trade on them, one step at a time.

    Args:
        seed: the whole course of events follows from it.
        markets: ids such as ``btcusd``; an unknown currency gets a value drawn from the seed.
        users: uids whose private orders and trades are published.
        snapshot_every: increments of a book from one of its snapshots to the next. The default is
            about ten seconds at 5 ticks a second, Peatio's pace for a busy market.

    Raises:
        ValueError: no market, a market or uid that cannot be one word of a routing key or is named
            twice, or a ``snapshot_every`` below 1.
    """

    def __init__(
        self,
        *,
        seed: int = 1,
        markets: Sequence[str] = ("btcusd", "ethusd", "ltcbtc"),
        users: Sequence[str] = ("IDDEMO01",),
        snapshot_every: int = 200,
    ) -> None:
        if not markets:
            raise ValueError("an exchange needs at least one market")
        _check_names("market", markets)
        _check_names("user", users)
        if snapshot_every < 1:
            raise ValueError(f"snapshot_every must be 1 or more, not {snapshot_every}")
        self._tape = _Tape()
        self._markets = {
            name: _Market(
                _instrument(name, seed),
                self._tape,
                random.Random(f"{seed}/market/{name}"),
                snapshot_every,
            )
            for name in markets
        }
        self._users = [
            _User(uid, list(self._markets.values()), random.Random(f"{seed}/user/{uid}"))
            for uid in users
        ]
        self._summary_s: int | None = None

    def tick(self, now_s: float) -> list[Event]:
        """Advance the simulation by one step and return what it published, in order.

        Args:
            now_s: unix time in seconds. A time before the last one counts as the last one.
        """
        self._tape.now_s = max(self._tape.now_s, now_s)
        for market in self._markets.values():
            market.step()
        for user in self._users:
            user.step(self._tape)
        if self._tape.date_s != self._summary_s:
            self._summary_s = self._tape.date_s
            self._publish_summaries()
        return self._tape.take()

    def book(self, market: str) -> dict[str, Any]:
        """Return a market's book in the shape of a snapshot: ``asks``, ``bids``, ``sequence``.

        Raises:
            KeyError: there is no such market.
        """
        return self._markets[market].book()

    def _publish_summaries(self) -> None:
        """Publish, once a second, the klines that changed and all tickers."""
        for market in self._markets.values():
            market.publish_klines()
        tickers = {name: market.ticker() for name, market in self._markets.items()}
        self._tape.publish("public.global.tickers", tickers)


def _check_names(what: str, names: Sequence[str]) -> None:
    """Raise ValueError unless every name is one word of a routing key and there is no double."""
    for name in names:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{what} {name!r} must be letters, digits, '_' or '-'")
    if len(set(names)) != len(names):
        raise ValueError(f"{what} named twice: {', '.join(names)}")


class _Tape:
    """The time of the running tick, its events so far, and the exchange-wide counters."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._events: list[Event] = []
        self._trade_id = 0
        self._order_id = 0

    @property
    def date_s(self) -> int:
        """Whole seconds of the running tick, as Peatio stamps its events."""
        return int(self.now_s)

    def publish(self, routing_key: str, payload: object) -> None:
        self._events.append(Event(routing_key, _encode(payload).encode()))

    def take(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    def next_trade_id(self) -> int:
        self._trade_id += 1
        return self._trade_id

    def next_order_id(self) -> int:
        self._order_id += 1
        return self._order_id


# --- what a market trades, and its numbers as text -------------------------------------------


class _Instrument(NamedTuple):
    """A market's currencies and units: a tick is 10^-price_places, a lot 10^-amount_places."""

    market: str
    base: str
    quote: str
    price_places: int
    amount_places: int
    home_ticks: int  # the price that the walk starts from and is pulled back to
    typical_lots: int

    def price(self, ticks: int) -> str:
        return _decimal(ticks, self.price_places)

    def amount(self, lots: int) -> str:
        return _decimal(lots, self.amount_places)

    def total(self, funds: int) -> str:
        """Format quote money, counted in ticks x lots."""
        return _decimal(funds, self.price_places + self.amount_places)


def _decimal(units: int, places: int) -> str:
    """Format ``units`` x 10^-places with exactly that many decimals."""
    whole, rest = divmod(units, 10**places)
    return f"{whole}.{rest:0{places}d}"


def _instrument(market: str, seed: int) -> _Instrument:
    """Choose units fit for the market's price: about six digits of it, a lot worth some cents."""
    base, quote = _split(market.lower())
    base_usd, quote_usd = _usd_value(base, seed), _usd_value(quote, seed)
    price = base_usd / quote_usd
    price_places = max(2, 5 - math.floor(math.log10(price)))
    amount_places = min(max(2, math.ceil(math.log10(base_usd)) + 1), _MONEY_PLACES - price_places)
    return _Instrument(
        market=market,
        base=base,
        quote=quote,
        price_places=price_places,
        amount_places=amount_places,
        home_ticks=round(price * 10**price_places),
        typical_lots=max(10, round(_TYPICAL_USD / base_usd * 10**amount_places)),
    )


def _split(market: str) -> tuple[str, str]:
    """Cut a market id into base and quote currency; an unknown quote is its last three letters."""
    known = (quote for quote in sorted(_USD_VALUES, key=len, reverse=True))
    quote = next((q for q in known if market.endswith(q)), market[-3:])
    base = market[: -len(quote)].strip("_-")
    return (base, quote) if base else (market, "usd")


def _usd_value(currency: str, seed: int) -> float:
    """Return what one unit is worth in dollars; drawn from the seed when the table has none."""
    known = _USD_VALUES.get(currency)
    if known is not None:
        return known
    drawn: float = 10 ** random.Random(f"{seed}/currency/{currency}").uniform(-2, 3)
    return drawn


# --- one side of a book ----------------------------------------------------------------------


class _Side:
    """The levels of one side, best first, without a thought about the wire.

    ``away`` is the direction in ticks from the best price to the worst: +1 for asks, -1 for bids.
    A key is a price times ``away``, so that both sides sort best first and share all the code.
    """

    def __init__(self, name: str, taker_type: str, away: int) -> None:
        self.name = name
        self.taker_type = taker_type  # what someone who takes from this side does
        self.away = away
        self._keys: list[int] = []
        self._lots: dict[int, int] = {}  # by price

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield (price in ticks, lots), best level first."""
        for key in self._keys:
            yield key * self.away, self._lots[key * self.away]

    @property
    def best(self) -> int:
        return self._keys[0] * self.away

    @property
    def worst(self) -> int:
        return self._keys[-1] * self.away

    def price_at(self, index: int) -> int:
        return self._keys[index] * self.away

    def lots_at(self, price: int) -> int:
        return self._lots.get(price, 0)

    def beyond(self, price: float, other: float) -> bool:
        """Tell whether ``price`` lies further away from the market than ``other``."""
        return (price - other) * self.away > 0

    def put(self, price: int, lots: int) -> None:
        """Set a level's amount; zero removes it."""
        key = price * self.away
        if lots and price not in self._lots:
            insort(self._keys, key)
        if lots:
            self._lots[price] = lots
        elif self._lots.pop(price, None) is not None:
            del self._keys[bisect_left(self._keys, key)]


# --- candles ---------------------------------------------------------------------------------


class _Candle:
    """What traded in one period: prices in ticks, ``funds`` in ticks x lots."""

    __slots__ = ("close", "funds", "high", "lots", "low", "open", "start_s", "unpublished")

    def __init__(self, start_s: int, price: int) -> None:
        self.start_s = start_s
        self.open = self.high = self.low = self.close = price
        self.lots = 0
        self.funds = 0
        self.unpublished = False

    def add(self, price: int, lots: int) -> None:
        self.high = max(self.high, price)
        self.low = min(self.low, price)
        self.close = price
        self.lots += lots
        self.funds += price * lots
        self.unpublished = True


class _Chart:
    """The running candle of each period, and the hours that make up the last day."""

    def __init__(self, past_hours: list[_Candle]) -> None:
        self._running: dict[str, _Candle] = {}
        self._hours = deque(past_hours, maxlen=_HOURS_A_DAY)

    def add(self, date_s: int, price: int, lots: int) -> Iterator[tuple[str, _Candle]]:
        """Add a trade; yield the candles that it closed and that changed since they were sent."""
        for period, seconds in KLINE_PERIODS_S.items():
            start_s = date_s - date_s % seconds
            candle = self._running.get(period)
            if candle is None or candle.start_s != start_s:
                if candle is not None and candle.unpublished:
                    yield period, candle
                candle = self._running[period] = _Candle(start_s, price)
                if period == "1h":
                    self._hours.append(candle)
            candle.add(price, lots)

    def changed(self) -> Iterator[tuple[str, _Candle]]:
        """Yield the running candles that changed since they were sent."""
        return (entry for entry in self._running.items() if entry[1].unpublished)

    def day(self) -> _Candle:
        """Sum up the last 24 hourly candles, the running one included."""
        day = _Candle(0, self._hours[0].open)
        for hour in self._hours:
            day.high = max(day.high, hour.high)
            day.low = min(day.low, hour.low)
            day.lots += hour.lots
            day.funds += hour.funds
        day.close = self._hours[-1].close
        return day


def _past_hours(instrument: _Instrument, rng: random.Random) -> list[_Candle]:
    """Invent the hours before the first tick, so that the ticker has a day to sum up."""
    hours: list[_Candle] = []
    close = instrument.home_ticks
    for _ in range(_HOURS_A_DAY - 1):
        candle = _Candle(0, round(close * (1 + rng.gauss(0, 0.004))))
        lots = round(instrument.typical_lots * _PAST_TRADES_AN_HOUR / 3 * (0.5 + rng.random()))
        turns = (max(candle.open, close) * 1.001, min(candle.open, close) * 0.999, close)
        for price in turns:
            candle.add(round(price), lots)
        hours.append(candle)
        close = candle.open
    hours.reverse()
    return hours


# --- orders and users ------------------------------------------------------------------------


class _Order:
    """One user's order, from ``wait`` to ``done`` or ``cancel``; none is ever rejected here."""

    __slots__ = (
        "created_s", "expires_s", "funds", "id", "market", "origin_lots", "price",
        "remaining_lots", "side", "state", "trades_count", "uid", "updated_s", "uuid",
    )  # fmt: skip

    def __init__(
        self, uid: str, order_id: int, order_uuid: str, side: str, price: int | None, lots: int
    ) -> None:
        self.uid = uid
        self.id = order_id
        self.uuid = order_uuid
        self.side = side  # buy or sell
        self.price = price  # ticks; None makes it a market order
        self.origin_lots = self.remaining_lots = lots
        self.funds = 0  # ticks x lots executed so far
        self.trades_count = 0
        self.state = "wait"
        self.created_s = self.updated_s = 0
        self.expires_s = math.inf

    def fill(self, price: int, lots: int) -> None:
        self.remaining_lots -= lots
        self.funds += price * lots
        self.trades_count += 1
        if not self.remaining_lots:
            self.state = "done"

    def payload(self, instrument: _Instrument) -> dict[str, Any]:
        """Return the body of the ``order`` event."""
        executed = self.origin_lots - self.remaining_lots
        return {
            "id": self.id,
            "uuid": self.uuid,
            "market": instrument.market,
            "kind": "bid" if self.side == "buy" else "ask",
            "side": self.side,
            "ord_type": "market" if self.price is None else "limit",
            "price": None if self.price is None else instrument.price(self.price),
            "avg_price": instrument.price(self.funds // executed if executed else 0),
            "state": self.state,
            "origin_volume": instrument.amount(self.origin_lots),
            "remaining_volume": instrument.amount(self.remaining_lots),
            "executed_volume": instrument.amount(executed),
            "at": self.created_s,
            "created_at": self.created_s,
            "updated_at": self.updated_s,
            "trades_count": self.trades_count,
        }


class _User:
    """Someone who places an order every few seconds and cancels those that nobody takes."""

    def __init__(self, uid: str, markets: list[_Market], rng: random.Random) -> None:
        self._uid = uid
        self._markets = markets
        self._rng = rng
        self._open: list[tuple[_Market, _Order]] = []

    def step(self, tape: _Tape) -> None:
        """Cancel what has waited too long, and perhaps place one order."""
        for market, order in self._open:
            if order.state == "wait" and order.expires_s <= tape.now_s:
                market.cancel(order)
        self._open = [entry for entry in self._open if entry[1].state == "wait"]
        if len(self._open) < _OPEN_ORDERS_MAX and self._rng.random() < _ORDER_CHANCE:
            self._place(tape)

    def _place(self, tape: _Tape) -> None:
        market = self._pick(self._markets)
        side = self._pick((market.bids, market.asks))
        at_market = self._rng.random() < _MARKET_ORDER_CHANCE
        order = _Order(
            self._uid,
            tape.next_order_id(),
            str(uuid.UUID(int=self._rng.getrandbits(128), version=4)),
            "buy" if side is market.bids else "sell",
            None if at_market else market.price_near(side, self._rng.random()),
            1 + int(market.instrument.typical_lots * (0.2 + self._rng.random())),
        )
        order.created_s = order.updated_s = tape.date_s
        if at_market:
            market.execute(order)
            return
        shortest, longest = _ORDER_LIFE_S
        order.expires_s = tape.now_s + shortest + (longest - shortest) * self._rng.random()
        market.rest(order)
        self._open.append((market, order))

    def _pick(self, choices: Sequence[_T]) -> _T:
        return choices[int(self._rng.random() * len(choices))]


# --- one market ------------------------------------------------------------------------------


class _Market:
    """One book, its wandering price, and everything that it publishes."""

    def __init__(
        self, instrument: _Instrument, tape: _Tape, rng: random.Random, snapshot_every: int
    ) -> None:
        self.instrument = instrument
        self.asks = _Side("asks", "buy", +1)
        self.bids = _Side("bids", "sell", -1)
        self._tape = tape
        self._rng = rng
        self._price = float(instrument.home_ticks)  # what the market thinks, in ticks
        self._gap = max(2, instrument.home_ticks // _TICKS_PER_GAP)
        self._resting: dict[int, list[_Order]] = {}  # the users' limit orders by price
        self._chart = _Chart(_past_hours(instrument, rng))
        self._snapshot_every = snapshot_every
        self._since_snapshot = snapshot_every  # so that the first increment brings a snapshot
        self._sequence = 1
        for side in (self.asks, self.bids):
            price = instrument.home_ticks
            while len(side) < DEPTH:
                price += side.away * self._draw_gap()
                side.put(price, self._draw_lots())

    # the crowd

    def step(self) -> None:
        """Move the price and let takers and makers act; at least one level changes."""
        home = self.instrument.home_ticks
        self._price += self._price * self._rng.gauss(0, _WALK_STEP)
        self._price += (home - self._price) * _WALK_PULL
        for side in (self.asks, self.bids):
            while side.beyond(self._price, side.best):
                self._take(side, side.lots_at(side.best))
        if self._rng.random() < _TAKER_CHANCE:
            self._take(self._any_side(), self._draw_lots())
        for side in (self.asks, self.bids):
            self._tighten(side)
            self._keep_depth(side)
        self._change_mind(self._any_side())

    def _tighten(self, side: _Side) -> None:
        """Quote nearer to the price when the best level of a side is far from it."""
        if abs(side.best - self._price) < 1.5 * self._gap:
            return
        # Takers have cleared what the price ran over: no level of the other side is in the way.
        self._add(side, int(self._price) + side.away * self._draw_gap(), self._draw_lots())

    def _keep_depth(self, side: _Side) -> None:
        """Let makers fill up a side that has too few levels, and trim its far end if too many."""
        while len(side) < DEPTH:
            self._add(side, self._price_for_new_level(side), self._draw_lots())
        while len(side) > DEPTH and side.worst not in self._resting:
            self._set_level(side, side.worst, 0)

    def _price_for_new_level(self, side: _Side) -> int:
        """Choose half way between two neighbours, or a place past the worst level."""
        index = self._draw_index(side)
        if index + 1 < len(side) and self._rng.random() < 0.5:
            return (side.price_at(index) + side.price_at(index + 1)) // 2
        return side.worst + side.away * self._draw_gap()

    def _change_mind(self, side: _Side) -> None:
        """Give some level, often a near one, another amount; the users' part of it stays."""
        price = side.price_at(self._draw_index(side))
        own = sum(order.remaining_lots for order in self._resting.get(price, ()))
        cancel = self._rng.random() < _CANCEL_CHANCE
        self._set_level(side, price, own + (0 if cancel else self._draw_lots()))

    def _opposite(self, side: _Side) -> _Side:
        return self.bids if side is self.asks else self.asks

    def _any_side(self) -> _Side:
        return self.asks if self._rng.random() < 0.5 else self.bids

    def _draw_lots(self) -> int:
        return 1 + int(self._rng.expovariate(1.0) * self.instrument.typical_lots)

    def _draw_gap(self) -> int:
        return 1 + int(self._rng.random() * 2 * self._gap)

    def _draw_index(self, side: _Side) -> int:
        return int(len(side) * self._rng.random() ** 3)

    # the users

    def price_near(self, side: _Side, where: float) -> int:
        """Return a limit price for a maker: from just inside the spread to a few levels deep.

        Args:
            side: the side that the order is to rest on.
            where: 0 is the nearest, 1 the deepest.
        """
        price = side.best + side.away * round((3 * where - 0.5) * self._gap)
        return price if side.beyond(price, self._opposite(side).best) else side.best

    def rest(self, order: _Order) -> None:
        """Put a limit order into the book; its price must not reach the other side."""
        assert order.price is not None
        self._publish_order(order)
        self._resting.setdefault(order.price, []).append(order)
        self._add(self._side_of(order), order.price, order.remaining_lots)

    def execute(self, order: _Order) -> None:
        """Fill a market order at once. Peatio does not show one before it is done."""
        self._take(self._opposite(self._side_of(order)), order.remaining_lots, order)

    def cancel(self, order: _Order) -> None:
        """Take a waiting limit order out of the book."""
        assert order.price is not None
        self._leave(order, order.price)
        self._add(self._side_of(order), order.price, -order.remaining_lots)
        order.state = "cancel"
        self._publish_order(order)

    def _leave(self, order: _Order, price: int) -> None:
        queue = self._resting[price]
        queue.remove(order)
        if not queue:
            del self._resting[price]

    def _side_of(self, order: _Order) -> _Side:
        return self.bids if order.side == "buy" else self.asks

    # trades

    def _take(self, side: _Side, lots: int, taker: _Order | None = None) -> None:
        """Execute a market order against a side, best level first.

        A side cannot run empty: it holds ``DEPTH`` amounts, and no draw exceeds some 40 of them.
        """
        while lots:
            price = side.best
            queue = self._resting.get(price)
            maker = queue[0] if queue else None
            level_lots = side.lots_at(price)
            filled = min(lots, maker.remaining_lots if maker else level_lots)
            self._set_level(side, price, level_lots - filled)
            self._trade(side.taker_type, price, filled, maker, taker)
            lots -= filled

    def _trade(
        self, taker_type: str, price: int, lots: int, maker: _Order | None, taker: _Order | None
    ) -> None:
        date_s, trade_id = self._tape.date_s, self._tape.next_trade_id()
        for period, closed in self._chart.add(date_s, price, lots):
            self._publish_kline(period, closed)
        trade = {
            "tid": trade_id,
            "taker_type": taker_type,
            "date": date_s,
            "price": self.instrument.price(price),
            "amount": self.instrument.amount(lots),
        }
        for order in (maker, taker):
            if order is not None:
                self._fill(order, trade, price, lots)
        self._tape.publish(f"public.{self.instrument.market}.trades", {"trades": [trade]})

    def _fill(self, order: _Order, trade: dict[str, Any], price: int, lots: int) -> None:
        """Book a trade on a user's order, and tell the user."""
        order.fill(price, lots)
        if order.price is not None and order.state == "done":
            self._leave(order, order.price)
        if order.price is not None or order.state == "done":
            self._publish_order(order)
        self._tape.publish(
            f"private.{order.uid}.trade",
            {
                "id": trade["tid"],
                "price": trade["price"],
                "amount": trade["amount"],
                "total": self.instrument.total(price * lots),
                "market": self.instrument.market,
                "side": order.side,
                "taker_type": trade["taker_type"],
                "created_at": trade["date"],
                "order_id": order.id,
            },
        )

    # what goes out

    def book(self) -> dict[str, Any]:
        """Return the book as a snapshot shows it."""
        price, amount = self.instrument.price, self.instrument.amount
        return {
            "asks": [[price(ticks), amount(lots)] for ticks, lots in self.asks],
            "bids": [[price(ticks), amount(lots)] for ticks, lots in self.bids],
            "sequence": self._sequence,
        }

    def _add(self, side: _Side, price: int, lots: int) -> None:
        self._set_level(side, price, side.lots_at(price) + lots)

    def _set_level(self, side: _Side, price: int, lots: int) -> None:
        """Change one level: the only way into the books, and the only source of increments."""
        key = f"public.{self.instrument.market}.ob-"
        if self._since_snapshot >= self._snapshot_every:
            self._tape.publish(key + "snap", self.book())
            self._since_snapshot = 0
        side.put(price, lots)
        self._sequence += 1
        self._since_snapshot += 1
        amount = self.instrument.amount(lots) if lots else ""
        level = [self.instrument.price(price), amount]
        self._tape.publish(key + "inc", {side.name: level, "sequence": self._sequence})

    def _publish_order(self, order: _Order) -> None:
        order.updated_s = self._tape.date_s
        self._tape.publish(f"private.{order.uid}.order", order.payload(self.instrument))

    def publish_klines(self) -> None:
        """Publish the running candles that traded since they were last sent."""
        for period, candle in self._chart.changed():
            self._publish_kline(period, candle)

    def _publish_kline(self, period: str, candle: _Candle) -> None:
        """Publish ``[start, open, high, low, close, volume]``, start in unix seconds."""
        candle.unpublished = False
        # Dividing integers rounds correctly: the number prints as the decimal that it stands for.
        scale = 10**self.instrument.price_places
        prices = (candle.open, candle.high, candle.low, candle.close)
        volume = candle.lots / 10**self.instrument.amount_places
        point = [candle.start_s, *(price / scale for price in prices), volume]
        self._tape.publish(f"public.{self.instrument.market}.kline-{period}", point)

    def ticker(self) -> dict[str, Any]:
        """Sum up the last 24 hours: ``volume`` in the quote currency, ``amount`` in the base."""
        instrument, day = self.instrument, self._chart.day()
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
            "at": self._tape.date_s,
        }
