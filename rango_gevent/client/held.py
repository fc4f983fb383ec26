"""What users of both fronts hold: a subscription, a book, a reply that is to come. Pure.

Nothing here waits. What somebody may wait for is a ``look_…``: it returns the outcome, None while
there is none, and raises when there never will be: EOFError where all is closed. A front calls
it, with its lock held, until it returns something, and in between waits by ``ready``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Union

from rango_gevent.client.buffers import Buffer
from rango_gevent.client.model import Event, RequestFailed
from rango_gevent.client.orderbook import Level, OrderBook
from rango_gevent.client.sinks import BookChange, BookSink, QueueSink
from rango_gevent.client.wanted import PENDING
from rango_gevent.client.wire import Reply

if TYPE_CHECKING:
    from rango_gevent.client.front import Front


class HeldStream:
    """A stream and the queue of its events.

    Attributes:
        stream: its name.
        ready: tells that an event came, or that it is over.
    """

    def __init__(
        self, client: Front[Any, Any], stream: str, buffer: Buffer[Event], stale_after_s: float
    ) -> None:
        self.stream = stream
        self.ready = client.new_signal()
        self._client = client
        self._sink = QueueSink(client.core, stream, buffer, stale_after_s, self._arrived)

    @property
    def state(self) -> str:
        """Return ``pending``, ``active`` or ``refused``."""
        return self._sink.wanted.state

    @property
    def buffer(self) -> Buffer[Event]:
        """Return where its events wait."""
        return self._sink.buffer

    def look_settled(self) -> bool | None:
        """Look whether the gateway holds it.

        Raises:
            SubscriptionRefused: the gateway does not allow it, or the client ended.
        """
        if self._sink.wanted.state == PENDING and not self._client.core.has_ended:
            return None
        if self._sink.wanted.error is not None:
            raise self._sink.wanted.error
        return True

    def look_event(self) -> Event | None:
        """Take the next event.

        Raises:
            EOFError: it, or the client, was closed.
            Overflow: events are missing here, under the policy ``error``.
            ConnectionLost, Refused: the client has ended and will not come back.
        """
        event = None if self._sink.is_closed else self._sink.buffer.take()
        if event is not None:
            self._client.room.notify_all()
        elif self._sink.is_closed or self._client.has_no_more():
            raise EOFError(f"{self.stream}: closed")
        return event

    def close(self) -> None:
        """Unsubscribe, unless others want the stream; what waits is let go."""
        with self._client.lock:
            if not self._sink.is_closed:
                self._client.forget(self)
                self._sink.close()
                self.ready.notify_all()

    def _arrived(self) -> None:
        self.ready.notify_all()
        self._client.arrived(self._sink.buffer)


class HeldBook:
    """A book that is kept up to date in the background.

    It is always as new as what arrived, whether somebody takes its changes or not; of changes
    that nobody takes the oldest are let go.

    Attributes:
        stream: of its increments.
        ready: tells that it changed, or that it is over.
    """

    def __init__(self, client: Front[Any, Any], stream: str, book: OrderBook) -> None:
        self.stream = stream
        self.ready = client.new_signal()
        self._client = client
        self._book = book
        self._is_closed = False
        self._sink = BookSink(client.core, stream, book, self.ready.notify_all)

    @property
    def is_synced(self) -> bool:
        """Tell whether it is whole: a snapshot and all increments since."""
        return self._book.is_synced

    @property
    def sequence(self) -> int | None:
        """Return the sequence of its last event."""
        return self._book.sequence

    @property
    def best_bid(self) -> Level | None:
        """Return the highest bid, price and amount; None without any."""
        with self._client.lock:
            return self._book.best_bid

    @property
    def best_ask(self) -> Level | None:
        """Return the lowest ask, price and amount; None without any."""
        with self._client.lock:
            return self._book.best_ask

    @property
    def bids(self) -> list[Level]:
        """Return bids, the best first."""
        with self._client.lock:
            return list(self._book.bids())

    @property
    def asks(self) -> list[Level]:
        """Return asks, the best first."""
        with self._client.lock:
            return list(self._book.asks())

    def levels(self, depth: int = 0) -> tuple[list[Level], list[Level]]:
        """Return bids and asks of one moment, the best first, so many of each; 0: all."""
        with self._client.lock:
            return list(self._book.bids(depth or None)), list(self._book.asks(depth or None))

    def on_invalid(self, listener: Callable[[str], object]) -> None:
        """Have a function called with the reason whenever it cannot be trusted any more."""
        self._sink.invalid.append(listener)

    def look_synced(self) -> bool | None:
        """Look whether it is whole.

        Raises:
            SubscriptionRefused: the gateway does not allow it, or the client ended.
        """
        if self._book.is_synced:
            return True
        if self._sink.wanted.error is not None:
            raise self._sink.wanted.error
        return None

    def look_change(self) -> BookChange | None:
        """Take the next change.

        Raises:
            EOFError: it, or the client, was closed.
            ConnectionLost, Refused: the client has ended and will not come back.
        """
        change = None if self._is_closed else self._sink.changes.take()
        if change is None and (self._is_closed or self._client.has_no_more()):
            raise EOFError(f"{self.stream}: closed")
        return change

    def close(self) -> None:
        """Unsubscribe, unless others want the stream."""
        with self._client.lock:
            if not self._is_closed:
                self._is_closed = True
                self._client.forget(self)
                self._sink.close()
                self.ready.notify_all()


class Answer:
    """The replies to one request.

    Attributes:
        ready: tells that they came.
    """

    def __init__(self, ready: Any) -> None:
        self.ready = ready
        self._outcome: list[Reply] | Exception | None = None

    def settle(self, outcome: Union[list[Reply], Exception]) -> None:
        """Bring the outcome."""
        self._outcome = outcome
        self.ready.notify_all()

    def look(self) -> list[Any] | None:
        """Return what the replies have under ``success``.

        Raises:
            RequestFailed: the gateway answered with an error.
            ConnectionLost: the connection ended before the answer.
        """
        if self._outcome is None:
            return None
        if isinstance(self._outcome, Exception):
            raise self._outcome
        for reply in self._outcome:
            if reply.error is not None:
                raise RequestFailed(reply.error, reply.code)
        return [reply.value.get("success") for reply in self._outcome]
