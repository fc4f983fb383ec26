"""The consumer without a RabbitMQ: kombu's memory transport, and a broker that is not there."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
from patched import run_patched

from rango_gevent.broker.consumer import published_at

_PARTS = """
import json, time
import gevent
from rango_gevent.broker.consumer import BrokerLimits, Consumer
from rango_gevent.broker.publisher import Publisher
from rango_gevent.broker.topology import QueueLimits

LIMITS = BrokerLimits(timeout_s=2.0, heartbeat_s=2, queue=QueueLimits(100, 60.0))
received = []
lost = []

def wait_until(predicate):
    with gevent.Timeout(15):
        while not predicate():
            gevent.sleep(0.005)

def consume(url):
    consumer = Consumer(
        [url], "test.exchange", lambda *event: received.append(event), LIMITS,
        on_lost=lambda: lost.append(1),
    )
    return consumer, gevent.spawn(consumer.run)
"""


def test_messages_arrive_in_order() -> None:
    """Key and body as published, the time from the header; it leaves when it is told to."""
    found = run_patched(
        _PARTS
        + """
consumer, running = consume("memory://")
before = consumer.problem
wait_until(lambda: consumer.connected)
after = consumer.problem
with Publisher("memory://", "test.exchange") as publisher:
    for number in range(5):
        publisher.publish(f"public.m{number}.t", json.dumps([number, "é"]).encode())
wait_until(lambda: len(received) == 5)
ages = [time.time() - at_s for _, _, at_s in received]
consumer.stop()
running.join(5)
print(json.dumps({
    "before": before, "after": after, "connects": consumer.connects, "failures": consumer.failures,
    "keys": [key for key, _, _ in received],
    "bodies": [json.loads(body) for _, body, _ in received],
    "are_bytes": all(type(body) is bytes for _, body, _ in received),
    "ages": ages, "ended": running.ready(),
}))
"""
    )
    assert found["before"]
    assert found["after"] == ""
    assert (found["connects"], found["failures"]) == (1, 0)
    assert found["keys"] == [f"public.m{number}.t" for number in range(5)]
    assert found["bodies"] == [[number, "é"] for number in range(5)]
    assert found["are_bytes"]
    assert all(0 <= age < 15 for age in found["ages"])
    assert found["ended"]


def test_a_broker_that_is_not_there_is_a_problem_to_tell() -> None:
    """It is tried again and again; nothing says a password, and nobody is told of a loss."""
    found = run_patched(
        _PARTS
        + """
import io, socket
from rango_gevent import logs
stream = io.StringIO()
logs.configure("debug", "text", stream)
with socket.socket() as taken:
    taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
    consumer, running = consume(f"amqp://user:S3CRET@127.0.0.1:{taken.getsockname()[1]}//")
    wait_until(lambda: consumer.failures >= 3)
    away = consumer.away_s()
    consumer.stop()
    running.join(5)
print(json.dumps({
    "connected": consumer.connected, "problem": consumer.problem, "connects": consumer.connects,
    "away": away, "lost": lost, "log": stream.getvalue(), "ended": running.ready(),
}))
"""
    )
    assert not found["connected"]
    assert found["problem"].startswith("broker: ")
    assert found["connects"] == 0
    assert found["away"] > 0
    assert found["lost"] == []
    assert found["ended"]
    assert "S3CRET" not in found["log"] + found["problem"]
    assert found["log"].count("no broker at amqp://user:***@127.0.0.1:") == 1, "said once"


NOW = -1.0  # stands for the moment of the call
RECENTLY_MS = int(time.time() * 1000) - 60_000


@pytest.mark.parametrize(
    ("headers", "at_s"),
    [
        ({"timestamp_in_ms": RECENTLY_MS}, RECENTLY_MS / 1000),
        ({"timestamp_in_ms": RECENTLY_MS + 0.5}, RECENTLY_MS / 1000 + 0.0005),
        ({"timestamp_in_ms": 1.5}, NOW),
        ({"timestamp_in_ms": 1_700_000_000}, NOW),
        (None, NOW),
        ({}, NOW),
        ({"timestamp": 1_700_000_000}, NOW),
        ({"timestamp_in_ms": None}, NOW),
        ({"timestamp_in_ms": "1700000000123"}, NOW),
        ({"timestamp_in_ms": [1]}, NOW),
        ({"timestamp_in_ms": 0}, NOW),
        ({"timestamp_in_ms": -5}, NOW),
        ({"timestamp_in_ms": 10**400}, NOW),
        ({"timestamp_in_ms": math.nan}, NOW),
        ({"timestamp_in_ms": math.inf}, NOW),
    ],
)
def test_the_time_of_publishing(headers: dict[str, Any] | None, at_s: float) -> None:
    """From the header, or now for whatever can be no time: a lag is never nonsense."""
    before = time.time()
    found = published_at(headers)
    if at_s == NOW:
        assert before <= found <= time.time()
    else:
        assert found == pytest.approx(at_s, abs=1e-6)
