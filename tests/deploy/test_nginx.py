"""conf/nginx.conf in the real nginx, before the real gateway."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
from pathlib import Path
from typing import Iterator

import pytest
from processes import (
    HIDDEN,
    address,
    conf,
    everything_within,
    handshake_status,
    visit_from,
)
from proxies import start_nginx
from smuggled import smuggled_bodies
from support import (
    HOST,
    PING,
    PONG,
    RawSocket,
    Server,
    connect,
    frame,
    http_request,
    start_gateway,
    wait_for,
)
from websockets.exceptions import InvalidStatus

from rango_gevent.settings import Settings


@pytest.fixture
def nginx(gateway: Server, tmp_path: Path) -> Iterator[int]:
    """Give the port of an nginx before the shared gateway."""
    with start_nginx(tmp_path, address(gateway)) as port:
        yield port


def test_events_pass(gateway: Server, nginx: int) -> None:
    """A client behind nginx subscribes, unsubscribes and gets events on both known paths."""
    for path in ("/public", "/api/v2/ranger/public"):
        with connect(f"ws://{HOST}:{nginx}", f"{path}?stream=btcusd.trades") as client:
            assert client.receive_json()["success"]["streams"] == ["btcusd.trades"]
            assert client.subscribe("ethusd.trades") == ["btcusd.trades", "ethusd.trades"]
            gateway.publish("public.ethusd.trades", '{"tid":1}')
            assert client.receive() == '{"ethusd.trades":{"tid":1}}'
            assert client.unsubscribe("ethusd.trades") == ["btcusd.trades"]


def test_cookie_becomes_the_header(gateway: Server, nginx: int) -> None:
    """A token in the cookie opens /private, and private events arrive."""
    cookie = {"Cookie": f"theme=dark; jwt={gateway.token(uid='ID7')}"}
    with connect(f"ws://{HOST}:{nginx}", "/private?stream=order", headers=cookie) as client:
        assert client.receive_json()["success"]["streams"] == ["order"]
        gateway.publish("private.ID7.order", '{"id":7}')
        assert client.receive() == '{"order":{"id":7}}'


def test_header_wins_over_the_cookie(gateway: Server, nginx: int) -> None:
    """Where a client sends both, the header alone counts."""
    url, good, bad = f"ws://{HOST}:{nginx}", gateway.token(), "no.such.token"
    assert handshake_status(url, "/private", good, {"Cookie": f"jwt={bad}"}) == 101
    assert handshake_status(url, "/private", bad, {"Cookie": f"jwt={good}"}) == 401


def test_refusals_pass(nginx: int) -> None:
    """401, and 403 for a strange origin, reach the client as they are."""
    url = f"ws://{HOST}:{nginx}"
    assert handshake_status(url, "/private") == 401
    assert handshake_status(url, "/public", headers={"Origin": "https://evil.example"}) == 403


@pytest.mark.parametrize("kind", HIDDEN)
def test_a_body_that_is_a_handshake_is_a_body(nginx: int, kind: str) -> None:
    """nginx and the gateway agree where a request ends, so nothing slips past either."""
    assert b" 101 " not in everything_within(nginx, smuggled_bodies()[kind], 1.5)


def test_full_gateway(tmp_path: Path) -> None:
    """A gateway's 503 reaches the client, with its advice when to come again."""
    with contextlib.ExitStack() as stack:
        gateway = stack.enter_context(start_gateway(env={"RANGO_MAX_CONNECTIONS": "1"}))
        port = stack.enter_context(start_nginx(tmp_path, address(gateway)))
        stack.enter_context(connect(f"ws://{HOST}:{port}"))
        with pytest.raises(InvalidStatus) as refused:
            connect(f"ws://{HOST}:{port}")
        assert refused.value.response.status_code == 503
        assert "retry-after" in refused.value.response.headers
        # the name that an alert rule looks for
        assert gateway.metric("rango_connections_refused_total", reason="too_many_connections") == 1


def test_same_origin_with_a_port(nginx: int) -> None:
    """A page of nginx's own address and port is the same origin."""
    origin = {"Origin": f"http://{HOST}:{nginx}"}
    assert handshake_status(f"ws://{HOST}:{nginx}", "/public", headers=origin) == 101


def test_health_is_for_monitoring(nginx: int) -> None:
    """The health paths answer this machine and nobody else."""
    assert http_request(nginx, "/healthz").status == 200
    assert http_request(nginx, "/readyz").status == 200
    stranger = http.client.HTTPConnection(HOST, nginx, 10, source_address=("127.0.0.2", 0))
    with contextlib.closing(stranger):
        stranger.request("GET", "/readyz")
        assert stranger.getresponse().status == 403


def test_connections_per_address(nginx: int) -> None:
    """The connection past the limit of one address is answered 429; one that ends makes room."""
    url = f"ws://{HOST}:{nginx}"
    limit = int(re.findall(r"limit_conn rango_address (\d+);", conf("nginx.conf"))[0])
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(url)) for _ in range(limit)]
        assert handshake_status(url, "/public") == 429
        clients[0].close()
        wait_for(lambda: handshake_status(url, "/public") == 101, 60, "a free place")


def test_what_the_gateway_is_told(tmp_path: Path) -> None:
    """nginx hands on the client's address and the host with its port, and no empty headers."""
    with socket.create_server((HOST, 0)) as listener:
        listener.settimeout(60)
        upstream = f"{HOST}:{listener.getsockname()[1]}"
        with start_nginx(tmp_path, upstream) as port, RawSocket(port) as client:
            client.send(f"GET /public HTTP/1.1\r\nHost: {HOST}:{port}\r\n\r\n".encode())
            asked, _ = listener.accept()
            with asked:
                head = asked.recv(65536).decode().lower()
    assert f"\r\nhost: {HOST}:{port}\r\n" in head
    assert f"\r\nx-forwarded-for: {HOST}\r\n" in head
    assert "\r\nx-forwarded-proto: http\r\n" in head
    assert "\r\nconnection: close\r\n" in head
    assert "authorization:" not in head


def test_address_of_the_client(tmp_path: Path) -> None:
    """The gateway knows a client by its own address, whatever that client claims."""
    with start_gateway(env={"RANGO_TRUSTED_PROXIES": HOST}) as gateway:
        with start_nginx(tmp_path, address(gateway)) as port:
            visit_from("127.0.0.9", port, {"X-Forwarded-For": "198.51.100.1"})
            wait_for(lambda: "connection closed" in gateway.log(), 60, "the end of the visit")
        assert "peer=127.0.0.9 connection closed" in gateway.log()


def test_idle_market_stays_open(tmp_path: Path) -> None:
    """The gateway's pings alone keep a connection open past nginx's timeout."""
    with contextlib.ExitStack() as stack:
        gateway = stack.enter_context(start_gateway(env={"RANGO_PING_INTERVAL_S": "1"}))
        port = stack.enter_context(start_nginx(tmp_path, address(gateway), read_timeout="4s"))
        client = stack.enter_context(RawSocket(port).open())
        for _ in range(6):
            assert client.read_any_frame() == (PING, b"")
            client.send(frame(PONG))


def test_timeouts_exceed_the_ping_interval() -> None:
    """nginx waits longer than the gateway's pings are apart."""
    for name in ("proxy_read_timeout", "proxy_send_timeout"):
        seconds = re.findall(rf"{name} (\d+)s;", conf("nginx.conf"))
        assert [int(value) > Settings.ping_interval_s for value in seconds] == [True]


def test_log_has_no_query(gateway: Server, nginx: int, tmp_path: Path) -> None:
    """The access log has one line for a connection, without the query."""
    connect(f"ws://{HOST}:{nginx}", "/public?stream=secret.trades").close()
    log = tmp_path / "rango.log"
    line = wait_for(log.read_text, 60, "a line in nginx's log")
    assert ' 101 "GET /public" ' in line
    assert "secret" not in line
