"""Clients that wait for an event which others have had already: this instance will read it soon.

Each waits in its own greenlet, for two seconds at most; one greenlet looks whom the newest event
reaches, as long as anybody waits.
"""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING

import gevent
from gevent.event import Event as Signal

if TYPE_CHECKING:
    from rango_gevent.hub.history import History

_WAIT_S = 2.0  # an instance that lags more says so
_LOOK_S = 0.02


class Arrivals:
    """Those who wait for positions of one history.

    Args:
        history: whose events they are; None: nobody waits.
        most: of them at once; more are not kept waiting.
    """

    def __init__(self, history: History | None, most: int = 10_000) -> None:
        self._history = history
        self._most = most
        self._numbers = count()
        self._waiting: list[tuple[int, int, Signal]] = []
        self._looks = False

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._waiting)

    def wait(self, position: int) -> None:
        """Wait until an event is there, or for so long as one waits."""
        history = self._history
        if history is None or not history.is_ahead(position) or len(self) >= self._most:
            return
        signal = Signal()
        entry = (position, next(self._numbers), signal)
        heappush(self._waiting, entry)
        if not self._looks:
            self._looks = True
            gevent.spawn(self._look, history)
        signal.wait(_WAIT_S)
        if not signal.is_set():
            self._give_up(entry)

    def _give_up(self, entry: tuple[int, int, Signal]) -> None:
        entry[2].set()  # the looking greenlet takes it out

    def _look(self, history: History) -> None:
        """Wake those whom the newest event reaches."""
        while self._waiting:
            while self._waiting and self._is_over(history, self._waiting[0]):
                heappop(self._waiting)[2].set()
            gevent.sleep(_LOOK_S)
        self._looks = False

    @staticmethod
    def _is_over(history: History, entry: tuple[int, int, Signal]) -> bool:
        return entry[2].is_set() or not history.is_ahead(entry[0])
