"""``rango doctor`` with the real gateway behind the real nginx, well and badly configured."""

from __future__ import annotations

import contextlib
import json
import re
import resource
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any, Iterator, Mapping

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from processes import address
from proxies import start_nginx
from support import (
    HOST,
    Server,
    amqp_url,
    broker_address,
    broker_channel,
    free_port,
    make_token,
    server_env,
    start_gateway,
)
from websockets.sync.server import ServerConnection, serve

Found = dict[str, list[dict[str, Any]]]


def ask(
    exchange: str, *words: str, env: Mapping[str, str] | None = None, **more: Any
) -> subprocess.CompletedProcess[str]:
    """Run the doctor."""
    return subprocess.run(
        [sys.executable, "-m", "rango_gevent", "doctor", "--idle", "0.2", *words],
        env=server_env(exchange, env),
        capture_output=True,
        text=True,
        timeout=180,
        **more,
    )


def doctor(exchange: str, *words: str, env: Mapping[str, str] | None = None) -> tuple[int, Found]:
    """Run the doctor and return its exit code and what it found, by check."""
    done = ask(exchange, "--json", *words, env=env)
    assert done.stderr == ""
    found: Found = {}
    for line in done.stdout.splitlines():
        finding = json.loads(line)
        assert finding["level"] == "OK" or finding["cure"] or finding["check"] in _SELF_CURED
        found.setdefault(finding["check"], []).append(finding)
    return done.returncode, found


_SELF_CURED = ("settings", "keys")  # their problems say what to do in their own text


def failed(found: Found) -> list[str]:
    """Return the checks that failed."""
    return [name for name, all_of in found.items() if any(one["level"] == "FAIL" for one in all_of)]


def words_of(found: Found, check: str) -> str:
    """Return what one check says, with its cures."""
    return "\n".join(f"{one['level']} {one['text']}: {one['cure']}" for one in found[check])


@pytest.fixture
def url(gateway: Server, tmp_path: Path) -> Iterator[str]:
    """Give the URL of a well configured nginx before the shared gateway."""
    with start_nginx(tmp_path, address(gateway)) as port:
        yield f"ws://{HOST}:{port}"


def test_all_is_well(gateway: Server, url: str) -> None:
    """Every check is there and is OK, and the exit code is 0."""
    token = {"RANGO_TOKEN": gateway.token(uid="IDOC", role="admin")}
    code, found = doctor(gateway.exchange, "--url", url, env=token)
    assert code == 0, found
    assert list(found) == [
        "settings", "files", "patches", "keys", "token", "broker", "websocket", "authorization",
        "origins", "clock", "idle",
    ]  # fmt: skip
    assert {one["level"] for all_of in found.values() for one in all_of} == {"OK"}
    assert "uid IDOC, role admin, until 20" in words_of(found, "token")
    assert "of type topic" in words_of(found, "broker")
    assert "Ed25519" in words_of(found, "keys")
    assert "the gateway's" in words_of(found, "clock")


def test_lines_for_people(gateway: Server, url: str) -> None:
    """A line for each finding, its cure below it; nothing secret is in it."""
    broker = broker_address()
    token = gateway.token()
    done = ask(gateway.exchange, "--url", f"{url}?secret=1", env={"RANGO_TOKEN": token})
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert all(line.startswith(("OK    ", "WARN  ", "FAIL  ", " " * 21)) for line in lines)
    for secret in (token, token.split(".")[2], f":{broker.password}@", "secret=1"):
        assert secret not in done.stdout


def test_what_is_not_given_is_not_tried(gateway: Server) -> None:
    """Without URL and token there is a warning for each, and that is no failure."""
    code, found = doctor(gateway.exchange)
    assert code == 0
    assert "WARN no token is tried" in words_of(found, "token")
    assert "WARN no WebSocket is tried" in words_of(found, "websocket")
    assert "idle" not in found


# -- the way through a proxy ------------------------------------------------------------------


@pytest.mark.parametrize(
    "stripped",
    [
        ["proxy_set_header Upgrade $http_upgrade;"],
        ["proxy_set_header Connection $rango_connection;"],
        [
            "proxy_set_header Upgrade $http_upgrade;",
            "proxy_set_header Connection $rango_connection;",
        ],
        ["proxy_http_version 1.1;"],
    ],
)
def test_a_proxy_that_strips_the_upgrade(
    gateway: Server, tmp_path: Path, stripped: list[str]
) -> None:
    """Without its three lines nginx asks for a plain page, and the doctor says which they are."""
    changes = dict.fromkeys(stripped, "")
    with start_nginx(tmp_path, address(gateway), changes=changes) as port:
        code, found = doctor(gateway.exchange, "--url", f"ws://{HOST}:{port}")
    assert (code, failed(found)) == (1, ["websocket"])
    assert "the proxy strips Upgrade" in words_of(found, "websocket")
    assert "proxy_set_header Upgrade" in words_of(found, "websocket")


def test_a_proxy_that_loses_the_token(gateway: Server, tmp_path: Path) -> None:
    """The header that does not arrive is named."""
    changes = {
        "proxy_set_header Authorization $rango_authorization;": 'proxy_set_header Authorization "";'
    }
    with start_nginx(tmp_path, address(gateway), changes=changes) as port:
        words = ["--url", f"ws://{HOST}:{port}", "--token", gateway.token()]
        code, found = doctor(gateway.exchange, *words)
    assert (code, failed(found)) == (1, ["authorization"])
    assert "Authorization is lost on the way" in words_of(found, "authorization")


def test_a_proxy_that_hides_the_host(gateway: Server, tmp_path: Path) -> None:
    """Pages of the proxy's own name are refused then, and the doctor knows why."""
    changes = {"proxy_set_header Host $http_host;": "proxy_set_header Host $proxy_host;"}
    with start_nginx(tmp_path, address(gateway), changes=changes) as port:
        code, found = doctor(gateway.exchange, "--url", f"ws://{HOST}:{port}")
    assert code == 0
    assert f"WARN pages of http://{HOST}:{port} itself are refused" in words_of(found, "origins")
    assert "proxy_set_header Host $http_host" in words_of(found, "origins")


def test_a_proxy_that_has_no_patience(gateway: Server, tmp_path: Path) -> None:
    """A silent connection that it cuts is found, with the time and the setting."""
    with start_nginx(tmp_path, address(gateway), read_timeout="1s") as port:
        words = ["--url", f"ws://{HOST}:{port}", "--idle", "8"]
        code, found = doctor(gateway.exchange, *words)
    assert (code, failed(found)) == (1, ["idle"])
    (lost,) = re.findall(r"a silent connection is lost after ([\d.]+) s", words_of(found, "idle"))
    assert 1 <= float(lost) < 8
    assert "proxy_read_timeout" in words_of(found, "idle")


def test_a_proxy_without_a_gateway(gateway: Server, tmp_path: Path) -> None:
    """What nginx answers alone is told as that."""
    with start_nginx(tmp_path, f"{HOST}:{free_port()}") as port:
        code, found = doctor(gateway.exchange, "--url", f"ws://{HOST}:{port}")
    assert (code, failed(found)) == (1, ["websocket"])
    assert "HTTP 502" in words_of(found, "websocket")
    assert "the proxy cannot reach the gateway" in words_of(found, "websocket")


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("ws://{host}:{port}", "Connection refused"),
        ("ws://no.such.host.invalid", "resolver"),
        ("wss://{host}:{nginx}", "without"),
        ("ws://{host}:{nginx}/nowhere", "HTTP 404"),
    ],
)
def test_a_wrong_url(gateway: Server, tmp_path: Path, url: str, told: str) -> None:
    """Nobody there, no such name, no TLS, no such path."""
    changes = {"location / {": "location /nowhere { return 404; } location / {"}
    with start_nginx(tmp_path, address(gateway), changes=changes) as port:
        full = url.format(host=HOST, port=free_port(), nginx=port)
        code, found = doctor(gateway.exchange, "--url", full)
    assert (code, failed(found)) == (1, ["websocket"])
    assert told in words_of(found, "websocket")


def test_a_url_that_is_none(gateway: Server) -> None:
    """It is told like any other wrong argument."""
    done = ask(gateway.exchange, "--url", "ftp://x")
    assert (done.returncode, done.stdout) == (2, "")
    assert "give one such as" in done.stderr


def test_origins(gateway: Server, url: str) -> None:
    """A site that shall be let in and is not is a failure; a gateway open to all a warning."""
    words = ["--url", url, "--origin", "https://shop.example"]
    code, found = doctor(gateway.exchange, *words)
    assert (code, failed(found)) == (1, ["origins"])
    assert "list it in the gateway's API_CORS_ORIGINS" in words_of(found, "origins")
    with start_gateway(env={"API_CORS_ORIGINS": "*"}) as open_to_all:
        code, found = doctor(open_to_all.exchange, "--url", open_to_all.url, *words[2:])
    assert code == 0
    assert "OK pages of https://shop.example may connect" in words_of(found, "origins")
    assert "WARN pages of any site may connect" in words_of(found, "origins")


# -- clocks -----------------------------------------------------------------------------------


@contextlib.contextmanager
def skewed(seconds: float) -> Iterator[str]:
    """Run a server whose clock is wrong; gives its URL."""

    def handler(connection: ServerConnection) -> None:
        connection.send('{"success":{"message":"subscribed","streams":[]}}')
        for text in connection:
            request = json.loads(text)
            success = {"message": "time", "time": time.time() + seconds}
            connection.send(json.dumps({"success": success, "id": request["id"]}))

    with serve(handler, HOST, 0, compression=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"ws://{HOST}:{server.socket.getsockname()[1]}"
        finally:
            server.shutdown()
            thread.join(5)


@pytest.mark.parametrize(
    ("seconds", "level"), [(0.2, "OK"), (5, "WARN"), (-5, "WARN"), (100, "FAIL")]
)
def test_clocks_that_differ(gateway: Server, seconds: float, level: str) -> None:
    """A second is nothing, some are a warning, half a minute is a failure."""
    with skewed(seconds) as url:
        code, found = doctor(gateway.exchange, "--url", url)
    (clock,) = found["clock"]
    assert clock["level"] == level
    told = re.match(r"this clock is ([\d.]+) s (behind|ahead of) ", clock["text"])
    assert told
    behind_s = float(told[1]) * (1 if told[2] == "behind" else -1)
    assert behind_s == pytest.approx(seconds, abs=2), "to half of what a slow answer takes"
    assert code == (1 if level == "FAIL" else 0)


# -- settings, keys, tokens, broker --------------------------------------------------------------


def test_wrong_settings_are_findings_like_others(gateway: Server, url: str) -> None:
    """The way is looked at all the same; what stands on the settings is not."""
    env = {"RANGO_MAX_STREAMS": "many", "LOG_LEVEL": "loud"}
    code, found = doctor(gateway.exchange, "--url", url, env=env)
    assert (code, failed(found)) == (1, ["settings"])
    assert len(found["settings"]) == 2
    assert "broker" not in found
    assert "OK" in words_of(found, "websocket")


def test_a_wrong_key(gateway: Server) -> None:
    """What is no key is told, and no token is tried without one."""
    code, found = doctor(gateway.exchange, env={"JWT_PUBLIC_KEY": "bm9uZQ=="})
    assert (code, failed(found)) == (1, ["keys"])
    assert "JWT_PUBLIC_KEY" in words_of(found, "keys")
    assert "token" not in found


@pytest.mark.parametrize(
    ("claims", "told", "cure"),
    [
        ({"exp": 1000}, "expired", "get a new one"),
        ({"nbf": 99999999999}, "not yet valid", "clocks"),
        ({"iss": "elsewhere"}, "issuer", "JWT_ISSUER is barong"),
    ],
)
def test_a_token_that_is_not_good(
    gateway: Server, url: str, claims: dict[str, Any], told: str, cure: str
) -> None:
    """Why, and what to do; the gateway behind the proxy says the same where it can."""
    token = make_token(claims)
    env = {"RANGO_TOKEN": token, "JWT_ISSUER": "barong"}
    code, found = doctor(gateway.exchange, "--url", url, env=env)
    assert code == 1
    assert "token" in failed(found)
    assert told in words_of(found, "token")
    assert cure in words_of(found, "token")
    assert token not in json.dumps(found)


def test_a_token_of_another_key(gateway: Server, url: str) -> None:
    """Both ends say so: the settings here, and the gateway there."""
    token = make_token({}, Ed25519PrivateKey.generate())
    code, found = doctor(gateway.exchange, "--url", url, env={"RANGO_TOKEN": token})
    assert (code, failed(found)) == (1, ["token", "authorization"])
    assert "signature" in words_of(found, "token")
    assert "HTTP 401" in words_of(found, "authorization")


def test_a_token_without_a_user_is_a_warning(gateway: Server) -> None:
    """It is good, and good for little."""
    code, found = doctor(gateway.exchange, env={"RANGO_TOKEN": make_token({"uid": None})})
    assert code == 0
    assert "WARN token: no uid" in words_of(found, "token")


def test_an_exchange_of_another_type() -> None:
    """It would give nothing, and the doctor names its type."""
    exchange = f"test.{uuid.uuid4().hex[:12]}"
    broker_channel().exchange_declare(exchange, "fanout", durable=False, auto_delete=False)
    try:
        code, found = doctor(exchange)
    finally:
        broker_channel().exchange_delete(exchange)
    assert (code, failed(found)) == (1, ["broker"])
    assert "is of type fanout, not topic" in words_of(found, "broker")


@pytest.mark.parametrize(
    ("env", "told"),
    [
        ({"RANGO_AMQP_URL": f"amqp://u:hidden@{HOST}:1//"}, "check that it runs"),
        ({"RANGO_AMQP_URL": "{url}/none"}, "RABBITMQ_VHOST"),
        ({"RANGO_EXCHANGE": "no.such.exchange"}, "does not exist"),
    ],
)
def test_a_broker_that_does_not_serve(gateway: Server, env: dict[str, str], told: str) -> None:
    """Away, without that virtual host, without the exchange; no password is printed."""
    broker = broker_address()
    url = f"amqp://{broker.user}:{broker.password}@{broker.host}:{broker.port}"
    filled = {name: value.replace("{url}", url) for name, value in env.items()}
    code, found = doctor(gateway.exchange, env=filled)
    assert (code, failed(found)) == (1, ["broker"])
    assert told in words_of(found, "broker")
    assert "hidden" not in json.dumps(found)
    assert f":{broker.password}@" not in json.dumps(found)


# -- the process ----------------------------------------------------------------------------------


def test_too_few_files(gateway: Server) -> None:
    """The limit that the gateway would meet is named, and how to raise it."""
    done = ask(
        gateway.exchange,
        "--json",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200)),
    )
    files = next(json.loads(line) for line in done.stdout.splitlines() if '"files"' in line)
    assert files["level"] == "WARN"
    assert files["text"].startswith("200 files may be open")
    assert "LimitNOFILE=10" in files["cure"]


def test_something_imported_too_early(gateway: Server, tmp_path: Path) -> None:
    """An agent that takes the sockets before gevent has patched them is found by its name."""
    (tmp_path / "agent.py").write_text("from socket import socket\n")
    (tmp_path / "sitecustomize.py").write_text("import agent\n")
    code, found = doctor(gateway.exchange, env={"PYTHONPATH": str(tmp_path)})
    assert code == 0
    assert "WARN imported before gevent patched: agent;" in words_of(found, "patches")


def test_the_gateways_own_broker_needs_no_way(gateway: Server) -> None:
    """The demo's embedded broker is not looked for."""
    code, found = doctor(gateway.exchange, env={"RANGO_AMQP_URL": "memory://"})
    assert code == 0
    assert "inside of the gateway" in words_of(found, "broker")
    assert amqp_url() not in json.dumps(found)
