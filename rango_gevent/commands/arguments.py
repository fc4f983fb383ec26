"""What several subcommands take: numbers within bounds, Rango's flags, a token.

It imports nothing heavy: `rango_gevent.cli` needs it before it knows which command is meant.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Mapping
from typing import Callable

from rango_gevent.errors import ConfigError
from rango_gevent.settings import Settings, flag_names, options, shown

# -- numbers ------------------------------------------------------------------------------


def decimal(low: float, high: float = math.inf) -> Callable[[str], float]:
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


def whole(low: int, high: int = 10**15) -> Callable[[str], int]:
    """Return a parser of whole numbers; the bounds count."""

    def parse(text: str) -> int:
        digits = text[1:] if text.startswith("-") else text
        if not (digits.isascii() and digits.isdigit() and len(digits) < 17):
            raise argparse.ArgumentTypeError(f"{text!r}: give a whole number")
        if not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r}: give a whole number from {low} to {high}")
        return int(text)

    return parse


# -- Rango's flags, which are settings ------------------------------------------------------


def add_setting_flags(parser: argparse.ArgumentParser, *names: str) -> None:
    """Add Rango's flags, all or those named; Go writes them with one dash."""
    for flag, metavar, text in _setting_flags():
        if not names or flag in names:
            text = text.replace("%", "%%")
            parser.add_argument(f"-{flag}", f"--{flag}", dest=flag, metavar=metavar, help=text)


def setting_flags(arguments: argparse.Namespace) -> dict[str, str]:
    """Return the flags that were given, for `environment.load_settings`."""
    found = {flag: getattr(arguments, flag, None) for flag, _, _ in _setting_flags()}
    return {flag: value for flag, value in found.items() if value is not None}


def setting_flags_text() -> str:
    """Return the flags and what each does, for people."""
    lines = []
    for flag, metavar, text in _setting_flags():
        lines += [f"  -{flag} {metavar}", f"        {text}"]
    return "\n".join(lines)


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


# -- a token ------------------------------------------------------------------------------


def add_token_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the ways in which a token may be given."""
    tokens = parser.add_mutually_exclusive_group()
    tokens.add_argument(
        "--token", metavar="JWT", help="token, for all to see in the list of processes"
    )
    tokens.add_argument(
        "--token-file", metavar="F", help="file with the token (default: environment RANGO_TOKEN)"
    )


def given_token(arguments: argparse.Namespace, environ: Mapping[str, str]) -> str:
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
