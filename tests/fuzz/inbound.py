"""Any bytes from a client give the same messages and the same end, whole or in any portions.

And what is kept for that client meanwhile stays within the limits. The first byte chooses
compression and the size of portions, the others are the client's.
"""

from __future__ import annotations

import zlib
from typing import Iterable

from rango_gevent.delivery.inbound import PONG, TEXT, Inbound, InboundLimits, Opcode
from tests.fuzz.common import portions

_LIMITS = InboundLimits(message_bytes=300, fragments=4)
_HEAD_BYTES = 14  # of the largest frame: two, eight of length, four of mask

_History = tuple[list[tuple[Opcode, bytes]], object]


def check(data: bytes) -> None:
    """Feed one connection whole, one byte by byte, and one in portions."""
    if not data:
        return
    deflate, size = bool(data[0] & 1), 2 + (data[0] >> 1)
    sent = data[1:]
    whole = _history([sent], deflate)
    assert _history(portions(sent, size), deflate) == whole
    if len(sent) < 512:  # each costs a call
        assert _history(portions(sent, 1), deflate) == whole


def _history(parts: Iterable[bytes], deflate: bool) -> _History:
    """Return all that is to be answered, and how it ended, if it did."""
    inbound = Inbound(_LIMITS, deflate)
    items: list[tuple[Opcode, bytes]] = []
    for part in parts:
        received = inbound.receive(part)
        items += received.items
        for kind, message in received.items:
            assert len(message) <= (127 if kind is PONG else _LIMITS.message_bytes)
            if kind is TEXT:
                message.decode()
        if received.failure is not None or received.closed_by_peer is not None:
            return items, (received.failure, received.closed_by_peer, received.echo)
        assert len(inbound._rest) < _HEAD_BYTES + _LIMITS.message_bytes
        assert sum(map(len, inbound._fragments)) <= _LIMITS.message_bytes
        assert len(inbound._fragments) <= _LIMITS.fragments
    return items, None


def _frame(first: int, payload: bytes) -> bytes:
    """Return a frame whose mask changes nothing, so that its payload is easy to change."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return bytes([first]) + length + bytes(4) + payload


def _deflated(payload: bytes) -> bytes:
    deflate = zlib.compressobj(wbits=-15)
    return (deflate.compress(payload) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]


SEEDS = (
    b"\x00" + _frame(0x81, b'{"event":"subscribe","streams":["a.b"]}'),
    b"\x04" + _frame(0x01, b"\xc3") + _frame(0x89, b"now") + _frame(0x80, b"\xa9"),
    b"\x06" + _frame(0x82, bytes(200)) + _frame(0x8A, b""),
    b"\x08" + _frame(0x81, b"x" * 300) + _frame(0x81, b"x" * 301),
    b"\x0a" + _frame(0x01, b"a") + _frame(0x00, b"b") * 5,
    b"\x00" + _frame(0x88, b"\x03\xe8bye") + b"more",
    b"\x00" + _frame(0x88, b""),
    b"\x02" + b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58",
    b"\x01" + _frame(0xC1, _deflated(b'{"event":"unsubscribe"}')) + _frame(0x81, b"ping"),
    b"\x03" + _frame(0x41, _deflated(b"a" * 300)[:3]) + _frame(0x80, _deflated(b"a" * 300)[3:]),
    b"\x01" + _frame(0xC1, _deflated(b"a" * 5000)),
)
WORDS = (b"\x81\x80", b"\x01\x81", b"\x80\x80", b"\x89\x80", b"\x88\x82", b"\xfe\x00\x7e", b"\xff")
