"""gunicorn's configuration for our workers: the defaults of ``conf/gunicorn.conf.py``.

``RANGO_WORKERS=N rango`` uses it as it is. gunicorn reads the module's lower-case names as its
settings.
"""

from __future__ import annotations

import os
import sys

from rango_gevent import logs
from rango_gevent.environment import load_settings, print_problems
from rango_gevent.errors import ConfigError
from rango_gevent.server.workers import (
    BAD_SETTINGS,
    ReusePortWorker,
    child_exit,
    on_exit,
    on_starting,
    pre_fork,
)
from rango_gevent.settings import Settings

__all__ = ["ReusePortWorker", "child_exit", "on_exit", "on_starting", "pre_fork"]

# gunicorn makes a file without a name there
_SHARED_MEMORY = "/dev/shm"  # nosec B108


def _load_settings() -> Settings:
    """Read the environment; a problem is one line and exit code 2, not gunicorn's traceback."""
    try:
        return load_settings().settings
    except ConfigError as error:
        print_problems(error)
        sys.exit(BAD_SETTINGS)


_settings = _load_settings()

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
logconfig_dict = logs.for_gunicorn(_settings.log_level, _settings.log_format)
logs.show_pid()  # the parent's lines and those of all workers go to one stream
