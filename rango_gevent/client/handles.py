"""What a user of the synchronous client holds: a subscription, and a reply that is to come."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Union

from rango_gevent.client.buffers import Buffer
from rango_gevent.client.deadline import Deadline
from rango_gevent.client.model import Event, RequestFailed
from rango_gevent.client.sinks import QueueSink
from rango_gevent.client.wanted import PENDING
from rango_gevent.client.wire import Reply

if TYPE_CHECKING:
    from rango_gevent.client.stream import StreamClient


class Subscription:
    """A stream and the queue of its events; made by `StreamClient.subscribe`.

    Iterating gives its events alone, and ends when it or the client is closed. Whoever iterates
    over the client gets them too, each event once.

    Attributes:
        stream: its name.
    """

    def __init__(
        self, client: StreamClient, stream: str, buffer: Buffer[Event], stale_after_s: float
    ) -> None:
        self.stream = stream
        self._client = client
        self._ready = threading.Condition(client.lock)
        self._sink = QueueSink(client.core, stream, buffer, stale_after_s, self._arrived)

    def __enter__(self) -> Subscription:
        """Do nothing: it is wanted already."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Unsubscribe."""
        self.close()

    def __iter__(self) -> Iterator[Event]:
        """Give events until it or the client is closed; as `get` without a timeout."""
        while True:
            event = self._next(Deadline(None))
            if event is None:
                return
            yield event

    @property
    def state(self) -> str:
        """Return ``pending``, ``active`` or ``refused``."""
        return self._sink.wanted.state

    def wait(self, timeout: float | None = None) -> Subscription:
        """Wait until the gateway holds it, and return it.

        Raises:
            SubscriptionRefused: the gateway does not allow it, or the client ended.
            TimeoutError: there was no answer in so many seconds.
        """
        deadline = Deadline(timeout)
        with self._client.lock:
            while self._sink.wanted.state == PENDING and not self._client.core.has_ended:
                deadline.check()
                self._client.changed.wait(deadline.left_s())
            if self._sink.wanted.error is not None:
                raise self._sink.wanted.error
        return self

    def get(self, timeout: float | None = None) -> Event:
        """Return the next event.

        Raises:
            TimeoutError: none came in so many seconds.
            EOFError: it, or the client, was closed.
            Overflow: events are missing here, under the policy ``error``.
            ConnectionLost, Refused: the client has ended and will not come back.
        """
        event = self._next(Deadline(timeout))
        if event is None:
            raise EOFError(f"{self.stream}: closed")
        return event

    def _next(self, deadline: Deadline) -> Event | None:
        with self._client.lock:
            while not self._sink.is_closed:
                event = self._sink.buffer.take()
                if event is not None:
                    self._client.room.notify_all()
                    return event
                if self._client.has_no_more():
                    return None
                deadline.check()
                self._ready.wait(deadline.left_s())
        return None

    def close(self) -> None:
        """Unsubscribe, unless others want the stream; what waits is let go."""
        with self._client.lock:
            if not self._sink.is_closed:
                self._client.forget(self, self._sink.buffer)
                self._sink.close()
                self._ready.notify_all()

    def _arrived(self) -> None:
        self._ready.notify_all()
        self._client.arrived(self._sink.buffer)

    def wake(self) -> None:
        """Let whoever waits look again."""
        self._ready.notify_all()


class Answer:
    """The replies to one request, which another thread brings."""

    def __init__(self, lock: Any) -> None:
        self._came = threading.Condition(lock)
        self._outcome: list[Reply] | Exception | None = None

    def settle(self, outcome: Union[list[Reply], Exception]) -> None:
        """Bring the outcome; the lock is held."""
        self._outcome = outcome
        self._came.notify_all()

    def wait(self, deadline: Deadline) -> list[Any]:
        """Return the successes; the lock is held.

        Raises:
            RequestFailed: the gateway answered with an error.
            ConnectionLost: the connection ended before the answer.
            TimeoutError: there was none in time.
        """
        while self._outcome is None:
            deadline.check()
            self._came.wait(deadline.left_s())
        if isinstance(self._outcome, Exception):
            raise self._outcome
        for reply in self._outcome:
            if reply.error is not None:
                raise RequestFailed(reply.error, reply.code)
        return [reply.value.get("success") for reply in self._outcome]
