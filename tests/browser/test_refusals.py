"""Why somebody is refused, as a person reads it in the page; and the token is never on view."""

from __future__ import annotations

import base64
import json
import time
from typing import Any, Callable, Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from playwright.sync_api import Page, expect
from support import Server, free_port, make_token, start_gateway, wait_for

CONTROL = "rango.control"
OTHER_KEY = Ed25519PrivateKey.generate()

Open = Callable[[str], Page]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A gateway that has all reasons to refuse; the service that it asks is not there."""
    env = {
        "RANGO_CONSOLE": "on",
        "RANGO_CONTROL_KEY": CONTROL,
        "RANGO_AUTH_URL": f"http://127.0.0.1:{free_port()}/",
        "JWT_ISSUER": "barong",
        "JWT_AUDIENCE": "peatio",
        "LOG_LEVEL": "debug",
    }
    with start_gateway(env=env) as started:
        yield started


def malformed() -> str:
    """Make a token that is signed, and holds no claims."""
    return make_token({"uid": 7})


REFUSED: dict[str, Callable[[], str]] = {
    "malformed": malformed,
    "signature": lambda: make_token({}, OTHER_KEY),
    "expired": lambda: make_token({"exp": 1}),
    "not yet valid": lambda: make_token({"nbf": 1 << 40}),
    "issuer": lambda: make_token({"iss": "mallory"}),
    "audience": lambda: make_token({"aud": "mallory"}),
    "revoked": lambda: make_token({"uid": "GONE", "iat": 1}),
    "unavailable": lambda: base64.urlsafe_b64encode(b"an opaque token of some length").decode(),
}


def log_in(page: Page, token: str) -> None:
    """Give the page a token as a person does."""
    page.locator("#token").fill(token)
    page.get_by_test_id("login").click()


@pytest.mark.parametrize("reason", REFUSED)
def test_a_refused_token_is_told_in_words(server: Server, open_console: Open, reason: str) -> None:
    """With the server's reason; and neither the page, its addresses nor the log show the token."""
    if reason == "revoked":
        server.publish(CONTROL, '{"revoke":{"uid":"GONE","before":1000}}')
        server.catch_up()
    page = open_console(f"127.0.0.1:{server.port}")
    printed: list[str] = []
    page.on("console", lambda message: printed.append(message.text))
    page.on("request", lambda request: printed.append(request.url))
    page.on("websocket", lambda socket: printed.append(socket.url))
    token = REFUSED[reason]()
    log_in(page, token)
    expect(page.locator("#trouble")).to_contain_text(f"authentication failed: {reason}")
    expect(page.get_by_test_id("user")).to_contain_text("Not logged in")
    signature = token.rpartition(".")[2]
    for shown in (page.content(), *printed, page.url, server.log()):
        assert signature not in shown
    page.close()


def test_a_user_who_is_sent_away_is_told(server: Server, open_console: Open) -> None:
    """Revoked while connected: the end, in words, and no coming back."""
    page = open_console(f"127.0.0.1:{server.port}")
    log_in(page, make_token({"uid": "SOON", "iat": int(time.time()) - 60}))
    expect(page.get_by_test_id("user")).to_contain_text("Logged in as SOON")
    server.publish(CONTROL, json.dumps({"revoke": {"uid": "SOON"}}))
    expect(page.get_by_test_id("state")).to_contain_text("disconnected · last close 4403")
    expect(page.locator("#trouble")).to_contain_text("access was revoked")
    wait_for(lambda: server.metric("rango_hub_clients_count") == 0)


def test_a_stream_that_may_not_be_had_is_told(server: Server, open_console: Open) -> None:
    """At the stream itself; the others go on."""
    page = open_console(f"127.0.0.1:{server.port}")
    page.get_by_test_id("stream-input").fill("order desk.b.sys b.trades")
    page.get_by_test_id("subscribe").click()

    def title(stream: str) -> Any:
        return page.locator("#streams .name", has_text=stream)

    expect(title("order")).to_have_attribute(
        "title", "order is not for the user or role of this token."
    )
    expect(title("desk.b.sys")).to_have_attribute("title", "desk.b.sys is not for the user or role of this token.")  # fmt: skip
    server.publish("public.b.trades", '{"n":1}')
    expect(page.get_by_test_id("events").locator("li")).to_have_count(1)
