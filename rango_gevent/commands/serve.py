"""``rango``: serve, in this process or as several workers under gunicorn."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from typing import Callable, Sequence

import gevent
from gevent.event import Event

from rango_gevent import logs
from rango_gevent.auth.keys import VerificationKey
from rango_gevent.commands.arguments import add_setting_flags, setting_flags
from rango_gevent.environment import load_keys, load_settings
from rango_gevent.gateway import Gateway
from rango_gevent.server.handler import GatewayHandler, GatewayServer
from rango_gevent.server.http import App
from rango_gevent.server.listener import allow_open_files, listen
from rango_gevent.server.reload import reload_settings
from rango_gevent.settings import Loaded, Settings, options

DESCRIPTION = """\
Serve until SIGTERM or Ctrl-C: consume the exchange, fan out to WebSocket clients.
A flag wins over the environment. `rango config` shows every setting."""
EXAMPLE = "  RABBITMQ_HOST=rabbit rango -ws-addr 0.0.0.0:8080 -pubKey config/ed25519-key.pub"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    add_setting_flags(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serve with these flags."""
    flags = setting_flags(arguments)
    return serve(load_settings(flags), flags)


def serve(loaded: Loaded, flags: dict[str, str]) -> int:
    """Serve until a signal says otherwise.

    Args:
        loaded: the settings.
        flags: the flags they came from, handed on to workers.

    Returns:
        The exit code.

    Raises:
        ConfigError: the key is missing, or a port is taken.
    """
    keys = load_keys(loaded.settings)
    if loaded.settings.workers > 1:
        _become_gunicorn(loaded.settings, flags)
    logs.configure(loaded.settings.log_level, loaded.settings.log_format)
    for warning in loaded.warnings:
        logs.log.warning("%s", warning)

    def reload_on_hangup(app: App) -> None:
        gevent.signal_handler(signal.SIGHUP, reload_settings, app.gateway, flags)

    serve_here(loaded.settings, keys, reload_on_hangup)
    return 0


def serve_here(
    settings: Settings,
    keys: Sequence[VerificationKey],
    on_started: Callable[[App], None] | None = None,
) -> None:
    """Run one gateway in this process until SIGTERM or SIGINT; a second signal ends it at once.

    Raises:
        ConfigError: a port is taken.
    """
    allow_open_files()
    listener = listen(settings.ws_host, settings.ws_port)
    gateway = Gateway(settings, keys)
    gateway.start()
    app = App(gateway)
    server = GatewayServer(
        listener,
        app,
        handler_class=GatewayHandler,
        log=None,
        error_log=logs.AsFile("server"),
    )
    server.start()
    logs.log.info("listening on %s:%d", *server.address[:2])
    if on_started is not None:
        on_started(app)
    _wait_for_signal()
    server.close()
    gateway.stop()


def _wait_for_signal() -> None:
    stopping = Event()

    def stop() -> None:
        if stopping.is_set():
            os._exit(1)  # asked twice: at once
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, stop)
    stopping.wait()
    logs.log.info("stopping; a second signal ends at once")


def _become_gunicorn(settings: Settings, flags: dict[str, str]) -> None:
    """Replace this process by gunicorn's, which starts and watches the workers.

    A new process image, because gunicorn's parent must not be patched by gevent.
    """
    listen(settings.ws_host, settings.ws_port).close()  # a taken port is told here, not by workers
    environ = dict(os.environ)
    environ["RANGER_HOST"], environ["RANGER_PORT"] = settings.ws_host, str(settings.ws_port)
    by_flag = {option.flag: option.env for option in options().values() if option.flag}
    environ.update({by_flag[flag]: value for flag, value in flags.items() if flag in by_flag})
    hooks = "python:rango_gevent.gunicorn_hooks"
    argv = [sys.executable, "-m", "gunicorn", "-c", hooks, "rango_gevent.wsgi:app"]
    os.execve(sys.executable, argv, environ)  # our own interpreter
