"""What a test of a broker's fault looks at: a gateway, its clients, a feed, and what they saw.

A `Feed` publishes numbers straight to the broker, each with the broker's confirmation; the
gateway reaches the same broker through a `relay.Relay`; `Watcher`s are WebSocket clients that
note when each number came; a `ReadinessLog` notes what ``/readyz`` said. From their notes an
`Outage` knows how soon a fault was noticed, how soon messages flowed again after the broker
could be reached, and which were lost or came twice.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from functools import partial
from typing import Any, Callable, Iterator, Mapping, NamedTuple

import amqp
from relay import HOST, Relay
from support import PATIENCE_S, READY, Server, connect, http_request, start_gateway, wait_for
from websockets.exceptions import ConnectionClosed

CLIENTS = 3
STREAM = "m.trades"
KEY = f"public.{STREAM}"
HEARTBEAT_S = 2
_POLL_S = 0.01
_RETRY_S = 0.02
_CONNECT_S = 2.0  # a feed whose broker stands still tries again
_ON_ITS_WAY_S = 3.0  # the most that a message takes through a gateway on a busy machine


class Login(NamedTuple):
    """User, password and virtual host."""

    user: str = "guest"
    password: str = "guest"
    vhost: str = "/"

    def url(self, port: int, scheme: str = "amqp") -> str:
        """Return a URL for the gateway."""
        vhost = "/" if self.vhost == "/" else self.vhost
        return f"{scheme}://{self.user}:{self.password}@{HOST}:{port}/{vhost}"

    def connect(self, port: int, timeout_s: float = PATIENCE_S) -> amqp.Connection:
        """Connect to a broker."""
        connection = amqp.Connection(
            f"{HOST}:{port}",
            self.user,
            self.password,
            virtual_host=self.vhost,
            connect_timeout=timeout_s,
        )
        connection.connect()
        return connection


class Feed:
    """Publishes 0, 1, 2, ... until stopped, and connects again when it must.

    Attributes:
        accepted: number and time of each message that the broker has confirmed.
        every_s: seconds between two messages.
        fill: bytes to make the next messages longer by.
        confirms: wait for the broker's confirmation of each; else a message is accepted once
            it is sent.
    """

    def __init__(self, port: int, login: Login, exchange: str, every_s: float) -> None:
        self._port = port
        self._login = login
        self._exchange = exchange
        self.every_s = every_s
        self._next = 0
        self._ended = threading.Event()
        self.accepted: list[tuple[int, float]] = []
        self.fill = 0
        self.confirms = True
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)
        self._thread.start()

    def next_number(self) -> int:
        """Return a number such that it, and all above it, are published from now on."""
        return self._next

    def stop(self) -> None:
        """Stop, with the last message confirmed."""
        self._ended.set()
        self._thread.join(30)
        assert not self._thread.is_alive(), "the feed is stuck"

    def _run(self) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(OSError, amqp.exceptions.AMQPError):
                self._publish_all()
            self._ended.wait(_RETRY_S)

    def _publish_all(self) -> None:
        connection = self._login.connect(self._port, _CONNECT_S)
        try:
            channel = connection.channel()
            due = time.monotonic()
            while not self._ended.wait(max(0.0, due - time.monotonic())):
                self._publish(channel)
                due = max(due + self.every_s, time.monotonic())  # never makes up for a pause
        finally:
            connection.collect()

    def _publish(self, channel: Any) -> None:
        number, self._next = self._next, self._next + 1
        body = f'{{"n":{number},"fill":"{"x" * self.fill}"}}'
        message = amqp.basic_message.Message(body)
        publish = channel.basic_publish_confirm if self.confirms else channel.basic_publish
        publish(message, exchange=self._exchange, routing_key=KEY)
        self.accepted.append((number, time.monotonic()))


class Watcher:
    """A WebSocket client that notes number and time of all that comes, and never reconnects.

    Attributes:
        seen: number and time of each message.
        is_open: it was never closed.
    """

    def __init__(self, server: Server) -> None:
        self._client = connect(server.url, f"/public?stream={STREAM}")
        self._client.receive()  # the reply to the subscription
        self.seen: list[tuple[int, float]] = []
        self.is_open = True
        self._leaves = False
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while True:
                number = self._client.receive_json(timeout_s=600)[STREAM]["n"]
                self.seen.append((number, time.monotonic()))
        except ConnectionClosed:
            self.is_open = self._leaves

    def numbers(self) -> list[int]:
        """Return the numbers seen, in order of arrival."""
        return [number for number, _ in self.seen]

    def has(self, number: int) -> bool:
        """Tell whether a number was seen."""
        return number in self.numbers()

    def has_reached(self, number: int) -> bool:
        """Tell whether a number or one above it was seen."""
        return bool(self.seen) and self.seen[-1][0] >= number

    def first_after(self, at: float) -> float | None:
        """Return when the first message after a time came."""
        return next((seen_at for _, seen_at in self.seen if seen_at > at), None)

    def close(self) -> None:
        """Leave."""
        self._leaves = True
        self._client.close()
        self._thread.join(30)


class ReadinessLog:
    """Asks for ``/readyz`` all the time and notes when the answer changes.

    Attributes:
        changes: time, status and text of each answer that differs from the one before.
    """

    def __init__(self, server: Server) -> None:
        self._port = server.port
        self._ended = threading.Event()
        self.changes: list[tuple[float, int, str]] = []
        self._thread = threading.Thread(target=self._run, name="readiness", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(_POLL_S):
            answer = http_request(self._port, READY)
            said = (answer.status, answer.body)
            if not self.changes or self.changes[-1][1:] != said:
                self.changes.append((time.monotonic(), *said))

    def first_after(self, at: float, status: int) -> tuple[float, int, str] | None:
        """Return the first answer of a status after a time."""
        return next((seen for seen in self.changes if seen[0] > at and seen[1] == status), None)

    def stop(self) -> None:
        """Stop asking."""
        self._ended.set()
        self._thread.join(30)


class Outage(NamedTuple):
    """What one fault did, in seconds and messages.

    Attributes:
        noticed_s: from the fault to the first "not ready"; None: it never was.
        back_s: from when the broker could be reached to the last client's first message.
        lost: messages that the broker took and no client got.
        duplicated: messages that a client got twice.
        reason: the first text of "not ready".
    """

    noticed_s: float | None
    back_s: float
    lost: int
    duplicated: int
    reason: str


class Scene:
    """A gateway with clients behind a relay before a broker, and a feed.

    Attributes:
        gateway: the server.
        relay: what it reaches the broker through.
        feed: what publishes, straight to the broker.
        watchers: its clients.
        readiness: what ``/readyz`` said.
    """

    def __init__(self, gateway: Server, relay: Relay, port: int, login: Login) -> None:
        self.gateway = gateway
        self.relay = relay
        self.readiness = ReadinessLog(gateway)
        self.watchers = [Watcher(gateway) for _ in range(CLIENTS)]
        self.feed = Feed(port, login, gateway.exchange, every_s=0.02)
        self._connects = self.gateway.metric("rango_broker_connects_total")
        self._away_s = self.gateway.metric("rango_broker_disconnected_seconds_total")
        self._descriptors = self._count_descriptors()
        self._fault_at = 0.0
        self._is_slow = False

    def flows(self, timeout_s: float = PATIENCE_S) -> None:
        """Wait until something that is published from now on has come to every client."""
        number = self.feed.next_number()
        for watcher in self.watchers:
            reached = partial(watcher.has_reached, number)
            wait_for(reached, timeout_s, "a new message for every client")

    def flows_after(self, at: float, timeout_s: float = PATIENCE_S) -> float:
        """Wait until every client got something after a time; return when the last one did."""
        for watcher in self.watchers:
            wait_for(partial(watcher.first_after, at), timeout_s, "a message for every client")
        return max(watcher.first_after(at) or 0.0 for watcher in self.watchers)

    def strike(self, fault: Callable[[], object], *, is_slow: bool = False) -> None:
        """Do what breaks the connection.

        Args:
            fault: what to do.
            is_slow: it is a command that takes effect somewhere within its time; the fault is
                then taken to be when the last message came.
        """
        self._fault_at = time.monotonic()
        self._is_slow = is_slow
        fault()

    def is_noticed_at_once(self) -> str:
        """Wait until the gateway is not ready, and return its reason, which is not silence."""
        reason = self.is_noticed(PATIENCE_S)
        assert "nothing heard" not in reason
        return reason

    def is_noticed(self, within_s: float) -> str:
        """Wait until the gateway is not ready, and return its reason."""
        find = partial(self.readiness.first_after, self._fault_at, 503)
        found = wait_for(find, within_s, "not ready")
        assert found is not None, "wait_for returns what is true"
        at, _, reason = found
        if self._is_slow:
            seen = [seen_at for seen_at in self._times() if seen_at < at]
            self._fault_at = max(seen, default=self._fault_at)
        return reason

    def _times(self) -> list[float]:
        return [at for watcher in self.watchers for _, at in list(watcher.seen)]

    def is_away(self) -> None:
        """Check what the metrics say while there is no broker."""
        assert self.gateway.metric("rango_broker_connected") == 0
        before = self.gateway.metric("rango_broker_disconnected_seconds_total")
        wait_for(
            lambda: self.gateway.metric("rango_broker_disconnected_seconds_total") > before,
            what="the time without a broker grows",
        )
        assert self.gateway.get(READY).status == 503
        assert self.gateway.get("/healthz").status == 200, "without a broker it still lives"

    def recovers(self, reachable_at: float, within_s: float = 10) -> Outage:
        """Wait until messages flow again, look at everything, and return what happened.

        Args:
            reachable_at: when the broker could be reached again.
            within_s: limit for the first message to all clients after that.
        """
        flowing_at = self.flows_after(reachable_at, within_s + 1)
        back_s = flowing_at - reachable_at
        assert back_s <= within_s
        self.gateway.wait_until(READY)
        self._has_come_back()
        lost = self.settle()
        times = dict(self.feed.accepted)
        first, last = self._fault_at - _ON_ITS_WAY_S, flowing_at + _ON_ITS_WAY_S
        early = [n for n in lost if not first <= times[n] <= last]
        assert not early, f"lost outside of the outage: {early}"
        noticed_at, _, reason = self.readiness.first_after(self._fault_at, 503) or (None, 0, "")
        noticed_s = None if noticed_at is None else noticed_at - self._fault_at
        return Outage(noticed_s, back_s, len(lost), self.duplicated(), reason)

    def _has_come_back(self) -> None:
        assert self.gateway.metric("rango_broker_connected") == 1
        assert self.gateway.metric("rango_broker_connects_total") > self._connects
        assert self.gateway.metric("rango_broker_disconnected_seconds_total") > self._away_s

    def settle(self) -> list[int]:
        """Stop the feed, wait for its last message, look at the clients; return what was lost."""
        self.feed.stop()
        last = self.feed.accepted[-1][0]
        for watcher in self.watchers:
            wait_for(partial(watcher.has, last), what="the last message")
        numbers = self.watchers[0].numbers()
        assert all(watcher.numbers() == numbers for watcher in self.watchers)
        assert numbers == sorted(numbers), "out of order"
        self.is_undisturbed()
        got = set(numbers)
        return [number for number, _ in self.feed.accepted if number not in got]

    def duplicated(self) -> int:
        """Return how many messages a client got more than once."""
        numbers = self.watchers[0].numbers()
        return len(numbers) - len(set(numbers))

    def is_undisturbed(self) -> None:
        """Check that no client was closed, nothing started again, and nothing left open."""
        assert all(watcher.is_open for watcher in self.watchers)
        assert self.gateway.metric("rango_connections_opened_total") == CLIENTS
        assert "rango_greenlet_restarts_total{" not in self.metrics()

        most = self._descriptors + 2  # questions for readiness and metrics come and go
        wait_for(lambda: self._count_descriptors() <= most, what=f"at most {most} descriptors")

    def _count_descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.gateway.process.pid}/fd"))

    def metrics(self) -> str:
        """Return the text of all metrics."""
        return http_request(self.gateway.metrics_port, "/metrics").body

    def close(self) -> None:
        """End the feed and the clients."""
        self.feed.stop()
        self.readiness.stop()
        for watcher in self.watchers:
            watcher.close()


@contextlib.contextmanager
def open_scene(
    port: int,
    login: Login | None = None,
    *,
    target_port: int | None = None,
    scheme: str = "amqp",
    env: Mapping[str, str] | None = None,
    until: str = READY,
    exchange: str | None = None,
) -> Iterator[Scene]:
    """Run a gateway behind a relay, with clients and a feed.

    Args:
        port: the broker's AMQP port, for the feed.
        login: what gateway and feed log in with.
        target_port: the port that the relay passes on to, the same by default.
        scheme: scheme of the gateway's broker URL.
        env: more settings of the gateway.
        until: path whose 200 is waited for before the clients connect.
        exchange: the gateway's exchange; one of its own by default.
    """
    login = login or Login()
    with Relay(target_port or port) as relay:
        settings = {
            "RANGO_AMQP_URL": login.url(relay.port, scheme),
            "RANGO_BROKER_HEARTBEAT_S": str(HEARTBEAT_S),
            **(env or {}),
        }
        with start_gateway(exchange=exchange, env=settings, until=until) as gateway:
            scene = Scene(gateway, relay, port, login)
            try:
                yield scene
            finally:
                scene.close()
