"""What clients send: the same messages in any portions, and bounds that hold before memory is taken."""

from __future__ import annotations

import os
import struct
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.frames import Opcode

from rango_gevent.delivery.inbound import BINARY, PONG, TEXT, Inbound, InboundLimits, InboundPool
from rango_gevent.protocol import close
from rango_gevent.protocol.close import CloseReason

LIMITS = InboundLimits(message_bytes=300, fragments=4)

FIN, RSV1, RSV2 = 0x80, 0x40, 0x20
CONT, TEXT_OP, BINARY_OP, CLOSE_OP, PING_OP, PONG_OP = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA


def frame(first: int, payload: bytes = b"", mask: bytes | None = b"\x01\x02\x03\x04") -> bytes:
    """Return a frame as a client sends it."""
    size = len(payload)
    flag = 0x80 if mask is not None else 0
    if size < 126:
        head = bytes((first, flag | size))
    elif size < 65536:
        head = struct.pack("!BBH", first, flag | 126, size)
    else:
        head = struct.pack("!BBQ", first, flag | 127, size)
    if mask is None:
        return head + payload
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


def text(payload: str | bytes) -> bytes:
    """Return a text message in one frame."""
    return frame(FIN | TEXT_OP, payload if isinstance(payload, bytes) else payload.encode())


class Outcome:
    """All that became of some portions."""

    def __init__(self, portions: list[bytes], limits: InboundLimits = LIMITS, **more: Any) -> None:
        self.inbound = Inbound(limits, **more)
        self.items: list[tuple[Opcode, bytes]] = []
        self.frames = 0
        self.closed: tuple[int, bytes] | None = None
        self.failure: CloseReason | None = None
        for portion in portions:
            received = self.inbound.receive(portion)
            self.items += received.items
            self.frames += received.frames
            if received.closed_by_peer is not None:
                self.closed = received.closed_by_peer, received.echo
            if received.failure is not None:
                self.failure = received.failure
            if self.closed or self.failure:
                break  # the client reads no more

    @property
    def what(self) -> tuple[Any, ...]:
        """Return what must not depend on the portions."""
        return self.items, self.closed, self.failure


def portions_of(data: bytes, cuts: list[int]) -> list[bytes]:
    """Cut bytes at these places."""
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in zip(places, places[1:])]


# -- strategies -----------------------------------------------------------------------------------

masks = st.binary(min_size=4, max_size=4)
controls = st.builds(
    lambda opcode, payload, mask: frame(FIN | opcode, payload, mask),
    st.sampled_from([PING_OP, PONG_OP]), st.binary(max_size=125), masks,
)  # fmt: skip


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """Return a message in some fragments, with control frames between them."""
    is_text = draw(st.booleans())
    payload = draw(st.text(max_size=40)).encode() if is_text else draw(st.binary(max_size=200))
    cuts = draw(st.lists(st.integers(0, 200), max_size=3))
    parts = portions_of(payload, cuts)
    out = b""
    for number, part in enumerate(parts):
        opcode = CONT if number else (TEXT_OP if is_text else BINARY_OP)
        fin = FIN if number == len(parts) - 1 else 0
        out += frame(fin | opcode, part, draw(masks))
        if draw(st.booleans()):
            out += draw(controls)
    return out


broken = st.sampled_from(
    [
        b"",
        frame(FIN | TEXT_OP, b"ping", None),
        frame(FIN | TEXT_OP, b"\xff"),
        frame(FIN | 0x3),
        frame(FIN | RSV2 | TEXT_OP),
        frame(FIN | CONT),
        frame(PING_OP, b"fragmented"),
        frame(FIN | PING_OP, b"x" * 126),
        b"\x81\xfe\x00\x7d" + bytes(4),
        b"\x81\xff" + (1 << 63).to_bytes(8, "big"),
        frame(FIN | TEXT_OP, b"x" * 301),
        frame(FIN | CLOSE_OP, b"\x03\xe8bye"),
        frame(FIN | CLOSE_OP, b""),
        frame(FIN | CLOSE_OP, b"\x03"),
        frame(FIN | CLOSE_OP, b"\x03\xed"),
        frame(FIN | CLOSE_OP, b"\x03\xe8\xff"),
        frame(TEXT_OP, b"a") + frame(FIN | TEXT_OP, b"b"),
        frame(TEXT_OP, b"x" * 200) + frame(FIN | CONT, b"x" * 200),
        frame(TEXT_OP) + frame(CONT) * 3 + frame(FIN | CONT),
        frame(TEXT_OP, b"\xc3") + frame(FIN | CONT, b"\xc3"),
    ]
)
endings = st.builds(lambda head, tail: head + tail, broken, st.binary(max_size=20) | messages())


# -- any portions ---------------------------------------------------------------------------------


@given(st.lists(messages(), max_size=4), endings, st.lists(st.integers(0, 2000), max_size=6))
def test_portions_make_no_difference(whole: list[bytes], ending: bytes, cuts: list[int]) -> None:
    """At once, in a few portions, byte by byte: the same answers, and the same end."""
    data = b"".join(whole) + ending
    at_once = Outcome([data])
    assert Outcome(portions_of(data, cuts)).what == at_once.what
    by_byte = Outcome([data[place : place + 1] for place in range(len(data))])
    assert by_byte.what == at_once.what
    assert by_byte.inbound.clean is at_once.inbound.clean


@given(st.lists(messages(), max_size=4))
def test_good_messages_are_received_as_they_were_sent(whole: list[bytes]) -> None:
    """Fragments are joined, pings answered in their place, pongs ignored; then nothing is left."""
    outcome = Outcome([b"".join(whole)])
    assert outcome.failure is None
    assert outcome.closed is None
    assert outcome.items == [item for data in whole for item in plainly(data)]
    assert outcome.inbound.clean


def plainly(data: bytes) -> list[tuple[Opcode, bytes]]:
    """Read frames that are known to be good in the plainest way; a message stands at its end."""
    found: list[tuple[Opcode, bytes]] = []
    message, kind = b"", TEXT
    while data:
        opcode, size, start = data[0] & 0x0F, data[1] & 0x7F, 2
        if size == 126:
            size, start = int.from_bytes(data[2:4], "big"), 4
        mask, body = data[start : start + 4], data[start + 4 : start + 4 + size]
        payload = bytes(byte ^ mask[index % 4] for index, byte in enumerate(body))
        if opcode == PING_OP:
            found.append((PONG, bytes((FIN | PONG_OP, len(payload))) + payload))
        elif opcode != PONG_OP:
            kind = {TEXT_OP: TEXT, BINARY_OP: BINARY}.get(opcode, kind)
            message += payload
            if data[0] & FIN:
                found.append((kind, message))
                message = b""
        data = data[start + 4 + size :]
    return found


@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=3))
@example(b"\x81\x80\x00\x00\x00\x00", [])
def test_any_bytes_are_messages_or_a_failure(data: bytes, cuts: list[int]) -> None:
    """Nothing that a client sends raises, in any portions."""
    outcome = Outcome(portions_of(data, cuts))
    assert outcome.failure is None or outcome.failure in close.TABLE


# -- what is wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "failure"),
    [
        (frame(FIN | TEXT_OP, b"ping", None), close.PROTOCOL_ERROR),
        (frame(FIN | PING_OP, b"", None), close.PROTOCOL_ERROR),
        (frame(FIN | 0x3), close.PROTOCOL_ERROR),
        (frame(FIN | 0xB), close.PROTOCOL_ERROR),
        (frame(FIN | RSV1 | TEXT_OP), close.PROTOCOL_ERROR),
        (frame(FIN | RSV2 | TEXT_OP), close.PROTOCOL_ERROR),
        (frame(FIN | 0x10 | TEXT_OP), close.PROTOCOL_ERROR),
        (frame(PING_OP), close.PROTOCOL_ERROR),
        (frame(CLOSE_OP), close.PROTOCOL_ERROR),
        (frame(FIN | PING_OP, b"x" * 126), close.PROTOCOL_ERROR),
        (frame(FIN | CONT), close.PROTOCOL_ERROR),
        (frame(TEXT_OP) + frame(FIN | TEXT_OP), close.PROTOCOL_ERROR),
        (frame(FIN | CLOSE_OP, b"\x03"), close.PROTOCOL_ERROR),
        (frame(FIN | CLOSE_OP, struct.pack("!H", 1005)), close.PROTOCOL_ERROR),
        (frame(FIN | CLOSE_OP, struct.pack("!H", 1006)), close.PROTOCOL_ERROR),
        (frame(FIN | CLOSE_OP, struct.pack("!H", 999)), close.PROTOCOL_ERROR),
        (frame(FIN | CLOSE_OP, struct.pack("!H", 5000)), close.PROTOCOL_ERROR),
        (frame(FIN | CLOSE_OP, b"\x03\xe8\xff"), close.BAD_UTF8),
        (b"\x81\xfe\x00\x7d", close.PROTOCOL_ERROR),
        (b"\x81\xff\x00\x00\x00\x00\x00\x00\x00\x7d", close.PROTOCOL_ERROR),
        (b"\x81\xff\x00\x00\x00\x00\x00\x00\xff\xff", close.PROTOCOL_ERROR),
        (b"\x81\xff\x80\x00\x00\x00\x00\x00\x00\x00", close.PROTOCOL_ERROR),
        (frame(FIN | TEXT_OP, b"\xff"), close.BAD_UTF8),
        (frame(FIN | TEXT_OP, b"\xc3"), close.BAD_UTF8),
        (frame(FIN | TEXT_OP, b"\xed\xa0\x80"), close.BAD_UTF8),
        (frame(FIN | TEXT_OP, b"\xc0\x80"), close.BAD_UTF8),
        (frame(TEXT_OP, b"\xc3") + frame(FIN | CONT, b"\x28"), close.BAD_UTF8),
        (frame(TEXT_OP, b"ok\xff"), close.BAD_UTF8),
        (b"\x81\xfe\x01\x2d", close.TOO_BIG),
        (b"\x82\xff\x00\x00\x00\x00\x00\x01\x00\x00", close.TOO_BIG),
        (frame(TEXT_OP, b"x" * 200) + frame(FIN | CONT, b"x" * 101), close.TOO_BIG),
        (frame(BINARY_OP, b"x") + frame(CONT) * 4, close.TOO_MANY_FRAGMENTS),
    ],
)
def test_each_violation_has_its_reason(data: bytes, failure: CloseReason) -> None:
    """And what came before it is answered all the same."""
    outcome = Outcome([text("before") + data])
    assert outcome.items == [(TEXT, b"before")]
    assert outcome.failure is failure
    assert outcome.closed is None
    assert not outcome.inbound.clean


@pytest.mark.parametrize(
    "data",
    [
        frame(FIN | TEXT_OP, b"x" * 300),
        frame(TEXT_OP, b"x" * 150) + frame(FIN | CONT, b"x" * 150),
        frame(BINARY_OP) + frame(CONT) * 2 + frame(FIN | CONT),
        frame(FIN | PING_OP, b"x" * 125),
        frame(FIN | TEXT_OP, "é😀".encode()),
        frame(TEXT_OP, b"\xf0\x9f") + frame(CONT, b"\x98") + frame(FIN | CONT, b"\x80"),
        frame(TEXT_OP, b"\xc3") + frame(FIN | PING_OP) + frame(FIN | CONT, b"\xa9"),
        frame(FIN | BINARY_OP, b"\xff"),
        frame(BINARY_OP, b"\xff") + frame(FIN | CONT, b"\xff"),
    ],
)
def test_the_last_that_is_allowed(data: bytes) -> None:
    """Bounds are reached, text is cut in the middle of a character, binary is anything."""
    outcome = Outcome([data])
    assert outcome.failure is None
    assert len(outcome.items) >= 1
    assert outcome.inbound.clean


def test_a_length_is_refused_before_memory_is_taken() -> None:
    """The header of a frame is enough to say no; what follows it is not waited for."""
    inbound = Inbound(InboundLimits(1 << 20, 8))
    tracemalloc.start()
    received = inbound.receive(b"\x82\xff\x00\x00\x00\x7f\xff\xff\xff\xff")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert received.failure is close.TOO_BIG
    assert peak < 100_000


def test_a_close_inside_a_message_is_a_close() -> None:
    """Control frames may stand between fragments (RFC 6455 section 5.4)."""
    outcome = Outcome([frame(TEXT_OP, b"half") + frame(FIN | CLOSE_OP, b"\x03\xe8")])
    assert outcome.closed == (1000, b"\x88\x02\x03\xe8")
    assert outcome.items == []


@pytest.mark.parametrize(
    ("payload", "closed"),
    [
        (b"", (1005, b"\x88\x00")),
        (b"\x03\xe8", (1000, b"\x88\x02\x03\xe8")),
        (b"\x03\xe9going", (1001, b"\x88\x07\x03\xe9going")),
        (b"\x0f\xa0\xc3\xa9", (4000, b"\x88\x04\x0f\xa0\xc3\xa9")),
        (b"\x03\xe8" + b"x" * 123, (1000, b"\x88\x7d\x03\xe8" + b"x" * 123)),
    ],
)
def test_a_close_frame_is_echoed(payload: bytes, closed: tuple[int, bytes]) -> None:
    """With its code, and nothing behind it counts."""
    data = text("before") + frame(FIN | CLOSE_OP, payload)
    outcome = Outcome([data + text("behind") + b"\xff\xff"])
    assert outcome.items == [(TEXT, b"before")]
    assert outcome.closed == closed
    assert outcome.failure is None
    after = outcome.inbound.receive(text("later"))
    assert (after.items, after.failure, after.closed_by_peer) == ([], None, None)
    assert not outcome.inbound.clean


def test_many_frames_are_received_in_portions() -> None:
    """A call looks at a bounded number of them; what is left comes with the next calls."""
    inbound = Inbound(LIMITS)
    received = inbound.receive(text("a") * 120 + frame(FIN | CLOSE_OP))
    counts = [received.frames]
    while received.more:
        assert received.closed_by_peer is None
        received = inbound.receive(b"")
        counts.append(received.frames)
    assert counts == [50, 50, 21]
    assert received.closed_by_peer == 1005


def test_frames_are_counted() -> None:
    """Of any kind, for the limit on their rate."""
    data = (
        text("a") + frame(FIN | PING_OP) + frame(FIN | PONG_OP) + frame(TEXT_OP) + frame(FIN | CONT)
    )
    assert Outcome([data]).frames == 5
    assert Outcome([data[place : place + 1] for place in range(len(data))]).frames == 5


# -- compression ------------------------------------------------------------------------------------


def deflated(payload: bytes) -> bytes:
    """Return a payload compressed by RFC 7692 section 7.2.1."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (deflate.compress(payload) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]


def test_compressed_messages_are_inflated() -> None:
    """One by one: no message leans on the one before."""
    data = b"".join(frame(FIN | RSV1 | TEXT_OP, deflated(b"hello " * 20)) for _ in range(3))
    outcome = Outcome([data + text("plain")], deflate=True)
    assert outcome.items == [(TEXT, b"hello " * 20)] * 3 + [(TEXT, b"plain")]
    assert outcome.inbound.clean


def test_a_compressed_message_in_fragments() -> None:
    """Only the first fragment says that it is compressed."""
    payload = deflated("é".encode() * 100)
    data = frame(RSV1 | TEXT_OP, payload[:3]) + frame(FIN | CONT, payload[3:])
    assert Outcome([data], deflate=True).items == [(TEXT, "é".encode() * 100)]


@pytest.mark.parametrize("size", [301, 1 << 20, 64 << 20])
def test_a_bomb_is_defused(size: int) -> None:
    """What it would inflate to is not inflated: the bound is on the message."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    payload = deflate.compress(bytes(size)) + deflate.flush(zlib.Z_SYNC_FLUSH)
    limits = InboundLimits(len(payload) if size > 1 << 20 else 300, 8)
    data = frame(FIN | RSV1 | BINARY_OP, payload[:-4])
    inbound = Inbound(limits, deflate=True)
    tracemalloc.start()
    received = inbound.receive(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert received.failure is close.TOO_BIG
    assert peak < 4 * len(data) + 1_000_000


@given(st.binary(max_size=100))
def test_any_bytes_as_compressed_data(payload: bytes) -> None:
    """What does not inflate is a violation, nothing worse."""
    outcome = Outcome([frame(FIN | RSV1 | BINARY_OP, payload)], deflate=True)
    assert outcome.failure in (None, close.PROTOCOL_ERROR, close.TOO_BIG, close.BAD_UTF8)
    assert outcome.inbound.clean is (outcome.failure is None)


# -- the pool -------------------------------------------------------------------------------------


def test_an_object_goes_from_client_to_client() -> None:
    """As long as nothing is half received."""
    pool = InboundPool(LIMITS)
    one = pool.lend()
    one.receive(text("hello"))
    assert pool.give_back(one)
    assert pool.lend() is one
    assert pool.lend() is not one


@pytest.mark.parametrize(
    "data",
    [
        b"\x81",
        text("hello")[:-1],
        frame(TEXT_OP, b"first"),
        frame(TEXT_OP, b""),
        frame(BINARY_OP, b"") + frame(CONT, b""),
        frame(TEXT_OP, b"\xc3"),
        frame(TEXT_OP, b"first") + frame(FIN | PING_OP),
        frame(FIN | CLOSE_OP),
        frame(FIN | 0x3),
        b"\x81\xfe\xff\xff",
    ],
)
def test_a_half_used_object_is_not_taken_back(data: bytes) -> None:
    """Its client keeps it: another would get the rest of a message, or be closed at once."""
    pool = InboundPool(LIMITS)
    inbound = pool.lend()
    inbound.receive(data)
    assert not inbound.clean
    assert not pool.give_back(inbound)
    assert pool.lend() is not inbound


@given(
    st.lists(
        st.tuples(st.integers(0, 2), messages(), st.lists(st.integers(0, 300), max_size=2)),
        max_size=8,
    )
)
def test_clients_that_share_objects_do_not_notice(
    turns: list[tuple[int, bytes, list[int]]],
) -> None:
    """Each gets its own messages, whoever had the object before and in whatever portions."""
    pool = InboundPool(LIMITS, keep=2)
    held: dict[int, Inbound] = {}
    for who, data, cuts in turns:
        found = []
        for portion in portions_of(data, cuts):
            inbound = held.pop(who, None) or pool.lend()
            received = inbound.receive(portion)
            assert received.failure is None
            found += received.items
            if not pool.give_back(inbound):
                held[who] = inbound
        assert found == plainly(data)
        assert who not in held


def test_a_pool_keeps_a_few() -> None:
    """What was needed at once in the worst second is not kept for ever."""
    pool = InboundPool(LIMITS, keep=2)
    lent = [pool.lend() for _ in range(5)]
    assert all(pool.give_back(inbound) for inbound in lent)
    again = [pool.lend() for _ in range(5)]
    assert sum(inbound in lent for inbound in again) == 2


def test_a_pool_lends_what_fits_it() -> None:
    """With its limits, and with compression or without."""
    assert InboundPool(LIMITS).lend().limits == LIMITS
    compressed = frame(FIN | RSV1 | TEXT_OP, deflated(b"x"))
    assert InboundPool(LIMITS, deflate=True).lend().receive(compressed).items == [(TEXT, b"x")]
    assert InboundPool(LIMITS).lend().receive(compressed).failure is close.PROTOCOL_ERROR


def test_an_object_of_other_limits_is_let_go() -> None:
    """Limits may change while it is lent."""
    pool = InboundPool(LIMITS)
    assert pool.give_back(Inbound(InboundLimits(1, 1)))
    assert pool.lend().limits == LIMITS


def test_random_masks_are_what_clients_use() -> None:
    """Any mask is undone."""
    for _ in range(20):
        data = frame(FIN | TEXT_OP, b"ping", os.urandom(4))
        assert Outcome([data]).items == [(TEXT, b"ping")]
