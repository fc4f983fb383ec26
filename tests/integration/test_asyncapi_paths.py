"""docs/asyncapi.yaml for the paths with words of their own: ViaBTC's protocol, administrators."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Iterator

import pytest
from asyncapi import ADMIN, CLIENT, SERVER, VIABTC, is_message, kinds, names_of, operations
from support import HOST, ROOT, Client, Server, start_gateway, wait_for

from rango_gevent.admin import requests
from rango_gevent.viabtc import methods

ORDER = {
    "id": 7, "market": "ZUSD", "source": "web", "type": 1, "side": 2, "user": 1, "ctime": 1.5,
    "mtime": 1.5, "price": "7000", "amount": "1", "taker_fee": "0", "maker_fee": "0",
    "left": "0.5", "deal_stock": "0.5", "deal_money": "3500", "deal_fee": "0",
}  # fmt: skip
CHANGE = {"time": 1.5, "asset": "BTC", "business": "deposit", "change": "1", "balance": "2"}


# -- ViaBTC's protocol ----------------------------------------------------------------------------


def name_of(method: str) -> str:
    """Return the name of a method's request in the document."""
    family, _, verb = method.partition(".")
    return family + verb.capitalize()


def test_every_method_is_in_the_document() -> None:
    """And none beside the thirty, each answered by its result or an error."""
    asked = {}
    for operation in operations(VIABTC).values():
        if operation["action"] == "receive":
            [request] = (each["$ref"].rpartition("/")[2] for each in operation["messages"])
            replies = [each["$ref"].rpartition("/")[2] for each in operation["reply"]["messages"]]
            assert replies[1:] == ["viabtcError"]
            asked[request] = replies[0]
    assert set(asked) == {name_of(method) for method in methods.ALL}


def reply_of(method: str) -> str:
    """Return the name of a method's result in the document."""
    for operation in operations(VIABTC).values():
        if operation["messages"][0]["$ref"].endswith(f"/{name_of(method)}"):
            found: str = operation["reply"]["messages"][0]["$ref"].rpartition("/")[2]
            return found
    raise KeyError(method)


@pytest.mark.parametrize(
    ("text", "sender"),
    [
        ('{"id":1,"method":"server.dance","params":[]}', CLIENT),
        ('{"id":"1","method":"server.ping","params":[]}', CLIENT),
        ('{"id":1,"method":"server.ping"}', CLIENT),
        ('{"id":1,"method":"depth.query","params":["A",102,"0"]}', CLIENT),
        ('{"id":1,"method":"price.query","params":["A.B"]}', CLIENT),
        ('{"id":1,"method":"price.update","params":["A","1"]}', SERVER),
        ('{"id":null,"method":"price.update","params":["A",1]}', SERVER),
        ('{"id":null,"method":"depth.update","params":[true,{"asks":[]}]}', SERVER),
        ('{"error":null,"result":{"status":"failure"},"id":1}', SERVER),
        ('{"error":{"code":1},"result":null,"id":1}', SERVER),
        ('{"error":null,"result":null,"id":1}', SERVER),
    ],
)
def test_what_is_wrong_is_no_message(text: str, sender: str) -> None:
    """A schema that takes anything would prove nothing."""
    assert not kinds(text, sender, VIABTC)


class Service:
    """Knows every signature, and answers questions as an engine does."""

    def __init__(self) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._send({"code": 0, "message": None, "data": {"user_id": 1}})

            def do_POST(self) -> None:
                question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self._send({"error": None, "result": self._answer(question["method"])})

            @staticmethod
            def _answer(method: str) -> Any:
                if method == "asset.query":
                    return {"BTC": {"available": "1.1", "freeze": "9.9"}}
                record = CHANGE if method == "asset.history" else ORDER
                return {"limit": 10, "offset": 0, "total": 1, "records": [record]}

            def _send(self, said: Any) -> None:
                data = json.dumps(said).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer((HOST, 0), Handler)
        self.url = f"http://{HOST}:{self._server.server_address[1]}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()


class ViabtcTour:
    """One client; all that it sends and gets is looked up in the document.

    Attributes:
        seen: names of the messages that went over the wire.
    """

    def __init__(self, server: Server, client: Client) -> None:
        self.server = server
        self.client = client
        self.seen: set[str] = set()
        self._pushed: list[str] = []

    def ask(self, method: str, *params: Any) -> Any:
        """Return the result of a request; pushes are looked up too."""
        text = json.dumps({"id": 7, "method": method, "params": params})
        assert kinds(text, CLIENT, VIABTC) == [name_of(method)], text
        self.client.send(text)
        reply = self._reply()
        name = reply_of(method)
        assert is_message(reply, name), (name, reply)
        self.seen |= {name_of(method), name}
        return json.loads(reply)["result"]

    def fail(self, text: str) -> int:
        """Return the code of an error."""
        self.client.send(text)
        reply = self._reply()
        assert kinds(reply, SERVER, VIABTC) == ["viabtcError"], reply
        self.seen.add("viabtcError")
        code: int = json.loads(reply)["error"]["code"]
        return code

    def _reply(self) -> str:
        while True:
            text = self.client.receive()
            if "method" not in json.loads(text):
                return text
            self._look_up(text)

    def _look_up(self, text: str) -> None:
        [name] = kinds(text, SERVER, VIABTC)
        self.seen.add(name)
        self._pushed.append(name)

    def expect(self, name: str) -> None:
        """Wait for a push."""
        while name not in self._pushed:
            self._look_up(self.client.receive())
        self._pushed.clear()


def hold_everything(tour: ViabtcTour) -> None:
    """Subscribe, in all forms, to what is public; then it is published."""
    publish = tour.server.publish
    publish("public.zusd.ob-snap", '{"asks":[["8000","9.6"]],"bids":[["7000","0.1"]],"sequence":1}')
    tour.server.catch_up()
    tour.ask("depth.subscribe", "ZUSD", 5, "0")
    tour.expect("depthUpdate")
    publish("public.zusd.ob-inc", '{"asks":["8000","0"],"sequence":2}')
    tour.expect("depthUpdate")
    tour.ask("depth.subscribe", "ZUSD", 5, "0", "ZUSD", 20, "0.1")
    tour.expect("depthUpdate")
    for params in (["ZUSD", 60], ["ZUSD", 60, "ZUSD", 300]):
        tour.ask("kline.subscribe", *params)
        publish("public.zusd.kline-1m", "[1492358380,1.5,4,0.5,2,9]")
        tour.expect("klineUpdate")
    ticker = {"last": "7", "open": "6", "high": "8", "low": "5", "amount": "2", "volume": "14"}
    for family in ("price", "state", "today"):
        tour.ask(f"{family}.subscribe", "ZUSD", "NONE")
    publish("public.global.tickers", json.dumps({"zusd": ticker}))
    for family in ("price", "state", "today"):
        tour.expect(f"{family}Update")
    tour.ask("deals.subscribe", "ZUSD")
    trade = {"tid": 7, "date": 1492358400, "price": "1", "amount": "2", "taker_type": "sell"}
    publish("public.zusd.trades", json.dumps({"trades": [trade]}))
    tour.expect("dealsUpdate")


def ask_everything(tour: ViabtcTour) -> None:
    """All public queries, of what is there by now."""
    assert tour.ask("server.ping") == "pong"
    tour.ask("server.time")
    for query in (
        ("kline.query", "ZUSD", 0, 1 << 40, 60),
        ("price.query", "ZUSD"),
        ("state.query", "ZUSD", 86400),
        ("today.query", "ZUSD"),
        ("deals.query", "ZUSD", 10, 0),
        ("depth.query", "ZUSD", 10, "0.1"),
    ):
        assert tour.ask(*query)


def have_a_user(tour: ViabtcTour) -> None:
    """By a signature and by a token; then what is one's own."""
    tour.ask("server.sign", "KEY", "signature", 1)
    tour.ask("server.auth", tour.server.token(uid="1"), "web")
    for query in (
        ("order.query", "ZUSD", 0, 10),
        ("order.history", "ZUSD", 0, 0, 0, 10, 0),
        ("asset.query",),
        ("asset.history", "BTC", "deposit", 0, 0, 0, 10),
    ):
        assert tour.ask(*query)
    tour.ask("order.subscribe", "ZUSD")
    tour.ask("asset.subscribe", "BTC")
    order = {"id": 1, "market": "zusd", "side": "buy", "state": "wait", "price": "1", "volume": "2"}
    tour.server.publish("private.1.order", json.dumps(order))
    tour.expect("orderUpdate")
    tour.server.publish("private.1.order", json.dumps({"event": 3, "order": ORDER}))
    tour.expect("orderUpdate")
    tour.server.publish("private.1.balance", '{"currency":"btc","balance":"1","locked":"0"}')
    tour.expect("assetUpdate")


def test_a_tour_of_viabtc() -> None:
    """All 30 methods and all pushes over the real gateway are in the document; no more is there."""
    service = Service()
    env = {
        "RANGO_VIABTC": "on",
        "RANGO_VIABTC_RPC": f"order.*={service.url},asset.*={service.url}",
        "RANGO_SIGN_URL": service.url,
    }
    with contextlib.closing(contextlib.ExitStack()) as stack:
        stack.callback(service.stop)
        server = stack.enter_context(start_gateway(env=env))
        tour = ViabtcTour(server, stack.enter_context(server.connect("/viabtc")))
        assert tour.fail("{") == 1
        assert tour.fail('{"id":1,"method":"server.dance","params":[]}') == 4
        assert tour.fail('{"id":1,"method":"order.query","params":["ZUSD",0,10]}') == 6
        assert tour.fail('{"id":1,"method":"server.auth","params":["a.b.c","web"]}') == 11
        hold_everything(tour)
        ask_everything(tour)
        have_a_user(tour)
        for family in ("kline", "price", "state", "today", "deals", "depth", "order", "asset"):
            tour.ask(f"{family}.unsubscribe")
        assert tour.seen == names_of(VIABTC)


def test_the_examples_of_the_page_are_in_it() -> None:
    """Those of VIABTC.md with a direction, or alone on a line."""
    text = (ROOT / "docs/VIABTC.md").read_text()
    said = re.findall(r"^([<>]) (.*)$", text, re.M)
    said += [(">", line) for line in re.findall(r"^\{\"id\".*\}$", text, re.M)]
    assert len(said) >= 6
    for direction, line in said:
        assert kinds(line, CLIENT if direction == ">" else SERVER, VIABTC), line


# -- administrators -------------------------------------------------------------------------------


def test_every_request_of_administrators_is_in_the_document() -> None:
    """And none that the code does not know."""
    asked = {
        message["$ref"].rpartition("/")[2]
        for operation in operations(ADMIN).values()
        if operation["action"] == "receive"
        for message in operation["messages"]
    }
    assert asked == {*requests.EVENTS, requests.PING}


@pytest.mark.parametrize(
    ("text", "sender"),
    [
        ('{"event":"dance"}', CLIENT),
        ('{"event":"tail"}', CLIENT),
        ('{"event":"tail","conn":"x"}', CLIENT),
        ('{"event":"disconnect"}', CLIENT),
        ('{"event":"disconnect","uid":"A","conn":"1-1"}', CLIENT),
        ('{"success":{"message":"overview"}}', SERVER),
        ('{"success":{"message":"untail","more":1}}', SERVER),
        ('{"event":"tail","conn":"1-1"}', SERVER),
    ],
)
def test_what_is_wrong_is_no_administrators_message(text: str, sender: str) -> None:
    """As above."""
    assert not kinds(text, sender, ADMIN)


class AdminTour:
    """An administrator; all that is sent and received is looked up in the document.

    Attributes:
        seen: names of the messages that went over the wire.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self.seen: set[str] = set()

    def ask(self, message: Any, name: str) -> Any:
        """Return the reply to a request, which must be of this name."""
        text = message if isinstance(message, str) else json.dumps(message)
        self.seen.update(kinds(text, CLIENT, ADMIN))
        self.client.send(text)
        return self.expect(name)

    def expect(self, name: str) -> Any:
        """Return the next message of a name; those before it are looked up too."""
        while True:
            text = self.client.receive()
            [found] = kinds(text, SERVER, ADMIN)
            self.seen.add(found)
            if found == name:
                return text if name == "pong" else json.loads(text)


@pytest.fixture
def two_workers() -> Iterator[Server]:
    """Two workers, with administrators."""
    env = {
        "RANGO_ADMIN_ROLES": "admin",
        "RANGO_ADMIN_LOGIN_S": "60",
        "RANGO_WORKERS": "2",
        "RANGO_PING_INTERVAL_S": "1",
        "RANGO_PONG_TIMEOUT_S": "2",
    }
    with start_gateway(env=env) as server:
        wait_for(lambda: len(server.workers()) == 2, what="both workers")
        wait_for(lambda: server.log().count("consuming") == 2, what="both workers' sources")
        yield server


def test_a_tour_of_the_administrators_path(two_workers: Server) -> None:
    """Every request, reply and notice is in the document, and nothing is there that never comes."""
    server = two_workers
    with contextlib.ExitStack() as stack:
        tour = AdminTour(stack.enter_context(server.connect("/admin/ws")))
        tour.ask({"event": "overview", "id": 1}, "error")
        tour.ask("ping", "pong")
        tour.ask({"event": "dance"}, "error")
        token = server.token(uid="BOSS", role="admin")
        tour.ask({"event": "auth", "token": token, "id": 2}, "authenticated")
        for number in range(20):
            path = "/private?stream=a.ob-inc"
            stack.enter_context(server.connect(path, server.token(uid=f"U{number}")))
        server.publish("public.a.ob-snap", '{"asks":[],"bids":[],"sequence":1}')
        server.publish("public.a.ob-inc", '{"asks":["1","1"],"sequence":2}')

        def counted() -> bool:
            told = tour.ask({"event": "overview"}, "overviewed")["success"]
            return bool(told["books"] and told["streams"] and len(told["workers"]) == 2)

        wait_for(counted, what="both workers' books")
        own = tour.ask({"event": "overview"}, "overviewed")["success"]["pid"]
        rows = tour.ask({"event": "connections", "id": 3}, "connectionsFound")
        found = [row["conn"] for row in rows["success"]["connections"] if row["uid"] != "BOSS"]
        other = next(conn for conn in found if not conn.startswith(f"{own}-"))
        tour.ask({"event": "connections", "uid": "U1"}, "connectionsFound")
        tour.ask({"event": "disconnect", "uid": "U1", "id": 4}, "disconnected")
        tour.ask({"event": "tail", "conn": other, "id": 5}, "tailed")
        server.publish("public.a.ob-inc", '{"asks":["1","2"],"sequence":3}')
        tour.expect("tailRecords")
        tour.ask({"event": "untail"}, "untailed")
        tour.ask({"event": "tail", "conn": "1-1"}, "error")
        tour.ask({"event": "tail", "conn": other}, "tailed")
        os.kill(int(other.partition("-")[0]), signal.SIGKILL)
        tour.expect("tailLost")
        soon = server.token(uid="BOSS", role="admin", exp=int(time.time()) + 4)
        tour.ask({"event": "auth", "token": soon}, "authenticated")
        tour.expect("authExpiring")
    assert tour.seen == names_of(ADMIN)
