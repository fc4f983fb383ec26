"""The ``rango`` command: arguments in, the right function called, an exit code out.

Without a subcommand it serves, with the flags and the environment of Go's Rango. A
subcommand's module is imported when it is called: after `main` has patched the standard
library, and only when it is needed, so that ``rango --help`` and ``rango token`` do not wait
for a broker's library. Importing this module patches nothing.
"""

from __future__ import annotations

import argparse
import difflib
import math
import os
import sys
from collections.abc import Sequence
from typing import Any, Callable

from gevent import monkey

from rango_gevent import __version__
from rango_gevent.commands.terminal import BROKEN_PIPE, drop_stdout, interrupts_here
from rango_gevent.environment import load_settings, print_problems
from rango_gevent.errors import ConfigError
from rango_gevent.settings import Loaded, Settings, flag_names, options, shown

_FAILED = 1
_BAD_SETTINGS = 2
_INTERRUPTED = 130
_KEY_FILE = "config/ed25519-key"
_URL = "ws://127.0.0.1:8080"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: arguments without the program's name; the process's own by default.

    Returns:
        0 when all went well, 1 when the work failed, 2 for wrong settings or arguments, 130
        after Ctrl-C, 141 when nobody reads standard output any more.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] != ["tail"]:
        # before a command imports what must be patched. Not for tail: its library closes a
        # socket in one thread while another reads it, and as greenlets libev aborts at that.
        monkey.patch_all()
    try:
        with interrupts_here():
            try:
                return _run(words)
            finally:
                sys.stdout.flush()  # here, where a pipe that nobody reads can be told
    except ConfigError as error:
        print_problems(error)
        return _BAD_SETTINGS
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        drop_stdout()
        return BROKEN_PIPE


def _run(argv: list[str]) -> int:
    words = _with_subcommand(argv)
    arguments = _parser(words[0]).parse_args(words)
    return int(arguments.run(arguments) or 0)


def _with_subcommand(argv: list[str]) -> list[str]:
    """Serve when no subcommand is named, so that Rango's command lines work unchanged.

    Raises:
        ConfigError: the first word is no subcommand.
    """
    if not argv:
        return ["serve"]
    first = argv[0]
    if first in _SUBCOMMANDS or first in ("-h", "--help", "--version"):
        return argv
    if first == "-help":  # Go's
        return ["--help"]
    if first.startswith("-"):
        return ["serve", *argv]
    if first == "bench":  # was one of them, and is still asked for
        raise ConfigError(
            "no command 'bench': the benchmark is `make bench` in the source tree; "
            "`rango load` measures a deployment of your own"
        )
    near = difflib.get_close_matches(first, _SUBCOMMANDS, 1)
    cure = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(_SUBCOMMANDS)}"
    raise ConfigError(f"no command {first!r}: {cure}")


# -- parsers ----------------------------------------------------------------------------


def _parser(named: str = "") -> argparse.ArgumentParser:
    """Return the parser, with the arguments of the subcommand that is named, else of all.

    What one takes may be said in a module of its own, that nobody else needs.
    """
    parser = argparse.ArgumentParser(
        prog="rango",
        description="A WebSocket gateway for RabbitMQ topic exchanges, a drop-in for Rango.\n"
        "Without a COMMAND it serves.",
        epilog=_flags_text(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"rango_gevent {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, (summary, text, example, add_arguments) in _SUBCOMMANDS.items():
        command = commands.add_parser(
            name,
            help=summary,
            description=text,
            epilog=example,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        if named in ("", name):
            add_arguments(command)
    return parser


def _setting_flags() -> list[tuple[str, str, str]]:
    """Return Rango's flags, without dashes, each with a metavar and a text."""
    address = f"{Settings.ws_host}:{Settings.ws_port}"
    rows = [("ws-addr", "HOST:PORT", _flag_text("Address of the WebSocket listener", address))]
    for flag, name in flag_names().items():
        option = options()[name]
        default = "" if option.secret else shown(Settings(), name)
        rows.append((flag, "VALUE", _flag_text(option.text, default, option.env)))
    return rows


def _flag_text(text: str, default: str, env: str = "RANGER_HOST and RANGER_PORT") -> str:
    return f"{text} (environment: {env}{f'; default: {default}' if default else ''})"


def _flags_text() -> str:
    lines = ["flags of serve, with one dash or two:"]
    for flag, metavar, text in _setting_flags():
        lines += [f"  -{flag} {metavar}", f"        {text}"]
    lines += ["", "`rango COMMAND --help` tells more, `rango config` shows every setting."]
    return "\n".join(lines)


def _add_setting_flags(parser: argparse.ArgumentParser, *names: str) -> None:
    """Add Rango's flags, all or those named; Go writes them with one dash."""
    for flag, metavar, text in _setting_flags():
        if not names or flag in names:
            text = text.replace("%", "%%")
            parser.add_argument(f"-{flag}", f"--{flag}", dest=flag, metavar=metavar, help=text)


def _flags(arguments: argparse.Namespace) -> dict[str, str]:
    """Return the flags that were given, for `settings.load`."""
    found = {flag: getattr(arguments, flag, None) for flag, _, _ in _setting_flags()}
    return {flag: value for flag, value in found.items() if value is not None}


def _number(low: float, high: float = math.inf) -> Callable[[str], float]:
    """Return a parser of numbers; ``low`` itself counts."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (low <= value <= high and math.isfinite(value)):
            bounds = f"from {low:g}" + (f" to {high:g}" if math.isfinite(high) else "")
            raise argparse.ArgumentTypeError(f"{text!r}: give a number {bounds}")
        return value

    return parse


def _whole(low: int, high: int = 10**15) -> Callable[[str], int]:
    """Return a parser of whole numbers; the bounds count."""

    def parse(text: str) -> int:
        digits = text[1:] if text.startswith("-") else text
        if not (digits.isascii() and digits.isdigit() and len(digits) < 17):
            raise argparse.ArgumentTypeError(f"{text!r}: give a whole number")
        if not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r}: give a whole number from {low} to {high}")
        return int(text)

    return parse


# -- the subcommands --------------------------------------------------------------------


def _add_serve(parser: argparse.ArgumentParser) -> None:
    _add_setting_flags(parser)
    parser.set_defaults(run=_serve)


def _serve(arguments: argparse.Namespace) -> int:
    flags = _flags(arguments)
    loaded = load_settings(flags)  # first: a wrong setting is told at once

    from rango_gevent.commands.serve import serve

    return serve(loaded, flags)


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seed",
        type=_whole(0),
        default=1,
        metavar="N",
        help="the whole market follows from it (default: %(default)s)",
    )
    parser.add_argument(
        "--markets",
        default="btcusd,ethusd,ltcbtc",
        metavar="A,B,C",
        help="markets, comma separated (default: %(default)s)",
    )
    parser.add_argument(
        "--rate",
        type=_number(0.01, 1000),
        default=5.0,
        metavar="N",
        help="ticks a second; each moves every market (default: %(default)g)",
    )
    parser.add_argument(
        "-ws-addr",
        "--ws-addr",
        default="127.0.0.1:8080",
        metavar="HOST:PORT",
        help="address of the WebSocket listener (default: %(default)s)",
    )
    parser.add_argument(
        "--metrics-port",
        type=_whole(0, 65535),
        metavar="N",
        help=f"port of the metrics listener, 0: none (default: {Settings.metrics_port})",
    )
    parser.set_defaults(run=_demo)


def _demo(arguments: argparse.Namespace) -> int:
    from rango_gevent.commands import demo

    return demo.run(arguments)


def _add_keys(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", default="config", metavar="DIR", help="directory (default: %(default)s)"
    )
    parser.add_argument(
        "--raw",
        action="store_true",
        help="write the public key in the form of Openware's tools: the bare 32 bytes as PEM",
    )
    parser.add_argument("--force", action="store_true", help="replace a pair that is there")
    parser.set_defaults(run=_keys)


def _keys(arguments: argparse.Namespace) -> int:
    from rango_gevent.commands import keys

    return keys.run(arguments)


def _add_token(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--key", default=_KEY_FILE, metavar="PATH", help="private key (default: %(default)s)")
    add("--uid", default="ID0000000001", metavar="ID", help="user (default: %(default)s)")
    add("--role", default="member", metavar="R", help="role (default: %(default)s)")
    add("--level", type=_whole(0), default=3, metavar="N", help="level (default: %(default)s)")
    expiry = parser.add_mutually_exclusive_group()
    expiry.add_argument(
        "--ttl",
        type=_whole(-(10**9), 10**10),
        default=3600,
        metavar="SECONDS",
        help="life from now on; below 0: expired already (default: %(default)s)",
    )
    expiry.add_argument(
        "--exp", type=_whole(0), metavar="UNIX", help="moment of expiry, seconds since 1970"
    )
    expiry.add_argument("--no-exp", action="store_true", help="a token that never expires")
    add(
        "--claim",
        action="append",
        default=[],
        metavar="NAME=JSON",
        help="set a claim, null leaves it out; may come several times",
    )
    parser.set_defaults(run=_token)


def _token(arguments: argparse.Namespace) -> int:
    from rango_gevent.commands import token

    return token.run(arguments)


def _add_inject(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("file", metavar="FILE", help="lines of `routing.key json`; - for standard input")
    _add_setting_flags(parser, "amqp-addr", "exchange")
    add("--create", action="store_true", help="declare the exchange if it is missing")
    add(
        "--rate",
        type=_number(0),
        default=0.0,
        metavar="N",
        help="messages a second; 0: as fast as it goes (default: %(default)g)",
    )
    add(
        "--count",
        type=_whole(0),
        default=1,
        metavar="N",
        help="passes over the file; 0: for ever (default: %(default)s)",
    )
    add(
        "--wait",
        type=_number(0, 86_400),
        default=0.0,
        metavar="S",
        help="seconds between passes (default: %(default)g)",
    )
    add(
        "--skip",
        type=_whole(0),
        default=0,
        metavar="N",
        help="leave out the first N messages: what a run that ended early has published",
    )
    parser.set_defaults(run=_inject)


def _inject(arguments: argparse.Namespace) -> int:
    from rango_gevent.commands import inject

    return inject.run(arguments, load_settings(_flags(arguments)).settings)


def _add_token_arguments(parser: argparse.ArgumentParser) -> None:
    tokens = parser.add_mutually_exclusive_group()
    tokens.add_argument(
        "--token", metavar="JWT", help="token, for all to see in the list of processes"
    )
    tokens.add_argument(
        "--token-file", metavar="F", help="file with the token (default: environment RANGO_TOKEN)"
    )


def _add_tail(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("streams", nargs="+", metavar="STREAM", help="name of a stream, such as eurusd.trades")
    add(
        "--url",
        default=_URL,
        help="of the gateway; /public or /private is added (default: %(default)s)",
    )
    _add_token_arguments(parser)
    add(
        "--count",
        type=_whole(0),
        default=0,
        metavar="N",
        help="end after N events (default: never)",
    )
    add(
        "--timeout",
        type=_number(0, 10**7),
        default=0.0,
        metavar="S",
        help="end after S seconds, with exit code 1 when events are missing (default: never)",
    )
    add(
        "--raw",
        action="store_true",
        help="print the published bytes and nothing else, unescaped: for pipes and files",
    )
    add("--no-reconnect", action="store_true", help="end when the connection is lost")
    parser.set_defaults(run=_tail)


def _tail(arguments: argparse.Namespace) -> int:
    from rango_gevent.commands import tail

    return tail.run(arguments, os.environ)


def _add_load(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("url", metavar="URL", help="of the gateway or its proxy; /public or /private is added")
    add("streams", nargs="*", metavar="STREAM", help="name of a stream, such as eurusd.trades")
    _add_token_arguments(parser)
    add("--insecure", action="store_true", help="take any certificate of a wss:// URL, unchecked")
    numbers: tuple[tuple[str, Callable[[str], float], float, str, str], ...] = (
        ("clients", _whole(1, 60_000), 100, "N", "connections"),
        ("connect-rate", _number(0.1, 100_000), 100, "N", "of them to make a second"),
        ("seconds", _number(0.1, 86_400), 10, "S", "to publish or listen once all are connected"),
        ("rate", _number(0.1, 100_000), 50, "N", "events to publish a second"),
    )
    for name, kind, default, metavar, text in numbers:
        add(f"--{name}", type=kind, default=default, metavar=metavar,
            help=f"{text} (default: %(default)g)")  # fmt: skip
    add(
        "--publish",
        metavar="AMQP_URL",
        help="publish stamped events to a stream of this run's own, and count what arrives of them",
    )
    _add_setting_flags(parser, "exchange")
    add("--json", action="store_true", help="print the figures as JSON")
    parser.set_defaults(run=_load)


def _load(arguments: argparse.Namespace) -> int:
    from rango_gevent.commands import load

    return load.run(arguments, os.environ, load_settings(_flags(arguments)).settings)


def _add_marketdata(parser: argparse.ArgumentParser) -> None:
    from rango_gevent.commands import marketdata_options

    for part in marketdata_options.add_arguments(parser):
        _add_setting_flags(part, "amqp-addr", "exchange")
    parser.set_defaults(run=_marketdata)


def _marketdata(arguments: argparse.Namespace) -> int:
    settings = load_settings(_flags(arguments)).settings

    from rango_gevent.commands import marketdata

    return marketdata.run(arguments, settings)


def _add_config(parser: argparse.ArgumentParser) -> None:
    _add_setting_flags(parser)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--check", action="store_true", help="check only; exit code 2 when bad")
    form.add_argument("--env-example", action="store_true", help="print an environment file")
    form.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument(
        "--connect",
        action="store_true",
        help="with --check: try key, broker, exchange and rights too; exit code 1 when one fails",
    )
    parser.set_defaults(run=_config)


def _config(arguments: argparse.Namespace) -> int:
    from rango_gevent.commands import config

    if arguments.env_example:
        print(config.env_example())
    elif arguments.markdown:
        print(config.markdown_table())
    elif arguments.check and arguments.connect:
        return _probe(load_settings(_flags(arguments)))
    elif arguments.connect:
        raise ConfigError("--connect goes with --check")
    else:
        loaded = load_settings(_flags(arguments))
        print(config.check(loaded) if arguments.check else config.show(loaded))
    return 0


def _probe(loaded: Loaded) -> int:
    from rango_gevent.commands.probe import probe

    for warning in loaded.warnings:
        print(warning)
    is_good = True
    for step in probe(loaded.settings):
        print(step, flush=True)
        is_good = is_good and step.is_good
    return 0 if is_good else _FAILED


def _add_alert(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--test", action="store_true", required=True, help="send a test")
    parser.set_defaults(run=_alert)


def _alert(arguments: argparse.Namespace) -> int:
    from rango_gevent.commands.alert import try_sinks

    is_good = True
    for step in try_sinks(load_settings(_flags(arguments)).settings):
        print(step, flush=True)
        is_good = is_good and step.is_good
    return 0 if is_good else _FAILED


def _add_log(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=("status", "drop"), help="look at it, or delete it")
    _add_setting_flags(parser, "amqp-addr", "exchange")
    parser.set_defaults(run=_log)


def _log(arguments: argparse.Namespace) -> int:
    from rango_gevent.commands import log

    return log.run(arguments.what, load_settings(_flags(arguments)).settings)


# Name: summary, description, example, what adds its arguments.
_SUBCOMMANDS: dict[str, tuple[str, str, str, Callable[[argparse.ArgumentParser], Any]]] = {
    "serve": (
        "serve (what happens without a command)",
        "Serve until SIGTERM or Ctrl-C: consume the exchange, fan out to WebSocket clients.\n"
        "A flag wins over the environment. `rango config` shows every setting.",
        "example:\n"
        "  RABBITMQ_HOST=rabbit rango -ws-addr 0.0.0.0:8080 -pubKey config/ed25519-key.pub",
        _add_serve,
    ),
    "demo": (
        "serve a simulated market, without RabbitMQ",
        "Serve a simulated exchange on an embedded broker: order books, trades, candles and\n"
        "the orders of one user, with a token for it. Nothing needs to be set up.",
        "example:\n  rango demo --markets btcusd,ethusd --rate 20",
        _add_demo,
    ),
    "keys": (
        "make a pair of keys for tokens",
        "Make an Ed25519 pair: ed25519-key signs tokens and is secret, ed25519-key.pub checks\n"
        "them. Prints the setting to paste. Keys that are there are never replaced unasked.",
        "example:\n  rango keys --out config",
        _add_keys,
    ),
    "token": (
        "make a token, signed with your private key",
        "Print a JWT like those of Barong, for tests and for trying things. Needs the private\n"
        "key that belongs to the gateway's public key.",
        "example:\n  rango token --uid ID123 --role admin --ttl 600 --claim beta=true",
        _add_token,
    ),
    "inject": (
        "publish a file to the exchange",
        "Publish the lines of a file to the exchange. A line is a routing key, a blank and JSON;\n"
        "blank lines and lines that begin with # are left out. All lines are checked before the\n"
        "first goes out. The broker is set as for serve: by RABBITMQ_* or -amqp-addr.",
        "example:\n"
        """  echo 'public.eurusd.trades {"price":"1.1"}' | rango inject -\n"""
        "  rango inject events.txt --rate 100 --count 0 --wait 1",
        _add_inject,
    ),
    "tail": (
        "print the events of streams",
        "Subscribe to streams and print each event as `stream  json`. Control characters are\n"
        "escaped. Replies and errors go to standard error. Connects to /private with a token,\n"
        "else to /public, and comes back after a lost connection.",
        "example:\n"
        "  rango tail eurusd.trades global.tickers\n"
        '  RANGO_TOKEN="$(rango token)" rango tail order trade --count 10 --timeout 60',
        _add_tail,
    ),
    "load": (
        "measure a deployment of your own",
        "Connect clients, through whatever is in front of the gateway, and count connects,\n"
        "refusals, messages and closes. With --publish it also publishes to the exchange, on a\n"
        "stream of its own, and measures latency from there to the clients, and what is lost.\n"
        "Exit code 0 when nothing was lost, 1 when something was. It is one process, and says so\n"
        "when the figures are its own limit and not the gateway's.",
        "example:\n"
        "  rango load wss://shop.example/ws eurusd.trades --clients 1000 --connect-rate 200\n"
        "  rango load ws://127.0.0.1:8080 --publish amqp://localhost --rate 100 --seconds 30",
        _add_load,
    ),
    "alert": (
        "try the alert sinks",
        "Send a test to every sink of RANGO_ALERT_URLS; exit code 1 when one does not take it.",
        "example:\n  RANGO_ALERT_URLS=udp://127.0.0.1:4444 rango alert --test",
        _add_alert,
    ),
    "marketdata": (
        "candles and tickers made from trades",
        "Consume trades, keep candles, last prices, the last 24 hours and today, publish klines\n"
        "and tickers to the same exchange, and answer questions over AMQP. Until SIGTERM.\n"
        "With `import FILE`: bring in history, CSV of trades or of candles. docs/MARKETDATA.md\n"
        "tells more. Needs pip install 'rango-gevent[marketdata]'.",
        "example:\n"
        "  rango marketdata --store postgresql://rango@db/marketdata\n"
        "  rango marketdata import trades.csv",
        _add_marketdata,
    ),
    "config": (
        "show and check the settings",
        "Show every setting, its value and where that came from; secrets are masked.",
        "example:\n  RABBITMQ_HOST=rabbit rango config --check --connect",
        _add_config,
    ),
    "log": (
        "look at the log of RANGO_LOG=stream, or delete it",
        "With `drop` unbind and delete the stream queue that instances share; first set\n"
        "RANGO_LOG=off for all of them, or they declare it again.",
        "example:\n  RABBITMQ_HOST=rabbit rango log status",
        _add_log,
    ),
}
