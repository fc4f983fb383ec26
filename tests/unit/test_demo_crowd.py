"""The crowd of a simulated market: it keeps the book deep, moving and near its price."""

from __future__ import annotations

import pytest
from demo_events import MARKETS, bodies, ticks

from rango_gevent.demo.crowd import DEPTH
from rango_gevent.demo.exchange import Exchange


def test_every_tick_changes_every_book() -> None:
    """No market ever stands still, so that a viewer always sees movement."""
    for events in ticks(Exchange(), 200):
        moved = {key for key, _ in bodies(events, r"public\.\w+\.ob-inc")}
        assert len(moved) == len(MARKETS)


@pytest.mark.parametrize("seed", [1, 2])
def test_books_keep_their_depth_and_stay_plausible(seed: int) -> None:
    """After thousands of steps a side still has about 300 levels near a price near its home."""
    exchange = Exchange(seed=seed)
    for number, _ in enumerate(ticks(exchange, 3000)):
        if number % 100 == 0:
            for market in MARKETS:
                book = exchange.book(market)
                assert all(abs(len(book[side]) - DEPTH) <= 10 for side in ("asks", "bids"))
    for market, home in zip(MARKETS, (60_000, 3_000, 80 / 60_000)):
        book = exchange.book(market)
        bid, ask = float(book["bids"][0][0]), float(book["asks"][0][0])
        assert 0.8 * home < bid < ask < 1.2 * home
        assert ask - bid < bid * 0.001
        assert float(book["asks"][-1][0]) - float(book["bids"][-1][0]) < 0.05 * bid
