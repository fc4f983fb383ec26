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
import random
import time
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping, Sequence
from decimal import Decimal
from types import TracebackType
from typing import Any, Callable, Union

from rango_gevent.client.aiohandles import Book, Signal, Subscription
from rango_gevent.client.aiorunner import Runner
from rango_gevent.client.asking import Outcome
from rango_gevent.client.buffers import DROP_OLDEST, Buffer, Merged
from rango_gevent.client.core import Core
from rango_gevent.client.deadline import Deadline
from rango_gevent.client.limiter import TokenBucket
from rango_gevent.client.link import Link
from rango_gevent.client.model import (
    CLOSED,
    Event,
    Hooks,
    Limits,
    RequestFailed,
    Stats,
)
from rango_gevent.client.orderbook import Checksum, OrderBook
from rango_gevent.client.plan import make_plan
from rango_gevent.client.wanted import BOOK_END
from rango_gevent.client.wire import checked_token, names_in_url

log = logging.getLogger(__name__)

Token = Union[str, Callable[[], Union[str, Awaitable[str]]]]

QUEUE_SIZE = 10_000


class StreamClient:
    """A client of a gateway, or of several that serve the same streams.

    Args:
        url: of the gateway, ``ws://host:port`` or with a path before ``/public``; or several.
        streams: names to subscribe to from the start.
        token: a token, or what returns one or a coroutine of one: called before each connect.
        per_connection: streams of one connection, more open another; 0: all in one.
        reconnect: come back when a connection is lost.
        limits: bounds.
        bucket: what the requests of all connections take tokens from, for a limit on all of them.
        in_band: send the token in a message instead of with the handshake.
        resume: come back to the position that was reached, where the gateway offers that.
        options: more for ``websockets.asyncio.client.connect``.
        jitter: spreads waits; a generator of random numbers.

    Attributes:
        hooks: lists of functions to be told of what happens.

    Raises:
        ConfigError: a URL or the token cannot be one.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        streams: Iterable[str] = (),
        *,
        token: Token = "",
        per_connection: int = 0,
        reconnect: bool = True,
        limits: Limits = Limits(),  # noqa: B008 - a tuple: nobody can change it
        bucket: TokenBucket | None = None,
        in_band: bool = False,
        resume: bool = False,
        options: Mapping[str, Any] | None = None,
        jitter: random.Random | None = None,
    ) -> None:
        self.limits = limits
        self.options = dict(options or {})
        self._token = token if callable(token) else checked_token(token)
        plan = make_plan(url, self._token, in_band=in_band)
        plan = plan._replace(per_connection=per_connection, resume=resume, reconnect=reconnect)
        self._signals: set[Signal] = set()
        self.changed = self.new_signal()
        self.room = self.new_signal()
        self._ready = self.new_signal()
        self._merged = Merged()
        self._runners: dict[int, Runner] = {}
        self._is_running = self._is_closed = self._is_telling = False
        self.core = Core(plan, limits, jitter or random.Random(), self._wake, bucket)
        names = [name for one in plan.urls for name in names_in_url(one)]
        for name in dict.fromkeys([*names, *streams]):
            self.subscribe(name)

    @property
    def hooks(self) -> Hooks:
        """Return whom it tells."""
        return self.core.hooks

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

    # -- life ---------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to connect, in the background; once is enough."""
        if not (self._is_running or self._is_closed):
            self._is_running = True
            for link in self.core.pool:
                self._run(link)

    def _run(self, link: Link) -> None:
        if link.number not in self._runners:
            self._runners[link.number] = Runner(self, link)

    def close(self) -> Awaitable[None]:
        """Say goodbye and end, in bounded time; a listener calls it without waiting."""
        self._is_closed = True
        self.core.close()
        self.notify_all()
        self.tell()
        return asyncio.ensure_future(self._end(list(self._runners.values())))

    async def _end(self, runners: list[Runner]) -> None:
        for runner in runners:
            await runner.end(self.limits.close_s)

    async def wait_live(self, timeout: float | None = None) -> None:
        """Wait until a connection is live.

        Raises:
            TimeoutError: none was in so many seconds.
            EOFError: the client was closed.
            ConnectionLost, Refused: the client has ended and will not come back.
        """
        await self._live(Deadline(timeout))

    async def _live(self, deadline: Deadline) -> Link:
        while True:
            link = self.core.pool.live()
            if link is not None:
                return link
            if self.has_no_more():
                raise EOFError("the client is closed")
            deadline.check()
            await self.changed.wait(deadline.left_s())

    # -- streams ------------------------------------------------------------------------

    def subscribe(
        self,
        stream: str,
        *,
        policy: str = DROP_OLDEST,
        size: int = QUEUE_SIZE,
        stale_after_s: float = 0.0,
    ) -> Subscription:
        """Subscribe to a stream, now and after each reconnect; `Subscription.wait` waits for it.

        Args:
            stream: its name.
            policy: ``block``, ``drop-oldest``, ``latest`` or ``error``.
            size: events that the queue holds.
            stale_after_s: seconds without an event after which that is told; 0: never.
        """
        buffer: Buffer[Event] = Buffer(stream, policy, size)
        return Subscription(self, stream, buffer, stale_after_s)

    subscription = subscribe  # for an ``async with`` block

    def book(
        self,
        market: str,
        *,
        number: type[Decimal] | type[float] = Decimal,
        depth: int = 0,
        checksum: Checksum | None = None,
    ) -> Book:
        """Keep a book up to date, now and after each reconnect; `Book.wait_synced` waits for it.

        Args:
            market: such as ``btcusd``; or a stream's whole name, ending with ``-inc``.
            number: what prices and amounts are: `Decimal`, exact, or `float`, faster.
            depth: levels of each side that are shown; 0: all that are known.
            checksum: takes the `OrderBook` and the event that changed it, tells whether it is
                right.
        """
        stream = market if market.endswith(BOOK_END) else f"{market}.ob{BOOK_END}"
        return Book(self, stream, OrderBook(number, depth, checksum))

    def forget(self, buffer: Buffer[Event]) -> None:
        """Leave a closed subscription out."""
        self._merged.forget(buffer)
        self.room.notify_all()

    # -- events -------------------------------------------------------------------------

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Give the events of all subscriptions, in order of arrival, until `close`."""
        self.start()
        while not self._is_closed:
            taken = self._merged.take()
            if taken is not None:
                self.room.notify_all()
                yield taken[1]
            elif self.has_no_more():
                return
            else:
                await self._ready.wait(None)

    def has_no_more(self) -> bool:
        """Tell whether the client was closed.

        Raises:
            ConnectionLost, Refused: it has ended for another reason.
        """
        if self.core.error is not None:
            raise self.core.error
        return self._is_closed

    def arrived(self, buffer: Buffer[Event]) -> None:
        """Note that a queue has something."""
        self._merged.added(buffer)
        self._ready.notify_all()

    # -- requests -----------------------------------------------------------------------

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
        link = await self._live(deadline)
        came: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def settle(outcome: Outcome) -> None:
            if not came.done():
                came.set_result(outcome)

        self.core.asker.request(
            link,
            request,
            settle,
            time.monotonic(),
            timeout_s=deadline.left_s() or 0.0,
            answers=answers,
            until=until,
            weight=weight,
            wait=wait,
        )
        self._wake(link)
        await asyncio.wait({came}, timeout=deadline.left_s())
        if not came.done():
            came.cancel()
            raise TimeoutError("the time is over")
        outcome = came.result()
        if isinstance(outcome, Exception):
            raise outcome
        for reply in outcome:
            if reply.error is not None:
                raise RequestFailed(reply.error, reply.code)
        replies = [reply.value.get("success") for reply in outcome]
        return replies[0] if answers == 1 and until is None else replies

    def stats(self) -> Stats:
        """Return the figures."""
        return self.core.stats(time.time())

    # -- for the tasks ------------------------------------------------------------------

    async def fetch_token(self) -> str:
        """Return the token for the next connection."""
        if not callable(self._token):
            return self._token
        token = self._token()
        return checked_token(await token if inspect.isawaitable(token) else token)

    def _wake(self, link: Link) -> None:
        if self._is_running and link.state != CLOSED:
            self._run(link)
        if link.number in self._runners:
            self._runners[link.number].work.notify_all()
        self.changed.notify_all()

    def ended(self, link: Link) -> None:
        """Forget the tasks of a connection that is closed for good."""
        if not self._is_closed:
            self._runners.pop(link.number, None)
        self.notify_all()

    def new_signal(self) -> Signal:
        """Return what somebody can wait by who looks for the end of the client too."""
        signal = Signal()
        self._signals.add(signal)
        return signal

    def drop_signal(self, signal: Signal) -> None:
        """Wake up who waits by a signal for the last time."""
        self._signals.discard(signal)
        signal.notify_all()

    def notify_all(self) -> None:
        """Let everybody who waits look again."""
        for runner in self._runners.values():
            runner.work.notify_all()
        for signal in list(self._signals):
            signal.notify_all()

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
