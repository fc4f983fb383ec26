"""One side of a simulated book, compared with a plain dict that is sorted anew every time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rango_gevent.demo.book import Side

CHANGES = st.lists(st.tuples(st.integers(1, 30), st.integers(0, 5)), max_size=60)


@pytest.mark.parametrize(("name", "away"), [("asks", +1), ("bids", -1)])
@given(changes=CHANGES)
def test_a_side_is_its_levels_best_first(
    name: str, away: int, changes: list[tuple[int, int]]
) -> None:
    """Whatever was put last stands at a price, nothing stands at zero, and the best comes first."""
    side, model = Side(name, "buy", away), {}
    for price, lots in changes:
        side.put(price, lots)
        model[price] = lots
    levels = sorted((level for level in model.items() if level[1]), reverse=away < 0)
    assert list(side) == levels
    assert len(side) == len(levels)
    assert [side.price_at(index) for index in range(len(side))] == [price for price, _ in levels]
    assert all(side.lots_at(price) == model.get(price, 0) for price in range(32))
    if levels:
        assert (side.best, side.worst) == (levels[0][0], levels[-1][0])


@pytest.mark.parametrize(("away", "further"), [(+1, 101), (-1, 99)])
def test_beyond_is_away_from_the_market(away: int, further: int) -> None:
    """Asks lie beyond what is lower, bids beyond what is higher, and no price beyond itself."""
    side = Side("side", "buy", away)
    assert side.beyond(further, 100)
    assert not side.beyond(100, further)
    assert not side.beyond(100, 100)
