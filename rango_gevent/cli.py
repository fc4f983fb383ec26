"""The ``rango`` command: arguments in, the right function called, an exit code out.

Without a subcommand it serves, with the flags and the environment of Go's Rango.
"""

# ruff: noqa: E402 - the standard library must be patched before anything else imports it
from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import argparse
import os
import sys
from typing import Sequence

from rango_gevent import __version__
from rango_gevent.errors import ConfigError
from rango_gevent.settings import flag_names, load, options

_BAD_SETTINGS = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: arguments without the program's name; the process's own by default.

    Returns:
        0 when all went well, 1 when the work failed, 2 for wrong settings or arguments.
    """
    arguments = _parser().parse_args(_with_subcommand(list(sys.argv[1:] if argv is None else argv)))
    try:
        return int(arguments.run(arguments) or 0)
    except ConfigError as error:
        for problem in error.problems:
            print(f"rango: {problem}", file=sys.stderr)
        return _BAD_SETTINGS
    except KeyboardInterrupt:
        return 130


_SUBCOMMANDS = ("serve", "demo", "keys", "token", "inject", "tail", "config")


def _with_subcommand(argv: list[str]) -> list[str]:
    """Serve when no subcommand is named, so that Rango's command lines work unchanged."""
    if argv and argv[0] in (*_SUBCOMMANDS, "-h", "--help", "--version"):
        return argv
    return ["serve", *argv]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rango",
        description="A WebSocket gateway for RabbitMQ topic exchanges, a drop-in for Rango.",
    )
    parser.add_argument("--version", action="version", version=f"rango_gevent {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_serve(commands.add_parser("serve", help="serve (the default)"))
    _add_config(commands.add_parser("config", help="show and check the settings"))
    return parser


def _add_setting_flags(parser: argparse.ArgumentParser) -> None:
    """Add Rango's flags; Go writes them with one dash."""
    parser.add_argument(
        "-ws-addr", "--ws-addr", metavar="HOST:PORT", help="address of the WebSocket listener"
    )
    for flag, name in flag_names().items():
        text = options()[name].text.replace("%", "%%")
        parser.add_argument(f"-{flag}", f"--{flag}", dest=flag, metavar="VALUE", help=text)


def _flags(arguments: argparse.Namespace) -> dict[str, str]:
    names = {"ws-addr": "ws_addr", **{flag: flag for flag in flag_names()}}
    found = {flag: getattr(arguments, dest, None) for flag, dest in names.items()}
    return {flag: value for flag, value in found.items() if value is not None}


def _add_serve(parser: argparse.ArgumentParser) -> None:
    _add_setting_flags(parser)
    parser.set_defaults(run=_serve)


def _serve(arguments: argparse.Namespace) -> int:
    from rango_gevent.commands.serve import serve

    flags = _flags(arguments)
    return serve(load(os.environ, flags), flags)


def _add_config(parser: argparse.ArgumentParser) -> None:
    _add_setting_flags(parser)
    parser.add_argument("--check", action="store_true", help="check only; exit code 2 when bad")
    parser.add_argument("--env-example", action="store_true", help="print an environment file")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.set_defaults(run=_config)


def _config(arguments: argparse.Namespace) -> int:
    from rango_gevent.commands import config

    if arguments.env_example:
        print(config.env_example())
    elif arguments.markdown:
        print(config.markdown_table())
    else:
        loaded = load(os.environ, _flags(arguments))
        print(config.check(loaded) if arguments.check else config.show(loaded))
    return 0
