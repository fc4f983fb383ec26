"""Liveness of all connections by one wheel, not a timer each.

The wheel has a slot a second. A connection sits in one slot; when its second comes it is pinged,
and unless anything came from it by the pong's deadline, it is closed. The same tick ends
closing handshakes that take too long, moves the coarse clock that connections read, and looks
after the ends of tokens (`TokenWatch`).
The defaults are Rango's: a ping every 54 s, an answer within 60 s of the last one.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Callable

import gevent

from rango_gevent.delivery.token_watch import TokenWatch
from rango_gevent.protocol import close
from rango_gevent.turns import give_way

if TYPE_CHECKING:
    from rango_gevent.delivery.connection import Connection

_TICK_S = 1.0
_PINGS_BETWEEN_YIELDS = 64


class Clock:
    """A coarse clock.

    Attributes:
        now_s: monotonic time in seconds, exact to one tick of the heartbeat.
    """

    __slots__ = ("now_s",)

    def __init__(self, now_s: float) -> None:
        self.now_s = now_s


class Heartbeat:
    """Pings for the connections that it is told to watch.

    Args:
        ping_interval_s: seconds from one ping of a connection to the next.
        pong_timeout_s: seconds from one sign of life to the next, more than the interval.
        max_age_s: age in seconds at which a connection is closed; 0: never.
        now: monotonic time in seconds.
        wall: the Unix time in seconds.

    Attributes:
        clock: moved at every tick.
        on_tick: called at every tick; must not wait.
        tokens: the connections whose tokens end soon.
        late_s: lateness of the event loop at the last tick.
    """

    def __init__(
        self,
        *,
        ping_interval_s: float = 54.0,
        pong_timeout_s: float = 60.0,
        max_age_s: float = 0.0,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._now = now
        self._max_age_s = max_age_s
        self._pong_wait_s = max(_TICK_S, pong_timeout_s - ping_interval_s)
        self._awaited: deque[tuple[float, list[Connection]]] = deque()
        self._leaving: deque[tuple[float, Connection]] = deque()
        self._next = 0
        self._slots: list[dict[Connection, None]] = [
            {} for _ in range(max(1, round(ping_interval_s / _TICK_S)))
        ]
        self.clock = Clock(now())
        self.tokens = TokenWatch(wall, len(self._slots) * _TICK_S)
        self.late_s = 0.0
        self.on_tick: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        """Return how many connections are watched."""
        return sum(map(len, self._slots))

    def watch(self, connection: Connection) -> None:
        """Ping a connection from now on."""
        connection.slot = connection.id % len(self._slots)
        self._slots[connection.slot][connection] = None
        self.tokens.look(connection)

    def forget(self, connection: Connection) -> None:
        """Ping it no more; no error when it is not watched."""
        self._slots[connection.slot].pop(connection, None)
        self.tokens.forget(connection)

    def end_by(self, deadline_s: float, connection: Connection) -> None:
        """Ping it no more, and end its closing handshake at a monotonic time."""
        self.forget(connection)
        self._leaving.append((deadline_s, connection))

    def run(self) -> None:
        """Tick for ever, and measure by how much the loop was late."""
        due = self._now() + _TICK_S
        while True:
            gevent.sleep(max(0.0, due - self._now()))
            now = self._now()
            self.late_s = max(0.0, now - due)
            due = max(due + _TICK_S, now)
            self.tick(now)

    def tick(self, now: float) -> None:
        """Do one second's work."""
        self.clock.now_s = now
        self.on_tick()
        self._ping_next(now)
        self.tokens.tick()
        self._close_silent(now)
        self._end_late_closings(now)

    def _ping_next(self, now: float) -> None:
        self._next = (self._next + 1) % len(self._slots)
        connections = list(self._slots[self._next])
        for count, connection in enumerate(connections, 1):
            if self._max_age_s and now - connection.opened_s > self._max_age_s:
                connection.close(close.TOO_OLD)
            else:
                connection.ping(now)
                self.tokens.look(connection)
            if count % _PINGS_BETWEEN_YIELDS == 0:
                give_way()
        pinged = [connection for connection in connections if connection.pinged_s == now]
        if pinged:
            self._awaited.append((now, pinged))

    def _close_silent(self, now: float) -> None:
        while self._awaited and self._awaited[0][0] + self._pong_wait_s <= now:
            pinged_s, connections = self._awaited.popleft()  # they may have had later pings since
            for connection in connections:
                if connection.open and connection.seen_s < pinged_s:
                    connection.close(close.PING_TIMEOUT)

    def _end_late_closings(self, now: float) -> None:
        while self._leaving and self._leaving[0][0] <= now:
            self._leaving.popleft()[1].lost()
