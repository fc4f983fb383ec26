"""Clients of ViaBTC's protocol that ask for too much, send rubbish, lag, or stay too long."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any, Iterator

import pytest
from support import RawSocket, Server, handshake, make_token, start_gateway, wait_for
from viabtc_client import DepthBook, ViabtcClient
from websockets.exceptions import ConnectionClosed

OK = {"status": "success"}
INVALID = (1, "invalid argument")
_BOUND = 64 * 1024
_MARKET = "abcbch"
_NAME = "ABCBCH"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Run a gateway with narrow bounds."""
    env = {
        "RANGO_VIABTC": "on",
        "RANGO_VIABTC_DEPTH_INTERVAL_S": "0",
        "RANGO_VIABTC_DEPTH_WHOLE_S": "3600",
        "RANGO_VIABTC_DEPTH_LIMITS": "5,1000",
        "RANGO_VIABTC_TOPICS": "20",
        "RANGO_MAX_STREAMS": "1000",
        "RANGO_MAX_SUBSCRIPTIONS": "30000",
        "RANGO_MAX_REQUESTS_PER_S": "50",
        "RANGO_REQUESTS_BURST": "100",
        "RANGO_SLOW_STREAMS": "*.ob-inc=latest,*.tickers=latest",
        "RANGO_OUTBOX_BYTES": str(_BOUND),
        "RANGO_WRITE_TIMEOUT_S": "30",
        "RANGO_MAX_MESSAGE_BYTES": "16384",
        "RANGO_TOKEN_GRACE_S": "0",
    }
    with start_gateway(env=env) as server:
        yield server


def send(server: Server, key: str, body: Any) -> None:
    """Publish."""
    server.publish(key, json.dumps(body))


def closed_with(client: ViabtcClient) -> int:
    """Return the code that the server closes with."""
    with pytest.raises(ConnectionClosed) as closed:
        for _ in range(10_000):
            client.read()
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code


def names(start: int, count: int) -> list[str]:
    """Return markets that do not exist."""
    return [f"X{number}" for number in range(start, start + count)]


def test_thousands_of_invented_markets(server: Server) -> None:
    """They cost subscriptions, which are bounded; nobody else feels it, and nothing is left."""
    clients = [ViabtcClient(server) for _ in range(25)]
    memory = server.metric("process_resident_memory_bytes")
    with ViabtcClient(server) as good:
        full = 0
        for number, client in enumerate(clients):
            for family in ("deals", "price"):
                said = client.reply(client.send(f"{family}.subscribe", *names(1000 * number, 700)))
                full += said["error"] is not None and said["error"]["code"] == 1
            used_s = server.cpu_s()
            assert good.ask("server.ping") == "pong"
            assert server.cpu_s() - used_s < 1
        assert full == len(clients), "1400 names are too many for one client"
        assert server.metric("rango_viabtc_views") == 25 * 700
        assert server.metric("rango_subscriptions") == 25 * 700
        assert server.metric("process_resident_memory_bytes") - memory < 60e6
        for client in clients:
            client.client.close()
        wait_for(lambda: server.metric("rango_viabtc_views") == 0, what="the views to go")
        assert server.metric("rango_subscriptions") == 0


def test_all_clients_together_hold_so_many(server: Server) -> None:
    """Who comes too late gets code 3."""
    clients = [ViabtcClient(server) for _ in range(31)]
    codes = []
    for number, client in enumerate(clients):
        said = client.reply(client.send("price.subscribe", *names(1000 * number, 999)))
        codes.append(said["error"] and said["error"]["code"])
    assert codes == [None] * 30 + [3]
    for client in clients:
        client.client.close()
    wait_for(lambda: server.metric("rango_viabtc_views") == 0, what="the views to go")


def test_views_of_books_show_so_many_levels_in_all() -> None:
    """A client has a tenth of them; when they are used up others get code 3, and those held go on."""
    env = {"RANGO_VIABTC": "on", "RANGO_VIABTC_DEPTH_LEVELS": "2000"}
    with start_gateway(env=env) as server, contextlib.ExitStack() as stack:
        send(server, "public.full.ob-snap", {"asks": [["1", "1"]], "bids": [], "sequence": 1})
        server.catch_up()
        clients = [stack.enter_context(ViabtcClient(server)) for _ in range(11)]
        for number, client in enumerate(clients[:10]):
            assert client.ask("depth.subscribe", f"M{number}", 100, "0") == OK
            assert client.fail("depth.subscribe", f"M{number}", 100, "0", "N", 1, "0") == INVALID
        late = clients[10]
        assert server.metric("rango_viabtc_depth_levels") == 2000
        assert late.fail("depth.subscribe", "FULL", 1, "0") == (3, "service unavailable")
        assert server.metric("rango_viabtc_refused_total") == 1
        assert late.ask("depth.subscribe", "M1", 100, "0") == OK
        assert clients[0].ask("depth.subscribe", "FULL", 1, "0") == OK, "in place of its own"
        assert clients[0].push("depth.update")[0] is True
        assert late.ask("depth.subscribe", "FULL", 1, "0") == OK
        assert late.push("depth.update")[0] is True
        assert server.metric("rango_viabtc_depth_levels") == 1802


def test_topics_that_are_kept_are_bounded(server: Server) -> None:
    """The oldest that nobody holds go; what somebody holds stays."""
    with ViabtcClient(server) as client:
        client.ask("deals.subscribe", "KEPT")
        for number in range(60):
            market = "kept" if number == 0 else f"many{number}"
            trade = {"tid": number + 1, "date": 1, "price": "1", "amount": "1"}
            send(server, f"public.{market}.trades", {"trades": [trade]})
        server.catch_up()
        assert client.ask("deals.query", "KEPT", 1, 0)[0]["id"] == 1
        time.sleep(1.1)  # it makes room once a second
        send(server, "public.last.trades", {"trades": [{**trade, "tid": 99}]})
        server.catch_up()
        assert client.ask("deals.query", "LAST", 1, 0)[0]["id"] == 99
        assert client.ask("deals.query", "KEPT", 1, 0)[0]["id"] == 1
        assert client.fail("deals.query", "MANY1", 1, 0) == INVALID
    assert server.metric("rango_viabtc_forgotten_total") > 0


def test_one_that_floods_is_told_and_then_closed(server: Server) -> None:
    """Code 3, and 4029 when it does not stop."""
    with ViabtcClient(server) as client:
        said: dict[str, Any] = {"error": None}
        while said["error"] is None:  # on a slow machine tokens come back meanwhile
            for _ in range(90):
                client.send("server.ping")
            for _ in range(90):
                said = client.read()
                if said["error"] is not None:
                    break
        assert said["id"] is None
        assert said["error"] == {"code": 3, "message": "service unavailable"}
        with contextlib.suppress(ConnectionClosed):  # it may be over before all are sent
            for _ in range(400):
                client.send("server.ping")
        assert closed_with(client) == 4029


def test_messages_that_are_too_long(server: Server) -> None:
    """Close 1009, as everywhere."""
    with ViabtcClient(server) as client:
        client.client.send("[" * 17000)
        assert closed_with(client) == 1009


@pytest.mark.parametrize(
    "message",
    [
        '{"id":1,"method":"deals.subscribe","params":' + "[" * 4000 + "]" * 4000 + "}",
        '{"id":1,"method":"deals.subscribe","params":[' + ",".join(["null"] * 1500) + "]}",
        '{"id":1,"method":"kline.subscribe","params":["A",1e308]}',
        '{"id":1,"method":"kline.query","params":["A",-1,5,60]}',
        '{"id":1,"method":"kline.query","params":["A",0,18446744073709551616,60]}',
        '{"id":1,"method":"deals.query","params":["A",true,0]}',
        '{"id":1,"method":"depth.query","params":["A",5,"1e-8"]}',
        '{"id":1,"method":"depth.subscribe","params":["A",5,"0","A",5,{}]}',
        '{"id":1,"method":"price.subscribe","params":["A",["B"]]}',
        '{"id":1,"method":"price.subscribe","params":["A.B"]}',
        '{"id":1,"method":"price.subscribe","params":["*"]}',
        '{"id":1,"method":"state.query","params":["A",0]}',
        '{"id":1,"method":"server.auth","params":[["token"],"web"]}',
        '{"id":1,"method":"server.sign","params":["a b","x",1]}',
        '{"id":1,"method":"server.sign","params":["a","x\\r\\nCookie: y",1]}',
        '{"id":1,"method":"__init__","params":[]}',
    ],
)  # fmt: skip
def test_rubbish_is_answered(server: Server, message: str) -> None:
    """With an error, and the connection lives on."""
    with ViabtcClient(server) as client:
        client.client.send(message)
        said = client.read()
        assert said["error"]["code"] in (1, 4)
        assert client.ask("server.ping") == "pong"


def test_too_many_bad_tokens(server: Server) -> None:
    """Each is told, and then the connection is closed with 4401."""
    with ViabtcClient(server) as client:
        for _ in range(5):
            assert client.fail("server.auth", "a.b.c", "web")[0] == 11
        assert closed_with(client) == 4401


def test_a_token_that_expires(server: Server) -> None:
    """The connection is closed with 4401; nothing comes before that."""
    with ViabtcClient(server) as client:
        token = make_token({"uid": "1", "exp": int(time.time()) + 6})
        assert client.ask("server.auth", token, "web") == OK
        assert closed_with(client) == 4401


# -- those that lag -----------------------------------------------------------------------


class Lagging:
    """A client that reads nothing until it is told to."""

    def __init__(self, server: Server, method: str, *params: Any) -> None:
        self.sock = RawSocket(server.port, receive_buffer=4096)
        self.sock.send(handshake("/viabtc"))
        assert self.sock.response()[0] == 101
        text = json.dumps({"id": 1, "method": method, "params": params}).encode()
        assert len(text) < 126
        self.sock.send(bytes((0x81, 0x80 | len(text), 0, 0, 0, 0)) + text)
        assert json.loads(self.sock.read_text())["result"] == OK

    def __enter__(self) -> Lagging:
        return self

    def __exit__(self, *error: object) -> None:
        self.sock.sock.close()


def test_one_that_lags_on_deals_is_closed(server: Server) -> None:
    """By the policy of the stream that they are made of; and only it."""
    with Lagging(server, "deals.subscribe", _NAME) as lagging, ViabtcClient(server) as good:
        good.ask("deals.subscribe", _NAME)
        for number in range(1, 3001):
            trade = {"tid": number, "date": 1, "price": f"1.{'1' * 48}", "amount": "1"}
            send(server, f"public.{_MARKET}.trades", {"trades": [trade] * 20})
        for number in range(1, 3001):
            assert good.push("deals.update")[1][0]["id"] == number
        assert lagging.sock.skip_to_close() == 4008


def test_a_book_is_given_afresh_to_one_that_lags(server: Server) -> None:
    """It gets the whole book when it has caught up, and goes on from there."""
    level = 1000
    snapshot = {"asks": [[str(level + n), "1"] for n in range(500)], "bids": [], "sequence": 1}
    send(server, f"public.{_MARKET}.ob-snap", snapshot)
    server.catch_up()
    with Lagging(server, "depth.subscribe", _NAME, 1000, "0") as lagging:
        book = DepthBook()
        book.take(json.loads(lagging.sock.read_text())["params"])
        for number in range(2000):
            places = ((number * 20 + n) % 500 for n in range(20))
            asks = [[str(level + place), f"{number + 2}.{'1' * 40}"] for place in places]
            send(server, f"public.{_MARKET}.ob-inc", {"asks": asks, "sequence": number + 2})
        server.catch_up()
        skipped = "rango_frames_skipped_total"
        wait_for(lambda: server.metric(skipped, policy="resync") > 0, what="frames left out")
        send(server, f"public.{_MARKET}.ob-inc", {"asks": ["999", "7"], "sequence": 2002})
        while 999 not in book.asks:
            book.take(json.loads(lagging.sock.read_text())["params"])
        assert book.wholes >= 2
        assert len(book.asks) == 501
        with ViabtcClient(server) as good:
            found = DepthBook()
            good.ask("depth.subscribe", _NAME, 1000, "0")
            found.take(good.push("depth.update"))
        assert book.sides() == found.sides()
