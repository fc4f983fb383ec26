"""Three nodes of RabbitMQ, a log with its replicas, and what becomes of it when nodes fail.

The leader is on the first node, the gateway is connected to the second, the feed publishes to the
third. Clients are plain ones that hold on to their connections.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from typing import Any, Iterator

import amqp
import pytest
from log_node import LogQueue
from rabbitmq_node import Cluster, PrivateNode
from scene import Login, Scene, open_scene
from stillness import Stillness
from support import READY, wait_for

LIVE_AGAIN_S = 5.0
TICK_S = 60.0  # Erlang's own time until a node that is silent is down, and a quarter more


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    """Three nodes."""
    with Cluster(3) as cluster:
        yield cluster


@pytest.fixture
def cluster(nodes: Cluster, exchange: str) -> Iterator[Cluster]:
    """Three nodes that run, and an exchange and a log of which the first node has the leader."""
    first = nodes.nodes[0]
    with Login().connect(first.port) as connection:
        connection.channel().exchange_declare(exchange, "topic", durable=True, auto_delete=False)
    LogQueue(first, exchange).declare()
    yield nodes
    for node in nodes.nodes:
        node.thaw() if node.runs else node.start()


@pytest.fixture
def exchange() -> str:
    """Return the name of an exchange of the test's own."""
    return f"market.{uuid.uuid4().hex[:8]}"


@pytest.fixture
def scene(cluster: Cluster, exchange: str) -> Iterator[Scene]:
    """A gateway at the second node, a feed at the third, with messages flowing."""
    _, second, third = cluster.nodes
    env = {"RANGO_LOG": "stream"}
    with open_scene(third.port, target_port=second.port, env=env, exchange=exchange) as scene:
        scene.flows()
        yield scene


def breaks(scene: Scene, reason: str) -> float:
    """Return how often history broke for a reason."""
    return scene.gateway.metric("rango_log_breaks_total", reason=reason)


@pytest.fixture
def still() -> Iterator[Stillness]:
    """Whoever notices that the machine stands still: that is silence too, and nobody's fault."""
    with Stillness() as looking:
        yield looking


def silence_s(scene: Scene, since: float) -> float:
    """Return the longest time between two messages of a client after a time."""
    times = [since, *(at for _, at in scene.watchers[0].seen if at > since)]
    return max(later - earlier for earlier, later in zip(times, times[1:]))


def after(seconds: float) -> None:
    """Wait until a time has passed."""
    until = time.monotonic() + seconds
    wait_for(lambda: time.monotonic() >= until, seconds + 5, "the time")


def is_whole(scene: Scene) -> None:
    """Check that every client got every number once and in order."""
    assert scene.settle() == []
    assert scene.duplicated() == 0


def test_the_leader_s_node_is_frozen(cluster: Cluster, scene: Scene, still: Stillness) -> None:
    """Live events go on from the queue that stands by; then the log is read again."""
    scene.feed.confirms = False
    still.mark()
    frozen_at = time.monotonic()
    cluster.nodes[0].freeze()
    after(10)
    silent_s = silence_s(scene, frozen_at)
    print(f"\nleader frozen: {silent_s:.2f} s of silence")
    assert silent_s <= LIVE_AGAIN_S + still.worst_s
    assert scene.gateway.metric("rango_log_fallback") == 1
    assert scene.gateway.get(READY).status == 200
    assert breaks(scene, "gap") == 1
    cluster.nodes[0].thaw()
    wait_for(lambda: scene.gateway.metric("rango_log_fallback") == 0, 90, "the log again")
    scene.flows()
    is_whole(scene)
    assert breaks(scene, "gap") + breaks(scene, "other_history") >= 2


def test_the_leader_s_node_is_killed(cluster: Cluster, scene: Scene, still: Stillness) -> None:
    """Another replica leads; nothing that was confirmed is lost, and positions go on."""
    still.mark()
    killed_at = time.monotonic()
    cluster.nodes[0].kill()
    after(6)
    scene.flows()
    silent_s = silence_s(scene, killed_at)
    print(f"\nleader killed: {silent_s:.2f} s of silence")
    is_whole(scene)
    assert silent_s <= 2.0 + still.worst_s
    assert breaks(scene, "gap") == breaks(scene, "other_history") == 0


@pytest.mark.long
def test_the_leader_s_node_stays_frozen(cluster: Cluster, scene: Scene) -> None:
    """Until the others count it out and elect a leader that does not have what it had.

    A stream that does not answer holds its publishers up, after some hundred messages each: so
    nothing comes then, from whichever queue.
    """
    scene.feed.confirms = False
    cluster.nodes[0].freeze()
    wait_for(lambda: scene.gateway.metric("rango_log_fallback") == 1, 30, "the fallback")
    after(TICK_S * 1.25 + 15)
    wait_for(lambda: scene.gateway.metric("rango_log_fallback") == 0, 90, "the log again")
    scene.flows(20)
    lost = scene.settle()
    print(f"\nleader frozen for long: {len(lost)} of {len(scene.feed.accepted)} lost")
    assert scene.duplicated() == 0
    assert breaks(scene, "gap") + breaks(scene, "other_history") >= 2


@pytest.mark.long
def test_the_quorum_is_lost(cluster: Cluster, scene: Scene, still: Stillness) -> None:
    """With one node of three left nothing is stored; what is still published goes on."""
    first, second, third = cluster.nodes
    scene.feed.stop()
    numbers = iter(range(1_000_000, 2_000_000))
    with publisher(second, scene.gateway.exchange) as publish:
        for _ in range(50):
            publish(next(numbers))
            after(0.02)
        first.kill()
        third.kill()
        still.mark()
        lost_at = time.monotonic()
        for _ in range(100):  # more would be held up by the broker
            publish(next(numbers))
            after(0.05)
        wait_for(lambda: scene.gateway.metric("rango_log_fallback") == 1, 30, "the fallback")
        silent_s = silence_s(scene, lost_at)
        print(f"\nquorum lost: {silent_s:.2f} s of silence")
        assert silent_s <= LIVE_AGAIN_S + still.worst_s
        assert scene.gateway.get(READY).status == 200
        third.start()
        first.start()
        after(5)
        for _ in range(500):
            publish(next(numbers))
            after(0.02)
        wait_for(lambda: scene.gateway.metric("rango_log_fallback") == 0, 90, "the log again")
        got = [number for number in scene.watchers[0].numbers() if number >= 1_000_000]
        assert got == list(range(1_000_000, next(numbers)))


@contextlib.contextmanager
def publisher(node: PrivateNode, exchange: str) -> Iterator[Any]:
    """Publish numbers, without confirmation: nobody would give it."""
    with Login().connect(node.port) as connection:
        channel = connection.channel()

        def publish(number: int) -> None:
            message = amqp.basic_message.Message(f'{{"n":{number}}}')
            channel.basic_publish(message, exchange, "public.m.trades")

        yield publish
