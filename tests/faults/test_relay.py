"""The relay does what it is told: otherwise the tests of broker faults would prove nothing."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import Iterator

import pytest
from relay import HOST, Relay


def _echo(sock: socket.socket) -> None:
    with sock, contextlib.suppress(OSError):
        while data := sock.recv(65536):
            sock.sendall(data)


def _accept(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the listener is closed at the end
        while True:
            sock, _ = listener.accept()
            threading.Thread(target=_echo, args=(sock,), daemon=True).start()


@pytest.fixture
def relay() -> Iterator[Relay]:
    """Return a relay before a server that sends back what it gets."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen()
        threading.Thread(target=_accept, args=(listener,), daemon=True).start()
        with Relay(listener.getsockname()[1]) as relay:
            yield relay
        listener.shutdown(socket.SHUT_RDWR)


def connect(relay: Relay) -> socket.socket:
    """Connect through the relay."""
    return socket.create_connection((HOST, relay.port), 30)


def echo(sock: socket.socket, data: bytes) -> bytes:
    """Send bytes and return as many."""
    sock.sendall(data)
    received = b""
    while len(received) < len(data):
        received += sock.recv(65536)
    return received


def is_silent(sock: socket.socket, data: bytes, seconds: float = 0.2) -> bool:
    """Send bytes and tell whether nothing at all happens."""
    sock.sendall(data)
    sock.settimeout(seconds)
    try:
        sock.recv(1)
    except socket.timeout:
        return True
    finally:
        sock.settimeout(30)
    return False


def test_it_passes_everything_on(relay: Relay) -> None:
    """A megabyte goes through both ways unchanged, while both sides send."""
    data = bytes(range(256)) * 4096
    with connect(relay) as sock:
        sender = threading.Thread(target=sock.sendall, args=(data,))
        sender.start()
        received = b""
        while len(received) < len(data):
            received += sock.recv(65536)
        sender.join()
    assert received == data


def test_cut_ends_in_order_and_reset_does_not(relay: Relay) -> None:
    """A cut is an end of file, a reset is an error; both leave the port open."""
    with connect(relay) as sock:
        assert echo(sock, b"a") == b"a"
        relay.cut()
        assert sock.recv(1) == b""
    with connect(relay) as sock:
        assert echo(sock, b"a") == b"a"
        relay.reset()
        with pytest.raises(ConnectionResetError):
            sock.recv(1)


def test_stall_holds_back_until_resumed(relay: Relay) -> None:
    """Nothing comes while it stalls, everything comes afterwards."""
    with connect(relay) as sock:
        assert echo(sock, b"a") == b"a"
        relay.stall()
        assert is_silent(sock, b"b")
        relay.resume()
        assert sock.recv(1) == b"b"


def test_a_black_hole_swallows_old_and_new_for_good(relay: Relay) -> None:
    """After healing, new connections work; the swallowed ones stay silent and open."""
    with connect(relay) as old:
        assert echo(old, b"a") == b"a"
        relay.black_hole()
        assert is_silent(old, b"b")
        with connect(relay) as new:
            assert is_silent(new, b"c")
            relay.heal()
            assert is_silent(new, b"c")
            assert is_silent(old, b"b")
        with connect(relay) as healed:
            assert echo(healed, b"d") == b"d"


def test_refuse_closes_the_port_only(relay: Relay) -> None:
    """New connections are refused, old ones go on; after healing it is the same port."""
    with connect(relay) as old:
        assert echo(old, b"a") == b"a"
        relay.refuse()
        with pytest.raises(ConnectionRefusedError):
            connect(relay)
        assert echo(old, b"b") == b"b"
        relay.heal()
        with connect(relay) as new:
            assert echo(new, b"c") == b"c"


def test_delay_adds_to_both_directions(relay: Relay) -> None:
    """An echo takes twice the delay, and nothing more once there is none."""
    with connect(relay) as sock:
        relay.delay(0.1)
        started = time.monotonic()
        assert echo(sock, b"a") == b"a"
        assert time.monotonic() - started >= 0.2
        relay.delay(0)
        took_s = []
        for _ in range(20):  # one of them finds the machine idle
            started = time.monotonic()
            assert echo(sock, b"a") == b"a"
            took_s.append(time.monotonic() - started)
        assert min(took_s) < 0.2


@pytest.mark.parametrize("reset", [True, False])
def test_break_after_ends_at_the_very_byte(relay: Relay, reset: bool) -> None:
    """Exactly so many more bytes arrive; the next connection is whole."""
    with connect(relay) as sock:
        assert echo(sock, b"a" * 10) == b"a" * 10
        relay.break_after(100, reset=reset)
        assert echo(sock, b"b" * 40) == b"b" * 40
        sock.sendall(b"c" * 1000)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while data := sock.recv(65536):
                received += data
    assert received == b"c" * 60
    assert relay.broken == 1
    with connect(relay) as sock:
        assert echo(sock, b"d" * 1000) == b"d" * 1000


def test_insert_is_one_more_answer(relay: Relay) -> None:
    """Inserted bytes come like the server's own."""
    with connect(relay) as sock:
        assert echo(sock, b"a") == b"a"
        relay.insert(b"xyz")
        assert sock.recv(3) == b"xyz"


def test_an_absent_server_is_a_reset(relay: Relay) -> None:
    """A relay whose target is not there ends the connection at once."""
    with socket.socket() as nobody:
        nobody.bind((HOST, 0))
        port, is_reset = nobody.getsockname()[1], pytest.raises(ConnectionResetError)
        with Relay(port) as lonely, is_reset, connect(lonely) as sock:
            sock.recv(1)
