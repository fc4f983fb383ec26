"""The C tools as running processes: started, listened to for a bounded time, ended by id."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import tempfile
import time
from types import TracebackType
from typing import Any, Callable, Sequence

_LEAVE_S = 0.5  # for a tool whose input has ended; the pump has none to listen to
_END_S = 5.0
_READ_BYTES = 1 << 16

Shown = Callable[[str], None]


class BenchError(Exception):
    """A scenario cannot be measured; the text says why."""


class Tool:
    """A process that answers in lines of JSON.

    Args:
        command: program and arguments.
        limit_s: seconds after which it ends by itself.
        pass_fds: descriptors that it inherits.
    """

    def __init__(
        self, command: Sequence[str], limit_s: float, pass_fds: Sequence[int] = ()
    ) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by end()
        self._name = os.path.basename(command[0])
        self._unread = b""
        self.process = subprocess.Popen(  # our own tools
            [*command, f"limit={max(1, round(limit_s))}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
            pass_fds=tuple(pass_fds),
        )

    def __enter__(self) -> Tool:
        """Do nothing: it runs already."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the process."""
        self.end()

    def tell(self) -> None:
        """Send it a line."""
        with contextlib.suppress(BrokenPipeError):  # it has ended: `answer` says so
            os.write(self._pipe(self.process.stdin), b"\n")

    def poll(self, timeout_s: float) -> dict[str, Any] | None:
        """Return the next line, None when there is none in time.

        Raises:
            BenchError: it has ended and there is none.
        """
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._unread:
            if not self._read(max(0.0, deadline - time.monotonic())):
                return None
        line, _, self._unread = self._unread.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def answer(self, timeout_s: float) -> dict[str, Any]:
        """Return the next line.

        Raises:
            BenchError: there is none in time.
        """
        found = self.poll(timeout_s)
        if found is None:
            raise BenchError(f"{self._name}: no answer within {timeout_s:g} s")
        return found

    def _read(self, timeout_s: float) -> bool:
        out = self._pipe(self.process.stdout)
        if not select.select([out], [], [], timeout_s)[0]:
            return False
        data = os.read(out, _READ_BYTES)
        if not data:
            raise BenchError(f"{self._name} ended: {self._complaint()}")
        self._unread += data
        return True

    @staticmethod
    def _pipe(pipe: Any) -> int:
        number: int = pipe.fileno()
        return number

    def _complaint(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").split("\n")
        said = [line for line in lines if line.strip()]
        return said[-1] if said else "it said nothing, so its time was over"

    def end(self) -> None:
        """End it: its input ends, and if that is not enough it is killed."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self.process.wait(_LEAVE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(_END_S)
        self._errors.close()


class Load(Tool):
    """A running ``wsload``: the clients."""

    def __init__(self, command: Sequence[str], limit_s: float, show: Shown) -> None:
        super().__init__(command, limit_s)
        self._show = show

    def ready(self, timeout_s: float) -> dict[str, Any]:
        """Wait until all clients are up or refused."""
        return self._event("ready", timeout_s)

    def done(self, timeout_s: float) -> dict[str, Any]:
        """Say that nothing more comes, and wait for the counts."""
        self.tell()
        return self._event("done", timeout_s)

    def look(self, wait_s: float) -> None:
        """Show its progress, if there is any within the time."""
        event = self.poll(wait_s)
        if event is not None and event["event"] == "progress":
            self._show(f"{event['up']} clients, {event['frames']} deliveries")

    def _event(self, name: str, timeout_s: float) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_s
        while True:
            event = self.answer(max(0.1, deadline - time.monotonic()))
            if event["event"] == name:
                return event
            self._show(f"{event['up']} clients, {event['frames']} deliveries")
            if time.monotonic() > deadline:
                raise BenchError(f"not {name} within {timeout_s:g} s")
