"""Coming back with a log: to any instance, over its restart, and what is said when it breaks."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any, Iterator

import pytest
from log_node import LogQueue
from rabbitmq_node import PrivateNode
from scene import STREAM, Login
from support import Client, Server, start_gateway, wait_for

EXCHANGE = "market.resume"


@pytest.fixture(scope="module")
def node() -> Iterator[PrivateNode]:
    """A broker with an exchange."""
    with PrivateNode() as node:
        with Login().connect(node.port) as connection:
            connection.channel().exchange_declare(EXCHANGE, "topic", auto_delete=False)
        yield node


@pytest.fixture
def queue(node: PrivateNode) -> Iterator[LogQueue]:
    """A log that is new."""
    queue = LogQueue(node, EXCHANGE)
    queue.declare()
    yield queue
    queue.delete()


@contextlib.contextmanager
def instance(node: PrivateNode) -> Iterator[Server]:
    """Run one of several gateways."""
    env = {
        "RANGO_LOG": "stream",
        "RANGO_AMQP_URL": node.amqp_url,
        "RANGO_PING_INTERVAL_S": "600",  # a silent client is told where it stands with a ping
        "RANGO_PONG_TIMEOUT_S": "700",
    }
    with start_gateway(exchange=EXCHANGE, env=env) as gateway:
        yield gateway


def publish(queue: LogQueue, numbers: range) -> None:
    """Publish numbers."""
    queue.publish([f'{{"n":{number}}}' for number in numbers])


def come(gateway: Server, since: str = "") -> Client:
    """Connect as a client that keeps positions."""
    back = f"&since={since}" if since else ""
    return gateway.connect(f"/public?resume=1&stream={STREAM}{back}")


def until_reply(client: Client) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the events before the reply, and the reply."""
    events: list[dict[str, Any]] = []
    while True:
        message = json.loads(client.receive())
        if "success" in message:
            return events, message["success"]
        events.append(message)


def numbers_of(events: list[dict[str, Any]]) -> list[int]:
    """Return what was published."""
    return [event[STREAM]["n"] for event in events]


def test_two_instances_give_the_same_positions(node: PrivateNode, queue: LogQueue) -> None:
    """Also when one has begun to read where another has not."""
    publish(queue, range(700))
    with instance(node) as first, instance(node) as second:
        clients = [come(first), come(second)]
        for client in clients:
            until_reply(client)
        publish(queue, range(700, 1000))
        seen = [[client.receive_json() for _ in range(300)] for client in clients]
        assert seen[0] == seen[1]
        assert all("at" in event for event in seen[0])


def test_a_client_comes_back_to_another_instance(node: PrivateNode, queue: LogQueue) -> None:
    """Which was started only afterwards: what was missed is in the log."""
    with instance(node) as first:
        client = come(first)
        until_reply(client)
        publish(queue, range(20))
        at = [client.receive_json() for _ in range(20)][-1]["at"]
    publish(queue, range(20, 520))
    with instance(node) as second, come(second, at) as client:
        missed, reply = until_reply(client)
        assert reply["recovered"] is True
        assert numbers_of(missed) == list(range(20, 520))
        publish(queue, range(520, 525))
        assert numbers_of([client.receive_json() for _ in range(5)]) == list(range(520, 525))


def test_offsets_that_are_used_again_are_another_history(
    node: PrivateNode, queue: LogQueue
) -> None:
    """Never another event under an old position."""
    with instance(node) as first:
        client = come(first)
        until_reply(client)
        publish(queue, range(20))
        at = [client.receive_json() for _ in range(20)][-1]["at"]
    queue.delete()
    queue.declare()
    publish(queue, range(100, 140))
    with instance(node) as second, come(second, at) as client:
        missed, reply = until_reply(client)
        assert missed == []
        assert reply["recovered"] is False
        assert reply["reason"] == "other_history"


def test_a_log_that_stalls_gives_events_without_positions(
    node: PrivateNode, queue: LogQueue
) -> None:
    """It is said before; positions from before and of afterwards do not belong together."""
    with instance(node) as gateway, come(gateway) as client:
        until_reply(client)
        publish(queue, range(5))
        at = [client.receive_json() for _ in range(5)][-1]["at"]
        queue.freeze()
        with Login().connect(node.port) as connection:
            queue.publish_unconfirmed(connection, ['{"n":5}'])
            wait_for(lambda: gateway.metric("rango_log_fallback") == 1, what="the fallback")
            notice = client.receive_json()
            assert notice == {"event": "position", "at": None, "reason": "gap"}
            live = client.receive_json()
            assert numbers_of([live]) == [5]
            assert "at" not in live
            with come(gateway, at) as other:
                _, reply = until_reply(other)
                assert reply["recovered"] is False
                assert reply["reason"] in ("no_log", "gap")
            queue.thaw()
            time.sleep(0.5)
            queue.publish_unconfirmed(connection, ['{"n":6}'])
            wait_for(lambda: gateway.metric("rango_log_fallback") == 0, what="the log again")
            publish(queue, range(7, 10))
        heard = [client.receive_json() for _ in range(5)]
        events = [message for message in heard if STREAM in message]
        assert numbers_of(events) == [6, 7, 8, 9]
        assert [message for message in heard if "event" in message] == [notice]
        assert all("at" in event for event in events[-3:])
        with come(gateway, events[-3]["at"]) as other:
            missed, reply = until_reply(other)
            assert numbers_of(missed) == [8, 9]
            assert reply["recovered"] is True
        with come(gateway, at) as other:
            _, reply = until_reply(other)
            assert (reply["recovered"], reply["reason"]) == (False, "gap")
