"""A moment by which somebody's wait is over."""

from __future__ import annotations

import time

_EARLY_S = 0.005  # by which a wait may end before its time


class Deadline:
    """A moment by which all is over.

    Args:
        timeout_s: seconds from now; None: never.
    """

    def __init__(self, timeout_s: float | None) -> None:
        self._at = None if timeout_s is None else time.monotonic() + timeout_s

    def left_s(self) -> float | None:
        """Return the seconds that are left, None for no end."""
        return None if self._at is None else max(0.0, self._at - time.monotonic())

    def check(self) -> None:
        """Raise TimeoutError when it is over."""
        if self._at is not None and time.monotonic() >= self._at - _EARLY_S:
            raise TimeoutError("the time is over")
