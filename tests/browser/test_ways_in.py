"""Every way in that a page has, by a real browser: the programs of docs/AUTH.md, and refusals."""

from __future__ import annotations

import time
from typing import Any, Iterator

import pytest
from auth_page import ADDRESS, IMPATIENT, PROGRAMS, SETTINGS, WATCH, WAYS, Program
from playwright.sync_api import BrowserContext, Page, Route
from support import Server, make_token, start_gateway, wait_for

DEADLINE_S = 60.0


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A gateway with all ways open."""
    with start_gateway(env=SETTINGS) as started:
        yield started


@pytest.fixture(scope="module")
def impatient() -> Iterator[Server]:
    """The same, and who does not log in on /private is sent away soon."""
    with start_gateway(env=IMPATIENT) as started:
        yield started


def page_of(context: BrowserContext, server: Server) -> Page:
    """Open a page of the gateway's own host."""
    page = context.new_page()
    page.goto(f"{server.http}/")
    return page


@pytest.mark.parametrize("program", PROGRAMS, ids=WAYS)
def test_a_program_receives_what_is_private(
    context: BrowserContext, server: Server, program: Program
) -> None:
    """As it is printed, in a page; the cookie's has no token in its hands."""
    uid = f"JS{PROGRAMS.index(program)}"
    token = make_token({"uid": uid})
    if program.way == "cookie":
        context.add_cookies(
            [{"name": "session", "value": token, "url": server.http, "httpOnly": True}]
        )
    page = page_of(context, server)
    printed: list[str] = []
    page.on("console", lambda message: printed.append(message.text))
    code = program.code.replace(ADDRESS, f"127.0.0.1:{server.port}")
    argument = None if program.way == "cookie" else token
    page.evaluate(f"(token) => {{ {code} }}", argument)

    def has_come() -> bool:
        server.publish(f"private.{uid}.order", '{"id":1}')
        page.evaluate("1")  # lets the library hear the page
        return any('{"order":{"id":1}}' in text for text in printed)

    wait_for(has_come, DEADLINE_S, "the order")


def watch(page: Page, server: Server, path: str, protocols: list[str]) -> Any:
    """Connect from the page, and return how that went."""
    return page.evaluate(WATCH, [server.url + path, protocols])


@pytest.mark.parametrize(
    ("claims", "reason", "code"),
    [({"exp": 1}, "expired", 1203), ({"nbf": 1 << 40}, "not yet valid", 1204)],
)
def test_a_page_sees_why_it_is_refused(
    context: BrowserContext, impatient: Server, claims: dict[str, Any], reason: str, code: int
) -> None:
    """As a message and a close code, where a 401 would look like a dead network."""
    page = page_of(context, impatient)
    found = watch(page, impatient, "/private", ["rango.v1", f"bearer.{make_token(claims)}"])
    assert found["heard"][1] == f'{{"error":"authentication failed: {reason}","code":{code}}}'
    assert (found["code"], found["reason"]) == (4401, "authentication missing")
    assert found["protocol"] == "rango.v1"


def test_an_unknown_subprotocol_does_not_end_the_connection(
    context: BrowserContext, impatient: Server
) -> None:
    """A browser would, if none of those that it offered were answered."""
    page = page_of(context, impatient)
    found = watch(page, impatient, "/private", ["graphql-ws", "other"])
    assert (found["code"], found["protocol"]) == (4401, "graphql-ws")


def test_a_page_of_another_host_has_no_use_of_the_cookie(
    context: BrowserContext, server: Server
) -> None:
    """It is refused before it is looked at: 403, which a page sees as 1006."""
    token = make_token({"uid": "CSRF"})
    context.add_cookies([{"name": "session", "value": token, "url": server.http}])
    page = context.new_page()
    page.goto(f"http://localhost:{server.port}/")
    assert watch(page, server, "/private?stream=order", [])["code"] == 1006


RENEWED = """async () => {
    const { Rango } = await import("/client/rango.js");
    const getToken = async () => void (await fetch("/renew")); // the answer sets the cookie
    window.rango = new Rango(`${location.origin}/private`, { getToken });
    window.order = rango.subscribe("order");
    window.orders = [];
    window.closes = [];
    order.on("publication", ({ data }) => orders.push(data));
    rango.on("state", ({ code }) => code && closes.push(code));
    rango.connect();
    while (order.state !== "subscribed") await new Promise((done) => setTimeout(done, 5));
}"""


def test_a_cookie_is_renewed_before_its_token_ends(context: BrowserContext) -> None:
    """By `rango.js`, whose page never has the token: the handshake anew; and nothing is missed."""
    env = {**SETTINGS, "RANGO_TOKEN_GRACE_S": "0", "RANGO_PRIVATE_GRACE_S": "0"}
    with start_gateway(env=env) as server:
        renewals = []

        def renew(route: Route) -> None:
            token = make_token({"uid": "COOK", "exp": int(time.time()) + 10})
            renewals.append(token)
            route.fulfill(body="", headers={"Set-Cookie": f"session={token}; HttpOnly; Path=/"})

        page = context.new_page()
        page.route("**/renew", renew)
        page.goto(f"{server.http}/healthz")
        page.evaluate(RENEWED)
        sent = 0
        deadline = time.monotonic() + 2 * DEADLINE_S
        while len(renewals) < 4:
            assert time.monotonic() < deadline, len(renewals)
            sent += 1
            server.publish("private.COOK.order", str(sent))
            page.wait_for_timeout(50)
        page.wait_for_function("(sent) => orders.at(-1) === sent", arg=sent)
        assert page.evaluate("orders") == list(range(1, sent + 1))
        assert set(page.evaluate("closes")) == {4401}
        log = server.log()
        assert "authentication expired" not in log
        assert "unauthenticated" not in log, "no token ended while it was in use"
        assert not [token for token in renewals if token in log]
        assert server.metric("rango_tokens_ended_total", policy="close") == 0
        page.close()
