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
from itertools import islice
from typing import Iterable, Union

from rango_gevent.hub.stream import Stream
from rango_gevent.protocol import routing

CLOSE = "close"
DROP_OLDEST = "drop-oldest"
LATEST = "latest"
RESYNC = "resync"  # of books, where the policy is one of the two before

_MAX_KNOWN = 10_000
_MAX_PIECES = 64  # buffers in one sendmsg; the kernel takes up to 1024

Piece = Union[bytes, memoryview]


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
        is_book = stream.kind == routing.PUBLIC and stream.topic.endswith("-inc")
        return RESYNC if is_book and policy != CLOSE else policy


class Outbox:
    """Bytes that wait for one client.

    Attributes:
        bytes: size of all that waits.
        free_bytes: size of answers and replays among it, which do not count against the
            bound: the client asked for them.
        resync: books to be given afresh when the outbox is empty, by name.
    """

    __slots__ = ("_droppable", "_held", "_latest", "_pieces", "bytes", "free_bytes", "resync")

    def __init__(self) -> None:
        self._pieces: deque[Piece] = deque()
        self._droppable: deque[Piece] | None = None
        self._latest: dict[str, bytes] | None = None
        self._held = 0
        self.bytes = 0
        self.free_bytes = 0
        self.resync: dict[str, None] | None = None

    def over(self, bound: int) -> bool:
        """Tell whether more waits than may."""
        return self.bytes - self.free_bytes > bound

    def append(self, data: Piece) -> None:
        """Add whole frames, or the rest of one."""
        self._pieces.append(data)
        self.bytes += len(data)

    def append_free(self, data: bytes) -> None:
        """Add what does not count against the bound."""
        self.append(data)
        self.free_bytes += len(data)

    def append_droppable(self, frame: bytes, bound: int) -> int:
        """Add a frame that may be left out; past the bound the oldest of them are.

        Returns:
            The number of frames left out.
        """
        if self._droppable is None:
            self._droppable = deque()
        self._droppable.append(frame)
        self._hold(len(frame))
        dropped = 0
        while self._held > bound and len(self._droppable) > 1:
            self._hold(-len(self._droppable.popleft()))
            dropped += 1
        return dropped

    def _hold(self, size: int) -> None:
        self._held += size
        self.bytes += size

    def put_latest(self, address: str, frame: bytes) -> int:
        """Make a frame the only one of its stream that waits.

        Returns:
            1 when it took the place of an older one, else 0.
        """
        if self._latest is None:
            self._latest = {}
        older = self._latest.pop(address, b"")
        self._latest[address] = frame
        self._hold(len(frame) - len(older))
        return int(bool(older))

    def holds_over(self, bound: int) -> bool:
        """Tell whether the newest frames of all streams together are more than may wait."""
        return self._held > bound

    def commit(self) -> None:
        """Move what could still have been left out to what will be sent, before what comes now."""
        if self._droppable:
            self._pieces.extend(self._droppable)
            self._droppable = None
        if self._latest:
            self._pieces.extend(self._latest.values())
            self._latest = None
        self._held = 0

    def next_pieces(self) -> list[Piece]:
        """Return the buffers of the next write; empty when nothing waits."""
        if not self._pieces:
            self.commit()
        return list(islice(self._pieces, _MAX_PIECES))

    def sent(self, size: int) -> None:
        """Take away what was sent from the front."""
        self.bytes -= size
        self.free_bytes = min(self.free_bytes, self.bytes)
        while size:
            first = self._pieces.popleft()
            if size < len(first):
                self._pieces.appendleft(memoryview(first)[size:])
                return
            size -= len(first)

    def forget_whole(self) -> None:
        """Drop what waits, but not the first piece: it may be the rest of a frame."""
        first = list(islice(self._pieces, 1))
        self._pieces = deque(first)
        self._droppable = self._latest = self.resync = None
        self.bytes = sum(len(piece) for piece in first)
        self._held = 0
        self.free_bytes = 0
