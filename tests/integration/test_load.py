"""``rango load`` as a process, on a real gateway and broker, and through TLS.

What is checked is that it counts right and says what went wrong; its figures are its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Iterator

import pytest
from certificate import make_certificate
from support import HOST, Server, amqp_url, free_port, server_env, start_gateway, wait_for

LOAD = [sys.executable, "-m", "rango_gevent", "load"]


@contextlib.contextmanager
def running(
    *words: str,
    exchange: str = "",
    stderr: int = subprocess.PIPE,
    env: dict[str, str] | None = None,
) -> Iterator[subprocess.Popen[str]]:
    """Run ``rango load`` for the length of a ``with`` block."""
    process = subprocess.Popen(
        [*LOAD, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        env=server_env(exchange, env),
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=60)


def load(
    *words: str, exchange: str = "", env: dict[str, str] | None = None
) -> tuple[int, str, str]:
    """Run ``rango load`` to its end and return exit code, output and what was said."""
    with running(*words, exchange=exchange, env=env) as process:
        out, said = process.communicate(timeout=120)
        return process.returncode, out, said


def figures(*words: str, exchange: str = "", expect: int = 0) -> dict[str, Any]:
    """Run ``rango load --json`` to its end and return the figures."""
    code, out, said = load(*words, "--json", exchange=exchange)
    assert (code, said) == (expect, ""), "nothing but the figures where nobody looks on"
    found: dict[str, Any] = json.loads(out)
    return found


def test_what_it_publishes_arrives_at_every_client(gateway: Server) -> None:
    """With --publish each event is counted at each client, with its age."""
    words = ["--clients", "20", "--seconds", "1", "--rate", "40", "--publish", amqp_url()]
    found = figures(gateway.url, *words, exchange=gateway.exchange)
    assert found["whole"] is True
    assert (found["clients"]["connected"], found["clients"]["refused"]) == (20, {})
    assert found["clients"]["handshake_ms"]["max"] > 0
    messages = found["messages"]
    published = messages["published"]  # 40, unless the machine stands still for a second
    assert 0 < published <= 40
    assert (messages["received"], messages["lost"]) == (20 * published, 0)
    assert 0 < messages["latency_ms"]["p50"] <= messages["latency_ms"]["max"] < 60_000
    assert found["tool"]["cpu"] > 0


def test_a_table_is_for_people(gateway: Server) -> None:
    """Without --json a table tells the same."""
    words = ["--clients", "2", "--seconds", "0.2", "--publish", amqp_url()]
    code, out, said = load(gateway.url, *words, exchange=gateway.exchange)
    assert (code, said) == (0, "")
    lines = dict(line.split(None, 1) for line in out.strip().split("\n"))
    assert lines["clients"].startswith("2 of 2 connected")
    assert lines["lost"] == "0"
    assert lines["latency"].startswith("p50 ")


def test_without_a_broker_it_listens(gateway: Server, market: str) -> None:
    """Events that others publish are counted, with the times between them; all clients leave."""
    words = [f"{market}.trades", "--clients", "3", "--connect-rate", "1000", "--seconds", "3"]
    _make_known(gateway, market)
    with running(gateway.url, *words, "--json") as process:
        wait_for(lambda: _subscribers(gateway, market) == 3, what="three clients")
        while process.poll() is None:
            gateway.publish(f"public.{market}.trades", '{"price":"1"}')
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.02)  # the pace of publishing
        found = json.loads(process.communicate()[0])
    assert process.returncode == 0
    assert found["messages"]["received"] >= 3
    assert found["messages"]["bytes_per_s"] > 0
    assert found["messages"]["gap_ms"]["p50"] > 0
    assert found["messages"]["latency_ms"] is found["messages"]["lost"] is None
    wait_for(lambda: _subscribers(gateway, market) == 0, what="their leaving")


def _make_known(server: Server, market: str) -> None:
    """Publish on a topic, so that it is counted by itself."""
    server.publish(f"public.{market}.trades", "1")
    server.catch_up()


def _subscribers(server: Server, market: str) -> float:
    name = "rango_hub_subscriptions_count"
    return server.metric(name, type="public", topic=f"{market}.trades")


def test_private_streams_need_a_token(gateway: Server, tmp_path: Path) -> None:
    """With a token clients come to /private; without one the stream is named as not held."""
    file = tmp_path / "token"
    file.write_text(gateway.token(uid="ID1"))
    words = [gateway.url, "order", "--clients", "2", "--seconds", "0.1"]
    found = figures(*words, "--token-file", str(file))
    assert found["whole"] is True
    found = figures(*words, expect=1)
    assert found["clients"]["not_subscribed"] == ["order"]


def test_a_first_client_that_is_refused_ends_it(gateway: Server) -> None:
    """What stops the first client would stop them all: one line says what it is."""
    code, out, said = load(f"{gateway.url}/private", "a.b")
    assert (code, out) == (1, "")
    assert said.startswith("rango: refused with HTTP 401: ")
    assert said.count("\n") == 1


def test_refusals_are_counted_by_status() -> None:
    """Clients past the gateway's limit are refused, the others go on."""
    with start_gateway(env={"RANGO_MAX_CONNECTIONS": "4"}) as server:
        words = ["a.b", "--clients", "10", "--connect-rate", "1000", "--seconds", "0.1"]
        found = figures(server.url, *words, expect=1)
    assert found["clients"]["connected"] == 4
    assert found["clients"]["refused"] == {"503": 6}


def test_what_a_gateway_drops_is_lost() -> None:
    """Events that reach no client are missing by their numbers."""
    with start_gateway(env={"RANGO_MAX_EVENT_BYTES": "100"}) as server:
        words = ["--clients", "2", "--seconds", "0.2", "--rate", "50", "--publish", amqp_url()]
        found = figures(server.url, *words, exchange=server.exchange, expect=1)
    assert 0 < found["messages"]["published"] <= 10
    assert found["messages"]["lost"] == 2 * found["messages"]["published"]
    assert found["messages"]["received"] == 0


def test_a_rate_that_it_cannot_keep_is_told(gateway: Server) -> None:
    """Publishing ends in time all the same, and the figures are called the tool's own."""
    words = ["--clients", "1", "--seconds", "0.5", "--rate", "100000", "--publish", amqp_url()]
    found = figures(gateway.url, *words, exchange=gateway.exchange)
    assert 0 < found["messages"]["published"] < 50_000
    assert found["tool"]["is_the_limit"] is True


def test_closes_are_counted_by_code() -> None:
    """A gateway that restarts tells its clients, and so do the figures; nobody is left to wait for."""
    with start_gateway(env={"RANGO_DRAIN_S": "0.2"}) as server:
        words = [server.url, "m.trades", "--clients", "3", "--connect-rate", "1000"]
        _make_known(server, "m")
        with running(*words, "--seconds", "60", "--json") as process:
            wait_for(lambda: _subscribers(server, "m") == 3, what="three clients")
            server.stop()
            out, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert json.loads(out)["clients"]["closed"] == {"1012": 3}


def test_progress_is_shown_on_a_terminal_and_ctrl_c_ends_with_the_figures(gateway: Server) -> None:
    """A line a second while it runs; what was measured until Ctrl-C counts too."""
    ours, theirs = pty.openpty()
    try:
        words = [gateway.url, "a.b", "--clients", "2", "--seconds", "60"]
        with running(*words, stderr=theirs) as process:
            os.close(theirs)
            shown = b""
            while shown.count(b" clients, ") < 2:
                assert select.select([ours], [], [], 60)[0], shown
                shown += os.read(ours, 4096)
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=60)
    finally:
        os.close(ours)
    assert process.returncode == 130
    assert "2 of 2 connected" in out
    assert b"Traceback" not in shown


# -- what stands in front ---------------------------------------------------------------


class TlsFront:
    """Takes TLS connections and passes them on, as a proxy does.

    Args:
        port: where to.
        directory: for the certificate.
    """

    def __init__(self, port: int, directory: Path) -> None:
        self.certificate = make_certificate(directory)
        self._to = port
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, directory / "key.pem")
        self._listener = socket.create_server((HOST, 0))
        self._tls = context
        self.url = f"wss://{HOST}:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            near = stack.enter_context(self._tls.wrap_socket(plain, server_side=True))
            far = stack.enter_context(socket.create_connection((HOST, self._to)))
            self._pass_on(near, far)

    @staticmethod
    def _pass_on(near: ssl.SSLSocket, far: socket.socket) -> None:
        other: dict[socket.socket, socket.socket] = {near: far, far: near}
        while True:
            ready = [near] if near.pending() else select.select([near, far], [], [])[0]
            for sock in ready:
                data = sock.recv(65536)
                if not data:
                    return
                other[sock].sendall(data)

    def close(self) -> None:
        """Take no more."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def test_tls_is_checked_unless_it_is_said_otherwise(gateway: Server, tmp_path: Path) -> None:
    """A certificate that nobody vouches for is told; --insecure or its authority takes it."""
    front = TlsFront(gateway.port, tmp_path)
    words = [front.url, "--clients", "3", "--seconds", "0.2", "--publish", amqp_url()]
    try:
        code, out, said = load(*words, exchange=gateway.exchange)
        assert (code, out) == (1, "")
        assert said.startswith(f"rango: cannot connect to {front.url}/public: TLS: the certificate")
        trusted = load(
            *words, exchange=gateway.exchange, env={"SSL_CERT_FILE": str(front.certificate)}
        )
        assert trusted[0] == 0, trusted
        found = figures(*words, "--insecure", exchange=gateway.exchange)
    finally:
        front.close()
    assert found["whole"] is True
    assert found["messages"]["received"] == 3 * found["messages"]["published"]


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        ([f"ws://{HOST}:{free_port()}", "a.b"], 1, "Connection refused"),
        ([f"ws://{HOST}:1", "--publish", f"amqp://u:secret@{HOST}:{free_port()}"], 1, "no broker at"),
        ([f"ws://{HOST}:1"], 2, "name a stream"),
        (["ftp://nowhere", "a.b"], 2, "give one such as ws://"),
        ([f"ws://{HOST}:1", "a.b", "--clients", "0"], 2, "--clients"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_one_line(words: list[str], code: int, text: str) -> None:
    """A gateway or a broker that is away, or a wrong argument, is told at once."""
    ended, out, said = load(*words)
    assert (ended, out) == (code, "")
    assert text in said
    assert "secret" not in said
    assert "Traceback" not in said


def test_too_few_open_files_are_told(gateway: Server) -> None:
    """The line names the limit and the cure, before any connection is made."""
    ended = subprocess.run(
        ["bash", "-c", 'ulimit -n 60; exec "$@"', "-", *LOAD, gateway.url, "a.b"],
        capture_output=True,
        text=True,
        timeout=60,
        env=server_env(""),
    )
    assert ended.returncode == 2
    assert "100 clients need 150 open files, and the limit is 60" in ended.stderr
