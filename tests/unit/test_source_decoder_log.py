"""Deliveries of a log: the offset is read, whatever else publishers put into their headers."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from amqp.exceptions import UnexpectedFrame
from amqp.method_framing import frame_handler
from amqp.serialization import dumps, loads
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_source_decoder import CHANNEL, DELIVER, EXCHANGE, NOW, TAG, Wire, joined

from rango_gevent.source.amqp.chain import Chain
from rango_gevent.source.amqp.decoder import Decoder

OFFSET = b"\x0fx-stream-offset"


def table(*entries: bytes) -> bytes:
    """Return a table of headers, in the order given."""
    body = b"".join(entries)
    return struct.pack(">I", len(body)) + body


def place(offset: int) -> bytes:
    """Return the broker's own header."""
    return OFFSET + b"l" + struct.pack(">q", offset)


def text(name: bytes, value: bytes) -> bytes:
    """Return a header with a text."""
    return bytes([len(name)]) + name + b"S" + struct.pack(">I", len(value)) + value


def delivery(key: str, body: bytes, headers: bytes, part: int = 4000) -> bytes:
    """Return the frames of a delivery."""
    method = struct.pack(">HH", *DELIVER) + dumps("sLbss", (TAG, 7, False, EXCHANGE, key))
    header = struct.pack(">HHQH", 60, 0, len(body), 0x2000) + headers
    parts = [body[at : at + part] for at in range(0, len(body), part)]
    frames = [(1, CHANNEL, method), (2, CHANNEL, header)]
    return joined(frames + [(3, CHANNEL, piece) for piece in parts])


class Followed:
    """A decoder, its chain, and py-amqp behind it.

    Attributes:
        events: key, body and position that were handed on.
        slow: offsets of what went py-amqp's way.
    """

    def __init__(self, most: int = 1 << 20) -> None:
        self.events: list[tuple[str, bytes, int]] = []
        self.slow: list[int] = []
        self.chain = Chain(lambda key, body, at_s, at: self.events.append((key, body, at)), print)
        self.decoder = Decoder(
            CHANNEL,
            TAG,
            EXCHANGE,
            self.chain.take,
            frame_handler(Wire(), self._slowly),
            lambda key, size: size <= most,
            self.chain,
        )

    def _slowly(self, channel: int, method: tuple[int, int], args: bytes, content: Any) -> None:
        (_, _, _, _, key), _ = loads("sLbss", args, 4)
        offset = content.properties["application_headers"]["x-stream-offset"]
        self.slow.append(offset)
        self.chain.take(key, bytes(content.body), NOW, offset)

    def feed(self, data: bytes, size: int) -> Followed:
        """Feed bytes in portions."""
        for start in range(0, len(data), size):
            self.decoder.feed(data[start : start + size], NOW)
        return self


@given(
    offsets=st.lists(st.integers(0, 1 << 40), min_size=1, max_size=5),
    before=st.binary(max_size=40),
    behind=st.binary(max_size=40),
    portion=st.integers(1, 300),
)
@settings(deadline=None)
def test_the_offset_is_read_wherever_it_stands(
    offsets: list[int], before: bytes, behind: bytes, portion: int
) -> None:
    """Its place in the table is another one in RabbitMQ 4."""
    assume(OFFSET not in before + b"|" + behind)
    data = b"".join(
        delivery("a.b.c", b"7", table(text(b"a", before), place(offset), text(b"z", behind)))
        for offset in sorted(offsets)
    )
    followed = Followed().feed(data, portion)
    assert followed.chain.last == max(offsets)
    assert len(followed.events) == len(offsets)
    assert followed.slow == []


@pytest.mark.parametrize("first", [True, False])
def test_a_header_that_looks_like_it_is_not_taken_for_it(first: bool) -> None:
    """Then the table is decoded as a whole."""
    forged = text(b"a", b"..." + place(4711) + b"...")
    entries = [forged, place(5)] if first else [place(5), forged]
    followed = Followed().feed(delivery("a.b.c", b"7", table(*entries)), 50)
    assert followed.slow == [5]
    assert followed.chain.last == 5


def test_what_has_no_offset_is_left_to_others() -> None:
    """A queue that is no stream gives none."""
    followed = Followed()
    with pytest.raises(KeyError):
        followed.feed(delivery("a.b.c", b"7", table(text(b"a", b"b"))), 500)


@pytest.mark.parametrize("portion", [1, 100, 10_000])
def test_a_body_that_is_not_collected_counts_in_the_chain(portion: int) -> None:
    """As for a reader that collects it."""
    data = b"".join(
        delivery("a.b.c", b"7" * (9_000 if offset == 3 else 10), table(place(offset)))
        for offset in range(8)
    )
    small, large = Followed(most=5_000).feed(data, portion), Followed().feed(data, portion)
    assert [event for event in large.events if len(event[1]) == 10] == small.events
    assert small.chain.position == large.chain.position
    assert small.chain.count == large.chain.count == 8


def test_a_stream_that_is_out_of_step_is_noticed() -> None:
    """As without a log."""
    data = delivery("a.b.c", b"7", table(place(1)))
    with pytest.raises(UnexpectedFrame):
        Followed().feed(data[:-1] + b"x", 500)
