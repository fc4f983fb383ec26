"""What a server of the benchmark is: processes, how clients come in, how messages come in.

Each knows how a client comes in (`Dial`), how messages come in (`Server.flow`), and which
processes are its own. The gateway is in `gateways`, what it is compared with in `peers`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping, NamedTuple, Sequence

from bench import messages
from bench.scenarios import (
    Scenario,
)
from bench.tools import BenchError, Tool

HOST = "127.0.0.1"
START_S = 30.0
_STOP_S = 15.0


class Dial(NamedTuple):
    """How a client of a server comes in.

    Attributes:
        port: on the loopback interface.
        path: of the request; ``%d`` is the client's index.
        hello: a message behind the upgrade, or empty.
        speaks: ``ws``, or ``nats`` inside of it.
    """

    port: int
    path: str
    hello: str = ""
    speaks: str = "ws"


class Work(NamedTuple):
    """What to publish: a scenario, how many messages, and the tool's limits.

    Attributes:
        scenario: the row.
        messages: number of messages.
        pump: path of the tool.
        limit_s: seconds after which it gives up.
    """

    scenario: Scenario
    messages: int
    pump: str
    limit_s: float


class Server:
    """A server under measurement.

    Attributes:
        name: what to call it.
        uses_broker: messages come to it through the broker.
    """

    name = ""
    uses_broker = False

    @property
    def pids(self) -> list[int]:
        """Return the ids of its processes."""
        raise NotImplementedError

    def dial(self, scenario: Scenario) -> Dial:
        """Return how the scenario's clients come in."""
        raise NotImplementedError

    def tokens(self, scenario: Scenario) -> list[str]:
        """Return a token for each client, none for anonymous ones."""
        return []

    @contextlib.contextmanager
    def flow(self, work: Work) -> Iterator[Tool]:
        """Publish for the length of a ``with`` block; the tool says when it has."""
        raise NotImplementedError

    def hold(self) -> None:
        """Stop its processes until `release`."""
        raise BenchError("only a gateway that this command has started can be held back")

    def release(self) -> None:
        """Let its processes go on."""

    def close(self) -> None:
        """End what was started."""


@contextlib.contextmanager
def pump_on(
    work: Work,
    sock: Any,
    encode: messages.Encode,
    rename: Callable[[str], str] = str,
    drain: bool = False,
) -> Iterator[Tool]:
    """Run the pump on a connection.

    Args:
        work: what to publish.
        sock: a connection on which the server waits for messages.
        encode: encodes a message.
        rename: turns a stream's name into what the server calls it.
        drain: the server answers each message.
    """
    scenario = work.scenario
    topics = scenario.topics()
    file = messages.templates(
        [rename(name) for name in topics.turns],
        messages.bodies(scenario.size, scenario.book, scenario.viabtc),
        [rename(name) for name in topics.stops],
        encode,
        messages.STOP_DEAL if scenario.viabtc else messages.STOP,
    )
    with tempfile.NamedTemporaryFile(prefix="rango-bench-") as templates:
        templates.write(file)
        templates.flush()
        command = [
            work.pump,
            f"fd={sock.fileno()}",
            f"templates={templates.name}",
            f"count={work.messages}",
            f"rate={scenario.rate}",
            f"burst={scenario.burst}",
            f"spread={scenario.spread_s}",
            f"drain={int(drain)}",
        ]
        with Tool(command, work.limit_s, [sock.fileno()]) as tool:
            yield tool


class Started:
    """A server's process in a session of its own, its log and its directory.

    Args:
        command: program and arguments; ``{directory}`` is replaced.
        env: environment.
        files: files to write into the directory first, text by name.
    """

    def __init__(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        files: Mapping[str, str] | None = None,
    ) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="rango-bench-")
        self.path = Path(self._directory.name)
        for name, text in (files or {}).items():
            (self.path / name).write_text(text.replace("{directory}", self._directory.name))
        self._program = os.path.basename(command[0])
        with open(self.path / "log", "wb") as log:
            self.process = subprocess.Popen(  # programs that this module names
                [word.replace("{directory}", self._directory.name) for word in command],
                env=dict(env),
                cwd=self._directory.name,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until(self, is_ready: Callable[[], bool]) -> None:
        """Wait until it is ready.

        Raises:
            BenchError: it ended, or is not in time; the last line of its log is in the text.
        """
        deadline = time.monotonic() + START_S
        while not is_ready():
            if self.process.poll() is not None:
                raise BenchError(f"{self._program} ended: {self._last_line()}")
            if time.monotonic() > deadline:
                raise BenchError(
                    f"{self._program} is not ready after {START_S:g} s: {self._last_line()}"
                )
            time.sleep(0.02)

    def _last_line(self) -> str:
        lines = (self.path / "log").read_text("utf-8", "replace").split("\n")
        said = [line for line in lines if line.strip()]
        return said[-1] if said else "it said nothing"

    def end(self) -> None:
        """End it by SIGTERM, and whatever is left of its session by SIGKILL."""
        if self.process.poll() is None:
            self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_STOP_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # the session that was started for it
        self.process.wait(_STOP_S)
        self._directory.cleanup()


def listens(port: int) -> bool:
    """Tell whether somebody listens on a port."""
    try:
        socket.create_connection((HOST, port), 1).close()
    except OSError:
        return False
    return True


def find(program: str) -> str:
    """Return the path of an installed program, empty when there is none."""
    places = os.pathsep.join((os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"))
    return shutil.which(program, path=places) or ""


def said(command: Sequence[str]) -> str:
    """Return what a program says about itself."""
    try:
        done = subprocess.run(  # programs that this module names
            command, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown version"
    return (done.stdout.strip() or done.stderr.strip() or "unknown version").split("\n")[0]
