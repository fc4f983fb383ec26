"""Where settings and keys come from: the process's environment, and files.

The file of settings is what a reload (SIGHUP) can read anew: a process's own environment never
changes. Files of keys are read anew then too.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Mapping

from rango_gevent.auth.keys import VerificationKey, load_public_keys, load_secret
from rango_gevent.errors import ConfigError
from rango_gevent.settings import ENV_FILE, Loaded, Settings, load


def load_settings(
    flags: Mapping[str, str] | None = None, environ: Mapping[str, str] | None = None
) -> Loaded:
    """Read the settings from flags, the file that RANGO_ENV_FILE names, and the environment.

    Raises:
        ConfigError: with every problem at once.
    """
    return load(with_file(os.environ if environ is None else environ), flags)


def with_file(environ: Mapping[str, str]) -> Mapping[str, str]:
    """Return an environment, and over it what is in the file that RANGO_ENV_FILE names.

    Raises:
        ConfigError: the file cannot be read, or is none of `NAME=value` lines.
    """
    path = environ.get(ENV_FILE)
    return {**environ, **_read(Path(path))} if path else environ


def print_problems(error: ConfigError) -> None:
    """Tell the operator what is wrong, a line for each problem, on standard error."""
    for problem in error.problems:
        print(f"rango: {problem}", file=sys.stderr)


def _read(path: Path) -> dict[str, str]:
    """Read ``NAME=value`` lines, as a shell or systemd would: ``export`` before them is fine.

    Blank lines and lines that begin with # are left out.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{ENV_FILE}={str(path)!r}: cannot be read ({error})") from None
    found: dict[str, str] = {}
    problems: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, equals, value = re.sub(r"^export\s+", "", line).partition("=")
        if not equals or not name.strip().isidentifier():
            problems.append(f"{path}:{number}: give NAME=value")
        found[name.strip()] = _unquoted(value.strip())
    if problems:
        raise ConfigError(*problems)
    return found


def _unquoted(value: str) -> str:
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return value[1:-1] if quoted else value


def load_keys(settings: Settings) -> tuple[VerificationKey, ...]:
    """Load the keys that the settings name: public ones and a shared secret.

    Raises:
        ConfigError: there is none and nobody to ask instead, or one is no key for verifying.
    """
    secret = settings.jwt_secret
    keys = (load_secret(secret, "JWT_SECRET"),) if secret else ()
    others = keys or settings.jwks_url or settings.auth_url
    return _public_keys(settings, needed=not others) + keys


def _public_keys(settings: Settings, needed: bool) -> tuple[VerificationKey, ...]:
    if settings.jwt_public_key:
        return load_public_keys(settings.jwt_public_key, "JWT_PUBLIC_KEY")
    path = Path(settings.public_key_file)
    if not needed and not path.exists():
        return ()
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"no public key: JWT_PUBLIC_KEY is not set and {path} cannot be read "
            f"({os.strerror(error.errno or 0)}); set JWT_PUBLIC_KEY to the base64 of a PEM, or "
            "-pubKey to its path, or make a pair with `rango keys`"
        ) from None
    return load_public_keys(text, str(path))
