"""Private RabbitMQ nodes: own ports, own data directory, own name, nothing left behind.

Standard library only: `scripts/with-rabbitmq` runs before any environment exists, and the
tests of broker faults start nodes of their own from here.

Rules: everything listens on 127.0.0.1 alone. Each process of a node carries the node's
directory in its environment, and that is how all of them are found when it ends, the port
mapper too, which leaves the family of whoever started it. A guard process waits for the end
of the one that made the node and then cleans up, so that SIGKILL leaves nothing behind
either. Linux only: /proc tells the environments.
"""

from __future__ import annotations

import os
import random
import shlex
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

_PLACES = ("/usr/lib/rabbitmq/bin", "/usr/sbin", "/usr/local/sbin")
_MARK = "RANGO_PRIVATE_NODE"
_START_TIMEOUT_S = 180.0
_STOP_TIMEOUT_S = 60.0
_FREE_PORTS = range(20000, 32000)
_ports_given: set[int] = set()
_PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
_FRAME_END = b"\xce"


def find_program(name: str) -> str | None:
    """Return the path of one of RabbitMQ's programs, None when it is not installed."""
    # Debian's wrapper in /usr/sbin changes the user: the scripts behind it do not
    for place in _PLACES[:1]:
        if os.access(f"{place}/{name}", os.X_OK):
            return f"{place}/{name}"
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(_PLACES))


def free_port() -> int:
    """Return a TCP port that nobody listens on and that was not returned before.

    It is below those of outgoing connections. A client that dials a port among those while its
    broker is down can be given the very same port for its own end, and is then connected to itself.
    """
    while True:
        port = random.choice(_FREE_PORTS)
        if port in _ports_given:
            continue
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            _ports_given.add(port)
            return port


# -- is there a broker? -----------------------------------------------------------------------


def answers(host: str, port: int, timeout_s: float = 10.0) -> bool:
    """Tell whether an AMQP broker answers at an address."""
    try:
        with socket.create_connection((host, port), timeout_s) as probe:
            probe.sendall(_PROTOCOL_HEADER)
            return probe.recv(1) == b"\x01"  # a method frame: connection.start
    except OSError:
        return False


def accepts(amqp_url: str, timeout_s: float = 10.0) -> bool:
    """Tell whether a broker takes the login and the virtual host of a URL.

    The methods are those of AMQP 0-9-1 section 2.2.4, as far as connection.open-ok.
    """
    parts = urlsplit(amqp_url.split(";")[0])  # kombu takes several URLs; the first is asked
    host, secure = parts.hostname or "localhost", parts.scheme == "amqps"
    user, password = unquote(parts.username or "guest"), unquote(parts.password or "guest")
    login = f"\0{user}\0{password}".encode()
    try:
        address = (host, parts.port or (5671 if secure else 5672))
        with socket.create_connection(address, timeout_s) as plain:
            sock = _secured(plain, host) if secure else plain
            sock.sendall(_PROTOCOL_HEADER)
            with sock.makefile("rb") as replies:
                _expect(replies, 10)  # start
                start_ok = (
                    _long(_WANTS_REASONS) + _short(b"PLAIN") + _long(login) + _short(b"en_US")
                )
                sock.sendall(_method(11, start_ok))
                limits = _expect(replies, 30)[:8]  # tune: channels, frame size, heartbeat
                vhost = unquote(parts.path[1:]) or "/"
                sock.sendall(_method(31, limits) + _method(40, _short(vhost.encode()) + b"\0\0"))
                _expect(replies, 41)  # open-ok
            return True
    except (OSError, ValueError):
        return False


def _secured(plain: socket.socket, host: str) -> socket.socket:
    return ssl.create_default_context().wrap_socket(plain, server_hostname=host)


def _short(text: bytes) -> bytes:
    return bytes([len(text)]) + text


def _long(text: bytes) -> bytes:
    return struct.pack(">I", len(text)) + text


# what RabbitMQ is asked for, so that it refuses a login at once and not by three seconds' silence
_WANTS_REASONS = (
    _short(b"capabilities") + b"F" + _long(_short(b"authentication_failure_close") + b"t\x01")
)


def _method(number: int, arguments: bytes) -> bytes:
    """Encode a frame with a method of the class connection."""
    payload = struct.pack(">HH", 10, number) + arguments
    return struct.pack(">BHI", 1, 0, len(payload)) + payload + _FRAME_END


def _expect(replies: BinaryIO, number: int) -> bytes:
    """Read a method of the class connection and return its arguments.

    Raises:
        ValueError: it is another one, or the connection ended.
    """
    head = replies.read(7)
    size = struct.unpack(">I", head[3:])[0] if len(head) == 7 else 0
    payload = replies.read(size + 1)
    if payload[:4] != struct.pack(">HH", 10, number):
        raise ValueError(f"no answer with connection method {number}")
    return payload[4:-1]


# -- a node -----------------------------------------------------------------------------------


class PrivateNode:
    """A RabbitMQ node of one's own; a context manager that starts and stops it.

    Args:
        port: AMQP port; a free one by default.
        cluster: that it is to become a member of, by `join`; alone by default.

    Attributes:
        port: AMQP port, the same after a restart.
        directory: data, logs and settings; ``rabbitmq.conf`` may be added to before `start`.
        control: program that is ``rabbitmqctl`` for this node.
    """

    def __init__(self, port: int | None = None, cluster: Cluster | None = None) -> None:
        self._cluster = cluster
        self.port = port or free_port()
        self.directory = Path(tempfile.gettempdir()) / f"rango-rabbitmq-{uuid.uuid4().hex[:12]}"
        self.control = self.directory / "ctl"
        self._epmd_port = free_port() if cluster is None else cluster.epmd_port
        self._dist_port = free_port()
        self._server: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._make_directory()

    def __enter__(self) -> PrivateNode:
        """Start the node."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the node."""
        self.stop()

    @property
    def amqp_url(self) -> str:
        """Return the node's URL for kombu."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    @property
    def name(self) -> str:
        """Return the node's name in Erlang."""
        return f"rango-{self.directory.name[-12:]}@localhost"

    @property
    def runs(self) -> bool:
        """Tell whether the node was started and neither stopped nor killed."""
        return self._server is not None

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

    def start(self) -> None:
        """Start the node and wait until it takes logins; data left by `kill` is kept.

        Raises:
            RuntimeError: RabbitMQ is not installed, or does not come up in time.
        """
        program, control = find_program("rabbitmq-server"), find_program("rabbitmqctl")
        if program is None or control is None:
            raise RuntimeError("rabbitmq-server is not installed")
        if self._server is not None:
            raise RuntimeError("the RabbitMQ node runs already")
        try:
            self._make_directory()  # `stop` removed it
            self._write_control(control)
            self._server = self._spawn(program)
            self._wait_until_ready(self._server)
        except BaseException:
            self.stop()
            raise

    def ctl(self, *arguments: str, timeout_s: float = 180.0) -> str:
        """Run rabbitmqctl against the node and return what it printed.

        Raises:
            RuntimeError: it failed.
        """
        done = subprocess.run(
            [str(self.control), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        if done.returncode:
            raise RuntimeError(f"rabbitmqctl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def join(self, other: PrivateNode) -> None:
        """Become a member of another node's cluster; both run, with the same `Cluster`."""
        self.ctl("stop_app")
        self.ctl("join_cluster", other.name)
        self.ctl("start_app")

    def freeze(self) -> None:
        """Stop the node's process where it is; its connections stay open and nothing answers."""
        _signal(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        _signal(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """Kill the node at once; `start` brings it up again with its port and its data."""
        _end_all(self.directory)
        if self._server is not None:
            self._server.wait(_STOP_TIMEOUT_S)
        self._server = None
        (self.directory / "pid").unlink(missing_ok=True)

    def stop(self) -> None:
        """Shut the node down, clients told, and remove its directory with all data."""
        with suppress(RuntimeError):  # it does not run: the rest may still be there
            pid = self.pid
            _signal(pid, signal.SIGCONT)  # a test may have frozen it
            _signal(pid, signal.SIGTERM)
            if self._server is not None:
                with suppress(subprocess.TimeoutExpired):  # killed below
                    self._server.wait(_STOP_TIMEOUT_S)
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)
        if self._guard is not None:
            self._guard.communicate(timeout=_STOP_TIMEOUT_S)
        self._guard = None

    def _make_directory(self) -> None:
        """Make the directory with the settings, and start its guard, unless it is there."""
        if self.directory.exists():
            return
        self.directory.mkdir(mode=0o700)
        self._guard = _guard(self.directory)
        (self.directory / "rabbitmq.conf").write_text(
            f"listeners.tcp.default = 127.0.0.1:{self.port}\n"
            "disk_free_limit.absolute = 20MB\n"
            "vm_memory_high_watermark.absolute = 1GB\n"
            "log.console = false\n"
        )
        (self.directory / "enabled_plugins").write_text("[].\n")
        if self._cluster is not None:
            cookie = self.directory / ".erlang.cookie"
            cookie.write_text(self._cluster.cookie)
            cookie.chmod(0o400)

    def _write_control(self, control: str) -> None:
        words = ["env", "-i", *(f"{name}={value}" for name, value in self._environ().items())]
        self.control.write_text(f'#!/bin/sh\nexec {shlex.join([*words, control])} -q "$@"\n')
        self.control.chmod(0o700)

    def _environ(self) -> dict[str, str]:
        """Return the whole environment of the node: nothing of RabbitMQ's is inherited."""
        at = self.directory
        loopback = "-kernel inet_dist_use_interface {127,0,0,1}"
        return {
            _MARK: str(at),
            "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL": "C.UTF-8",
            "HOME": str(at),  # the Erlang cookie is made there
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_CONFIG_FILE": str(at / "rabbitmq"),
            "RABBITMQ_CONFIG_FILES": str(at / "conf.d" / "*.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(at / "advanced.config"),
            "RABBITMQ_CONF_ENV_FILE": str(at / "none"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(at / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(at / "data"),
            "RABBITMQ_LOG_BASE": str(at / "log"),
            "RABBITMQ_PID_FILE": str(at / "pid"),
            # one scheduler fewer or more changes nothing: 4 s of CPU time go into code loading
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"+S 2:2 {loopback}",
            "RABBITMQ_CTL_ERL_ARGS": loopback,
        }

    def _spawn(self, program: str) -> subprocess.Popen[bytes]:
        with open(self.directory / "console", "ab") as console:
            return subprocess.Popen(
                [program],
                env=self._environ(),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
                cwd=self.directory,
            )

    def _wait_until_ready(self, server: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not accepts(self.amqp_url):
            if server.poll() is not None or time.monotonic() > deadline:
                said = (self.directory / "console").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"the RabbitMQ node did not come up:\n{said}")
            time.sleep(0.05)


class Cluster:
    """Nodes that are one broker; a context manager that starts and stops them.

    The port mapper is a process of its own here: it must outlive a node that is killed.

    Args:
        size: number of nodes.

    Attributes:
        nodes: the nodes.
        epmd_port: port of their port mapper.
        cookie: what they know one another by.
    """

    def __init__(self, size: int) -> None:
        self.epmd_port = free_port()
        self.cookie = uuid.uuid4().hex
        self._mark = Path(tempfile.gettempdir()) / f"rango-cluster-{self.cookie[:12]}"
        self._guard: subprocess.Popen[bytes] | None = None
        self.nodes = [PrivateNode(cluster=self) for _ in range(size)]

    def __enter__(self) -> Cluster:
        """Start the nodes and join them."""
        program = shutil.which("epmd")
        if program is None:
            raise RuntimeError("Erlang's epmd is not installed")
        try:
            self._guard = _guard(self._mark)
            subprocess.run(
                [program, "-daemon", "-port", str(self.epmd_port), "-address", "127.0.0.1"],
                env={**os.environ, _MARK: str(self._mark)},
                check=True,
            )
            with ThreadPoolExecutor() as pool:
                list(pool.map(PrivateNode.start, self.nodes))
            for node in self.nodes[1:]:
                node.join(self.nodes[0])
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop all."""
        for node in reversed(self.nodes):
            with suppress(RuntimeError, subprocess.TimeoutExpired):
                node.thaw()
            node.kill()  # a member that waits for the others would not end in order
            node.stop()
        if self._guard is not None:
            self._guard.communicate(timeout=_STOP_TIMEOUT_S)
        self._guard = None


# -- its processes ----------------------------------------------------------------------------


def processes_of(directory: Path) -> list[int]:
    """Return the ids of all processes that carry a node's directory as their mark."""
    mark, found = f"{_MARK}={directory}".encode(), []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it ended just now, or is another user's
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


def _end_all(directory: Path) -> None:
    """Kill a node's processes until none is left: one may be starting another right now.

    Raises:
        RuntimeError: some are left after a while.
    """
    deadline = time.monotonic() + _STOP_TIMEOUT_S
    while left := processes_of(directory):
        if time.monotonic() > deadline:
            raise RuntimeError(f"processes {left} of the RabbitMQ node in {directory} do not end")
        for pid in left:
            _signal(pid, signal.SIGKILL)
        time.sleep(0.01)


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):  # it ended by itself
        os.kill(pid, number)


def _guard(directory: Path) -> subprocess.Popen[bytes]:
    """Start a process that cleans up when its standard input ends, and so when we do."""
    return subprocess.Popen(
        [sys.executable, __file__, str(directory)],
        stdin=subprocess.PIPE,
        start_new_session=True,  # the terminal's Ctrl-C is not for it
    )


def _stand_guard(directory: Path) -> None:
    """Wait until the maker of a node ends, or has stopped it, and clean up what there is."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()  # nobody writes: this is the end of the pipe's other side
    _end_all(directory)
    shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    _stand_guard(Path(sys.argv[1]))
