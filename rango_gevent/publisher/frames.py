"""Events as the bytes of an AMQP 0-9-1 connection, and the settling of their tags.

Pure. py-amqp sends a message by several calls of the system and looks for input before each;
here many messages become one buffer. The frames are those of AMQP 0-9-1 section 4.2: method,
content header, body. Confirms are RabbitMQ's extension: the broker counts what is published on
a channel from 1 on, and acknowledges by that tag, one or all up to it.
"""

from __future__ import annotations

from struct import Struct
from typing import Iterable, NamedTuple

_PUBLISH = b"\0\x3c\0\x28\0\0"  # class 60, method 40, and a reserved short
_FRAME_END = b"\xce"
_OVERHEAD = 8  # type, channel, size and the frame-end octet
_frame = Struct(">BHI").pack
_content = Struct(">HHQH").pack  # class, weight, body size, property flags
_number = Struct(">q").pack
# content type, content encoding, headers, delivery mode (1: transient), message id
_FLAGS = 0x8000 | 0x4000 | 0x2000 | 0x1000 | 0x0080
_TYPE = b"\x10application/json\x05utf-8"
_HEADERS = b"\0\0\0\x19\x0ftimestamp_in_msl"  # a table of 25 bytes: a name, its type, 8 bytes
_TRANSIENT = b"\x01"


class Event(NamedTuple):
    """What is published.

    Attributes:
        key: routing key.
        body: JSON.
        at_ms: Unix time of publishing in milliseconds.
        message_id: the same for every attempt to publish it.
        mandatory: it must reach a queue.
    """

    key: str
    body: bytes
    at_ms: int
    message_id: str
    mandatory: bool = False


class Encoder:
    """Makes frames for one channel.

    Args:
        channel: its number.
        exchange: where to publish.
        frame_bytes: largest frame that was agreed on, 0 for no limit.
    """

    def __init__(self, channel: int, exchange: str, frame_bytes: int) -> None:
        self._channel = channel
        self._start = _PUBLISH + _short(exchange)
        self._most = max(1, (frame_bytes or 1 << 20) - _OVERHEAD)

    def encode(self, event: Event) -> bytes:
        """Return the frames of an event."""
        # hot path: 3 us, where py-amqp takes 60
        channel, body = self._channel, event.body
        method = self._start + _short(event.key) + (b"\x01" if event.mandatory else b"\0")
        header = (
            _content(60, 0, len(body), _FLAGS)
            + _TYPE
            + _HEADERS
            + _number(event.at_ms)
            + _TRANSIENT
            + _short(event.message_id)
        )
        parts = [
            _frame(1, channel, len(method)), method, _FRAME_END,
            _frame(2, channel, len(header)), header, _FRAME_END,
        ]  # fmt: skip
        for start in range(0, len(body), self._most):
            part = body[start : start + self._most]
            parts += (_frame(3, channel, len(part)), part, _FRAME_END)
        return b"".join(parts)


class Unsettled:
    """The events of a channel that the broker has not answered for, by tag."""

    def __init__(self) -> None:
        self._next = self._oldest = 1
        self._events: dict[int, Event] = {}

    def __len__(self) -> int:
        return len(self._events)

    def add(self, events: Iterable[Event]) -> None:
        """Give tags to events, in the order in which they are sent."""
        for event in events:
            self._events[self._next] = event
            self._next += 1

    def settle(self, tag: int, multiple: bool) -> list[Event]:
        """Take out what an answer is about; a tag that is not waiting any more is nothing."""
        if not multiple:
            event = self._events.pop(tag, None)
            return [] if event is None else [event]
        if tag == 0:  # all so far
            tag = self._next - 1
        settled = [
            self._events.pop(each) for each in range(self._oldest, tag + 1) if each in self._events
        ]
        self._oldest = max(self._oldest, tag + 1)
        return settled

    def take(self) -> list[Event]:
        """Take out all that wait."""
        events = list(self._events.values())
        self._events.clear()
        return events


def _short(text: str) -> bytes:
    raw = text.encode()
    return bytes((len(raw),)) + raw
