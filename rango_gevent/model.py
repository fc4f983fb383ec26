"""What the rooms hand to one another: published events, and the encodings they are sent in.

Pure. An event is made once, by the hub, and shared by everybody who gets it: queues, books and
outboxes hold references. Its bytes for an encoding are made when the first client needs them.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from itertools import accumulate
from typing import Dict, Iterable, Optional, Protocol, Sequence, cast

import msgspec

SEGMENT_BYTES = 128 * 1024  # what is encoded and sent in one step; also what a cut buffer may pin


_POSITION = re.compile(r"(0|[1-9][0-9]{0,19})-([0-9a-f]{8})")
_CHECK_BITS = 32


def make_position(number: int, check: int) -> int:
    """Return a place in a history as one number that sorts by place; 0 stands for no place.

    Args:
        number: of the event in its history, 63 bits, such as an offset in a log.
        check: 32 bits that tell histories apart in which numbers come again.
    """
    return number << _CHECK_BITS | check


def number_of(position: int) -> int:
    """Return the number of an event in its history."""
    return position >> _CHECK_BITS


def position_text(position: int) -> str:
    """Return a position as clients see it, such as ``12346-1a2b3c4d``."""
    return f"{position >> _CHECK_BITS}-{position & (1 << _CHECK_BITS) - 1:08x}"


def read_position(text: str) -> int | None:
    """Return the position that a client names; None for what `position_text` never made."""
    found = _POSITION.fullmatch(text)
    if found is None or int(found[1]) >= 1 << 63:
        return None
    return make_position(int(found[1]), int(found[2], 16))


class Encoding(Protocol):
    """How events become bytes on a connection; instances are compared by identity."""

    def frame(self, event: Event) -> bytes:
        """Return the frame of one event."""


# hot path: a Struct is made in a quarter of a named tuple's time; what it holds forms no circles
class Event(msgspec.Struct, gc=False, eq=False):
    """One published message.

    The bytes are kept once, in the form that nearly everybody gets: the frame of Rango's
    protocol. The body is a part of it.

    Args:
        sequence: place in the order of everything published to this hub.
        frame: the message as a WebSocket frame, ``{"<name>":<body>}``.
        body_at: where the body begins in the frame.
        at_s: Unix time at which it was published, or received where that is unknown.
        position: place in the source's history, as `make_position` makes it; 0 where there is none.
        encoded: frames of other encodings that were needed, by encoding.
    """

    sequence: int
    frame: bytes
    body_at: int
    at_s: float
    position: int = 0
    encoded: Optional[Dict[Encoding, bytes]] = None

    @property
    def body(self) -> bytes:
        """Return the body as it was published."""
        return self.frame[self.body_at : -1]


class Segment:
    """Events that go out together, encoded at most once for each encoding.

    A segment is not changed once anybody else holds it, so that it can be shared by the clients
    who wait for it and by all who come for a book.

    Args:
        events: in the order of sending.
        size: bytes of their frames.

    Attributes:
        made: what `encoded` has returned, by encoding.
    """

    __slots__ = ("events", "made", "size")

    def __init__(self, events: list[Event], size: int) -> None:
        self.events = events
        self.size = size
        self.made: dict[Encoding, bytes] = {}

    def encoded(self, encoding: Encoding) -> bytes:
        """Return the bytes to send."""
        data = self.made.get(encoding)
        if data is None:
            frame = encoding.frame
            data = self.made[encoding] = b"".join([frame(event) for event in self.events])
        return data


class Rejoining(Encoding, Protocol):
    """How frames that carry their positions already become bytes on a connection."""

    def rejoined(self, frames: Sequence[bytes]) -> bytes:
        """Return the bytes of some frames."""


class Stretch(Segment):
    """What one client missed, to be sent to it alone, by an encoding that is a `Rejoining`.

    Args:
        frames: with their positions, in the order of sending.
        size: bytes of these.
    """

    __slots__ = ("frames",)

    def __init__(self, frames: Sequence[bytes], size: int) -> None:
        super().__init__([], size)
        self.frames = frames

    def encoded(self, encoding: Encoding) -> bytes:
        """Return the bytes to send; nobody else wants them, so they are not kept."""
        return cast(Rejoining, encoding).rejoined(self.frames)


def stretches(frames: Sequence[bytes]) -> list[Stretch]:
    """Cut frames into stretches of about `SEGMENT_BYTES`, at least one frame each."""
    # hot path: 0.03 us a frame
    found: list[Stretch] = []
    ends = list(accumulate(map(len, frames)))
    begin = before = 0
    while begin < len(frames):
        end = min(len(frames), bisect_left(ends, before + SEGMENT_BYTES, begin) + 1)
        found.append(Stretch(frames[begin:end], ends[end - 1] - before))
        begin, before = end, ends[end - 1]
    return found


def cut(events: Iterable[Event]) -> list[Segment]:
    """Cut events into segments of about `SEGMENT_BYTES`, at least one event each."""
    segments: list[Segment] = []
    part: list[Event] = []
    size = 0
    for event in events:
        part.append(event)
        size += len(event.frame)
        if size >= SEGMENT_BYTES:
            segments.append(Segment(part, size))
            part, size = [], 0
    if part:
        segments.append(Segment(part, size))
    return segments
