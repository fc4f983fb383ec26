"""The console in a real browser: what it shows, and that it shows it to everybody."""

from __future__ import annotations

import re
import sys
import time
from typing import Any, Callable, Iterator

import pytest
from playwright.sync_api import BrowserContext, Page, expect
from stage import MARKET, Stage
from support import ROOT, Server, make_token, start_gateway, wait_for

AXE = (ROOT / "tests" / "js" / "node_modules" / "axe-core" / "axe.min.js").read_text
ROWS = 12
DEADLINE_S = 60.0
SHORT_LIFE_S = 8  # of a token whose end is waited for: longer than a slow page takes to log in

Open = Callable[[str], Page]


def shown_book(page: Page) -> Any:
    """Return the ladder as the page shows it: sequence, then levels of each side, best first."""
    return page.evaluate(
        """() => {
            const rows = (id) => [...document.getElementById(id).rows]
                .map((row) => [row.cells[0].textContent, row.cells[1].textContent])
                .filter(([price]) => price.trim());
            const ladder = document.querySelector("[data-testid=ladder]");
            const { state, sequence } = ladder.dataset;
            return { state, sequence, asks: rows("asks").reverse(), bids: rows("bids") };
        }"""
    )


def expect_the_book(page: Page, stage: Stage) -> None:
    """Advance the market until the page shows its book, to the level."""
    deadline = time.monotonic() + DEADLINE_S
    looks = 20
    while True:
        right = stage.tick()
        wanted = {
            "state": "synced",
            "sequence": str(right["sequence"]),
            "asks": right["asks"][:ROWS],
            "bids": right["bids"][:ROWS],
        }
        for _ in range(looks):
            shown = shown_book(page)
            if shown == wanted:
                return
            if shown["state"] != "synced":
                break  # it waits for a snapshot, and they come with events
            page.wait_for_timeout(10)
        else:
            looks *= 2  # a slow page is given more time before the next event
        assert time.monotonic() < deadline, (shown, wanted)


def points(page: Page, chart: str) -> int:
    """Return how many points a chart was given."""
    return int(page.get_by_test_id(chart).get_attribute("data-points") or 0)


@pytest.fixture(scope="module")
def demo() -> Iterator[Server]:
    """The demo as `make run` starts it."""
    words = [sys.executable, "-m", "rango_gevent", "demo", "-ws-addr", "127.0.0.1:{port}"]
    words += ["--metrics-port", "{metrics_port}"]
    with start_gateway(command=words, env={"RANGO_AMQP_URL": ""}) as server:
        yield server


def test_the_demo_shows_a_market(demo: Server, open_console: Open) -> None:
    """Its first line is the page's address; ladder, candles, prices, rates and events move."""
    first = next(line for line in demo.log().splitlines() if line)
    assert first == f"Look at it: {demo.http}/console"
    page = open_console(f"127.0.0.1:{demo.port}")
    expect(page.get_by_test_id("state")).to_contain_text("connected")
    expect(page.get_by_test_id("ladder")).to_have_attribute("data-state", "synced")
    for chart in ("candles", "prices"):
        wait_for(lambda name=chart: points(page, name) > 0, what=chart)
    expect(page.get_by_test_id("rates").locator("canvas")).to_be_visible()
    before = shown_book(page)["sequence"]
    wait_for(lambda: shown_book(page)["sequence"] != before, what="another book")
    rates = page.locator("#streams .figure")
    wait_for(lambda: len(set(rates.all_inner_texts()) - {"–", "0/s"}) > 1, what="rates of streams")
    drawn = points(page, "prices")
    wait_for(lambda: points(page, "prices") > drawn, 30, "another price")
    wait_for(lambda: page.get_by_test_id("latency").inner_text().isdigit(), what="a round trip")


def test_a_user_sees_the_orders(demo: Server, open_console: Open) -> None:
    """One click logs in, and the private streams come; another logs out."""
    page = open_console(f"127.0.0.1:{demo.port}")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("websocket", lambda socket: asked.append(socket.url))
    page.get_by_test_id("login").click()
    expect(page.get_by_test_id("user")).to_contain_text("private streams come too")
    assert asked
    assert not any("eyJ" in url for url in asked), "a token is never in a URL"
    expect(page.get_by_test_id("orders").locator("tbody tr").first).to_be_visible()
    page.get_by_test_id("login").click()
    expect(page.get_by_test_id("user")).to_contain_text("public streams only")
    expect(page.get_by_test_id("orders")).to_be_hidden()


def test_a_bad_token_is_told(demo: Server, open_console: Open) -> None:
    """In words, while the public streams go on."""
    page = open_console(f"127.0.0.1:{demo.port}")
    page.locator("#token").fill("a.b.c")
    page.get_by_test_id("login").click()
    expect(page.locator("#trouble")).to_contain_text("authentication failed: malformed")
    expect(page.get_by_test_id("user")).to_contain_text("Not logged in")
    expect(page.get_by_test_id("ladder")).to_have_attribute("data-state", "synced")


def test_an_expired_token_is_told(open_console: Open) -> None:
    """The reason of the close is shown; a fresh token puts all right."""
    with Stage(RANGO_CONSOLE="on", RANGO_TOKEN_GRACE_S="0") as stage:
        stage.tick()
        stage.server.catch_up()
        page = open_console(stage.address)
        page.locator("#token").fill(make_token({"exp": int(time.time()) + SHORT_LIFE_S}))
        page.get_by_test_id("login").click()
        expect(page.get_by_test_id("user")).to_contain_text("private streams come too")
        expect(page.get_by_test_id("state")).to_contain_text("last close 4401")
        expect(page.locator("#trouble")).to_contain_text("authentication failed: expired")
        page.get_by_test_id("login").click()
        page.locator("#token").fill(make_token({}))
        page.get_by_test_id("login").click()
        expect(page.get_by_test_id("user")).to_contain_text("private streams come too")
        expect_the_book(page, stage)


def test_events_can_be_held_filtered_expanded(demo: Server, open_console: Open) -> None:
    """By keyboard alone: subscribe, filter, pause, expand."""
    page = open_console(f"127.0.0.1:{demo.port}")
    page.get_by_test_id("stream-input").focus()
    page.keyboard.type("global.tickers")
    page.keyboard.press("Enter")
    page.get_by_test_id("filter").focus()
    page.keyboard.type("global.tick")
    events = page.get_by_test_id("events")
    expect(events.locator("li").first).to_contain_text("global.tickers")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("pause")).to_have_attribute("aria-pressed", "true")
    row = events.locator("li").first
    row.locator("button.what").focus()
    page.keyboard.press("Enter")
    expect(row.locator("pre")).to_contain_text('"base_unit": "btc"')
    assert page.get_by_test_id("events").locator("li", has_text="btcusd.ob-inc").count() == 0


def test_the_demo_s_form_publishes(demo: Server, open_console: Open) -> None:
    """What is published comes back as an event; what is no JSON is refused in words."""
    page = open_console(f"127.0.0.1:{demo.port}")
    page.get_by_test_id("stream-input").fill("btcusd.news")
    page.get_by_test_id("subscribe").click()
    page.get_by_test_id("publish-body").fill('{"text":"good day"}')
    page.get_by_test_id("filter").fill("good day")
    page.get_by_test_id("publish").click()
    expect(page.get_by_test_id("events").locator("li")).to_have_count(1)
    page.get_by_test_id("publish-body").fill("{")
    page.get_by_test_id("publish").click()
    expect(page.locator("#published")).to_contain_text("not JSON")


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_it_is_for_everybody(demo: Server, open_console: Open, width: int, scheme: Any) -> None:
    """axe finds nothing serious, and nothing sticks out of a narrow screen."""
    page = open_console(f"127.0.0.1:{demo.port}")
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})
    expect(page.get_by_test_id("events").locator("li").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.evaluate(AXE())
    found = page.evaluate("axe.run()")["violations"]
    serious = [each for each in found if each["impact"] in ("serious", "critical")]
    assert [(each["id"], each["nodes"][0]["html"]) for each in serious] == []


def test_hundreds_of_events_do_not_freeze_it(stage: Stage, open_console: Open) -> None:
    """200 a second take a part of a processor, never much at once, and clicks are answered.

    It is the time of the page's own thread that is bounded, as a busy machine does not change it.
    """
    page = open_console(stage.address)
    expect_the_book(page, stage)
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def worked_s() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return float(next(each["value"] for each in metrics if each["name"] == "ThreadTime"))

    count, pause = page.get_by_test_id("count"), page.get_by_test_id("pause")
    before, begin_s = int(count.inner_text()), time.monotonic()
    waits, costs = [], []
    shown = 0
    while time.monotonic() < begin_s + 3 or shown < 600:
        assert time.monotonic() < begin_s + 2 * DEADLINE_S
        worked_before_s = worked_s()
        for _ in range(20):
            stage.tick()
        clicked_s = time.monotonic()
        pause.click()
        waits.append(time.monotonic() - clicked_s)
        costs.append(worked_s() - worked_before_s)
        shown = int(count.inner_text()) - before
    assert sum(costs) / shown * 200 < 1, "seconds of work for a second's events"
    assert max(costs) < 1, "it was frozen"
    assert sorted(waits)[len(waits) // 2] < 2
    expect_the_book(page, stage)


MISSED = "events were missed: the server's history is another one than before"


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ("kill", MISSED),
        ("restart", MISSED),
        ("reset", "nothing was missed"),
        ("cut", "nothing was missed"),
    ],
)
def test_it_recovers(stage: Stage, open_console: Open, trouble: str, words: str) -> None:
    """The page connects again by itself, says what it missed, and the book is right again."""
    page = open_console(stage.address)
    expect_the_book(page, stage)
    if trouble in ("kill", "restart"):
        stage.restart(kill=trouble == "kill")
    else:
        getattr(stage.relay, trouble)()
    expect(page.get_by_test_id("state")).to_contain_text(words)
    expect(page.get_by_test_id("state")).to_have_attribute("data-state", "connected")
    expect_the_book(page, stage)


def test_a_lost_gateway_is_told(stage: Stage, open_console: Open) -> None:
    """The reason of the last close and the time to the next try are shown, then all is well."""
    page = open_console(stage.address)
    expect_the_book(page, stage)
    stage.relay.refuse()
    stage.relay.reset()
    expect(page.get_by_test_id("state")).to_contain_text("next try in")
    expect(page.get_by_test_id("state")).to_contain_text("last close 1006")
    expect(page.get_by_test_id("ladder")).to_have_attribute("data-state", "invalid")
    stage.relay.heal()
    expect_the_book(page, stage)


def test_back_on_the_network(stage: Stage, context: BrowserContext, open_console: Open) -> None:
    """A connection that went dead in silence is found out when the browser is online again."""
    page = open_console(stage.address)
    expect_the_book(page, stage)
    stage.relay.black_hole()
    context.set_offline(True)
    stage.relay.heal()
    context.set_offline(False)
    expect_the_book(page, stage)


def test_a_tab_that_slept(stage: Stage, context: BrowserContext, open_console: Open) -> None:
    """A frozen page whose connection was lost meanwhile recovers when it is thawed."""
    page = open_console(stage.address)
    expect_the_book(page, stage)
    session = context.new_cdp_session(page)
    session.send("Page.setWebLifecycleState", {"state": "frozen"})
    stage.relay.reset()
    for _ in range(5):
        stage.tick()
    session.send("Page.setWebLifecycleState", {"state": "active"})
    expect_the_book(page, stage)


def test_the_program_of_the_readme(stage: Stage, context: BrowserContext) -> None:
    """As it is printed, in a page of the gateway's own origin."""
    readme = (ROOT / "README.md").read_text()
    (program,) = re.findall(r'^```js\nimport .*?"(/client.*?\n)```$', readme, re.M | re.S)
    script, _, rest = program.partition('";\n')
    page = context.new_page()
    heard: list[str] = []
    page.on("console", lambda message: heard.append(message.text.split(" ")[0]))
    page.route("**/token", lambda route: route.fulfill(body=""))
    page.goto(f"http://{stage.address}/healthz")
    page.evaluate(f"async () => {{ const {{ Rango }} = await import('{script}'); {rest} }}")
    deadline = time.monotonic() + DEADLINE_S
    while not {"connected", "trade", "book"} <= set(heard):
        assert time.monotonic() < deadline, heard
        stage.tick()
        page.wait_for_timeout(20)


SHARED = f"""async () => {{
    const {{ Rango }} = await import("/client/rango.js");
    window.rango = new Rango(location.origin, {{ shared: true, maxReconnectDelay: 200 }});
    window.book = rango.book("{MARKET}");
    rango.connect();
}}"""


def test_tabs_share_one_connection(stage: Stage, context: BrowserContext) -> None:
    """Each has the book; when the one that leads is stopped or closed, another takes over."""

    def sequence(page: Page) -> Any:
        return page.evaluate("book.state === 'synced' && book.sequence")

    def expect_one_client() -> None:
        clients = "rango_hub_clients_count"  # those of the tests before may just be going
        wait_for(lambda: stage.server.metric(clients) == 1, what="one connection")

    def follow(*tabs: Page) -> None:
        deadline = time.monotonic() + DEADLINE_S
        wanted, got = [0], []
        looks = 20
        while got != wanted:
            assert time.monotonic() < deadline, (got, wanted)
            wanted = [stage.tick()["sequence"]] * len(tabs)
            for _ in range(looks):
                got = [sequence(tab) for tab in tabs]
                if got == wanted or False in got:
                    break
                tabs[0].wait_for_timeout(10)
            else:
                looks *= 2

    tabs = []
    for _ in range(3):
        page = context.new_page()
        page.goto(f"http://{stage.address}/healthz")
        page.evaluate(SHARED)
        tabs.append(page)
        follow(*tabs)
        expect_one_client()
    session = context.new_cdp_session(tabs[0])
    session.send("Page.setWebLifecycleState", {"state": "frozen"})
    tabs[1].evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    follow(*tabs[1:])
    session.send("Page.setWebLifecycleState", {"state": "active"})
    follow(*tabs)
    expect_one_client()
    tabs[1].close()
    tabs = [tabs[0], tabs[2]]
    follow(*tabs)
    expect_one_client()
    for page in tabs:
        page.close()
