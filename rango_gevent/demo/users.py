"""Users who trade on the simulated markets, and whose private events a client may follow.

A user has a few orders open at most, places one every few seconds at a price near the market, and
cancels what nobody took in time. All choices are drawn from the user's own seed.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Sequence
from typing import TypeVar

from rango_gevent.demo.market import Market
from rango_gevent.demo.orders import Order
from rango_gevent.demo.tape import Tape

_ORDER_CHANCE = 0.08  # that a user with room for an order places one, per tick
_MARKET_ORDER_CHANCE = 0.2
_OPEN_ORDERS_MAX = 3  # per user
_ORDER_LIFE_S = (4.0, 30.0)  # an order not filled by then is cancelled

_T = TypeVar("_T")


class User:
    """Someone who places an order every few seconds and cancels those that nobody takes."""

    def __init__(self, uid: str, markets: list[Market], rng: random.Random) -> None:
        self._uid = uid
        self._markets = markets
        self._rng = rng
        self._open: list[tuple[Market, Order]] = []

    def step(self, tape: Tape) -> None:
        """Cancel what has waited too long, and perhaps place one order."""
        for market, order in self._open:
            if order.state == "wait" and order.expires_s <= tape.now_s:
                market.cancel(order)
        self._open = [entry for entry in self._open if entry[1].state == "wait"]
        if len(self._open) < _OPEN_ORDERS_MAX and self._rng.random() < _ORDER_CHANCE:
            self._place(tape)

    def _place(self, tape: Tape) -> None:
        market = self._pick(self._markets)
        side = self._pick((market.bids, market.asks))
        at_market = self._rng.random() < _MARKET_ORDER_CHANCE
        order = Order(
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
