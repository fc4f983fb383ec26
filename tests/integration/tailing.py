"""``rango tail`` as a process, its standard output a pipe or a terminal."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Iterator, Sequence

from support import server_env, wait_for

RANGO = [sys.executable, "-m", "rango_gevent"]


class Tail:
    """A running ``rango tail``.

    Attributes:
        process: the process; standard output is a pipe.
    """

    def __init__(self, words: Sequence[str], directory: Path, env: dict[str, str] | None) -> None:
        self._said = directory / f"said-{uuid.uuid4().hex}"
        with open(self._said, "wb") as said:
            self.process = subprocess.Popen(
                [*RANGO, "tail", *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=said,
                env=server_env("unused", env),
            )

    def said(self) -> str:
        """Return what came on standard error so far."""
        return self._said.read_text()

    def wait_said(self, text: str, times: int = 1) -> None:
        """Wait until a text was said so many times."""
        wait_for(lambda: self.said().count(text) >= times, what=f"{text!r} in {self.said()!r}")

    def subscribed(self, *names: str, times: int = 1) -> None:
        """Wait until the server has said that it holds these names."""
        reply = {"success": {"message": "subscribed", "streams": list(names)}}
        text = json.dumps(reply, separators=(",", ":"))
        self.wait_said(text[:-2], times)  # where it stands may follow, and the request's id

    def end(self) -> tuple[int, bytes]:
        """Wait for its end and return exit code and output."""
        out, _ = self.process.communicate(timeout=60)
        return self.process.returncode, out


@contextlib.contextmanager
def tail(directory: Path, *words: str, env: dict[str, str] | None = None) -> Iterator[Tail]:
    """Run ``rango tail`` for the length of a ``with`` block."""
    running = Tail(words, directory, env)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.communicate(timeout=60)
