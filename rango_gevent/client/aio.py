"""The client that heals, for asyncio: the same core, on the asyncio client of ``websockets``.

    async with StreamClient("ws://127.0.0.1:8080") as client:
        trades = await client.subscribe("btcusd.trades").wait(5)
        async for event in client:
            ...

All of it runs in one event loop and is to be used from there. Listeners are plain functions,
called in the loop. A token may come from a plain function or from a coroutine's. What is not said
here is as in `rango_gevent.client.stream`.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import nullcontext, suppress
from types import TracebackType
from typing import Any, Callable, TypeVar, cast

from rango_gevent.client.aiohandles import Book, Signal, Subscription
from rango_gevent.client.aiorunner import Runner
from rango_gevent.client.deadline import Deadline
from rango_gevent.client.front import Front
from rango_gevent.client.link import Link
from rango_gevent.client.model import Event
from rango_gevent.client.wire import checked_token

log = logging.getLogger(__name__)

T = TypeVar("T")


class StreamClient(Front[Subscription, Book]):
    """A client of a gateway, or of several that serve the same streams; arguments as of `Front`."""

    _subscription_type = Subscription
    _book_type = Book

    async def __aenter__(self) -> StreamClient:
        """Begin to connect, in the background."""
        self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        await self.close()

    def _prepare(self) -> None:
        self.lock = nullcontext()  # all of it runs in one loop
        self._is_telling = False

    def new_signal(self) -> Signal:
        """Return what somebody can wait by."""
        return Signal()

    async def until(self, signal: Signal, look: Callable[[], T | None], deadline: Deadline) -> T:
        """Wait until there is something to see.

        Raises:
            TimeoutError: there was nothing in time.
        """
        while (seen := look()) is None:
            deadline.check()
            await signal.wait(deadline.left_s())
        return seen

    # -- life ---------------------------------------------------------------------------

    def _new_runner(self, link: Link) -> Runner:
        return Runner(self, link)

    def close(self) -> Awaitable[None]:
        """Say goodbye and end, in bounded time; a listener calls it without waiting."""
        self._is_closed = True
        self.core.close()
        self.wake_all()
        self.tell()
        return asyncio.ensure_future(self._end(cast("list[Runner]", [*self._runners.values()])))

    async def _end(self, runners: list[Runner]) -> None:
        for runner in runners:
            await runner.end(self.limits.close_s)

    async def wait_live(self, timeout: float | None = None) -> None:
        """Wait until a connection is live; errors as of the synchronous client."""
        await self.until(self.changed, self._look_live, Deadline(timeout))

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Give the events of all subscriptions, in order of arrival, until `close`."""
        self.start()
        with suppress(EOFError):
            while True:
                yield await self.until(self.ready, self._look_event, Deadline(None))

    async def request(
        self,
        request: Mapping[str, Any],
        *,
        timeout: float = 10.0,
        answers: int = 1,
        until: Callable[[Any], bool] | None = None,
        weight: float = 1.0,
        wait: bool = True,
    ) -> Any:
        """Send a request with an id and return what its reply has under ``success``.

        Args and errors are those of the synchronous client.
        """
        deadline = Deadline(timeout)
        self.start()
        link = await self.until(self.changed, self._look_live, deadline)
        answer = self._send(
            link, request, deadline, answers=answers, until=until, weight=weight, wait=wait
        )
        replies = await self.until(answer.ready, answer.look, deadline)
        return replies[0] if answers == 1 and until is None else replies

    # -- for the tasks ------------------------------------------------------------------

    async def fetch_token(self) -> str:
        """Return the token for the next connection."""
        if not callable(self._token):
            return self._token
        token = self._token()
        return checked_token(await token if inspect.isawaitable(token) else token)

    def tell(self) -> None:
        """Call the listeners of what happened, one at a time and in order."""
        if self._is_telling:
            return
        self._is_telling = True
        while self.core.news:
            listener, args = self.core.news.popleft()
            try:
                listener(*args)
            except Exception:
                log.exception("a listener of the client failed")
        self._is_telling = False
