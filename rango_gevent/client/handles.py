"""What a user of the synchronous client holds: a subscription, a book."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING

from rango_gevent.client.deadline import Deadline
from rango_gevent.client.held import HeldBook, HeldStream
from rango_gevent.client.model import Event
from rango_gevent.client.sinks import BookChange

if TYPE_CHECKING:
    from rango_gevent.client.stream import StreamClient


class Subscription(HeldStream):
    """A stream and the queue of its events; made by `StreamClient.subscribe`.

    Iterating gives its events alone, and ends when it or the client is closed. Whoever iterates
    over the client gets them too, each event once.

    Attributes:
        stream: its name.
    """

    _client: StreamClient

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
        with suppress(EOFError):
            while True:
                yield self.get()

    def wait(self, timeout: float | None = None) -> Subscription:
        """Wait until the gateway holds it, and return it.

        Raises:
            SubscriptionRefused: the gateway does not allow it, or the client ended.
            TimeoutError: there was no answer in so many seconds.
        """
        self._client.until(self._client.changed, self.look_settled, Deadline(timeout))
        return self

    def get(self, timeout: float | None = None) -> Event:
        """Return the next event.

        Raises:
            TimeoutError: none came in so many seconds.
            EOFError: it, or the client, was closed.
            Overflow: events are missing here, under the policy ``error``.
            ConnectionLost, Refused: the client has ended and will not come back.
        """
        return self._client.until(self.ready, self.look_event, Deadline(timeout))


class Book(HeldBook):
    """A book that is kept up to date in the background; made by `StreamClient.book`.

    Iterating gives each `BookChange`, and ends when it or the client is closed.
    """

    _client: StreamClient

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
        with suppress(EOFError):
            while True:
                yield self.get()

    def wait_synced(self, timeout: float | None = None) -> Book:
        """Wait until it is whole, and return it.

        Raises:
            SubscriptionRefused: the gateway does not allow it, or the client ended.
            TimeoutError: it was not in so many seconds.
        """
        self._client.until(self.ready, self.look_synced, Deadline(timeout))
        return self

    def get(self, timeout: float | None = None) -> BookChange:
        """Return the next change.

        Raises:
            TimeoutError: none came in so many seconds.
            EOFError: it, or the client, was closed.
            ConnectionLost, Refused: the client has ended and will not come back.
        """
        return self._client.until(self.ready, self.look_change, Deadline(timeout))
