"""With a log: what a fault loses, doubles or disturbs, against a real RabbitMQ.

Clients here are those of plain Rango: they hold on to their connections, ask for no position,
and must get every number once and in order, whatever happens behind the gateway. Where history
breaks it must be said; where the log stalls, events must go on.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import time
from typing import Iterator, Mapping

import pytest
from log_node import LogQueue
from rabbitmq_node import PrivateNode
from scene import Login, Scene, open_scene
from support import HEALTHY, READY, server_env, start_gateway, wait_for
from websockets.exceptions import InvalidStatus

LOG = {"RANGO_LOG": "stream"}
LIVE_AGAIN_S = 15.0  # a few, on a machine that is not busy
YOUNG_S = 10.0  # RabbitMQ 3.10 may forget its first stream queue when it is killed before


@pytest.fixture(scope="module")
def node() -> Iterator[PrivateNode]:
    """A broker for the tests that leave it running."""
    with PrivateNode() as node:
        yield node


@contextlib.contextmanager
def log_scene(node: PrivateNode, env: Mapping[str, str] | None = None) -> Iterator[Scene]:
    """Run a gateway with a log behind a relay, with messages flowing."""
    with open_scene(node.port, env={**LOG, **(env or {})}) as scene:
        scene.flows()
        yield scene


@pytest.fixture
def scene(node: PrivateNode) -> Iterator[Scene]:
    """A gateway with a log, with messages flowing."""
    with log_scene(node) as scene:
        yield scene


@pytest.fixture
def queue(node: PrivateNode, scene: Scene) -> LogQueue:
    """The scene's log."""
    return LogQueue(node, scene.gateway.exchange)


def breaks(scene: Scene, reason: str) -> float:
    """Return how often history broke for a reason."""
    return scene.gateway.metric("rango_log_breaks_total", reason=reason)


def after(seconds: float) -> None:
    """Wait until a time has passed in which something must not happen, or does."""
    until = time.monotonic() + seconds
    wait_for(lambda: time.monotonic() >= until, seconds + 5, "the time")


def is_whole(scene: Scene) -> None:
    """Check that every client got every number that the broker took, once and in order."""
    assert scene.settle() == []
    assert scene.duplicated() == 0


# -- the gateway's own connection -----------------------------------------------------------------


def test_what_is_published_while_the_gateway_is_cut_off_arrives(scene: Scene) -> None:
    """All of it, in order and once; and no history breaks."""
    scene.relay.refuse()
    scene.relay.cut()
    wait_for(lambda: scene.gateway.get(READY).status == 503, what="not ready")
    after(5)
    scene.relay.heal()
    scene.flows()
    is_whole(scene)
    assert breaks(scene, "gap") == breaks(scene, "other_history") == 0
    assert scene.gateway.metric("rango_log_fallback_seconds_total") == 0


def test_a_connection_that_breaks_again_and_again_loses_nothing(scene: Scene) -> None:
    """Also when it ends in the middle of what it had to catch up with."""
    for size in (3_000, 10_000, 40_000):
        scene.relay.break_after(size)
        broken = scene.relay.broken
        wait_for(lambda broken=broken: scene.relay.broken > broken, what="an end")
        scene.flows()
    is_whole(scene)
    assert breaks(scene, "other_history") == 0


# -- the log -------------------------------------------------------------------------------------


def test_a_log_that_stalls(scene: Scene, queue: LogQueue) -> None:
    """Live events go on from the queue that stands by, and back again without a doubled one."""
    scene.feed.confirms = False  # else the log would hold the publisher up
    queue.freeze()
    frozen_at = time.monotonic()
    scene.flows_after(frozen_at + 0.5, LIVE_AGAIN_S)
    wait_for(lambda: scene.gateway.metric("rango_log_fallback") == 1, what="the fallback")
    assert scene.gateway.get(READY).status == 200
    assert re.search(r" fatal .*delivers nothing", scene.gateway.log())  # people are alerted
    assert breaks(scene, "gap") == 1
    after(2)
    queue.thaw()
    wait_for(lambda: scene.gateway.metric("rango_log_fallback") == 0, what="the log again")
    assert scene.gateway.metric("rango_log_fallback_seconds_total") > 2
    assert "delivers again, after" in scene.gateway.log()
    scene.flows()
    is_whole(scene)


def test_a_quiet_market_is_no_stall(scene: Scene) -> None:
    """Whatever the pauses are, nothing changes, and what comes after them comes once."""
    for pause_s in (1.2, 2.6, 0.9):
        scene.feed.every_s = pause_s
        after(2 * pause_s + 1)
    scene.feed.every_s = 0.02
    after(5)  # long enough that nobody listens to the other queue any more
    scene.feed.every_s = 2.6
    after(4)
    scene.feed.every_s = 0.02
    scene.flows()
    is_whole(scene)
    assert breaks(scene, "gap") == 0
    assert scene.gateway.metric("rango_broker_connects_total") == 1
    assert scene.gateway.metric("rango_log_fallback_seconds_total") == 0


def test_a_log_that_is_deleted(scene: Scene, queue: LogQueue) -> None:
    """It is declared again, and is another history; clients lose nothing."""
    queue.delete()
    wait_for(lambda: breaks(scene, "other_history") > 0, what="another history")
    wait_for(lambda: scene.gateway.metric("rango_log_fallback") == 0, what="the log again")
    scene.flows()
    is_whole(scene)


@pytest.mark.parametrize("size", [20, 20_000], ids=["shorter", "longer"])
def test_a_log_that_is_another_one_when_the_gateway_comes_back(
    scene: Scene, queue: LogQueue, size: int
) -> None:
    """Offsets that are used again for other events are noticed; events go on from there."""
    scene.relay.refuse()
    scene.relay.cut()
    wait_for(lambda: scene.gateway.get(READY).status == 503, what="not ready")
    scene.feed.stop()
    queue.delete()
    queue.declare()
    queue.publish([f'{{"n":{10_000_000 + n}}}' for n in range(size)])
    scene.relay.heal()
    wait_for(lambda: breaks(scene, "other_history") == 1, what="another history")
    wait_for(lambda: scene.gateway.get(READY).status == 200, what="ready")
    queue.publish(['{"n":99999999}'])
    for watcher in scene.watchers:
        wait_for(lambda watcher=watcher: watcher.has(99999999), what="what comes next")
        numbers = watcher.numbers()
        assert len(numbers) == len(set(numbers))
    scene.is_undisturbed()


def test_a_log_that_was_trimmed_meanwhile(node: PrivateNode) -> None:
    """What was not read yet is gone: a gap, and it is said."""
    small = {"RANGO_LOG_BYTES": "1000000", "RANGO_LOG_SEGMENT_BYTES": "100000"}
    with log_scene(node, small) as scene:
        queue = LogQueue(node, scene.gateway.exchange)
        scene.relay.refuse()
        scene.relay.cut()
        wait_for(lambda: scene.gateway.get(READY).status == 503, what="not ready")
        scene.feed.stop()
        fill = "x" * 4000
        for part in range(20):  # a segment rolls between two chunks only
            queue.publish([f'{{"n":{10_000_000 + part * 50 + n},"x":"{fill}"}}' for n in range(50)])
        scene.relay.heal()
        wait_for(lambda: breaks(scene, "gap") == 1, what="a gap")
        assert breaks(scene, "other_history") == 0
        assert "history breaks" in scene.gateway.log()
        wait_for(lambda: scene.watchers[0].has(10_000_999), what="the newest")


def filled(node: PrivateNode, exchange: str, count: int) -> LogQueue:
    """Return a log with events that were published one by one, slow to read back."""
    with Login().connect(node.port) as connection:
        connection.channel().exchange_declare(exchange, "topic", auto_delete=False)
    queue = LogQueue(node, exchange)
    queue.declare()
    for part in range(0, count, 1000):
        queue.publish([f'{{"n":{part + n}}}' for n in range(1000)])
    return queue


def test_the_log_is_read_before_clients_come(node: PrivateNode) -> None:
    """Until its end is reached it is not ready, says how far it is, and lets nobody in."""
    exchange = "test.filling"
    queue = filled(node, exchange, 60_000)
    env = {**LOG, "RANGO_AMQP_URL": node.amqp_url}
    with start_gateway(exchange=exchange, env=env, until=HEALTHY) as gateway:
        said = wait_for(lambda: re.search(r"filling.*", gateway.get(READY).body), what="filling")
        assert re.fullmatch(r"filling from the log: \d+ s behind", said[0])
        with pytest.raises(InvalidStatus, match="503"):
            gateway.connect("/public?stream=m.trades")
        gateway.wait_until(READY)
        assert gateway.metric("rango_messages_received_total", scope="public") >= 60_000
        assert gateway.metric("rango_log_fill_seconds") > 0
        with gateway.connect("/public?stream=m.trades") as client:
            client.receive()
            queue.publish(['{"n":1000000}'])
            assert client.receive_json() == {"m.trades": {"n": 1_000_000}}


def test_reading_the_log_is_bounded_in_time(node: PrivateNode) -> None:
    """What cannot be read by then is left out, which is said."""
    exchange = "test.slow"
    queue = filled(node, exchange, 60_000)
    env = {**LOG, "RANGO_AMQP_URL": node.amqp_url, "RANGO_LOG_FILL_S": "0.1"}
    with start_gateway(exchange=exchange, env=env) as gateway:
        assert "reading rango.log.test.slow took too long" in gateway.log()
        assert gateway.metric("rango_messages_received_total", scope="public") < 60_000
        with gateway.connect("/public?stream=m.trades") as client:
            client.receive()
            queue.publish(['{"n":1000000}'])
            assert client.receive_json() == {"m.trades": {"n": 1_000_000}}


# -- the broker ----------------------------------------------------------------------------------


def test_a_broker_that_is_killed_loses_nothing_confirmed() -> None:
    """With an exchange that is durable, and so its binding to the log."""
    with PrivateNode() as node:
        with Login().connect(node.port) as connection:
            channel = connection.channel()
            channel.exchange_declare("market.log", "topic", durable=True, auto_delete=False)
        with open_scene(node.port, env=LOG, exchange="market.log") as scene:
            scene.flows()
            after(YOUNG_S)
            killed_at = time.monotonic()
            node.kill()
            wait_for(lambda: scene.gateway.get(READY).status == 503, what="not ready")
            node.start()
            scene.flows()
            attached_at = time.monotonic()
            after(1)
            lost = scene.settle()
            times = dict(scene.feed.accepted)
            # what a broker confirms before its log runs is in no queue
            assert all(killed_at < times[number] < attached_at for number in lost)
            assert scene.duplicated() == 0
            assert breaks(scene, "other_history") == 0
            assert scene.gateway.metric("rango_log_fallback_seconds_total") == 0


# -- what is refused -----------------------------------------------------------------------------


def test_missing_rights(node: PrivateNode) -> None:
    """Those of a worker without a log are not enough; what to do is said."""
    node.ctl("add_user", "few", "secret")
    rights = r"^rango\.instance\..*"
    node.ctl("set_permissions", "few", rights, rights, r"^(rango\.instance\..*|test\..*)$")
    url = Login("few", "secret").url(node.port)
    with Login().connect(node.port) as connection:
        connection.channel().exchange_declare("test.rights", "topic", auto_delete=False)
    with start_gateway(
        exchange="test.rights", env={**LOG, "RANGO_AMQP_URL": url}, until=HEALTHY
    ) as gateway:
        text = "this user may not use the log rango.log.test.rights"
        wait_for(lambda: text in gateway.get(READY).body, what="the reason")
        assert r"`^rango\..*`" in gateway.get(READY).body
        rights = r"^rango\..*"
        node.ctl("set_permissions", "few", rights, rights, r"^(rango\..*|test\..*)$")
        gateway.wait_until(READY)


def test_a_queue_of_another_type(node: PrivateNode) -> None:
    """It is not consumed, and what to do is said."""
    exchange = "test.classic"
    with Login().connect(node.port) as connection:
        connection.channel().queue_declare(f"rango.log.{exchange}", durable=True, auto_delete=False)
    env = {**LOG, "RANGO_AMQP_URL": node.amqp_url}
    with start_gateway(exchange=exchange, env=env, until=HEALTHY) as gateway:
        text = "is no stream queue: delete it"
        wait_for(lambda: text in gateway.get(READY).body, what="the reason")
        LogQueue(node, exchange).delete()
        gateway.wait_until(READY)


def test_bounds_that_differ_are_taken_as_they_are(node: PrivateNode) -> None:
    """Another worker's settings, or those of before, are no reason not to run."""
    exchange = "test.bounds"
    with Login().connect(node.port) as connection:
        connection.channel().exchange_declare(exchange, "topic", auto_delete=False)
    LogQueue(node, exchange).declare(**{"x-max-length-bytes": 12_345_678})
    env = {**LOG, "RANGO_AMQP_URL": node.amqp_url}
    with start_gateway(exchange=exchange, env=env) as gateway:
        assert "keeps the bounds that it was declared with" in gateway.log()
        assert gateway.metric("rango_log_attached") == 1


def test_two_brokers_are_warned_of(node: PrivateNode) -> None:
    """Nobody says how many nodes a cluster has; two URLs are reason enough to ask."""
    urls = f"{node.amqp_url};{node.amqp_url}"
    with start_gateway(env={**LOG, "RANGO_AMQP_URL": urls}) as gateway:
        assert "has no quorum when one is gone" in gateway.log()


# -- the operator ---------------------------------------------------------------------------------


def rango_log(node: PrivateNode, what: str, exchange: str) -> subprocess.CompletedProcess[str]:
    """Run ``rango log``."""
    env = server_env(exchange, {"RANGO_AMQP_URL": node.amqp_url})
    words = [sys.executable, "-m", "rango_gevent", "log", what]
    return subprocess.run(words, env=env, capture_output=True, text=True, timeout=60)


def test_the_log_is_looked_at_and_dropped(node: PrivateNode) -> None:
    """Also when nothing is in it; and what is not there is told."""
    exchange = "test.dropped"
    with Login().connect(node.port) as connection:
        connection.channel().exchange_declare(exchange, "topic", auto_delete=False)
    queue = LogQueue(node, exchange)
    queue.declare()
    assert "it is empty" in rango_log(node, "status", exchange).stdout
    queue.publish([str(n) for n in range(100)])
    assert "offsets 0 to " in rango_log(node, "status", exchange).stdout
    done = rango_log(node, "drop", exchange)
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == f"{queue.name} is unbound from {exchange}"
    assert queue.name not in node.ctl("list_queues", "name")
    for what in ("status", "drop"):
        gone = rango_log(node, what, exchange)
        assert gone.returncode == 1
        assert f"there is no log {queue.name}" in gone.stderr
        assert "guest:guest" not in gone.stderr
