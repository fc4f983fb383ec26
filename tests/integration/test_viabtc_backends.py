"""Whom the dialect asks: services that know tokens and signatures, and backends over AMQP and HTTP.

All are real: a consumer at the real broker, HTTP servers on sockets.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Callable, Iterator
from urllib.parse import parse_qs, urlsplit

import amqp
import pytest
from marketdata_worker import start_marketdata
from support import (
    HOST,
    Relay,
    Server,
    broker_address,
    free_port,
    make_token,
    publish,
    start_gateway,
    wait_for,
)
from viabtc_client import ViabtcClient

INVALID = (1, "invalid argument")
INTERNAL = (2, "internal error")
BUSY = (3, "service unavailable")
TIMEOUT = (5, "service timeout")
OK = {"status": "success"}
SLOW_S = 8.0
LATE_S = 4  # a backend that takes longer is late; the others are quick enough on a busy machine


class Consumer:
    """Answers questions from a queue of its own, each in a thread.

    Attributes:
        queue: its name.
        asked: the questions, as they came.
    """

    def __init__(self, answer: Callable[[dict[str, Any]], Any]) -> None:
        self.queue = f"test.rpc.{uuid.uuid4().hex[:12]}"
        self.asked: list[dict[str, Any]] = []
        self._answer = answer
        self._is_over = False
        self._connection = self._connect()
        self._replies = self._connect()
        self._lock = threading.Lock()
        channel = self._connection.channel()
        channel.queue_declare(self.queue, exclusive=True, auto_delete=True)
        channel.basic_consume(self.queue, no_ack=True, callback=self._on_question)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @staticmethod
    def _connect() -> Any:
        broker = broker_address()
        connection = amqp.Connection(
            host=f"{broker.host}:{broker.port}",
            userid=broker.user,
            password=broker.password,
            virtual_host=broker.vhost,
            connect_timeout=30,
        )
        connection.connect()
        return connection

    def _run(self) -> None:
        while not self._is_over:
            with contextlib.suppress(TimeoutError):
                self._connection.drain_events(timeout=0.1)

    def _on_question(self, message: Any) -> None:
        body = message.body if isinstance(message.body, str) else message.body.decode()
        question = json.loads(body)
        self.asked.append(question)
        threading.Thread(target=self._reply, args=(message, question), daemon=True).start()

    def _reply(self, message: Any, question: dict[str, Any]) -> None:
        said = self._answer(question)
        text = said if isinstance(said, str) else json.dumps(said)
        reply = amqp.Message(text, correlation_id=message.properties["correlation_id"])
        # one that was slow answers nobody when the tests are over
        with self._lock, contextlib.suppress(amqp.AMQPError, OSError):
            channel = self._replies.channel()
            channel.basic_publish(reply, exchange="", routing_key=message.properties["reply_to"])
            channel.close()

    def stop(self) -> None:
        """End it."""
        self._is_over = True
        self._thread.join(30)
        self._connection.close()
        self._replies.close()


def engine(question: dict[str, Any]) -> Any:
    """Answer as an engine does."""
    method, params = question["method"], question["params"]
    if "slow" in params or "SLOW" in params:
        time.sleep(SLOW_S)
    if "odd" in params:
        return "this is no JSON"
    if "unknown" in params:
        return {"error": {"code": 1, "message": "invalid argument"}, "result": None}
    if method == "kline.query":
        return {"error": None, "result": [[params[1], "1", "2", "3", "0", "9", "8", params[0]]]}
    if method == "price.query":
        return '{\n    "error": null,\n    "result": "7000.00"\n}'  # as with "debug": true
    if method == "asset.query":
        names = params or ["BTC", "BCH"]
        held = {"available": question["uid"], "freeze": "0"}
        return {"error": None, "result": dict.fromkeys(names, held)}
    return {"error": None, "result": {"said": question}}


@pytest.fixture(scope="module")
def consumer() -> Iterator[Consumer]:
    """Run a consumer."""
    consumer = Consumer(engine)
    yield consumer
    consumer.stop()


class Service:
    """Knows tokens and signatures, and answers questions by POST.

    Attributes:
        asked: path, query and header of what it was asked about tokens and signatures.
        posted: questions.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, list[str]], str | None]] = []
        self.posted: list[dict[str, Any]] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._send(service.identify(self.path, self.headers.get("Authorization")))

            def do_POST(self) -> None:
                question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                service.posted.append(question)
                self._send(engine(question))

            def _send(self, said: Any) -> None:
                data = json.dumps(said).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                pass

        class QuietServer(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                """A gateway that waits no longer hangs up."""

        self._server = QuietServer((HOST, 0), Handler)
        self.url = f"http://{HOST}:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def identify(self, path: str, header: str | None) -> Any:
        """Say whose a token or signature is."""
        parts = urlsplit(path)
        query = parse_qs(parts.query)
        self.asked.append((parts.path, query, header))
        word = query.get("access_id", [header])[0]
        if word == "slow":
            time.sleep(SLOW_S)
        if word and word.isdigit():
            return {"code": 0, "message": None, "data": {"user_id": int(word)}}
        return {"code": 12, "message": "key is unknown", "data": None}

    def stop(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """Run a service."""
    service = Service()
    yield service
    service.stop()


@pytest.fixture(scope="module")
def server(consumer: Consumer, service: Service) -> Iterator[Server]:
    """Run a gateway that asks both."""
    rows = [
        f"*.query={consumer.queue}",
        f"order.history={service.url}/rpc",
        "asset.history=test.rpc.nobody",
    ]
    env = {
        "RANGO_VIABTC": "on",
        "RANGO_VIABTC_RPC": ",".join(rows),
        "RANGO_VIABTC_RPC_CACHE_S": "10",
        "RANGO_VIABTC_RPC_TIMEOUT_S": str(LATE_S),
        "RANGO_AUTH_TIMEOUT_S": str(LATE_S),
        "RANGO_VIABTC_PENDING": "3",
        "RANGO_AUTH_URL": f"{service.url}/auth",
        "RANGO_SIGN_URL": f"{service.url}/sign?from=ws",
        "LOG_LEVEL": "debug",
    }
    with start_gateway(env=env) as server:
        wait_for(lambda: server.metric("rango_rpc_connected") == 1, what="the connection")
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[ViabtcClient]:
    """Connect a client."""
    with ViabtcClient(server) as client:
        yield client


# -- who it is ----------------------------------------------------------------------------


def test_a_token_is_asked_about_as_it_is(client: ViabtcClient, service: Service) -> None:
    """No word is put before it; a refusal is told in the service's text."""
    assert client.ask("server.auth", "1234567", "web") == OK
    assert ("/auth", {}, "1234567") in service.asked
    assert client.fail("server.auth", "nobody", "web") == (11, "key is unknown")


def test_a_service_that_is_late(client: ViabtcClient) -> None:
    """Code 5, and the connection lives on."""
    assert client.fail("server.auth", "slow", "web") == TIMEOUT
    assert client.fail("server.sign", "slow", "signature", 1) == TIMEOUT


def test_a_jwt_is_asked_of_nobody(client: ViabtcClient, service: Service) -> None:
    """A key knows it."""
    before = len(service.asked)
    assert client.ask("server.auth", make_token({"uid": "5"}), "web") == OK
    assert len(service.asked) == before


def test_a_signature(server: Server, client: ViabtcClient, service: Service) -> None:
    """Its key's name and the time go into the URL, it itself into the header, each time anew."""
    for _ in range(2):
        assert client.ask("server.sign", "77", "a signature", 1500000000000) == OK
    query = {"from": ["ws"], "access_id": ["77"], "tonce": ["1500000000000"]}
    assert service.asked.count(("/sign", query, "a signature")) == 2
    assert client.ask("asset.query", "BTC") == {"BTC": {"available": "77", "freeze": "0"}}
    assert client.fail("server.sign", "nobody", "a signature", 1) == (11, "key is unknown")
    assert server.metric("rango_signatures_total", outcome="good") >= 2


def test_nothing_secret_is_logged(server: Server, client: ViabtcClient) -> None:
    """Neither tokens nor signatures nor keys' names, even at debug."""
    client.ask("server.auth", "918273645", "web")
    client.ask("server.sign", "564738291", "hush-hush", 1)
    client.fail("server.sign", "key-of-mine", "hush-hush", 1)
    log = server.log()
    assert "hush-hush" not in log
    assert "key-of-mine" not in log


def test_services_that_are_not_there() -> None:
    """Code 2."""
    url = f"http://{HOST}:{free_port()}/"
    env = {"RANGO_VIABTC": "on", "RANGO_AUTH_URL": url, "RANGO_SIGN_URL": url}
    env["RANGO_VIABTC_RPC"] = f"*.query={url}"
    with start_gateway(env=env) as server, ViabtcClient(server) as client:
        assert client.fail("server.auth", "token", "web") == INTERNAL
        assert client.fail("server.sign", "id", "signature", 1) == INTERNAL
        assert client.fail("price.query", "BTCBCH") == INTERNAL


def test_one_that_waits_holds_up_nobody_else(server: Server) -> None:
    """Only what the same client sends behind it waits."""
    with ViabtcClient(server) as slow, ViabtcClient(server) as quick:
        late = slow.send("server.auth", "slow", "web")
        behind = slow.send("server.ping")
        started = time.monotonic()
        assert quick.ask("server.ping") == "pong"
        assert time.monotonic() - started < LATE_S
        assert slow.reply(late)["error"]["code"] == 5
        assert slow.reply(behind)["result"] == "pong"


# -- questions ----------------------------------------------------------------------------


def test_a_question_over_amqp(client: ViabtcClient, consumer: Consumer) -> None:
    """With the name of the market's streams; the client's own word comes back."""
    assert client.ask("kline.query", "BTCBCH", 100, 200, 60) == [
        [100, "1", "2", "3", "0", "9", "8", "BTCBCH"]
    ]
    assert {"method": "kline.query", "params": ["btcbch", 100, 200, 60]} in consumer.asked


def test_an_answer_on_many_lines(client: ViabtcClient) -> None:
    """Is passed on as it is."""
    assert client.ask("price.query", "BTCBCH") == "7000.00"


def test_the_users_own(client: ViabtcClient, consumer: Consumer, service: Service) -> None:
    """The user goes along; by AMQP or HTTP, as the table says."""
    client.ask("server.auth", "1234567", "web")
    assert client.ask("asset.query") == {
        "BTC": {"available": "1234567", "freeze": "0"},
        "BCH": {"available": "1234567", "freeze": "0"},
    }
    question = {"method": "order.query", "params": ["btcbch", 0, 10], "uid": "1234567"}
    assert client.ask("order.query", "BTCBCH", 0, 10) == {"said": question}
    params = ["btcbch", 0, 0, 0, 10, 0]
    question = {"method": "order.history", "params": params, "uid": "1234567"}
    assert client.ask("order.history", "BTCBCH", 0, 0, 0, 10, 0) == {"said": question}
    assert service.posted[-1] == question


def test_errors_of_backends(client: ViabtcClient) -> None:
    """Its own code is passed on; no answer, no JSON and no such queue have theirs."""
    assert client.fail("price.query", "UNKNOWN") == INVALID
    assert client.fail("price.query", "ODD") == INTERNAL
    assert client.fail("price.query", "SLOW") == TIMEOUT
    client.ask("server.auth", "1", "web")
    assert client.fail("asset.history", "BTC", "trade", 0, 0, 0, 10) == INTERNAL


def test_the_same_question_is_asked_once(server: Server, consumer: Consumer) -> None:
    """For all who wait for it, and for a while."""
    consumer.asked.clear()
    with ViabtcClient(server) as one, ViabtcClient(server) as other:
        ids = one.send("today.query", "ONCE"), other.send("today.query", "ONCE")
        assert one.reply(ids[0])["result"] == other.reply(ids[1])["result"]
        one.ask("today.query", "ONCE")
    assert len([q for q in consumer.asked if q["params"] == ["once"]]) == 1
    assert server.metric("rango_rpc_questions_total", outcome="cached") >= 1


def test_later_replies_overtake_and_too_many_questions_are_refused(client: ViabtcClient) -> None:
    """A client has a few questions at once, and the rest goes on meanwhile."""
    client.ask("server.auth", "1", "web")
    waiting = [client.send("asset.query", "SLOW") for _ in range(3)]
    assert client.fail("asset.query", "SLOW") == BUSY
    assert client.ask("server.ping") == "pong"
    for id in waiting:
        assert client.reply(id)["error"]["code"] == 5
    assert client.ask("asset.query", "BTC")


def test_a_reply_for_the_former_user_is_kept_back(client: ViabtcClient) -> None:
    """Who became somebody else meanwhile gets an error."""
    client.ask("server.auth", "1", "web")
    first = client.send("order.query", "SLOW", 0, 10)
    client.ask("server.auth", "2", "web")
    said = client.reply(first)
    assert said["error"]["code"] in (5, 6)


def test_a_balance_without_an_amount_is_asked_for(server: Server, client: ViabtcClient) -> None:
    """As accessws does for the engine's own events."""
    client.ask("server.auth", "31", "web")
    client.ask("asset.subscribe", "BTC")
    server.publish("private.31.balance", json.dumps([1.5, 31, "BTC", "deposit", "1"]))
    assert client.push("asset.update") == [{"BTC": {"available": "31", "freeze": "0"}}]


def test_the_broker_goes_and_comes_back(consumer: Consumer) -> None:
    """Code 2 meanwhile; then questions are answered again."""
    relay = Relay()
    relay.open()
    env = {
        "RANGO_VIABTC": "on",
        "RANGO_AMQP_URL": relay.url,
        "RANGO_VIABTC_RPC": f"price.query={consumer.queue}",
        "RANGO_VIABTC_RPC_CACHE_S": "0",
    }
    with start_gateway(env=env) as server, ViabtcClient(server) as client:
        wait_for(lambda: server.metric("rango_rpc_connected") == 1, what="the connection")
        assert client.ask("price.query", "BTCBCH") == "7000.00"
        waiting = client.send("price.query", "SLOW")
        assert client.ask("server.ping") == "pong"
        relay.cut()
        assert client.reply(waiting)["error"]["code"] in (2, 5)
        wait_for(lambda: server.metric("rango_rpc_connected") == 0, what="the loss")
        assert client.fail("price.query", "BTCBCH") == INTERNAL
        relay.open()
        wait_for(lambda: server.metric("rango_rpc_connected") == 1, what="the connection")
        assert client.ask("price.query", "BTCBCH") == "7000.00"
        assert server.metric("rango_rpc_connects_total") >= 2
    relay.cut()


# -- beside `rango marketdata` ---------------------------------------------------------------------


def test_a_shop_of_the_gateway_and_its_market_data(tmp_path: Path) -> None:
    """Trades are all that is published: candles, prices and states come of them, both ways."""
    exchange, queue = f"test.{uuid.uuid4().hex[:12]}", f"test.{uuid.uuid4().hex[:12]}.rpc"
    methods = ("kline.query", "deals.query", "price.query", "state.query", "today.query")
    env = {
        "RANGO_VIABTC": "on",
        "RANGO_VIABTC_RPC": ",".join(f"{method}={queue}" for method in methods),
    }
    with contextlib.ExitStack() as stack:
        gateway = stack.enter_context(start_gateway(exchange=exchange, env=env))
        own = {"RANGO_MARKETDATA_RPC_QUEUE": queue}
        stack.enter_context(start_marketdata(tmp_path, exchange=exchange, **own))
        client = stack.enter_context(ViabtcClient(gateway))
        assert client.ask("kline.subscribe", "BTCUSD", 60) == OK
        assert client.ask("price.subscribe", "BTCUSD") == OK
        now = int(time.time())
        for number, price in enumerate(("10", "12", "9", "11"), 1):
            trade = {"tid": number, "taker_type": "buy", "date": now, "price": price, "amount": "2"}
            publish(exchange, "public.btcusd.trades", json.dumps({"trades": [trade]}))
        seen: dict[str, Any] = {}
        while seen.get("price.update", ["", ""])[1] != "11" or not _is_whole(seen):
            said = client.read()
            seen[said.get("method", "")] = said.get("params")
        candle = seen["kline.update"][0]
        assert candle[1:5] == ["10", "11", "12", "9"]  # open, close, high, low
        assert candle[7] == "BTCUSD"
        rows = client.ask("kline.query", "BTCUSD", now - 86_400, now + 60, 86_400)
        assert [row[1:6] for row in rows][-1] == ["10", "11", "12", "9", "8"]
        assert client.ask("price.query", "BTCUSD") == "11"
        assert client.ask("state.query", "BTCUSD", 3600)["last"] == "11"


def _is_whole(seen: dict[str, Any]) -> bool:
    return bool(seen.get("kline.update")) and float(seen["kline.update"][0][5]) == 8
