"""The ``rango`` command: arguments in, the right function called, an exit code out.

Without a subcommand it serves, with the flags and the environment of Go's Rango. A subcommand
is a module of `rango_gevent.commands`, a `Command`, and a row of `SUBCOMMANDS`. The module is
imported when the command is named: after `main` has patched the standard library, and only when
it is needed, so that ``rango --help`` and ``rango token`` do not wait for a broker's library.
Importing this module patches nothing.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Protocol, cast

from gevent import monkey

from rango_gevent import __version__
from rango_gevent.commands.arguments import setting_flags_text
from rango_gevent.commands.terminal import BROKEN_PIPE, drop_stdout, interrupts_here
from rango_gevent.environment import print_problems
from rango_gevent.errors import ConfigError

_BAD_SETTINGS = 2
_INTERRUPTED = 130

# Name of the command and of its module, and what ``rango --help`` says about it.
SUBCOMMANDS = {
    "serve": "serve (what happens without a command)",
    "demo": "serve a simulated market, without RabbitMQ",
    "keys": "make a pair of keys for tokens",
    "token": "make a token, signed with your private key",
    "inject": "publish a file to the exchange",
    "tail": "print the events of streams",
    "load": "measure a deployment of your own",
    "alert": "try the alert sinks",
    "marketdata": "candles and tickers made from trades",
    "doctor": "find what is wrong with a deployment",
    "config": "show and check the settings",
    "log": "look at the log of RANGO_LOG=stream, or delete it",
}


class Command(Protocol):
    """What the module of a subcommand has.

    Attributes:
        DESCRIPTION: what it does, in lines of at most 90 characters.
        EXAMPLE: command lines that work, a line each.
    """

    DESCRIPTION: str
    EXAMPLE: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add what the command takes."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it and return the exit code.

        Raises:
            ConfigError: a setting or an argument is wrong.
        """


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
                arguments = parse(words)
                return int(arguments.run(arguments) or 0)
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


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Return the arguments of a command line, and as ``run`` what is to be called with them.

    Raises:
        ConfigError: the first word is no subcommand.
        SystemExit: help was printed, or what is wrong with the arguments.
    """
    words = _with_subcommand(list(argv))
    return _parser(words[0]).parse_args(words)


def _with_subcommand(argv: list[str]) -> list[str]:
    """Serve when no subcommand is named, so that Rango's command lines work unchanged."""
    if not argv:
        return ["serve"]
    first = argv[0]
    if first in SUBCOMMANDS or first in ("-h", "--help", "--version"):
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
    near = difflib.get_close_matches(first, SUBCOMMANDS, 1)
    cure = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(SUBCOMMANDS)}"
    raise ConfigError(f"no command {first!r}: {cure}")


def _parser(named: str) -> argparse.ArgumentParser:
    """Return the parser, with the arguments of the subcommand that is named."""
    parser = argparse.ArgumentParser(
        prog="rango",
        description="A WebSocket gateway for RabbitMQ topic exchanges, a drop-in for Rango.\n"
        "Without a COMMAND it serves.",
        epilog=f"flags of serve, with one dash or two:\n{setting_flags_text()}\n\n"
        "`rango COMMAND --help` tells more, `rango config` shows every setting.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"rango_gevent {__version__}")
    parsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, summary in SUBCOMMANDS.items():
        if name != named:
            parsers.add_parser(name, help=summary)
            continue
        command = cast(Command, import_module(f"rango_gevent.commands.{name}"))
        of_command = parsers.add_parser(
            name,
            help=summary,
            description=command.DESCRIPTION,
            epilog=f"example:\n{command.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.add_arguments(of_command)
        of_command.set_defaults(run=command.run)
    return parser
