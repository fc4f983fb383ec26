"""A circuit breaker: who does not answer is left alone for a while, then tried once."""

from __future__ import annotations

from typing import Callable


class Breaker:
    """Says whether somebody may be asked.

    Args:
        failures: in a row, after which nobody asks for a while.
        rest_s: for how long.
        now: monotonic time in seconds.
    """

    def __init__(self, failures: int, rest_s: float, now: Callable[[], float]) -> None:
        self._most = failures
        self._rest_s = rest_s
        self._now = now
        self._failures = 0
        self._closed_until_s = 0.0

    @property
    def allows(self) -> bool:
        """Tell whether one may ask; after the rest one alone may, until that is answered."""
        if self._failures < self._most:
            return True
        now_s = self._now()
        if now_s < self._closed_until_s:
            return False
        self._closed_until_s = now_s + self._rest_s
        return True

    def succeeded(self) -> None:
        """Note an answer."""
        self._failures = 0

    def failed(self) -> None:
        """Note that there was none."""
        self._failures += 1
        if self._failures >= self._most:
            self._closed_until_s = self._now() + self._rest_s
