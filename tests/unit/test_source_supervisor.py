"""Source and supervisor without a RabbitMQ: kombu's memory transport, and a broker that is not there."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
from patched import run_patched

from rango_gevent.kafka_url import KAFKA_SCHEMES
from rango_gevent.settings import load
from rango_gevent.source.base import BrokerLimits, KafkaWishes, QueueLimits
from rango_gevent.source.kinds import KINDS, open_source
from rango_gevent.source.message import published_at

LIMITS = BrokerLimits(timeout_s=2.0, heartbeat_s=2, queue=QueueLimits(100, 60.0))
_PARTS = """
import json, time
import gevent
from rango_gevent.source.base import BrokerLimits, QueueLimits
from rango_gevent.source.kinds import open_source
from rango_gevent.source.embedded import EmbeddedPublisher
from rango_gevent.source.supervisor import Supervisor

LIMITS = BrokerLimits(timeout_s=2.0, heartbeat_s=2, queue=QueueLimits(100, 60.0))
received = []
lost = []

def wait_until(predicate):
    with gevent.Timeout(60):
        while not predicate():
            gevent.sleep(0.005)

def consume(url):
    source = open_source([url], "test.exchange", lambda *event: received.append(event), LIMITS)
    supervisor = Supervisor(source, on_lost=lambda: lost.append(1))
    return supervisor, gevent.spawn(supervisor.run)
"""


def test_messages_arrive_in_order() -> None:
    """Key and body as published, the time from the header; it leaves when it is told to."""
    found = run_patched(
        _PARTS
        + """
supervisor, running = consume("memory://")
before = supervisor.problem
wait_until(lambda: supervisor.connected)
after = supervisor.problem
with EmbeddedPublisher("memory://", "test.exchange") as publisher:
    for number in range(5):
        publisher.publish(f"public.m{number}.t", json.dumps([number, "é"]).encode())
wait_until(lambda: len(received) == 5)
ages = [time.time() - at_s for _, _, at_s, _ in received]
supervisor.stop()
running.join(30)
print(json.dumps({
    "before": before, "after": after, "connects": supervisor.connects, "failures": supervisor.failures,
    "keys": [key for key, _, _, _ in received],
    "bodies": [json.loads(body) for _, body, _, _ in received],
    "are_bytes": all(type(body) is bytes for _, body, _, _ in received),
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
    assert all(0 <= age < 60 for age in found["ages"])
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
    supervisor, running = consume(f"amqp://user:S3CRET@127.0.0.1:{taken.getsockname()[1]}//")
    wait_until(lambda: supervisor.failures >= 3)
    away = supervisor.away_s()
    supervisor.stop()
    running.join(30)
print(json.dumps({
    "connected": supervisor.connected, "problem": supervisor.problem, "connects": supervisor.connects,
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


@pytest.mark.parametrize("scheme", sorted(KINDS.keys() - set(KAFKA_SCHEMES)))
def test_the_url_chooses_the_kind(scheme: str) -> None:
    """The settings take the scheme of every kind, and a source says where it is, masked."""
    url = f"{scheme}://u:p@h:1/v"
    assert load({"RANGO_AMQP_URL": url}).settings.broker_urls == [url]
    source = open_source([url], "x", lambda *event: None, LIMITS)
    assert source.exchange == "x"
    assert "p@" not in source.place
    assert type(source) is KINDS[scheme]


@pytest.mark.parametrize("scheme", KAFKA_SCHEMES)
def test_a_url_of_kafka_chooses_its_kind(scheme: str) -> None:
    """By a setting of its own; the source says what it reads and where it is, masked."""
    url = f"{scheme}://u:p@h:1/v,w:0"
    assert load({"RANGO_SOURCE": url}).settings.source == url
    wishes = KafkaWishes({"*": "{key}"}, 1.0, 1 << 20, lambda why: None)
    source = open_source([url], "x", lambda *event: None, LIMITS, wishes=wishes)
    assert source.exchange == "v, w"
    assert source.place == f"{scheme}://u:***@h:1/v,w:0"


def test_a_source_of_any_kind_is_supervised_alike() -> None:
    """The bare contract: connect, pump until it fails, drop, again; leave when it is stopped."""
    found = run_patched(
        _PARTS
        + """
import io
from rango_gevent import logs
from rango_gevent.source.base import SourceError, SourceRefused

class Scripted:
    exchange, place, waits_for = "x", "here", ""

    def __init__(self):
        self.calls = []
        self.failures = [
            ("connect", SourceRefused("no such right")), ("connect", OSError("refused")),
            ("pump", SourceError("gone")), ("pump", ZeroDivisionError("a bug")), (None, None),
        ]

    def do(self, what):
        self.calls.append(what)
        if self.failures[0][0] == what:
            raise self.failures.pop(0)[1]

    def connect(self, *, hasty):
        self.do("connect")

    def pump(self):
        self.do("pump")
        gevent.sleep(60)

    def leave(self):
        self.do("leave")

    def drop(self):
        self.do("drop")

stream = io.StringIO()
logs.configure("info", "text", stream)
source = Scripted()
supervisor = Supervisor(source, on_lost=lambda: lost.append(supervisor.connected))
running = gevent.spawn(supervisor.run)
wait_until(lambda: supervisor.connects == 3)
during = [supervisor.connected, supervisor.problem, supervisor.failures]
supervisor.stop()
print(json.dumps({
    "calls": source.calls, "during": during, "lost": lost, "log": stream.getvalue(),
    "ended": running.ready(),
}))
"""
    )
    fails, breaks = ["connect", "drop"], ["connect", "pump", "drop"]
    assert found["calls"] == [*fails * 2, *breaks * 2, "connect", "pump", "leave", "drop"]
    assert found["during"] == [True, "", 4]
    assert found["lost"] == [False, False]
    assert "error the broker at here refuses this configuration: no such right" in found["log"]
    assert "warn no broker at here: refused" in found["log"]
    assert "warn no broker at here: gone" in found["log"]
    assert found["log"].count("Traceback") == 1, "only what nobody foresaw"
    assert "ZeroDivisionError: a bug" in found["log"]
    assert found["log"].count("info consuming x at here") == 3
    assert found["ended"]


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
