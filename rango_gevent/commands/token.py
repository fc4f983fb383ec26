"""``rango token``: make a token for tests and for trying things, signed with your private key."""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

from rango_gevent.auth.keys import SigningKey, load_private_key
from rango_gevent.auth.tokens import forge
from rango_gevent.commands.arguments import add_setting_flags, setting_flags, whole
from rango_gevent.environment import load_settings
from rango_gevent.errors import ConfigError

_KEY_FILE = "config/ed25519-key"

DESCRIPTION = """\
Print a JWT like those of Barong, for tests and for trying things. Needs the private
key that belongs to the gateway's public key."""
EXAMPLE = """\
  rango token --uid ID123 --role admin --ttl 600 --claim beta=true
  rango token --check < token-file"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    add = parser.add_argument
    add("--key", default=_KEY_FILE, metavar="PATH", help="private key (default: %(default)s)")
    add("--uid", default="ID0000000001", metavar="ID", help="user (default: %(default)s)")
    add("--role", default="member", metavar="R", help="role (default: %(default)s)")
    add("--level", type=whole(0), default=3, metavar="N", help="level (default: %(default)s)")
    expiry = parser.add_mutually_exclusive_group()
    expiry.add_argument(
        "--ttl",
        type=whole(-(10**9), 10**10),
        default=3600,
        metavar="SECONDS",
        help="life from now on; below 0: expired already (default: %(default)s)",
    )
    expiry.add_argument(
        "--exp", type=whole(0), metavar="UNIX", help="moment of expiry, seconds since 1970"
    )
    expiry.add_argument("--no-exp", action="store_true", help="a token that never expires")
    add(
        "--claim",
        action="append",
        default=[],
        metavar="NAME=JSON",
        help="set a claim, null leaves it out; may come several times",
    )
    add(
        "--check",
        nargs="*",
        metavar="JWT",
        help="make none, but tell whose this one is or why it is not good, by the gateway's "
        "settings; without JWT, or with -, it is read from standard input",
    )
    add_setting_flags(parser, "pubKey")


def run(arguments: argparse.Namespace) -> int:
    """Print a token, and nothing else, on standard output; or whose one is, with ``--check``.

    Args:
        arguments: ``key`` (path), ``uid``, ``role``, ``level``, ``ttl`` (seconds), ``exp``
            (Unix time), ``no_exp``, ``claim`` (list of ``name=json``); ``check`` (list of words,
            None: make one), and flags of the settings for it.

    Raises:
        ConfigError: no private key is there, or a claim is not ``name=json``; or what
            `identify.check` raises.
    """
    if arguments.check is not None:
        from rango_gevent.commands import identify  # it needs what a gateway needs

        return identify.check(arguments.check, load_settings(setting_flags(arguments)).settings)
    key = signing_key(Path(arguments.key))
    print(forge(key, claims(arguments), time.time(), arguments.ttl))
    return 0


def signing_key(path: Path) -> SigningKey:
    """Load the private key.

    Raises:
        ConfigError: none is there, or it is not a private key.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"no private key: {path} cannot be read ({os.strerror(error.errno or 0)}); "
            "name it by --key, or make a pair with `rango keys`"
        ) from None
    return load_private_key(text, str(path))


def claims(arguments: argparse.Namespace) -> dict[str, object]:
    """Return the claims that the arguments set; what a claim sets by name wins.

    Raises:
        ConfigError: with every claim that is not ``name=json``.
    """
    found: dict[str, object] = {"uid": arguments.uid, "role": arguments.role}
    found["level"] = arguments.level
    if arguments.no_exp:
        found["exp"] = None
    elif arguments.exp is not None:
        found["exp"] = arguments.exp
    problems = []
    for text in arguments.claim:
        try:
            name, value = _claim(text)
            found[name] = value
        except ValueError:
            problems.append(f"--claim {text!r}: give name=json: beta=true, or team='\"red\"'")
    if problems:
        raise ConfigError(*problems)
    return found


def _claim(text: str) -> tuple[str, object]:
    """Take ``name=json`` apart; null leaves a claim out of the token.

    Raises:
        ValueError: it is something else.
    """
    name, _, value = text.partition("=")
    if not name:
        raise ValueError("no name")
    return name, json.loads(value, parse_constant=_no_json)


def _no_json(word: str) -> None:
    raise ValueError(f"{word} is not JSON")
