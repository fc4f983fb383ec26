"""Any bytes from a broker are handed out or an UnexpectedFrame, alike whole and in any portions.

That is: every frame reaches the sink as part of a delivery, or the other callback, or is kept as
the beginning of what is still to come; no other exception is raised. The first byte chooses the
size of portions and how the others are read: as they are, or as a list of frames to write, so that
most inputs are well formed.
"""

from __future__ import annotations

import struct
from typing import Any, Iterable

from amqp.exceptions import UnexpectedFrame

from rango_gevent.source.amqp.decoder import Decoder
from tests.fuzz.common import portions

_CHANNEL = 1
_TAG, _EXCHANGE = "t", "x"
_NOW_S = 1_700_000_000.0

_History = tuple[list[tuple[Any, ...]], object]


def check(data: bytes) -> None:
    """Feed one decoder whole, one in portions, and one byte by byte."""
    if not data:
        return
    sent = _written(data[1:]) if data[0] & 1 else data[1:]
    whole = _history([sent])
    assert _history(portions(sent, 2 + (data[0] >> 1))) == whole
    if len(sent) < 512:  # each costs a call
        assert _history(portions(sent, 1)) == whole


def _history(parts: Iterable[bytes]) -> _History:
    """Return all that was handed out, and what is left of the bytes, or that they are not AMQP."""
    events: list[tuple[Any, ...]] = []

    def sink(key: str, body: bytes, at_s: float, position: int) -> None:
        assert isinstance(key, str)
        assert type(body) is bytes
        assert 0 <= at_s < 1e12
        assert position == 0
        events.append((key, body, at_s))

    decoder = Decoder(_CHANNEL, _TAG, _EXCHANGE, sink, events.append)
    fed = 0
    for part in parts:
        fed += len(part)
        try:
            decoder.feed(part, _NOW_S)
        except UnexpectedFrame:
            return events, UnexpectedFrame
    # it may wait for all of a large body before it looks again: see that nothing is lost by that
    decoder._need = 0
    try:
        decoder.feed(b"", _NOW_S)
    except UnexpectedFrame:
        return events, UnexpectedFrame
    rest = decoder.take(fed)
    assert not decoder.take(fed), "what was given back is still there"
    # a frame is its header, its payload and its end; what was handed out was received
    assert len(rest) + sum(map(_least_bytes, events)) <= fed
    return events, rest


def _least_bytes(event: tuple[Any, ...]) -> int:
    if isinstance(event[0], int):
        return 8 + len(event[2])
    return 8 + len(event[0].encode("utf-8", "surrogateescape")) + 22 + len(event[1])


def _written(recipe: bytes) -> bytes:
    """Write the frames that some bytes ask for: each begins with what it is and its length."""
    written, position = b"", 0
    while position + 2 <= len(recipe):
        what, size = recipe[position], recipe[position + 1]
        payload = recipe[position + 2 : position + 2 + size]
        position += 2 + size
        written += _frame(what, payload)
    return written + recipe[position:]


def _frame(what: int, payload: bytes) -> bytes:
    channel = 2 if what & 0x40 else _CHANNEL
    kind = what % 6
    if kind == 0:
        return _raw(1, channel, _method(payload))
    if kind == 1:
        return _raw(2, channel, struct.pack(">HHQH", 60, 0, what >> 3 & 7, 0) + payload)
    if kind == 2:
        table = b"\x0ftimestamp_in_ms" + payload
        properties = struct.pack(">I", len(table)) + table
        return _raw(2, channel, struct.pack(">HHQH", 60, 0, what >> 3 & 7, 0x2000) + properties)
    if kind == 3:
        return _raw(3, channel, payload)
    return _raw(8 if kind == 4 else 1, channel, payload)


def _method(key: bytes) -> bytes:
    deliver = struct.pack(">HHB", 60, 60, len(_TAG)) + _TAG.encode() + bytes(9)
    return deliver + bytes([len(_EXCHANGE)]) + _EXCHANGE.encode() + bytes([len(key)]) + key


def _raw(kind: int, channel: int, payload: bytes) -> bytes:
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def _recipe(*frames: tuple[int, bytes]) -> bytes:
    return b"".join(bytes([what, len(payload)]) + payload for what, payload in frames)


_KEY = b"public.eurusd.trades"
_MS = b"l" + struct.pack(">q", 1_600_000_000_123)
_PLAIN = struct.pack(">HHQH", 60, 0, 2, 0)
_WHOLE = _raw(1, 1, _method(_KEY)) + _raw(2, 1, _PLAIN) + _raw(3, 1, b"{}")

SEEDS = (
    b"\x00" + _WHOLE * 2,
    b"\x02" + _raw(8, 0, b"") + _WHOLE[:-1] + b"x",
    b"\x04" + _raw(1, 1, b"\x00\x3c\x00\x3c\x01t") + _WHOLE[:20],
    b"\x01" + _recipe((0, _KEY), (7, b""), (3, b"1"), (4, b"")),
    b"\x01" + _recipe((0, _KEY), (1, b""), (0, b"a.b"), (2 + 24, _MS), (3, b"123")),
    b"\x03" + _recipe((0, _KEY), (1 + 24, b""), (3, b"1"), (3, b""), (3, b"23")),
    b"\x03" + _recipe((0, _KEY), (1 + 24, b""), (3, b"1"), (3, b"2345")),
    b"\x05" + _recipe((0, _KEY), (4, b""), (1 + 24, b""), (4, b""), (3, b"123")),
    b"\x07" + _recipe((0, _KEY), (0x40 + 5, b"x"), (0, b""), (2, b"d" + bytes(8)), (5, b"\0\0")),
    b"\x00" + _WHOLE.replace(b"\x14public", b"\x6cpublic") + _WHOLE,
    b"\x02" + _WHOLE.replace(_PLAIN, struct.pack(">HHQH", 60, 0, 1 << 58, 0)) + _WHOLE,
    b"\x01" + _recipe((0, b"\xff\xfe"), (2, b"L" + b"\xff" * 8), (0, b"k"), (2, b"l")),
)
WORDS = (
    b"\xce", b"\x01\x00\x01", b"\x02\x00\x01", b"\x03\x00\x01", b"\x08\x00\x00",
    b"\x00\x3c\x00\x3c\x01t", b"\x01x", b"\x00\x3c\x00\x00", b"\x20\x00", b"\x0ftimestamp_in_ms",
    b"l", b"d\x7f\xf0",
)  # fmt: skip
