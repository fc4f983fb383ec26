"""``rango token``: make a token for tests and for trying things, signed with your private key."""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

from rango_gevent.auth.keys import SigningKey, load_private_key
from rango_gevent.auth.tokens import forge
from rango_gevent.errors import ConfigError


def run(arguments: argparse.Namespace) -> int:
    """Print a token, and nothing else, on standard output.

    Args:
        arguments: ``key`` (path), ``uid``, ``role``, ``level``, ``ttl`` (seconds), ``exp``
            (Unix time), ``no_exp``, ``claim`` (list of ``name=json``).

    Raises:
        ConfigError: no private key is there, or a claim is not ``name=json``.
    """
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
