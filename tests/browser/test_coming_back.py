"""What pages miss while they have no connection: nothing, or they are told."""

from __future__ import annotations

import itertools
import time
from typing import Any, Iterator

import pytest
from playwright.sync_api import BrowserContext, Page
from stage import Stage

DEADLINE_S = 60.0
STREAM = "n.numbers"
# the client, what it heard, and what it was told when it came back
LISTEN = f"""async (shared) => {{
    const {{ Rango }} = await import("/client/rango.js");
    window.rango = new Rango(location.origin, {{ shared, maxReconnectDelay: 200 }});
    const numbers = rango.subscribe("{STREAM}");
    window.heard = [];
    window.reports = [];
    numbers.on("publication", ({{ data }}) => heard.push(data));
    numbers.on("subscribed", ({{ wasRecovering, recovered, reason }}) =>
        wasRecovering && reports.push(recovered ? "recovered" : reason));
    rango.connect();
    while (numbers.state !== "subscribed") await new Promise((done) => setTimeout(done, 5));
}}"""


class Numbers:
    """A stream of numbers, one after the other, and pages that hear them."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._next = itertools.count(1)
        self.last = 0

    def publish(self, count: int = 20) -> None:
        """Publish some more."""
        for number in itertools.islice(self._next, count):
            self.last = number
            self._stage.server.publish(f"public.{STREAM}", str(self.last))

    def expect(self, page: Page, first: int = 1) -> None:
        """Publish until the last came; each of all must have come once, in order."""
        deadline = time.monotonic() + DEADLINE_S
        looks = 10
        while True:
            looks *= 2  # a slow page is given more time before the next
            self.publish(1)
            for _ in range(looks):
                heard = page.evaluate("heard")
                if heard and heard[-1] == self.last:
                    assert heard == list(range(first, self.last + 1))
                    return
                page.wait_for_timeout(10)
            assert time.monotonic() < deadline, (heard[-5:], self.last)


@pytest.fixture
def numbers(stage: Stage) -> Numbers:
    """Numbers of the test's own."""
    return Numbers(stage)


def listener(context: BrowserContext, stage: Stage, shared: Any = False) -> Page:
    """Open a page that listens."""
    page = context.new_page()
    page.goto(f"http://{stage.address}/healthz")
    page.evaluate(LISTEN, shared)
    return page


@pytest.fixture
def page(context: BrowserContext, stage: Stage) -> Iterator[Page]:
    """A page that listens."""
    made = listener(context, stage)
    yield made
    made.close()


@pytest.mark.parametrize("trouble", ["cut", "reset"])
def test_a_cut_loses_nothing(stage: Stage, page: Page, numbers: Numbers, trouble: str) -> None:
    """Again and again, while events go on."""
    for count in range(1, 4):
        numbers.publish()
        getattr(stage.relay, trouble)()
        numbers.publish()
        page.wait_for_function("(count) => reports.length === count", arg=count)
        numbers.expect(page)
    assert page.evaluate("reports") == ["recovered"] * 3


def test_a_while_without_a_network_loses_nothing(
    stage: Stage, context: BrowserContext, page: Page, numbers: Numbers
) -> None:
    """The connection went dead in silence."""
    numbers.expect(page)
    stage.relay.black_hole()
    context.set_offline(True)
    numbers.publish()
    stage.relay.heal()
    context.set_offline(False)
    numbers.expect(page)
    assert page.evaluate("reports") == ["recovered"]


def test_a_sleep_loses_nothing(
    stage: Stage, context: BrowserContext, page: Page, numbers: Numbers
) -> None:
    """The page was frozen when the connection was lost."""
    numbers.expect(page)
    session = context.new_cdp_session(page)
    session.send("Page.setWebLifecycleState", {"state": "frozen"})
    stage.relay.reset()
    numbers.publish()
    session.send("Page.setWebLifecycleState", {"state": "active"})
    numbers.expect(page)


@pytest.mark.parametrize("kill", [False, True])
def test_a_restart_is_told(stage: Stage, page: Page, numbers: Numbers, kill: bool) -> None:
    """Without a log nobody knows what was missed, and that is said; then all goes on."""
    numbers.expect(page)
    stage.restart(kill=kill)
    page.wait_for_function("() => reports.length")
    assert page.evaluate("reports") == ["other_history"]
    page.evaluate("heard.length = 0")
    first = numbers.last + 1
    numbers.expect(page, first)


def test_tabs_that_share_a_connection_lose_nothing(
    stage: Stage, context: BrowserContext, numbers: Numbers
) -> None:
    """Over a cut, and when the tab that has the connection is closed."""
    leader, other = (listener(context, stage, "numbers") for _ in range(2))
    numbers.publish()
    stage.relay.reset()
    numbers.publish()
    for page in (leader, other):
        numbers.expect(page)
    numbers.publish()
    leader.close()
    numbers.publish()
    numbers.expect(other)
    assert set(other.evaluate("reports")) == {"recovered"}
    other.close()
