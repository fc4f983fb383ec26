"""The users of a simulated exchange and their orders, followed by their private events alone."""

from __future__ import annotations

from collections import Counter, defaultdict
from decimal import Decimal
from typing import Any

import pytest
from demo_events import bodies, ticks

from rango_gevent.demo.exchange import Exchange


class Lives:
    """Follows the orders of all users from their private events, and checks each step."""

    def __init__(self) -> None:
        self.orders: dict[int, dict[str, Any]] = {}
        self.owners: dict[int, str] = {}
        self.trades: dict[int, list[dict[str, Any]]] = defaultdict(list)
        self.paths: Counter[str] = Counter()

    def see(self, uid: str, order: dict[str, Any]) -> None:
        """Take an ``order`` event, which must be a legal next step of its order."""
        volumes = ("origin_volume", "remaining_volume", "executed_volume")
        origin, remaining, executed = (Decimal(order[name]) for name in volumes)
        assert origin == remaining + executed
        assert origin > 0
        assert (order["state"] == "done") == (remaining == 0)
        assert order["kind"] == {"buy": "bid", "sell": "ask"}[order["side"]]
        assert (order["price"] is None) == (order["ord_type"] == "market")
        before = self.orders.get(order["id"])
        if before is None:
            self._see_first(uid, order)
        else:
            self._see_next(uid, before, order)
        self.orders[order["id"]] = order
        self.paths[self._path(order)] += 1

    def _see_first(self, uid: str, order: dict[str, Any]) -> None:
        assert order["id"] > max(self.orders, default=0)
        self.owners[order["id"]] = uid
        if order["ord_type"] == "limit":
            assert order["state"] == "wait"
            assert order["trades_count"] == 0
        else:
            assert order["state"] == "done"

    def _see_next(self, uid: str, before: dict[str, Any], order: dict[str, Any]) -> None:
        assert self.owners[order["id"]] == uid
        assert before["state"] == "wait", "an order moved after its end"
        for name in ("uuid", "market", "side", "ord_type", "price", "origin_volume", "created_at"):
            assert order[name] == before[name]
        assert order["updated_at"] >= before["updated_at"]
        filled = order["trades_count"] - before["trades_count"]
        assert filled == (0 if order["state"] == "cancel" else 1)
        executed = Decimal(order["executed_volume"]) - Decimal(before["executed_volume"])
        assert (executed > 0) == bool(filled)

    def _path(self, order: dict[str, Any]) -> str:
        partly = order["trades_count"] > 1 or Decimal(order["remaining_volume"]) > 0
        touched = "partly" if order["trades_count"] and partly else "plain"
        return f"{order['ord_type']} {order['state']} {touched}"

    def open(self) -> list[dict[str, Any]]:
        """Return the orders that wait in a book."""
        return [order for order in self.orders.values() if order["state"] == "wait"]


def follow(exchange: Exchange, count: int) -> Lives:
    """Run ticks and let ``Lives`` follow; now and then compare the books with the orders."""
    lives = Lives()
    for number, events in enumerate(ticks(exchange, count)):
        public = {}
        for _, body in bodies(events, r"public\.\w+\.trades"):
            public[body["trades"][0]["tid"]] = body["trades"][0]
        for key, body in bodies(events, r"private\..*"):
            _, uid, kind = key.split(".")
            if kind == "order":
                lives.see(uid, body)
            else:
                check_private_trade(body, public[body["id"]])
                lives.trades[body["order_id"]].append(body)
        if number % 10 == 0:
            check_books_hold(exchange, lives.open())
    return lives


def check_private_trade(trade: dict[str, Any], public: dict[str, Any]) -> None:
    """Compare a private trade with the public event of the same trade."""
    assert Decimal(trade["total"]) == Decimal(trade["price"]) * Decimal(trade["amount"])
    assert (trade["price"], trade["amount"]) == (public["price"], public["amount"])
    assert (trade["taker_type"], trade["created_at"]) == (public["taker_type"], public["date"])


def check_books_hold(exchange: Exchange, orders: list[dict[str, Any]]) -> None:
    """Check that every waiting order lies in its book, in a level at least as large."""
    wanted: dict[tuple[str, str, str], Decimal] = defaultdict(Decimal)
    for order in orders:
        wanted[order["market"], order["kind"] + "s", order["price"]] += Decimal(
            order["remaining_volume"]
        )
    books = {market: exchange.book(market) for market, _, _ in wanted}
    for (market, side, price), volume in wanted.items():
        assert Decimal(dict(books[market][side])[price]) >= volume


@pytest.mark.parametrize("seed", [1, 7])
def test_orders_live_legal_lives(seed: int) -> None:
    """Orders wait, fill in parts, end once, and their trades add up to what they say."""
    lives = follow(Exchange(seed=seed, users=["A1", "B2", "C3"]), 1000)
    assert set(lives.owners.values()) == {"A1", "B2", "C3"}
    assert len({order["uuid"] for order in lives.orders.values()}) == len(lives.orders)
    for order_id, order in lives.orders.items():
        trades = lives.trades[order_id]
        assert order["trades_count"] == len(trades)
        amount = sum((Decimal(trade["amount"]) for trade in trades), Decimal(0))
        assert Decimal(order["executed_volume"]) == amount
        assert {trade["market"] for trade in trades} <= {order["market"]}
        assert {trade["side"] for trade in trades} <= {order["side"]}
        if trades:
            total = sum(Decimal(trade["total"]) for trade in trades)
            tick = Decimal(10) ** -len(trades[0]["price"].partition(".")[2])
            assert 0 <= total / amount - Decimal(order["avg_price"]) < tick


def test_every_kind_of_life_occurs() -> None:
    """A demo shows new, partly filled, done and cancelled limit orders, and market orders."""
    lives = follow(Exchange(users=["A1"]), 2500)
    assert {
        "limit wait plain",
        "limit wait partly",
        "limit done plain",
        "limit done partly",
        "limit cancel plain",
        "limit cancel partly",
        "market done plain",
        "market done partly",
    } == set(lives.paths)
    assert len(lives.open()) <= 3


def test_a_limit_order_trades_at_its_price_as_the_maker() -> None:
    """A user's resting order is never filled at another price, nor as the taker."""
    lives = follow(Exchange(users=["A1"]), 1000)
    sides: dict[str, set[bool]] = {"limit": set(), "market": set()}
    for order_id, trades in lives.trades.items():
        order = lives.orders[order_id]
        sides[order["ord_type"]].update(trade["taker_type"] == order["side"] for trade in trades)
        if order["ord_type"] == "limit":
            assert {trade["price"] for trade in trades} == {order["price"]}
    assert sides == {"limit": {False}, "market": {True}}
