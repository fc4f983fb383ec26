"""What both fronts are made of: all of a client but sockets, threads or tasks, and waiting.

A front's lock is held around every call of the core and of what users hold; asyncio has no need
of one. Everything that somebody waits for is told by a signal, and looked at again after it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Callable, Generic, Protocol, TypeVar

from rango_gevent.client.buffers import DROP_OLDEST, Buffer, Merged
from rango_gevent.client.core import Core
from rango_gevent.client.deadline import Deadline
from rango_gevent.client.held import Answer, HeldBook, HeldStream
from rango_gevent.client.limiter import TokenBucket
from rango_gevent.client.link import Link
from rango_gevent.client.model import CLOSED, Event, Gap, Hooks, Limits, Notice, StateChange, Stats
from rango_gevent.client.orderbook import Checksum, OrderBook
from rango_gevent.client.plan import make_plan
from rango_gevent.client.wanted import BOOK_END
from rango_gevent.client.wire import checked_token, names_in_url

QUEUE_SIZE = 10_000

SubscriptionT = TypeVar("SubscriptionT", bound=HeldStream)
BookT = TypeVar("BookT", bound=HeldBook)


class RunnerLike(Protocol):
    """What runs a connection."""

    def wake(self) -> None:
        """Let it look for what is to be done; the lock is held."""


class Front(Generic[SubscriptionT, BookT]):
    """A client of a gateway, or of several that serve the same streams.

    Args:
        url: of the gateway, ``ws://host:port`` or with a path before ``/public``; or several.
        streams: names to subscribe to from the start.
        token: a token, or what returns one: it is called before each connect. For asyncio it may
            return a coroutine of one.
        per_connection: streams of one connection, more open another; 0: all in one.
        reconnect: come back when a connection is lost.
        on_notice: called with each `Notice`.
        limits: bounds.
        bucket: what the requests of all connections take tokens from, for a limit on all of them.
        in_band: send the token in a message instead of with the handshake.
        resume: come back to where it stood, where the gateway offers that, and miss nothing.
        options: more for ``connect`` of ``websockets``: ``ssl``, ``proxy``, ``compression``,
            ``additional_headers``.
        jitter: spreads waits; a generator of random numbers.

    Attributes:
        core: all that is decided.
        lock: to be held around it.
        changed: something about streams or states did.
        ready: there is an event for who iterates over the client.
        room: somebody took an event.

    Raises:
        ConfigError: a URL or the token cannot be one.
    """

    lock: Any
    _subscription_type: type[SubscriptionT]
    _book_type: type[BookT]

    def __init__(
        self,
        url: str | Sequence[str],
        streams: Iterable[str] = (),
        *,
        token: str | Callable[[], Any] = "",
        per_connection: int = 0,
        reconnect: bool = True,
        on_notice: Callable[[Notice], object] | None = None,
        limits: Limits = Limits(),  # noqa: B008 - a tuple: nobody can change it
        bucket: TokenBucket | None = None,
        in_band: bool = False,
        resume: bool = True,
        options: Mapping[str, Any] | None = None,
        jitter: random.Random | None = None,
    ) -> None:
        self._prepare()
        self.limits = limits
        self.options = dict(options or {})
        self._token = token if callable(token) else checked_token(token)
        plan = make_plan(url, self._token, in_band=in_band)
        plan = plan._replace(per_connection=per_connection, resume=resume, reconnect=reconnect)
        self.changed, self.ready, self.room = (self.new_signal() for _ in range(3))
        self._merged = Merged()
        self._held: dict[int, HeldStream | HeldBook] = {}
        self._runners: dict[int, RunnerLike] = {}
        self._is_running = self._is_closed = False
        with self.lock:
            self.core = Core(plan, limits, jitter or random.Random(), self._wake, bucket)
        if on_notice is not None:
            self.on_notice(on_notice)
        names = [name for one in plan.urls for name in names_in_url(one)]
        for name in dict.fromkeys([*names, *streams]):
            self.subscribe(name)

    # -- what a front has of its own ----------------------------------------------------

    def _prepare(self) -> None:
        """Make the lock, and whatever else there must be before anything is wanted."""
        raise NotImplementedError

    def new_signal(self) -> Any:
        """Return what somebody can wait by, with ``notify_all`` and a ``wait`` of its own kind."""
        raise NotImplementedError

    def _new_runner(self, link: Link) -> RunnerLike:
        """Return what runs a connection, and runs already."""
        raise NotImplementedError

    # -- life ---------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to connect, in the background; once is enough."""
        with self.lock:
            if not (self._is_running or self._is_closed):
                self._is_running = True
                for link in self.core.pool:
                    self._run(link)

    def _run(self, link: Link) -> None:
        if link.number not in self._runners:
            self._runners[link.number] = self._new_runner(link)

    def _look_live(self) -> Link | None:
        """Look for a connection that is live.

        Raises:
            EOFError: the client was closed.
            ConnectionLost, Refused: the client has ended and will not come back.
        """
        link = self.core.pool.live()
        if link is None and self.has_no_more():
            raise EOFError("the client is closed")
        return link

    # -- streams ------------------------------------------------------------------------

    def subscribe(
        self,
        stream: str,
        *,
        policy: str = DROP_OLDEST,
        size: int = QUEUE_SIZE,
        stale_after_s: float = 0.0,
    ) -> SubscriptionT:
        """Subscribe to a stream, now and after each reconnect; its ``wait`` waits for that.

        Args:
            stream: its name.
            policy: what becomes of events that find a full queue: ``block`` (reading stops, and
                in the end the gateway finds this client slow), ``drop-oldest``, ``latest`` (only
                the newest waits), ``error`` (iterating raises `Overflow` there, once).
            size: events that the queue holds.
            stale_after_s: seconds without an event after which `on_stale` is told; 0: never.
        """
        buffer: Buffer[Event] = Buffer(stream, policy, size)
        with self.lock:
            subscription = self._subscription_type(self, stream, buffer, stale_after_s)
            self._held[id(subscription)] = subscription
        return subscription

    subscription = subscribe  # for a ``with`` block

    def unsubscribe(self, *streams: str) -> None:
        """Unsubscribe from streams, now and for later."""
        with self.lock:
            for held in list(self._held.values()):
                if isinstance(held, HeldStream) and held.stream in streams:
                    held.close()

    def book(
        self,
        market: str,
        *,
        number: type[Decimal] | type[float] = Decimal,
        depth: int = 0,
        checksum: Checksum | None = None,
    ) -> BookT:
        """Keep a book up to date, now and after each reconnect; ``wait_synced`` waits for it.

        Args:
            market: such as ``btcusd``; or a stream's whole name, ending with ``-inc``.
            number: what prices and amounts are: `Decimal`, exact, or `float`, faster.
            depth: levels of each side that are shown; 0: all that are known.
            checksum: takes the `OrderBook` and the event that changed it, tells whether it is
                right.
        """
        stream = market if market.endswith(BOOK_END) else f"{market}.ob{BOOK_END}"
        with self.lock:
            book = self._book_type(self, stream, OrderBook(number, depth, checksum))
            self._held[id(book)] = book
        return book

    def forget(self, held: HeldStream | HeldBook) -> None:
        """Leave what was closed out; the lock is held."""
        self._held.pop(id(held), None)
        if isinstance(held, HeldStream):
            self._merged.forget(held.buffer)
            self.room.notify_all()

    # -- events -------------------------------------------------------------------------

    def _look_event(self) -> Event | None:
        """Take the oldest event of all subscriptions.

        Raises:
            EOFError: the client was closed.
            Overflow: events are missing here, of a subscription with the policy ``error``.
            ConnectionLost, Refused: the client has ended and will not come back.
        """
        taken = None if self._is_closed else self._merged.take()
        if taken is not None:
            self.room.notify_all()
            return taken[1]
        if self.has_no_more():
            raise EOFError("the client is closed")
        return None

    def has_no_more(self) -> bool:
        """Tell whether the client was closed; the lock is held.

        Raises:
            ConnectionLost, Refused: it has ended for another reason.
        """
        if self.core.error is not None:
            raise self.core.error
        return self._is_closed

    def arrived(self, buffer: Buffer[Event]) -> None:
        """Note that a queue has something; the lock is held."""
        self._merged.added(buffer)
        self.ready.notify_all()

    # -- requests -----------------------------------------------------------------------

    def _send(
        self, link: Link, request: Mapping[str, Any], deadline: Deadline, **more: Any
    ) -> Answer:
        """Send a request in its turn, and return what its answer will be; the lock is held."""
        answer = Answer(self.new_signal())
        self.core.asker.request(
            link,
            request,
            answer.settle,
            time.monotonic(),
            timeout_s=deadline.left_s() or 0.0,
            **more,
        )
        self._wake(link)
        return answer

    # -- what is told -------------------------------------------------------------------

    @property
    def hooks(self) -> Hooks:
        """Return whom it tells: lists of functions."""
        return self.core.hooks

    def on_state(self, listener: Callable[[StateChange], object]) -> None:
        """Have a function called with each `StateChange`."""
        self.hooks.state.append(listener)

    def on_gap(self, listener: Callable[[Gap], object]) -> None:
        """Have a function called with each `Gap`."""
        self.hooks.gap.append(listener)

    def on_stale(self, listener: Callable[[str], object]) -> None:
        """Have a function called with each stream that is quiet for longer than it may be."""
        self.hooks.stale.append(listener)

    def on_latency(self, listener: Callable[[str, float], object]) -> None:
        """Have a function called with what was answered, ``request`` or ``ping``, and seconds."""
        self.hooks.latency.append(listener)

    def on_notice(self, listener: Callable[[Notice], object]) -> None:
        """Have a function called with each `Notice`."""
        self.hooks.notice.append(listener)

    def stats(self) -> Stats:
        """Return the figures."""
        with self.lock:
            return self.core.stats(time.time())

    # -- for what runs it ---------------------------------------------------------------

    def _wake(self, link: Link) -> None:
        if self._is_running and link.state != CLOSED:
            self._run(link)
        if link.number in self._runners:
            self._runners[link.number].wake()
        self.changed.notify_all()

    def ended(self, link: Link) -> None:
        """Forget what ran a connection that is closed for good; the lock is held."""
        if not self._is_closed:
            self._runners.pop(link.number, None)
        self.wake_all()

    def wake_all(self) -> None:
        """Let everybody who waits look again; the lock is held."""
        for runner in self._runners.values():
            runner.wake()
        for held in list(self._held.values()):
            held.ready.notify_all()
        for signal in (self.changed, self.ready, self.room):
            signal.notify_all()
