"""conf/haproxy.cfg in the real HAProxy, before two real gateways."""

from __future__ import annotations

import contextlib
import re
import signal
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
from proxies import Haproxy, start_haproxy
from smuggled import smuggled_bodies
from support import (
    HOST,
    PING,
    PONG,
    Client,
    RawSocket,
    Server,
    connect,
    frame,
    free_port,
    http_request,
    start_gateway,
    wait_for,
)

from rango_gevent.settings import Settings


@pytest.fixture
def haproxy(gateway: Server, tmp_path: Path) -> Iterator[Haproxy]:
    """Give an HAProxy before the shared gateway; its second gateway does not exist."""
    with start_haproxy(tmp_path, address(gateway), f"{HOST}:{free_port()}") as proxy:
        proxy.wait_for_status("a", "UP")
        proxy.wait_for_status("b", "DOWN")
        yield proxy


def test_events_pass(gateway: Server, haproxy: Haproxy) -> None:
    """A client behind HAProxy subscribes and gets events."""
    with connect(haproxy.url, "/public?stream=btcusd.trades") as client:
        assert client.receive_json()["success"]["streams"] == ["btcusd.trades"]
        gateway.publish("public.btcusd.trades", '{"tid":1}')
        assert client.receive() == '{"btcusd.trades":{"tid":1}}'


def test_cookie_becomes_the_header(gateway: Server, haproxy: Haproxy) -> None:
    """A token in the cookie opens /private, and private events arrive."""
    cookie = {"Cookie": f"theme=dark; jwt={gateway.token(uid='ID8')}"}
    with connect(haproxy.url, "/private?stream=order", headers=cookie) as client:
        assert client.receive_json()["success"]["streams"] == ["order"]
        gateway.publish("private.ID8.order", '{"id":8}')
        assert client.receive() == '{"order":{"id":8}}'


def test_header_wins_over_the_cookie(gateway: Server, haproxy: Haproxy) -> None:
    """Where a client sends both, the header alone counts."""
    good, bad = gateway.token(), "no.such.token"
    assert handshake_status(haproxy.url, "/private", good, {"Cookie": f"jwt={bad}"}) == 101
    assert handshake_status(haproxy.url, "/private", bad, {"Cookie": f"jwt={good}"}) == 401


def test_refusals_pass(haproxy: Haproxy) -> None:
    """401, 403 for a strange origin, and the health path's 404 reach the client."""
    assert handshake_status(haproxy.url, "/private") == 401
    strange = {"Origin": "https://evil.example"}
    assert handshake_status(haproxy.url, "/public", headers=strange) == 403
    same = {"Origin": f"http://{HOST}:{haproxy.port}"}
    assert handshake_status(haproxy.url, "/public", headers=same) == 101
    assert http_request(haproxy.port, "/readyz").status == 404


@pytest.mark.parametrize("kind", HIDDEN)
def test_a_body_that_is_a_handshake_is_a_body(haproxy: Haproxy, kind: str) -> None:
    """HAProxy and the gateway agree where a request ends, so nothing slips past either."""
    assert b" 101 " not in everything_within(haproxy.port, smuggled_bodies()[kind], 1.5)


def test_what_the_gateway_is_told(tmp_path: Path) -> None:
    """HAProxy hands on the client's address and the host with its port."""
    with socket.create_server((HOST, 0)) as listener:
        listener.settimeout(60)
        a, b = (f"{HOST}:{port}" for port in (listener.getsockname()[1], free_port()))
        with start_haproxy(tmp_path, a, b) as proxy, RawSocket(proxy.port) as client:
            client.send(f"GET /public HTTP/1.1\r\nHost: {HOST}:{proxy.port}\r\n\r\n".encode())
            head = _head_of(listener, "GET /public")
    assert f"\r\nhost: {HOST}:{proxy.port}\r\n" in head
    assert f"\r\nx-forwarded-for: {HOST}\r\n" in head
    assert "authorization:" not in head


def _head_of(listener: socket.socket, request: str) -> str:
    """Return the first request that begins so, in lower case; health checks get their 200."""
    for _ in range(20):
        asked, _ = listener.accept()
        with asked:
            asked.settimeout(60)
            head = asked.recv(65536).decode()
            if head.startswith(request):
                return head.lower()
            asked.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
    raise AssertionError(f"no {request}")


def test_draining_gateway_is_taken_out(tmp_path: Path) -> None:
    """At SIGTERM a gateway's clients hear 1012, its check fails, newcomers go to the other."""
    with contextlib.ExitStack() as stack:
        a = stack.enter_context(start_gateway())
        b = stack.enter_context(start_gateway(exchange=a.exchange))
        proxy = stack.enter_context(start_haproxy(tmp_path, address(a), address(b)))
        for name in ("a", "b"):
            proxy.wait_for_status(name, "UP")
        clients = [stack.enter_context(connect(proxy.url)) for _ in range(4)]
        assert (a.metric("rango_hub_clients_count"), b.metric("rango_hub_clients_count")) == (2, 2)

        assert a.stop() == 0
        wait_for(lambda: len(_told_of_a_restart(clients)) == 2, 60, "close 1012 for two clients")
        # before the check has noticed: a refused connection is tried again at the other
        assert handshake_status(proxy.url, "/public") == 101
        proxy.wait_for_status("a", "DOWN")

        stayed = [client for client in clients if client not in _told_of_a_restart(clients)]
        newcomer = stack.enter_context(connect(proxy.url))
        for client in (*stayed, newcomer):
            client.receive()
            assert client.subscribe("btcusd.trades") == ["btcusd.trades"]
        b.publish("public.btcusd.trades", "[1]")
        for client in (*stayed, newcomer):
            assert client.receive() == '{"btcusd.trades":[1]}'

        assert http_request(proxy.port, "/healthz").status == 200
        b.stop()
        proxy.wait_for_status("b", "DOWN")
        assert http_request(proxy.port, "/healthz").status == 503


def test_nobody_meets_a_drain(tmp_path: Path) -> None:
    """Newcomers get in while a gateway drains, before and after its check has noticed."""
    with contextlib.ExitStack() as stack:
        slow = {"RANGO_WORKERS": "2", "RANGO_DRAIN_S": "3"}
        a = stack.enter_context(start_gateway(env=slow))
        b = stack.enter_context(start_gateway(exchange=a.exchange))
        proxy = stack.enter_context(start_haproxy(tmp_path, address(a), address(b)))
        for _ in range(8):
            stack.enter_context(connect(proxy.url))
        a.process.send_signal(signal.SIGTERM)
        wait_for(lambda: "draining" in a.log(), 60, "the drain")
        statuses = [handshake_status(proxy.url, "/public") for _ in range(10)]
        assert statuses == [101] * 10
        proxy.wait_for_status("a", "DOWN")
        assert handshake_status(proxy.url, "/public") == 101


def _told_of_a_restart(clients: list[Client]) -> list[Client]:
    return [client for client in clients if client.connection.protocol.close_code == 1012]


def test_not_ready_is_down(tmp_path: Path) -> None:
    """A gateway that runs without its broker gets nobody."""
    nowhere = {"RANGO_AMQP_URL": f"amqp://{HOST}:{free_port()}//"}
    with contextlib.ExitStack() as stack:
        gateway = stack.enter_context(start_gateway(env=nowhere, until="/healthz"))
        nobody = f"{HOST}:{free_port()}"
        proxy = stack.enter_context(start_haproxy(tmp_path, address(gateway), nobody))
        proxy.wait_for_status("a", "DOWN")
        assert proxy.server("a")["check_code"] == "503"
        assert handshake_status(proxy.url, "/public") == 503


def test_drain_by_hand(tmp_path: Path) -> None:
    """A gateway drained at the admin socket keeps its clients and gets no new ones."""
    with contextlib.ExitStack() as stack:
        a = stack.enter_context(start_gateway())
        b = stack.enter_context(start_gateway(exchange=a.exchange))
        proxy = stack.enter_context(start_haproxy(tmp_path, address(a), address(b)))
        for name in ("a", "b"):
            proxy.wait_for_status(name, "UP")
        clients = [stack.enter_context(connect(proxy.url)) for _ in range(2)]
        drain, ready = re.findall(r'echo "(.*)" \|', conf("haproxy.cfg"))
        proxy.ask(drain)
        proxy.wait_for_status("a", "DRAIN")
        clients += [stack.enter_context(connect(proxy.url)) for _ in range(3)]
        counts = [server.metric("rango_hub_clients_count") for server in (a, b)]
        assert counts == [1, 4]
        for client in clients:
            client.receive()
            assert client.subscribe("btcusd.trades") == ["btcusd.trades"]
        proxy.ask(ready)
        proxy.wait_for_status("a", "UP")


def test_address_of_the_client(tmp_path: Path) -> None:
    """The gateway knows a client by its own address, whatever that client claims."""
    with start_gateway(env={"RANGO_TRUSTED_PROXIES": HOST}) as gateway:
        with start_haproxy(tmp_path, address(gateway), f"{HOST}:{free_port()}") as proxy:
            visit_from("127.0.0.9", proxy.port, {"X-Forwarded-For": "198.51.100.1"})
            wait_for(lambda: "connection closed" in gateway.log(), 60, "the end of the visit")
        assert "peer=127.0.0.9 connection closed" in gateway.log()


def test_idle_market_stays_open(tmp_path: Path) -> None:
    """The gateway's pings alone keep a connection open past the tunnel's timeout."""
    with contextlib.ExitStack() as stack:
        gateway = stack.enter_context(start_gateway(env={"RANGO_PING_INTERVAL_S": "1"}))
        nobody = f"{HOST}:{free_port()}"
        proxy = stack.enter_context(start_haproxy(tmp_path, address(gateway), nobody, "4s"))
        client = stack.enter_context(RawSocket(proxy.port).open())
        for _ in range(6):
            assert client.read_any_frame() == (PING, b"")
            client.send(frame(PONG))


def test_tunnel_timeout_exceeds_the_ping_interval() -> None:
    """HAProxy waits longer than the gateway's pings are apart."""
    (seconds,) = re.findall(r"timeout tunnel (\d+)s", conf("haproxy.cfg"))
    assert int(seconds) > Settings.ping_interval_s


def test_limit_is_the_gateways() -> None:
    """HAProxy sends a gateway no more connections than the gateway takes."""
    (connections,) = re.findall(r"default-server .* maxconn (\d+)", conf("haproxy.cfg"))
    assert int(connections) == Settings.max_connections
