"""What the integration tests stand on: a real server, a real broker, clients of three kinds.

`start_gateway`   the server as a process of its own, with an exchange and ports of its own
`publish`         a message to the broker, over one cached connection
`connect`         a WebSocket client by `websockets`, for everything that a good client does
`RawSocket`       bytes to and from a port, for everything that a good client does not do
`wait_for`        polls a condition; nothing here or in a test sleeps and hopes

This process is not patched by gevent. Every process that is started here is ended by its
id, whatever becomes of the test, and its log is shown when the test fails (see conftest).
"""

from __future__ import annotations

import base64
import contextlib
import functools
import http.client
import json
import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any, Callable, Iterator, Mapping, NamedTuple, Sequence, TypeVar
from urllib.parse import urlsplit

import amqp
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as websockets_connect
from websockets.typing import Subprotocol

ROOT = Path(__file__).resolve().parent.parent
# How long a test waits for what must happen, on a machine that is slow, busy and stands still
# now and then: only a failing run takes so long. What the product promises has bounds of its own.
PATIENCE_S = 30.0
HOST = "127.0.0.1"
READY = "/readyz"
HEALTHY = "/healthz"
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 section 1.3; any 16 bytes would do
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

T = TypeVar("T")


_PORTS = range(10_000, 20_000)  # those of `scripts/rabbitmq_node.py` begin behind them
_ports_given: set[int] = set()


def free_port() -> int:
    """Return a TCP port that nobody listens on, and that was not returned before.

    It lies below those of outgoing connections: the kernel gives one of those to any client on
    this machine between this call and the server's start, or while a server is restarted.
    """
    while True:
        if len(_ports_given) > len(_PORTS) / 2:
            _ports_given.clear()  # the first of them are long closed
        port = random.choice(_PORTS)
        if port in _ports_given:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            _ports_given.add(port)
            return port


def wait_for(
    predicate: Callable[[], T], timeout_s: float = PATIENCE_S, what: str = "a condition"
) -> T:
    """Poll until the predicate gives something true, and return that.

    Raises:
        AssertionError: it did not in time; the text names ``what`` and the last value.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        is_last = time.monotonic() > deadline  # a process that stood still looks once more
        value = predicate()
        if value:
            return value
        if is_last:
            raise AssertionError(f"{what}: not within {timeout_s:g} s (last: {value!r})")
        time.sleep(0.01)


# -- the broker -------------------------------------------------------------------------------


def amqp_url() -> str:
    """Return the broker's URL; a run without a broker fails, it is never skipped."""
    url = os.environ.get("AMQP_URL", "")
    if not url:
        pytest.fail("AMQP_URL is not set: give a RabbitMQ, amqp://guest:guest@localhost//", False)
    return url


class BrokerAddress(NamedTuple):
    """The parts of `amqp_url`."""

    host: str
    port: int
    user: str
    password: str
    vhost: str


def broker_address() -> BrokerAddress:
    """Take `amqp_url` apart."""
    parts = urlsplit(amqp_url())
    vhost = parts.path[1:] or "/"
    return BrokerAddress(
        parts.hostname or HOST,
        parts.port or 5672,
        parts.username or "guest",
        parts.password or "guest",
        vhost,
    )


@functools.cache
def broker_channel() -> Any:
    """Return a channel on a connection of this process, made once."""
    return new_broker_channel()


def new_broker_channel() -> Any:
    """Return a channel on a connection of its own: a connection is one thread's."""
    broker = broker_address()
    connection = amqp.Connection(
        host=f"{broker.host}:{broker.port}",
        userid=broker.user,
        password=broker.password,
        virtual_host=broker.vhost,
        connect_timeout=PATIENCE_S,
    )
    connection.connect()
    return connection.channel()


def publish(
    exchange: str,
    key: str | bytes,
    body: str | bytes,
    headers: Mapping[str, Any] | None = None,
    **properties: Any,
) -> None:
    """Publish one message; messages arrive in the order of the calls."""
    if headers is not None:
        properties["application_headers"] = dict(headers)
    message = amqp.basic_message.Message(body, **properties)
    broker_channel().basic_publish(message, exchange=exchange, routing_key=key)


class Relay:
    """A way to the broker that can be opened and cut, on a port of its own."""

    def __init__(self) -> None:
        self.port = free_port()
        self._listener: socket.socket | None = None
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()  # a connection that is made during a cut is cut as well

    @property
    def url(self) -> str:
        """Return the broker's URL by this way."""
        broker = broker_address()
        return amqp_url().replace(f"{broker.host}:{broker.port}", f"{HOST}:{self.port}")

    def open(self) -> None:
        """Begin to relay; until then connections are refused."""
        self._listener = socket.create_server((HOST, self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                broker = broker_address()
                far = socket.create_connection((broker.host, broker.port))
                with self._lock:
                    if listener is not self._listener:
                        near.close()
                        far.close()
                        return
                    self._sockets += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._copy, args=(one, other), daemon=True).start()

    @staticmethod
    def _copy(one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
        for sock in (one, other):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """Refuse new connections and end those that are relayed."""
        with self._lock:
            if self._listener is not None:
                self._listener.shutdown(socket.SHUT_RDWR)
                self._listener.close()
                self._listener = None
            for sock in self._sockets:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
                sock.close()
            self._sockets.clear()


# -- keys and tokens --------------------------------------------------------------------------


@functools.cache
def signing_key() -> Ed25519PrivateKey:
    """Return the private key of this run."""
    return Ed25519PrivateKey.generate()


def private_pem() -> str:
    """Return the run's private key as a PKCS#8 PEM."""
    pem = signing_key().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return pem.decode()


def public_pem() -> str:
    """Return the run's public key as an SPKI PEM."""
    pem = (
        signing_key()
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return pem.decode()


def public_key_setting() -> str:
    """Return the run's public key as JWT_PUBLIC_KEY wants it."""
    return base64.b64encode(public_pem().encode()).decode()


def make_token(claims: Mapping[str, Any], key: Any = None, algorithm: str = "EdDSA") -> str:
    """Sign a token like those of Openware's Barong; a claim that is None is left out."""
    now = int(time.time())
    merged = {
        "iat": now,
        "exp": now + 3600,
        "sub": "session",
        "iss": "barong",
        "aud": ["peatio", "barong"],
        "uid": "ID1",
        "role": "member",
        **claims,
    }
    payload = {name: value for name, value in merged.items() if value is not None}
    return jwt.encode(payload, key or signing_key(), algorithm)


# -- the server -------------------------------------------------------------------------------

_OURS = ("RANGO_", "RANGER_", "RABBITMQ_", "JWT_", "API_CORS", "LOG_LEVEL", "GUNICORN_")
started: list[Server] = []  # read by conftest, to show logs of failed tests
logs_made: set[str] = set()  # names of durable queues in the tests' broker


class HttpAnswer(NamedTuple):
    """An HTTP response; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: str


class Server:
    """A running server.

    Attributes:
        url: of its WebSocket listener, without a path.
        http: the same for plain HTTP.
        metrics_url: of its metrics listener.
        exchange: exchange that it consumes.
        process: its process, or its workers' parent.
    """

    def __init__(
        self, command: Sequence[str], env: Mapping[str, str], exchange: str, log_path: Path
    ) -> None:
        self.exchange = exchange
        self.port = int(env["RANGER_PORT"])
        self.metrics_port = int(env["RANGO_METRICS_PORT"])
        self.url = f"ws://{HOST}:{self.port}"
        self.http = f"http://{HOST}:{self.port}"
        self.metrics_url = f"http://{HOST}:{self.metrics_port}/metrics"
        self.log_path = log_path
        self.has_ended = False
        self._was_asked = False
        self._log = ""
        with open(log_path, "wb") as log:
            self.process = subprocess.Popen(  # the command is the test's own
                list(command),
                env=dict(env),
                cwd=log_path.parent,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def workers(self) -> list[int]:
        """Return the ids of its child processes."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [int(child) for child in children.split()]

    def signal_a_worker(self, number: int) -> int:
        """Send a signal to a worker that is there to get it, and return its id."""
        while True:
            for pid in wait_for(self.workers, what="a worker"):
                with contextlib.suppress(ProcessLookupError):  # it was just on its way out
                    os.kill(pid, number)
                    return pid

    def cpu_s(self) -> float:
        """Return the seconds of processor time that its process has used.

        Unlike the time of a clock it does not grow while the machine does something else, so
        bounds on how long one client may hold up others are bounds on this.
        """
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def log(self) -> str:
        """Return what the server has logged so far."""
        return self._log if self.has_ended else self.log_path.read_text("utf-8", "replace")

    def token(self, **claims: Any) -> str:
        """Return a token that this server accepts."""
        return make_token(claims)

    def connect(
        self,
        path: str = "/public",
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Client:
        """Open a WebSocket connection to this server."""
        return connect(self.url, path, token, headers)

    def publish(
        self, key: str | bytes, body: str | bytes, headers: Mapping[str, Any] | None = None
    ) -> None:
        """Publish to this server's exchange."""
        publish(self.exchange, key, body, headers)

    def catch_up(self) -> None:
        """Wait until all that was published so far was handled; for a server of one worker."""
        name = f"fence.{uuid.uuid4().hex}"
        with self.connect(f"/public?stream={name}") as fence:
            fence.receive()
            self.publish(f"public.{name}", "0")
            fence.receive()

    def get(self, path: str, method: str = "GET") -> HttpAnswer:
        """Ask the WebSocket port by plain HTTP."""
        return http_request(self.port, path, method)

    def metric(self, name: str, **labels: str) -> float:
        """Return the value of one sample of the metrics port, 0 when there is none."""
        return sample_of(http_request(self.metrics_port, "/metrics").body, name, **labels)

    def is_answering(self, path: str) -> bool:
        """Tell whether a path is answered with 200."""
        if self.process.poll() is not None:
            raise AssertionError(f"the server ended with {self.process.returncode}:\n{self.log()}")
        try:
            return self.get(path).status == 200
        except OSError:
            return False

    def wait_until(self, path: str, timeout_s: float = 2 * PATIENCE_S) -> None:
        """Wait until a path is answered with 200."""
        try:
            wait_for(lambda: self.is_answering(path), timeout_s, f"200 from {path}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()}") from None

    def stop(self, timeout_s: float = PATIENCE_S) -> int:
        """Ask the server to end by SIGTERM, once, and return its exit code."""
        self.ask_to_stop()
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"no end within {timeout_s:g} s of SIGTERM") from None

    def ask_to_stop(self) -> None:
        """Send SIGTERM; asking again does nothing, as a second signal would end it at once."""
        if not self._was_asked and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self._was_asked = True

    def group_is_alive(self) -> bool:
        """Tell whether any process of its session, such as a worker, still runs."""
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def end(self) -> None:
        """End the server in bounded time, whatever state it is in."""
        with contextlib.suppress(AssertionError):
            self.stop(5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE_S)
        self._log, self.has_ended = self.log(), True


def server_env(exchange: str, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a server: this process's own without settings, and ours."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    env.update(
        RANGER_HOST=HOST,
        RANGER_PORT=str(free_port()),
        RANGO_METRICS_HOST=HOST,
        RANGO_METRICS_PORT=str(free_port()),
        RANGO_AMQP_URL=amqp_url(),
        RANGO_EXCHANGE=exchange,
        RANGO_DRAIN_S="0.2",
        RANGO_CLOSE_TIMEOUT_S="1",
        JWT_PUBLIC_KEY=public_key_setting(),
    )
    env.update(extra or {})
    if env.get("RANGO_LOG") == "stream" and env["RANGO_AMQP_URL"] == amqp_url():
        logs_made.add(f"rango.log.{env['RANGO_EXCHANGE']}")
    return env


def delete_logs() -> None:
    """Delete the logs of all servers of this run: they outlive the gateways, as they should."""
    while logs_made:
        broker_channel().queue_delete(logs_made.pop())


@contextlib.contextmanager
def start_gateway(
    *,
    exchange: str | None = None,
    env: Mapping[str, str] | None = None,
    args: Sequence[str] = (),
    command: Sequence[str] | None = None,
    until: str | None = READY,
) -> Iterator[Server]:
    """Run the real server for the length of a ``with`` block.

    Args:
        exchange: its exchange; one of its own by default.
        env: settings over those of `server_env`; an empty value unsets.
        args: arguments of ``rango``.
        command: another command than ``rango``; ``{port}``, ``{metrics_port}`` and
            ``{exchange}`` are replaced in it.
        until: path whose 200 is waited for, `READY` or `HEALTHY`; None: do not wait.
    """
    exchange = exchange or f"test.{uuid.uuid4().hex[:12]}"
    settings = server_env(exchange, env)
    places = {
        "{port}": settings["RANGER_PORT"],
        "{metrics_port}": settings["RANGO_METRICS_PORT"],
        "{exchange}": exchange,
    }
    words = [*(command or [sys.executable, "-m", "rango_gevent"]), *args]
    for place, value in places.items():
        words = [word.replace(place, value) for word in words]
    with tempfile.TemporaryDirectory(prefix="rango-test-") as directory:
        settings["HOME"] = directory  # stock gunicorn keeps a socket there
        server = Server(words, settings, exchange, Path(directory) / "log")
        started.append(server)
        try:
            if until is not None:
                server.wait_until(until)
            yield server
        finally:
            server.end()


# -- clients ----------------------------------------------------------------------------------


def http_request(
    port: int, path: str, method: str = "GET", headers: Mapping[str, str] | None = None
) -> HttpAnswer:
    """Send one HTTP request and return the answer."""
    connection = http.client.HTTPConnection(HOST, port, timeout=PATIENCE_S)
    try:
        connection.request(method, path, headers=dict(headers or {}))
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return HttpAnswer(response.status, found, response.read().decode())
    finally:
        connection.close()


def sample_of(text: str, name: str, **labels: str) -> float:
    """Return the value of one sample of an exposition text, 0 when there is none."""
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    return 0.0


class Client:
    """A WebSocket client that reads all the time, so that it is never the slow one."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    def __enter__(self) -> Client:
        """Do nothing: it is connected already."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    def send(self, message: str | bytes | object) -> None:
        """Send a message; what is no text or bytes goes as JSON."""
        if not isinstance(message, (str, bytes)):
            message = json.dumps(message)
        self.connection.send(message)

    def receive(self, timeout_s: float = PATIENCE_S) -> str:
        """Return the next message."""
        message = self.connection.recv(timeout=timeout_s)
        assert isinstance(message, str), "the server sends text only"
        return message

    def receive_json(self, timeout_s: float = PATIENCE_S) -> Any:
        """Return the next message, parsed."""
        return json.loads(self.receive(timeout_s))

    def receive_until(
        self, wanted: Callable[[str], bool], timeout_s: float = PATIENCE_S
    ) -> list[str]:
        """Return all messages up to and including the first that is wanted."""
        deadline = time.monotonic() + timeout_s
        messages = [self.receive(deadline - time.monotonic())]
        while not wanted(messages[-1]):
            messages.append(self.receive(max(0.01, deadline - time.monotonic())))
        return messages

    def subscribe(self, *names: str) -> list[str]:
        """Subscribe and return the names that are held now; nothing may come before the reply."""
        self.send({"event": "subscribe", "streams": names})
        return held(self.receive(), "subscribed")

    def unsubscribe(self, *names: str) -> list[str]:
        """Unsubscribe and return the names that are held now."""
        self.send({"event": "unsubscribe", "streams": names})
        return held(self.receive(), "unsubscribed")

    def ping_to_the_limit(self, burst: int) -> str:
        """Ping until the server says that this is too often, and return what it says.

        Args:
            burst: pings at a stroke; tokens come back between two of them, more of them when
                the machine is slow.
        """
        while True:
            for _ in range(burst):
                self.send("ping")
            for _ in range(burst):
                answer = self.receive()
                if answer != "pong":
                    return answer

    def closed(self, timeout_s: float = PATIENCE_S) -> tuple[int, str]:
        """Wait until the server closes, and return its code and reason; 1006 without any."""
        deadline = time.monotonic() + timeout_s
        try:
            while True:
                self.connection.recv(timeout=max(0.01, deadline - time.monotonic()))
        except ConnectionClosed as error:
            return (error.rcvd.code, error.rcvd.reason) if error.rcvd else (1006, "")

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()


def held(reply: str, message: str) -> list[str]:
    """Return the list of names in a reply, which must be of the kind ``message``."""
    success = json.loads(reply)["success"]
    assert success["message"] == message
    names: list[str] = success["streams"]
    return names


def connect(
    url: str,
    path: str = "/public",
    token: str | None = None,
    headers: Mapping[str, str] | None = None,
    subprotocols: Sequence[str] = (),
) -> Client:
    """Open a WebSocket connection.

    Raises:
        websockets.exceptions.InvalidStatus: the handshake was refused.
    """
    sent = dict(headers or {})
    if token is not None:
        sent["Authorization"] = f"Bearer {token}"
    connecting = websockets_connect(
        url + path,
        additional_headers=sent,
        subprotocols=[Subprotocol(name) for name in subprotocols] or None,
        compression=None,
        proxy=None,
        open_timeout=PATIENCE_S,
        close_timeout=2,
        ping_interval=None,
        max_size=None,
        max_queue=None,
    )
    # entered by hand: new versions of the library want it, old ones do not mind
    return Client(connecting.__enter__())


# -- bytes ------------------------------------------------------------------------------------

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
_MASK = b"\x37\xfa\x21\x3d"


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    masked: bool = True,
    length_form: int | None = None,
    length: int | None = None,
) -> bytes:
    """Encode a client's frame, a wrong one too.

    Args:
        opcode: opcode, 0 to 15.
        payload: unmasked payload.
        fin: the FIN bit.
        rsv: the three reserved bits, 0 to 7.
        masked: mask the payload, as a client must.
        length_form: 7, 16 or 64 bits for the length; the shortest by default.
        length: the length to announce, the payload's by default.
    """
    size = len(payload) if length is None else length
    form = length_form or (7 if size < 126 else 16 if size < 65536 else 64)
    bit = 0x80 if masked else 0
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    if form == 7:
        head += bytes([bit | size])
    else:
        head += bytes([bit | (126 if form == 16 else 127)])
        head += struct.pack("!H" if form == 16 else "!Q", size)
    if masked:
        payload = bytes(byte ^ _MASK[i % 4] for i, byte in enumerate(payload))
        head += _MASK
    return head + payload


def text_frame(message: str | object) -> bytes:
    """Encode a masked text frame; what is no text goes as JSON."""
    return frame(TEXT, (message if isinstance(message, str) else json.dumps(message)).encode())


class RawSocket:
    """A TCP connection for wire tests: bytes out, bytes in.

    Args:
        port: of this machine.
        receive_buffer: size of the kernel's buffer, bytes; the kernel's choice by default.
        source: address of this machine to come from; the kernel's choice by default.
    """

    def __init__(self, port: int, receive_buffer: int | None = None, source: str = "") -> None:
        self.sock = socket.socket()
        if source:
            self.sock.bind((source, 0))
        if receive_buffer is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect((HOST, port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.waiting = bytearray()

    def __enter__(self) -> RawSocket:
        """Do nothing: it is connected already."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.sock.close()

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self.sock.sendall(data)

    def read(self, size: int) -> bytes:
        """Return exactly ``size`` bytes.

        Raises:
            EOFError: the server ended the connection before.
        """
        while len(self.waiting) < size:
            data = self.sock.recv(65536)
            if not data:
                raise EOFError(f"end after {bytes(self.waiting[:100])!r}")
            self.waiting += data
        taken = bytes(self.waiting[:size])
        del self.waiting[:size]
        return taken

    def read_until(self, end: bytes) -> bytes:
        """Return bytes up to and including ``end``."""
        while end not in self.waiting:
            seen = self.read(len(self.waiting) + 1)
            self.waiting[:0] = seen
        return self.read(self.waiting.index(end) + len(end))

    def read_to_end(self) -> bytes:
        """Return everything until the server ends its side; a reset ends it too."""
        data = bytes(self.waiting)
        self.waiting.clear()
        with contextlib.suppress(ConnectionResetError):
            while True:
                more = self.sock.recv(65536)
                if not more:
                    break
                data += more
        return data

    def keep_until(self, is_enough: Callable[[], bool]) -> None:
        """Take bytes from the kernel, for later reads, until it is enough."""
        while not is_enough():
            if select.select([self.sock], [], [], 0.01)[0]:
                self.waiting += self.sock.recv(65536)

    def response(self) -> tuple[int, dict[str, str]]:
        """Return status and headers (names in lower case) of an HTTP response."""
        lines = self.read_until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        headers = {}
        for line in lines[1:-2]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return int(lines[0].split(" ")[1]), headers

    def answer(self) -> HttpAnswer:
        """Return an HTTP response with its body."""
        status, headers = self.response()
        body = self.read(int(headers.get("content-length", "0")))
        return HttpAnswer(status, headers, body.decode())

    def open(self, path: str = "/public", headers: Mapping[str, str] | None = None) -> RawSocket:
        """Make the handshake and take the first reply; return itself."""
        self.send(handshake(path, headers))
        status, _ = self.response()
        assert status == 101
        self.read_frame()
        return self

    def read_frame(self) -> tuple[int, bytes]:
        """Return opcode and payload of the server's next frame that is no ping."""
        while True:
            opcode, payload = self.read_any_frame()
            if opcode != PING:  # the heartbeat's may come at any time
                return opcode, payload

    def read_any_frame(self) -> tuple[int, bytes]:
        """Return opcode and payload of a server's frame, which must be whole and unmasked."""
        first, second = self.read(2)
        assert first & 0x70 == 0, "reserved bits are set"
        assert first & 0x80, "a server's frame is never fragmented"
        assert not second & 0x80, "a server's frame is never masked"
        size = second
        if second == 126:
            size = struct.unpack("!H", self.read(2))[0]
        elif second == 127:
            size = struct.unpack("!Q", self.read(8))[0]
        return first & 0x0F, self.read(size)

    def read_text(self) -> str:
        """Return the next text message."""
        opcode, payload = self.read_frame()
        assert opcode == TEXT, (opcode, payload)
        return payload.decode()

    def read_close(self) -> int:
        """Return the close code of the next frame, which must be a close frame."""
        opcode, payload = self.read_frame()
        assert opcode == CLOSE, (opcode, payload)
        code: int = struct.unpack("!H", payload[:2])[0]
        return code

    def skip_to_close(self) -> int:
        """Read frames up to a close frame and return its code."""
        while True:
            opcode, payload = self.read_frame()
            if opcode == CLOSE:
                return int(struct.unpack("!H", payload[:2])[0])


def handshake(
    path: str = "/public",
    headers: Mapping[str, str] | None = None,
    *,
    leave_out: Sequence[str] = (),
    version: str = "HTTP/1.1",
) -> bytes:
    """Return the bytes of a handshake.

    Args:
        path: path and query.
        headers: headers to add or, under the same name, to replace.
        leave_out: headers to leave out.
        version: the version of HTTP.
    """
    fields = {
        "Host": HOST,
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": KEY.decode(),
        "Sec-WebSocket-Version": "13",
        **(headers or {}),
    }
    lines = [f"{name}: {value}" for name, value in fields.items() if name not in leave_out]
    return "\r\n".join([f"GET {path} {version}", *lines, "", ""]).encode("latin-1")
