"""Requests that two readers could read in two ways; none of them may become a WebSocket."""

from __future__ import annotations

from support import handshake


def smuggled(token: str) -> dict[str, bytes]:
    """Return raw requests by what is wrong with them.

    Args:
        token: a valid one, where a reader may find it and must not.
    """
    good = handshake("/public")
    private = handshake("/private")
    bearer = f"Authorization: Bearer {token}".encode()

    def with_field(field: bytes, head: bytes = good) -> bytes:
        return head.replace(b"\r\n\r\n", b"\r\n" + field + b"\r\n\r\n")

    return {
        "two lengths": with_field(b"Content-Length: 0\r\nContent-Length: 0"),
        "two lengths that differ": with_field(b"Content-Length: 0\r\nContent-Length: 5") + b"hello",
        "a list of lengths": with_field(b"Content-Length: 0, 0"),
        "a length and chunks": with_field(b"Content-Length: 0\r\nTransfer-Encoding: chunked"),
        "a blank before the colon": with_field(b"Transfer-Encoding : chunked") + b"0\r\n\r\n",
        "a tab before the colon": with_field(b"Content-Length\t: 5") + b"hello",
        "unknown chunks": with_field(b"Transfer-Encoding: xchunked"),
        "a length with a sign": with_field(b"Content-Length: +0"),
        "a folded upgrade": good.replace(b"Upgrade: websocket", b"Upgrade:\r\n websocket"),
        "a folded token": with_field(bearer.replace(b"Bearer ", b"\r\n Bearer "), private),
        "a bare CR before the token": with_field(b"X: a\r" + bearer, private),
        "a bare LF before the token": with_field(b"X: a\n" + bearer, private),
        "bare LF": good.replace(b"\r\n", b"\n")[:-1] + b"\r\n\r\n",
        "a NUL before the token": with_field(b"X: a\0" + bearer, private),
        "two hosts": with_field(b"Host: other.example"),
        "no host": handshake(leave_out=["Host"]),
        "a blank in the target": good.replace(b"/public", b"/public /private"),
        "a version too short": good.replace(b"HTTP/1.1", b"HTTP/1"),
        "a version too long": good.replace(b"HTTP/1.1", b"HTTP/1.10"),
    }


def smuggled_bodies() -> dict[str, bytes]:
    """Return requests with a body that is a handshake."""
    hidden = handshake("/public")
    post = b"POST / HTTP/1.1\r\nHost: x\r\n"
    length = f"Content-Length: {len(hidden)}\r\n".encode()
    chunk = f"{len(hidden):x}\r\n".encode()
    return {
        "a body of a length": post + length + b"\r\n" + hidden,
        "a body of a chunk": post + b"Transfer-Encoding: chunked\r\n\r\n" + chunk + hidden,
        "behind the last chunk": post + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden,
        "behind a request": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + hidden,
        "behind a refused handshake": handshake("/private") + hidden,
        "behind an old handshake": handshake(headers={"Sec-WebSocket-Version": "8"}) + hidden,
    }
