"""The application for a WSGI server's workers: ``gunicorn rango_gevent.wsgi:app``.

Asking for ``app`` in a worker reads the settings from the environment, starts the worker's
gateway and puts our server and handler into geventwebsocket's worker class.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
from types import FrameType

import gevent
from geventwebsocket.gunicorn.workers import GeventWebSocketWorker

from rango_gevent import logs
from rango_gevent.environment import load_keys, load_settings, print_problems
from rango_gevent.errors import ConfigError
from rango_gevent.gateway import Gateway
from rango_gevent.server.handler import GatewayHandler, GatewayServer
from rango_gevent.server.http import App

log = logging.getLogger(__name__)

_GIVE_UP = 3  # gunicorn's WORKER_BOOT_ERROR: with any other code it tries again for ever


def _drain_on(number: int, gateway: Gateway) -> None:
    """Begin to drain at a signal, and let the server's own handler act too."""
    previous = signal.getsignal(number)

    def handle(signum: int, frame: FrameType | None) -> None:
        gevent.spawn(gateway.drain)
        if callable(previous):
            previous(signum, frame)

    signal.signal(number, handle)


def make_app() -> App:
    """Build and start the gateway of a WSGI server's worker from the environment."""
    try:
        loaded = load_settings()
        settings = loaded.settings
        logs.configure(settings.log_level, settings.log_format)
        for warning in loaded.warnings:
            log.warning("%s", warning)
        gateway = Gateway(settings, load_keys(settings), sibling_of=os.getppid())
    except ConfigError as error:
        print_problems(error)
        sys.exit(_GIVE_UP)
    GeventWebSocketWorker.wsgi_handler = GatewayHandler
    GeventWebSocketWorker.server_class = GatewayServer
    gateway.start()
    _drain_on(signal.SIGTERM, gateway)
    atexit.register(gateway.stop)
    return App(gateway)


def __getattr__(name: str) -> App:
    """Make ``app`` when a server asks for it, so that importing this module starts nothing."""
    if name != "app":
        raise AttributeError(name)
    app = make_app()
    globals()["app"] = app
    return app
