"""One side of a book: levels of integer prices and amounts, best first.

It knows nothing of orders, of the wire or of the other side; ``Market`` keeps two of them apart.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator


class Side:
    """The levels of one side, best first.

    Args:
        name: ``asks`` or ``bids``.
        taker_type: what someone who takes from this side does, ``buy`` or ``sell``.
        away: the direction in ticks from the best price to the worst: +1 for asks, -1 for bids.
            A key is a price times ``away``, so that both sides sort best first and share all the
            code.
    """

    def __init__(self, name: str, taker_type: str, away: int) -> None:
        self.name = name
        self.taker_type = taker_type
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
        """The price nearest to the other side."""
        return self._keys[0] * self.away

    @property
    def worst(self) -> int:
        """The price furthest from the other side."""
        return self._keys[-1] * self.away

    def price_at(self, index: int) -> int:
        """Return the price of a level, counted from the best."""
        return self._keys[index] * self.away

    def lots_at(self, price: int) -> int:
        """Return the amount at a price; zero when there is no such level."""
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
