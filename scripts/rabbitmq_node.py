"""Private RabbitMQ nodes: own ports, own data directory, own name, nothing left behind.

Standard library only: `scripts/with-rabbitmq` runs before any environment exists, and the
tests of broker faults start nodes of their own from here.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

_PLACES = ("/usr/lib/rabbitmq/bin", "/usr/sbin", "/usr/local/sbin")
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 20.0
_PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"


def find_program(name: str) -> str | None:
    """Return the path of one of RabbitMQ's programs, None when it is not installed."""
    # Debian's wrapper in /usr/sbin changes the user: the scripts behind it do not
    for place in _PLACES[:1]:
        if os.access(f"{place}/{name}", os.X_OK):
            return f"{place}/{name}"
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(_PLACES))


def free_port() -> int:
    """Return a TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(host: str, port: int, timeout_s: float = 1.0) -> bool:
    """Tell whether an AMQP broker answers at an address."""
    try:
        with socket.create_connection((host, port), timeout_s) as probe:
            probe.settimeout(timeout_s)
            probe.sendall(_PROTOCOL_HEADER)
            return probe.recv(1) == b"\x01"  # a method frame: connection.start
    except OSError:
        return False


class PrivateNode:
    """A RabbitMQ node for the life of a test run.

    Args:
        port: AMQP port; a free one by default.

    Attributes:
        port: AMQP port, the same after a restart.
        directory: data, logs and settings.
    """

    def __init__(self, port: int | None = None) -> None:
        self.port = port or free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="rango-rabbitmq-"))
        self._epmd_port = free_port()
        self._name = f"rango{os.getpid()}p{self.port}@localhost"
        self._process: subprocess.Popen[bytes] | None = None
        self._write_settings()

    @property
    def amqp_url(self) -> str:
        """Return the node's URL for kombu."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    @property
    def pid(self) -> int:
        """Return the process id of the Erlang machine.

        Raises:
            RuntimeError: the node does not run.
        """
        found = self.directory / "pid"
        if not found.exists():
            raise RuntimeError("the RabbitMQ node does not run")
        return int(found.read_text())

    def _write_settings(self) -> None:
        (self.directory / "rabbitmq.conf").write_text(
            f"listeners.tcp.default = 127.0.0.1:{self.port}\n"
            "disk_free_limit.absolute = 20MB\n"
            "vm_memory_high_watermark.absolute = 1GB\n"
            "log.console = false\n"
        )
        (self.directory / "enabled_plugins").write_text("[].\n")

    def _environ(self) -> dict[str, str]:
        at = self.directory
        return {
            **os.environ,
            "HOME": str(at),  # the Erlang cookie is made there
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": self._name,
            "RABBITMQ_CONFIG_FILE": str(at / "rabbitmq"),
            "RABBITMQ_CONF_ENV_FILE": str(at / "none"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(at / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(at / "data"),
            "RABBITMQ_LOG_BASE": str(at / "log"),
            "RABBITMQ_PID_FILE": str(at / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none",
            "RABBITMQ_DIST_PORT": str(free_port()),
        }

    def start(self) -> None:
        """Start the node and wait until it answers.

        Raises:
            RuntimeError: RabbitMQ is not installed, or does not come up in time.
        """
        program = find_program("rabbitmq-server")
        if program is None:
            raise RuntimeError("rabbitmq-server is not installed")
        with open(self.directory / "console", "ab") as console:
            self._process = subprocess.Popen(
                [program],
                env=self._environ(),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
                cwd=self.directory,
            )
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not answers("127.0.0.1", self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = (self.directory / "console").read_text(errors="replace")[-2000:]
                self.stop()
                raise RuntimeError(f"the RabbitMQ node did not come up:\n{said}")
            time.sleep(0.1)

    def ctl(self, *arguments: str, timeout_s: float = 60.0) -> str:
        """Run rabbitmqctl against the node and return what it printed.

        Raises:
            RuntimeError: it failed.
        """
        program = find_program("rabbitmqctl") or "rabbitmqctl"
        done = subprocess.run(
            [program, "-q", *arguments],
            env=self._environ(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            cwd=self.directory,
        )
        if done.returncode:
            raise RuntimeError(f"rabbitmqctl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def kill(self) -> None:
        """Kill the node at once; `start` brings it up again with its data."""
        if self._process is None:
            return
        for pid in _children(self._process.pid):
            _signal(pid, signal.SIGKILL)
        _signal(self._process.pid, signal.SIGKILL)
        self._process.wait(_STOP_TIMEOUT_S)
        self._process = None
        (self.directory / "pid").unlink(missing_ok=True)

    def stop(self) -> None:
        """End the node and its port mapper, remove its directory."""
        if self._process is not None and self._process.poll() is None:
            family = _children(self._process.pid)
            for pid in family:
                _signal(pid, signal.SIGTERM)  # the Erlang machine shuts down in order
            with suppress(subprocess.TimeoutExpired):  # killed below
                self._process.wait(_STOP_TIMEOUT_S)
        self.kill()
        for pid in _mappers(self._epmd_port):
            _signal(pid, signal.SIGKILL)
        shutil.rmtree(self.directory, ignore_errors=True)


def _children(root: int) -> list[int]:
    """Return the processes below one, nearest first."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it ended just now
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found, queue = [], [root]
    while queue:
        below = parents.get(queue.pop(0), [])
        found += below
        queue += below
    return found


def _mappers(port: int) -> list[int]:
    """Return the Erlang port mappers of a port: they leave the family of who started them."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().split(b"\0")
                environ = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue  # ended just now, or another user's
            if command[0].endswith(b"epmd") and f"ERL_EPMD_PORT={port}".encode() in environ:
                found.append(int(entry.name))
    return found


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):  # it ended by itself
        os.kill(pid, number)
