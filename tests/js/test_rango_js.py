"""``rango.js`` under Node's own test runner: alone, and with the real gateway and broker."""

from __future__ import annotations

import gzip
import itertools
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
from stage import Stage
from support import HOST, ROOT, make_token, publish

from rango_gevent import __version__

HERE = Path(__file__).parent
CLIENT = ROOT / "rango_gevent" / "console" / "client"
ALONE = sorted(path.name for path in HERE.glob("*.test.mjs") if path.name != "gateway.test.mjs")
MOST_BYTES = 12 * 1024
NUMBERS = itertools.count(1)
NODE_S = 600  # for a file of tests; each wait in it has a bound of its own


def run_node(file: str, **env: str) -> None:
    """Run a file of tests; what it printed is shown when one fails."""
    node = shutil.which("node")
    assert node, "scripts/test-node installs what is needed"
    done = subprocess.run(
        [node, "--test", str(HERE / file)],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=NODE_S,
    )
    failed = re.findall(r"^not ok .*?^  \.\.\.$", done.stdout, re.MULTILINE | re.DOTALL)
    assert done.returncode == 0, "\n".join(failed) or done.stdout + done.stderr


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
    assert package["version"] == __version__
    assert all((CLIENT / name).is_file() for name in package["files"])


def act(scene: Stage, what: str) -> Any:
    """Do what the Node process asks for."""
    if what in ("tick", "lose"):
        return scene.tick(lost=what == "lose")
    if what == "restart":
        scene.restart()
    elif what in ("cut", "reset", "refuse", "black_hole", "heal"):
        getattr(scene.relay, what)()
    elif what == "token":
        return {"token": make_token({"uid": "ID7", "exp": int(time.time()) + 5})}
    elif what == "long":
        return {"token": make_token({"uid": "ID7"})}
    elif what == "clients":
        return {"clients": scene.server.metric("rango_hub_clients_count")}
    elif what == "number":
        number = next(NUMBERS)
        publish(scene.server.exchange, "public.n.numbers", str(number))
        return {"number": number}
    elif what == "order":
        publish(scene.server.exchange, "private.ID7.order", '{"id":1}')
    elif what != "nothing":
        raise ValueError(what)
    return {}


@pytest.fixture
def stage() -> Iterator[tuple[Stage, str]]:
    """The stage, and the URL by which it is told what to do, one thing after the other.

    Who renews a token in time on a busy machine may still come late; not as late as the third one.
    """
    scene = Stage(RANGO_TOKEN_GRACE_S="3")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(act(scene, self.path[1:])).encode()
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
        with scene:
            yield scene, f"http://{HOST}:{http.server_address[1]}"
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


def test_the_client_with_the_gateway(stage: tuple[Stage, str]) -> None:
    """Books, private streams and many streams, over cuts and a restart of the gateway."""
    scene, url = stage
    run_node("gateway.test.mjs", STAGE=url, GATEWAY=f"ws://{scene.address}")
