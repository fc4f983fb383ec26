"""``rango``: serve, in this process or as several workers under gunicorn."""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
from typing import Callable

import gevent
from gevent.event import Event

from rango_gevent import logs
from rango_gevent.auth.keys import VerificationKey
from rango_gevent.environment import load_key, load_settings
from rango_gevent.errors import ConfigError
from rango_gevent.gateway import Gateway
from rango_gevent.settings import Loaded, Settings, options
from rango_gevent.wsgi import App, GatewayHandler, GatewayServer

_BACKLOG = 4096


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
    key = load_key(loaded.settings)
    if loaded.settings.workers > 1:
        _become_gunicorn(loaded.settings, flags)
    logs.configure(loaded.settings.log_level, loaded.settings.log_format)
    for warning in loaded.warnings:
        logs.log.warning("%s", warning)

    def reload_on_hangup(gateway: Gateway) -> None:
        gevent.signal_handler(signal.SIGHUP, reload_settings, gateway, flags)

    serve_here(loaded.settings, key, reload_on_hangup)
    return 0


def reload_settings(gateway: Gateway, flags: dict[str, str]) -> None:
    """Read the settings and the key anew; wrong ones are logged and change nothing.

    Args:
        gateway: what takes them over.
        flags: the flags that the gateway was started with.
    """
    try:
        settings = load_settings(flags).settings
        gateway.reload(settings, load_key(settings))
    except ConfigError as error:
        for problem in error.problems:
            logs.log.error("not reloaded: %s", problem)
        return
    logs.configure(settings.log_level, settings.log_format)


def serve_here(
    settings: Settings, key: VerificationKey, on_started: Callable[[Gateway], None] | None = None
) -> None:
    """Run one gateway in this process until SIGTERM or SIGINT; a second signal ends it at once.

    Raises:
        ConfigError: a port is taken.
    """
    allow_open_files()
    listener = listen(settings.ws_host, settings.ws_port)
    gateway = Gateway(settings, key)
    gateway.start()
    server = GatewayServer(  # type: ignore[call-overload]  # a log only writes and flushes
        listener,
        App(gateway),
        handler_class=GatewayHandler,
        log=None,
        error_log=logs.AsFile("server"),
    )
    server.start()
    logs.log.info("listening on %s:%d", *server.address[:2])
    if on_started is not None:
        on_started(gateway)
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


def allow_open_files() -> None:
    """Raise the limit of open files to what the system allows: a client each takes one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def listen(host: str, port: int, *, reuse_port: bool = False) -> socket.socket:
    """Return a listening socket.

    Args:
        host: address, IPv4 or IPv6, or a name.
        port: port.
        reuse_port: share the port with the other workers, each with an accept queue.

    Raises:
        ConfigError: the address cannot be listened on.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port} ({error.strerror}); "
            "give another address by -ws-addr, or RANGER_HOST and RANGER_PORT"
        ) from None
    return listener


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
