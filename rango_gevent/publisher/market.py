"""The events of a market in Peatio's form: books with their sequence, trades, klines."""

from __future__ import annotations

import threading
import time
from typing import Any, Callable, Iterable, Sequence

from rango_gevent.publisher import forks
from rango_gevent.publisher.publisher import Publisher

Level = Sequence[Any]  # price and amount; an amount of 0 or "" takes a level away
Book = Callable[[], "tuple[Iterable[Level], Iterable[Level]]"]

# Peatio's engine publishes a snapshot each minute, and each ten seconds of a busy market
_BUSY_INCREMENTS = 20
_BUSY_S = 10.0
_QUIET_S = 60.0


class Market:
    """Publishes the events of one market.

    The sequence begins at 1 with a snapshot; each increment has the next number, and a snapshot
    that of the increment before it. One object publishes a market's book, in one process.

    Args:
        publisher: the way to the exchange.
        name: of the market, the stream's part of its routing keys.
        book: returns asks and bids as they are now. With it snapshots are published whenever they
            are due, the first one before the first increment.
        now: monotonic time in seconds.
    """

    def __init__(
        self,
        publisher: Publisher,
        name: str,
        book: Book | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.sequence = 0
        self._publisher = publisher
        self._book = book
        self._now = now
        self.after_fork()
        forks.tell(self)
        self._increments = 0
        self._snapshot_s: float | None = None  # None: clients cannot go on without one

    def after_fork(self) -> None:
        """Begin with a lock of our own."""
        self._lock = threading.Lock()

    @property
    def snapshot_due(self) -> bool:
        """Tell whether a snapshot is due, by Peatio's rule or because an event was lost."""
        if self._snapshot_s is None:
            return True
        age_s = self._now() - self._snapshot_s
        return age_s >= (_BUSY_S if self._increments >= _BUSY_INCREMENTS else _QUIET_S)

    def snapshot(self, asks: Iterable[Level], bids: Iterable[Level]) -> None:
        """Publish the whole book, best levels first.

        Raises:
            PublishError: it is not known to be taken; the next one is due at once.
        """
        with self._lock:
            self._snapshot(asks, bids)

    def increment(self, *, asks: Iterable[Level] = (), bids: Iterable[Level] = ()) -> None:
        """Publish levels that changed, each with its new amount.

        Raises:
            PublishError: it is not known to be taken; a snapshot is due then.
            ValueError: there was no snapshot to go on from, and no book to make it of.
        """
        with self._lock:
            if self._book is not None and self.snapshot_due:
                # it holds what changed already: the increment after it changes nothing more
                self._snapshot(*self._book())
            if self._snapshot_s is None:
                raise ValueError(f"{self.name}: publish a snapshot first")
            snapshot_s, self._snapshot_s = self._snapshot_s, None
            self.sequence += 1
            self._publish("ob-inc", _levels(asks=asks, bids=bids, sequence=self.sequence))
            self._increments, self._snapshot_s = self._increments + 1, snapshot_s

    def _snapshot(self, asks: Iterable[Level], bids: Iterable[Level]) -> None:
        self._snapshot_s = None
        self.sequence = self.sequence or 1
        self._publish("ob-snap", _levels(asks=asks, bids=bids, sequence=self.sequence))
        self._increments, self._snapshot_s = 0, self._now()

    def trade(self, *trades: dict[str, Any]) -> None:
        """Publish trades: ``tid``, ``taker_type``, ``date``, ``price``, ``amount``.

        Raises:
            PublishError: they are not known to be taken.
        """
        self._publish("trades", {"trades": list(trades)})

    def kline(self, period: str, point: Sequence[Any]) -> None:
        """Publish a candle: Unix time, open, high, low, close, volume.

        Args:
            period: such as ``1m``.
            point: the six values.

        Raises:
            PublishError: it is not known to be taken.
        """
        self._publish(f"kline-{period}", list(point))

    def _publish(self, kind: str, body: object) -> None:
        self._publisher.publish(f"public.{self.name}.{kind}", body)


def _levels(*, asks: Iterable[Level], bids: Iterable[Level], sequence: int) -> dict[str, Any]:
    return {
        "asks": [list(level) for level in asks],
        "bids": [list(level) for level in bids],
        "sequence": sequence,
    }
