"""Turns: how work gives way to everything else in the process.

``gevent.sleep(0)`` lets other greenlets go on that are ready to, and no more: gevent looks at
sockets and timers only after fifty such turns. Work in slices of 4 ms that slept like that
kept a readable socket waiting for 200 ms (measured; 15 ms with `give_way`, for 5 us more).

One greenlet that gives way is not enough where thousands do a little each: all of them together
would hold the loop. `Turns` is the slice of time that such greenlets share.
"""

from __future__ import annotations

import time
from collections import deque

import gevent
from gevent.hub import Waiter


def give_way() -> None:
    """Let greenlets, sockets and timers have their turn."""
    hub = gevent.get_hub()
    timer = hub.loop.timer(0)  # due at once, but not before the loop has looked at its sockets
    try:
        hub.wait(timer)
    finally:
        timer.close()


class Turns:
    """A slice of time for all greenlets of one kind, anew at every turn of the loop.

    A greenlet calls `wait` before each portion of its work. While the slice lasts it goes on at
    once, else it stands in line for the slices to come.

    Args:
        slice_s: seconds of work between two looks at everything else.
    """

    def __init__(self, slice_s: float = 0.001) -> None:
        self._slice_s = slice_s
        self._until_s = 0.0
        self._begun = False
        self._line: deque[Waiter[None]] = deque()
        self._timer: object = None

    def wait(self) -> bool:
        """Go on, now or when it is this greenlet's turn; True: others had theirs meanwhile."""
        if not self._begun:
            self._begun = True
            self._begin()
        elif self._line or time.monotonic() >= self._until_s:
            waiter: Waiter[None] = Waiter()
            self._line.append(waiter)
            waiter.get()
            return True
        return False

    def _begin(self) -> None:
        """Begin a slice, and have the loop come back when it has looked at everything else."""
        self._until_s = time.monotonic() + self._slice_s
        self._timer = timer = gevent.get_hub().loop.timer(0)
        timer.start(self._next)

    def _next(self) -> None:
        """Give a slice to those in line: the loop calls this."""
        self._timer.close()  # type: ignore[attr-defined]  # a watcher of the loop
        if not self._line:
            self._begun = False
            return
        self._begin()
        while self._line:
            self._line.popleft().switch(None)
            if time.monotonic() >= self._until_s:
                break
