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
        self._under_way: list[Event] = []
        self._thread: threading.Thread | None = None
        self._closes = threading.Event()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._under_way)

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

    def close(self, timeout_s: float) -> None:
        """Send what waits, for a bounded time, and give up the rest."""
        thread = self._thread
        self._closes.set()
        if thread is not None:
            thread.join(timeout_s)
        with self._lock:
            given_up = len(self)
            self._waiting.clear()
            self._under_way = []
            self.dropped += given_up
            self._closes.clear()
        if given_up:
            log.error("%d events are given up: the broker is away", given_up)

    def _trim(self) -> None:
        """Drop the oldest past the bound."""
        excess = len(self._waiting) - self._limit
        if excess > 0:
            for _ in range(excess):
                self._waiting.popleft()
            self.dropped += excess
            self._log.error("dropped", "more than %d events wait, the oldest go", self._limit)

    # -- the thread ---------------------------------------------------------------------

    def _run(self) -> None:
        backoff = waits()
        while part := self._take():
            left = self._send(part)
            with self._lock:
                if self._under_way is not part:  # given up meanwhile
                    continue
                self._under_way = []
                self._waiting.extendleft(reversed(left))
                self._trim()
                if left and self._closes.is_set():  # that was the last attempt
                    self._thread = None
                    return
            if left:
                self._closes.wait(backoff.next())
            else:
                backoff.reset()

    def _take(self) -> list[Event]:
        """Take some out to send them; when there is nothing more the thread ends."""
        with self._lock:
            count = min(_AT_ONCE, len(self._waiting))
            self._under_way = [self._waiting.popleft() for _ in range(count)]
            if not count:
                self._thread = None
            return self._under_way

    def _send(self, part: list[Event]) -> list[Event]:
        """Try to send some, and return those that wait on."""
        try:
            self._courier.deliver(part, Deadline(self._deadline_s), patient=False)
        except Failed as error:
            self.sent += len(part) - len(error.left)
            self._log.warning("fails", "%d events wait: %s", len(self), error)
            return error.left
        self.sent += len(part)
        return []
