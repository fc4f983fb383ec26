"""Events that wait for a broker that is away: bounded, in order, sent by a thread of its own.

While something waits, everything new waits behind it. Past the bound the oldest goes, which is
counted and logged. The thread is there only while events wait; under gevent it is a greenlet.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import Sequence

from rango_gevent.publisher.courier import Courier, waits
from rango_gevent.publisher.frames import Event
from rango_gevent.publisher.link import Deadline, Failed
from rango_gevent.throttle import ThrottledLog

_AT_ONCE = 500
_SAID_EVERY_S = 10.0

log = logging.getLogger("rango_gevent.publisher")


class Backlog:
    """A bounded queue before a broker.

    Args:
        limit: events that may wait.
        courier: the way to the broker.
        deadline_s: seconds for one attempt.

    Attributes:
        dropped: events that went for the bound, or that the broker refused.
        sent: events that reached the broker after all.
    """

    def __init__(self, limit: int, courier: Courier, deadline_s: float) -> None:
        self.dropped = 0
        self.sent = 0
        self._limit = limit
        self._courier = courier
        self._deadline_s = deadline_s
        self._log = ThrottledLog(log, _SAID_EVERY_S)
        self.forget()

    def forget(self) -> None:
        """Begin empty, in a process that was forked: its parent sends what waits."""
        self._lock = threading.Lock()
        self._waiting: deque[Event] = deque()
        self._under_way = 0  # those at the left that the thread is sending
        self._thread: threading.Thread | None = None
        self._closes = False
        self._hurry = threading.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, events: Sequence[Event], why: str) -> None:
        """Let events wait; the oldest go past the bound."""
        self._log.warning("waits", "the broker is away, events wait: %s", why)
        with self._lock:
            self._waiting.extend(events)
            self._trim()
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="rango-publisher", daemon=True
                )
                self._thread.start()

    def _trim(self) -> None:
        """Drop the oldest past the bound; those under way count, and go last."""
        excess = len(self._waiting) - self._limit
        if excess <= 0:
            return
        keep = [self._waiting.popleft() for _ in range(min(self._under_way, len(self._waiting)))]
        drop = min(excess, len(self._waiting))
        for _ in range(drop):
            self._waiting.popleft()
        self._waiting.extendleft(reversed(keep))
        self.dropped += drop
        self._log.error("dropped", "more than %s events wait: the oldest are dropped", self._limit)

    # -- the thread ---------------------------------------------------------------------

    def _run(self) -> None:
        backoff = waits()
        while True:
            with self._lock:
                part = [self._waiting[at] for at in range(min(_AT_ONCE, len(self._waiting)))]
                self._under_way = len(part)
                if not part:
                    self._thread = None
                    return
            left = self._send(part)
            with self._lock:
                for _ in range(self._under_way):  # none when it was closed meanwhile
                    self._waiting.popleft()
                self._waiting.extendleft(reversed(left))
                self._under_way = 0
                if left and self._closes:
                    self._thread = None
                    return
            if left:
                self._hurry.wait(backoff.next())
            else:
                backoff.reset()

    def _send(self, part: list[Event]) -> list[Event]:
        """Try to send some, and return those that wait on."""
        try:
            self._courier.deliver(part, Deadline(self._deadline_s), patient=False)
        except Failed as error:
            self.sent += len(part) - len(error.left)
            self._log.warning("fails", "%d events wait: %s", len(self._waiting), error)
            return error.left
        self.sent += len(part)
        return []

    def close(self, timeout_s: float) -> int:
        """Send what waits, for a bounded time; return how many are given up."""
        with self._lock:
            thread, self._closes = self._thread, True
            self._hurry.set()
        if thread is not None:
            thread.join(timeout_s)
        with self._lock:
            given_up = len(self._waiting)
            self._waiting.clear()
            self._under_way = 0
            self.dropped += given_up
            self._closes = False
            self._hurry.clear()
        if given_up:
            log.error("%d events are given up: the broker is away", given_up)
        return given_up
