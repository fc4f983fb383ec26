"""The WebSocket layer under an echo server: what the gateway's own messages do not reach.

Messages of any type and size, compressed ones (RFC 7692), and the order of answers. The
echo server is that of the conformance suite, which is too slow to run with every change.
"""

from __future__ import annotations

import socket
import struct
import sys
import zlib
from typing import Iterator

import pytest
from support import (
    BINARY,
    CLOSE,
    CONTINUATION,
    HEALTHY,
    PING,
    PONG,
    ROOT,
    TEXT,
    RawSocket,
    Server,
    frame,
    handshake,
    start_gateway,
)

RSV1 = 4
ECHO = [sys.executable, "-m", "tests.conformance.echo", "--port", "{port}"]
OFFER = "permessage-deflate; client_max_window_bits"
ANSWER = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
LIMIT = 17 << 20  # bytes of a message, as the echo server is set


@pytest.fixture(scope="module")
def plain_server() -> Iterator[Server]:
    """An echo server that takes no compression."""
    with start_gateway(command=ECHO, env={"PYTHONPATH": str(ROOT)}, until=HEALTHY) as server:
        yield server


@pytest.fixture(scope="module")
def packing_server() -> Iterator[Server]:
    """An echo server that takes compression."""
    command = [*ECHO, "--compression"]
    with start_gateway(command=command, env={"PYTHONPATH": str(ROOT)}, until=HEALTHY) as server:
        yield server


def upgrade(raw: RawSocket, offer: str | None) -> str | None:
    """Make the handshake and return the accepted extensions."""
    raw.send(handshake("/", {"Sec-WebSocket-Extensions": offer} if offer else None))
    status, headers = raw.response()
    assert status == 101
    return headers.get("sec-websocket-extensions")


@pytest.fixture
def plain(plain_server: Server) -> Iterator[RawSocket]:
    """A connection for plain frames only."""
    with RawSocket(plain_server.port) as raw:
        assert upgrade(raw, OFFER) is None
        yield raw


@pytest.fixture
def packing(packing_server: Server) -> Iterator[RawSocket]:
    """A connection for compressed frames."""
    with RawSocket(packing_server.port) as raw:
        assert upgrade(raw, OFFER) == ANSWER
        yield raw


def deflated(data: bytes) -> bytes:
    """Compress a message's payload (RFC 7692 section 7.2.1)."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (deflate.compress(data) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]


def read_packed(raw: RawSocket) -> tuple[int, bytes, bytes]:
    """Return opcode, payload and what it inflates to of a frame that must be compressed."""
    first, size = raw.read(2)
    assert first & 0xF0 == 0xC0, "not a whole frame with RSV1"
    if size == 126:
        size = struct.unpack("!H", raw.read(2))[0]
    payload = raw.read(size)
    inflate = zlib.decompressobj(-15)
    return first & 0x0F, payload, inflate.decompress(payload + b"\x00\x00\xff\xff")


# -- plain ------------------------------------------------------------------------------------


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536, 1 << 20])
def test_a_message_keeps_its_type_and_bytes(plain: RawSocket, opcode: int, size: int) -> None:
    """In every form of the length, there and back."""
    plain.send(frame(opcode, b"*" * size))
    assert plain.read_frame() == (opcode, b"*" * size)


def test_binary_is_any_bytes(plain: RawSocket) -> None:
    """Only text has to be UTF-8."""
    plain.send(frame(BINARY, bytes(range(256))))
    assert plain.read_frame() == (BINARY, bytes(range(256)))


def test_a_message_in_65536_fragments_is_joined(plain: RawSocket) -> None:
    """Many small fragments cost no more than their number."""
    plain.send(frame(BINARY, b"", fin=False))
    plain.send(frame(CONTINUATION, b"0123456789abcdef", fin=False) * 65536)
    plain.send(frame(CONTINUATION))
    assert plain.read_frame() == (BINARY, b"0123456789abcdef" * 65536)


def test_answers_come_in_the_order_of_what_they_answer(plain: RawSocket) -> None:
    """A pong does not pass a message of the same segment, nor the other way round."""
    plain.send(
        frame(TEXT, b"one")
        + frame(PING, b"1")
        + frame(TEXT, b"t", fin=False)
        + frame(PING, b"2")
        + frame(CONTINUATION, b"wo")
        + frame(PING, b"3")
    )
    answers = [plain.read_frame() for _ in range(5)]
    assert answers == [(TEXT, b"one"), (PONG, b"1"), (PONG, b"2"), (TEXT, b"two"), (PONG, b"3")]


def test_a_close_inside_a_fragmented_message_is_a_close(plain: RawSocket) -> None:
    """Control frames may come between fragments (RFC 6455 section 5.4), this one too."""
    plain.send(frame(TEXT, b"never", fin=False) + frame(CLOSE, b"\x03\xe8bye"))
    plain.send(frame(CONTINUATION, b"ended"))
    assert plain.read_frame() == (CLOSE, b"\x03\xe8bye")
    assert plain.read_to_end() == b""


@pytest.mark.parametrize(
    ("sent", "code"),
    [(frame(CLOSE, b"\x03\xe9"), 1001), (frame(PING, b"x", rsv=1), 1002)],
    ids=["goodbye", "violation"],
)
def test_a_client_that_closes_its_side_at_once_is_still_answered(
    plain: RawSocket, sent: bytes, code: int
) -> None:
    """The end of its input behind the last frame does not overtake the close frame."""
    plain.send(frame(TEXT, b"before") + sent)
    plain.sock.shutdown(socket.SHUT_WR)
    assert plain.read_text() == "before"
    assert plain.read_close() == code
    assert plain.read_to_end() == b""


def test_a_character_may_be_cut_between_fragments(plain: RawSocket) -> None:
    """Text is UTF-8 as a whole, not by fragment."""
    text = "κόσμε🜁".encode()
    plain.send(frame(TEXT, text[:1], fin=False))
    for byte in text[1:]:
        plain.send(frame(CONTINUATION, bytes([byte]), fin=False))
    plain.send(frame(CONTINUATION))
    assert plain.read_frame() == (TEXT, text)


@pytest.mark.parametrize("bad", [b"\xf4\x90", b"\xed\xa0\x80", b"\xc0", b"\xff", b"\xce\xce"])
def test_text_is_refused_as_soon_as_it_cannot_be_utf8(plain: RawSocket, bad: bytes) -> None:
    """At the fragment that makes it so; the last one is not waited for."""
    plain.send(frame(TEXT, "κόσμε".encode(), fin=False) + frame(CONTINUATION, bad, fin=False))
    assert plain.read_close() == 1007


def test_a_compressed_frame_that_was_not_agreed_on_is_refused(plain: RawSocket) -> None:
    """RSV1 means nothing without the extension."""
    plain.send(frame(TEXT, deflated(b"Hello"), rsv=RSV1))
    assert plain.read_close() == 1002


# -- compressed -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offer", "answer"),
    [
        ("permessage-deflate", ANSWER),
        ("permessage-deflate; server_no_context_takeover; client_no_context_takeover", ANSWER),
        ("permessage-deflate; client_max_window_bits=9", ANSWER),
        ('permessage-deflate; client_max_window_bits="10"', ANSWER),
        ("permessage-deflate; server_max_window_bits=15", ANSWER + "; server_max_window_bits=15"),
        ("permessage-deflate; server_max_window_bits=10, permessage-deflate", ANSWER),
        ("x-webkit-deflate-frame, permessage-deflate", ANSWER),
        (None, None),
        ("permessage-deflate; server_max_window_bits=10", None),
        ("permessage-deflate; server_max_window_bits", None),
        ("permessage-deflate; client_max_window_bits=16", None),
        ("permessage-deflate; client_max_window_bits=08", None),
        ("permessage-deflate; server_no_context_takeover=1", None),
        ("permessage-deflate; server_no_context_takeover; server_no_context_takeover", None),
        ("permessage-deflate; mystery", None),
        ("permessage-bzip2", None),
        ("permessage-deflate;;", None),
    ],
)
def test_an_offer_is_taken_or_passed_over(
    packing_server: Server, offer: str | None, answer: str | None
) -> None:
    """Valid offers that leave the full window are taken, without contexts; others are not."""
    with RawSocket(packing_server.port) as raw:
        assert upgrade(raw, offer) == answer


@pytest.mark.parametrize(
    "payload",
    ["f248cdc9c90700", "000500faff48656c6c6f00", "f348cdc9c9070000", "f248050000 00ffffcac9c90700"],
    ids=["one block", "not compressed", "final block", "two blocks"],
)
def test_every_form_of_a_compressed_message_is_read(packing: RawSocket, payload: str) -> None:
    """The examples of RFC 7692 section 7.2.3; each of them says Hello."""
    packing.send(frame(TEXT, bytes.fromhex(payload), rsv=RSV1))
    assert packing.read_frame() == (TEXT, b"Hello")  # too short to be worth compressing


def test_a_compressed_message_may_be_fragmented(packing: RawSocket) -> None:
    """The example of RFC 7692 section 7.2.3.1, with a ping in the middle."""
    packing.send(frame(TEXT, b"\xf2\x48\xcd", fin=False, rsv=RSV1) + frame(PING, b"plain"))
    assert packing.read_frame() == (PONG, b"plain")
    packing.send(frame(CONTINUATION, b"\xc9\xc9\x07\x00"))
    assert packing.read_frame() == (TEXT, b"Hello")


def test_plain_messages_may_come_between_compressed_ones(packing: RawSocket) -> None:
    """Compression is agreed on for a connection and chosen for each message."""
    for _ in range(2):
        packing.send(frame(TEXT, b"plain") + frame(TEXT, deflated(b"packed"), rsv=RSV1))
        assert packing.read_frame() == (TEXT, b"plain")
        assert packing.read_frame() == (TEXT, b"packed")


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_every_compressed_frame_stands_alone(packing: RawSocket, opcode: int) -> None:
    """The same message gives the same bytes again: nothing refers to an earlier frame."""
    text = b"all work and no play " * 50
    packing.send(frame(opcode, deflated(text), rsv=RSV1) * 2)
    first, second = read_packed(packing), read_packed(packing)
    assert first == second
    assert (first[0], first[2]) == (opcode, text)
    assert len(first[1]) < 100


def test_a_message_that_refers_to_an_earlier_one_is_refused(packing: RawSocket) -> None:
    """The example of RFC 7692 section 7.2.3.2: it needs the context that was declined."""
    packing.send(frame(TEXT, bytes.fromhex("f248cdc9c90700"), rsv=RSV1))
    assert packing.read_frame() == (TEXT, b"Hello")
    packing.send(frame(TEXT, bytes.fromhex("f200110000"), rsv=RSV1))
    assert packing.read_close() == 1002


WRONG = {
    "compressed ping": (frame(PING, deflated(b"x"), rsv=RSV1), 1002),
    "compressed close": (frame(CLOSE, deflated(b"\x03\xe8"), rsv=RSV1), 1002),
    "RSV1 on a continuation": (
        frame(TEXT, b"\xf2\x48", fin=False, rsv=RSV1) + frame(CONTINUATION, b"\xcd", rsv=RSV1),
        1002,
    ),
    "RSV2": (frame(TEXT, deflated(b"x"), rsv=RSV1 | 2), 1002),
    "not deflate": (frame(TEXT, b"\xff" * 20, rsv=RSV1), 1002),
    "text not UTF-8": (frame(TEXT, deflated(b"ab\xff"), rsv=RSV1), 1007),
}


@pytest.mark.parametrize("name", list(WRONG))
def test_compressed_nonsense_closes_with_its_code(packing: RawSocket, name: str) -> None:
    """What came before it is answered."""
    data, code = WRONG[name]
    packing.send(frame(TEXT, deflated(b"before"), rsv=RSV1) + data)
    assert packing.read_frame() == (TEXT, b"before")
    assert packing.read_close() == code


def test_a_decompression_bomb_is_refused(packing: RawSocket) -> None:
    """The bound is on what a message inflates to: 17 kB on the wire are too big here."""
    bomb = deflated(bytes(LIMIT + 1))
    assert len(bomb) < LIMIT / 1000
    packing.send(frame(BINARY, bomb, rsv=RSV1))
    assert packing.read_close() == 1009


def test_a_decompression_bomb_in_fragments_is_refused(packing: RawSocket) -> None:
    """Fragments count together, and the last one is not waited for."""
    bomb = deflated(bytes(LIMIT + 1000))
    packing.send(frame(BINARY, bomb[:9000], fin=False, rsv=RSV1))
    packing.send(frame(CONTINUATION, bomb[9000:], fin=False))
    assert packing.read_close() == 1009
