"""The parser of heads: what is one request to everybody is taken, everything else refused."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rango_gevent.errors import Refused
from rango_gevent.protocol import refusals
from rango_gevent.protocol.http import HEAD_END, has_body, parse_head

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


def with_field(*fields: bytes) -> bytes:
    """Return the good request with more header fields."""
    return b"\r\n".join((GOOD, *fields))


def with_target(target: bytes) -> bytes:
    """Return the good request with another target."""
    return GOOD.replace(b"/public?stream=eurusd.trades,global.tickers", target)


def refusal(head: bytes) -> Refused:
    """Return the refusal of a head that must be refused."""
    with pytest.raises(Refused) as caught:
        parse_head(head)
    return caught.value


# -- what is taken --------------------------------------------------------------------------------


def test_a_usual_handshake_is_taken() -> None:
    """All that a request is decided by is there, under WSGI's names."""
    assert parse_head(GOOD) == {
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
    ("target", "path", "query"),
    [
        (b"/", "/", ""),
        (b"/?", "/", ""),
        (b"/a?b?c=d&e", "/a", "b?c=d&e"),
        (b"/%70ublic?stream=a%2Eb", "/public", "stream=a%2Eb"),
        (b"//other.example/public", "//other.example/public", ""),
        (b"/a%20b%2Fc%00%zz%", "/a b/c\0%zz%", ""),
        (b"/\xc3\xa9?\xc3\xa9", "/Ã©", "Ã©"),  # as WSGI wants bytes beyond ASCII
    ],
)
def test_a_target_is_a_path_and_a_query(target: bytes, path: str, query: str) -> None:
    """The path is percent-decoded, the query is not."""
    environ = parse_head(with_target(target))
    assert (environ["PATH_INFO"], environ["QUERY_STRING"]) == (path, query)


@pytest.mark.parametrize(
    ("field", "name", "value"),
    [
        (b"X-Empty:", "HTTP_X_EMPTY", ""),
        (b"X-Blanks: \t a b \t", "HTTP_X_BLANKS", "a b"),
        (b"X-Colons: a:b::c", "HTTP_X_COLONS", "a:b::c"),
        (b"x-LOWER-and-Upper: 1", "HTTP_X_LOWER_AND_UPPER", "1"),
        (b"X-Latin: \xe9\x85\xff", "HTTP_X_LATIN", "é\x85ÿ"),
        (b"X-Tab: a\tb", "HTTP_X_TAB", "a\tb"),
        (b"!#$%&'*+.^`|~: 1", "HTTP_!#$%&'*+.^`|~", "1"),
        (b"Content-Type: text/plain", "CONTENT_TYPE", "text/plain"),
        (b"Content-Length: 0", "CONTENT_LENGTH", "0"),
        (b"Transfer-Encoding: chunked", "HTTP_TRANSFER_ENCODING", "chunked"),
        (b"X-Forwarded-For: a\r\nx-forwarded-for: b", "HTTP_X_FORWARDED_FOR", "a, b"),
        (b"Connection: Upgrade", "HTTP_CONNECTION", "keep-alive, Upgrade, Upgrade"),
    ],
)
def test_a_field_is_a_variable(field: bytes, name: str, value: str) -> None:
    """Blanks around a value are no part of it; fields that are lists are joined."""
    assert parse_head(with_field(field))[name] == value


@pytest.mark.parametrize(
    "field",
    [
        b"HTTP_HOST: other.example",
        b"Sec_WebSocket_Key: AAAAAAAAAAAAAAAAAAAAAA==",
        b"X_Forwarded_For: 1.2.3.4",
        b"Content_Length: 5",
        b"Transfer_Encoding: chunked",
    ],
)
def test_a_name_with_an_underscore_is_passed_over(field: bytes) -> None:
    """It is another header's than the one with a hyphen, which a proxy may guard."""
    assert parse_head(with_field(field)) == parse_head(GOOD)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS", "get", "M-SEARCH"])
def test_a_method_is_any_token(method: str) -> None:
    """Whether it is known here is for others to say."""
    assert parse_head(f"{method} / HTTP/1.1\r\nHost: x".encode())["REQUEST_METHOD"] == method


def test_old_clients_need_no_host() -> None:
    """HTTP/1.0 has no such header."""
    assert parse_head(b"GET / HTTP/1.0")["SERVER_PROTOCOL"] == "HTTP/1.0"


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (b"X: 1", False),
        (b"Content-Length: 0", False),
        (b"Content-Length: 000", False),
        (b"Content-Length: 1", True),
        (b"Content-Length: 999999999999999999", True),
        (b"Transfer-Encoding: chunked", True),
        (b"Transfer-Encoding: identity", True),
    ],
)
def test_a_body_is_announced(field: bytes, expected: bool) -> None:
    """By either of the two headers."""
    assert has_body(parse_head(with_field(field))) is expected


# -- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"GET",
        b"GET /",
        GOOD.replace(b"HTTP/1.1", b"HTTP/1"),
        GOOD.replace(b"HTTP/1.1", b"HTTP/1.2"),
        GOOD.replace(b"HTTP/1.1", b"HTTP/2.0"),
        GOOD.replace(b"HTTP/1.1", b"HTTP/0.9"),
        GOOD.replace(b"HTTP/1.1", b"HTTP/01.1"),
        GOOD.replace(b"HTTP/1.1", b"http/1.1"),
        GOOD.replace(b" HTTP/1.1", b""),
        GOOD.replace(b"GET /", b"GET  /"),
        GOOD.replace(b"GET", b" GET"),
        GOOD.replace(b"GET", b"G:T"),
        GOOD.replace(b"GET", b"G\xc9T"),
        GOOD.replace(b" HTTP/1.1", b"\tHTTP/1.1"),
        GOOD.replace(b" HTTP/1.1", b" HTTP/1.1 "),
        GOOD.replace(b" HTTP/1.1\r\n", b" HTTP/1.1\n"),
        b"\r\n" + GOOD,
        b"PRI * HTTP/2.0",
        with_target(b"http://other.example/public"),
        with_target(b"other.example:80"),
        with_target(b"*"),
        with_target(b"?stream=a"),
        with_target(b"/a b"),
        with_target(b"/a#b"),
        with_target(b"/a\tb"),
        with_target(b"/a\x0bb"),
        with_target(b"/a\x7fb"),
        with_target(b"/a\x00b"),
        with_target(b"/a\rb"),
        with_target(b"/a\nX-Injected: 1"),
    ],
)
def test_a_wrong_request_line_is_refused(head: bytes) -> None:
    """Method, origin-form, version, one blank between them."""
    assert refusal(head).refusal is refusals.BAD_REQUEST


@pytest.mark.parametrize(
    "field",
    [
        b"Content-Length : 5",
        b"Transfer-Encoding : chunked",
        b"Transfer-Encoding\t: chunked",
        b" Content-Length: 5",
        b"\tfolded",
        b"X: a\r\n folded",
        b"X: a\nContent-Length: 5",
        b"X: a\rAuthorization: Bearer a.b.c",
        b"X: a\r\r\nContent-Length: 5",
        b"X: a\r",
        b"X: a\x00b",
        b"X: a\x0bb",
        b"X: a\x7fb",
        b"X\x00: a",
        b"X\xe9: a",
        b"X Y: a",
        b"X\tY: a",
        b"(X): a",
        b"no colon",
        b": no name",
        b"",
    ],
)
def test_a_malformed_field_is_refused(field: bytes) -> None:
    """Nothing that a reader before us may have taken for something else."""
    assert refusal(with_field(field)).refusal is refusals.BAD_REQUEST


@pytest.mark.parametrize(
    "field",
    [
        b"Host: other.example",
        b"host: gateway.example:8080",
        b"Origin: https://other.example",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        b"Sec-WebSocket-Version: 13",
        b"Authorization: Bearer a\r\nAuthorization: Bearer b",
        b"authorization: Bearer a\r\nAUTHORIZATION: Bearer a",
        b"Content-Length: 0\r\nContent-Length: 0",
        b"Content-Length: 5\r\ncontent-length: 6",
        b"Content-Type: a\r\nContent-Type: b",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    ],
)
def test_what_stands_once_may_not_stand_twice(field: bytes) -> None:
    """One reader would take the first, another the last."""
    assert refusal(with_field(field)).refusal is refusals.BAD_REQUEST


@pytest.mark.parametrize(
    "field",
    [
        b"Content-Length:",
        b"Content-Length: x",
        b"Content-Length: -1",
        b"Content-Length: +1",
        b"Content-Length: 1_0",
        b"Content-Length: 0x1",
        b"Content-Length: 5, 5",
        b"Content-Length: \xb2",
        b"Content-Length: 1" + b"0" * 18,
        b"Content-Length: 0\r\nTransfer-Encoding: chunked",
    ],
)
def test_the_end_of_a_request_is_certain(field: bytes) -> None:
    """One length that is a number, or chunks, and never both."""
    assert refusal(with_field(field)).refusal is refusals.BAD_REQUEST


def test_chunks_are_of_the_new_version() -> None:
    """An old proxy would not see where they end."""
    head = b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked"
    assert refusal(head).refusal is refusals.BAD_REQUEST


def test_a_host_is_needed() -> None:
    """By RFC 9112 section 3.2."""
    assert "Host" in refusal(b"GET / HTTP/1.1\r\nX: 1").text


def test_fields_are_bounded_in_number() -> None:
    """A hundred of them are enough for anybody."""
    fields = [b"X-%d: 1" % number for number in range(101)]
    assert refusal(with_field(*fields)).refusal is refusals.HEAD_TOO_LARGE
    assert parse_head(with_field(*fields[:90]))


# -- anything -------------------------------------------------------------------------------------

odd_bytes = st.binary(max_size=30) | st.text(
    " \t\r\n:,;=%_-abAB01\x00\x0b\x0c\x1c\x85\xa0\xe9"
).map(lambda text: text.encode("latin-1"))


def check(head: bytes) -> dict[str, str] | None:
    """Parse a head; what is taken holds nothing that could begin another line or field."""
    try:
        environ = parse_head(head)
    except Refused as refused:
        assert refused.status in (400, 431)
        assert refused.text.isprintable()
        return None
    for name, value in environ.items():
        decoded = name == "PATH_INFO" and b"%" in head  # a path may hold what was escaped
        assert decoded or not set(value) & set("\r\n\0\x7f"), (name, value)
        assert name.isprintable()
    assert head.count(b"\r") == head.count(b"\n") == head.count(b"\r\n")
    return environ


@given(odd_bytes)
@example(b"\x0ca\x0b")
@example(b"\xa0a\x85")
@example(b"\x1ca\x1f")
def test_any_value_is_one_value(value: bytes) -> None:
    """It is taken as it stands, or refused."""
    environ = check(with_field(b"X-Value:" + value))
    if environ is not None and b"\r\n" not in value:
        assert environ["HTTP_X_VALUE"] == value.decode("latin-1").strip(" \t")


@given(odd_bytes, odd_bytes)
def test_any_name_is_one_name(name: bytes, value: bytes) -> None:
    """It is a variable of its own, or part of one, or refused; nothing else changes."""
    environ = check(with_field(b"X-" + name + b":" + value))
    if environ is not None:
        good = parse_head(GOOD)
        assert {
            key: environ[key] for key in good if key != "HTTP_CONNECTION"
        }.items() <= good.items()


@given(odd_bytes | st.binary(max_size=8).map(lambda raw: raw + b"%41"))
def test_any_target_is_a_target(rest: bytes) -> None:
    """Percent escapes beside bytes beyond ASCII among them."""
    check(with_target(b"/" + rest))


@given(st.data())
def test_any_damage_is_refused_or_harmless(data: st.DataObject) -> None:
    """A good request with some of its bytes replaced, left out or added."""
    head = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(head)))
        end = data.draw(st.integers(start, min(len(head), start + 3)))
        head[start:end] = data.draw(odd_bytes)
    check(bytes(head).partition(HEAD_END)[0])
