"""One anonymous connection, or many from one place, must not stop or shut out the others.

Each test attacks a gateway as it is by default, and asks a good client how it fared meanwhile.
The bounds on time are far from what is reached, and far from what an attack once did. It is the
gateway's own time: the machine may be busy with other things.
"""

from __future__ import annotations

import contextlib
import select
import socket
import sys
import threading
import time
from typing import Iterator

import pytest
from support import (
    HEALTHY,
    HOST,
    PATIENCE_S,
    RawSocket,
    Server,
    handshake,
    start_gateway,
    text_frame,
    wait_for,
)
from websockets.exceptions import WebSocketException

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b"%s / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNK = b"1\r\nx\r\n"

# A standstill lasted as long as its attack.
STANDSTILL_S = 0.8


@contextlib.contextmanager
def attack(port: int, first: bytes, then: bytes) -> Iterator[None]:
    """Send bytes over one connection as fast as it takes them, and take all answers."""
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            with RawSocket(port) as raw, contextlib.suppress(OSError):
                raw.sock.setblocking(False)
                left = memoryview(first)
                while not stop.is_set():
                    left = left or memoryview(then * 500)
                    readable, writable, _ = select.select([raw.sock], [raw.sock], [], 0.1)
                    if readable and not raw.sock.recv(65536):
                        break
                    if writable:
                        left = left[raw.sock.send(left) :]

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)


def worst_latency_s(server: Server, client: RawSocket, seconds: float) -> float:
    """Return the most processor time that a server used until it answered a client's ping."""
    end, worst = time.monotonic() + seconds, 0.0
    while time.monotonic() < end:
        used_s = server.cpu_s()
        client.send(text_frame("ping"))
        assert client.read_text() == "pong"
        worst = max(worst, server.cpu_s() - used_s)
        select.select([], [], [], 0.025)  # a client may ask 50 times a second
    return worst


ATTACKS = {
    "requests in a row": (b"", GET),
    "a body in chunks": (CHUNKED % b"GET", CHUNK),
    "a body in chunks, refused": (CHUNKED % b"POST", CHUNK),
    "a body without an end": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n", b"x"),
    "a head without an end": (b"GET / HTTP/1.1\r\n", b"X: 1\r\n"),
    "frames behind a refused handshake": (handshake("/private"), text_frame("ping")),
}  # fmt: skip


@pytest.mark.parametrize("where", ["the gateway's port", "the metrics port"])
@pytest.mark.parametrize("how", ATTACKS)
def test_one_connection_holds_up_nobody(gateway: Server, how: str, where: str) -> None:
    """Whatever it sends without end, others are served in their turn."""
    first, then = ATTACKS[how]
    port = gateway.port if where == "the gateway's port" else gateway.metrics_port
    with RawSocket(gateway.port) as client:
        client.open()
        with attack(port, first, then):
            assert worst_latency_s(gateway, client, 1.5) < STANDSTILL_S


def limited(files: int) -> list[str]:
    """Return a command for a gateway that may open so many files."""
    shell = ["/bin/sh", "-c", f'ulimit -n {files}; exec "$@"', "sh"]
    return [*shell, sys.executable, "-m", "rango_gevent"]


@contextlib.contextmanager
def sockets(port: int, count: int, address: str = HOST) -> Iterator[list[socket.socket]]:
    """Open so many connections from an address of this machine."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(socket.create_connection((HOST, port), PATIENCE_S, (address, 0)))
            for _ in range(count)
        ]


def is_ended(sock: socket.socket) -> bool:
    """Tell whether the server has ended a connection, reading what it sent."""
    with contextlib.suppress(BlockingIOError):
        sock.setblocking(False)
        try:
            while sock.recv(65536):
                pass
        except ConnectionResetError:
            pass
        return True
    return False


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n",
        handshake("/private") + b"\x81",
    ],
)
def test_nobody_is_waited_for_for_ever(request_bytes: bytes) -> None:
    """Whoever is silent in the middle of a request, or behind its answer, is let go of."""
    env = {"RANGO_HANDSHAKE_TIMEOUT_S": "1"}
    with start_gateway(env=env) as server, sockets(server.port, 100) as silent:
        for sock in silent:
            sock.sendall(request_bytes)
        wait_for(lambda: all(map(is_ended, silent)), what="all to be ended")


def test_silent_sockets_shut_nobody_out() -> None:
    """While they hold all files, those who take long make room for others."""

    def is_let_in() -> bool:
        try:
            with server.connect() as client:
                return "subscribed" in client.receive()
        except (OSError, WebSocketException):
            return False

    env = {"RANGO_HANDSHAKE_TIMEOUT_S": "60"}  # longer than we wait for a way in
    with start_gateway(command=limited(300), env=env) as server, sockets(server.port, 400):
        refused = "rango_connections_refused_total"
        wait_for(lambda: server.metric(refused, reason="too_many_files") > 0, what="no more files")
        wait_for(is_let_in, what="a way in")
        assert server.metric(refused, reason="too_slow") > 0


def test_answers_that_nobody_takes_are_given_up() -> None:
    """Requests in a row whose answers are never read: the connection ends all the same."""
    env = {"RANGO_HANDSHAKE_TIMEOUT_S": "1"}
    with start_gateway(env=env) as server, RawSocket(server.port, 4096) as raw:
        raw.sock.setblocking(False)

        def is_given_up() -> bool:
            try:
                raw.send(GET)
            except BlockingIOError:
                return False
            except ConnectionError:
                return True
            return False

        wait_for(is_given_up, what="the connection's end")


def test_the_metrics_port_takes_its_own_share_of_files() -> None:
    """Silent connections there shut out nobody, and are ended; those over its bound get 503."""
    env = {"RANGO_HANDSHAKE_TIMEOUT_S": "5", "RANGO_METRICS_CONNECTIONS": "10"}
    with start_gateway(command=limited(300), env=env) as server:
        with sockets(server.metrics_port, 350) as silent:
            assert server.get(HEALTHY).status == 200
            with server.connect() as client:
                client.receive()
            assert silent[20].recv(100).startswith(b"HTTP/1.1 503 ")
            wait_for(lambda: all(map(is_ended, silent)), what="all to be ended")
        name = "promhttp_metric_handler_requests_total"
        assert server.metric(name, code="503") >= 250  # some are let in when the first are ended
        assert "Traceback" not in server.log()


def test_an_address_has_its_share_of_handshakes_too() -> None:
    """Silent sockets of one address count for it from the start; another address comes in."""
    env = {"RANGO_MAX_CONNECTIONS_PER_ADDRESS": "10", "RANGO_HANDSHAKE_TIMEOUT_S": "60"}
    running = start_gateway(command=limited(300), env=env)
    with running as server, sockets(server.port, 400, "127.0.0.2") as silent:
        with server.connect() as client:
            client.receive()
        refused = "rango_connections_refused_total"
        assert server.metric(refused, reason="too_many_of_address") == 390
        assert server.metric(refused, reason="too_many_files") == 0
        wait_for(lambda: sum(map(is_ended, silent)) == 390, what="the ends of those refused")


def test_an_endless_head_takes_no_memory(gateway: Server) -> None:
    """It is answered 431 once it is past its bound, long before its megabytes are read."""
    name = "process_resident_memory_bytes"
    before = gateway.metric(name)
    with sockets(gateway.port, 60) as senders:
        for sock in senders:
            sock.settimeout(1)
            with contextlib.suppress(OSError):
                sock.sendall(b"GET / HTTP/1.1\r\n" + b"X: " + b"a" * 5_600_000)
        for sock in senders:
            sock.settimeout(PATIENCE_S)
            assert sock.recv(100).startswith(b"HTTP/1.1 431 ")
        assert gateway.metric(name) - before < 50e6


def test_bad_requests_cannot_fill_the_disk(gateway: Server) -> None:
    """A burst of them is a line each, then one line a second says how many there were."""
    before = len(gateway.log())
    for _ in range(500):
        with RawSocket(gateway.port) as raw:
            raw.send(b"GET / HTTP/1\r\n\r\n")
            assert raw.response()[0] == 400
    lines = gateway.log()[before:].splitlines()
    assert 1 <= len([line for line in lines if "bad_request" in line]) < 100
    assert not any("Traceback" in line for line in lines)
