"""Limits on clients, each at its bound: connections, users, addresses, rate, age, names."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

import pytest
from support import RawSocket, Server, connect, start_gateway, wait_for
from websockets.exceptions import ConnectionClosed, InvalidStatus


def _refused(server: Server, **how: object) -> tuple[int, str | None]:
    with pytest.raises(InvalidStatus) as refused:
        server.connect(**how)  # type: ignore[arg-type]
    response = refused.value.response
    return response.status_code, response.headers.get("Retry-After")


def test_a_full_gateway_answers_503_before_the_upgrade() -> None:
    """One connection too many is told to come back; when one leaves there is room again."""
    with start_gateway(env={"RANGO_MAX_CONNECTIONS": "2"}) as server:
        with server.connect() as one, server.connect() as two:
            one.receive()
            two.receive()
            assert _refused(server) == (503, "5")
        wait_for(lambda: server.metric("rango_hub_clients_count") == 0, what="both to leave")
        with server.connect() as three:
            assert "subscribed" in three.receive()
        assert server.metric("rango_connections_refused_total", reason="too_many_connections") == 1


def test_an_address_and_a_user_have_their_share() -> None:
    """429 for one address too often and one user too often; the proxy's word is taken."""
    env = {
        "RANGO_MAX_CONNECTIONS_PER_ADDRESS": "2",
        "RANGO_MAX_CONNECTIONS_PER_UID": "1",
        "RANGO_TRUSTED_PROXIES": "127.0.0.0/8",
    }
    with start_gateway(env=env) as server:
        path, token = "/private", server.token(uid="ID1")
        one = {"X-Forwarded-For": "1.2.3.4"}
        other = {"X-Forwarded-For": "5.6.7.8"}
        with server.connect(path, token, one), server.connect("/public", None, one):
            assert _refused(server, headers=one)[0] == 429
            assert _refused(server, path=path, token=token, headers=other)[0] == 429
            with server.connect(path, server.token(uid="ID2"), other) as client:
                assert "subscribed" in client.receive()
        reasons = ("too_many_of_address", "too_many_of_uid")
        for reason in reasons:
            assert server.metric("rango_connections_refused_total", reason=reason) == 1


def test_silent_sockets_cannot_take_all_files() -> None:
    """More sockets than files: those beyond are closed at once, and nobody else feels it."""
    shell = ["/bin/sh", "-c", 'ulimit -n 300; exec "$@"', "sh"]
    command = [*shell, sys.executable, "-m", "rango_gevent"]
    env = {"RANGO_HANDSHAKE_TIMEOUT_S": "6"}
    with start_gateway(command=command, env=env) as server, contextlib.ExitStack() as stack:
        client = stack.enter_context(server.connect("/public?stream=a.trades"))
        client.receive()
        silent = [stack.enter_context(RawSocket(server.port)) for _ in range(500)]
        refused = "rango_connections_refused_total"
        wait_for(lambda: server.metric(refused, reason="too_many_files") >= 300, what="refusals")
        server.publish("public.a.trades", "1")
        assert client.receive() == '{"a.trades":1}'
        for raw in silent:
            assert raw.read_to_end() == b""
        with server.connect() as newcomer:
            assert "subscribed" in newcomer.receive()
        assert "Traceback" not in server.log()
        assert "RANGO_MAX_CONNECTIONS=10000, but there are files for 200 only" in server.log()


def test_too_many_requests_get_an_error_and_then_a_close() -> None:
    """Over the rate there is one error; a flood is closed with 4029; others feel nothing."""
    env = {"RANGO_MAX_REQUESTS_PER_S": "1", "RANGO_REQUESTS_BURST": "5"}
    with start_gateway(env=env) as server, server.connect() as other:
        other.receive()
        with server.connect() as client:
            client.receive()
            told = client.ping_to_the_limit(3)
            assert told == '{"error":"Too many requests: the limit is 1/s"}'
            with contextlib.suppress(ConnectionClosed):  # it may come before the last of them
                for _ in range(100):
                    client.send("ping")
            assert client.closed() == (4029, "too many requests")
        other.send("ping")
        assert other.receive() == "pong"


def test_an_old_connection_is_closed() -> None:
    """Past the maximum age a client is told to come back with 4011."""
    env = {"RANGO_MAX_AGE_S": "0.5", "RANGO_PING_INTERVAL_S": "1", "RANGO_PONG_TIMEOUT_S": "5"}
    with start_gateway(env=env) as server, server.connect() as client:
        client.receive()
        assert client.closed() == (4011, "maximum connection age")


def test_a_stale_book_is_told_to_those_who_asked() -> None:
    """With notices=1 a client hears that a book is stale; others hear nothing of it."""
    with start_gateway(env={"RANGO_BOOK_INCREMENTS": "3"}) as server:
        server.publish("public.a.ob-snap", '{"n":0}')
        wait_for(lambda: server.metric("rango_books") == 1, what="the book")
        asked = connect(server.url, "/public?stream=a.ob-inc&notices=1")
        silent = connect(server.url, "/public?stream=a.ob-inc")
        with asked, silent:
            for client in (asked, silent):
                client.receive_until(lambda text: "subscribed" in text)
            for number in range(1, 6):
                server.publish("public.a.ob-inc", json.dumps({"n": number}))
            server.publish("public.a.ob-snap", '{"n":5}')
            heard = asked.receive_until(lambda text: "ob-snap" in text)
            assert heard.count('{"event":"resync","streams":["a.ob-inc"]}') == 1
            heard = silent.receive_until(lambda text: "ob-snap" in text)
            assert len(heard) == 6
            assert "resync" not in "".join(heard)


def test_a_book_that_is_not_there_yet_is_told_to_those_who_asked() -> None:
    """As after a restart of the gateway: first the notice, then the reply, then the snapshot."""
    with start_gateway() as server:
        asked = connect(server.url, "/public?stream=a.ob-inc,a.trades&notices=1")
        silent = connect(server.url, "/public?stream=a.ob-inc,a.trades")
        with asked, silent:
            assert asked.receive() == '{"event":"resync","streams":["a.ob-inc"]}'
            for client in (asked, silent):
                assert "subscribed" in client.receive()
            server.publish("public.a.ob-inc", '{"sequence":6}')
            server.publish("public.a.ob-snap", '{"sequence":6}')
            server.publish("public.a.ob-inc", '{"sequence":7}')
            server.publish("public.a.ob-snap", '{"sequence":7}')
            server.publish("public.a.ob-snap", '{"sequence":1}')
            server.publish("public.a.ob-inc", '{"sequence":2}')
            for client in (asked, silent):
                assert [client.receive() for _ in range(4)] == [
                    '{"a.ob-snap":{"sequence":6}}',
                    '{"a.ob-inc":{"sequence":7}}',
                    '{"a.ob-snap":{"sequence":1}}',
                    '{"a.ob-inc":{"sequence":2}}',
                ]


def test_subscriptions_of_all_clients_are_bounded() -> None:
    """Past the bound a request is answered with an error; room that becomes free is used."""
    with start_gateway(env={"RANGO_MAX_SUBSCRIPTIONS": "3"}) as server, server.connect() as other:
        other.receive()
        with server.connect("/public?stream=a.b,c.d") as one:
            one.receive()
            for names in (["e.f", "g.h"], ["e.f", "a.b"]):
                other.send({"event": "subscribe", "streams": names})
                answer = other.receive()
                assert answer == '{"error":"Too many streams: the server holds as many as it may"}'
            assert other.subscribe("a.b") == ["a.b"]
            assert server.metric("rango_subscriptions") == 3
            assert server.metric("rango_subscriptions_refused_total") == 4
        wait_for(lambda: server.metric("rango_subscriptions") == 1, what="one to leave")
        assert other.subscribe("e.f", "g.h") == ["a.b", "e.f", "g.h"]


def test_a_body_past_its_bound_takes_no_memory() -> None:
    """64 MB are announced and thrown away as they come; what is published behind is delivered."""
    with start_gateway() as server, server.connect("/public?stream=a.trades") as client:
        client.receive()
        status = Path(f"/proc/{server.process.pid}/status")
        before = _most_kb(status)
        server.publish("public.a.trades", '"' + "x" * (64 << 20) + '"')
        server.publish("public.a.trades", "1")
        assert client.receive() == '{"a.trades":1}'
        assert _most_kb(status) - before < 16 << 10
        assert server.metric("rango_messages_dropped_total", reason="too_big") == 1
        assert "dropped a message, too_big: routing key 'public.a.trades'" in server.log()


def _most_kb(status: Path) -> int:
    """Return the most memory that a process ever held."""
    return int(status.read_text().partition("VmHWM:")[2].split()[0])
