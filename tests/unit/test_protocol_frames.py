"""Server frames: literal bytes at the borders of the length forms, and deflated payloads."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import CLIENT, OPEN, Protocol

from rango_gevent.protocol import frames, messages


def frames_in(data: bytes) -> list[Frame]:
    """Return what an independent client reads in bytes of a server."""
    reader = Protocol(CLIENT, state=OPEN, max_size=None)
    reader.receive_data(data)
    assert reader.parser_exc is None, reader.parser_exc
    events: list[Frame] = reader.events_received()  # type: ignore[assignment]  # frames only, once OPEN
    return events


@pytest.mark.parametrize(
    ("size", "header"),
    [
        (0, b"\x81\x00"),
        (1, b"\x81\x01"),
        (125, b"\x81\x7d"),
        (126, b"\x81\x7e\x00\x7e"),
        (127, b"\x81\x7e\x00\x7f"),
        (65535, b"\x81\x7e\xff\xff"),
        (65536, b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
        (1 << 20, b"\x81\x7f\x00\x00\x00\x00\x00\x10\x00\x00"),
    ],
)
def test_text_headers(size: int, header: bytes) -> None:
    """FIN and text, no mask, and the shortest form of the length (RFC 6455 section 5.2)."""
    payload = b"x" * size
    assert frames.text(payload) == header + payload


@pytest.mark.parametrize("size", [0, 120, 121, 122, 65530, 65531, 65532])
def test_an_event_is_a_text_frame_of_head_body_and_brace(size: int) -> None:
    """Splicing gives the frame that encoding the whole text would give."""
    head = messages.event_head("a")
    body = b"7" * size
    assert frames.event(head, body) == frames.text(b'{"a":' + body + b"}")


@pytest.mark.parametrize("size", [0, 1, 90, 100, 120, 65500, 65510, 65530, 70_000])
def test_an_event_with_its_position_is_the_same_made_either_way(size: int) -> None:
    """Of head and body, or of the frame that is there already, whatever form the lengths take."""
    head, body = messages.event_head("a"), b"7" * size
    wanted = frames.text(b'{"a":' + body + b',"at":"12-0000ffff"}')
    assert frames.event_at(head, body, 12, 0xFFFF) == wanted
    assert frames.placed(frames.event(head, body), "12-0000ffff") == wanted


def test_the_body_of_an_event_is_not_touched() -> None:
    """White space, order of keys, long numbers and bytes beyond ASCII arrive as published."""
    body = ' {"b" : 12345678901234567890, "a":0.10000000000000000001, "é":"é"}\n'.encode()
    (frame,) = frames_in(frames.event(messages.event_head("m.t"), body))
    assert bytes(frame.data) == b'{"m.t":' + body + b"}"


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_frames_one_after_another_are_read_as_that(payloads: list[bytes]) -> None:
    """Frames joined into one send are the same frames to a client."""
    read = frames_in(b"".join(frames.text(payload) for payload in payloads))
    assert [(frame.opcode, frame.fin, bytes(frame.data)) for frame in read] == [
        (Opcode.TEXT, True, payload) for payload in payloads
    ]


# -- control frames ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (frames.ping(), b"\x89\x00"),
        (frames.ping(b"hello"), b"\x89\x05hello"),
        (frames.ping(b"x" * 125), b"\x89\x7d" + b"x" * 125),
        (frames.close(1000), b"\x88\x02\x03\xe8"),
        (frames.close(1012, "service restart"), b"\x88\x11\x03\xf4service restart"),
        (frames.close(4008, "é"), b"\x88\x04\x0f\xa8\xc3\xa9"),
        (frames.close(1000, "x" * 123), b"\x88\x7d\x03\xe8" + b"x" * 123),
        (frames.close(1000, "x" * 124), b"\x88\x7d\x03\xe8" + b"x" * 123),
    ],
)
def test_control_frames(frame: bytes, expected: bytes) -> None:
    """Control frames hold at most 125 bytes of payload (RFC 6455 section 5.5)."""
    assert frame == expected


@given(st.sampled_from([1000, 1012, 4008]), st.text(max_size=200))
@example(1000, "é" * 62)
@example(1000, "x" + "😀" * 40)
def test_any_close_reason_makes_a_valid_frame(code: int, reason: str) -> None:
    """A reason is cut at the end of a character, so that it stays UTF-8."""
    reader = Protocol(CLIENT, state=OPEN)
    reader.receive_data(frames.close(code, reason))
    assert reader.parser_exc is None
    assert reader.close_rcvd is not None
    assert reader.close_rcvd.code == code
    assert reason.startswith(reader.close_rcvd.reason)
    assert len(reader.close_rcvd.reason.encode()) >= min(len(reason.encode()), 120)


# -- compression ------------------------------------------------------------------------------


def inflate(payload: bytes) -> bytes:
    """Undo RFC 7692 section 7.2.1, with no context from the frame before."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    return inflater.decompress(payload + b"\x00\x00\xff\xff") + inflater.flush()


@pytest.mark.parametrize("size", [126, 1000, 65535, 65536, 300_000])
def test_a_packed_frame_inflates_to_its_payload(size: int) -> None:
    """RSV1 is set and the payload is the deflated one, shorter than it was."""
    payload = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    frame = frames.text(payload)
    packed = frames.packed(frame, 0, 6)
    assert len(packed) < len(frame)
    assert packed[0] == 0xC1
    start = {126: 4, 127: 10}.get(packed[1], 2)
    assert inflate(packed[start:]) == payload


def test_a_packed_frame_of_each_length_form() -> None:
    """The deflated payload's own length decides about its header."""
    forms = set()
    for size in (200, 1000, 200_000):
        # hexadecimal digits without a pattern shrink to somewhat more than a half
        payload = f"{pow(7, size * 2, 1 << size * 4):x}".encode()[:size]
        packed = frames.packed(frames.text(payload), 0, 6)
        assert packed[0] == 0xC1
        start = {126: 4, 127: 10}.get(packed[1], 2)
        assert inflate(packed[start:]) == payload
        forms.add(start)
    assert forms == {2, 4, 10}


def test_small_payloads_stay_plain() -> None:
    """Below the bound a frame is not worth the work."""
    frame = frames.text(b"x" * 100)
    assert frames.packed(frame, 101, 6) == frame
    assert frames.packed(frame, 100, 6) != frame


def test_what_does_not_shrink_stays_plain() -> None:
    """A frame whose deflated payload is no shorter goes out as it is."""
    frame = frames.text(b'{"a":1}')
    assert frames.packed(frame, 0, 6) == frame


@given(st.lists(st.text("ab", max_size=400), max_size=4), st.integers(1, 9), st.integers(0, 300))
def test_a_client_with_the_extension_reads_packed_frames(
    texts: list[str], level: int, min_bytes: int
) -> None:
    """Plain and packed frames may follow each other; each stands alone."""
    from websockets.extensions.permessage_deflate import PerMessageDeflate

    reader = Protocol(CLIENT, state=OPEN)
    reader.extensions = [PerMessageDeflate(True, True, 15, 15)]
    for text in texts:
        reader.receive_data(frames.packed(frames.text(text.encode()), min_bytes, level))
    assert reader.parser_exc is None
    events: list[Frame] = reader.events_received()  # type: ignore[assignment]  # as above
    assert [bytes(event.data).decode() for event in events] == texts
