"""The composition root: builds a gateway from settings, starts it, drains it, stops it.

Here the rooms meet: the source's messages go into the hub, the hub's streams to the
dispatcher, the dispatcher's buffers to the clients. Long-lived greenlets have one spawner,
`Gateway.spawn`: one that ends is logged, counted and started again, and until it runs the
gateway is not ready.
"""

from __future__ import annotations

import dataclasses
import logging
import random
import time
from collections import Counter
from typing import Callable, Sequence

import gevent
from gevent import monkey
from gevent.event import Event
from gevent.queue import SimpleQueue

from rango_gevent import __version__, bounds, dialects
from rango_gevent.access import Access
from rango_gevent.admin.office import Office
from rango_gevent.alerts.watch import Watch, greenlet_incident
from rango_gevent.auth.keys import VerificationKey, described
from rango_gevent.delivery.connection import Connection
from rango_gevent.delivery.dispatcher import Dispatcher
from rango_gevent.delivery.registry import ENDS, Registry
from rango_gevent.delivery.resuming import RECOVERED
from rango_gevent.errors import ConfigError
from rango_gevent.hub.history import GAP, REASONS, History
from rango_gevent.hub.hub import DROPPED, QUEUE_FULL, Hub
from rango_gevent.hub.patterns import Patterns
from rango_gevent.incidents import open_incident
from rango_gevent.kafka_source import open_kafka
from rango_gevent.metrics import Metrics, Reading, from_zero, runtime_gauges
from rango_gevent.protocol import close, refusals, routing
from rango_gevent.scrape import Workers
from rango_gevent.server.metrics_port import MetricsServer
from rango_gevent.settings import Settings, changes, options, told_changes
from rango_gevent.source.amqp.binder import Binder
from rango_gevent.source.base import Source
from rango_gevent.source.kinds import open_source
from rango_gevent.source.supervisor import Supervisor
from rango_gevent.throttle import ThrottledLog
from rango_gevent.urls import mask_url

log = logging.getLogger(__name__)

_RESTART_WAIT_S = 0.5
_DRAIN_POLL_S = 0.02
_DROPS_EVERY_S = 1.0  # metrics count each; a publisher of nothing but garbage fills no disk
_SHOWN_KEY = 255
_LOST = "the broker was lost"


class Gateway:
    """One process's gateway.

    Args:
        settings: what to run with.
        keys: what tokens are checked with.
        sibling_of: process id that this worker's siblings have in common; None: no siblings.
    """

    def __init__(
        self,
        settings: Settings,
        keys: Sequence[VerificationKey],
        *,
        sibling_of: int | None = None,
    ) -> None:
        _check_patched()
        self.settings = settings
        self.metrics = Metrics(self._read, settings.metrics_topics)
        self.binder = Binder(bounds.bindings(settings))
        self.hub = Hub(
            allows=settings.rbac.allows,
            make_queue=SimpleQueue,
            limits=bounds.hub_limits(settings),
            on_stale=self._book_is_stale,
            on_held=self.binder.held,
            patterns=Patterns() if settings.name_patterns else None,
            history=bounds.history(settings),
        )
        self.dispatcher = Dispatcher(
            self.hub, lag=self.metrics.lag, rest_factor=settings.round_rest
        )
        self.dispatcher.set_policies(bounds.slow_policy(settings))
        self.heartbeat = bounds.heartbeat(settings)
        self.registry = Registry(
            self.hub,
            self.dispatcher,
            self.heartbeat,
            bounds.client_limits(settings),
            self.metrics.duration,
            trusted=settings.trusted_proxies,
            pack=bounds.pack(settings),
        )
        self.access = Access(settings, keys, self.registry)
        self.viabtc = dialects.viabtc(
            settings, self.hub, self.registry, self.access, self.binder.held
        )
        self.source = Supervisor(self._open_source(settings), self._broker_is_lost)
        if settings.log != "off":  # what it begins with is a minute old
            self.registry.admission.fills = lambda: self.source.problem
        self._workers = None if sibling_of is None else Workers(self.metrics.text, sibling_of)
        directory = self._workers.directory if self._workers else None
        self.admin = Office(self, *bounds.admin(settings), directory)
        self.metrics_server = MetricsServer(
            self._workers.text if self._workers else self.metrics.text,
            settings.metrics_host,
            settings.metrics_port,
            connections=settings.metrics_connections,
            timeout_s=settings.handshake_timeout_s,
        )
        self._drops = ThrottledLog(log, _DROPS_EVERY_S)
        self.restarts: Counter[str] = Counter()
        self.watch = Watch(settings, self._alarming, self.restarts)
        self._running: dict[str, gevent.Greenlet[..., None]] = {}
        self._down: set[str] = set()
        self._drained: Event | None = None

    def _open_source(self, settings: Settings) -> Source:
        if settings.source:
            return open_kafka(settings, self._publish, self.dispatcher.pace, self._history_broke)
        return open_source(
            settings.broker_urls,
            settings.exchange,
            self._publish,
            bounds.broker_limits(settings),
            self.dispatcher.pace,
            self._accepts,
            bounds.log(settings, self._history_broke),
            self.binder,
        )

    # -- life ---------------------------------------------------------------------------

    def start(self) -> None:
        """Start all greenlets; the broker is connected in the background.

        Raises:
            ConfigError: the metrics port is taken.
        """
        self._say_what_starts()
        room = self.registry.admission.limits.sockets
        if self.settings.max_connections > room:
            log.warning(
                "RANGO_MAX_CONNECTIONS=%d, but there are files for %d only: raise the limit "
                "(ulimit -n, systemd's LimitNOFILE)",
                self.settings.max_connections,
                room,
            )
        self.watch.start()
        self.metrics.watch_gc()
        if self.hub.history is not None:
            self.heartbeat.on_tick = self.hub.history.expire
        self.spawn("watch", self.watch.run)
        self.spawn("dispatcher", self.dispatcher.run)
        self.spawn("heartbeat", self.heartbeat.run)
        self.spawn("source", self.source.run)
        if self.binder.follows:
            self.spawn("bindings", self.binder.run)
        for name, work in self.viabtc.work().items() if self.viabtc is not None else ():
            self.spawn(name, work)
        if self.access.jwks is not None:
            self.spawn("jwks", self.access.jwks.run)
        if self._workers is not None:
            self.spawn("metrics-writer", self._workers.run)
        self.admin.start()
        if self.settings.metrics_port:
            self._start_metrics_server()

    def _say_what_starts(self) -> None:
        settings = self.settings
        metrics = f"metrics on {settings.metrics_host}:{settings.metrics_port}"
        log.info(
            "rango_gevent %s: port %d, %s, %s, %s",
            __version__,
            settings.ws_port,
            mask_url(settings.source) if settings.source else f"exchange {settings.exchange}",
            described([*self.access.keys, *settings.asked]),
            metrics if settings.metrics_port else "no metrics",
        )

    def _start_metrics_server(self) -> None:
        if self._workers is not None:
            self._running["metrics-port"] = gevent.spawn(self.metrics_server.run_when_free)
            return
        try:
            self.metrics_server.start()
        except OSError as error:
            raise ConfigError(
                f"RANGO_METRICS_PORT={self.settings.metrics_port}: cannot listen "
                f"({error.strerror}); give a free port, or 0 for none"
            ) from None

    def spawn(self, name: str, work: Callable[[], None]) -> None:
        """Run a greenlet that is meant to live as long as the gateway."""
        self._running[name] = gevent.spawn(self._supervise, name, work)

    def _supervise(self, name: str, work: Callable[[], None]) -> None:
        while True:
            try:
                work()
                open_incident(log, greenlet_incident(name), "greenlet %s ended", name)
            except Exception:
                open_incident(
                    log, greenlet_incident(name), "greenlet %s failed", name, exc_info=True
                )
            self.restarts[name] += 1
            self._down.add(name)
            gevent.sleep(_RESTART_WAIT_S)
            self._down.discard(name)

    def reload(self, settings: Settings, keys: Sequence[VerificationKey]) -> None:
        """Take over what can change while clients are connected; nobody is dropped.

        That is roles, origins, keys, limits and policies. Listeners, the broker and the
        heartbeat stay as they are until a restart.
        """
        before = self.settings
        fixed = [name for name in changes(before, settings) if not options()[name].reload]
        for name in fixed:
            log.warning("%s needs a restart to change", options()[name].env)
        kept = {name: getattr(before, name) for name in fixed}
        self.settings = dataclasses.replace(settings, **kept)
        self.hub.allows = settings.rbac.allows
        self.hub.limits = bounds.hub_limits(settings)
        self.dispatcher.set_policies(bounds.slow_policy(settings))
        self.registry.set_limits(
            bounds.client_limits(settings), settings.trusted_proxies, bounds.pack(settings)
        )
        self.metrics_server.timeout_s = settings.handshake_timeout_s
        told = told_changes(before, self.settings)
        if tuple(keys) != self.access.keys:
            told.append(described(keys))
        self.access.set(self.settings, keys)
        self.admin.set(*bounds.admin(settings))
        log.info("settings are reloaded: %s", ", ".join(told) or "nothing has changed")

    def drain(self) -> None:
        """Refuse newcomers and tell all clients of the restart, spread over the drain time.

        Returns when everybody is gone or was given up. Calling it twice waits for the first.
        """
        if self._drained is not None:
            self._drained.wait()
            return
        self._drained = Event()
        try:
            self.registry.admission.open = False
            log.info("draining %d connections", len(self.registry))
            clients = list(self.registry)
            random.shuffle(clients)
            self._tell_restart(clients)
            self._wait_until_gone(time.monotonic() + self.settings.close_timeout_s)
        finally:
            self._drained.set()  # or whoever waits for it would do so for ever

    def _tell_restart(self, clients: list[Connection]) -> None:
        """Send close 1012, a share of the clients at a time."""
        started = time.monotonic()
        for index, client in enumerate(clients):
            due_s = index * self.settings.drain_s / len(clients)
            if due_s > time.monotonic() - started:
                gevent.sleep(due_s - (time.monotonic() - started))
            client.close(close.RESTART)

    def _wait_until_gone(self, deadline: float) -> None:
        while len(self.registry) and time.monotonic() < deadline:
            gevent.sleep(_DRAIN_POLL_S)
        for client in self.registry:
            client.lost()

    def stop(self) -> None:
        """Drain, leave the broker, end all greenlets."""
        self.drain()
        gevent.killall(list(self._running.values()), timeout=2)
        self._running.clear()
        self.source.stop()
        self.admin.stop()
        self.metrics_server.stop()
        self.metrics.forget_gc()
        if self._workers is not None:
            self._workers.close()
        log.info("stopped")
        self.watch.stop()

    # -- state --------------------------------------------------------------------------

    def health(self) -> str:
        """Say what is wrong with this process; empty when nothing is."""
        dead = [name for name, greenlet in self._running.items() if greenlet.dead]
        broken = sorted(self._down.union(dead) - {"metrics-port"})
        if broken:
            return f"greenlets are down: {', '.join(broken)}"
        if not self._running:
            return "not started"
        return ""

    def readiness(self) -> str:
        """Say why clients should not be sent here; empty when they should."""
        if not self.registry.admission.open:
            return "draining"
        return self.health() or self.source.problem

    def _alarming(self) -> str | None:
        """Say what people should know if it lasts; None: this is no time to ask."""
        return None if self._drained is not None else self.readiness()

    def _book_is_stale(self, address: str, why: str) -> None:
        if why != _LOST:  # then one line for all
            self._drops.warning(why, "book %s is stale until its next snapshot: %s", address, why)
        self.registry.notify_stale(address)

    def _broker_is_lost(self) -> None:
        keeps_what_comes_meanwhile = self.settings.log != "off" or self.settings.source
        if not keeps_what_comes_meanwhile:
            self._history_broke(GAP)

    def _drop_books(self) -> None:
        self.hub.drop_books(time.time(), _LOST)
        if self.viabtc is not None:
            self.viabtc.lost()

    def _history_broke(self, reason: str) -> None:
        """Forget recent events: what comes does not follow them, or nobody knows whether it does.

        The source calls this, in its own greenlet, before it hands on what comes then.

        Args:
            reason: one of `history.REASONS`, told those who stand before.
        """
        live = len(self.hub.books) - self.hub.shelf.stale
        self._drop_books()
        text = "events were missed (%s): %d books are stale until their next snapshots"
        log.warning(text, reason, live)
        if self.hub.history is not None:
            self.hub.history.clear(reason)
            self.registry.history_broke(reason)

    def _publish(self, key: str, body: bytes, at_s: float, position: int) -> None:
        if key == self.access.control_key:
            self.access.control(body)
            return
        outcome = self.hub.publish(key, body, at_s, position)
        if outcome in DROPPED:
            self._say_dropped(outcome, key)
        if self.viabtc is not None and (outcome not in DROPPED or outcome == QUEUE_FULL):
            self.viabtc.take(key, body, at_s)

    def _accepts(self, key: str, size: int) -> bool:
        refusal = self.hub.refusal(key, size)
        if refusal:
            self._say_dropped(refusal, key)
        return not refusal

    def _say_dropped(self, why: str, key: str) -> None:
        self._drops.warning(why, "dropped a message, %s: routing key %r", why, key[:_SHOWN_KEY])

    def _read(self) -> Reading:
        """Collect the numbers of all rooms for a scrape."""
        hub, registry, source, dispatcher = self.hub, self.registry, self.source, self.dispatcher
        return Reading(
            values={
                "rango_hub_clients_count": len(registry),
                "rango_subscriptions": hub.topics.total,
                "rango_ready": float(not self.readiness()),
                "rango_broker_connected": float(source.connected),
                "rango_books": len(hub.books),
                "rango_books_stale": hub.shelf.stale,
                "rango_book_bytes": hub.shelf.bytes,
                "rango_outbox_bytes": registry.outbox_bytes,
                **_history_reading(hub.history),
                "rango_resumes": from_zero((RECOVERED, *REASONS), registry.desk.resumes),
                "rango_resumed_events": registry.desk.replayed,
                "rango_loop_lag_seconds": self.heartbeat.late_s,
                "promhttp_metric_handler_requests_in_flight": self.metrics_server.in_flight,
                "rango_frames_sent": dispatcher.frames,
                "rango_bytes_sent": dispatcher.bytes,
                "rango_dispatch_slices": dispatcher.slices,
                "rango_connections_opened": registry.opened,
                "rango_subscriptions_refused": hub.refused,
                "rango_bindings": self.binder.count,
                "rango_broker_connects": source.connects,
                "rango_broker_failures": source.failures,
                "rango_broker_disconnected_seconds": source.away_s(),
                "rango_books_dropped": hub.books_dropped,
                "rango_books_stale_seconds": hub.stale_s,
                "rango_messages_received": from_zero(routing.KINDS, hub.received),
                "rango_messages_dropped": from_zero(DROPPED, hub.dropped),
                "rango_frames_skipped": dispatcher.skipped,
                "rango_requests": registry.requests,
                **self.access.reading(),
                **self.admin.reading(),
                **(self.viabtc.reading() if self.viabtc is not None else {}),
                "rango_connections_closed": from_zero(ENDS, registry.closed),
                "rango_connections_refused": from_zero(refusals.WORDS, registry.refused),
                "rango_greenlet_restarts": self.restarts,
                **self.watch.reading(),
                **source.reading(),
                "promhttp_metric_handler_requests": self.metrics_server.scrapes,
                **runtime_gauges(registry.greenlets + len(self._running)),
            },
            subscriptions=hub.topics.held,
            topics=hub.topics.counts(),
        )


def _history_reading(history: History | None) -> dict[str, float]:
    is_kept = history is not None and history.newest
    return {
        "rango_history_events": len(history) if history is not None else 0,
        "rango_history_bytes": history.size if history is not None and is_kept else 0,
        "rango_history_seconds": history.reach_s() if history is not None else 0,
    }


def _check_patched() -> None:
    if not monkey.is_module_patched("socket"):
        raise ConfigError(
            "gevent has not patched the standard library: start through `rango` or a gevent "
            "worker of gunicorn, or call gevent.monkey.patch_all() in the first line"
        )
