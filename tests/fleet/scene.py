"""A fleet: gateways behind HAProxy with conf/haproxy.cfg, a publisher, and clients."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import time
import uuid
from functools import partial
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping

import gevent

from tests.deploy.processes import conf, running
from tests.fleet.clients import Client, Tally
from tests.stillness import Stillness
from tests.support import (
    HOST,
    READY,
    Relay,
    Server,
    amqp_url,
    broker_channel,
    delete_logs,
    free_port,
    logs_made,
    make_token,
    server_env,
    wait_for,
)

PUBLIC_STREAMS = 50
_PRIVATE_SHARE = 0.2  # of the messages
_SETTLE_S = 60.0
_UP_S = 90.0
_ALL_THERE_S = 90.0


class Instance:
    """One gateway on a port of its own, which can be started again.

    Args:
        env: its environment.
        place: directory for its log.
    """

    def __init__(self, env: Mapping[str, str], exchange: str, place: Path) -> None:
        self._env = dict(env)
        self._exchange = exchange
        self._place = place
        self._lives = 0
        self.port = int(env["RANGER_PORT"])
        self.server = self._start()

    def _start(self) -> Server:
        self._lives += 1
        command = [sys.executable, "-m", "rango_gevent"]
        log = self._place / f"{self.port}.{self._lives}.log"
        return Server(command, self._env, self._exchange, log)

    def wait_until_ready(self) -> None:
        """Wait until clients may be sent to it."""
        self.server.wait_until(READY, _UP_S)

    def again(self) -> None:
        """Start it anew; what ran before has ended."""
        self.server.process.wait(60)
        self.server = self._start()

    def signal(self, number: int) -> None:
        """Send its process a signal."""
        os.kill(self.server.process.pid, number)


class Fleet:
    """What a case works with.

    Attributes:
        instances: the gateways.
        clients: those that resume, then those that do not.
        tally: what they saw.
        published: number of messages so far, by the stream's address.
        relay: the gateways' way to the broker.
        drain_s: RANGO_DRAIN_S.
        still: notices when the machine stands still.
    """

    def __init__(
        self,
        instances: list[Instance],
        port: int,
        relay: Relay,
        drain_s: float,
        still: Stillness,
    ) -> None:
        self.still = still
        self.instances = instances
        self.relay = relay
        self.drain_s = drain_s
        self.tally = Tally()
        self.clients: list[Client] = []
        self.published: dict[str, int] = {}
        self._port = port
        self._greenlets: list[gevent.Greenlet[..., None]] = []
        self._publishing: gevent.Greenlet[..., None] | None = None

    def connect(self, resuming: int, plain: int, exchange: str, rate: float) -> None:
        """Bring all clients in, then publish.

        The log begins with a message that nobody holds: before it there is no position to tell.
        """
        self._put(broker_channel(), exchange, "public.first.trades", b"0")
        for number in range(resuming + plain):
            resumes = number < resuming
            public = f"s{number % PUBLIC_STREAMS}.trades"
            names, token = ([public, "order"], f"ID{number}") if resumes else ([public], "")
            client = Client(
                self._port,
                f"client {number}",
                names,
                make_token({"uid": token}) if token else "",
                resumes=resumes,
                tally=self.tally,
            )
            self.clients.append(client)
            self._greenlets.append(gevent.spawn(client.run))
            if number % 25 == 24:
                gevent.sleep(0.05)
        self.wait_until_all_there(_ALL_THERE_S)
        self._publishing = gevent.spawn(partial(self._publish, exchange, rate, resuming))

    def wait_until_all_there(self, timeout_s: float) -> float:
        """Wait until every client has its reply; return the seconds that it took."""
        began_s = time.monotonic()
        wait_for(
            lambda: all(client.is_there for client in self.clients),
            timeout_s,
            "all clients there",
        )
        return time.monotonic() - began_s

    def _publish(self, exchange: str, rate: float, users: int) -> None:
        channel = broker_channel()
        began_s, number = time.monotonic(), 0
        every = round(1 / _PRIVATE_SHARE)
        while True:
            if number % every == every - 1:
                key = f"private.ID{number // every % users}.order"
            else:
                key = f"public.s{number % PUBLIC_STREAMS}.trades"
            count = self.published.get(key, 0)
            self._put(channel, exchange, key, b'{"n":%d}' % count)
            self.published[key] = count + 1
            number += 1
            left_s = began_s + number / rate - time.monotonic()
            if left_s > 0:
                gevent.sleep(left_s)

    @staticmethod
    def _put(channel: Any, exchange: str, key: str, body: bytes) -> None:
        import amqp

        channel.basic_publish(amqp.basic_message.Message(body), exchange, key)

    def settle(self) -> None:
        """Publish no more, and wait until everybody has all of it, for a bounded time."""
        if self._publishing is not None:
            self._publishing.kill()
            self._publishing = None
        with contextlib.suppress(AssertionError):
            wait_for(lambda: not self.behind(), _SETTLE_S, "everything at every client")

    def behind(self) -> int:
        """Return how many messages resuming clients have not seen by now."""
        missing = 0
        for client in self.clients:
            for name in client.streams:
                if "order" in client.streams and name in client.last:
                    uid = client.name.split()[1]
                    key = f"private.ID{uid}.order" if name == "order" else f"public.{name}"
                    missing += self.published.get(key, 0) - 1 - client.last[name]
        return missing

    def bound(self) -> dict[str, object]:
        """Return within what time clients must be back, on a machine that stood still for a while."""
        still_s = self.still.worst_s
        return {"still_s": round(still_s, 2), "bound_s": round(self.drain_s + 2 + still_s, 2)}

    def stop(self) -> None:
        """Let all clients leave."""
        gevent.killall(self._greenlets, timeout=10)


@contextlib.contextmanager
def fleet(
    count: int, drain_s: float, extra: Mapping[str, str], show: Callable[[str], None]
) -> Iterator[tuple[Fleet, str]]:
    """Run gateways behind HAProxy for the length of a ``with`` block.

    Args:
        count: of gateways.
        drain_s: RANGO_DRAIN_S.
        extra: further settings.
        show: told what happens.

    Yields:
        The fleet, and its exchange.
    """
    exchange = f"fleet.{uuid.uuid4().hex[:8]}"
    relay = Relay()
    relay.open()
    with contextlib.ExitStack() as stack:
        stack.callback(relay.cut)
        stack.callback(delete_logs)  # of exchanges that were for this run alone
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rango-fleet-")))
        logs_made.add(f"rango.log.{exchange}")
        instances = []
        for _ in range(count):
            env = server_env(
                exchange,
                {
                    "RANGO_AMQP_URL": relay.url,
                    "RANGO_DRAIN_S": str(drain_s),
                    "RANGO_CLOSE_TIMEOUT_S": "2",
                    "RANGO_MAX_CONNECTIONS_PER_ADDRESS": "0",
                    "HOME": str(place),
                    "LOG_LEVEL": "warn",
                    **extra,
                },
            )
            instance = Instance(env, exchange, place)
            stack.callback(lambda one=instance: one.server.end())
            instances.append(instance)
        for instance in instances:
            instance.wait_until_ready()
        port, admin = free_port(), place / "admin.sock"
        servers = [
            f"    server {name} {HOST}:{one.port}" for name, one in zip("abcdefgh", instances)
        ]
        text = conf(
            "haproxy.cfg",
            {
                "maxconn 50000\n": "maxconn 4000\n",
                "bind :80\n": f"bind {HOST}:{port}\n",
                "/run/haproxy/admin.sock mode": f"{admin} mode",
                "    server a 127.0.0.1:8080\n    server b 127.0.0.1:8081": "\n".join(servers),
            },
        )
        (place / "haproxy.cfg").write_text(text)
        command = ["/usr/sbin/haproxy", "-db", "-f", str(place / "haproxy.cfg")]
        process = stack.enter_context(running(command, place))
        process.wait_for_port(port)
        show(f"{count} gateways behind HAProxy, broker {amqp_url().rpartition('@')[2]}")
        still = stack.enter_context(Stillness())
        running_fleet = Fleet(instances, port, relay, drain_s, still)
        stack.callback(running_fleet.stop)
        yield running_fleet, exchange


# -- what is done to it ---------------------------------------------------------------------------


def rolling(scene: Fleet) -> dict[str, object]:
    """Restart one after another by SIGTERM, each when the one before is ready again."""
    longest_s = 0.0
    for instance in scene.instances:
        began_s = time.monotonic()
        before = len(scene.tally.back)
        instance.signal(signal.SIGTERM)
        instance.again()
        instance.wait_until_ready()
        gevent.sleep(3.5)  # two health checks of HAProxy, before the next one goes
        scene.wait_until_all_there(_ALL_THERE_S)
        returned = [at_s - began_s for at_s, _ in scene.tally.back[before:]]
        longest_s = max([longest_s, *returned])
    return {"back_s": round(longest_s, 2), **scene.bound()}


def killed(scene: Fleet) -> dict[str, object]:
    """Kill one, and start it again after a while."""
    began_s = time.monotonic()
    before = len(scene.tally.back)
    instance = scene.instances[0]
    instance.signal(signal.SIGKILL)
    gevent.sleep(5)
    instance.again()
    instance.wait_until_ready()
    gevent.sleep(5)
    scene.wait_until_all_there(_ALL_THERE_S)
    returned = [at_s - began_s for at_s, _ in scene.tally.back[before:]]
    return {"back_s": round(max(returned, default=0.0), 2), **scene.bound()}


def stalled(scene: Fleet, seconds: float = 20.0) -> dict[str, object]:
    """Stop one for a while."""
    instance = scene.instances[1]
    instance.signal(signal.SIGSTOP)
    try:
        gevent.sleep(seconds)
    finally:
        instance.signal(signal.SIGCONT)
    gevent.sleep(5)
    scene.wait_until_all_there(_ALL_THERE_S)
    return {}


def cut(scene: Fleet, seconds: float = 30.0) -> dict[str, object]:
    """Part all gateways from the broker for a while; nobody is disconnected, and all arrives."""
    before = len(scene.tally.back)
    scene.relay.cut()
    gevent.sleep(seconds)
    scene.relay.open()
    for instance in scene.instances:
        instance.wait_until_ready()
    gevent.sleep(3)
    return {"disconnected": len(scene.tally.back) - before}


CASES: dict[str, Callable[[Fleet], dict[str, object]]] = {
    "rolling": rolling,
    "killed": killed,
    "stalled": stalled,
    "cut": cut,
}
