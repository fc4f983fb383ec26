"""The short cut through a handshake's head never disagrees with the WSGI server's own parser.

`parse_handshake` may pass on anything by None. What it takes, gevent.pywsgi must take too,
with the same variables: here its real handler reads the same bytes from a real socket.
"""

from __future__ import annotations

import socket
from typing import Any

import pytest
from gevent import socket as gsocket
from gevent.pywsgi import WSGIHandler, WSGIServer
from hypothesis import example, given
from hypothesis import strategies as st

from rango_gevent.protocol.http import HEAD_END, parse_handshake

# What a WSGI environment says about the server and the connection, not about the request.
_OF_THE_SERVER = (
    "SCRIPT_NAME",
    "GATEWAY_INTERFACE",
    "SERVER_NAME",
    "SERVER_PORT",
    "SERVER_SOFTWARE",
)

GOOD = (
    b"GET /public?stream=eurusd.trades,global.tickers HTTP/1.1\r\n"
    b"Host: gateway.example:8080\r\n"
    b"User-Agent: test\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: keep-alive, Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
    b"Origin: https://shop.example"
)


class Server:
    """What gevent's handler needs of a server: an environment and an application."""

    def __init__(self) -> None:
        real = WSGIServer(("127.0.0.1", 0), self.application, log=None, error_log=None)
        self.get_environ = real.get_environ
        self.log = self.error_log = real.log
        self.seen: list[dict[str, Any]] = []

    def application(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        """Note the request."""
        self.seen.append(environ)
        start_response("200 OK", [("Content-Length", "0")])
        return []


def as_pywsgi_reads_it(head: bytes) -> list[dict[str, str]]:
    """Return the environments of the requests that pywsgi finds in these bytes."""
    ours, theirs = socket.socketpair()
    with ours, gsocket.socket(fileno=theirs.detach()) as served:
        ours.sendall(head + HEAD_END)
        ours.shutdown(socket.SHUT_WR)
        server = Server()
        WSGIHandler(served, ("127.0.0.1", 1), server).handle()
    return [
        {
            name: value
            for name, value in environ.items()
            if not name.startswith(("wsgi.", "REMOTE_")) and name not in _OF_THE_SERVER
        }
        for environ in server.seen
    ]


def check(head: bytes) -> dict[str, str] | None:
    """Parse a head by the short cut; what it takes must be what pywsgi takes."""
    taken = parse_handshake(head)
    if taken is not None:
        assert as_pywsgi_reads_it(head) == [taken]
    return taken


def with_field(*fields: bytes) -> bytes:
    """Return the good request with more header fields."""
    return b"\r\n".join((GOOD, *fields))


def with_target(target: bytes) -> bytes:
    """Return the good request with another target."""
    return GOOD.replace(b"/public?stream=eurusd.trades,global.tickers", target)


# -- what it takes ----------------------------------------------------------------------------


def test_a_usual_handshake_is_taken() -> None:
    """All that a handshake is decided by is in the environment, under WSGI's names."""
    assert check(GOOD) == {
        "REQUEST_METHOD": "GET",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "PATH_INFO": "/public",
        "QUERY_STRING": "stream=eurusd.trades,global.tickers",
        "HTTP_HOST": "gateway.example:8080",
        "HTTP_USER_AGENT": "test",
        "HTTP_UPGRADE": "websocket",
        "HTTP_CONNECTION": "keep-alive, Upgrade",
        "HTTP_SEC_WEBSOCKET_KEY": "dGhlIHNhbXBsZSBub25jZQ==",
        "HTTP_SEC_WEBSOCKET_VERSION": "13",
        "HTTP_ORIGIN": "https://shop.example",
    }


@pytest.mark.parametrize(
    "head",
    [
        with_target(b"/"),
        with_target(b"/private"),
        with_target(b"/?"),
        with_target(b"/a?b?c=d&e"),
        with_target(b"/%70ublic?stream=a%2Eb"),
        with_target(b"//other.example/public"),
        with_target(b"/public#fragment?x"),
        with_target(b"/a%20b%2Fc%00%zz%"),
        with_field(b"Authorization: Bearer a.b.c"),
        with_field(b"Cookie: a=b; c=d"),
        with_field(b"X-Empty:"),
        with_field(b"X-Blanks:   a b  "),
        with_field(b"X-Colons: a:b::c"),
        with_field(b"x-LOWER-and-Upper: 1"),
        with_field(b"X-Latin: \xe9\xff"),
        GOOD.replace(b"Upgrade: websocket", b"UPGRADE:WebSocket"),
    ],
)
def test_ordinary_variations_are_taken(head: bytes) -> None:
    """The short cut serves what clients really send, and reads it as pywsgi does."""
    assert check(head) is not None


def test_no_upgrade_is_no_handshake() -> None:
    """A plain request is the application's."""
    assert parse_handshake(GOOD.replace(b"Upgrade: websocket\r\n", b"")) is None


# -- what it leaves to the WSGI server ----------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"GET",
        b"GET / HTTP/1.1",
        GOOD.replace(b"GET", b"POST"),
        GOOD.replace(b"GET", b"get"),
        GOOD.replace(b"HTTP/1.1", b"HTTP/1.0"),
        GOOD.replace(b"HTTP/1.1", b"HTTP/2.0"),
        GOOD.replace(b" HTTP/1.1", b""),
        GOOD.replace(b"GET /", b"GET  /"),
        GOOD.replace(b" HTTP/1.1", b"\tHTTP/1.1"),
        GOOD.replace(b" HTTP/1.1", b" HTTP/1.1 "),
        b"\r\n" + GOOD,
        with_target(b"http://other.example/public"),
        with_target(b"*"),
        with_target(b"/a b"),
        with_target(b"/a\x0bb"),
        with_target(b"/a\x85b"),
        with_target(b"/a\xa0b"),
        with_target(b"/a\x00b"),
        with_target(b"/a\nX-Injected: 1"),
    ],
)
def test_an_unusual_request_line_is_left_alone(head: bytes) -> None:
    """Other methods, versions and targets are for the full parser to decide about."""
    assert parse_handshake(head) is None


@pytest.mark.parametrize(
    "field",
    [
        b"Content-Length: 5",
        b"Content-Length: 0",
        b"content-length:5",
        b"Content-Type: text/plain",
        b"Transfer-Encoding: chunked",
        b"transfer-encoding: identity",
        b"Expect: 100-continue",
    ],
)
def test_a_request_with_a_body_is_left_alone(field: bytes) -> None:
    """Bytes behind the head would be somebody's frames to one parser, a body to the other."""
    assert parse_handshake(with_field(field)) is None


@pytest.mark.parametrize(
    "field",
    [
        b"Content-Length : 5",
        b" Content-Length: 5",
        b"\tfolded",
        b"X: a\r\n folded",
        b"X: a\nContent-Length: 5",
        b"X: a\rContent-Length: 5",
        b"X: a\r\r\nContent-Length: 5",
        b"X\x00: a",
        b"X\xe9: a",
        b"X Y: a",
        b"X\tY: a",
        b"(X): a",
        b"no colon",
        b": no name",
        b"",
        b"Host: other.example",
        b"Authorization: Bearer a\r\nAuthorization: Bearer b",
        b"authorization: Bearer a\r\nAUTHORIZATION: Bearer b",
        b"Origin: https://other.example",
        b"HTTP_HOST: other.example",
        b"Sec_WebSocket_Key: AAAAAAAAAAAAAAAAAAAAAA==",
        b"X_Forwarded_For: 1.2.3.4",
    ],
)
def test_smuggling_is_left_alone(field: bytes) -> None:
    """What two parsers might read in two ways is never taken by the short cut."""
    assert parse_handshake(with_field(field)) is None


@pytest.mark.parametrize("size", [8150, 8192, 10_000, 70_000])
def test_a_line_past_the_servers_limit_is_left_alone(size: int) -> None:
    """The WSGI server answers 414 to a long target; the short cut does not overrule it."""
    assert check(with_target(b"/" + b"x" * size)) is None
    assert check(with_target(b"/" + b"x" * 4000)) is not None


@pytest.mark.parametrize("count", [92, 93, 94, 120, 500])
def test_more_fields_than_the_server_takes_are_left_alone(count: int) -> None:
    """The WSGI server refuses more than a hundred header fields."""
    assert check(with_field(*(b"X-%d: 1" % number for number in range(count)))) is None
    assert check(with_field(*(b"X-%d: 1" % number for number in range(50)))) is not None


# -- anything ---------------------------------------------------------------------------------

odd_bytes = st.binary(max_size=30) | st.text(
    " \t\r\n:,;=%_-abAB01\x00\x0b\x0c\x1c\x85\xa0\xe9"
).map(lambda text: text.encode("latin-1"))
token = st.text("!#$%&'*+-.^`|~09azAZ_", max_size=8).map(str.encode)


@given(odd_bytes)
@example(b"\x0ca\x0b")
@example(b"\xa0a\x85")
@example(b"\x1ca\x1f")
def test_any_value_is_read_alike(value: bytes) -> None:
    """Whatever stands in a header's value, both parsers agree or only one decides."""
    check(with_field(b"X-Value:" + value))


@given(token | odd_bytes, odd_bytes)
def test_any_name_is_read_alike(name: bytes, value: bytes) -> None:
    """The same for a header's name."""
    check(with_field(name + b":" + value))


@given(odd_bytes | st.binary(max_size=8).map(lambda raw: raw + b"%41") | st.text("%04aAfFé?#/"))
@example("é%41")
@example(b"%e9\xe9")
def test_any_target_is_read_alike(rest: bytes | str) -> None:
    """The same for path and query, percent escapes beside bytes beyond ASCII among them."""
    check(with_target(b"/" + (rest if isinstance(rest, bytes) else rest.encode("latin-1"))))


@given(st.data())
def test_any_damage_is_read_alike(data: st.DataObject) -> None:
    """The same for a good request with some of its bytes replaced, left out or added."""
    head = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(head)))
        end = data.draw(st.integers(start, min(len(head), start + 3)))
        head[start:end] = data.draw(odd_bytes)
    check(bytes(head).partition(HEAD_END)[0])
