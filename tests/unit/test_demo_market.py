"""A simulated market: its book and its trades, checked the way a client would see them.

``Replica`` is the client: it rebuilds a book from a snapshot and increments and complains about
every step that a real front end would trip over.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from demo_events import MARKETS, SEEDS, START_S, bodies, run, ticks
from hypothesis import given, settings
from hypothesis import strategies as st

from rango_gevent.demo.crowd import DEPTH
from rango_gevent.demo.exchange import Exchange


class Replica:
    """A client's book: price text -> amount text a side, and the last sequence."""

    def __init__(self) -> None:
        self.sides: dict[str, dict[str, str]] = {"asks": {}, "bids": {}}
        self.sequence: int | None = None

    def load(self, snapshot: dict[str, Any]) -> None:
        """Take over a snapshot, whose sides must come sorted and whose prices must be unique."""
        self.sides = {side: dict(snapshot[side]) for side in ("asks", "bids")}
        self.sequence = snapshot["sequence"]
        assert self.levels("asks") == snapshot["asks"]
        assert self.levels("bids") == snapshot["bids"]

    def apply(self, increment: dict[str, Any]) -> None:
        """Apply an increment, which must be the next one and make sense."""
        assert self.sequence is not None
        assert increment["sequence"] == self.sequence + 1
        self.sequence += 1
        (side,) = increment.keys() - {"sequence"}
        price, amount = increment[side]
        if amount:
            assert Decimal(amount) > 0
            self.sides[side][price] = amount
        else:
            del self.sides[side][price]  # KeyError: a level is gone that never was
        assert self.best("bids") < self.best("asks"), "the book is crossed"

    def levels(self, side: str) -> list[list[str]]:
        """Return a side as a snapshot shows it: best level first."""
        by_price = sorted(self.sides[side].items(), key=lambda level: Decimal(level[0]))
        return [list(level) for level in (by_price if side == "asks" else reversed(by_price))]

    def best(self, side: str) -> Decimal:
        """Return the price nearest to the other side."""
        prices = [Decimal(price) for price in self.sides[side]]
        return min(prices) if side == "asks" else max(prices)

    def book(self) -> dict[str, Any]:
        """Return the replica in the shape of a snapshot."""
        return {
            "asks": self.levels("asks"),
            "bids": self.levels("bids"),
            "sequence": self.sequence,
        }


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, market=st.sampled_from(("btcusd", "ltcbtc", "zzzyyy")), every=st.integers(1, 90))
def test_snapshot_and_increments_rebuild_the_book(seed: int, market: str, every: int) -> None:
    """The first snapshot and all increments give the exchange's book after every tick."""
    exchange = Exchange(seed=seed, markets=[market], snapshot_every=every)
    replica = Replica()
    for events in ticks(exchange, 40):
        for key, body in bodies(events, rf"public\.{market}\.ob-(snap|inc)"):
            if key.endswith("inc"):
                replica.apply(body)
            elif replica.sequence is None:
                replica.load(body)
            else:
                assert body == replica.book()
        assert replica.book() == exchange.book(market)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, every=st.integers(1, 90))
def test_a_snapshot_comes_right_before_an_increment(seed: int, every: int) -> None:
    """Every ``snapshot_every`` increments one snapshot, directly followed by the next one."""
    events = run(Exchange(seed=seed, markets=["btcusd"], snapshot_every=every), 40)
    kinds = [event.routing_key.rpartition("-")[2] for event in events if ".ob-" in event[0]]
    for number, kind in enumerate(kinds):
        assert (kind == "snap") == (number % (every + 1) == 0)
    places = [n for n, event in enumerate(events) if event.routing_key.endswith(".ob-snap")]
    assert all(events[place + 1].routing_key.endswith(".ob-inc") for place in places)


def test_the_first_tick_brings_a_snapshot_of_every_market() -> None:
    """A gateway that starts with the exchange has every book after one tick."""
    events = Exchange().tick(START_S)
    snapshots = dict(bodies(events, r"public\.\w+\.ob-snap"))
    assert set(snapshots) == {f"public.{market}.ob-snap" for market in MARKETS}
    assert all(len(body["asks"]) == len(body["bids"]) == DEPTH for body in snapshots.values())


def test_trades_count_up_across_markets() -> None:
    """Trade ids rise by one through the whole exchange, and dates are the tick's seconds."""
    last_id, takers = 0, set()
    for number, events in enumerate(ticks(Exchange(), 500)):
        for _, body in bodies(events, r"public\.\w+\.trades"):
            (trade,) = body["trades"]
            assert list(trade) == ["tid", "taker_type", "date", "price", "amount"]
            assert trade["tid"] == last_id + 1
            assert trade["date"] == int(START_S + number * 0.2)
            assert Decimal(trade["price"]) > 0
            assert Decimal(trade["amount"]) > 0
            last_id = trade["tid"]
            takers.add(trade["taker_type"])
    assert takers == {"buy", "sell"}


def test_a_trade_happens_at_the_best_price_and_eats_that_level() -> None:
    """The increment before a trade takes the traded amount from the best opposite level."""
    exchange, replica, trades = Exchange(markets=["btcusd"], users=[]), Replica(), 0
    for events in ticks(exchange, 300):
        for key, body in bodies(events, r"public\.btcusd\.(ob-snap|ob-inc|trades)"):
            if key.endswith("snap"):
                replica.load(body)
            elif key.endswith("inc"):
                (side,) = body.keys() - {"sequence"}
                best_price, best_amount = replica.levels(side)[0]
                changed_price, left = body[side]
                replica.apply(body)
            else:
                (trade,) = body["trades"]
                assert side == ("asks" if trade["taker_type"] == "buy" else "bids")
                assert trade["price"] == changed_price == best_price
                assert Decimal(trade["amount"]) == Decimal(best_amount) - Decimal(left or 0)
                trades += 1
    assert trades > 100
