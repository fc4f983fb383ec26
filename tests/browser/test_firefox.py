"""The ways in and ``rango.js`` in Debian's Firefox: what other engines are trusted to do alike."""

from __future__ import annotations

import time
from typing import Any, Iterator

import pytest
from auth_page import ADDRESS, IMPATIENT, PROGRAMS, SETTINGS, WATCH, WAYS, Program
from firefox import Firefox, Tab
from stage import MARKET, Stage
from support import HOST, Server, make_token, start_gateway, wait_for

DEADLINE_S = 60.0


@pytest.fixture(scope="module")
def firefox() -> Iterator[Firefox]:
    """Firefox as Debian has it."""
    with Firefox() as running:
        yield running


@pytest.fixture
def tab(firefox: Firefox) -> Iterator[Tab]:
    """A page of the test's own."""
    made = firefox.tab()
    yield made
    made.close()
    firefox.forget_cookies()


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


@pytest.mark.parametrize("program", PROGRAMS, ids=WAYS)
def test_a_program_receives_what_is_private(
    firefox: Firefox, tab: Tab, server: Server, program: Program
) -> None:
    """As docs/AUTH.md prints it; the cookie's has no token in its hands."""
    uid = f"FF{PROGRAMS.index(program)}"
    token = make_token({"uid": uid})
    if program.way == "cookie":
        firefox.set_cookie(HOST, "session", token)
    tab.goto(f"{server.http}/healthz")
    code = program.code.replace(ADDRESS, f"{HOST}:{server.port}")
    tab.evaluate(f"(token) => {{ {code} }}", None if program.way == "cookie" else token)

    def has_come() -> bool:
        server.publish(f"private.{uid}.order", '{"id":1}')
        return any('{"order":{"id":1}}' in text for text in tab.printed())

    wait_for(has_come, DEADLINE_S, "the order")


@pytest.mark.parametrize(
    ("claims", "reason", "code"),
    [({"exp": 1}, "expired", 1203), ({"nbf": 1 << 40}, "not yet valid", 1204)],
)
def test_a_page_sees_why_it_is_refused(
    tab: Tab, impatient: Server, claims: dict[str, Any], reason: str, code: int
) -> None:
    """As a message and a close code."""
    tab.goto(f"{impatient.http}/healthz")
    protocols = ["rango.v1", f"bearer.{make_token(claims)}"]
    found = tab.evaluate(WATCH, [f"{impatient.url}/private", protocols])
    assert found["heard"][1] == f'{{"error":"authentication failed: {reason}","code":{code}}}'
    assert (found["code"], found["reason"]) == (4401, "authentication missing")
    assert found["protocol"] == "rango.v1"


RANGO = f"""async (token) => {{
    const {{ Rango }} = await import("/client/rango.js");
    window.rango = new Rango(location.origin, {{ getToken: () => token, maxReconnectDelay: 200 }});
    window.closes = [];
    rango.on("state", ({{ code }}) => code && closes.push(code));
    window.order = rango.subscribe("order");
    window.orders = [];
    order.on("publication", ({{ data }}) => orders.push(data));
    window.book = rango.book("{MARKET}", {{ snapshotLevels: 1e9 }});
    rango.connect();
}}"""
BOOK = "() => ({ state: book.state, sequence: book.sequence, asks: book.asks, bids: book.bids })"


def expect_the_book(tab: Tab, stage: Stage) -> None:
    """Advance the market until the page has its book, to the level."""
    deadline = time.monotonic() + DEADLINE_S
    looks = 20
    while True:
        right = stage.tick()
        wanted = {"state": "synced", **{name: right[name] for name in ("sequence", "asks", "bids")}}
        for _ in range(looks):
            has = tab.evaluate(BOOK)
            if has == wanted:
                return
            if has["state"] != "synced":
                break  # it waits for a snapshot, and they come with events
            time.sleep(0.01)
        else:
            looks *= 2  # a slow page is given more time before the next event
        assert time.monotonic() < deadline, (has, wanted)


def test_rango_js_heals(tab: Tab) -> None:
    """Over a cut, a restart and a kill: the user is known, and the book is the publisher's."""
    with Stage() as stage:
        stage.tick()
        stage.server.catch_up()
        tab.goto(f"http://{stage.address}/healthz")
        tab.evaluate(RANGO, make_token({"uid": "ID7"}))
        expect_the_book(tab, stage)
        for number, trouble in enumerate(("cut", "reset", "restart", "kill"), 1):
            if trouble in ("restart", "kill"):
                stage.restart(kill=trouble == "kill")
            else:
                getattr(stage.relay, trouble)()
            wait_for(lambda n=number: len(tab.evaluate("() => closes")) >= n, DEADLINE_S, trouble)
            expect_the_book(tab, stage)
            wait_for(
                lambda: tab.evaluate("() => [rango.uid, order.state]") == ["ID7", "subscribed"],
                DEADLINE_S,
            )
        assert set(tab.evaluate("() => closes")) == {1006, 1012}
        before = len(tab.evaluate("() => orders"))
        stage.server.publish("private.ID7.order", '{"id":1}')
        wait_for(lambda: len(tab.evaluate("() => orders")) > before, DEADLINE_S, "an order")


def test_the_console_shows_a_market(tab: Tab) -> None:
    """It connects, and its ladder is in order."""
    with Stage(RANGO_CONSOLE="on") as stage:
        stage.tick()
        stage.server.catch_up()
        tab.goto(f"http://{stage.address}/console")
        shown = """() => ["state", "ladder"].map((name) =>
            document.querySelector(`[data-testid=${name}]`).dataset.state)"""
        wait_for(
            lambda: stage.tick() and tab.evaluate(shown) == ["connected", "synced"], DEADLINE_S
        )
        assert [line for line in tab.printed() if "rror" in line] == []
