"""The administrators' page in a real browser: who is let in, what is shown, followed and ended."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
import time
from typing import Any, Callable, Iterator

import pytest
from playwright.sync_api import Locator, Page, expect
from support import ROOT, Client, Server, make_token, start_gateway, wait_for

AXE = (ROOT / "tests" / "js" / "node_modules" / "axe-core" / "axe.min.js").read_text
ENV = {"RANGO_ADMIN_ROLES": "boss", "RANGO_TOKEN_GRACE_S": "0"}
DEADLINE_S = 60.0
SHORT_LIFE_S = 8  # of a token whose end is waited for: longer than a slow page takes to log in
# notes all that the page says of its connection: some of it is there for a moment only
STATES = """() => {
    window.states = [];
    const place = document.querySelector("[data-testid=state]");
    const note = () => states.push(place.textContent);
    new MutationObserver(note).observe(place, { childList: true, characterData: true, subtree: true });
}"""
HOSTILE = [
    "<img src=x onerror=document['title']=1>.x",
    "\"><script>document['title']=2</script>.x",
    "</td><a href=javascript:alert(3)>click</a>.x",
    "&lt;b&gt;x.y",
    "{{constructor['constructor']('x')()}}.x",
]

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def demo() -> Iterator[Server]:
    """The demo as `make run` starts it."""
    words = [sys.executable, "-m", "rango_gevent", "demo", "-ws-addr", "127.0.0.1:{port}"]
    words += ["--metrics-port", "{metrics_port}"]
    with start_gateway(command=words, env={"RANGO_AMQP_URL": ""}) as server:
        yield server


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Two workers with administrators."""
    with start_gateway(env={**ENV, "RANGO_WORKERS": "2"}) as started:
        wait_for(lambda: started.log().count("consuming") == 2, what="both workers' sources")
        yield started


def log_in(page: Page, role: str = "boss", **claims: Any) -> None:
    """Paste a token and send it by keyboard."""
    page.get_by_test_id("token").fill(make_token({"uid": "BOSS", "role": role, **claims}))
    page.get_by_test_id("token").press("Enter")


def admin_page(open_console: Open, server: Server) -> Page:
    """Open the page and log in."""
    page = open_console(f"127.0.0.1:{server.port}", "/admin")
    log_in(page)
    expect(page.get_by_test_id("state")).to_contain_text("logged in as BOSS")
    return page


def cells(page: Page, table: str, row: str) -> Locator:
    """Return the cells of the row of a table that holds a text."""
    found = page.get_by_test_id(table).locator("tbody tr", has_text=row)
    expect(found).to_have_count(1)
    return found.locator("td")


def find(page: Page, field: str, value: str) -> Any:
    """Look for connections; return the rows."""
    page.get_by_test_id("find-field").select_option(field)
    page.get_by_test_id("find-value").fill(value)
    told = page.get_by_test_id("found")
    deadline = time.monotonic() + DEADLINE_S
    while True:
        told.evaluate("(told) => { told.textContent = ''; }")  # what an earlier search has found
        page.get_by_test_id("find-value").press("Enter")
        expect(told).to_contain_text("found")
        if "Not answered" not in told.inner_text():  # a worker that was busy for a second
            return page.get_by_test_id("connections").locator("tbody tr")
        assert time.monotonic() < deadline, told.inner_text()


def connected(server: Server, uid: str, path: str = "/private") -> Client:
    """Connect as a user."""
    client = server.connect(path, make_token({"uid": uid}))
    client.receive()
    return client


def test_the_demo_s_administrator_is_one_click_away(demo: Server, open_console: Open) -> None:
    """And sees workers, streams, rates, the broker and its books; a second click leaves."""
    assert f"{demo.http}/admin" in demo.log()
    page = open_console(f"127.0.0.1:{demo.port}", "/admin")
    expect(page.get_by_test_id("workers")).to_be_hidden()
    with demo.connect("/public?stream=btcusd.trades,btcusd.ob-inc"):
        page.get_by_test_id("login").click()
        expect(page.get_by_test_id("state")).to_contain_text("logged in as IDADMIN01")
        expect(page.get_by_test_id("workers").locator("tbody tr")).to_have_count(1)
        expect(page.get_by_test_id("workers")).to_contain_text("ready")
        expect(page.get_by_test_id("streams")).to_contain_text("btcusd.trades")
        expect(page.get_by_test_id("rates")).to_contain_text("btcusd.ob-inc")
        expect(page.get_by_test_id("books")).to_contain_text("ethusd.ob-inc")
        expect(page.get_by_test_id("broker")).to_contain_text("connected")
        received = page.get_by_test_id("workers").locator("tbody td").nth(8)
        expect(received).to_have_text(re.compile("[1-9]"))
    page.get_by_test_id("login").click()
    expect(page.get_by_test_id("workers")).to_be_hidden()
    expect(page.get_by_test_id("state")).to_contain_text("logged out")


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ({"role": "member"}, "This role is no administrator's"),
        ({"exp": 1}, "authentication failed: expired"),
        ({"uid": None}, "authentication failed: no uid"),
    ],
)
def test_who_may_not_sees_why_and_nothing_else(
    server: Server, open_console: Open, claims: dict[str, Any], words: str
) -> None:
    """In words; the figures stay hidden, and empty."""
    page = open_console(f"127.0.0.1:{server.port}", "/admin")
    log_in(page, **claims)
    expect(page.get_by_test_id("state")).to_contain_text(words)
    expect(page.get_by_test_id("workers")).to_be_hidden()
    assert page.get_by_test_id("workers").locator("tbody").text_content() == "nothing"
    log_in(page)
    expect(page.get_by_test_id("state")).to_contain_text("logged in as BOSS")


def test_a_token_stays_in_the_page_s_memory(server: Server, open_console: Open) -> None:
    """In no URL, no storage, no cookie, no field; a reload asks for it again."""
    page = open_console(f"127.0.0.1:{server.port}", "/admin")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("websocket", lambda socket: asked.append(socket.url))
    log_in(page)
    expect(page.get_by_test_id("workers")).to_contain_text("ready")
    kept = page.evaluate(
        "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])"
    )
    assert asked
    assert "eyJ" not in "".join([*asked, kept, page.get_by_test_id("token").input_value()])
    page.reload()
    page.wait_for_selector("html[data-ready=yes]")
    expect(page.get_by_test_id("welcome")).to_be_visible()


def test_both_workers_are_shown(server: Server, open_console: Open) -> None:
    """A row each, and sums over both."""
    page = admin_page(open_console, server)
    with contextlib.ExitStack() as stack:
        for _ in range(10):
            client = stack.enter_context(server.connect("/public?stream=sum.trades"))
            client.receive()
        for pid in server.workers():
            expect(cells(page, "workers", str(pid)).nth(1)).to_have_text("ready")
        expect(page.get_by_test_id("streams").locator("tr", has_text="sum.trades")).to_contain_text(
            "10"
        )


def test_a_live_connection_is_followed(server: Server, open_console: Open) -> None:
    """By keyboard: find, tail, see both ways with the token masked, pause, end."""
    page = admin_page(open_console, server)
    for n in range(4):  # some are at the other worker
        uid = f"LIVE{n}"
        with connected(server, uid) as client:
            expect(find(page, "uid", uid)).to_have_count(1)
            button = page.get_by_role("button", name=re.compile(f"^Tail connection .* of {uid}"))
            button.focus()
            page.keyboard.press("Enter")
            expect(page.get_by_test_id("tailed")).to_contain_text(f"of {uid} from 127.0.0.1")
            client.subscribe("live.trades")
            client.send({"event": "auth", "token": make_token({"uid": uid})})
            server.publish("public.live.trades", f'{{"n":{n}}}')
            tail = page.get_by_test_id("tail")
            expect(tail).to_contain_text(f'{{"live.trades":{{"n":{n}}}}}')
            expect(tail).to_contain_text('"streams": ["live.trades"]')
            expect(tail).to_contain_text('"token": "***"')
            assert "eyJ" not in tail.inner_text()
            page.get_by_test_id("pause").click()
            shown = tail.locator("li").count()
            client.send("ping")
            client.receive_until(lambda text: text == "pong")
            page.wait_for_timeout(600)
            assert tail.locator("li").count() == shown
            page.get_by_test_id("pause").click()
            expect(tail).to_contain_text("pong")
            page.get_by_test_id("untail").click()
            expect(page.get_by_test_id("untail")).to_be_hidden()


def test_the_end_of_a_followed_connection_is_told(server: Server, open_console: Open) -> None:
    """With its reason; the last thing of a tail."""
    page = admin_page(open_console, server)
    with connected(server, "ENDS") as client:
        find(page, "uid", "ENDS").get_by_role("button", name="Tail").click()
        expect(page.get_by_test_id("tailed")).to_contain_text("of ENDS")
        find(page, "uid", "ENDS").get_by_role("button", name="Disconnect").click()
        assert client.connection.protocol.close_code is None, "asked back first"
        page.get_by_role("button", name="Sure? Disconnect connection").click()
        assert client.closed() == (4403, "revoked")
    expect(page.get_by_test_id("tail")).to_contain_text("close 4403 revoked")
    expect(page.get_by_test_id("tail")).to_contain_text("end revoked (4403)")
    expect(page.get_by_test_id("tailed")).to_contain_text("closed")
    expect(page.get_by_test_id("found")).to_contain_text("1 disconnected. 0 found")


def test_a_user_is_disconnected(server: Server, open_console: Open) -> None:
    """All connections of a uid at both workers, after the question; nobody else's."""
    page = admin_page(open_console, server)
    with contextlib.ExitStack() as stack:
        victims = [stack.enter_context(connected(server, "OUT")) for _ in range(6)]
        other = stack.enter_context(connected(server, "IN"))
        expect(find(page, "uid", "OUT")).to_have_count(6)
        page.get_by_test_id("disconnect-uid").click()
        expect(page.get_by_test_id("disconnect-uid")).to_have_text("Sure?")
        page.get_by_test_id("disconnect-uid").click()
        for victim in victims:
            assert victim.closed() == (4403, "revoked")
        expect(page.get_by_test_id("found")).to_contain_text("6 disconnected")
        other.send("ping")
        assert other.receive() == "pong"
    expect(page.get_by_test_id("closed").locator("tr", has_text="revoked")).to_be_visible()


def test_hostile_names_are_text(server: Server, open_console: Open) -> None:
    """Streams, users, roles, messages and events with markup in them: shown, and nothing more."""
    page = admin_page(open_console, server)
    title = page.title()
    uid = "<script>document.title='4'</script>"
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(
            server.connect("/public", make_token({"uid": uid, "role": "<b onclick=x>"}))
        )
        client.receive()
        client.subscribe(*HOSTILE)
        for name in HOSTILE:
            expect(page.get_by_test_id("streams").get_by_text(name, exact=True)).to_be_visible()
        expect(page.get_by_test_id("users").get_by_text(f"uid {uid}", exact=True)).to_be_visible()
        row = find(page, "stream", HOSTILE[0])
        expect(row.get_by_text("<b onclick=x>", exact=True)).to_be_visible()
        row.get_by_role("button", name="Tail").click()
        expect(page.get_by_test_id("tailed")).to_contain_text(uid)
        client.send(HOSTILE[1])
        client.send({"event": "list", "x": "\ud800\u0000\u202e" + HOSTILE[0]})
        client.receive_until(lambda text: '"list"' in text)
        server.publish("public.hostile.x", json.dumps(HOSTILE))
        client.subscribe("hostile.x")
        server.publish("public.hostile.x", json.dumps(HOSTILE))
        expect(page.get_by_test_id("tail")).to_contain_text("Could not parse message")
        expect(page.get_by_test_id("tail")).to_contain_text("hostile.x")
        made = page.evaluate(
            "[...document.querySelectorAll('main img, main script, main a, main b')].length"
        )
        assert made == 0
        assert page.title() == title


def test_the_page_comes_back(open_console: Open) -> None:
    """After its worker was killed it logs in again by itself."""
    with start_gateway(env={**ENV, "RANGO_WORKERS": "2"}) as server:
        wait_for(lambda: server.log().count("consuming") == 2, what="both workers' sources")
        page = admin_page(open_console, server)
        expect(page.get_by_test_id("workers").locator("tbody tr")).to_have_count(2)
        page.evaluate(STATES)
        for pid in server.workers():
            os.kill(pid, signal.SIGKILL)
        page.wait_for_function("() => states.some((words) => words.includes('lost (1006)'))")
        expect(page.get_by_test_id("state")).to_contain_text("logged in as BOSS")
        expect(page.get_by_test_id("workers")).to_contain_text("ready")


def test_a_token_that_ends_is_told_and_renewed(server: Server, open_console: Open) -> None:
    """Before the end; without a new one the page is logged out."""
    page = open_console(f"127.0.0.1:{server.port}", "/admin")
    log_in(page, exp=int(time.time()) + 25)
    expect(page.get_by_test_id("trouble")).to_contain_text("Your token ends in")
    expect(page.get_by_test_id("login")).to_have_text("Renew")
    log_in(page)
    expect(page.get_by_test_id("login")).to_have_text("Log out")
    page.get_by_test_id("login").click()
    log_in(page, exp=int(time.time()) + SHORT_LIFE_S)
    expect(page.get_by_test_id("state")).to_contain_text("4401: authentication expired")
    expect(page.get_by_test_id("workers")).to_be_hidden()


def test_focus_stays_while_figures_change(server: Server, open_console: Open) -> None:
    """A button that somebody has reached by keyboard is not taken away under the hand."""
    page = admin_page(open_console, server)
    with connected(server, "FOCUS"):
        show = page.get_by_role("button", name="Show connections of uid FOCUS")
        show.focus()
        looks = int(page.evaluate("document.documentElement.dataset.looks"))
        page.wait_for_function(
            "(looks) => Number(document.documentElement.dataset.looks) >= looks", arg=looks + 2
        )
        assert page.evaluate("document.activeElement.textContent") == "Show"
        page.keyboard.press("Enter")
        expect(page.get_by_test_id("found")).to_contain_text("1 found")


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_it_is_for_everybody(server: Server, open_console: Open, width: int, scheme: Any) -> None:
    """axe finds nothing serious, before and after the login; nothing sticks out."""
    page = open_console(f"127.0.0.1:{server.port}", "/admin")
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})
    page.evaluate(AXE())
    look_with_axe(page, width)
    log_in(page)
    long = "x" * 200
    with connected(server, long, f"/public?stream={long}.y"):
        expect(page.get_by_test_id("streams")).to_contain_text(long)
        find(page, "uid", long).get_by_role("button", name="Tail").click()
        expect(page.get_by_test_id("tailed")).to_contain_text(long)
        page.get_by_role("button", name="Disconnect this uid").click()
        look_with_axe(page, width)


def look_with_axe(page: Page, width: int) -> None:
    """Check the page as it is now."""
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    found = page.evaluate("axe.run()")["violations"]
    serious = [each for each in found if each["impact"] in ("serious", "critical")]
    assert [(each["id"], each["nodes"][0]["html"]) for each in serious] == []
