"""The WebSocket wire, byte by byte: RFC 6455 as a server must keep it, and our bounds."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import struct
import threading
import time
from typing import Iterator

import pytest
from support import (
    BINARY,
    CLOSE,
    CONTINUATION,
    HEALTHY,
    PING,
    PONG,
    TEXT,
    Client,
    RawSocket,
    Server,
    frame,
    start_gateway,
    text_frame,
    wait_for,
)


@pytest.fixture
def raw(gateway: Server) -> Iterator[RawSocket]:
    """A connection after its handshake and first reply."""
    with RawSocket(gateway.port) as opened:
        yield opened.open()


@pytest.fixture
def bystander(gateway: Server, market: str) -> Iterator[Client]:
    """Another client of the same server; at the end it must still be served."""
    with gateway.connect(f"/public?stream={market}.trades") as client:
        client.receive()
        yield client
        gateway.publish(f"public.{market}.trades", "1")
        assert client.receive() == f'{{"{market}.trades":1}}'


def close_payload(code: int, reason: bytes = b"") -> bytes:
    """Return the payload of a close frame."""
    return struct.pack("!H", code) + reason


# -- violations -------------------------------------------------------------------------------

HELLO = b'{"event":"nope"}'
VIOLATIONS: dict[str, tuple[bytes, int]] = {
    "unmasked text": (frame(TEXT, HELLO, masked=False), 1002),
    "unmasked ping": (frame(PING, b"x", masked=False), 1002),
    "unmasked close": (frame(CLOSE, close_payload(1000), masked=False), 1002),
    "unmasked and empty": (frame(TEXT, b"", masked=False), 1002),
    "16-bit length of 5": (frame(TEXT, b"hello", length_form=16), 1002),
    "16-bit length of 125": (frame(TEXT, b"x" * 125, length_form=16), 1002),
    "64-bit length of 5": (frame(TEXT, b"hello", length_form=64), 1002),
    "64-bit length of 200": (frame(TEXT, b"x" * 200, length_form=64), 1002),
    "64-bit length, top bit": (frame(TEXT, b"", length_form=64, length=1 << 63), 1002),
    "reserved bit 1": (frame(TEXT, HELLO, rsv=4), 1002),
    "reserved bit 2": (frame(TEXT, HELLO, rsv=2), 1002),
    "reserved bit 3": (frame(TEXT, HELLO, rsv=1), 1002),
    "reserved bit of a ping": (frame(PING, b"", rsv=1), 1002),
    "opcode 3": (frame(3, HELLO), 1002),
    "opcode 7": (frame(7, HELLO), 1002),
    "opcode 11": (frame(11, b""), 1002),
    "opcode 15": (frame(15, b""), 1002),
    "fragmented ping": (frame(PING, b"x", fin=False), 1002),
    "fragmented close": (frame(CLOSE, b"", fin=False), 1002),
    "ping of 126 bytes": (frame(PING, b"x" * 126), 1002),
    "continuation of nothing": (frame(CONTINUATION, b"x"), 1002),
    "open continuation of nothing": (frame(CONTINUATION, b"x", fin=False), 1002),
    "text inside a text": (frame(TEXT, b"x", fin=False) + frame(TEXT, b"x"), 1002),
    "binary inside a text": (frame(TEXT, b"x", fin=False) + frame(BINARY, b"x"), 1002),
    "close of one byte": (frame(CLOSE, b"\x03"), 1002),
    "close 0": (frame(CLOSE, close_payload(0)), 1002),
    "close 999": (frame(CLOSE, close_payload(999)), 1002),
    "close 1004": (frame(CLOSE, close_payload(1004)), 1002),
    "close 1005": (frame(CLOSE, close_payload(1005)), 1002),
    "close 1006": (frame(CLOSE, close_payload(1006)), 1002),
    "close 1015": (frame(CLOSE, close_payload(1015)), 1002),
    "close 5000": (frame(CLOSE, close_payload(5000)), 1002),
    "close, reason not UTF-8": (frame(CLOSE, close_payload(1000, b"\xff")), 1007),
    "text not UTF-8": (frame(TEXT, b"ab\xff"), 1007),
    "text with a surrogate": (frame(TEXT, b"\xed\xa0\x80"), 1007),
    "text, overlong": (frame(TEXT, b"\xc0\xaf"), 1007),
    "text, cut character": (frame(TEXT, "€".encode()[:2]), 1007),
    "text not UTF-8 in fragments": (
        frame(TEXT, b"\xe2\x82", fin=False) + frame(CONTINUATION, b"x"), 1007,
    ),
    "8193 bytes announced": (frame(TEXT, b"", length=8193), 1009),
    "1 TiB announced": (frame(TEXT, b"", length=1 << 40), 1009),
    "8193 bytes in fragments": (
        frame(TEXT, b"x" * 8000, fin=False) + frame(CONTINUATION, b"x" * 193), 1009,
    ),
    "65 fragments": (
        frame(TEXT, b"x", fin=False) + frame(CONTINUATION, b"x", fin=False) * 63
        + frame(CONTINUATION, b"x"), 4010,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(VIOLATIONS))
def test_a_violation_closes_with_its_code(
    raw: RawSocket, bystander: Client, gateway: Server, name: str
) -> None:
    """The close frame comes first, then the end; what is announced is never waited for."""
    data, code = VIOLATIONS[name]
    raw.send(data)
    assert raw.read_close() == code
    assert raw.read_to_end() == b""
    assert "Traceback" not in gateway.log()


@pytest.mark.parametrize(
    "name", ["unmasked text", "opcode 7", "text not UTF-8", "8193 bytes announced"]
)
def test_what_came_before_a_violation_is_answered(raw: RawSocket, name: str) -> None:
    """Requests in the same segment as the violation, and before it, get their replies."""
    data, code = VIOLATIONS[name]
    before = text_frame("ping") + frame(PING, b"1") + text_frame("ping")
    raw.send(before + data + text_frame("ping"))
    frames = [raw.read_frame() for _ in range(3)]
    assert frames == [(TEXT, b"pong"), (PONG, b"1"), (TEXT, b"pong")]
    assert raw.read_close() == code


def test_a_violation_behind_much_unread_input_is_still_told(raw: RawSocket) -> None:
    """The close frame is not lost to a reset, though bytes keep coming behind the violation."""
    raw.send(frame(TEXT, b"x", masked=False) + b"\x00" * 200_000)
    assert raw.read_close() == 1002


# -- what is allowed --------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [b"", b"x", bytes(range(125)), b"\xff" * 125])
def test_pings_are_answered_with_their_payload(raw: RawSocket, payload: bytes) -> None:
    """Any payload of up to 125 bytes comes back as it is."""
    raw.send(frame(PING, payload))
    assert raw.read_frame() == (PONG, payload)


def test_pongs_that_nobody_asked_for_are_ignored(raw: RawSocket) -> None:
    """An unsolicited pong is a heartbeat of one direction (RFC 6455 section 5.5.3)."""
    raw.send(frame(PONG, b"") + frame(PONG, b"x" * 125) + text_frame("ping"))
    assert raw.read_text() == "pong"


def test_fragments_are_joined_and_control_frames_go_between(raw: RawSocket) -> None:
    """A ping between fragments is answered at once, the message when it is complete."""
    parts = [b'{"event":"subscribe","str', b'eams":["a.\xc3', b'\xa9"]}']
    raw.send(frame(TEXT, parts[0], fin=False))
    raw.send(frame(PING, b"between"))
    assert raw.read_frame() == (PONG, b"between")
    raw.send(frame(CONTINUATION, b"", fin=False))
    raw.send(frame(CONTINUATION, parts[1], fin=False) + frame(PING, b"again"))
    assert raw.read_frame() == (PONG, b"again")
    raw.send(frame(CONTINUATION, parts[2]))
    assert json.loads(raw.read_text())["success"]["streams"] == ["a.é"]


def test_fragments_up_to_the_bound_are_a_message(raw: RawSocket) -> None:
    """64 of them, empty ones too, and 8192 bytes in all."""
    raw.send(frame(TEXT, b"", fin=False) + frame(CONTINUATION, b" ", fin=False) * 62)
    raw.send(frame(CONTINUATION, b"ping"))
    assert raw.read_text() == "pong"
    raw.send(frame(BINARY, b" " * 8000, fin=False) + frame(CONTINUATION, b" " * 188 + b"ping"))
    assert raw.read_text() == "pong"


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 4000, 8192])
def test_every_length_form_is_read(raw: RawSocket, size: int) -> None:
    """Messages up to the limit are read whole; blanks are ignored."""
    raw.send(frame(TEXT, b" " * size) + text_frame("ping"))
    assert raw.read_text() == "pong"


def test_bytes_may_come_one_at_a_time(raw: RawSocket) -> None:
    """Requests, pings and the close, cut between any two bytes."""
    request = text_frame({"event": "subscribe", "streams": ["a.b"]})
    for byte in request + frame(PING, b"p") + frame(BINARY, b" " * 130) + frame(CLOSE, b""):
        raw.send(bytes([byte]))
    assert json.loads(raw.read_text())["success"]["streams"] == ["a.b"]
    assert raw.read_frame() == (PONG, b"p")
    assert raw.read_frame() == (CLOSE, b"")


def test_half_frames_of_two_clients_never_mix(gateway: Server) -> None:
    """A frame cut at any byte waits for its own rest, whatever others send meanwhile."""
    request = text_frame({"event": "subscribe", "streams": ["one.b"]})
    with RawSocket(gateway.port) as one, RawSocket(gateway.port) as other:
        one.open()
        other.open()
        for cut in range(1, len(request)):
            one.send(request[:cut])
            other.send(request)
            assert json.loads(other.read_text())["success"]["streams"] == ["one.b"]
            other.send(request[:2])
            one.send(request[cut:])
            assert json.loads(one.read_text())["success"]["streams"] == ["one.b"]
            other.send(request[2:])
            assert json.loads(other.read_text())["success"]["streams"] == ["one.b"]


def test_half_fragmented_messages_of_two_clients_never_mix(gateway: Server) -> None:
    """A message whose fragments are still coming does not take in another client's."""
    with RawSocket(gateway.port) as one, RawSocket(gateway.port) as other:
        one.open()
        other.open()
        for _ in range(3):
            one.send(frame(TEXT, b"pi", fin=False))
            other.send(frame(TEXT, b"", fin=False))
            one.send(frame(PING, b"1"))
            other.send(frame(PING, b"2"))
            assert one.read_frame() == (PONG, b"1")
            assert other.read_frame() == (PONG, b"2")
            one.send(frame(CONTINUATION, b"ng"))
            other.send(frame(CONTINUATION, b"ping"))
            assert (one.read_text(), other.read_text()) == ("pong", "pong")


def test_random_bytes_harm_nobody(gateway: Server, bystander: Client) -> None:
    """Noise ends its own connection at most; there is never a traceback."""
    chance = random.Random(11)
    for _ in range(100):
        with RawSocket(gateway.port) as raw, contextlib.suppress(OSError):
            raw.open()
            noise = bytes(chance.choices(range(256), k=chance.randrange(1, 400)))
            if chance.random() < 0.5:  # a good header in front gets further into the parser
                noise = frame(chance.choice([0, 1, 2, 8, 9, 10]), noise[:120]) + noise
            raw.send(noise)
            raw.sock.shutdown(socket.SHUT_WR)
            raw.read_to_end()
    assert "Traceback" not in gateway.log()


# -- the end ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "payload",
    [b"", close_payload(1000), close_payload(1001, b"bye"), close_payload(3000),
     close_payload(4999, "é".encode()), close_payload(1000, b"x" * 123)],
)  # fmt: skip
def test_a_close_frame_is_echoed_with_its_code(raw: RawSocket, payload: bytes) -> None:
    """Then the server ends its side; a request behind the close frame is not answered."""
    raw.send(frame(CLOSE, payload) + text_frame("ping"))
    opcode, echo = raw.read_frame()
    assert (opcode, echo[:2]) == (CLOSE, payload[:2])
    assert raw.read_to_end() == b""


@pytest.mark.parametrize("how", ["half-open", "closed", "reset"])
def test_a_client_that_goes_without_a_word_is_noticed(
    gateway: Server, market: str, how: str
) -> None:
    """The end of its side of the connection is the end; what it held is given up."""
    labels = {"type": "public", "topic": f"{market}.trades"}
    name = "rango_hub_subscriptions_count"
    gateway.publish(f"public.{market}.trades", "1")
    gateway.catch_up()
    raw = RawSocket(gateway.port).open(f"/public?stream={market}.trades")
    assert gateway.metric(name, **labels) == 1
    if how == "half-open":
        raw.sock.shutdown(socket.SHUT_WR)
        assert raw.read_to_end() == b""
    if how == "reset":
        raw.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raw.sock.close()
    wait_for(lambda: gateway.metric(name, **labels) == 0, what="the subscription is gone")


def test_a_client_that_ignores_our_close_frame_is_ended(gateway: Server) -> None:
    """After the close timeout (here one second) the connection is gone."""
    name = "rango_hub_clients_count"
    wait_for(lambda: gateway.metric(name) == 0, what="nobody is here")
    with RawSocket(gateway.port) as raw:
        raw.open().send(frame(7))
        assert gateway.metric(name) == 1
        wait_for(lambda: gateway.metric(name) == 0, what="the client is gone")
        assert raw.read_close() == 1002


def test_clients_that_come_and_go_leave_nothing_behind(gateway: Server, market: str) -> None:
    """Hundreds of connections later there are as many open files and greenlets as before."""

    def left() -> tuple[float, float]:
        return gateway.metric("process_open_fds"), gateway.metric("python_greenlets")

    wait_for(lambda: gateway.metric("rango_hub_clients_count") == 0, what="nobody is here")
    before = left()
    for number in range(300):
        with RawSocket(gateway.port) as raw:
            raw.open(f"/public?stream={market}.{number % 7}")
            if number % 3 == 0:
                raw.send(frame(CLOSE))
            if number % 3 == 1:
                raw.send(frame(7))
    wait_for(
        lambda: all(now <= then for now, then in zip(left(), before)), what="all is given back"
    )


# -- liveness ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lively() -> Iterator[Server]:
    """A server that pings every second and wants a sign of life within five."""
    env = {"RANGO_PING_INTERVAL_S": "1", "RANGO_PONG_TIMEOUT_S": "5"}
    with start_gateway(env=env, until=HEALTHY) as server:
        yield server


def test_a_silent_client_is_pinged_and_closed(lively: Server) -> None:
    """A ping after a second, then close 4009 when nothing comes from it."""
    with RawSocket(lively.port) as raw:
        raw.open()
        started = time.monotonic()
        assert raw.read_any_frame() == (PING, b"")
        assert 0.9 < time.monotonic() - started < 5
        assert raw.skip_to_close() == 4009
        assert 4.9 < time.monotonic() - started < 20
        assert raw.read_to_end() == b""
    wait_for(
        lambda: lively.metric("rango_connections_closed_total", reason="ping_timeout") == 1,
        what="the reason is counted",
    )


def test_any_sign_of_life_keeps_a_client(lively: Server) -> None:
    """One that answers pings, and one that only ever sends, both stay."""
    with RawSocket(lively.port) as polite, RawSocket(lively.port) as talker:
        polite.open()
        talker.open()
        for _ in range(4):
            opcode, payload = polite.read_any_frame()
            assert opcode == PING
            polite.send(frame(PONG, payload))
            talker.send(frame(PONG, b"unasked"))
        talker.send(text_frame("ping"))
        assert talker.read_text() == "pong"


# -- slow and loud clients --------------------------------------------------------------------


def test_a_client_that_reads_nothing_is_closed_and_nobody_notices(market: str) -> None:
    """Past the outbox's bound it is closed with 4008; another client gets every message."""
    name, total, fill = f"{market}.trades", 400, "x" * 8000
    # the other one reads when all is published: until then the kernel keeps it
    env = {"RANGO_OUTBOX_BYTES": "262144", "RANGO_SEND_BUFFER_BYTES": "0"}
    with start_gateway(env=env) as server:
        slow = RawSocket(server.port, receive_buffer=4096).open(f"/public?stream={name}")
        with slow, server.connect(f"/public?stream={name}") as client:
            client.receive()
            for number in range(total):
                server.publish(f"public.{name}", f'[{number},"{fill}"]')
            received = [client.receive_json()[name][0] for _ in range(total)]
            assert received == list(range(total))
            wait_for(
                lambda: server.metric("rango_connections_closed_total", reason="slow_client") == 1,
                what="the slow client is closed",
            )
            got = whole_events(slow)
            assert 0 < got < total
            client.send("ping")
            assert client.receive() == "pong"


def whole_events(raw: RawSocket) -> int:
    """Count the whole events up to a close with 4008, or to a reset; all must be intact."""
    count = 0
    try:
        while True:
            opcode, payload = raw.read_frame()
            if opcode == CLOSE:
                assert payload[:2] == close_payload(4008)
                return count
            [(_, body)] = json.loads(payload).items()
            assert body[0] == count
            count += 1
    except (EOFError, ConnectionResetError):
        return count


def test_a_client_that_asks_and_never_reads_is_not_served_for_ever(
    gateway: Server, bystander: Client, market: str
) -> None:
    """Its replies wait in bounded memory: the server stops to read its requests."""
    with RawSocket(gateway.port, receive_buffer=4096) as raw:
        raw.open()
        raw.sock.settimeout(0.5)
        requests = text_frame({"event": "subscribe", "streams": [f"{market}.x"]}) * 1000
        sent = 0
        with contextlib.suppress(OSError):
            while sent < 2_000_000:
                raw.send(requests)
                sent += 1000
        assert sent < 2_000_000
        assert gateway.metric("rango_outbox_bytes") < 3 << 20


def test_a_flood_from_one_client_is_a_turn_for_each_of_the_others(
    gateway: Server, bystander: Client
) -> None:
    """While one client sends as fast as it can, others and health checks are answered."""
    enough = threading.Event()

    def flood(raw: RawSocket) -> None:
        pings = frame(PING, b"flood") * 500
        with contextlib.suppress(OSError):
            while not enough.is_set():
                raw.send(pings)
                for _ in range(500):
                    raw.read_frame()

    with RawSocket(gateway.port) as raw:
        thread = threading.Thread(target=flood, args=(raw.open(),))
        thread.start()
        try:
            for _ in range(20):
                used_s = gateway.cpu_s()
                bystander.send("ping")
                assert bystander.receive() == "pong"
                assert gateway.cpu_s() - used_s < 1
            assert gateway.get(HEALTHY).status == 200
        finally:
            enough.set()
            thread.join()
        raw.send(text_frame("ping"))
        assert raw.read_text() == "pong"


def test_too_many_requests_are_refused_and_then_closed() -> None:
    """Past the burst an error, once; past it again close 4029; others are not affected."""
    with start_gateway(until=HEALTHY) as server, server.connect() as other:
        other.receive()
        with RawSocket(server.port) as raw:
            raw.open().send(text_frame("ping") * 200)
            assert [raw.read_text() for _ in range(200)] == ["pong"] * 200
            answers = {"pong"}
            while answers == {"pong"}:  # on a slow machine tokens come back meanwhile
                raw.send(text_frame("ping") * 150)
                for _ in range(150):
                    answers.add(text := raw.read_text())
                    if text != "pong":
                        break
            assert "Too many requests" in text
            with contextlib.suppress(ConnectionError):
                raw.send(text_frame("ping") * 3000)
            assert raw.skip_to_close() == 4029
        other.send("ping")
        assert other.receive() == "pong"
