"""``rango tail``: subscribe to streams and print their events, one a line.

Events go to standard output as ``stream json``, everything else to standard error.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from typing import Callable

from rango_gevent.client.buffers import BLOCK
from rango_gevent.client.model import (
    IDLE,
    LIVE,
    STATE,
    ConnectionLost,
    Event,
    Notice,
    StateChange,
)
from rango_gevent.client.stream import StreamClient
from rango_gevent.commands.terminal import escaped, is_utf8, say
from rango_gevent.errors import ConfigError, Refused

_FAILED = 1


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Print events until enough came or the time is over.

    Args:
        arguments: ``url``, ``streams``, ``token``, ``token_file``, ``count`` (events, 0: no
            bound), ``timeout`` (seconds, 0: no bound), ``raw``, ``no_reconnect``.
        environ: where ``RANGO_TOKEN`` may be.

    Returns:
        0 when all events came, 1 when not.

    Raises:
        ConfigError: the URL is none, or the token cannot be read.
    """
    client = StreamClient(
        arguments.url,
        token=token(arguments, environ),
        reconnect=not arguments.no_reconnect,
    )
    for name in dict.fromkeys(arguments.streams):
        client.subscribe(name, policy=BLOCK)
    listener = _Listener(client)
    printed = 0
    show = printer(arguments.raw)
    try:
        for event in client.events(arguments.timeout or None):
            show(event)
            printed += 1
            if printed == arguments.count:
                return 0
    except (Refused, ConnectionLost) as error:
        say(f"rango: {error}")
    except TimeoutError:
        return _time_over(printed, arguments)
    finally:
        client.close()
    if listener.failure:
        say(f"rango: {listener.failure}")
    return _FAILED


class _Listener:
    """Says what a client hears, and ends one whose first connection fails.

    Whoever mistyped a URL wants to hear of it, and not wait.

    Attributes:
        failure: why there was no first connection.
    """

    def __init__(self, client: StreamClient) -> None:
        self.failure = ""
        self._client = client
        self._was_live = False
        client.on_state(self._hear_state)
        client.on_notice(self._hear_notice)

    def _hear_state(self, change: StateChange) -> None:
        self._was_live = self._was_live or change.state == LIVE
        if change.state == IDLE and not self._was_live:
            self.failure = change.reason
            self._client.close()

    def _hear_notice(self, notice: Notice) -> None:
        if not self.failure:
            say(f"rango: {notice.text}" if notice.kind == STATE else notice.text)


def _time_over(printed: int, arguments: argparse.Namespace) -> int:
    if printed and not arguments.count:
        return 0
    wanted = f" of {arguments.count}" if arguments.count else ""
    say(f"rango: {printed}{wanted} events within {arguments.timeout:g} s")
    return _FAILED


def token(arguments: argparse.Namespace, environ: Mapping[str, str]) -> str:
    """Return the token: an argument wins over the environment; empty for none.

    Raises:
        ConfigError: the file cannot be read.
    """
    if arguments.token_file is None:
        return str(arguments.token or environ.get("RANGO_TOKEN", ""))
    try:
        with open(arguments.token_file, encoding="ascii") as file:
            return file.read().strip()
    except OSError as error:
        reason = os.strerror(error.errno or 0)
    except UnicodeDecodeError:
        reason = "it holds no token"
    raise ConfigError(f"--token-file {arguments.token_file}: cannot be read ({reason})")


def printer(raw: bool) -> Callable[[Event], None]:
    """Return what prints an event on standard output.

    Args:
        raw: print the publisher's bytes and nothing else; for pipes, not for terminals.
    """
    out = sys.stdout.buffer
    ascii_only = not is_utf8(sys.stdout)

    def show(event: Event) -> None:
        text = event.body if raw else line(event, ascii_only)
        out.write(text.encode() + b"\n")
        out.flush()

    return show


def line(event: Event, ascii_only: bool = False) -> str:
    """Return an event as one line that a terminal can show: ``stream json``."""
    name = escaped(event.stream, ascii_only=ascii_only)
    return f"{name}  {escaped(event.body, ascii_only=ascii_only)}"
