"""A client that heals: it holds streams and books over any number of reconnects.

    with StreamClient("ws://127.0.0.1:8080") as client:
        trades = client.subscribe("btcusd.trades")
        for event in client:
            ...

Built on the synchronous client of ``websockets``: it works with threads and, when the standard
library is patched, with greenlets. Rules:

- An event's body is the JSON text as the publisher wrote it; nothing here parses it.
- A lost connection is made again after a jittered wait, the first one like any other, unless the
  close code or the HTTP status says that this cannot help.
- Events that were published between two connections are missed, and a `Gap` says so; a book
  begins with its snapshot again.
- Every wait is bounded or ends by `close`, which may be called from anywhere.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from types import TracebackType
from typing import Any, Callable, Union

from rango_gevent.client.books import Book
from rango_gevent.client.buffers import DROP_OLDEST, Buffer, Merged
from rango_gevent.client.core import Core
from rango_gevent.client.deadline import Deadline
from rango_gevent.client.handles import Answer, Subscription
from rango_gevent.client.limiter import TokenBucket
from rango_gevent.client.link import Link
from rango_gevent.client.model import CLOSED, Event, Gap, Limits, Notice, StateChange, Stats
from rango_gevent.client.orderbook import Checksum, OrderBook
from rango_gevent.client.plan import make_plan
from rango_gevent.client.runner import Runner, Teller
from rango_gevent.client.wanted import BOOK_END
from rango_gevent.client.wire import checked_token, names_in_url

Token = Union[str, Callable[[], str]]

QUEUE_SIZE = 10_000
_LEAVE_S = 1.0  # over the closing handshake


class StreamClient:
    """A client of a gateway, or of several that serve the same streams.

    Args:
        url: of the gateway, ``ws://host:port`` or with a path before ``/public``; or several.
        streams: names to subscribe to from the start.
        token: a token, or what returns one: it is called before each connect.
        per_connection: streams of one connection, more open another; 0: all in one.
        reconnect: come back when a connection is lost.
        on_notice: called with each `Notice`.
        limits: bounds.
        bucket: what the requests of all connections take tokens from, for a limit on all of them.
        in_band: send the token in a message instead of with the handshake.
        resume: come back to the position that was reached, where the gateway offers that.
        options: more for ``websockets.sync.client.connect``: ``ssl``, ``proxy``,
            ``compression``, ``additional_headers``.
        jitter: spreads waits; a generator of random numbers.

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
        on_notice: Callable[[Notice], object] | None = None,
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
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)  # something about streams or states
        self.ready = threading.Condition(self.lock)  # an event for who iterates over the client
        self.room = threading.Condition(self.lock)  # somebody took an event
        self._merged = Merged()
        self._subscriptions: dict[int, Subscription] = {}
        self._books: dict[int, Book] = {}
        self._runners: dict[int, Runner] = {}
        self._is_running = self._is_closed = False
        self._token_lock = threading.Lock()
        self._teller = Teller(self)
        with self.lock:
            self.core = Core(plan, limits, jitter or random.Random(), self._wake, bucket)
        if on_notice is not None:
            self.core.hooks.notice.append(on_notice)
        names = [name for one in plan.urls for name in names_in_url(one)]
        for name in dict.fromkeys([*names, *streams]):
            self.subscribe(name)

    def __enter__(self) -> StreamClient:
        """Begin to connect, in the background."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    # -- life ---------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to connect, in the background; once is enough."""
        with self.lock:
            if not (self._is_running or self._is_closed):
                self._is_running = True
                self._teller.start()
                for link in self.core.pool:
                    self._run(link)

    def _run(self, link: Link) -> None:
        if link.number not in self._runners:
            runner = self._runners[link.number] = Runner(self, link)
            runner.start()

    def close(self) -> None:
        """Say goodbye and end, in bounded time; from a callback too, where it does not wait."""
        with self.lock:
            self._is_closed = True
            self.core.close()
            self.wake_all()
            runners = list(self._runners.values())
        for runner in runners:
            runner.interrupt()
        threads: list[Runner | Teller] = [*runners, self._teller]
        if self._is_running and not any(thread.is_current() for thread in threads):
            deadline = Deadline(self.limits.close_s + _LEAVE_S)
            for thread in threads:
                thread.join(deadline.left_s() or 0.0)

    def wait_live(self, timeout: float | None = None) -> None:
        """Wait until a connection is live.

        Raises:
            TimeoutError: none was in so many seconds.
            ConnectionLost, Refused: the client has ended and will not come back.
        """
        deadline = Deadline(timeout)
        with self.lock:
            self._live(deadline)

    def _live(self, deadline: Deadline) -> Link:
        while True:
            link = self.core.pool.live()
            if link is not None:
                return link
            if self.has_no_more():
                raise EOFError("the client is closed")
            deadline.check()
            self.changed.wait(deadline.left_s())

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
            policy: what becomes of events that find a full queue: ``block`` (reading stops, and
                in the end the gateway finds this client slow), ``drop-oldest``, ``latest`` (only
                the newest waits), ``error`` (iterating raises `Overflow` there, once).
            size: events that the queue holds.
            stale_after_s: seconds without an event after which `on_stale` is told; 0: never.
        """
        buffer: Buffer[Event] = Buffer(stream, policy, size)
        with self.lock:
            subscription = Subscription(self, stream, buffer, stale_after_s)
            self._subscriptions[id(subscription)] = subscription
        return subscription

    subscription = subscribe  # for a ``with`` block

    def unsubscribe(self, *streams: str) -> None:
        """Unsubscribe from streams, now and for later."""
        with self.lock:
            for subscription in list(self._subscriptions.values()):
                if subscription.stream in streams:
                    subscription.close()

    def forget(self, subscription: Subscription, buffer: Buffer[Event]) -> None:
        """Leave a closed subscription out; the lock is held."""
        self._subscriptions.pop(id(subscription), None)
        self._merged.forget(buffer)
        self.room.notify_all()

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
        with self.lock:
            book = Book(self, stream, OrderBook(number, depth, checksum))
            self._books[id(book)] = book
        return book

    def forget_book(self, book: Book) -> None:
        """Leave a closed book out; the lock is held."""
        self._books.pop(id(book), None)

    # -- events -------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Event]:
        """Give the events of all subscriptions for ever, as `events` without a timeout."""
        return self.events()

    def events(self, timeout_s: float | None = None) -> Iterator[Event]:
        """Give the events of all subscriptions, in order of arrival, until `close`.

        Args:
            timeout_s: seconds for all of it; None: no bound.

        Raises:
            TimeoutError: the time is over.
            Overflow: events are missing here, of a subscription with the policy ``error``.
            Refused: the gateway refused the handshake, and would again.
            ConnectionLost: the connection is lost and will not be made again.
        """
        deadline = Deadline(timeout_s)
        self.start()
        while True:
            event = self._next(deadline)
            if event is None:
                return
            yield event
            deadline.check()  # events may come without a pause

    def _next(self, deadline: Deadline) -> Event | None:
        with self.lock:
            while not self._is_closed:
                taken = self._merged.take()
                if taken is not None:
                    self.room.notify_all()
                    return taken[1]
                if self.has_no_more():
                    return None
                deadline.check()
                self.ready.wait(deadline.left_s())
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

    def request(
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

        Args:
            request: such as ``{"event": "list"}``.
            timeout: seconds for all of it, a connection that is to come included.
            answers: replies to wait for; with more than one a list is returned.
            until: takes a reply and tells whether it is the last; a list is returned.
            weight: tokens that it takes from the bucket.
            wait: wait for its turn when the pace wants that.

        Raises:
            RequestFailed: the gateway answered with an error.
            ConnectionLost: the connection ended before the answer.
            TimeoutError: there was none in time, or there cannot be.
            NotNow: it would have to wait for its turn, and may not.
        """
        deadline = Deadline(timeout)
        answer = Answer(self.lock)
        self.start()
        with self.lock:
            link = self._live(deadline)
            self.core.asker.request(
                link,
                request,
                answer.settle,
                time.monotonic(),
                timeout_s=deadline.left_s() or 0.0,
                answers=answers,
                until=until,
                weight=weight,
                wait=wait,
            )
            self._wake(link)
            replies = answer.wait(deadline)
        return replies[0] if answers == 1 and until is None else replies

    # -- what is told -------------------------------------------------------------------

    # Listeners are called by one thread of their own, in order: they may take their time, ask the
    # client things and close it.

    def on_state(self, listener: Callable[[StateChange], object]) -> None:
        """Have a function called with each `StateChange`."""
        self.core.hooks.state.append(listener)

    def on_gap(self, listener: Callable[[Gap], object]) -> None:
        """Have a function called with each `Gap`."""
        self.core.hooks.gap.append(listener)

    def on_stale(self, listener: Callable[[str], object]) -> None:
        """Have a function called with each stream that is quiet for longer than it may be."""
        self.core.hooks.stale.append(listener)

    def on_latency(self, listener: Callable[[str, float], object]) -> None:
        """Have a function called with what was answered, ``request`` or ``ping``, and seconds."""
        self.core.hooks.latency.append(listener)

    def on_notice(self, listener: Callable[[Notice], object]) -> None:
        """Have a function called with each `Notice`."""
        self.core.hooks.notice.append(listener)

    def stats(self) -> Stats:
        """Return the figures."""
        with self.lock:
            return self.core.stats(time.time())

    # -- for the threads ----------------------------------------------------------------

    def fetch_token(self) -> str:
        """Return the token for the next connection.

        Raises:
            Exception: whatever the user's function raises.
        """
        if not callable(self._token):
            return self._token
        with self._token_lock:  # one at a time: a refresh may use up what the next one needs
            return checked_token(self._token())

    def _wake(self, link: Link) -> None:
        if self._is_running and link.state != CLOSED:
            self._run(link)
        if link.number in self._runners:
            self._runners[link.number].wake()
        self.changed.notify_all()

    def ended(self, link: Link) -> None:
        """Forget the threads of a connection that is closed for good; the lock is held."""
        if not self._is_closed:
            self._runners.pop(link.number, None)

    def wake_all(self) -> None:
        """Let everybody who waits look again; the lock is held."""
        for runner in self._runners.values():
            runner.wake()
        self._teller.wake()
        for subscription in self._subscriptions.values():
            subscription.wake()
        for book in self._books.values():
            book.wake()
        for condition in (self.changed, self.ready, self.room):
            condition.notify_all()

    def tell(self) -> None:
        """Let listeners hear what happened; the lock may be held."""
        if self.core.news:
            with self.lock:
                self._teller.wake()
