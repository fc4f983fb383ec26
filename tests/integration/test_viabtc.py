"""The protocol of ViaBTC's server, all 30 methods, over the real gateway and a real RabbitMQ.

Written from the description of that server, not from what the gateway answers.
"""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any, Iterator

import pytest
from support import Relay, Server, make_token, start_gateway, wait_for
from viabtc_client import ViabtcClient
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect as websockets_connect

OK = {"status": "success"}
INVALID = (1, "invalid argument")
INTERNAL = (2, "internal error")
NO_METHOD = (4, "method not found")
NO_AUTH = (6, "require authentication")
NOW = 1_700_000_000


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Run a gateway that speaks it."""
    with start_gateway(env={"RANGO_VIABTC": "on", "RANGO_VIABTC_DEPTH_INTERVAL_S": "0"}) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[ViabtcClient]:
    """Connect a client."""
    with ViabtcClient(server) as client:
        yield client


_markets = iter(range(10**6))


@pytest.fixture
def market() -> str:
    """Return a market that no other test uses."""
    return f"M{next(_markets)}BCH"


def of(market: str) -> str:
    """Return what the streams of a market begin with."""
    return market.lower()


def send(server: Server, key: str, body: Any) -> None:
    """Publish."""
    server.publish(key, json.dumps(body))


def trade(id: int, price: str = "7000", amount: str = "0.5", side: str = "buy") -> dict[str, Any]:
    """Return a trade as Peatio publishes it."""
    return {
        "trades": [
            {"tid": id, "taker_type": side, "date": NOW + id, "price": price, "amount": amount}
        ]
    }


def deal(id: int, price: str = "7000", amount: str = "0.5", side: str = "buy") -> dict[str, Any]:
    """Return the same as a client gets it."""
    return {"id": id, "time": NOW + id, "price": price, "amount": amount, "type": side}


def tickers(server: Server, **lasts: str) -> None:
    """Publish the tickers of some markets."""
    said = {
        of(market): {
            "last": last, "open": "6900", "high": "7100", "low": "6800", "amount": "12.5",
            "volume": "87500", "avg_price": "7000", "at": NOW,
        }
        for market, last in lasts.items()
    }  # fmt: skip
    send(server, "public.global.tickers", said)


def state(last: str) -> dict[str, Any]:
    """Return what such a ticker is as a state."""
    return {
        "period": 86400, "last": last, "open": "6900", "close": last, "high": "7100", "low": "6800",
        "volume": "12.5", "deal": "87500",
    }  # fmt: skip


def today(last: str) -> dict[str, Any]:
    """Return what it is as today."""
    return {
        "open": "6900", "last": last, "high": "7100", "low": "6800", "volume": "12.5",
        "deal": "87500",
    }  # fmt: skip


def token(uid: str) -> str:
    """Return a token of a user."""
    return make_token({"uid": uid})


# -- the envelope -------------------------------------------------------------------------


def test_ping_and_time(client: ViabtcClient) -> None:
    """The replies are those of the description, to the byte."""
    assert client.ask("server.ping") == "pong"
    assert client.raw == ['{"error":null,"result":"pong","id":1}']
    assert abs(client.ask("server.time") - time.time()) < 60


def test_every_method_is_known(client: ViabtcClient) -> None:
    """None of the 30 is answered with code 4."""
    verbs = ("subscribe", "unsubscribe", "query")
    families = ("kline", "price", "state", "today", "deals", "depth", "order", "asset")
    names = [f"{family}.{verb}" for family in families for verb in verbs]
    names += ["order.history", "asset.history"]
    names += ["server.ping", "server.time", "server.auth", "server.sign"]
    assert len(names) == 30
    for name in names:
        said = client.reply(client.send(name, {"no": "such"}))
        assert said["error"] is None or said["error"]["code"] in (1, 6), (name, said)


@pytest.mark.parametrize(
    ("message", "code", "id"),
    [
        ("{", 1, None),
        ("", 1, None),
        ("ping", 1, None),
        ("[]", 1, None),
        ("null", 1, None),
        ("[" * 4000, 1, None),
        ('{"id":"1","method":"server.ping","params":[]}', 1, None),
        ('{"id":true,"method":"server.ping","params":[]}', 1, None),
        ('{"id":1.5,"method":"server.ping","params":[]}', 1, None),
        ('{"id":99999999999999999999,"method":"server.ping","params":[]}', 1, None),
        ('{"method":"server.ping","params":[]}', 1, None),
        ('{"id":9,"method":7,"params":[]}', 1, 9),
        ('{"id":9,"params":[]}', 1, 9),
        ('{"id":9,"method":"server.ping"}', 1, 9),
        ('{"id":9,"method":"server.ping","params":{}}', 1, 9),
        ('{"id":9,"method":"order.put","params":[]}', 4, 9),
        ('{"id":9,"method":"\\ud800","params":[]}', 1, None),
    ],
)
def test_whatever_comes_is_answered(
    client: ViabtcClient, message: str, code: int, id: int | None
) -> None:
    """With an error, and the connection lives on."""
    client.client.send(message)
    said = client.reply(id)
    assert said["error"]["code"] == code
    assert client.ask("server.ping") == "pong"


def test_a_pong_echoes_what_the_ping_held(client: ViabtcClient) -> None:
    """As RFC 6455 wants it, and accessws does not."""
    assert client.client.connection.ping("payload").wait(30)


def test_unknown_methods_are_told(client: ViabtcClient) -> None:
    """They get code 4, which accessws has but never sends."""
    assert client.fail("no.such") == NO_METHOD


# -- market data --------------------------------------------------------------------------


def test_deals(server: Server, client: ViabtcClient, market: str) -> None:
    """Success, the last deals, then each as it comes, the newest first."""
    assert client.ask("deals.subscribe", market) == OK
    assert client.is_silent()
    send(server, f"public.{of(market)}.trades", trade(1))
    assert client.push("deals.update") == [market, [deal(1)]]
    both = {"trades": [*trade(2)["trades"], *trade(3, side="sell")["trades"]]}
    send(server, f"public.{of(market)}.trades", both)
    assert client.push("deals.update") == [market, [deal(3, side="sell"), deal(2)]]
    with ViabtcClient(server) as late:
        id = late.send("deals.subscribe", market)
        assert late.read() == {"error": None, "result": OK, "id": id}
        assert late.read() == {
            "method": "deals.update",
            "params": [market, [deal(3, side="sell"), deal(2), deal(1)]],
            "id": None,
        }
    assert client.ask("deals.unsubscribe") == OK
    send(server, f"public.{of(market)}.trades", trade(4))
    server.catch_up()
    assert client.is_silent()


def test_deals_query(server: Server, client: ViabtcClient, market: str) -> None:
    """The newest first, those after an id."""
    for id in range(1, 6):
        send(server, f"public.{of(market)}.trades", trade(id))
    server.catch_up()
    assert client.ask("deals.query", market, 2, 0) == [deal(5), deal(4)]
    assert client.ask("deals.query", market, 100, 3) == [deal(5), deal(4)]
    assert client.ask("deals.query", market, 100, 5) == []
    assert client.fail("deals.query", market, 10001, 0) == INVALID
    assert client.fail("deals.query", market, 10) == INVALID
    assert client.fail("deals.query", "NOSUCHMARKET", 10, 0) == INVALID


def test_deals_in_the_form_of_viabtc(server: Server, client: ViabtcClient, market: str) -> None:
    """An array as its engine puts it into Kafka."""
    client.ask("deals.subscribe", market)
    body = [NOW + 0.5, market, 1, 2, 3, 4, "7000", "2", "0", "0", 1, 77, "BTC", "BCH"]
    send(server, f"public.{of(market)}.trades", body)
    expected = {"id": 77, "time": NOW + 0.5, "price": "7000", "amount": "2", "type": "sell"}
    assert client.push("deals.update") == [market, [expected]]


def test_price(server: Server, client: ViabtcClient, market: str) -> None:
    """Pushed when it changed, and only to who holds the market."""
    other = f"{market[:-1]}X"
    assert client.ask("price.subscribe", market) == OK
    tickers(server, **{market: "7000.00", other: "1"})
    assert client.push("price.update") == [market, "7000.00"]
    tickers(server, **{market: "7000.00", other: "2"})
    tickers(server, **{market: "7001.00", other: "3"})
    assert client.push("price.update") == [market, "7001.00"]
    assert client.ask("price.query", market) == "7001.00"
    assert client.fail("price.query", "NOSUCH") == INVALID
    assert client.ask("price.subscribe", other) == OK
    assert client.push("price.update") == [other, "3"]
    tickers(server, **{market: "7002.00", other: "3"})
    server.catch_up()
    assert client.is_silent()
    assert client.ask("price.unsubscribe") == OK


def test_state(server: Server, client: ViabtcClient, market: str) -> None:
    """The last day, pushed when it changed."""
    assert client.ask("state.subscribe", market) == OK
    tickers(server, **{market: "7000"})
    assert client.push("state.update") == [market, state("7000")]
    assert client.ask("state.query", market, 86400) == state("7000")
    assert client.fail("state.query", market, 86400 * 8) == INVALID
    assert client.fail("state.query", market, 3600) == INTERNAL  # nobody was set to answer that
    assert client.ask("state.unsubscribe") == OK


def test_today(server: Server, client: ViabtcClient, market: str) -> None:
    """Pushed when it changed."""
    assert client.ask("today.subscribe", market) == OK
    tickers(server, **{market: "7000"})
    assert client.push("today.update") == [market, today("7000")]
    assert client.ask("today.query", market) == today("7000")
    assert client.ask("today.unsubscribe") == OK


def test_a_ticker_of_a_market_by_itself(server: Server, client: ViabtcClient, market: str) -> None:
    """It serves as well as those of all markets together."""
    client.ask("price.subscribe", market)
    send(server, f"public.{of(market)}.tickers", {"last": "5", "open": "4"})
    assert client.push("price.update") == [market, "5"]


def test_kline(server: Server, client: ViabtcClient, market: str) -> None:
    """Open, close, high, low; the interval is not named."""
    assert client.ask("kline.subscribe", market, 60) == OK
    send(server, f"public.{of(market)}.kline-1m", [NOW, 7000.0, 8100.0, 6800.0, 8000.0, 0.00001])
    candle = [NOW, "7000.0", "8000.0", "8100.0", "6800.0", "0.00001", "0", market]
    assert client.push("kline.update") == [candle]
    with ViabtcClient(server) as late:
        late.ask("kline.subscribe", market, 60)
        assert late.push("kline.update") == [candle]
    assert client.ask("kline.subscribe", market, 3600) == OK  # instead of the other
    send(server, f"public.{of(market)}.kline-1m", [NOW, 1, 1, 1, 1, 1])
    send(server, f"public.{of(market)}.kline-1h", [NOW, 1, 2, 0, 1, 9, 8])
    assert client.push("kline.update") == [[NOW, "1", "1", "2", "0", "9", "8", market]]
    assert client.ask("kline.unsubscribe") == OK


def test_kline_query(server: Server, client: ViabtcClient, market: str) -> None:
    """Candles that were published, in their order."""
    for minute in range(4):
        body = [NOW + 60 * minute, 1, 2, 0, minute, 1]
        send(server, f"public.{of(market)}.kline-1m", body)
    server.catch_up()
    found = client.ask("kline.query", market, NOW + 60, NOW + 120, 60)
    assert [candle[:3] for candle in found] == [[NOW + 60, "1", "1"], [NOW + 120, "1", "2"]]
    assert client.fail("kline.query", market, NOW, NOW + 60, 61) == INVALID
    assert client.fail("kline.query", market, NOW + 60, NOW, 60) == INVALID


def test_several_klines_name_their_interval(
    server: Server, client: ViabtcClient, market: str
) -> None:
    """The extension: as many pairs as wanted, and pushes that tell them apart."""
    assert client.ask("kline.subscribe", market, 60, market, 300) == OK
    send(server, f"public.{of(market)}.kline-5m", [NOW, 1, 1, 1, 1, 1])
    assert client.push("kline.update")[1:] == [market, 300]
    send(server, f"public.{of(market)}.kline-1m", [NOW, 1, 1, 1, 1, 1])
    assert client.push("kline.update")[1:] == [market, 60]


def book(server: Server, market: str, sequence: int = 1) -> None:
    """Publish a snapshot."""
    body = {
        "asks": [["8000", "9.6"], ["8001", "1"], ["8005", "2"]],
        "bids": [["7000", "0.1"], ["6999.5", "1"]],
        "sequence": sequence,
    }
    send(server, f"public.{of(market)}.ob-snap", body)


def level(server: Server, market: str, sequence: int, side: str, price: str, amount: str) -> None:
    """Publish an increment."""
    body = {side: [price, amount], "sequence": sequence}
    send(server, f"public.{of(market)}.ob-inc", body)


def test_depth(server: Server, client: ViabtcClient, market: str) -> None:
    """Success, the whole book, then what changed in the levels that are shown."""
    book(server, market)
    server.catch_up()
    id = client.send("depth.subscribe", market, 1, "0")
    assert client.read() == {"error": None, "result": OK, "id": id}
    whole = {"asks": [["8000", "9.6"]], "bids": [["7000", "0.1"]]}
    assert client.push("depth.update") == [True, whole, market]
    level(server, market, 2, "asks", "8000", "")
    changes = {"asks": [["8000", "0"], ["8001", "1"]]}
    assert client.push("depth.update") == [False, changes, market]
    level(server, market, 3, "asks", "8005", "5")  # not shown
    level(server, market, 4, "bids", "7000", "3")
    assert client.push("depth.update") == [False, {"bids": [["7000", "3"]]}, market]
    assert client.ask("depth.query", market, 1, "0") == {
        "asks": [["8001", "1"]],
        "bids": [["7000", "3"]],
    }
    assert client.ask("depth.unsubscribe") == OK
    level(server, market, 5, "bids", "7000", "4")
    server.catch_up()
    assert client.is_silent()


def test_merged_depth(server: Server, market: str) -> None:
    """Asks are merged upwards, bids downwards; steps come from a setting."""
    env = {"RANGO_VIABTC": "on", "RANGO_VIABTC_DEPTH_MERGES": "0,10"}
    with start_gateway(env=env) as server, ViabtcClient(server) as client:
        book(server, market)
        server.catch_up()
        assert client.ask("depth.query", market, 5, "10") == {
            "asks": [["8000", "9.6"], ["8010", "3"]],
            "bids": [["7000", "0.1"], ["6990", "1"]],
        }
        assert client.fail("depth.query", market, 5, "0.1") == INVALID


def test_depth_before_the_first_snapshot(server: Server, client: ViabtcClient, market: str) -> None:
    """Success, and the whole book when it comes."""
    assert client.ask("depth.subscribe", market, 5, "0") == OK
    assert client.is_silent()
    book(server, market)
    assert client.push("depth.update")[0] is True


@pytest.mark.parametrize(
    "params", [(7, "0"), (5, "0.3"), (5, 0), ("5", "0"), (5,), (5, "0", "X"), (True, "0")]
)
def test_depth_has_given_forms(client: ViabtcClient, market: str, params: tuple[Any, ...]) -> None:
    """Others are wrong."""
    assert client.fail("depth.subscribe", market, *params) == INVALID


def test_the_whole_book_comes_again_and_again(market: str) -> None:
    """Though nothing changed."""
    env = {"RANGO_VIABTC": "on", "RANGO_VIABTC_DEPTH_WHOLE_S": "1"}
    with start_gateway(env=env) as server, ViabtcClient(server) as client:
        book(server, market)
        server.catch_up()
        client.ask("depth.subscribe", market, 5, "0")
        first = client.push("depth.update")
        assert client.push("depth.update") == first
        assert client.push("depth.update") == first


def test_a_book_after_the_broker_was_away(market: str) -> None:
    """What was missed makes it unknown: it is shown whole with its next snapshot, and not before."""
    relay = Relay()
    relay.open()
    env = {"RANGO_VIABTC": "on", "RANGO_AMQP_URL": relay.url}
    with start_gateway(env=env) as server, ViabtcClient(server) as client:
        book(server, market)
        server.catch_up()
        client.ask("depth.subscribe", market, 1, "0")
        assert client.push("depth.update")[0] is True
        relay.cut()
        wait_for(lambda: server.get("/readyz").status == 503, what="the loss")
        level(server, market, 2, "asks", "8000", "")
        relay.open()
        wait_for(lambda: server.get("/readyz").status == 200, what="the broker")
        level(server, market, 3, "asks", "8001", "7")
        server.catch_up()
        assert client.is_silent()
        assert client.fail("depth.query", market, 1, "0") == INTERNAL
        snapshot = {"asks": [["8001", "7"]], "bids": [["7000", "0.1"]], "sequence": 3}
        send(server, f"public.{of(market)}.ob-snap", snapshot)
        whole = {"asks": [["8001", "7"]], "bids": [["7000", "0.1"]]}
        assert client.push("depth.update") == [True, whole, market]
        level(server, market, 4, "bids", "7000", "2")
        assert client.push("depth.update") == [False, {"bids": [["7000", "2"]]}, market]
    relay.cut()


# -- lists --------------------------------------------------------------------------------


def test_a_list_takes_the_place_of_the_one_before(
    server: Server, client: ViabtcClient, market: str
) -> None:
    """A second subscription gives the first one up; an empty list gives all up."""
    others = [f"{market[:-1]}{letter}" for letter in "XY"]
    client.ask("deals.subscribe", market, others[0])
    client.ask("deals.subscribe", others[1])
    for name in (market, *others):
        send(server, f"public.{of(name)}.trades", trade(1))
    assert client.push("deals.update")[0] == others[1]
    client.ask("deals.subscribe")
    send(server, f"public.{of(others[1])}.trades", trade(2))
    server.catch_up()
    assert client.is_silent()


def test_a_bad_entry_changes_nothing(server: Server, client: ViabtcClient, market: str) -> None:
    """All of a list is looked at first."""
    client.ask("deals.subscribe", market)
    assert client.fail("deals.subscribe", f"{market[:-1]}X", 7) == INVALID
    assert client.fail("deals.subscribe", "SIXTEEN_BYTES_XX") == INVALID
    send(server, f"public.{of(market)}.trades", trade(1))
    assert client.push("deals.update")[0] == market


def test_families_do_not_touch_one_another(
    server: Server, client: ViabtcClient, market: str
) -> None:
    """Who subscribes deals keeps the price."""
    client.ask("price.subscribe", market)
    client.ask("deals.subscribe", market)
    client.ask("deals.unsubscribe")
    tickers(server, **{market: "7"})
    assert client.push("price.update") == [market, "7"]


# -- a user's own -------------------------------------------------------------------------

PRIVATE = ["subscribe", "unsubscribe", "query"]


@pytest.mark.parametrize("method", [f"{f}.{v}" for f in ("order", "asset") for v in PRIVATE])
def test_ones_own_needs_a_user(client: ViabtcClient, method: str) -> None:
    """Code 6 before anybody authenticated."""
    assert client.fail(method) == NO_AUTH


def order(market: str, **more: Any) -> dict[str, Any]:
    """Return an order as Peatio publishes it."""
    return {
        "id": 7, "market": of(market), "kind": "bid", "side": "buy", "ord_type": "limit",
        "price": "7000", "avg_price": "0", "state": "wait", "origin_volume": "1.5",
        "remaining_volume": "1.5", "executed_volume": "0", "at": NOW, "created_at": NOW,
        "updated_at": NOW, "trades_count": 0, **more,
    }  # fmt: skip


def test_orders(server: Server, client: ViabtcClient, market: str) -> None:
    """Put, update, finish; of the markets in the list, and of this user."""
    assert client.ask("server.auth", token("41"), "web") == OK
    assert client.ask("order.subscribe", market) == OK
    send(server, "private.42.order", order(market))
    send(server, "private.41.order", order("OTHER"))
    send(server, "private.41.order", order(market))
    event, said = client.push("order.update")
    assert event == 1
    assert said == {
        "id": 7, "market": market, "source": "", "type": 1, "side": 2, "user": 41, "ctime": NOW,
        "mtime": NOW, "price": "7000", "amount": "1.5", "taker_fee": "0", "maker_fee": "0",
        "left": "1.5", "deal_stock": "0", "deal_money": "0", "deal_fee": "0",
    }  # fmt: skip
    partly = {"executed_volume": "0.5", "remaining_volume": "1", "avg_price": "6999"}
    send(server, "private.41.order", order(market, **partly))
    event, said = client.push("order.update")
    assert (event, said["left"], said["deal_money"]) == (2, "1", "3499.5")
    send(server, "private.41.order", order(market, **partly, state="cancel"))
    assert client.push("order.update")[0] == 3
    own = {"event": 3, "order": {"id": 9, "market": market, "left": "0.5"}, "stock": "BTC"}
    send(server, "private.41.order", own)
    assert client.push("order.update") == [3, own["order"]]
    assert client.ask("order.unsubscribe") == OK
    assert client.ask("order.subscribe") == OK  # an empty list is nothing
    send(server, "private.41.order", order(market))
    server.catch_up()
    assert client.is_silent()


def test_assets(server: Server, client: ViabtcClient) -> None:
    """One asset a push."""
    assert client.ask("server.auth", token("51"), "web") == OK
    assert client.ask("asset.subscribe", "BTC") == OK
    assert client.is_silent()
    balance = {"currency": "btc", "balance": "1.1", "locked": "9.9"}
    send(server, "private.51.balance", {**balance, "currency": "eth"})
    send(server, "private.51.balance", balance)
    assert client.push("asset.update") == [{"BTC": {"available": "1.1", "freeze": "9.9"}}]
    assert client.ask("asset.unsubscribe") == OK


def test_another_user_drops_the_former_ones_streams(
    server: Server, client: ViabtcClient, market: str
) -> None:
    """Orders and assets go, market data stays; the same user keeps all."""
    client.ask("server.auth", token("61"), "web")
    client.ask("order.subscribe", market)
    client.ask("deals.subscribe", market)
    client.ask("server.auth", token("61"), "web")
    send(server, "private.61.order", order(market))
    assert client.push("order.update")[0] == 1
    client.ask("server.auth", token("62"), "web")
    send(server, "private.61.order", order(market))
    send(server, "private.62.order", order(market))
    send(server, f"public.{of(market)}.trades", trade(1))
    assert client.push("deals.update")[0] == market


def test_a_token_that_is_none(client: ViabtcClient) -> None:
    """Code 11 with a word about why; wrong params are code 1."""
    code, text = client.fail("server.auth", "nonsense", "web")
    assert code == 11
    assert text
    assert client.fail("server.auth", "nonsense") == INVALID
    assert client.fail("server.auth", "nonsense", "s" * 32) == INVALID
    assert client.fail("server.auth", 7, "web") == INVALID
    assert client.fail("server.sign", "id", "signature", 0) == INVALID
    assert client.fail("server.sign", "id", "signature", 1) == INTERNAL  # no RANGO_SIGN_URL


def test_a_token_by_the_handshake(server: Server, market: str) -> None:
    """It counts here too."""
    with ViabtcClient(server, token=token("71")) as client:
        assert client.ask("order.subscribe", market) == OK


def test_what_no_backend_answers(client: ViabtcClient) -> None:
    """Where none is set, queries about one's own are code 2."""
    client.ask("server.auth", token("81"), "web")
    assert client.fail("order.query", "BTCBCH", 0, 101) == INTERNAL
    assert client.fail("order.query", "BTCBCH", 0, 102) == INVALID
    assert client.fail("order.history", "BTCBCH", 0, 0, 0, 10, 0) == INTERNAL
    assert client.fail("order.history", "BTCBCH", 0, 0, 0, 10, 3) == INVALID
    assert client.fail("asset.query") == INTERNAL
    assert client.fail("asset.history", "BTC", "deposit", 0, 0, 0, 10) == INTERNAL
    assert client.fail("asset.history", "BTC", "deposit", 0, 0, 0) == INVALID


# -- bindings -----------------------------------------------------------------------------


def test_only_what_is_held_is_received(market: str) -> None:
    """With RANGO_BINDINGS=auto the broker is asked for what views are made of."""
    env = {"RANGO_VIABTC": "on", "RANGO_BINDINGS": "auto", "RANGO_BINDINGS_KEEP_S": "0"}
    with start_gateway(env=env) as server, ViabtcClient(server) as client:
        none = server.metric("rango_bindings")

        def bound(more: int) -> None:
            wait_for(lambda: server.metric("rango_bindings") == none + more, what="bindings")

        client.ask("server.auth", token("1"), "web")
        client.ask("deals.subscribe", market)
        bound(1)
        client.ask("order.subscribe", market)
        bound(2)
        client.ask("price.subscribe", market)
        bound(3)  # for those who publish it as public.global.tickers
        send(server, f"public.{of(market)}.trades", trade(1))
        assert client.push("deals.update") == [market, [deal(1)]]
        send(server, "private.1.order", order(market))
        assert client.push("order.update")[0] == 1
        tickers(server, **{market: "7"})
        assert client.push("price.update") == [market, "7"]
        for family in ("deals", "order", "price"):
            client.ask(f"{family}.unsubscribe")
        bound(0)


# -- names and compression ----------------------------------------------------------------


def test_names_by_the_settings() -> None:
    """Markets, intervals and streams that are called otherwise."""
    env = {
        "RANGO_VIABTC": "on",
        "RANGO_VIABTC_CASE": "same",
        "RANGO_VIABTC_MARKETS": "BTCBCH=bch-btc",
        "RANGO_VIABTC_PERIODS": "60=1min",
        "RANGO_VIABTC_STREAMS": "deals=fills,kline=candle,order=orders",
    }
    with start_gateway(env=env) as server, ViabtcClient(server) as client:
        client.ask("server.auth", token("1"), "web")
        client.ask("deals.subscribe", "BTCBCH", "EthBCH")
        client.ask("kline.subscribe", "BTCBCH", 60)
        client.ask("order.subscribe", "BTCBCH")
        send(server, "public.bch-btc.fills", trade(1))
        assert client.push("deals.update") == ["BTCBCH", [deal(1)]]
        send(server, "public.EthBCH.fills", trade(2))
        assert client.push("deals.update") == ["EthBCH", [deal(2)]]
        send(server, "public.bch-btc.candle-1min", [NOW, 1, 1, 1, 1, 1])
        assert client.push("kline.update")[0][7] == "BTCBCH"
        send(server, "private.1.orders", {**order("BTCBCH"), "market": "bch-btc"})
        assert client.push("order.update")[1]["market"] == "BTCBCH"


def test_pushes_are_compressed_for_who_takes_that(market: str) -> None:
    """Once for all of them."""
    env = {"RANGO_VIABTC": "on", "RANGO_COMPRESSION": "on", "RANGO_COMPRESSION_MIN_BYTES": "1"}
    with start_gateway(env=env) as server, contextlib.ExitStack() as stack:
        client = stack.enter_context(websockets_connect(f"{server.url}/viabtc", proxy=None))
        assert client.response is not None
        assert "permessage-deflate" in client.response.headers["Sec-WebSocket-Extensions"]
        request = {"id": 1, "method": "deals.subscribe", "params": [market]}
        client.send(json.dumps(request))
        assert json.loads(client.recv(timeout=30))["result"] == OK
        send(server, f"public.{of(market)}.trades", trade(1))
        assert json.loads(client.recv(timeout=30))["params"] == [market, [deal(1)]]


# -- off ----------------------------------------------------------------------------------


def test_off_it_is_a_path_like_any_other() -> None:
    """Rango's protocol is spoken there."""
    with start_gateway() as server, server.connect("/viabtc?stream=a.b") as client:
        assert json.loads(client.receive())["success"]["streams"] == ["a.b"]
        client.send({"id": 1, "method": "server.ping", "params": []})
        assert "error" in json.loads(client.receive())


def test_a_drain_tells_to_come_back(market: str) -> None:
    """Close 1012, as everybody."""
    with start_gateway(env={"RANGO_VIABTC": "on"}) as server, ViabtcClient(server) as client:
        client.ask("deals.subscribe", market)
        server.process.terminate()
        with pytest.raises(ConnectionClosed) as closed:
            client.read()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
        wait_for(lambda: server.process.poll() is not None, what="the end")
