"""A log that cannot be flooded: the same thing is said once in a while, with how often it was.

For whatever somebody outside can make happen at will, or again and again: metrics count every
time, and lines must not fill the disk.
"""

from __future__ import annotations

import logging
import time
from typing import Any, Callable

_MAX_KEYS = 1000


class ThrottledLog:
    """Logs one line of each key in an interval, and counts those that it leaves out.

    Args:
        log: where lines go.
        interval_s: seconds from one line of a key to the next.
        now: monotonic time in seconds.
    """

    def __init__(
        self,
        log: logging.Logger,
        interval_s: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._interval_s = interval_s
        self._now = now
        self._said_at: dict[str, float] = {}
        self._left_out: dict[str, int] = {}

    def warning(self, key: str, text: str, *args: object, **more: Any) -> None:
        """Log a warning, as `say`."""
        self.say(logging.WARNING, key, text, *args, **more)

    def error(self, key: str, text: str, *args: object, **more: Any) -> None:
        """Log an error, as `say`."""
        self.say(logging.ERROR, key, text, *args, **more)

    def say(self, level: int, key: str, text: str, *args: object, **more: Any) -> None:
        """Log a line, or remember that it was left out.

        Args:
            level: of the standard library's.
            key: what the interval is for.
            text: with ``%s`` for each of ``args``.
            args: what goes into it.
            more: keywords for the standard library's logger.
        """
        now = self._now()
        said_at = self._said_at.get(key)
        if said_at is not None and now - said_at < self._interval_s:
            self._left_out[key] = self._left_out.get(key, 0) + 1
            return
        if len(self._said_at) >= _MAX_KEYS:  # keys may come from outside
            self.clear()
        self._said_at[key] = now
        left_out = self._left_out.pop(key, 0)
        if left_out:
            text, args = text + " (%d more since the last such line)", (*args, left_out)
        self._log.log(level, text, *args, **more)

    def clear(self) -> None:
        """Forget what was said: the next line of every key is new again."""
        self._said_at.clear()
        self._left_out.clear()
