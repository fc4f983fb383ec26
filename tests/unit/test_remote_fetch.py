"""One GET: bounded in time and size, to one place only, while everything else goes on."""

from __future__ import annotations

import pytest
from patched import run_patched

# A server that answers by path, and what becomes of requests to it.
_SCENE = """
import json, time
import gevent
from gevent.server import StreamServer
from rango_gevent.remote.fetch import Fetcher, Unreachable

connections, heard = [], []

def serve(sock, address):
    connections.append(address)
    reader = sock.makefile("rb")
    while True:
        line = reader.readline()
        if not line:
            return
        headers = {}
        while True:
            header = reader.readline().strip()
            if not header:
                break
            name, _, value = header.partition(b":")
            headers[name.lower().decode()] = value.strip().decode()
        heard.append(headers)
        answer(sock, line.split()[1].decode())

def answer(sock, path):
    if path == "/drip":
        sock.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 1000000\\r\\n\\r\\n")
        while True:
            sock.sendall(b"x")
            gevent.sleep(0.02)
    if path == "/silent":
        gevent.sleep(60)
    if path == "/large":
        sock.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 10000000\\r\\n\\r\\n" + b"x" * 10_000_000)
    elif path == "/away":
        sock.sendall(b"HTTP/1.1 302 Found\\r\\nLocation: /good\\r\\nContent-Length: 0\\r\\n\\r\\n")
    elif path == "/nonsense":
        sock.sendall(b"nonsense\\r\\n\\r\\n")
        sock.close()
    else:
        sock.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")

server = StreamServer(("127.0.0.1", 0), serve)
server.start()

def fetcher(path):
    timeout_s = 2 if path in ("/drip", "/silent") else 30
    return Fetcher(f"http://127.0.0.1:{server.server_port}{path}", timeout_s, 2)

def outcome(path):
    try:
        found = fetcher(path).get({"Authorization": "secret"})
        return [found.status, found.body.decode()]
    except Unreachable as error:
        assert error.__context__ is None or path == "/large"
        return str(error)
"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/good", [200, "ok"]),
        ("/away", [302, ""]),
        ("/drip", "timeout"),
        ("/silent", "timeout"),
        ("/large", "too large"),
    ],
)
def test_outcomes(path: str, expected: object) -> None:
    """An endless answer ends in time, a large one at its bound, and nothing leads elsewhere."""
    found = run_patched(
        _SCENE
        + f"""
turns = []
def count():
    while True:
        turns.append(1)
        gevent.sleep(0)
gevent.spawn(count)
started = time.monotonic()
found = outcome({path!r})
print(json.dumps([found, time.monotonic() - started, len(turns), len(heard)]))
"""
    )
    outcome, seconds, turns, requests = found
    assert outcome == expected
    assert seconds < 20
    assert turns > 10 or outcome != "timeout", "others had no turn while it waited"
    assert requests == 1


def test_what_fails_says_no_secret() -> None:
    """Nobody there, and nobody who speaks HTTP."""
    found = run_patched(
        _SCENE
        + """
nonsense = outcome("/nonsense")
server.stop()
print(json.dumps([nonsense, outcome("/good")]))
"""
    )
    assert all(text.isidentifier() for text in found)


def test_a_connection_is_kept() -> None:
    """For the next request; the token goes in the header as it is."""
    found = run_patched(
        _SCENE
        + """
one = fetcher("/good")
for token in ("a", "Bearer b"):
    one.get({"Authorization": token})
print(json.dumps([len(connections), [headers["authorization"] for headers in heard]]))
"""
    )
    assert found == [1, ["a", "Bearer b"]]
