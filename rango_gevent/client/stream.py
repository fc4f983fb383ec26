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
- Events that were published between two connections are given by the gateway, where it keeps
  them; else they are missed, a `Gap` says so, and a book begins with its snapshot again.
- Every wait is bounded or ends by `close`, which may be called from anywhere.
- Listeners are called by one thread of their own, in order: they may take their time, ask the
  client things and close it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Callable, TypeVar, cast

from rango_gevent.client.deadline import Deadline
from rango_gevent.client.front import Front
from rango_gevent.client.handles import Book, Subscription
from rango_gevent.client.link import Link
from rango_gevent.client.model import Event
from rango_gevent.client.runner import Runner, Teller
from rango_gevent.client.wire import checked_token

_LEAVE_S = 1.0  # over the closing handshake

T = TypeVar("T")


class StreamClient(Front[Subscription, Book]):
    """A client of a gateway, or of several that serve the same streams; arguments as of `Front`."""

    _subscription_type = Subscription
    _book_type = Book

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

    def _prepare(self) -> None:
        self.lock = threading.RLock()
        self._token_lock = threading.Lock()
        self._teller = Teller(self)

    def new_signal(self) -> threading.Condition:
        """Return what somebody can wait by."""
        return threading.Condition(self.lock)

    def until(
        self, signal: threading.Condition, look: Callable[[], T | None], deadline: Deadline
    ) -> T:
        """Wait until there is something to see.

        Raises:
            TimeoutError: there was nothing in time.
        """
        with self.lock:
            while (seen := look()) is None:
                deadline.check()
                signal.wait(deadline.left_s())
            return seen

    # -- life ---------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to connect, in the background; once is enough."""
        with self.lock:
            if not (self._is_running or self._is_closed):
                self._teller.start()
            super().start()

    def _new_runner(self, link: Link) -> Runner:
        runner = Runner(self, link)
        runner.start()
        return runner

    def close(self) -> None:
        """Say goodbye and end, in bounded time; from a callback too, where it does not wait."""
        with self.lock:
            self._is_closed = True
            self.core.close()
            self.wake_all()
            runners = cast("list[Runner]", [*self._runners.values()])
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
            EOFError: the client was closed.
            ConnectionLost, Refused: the client has ended and will not come back.
        """
        self.until(self.changed, self._look_live, Deadline(timeout))

    # -- events and requests ------------------------------------------------------------

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
        with suppress(EOFError):
            while True:
                yield self.until(self.ready, self._look_event, deadline)
                deadline.check()  # events may come without a pause

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
        self.start()
        with self.lock:
            link = self.until(self.changed, self._look_live, deadline)
            answer = self._send(
                link, request, deadline, answers=answers, until=until, weight=weight, wait=wait
            )
            replies = self.until(answer.ready, answer.look, deadline)
        return replies[0] if answers == 1 and until is None else replies

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

    def wake_all(self) -> None:
        """Let everybody who waits look again; the lock is held."""
        super().wake_all()
        self._teller.wake()

    def tell(self) -> None:
        """Let listeners hear what happened; the lock may be held."""
        if self.core.news:
            with self.lock:
                self._teller.wake()
