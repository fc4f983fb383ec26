"""A store in memory: for the demo, and for tests of what the other stores must do. Pure."""

from __future__ import annotations

from typing import Any

from rango_gevent.marketdata.candles import Candle
from rango_gevent.marketdata.desk import Changes, Place, Saved
from rango_gevent.marketdata.market import Chunk, Head


class MemoryStore:
    """Keeps what it is given, until it is pruned."""

    def __init__(self) -> None:
        self.notes: dict[str, str] = {}
        self._place: Place | None = None
        self._heads: dict[str, Head] = {}
        self._rows: dict[tuple[str, int], dict[int, tuple[Any, ...]]] = {}
        self._chunks: dict[str, dict[int, Chunk]] = {}

    def load(self) -> Saved:
        """Return where to go on from."""
        return Saved(
            self._place,
            [
                (head, sorted(self._chunks.get(name, {}).values()))
                for name, head in self._heads.items()
            ],
        )

    def read(self, market: str, period: int, start_s: int, end_s: int) -> list[Candle]:
        """Return the candles that begin from one time to before another, in their order."""
        rows = self._rows.get((market, period), {})
        return [Candle(*rows[at_s]) for at_s in sorted(rows) if start_s <= at_s < end_s]

    def save(self, changes: Changes) -> None:
        """Save all of it."""
        self._place = changes.place
        self.notes.update(changes.notes)
        for one in changes.markets:
            name = one.head.name
            self._heads[name] = one.head
            for period, row in one.candles:
                self._rows.setdefault((name, period), {})[row[0]] = row
            for period, start_s in one.removed:
                self._rows.get((name, period), {}).pop(start_s, None)
            chunks = self._chunks.setdefault(name, {})
            if one.trades:
                chunks[one.head.chunk] = Chunk(one.head.chunk, one.trades)
            for number in one.gone:
                chunks.pop(number, None)

    def prune(self, market: str, oldest: dict[int, int]) -> None:
        """Remove candles of each period that begin before a time."""
        for period, before_s in oldest.items():
            rows = self._rows.get((market, period), {})
            for start_s in [at_s for at_s in rows if at_s < before_s]:
                del rows[start_s]
