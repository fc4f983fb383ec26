"""Who takes a stream's events: a queue, or a book. Pure; fronts add the waiting.

`QueueSink`  keeps events until somebody takes them
`BookSink`   merges them into a book, and asks for its snapshot when one is missing
"""

from __future__ import annotations

from typing import Callable, NamedTuple

from rango_gevent.client.buffers import DROP_OLDEST, Buffer
from rango_gevent.client.core import Core
from rango_gevent.client.model import Event
from rango_gevent.client.orderbook import INVALID, SYNC, UPDATE, Broken, OrderBook
from rango_gevent.client.wanted import SNAPSHOT_END

_CHANGES = 1000


class QueueSink:
    """Keeps a stream's events in a buffer.

    Args:
        core: of the client.
        stream: its name.
        buffer: where events wait.
        stale_after_s: seconds without an event after which that is told; 0: never.
        arrived: called after each event that found room.

    Attributes:
        is_closed: nobody wants events any more.
        wanted: what the core knows of the stream.
    """

    def __init__(
        self,
        core: Core,
        stream: str,
        buffer: Buffer[Event],
        stale_after_s: float,
        arrived: Callable[[], object],
    ) -> None:
        self.buffer = buffer
        self.is_closed = False
        self._core = core
        self._arrived = arrived
        self.wanted = core.want(stream, self, stale_after_s)

    def close(self) -> None:
        """Unsubscribe."""
        self.is_closed = True
        self._core.unwant(self.wanted, self)

    # -- for the core -------------------------------------------------------------------

    @property
    def dropped(self) -> int:
        """Return how many events found a full queue."""
        return self.buffer.dropped

    def waiting(self) -> tuple[int, float | None]:
        """Return how many events wait, and when the oldest of them arrived."""
        return self.buffer.backlog()

    def offer(self, number: int, event: Event) -> bool:
        """Take an event in; False when it has to wait for room."""
        if self.is_closed:
            return True
        if not self.buffer.offer(number, event):
            return False
        self._arrived()
        return True

    def lost(self, reason: str) -> None:
        """Do nothing: a gap is told to who listens for it."""

    def paused(self, reason: str) -> bool:
        """Return True: events follow events."""
        return True

    def resumed(self, recovered: bool) -> None:
        """Do nothing, for the same reason."""


class BookChange(NamedTuple):
    """What happened to a book.

    Attributes:
        kind: ``sync`` (a snapshot: it is whole), ``update``, or ``invalid`` until the next sync.
        sequence: of the book, None where there are none.
        reason: why it is invalid.
        received_at_s: when the event arrived, seconds of the wall clock.
    """

    kind: str
    sequence: int | None
    reason: str
    received_at_s: float


class BookSink:
    """Merges a book's events as they arrive, so that the book is never behind.

    Args:
        core: asks for snapshots.
        stream: of its increments.
        book: what to keep.
        changed: called after each change.

    Attributes:
        changes: the newest changes that nobody has taken.
        invalid: functions that are called, without a lock, with the reason when it is invalid.
        reason: why it is invalid now.
    """

    def __init__(
        self, core: Core, stream: str, book: OrderBook, changed: Callable[[], object]
    ) -> None:
        self.book = book
        self.changes: Buffer[BookChange] = Buffer(stream, DROP_OLDEST, _CHANGES)
        self.invalid: list[Callable[[str], object]] = []
        self.reason = "no snapshot came yet"
        self._core = core
        self._changed = changed
        self._at_s = 0.0
        self.wanted = core.want(stream, self)

    def close(self) -> None:
        """Unsubscribe."""
        self._core.unwant(self.wanted, self)

    # -- for the core -------------------------------------------------------------------

    @property
    def dropped(self) -> int:
        """Return 0: a change that nobody took is in the book all the same."""
        return 0

    def waiting(self) -> tuple[int, float | None]:
        """Return nothing: the book is never behind."""
        return 0, None

    def offer(self, number: int, event: Event) -> bool:
        """Merge an event."""
        self._at_s = event.received_at_s
        try:
            if event.stream.endswith(SNAPSHOT_END):
                self.book.snapshot(event.body)
                self._core.synced(self.wanted)
                self._note(SYNC)
            elif self.book.increment(event.body):
                if self.book.is_synced:  # else it catches up
                    self._note(UPDATE)
            else:
                self._core.resync(self.wanted)
        except Broken as error:
            self.lost(str(error))
            self._core.resync(self.wanted)
        return True

    def lost(self, reason: str) -> None:
        """Hear that events are missing: nothing is right until the next snapshot."""
        self.book.invalidate()
        self._tell(reason)

    def paused(self, reason: str) -> bool:
        """Hear that the connection is gone: it may be given what it missed."""
        was_synced = self.book.is_synced
        can_go_on = self.book.suspend()
        if was_synced:  # and not again at each attempt to come back
            self._tell(reason)
        return can_go_on

    def resumed(self, recovered: bool) -> None:
        """Hear that it was given that, or not; one without a snapshot asks for it."""
        if not recovered:
            if self.book.is_suspended:
                self.book.invalidate()
        elif self.book.is_synced:
            return
        elif self.book.restore():
            self._note(SYNC)
        else:
            self._core.resync(self.wanted)

    def _tell(self, reason: str) -> None:
        if self.reason != reason:
            self.reason = reason
            self._core.say(self.invalid, reason)
            self._note(INVALID)

    def _note(self, kind: str) -> None:
        if kind == SYNC:
            self.reason = ""
        self.changes.offer(0, BookChange(kind, self.book.sequence, self.reason, self._at_s))
        self._changed()
