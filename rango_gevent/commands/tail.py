"""``rango tail``: subscribe to streams and print their events, one a line.

Events go to standard output as ``stream json``, everything else to standard error.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from typing import Callable

from rango_gevent.client.stream import STATE, Notice, StreamClient
from rango_gevent.client.wire import ConnectionLost, Event
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
        arguments.streams,
        token=token(arguments, environ),
        reconnect=not arguments.no_reconnect,
        on_notice=_say_notice,
    )
    printed = 0
    show = printer(arguments.raw)
    try:
        for event in client.events(arguments.timeout or None):
            show(event)
            printed += 1
            if printed == arguments.count:
                break
    except (Refused, ConnectionLost) as error:
        say(f"rango: {error}")
        return _FAILED
    except TimeoutError:
        return _time_over(printed, arguments)
    finally:
        client.close()
    return 0


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
    name = escaped(event.name, ascii_only=ascii_only)
    return f"{name}  {escaped(event.body, ascii_only=ascii_only)}"


def _say_notice(notice: Notice) -> None:
    say(f"rango: {notice.text}" if notice.kind == STATE else notice.text)
