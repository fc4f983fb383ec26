"""What the benchmark is asked for: its options, checked before a long run and not after it."""

from __future__ import annotations

import argparse
import dataclasses
import os
from pathlib import Path
from typing import NamedTuple, Sequence
from urllib.parse import urlsplit

from bench import chart, machine, scenarios
from bench.scenarios import Scenario
from rango_gevent.auth.keys import SigningKey
from rango_gevent.commands.token import signing_key
from rango_gevent.environment import load_settings
from rango_gevent.errors import ConfigError
from rango_gevent.settings import Settings

_LOOPBACK = ("127.0.0.1", "localhost")
_MAX_SECONDS = 600
_MAX_THREADS = 64
_DESCRIPTION = """Run scenarios on a gateway that is started for each, with RabbitMQ, thousands of
clients and a publisher on this machine: processor time per delivery, ages of messages, memory
per connection, connections a second. The broker is that of --amqp-addr or AMQP_URL, else the
one of the gateway's settings. Needs a C compiler: clients and publisher are built when they are
first used."""
_EXAMPLES = """examples:
  make bench ARGS="fan-150 idle"
  make bench ARGS="clients --compare"
  make bench ARGS="fan-400 --url ws://127.0.0.1:8080 --pid $(pgrep -d, -f rango_gevent)\""""


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Parse a command line; a wrong one ends the process with exit code 2."""
    parser = argparse.ArgumentParser(
        prog="bench",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("scenario", nargs="*", metavar="SCENARIO", help="scenario or group; see --list")
    add("--list", action="store_true", help="list the scenarios and groups")
    add(
        "--compare",
        action="store_true",
        help="run peers and the floor of plain sends on the same work, if they are installed",
    )
    add(
        "--seconds",
        type=float,
        default=scenarios.DEFAULT_SECONDS,
        metavar="S",
        help="length of the flow of messages (default: %(default)g)",
    )
    add("--json", metavar="FILE", help="write everything as JSON")
    add("--chart", metavar="FILE.svg", help="draw cost per delivery; needs matplotlib")
    add("--url", metavar="URL", help="measure a gateway that runs already, ws://127.0.0.1:PORT")
    add("--pid", metavar="P[,P]", help="its processes, all workers")
    add("--name", default="gateway", help="what to call it (default: %(default)s)")
    add(
        "--token-key",
        metavar="PATH",
        help="private key whose tokens it accepts, for scenarios with users",
    )
    add("-exchange", "--exchange", metavar="NAME", help="its exchange")
    add("-amqp-addr", "--amqp-addr", metavar="URL", help="the broker")
    for what in ("clients", "messages"):
        add(
            f"--max-{what}",
            type=int,
            default=0,
            metavar="N",
            help=f"no more {what} than this in any scenario; 0: as it says",
        )
    add(
        "--client-threads",
        type=int,
        default=1,
        metavar="N",
        help="threads of the load client (default: %(default)s)",
    )
    return parser.parse_args(words)


def settings_of(arguments: argparse.Namespace) -> Settings:
    """Return the gateway's settings: where the broker is, and the exchange of --url.

    Raises:
        ConfigError: a setting is wrong.
    """
    flags = {"amqp-addr": arguments.amqp_addr, "exchange": arguments.exchange}
    return load_settings({name: value for name, value in flags.items() if value}).settings


def chosen(arguments: argparse.Namespace) -> list[Scenario]:
    """Return the scenarios to run, cut down to what was asked for.

    Raises:
        ConfigError: there is no such scenario, or a number is out of its bounds.
    """
    if not 0 < arguments.seconds <= _MAX_SECONDS:
        raise ConfigError(f"--seconds: give more than 0, up to {_MAX_SECONDS}")
    if not 1 <= arguments.client_threads <= _MAX_THREADS:
        raise ConfigError(f"--client-threads: give a number from 1 to {_MAX_THREADS}")
    if arguments.max_clients < 0 or arguments.max_messages < 0:
        raise ConfigError("--max-clients and --max-messages: give 0 or more")
    return [
        capped(scenario, arguments.max_clients, arguments.max_messages, arguments.seconds)
        for scenario in scenarios.select(arguments.scenario)
    ]


def check_outputs(arguments: argparse.Namespace) -> None:
    """Find out before a long run, not after it, that its results cannot be written.

    Raises:
        ConfigError: they cannot.
    """
    if arguments.chart:
        chart.check()
    for path in filter(None, (arguments.json, arguments.chart)):
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written ({error.strerror})") from None
        if Path(path).is_dir() or not os.access(Path(path).parent, os.W_OK):
            raise ConfigError(f"{path}: cannot be written")


def broker_url(arguments: argparse.Namespace, settings: Settings) -> str:
    """Return where the broker is: an argument, else AMQP_URL, else the settings.

    Raises:
        ConfigError: it is on another machine, or speaks no plain AMQP.
    """
    given = arguments.amqp_addr or os.environ.get("AMQP_URL", "")
    url = given.split(";")[0] or settings.broker_urls[0]
    if urlsplit(url).scheme not in ("amqp", "pyamqp"):
        raise ConfigError("the benchmark publishes over plain AMQP: give --amqp-addr amqp://...")
    if (urlsplit(url).hostname or "localhost") not in (*_LOOPBACK, "::1"):
        raise ConfigError(
            "the benchmark stays on this machine, and the broker is elsewhere: "
            "give --amqp-addr, or use `make bench`, which finds or starts one"
        )
    return url


class Target(NamedTuple):
    """A gateway that runs already: name, port, path in front, processes, exchange, key."""

    name: str
    port: int
    base: str
    pids: list[int]
    exchange: str
    key: SigningKey | None


def target(arguments: argparse.Namespace, exchange: str) -> Target | None:
    """Return the gateway of --url; None: start our own.

    Raises:
        ConfigError: no such gateway can be measured.
    """
    if not arguments.url:
        if arguments.pid or arguments.token_key:
            raise ConfigError("--pid and --token-key belong to --url")
        return None
    parts = urlsplit(arguments.url)
    if parts.scheme != "ws" or parts.hostname not in _LOOPBACK:
        raise ConfigError(f"--url={arguments.url!r}: give ws://127.0.0.1:PORT")
    try:
        pids = [int(pid) for pid in (arguments.pid or "").split(",")]
        port = parts.port or 80
    except ValueError:
        raise ConfigError("give --url ws://127.0.0.1:PORT and --pid PID[,PID]") from None
    try:
        machine.cpu_s(pids)
    except ProcessLookupError as error:
        raise ConfigError(f"--pid={arguments.pid}: {error}") from None
    key = signing_key(Path(arguments.token_key)) if arguments.token_key else None
    return Target(arguments.name, port, parts.path.rstrip("/"), pids, exchange, key)


def capped(scenario: Scenario, clients: int, messages: int, seconds: float) -> Scenario:
    """Return a scenario of at most so many clients and messages; 0: no cap.

    Args:
        scenario: the row.
        clients: most clients.
        messages: most messages.
        seconds: length of the run, which decides the number of messages.
    """
    changes: dict[str, int] = {}
    if clients and scenario.clients > clients:
        changes["clients"] = clients
    if (
        messages
        and scenario.kind not in (scenarios.IDLE, scenarios.CONNECT)
        and scenario.count(seconds) > messages
    ):
        changes["messages"] = messages
    return dataclasses.replace(scenario, **changes) if changes else scenario  # type: ignore[arg-type]  # two fields, both int
