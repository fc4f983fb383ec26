"""Attacks before the upgrade: requests, heads and handshakes, and sockets that say nothing."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time

from tests.support import PING, frame, handshake
from tests.torment.target import Drain, Target, send_what_goes

_GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
_CHUNKED = b" / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
_CHUNK = b"1\r\nx\r\n"
_PORTION_S = 0.01
_GET_BYTES = 12_000  # of a portion: 1.2 MB/s
_CHUNK_BYTES = 120_000
_REFILL_S = 0.02
_WRITES = 2_000  # connections that one attacker may use up, where each is closed at once


def pipelined_gets(target: Target) -> None:
    """One connection pipelines requests."""
    _stream(target, target.port, b"", _GET)


def endless_chunks(target: Target) -> None:
    """One connection sends a body without end, in chunks of a byte, to a request that is served."""
    _stream(target, target.port, b"GET" + _CHUNKED, _CHUNK)


def endless_refused_chunks(target: Target) -> None:
    """The same to a request that is answered 405."""
    _stream(target, target.port, b"POST" + _CHUNKED, _CHUNK)


def pipelined_scrapes(target: Target) -> None:
    """One connection pipelines requests on the metrics port."""
    _stream(target, target.metrics_port, b"", _GET)


def endless_metrics_chunks(target: Target) -> None:
    """One connection sends a body without end on the metrics port."""
    _stream(target, target.metrics_port, b"GET" + _CHUNKED, _CHUNK)


def _stream(target: Target, port: int, first: bytes, more: bytes) -> None:
    """Send at a steady rate and read what comes; whoever is closed comes back."""
    portion = more * ((_CHUNK_BYTES if first else _GET_BYTES) // len(more))
    sock: socket.socket | None = None
    drain = Drain()
    left = _WRITES
    for _ in target.until_over():
        time.sleep(_PORTION_S)
        if sock is None and left:
            left -= 1
            with contextlib.suppress(OSError):
                sock = drain.add(target.connect(port))
                sock.sendall(first)
        if sock is not None and not send_what_goes(sock, portion):
            sock.close()
            sock = None


def held_bodies(target: Target) -> None:
    """Many announce a body and send none of it."""
    head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n"
    _hold(target, head)


def unread_answers(target: Target) -> None:
    """Many pipeline requests and read no answer."""
    _hold(target, _GET * 3000)


def _hold(target: Target, data: bytes) -> None:
    """Take all places with the same bytes on each; then wait for what becomes of them."""
    _fill(target, target.port, "", data, 1.0)
    target.hold()


def silent_metrics(target: Target) -> None:
    """Many connect to the metrics port and say nothing."""
    _fill(target, target.metrics_port, "", b"", target.seconds)


def one_address(target: Target) -> None:
    """Many come from one address and say nothing."""
    _fill(target, target.port, "127.0.0.1", b"", target.seconds)


def _fill(target: Target, port: int, source: str, data: bytes, for_s: float) -> None:
    """Take places, and for a time each that becomes free."""
    end = time.monotonic() + for_s
    for number in itertools.count():
        with contextlib.suppress(OSError):
            send_what_goes(target.connect(port, source), data, 0.01)
        if number >= target.size["sockets"]:
            time.sleep(_REFILL_S)
            if time.monotonic() > end:
                return


def pings_behind_handshake(target: Target) -> None:
    """Handshakes come with pings in the same write."""
    data = target.head("/public") + frame(PING) * 2600
    began = time.monotonic()
    drain = Drain()
    for number in target.until_over():
        with contextlib.suppress(OSError):
            sock = drain.add(target.connect())
            send_what_goes(sock, data, 0.1)
        time.sleep(max(0.0, began + (number + 1) / target.size["rate"] - time.monotonic()))


def unfinished_heads(target: Target) -> None:
    """Many send a long head that does not end."""
    line = b"X-Pad: " + b"x" * 60_000 + b"\r\n"
    data = b"GET / HTTP/1.1\r\nHost: h\r\n" + line * 93
    sockets = target.connect_many(target.size["sockets"])
    threads = [
        threading.Thread(target=send_what_goes, args=(sock, data, 5.0), daemon=True)
        for sock in sockets
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    target.hold()


def odd_version(target: Target) -> None:
    """Requests name a version of HTTP that does not exist; their traces in the log are counted."""
    before = target.log_path.stat().st_size
    count = target.size["requests"]
    for _ in range(count):
        with contextlib.suppress(OSError):
            sock = target.connect()
            sock.sendall(b"GET / HTTP/1\r\n\r\n")
            sock.recv(1000)
            sock.close()
    time.sleep(0.2)
    target.found["log_bytes_each"] = (target.log_path.stat().st_size - before) / count


# -- heads that must not become an upgrade ------------------------------------------------------


def _plain(extra: str, leave_out: str = "") -> bytes:
    """Return a handshake with more lines behind its own."""
    return handshake(leave_out=[leave_out])[:-2] + extra.encode("latin-1") + b"\r\n\r\n"


_HIDDEN = handshake()
ODD_HEADS: dict[str, bytes] = {
    "two lengths": _plain("Content-Length: 0\r\nContent-Length: 5"),
    "two equal lengths": _plain("Content-Length: 0\r\nContent-Length: 0"),
    "space before the colon": _plain("Transfer-Encoding : chunked"),
    "length with a space before the colon": _plain("Content-Length : 5"),
    "folded upgrade": _plain("Upgrade:\r\n websocket", "Upgrade"),
    "folded key": _plain("Sec-WebSocket-Key:\r\n\tdGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Key"),
    "bare CR": _plain("X: y\rAuthorization: Bearer none"),
    "body that is an upgrade": b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(_HIDDEN), _HIDDEN),
    "chunked body that is an upgrade": b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding : chunked"
    b"\r\n\r\n%b" % _HIDDEN,
}


# What a proxy has made one plain request of is one: there is no second reader any more.
_MENDED = {"haproxy": {"two equal lengths", "folded upgrade", "folded key"}}


def odd_heads(target: Target) -> None:
    """Heads that two parsers may read in two ways; none may become a WebSocket."""
    upgraded, not_refused = [], []
    mended = _MENDED.get(target.front, set())
    for name, head in ODD_HEADS.items():
        if name in mended:
            continue
        answer = _answer_to(target, head)
        if b"HTTP/1.1 101" in answer:
            upgraded.append(name)
        if not answer.startswith((b"HTTP/1.1 400", b"HTTP/1.0 400")):
            not_refused.append(f"{name}: {answer[:30]!r}")
    target.found["upgraded"] = float(len(upgraded))
    target.found["not_refused"] = float(len(not_refused))
    target.note("; ".join(not_refused))


def _answer_to(target: Target, head: bytes) -> bytes:
    """Return what is answered within a second."""
    sock = target.connect()
    answer = b""
    with contextlib.suppress(OSError):
        sock.sendall(head)
        sock.settimeout(1)
        while data := sock.recv(65536):
            answer += data
    sock.close()
    return answer
