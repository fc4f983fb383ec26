"""The files that the WebSocket port serves: the client always, the console where it is on."""

from __future__ import annotations

import gzip
import json
import re
from typing import Iterator
from urllib.parse import urlencode

import pytest
from support import HOST, ROOT, HttpAnswer, RawSocket, Server, start_gateway

CONSOLE = ROOT / "rango_gevent" / "console"


@pytest.fixture(scope="module")
def console() -> Iterator[Server]:
    """A gateway with its console."""
    with start_gateway(env={"RANGO_CONSOLE": "on"}) as server:
        yield server


def ask(server: Server, path: str, method: str = "GET", **headers: str) -> tuple[HttpAnswer, bytes]:
    """Send a request with headers; return the answer, and its body as bytes."""
    fields = {"Host": f"{HOST}:{server.port}", **headers}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    with RawSocket(server.port) as raw:
        raw.send("\r\n".join([*lines, "", ""]).encode())
        head, _, body = raw.read_to_end().partition(b"\r\n\r\n")
    first, *rest = head.decode().split("\r\n")
    got = dict(line.split(": ", 1) for line in rest)
    lower = {name.lower(): value for name, value in got.items()}
    return HttpAnswer(int(first.split(" ")[1]), lower, ""), body


def test_the_client_is_served_to_any_page(gateway: Server) -> None:
    """Also with the console off: a page of another origin may import it."""
    answer, body = ask(gateway, "/client/rango.js")
    assert answer.status == 200
    assert body == (CONSOLE / "client" / "rango.js").read_bytes()
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["cache-control"] == "no-cache"


def test_what_a_browser_has_is_not_sent_again(gateway: Server) -> None:
    """An ETag each for the plain form and the squeezed one."""
    plain, _ = ask(gateway, "/client/rango.js")
    squeezed, body = ask(gateway, "/client/rango.js", **{"Accept-Encoding": "gzip, br"})
    assert squeezed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(body) == (CONSOLE / "client" / "rango.js").read_bytes()
    assert plain.headers["etag"] != squeezed.headers["etag"]
    assert plain.headers["vary"] == squeezed.headers["vary"] == "Accept-Encoding"
    again, body = ask(gateway, "/client/rango.js", **{"If-None-Match": plain.headers["etag"]})
    assert (again.status, body) == (304, b"")
    assert "content-length" not in again.headers
    other, body = ask(gateway, "/client/rango.js", **{"If-None-Match": '"other"'})
    assert other.status == 200


def test_a_head_has_no_body(gateway: Server) -> None:
    """But the headers of the GET."""
    get, body = ask(gateway, "/client/rango.js")
    head, nothing = ask(gateway, "/client/rango.js", "HEAD")
    assert nothing == b""
    assert head.headers["content-length"] == get.headers["content-length"] == str(len(body))


@pytest.mark.parametrize("path", ["/console", "/console/about.json", "/console/publish"])
def test_the_console_is_off_unless_it_is_switched_on(gateway: Server, path: str) -> None:
    """Nothing of it is there."""
    assert ask(gateway, path)[0].status == 404
    assert ask(gateway, path, "POST")[0].status == 405


def test_the_page_allows_itself_little(console: Server) -> None:
    """No script, style or connection but its own; it names this gateway for WebSockets."""
    answer, body = ask(console, "/console")
    policy = answer.headers["content-security-policy"].split("; ")
    address = f"{HOST}:{console.port}"
    assert f"connect-src 'self' ws://{address} wss://{address}" in policy
    assert {"default-src 'none'", "script-src 'self'", "style-src 'self'"} < set(policy)
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-cache"
    page = body.decode()
    assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=|style=", page)


@pytest.mark.parametrize("host", ["evil; script-src *", "a b", "x,y", "\xe9"])
def test_a_strange_host_does_not_get_into_the_policy(console: Server, host: str) -> None:
    """What names no host is left out, if it is answered at all."""
    answer, _ = ask(console, "/console", Host=host)
    assert host not in answer.headers.get("content-security-policy", "")


def test_parts_are_kept_for_ever_under_a_hash(console: Server) -> None:
    """Each that the page names, and each that those import."""
    _, page = ask(console, "/console")
    parts = set(re.findall(r'(?:href|src)="(console/[^"]+)"', page.decode()))
    (base,) = {part.rsplit("/", 1)[0] for part in parts if part.endswith("console.js")}
    for path in (CONSOLE / "page").glob("*.js"):
        for name in re.findall(r'from "\./([^"]+)"', path.read_text()):
            parts.add(f"{base}/{name}")
    assert len(parts) >= 10
    for part in parts:
        answer, body = ask(console, f"/{part}")
        assert answer.status == 200, part
        assert body
        assert "immutable" in answer.headers["cache-control"]
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert ask(console, "/console/000000000000/console.js")[0].status == 404


def test_the_console_is_told_what_flows(console: Server) -> None:
    """Names of public streams, and no others; and no demo."""
    for key in ("public.shown.trades", "private.ID1.secret", "admin.secret.sys"):
        console.publish(key, "1")
    console.catch_up()
    _, body = ask(console, "/console/about.json")
    about = json.loads(body)
    assert "shown.trades" in about["streams"]
    assert not any("secret" in name for name in about["streams"])
    assert "demo" not in about


def test_only_the_demo_publishes_and_only_for_its_user(demo: Server) -> None:
    """A page of another site cannot send the header; words say what is wrong."""
    about = json.loads(ask(demo, "/console/about.json")[1])["demo"]
    known = {"Authorization": f"Bearer {about['token']}"}

    def publish(key: str, body: str, **headers: str) -> tuple[int, str]:
        path = f"/console/publish?{urlencode({'key': key, 'body': body})}"
        answer, text = ask(demo, path, "POST", **headers)
        return answer.status, text.decode().strip()

    with demo.connect("/public?stream=btcusd.news") as client:
        client.receive()
        assert publish("public.btcusd.news", "1") == (401, "Log in first.")
        assert publish("public.btcusd.news", "{", **known)[0] == 400
        for key in ("", "news", "public..news", "a.b.c.d", "public.\xe9.x"):
            assert publish(key, "1", **known)[0] == 400
        assert publish("public.btcusd.news", '{"a":1}', **known)[0] == 202
        assert client.receive() == '{"btcusd.news":{"a":1}}'
    assert ask(demo, "/console/publish", **known)[0].status == 404


@pytest.fixture(scope="module")
def demo() -> Iterator[Server]:
    """The demo, whose console is always on."""
    words = ["-ws-addr", "127.0.0.1:{port}", "--metrics-port", "{metrics_port}"]
    with start_gateway(args=["demo", *words], env={"RANGO_AMQP_URL": ""}) as server:
        yield server
