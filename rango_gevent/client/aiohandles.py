"""What a user of the asyncio client holds: a subscription, a book; and what they wait by."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING

from rango_gevent.client.deadline import Deadline
from rango_gevent.client.held import HeldBook, HeldStream
from rango_gevent.client.model import Event
from rango_gevent.client.sinks import BookChange

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


class Subscription(HeldStream):
    """A stream and the queue of its events; made by `StreamClient.subscribe`.

    What is not said here is as in `rango_gevent.client.handles`.
    """

    _client: StreamClient

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
        with suppress(EOFError):
            while True:
                yield await self.get()

    async def wait(self, timeout: float | None = None) -> Subscription:
        """Wait until the gateway holds it, and return it."""
        await self._client.until(self._client.changed, self.look_settled, Deadline(timeout))
        return self

    async def get(self, timeout: float | None = None) -> Event:
        """Return the next event."""
        return await self._client.until(self.ready, self.look_event, Deadline(timeout))


class Book(HeldBook):
    """A book that is kept up to date in the background; made by `StreamClient.book`."""

    _client: StreamClient

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
        with suppress(EOFError):
            while True:
                yield await self.get()

    async def wait_synced(self, timeout: float | None = None) -> Book:
        """Wait until it is whole, and return it."""
        await self._client.until(self.ready, self.look_synced, Deadline(timeout))
        return self

    async def get(self, timeout: float | None = None) -> BookChange:
        """Return the next change."""
        return await self._client.until(self.ready, self.look_change, Deadline(timeout))
