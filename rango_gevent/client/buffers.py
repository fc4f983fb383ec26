"""Where events wait to be taken: bounded, with a policy for what finds no room. Pure.

`Buffer`  of one subscription
`Merged`  many of them as one, in the order of arrival

Neither locks nor waits: that is a front's, which holds its lock around every call.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from typing import Any, Generic, Protocol, TypeVar

from rango_gevent.client.model import Event, Overflow

BLOCK = "block"
DROP_OLDEST = "drop-oldest"
LATEST = "latest"
ERROR = "error"
POLICIES = (BLOCK, DROP_OLDEST, LATEST, ERROR)


class Arrived(Protocol):
    """What can wait here."""

    @property
    def received_at_s(self) -> float:
        """Return when it arrived."""


T = TypeVar("T", bound=Arrived)


class Buffer(Generic[T]):
    """Events of one subscription that wait.

    Args:
        stream: whose.
        policy: `BLOCK` (whoever offers waits for room), `DROP_OLDEST`, `LATEST` (only the newest
            waits) or `ERROR` (whoever takes is told, once, after what was there).
        size: events that may wait.

    Attributes:
        dropped: events that were not kept.

    Raises:
        ValueError: there is no such policy, or no room at all.
    """

    def __init__(self, stream: str, policy: str, size: int) -> None:
        if policy not in POLICIES:
            raise ValueError(f"policy {policy!r}: one of {', '.join(POLICIES)}")
        if size < 1:
            raise ValueError(f"size {size}: at least 1 event must find room")
        self.stream = stream
        self.policy = policy
        self.size = 1 if policy == LATEST else size
        self.dropped = 0
        self._missed = 0
        self.waiting: deque[tuple[int, T]] = deque()

    def offer(self, number: int, event: T) -> bool:
        """Take an event in; False when it has to wait for room (`BLOCK`).

        Args:
            number: its place in the order of arrival.
            event: the event.
        """
        if len(self.waiting) < self.size and not self._missed:
            self.waiting.append((number, event))
            return True
        if self.policy == BLOCK:
            return False
        self.dropped += 1
        if self.policy == ERROR:
            self._missed += 1
            return True
        self.waiting.popleft()
        self.waiting.append((number, event))
        return True

    def has(self) -> bool:
        """Tell whether `take` gives something: an event or an error."""
        return bool(self.waiting or self._missed)

    def backlog(self) -> tuple[int, float | None]:
        """Return how many events wait, and when the oldest of them arrived."""
        return len(self.waiting), self.waiting[0][1].received_at_s if self.waiting else None

    def take(self) -> T | None:
        """Return the oldest event; None when there is none.

        Raises:
            Overflow: events are missing here.
        """
        if self.waiting:
            return self.waiting.popleft()[1]
        if self._missed:
            missed, self._missed = self._missed, 0
            raise Overflow(self.stream, missed)
        return None


class Merged:
    """Several buffers as one; each may be taken from by itself as well.

    A heap holds at most one entry for each buffer: the number of what was its oldest event.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Buffer[Event]]] = []
        self._inside: set[int] = set()

    def added(self, buffer: Buffer[Event]) -> None:
        """Note that a buffer has something."""
        if id(buffer) not in self._inside and buffer.has():
            self._inside.add(id(buffer))
            heappush(self._heap, (self._oldest(buffer), id(buffer), buffer))

    @staticmethod
    def _oldest(buffer: Buffer[Any]) -> int:
        return buffer.waiting[0][0] if buffer.waiting else 0

    def forget(self, buffer: Buffer[Event]) -> None:
        """Leave a buffer out from now on."""
        if id(buffer) in self._inside:
            self._inside.discard(id(buffer))
            self._heap = [entry for entry in self._heap if entry[2] is not buffer]
            self._heap.sort()

    def take(self) -> tuple[Buffer[Event], Event] | None:
        """Return the oldest event of all and whose it was; None when there is none.

        Raises:
            Overflow: as `Buffer.take`.
        """
        while self._heap:
            number, key, buffer = heappop(self._heap)
            self._inside.discard(key)
            if not buffer.has():
                continue
            if self._oldest(buffer) > number:  # that one was taken or dropped: look again
                self.added(buffer)
                continue
            try:
                event = buffer.take()
            finally:
                self.added(buffer)
            assert event is not None
            return buffer, event
        return None
