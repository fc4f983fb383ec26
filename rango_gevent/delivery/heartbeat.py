"""Liveness of all clients by one wheel, not a timer each.

The wheel has a slot a second. A client sits in one slot; when its second comes it is pinged,
and unless anything came from it by the pong's deadline, it is closed. The same tick ends
closing handshakes that take too long, and moves the registry's coarse clock.
The defaults are Rango's: a ping every 54 s, an answer within 60 s of the last one.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Callable

import gevent

from rango_gevent.delivery.client import Client
from rango_gevent.delivery.registry import Registry
from rango_gevent.protocol import close
from rango_gevent.turns import give_way

_TICK_S = 1.0
_PINGS_BETWEEN_YIELDS = 64


class Heartbeat:
    """Pings for the clients of a registry.

    Args:
        registry: whose clients are watched.
        ping_interval_s: seconds from one ping of a client to the next.
        pong_timeout_s: seconds from one sign of life to the next, more than the interval.
        max_age_s: age in seconds at which a connection is closed; 0: never.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        ping_interval_s: float,
        pong_timeout_s: float,
        max_age_s: float = 0.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._now = now
        self._max_age_s = max_age_s
        self._pong_wait_s = max(_TICK_S, pong_timeout_s - ping_interval_s)
        self._awaited: deque[tuple[float, list[Client]]] = deque()
        self._next = 0
        self.late_s = 0.0
        registry.slots = [{} for _ in range(max(1, round(ping_interval_s / _TICK_S)))]

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
        self._registry.clock_s = now
        self._ping_next(now)
        self._close_silent(now)
        self._end_late_closings(now)

    def _ping_next(self, now: float) -> None:
        slots = self._registry.slots
        self._next = (self._next + 1) % len(slots)
        clients = list(slots[self._next])
        for count, client in enumerate(clients, 1):
            if self._max_age_s and now - client.opened_s > self._max_age_s:
                client.close(close.TOO_OLD)
            else:
                client.ping(now)
            if count % _PINGS_BETWEEN_YIELDS == 0:
                give_way()
        pinged = [client for client in clients if client.pinged_s == now]
        if pinged:
            self._awaited.append((now, pinged))

    def _close_silent(self, now: float) -> None:
        while self._awaited and self._awaited[0][0] + self._pong_wait_s <= now:
            pinged_s, clients = self._awaited.popleft()  # they may have had later pings since
            for client in clients:
                if client.open and client.seen_s < pinged_s:
                    client.close(close.PING_TIMEOUT)

    def _end_late_closings(self, now: float) -> None:
        leaving = self._registry.leaving
        while leaving and leaving[0][0] <= now:
            leaving.popleft()[1].lost()
