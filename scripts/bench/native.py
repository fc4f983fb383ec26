"""Builds the C tools when they are first used, into a cache directory of the user."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from rango_gevent.errors import ConfigError

TOOLS = ("wsload", "pump", "floor")
_SOURCES = Path(__file__).resolve().parent / "native"
_FLAGS = ("-O2", "-std=gnu11", "-pthread")
_TIMEOUT_S = 120


def build() -> dict[str, str]:
    """Return the paths of the tools by name, built if they are not yet.

    Raises:
        ConfigError: there is no compiler, it fails, or nothing can be written.
    """
    compiler = _compiler()
    directory = _cache() / _fingerprint(compiler)
    paths = {tool: directory / tool for tool in TOOLS}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for tool, path in paths.items():
            if not path.exists():
                _compile(compiler, tool, path)
    except OSError as error:
        raise ConfigError(
            f"{directory}: cannot be written ({error.strerror}); set XDG_CACHE_HOME"
        ) from None
    return {tool: str(path) for tool, path in paths.items()}


def _compiler() -> list[str]:
    words = shlex.split(os.environ.get("CC", "")) or ["cc"]
    if shutil.which(words[0]) is None:
        raise ConfigError(
            f"no C compiler ({words[0]}): the benchmark's clients are built when they are first "
            "used; install one, such as Debian's gcc and libc6-dev, or name one by CC"
        )
    return words


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(home) / "rango_gevent" / "bench"


def _fingerprint(compiler: list[str]) -> str:
    """Name the build by all that goes into it, so that a changed source is built again."""
    digest = hashlib.sha256(" ".join((*compiler, *_FLAGS)).encode())
    for path in sorted(_SOURCES.iterdir()):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _compile(compiler: list[str], tool: str, path: Path) -> None:
    """Compile beside the place and move into it: two runs at once do not meet half a file."""
    with tempfile.TemporaryDirectory(dir=path.parent) as directory:
        output = os.path.join(directory, tool)
        command = [*compiler, *_FLAGS, "-o", output, str(_SOURCES / f"{tool}.c")]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise ConfigError(f"{compiler[0]} did not end within {_TIMEOUT_S} s") from None
        if done.returncode:
            raise ConfigError(f"{shlex.join(command)} failed:\n{done.stderr.strip()}")
        os.replace(output, path)
