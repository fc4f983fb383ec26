"""Trades for the tests of market data, and the simplest way to sum them up."""

from __future__ import annotations

import json
from decimal import Context, Decimal
from typing import Any, Iterable

from rango_gevent.marketdata.desk import Desk, Limits
from rango_gevent.marketdata.memory import MemoryStore
from rango_gevent.marketdata.periods import start_of
from rango_gevent.marketdata.trades import Trade

NOW_S = 1_700_000_000.0
LIMITS = Limits(trades=100_000, late_s=1e9)


def body(*trades: Trade, **more: Any) -> bytes:
    """Return a message as Peatio publishes it."""
    return json.dumps(
        {
            "trades": [
                {
                    "tid": trade.id,
                    "taker_type": trade.side,
                    "date": trade.at_s,
                    "price": str(trade.price),
                    "amount": str(trade.amount),
                    **more,
                }
                for trade in trades
            ]
        }
    ).encode()


def trade(number: int, at_s: float, price: str = "10", amount: str = "1") -> Trade:
    """Return a trade."""
    return Trade(at_s, number, Decimal(price), Decimal(amount), "buy")


def desk(store: MemoryStore, limits: Limits = LIMITS) -> Desk:
    """Return a desk that goes on from what is in a store."""
    made = Desk(store.read, limits)
    made.restore(store.load())
    return made


def save(made: Desk, store: MemoryStore) -> None:
    """Save what changed."""
    changes = made.collect()
    store.save(changes)
    made.saved(changes)


def oracle(trades: Iterable[Trade], period: int) -> list[tuple[Any, ...]]:
    """Return start, open, high, low, close, volume and deal of each period in which there was one.

    Straight from the words: of all trades of a period, in the order of time and id.
    """
    by_start: dict[int, list[Trade]] = {}
    for one in sorted(trades, key=lambda one: (one.at_s, one.id)):
        by_start.setdefault(start_of(period, one.at_s), []).append(one)
    exact = Context(prec=500)
    rows = []
    for start_s, inside in sorted(by_start.items()):
        volume = deal = Decimal(0)
        for one in inside:
            volume = exact.add(volume, one.amount)
            deal = exact.add(deal, exact.multiply(one.amount, one.price))
        prices = [one.price for one in inside]
        rows.append((start_s, prices[0], max(prices), min(prices), prices[-1], volume, deal))
    return rows
