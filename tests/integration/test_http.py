"""The HTTP surface, and everything about a connection that is decided before its 101."""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
import termios
import time
from typing import Iterator

import pytest
from smuggled import smuggled, smuggled_bodies
from support import (
    ACCEPT,
    HEALTHY,
    TEXT,
    HttpAnswer,
    RawSocket,
    Relay,
    Server,
    connect,
    frame,
    handshake,
    http_request,
    start_gateway,
    text_frame,
    wait_for,
)
from websockets.exceptions import InvalidStatus


def answer_to(server: Server, request: bytes) -> HttpAnswer:
    """Send bytes and return the answer to them; the server must then end the connection."""
    with RawSocket(server.port) as raw:
        raw.send(request)
        answer = raw.answer()
        assert raw.read_to_end() == b""
        return answer


# -- plain requests ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 200),
        ("/?a=b", 200),
        ("/healthz", 200),
        ("/readyz", 200),
        ("/public", 400),
        ("/private", 400),
        ("/nothing", 404),
        ("/healthz/", 404),
        ("/%ff%00", 404),
    ],
)
def test_paths_have_their_status(gateway: Server, path: str, status: int) -> None:
    """GET gives one line of plain text, HEAD the same headers without it."""
    got = gateway.get(path)
    assert got.status == status
    assert got.headers["content-type"] == "text/plain; charset=utf-8"
    assert got.body.endswith("\n")
    assert len(got.body.splitlines()) == 1
    head = gateway.get(path, "HEAD")
    assert (head.status, head.body) == (status, "")
    assert head.headers["content-length"] == got.headers["content-length"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "FOO"])
def test_other_methods_are_refused(gateway: Server, method: str) -> None:
    """405 names what is allowed, for every path."""
    for path in ("/", "/healthz", "/nothing"):
        got = gateway.get(path, method)
        assert got.status == 405
        assert got.headers["allow"] == "GET, HEAD"


def test_a_connection_serves_one_request(gateway: Server) -> None:
    """The answer says so, then it ends; a second request is never looked at."""
    request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    with RawSocket(gateway.port) as raw:
        raw.send(request + handshake())
        answer = raw.answer()
        assert (answer.status, answer.body) == (200, "ok\n")
        assert answer.headers["connection"] == "close"
        assert answer.headers["date"].endswith("GMT")
        assert raw.read_to_end() == b""


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.1"])
def test_a_health_check_may_be_old(gateway: Server, version: str) -> None:
    """HAProxy asks in HTTP/1.0, without a Host."""
    host = "Host: x\r\n" if version == "HTTP/1.1" else ""
    answer = answer_to(gateway, f"GET /healthz {version}\r\n{host}\r\n".encode())
    assert (answer.status, answer.body) == (200, "ok\n")


@pytest.mark.parametrize(
    ("method", "status"), [("GET", 413), ("HEAD", 413), ("POST", 405), ("PUT", 405)]
)
@pytest.mark.parametrize("size", [1, 100_000])
def test_a_body_is_refused_unread(gateway: Server, method: str, status: int, size: int) -> None:
    """The answer comes without waiting for it, and reaches a peer that goes on sending."""
    head = f"{method} / HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode()
    assert answer_to(gateway, head).status == status
    with RawSocket(gateway.port) as raw:
        raw.send(head + b"x" * size)
        assert raw.response()[0] == status


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(60) + b"\r\n\r\n",
        b"\x00" * 64 + b"\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 20_000 + b"\r\n",
        b"GET / HTTP/1.1\r\nX: \xff\xfe\r\nBad Name: 1\r\n\r\n",
    ],
    ids=lambda data: repr(data[:24]),
)
def test_what_is_no_request_ends_quietly(gateway: Server, request_bytes: bytes) -> None:
    """An HTTP answer or an end; never a traceback, and the server goes on."""
    before = len(gateway.log())
    with RawSocket(gateway.port) as raw, contextlib.suppress(OSError):
        raw.send(request_bytes)
        raw.sock.shutdown(socket.SHUT_WR)
        assert raw.read_to_end()[:8] in (b"", b"HTTP/1.1", b"HTTP/1.0")
    assert gateway.get(HEALTHY).status == 200
    assert "Traceback" not in gateway.log()[before:]


# -- readiness --------------------------------------------------------------------------------


@pytest.fixture
def relay() -> Iterator[Relay]:
    """A way to the broker that is not open yet."""
    made = Relay()
    yield made
    made.cut()


def test_readiness_follows_the_broker(relay: Relay) -> None:
    """503 with the reason while there is no broker, 200 with it; healthy all the time."""
    with start_gateway(env={"RANGO_AMQP_URL": relay.url}, until=HEALTHY) as server:
        with server.connect("/public?stream=a.b") as client:
            client.receive()
            not_ready = server.get("/readyz")
            assert not_ready.status == 503
            assert "broker" in not_ready.body
            for _ in range(2):
                relay.open()
                server.wait_until("/readyz")
                server.publish("public.a.b", "1")
                assert client.receive() == '{"a.b":1}'
                assert server.metric("rango_broker_connected") == 1
                relay.cut()
                wait_for(lambda: server.get("/readyz").status == 503, what="not ready")
                assert server.metric("rango_broker_connected") == 0
                assert server.get(HEALTHY).status == 200
            assert server.metric("rango_broker_connects_total") == 2
            assert server.metric("rango_broker_disconnected_seconds_total") > 0
        assert server.stop() == 0
        assert "guest@" not in server.log().replace("***", "")
        assert "Traceback" not in server.log()


def test_a_wrong_password_is_told_and_not_shown(relay: Relay) -> None:
    """The gateway stays up, is not ready, and says why without the password."""
    relay.open()
    url = relay.url.replace("guest:guest@", "guest:geheim@")
    with start_gateway(env={"RANGO_AMQP_URL": url}, until=HEALTHY) as server:
        wait_for(lambda: "refuses this configuration" in server.log(), what="the refusal")
        assert server.get("/readyz").status == 503
        assert "geheim" not in server.log() + server.get("/readyz").body
        assert server.log().count("GET /readyz 503") == 1, (
            "a probe's answer is told when it changes"
        )


# -- bad handshakes ---------------------------------------------------------------------------

BAD_HANDSHAKES = {
    "no key": handshake(leave_out=["Sec-WebSocket-Key"]),
    "empty key": handshake(headers={"Sec-WebSocket-Key": ""}),
    "short key": handshake(headers={"Sec-WebSocket-Key": "c2hvcnQ="}),
    "long key": handshake(headers={"Sec-WebSocket-Key": "A" * 43 + "="}),
    "garbage key": handshake(headers={"Sec-WebSocket-Key": "not base64 at all!!!"}),
    "key without padding": handshake(headers={"Sec-WebSocket-Key": "A" * 22}),
    "key that is not ASCII": handshake(headers={"Sec-WebSocket-Key": "\xe9" * 24}),
    "HTTP/1.0": handshake(version="HTTP/1.0"),
    "no Upgrade": handshake(leave_out=["Upgrade"]),
    "no Connection": handshake(leave_out=["Connection"]),
    "another Upgrade": handshake(headers={"Upgrade": "h2c"}),
    "Connection: close": handshake(headers={"Connection": "close"}),
    "body announced": handshake(headers={"Content-Length": "5"}) + b"hello",
    "body in chunks": handshake(headers={"Transfer-Encoding": "chunked"}) + b"0\r\n\r\n",
    "POST": handshake().replace(b"GET ", b"POST ", 1),
}


@pytest.mark.parametrize("request_bytes", BAD_HANDSHAKES.values(), ids=BAD_HANDSHAKES)
def test_bad_handshakes_get_400_with_a_text(gateway: Server, request_bytes: bytes) -> None:
    """One line says what is wrong; the connection ends; the log has no traceback."""
    before = len(gateway.log())
    answer = answer_to(gateway, request_bytes)
    assert answer.status == 400
    assert len(answer.body.splitlines()) == 1
    assert "upgrade" not in answer.headers
    assert "Traceback" not in gateway.log()[before:]


@pytest.mark.parametrize("version", ["8", "0", "14", "", "13, 8", "x", None])
def test_other_versions_get_426_and_the_right_one(gateway: Server, version: str | None) -> None:
    """Only version 13 is spoken (RFC 6455 section 4.4)."""
    request = handshake(leave_out=["Sec-WebSocket-Version"])
    if version is not None:
        request = handshake(headers={"Sec-WebSocket-Version": version})
    answer = answer_to(gateway, request)
    assert answer.status == 426
    assert answer.headers["sec-websocket-version"] == "13"
    assert answer.body.endswith("\n")


@pytest.mark.parametrize(
    "request_bytes",
    [
        handshake(),
        handshake(headers={"Upgrade": "WebSocket", "Connection": "keep-alive, UPGRADE"}),
        handshake(headers={"Upgrade": "h2c, websocket"}),
        handshake(headers={"Content-Length": "0"}),
        handshake(headers={"X-Odd": "\xe9\xff"}),
        handshake("/public?stream=%zz&stream=%"),
        handshake("/%70ublic"),
        handshake("//"),
        handshake().replace(b"Upgrade:", b"upgrade:").replace(b"Connection:", b"CONNECTION:"),
        handshake().replace(b"Sec-WebSocket-Key: ", b"Sec-WebSocket-Key:\t "),
        handshake().replace(b"\r\n\r\n", b"\r\nX-Twice: 1\r\nX-Twice: 2\r\n\r\n"),
    ],
)
def test_good_handshakes_in_odd_forms_are_accepted(gateway: Server, request_bytes: bytes) -> None:
    """The accept key is right, and the first frame follows the response."""
    with RawSocket(gateway.port) as raw:
        raw.send(request_bytes)
        status, headers = raw.response()
        assert status == 101
        assert headers["sec-websocket-accept"] == ACCEPT.decode()
        assert headers["upgrade"].lower() == "websocket"
        assert headers["connection"].lower() == "upgrade"
        assert "sec-websocket-protocol" not in headers
        assert raw.read_text().startswith('{"success":{"message":"subscribed"')


@pytest.mark.parametrize("how", ["one piece", "by bytes", "unusual", "in two"])
def test_frames_sent_along_with_the_handshake_are_answered(gateway: Server, how: str) -> None:
    """All of them, whichever parser met them, however the bytes were cut."""
    early = text_frame("ping") * 1400  # 14,000 bytes, more than any buffer on the way
    request = handshake()
    if how == "unusual":
        request = request.replace(b"\r\n\r\n", b"\r\nX-Twice: 1\r\nX-Twice: 2\r\n\r\n")
    with RawSocket(gateway.port) as raw:
        if how == "by bytes":
            for position in range(len(request)):
                raw.send(request[position : position + 1])
            raw.send(early)
        elif how == "in two":
            raw.send(request[:-2])
            raw.send(request[-2:] + early)
        else:
            raw.send(request + early)
        assert raw.response()[0] == 101
        raw.read_frame()
        assert [raw.read_frame() for _ in range(1400)] == [(TEXT, b"pong")] * 1400


@pytest.mark.parametrize("how", ["whole", "in two"])
@pytest.mark.parametrize("kind", smuggled(""))
def test_what_can_be_read_in_two_ways_is_refused(gateway: Server, kind: str, how: str) -> None:
    """Each is answered 400, however it comes, with a token that is good or without."""
    request = smuggled(gateway.token())[kind]
    with RawSocket(gateway.port) as raw:
        if how == "in two":
            raw.send(request[:100])
            wait_for_sent(raw)
            request = request[100:]
        raw.send(request)
        assert raw.answer().status == 400
        assert raw.read_to_end() == b""


def wait_for_sent(raw: RawSocket) -> None:
    """Wait until the other side has taken everything (SIOCOUTQ)."""
    wait_for(
        lambda: not any(fcntl.ioctl(raw.sock, termios.TIOCOUTQ, bytes(4))), what="bytes to arrive"
    )


@pytest.mark.parametrize("kind", smuggled_bodies())
def test_a_body_is_no_request(gateway: Server, kind: str) -> None:
    """What stands behind a request is answered by nothing."""
    with RawSocket(gateway.port) as raw:
        raw.send(smuggled_bodies()[kind])
        assert raw.answer().status in (200, 401, 405, 426)
        assert raw.read_to_end() == b""


# -- who may come in --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 101),
        ("http://{host}", 101),
        ("https://{host}", 101),
        ("http://evil.example", 403),
        ("http://127.0.0.1", 403),
        ("null", 403),
        ("", 403),
        ("garbage", 403),
        ("http://evil.example@{host}", 403),
    ],
)
def test_without_a_list_the_origin_must_be_the_host(
    gateway: Server, origin: str | None, status: int
) -> None:
    """A page's origin is its host with the port; no Origin at all is no browser."""
    host = f"127.0.0.1:{gateway.port}"
    headers = {"Host": host}
    if origin is not None:
        headers["Origin"] = origin.format(host=host)
    with RawSocket(gateway.port) as raw:
        raw.send(handshake(headers=headers))
        assert raw.response()[0] == status


def test_listed_origins_may_connect() -> None:
    """Hosts and URLs, blanks trimmed, case-blind; the own host is no longer enough."""
    allowed = {"API_CORS_ORIGINS": " https://Trade.example , other.example:8443"}
    with start_gateway(env=allowed, until=HEALTHY) as server:
        for origin in (
            "https://trade.example",
            "http://TRADE.EXAMPLE",
            "https://other.example:8443",
        ):
            with server.connect(headers={"Origin": origin}) as client:
                client.receive()
        for origin in ("https://other.example", f"http://127.0.0.1:{server.port}"):
            with pytest.raises(InvalidStatus) as refused:
                server.connect(headers={"Origin": origin})
            assert refused.value.response.status_code == 403
        assert server.metric("rango_connections_refused_total", reason="origin") == 2


@pytest.mark.parametrize("path", ["/private", "/private?stream=order", "/%70rivate"])
@pytest.mark.parametrize("kind", ["none", "bad", "expired"])
def test_private_needs_a_token_before_the_upgrade(gateway: Server, path: str, kind: str) -> None:
    """401 as plain HTTP, with the scheme that is wanted and one line of text."""
    tokens = {"none": None, "bad": "a.b.c", "expired": gateway.token(exp=int(time.time()) - 1)}
    token = tokens[kind]
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer = answer_to(gateway, handshake(path, headers))
    assert answer.status == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert "token" in answer.body
    assert str(token) not in answer.body


def test_private_with_a_token_is_accepted(gateway: Server) -> None:
    """The same path with a good token is a WebSocket."""
    with gateway.connect("/private?stream=order", gateway.token()) as client:
        assert client.receive_json()["success"]["streams"] == ["order"]


def test_unreadable_streams_in_the_query_are_refused(gateway: Server) -> None:
    """400 with the reason, before the upgrade."""
    for query in ("stream=%ff", "stream=a%00b", "stream=" + "x" * 300, "stream=a%0a.b"):
        answer = answer_to(gateway, handshake(f"/public?{query}"))
        assert answer.status == 400
        assert "tream" in answer.body


def test_a_full_gateway_answers_503() -> None:
    """Before the upgrade, with a time to come back; a place that gets free is given again."""
    with start_gateway(env={"RANGO_MAX_CONNECTIONS": "2"}, until=HEALTHY) as server:
        clients = [server.connect(), server.connect()]
        answer = answer_to(server, handshake())
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) > 0
        assert server.get(HEALTHY).status == 200
        clients[0].close()
        wait_for(lambda: server.metric("rango_hub_clients_count") == 1, what="a free place")
        with server.connect() as client:
            client.receive()
        clients[1].close()


# -- time -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def impatient() -> Iterator[Server]:
    """A server that gives a client one second for its request."""
    with start_gateway(env={"RANGO_HANDSHAKE_TIMEOUT_S": "1"}, until=HEALTHY) as server:
        yield server


@pytest.mark.parametrize("sent", ["nothing", "a request line", "bytes, one after another"])
def test_slow_handshakes_are_ended(impatient: Server, sent: str) -> None:
    """The bound is on the whole request: bytes that trickle in do not extend it."""
    request = handshake()
    started = time.monotonic()
    with RawSocket(impatient.port) as raw:
        if sent == "a request line":
            raw.send(request[:30])
        if sent == "bytes, one after another":
            raw.sock.settimeout(0.1)
        position = 0
        while True:
            try:
                if raw.sock.recv(4096) == b"":
                    break
            except ConnectionError:
                break
            except OSError:  # nothing to read yet: send one more byte
                with contextlib.suppress(ConnectionError):
                    raw.send(request[position : position + 1])
                position += 1
    assert 0.9 < time.monotonic() - started < 8  # all bytes would take fifteen
    assert "Traceback" not in impatient.log()


# -- the log ----------------------------------------------------------------------------------


def test_the_log_tells_reasons_and_no_secrets() -> None:
    """Each refusal is a line with its cause; neither token nor query is ever in the log."""
    with start_gateway(until=HEALTHY) as server:  # of its own: of each kind few lines are written
        token = server.token(exp=int(time.time()) - 5)
        secret_query = "/private?stream=geheim.trades&jwt=" + token
        bearer, origin = {"Authorization": f"Bearer {token}"}, {"Origin": "http://evil.example"}
        for headers in ({}, bearer, origin):
            answer_to(server, handshake(secret_query, headers))
        answer_to(server, handshake("/public?jwt=" + token, {"Sec-WebSocket-Key": "x"}))
        with server.connect("/public?jwt=" + token) as client:
            client.receive()
        http_request(server.port, "/nothing?jwt=" + token)
        reasons = (
            "GET /private 401 no_token",
            "GET /private 401 bad_token: expired",
            "GET /private 403 origin: 'http://evil.example'",
            "GET /public 400 bad_handshake",
            "closed",
            "GET /nothing 404",
        )
        wait_for(lambda: all(word in server.log() for word in reasons), what="all reasons")
        log = server.log()
        assert "geheim" not in log
        assert token[:20] not in log
        assert "jwt=" not in log


def test_log_lines_cannot_be_forged(gateway: Server) -> None:
    """Control characters in a path are escaped."""
    before = len(gateway.log())
    http_request(gateway.port, "/a%0d%0a2026-01-01T00:00:00.000Z%20info%20forged%1b[31m")
    log = gateway.log()[before:]
    assert "\x1b" not in log
    assert not any(line.startswith("2026-01-01") for line in log.splitlines())


def test_a_client_that_resets_at_once_leaves_nothing_behind(gateway: Server, market: str) -> None:
    """Resets right behind the handshake, many times: no subscription stays counted."""
    name = f"{market}.trades"
    at_once = struct.pack("ii", 1, 0)  # closing sends a reset
    for _ in range(300):
        with RawSocket(gateway.port) as raw:
            raw.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
            raw.send(handshake(f"/public?stream={name}") + frame(TEXT, b"ping"))
    with connect(gateway.url, f"/public?stream={name}") as client:
        client.receive()
        gateway.publish(f"public.{name}", "1")
        assert client.receive() == f'{{"{name}":1}}'
        labels = {"type": "public", "topic": name}
        wait_for(
            lambda: gateway.metric("rango_hub_subscriptions_count", **labels) == 1,
            what="only this client is counted",
        )
    assert "Traceback" not in gateway.log()
