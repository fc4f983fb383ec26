"""A book: the last snapshot of a market's depth and every increment since.

A subscriber gets both at once, so that it can follow live increments with no gap and no
duplicate. A book is bounded in increments and in bytes; one that passes a bound is dropped
and stale until the publisher's next snapshot. All books together are the `Shelf`'s.
"""

from __future__ import annotations

from rango_gevent.model import SEGMENT_BYTES, Event, Segment


class Book:
    """A snapshot and its increments, ready to send.

    Attributes:
        stale_since: Unix time at which the book was dropped, None while it is good: its live
            increments go on, newcomers get no replay, and the next snapshot is sent to
            everyone who is subscribed.
        bytes: size of all frames held.
        count: number of them.
        is_held: somebody is subscribed; the shelf's to change.
    """

    __slots__ = (
        "_closed",
        "_last",
        "_open",
        "_open_bytes",
        "bytes",
        "count",
        "is_held",
        "stale_since",
    )

    def __init__(self, is_held: bool = False) -> None:
        self.is_held = is_held
        self.stale_since: float | None = None
        self._clear()

    def _clear(self) -> None:
        self._closed: list[Segment] = []
        self._open: list[Event] = []
        self._open_bytes = 0
        self._last: Segment | None = None
        self.count = 0
        self.bytes = 0

    def __len__(self) -> int:
        """Return the number of increments held."""
        return max(0, self.count - 1)

    @property
    def live(self) -> bool:
        """Tell whether there is a snapshot to replay."""
        return self.count > 0

    @property
    def newest(self) -> Event:
        """Return the last increment, or the snapshot where there is none; of a live book."""
        return self._open[-1] if self._open else self._closed[-1].events[-1]

    def replace(self, snapshot: Event) -> None:
        """Start again from a snapshot."""
        self._clear()
        self.stale_since = None
        self.append(snapshot)

    def append(self, increment: Event) -> None:
        """Add an increment; only a live book takes one."""
        size = len(increment.frame)
        self._open.append(increment)
        self._open_bytes += size
        self._last = None
        self.count += 1
        self.bytes += size
        if self._open_bytes >= SEGMENT_BYTES:
            self._closed.append(Segment(self._open, self._open_bytes))
            self._open, self._open_bytes = [], 0

    def drop(self, at_s: float) -> None:
        """Forget all events and be stale until the next snapshot."""
        self._clear()
        if self.stale_since is None:
            self.stale_since = at_s

    def replay(self) -> list[Segment]:
        """Return the snapshot and all increments; empty when not live.

        The segments are shared by all newcomers; the last one until the book changes.
        """
        if not self._open:
            return list(self._closed)
        if self._last is None:
            self._last = Segment(list(self._open), self._open_bytes)
        return [*self._closed, self._last]
