"""Redis and PostgreSQL for the tests: real ones, each on a port and in a directory of its own."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Iterator

import psycopg
from support import HOST, PATIENCE_S, free_port, wait_for

_START_S = 90  # PostgreSQL makes a directory of many files first
_POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


class Redis:
    """A Redis that can be stopped and started again with what it holds."""

    def __init__(self, port: int, directory: Path) -> None:
        self._port = port
        self._words = ["redis-server", "--port", str(port), "--bind", HOST]
        self._words += ["--dir", str(directory), "--save", "", "--appendonly", "yes"]
        self._life = contextlib.ExitStack()

    def start(self) -> None:
        """Start it, and wait until it listens."""
        self._life.enter_context(_running(self._words, self._port, None))

    def stop(self) -> None:
        """Stop it."""
        self._life.close()


@contextlib.contextmanager
def redis_at(port: int, directory: Path) -> Iterator[Redis]:
    """Run a Redis on a port for the length of a ``with`` block."""
    redis = Redis(port, directory)
    redis.start()
    try:
        yield redis
    finally:
        redis.stop()


@contextlib.contextmanager
def redis_server() -> Iterator[str]:
    """Run a Redis and return its URL."""
    port = free_port()
    directory = tempfile.mkdtemp(prefix="rango-redis-")
    try:
        with redis_at(port, Path(directory)):
            yield f"redis://{HOST}:{port}/0"
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def postgres_server() -> Iterator[str]:
    """Run a PostgreSQL and return its URL; it refuses to run as root, hence another user."""
    assert _POSTGRES, "no PostgreSQL: scripts/test-packages installs it"
    port, user = free_port(), "postgres" if os.geteuid() == 0 else None
    directory = tempfile.mkdtemp(prefix="rango-postgres-")
    try:
        if user:
            os.chown(directory, pwd.getpwnam(user).pw_uid, -1)
        data = Path(directory, "data")
        subprocess.run(
            [_POSTGRES[-1] / "initdb", "-D", data, "-U", "rango", "-A", "trust", "-N"],
            check=True, capture_output=True, user=user, cwd=directory, timeout=_START_S,
        )  # fmt: skip
        words = [str(_POSTGRES[-1] / "postgres"), "-D", str(data), "-p", str(port), "-h", HOST]
        url = f"postgresql://rango@{HOST}:{port}/postgres"
        with _running([*words, "-k", directory, "-F"], port, user):
            wait_for(lambda: _takes_logins(url), _START_S, "PostgreSQL")
            yield url
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def _running(words: list[str], port: int, user: str | None) -> Iterator[None]:
    process = subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        user=user, cwd="/",
    )  # fmt: skip
    try:
        wait_for(lambda: process.poll() is not None or _listens(port), _START_S, words[0])
        assert process.poll() is None, f"{words[0]} ended with {process.returncode}"
        yield
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(PATIENCE_S)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1):
        return True
    return False


def _takes_logins(url: str) -> bool:
    with contextlib.suppress(psycopg.OperationalError), psycopg.connect(url):
        return True
    return False
