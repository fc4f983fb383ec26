"""Exchanges as shops have them: durable or not, or of another type by mistake."""

from __future__ import annotations

import uuid
from typing import Iterator

import pytest
from support import (
    HEALTHY,
    READY,
    broker_channel,
    start_gateway,
    wait_for,
)


@pytest.fixture
def exchange() -> Iterator[str]:
    """The name of an exchange that is deleted afterwards."""
    name = f"test.{uuid.uuid4().hex[:12]}"
    yield name
    broker_channel().exchange_delete(name)


@pytest.mark.parametrize("kind", ["direct", "fanout", "headers"])
def test_an_exchange_of_another_type_is_an_error(exchange: str, kind: str) -> None:
    """Not ready, with its name, its type and the cure, said once; and ready when it is cured."""
    channel = broker_channel()
    channel.exchange_declare(exchange, kind, auto_delete=False)
    with start_gateway(exchange=exchange, until=HEALTHY) as gateway:
        text = f"exchange '{exchange}' is of type {kind}, not topic"
        wait_for(lambda: text in gateway.get(READY).body, what="the reason")
        assert gateway.get(READY).status == 503
        wait_for(lambda: gateway.metric("rango_broker_failures_total") > 2, what="more attempts")
        assert gateway.log().count(text) == 1
        assert "RANGO_EXCHANGE" in gateway.log()
        assert gateway.metric("rango_broker_connected") == 0
        channel.exchange_delete(exchange)
        channel.exchange_declare(exchange, "topic", auto_delete=False)
        gateway.wait_until(READY)


def test_the_brokers_own_exchanges() -> None:
    """Names that begin with amq. are looked at like others."""
    with start_gateway(exchange="amq.topic") as gateway, gateway.connect("/?stream=a.b") as client:
        client.receive()
        gateway.publish("public.a.b", "1")
        assert client.receive() == '{"a.b":1}'
    with start_gateway(exchange="amq.direct", until=HEALTHY) as gateway:
        wait_for(lambda: "of type direct, not" in gateway.get(READY).body, what="the reason")


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("auto_delete", [True, False])
def test_a_topic_exchange_is_taken_as_it_is(
    exchange: str, durable: bool, auto_delete: bool
) -> None:
    """Only the type matters: whoever declared the rest had their reasons."""
    broker_channel().exchange_declare(exchange, "topic", durable=durable, auto_delete=auto_delete)
    with start_gateway(exchange=exchange) as gateway:
        with gateway.connect("/public?stream=a.b") as client:
            client.receive()
            gateway.publish("public.a.b", "1")
            assert client.receive() == '{"a.b":1}'
        assert "refuses" not in gateway.log()
