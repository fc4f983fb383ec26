"""What waits for a client that does not keep up, and what may be left out of it.

An outbox exists only while bytes wait. It holds pieces in the order of sending; behind them,
for streams whose policy is ``latest``, the newest frame of each, and the books that the
client has to be given afresh.

Policies (`RANGO_SLOW_CLIENT`, by stream `RANGO_SLOW_STREAMS`): what happens to the frames of a
stream when a client lags:

close        they wait; past the bound the client is closed with 4008.
drop-oldest  they wait; past the bound the oldest of them are left out.
latest       only the newest one waits.

Increments of a book cannot be left out one by one. Under the last two policies a client
that is past the bound gets none, and the book afresh when it has caught up.
"""

from __future__ import annotations

from collections import deque
from fnmatch import fnmatchcase
from typing import Iterable, Union

from rango_gevent.hub.stream import Stream
from rango_gevent.model import SEGMENT_BYTES, Encoding, Event, Segment
from rango_gevent.protocol import routing

CLOSE = "close"
DROP_OLDEST = "drop-oldest"
LATEST = "latest"
RESYNC = "resync"  # of books, where the policy is one of the two before

_MAX_KNOWN = 10_000
_WITH_BOOKS = (routing.PUBLIC, routing.DERIVED)
_FAR_PAST = 16  # times the bound: more never waits, for however short a time

Piece = Union[bytes, Segment, Event]


class SlowPolicy:
    """Which policy a stream has.

    Args:
        default: policy of streams that no pattern matches.
        patterns: shell patterns of names and their policies; the first match counts.
    """

    def __init__(self, default: str, patterns: Iterable[tuple[str, str]] = ()) -> None:
        self._default = default
        self._known: dict[str, str] = {}
        self._patterns = list(patterns)

    @property
    def only_close(self) -> bool:
        """Tell whether no stream has another policy than ``close``."""
        policies = [self._default, *(policy for _, policy in self._patterns)]
        return all(policy == CLOSE for policy in policies)

    def of(self, stream: Stream) -> str:
        """Return a stream's policy; it is remembered, in bounds."""
        policy = self._known.get(stream.topic)
        if policy is None:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            policy = self._known[stream.topic] = self._find(stream)
        return policy

    def _find(self, stream: Stream) -> str:
        matching = (
            policy for pattern, policy in self._patterns if fnmatchcase(stream.topic, pattern)
        )
        policy = next(matching, self._default)
        is_book = stream.kind in _WITH_BOOKS and stream.topic.endswith("-inc")
        return RESYNC if is_book and policy != CLOSE else policy


class Outbox:
    """What waits for one client, mostly as references to what others wait for too.

    Attributes:
        live_bytes: size of the events that wait, which must stay within the client's bound.
        free_bytes: size of answers and replays, which do not count: the client asked for them.
        has_moved: the socket took some of it since somebody looked.
        over_since_s: monotonic time at which more than the bound was found to wait, 0 for never.
        resync: books to be given afresh when the outbox is empty, by name.
        since_s: coarse monotonic time since which something waits.
    """

    __slots__ = (
        "_droppable",
        "_held",
        "_latest",
        "_pieces",
        "_rest",
        "free_bytes",
        "has_moved",
        "live_bytes",
        "over_since_s",
        "resync",
        "since_s",
    )

    def __init__(self, since_s: float = 0.0) -> None:
        self.since_s = since_s
        self._rest: bytes | memoryview = b""
        self._pieces: deque[tuple[Piece, bool]] = deque()
        self._droppable: deque[tuple[str, Event]] | None = None
        self._latest: dict[str, Event] | None = None
        self._held = 0
        self.live_bytes = 0
        self.free_bytes = 0
        self.over_since_s = 0.0
        self.has_moved = False
        self.resync: dict[str, None] | None = None

    @property
    def size(self) -> int:
        """Return the size of all that waits."""
        return self.live_bytes + self.free_bytes + len(self._rest)

    def is_slow(self, bound: int, grace_s: float, now_s: float) -> bool:
        """Tell whether more than may has waited for too long.

        A burst that a client takes in time costs little: its events are shared by all who wait
        for them. One that is far past the bound is slow at once.
        """
        if self.live_bytes <= bound:
            self.over_since_s = 0.0
            return False
        if not self.over_since_s:
            self.over_since_s = now_s
        return now_s - self.over_since_s >= grace_s or self.live_bytes > _FAR_PAST * bound

    def over(self, bound: int) -> bool:
        """Tell whether more events wait than may."""
        return self.live_bytes > bound

    def has_answered(self, bound: int) -> bool:
        """Tell whether answers wait, and with them more than the bound."""
        return self.free_bytes > 0 and self.size > bound

    def append(self, segments: Iterable[Segment]) -> None:
        """Add events."""
        for segment in segments:
            self._pieces.append((segment, False))
            self.live_bytes += segment.size

    def append_event(self, event: Event) -> None:
        """Add one event."""
        self._pieces.append((event, False))
        self.live_bytes += len(event.frame)

    def lag(self, address: str, policy: str, events: list[Event], bound: int) -> int | None:
        """Add events of one stream by its policy.

        Returns:
            How many events were left out, None when too much would wait.
        """
        if policy == LATEST:
            skipped = len(events) - 1 + self.put_latest(address, events[-1])
            return None if self.holds_over(bound) else skipped
        if policy == DROP_OLDEST:
            return sum(self.append_droppable(address, event, bound) for event in events)
        if policy == RESYNC:
            if self.resync is None:
                self.resync = {}
            if self.over(bound) or address in self.resync:
                self.resync[address] = None
                return len(events)
        for event in events:
            self.append_event(event)
        return 0

    def append_free(self, piece: Union[bytes, Segment]) -> None:
        """Add what does not count against the bound."""
        self._pieces.append((piece, True))
        self.free_bytes += _size(piece)

    def append_droppable(self, address: str, event: Event, bound: int) -> int:
        """Add an event that may be left out; past the bound the oldest of them are.

        Returns:
            The number of events left out.
        """
        if self._droppable is None:
            self._droppable = deque()
        self._droppable.append((address, event))
        self._hold(len(event.frame))
        dropped = 0
        while self._held > bound and len(self._droppable) > 1:
            self._hold(-len(self._droppable.popleft()[1].frame))
            dropped += 1
        return dropped

    def _hold(self, size: int) -> None:
        self._held += size
        self.live_bytes += size

    def put_latest(self, address: str, event: Event) -> int:
        """Make an event the only one of its stream that waits.

        Returns:
            1 when it took the place of an older one, else 0.
        """
        if self._latest is None:
            self._latest = {}
        older = self._latest.pop(address, None)
        self._latest[address] = event
        self._hold(len(event.frame) - (len(older.frame) if older is not None else 0))
        return int(older is not None)

    def holds_over(self, bound: int) -> bool:
        """Tell whether the newest events of all streams together are more than may wait."""
        return self._held > bound

    def forget(self, addresses: set[str]) -> None:
        """Leave out what may be left out of streams that the client gives up."""
        if self._droppable:
            kept = [item for item in self._droppable if item[0] not in addresses]
            gone = [item[1] for item in self._droppable if item[0] in addresses]
            self._droppable = deque(kept)
            self._hold(-sum(len(event.frame) for event in gone))
        for address in addresses & (self._latest or {}).keys():
            assert self._latest is not None, "it has keys"
            self._hold(-len(self._latest.pop(address).frame))

    def commit(self) -> None:
        """Move what could still have been left out to what will be sent, before what comes now."""
        if self._droppable:
            self._pieces.extend((event, False) for _, event in self._droppable)
            self._droppable = None
        if self._latest:
            self._pieces.extend((event, False) for event in self._latest.values())
            self._latest = None
        self._held = 0

    def take(self, encoding: Encoding) -> bytes | memoryview:
        """Take the bytes of the next write; empty when nothing waits.

        Small pieces are joined. What is large goes by itself, and is not copied: its bytes are
        shared by all who wait for them.
        """
        if not self._pieces and not self._rest:
            self.commit()
        parts: list[bytes | memoryview] = [self._rest] if self._rest else []
        size = len(self._rest)
        self._rest = b""
        while self._pieces and (not size or size + _size(self._pieces[0][0]) <= SEGMENT_BYTES):
            piece, is_free = self._pieces.popleft()
            if is_free:
                self.free_bytes -= _size(piece)
            else:
                self.live_bytes -= _size(piece)
            parts.append(_bytes(piece, encoding))
            size += len(parts[-1])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def put_back(self, data: bytes | memoryview, sent: int) -> None:
        """Put back what the socket did not take, before all else; it may begin inside a frame."""
        self._rest = memoryview(data)[sent:]

    def forget_whole(self) -> None:
        """Drop what waits, but not what was put back: it may be the rest of a frame."""
        self._pieces.clear()
        self._droppable = self._latest = self.resync = None
        self._held = self.live_bytes = self.free_bytes = 0


def _size(piece: Piece) -> int:
    if isinstance(piece, Event):
        return len(piece.frame)
    return piece.size if isinstance(piece, Segment) else len(piece)


def _bytes(piece: Piece, encoding: Encoding) -> bytes:
    if isinstance(piece, Event):
        return encoding.frame(piece)
    return piece.encoded(encoding) if isinstance(piece, Segment) else piece
