"""What the deployment tests share: files of conf/ with other addresses, and foreign processes.

The files are the ones that operators copy: a test replaces what must differ on its machine,
each replacement must be found, and everything else is run as it is.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
from pathlib import Path
from typing import Any, Iterator, Mapping, Sequence
from urllib.parse import urlsplit

import support
from support import HOST, ROOT, RawSocket, Server, amqp_url, free_port, handshake, wait_for
from websockets.exceptions import InvalidStatus

CONF = ROOT / "conf"


def conf(name: str, replace: Mapping[str, str] | None = None) -> str:
    """Return a file of conf/ with some of its text replaced.

    Raises:
        AssertionError: a text to replace is not there.
    """
    text = (CONF / name).read_text()
    for old, new in (replace or {}).items():
        assert old in text, f"{name} has no {old!r}"
        text = text.replace(old, new)
    return text


def address(server: Server) -> str:
    """Return host and port of a gateway."""
    return urlsplit(server.url).netloc


def yaml_of(path: Path) -> Any:
    """Return what a YAML file holds, read by Ruby, which the publishers' tests need anyway."""
    program = "puts JSON.generate(YAML.safe_load(File.read(ARGV[0]), aliases: true))"
    done = run(["/usr/bin/ruby", "-ryaml", "-rjson", "-e", program, str(path)], path.parent)
    assert done.returncode == 0, done.stdout
    return json.loads(done.stdout)


def escaped_amqp_url() -> str:
    """Return the broker's URL with the default virtual host spelled out, as all clients read it."""
    parts = urlsplit(amqp_url())
    vhost = parts.path[1:] or "/"
    return f"{parts.scheme}://{parts.netloc}/{vhost.replace('/', '%2F')}"


class Process:
    """A running process that is not the gateway.

    Attributes:
        process: the process itself.
        log_path: everything that it prints.
    """

    def __init__(self, process: subprocess.Popen[bytes], log_path: Path) -> None:
        self.process = process
        self.log_path = log_path

    def log(self) -> str:
        """Return what it has printed so far."""
        return self.log_path.read_text("utf-8", "replace")

    def wait_for_port(self, port: int, timeout_s: float = 60) -> None:
        """Wait until it listens."""

        def is_listening() -> bool:
            assert self.process.poll() is None, self.log()
            with contextlib.suppress(OSError), support.RawSocket(port):
                return True
            return False

        wait_for(is_listening, timeout_s, f"a listener on port {port}")


@contextlib.contextmanager
def running(
    command: Sequence[str], directory: Path, env: Mapping[str, str] | None = None
) -> Iterator[Process]:
    """Run a command for the length of a ``with`` block and end it by its id."""
    log_path = directory / f"{Path(command[0]).name}.{free_port()}.log"
    with open(log_path, "wb") as log:
        process = subprocess.Popen(  # the command is the test's own
            list(command),
            cwd=directory,
            env=None if env is None else dict(env),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield Process(process, log_path)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)


def run(
    command: Sequence[str],
    directory: Path,
    env: Mapping[str, str] | None = None,
    *,
    stdin: bytes = b"",
    timeout_s: float = 180,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and return its exit code and what it printed."""
    done = subprocess.run(  # the command is the test's own
        list(command),
        cwd=directory,
        env=None if env is None else dict(env),
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout_s,
        check=False,
    )
    text = done.stdout.decode("utf-8", "replace")
    return subprocess.CompletedProcess(done.args, done.returncode, text)


def handshake_status(
    url: str, path: str, token: str | None = None, headers: Mapping[str, str] | None = None
) -> int:
    """Try a handshake and return its HTTP status, 101 where it was accepted."""
    try:
        support.connect(url, path, token, headers).close()
    except InvalidStatus as error:
        return error.response.status_code
    return 101


def visit_from(source: str, port: int, headers: Mapping[str, str]) -> None:
    """Open a WebSocket connection from another address of this machine, and end it."""
    with socket.create_connection((HOST, port), 30, source_address=(source, 0)) as sock:
        sock.sendall(handshake("/public", headers))
        assert sock.recv(65536).startswith(b"HTTP/1.1 101 ")


HIDDEN = ("a body of a length", "a body of a chunk")


def everything_within(port: int, request: bytes, seconds: float) -> bytes:
    """Send bytes and return all that comes back in so many seconds, and in as many after the first.

    Some of what is sent may be answered by nothing, for ever.
    """
    data, deadline = b"", time.monotonic() + seconds
    with RawSocket(port) as raw, contextlib.suppress(socket.timeout, ConnectionError):
        raw.send(request)
        while True:
            raw.sock.settimeout(max(0.01, deadline - time.monotonic()))
            more = raw.sock.recv(65536)
            if not more:
                break
            if not data:
                deadline = time.monotonic() + seconds
            data += more
    return data
