"""What a user of the asyncio client holds: a subscription, a book; and what they wait by."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, Callable

from rango_gevent.client.buffers import Buffer
from rango_gevent.client.deadline import Deadline
from rango_gevent.client.model import Event
from rango_gevent.client.orderbook import Level, OrderBook
from rango_gevent.client.sinks import BookChange, BookSink, QueueSink
from rango_gevent.client.wanted import PENDING

if TYPE_CHECKING:
    from rango_gevent.client.aio import StreamClient


class Signal:
    """Wakes up all who wait; there is nothing to miss, as they look before they wait."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    def notify_all(self) -> None:
        """Wake up all who wait now."""
        waiting, self._waiting = self._waiting, set()
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def wait(self, timeout_s: float | None) -> None:
        """Wait for the next `notify_all`, at most so long."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await asyncio.wait({future}, timeout=timeout_s)
        finally:
            self._waiting.discard(future)


class Subscription:
    """A stream and the queue of its events; made by `StreamClient.subscribe`."""

    def __init__(
        self, client: StreamClient, stream: str, buffer: Buffer[Event], stale_after_s: float
    ) -> None:
        self.stream = stream
        self._client = client
        self._ready = client.new_signal()
        self._sink = QueueSink(client.core, stream, buffer, stale_after_s, self._arrived)

    async def __aenter__(self) -> Subscription:
        """Do nothing: it is wanted already."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Unsubscribe."""
        self.close()

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Give events until it or the client is closed."""
        while True:
            event = await self._next(Deadline(None))
            if event is None:
                return
            yield event

    @property
    def state(self) -> str:
        """Return ``pending``, ``active`` or ``refused``."""
        return self._sink.wanted.state

    async def wait(self, timeout: float | None = None) -> Subscription:
        """Wait until the gateway holds it, and return it.

        Raises:
            SubscriptionRefused: the gateway does not allow it, or the client ended.
            TimeoutError: there was no answer in so many seconds.
        """
        deadline = Deadline(timeout)
        while self._sink.wanted.state == PENDING and not self._client.core.has_ended:
            deadline.check()
            await self._client.changed.wait(deadline.left_s())
        if self._sink.wanted.error is not None:
            raise self._sink.wanted.error
        return self

    async def get(self, timeout: float | None = None) -> Event:
        """Return the next event.

        Raises:
            TimeoutError: none came in so many seconds.
            EOFError: it, or the client, was closed.
            Overflow: events are missing here, under the policy ``error``.
            ConnectionLost, Refused: the client has ended and will not come back.
        """
        event = await self._next(Deadline(timeout))
        if event is None:
            raise EOFError(f"{self.stream}: closed")
        return event

    async def _next(self, deadline: Deadline) -> Event | None:
        while not self._sink.is_closed:
            event = self._sink.buffer.take()
            if event is not None:
                self._client.room.notify_all()
                return event
            if self._client.has_no_more():
                return None
            deadline.check()
            await self._ready.wait(deadline.left_s())
        return None

    def _arrived(self) -> None:
        self._ready.notify_all()
        self._client.arrived(self._sink.buffer)

    def close(self) -> None:
        """Unsubscribe, unless others want the stream; what waits is let go."""
        if not self._sink.is_closed:
            self._client.forget(self._sink.buffer)
            self._sink.close()
            self._client.drop_signal(self._ready)


class Book:
    """A book that is kept up to date in the background; made by `StreamClient.book`."""

    def __init__(self, client: StreamClient, stream: str, book: OrderBook) -> None:
        self.stream = stream
        self._client = client
        self._book = book
        self._ready = client.new_signal()
        self._is_closed = False
        self._sink = BookSink(client.core, stream, book, self._ready.notify_all)

    async def __aenter__(self) -> Book:
        """Do nothing: it is subscribed already."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Unsubscribe."""
        self.close()

    async def __aiter__(self) -> AsyncIterator[BookChange]:
        """Give changes until it or the client is closed."""
        while not self._is_closed:
            change = self._sink.changes.take()
            if change is not None:
                yield change
            elif self._client.has_no_more():
                return
            else:
                await self._ready.wait(None)

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
        return self._book.best_bid

    @property
    def best_ask(self) -> Level | None:
        """Return the lowest ask, price and amount; None without any."""
        return self._book.best_ask

    @property
    def bids(self) -> list[Level]:
        """Return bids, the best first."""
        return list(self._book.bids())

    @property
    def asks(self) -> list[Level]:
        """Return asks, the best first."""
        return list(self._book.asks())

    async def wait_synced(self, timeout: float | None = None) -> Book:
        """Wait until it is whole, and return it.

        Raises:
            SubscriptionRefused: the gateway does not allow it, or the client ended.
            TimeoutError: it was not in so many seconds.
        """
        deadline = Deadline(timeout)
        while not self._book.is_synced:
            if self._sink.wanted.error is not None:
                raise self._sink.wanted.error
            deadline.check()
            await self._ready.wait(deadline.left_s())
        return self

    def on_invalid(self, listener: Callable[[str], object]) -> None:
        """Have a function called with the reason whenever it cannot be trusted any more."""
        self._sink.invalid.append(listener)

    def close(self) -> None:
        """Unsubscribe, unless others want the stream."""
        if not self._is_closed:
            self._is_closed = True
            self._sink.close()
            self._client.drop_signal(self._ready)
