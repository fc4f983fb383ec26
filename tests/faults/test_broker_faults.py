"""Every way in which a broker or the path to it can fail, against a real RabbitMQ.

Whatever happens, clients stay connected, nothing comes twice, ``/readyz`` says 503 with the
reason for as long as nothing can come, and messages flow again within a second of the broker
being back (asserted: ten, because this machine may be busy; the measured figures are
printed with ``-s`` and kept in docs/FAULTS.md).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from typing import Any, Callable, Iterator

import amqp
import pytest
from certificate import make_certificate
from relay import Relay
from scene import HEARTBEAT_S, Login, Outage, Scene, open_scene
from support import HEALTHY, HOST, READY, ROOT, Client, free_port, start_gateway, wait_for

sys.path.append(str(ROOT / "scripts"))
from rabbitmq_node import PrivateNode, answers  # noqa: E402 - found on the line before

BOUND_AGAIN_S = 10.0  # only the next binding shows it: a second, on a machine that is not busy
SILENCE_S = 2 * HEARTBEAT_S + 8  # only silence shows it, in two heartbeats
CALM_S = 6 * HEARTBEAT_S  # a heartbeat that no pause of a busy machine is taken for the end of
# connection.blocked with its reason and connection.unblocked: RabbitMQ's extension of AMQP
BLOCKED = b"\x01\0\0\0\0\0\x12\0\x0a\0\x3c\x0dlow on memory\xce"
UNBLOCKED = b"\x01\0\0\0\0\0\x04\0\x0a\0\x3d\xce"

_figures: list[tuple[str, Outage]] = []


@pytest.fixture(scope="module", autouse=True)
def figures() -> Iterator[None]:
    """Print what was measured, as a table."""
    yield
    print("\n| fault | noticed after | flows again after | lost | twice |\n|---|---|---|---|---|")
    for name, outage in _figures:
        noticed = "-" if outage.noticed_s is None else f"{outage.noticed_s:.2f} s"
        print(
            f"| {name} | {noticed} | {outage.back_s:.2f} s | {outage.lost} | {outage.duplicated} |"
        )


def note(name: str, outage: Outage) -> None:
    """Keep a figure, and check what holds after every fault."""
    _figures.append((name, outage))
    assert outage.duplicated == 0


class TlsNode(PrivateNode):
    """A broker that takes TLS on a second port.

    Attributes:
        tls_port: that port.
        authority: file with the certificate to trust.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tls_port = free_port()
        self.authority = make_certificate(self.directory)
        with (self.directory / "rabbitmq.conf").open("a") as settings:
            settings.write(
                f"listeners.ssl.default = {HOST}:{self.tls_port}\n"
                f"ssl_options.cacertfile = {self.authority}\n"
                f"ssl_options.certfile = {self.authority}\n"
                f"ssl_options.keyfile = {self.directory}/key.pem\n"
            )


@pytest.fixture(scope="module")
def node() -> Iterator[TlsNode]:
    """A broker for the tests that leave it running."""
    node = TlsNode()
    try:
        node.start()
        yield node
    finally:
        node.stop()


@pytest.fixture(scope="module")
def mortal_node() -> Iterator[PrivateNode]:
    """A broker for the tests that end it; each starts it, or ends it, as it needs it."""
    node = PrivateNode()
    try:
        yield node
    finally:
        node.stop()


@pytest.fixture
def scene(node: PrivateNode) -> Iterator[Scene]:
    """A gateway before the shared broker, with messages flowing."""
    with open_scene(node.port) as scene:
        scene.flows()
        yield scene


@contextlib.contextmanager
def reachable(port: int) -> Iterator[Callable[[], float]]:
    """Watch a broker's port for when it answers again; for the time, call what it gives."""
    found: list[float] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.01):
            if answers(HOST, port, 0.5):
                found.append(time.monotonic())
                return

    thread = threading.Thread(target=watch, daemon=True)

    def at() -> float:
        thread.join(60)
        return found[0]

    thread.start()
    try:
        yield at
    finally:
        ended.set()
        thread.join(30)


# -- the connection ---------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["cut", "reset"])
def test_a_connection_that_ends(scene: Scene, how: str) -> None:
    """An end and a reset are noticed at once, and the next connection is made at once."""
    scene.strike(getattr(scene.relay, how))
    scene.is_noticed_at_once()
    note(f"connection {how}", scene.recovers(time.monotonic()))


@pytest.mark.parametrize("reset", [True, False])
def test_an_end_in_the_middle_of_a_frame(scene: Scene, reset: bool) -> None:
    """Half a message is forgotten: what follows on the new connection is read from its start."""
    scene.relay.break_after(50_000, reset=reset)
    scene.strike(lambda: setattr(scene.feed, "fill", 100_000), is_slow=True)
    wait_for(lambda: scene.relay.broken, what="an end in the middle")
    scene.feed.fill = 0
    scene.is_noticed_at_once()
    name = f"{'reset' if reset else 'end'} in the middle of a frame"
    note(name, scene.recovers(time.monotonic()))


def test_a_path_that_refuses(scene: Scene) -> None:
    """While the port is closed the gateway is not ready, and it is back as soon as it opens."""
    scene.relay.refuse()
    scene.strike(scene.relay.cut)
    scene.is_noticed_at_once()
    wait_for(lambda: "refused" in scene.gateway.get(READY).body, what="the reason")
    scene.is_away()
    wait_for(lambda: scene.gateway.metric("rango_broker_failures_total") > 5, what="attempts")
    assert len(re.findall(r" (warn|error) ", scene.gateway.log())) < 5, (
        "an attempt is no reason for a line each"
    )
    scene.relay.heal()
    note("port closed", scene.recovers(time.monotonic()))


def test_a_short_stall_loses_nothing(node: PrivateNode) -> None:
    """A path that stands still for less than the heartbeat allows only delays."""
    with open_scene(node.port, env={"RANGO_BROKER_HEARTBEAT_S": str(CALM_S)}) as scene:
        scene.flows()
        scene.relay.stall()
        seen = scene.watchers[0].seen
        wait_for(lambda: _stands_still(seen), what="the last of what was on its way")
        held = len(seen)
        time_to_resume = time.monotonic() + CALM_S / 4
        wait_for(lambda: time.monotonic() > time_to_resume, what="some seconds")
        assert len(seen) == held
        scene.relay.resume()
        scene.flows()
        assert scene.settle() == []
        assert scene.duplicated() == 0
        assert scene.gateway.metric("rango_broker_connects_total") == 1


def test_a_long_stall(scene: Scene) -> None:
    """Silence is noticed within two heartbeats, and the path works again when it does."""
    scene.strike(scene.relay.stall)
    assert "nothing heard" in scene.is_noticed(SILENCE_S)
    scene.is_away()
    scene.relay.resume()
    note("path stalls", scene.recovers(time.monotonic()))


def test_a_black_hole(scene: Scene) -> None:
    """A path that swallows everything is noticed, and an attempt that it swallowed is given up."""
    scene.strike(scene.relay.black_hole)
    assert "nothing heard" in scene.is_noticed(SILENCE_S)
    scene.is_away()
    accepted = scene.relay.accepted
    wait_for(lambda: scene.relay.accepted > accepted + 1, what="an attempt that hangs")
    scene.relay.heal()
    note("black hole", scene.recovers(time.monotonic()))


def test_a_slow_path(node: PrivateNode) -> None:
    """A broker that is far away, 0.3 s for every answer, is connected to and stays connected."""
    with open_scene(node.port) as scene:
        scene.relay.delay(0.15)
        scene.strike(scene.relay.cut)
        scene.is_noticed_at_once()
        note("cut, and 0.3 s for every answer", scene.recovers(time.monotonic(), 20))
        scene.relay.delay(0)


def test_the_next_broker_is_tried(node: PrivateNode) -> None:
    """Of several brokers the one that answers is taken, and after a fault another one."""
    with Relay(node.port) as second:
        urls = f"{Login().url(free_port())};{Login().url(second.port)}"
        with start_gateway(env={"RANGO_AMQP_URL": urls}) as gateway:
            second.refuse()
            second.cut()
            wait_for(lambda: gateway.get(READY).status == 503, what="not ready")
            second.heal()
            gateway.wait_until(READY)


# -- the broker -------------------------------------------------------------------------------


def test_the_broker_application_stops(node: PrivateNode, scene: Scene) -> None:
    """``stop_app`` closes the connection with a word; after ``start_app`` all is declared anew."""
    try:
        scene.strike(lambda: node.ctl("stop_app"), is_slow=True)
        assert scene.is_noticed_at_once()
        scene.is_away()
    except BaseException:
        node.ctl("start_app")  # other tests need it
        raise
    with reachable(node.port) as at:
        node.ctl("start_app")
        note("stop_app, start_app", scene.recovers(at()))


def test_the_broker_is_absent_at_start(mortal_node: PrivateNode) -> None:
    """The gateway starts without a broker: alive, not ready, and connected when it comes."""
    mortal_node.kill()
    with open_scene(mortal_node.port, until=HEALTHY) as scene:
        assert scene.is_noticed_at_once()
        scene.is_away()
        assert scene.gateway.metric("rango_broker_connects_total") == 0
        with reachable(mortal_node.port) as at:
            mortal_node.start()
            note("absent at start", scene.recovers(at())._replace(noticed_s=None))


def test_the_broker_is_killed(mortal_node: PrivateNode) -> None:
    """``kill -9``: exchange, queue and binding are gone with the broker, and made again."""
    if not answers(HOST, mortal_node.port):
        mortal_node.start()
    with open_scene(mortal_node.port) as scene:
        scene.flows()
        scene.strike(mortal_node.kill)
        assert scene.is_noticed_at_once()
        scene.is_away()
        with reachable(mortal_node.port) as at:
            mortal_node.start()
            note("kill -9, start", scene.recovers(at()))


def test_the_broker_stands_still(node: PrivateNode, scene: Scene) -> None:
    """A stopped Erlang machine keeps its sockets open: only its silence shows it."""
    pid = node.pid
    scene.strike(lambda: os.kill(pid, signal.SIGSTOP))
    try:
        assert "nothing heard" in scene.is_noticed(SILENCE_S)
        scene.is_away()
    finally:
        os.kill(pid, signal.SIGCONT)
    note("SIGSTOP, SIGCONT", scene.recovers(time.monotonic()))


def test_a_memory_alarm(node: PrivateNode, scene: Scene) -> None:
    """The broker blocks who publishes; the gateway stays connected and gets what comes later."""
    connects = scene.gateway.metric("rango_broker_connects_total")
    node.ctl("set_vm_memory_high_watermark", "0.0001")
    try:
        wait_for(lambda: _stands_still(scene.feed.accepted), what="a blocked publisher")
        scene.relay.insert(BLOCKED)  # what the broker tells those who publish, and only them
        quiet_until = time.monotonic() + 2 * HEARTBEAT_S
        wait_for(lambda: time.monotonic() > quiet_until, what="silence but for heartbeats")
        assert scene.gateway.get(READY).status == 200
        scene.relay.insert(UNBLOCKED)
    finally:
        node.ctl("set_vm_memory_high_watermark", "absolute", "1GB")
    scene.flows()
    assert scene.settle() == []
    assert scene.duplicated() == 0
    assert scene.gateway.metric("rango_broker_connects_total") == connects


def _stands_still(growing: list[Any]) -> bool:
    """Tell whether a list does not grow for half a second."""
    before, until = len(growing), time.monotonic() + 0.5
    wait_for(lambda: time.monotonic() > until)
    return len(growing) == before


def test_a_busy_feed_is_no_silence(node: PrivateNode) -> None:
    """A consumer that is never idle still sends heartbeats: six of them long, no disconnect."""
    with open_scene(node.port) as scene:
        scene.feed.every_s = 0.002
        end = time.monotonic() + 6.5 * HEARTBEAT_S
        wait_for(lambda: time.monotonic() > end, 8 * HEARTBEAT_S)
        rate = len(scene.feed.accepted) / (6.5 * HEARTBEAT_S)
        assert rate > 20, "the feed is not busy"
        assert scene.settle() == []
        assert scene.duplicated() == 0
        assert scene.gateway.metric("rango_broker_connects_total") == 1
        assert [status for _, status, _ in scene.readiness.changes] == [200]
        print(f"\nbusy feed: {rate:.0f} messages/s for {6.5 * HEARTBEAT_S:g} s, no disconnect")


# -- what is declared in the broker -----------------------------------------------------------


def queues(node: PrivateNode) -> list[str]:
    """Return the names of the gateways' queues."""
    return [line for line in node.ctl("list_queues", "name").split() if line.startswith("rango.")]


def only_queue(node: PrivateNode) -> str:
    """Return the name of the gateway's queue, when those of other tests are gone."""
    wait_for(lambda: len(queues(node)) == 1, what="one queue")
    (name,) = queues(node)
    return name


def test_the_queue_is_deleted(node: PrivateNode, scene: Scene) -> None:
    """Somebody deletes the queue: the broker cancels the consumer, and it makes another."""
    queue = only_queue(node)
    scene.strike(lambda: node.ctl("delete_queue", queue), is_slow=True)
    assert "queue" in scene.is_noticed_at_once()
    note("queue deleted", scene.recovers(time.monotonic()))


def test_the_consumer_is_cancelled(node: PrivateNode, scene: Scene) -> None:
    """The broker itself gives the queue up, as when the node that holds it leaves a cluster."""
    queue = only_queue(node)
    give_up = (
        f'{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"{queue}">>)), '
        "rabbit_amqqueue:delete_immediately([amqqueue:get_pid(Q)])."
    )
    scene.strike(lambda: node.ctl("eval", give_up), is_slow=True)
    assert "cancelled" in scene.is_noticed_at_once()
    note("consumer cancelled", scene.recovers(time.monotonic()))


def test_the_exchange_is_deleted_and_declared_as_durable(node: PrivateNode, scene: Scene) -> None:
    """The broker says nothing; the next binding shows it, and the new exchange is not ours."""
    channel = Login().connect(node.port).channel()
    scene.strike(lambda: channel.exchange_delete(scene.gateway.exchange))
    assert "exchange" in scene.is_noticed(BOUND_AGAIN_S)
    scene.is_away()
    channel.exchange_declare(scene.gateway.exchange, "topic", durable=True, auto_delete=False)
    note("exchange deleted, declared as durable", scene.recovers(time.monotonic()))
    channel.exchange_delete(scene.gateway.exchange)
    channel.connection.close()


def test_the_exchange_is_replaced_in_one_breath(node: PrivateNode, scene: Scene) -> None:
    """Deleted and declared before anybody can look: the binding is back within a second."""
    channel = Login().connect(node.port).channel()

    def replace() -> None:
        channel.exchange_delete(scene.gateway.exchange)
        channel.exchange_declare(scene.gateway.exchange, "topic", durable=True, auto_delete=False)

    scene.strike(replace)
    at = time.monotonic()
    flowing_at = scene.flows_after(at + 0.05, BOUND_AGAIN_S)
    lost = scene.settle()
    note("exchange replaced in one breath", Outage(None, flowing_at - at, len(lost), 0, ""))
    assert scene.duplicated() == 0
    channel.exchange_delete(scene.gateway.exchange)
    channel.connection.close()


def test_the_exchange_is_deleted_and_nobody_declares_it(node: PrivateNode, scene: Scene) -> None:
    """After a while in which its owner could have, the gateway declares it, as at its start."""
    channel = Login().connect(node.port).channel()
    scene.strike(lambda: channel.exchange_delete(scene.gateway.exchange))
    assert "exchange" in scene.is_noticed(BOUND_AGAIN_S)
    note("exchange deleted, declared by nobody", scene.recovers(time.monotonic(), 15))
    channel.connection.close()


def test_the_password_changes(node: PrivateNode) -> None:
    """A changed password shows at the next connection; the right one works within a second."""
    login = _add_user(node, "trader")
    with open_scene(node.port, login) as scene:
        scene.flows()
        node.ctl("change_password", login.user, "another")
        scene.strike(scene.relay.cut)
        assert scene.is_noticed_at_once()
        wait_for(lambda: "ACCESS_REFUSED" in scene.gateway.get(READY).body, what="the reason")
        scene.is_away()
        assert login.password not in scene.gateway.log()
        node.ctl("change_password", login.user, login.password)
        note("password changed and changed back", scene.recovers(time.monotonic()))


def _add_user(node: PrivateNode, user: str) -> Login:
    login = Login(user, "secret")
    node.ctl("add_user", login.user, login.password)
    node.ctl("set_permissions", login.user, ".*", ".*", ".*")
    return login


def test_the_virtual_host_is_deleted(node: PrivateNode) -> None:
    """The broker closes the connection, refuses new ones, and takes them when it is back."""
    login = Login(vhost="market")
    _add_vhost(node, login)
    with open_scene(node.port, login) as scene:
        scene.flows()
        scene.strike(lambda: node.ctl("delete_vhost", login.vhost), is_slow=True)
        assert scene.is_noticed_at_once()
        wait_for(lambda: "NOT_ALLOWED" in scene.gateway.get(READY).body, what="the reason")
        scene.is_away()
        _add_vhost(node, login)
        note("virtual host deleted and made again", scene.recovers(time.monotonic()))


def _add_vhost(node: PrivateNode, login: Login) -> None:
    node.ctl("add_vhost", login.vhost)
    node.ctl("set_permissions", "-p", login.vhost, login.user, ".*", ".*", ".*")


# -- books ------------------------------------------------------------------------------------


def test_no_stale_book_is_served_after_an_outage(node: PrivateNode, scene: Scene) -> None:
    """A newcomer gets no replay until the next snapshot, and that one goes to everybody."""
    with publisher(node, scene) as publish:
        publish("public.b.ob-snap", 1)
        publish("public.b.ob-inc", 2)
        scene.flows()  # what was published before has been handled too
        with subscriber(scene) as before:
            assert sequences(before, 2) == [("ob-snap", 1), ("ob-inc", 2)]
            scene.relay.black_hole()
            wait_for(lambda: scene.gateway.get(READY).status == 503, SILENCE_S, "not ready")
            publish("public.b.ob-inc", 3)
            with subscriber(scene) as during:
                assert sequences(during, 0) == []
                assert scene.gateway.metric("rango_books_stale") == 1
                scene.relay.heal()
                wait_for(lambda: scene.gateway.get(READY).status == 200, what="ready")
                publish("public.b.ob-inc", 4)
                scene.flows()
                with subscriber(scene) as after:
                    assert sequences(after, 0) == []
                    publish("public.b.ob-inc", 5)
                    publish("public.b.ob-snap", 6)
                    publish("public.b.ob-inc", 7)
                    news = [("ob-inc", 5), ("ob-snap", 6), ("ob-inc", 7)]
                    assert live(after, 3) == news
                    assert live(during, 4) == [("ob-inc", 4), *news]
                    assert live(before, 4) == [("ob-inc", 4), *news]
        scene.flows()
        with subscriber(scene) as late:
            assert sequences(late, 2) == [("ob-snap", 6), ("ob-inc", 7)]
        assert scene.gateway.metric("rango_books_stale") == 0
        assert scene.gateway.metric("rango_books_stale_seconds_total") > 0


@contextlib.contextmanager
def publisher(node: PrivateNode, scene: Scene) -> Iterator[Callable[[str, int], None]]:
    """Publish bodies with a sequence number; the broker has each when the call returns."""
    connection = Login().connect(node.port)
    channel = connection.channel()

    def publish(key: str, sequence: int) -> None:
        message = amqp.basic_message.Message(json.dumps({"sequence": sequence}))
        channel.basic_publish_confirm(message, exchange=scene.gateway.exchange, routing_key=key)

    yield publish
    connection.close()


@contextlib.contextmanager
def subscriber(scene: Scene) -> Iterator[Client]:
    """Subscribe to the book."""
    with scene.gateway.connect("/public?stream=b.ob-inc") as client:
        yield client


def sequences(client: Client, count: int) -> list[tuple[str, int]]:
    """Return what the replay brought: type and sequence, up to the reply, which ends it."""
    replayed = live(client, count)
    assert "success" in client.receive_json()
    return replayed


def live(client: Client, count: int) -> list[tuple[str, int]]:
    """Return type and sequence of the next messages."""
    found = []
    for _ in range(count):
        [(name, body)] = client.receive_json().items()
        found.append((name.partition(".")[2], body["sequence"]))
    return found


# -- TLS, and leaving -------------------------------------------------------------------------


def test_a_broker_behind_tls(node: TlsNode) -> None:
    """Silence is no fault while heartbeats come, a swallowed goodbye stops nobody."""
    env = {"SSL_CERT_FILE": str(node.authority)}
    with open_scene(node.port, target_port=node.tls_port, scheme="amqps", env=env) as scene:
        scene.flows()
        quiet_until = time.monotonic() + HEARTBEAT_S
        scene.feed.every_s = HEARTBEAT_S  # so that reading runs into its timeout in between
        wait_for(lambda: time.monotonic() > quiet_until, what="silence but for heartbeats")
        scene.feed.every_s = 0.02
        scene.flows()
        assert scene.gateway.metric("rango_broker_connects_total") == 1
        scene.strike(scene.relay.black_hole)
        assert "nothing heard" in scene.is_noticed(SILENCE_S)
        scene.is_away()
        scene.relay.heal()
        note("black hole, with TLS", scene.recovers(time.monotonic()))


def test_a_certificate_for_another_name_is_refused(node: TlsNode) -> None:
    """With amqps the broker must show a certificate for the name in the URL."""
    with Relay(node.tls_port) as relay:
        env = {
            "RANGO_AMQP_URL": f"amqps://guest:guest@localhost:{relay.port}//",
            "SSL_CERT_FILE": str(node.authority),
        }
        with start_gateway(env=env, until=HEALTHY) as gateway:
            wait_for(lambda: "CERTIFICATE_VERIFY" in gateway.get(READY).body, what="the reason")


@pytest.mark.parametrize("faults", [["black_hole"], ["black_hole", "cut"], ["refuse", "cut"]])
def test_the_gateway_ends_without_a_broker(scene: Scene, faults: list[str]) -> None:
    """SIGTERM: exit code 0 in bounded time; while it reads, while it connects, while it waits."""
    for fault in faults:
        scene.strike(getattr(scene.relay, fault))
    if len(faults) > 1:
        scene.is_noticed_at_once()
    started = time.monotonic()
    end(scene)
    assert time.monotonic() - started < 20


def test_the_gateway_tells_the_broker_goodbye(node: PrivateNode) -> None:
    """The broker logs an orderly end of the connection."""
    login = _add_user(node, "leaver")
    with open_scene(node.port, login) as scene:
        scene.flows()
        end(scene)
        ends_in_order(node, login)


def end(scene: Scene) -> None:
    """End the gateway with SIGTERM, its clients first."""
    for watcher in scene.watchers:
        watcher.close()
    scene.readiness.stop()
    assert scene.gateway.stop() == 0
    assert "Traceback" not in scene.gateway.log()


def ends_in_order(node: PrivateNode, login: Login) -> None:
    """Check in the broker's log that the first connection of a user to end did so in order."""

    def ends() -> list[str]:
        logs = (path.read_text() for path in (node.directory / "log").glob("*.log"))
        pattern = rf"closing AMQP connection .*user: '{login.user}'\)(.*(?:\n.*unexpected.*)?)"
        return [end for log in logs for end in re.findall(pattern, log)]

    wait_for(ends, what="the end in the broker's log")
    assert "unexpected" not in ends()[0]


STOP_WHILE_READING = """
from gevent import monkey
monkey.patch_all()
import sys
import gevent
from rango_gevent.source.base import BrokerLimits, QueueLimits
from rango_gevent.source.kinds import open_source
from rango_gevent.source.supervisor import Supervisor

limits = BrokerLimits(5.0, 2, QueueLimits(1000, 10.0))
source = open_source([sys.argv[1]], "stop.test", lambda key, body, at_s, position: None, limits)
supervisor = Supervisor(source)
reader = gevent.spawn(supervisor.run)
with gevent.Timeout(10):
    while not supervisor.connected:
        gevent.sleep(0.01)
gevent.sleep(0.1)  # it reads by now
supervisor.stop()
assert reader.dead
"""


def test_a_consumer_is_stopped_while_it_reads(node: PrivateNode) -> None:
    """`Supervisor.stop` from another greenlet ends `Supervisor.run`, with a goodbye."""
    login = _add_user(node, "stopper")
    url = login.url(node.port)
    subprocess.run([sys.executable, "-c", STOP_WHILE_READING, url], check=True, timeout=60)
    ends_in_order(node, login)
