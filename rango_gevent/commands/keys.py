"""``rango keys``: make the pair of keys that signs tokens and checks them."""

from __future__ import annotations

import argparse
import base64
import os
from pathlib import Path

from rango_gevent.auth.keys import generate, public_pem_raw
from rango_gevent.errors import ConfigError

PRIVATE_NAME = "ed25519-key"
PUBLIC_NAME = "ed25519-key.pub"
_SECRET = 0o600
_READABLE = 0o644


DESCRIPTION = """\
Make an Ed25519 pair: ed25519-key signs tokens and is secret, ed25519-key.pub checks
them. Prints the setting to paste. Keys that are there are never replaced unasked."""
EXAMPLE = "  rango keys --out config"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument(
        "--out", default="config", metavar="DIR", help="directory (default: %(default)s)"
    )
    parser.add_argument(
        "--raw",
        action="store_true",
        help="write the public key in the form of Openware's tools: the bare 32 bytes as PEM",
    )
    parser.add_argument("--force", action="store_true", help="replace a pair that is there")


def run(arguments: argparse.Namespace) -> int:
    """Write a new pair and say where it is.

    Args:
        arguments: ``out`` (directory), ``raw``, ``force``.

    Raises:
        ConfigError: a key is there already, or the directory takes none.
    """
    private_path, public_path = write_pair(Path(arguments.out), arguments.raw, arguments.force)
    setting = base64.b64encode(public_path.read_bytes()).decode("ascii")
    print(f"private key: {private_path} (secret: whoever has it can make tokens)")
    print(f"public key:  {public_path}")
    print(f"JWT_PUBLIC_KEY={setting}")
    return 0


def write_pair(directory: Path, raw: bool, force: bool) -> tuple[Path, Path]:
    """Write a new Ed25519 pair.

    Args:
        directory: where to; made when it is missing.
        raw: write the public key in Openware's form.
        force: replace what is there.

    Returns:
        The paths of the private and the public key.

    Raises:
        ConfigError: a key is there already and ``force`` is off, or nothing can be written.
    """
    private_path, public_path = directory / PRIVATE_NAME, directory / PUBLIC_NAME
    private_pem, public_pem = generate()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if force:
            for path in (private_path, public_path):
                path.unlink(missing_ok=True)
        _refuse_to_replace(private_path, public_path)
        _write(private_path, private_pem, _SECRET)
        _write(public_path, public_pem_raw(private_pem) if raw else public_pem, _READABLE)
    except OSError as error:
        raise ConfigError(
            f"--out={str(directory)!r}: cannot write {error.filename or directory} "
            f"({error.strerror}); give a directory that can be written"
        ) from None
    return private_path, public_path


def _refuse_to_replace(*paths: Path) -> None:
    """Stop before anything is written: half a new pair is worse than none."""
    for path in paths:
        if os.path.lexists(path):
            raise ConfigError(
                f"{path} is there already; tokens signed with it would no longer be good. "
                "Give another --out, or --force to replace the pair"
            )


def _write(path: Path, text: str, mode: int) -> None:
    """Write a new file that has its mode from the first moment."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(descriptor, "w", encoding="ascii") as file:
        file.write(text)
