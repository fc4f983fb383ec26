"""The listening socket of a process, and the files that it may open for what comes in."""

from __future__ import annotations

import resource
import socket

from rango_gevent.errors import ConfigError

_BACKLOG = 4096


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
