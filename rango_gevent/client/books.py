"""A book as the user of the synchronous client holds it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Callable

from rango_gevent.client.deadline import Deadline
from rango_gevent.client.orderbook import Level, OrderBook
from rango_gevent.client.sinks import BookChange, BookSink

if TYPE_CHECKING:
    from rango_gevent.client.stream import StreamClient


class Book:
    """A book that is kept up to date in the background; made by `StreamClient.book`.

    Iterating gives each `BookChange`, and ends when it or the client is closed. The book is
    always as new as what arrived, whether somebody iterates or not; of changes that nobody takes
    the oldest are let go.
    """

    def __init__(self, client: StreamClient, stream: str, book: OrderBook) -> None:
        self.stream = stream
        self._client = client
        self._ready = threading.Condition(client.lock)
        self._book = book
        self._is_closed = False
        self._sink = BookSink(client.core, stream, book, self._ready.notify_all)

    def __enter__(self) -> Book:
        """Do nothing: it is subscribed already."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Unsubscribe."""
        self.close()

    def __iter__(self) -> Iterator[BookChange]:
        """Give changes until it or the client is closed."""
        while True:
            change = self._next(Deadline(None))
            if change is None:
                return
            yield change

    # -- what it is ---------------------------------------------------------------------

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

    # -- waiting ------------------------------------------------------------------------

    def wait_synced(self, timeout: float | None = None) -> Book:
        """Wait until it is whole, and return it.

        Raises:
            SubscriptionRefused: the gateway does not allow it, or the client ended.
            TimeoutError: it was not in so many seconds.
        """
        deadline = Deadline(timeout)
        with self._client.lock:
            while not self._book.is_synced:
                if self._sink.wanted.error is not None:
                    raise self._sink.wanted.error
                deadline.check()
                self._ready.wait(deadline.left_s())
        return self

    def get(self, timeout: float | None = None) -> BookChange:
        """Return the next change.

        Raises:
            TimeoutError: none came in so many seconds.
            EOFError: it, or the client, was closed.
            ConnectionLost, Refused: the client has ended and will not come back.
        """
        change = self._next(Deadline(timeout))
        if change is None:
            raise EOFError(f"{self.stream}: closed")
        return change

    def _next(self, deadline: Deadline) -> BookChange | None:
        with self._client.lock:
            while not self._is_closed:
                change = self._sink.changes.take()
                if change is not None:
                    return change
                if self._client.has_no_more():
                    return None
                deadline.check()
                self._ready.wait(deadline.left_s())
        return None

    def on_invalid(self, listener: Callable[[str], object]) -> None:
        """Have a function called with the reason whenever it cannot be trusted any more."""
        self._sink.invalid.append(listener)

    def close(self) -> None:
        """Unsubscribe, unless others want the stream."""
        with self._client.lock:
            if not self._is_closed:
                self._is_closed = True
                self._client.forget_book(self)
                self._sink.close()
                self._ready.notify_all()

    def wake(self) -> None:
        """Let whoever waits look again."""
        self._ready.notify_all()
