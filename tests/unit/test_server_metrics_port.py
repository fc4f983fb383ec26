"""The metrics port: any path gives the text, to a few connections at once."""

from __future__ import annotations

from typing import Callable

import gevent
import pytest
from gevent import socket as gsocket
from support import free_port

from rango_gevent.server.metrics_port import MetricsServer
from rango_gevent.turns import give_way


class Port:
    """A metrics server for the length of a ``with`` block, and its client."""

    def __init__(self, text: Callable[[], bytes], connections: int = 9) -> None:
        self.number = free_port()
        self.server = MetricsServer(
            text, "127.0.0.1", self.number, connections=connections, timeout_s=30
        )

    def __enter__(self) -> Port:
        self.server.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.server.stop()

    def connect(self) -> gsocket.socket:
        """Open a connection."""
        return gsocket.create_connection(("127.0.0.1", self.number))

    def ask(self, path: str = "/", method: str = "GET") -> tuple[str, str]:
        """Return the head and the body of an answer."""
        with gevent.Timeout(30), self.connect() as sock:
            sock.sendall(f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            data = b""
            while chunk := sock.recv(65536):
                data += chunk
        head, _, body = data.decode().partition("\r\n\r\n")
        return head, body


@pytest.mark.parametrize("path", ["/metrics", "/", "/any/path?x"])
def test_any_path_gives_the_text(path: str) -> None:
    """Rango answers every path of its metrics port."""
    with Port("€ 1\n".encode) as port:
        head, body = port.ask(path)
    assert head.startswith("HTTP/1.1 200 OK")
    assert "Content-Type: text/plain" in head
    assert body == "€ 1\n"
    assert port.server.scrapes == {"200": 1, "500": 0, "503": 0}


def test_a_scrape_counts_itself() -> None:
    """The one under way is in flight, and counted when it is over."""
    seen: list[int] = []

    def text() -> bytes:
        seen.append(port.server.in_flight)
        return b""

    with Port(text) as port:
        port.ask()
    assert seen == [1]
    assert port.server.in_flight == 0


def test_a_failing_collector_is_an_answer() -> None:
    """A scrape that fails is told and counted, without the error's text."""
    answers = [b"a 1\n"]
    with Port(lambda: answers.pop()) as port:
        assert port.ask()[0].startswith("HTTP/1.1 200 ")
        head, body = port.ask()
    assert head.startswith("HTTP/1.1 500 ")
    assert "pop from" not in body
    assert port.server.scrapes == {"200": 1, "500": 1, "503": 0}
    assert port.server.in_flight == 0


def test_a_taken_port_is_told_and_waited_for() -> None:
    """One of several workers holds the port; another takes over when it is free."""
    with Port(lambda: b"first 1\n") as port:
        heir = MetricsServer(
            lambda: b"second 1\n", "127.0.0.1", port.number, connections=9, timeout_s=30
        )
        with pytest.raises(OSError, match="in use"):
            heir.start()
        waiting = gevent.spawn(heir.run_when_free)
        try:
            assert port.ask()[1] == "first 1\n"
            port.server.stop()
            waiting.get(timeout=30)
            assert port.ask()[1] == "second 1\n"
        finally:
            waiting.kill()
            heir.stop()


def test_scrapes_give_way_to_everything_else() -> None:
    """Many at once come one after the other, with a turn for the others between two."""
    seen: list[str] = []

    def text() -> bytes:
        seen.append("scrape")
        return b""

    def others() -> None:
        while True:
            give_way()
            seen.append("others")

    with Port(text) as port:
        running = gevent.spawn(others)
        gevent.joinall([gevent.spawn(port.ask) for _ in range(9)], raise_error=True, timeout=30)
        running.kill()
    assert seen.count("scrape") == 9
    assert ("scrape", "scrape") not in zip(seen, seen[1:])


def test_head_gives_the_headers() -> None:
    """Without the text, and its length all the same."""
    with Port(lambda: b"a 1\n") as port:
        head, body = port.ask(method="HEAD")
    assert "Content-Length: 4" in head
    assert body == ""


def test_connections_are_bounded() -> None:
    """Those over the bound are told to come back and counted; a place that is free is given."""
    with Port(lambda: b"a 1\n", connections=1) as port:
        with gevent.Timeout(30), port.connect() as silent:
            with port.connect() as other:
                assert other.recv(1000).startswith(b"HTTP/1.1 503 ")
            silent.shutdown(gsocket.SHUT_WR)
            assert silent.recv(1) == b""
        assert port.ask()[0].startswith("HTTP/1.1 200 ")
    assert port.server.scrapes == {"200": 1, "500": 0, "503": 1}
