"""RANGO_BINDINGS with the real broker: a queue gets what its clients hold, and no more."""

from __future__ import annotations

import contextlib
from typing import Iterator

from support import Client, Relay, Server, broker_channel, start_gateway, wait_for

KEPT_S = "0"


def following(**env: str) -> contextlib.AbstractContextManager[Server]:
    """Run a gateway whose bindings follow its clients."""
    settings = {"RANGO_BINDINGS": "auto", "RANGO_BINDINGS_KEEP_S": KEPT_S, **env}
    return start_gateway(env=settings)


def received(server: Server, scope: str = "public") -> float:
    """Return the number of messages that the broker sent."""
    return server.metric("rango_messages_received_total", scope=scope)


def bound(server: Server, count: int) -> None:
    """Wait until so many keys are bound, beside the one that always is."""
    wait_for(lambda: server.metric("rango_bindings") == count + 1, what=f"{count} bindings")


@contextlib.contextmanager
def holding(server: Server, *names: str, uid: str = "") -> Iterator[Client]:
    """Hold streams, for which a market, user or prefix is bound by now."""
    before = server.metric("rango_bindings")
    token = server.token(uid=uid, role="admin") if uid else None
    with server.connect("/public?stream=" + ",".join(names), token) as client:
        client.receive()
        wait_for(lambda: server.metric("rango_bindings") > before, what="a new binding")
        # a look-up by the broker behind it: what is published now finds the binding
        broker_channel().queue_declare("", exclusive=True, auto_delete=True)
        yield client


def test_only_the_markets_that_are_held_come() -> None:
    """Of two markets one is held: the other's messages stay in the broker."""
    with following() as server, holding(server, "m1.trades") as client:
        for number in range(3):
            server.publish("public.m2.trades", str(number))
            server.publish("public.m1.trades", str(number))
        assert [client.receive() for _ in range(3)] == [
            f'{{"m1.trades":{number}}}' for number in range(3)
        ]
        assert received(server) == 3


def test_tickers_of_all_markets_always_come() -> None:
    """They are few, and a client may join at any time."""
    with following() as server, server.connect("/public?stream=global.tickers") as client:
        client.receive()
        server.publish("public.global.tickers", '{"old":1}')
        server.publish("global.tickers", '{"a":1}')
        assert client.receive_json()["global.tickers"] in ({"a": 1}, {"old": 1})


def test_a_user_and_a_prefix_are_bound() -> None:
    """Private and prefixed streams follow like public ones."""
    with following(RANGO_RBAC_ADMIN="admin") as server:
        with holding(server, "order", uid="ID7") as client:
            server.publish("private.ID8.order", "8")
            server.publish("private.ID7.order", "7")
            assert client.receive() == '{"order":7}'
            assert received(server, "private") == 1
        bound(server, 0)
        with holding(server, "admin.btc.sys", uid="ID1") as client:
            server.publish("admin.btc.sys", "1")
            assert client.receive() == '{"btc.sys":1}'


def test_what_nobody_holds_any_more_is_unbound() -> None:
    """After a while, and what is published then does not come."""
    with following() as server:
        with holding(server, "m1.trades"):
            bound(server, 1)
        bound(server, 0)
        with holding(server, "m2.trades") as client:
            server.publish("public.m1.trades", "1")
            server.publish("public.m2.trades", "2")
            assert client.receive() == '{"m2.trades":2}'
            assert received(server) == 1


def test_a_book_goes_on_while_nobody_holds_it() -> None:
    """A newcomer gets all increments since the snapshot, also those of the meantime."""
    with following() as server:
        with holding(server, "m1.ob-inc") as client:
            server.publish("public.m1.ob-snap", '{"sequence":1}')
            server.publish("public.m1.ob-inc", '{"sequence":2}')
            client.receive_until(lambda text: '"sequence":2' in text)
        wait_for(lambda: not server.metric("rango_hub_clients_count"), what="nobody there")
        server.publish("public.m1.ob-inc", '{"sequence":3}')
        wait_for(lambda: received(server) == 3, what="the increment")
        with server.connect("/public?stream=m1.ob-inc") as client:
            texts = [client.receive() for _ in range(3)]
        assert [text.partition('"sequence":')[2][0] for text in texts] == ["1", "2", "3"]


def test_more_than_may_be_bound_are_bound_as_a_whole() -> None:
    """A client that makes up markets costs no more than `#` does."""
    with following(RANGO_BINDINGS_MAX="5") as server:
        names = [f"made-up-{number}.trades" for number in range(30)]
        with server.connect("/public?stream=" + ",".join(names)) as client:
            client.receive()
            bound(server, 1)
            server.publish("public.made-up-7.trades", "7")
            assert client.receive() == '{"made-up-7.trades":7}'


def test_bindings_come_back_with_the_exchange() -> None:
    """Deleted and declared again, it has none of them, and the broker says nothing."""
    with following() as server, holding(server, "m1.trades") as client:
        broker_channel().exchange_delete(server.exchange)
        broker_channel().exchange_declare(
            server.exchange, "topic", durable=False, auto_delete=False
        )

        def arrives() -> bool:
            server.publish("public.m1.trades", "1")
            with contextlib.suppress(TimeoutError):
                return client.receive(0.3) == '{"m1.trades":1}'
            return False

        wait_for(arrives, what="a message by the new exchange")


def test_bindings_come_back_with_the_broker() -> None:
    """A new connection has a new queue with the same bindings."""
    relay = Relay()
    relay.open()
    env = {"RANGO_BINDINGS": "auto", "RANGO_AMQP_URL": relay.url}
    with start_gateway(env=env) as server, holding(server, "m1.trades") as client:
        relay.cut()
        wait_for(lambda: not server.is_answering("/readyz"), what="not ready")
        relay.open()
        server.wait_until("/readyz")
        server.publish("public.m2.trades", "2")
        server.publish("public.m1.trades", "1")
        assert client.receive() == '{"m1.trades":1}'
        assert received(server) == 1
    relay.cut()


def test_fixed_keys() -> None:
    """Whatever is held, only these come; and what instances are told by."""
    env = {"RANGO_BINDINGS": "public.*.trades, private.#", "RANGO_CONTROL_KEY": "ops.rango"}
    with start_gateway(env=env) as server:
        assert server.metric("rango_bindings") == 3
        with server.connect("/public?stream=m1.tickers,m1.trades") as client:
            client.receive()
            server.publish("public.m1.tickers", "1")
            server.publish("public.m1.trades", "2")
            assert client.receive() == '{"m1.trades":2}'


def test_nobody_comes_back_by_positions_of_half_a_history() -> None:
    """What nobody held was not received, so it could not be given to who comes back."""
    with following() as server, server.connect("/public?resume=1&stream=m1.trades") as client:
        assert client.receive_json()["success"]["at"] is None
