"""A user's order, and the private events that tell of it: ``order`` and ``trade``.

``order`` carries ``uuid`` beside what Peatio's Order#for_notify has, which front ends of
third-party engines look for; ``trade`` is its Trade#for_notify. Prices are in ticks, amounts in
lots; the instrument turns them into text.
"""

from __future__ import annotations

import math
from typing import Any

from rango_gevent.demo.instruments import Instrument


class Order:
    """One user's order, from ``wait`` to ``done`` or ``cancel``; none is ever rejected here."""

    __slots__ = (
        "created_s", "expires_s", "funds", "id", "origin_lots", "price",
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
        """Book a trade."""
        self.remaining_lots -= lots
        self.funds += price * lots
        self.trades_count += 1
        if not self.remaining_lots:
            self.state = "done"

    def payload(self, instrument: Instrument) -> dict[str, Any]:
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


def private_trade(
    order: Order, trade: dict[str, Any], instrument: Instrument, funds: int
) -> dict[str, Any]:
    """Return the body of the ``trade`` event for the owner of an order.

    Args:
        order: the order that was filled.
        trade: what the public event says of the trade.
        instrument: the market's.
        funds: ticks x lots of this trade.
    """
    return {
        "id": trade["tid"],
        "price": trade["price"],
        "amount": trade["amount"],
        "total": instrument.total(funds),
        "market": instrument.market,
        "side": order.side,
        "taker_type": trade["taker_type"],
        "created_at": trade["date"],
        "order_id": order.id,
    }
