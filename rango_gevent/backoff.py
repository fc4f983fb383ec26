"""Waits between attempts, for whoever comes back: to a broker, or to a gateway.

Pure: randomness comes in, and how long something lived is told by who knows.
"""

from __future__ import annotations

from random import Random


class Backoff:
    """Waits that double up to a bound, each one random, so that a crowd comes back spread out.

    Args:
        first_s: longest first wait.
        max_s: longest wait.
        steady_s: what lived so long was good: the waits after it begin anew.
        least: the shortest wait, as a part of the longest at that moment.
        jitter: generator of random numbers.
    """

    def __init__(
        self, first_s: float, max_s: float, *, steady_s: float, least: float, jitter: Random
    ) -> None:
        self._first_s = self._longest_s = first_s
        self._max_s = max_s
        self._steady_s = steady_s
        self._least = least
        self._jitter = jitter

    def next(self, at_most_s: float | None = None) -> float:
        """Return the next wait in seconds.

        Args:
            at_most_s: bound of this one; the waits grow behind it.
        """
        longest_s = self._longest_s if at_most_s is None else min(self._longest_s, at_most_s)
        self._longest_s = min(self._max_s, self._longest_s * 2)
        return self._jitter.uniform(longest_s * self._least, longest_s)

    def lived(self, seconds: float) -> None:
        """Note how long a connection lived, from when it worked and not from when it was tried."""
        if seconds >= self._steady_s:
            self.reset()

    def reset(self) -> None:
        """Begin with short waits again."""
        self._longest_s = self._first_s
