"""gunicorn's configuration for our workers: the defaults of ``conf/gunicorn.conf.py``.

``RANGO_WORKERS=N rango`` uses it as it is. gunicorn reads the module's lower-case names as its
settings. The parent binds nothing: each worker listens for itself with SO_REUSEPORT, so each
has an accept queue of its own and the kernel spreads connections evenly.

gunicorn imports this module in its parent, which must stay unpatched: only the settings and
the worker class come in here, everything else is imported by a worker after its patch.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import time
from collections import deque
from functools import partial

import gevent
from geventwebsocket.gunicorn.workers import GeventWebSocketWorker
from gunicorn.arbiter import Arbiter
from gunicorn.workers.base import Worker

from rango_gevent.environment import load_settings
from rango_gevent.errors import ConfigError
from rango_gevent.scrape import forget_workers
from rango_gevent.settings import Settings

log = logging.getLogger("gunicorn.error")

_NOTIFY_S = 1.0
# gunicorn makes a file without a name there
_SHARED_MEMORY = "/dev/shm"  # nosec B108
_BAD_SETTINGS = 2
_LOOP_S = 10.0
_LOOP_WAIT_S = 2.0


def _tell(error: ConfigError) -> None:
    for problem in error.problems:
        print(f"rango: {problem}", file=sys.stderr)


def _load_settings() -> Settings:
    """Read the environment; a problem is one line and exit code 2, not gunicorn's traceback."""
    try:
        return load_settings().settings
    except ConfigError as error:
        _tell(error)
        sys.exit(_BAD_SETTINGS)


_settings = _load_settings()
_LOOP_DEATHS = 2 * _settings.workers + 4  # more than a shutdown or a reload has


class ReusePortWorker(GeventWebSocketWorker):
    """A worker that listens for itself and drains to the end."""

    def patch(self) -> None:
        """Patch the standard library, then open this worker's own listener."""
        super().patch()
        self.notify()
        # only now: it needs the patched socket
        from rango_gevent.server.listener import allow_open_files, listen

        allow_open_files()
        try:
            self.sockets = [listen(_settings.ws_host, _settings.ws_port, reuse_port=True)]
        except ConfigError as error:
            _tell(error)
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
        from rango_gevent.server.reload import reload_settings

        gevent.signal_handler(signal.SIGHUP, reload_settings, self.wsgi.gateway, {})
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


_deaths: deque[float] = deque(maxlen=_LOOP_DEATHS)


def child_exit(server: Arbiter, worker: Worker) -> None:
    """Slow down and say so when workers die one after the other.

    gunicorn starts a new worker at once, which is right for one death and burns the
    machine when each dies of the same cause.
    """
    now = time.monotonic()
    _deaths.append(now)
    if len(_deaths) == _LOOP_DEATHS and now - _deaths[0] < _LOOP_S:
        log.critical(
            "workers die in a loop: %d in %.1f s; waiting %g s before the next one",
            _LOOP_DEATHS,
            now - _deaths[0],
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
    """Take over SIGHUP, and refuse a taken port.

    With SO_REUSEPORT two gateways would share a port in silence.
    """
    server.handle_hup = partial(_hang_up, server)  # type: ignore[method-assign]
    host, port = _settings.ws_host, _settings.ws_port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        print(
            f"rango: cannot listen on {host}:{port} ({os.strerror(error.errno or 0)}); "
            "give another address by RANGER_HOST and RANGER_PORT",
            file=sys.stderr,
        )
        sys.exit(_BAD_SETTINGS)


def on_exit(server: Arbiter) -> None:
    """Take away what the workers shared for their metrics."""
    forget_workers(os.getpid())


bind: list[str] = []
worker_class = "rango_gevent.gunicorn_hooks.ReusePortWorker"
workers = _settings.workers
worker_connections = 1_000_000  # gunicorn's own cap makes clients hang; ours answers 503
timeout = _settings.worker_timeout_s
graceful_timeout = int(_settings.drain_s + _settings.close_timeout_s + 10)
preload_app = False  # the library must be patched before the application is imported
control_socket_disable = True
worker_tmp_dir = _SHARED_MEMORY if os.path.isdir(_SHARED_MEMORY) else None  # no disk to wait for
errorlog = "-"
loglevel = "warning" if _settings.log_level in ("warn", "error", "fatal", "panic") else "info"
