"""``rango.js`` under Node's own test runner: alone, and with the real gateway and broker."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import shutil
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, Iterator

import pytest
from faults.relay import Relay
from support import HOST, ROOT, Server, free_port, make_token, publish, start_gateway

from rango_gevent.demo.exchange import Exchange

HERE = Path(__file__).parent
CLIENT = ROOT / "rango_gevent" / "console" / "client"
ALONE = sorted(path.name for path in HERE.glob("*.test.mjs") if path.name != "gateway.test.mjs")
MOST_BYTES = 12_000


def run_node(file: str, **env: str) -> None:
    """Run a file of tests; what it printed is shown when one fails."""
    node = shutil.which("node")
    assert node, "scripts/test-node installs what is needed"
    done = subprocess.run(
        [node, "--test", str(HERE / file)],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", ALONE)
def test_the_client_alone(file: str) -> None:
    """Against a server that follows a script."""
    run_node(file)


def test_the_module_is_small_and_needs_nothing() -> None:
    """One file for a page to load, without a build step; its types name all that it exports."""
    text = (CLIENT / "rango.js").read_text()
    assert len(gzip.compress(text.encode(), 9)) < MOST_BYTES
    assert not re.search(r"^\s*import\b|\bimport\(|\brequire\(", text, re.MULTILINE)
    names = r"export class (\w+)"
    assert re.findall(names, text) == ["UnauthorizedError", "Subscription", "Rango", "Book"]
    assert sorted(re.findall(names, text)) == sorted(
        re.findall(names, (CLIENT / "rango.d.ts").read_text())
    )
    package = json.loads((CLIENT / "package.json").read_text())
    assert "dependencies" not in package
    assert all((CLIENT / name).is_file() for name in package["files"])


class Stage:
    """The publisher's market, and a way to the gateway that can be cut.

    Its one thread serves what the Node process asks for, in order.
    """

    def __init__(self) -> None:
        self.exchange = Exchange(seed=3, markets=("btcusd",), snapshot_every=60)
        self.stack = contextlib.ExitStack()
        self.port = free_port()
        self.server = self.start()
        self.relay = self.stack.enter_context(Relay(self.port))

    def start(self) -> Server:
        """Start the gateway on the port that the relay leads to."""
        env = {"RANGER_PORT": str(self.port), "RANGO_MAX_STREAMS": "1000"}
        return self.stack.enter_context(start_gateway(exchange=self.exchange_name, env=env))

    @property
    def exchange_name(self) -> str | None:
        """Return the exchange of the gateway before."""
        server = getattr(self, "server", None)
        return server.exchange if server else None

    def tick(self, *, lost: bool = False) -> Any:
        """Advance the market; its book afterwards."""
        for event in self.exchange.tick(time.time()):
            if not (lost and event.routing_key.endswith("ob-inc")):
                publish(self.server.exchange, event.routing_key, event.body)
        return self.exchange.book("btcusd")

    def answer(self, what: str) -> Any:
        """Do what is asked for."""
        if what == "tick":
            return self.tick()
        if what == "lose":
            return self.tick(lost=True)
        if what in ("cut", "reset"):
            getattr(self.relay, what)()
        elif what == "restart":
            self.server.end()
            self.server = self.start()
        elif what == "token":
            return {"token": make_token({"uid": "ID7"})}
        elif what == "order":
            publish(self.server.exchange, "private.ID7.order", '{"id":1}')
        elif what != "nothing":
            raise ValueError(what)
        return {}


@pytest.fixture
def stage() -> Iterator[tuple[Stage, str]]:
    """The stage, and the URL of its HTTP server."""
    scene = Stage()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(scene.answer(self.path[1:])).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    http = HTTPServer((HOST, 0), Handler)
    thread = threading.Thread(target=http.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        with scene.stack:
            yield scene, f"http://{HOST}:{http.server_address[1]}"
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


def test_the_client_with_the_gateway(stage: tuple[Stage, str]) -> None:
    """Books, private streams and many streams, over cuts and a restart of the gateway."""
    scene, url = stage
    run_node("gateway.test.mjs", STAGE=url, GATEWAY=f"ws://{HOST}:{scene.relay.port}")
