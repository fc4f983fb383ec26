"""Few lines of a log for what strangers can repeat as often as they like."""

from __future__ import annotations

import time
from collections import Counter
from typing import Callable

_BURST = 10
_EVERY_S = 1.0


class Throttle:
    """Lets ten lines of a kind pass at once, and one a second in the long run.

    Args:
        now: monotonic time in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._due: dict[str, float] = {}
        self._held: Counter[str] = Counter()

    def held_back(self, kind: str) -> int | None:
        """Return how many lines were held back before this one; None: hold this one back too."""
        now = self._now()
        due = max(now, self._due.get(kind, now))
        if due - now > (_BURST - 1) * _EVERY_S:
            self._held[kind] += 1
            return None
        self._due[kind] = due + _EVERY_S
        return self._held.pop(kind, 0)
