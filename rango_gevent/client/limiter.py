"""A token bucket for what goes out. Pure: the time comes in.

A bucket of burst b and rate r lets up to b + r·T pass in T seconds. For a limit of n in a rolling
window of T seconds take `TokenBucket.for_window`: there the burst counts too.
"""

from __future__ import annotations

from collections.abc import Sequence

_ROUNDING = 1e-9


class TokenBucket:
    """Tokens that come back with time.

    Args:
        rate_per_s: tokens a second.
        burst: tokens of a full bucket.
    """

    def __init__(self, rate_per_s: float, burst: float) -> None:
        if not (rate_per_s > 0 and burst > 0):
            raise ValueError("a bucket needs a rate and a burst above 0")
        self.rate_per_s = rate_per_s
        self.burst = burst
        self._tokens = burst
        self._at_s: float | None = None

    @classmethod
    def for_window(cls, count: int, window_s: float, burst: int = 1) -> TokenBucket:
        """Return a bucket that lets at most ``count`` pass in any window of ``window_s`` seconds.

        Raises:
            ValueError: the burst leaves nothing of the count for the rest of the window.
        """
        if not 0 < burst < count:
            raise ValueError(f"the burst of a window of {count} is 1 to {count - 1}")
        return cls((count - burst) / window_s, burst)

    def wait_s(self, now_s: float, weight: float = 1.0) -> float:
        """Return the seconds until so many tokens are there; 0 when they are.

        Raises:
            ValueError: they never will be: the weight is more than a full bucket.
        """
        if weight > self.burst:
            raise ValueError(f"a weight of {weight:g} is more than the burst, {self.burst:g}")
        self._refill(now_s)
        missing = weight - self._tokens
        return missing / self.rate_per_s if missing > _ROUNDING else 0.0

    def take(self, weight: float = 1.0) -> None:
        """Take tokens; ask `wait_s` before."""
        self._tokens -= weight

    def _refill(self, now_s: float) -> None:
        if self._at_s is not None and now_s > self._at_s:
            gained = (now_s - self._at_s) * self.rate_per_s
            self._tokens = min(self.burst, self._tokens + gained)
        self._at_s = now_s if self._at_s is None else max(now_s, self._at_s)


def wait_for_all(buckets: Sequence[TokenBucket], now_s: float, weight: float = 1.0) -> float:
    """Take tokens from all buckets when each has them, from none otherwise.

    Returns:
        0 when they are taken, else the seconds after which it is worth asking again.
    """
    wait_s = max((bucket.wait_s(now_s, weight) for bucket in buckets), default=0.0)
    if not wait_s:
        for bucket in buckets:
            bucket.take(weight)
    return wait_s
