"""Workers under gunicorn: a worker class that serves clients to the end, and its parent's hooks.

The parent binds nothing: each worker listens for itself with SO_REUSEPORT, so each has an accept
queue of its own and the kernel spreads connections evenly. gunicorn imports this module in its
parent, which must stay unpatched: nothing here opens a socket before a worker has patched.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections import deque
from functools import partial

import gevent
from geventwebsocket.gunicorn.workers import GeventWebSocketWorker
from gunicorn.arbiter import Arbiter
from gunicorn.workers.base import Worker

from rango_gevent.alerts.handler import Alerts
from rango_gevent.alerts.watch import share
from rango_gevent.environment import load_settings, print_problems
from rango_gevent.errors import ConfigError
from rango_gevent.incidents import end_incident, open_incident
from rango_gevent.scrape import forget_workers
from rango_gevent.server.listener import allow_open_files, listen
from rango_gevent.server.reload import reload_settings

log = logging.getLogger("gunicorn.error")

BAD_SETTINGS = 2
_NOTIFY_S = 1.0
_LOOP_S = 10.0
_LOOP_WAIT_S = 2.0
_LOOP = "worker loop"
_STEADY_S = 15.0  # a worker that lives so long ends the loop
_FORGET_S = 60.0


class ReusePortWorker(GeventWebSocketWorker):
    """A worker that listens for itself and drains to the end."""

    def patch(self) -> None:
        """Patch the standard library, then open this worker's own listener."""
        super().patch()
        self.notify()
        allow_open_files()
        try:
            settings = load_settings().settings
            self.sockets = [listen(settings.ws_host, settings.ws_port, reuse_port=True)]
        except ConfigError as error:
            print_problems(error)
            sys.exit(Arbiter.WORKER_BOOT_ERROR)

    def init_signals(self) -> None:
        """Leave SIGHUP alone until there is a gateway to reload: its default is to end us."""
        super().init_signals()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def load_wsgi(self) -> None:
        """Start the gateway; when it refuses its settings, gunicorn must give up.

        With any other exit code gunicorn starts the worker again, for ever.
        """
        self.notify()
        try:
            super().load_wsgi()
        except SystemExit:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)

    def run(self) -> None:
        """Serve until told to stop, then tell the parent of life until the drain is over.

        A worker that says nothing for ``timeout`` seconds is killed with all its clients.
        """
        gevent.signal_handler(signal.SIGHUP, reload_settings, self.wsgi.gateway, {})
        if _loop.is_on:
            ended = "workers live again: this one has for %g s"
            gevent.spawn_later(_STEADY_S, end_incident, _LOOP, ended, _STEADY_S)
        super().run()
        drain = gevent.spawn(self.wsgi.gateway.drain)
        while not drain.ready():
            self.notify()
            drain.join(_NOTIFY_S)


def pre_fork(server: Arbiter, worker: Worker) -> None:
    """Count a worker's silence from its start.

    gunicorn compares the file's time with a monotonic clock. Before the first sign of life that
    is a date, far ahead of the clock, so a worker that hangs while it starts would stay for ever.
    """
    worker.tmp.notify()


class _Loop:
    """The parent's memory of workers that died; the workers that it forks have it too."""

    def __init__(self) -> None:
        self.deaths: deque[float] = deque()
        self.is_on = False

    def died(self, now: float, most: int) -> bool:
        """Note a death; tell whether the last ``most`` came too fast."""
        if not self.deaths or now - self.deaths[-1] > _FORGET_S:
            self.is_on = False
        self.deaths.append(now)
        while len(self.deaths) > most:
            self.deaths.popleft()
        is_fast = len(self.deaths) == most and now - self.deaths[0] < _LOOP_S
        self.is_on = self.is_on or is_fast
        return is_fast


_loop = _Loop()
_alerts: Alerts | None = None


def child_exit(server: Arbiter, worker: Worker) -> None:
    """Slow down and say so when workers die one after the other.

    gunicorn starts a new worker at once, which is right for one death and burns the
    machine when each dies of the same cause.
    """
    now = time.monotonic()
    most = 2 * server.num_workers + 4  # more than a shutdown or a reload has
    if _loop.died(now, most):
        open_incident(
            log,
            _LOOP,
            "workers die in a loop: %d in %.1f s; waiting %g s before the next one",
            most,
            now - _loop.deaths[0],
            _LOOP_WAIT_S,
        )
        time.sleep(_LOOP_WAIT_S)


def _hang_up(server: Arbiter) -> None:
    """Hand SIGHUP on to the workers, who reload their settings and keep their clients.

    gunicorn's own way, new workers for old, would drop every client.
    """
    log.info("Hang up: the workers reload their settings")
    server.kill_workers(signal.SIGHUP)


def on_starting(server: Arbiter) -> None:
    """Take over SIGHUP, refuse a taken port, and start the alerts that all workers share.

    With SO_REUSEPORT two gateways would share a port in silence.
    """
    server.handle_hup = partial(_hang_up, server)  # type: ignore[method-assign]
    global _alerts
    try:
        settings = load_settings().settings
        listen(settings.ws_host, settings.ws_port).close()
        _alerts = share(settings, log)
    except ConfigError as error:
        print_problems(error)
        sys.exit(BAD_SETTINGS)


def on_exit(server: Arbiter) -> None:
    """Take away what the workers shared for their metrics, and end their alerts in peace."""
    forget_workers(os.getpid())
    if _alerts is not None:
        _alerts.goodbye()
