"""What is measured: a gateway of our own, one that runs already, the peers, the floor.

Each knows how a client comes in (`Dial`), how messages come in (`Server.flow`), and which
processes are its own. Peers are fed directly, by the protocol that they speak; the gateway is
fed through the broker, whose processor time is not counted.
"""

from __future__ import annotations

import base64
import contextlib
import getpass
import grp
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping, NamedTuple, Sequence
from urllib.parse import urlsplit

from kombu.connection import Connection

from rango_gevent.auth.keys import SigningKey, generate, load_private_key
from rango_gevent.auth.tokens import forge
from rango_gevent.bench import machine, messages
from rango_gevent.bench.scenarios import (
    CONNECT,
    FLOOR,
    FLOW,
    IDLE,
    NOBODY,
    OWN,
    PRIVATE,
    SHARED,
    Scenario,
)
from rango_gevent.bench.tools import BenchError, Tool
from rango_gevent.settings import ENV_FILE
from rango_gevent.urls import mask_url

HOST = "127.0.0.1"
_START_S = 30.0
_STOP_S = 15.0
_BROKER_TIMEOUT_S = 10.0
_QUIET_S = 0.5  # without an answer: there are no more
_PACKAGE_PARENT = str(Path(__file__).resolve().parents[2])
_FLOOR_DELIVERIES_PER_S = 160_000  # more than this a loop of sends does not reach
_NCHAN_MODULE = "/usr/lib/nginx/modules/ngx_nchan_module.so"


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


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on right now."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        port: int = sock.getsockname()[1]
        return port


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
def _pump(
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
        messages.bodies(scenario.size, scenario.book),
        [rename(name) for name in topics.stops],
        encode,
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
            f"drain={int(drain)}",
        ]
        with Tool(command, work.limit_s, [sock.fileno()]) as tool:
            yield tool


# -- the gateway ----------------------------------------------------------------------------


class Gateway(Server):
    """A gateway that runs already, ours or another with the same protocol.

    Args:
        name: what to call it.
        port: of its WebSocket listener.
        base: path in front of ``/public`` and ``/private``.
        pids: its processes.
        exchange: its exchange.
        key: signs tokens that it accepts; None: scenarios with tokens cannot run.
        broker_url: its broker.
    """

    uses_broker = True

    def __init__(
        self,
        name: str,
        port: int,
        base: str,
        pids: Sequence[int],
        exchange: str,
        key: SigningKey | None,
        broker_url: str,
    ) -> None:
        self.name = name
        self._port = port
        self._base = base
        self._pids = list(pids)
        self._broker_url = broker_url
        self._exchange = exchange
        self._key = key

    @property
    def pids(self) -> list[int]:
        """Return the processes that were named."""
        return self._pids

    def dial(self, scenario: Scenario) -> Dial:
        """Return the path with its streams."""
        held = ",".join(scenario.topics().held)
        path = "/private" if scenario.tokens else "/public"
        return Dial(self._port, f"{self._base}{path}" + (f"?stream={held}" if held else ""))

    def tokens(self, scenario: Scenario) -> list[str]:
        """Sign a token for each client; client i is the user IDi."""
        if not scenario.tokens:
            return []
        if self._key is None:
            raise BenchError("name the private key whose tokens the gateway accepts by --token-key")
        now = time.time()
        return [forge(self._key, {"uid": f"ID{i}"}, now, 86_400) for i in range(scenario.clients)]

    @contextlib.contextmanager
    def flow(self, work: Work) -> Iterator[Tool]:
        """Publish to the exchange."""
        scope = "private" if work.scenario.audience == PRIVATE else "public"
        with broker(self._broker_url) as connection:
            channel = connection.channel()
            encode = messages.amqp_publish(self._exchange, channel.channel_id)
            sock = connection.connection.sock
            with _pump(work, sock, encode, lambda name: f"{scope}.{name}") as tool:
                yield tool
            channel.close()  # the broker has taken everything, or says what was wrong


@contextlib.contextmanager
def broker(url: str) -> Iterator[Any]:
    """Connect to the broker.

    Raises:
        BenchError: it is not there, refuses, or ends the connection.
    """
    connection = Connection(url, connect_timeout=_BROKER_TIMEOUT_S, heartbeat=0)
    try:
        connection.connect()
        connection.connection.sock.settimeout(_BROKER_TIMEOUT_S)
        yield connection
    except (*connection.connection_errors, *connection.channel_errors) as error:
        text = str(error) or type(error).__name__
        raise BenchError(f"the broker at {mask_url(url)}: {text}") from None
    finally:
        with contextlib.suppress(Exception):  # a broker that is gone cannot be left any better
            connection.close()


def broker_version(url: str) -> str:
    """Return the broker's product and version.

    Raises:
        BenchError: it is not there.
    """
    with broker(url) as connection:
        properties = connection.connection.server_properties
        return f"{properties.get('product', 'AMQP broker')} {properties.get('version', '')}".strip()


class OwnGateway(Gateway):
    """A gateway started for one scenario, with ports, exchange and keys of its own.

    Args:
        broker_url: the broker.
        scenario: sets the workers and what else it asks for.
        environ: what it inherits; its ``RANGO_*`` settings hold unless they are set here.
    """

    def __init__(self, broker_url: str, scenario: Scenario, environ: Mapping[str, str]) -> None:
        private_pem, public_pem = generate()
        exchange = f"rango.bench.{uuid.uuid4().hex[:12]}"
        key = load_private_key(private_pem)
        super().__init__("rango", free_port(), "", [], exchange, key, broker_url)
        env = {
            **environ,
            "PYTHONPATH": os.pathsep.join(
                filter(None, (_PACKAGE_PARENT, environ.get("PYTHONPATH", "")))
            ),
            "RANGER_HOST": HOST,
            "RANGER_PORT": str(self._port),
            "RANGO_METRICS_HOST": HOST,
            "RANGO_METRICS_PORT": str(free_port()),
            "RANGO_AMQP_URL": broker_url,
            "RANGO_EXCHANGE": exchange,
            "RANGO_WORKERS": str(scenario.workers),
            "RANGO_MAX_CONNECTIONS": str(scenario.clients + 1000),
            "RANGO_MAX_CONNECTIONS_PER_ADDRESS": "0",
            "RANGO_MAX_AGE_S": "0",
            "RANGO_DRAIN_S": "0.2",
            "RANGO_CLOSE_TIMEOUT_S": "1",
            "JWT_PUBLIC_KEY": base64.b64encode(public_pem.encode()).decode(),
            **scenario.settings,
        }
        env.pop(ENV_FILE, None)  # what it sets would win over all of this
        self._own = _Started([sys.executable, "-m", "rango_gevent"], env)
        try:
            self._own.wait_until(self._is_ready)
        except BaseException:
            self.close()
            raise

    def _is_ready(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self._port, timeout=2)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    @property
    def pids(self) -> list[int]:
        """Return the gateway's process and its workers."""
        return machine.family(self._own.process.pid)

    def hold(self) -> None:
        """Stop its processes."""
        for pid in self.pids:
            os.kill(pid, signal.SIGSTOP)

    def release(self) -> None:
        """Let its processes go on."""
        for pid in self.pids:
            os.kill(pid, signal.SIGCONT)

    def close(self) -> None:
        """End the gateway and delete its exchange."""
        self._own.end()
        with contextlib.suppress(BenchError), broker(self._broker_url) as connection:
            connection.channel().exchange_delete(self._exchange)


class _Started:
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
        deadline = time.monotonic() + _START_S
        while not is_ready():
            if self.process.poll() is not None:
                raise BenchError(f"{self._program} ended: {self._last_line()}")
            if time.monotonic() > deadline:
                raise BenchError(
                    f"{self._program} is not ready after {_START_S:g} s: {self._last_line()}"
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


def broker_pids(url: str) -> list[int]:
    """Return the broker's process, empty when it cannot be found."""
    return machine.listener(urlsplit(url).port or 5672)


def _listens(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), 1).close()
    except OSError:
        return False
    return True


# -- the peers ------------------------------------------------------------------------------


class Nats(Server):
    """NATS with its WebSocket listener, fed by its own protocol.

    Args:
        environ: what it inherits.
    """

    name = "nats"
    needs = "nats-server is not installed: apt-get install nats-server"

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._port, self._feed_port = free_port(), free_port()
        config = (
            f"listen: {HOST}:{self._feed_port}\n"
            f"websocket {{ listen: {HOST}:{self._port}, no_tls: true }}\n"
        )
        command = [find("nats-server"), "-c", "{directory}/nats.conf"]
        self._own = _Started(command, environ, {"nats.conf": config})
        try:
            self._own.wait_until(lambda: _listens(self._port) and _listens(self._feed_port))
        except BaseException:
            self.close()
            raise

    @staticmethod
    def missing() -> bool:
        """Tell whether it is not installed."""
        return not find("nats-server")

    @staticmethod
    def version() -> str:
        """Return its version."""
        return _said([find("nats-server"), "--version"])

    @property
    def pids(self) -> list[int]:
        """Return its process."""
        return [self._own.process.pid]

    def dial(self, scenario: Scenario) -> Dial:
        """Return its path and the commands that subscribe."""
        names = enumerate(scenario.topics().held, 1)
        hello = 'CONNECT {"verbose":false,"pedantic":false}\r\n' + "".join(
            f"SUB {name} {number}\r\n" for number, name in names
        )
        return Dial(self._port, "/", hello, "nats")

    @contextlib.contextmanager
    def flow(self, work: Work) -> Iterator[Tool]:
        """Publish by its own protocol."""
        with socket.create_connection((HOST, self._feed_port), _BROKER_TIMEOUT_S) as sock:
            sock.recv(4096)  # INFO
            sock.sendall(b'CONNECT {"verbose":false,"pedantic":false}\r\nPING\r\n')
            if not sock.recv(64).startswith(b"PONG"):
                raise BenchError("nats-server refuses the publisher")
            with _pump(work, sock, messages.nats_publish) as tool:
                yield tool
            sock.settimeout(work.limit_s)
            sock.sendall(b"PING\r\n")
            while b"PONG" not in sock.recv(4096):
                pass  # it has taken everything when it answers

    def close(self) -> None:
        """End it."""
        self._own.end()


_NGINX = """
load_module {module};
daemon off;
worker_processes 1;
{user}pid {{directory}}/pid;
error_log {{directory}}/log warn;
events {{ worker_connections {connections}; }}
http {{
  access_log off;
  client_body_temp_path {{directory}}/body;
  proxy_temp_path {{directory}}/proxy;
  fastcgi_temp_path {{directory}}/fastcgi;
  uwsgi_temp_path {{directory}}/uwsgi;
  scgi_temp_path {{directory}}/scgi;
  keepalive_requests 100000000;
  nchan_max_reserved_memory 256M;
  server {{
    listen {host}:{port};
    location ~ ^/pub/(.+)$ {{
      nchan_publisher http;
      nchan_channel_id $1;
      nchan_message_buffer_length 1000;
      nchan_message_timeout 10s;
    }}
    location ~ ^/sub/(.+)$ {{
      nchan_subscriber websocket;
      nchan_channel_id $1;
      nchan_channel_id_split_delimiter ",";
      nchan_subscriber_first_message newest;
    }}
  }}
}}
"""


class Nchan(Server):
    """nginx with its nchan module, one worker, fed by HTTP requests on one connection.

    Args:
        environ: what it inherits.
        connections: most clients.
    """

    name = "nchan"
    needs = "nginx with nchan is not installed: apt-get install nginx libnginx-mod-nchan"

    def __init__(self, environ: Mapping[str, str], connections: int) -> None:
        self._port = free_port()
        user = ""
        if os.geteuid() == 0:  # or its worker could not reach its directory
            user = f"user {getpass.getuser()} {grp.getgrgid(os.getegid()).gr_name};\n"
        config = _NGINX.format(
            module=_NCHAN_MODULE, user=user, connections=connections, host=HOST, port=self._port
        )
        command = [find("nginx"), "-p", "{directory}", "-c", "{directory}/nginx.conf",
                   "-e", "{directory}/log"]  # fmt: skip
        self._own = _Started(command, environ, {"nginx.conf": config})
        try:
            self._own.wait_until(lambda: _listens(self._port) and len(self.pids) > 1)
        except BaseException:
            self.close()
            raise

    @staticmethod
    def missing() -> bool:
        """Tell whether it is not installed."""
        return not find("nginx") or not os.path.exists(_NCHAN_MODULE)

    @staticmethod
    def version() -> str:
        """Return nginx's version and the module's."""
        package = "libnginx-mod-nchan"
        module = _said(["dpkg-query", "-W", "-f", "nchan ${Version}", package])
        return f"{_said([find('nginx'), '-v'])}, {module}"

    @property
    def pids(self) -> list[int]:
        """Return nginx's master and its worker."""
        return machine.family(self._own.process.pid)

    def dial(self, scenario: Scenario) -> Dial:
        """Return the path of its channels."""
        return Dial(self._port, f"/sub/{','.join(scenario.topics().held) or 'none'}")

    @contextlib.contextmanager
    def flow(self, work: Work) -> Iterator[Tool]:
        """Publish by requests, one behind the other."""
        with (
            socket.create_connection((HOST, self._port), _BROKER_TIMEOUT_S) as sock,
            _pump(work, sock, messages.http_publish, drain=True) as tool,
        ):
            yield tool
            # closing now would throw away what it has not read yet
            sock.settimeout(_QUIET_S)
            with contextlib.suppress(socket.timeout):
                while sock.recv(65536):
                    pass

    def close(self) -> None:
        """End it."""
        self._own.end()


class Floor(Server):
    """A loop of plain sends in C: what the system calls alone cost.

    Args:
        program: path of the tool.
        scenario: sets clients, size and rate.
        count: number of messages.
        limit_s: seconds after which it gives up.
    """

    name = FLOOR

    def __init__(self, program: str, scenario: Scenario, count: int, limit_s: float) -> None:
        sizes = (f"clients={scenario.clients}", f"size={scenario.size}")
        self._tool = Tool([program, *sizes, f"count={count}", f"rate={scenario.rate}"], limit_s)
        self._port = int(self._tool.answer(_START_S)["port"])

    @property
    def pids(self) -> list[int]:
        """Return its process."""
        return [self._tool.process.pid]

    def dial(self, scenario: Scenario) -> Dial:
        """Return any path: it reads none."""
        return Dial(self._port, "/")

    @contextlib.contextmanager
    def flow(self, work: Work) -> Iterator[Tool]:
        """Let it send."""
        self._tool.tell()
        yield self._tool

    def close(self) -> None:
        """End it."""
        self._tool.end()


PEERS: tuple[type[Nats] | type[Nchan], ...] = (Nats, Nchan)


def peer_can(scenario: Scenario) -> bool:
    """Tell whether a scenario means something to peers: no users, books or workers of ours."""
    return (
        scenario.kind in (FLOW, IDLE, CONNECT)
        and scenario.audience in (SHARED, OWN, NOBODY)
        and scenario.workers == 1
        and not scenario.deflate
        and not scenario.backlog
    )


def needs_own(scenario: Scenario) -> bool:
    """Tell whether a scenario needs a gateway that is started for it."""
    return scenario.workers != 1 or scenario.backlog or bool(scenario.settings)


def floor_can(scenario: Scenario) -> bool:
    """Tell whether the floor can do a scenario: one stream, at a rate that it keeps up with."""
    return (
        scenario.kind == FLOW
        and scenario.audience == SHARED
        and scenario.streams == 1
        and scenario.workers == 1
        and not scenario.book
        and 0 < scenario.clients * scenario.rate <= _FLOOR_DELIVERIES_PER_S
    )


def find(program: str) -> str:
    """Return the path of an installed program, empty when there is none."""
    places = os.pathsep.join((os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"))
    return shutil.which(program, path=places) or ""


def _said(command: Sequence[str]) -> str:
    """Return what a program says about itself."""
    try:
        done = subprocess.run(  # programs that this module names
            command, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown version"
    return (done.stdout.strip() or done.stderr.strip() or "unknown version").split("\n")[0]
