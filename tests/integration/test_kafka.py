"""Kafka as a source, with a real broker of its protocol: clients get what topics have."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any, Iterator

import pytest
from certificate import make_certificate
from confluent_kafka import Producer
from kafka_mock import MockCluster
from kafka_node import KafkaNode, start_kafka
from support import HOST, Server, free_port, server_env, start_gateway, wait_for

_ORDER = b'{"event":1,"order":{"id":7,"market":"BTCBCH","user":12},"stock":"BTC","money":"BCH"}'
_BALANCE = b'[1492358400.1, 12, "BTC", "deposit", "1.50"]'
_DEAL = b'[1492358400.1, "BTCBCH",1,2,3,4,"7000.00","1","0","0", 2,9,"BTC","BCH"]'
_WINDOW_S = 10  # a reader starts and reads within it, on a busy machine too


@pytest.fixture(scope="module")
def node() -> Iterator[KafkaNode]:
    """Run one broker for the tests that leave it running."""
    with start_kafka() as running:
        yield running


@pytest.fixture
def topic(node: KafkaNode) -> str:
    """Make a topic of one partition that no other test uses."""
    name = f"t{uuid.uuid4().hex[:10]}"
    node.make(name)
    return name


def _source(node: KafkaNode, topics: str, **more: str) -> dict[str, str]:
    return {"RANGO_SOURCE": f"kafka://{node.address}/{topics}", **more}


def _numbered(count: int, start: int = 0) -> list[bytes]:
    return [b'{"n": %d}' % number for number in range(start, start + count)]


def test_all_three_topics_of_viabtc_reach_clients(node: KafkaNode) -> None:
    """Their bodies byte for byte: who may have them gets them."""
    node.make("orders", "balances", "deals")
    with (
        start_gateway(env=_source(node, "orders,balances,deals")) as server,
        server.connect("/private", server.token(uid="12")) as mine,
        server.connect("/private", server.token(uid="13")) as other,
    ):
        for client in (mine, other):
            client.send({"event": "subscribe", "streams": ["order", "balance", "btcbch.trades"]})
            while "balance" not in client.receive():
                pass
        node.publish("orders", [_ORDER])
        assert mine.receive() == f'{{"order":{_ORDER.decode()}}}'
        node.publish("balances", [_BALANCE])
        assert mine.receive() == f'{{"balance":{_BALANCE.decode()}}}'
        node.publish("deals", [_DEAL])
        for client in (mine, other):
            assert client.receive() == f'{{"btcbch.trades":{_DEAL.decode()}}}'


def test_a_burst_arrives_whole_and_in_order(node: KafkaNode, topic: str) -> None:
    """Twenty thousand messages at once, to a client that reads."""
    env = _source(node, topic, RANGO_OUTBOX_BYTES=str(64 << 20))
    with (
        start_gateway(env=env) as server,
        server.connect("/public?stream=burst.x") as client,
    ):
        client.receive()
        node.publish(topic, _numbered(20_000), b"public.burst.x")
        got = [json.loads(client.receive())["burst.x"]["n"] for _ in range(20_000)]
        assert got == list(range(20_000))


def test_what_was_published_before_is_not_told(node: KafkaNode, topic: str) -> None:
    """It begins at the end, as an exclusive queue does."""
    node.publish(topic, _numbered(3), b"public.old.x")
    with (
        start_gateway(env=_source(node, topic)) as server,
        server.connect("/public?stream=old.x") as client,
    ):
        client.receive()
        node.publish(topic, _numbered(1, 3), b"public.old.x")
        assert client.receive() == '{"old.x":{"n": 3}}'


def test_a_message_without_a_key_is_dropped_and_told(node: KafkaNode, topic: str) -> None:
    """Once in a while, with what helps; the others go on."""
    with (
        start_gateway(env=_source(node, topic)) as server,
        server.connect("/public?stream=k.x") as client,
    ):
        client.receive()
        node.publish(topic, _numbered(5))
        node.publish(topic, _numbered(1, 9), b"public.k.x")
        assert client.receive() == '{"k.x":{"n": 9}}'
        assert server.metric("rango_kafka_unroutable_total") == 5
        told = [line for line in server.log().splitlines() if "RANGO_KAFKA_KEYS" in line]
        assert len(told) == 1
        assert f"dropped a message of {topic}, offset 0: the record has no key" in told[0]


def test_a_broker_that_hangs_is_noticed_and_nothing_is_lost(topic: str) -> None:
    """Not ready meanwhile; what was published before and after comes once, in order."""
    with start_kafka() as own:
        own.make("t")
        env = _source(own, "t", RANGO_BROKER_TIMEOUT_S="1")
        with (
            start_gateway(env=env) as server,
            server.connect("/public?stream=hang.x") as client,
        ):
            client.receive()
            own.publish("t", _numbered(10), b"public.hang.x")
            own.freeze()
            wait_for(lambda: server.get("/readyz").status == 503, what="not to be ready")
            assert "check that" in server.get("/readyz").body
            own.thaw()
            wait_for(lambda: server.get("/readyz").status == 200, what="to be ready")
            own.publish("t", _numbered(10, 10), b"public.hang.x")
            got = [json.loads(client.receive())["hang.x"]["n"] for _ in range(20)]
            assert got == list(range(20))
            assert server.metric("rango_broker_failures_total") >= 1
            assert server.metric("rango_kafka_breaks_total", reason="gap") == 0


def test_a_broker_that_was_killed_comes_back_with_another_log(topic: str) -> None:
    """It is found within a second or so; that it has forgotten everything is told."""
    with start_kafka() as own:
        own.make("t")
        with (
            start_gateway(env=_source(own, "t")) as server,
            server.connect("/public?stream=back.x") as client,
        ):
            client.receive()
            own.publish("t", _numbered(10), b"public.back.x")
            for _ in range(10):
                client.receive()
            own.kill()
            wait_for(lambda: server.get("/readyz").status == 503, what="not to be ready")
            own.start()
            own.make("t")
            began = time.monotonic()
            wait_for(lambda: server.get("/readyz").status == 200, what="to be ready")
            assert time.monotonic() - began < 15
            own.publish("t", _numbered(1, 50), b"public.back.x")
            assert client.receive() == '{"back.x":{"n": 50}}'
            broken = server.metric("rango_kafka_breaks_total", reason="other_history")
            assert broken == 1
            assert "history breaks in t: the cluster does not have" in server.log()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("nothing", "topic nothing: Broker: Unknown topic or partition: create it, or correct"),
        ("{topic}:7", "topic {topic} has no partition 7: correct RANGO_SOURCE"),
        ("{topic}?ssl.nonsense=1", 'No such configuration property: "ssl.nonsense": correct what'),
    ],
)
def test_what_is_wrong_is_one_line_with_its_cure(
    node: KafkaNode, topic: str, change: str, said: str
) -> None:
    """It is tried again: readiness says why until it is right."""
    env = _source(node, change.format(topic=topic))
    with start_gateway(env=env, until="/healthz") as server:
        wait_for(lambda: said.format(topic=topic) in server.log(), what="the line")
        assert said.format(topic=topic) in server.get("/readyz").body
        assert "Traceback" not in server.log()


def test_nobody_who_listens_is_told_so() -> None:
    """With where it was tried, without the password."""
    env = {
        "RANGO_SOURCE": f"kafka://me:hunter2@{HOST}:{free_port()}/t",
        "RANGO_BROKER_TIMEOUT_S": "1",
    }
    with start_gateway(env=env, until="/healthz") as server:
        wait_for(lambda: "check that" in server.log(), what="the line")
        assert f"kafka://me:***@{HOST}" in server.log()
        assert "hunter2" not in server.log()


def test_a_login_that_is_refused_is_told_at_once() -> None:
    """With what to correct, and without the password."""
    with start_kafka("--authentication", answers=False) as own:
        place = f"kafka://me:hunter2@{own.address}/t?sasl.mechanism=SCRAM-SHA-256"
        env = {"RANGO_SOURCE": place, "RANGO_BROKER_TIMEOUT_S": "60"}  # which is not waited for
        with start_gateway(env=env, until="/healthz") as server:
            cure = "check user, password and sasl.mechanism in RANGO_SOURCE"
            wait_for(lambda: cure in server.log(), what="the line")
            assert "unknown-user" in server.log()
            assert cure in server.get("/readyz").body
            assert "hunter2" not in server.log() + server.get("/readyz").body
            assert "Traceback" not in server.log()


def test_tls_is_checked(tmp_path: Path) -> None:
    """With an authority that is named it connects, without it says what to name."""
    certificate = make_certificate(tmp_path)
    with start_kafka() as own, tls_before(own, certificate) as port:
        named = f"kafkas://{HOST}:{port}/t?ssl.ca.location={certificate}"
        with start_gateway(env={"RANGO_SOURCE": named}, until="/healthz") as server:
            wait_for(lambda: "Unknown topic" in server.log(), what="an answer by TLS")
        env = {"RANGO_SOURCE": named.partition("?")[0]}
        with start_gateway(env=env, until="/healthz") as server:
            wait_for(lambda: "ssl.ca.location in RANGO_SOURCE" in server.log(), what="the line")


@contextlib.contextmanager
def tls_before(node: KafkaNode, certificate: Path) -> Iterator[int]:
    """Take TLS off what comes to a port, by HAProxy, and hand it to a broker."""
    port, both = free_port(), certificate.parent / "both.pem"
    both.write_bytes(certificate.read_bytes() + (certificate.parent / "key.pem").read_bytes())
    config = certificate.parent / "haproxy.cfg"
    config.write_text(
        "defaults\n mode tcp\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n"
        f"listen kafka\n bind {HOST}:{port} ssl crt {both}\n server one {node.address}\n"
    )
    process = subprocess.Popen(["haproxy", "-f", str(config)], stderr=subprocess.DEVNULL)
    try:
        yield port
    finally:
        process.kill()
        process.wait()


def test_a_gateway_stops_while_its_broker_hangs() -> None:
    """In bounded time, without a crash."""
    with start_kafka() as own:
        own.make("t")
        with start_gateway(env=_source(own, "t")) as server:
            own.freeze()
            time.sleep(2.5)  # it asks now
            began = time.monotonic()
            assert server.stop() == 0
            assert time.monotonic() - began < 20
            assert "Traceback" not in server.log()
        own.thaw()


def _publish_to(cluster: MockCluster, bodies: list[bytes]) -> None:
    producer = Producer({"bootstrap.servers": cluster.addresses, "log_level": 0})
    for body in bodies:
        producer.produce("t", body, b"public.lead.x", 0)
    assert producer.flush(30) == 0


def test_a_leader_that_changes_is_found() -> None:
    """Without a word, and nothing is lost."""
    with MockCluster("t") as cluster:
        cluster.do("leader 1")
        env = {"RANGO_SOURCE": f"kafka://{cluster.addresses}/t:0"}
        with (
            start_gateway(env=env) as server,
            server.connect("/public?stream=lead.x") as client,
        ):
            client.receive()
            for leader in (1, 2, 3):
                cluster.do(f"leader {leader}")
                _publish_to(cluster, _numbered(10, 10 * leader))
            got = [json.loads(client.receive())["lead.x"]["n"] for _ in range(30)]
            assert got == list(range(10, 40))
            assert "history breaks" not in server.log()


def test_a_leader_that_is_down_without_another_is_noticed() -> None:
    """Though the other brokers answer; when it is back nothing is lost."""
    with MockCluster("t") as cluster:
        cluster.do("leader 1")
        env = {
            "RANGO_SOURCE": f"kafka://{cluster.addresses}/t:0",
            "RANGO_BROKER_TIMEOUT_S": "1",
        }
        with (
            start_gateway(env=env) as server,
            server.connect("/public?stream=lead.x") as client,
        ):
            client.receive()
            _publish_to(cluster, _numbered(10))
            cluster.do("down 1")
            wait_for(lambda: server.get("/readyz").status == 503, 30, "not to be ready")
            cluster.do("up 1")
            wait_for(lambda: server.get("/readyz").status == 200, what="to be ready")
            _publish_to(cluster, _numbered(10, 10))
            got = [json.loads(client.receive())["lead.x"]["n"] for _ in range(20)]
            assert got == list(range(20))


def test_a_broker_of_several_that_goes_down_is_no_outage() -> None:
    """Its connections break, and another one leads."""
    with MockCluster("t") as cluster:
        cluster.do("leader 1")
        env = {"RANGO_SOURCE": f"kafka://{cluster.addresses}/t:0"}
        with (
            start_gateway(env=env) as server,
            server.connect("/public?stream=lead.x") as client,
        ):
            client.receive()
            cluster.do("down 1")
            cluster.do("leader 2")
            _publish_to(cluster, _numbered(10))
            got = [json.loads(client.receive())["lead.x"]["n"] for _ in range(10)]
            assert got == list(range(10))
            assert server.metric("rango_broker_connects_total") == 1


def test_a_topic_that_is_made_later_is_found(node: KafkaNode) -> None:
    """Within the time between two attempts."""
    name = f"late{uuid.uuid4().hex[:8]}"
    with start_gateway(env=_source(node, name), until="/healthz") as server:
        wait_for(lambda: "Unknown topic" in server.log(), what="the line")
        node.make(name)
        wait_for(lambda: server.get("/readyz").status == 200, what="to be ready")


def test_a_new_partition_is_read_from_its_start(node: KafkaNode) -> None:
    """It is found while others are read. Tansu adds none: one is hidden at first."""
    name = f"grow{uuid.uuid4().hex[:8]}"
    node.make(name, partitions=2)
    node.publish(name, _numbered(3), b"public.grow.x", partition=1)
    script = """
all_of_them = source._partitions
source._partitions = lambda metadata: all_of_them(metadata)[:1]
until(lambda: supervisor.connected)
source._partitions = all_of_them
until(lambda: len(got) == 3)
supervisor.stop()
print(json.dumps(got))
"""
    got = _reader(node, name, 0, 0, script)
    assert [body for body, _ in got] == ['{"n": 0}', '{"n": 1}', '{"n": 2}']


def test_several_partitions_are_all_read(node: KafkaNode) -> None:
    """In order within each."""
    name = f"parts{uuid.uuid4().hex[:8]}"
    node.make(name, partitions=3)
    with (
        start_gateway(env=_source(node, name)) as server,
        server.connect("/public?stream=p0.x&stream=p1.x&stream=p2.x") as client,
    ):
        client.receive()
        for part in range(3):
            node.publish(name, _numbered(50), b"public.p%d.x" % part, part)
        got: dict[str, list[int]] = {}
        for _ in range(150):
            [(stream, body)] = json.loads(client.receive()).items()
            got.setdefault(stream, []).append(body["n"])
        assert got == {f"p{part}.x": list(range(50)) for part in range(3)}


_POSITIONS = """
import json, sys, time
import gevent
from rango_gevent.model import position_text
from rango_gevent.source.base import BrokerLimits, KafkaWishes, QueueLimits
from rango_gevent.source.kinds import open_source
from rango_gevent.source.supervisor import Supervisor
url, count, window = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
got, breaks = [], []
def sink(key, body, at_s, position):
    got.append((body.decode(), position_text(position)))
limits = BrokerLimits(5.0, 10, QueueLimits(1, 1.0))
source = open_source([url], "", sink, limits, wishes=KafkaWishes(
    {"*": "{key}"}, window, 1 << 20, breaks.append))
supervisor = Supervisor(source)
greenlet = gevent.spawn(supervisor.run)
def until(condition):
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        gevent.sleep(0.02)
"""


def _reader(node: KafkaNode, topic: str, count: int, window: float, script: str = "") -> list[Any]:
    """Run a source of a topic, or ``topic:0``, in a process of its own; return what it got."""
    end = (
        "until(lambda: len(got) >= count and not source.waits_for)\n"
        "supervisor.stop()\nprint(json.dumps([got, breaks]))"
    )
    words = ["-c", "from gevent import monkey; monkey.patch_all()\n" + _POSITIONS + (script or end)]
    place = f"kafka://{node.address}/{topic}"
    done = subprocess.run(
        [sys.executable, *words, place, str(count), str(window)],
        capture_output=True, text=True, timeout=150, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def test_two_gateways_have_the_same_positions(node: KafkaNode, topic: str) -> None:
    """Whenever they began: Kafka's offset, and a check over the bodies since the block's start."""
    node.publish(topic, _numbered(700), b"public.same.x")
    first, breaks = _reader(node, f"{topic}:0", 700, 60)
    assert breaks == []
    assert [json.loads(body)["n"] for body, _ in first] == list(range(700))
    assert [int(position.split("-")[0]) for _, position in first] == list(range(700))
    time.sleep(_WINDOW_S + 1)  # what came before is out of the second one's window
    node.publish(topic, _numbered(30, 700), b"public.same.x")
    second, _ = _reader(node, f"{topic}:0", 30, _WINDOW_S)
    assert len(second) == 730 - 512, "it began with the block that its window begins in"
    known = dict(first)
    both = [(body, position) for body, position in second if body in known]
    assert len(both) == 700 - 512
    assert both == [(body, known[body]) for body, _ in both]


def test_a_client_comes_back_to_another_gateway(node: KafkaNode, topic: str) -> None:
    """By its position, with one partition, and gets what it missed, once and in order."""
    env = _source(node, f"{topic}:0")
    with start_gateway(env=env) as one, start_gateway(env=env) as other:
        with one.connect("/public?resume=1&stream=come.x") as client:
            while "subscribed" not in client.receive():
                pass
            node.publish(topic, _numbered(10), b"public.come.x")
            seen = [json.loads(client.receive()) for _ in range(10)]
            assert [event["come.x"]["n"] for event in seen] == list(range(10))
        node.publish(topic, _numbered(10, 10), b"public.come.x")
        since = seen[-1]["at"]
        with other.connect(f"/public?resume=1&since={since}&stream=come.x") as client:
            node.publish(topic, _numbered(1, 20), b"public.come.x")
            got: list[int] = []
            while len(got) < 11:
                said = json.loads(client.receive())
                if "come.x" in said:
                    got.append(said["come.x"]["n"])
            assert got == list(range(10, 21))


def test_a_source_that_reconnects_goes_on_where_it_was(node: KafkaNode, topic: str) -> None:
    """Nothing is missing, nothing comes twice, no history breaks."""
    node.publish(topic, _numbered(300), b"public.again.x")
    script = """
until(lambda: len(got) >= 300 and not source.waits_for)
for _ in range(3):
    before = supervisor.connects
    greenlet.kill(RuntimeError("on purpose"), block=False)
    until(lambda: supervisor.connects > before)
supervisor.stop()
print(json.dumps([got, breaks, supervisor.connects]))
"""
    got, breaks, connects = _reader(node, f"{topic}:0", 300, 60, script)
    assert connects == 4
    assert breaks == []
    assert [json.loads(body)["n"] for body, _ in got] == list(range(300))


def test_a_message_costs_little(node: KafkaNode, topic: str) -> None:
    """Few us of all threads' processor time, with its key read out of its body.

    It is less than 8; a processor that others use as well takes longer for the same.
    """
    node.publish(topic, [_DEAL] * 60_000)
    script = """
from rango_gevent.source.kafka.keys import Keys
source._keys = Keys({"*": "public.{body.1|lower}.trades"})
until(lambda: len(got) >= 1000)
before, cpu_s = len(got), time.process_time()
until(lambda: len(got) >= 60_000)
cpu_s = time.process_time() - cpu_s
supervisor.stop()
print(json.dumps([cpu_s * 1e6 / (60_000 - before), got[-1][1].split("-")[0]]))
"""
    cost_us, last = _reader(node, f"{topic}:0", 60_000, 600, script)
    assert last == "59999"
    assert cost_us < 16


def test_memory_is_bounded_however_much_waits(node: KafkaNode, topic: str) -> None:
    """A gateway that reads sixty megabytes of the past holds a part of them at any time."""
    node.publish(topic, [b'{"x":"%s"}' % (b"x" * 10_000)] * 6000, b"public.big.x")
    bounds = {"RANGO_KAFKA_BUFFER_BYTES": str(4 << 20), "RANGO_HISTORY_BYTES": str(1 << 20)}
    env = _source(node, f"{topic}:0", RANGO_KAFKA_WINDOW_S="600", **bounds)
    with start_gateway(env=env, until="/healthz") as server:
        before = _rss(server)
        peak = [before]
        done = threading.Event()

        def look() -> None:
            while not done.wait(0.02):
                peak[0] = max(peak[0], _rss(server))

        looker = threading.Thread(target=look)
        looker.start()
        wait_for(lambda: server.get("/readyz").status == 200, 60, "all to be read")
        done.set()
        looker.join()
        assert server.metric("rango_messages_received_total", scope="public") == 6000
        assert peak[0] - before < 30 << 20


def _rss(server: Server) -> int:
    for line in Path(f"/proc/{server.process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) << 10
    raise AssertionError("no VmRSS")


def test_the_settings_are_tried_by_a_command(node: KafkaNode, topic: str) -> None:
    """As those of RabbitMQ are."""
    for name, code, said in ((topic, 0, f"ok: kafka://{node.address}/{topic}: {topic}"),
                             ("no", 1, f"failed: kafka://{node.address}/no: topic no: Broker: Unknown")):  # fmt: skip
        env = server_env("x", _source(node, name))
        done = subprocess.run(
            [sys.executable, "-m", "rango_gevent", "config", "--check", "--connect"],
            env=env, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert said in done.stdout
        assert done.returncode == code


def test_who_does_not_use_it_imports_none_of_it() -> None:
    """Nor does a gateway of RabbitMQ's have its library in memory."""
    with start_gateway() as server:
        assert "rdkafka" not in Path(f"/proc/{server.process.pid}/maps").read_text()
