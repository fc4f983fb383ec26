"""One market: its book, the orders that rest in it, its trades, and all that it publishes.

Rules that hold:

- A snapshot is sent only right before an increment: snapshot with sequence n, then the increments
  n + 1, n + 2, ...
- In an increment the amount is the level's new total, and the empty text ``""`` says that the level
  is gone. That is what Peatio's matching engine sends (its total for a missing level is ``nil``,
  whose ``to_s`` is empty); front ends read any amount that counts as zero in the same way. A level
  that the book does not hold is never reported as gone.
- The users' own orders are part of their levels' amounts and are filled first in them.

No chance is at work here: what happens is decided by the crowd and the users above.
"""

from __future__ import annotations

from typing import Any

from rango_gevent.demo.book import Side
from rango_gevent.demo.instruments import Instrument
from rango_gevent.demo.orders import Order, private_trade
from rango_gevent.demo.tape import Tape


class Market:
    """One book and everything that it publishes.

    Args:
        instrument: what is traded.
        tape: where events go.
        snapshot_every: increments from one snapshot to the next.
    """

    def __init__(self, instrument: Instrument, tape: Tape, snapshot_every: int) -> None:
        self.instrument = instrument
        self.asks = Side("asks", "buy", +1)
        self.bids = Side("bids", "sell", -1)
        self._tape = tape
        self._resting: dict[int, list[Order]] = {}  # the users' limit orders by price
        self._snapshot_every = snapshot_every
        self._since_snapshot = snapshot_every  # so that the first increment brings a snapshot
        self._sequence = 1

    # orders

    def price_near(self, side: Side, where: float) -> int:
        """Return a limit price for a maker: from just inside the spread to a few levels deep.

        Args:
            side: the side that the order is to rest on.
            where: 0 is the nearest, 1 the deepest.
        """
        price = side.best + side.away * round((3 * where - 0.5) * self.instrument.gap_ticks)
        return price if side.beyond(price, self._opposite(side).best) else side.best

    def rest(self, order: Order) -> None:
        """Put a limit order into the book; its price must not reach the other side."""
        assert order.price is not None
        self._publish_order(order)
        self._resting.setdefault(order.price, []).append(order)
        self.add(self._side_of(order), order.price, order.remaining_lots)

    def execute(self, order: Order) -> None:
        """Fill a market order at once. Peatio does not show one before it is done."""
        self.take(self._opposite(self._side_of(order)), order.remaining_lots, order)

    def cancel(self, order: Order) -> None:
        """Take a waiting limit order out of the book."""
        assert order.price is not None
        self._leave(order, order.price)
        self.add(self._side_of(order), order.price, -order.remaining_lots)
        order.state = "cancel"
        self._publish_order(order)

    def resting_lots(self, price: int) -> int:
        """Return how much of a level the users' orders are."""
        return sum(order.remaining_lots for order in self._resting.get(price, ()))

    def _leave(self, order: Order, price: int) -> None:
        queue = self._resting[price]
        queue.remove(order)
        if not queue:
            del self._resting[price]

    def _side_of(self, order: Order) -> Side:
        return self.bids if order.side == "buy" else self.asks

    def _opposite(self, side: Side) -> Side:
        return self.bids if side is self.asks else self.asks

    # trades

    def take(self, side: Side, lots: int, taker: Order | None = None) -> None:
        """Execute a market order against a side, best level first.

        A side cannot run empty: the crowd keeps hundreds of levels, and nobody takes more than
        some 40 of them at once.
        """
        while lots:
            price = side.best
            queue = self._resting.get(price)
            maker = queue[0] if queue else None
            level_lots = side.lots_at(price)
            filled = min(lots, maker.remaining_lots if maker else level_lots)
            self.set_level(side, price, level_lots - filled)
            self._trade(side.taker_type, price, filled, maker, taker)
            lots -= filled

    def _trade(
        self, taker_type: str, price: int, lots: int, maker: Order | None, taker: Order | None
    ) -> None:
        date_s, trade_id = self._tape.date_s, self._tape.next_trade_id()
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

    def _fill(self, order: Order, trade: dict[str, Any], price: int, lots: int) -> None:
        """Book a trade on a user's order, and tell the user."""
        order.fill(price, lots)
        if order.price is not None and order.state == "done":
            self._leave(order, order.price)
        if order.price is not None or order.state == "done":
            self._publish_order(order)
        body = private_trade(order, trade, self.instrument, price * lots)
        self._tape.publish(f"private.{order.uid}.trade", body)

    def _publish_order(self, order: Order) -> None:
        order.updated_s = self._tape.date_s
        self._tape.publish(f"private.{order.uid}.order", order.payload(self.instrument))

    # the book

    def book(self) -> dict[str, Any]:
        """Return the book as a snapshot shows it."""
        price, amount = self.instrument.price, self.instrument.amount
        return {
            "asks": [[price(ticks), amount(lots)] for ticks, lots in self.asks],
            "bids": [[price(ticks), amount(lots)] for ticks, lots in self.bids],
            "sequence": self._sequence,
        }

    def add(self, side: Side, price: int, lots: int) -> None:
        """Change a level by some lots, up or down."""
        self.set_level(side, price, side.lots_at(price) + lots)

    def set_level(self, side: Side, price: int, lots: int) -> None:
        """Change one level: the only way into an open book, and the only source of increments."""
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
