"""Server frames, encoded once and sent to any number of clients.

A server frame is unmasked and never fragmented (RFC 6455 section 5.2), so its bytes do not
depend on who receives it: this is what makes the fan-out cheap.
"""

from __future__ import annotations

import zlib
from struct import pack

_TEXT = 0x81  # FIN + opcode 1
_PACKED_TEXT = 0xC1  # the same with RSV1: the payload is deflated (RFC 7692 section 6)
_CLOSE = 0x88  # FIN + opcode 8
_PING = 0x89  # FIN + opcode 9

# hot path: a table look-up costs a third of building the two bytes
_SHORT_TEXT = tuple(bytes((_TEXT, size)) for size in range(126))


def _text_header(size: int) -> bytes:
    if size < 126:
        return _SHORT_TEXT[size]
    if size < 65536:
        return pack("!BBH", _TEXT, 126, size)
    return pack("!BBQ", _TEXT, 127, size)


def text(payload: bytes) -> bytes:
    """Encode a text message as one frame."""
    return _text_header(len(payload)) + payload


def event(head: bytes, body: bytes) -> bytes:
    """Encode an event as one frame, the publisher's bytes spliced in unchanged.

    Args:
        head: ``{"<name>":`` as made by `protocol.messages.event_head`.
        body: the JSON text that was published.
    """
    return b"".join((_text_header(len(head) + len(body) + 1), head, body, b"}"))


def event_at(head: bytes, body: bytes, number: int, check: int) -> bytes:
    """Encode an event with its position, ``,"at":"<number>-<check>"``, as the last member."""
    tail = b',"at":"%d-%08x"}' % (number, check)
    return b"".join((_text_header(len(head) + len(body) + len(tail)), head, body, tail))


def placed(frame: bytes, text: str) -> bytes:
    """Return the frame of an event with its position, as text, for its last member."""
    payload = frame[{126: 4, 127: 10}.get(frame[1], 2) : -1]
    tail = b',"at":"%s"}' % text.encode("ascii")
    return b"".join((_text_header(len(payload) + len(tail)), payload, tail))


def packed(frame: bytes, min_bytes: int, level: int) -> bytes:
    """Return a text frame of ours with its payload deflated, by RFC 7692 section 7.2.1.

    Each frame is compressed by itself, with no context from the one before: so its bytes
    serve every client that negotiated the extension.

    Args:
        frame: a frame made by this module.
        min_bytes: payloads below this size stay plain.
        level: zlib's level, 1 to 9.
    """
    start = {126: 4, 127: 10}.get(frame[1], 2)
    if len(frame) - start < min_bytes:
        return frame
    deflate = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
    payload = deflate.compress(memoryview(frame)[start:]) + deflate.flush(zlib.Z_SYNC_FLUSH)
    payload = payload[:-4]  # 00 00 FF FF, which the receiver puts back
    if len(payload) >= len(frame) - start:
        return frame
    size = len(payload)
    if size < 126:
        header = bytes((_PACKED_TEXT, size))
    elif size < 65536:
        header = pack("!BBH", _PACKED_TEXT, 126, size)
    else:
        header = pack("!BBQ", _PACKED_TEXT, 127, size)
    return header + payload


def close(code: int, reason: str = "") -> bytes:
    """Encode a close frame; the reason is cut to fit a control frame (RFC 6455 5.5)."""
    whole = reason.encode()[:123].decode(errors="ignore")  # no half character at the cut
    payload = pack("!H", code) + whole.encode()
    return bytes((_CLOSE, len(payload))) + payload


def ping(payload: bytes = b"") -> bytes:
    """Encode a ping frame of at most 125 bytes of payload."""
    return bytes((_PING, len(payload))) + payload
