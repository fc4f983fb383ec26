"""The crowd of one market: a price that wanders, takers and makers, all drawn from one seed.

The price wanders around its starting value. Takers lift whatever levels it runs over, and hit the
best level now and then for no reason; makers quote where the spread grew wide, cancel, and change
their minds. So the book is never crossed, not even between two increments of one tick, and keeps
about ``DEPTH`` levels a side.
"""

from __future__ import annotations

import random

from rango_gevent.demo.book import Side
from rango_gevent.demo.market import Market

DEPTH = 300  # levels a side that the makers keep

_WALK_STEP = 4e-5  # standard deviation of one step, relative: 50 % a year at 5 ticks/s
_WALK_PULL = 1e-6  # part of the way back home that a step takes: prices stay within some percent
_TAKER_CHANCE = 0.25  # of an unprovoked market order, per market and tick
_CANCEL_CHANCE = 0.15  # that a maker who changes a level takes it away


class Crowd:
    """Everyone in a market but its users; opens the market by filling its book.

    Args:
        market: a market whose book is empty.
        rng: the only source of chance.
    """

    def __init__(self, market: Market, rng: random.Random) -> None:
        self._market = market
        self._rng = rng
        self._price = float(market.instrument.home_ticks)  # what the market thinks, in ticks
        self._gap = market.instrument.gap_ticks
        for side in (market.asks, market.bids):
            self._open(side)

    def _open(self, side: Side) -> None:
        price = self._market.instrument.home_ticks
        while len(side) < DEPTH:
            price += side.away * self._draw_gap()
            side.put(price, self._draw_lots())

    def step(self) -> None:
        """Move the price and let takers and makers act; at least one level changes."""
        market = self._market
        home = market.instrument.home_ticks
        self._price += self._price * self._rng.gauss(0, _WALK_STEP)
        self._price += (home - self._price) * _WALK_PULL
        for side in (market.asks, market.bids):
            while side.beyond(self._price, side.best):
                market.take(side, side.lots_at(side.best))
        if self._rng.random() < _TAKER_CHANCE:
            market.take(self._any_side(), self._draw_lots())
        for side in (market.asks, market.bids):
            self._tighten(side)
            self._keep_depth(side)
        self._change_mind(self._any_side())

    def _tighten(self, side: Side) -> None:
        """Quote nearer to the price when the best level of a side is far from it."""
        if abs(side.best - self._price) < 1.5 * self._gap:
            return
        # Takers have cleared what the price ran over: no level of the other side is in the way.
        price = int(self._price) + side.away * self._draw_gap()
        self._market.add(side, price, self._draw_lots())

    def _keep_depth(self, side: Side) -> None:
        """Let makers fill up a side that has too few levels, and trim its far end if too many."""
        while len(side) < DEPTH:
            self._market.add(side, self._price_for_new_level(side), self._draw_lots())
        while len(side) > DEPTH and not self._market.resting_lots(side.worst):
            self._market.set_level(side, side.worst, 0)

    def _price_for_new_level(self, side: Side) -> int:
        """Choose half way between two neighbours, or a place past the worst level."""
        index = self._draw_index(side)
        if index + 1 < len(side) and self._rng.random() < 0.5:
            return (side.price_at(index) + side.price_at(index + 1)) // 2
        return side.worst + side.away * self._draw_gap()

    def _change_mind(self, side: Side) -> None:
        """Give some level, often a near one, another amount; the users' part of it stays."""
        price = side.price_at(self._draw_index(side))
        own = self._market.resting_lots(price)
        cancel = self._rng.random() < _CANCEL_CHANCE
        self._market.set_level(side, price, own + (0 if cancel else self._draw_lots()))

    def _any_side(self) -> Side:
        return self._market.asks if self._rng.random() < 0.5 else self._market.bids

    def _draw_lots(self) -> int:
        return 1 + int(self._rng.expovariate(1.0) * self._market.instrument.typical_lots)

    def _draw_gap(self) -> int:
        return 1 + int(self._rng.random() * 2 * self._gap)

    def _draw_index(self, side: Side) -> int:
        return int(len(side) * self._rng.random() ** 3)
