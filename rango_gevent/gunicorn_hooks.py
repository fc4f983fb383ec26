"""gunicorn's configuration for our workers: the defaults of ``conf/gunicorn.conf.py``.

``RANGO_WORKERS=N rango`` uses it as it is. gunicorn reads the module's lower-case names as its
settings. The parent binds nothing: each worker listens for itself with SO_REUSEPORT, so each
has an accept queue of its own and the kernel spreads connections evenly.
"""

from __future__ import annotations

import os

from geventwebsocket.gunicorn.workers import GeventWebSocketWorker

from rango_gevent.settings import load

_settings = load(os.environ).settings


class ReusePortWorker(GeventWebSocketWorker):
    """A worker that listens for itself."""

    def patch(self) -> None:
        """Patch the standard library, then open this worker's own listener."""
        super().patch()
        from rango_gevent.commands.serve import listen  # only now: it needs the patched socket

        self.sockets = [listen(_settings.ws_host, _settings.ws_port, reuse_port=True)]


bind: list[str] = []
worker_class = "rango_gevent.gunicorn_hooks.ReusePortWorker"
workers = _settings.workers
worker_connections = 1_000_000  # gunicorn's own cap makes clients hang; ours answers 503
timeout = 30
graceful_timeout = int(_settings.drain_s + _settings.close_timeout_s + 10)
preload_app = False  # the library must be patched before the application is imported
control_socket_disable = True
errorlog = "-"
loglevel = "warning" if _settings.log_level in ("warn", "error", "fatal", "panic") else "info"
