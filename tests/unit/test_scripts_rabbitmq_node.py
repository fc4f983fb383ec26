"""scripts/rabbitmq_node.py and scripts/with-rabbitmq, by the real rabbitmq-server."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, Iterator

import pytest
from kombu import Connection
from rabbitmq_node import PrivateNode, accepts, free_port, processes_of

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
WITH_RABBITMQ = str(SCRIPTS / "with-rabbitmq")


@pytest.fixture(scope="module")
def node() -> Iterator[PrivateNode]:
    """Start a node that the tests leave as they found it."""
    with PrivateNode() as running:
        yield running


def put(node: PrivateNode, text: str) -> None:
    """Publish a persistent message to the durable queue ``kept``; the broker has it on disk."""
    options = {"confirm_publish": True}
    with Connection(node.amqp_url, transport_options=options) as connection:
        queue = connection.SimpleQueue("kept")
        queue.put(text)
        queue.close()


def get(node: PrivateNode) -> str:
    """Take a message from the queue ``kept``."""
    with Connection(node.amqp_url) as connection, connection.SimpleQueue("kept") as queue:
        message = queue.get(timeout=30)
        message.ack()
        return str(message.payload)


def eventually(predicate: Callable[[], bool], timeout_s: float = 60) -> bool:
    """Poll until the predicate holds; tell whether it did in time."""
    deadline = time.monotonic() + timeout_s
    while not predicate():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def is_gone(directory: Path) -> bool:
    """Tell whether a node has left neither a process nor a file."""
    return not processes_of(directory) and not directory.exists()


def with_rabbitmq(url: str | None, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the program with AMQP_URL set or unset."""
    env = {name: value for name, value in os.environ.items() if name != "AMQP_URL"}
    return subprocess.run(
        [WITH_RABBITMQ, *arguments],
        env=env if url is None else {**env, "AMQP_URL": url},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_all_ports_are_on_the_loopback_interface(node: PrivateNode) -> None:
    """AMQP, distribution and port mapper are bound to 127.0.0.1 or ::1, nothing to all."""
    sockets = set()
    for pid in processes_of(node.directory):
        descriptors: list[Path] = []
        with contextlib.suppress(FileNotFoundError):  # a helper that ended just now
            descriptors += Path(f"/proc/{pid}/fd").iterdir()
        for descriptor in descriptors:
            with contextlib.suppress(FileNotFoundError):  # a file that it closed just now
                sockets.add(os.readlink(descriptor).strip("socket:[]"))
    bound = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in sockets:  # listening
                bound.add(fields[1].rpartition(":")[0])
    assert "0100007F" in bound
    assert bound <= {"0100007F", "00000000000000000000000001000000"}


def test_control_speaks_to_the_node(node: PrivateNode) -> None:
    """`ctl` returns what rabbitmqctl prints, and raises with its words when it fails."""
    put(node, "one")
    assert node.ctl("list_queues", "--no-table-headers", "name", "messages") == "kept\t1\n"
    assert get(node) == "one"
    with pytest.raises(RuntimeError, match="rabbitmqctl no_such_command: "):
        node.ctl("no_such_command")


def test_node_cannot_be_started_twice(node: PrivateNode) -> None:
    """A second start is refused and leaves the node as it was."""
    with pytest.raises(RuntimeError, match="runs already"):
        node.start()
    assert accepts(node.amqp_url)


@pytest.mark.parametrize(
    "url",
    [
        "amqp://guest:wrong@127.0.0.1:{port}//",
        "amqp://nobody:guest@127.0.0.1:{port}//",
        "amqp://guest:guest@127.0.0.1:{port}/missing",
        "amqp://guest:guest@127.0.0.1:{free}//",
    ],
)
def test_login_is_checked(node: PrivateNode, url: str) -> None:
    """A wrong password, user, virtual host or port is not accepted; the right ones are."""
    assert accepts(node.amqp_url)
    assert accepts(f"amqp://guest:guest@127.0.0.1:{node.port}/%2F")
    assert not accepts(url.format(port=node.port, free=free_port()))


def test_what_is_no_broker_is_not_accepted() -> None:
    """A server that says something else, or nothing and closes, is no broker."""
    for said in (b"HTTP/1.1 400 Bad Request\r\n\r\n", b"AMQP\x00\x01\x00\x00", b""):
        with socket.create_server(("127.0.0.1", 0)) as server:
            caller = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    "import sys, rabbitmq_node as n; sys.exit(n.accepts(sys.argv[1]))",
                    f"amqp://127.0.0.1:{server.getsockname()[1]}",
                ],
                cwd=SCRIPTS,
            )
            server.settimeout(60)
            connection, _ = server.accept()
            with connection:
                connection.sendall(said)
            assert caller.wait(60) == 0


def test_second_node_is_killed_restarted_and_stopped(node: PrivateNode) -> None:
    """A killed node comes back with port and data; a stopped one leaves nothing; others stay."""
    other = PrivateNode()
    try:
        other.start()
        assert accepts(node.amqp_url)
        put(other, "lasts")
        url, first = other.amqp_url, other.pid
        other.kill()
        assert processes_of(other.directory) == []
        assert not accepts(url)
        other.start()
        assert other.amqp_url == url
        assert other.pid != first
        assert get(other) == "lasts"
    finally:
        other.stop()
    assert is_gone(other.directory)
    assert accepts(node.amqp_url)


def test_nothing_is_left_when_the_maker_is_killed() -> None:
    """SIGKILL gives the maker of a node no chance to stop it: its guard does."""
    program = (
        "import sys, rabbitmq_node as n; node = n.PrivateNode();"
        " print(node.directory, flush=True); node.start(); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=SCRIPTS,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as maker:
        assert maker.stdout is not None
        directory = Path(maker.stdout.readline().strip())
        try:
            assert eventually(lambda: (directory / "pid").exists(), 120)
            assert processes_of(directory)
        finally:
            maker.kill()
    assert eventually(lambda: is_gone(directory))


def test_interrupted_command_ends_and_nothing_is_left() -> None:
    """SIGINT goes to the command, whose status comes back; the private node is removed."""
    script = (
        "trap 'echo told; exit 9' INT;"
        ' echo "$AMQP_URL $RABBITMQ_PID $RABBITMQ_NODE_DIR"; "$RABBITMQCTL" await_startup;'
        " echo up; sleep 300 & wait"  # sleep does not hear SIGINT in the background: it is killed
    )
    with subprocess.Popen(
        [WITH_RABBITMQ, "--private", "bash", "-c", script], stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        try:
            url, pid, place = program.stdout.readline().split()
            assert accepts(url)
            assert int(pid) in processes_of(Path(place))
            assert program.stdout.readline() == "up\n"
        finally:
            program.send_signal(signal.SIGINT)
        assert program.stdout.read() == "told\n"
        assert program.wait(120) == 9
    assert is_gone(Path(place))


def test_given_broker_is_used(node: PrivateNode) -> None:
    """AMQP_URL reaches the command unchanged, and the command's status comes back."""
    done = with_rabbitmq(node.amqp_url, "sh", "-c", "echo $AMQP_URL; exit 7")
    assert (done.returncode, done.stdout) == (7, f"{node.amqp_url}\n")
    assert with_rabbitmq(node.amqp_url, "sh", "-c", "kill -KILL $$").returncode == 128 + 9


def test_given_broker_that_does_not_answer_is_an_error() -> None:
    """One line without the password, status 3, and the command does not run."""
    port = free_port()
    done = with_rabbitmq(f"amqp://guest:secret@127.0.0.1:{port}/shop", "echo", "ran")
    assert (done.returncode, done.stdout) == (3, "")
    place = f"127.0.0.1:{port}/shop"
    assert done.stderr == f"with-rabbitmq: no broker takes the login of AMQP_URL at {place}\n"


def test_missing_command_is_an_error(node: PrivateNode) -> None:
    """A command that does not exist is status 127 and one line, as in a shell."""
    done = with_rabbitmq(node.amqp_url, "no-such-command")
    assert done.returncode == 127
    assert done.stderr == "with-rabbitmq: no-such-command: No such file or directory\n"
