"""Tokens that others are asked about: the real gateway and real HTTP services beside it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Iterator

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm
from support import HOST, Server, make_token, server_env, signing_key, start_gateway, wait_for
from websockets.exceptions import InvalidStatus

TIMEOUT_S = 8  # so that a busy machine does a few handshakes within it
SLOW_S = 16.0


class Service:
    """A service that knows tokens and keys, and takes note of what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str | None] = []
        self.keys: dict[str, Ed25519PrivateKey] = {}
        self.fetches = 0
        self.is_broken = False
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                status, body = service.answer(self.path, self.headers.get("Authorization"))
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                pass

        class QuietServer(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                """A gateway that waits no longer hangs up."""

        self.server = QuietServer((HOST, 0), Handler)
        self.url = f"http://{HOST}:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, path: str, token: str | None) -> tuple[int, Any]:
        """Return status and body."""
        if path == "/keys":
            self.fetches += 1
            return 200, {"keys": [jwk(kid, key) for kid, key in self.keys.items()]}
        self.asked.append(token)
        if self.is_broken:
            return 500, {}
        if token == "slow":
            threading.Event().wait(SLOW_S)
        if token == "trader":
            return 200, {"uid": "U7", "role": "trader"}
        if token == "one":
            return 200, {"code": 0, "message": None, "data": {"user_id": 1}}
        return 200, {"code": 11, "message": "user does not exist", "data": None}

    def stop(self) -> None:
        """End it."""
        self.server.shutdown()
        self.server.server_close()


def jwk(kid: str, key: Ed25519PrivateKey) -> dict[str, Any]:
    """Return a public key as the list has it."""
    form: dict[str, Any] = OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return {**form, "kid": kid, "use": "sig", "alg": "EdDSA"}


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """The service of this module."""
    made = Service()
    made.keys["first"] = Ed25519PrivateKey.generate()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def server(service: Service) -> Iterator[Server]:
    """A gateway that asks for both."""
    env = {
        "RANGO_AUTH_URL": f"{service.url}/verify",
        "JWT_JWKS_URL": f"{service.url}/keys",
        "RANGO_AUTH_TIMEOUT_S": str(TIMEOUT_S),
        "RANGO_RBAC_DESK": "trader",
        "RANGO_CONTROL_KEY": "rango.control",
        "LOG_LEVEL": "debug",
    }
    with start_gateway(env=env) as started:
        yield started


def test_an_opaque_token_in_the_handshake(server: Server, service: Service) -> None:
    """The service is asked by the token as it was given, once; its user id is the uid."""
    for _ in range(3):
        with server.connect("/private?stream=order", "one") as client:
            client.receive()
            server.publish("private.1.order", "7")
            assert client.receive() == '{"order":7}'
    assert service.asked.count("one") == 1
    assert server.metric("rango_token_lookups_total", outcome="cached") == 2


def test_an_opaque_token_in_band(server: Server) -> None:
    """With a role; a refusal is told in the service's own words."""
    with server.connect() as client:
        client.receive()
        client.send({"event": "auth", "token": "trader"})
        assert client.receive_json()["success"] == {
            "message": "authenticated",
            "uid": "U7",
            "ttl": None,
        }
        assert client.subscribe("desk.a.b") == ["desk.a.b"]
        client.send({"event": "auth", "token": "stranger"})
        assert client.receive_json() == {"error": "authentication failed: user does not exist"}
    with pytest.raises(InvalidStatus) as refused:
        server.connect("/private", "stranger")
    assert refused.value.response.status_code == 401


def test_one_who_waits_holds_up_nobody(server: Server) -> None:
    """Neither other handshakes nor other clients; it is told that nobody knows now."""
    with server.connect() as waiting, server.connect() as other:
        waiting.receive()
        other.receive()
        waiting.send({"event": "auth", "token": "slow"})
        started = time.monotonic()
        for _ in range(5):
            with server.connect("/public?stream=a.b") as client:
                client.receive()
            other.send("ping")
            assert other.receive() == "pong"
        assert time.monotonic() - started < TIMEOUT_S, "they waited with it"
        assert waiting.receive_json() == {"error": "authentication failed: unavailable"}
    with pytest.raises(InvalidStatus) as refused:
        server.connect("/private", "slow")
    assert refused.value.response.status_code == 503


def test_a_revoked_user_is_asked_about_anew(server: Server, service: Service) -> None:
    """What was kept of its tokens is forgotten."""
    before = service.asked.count("one")
    with server.connect("/private", "one") as client:
        client.receive()
        server.publish("rango.control", '{"revoke":{"uid":"1"}}')
        assert client.closed() == (4403, "revoked")
    with server.connect("/private", "one") as client:
        client.receive()
    assert service.asked.count("one") == before + 1


def test_keys_by_a_url(server: Server, service: Service) -> None:
    """Those of the list are good; a new one is fetched when a token names it."""
    first = service.keys["first"]
    named = {"kid": "first"}
    claims = {"uid": "J1"}
    for key, headers in ((first, named), (first, {}), (signing_key(), {})):
        token = jwt.encode(claims, key, "EdDSA", headers=headers)
        with server.connect("/private", token) as client:
            client.receive()
    second = service.keys["second"] = Ed25519PrivateKey.generate()
    token = jwt.encode(claims, second, "EdDSA", headers={"kid": "second"})

    def is_let_in() -> bool:
        try:
            server.connect("/private", token).close()
        except InvalidStatus:
            return False
        return True

    wait_for(is_let_in, what="the new key")
    before = service.fetches
    stranger = Ed25519PrivateKey.generate()
    for index in range(20):
        with pytest.raises(InvalidStatus):
            server.connect("/private", jwt.encode(claims, stranger, "EdDSA", {"kid": f"x{index}"}))
    assert service.fetches <= before + 1, "whoever makes up names makes no fetches"
    assert server.metric("rango_jwks_fetches_total", outcome="good") >= 2


def test_no_opaque_token_is_in_the_log(server: Server) -> None:
    """Nor in the metrics' labels."""
    secret = "opaque-0123456789"
    with server.connect("/public", secret) as client:
        client.receive()
        client.send({"event": "auth", "token": secret})
        assert "error" in client.receive_json()
    assert secret not in server.log()


def test_a_check_tries_them(server: Server, service: Service) -> None:
    """`rango config --check --connect` says which keys there are, and that somebody answers."""
    env = server_env(
        server.exchange,
        {"RANGO_AUTH_URL": f"{service.url}/verify", "JWT_JWKS_URL": f"{service.url}/keys"},
    )
    command = [sys.executable, "-m", "rango_gevent", "config", "--check", "--connect"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "keys by JWT_JWKS_URL, tokens by RANGO_AUTH_URL\n" in done.stdout
    assert re.search("^ok: JWT_JWKS_URL: Ed25519 key [0-9a-f]{16}", done.stdout, re.MULTILINE)
    assert "ok: RANGO_AUTH_URL answers\n" in done.stdout
    env["JWT_JWKS_URL"] = f"{service.url}/elsewhere?secret"
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert f"failed: JWT_JWKS_URL {service.url}/elsewhere?***: no list of keys" in done.stdout
    assert "secret" not in done.stdout + done.stderr


def test_a_broken_service_is_left_alone(server: Server, service: Service) -> None:
    """After a few failures it is not asked for a while; signed tokens go on."""
    service.is_broken = True
    service.asked.clear()
    with server.connect() as client:
        client.receive()
        for index in range(20):
            client.send({"event": "auth", "token": f"t{index}"})
            assert client.receive_json() == {"error": "authentication failed: unavailable"}
        assert len(service.asked) <= 6
        client.send({"event": "auth", "token": make_token({})})
        assert "success" in client.receive_json()
    assert server.metric("rango_token_lookups_total", outcome="resting") >= 14
    assert "RANGO_AUTH_URL does not say whose a token is: " in server.log()
    service.is_broken = False
