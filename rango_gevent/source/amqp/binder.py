"""Keeps a worker's queue bound to what its `Bindings` say, on whatever connection there is.

The broker is told without waiting for its answers, which the pump reads: a binding that fails
ends the connection there. Telling may block while the broker does not read, so the two greenlets
that do it take turns.
"""

from __future__ import annotations

import time
from typing import Any, Callable

from amqp import spec
from amqp.exceptions import AMQPError
from gevent.event import Event
from gevent.lock import RLock
from gevent.timeout import Timeout

from rango_gevent.source.base import BrokerTimeout
from rango_gevent.source.bindings import Bindings

_AT_ONCE = 50  # bindings that are told again each second: the broker looks each of them up
_LOOK_S = 1.0
_TIMEOUT_S = 5.0


class Binder:
    """The bindings of one process's queue.

    Args:
        bindings: what is to be bound.
        now: monotonic time in seconds.
    """

    def __init__(self, bindings: Bindings, now: Callable[[], float] = time.monotonic) -> None:
        self._bindings = bindings
        self._now = now
        self._queue: Any = None
        self._work = Event()
        self._turn = RLock()

    @property
    def count(self) -> int:
        """Return how many bindings there are."""
        return len(self._bindings.bound)

    @property
    def follows(self) -> bool:
        """Tell whether `run` has something to do."""
        return self._bindings.follows

    def held(self, kind: str, address: str, is_held: bool) -> None:
        """Note that a stream has its first subscriber, or none any more; never waits."""
        if self._bindings.held(kind, address, is_held, self._now()):
            self._work.set()

    def first(self) -> str:
        """Return a key to declare the queue with."""
        self._bindings.change(self._now())
        return next(iter(self._bindings.bound))

    def attach(self, queue: Any) -> None:
        """Bind a queue that was just declared, bound to its `channel`; returns when it is done."""
        self._queue = None
        keys = list(self._bindings.bound)
        for key in keys[:-1]:
            _bind(queue, key)
        queue.bind_to(queue.exchange.name, keys[-1])  # answered in order: all are done then
        self._queue = queue
        self._work.set()  # for what came meanwhile

    def detach(self) -> None:
        """Forget the queue: its connection is gone."""
        self._queue = None

    def again(self) -> None:
        """Bind some again: a binding goes with its exchange, and the broker does not say so."""
        self._tell(self._renew)

    def run(self) -> None:
        """Follow what clients hold, for ever."""
        while True:
            self._work.wait(_LOOK_S)
            self._work.clear()
            if self._queue is not None:
                self._tell(self._follow)

    def _renew(self, queue: Any) -> None:
        for key in self._bindings.some(_AT_ONCE):
            _bind(queue, key)

    def _follow(self, queue: Any) -> None:
        change = self._bindings.change(self._now())
        for key in change.bind:
            _bind(queue, key)
        for key in change.unbind:
            _unbind(queue, key)

    def _tell(self, work: Callable[[Any], object]) -> None:
        """Write to the broker, in bounded time; if that fails the pump ends the connection."""
        queue = self._queue
        if queue is None:
            return
        try:
            with Timeout(_TIMEOUT_S, BrokerTimeout("the broker takes no bindings")), self._turn:
                work(queue)
        except (AMQPError, OSError):
            self._queue = None
            queue.channel.connection.transport.close()


def _bind(queue: Any, key: str) -> None:
    queue.bind_to(queue.exchange.name, key, nowait=True)


def _unbind(queue: Any, key: str) -> None:
    """Unbind without waiting for the answer, for which py-amqp would read beside the pump."""
    arguments = (0, queue.name, queue.exchange.name, key, None)
    queue.channel.send_method(spec.Queue.Unbind, "BsssF", arguments)
