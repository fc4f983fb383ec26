"""The client comes back by positions to the real gateway, through connections that are cut."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import threading
from typing import Any, Callable, Iterator

import pytest
import relay
from support import HOST, Relay, Server, start_gateway, wait_for

from rango_gevent.client import Gap, Limits, Notice, StreamClient, aio

QUICK = Limits(
    open_s=10, close_s=1, idle_s=5, first_wait_s=0.02, max_wait_s=0.1, requests_per_s=1000.0,
    requests_burst=1000, resync_s=0.05,
)  # fmt: skip
EVENTS = 600


@contextlib.contextmanager
def path_to(gateway: Server) -> Iterator[tuple[str, relay.Relay]]:
    """Give a way to a gateway, and what cuts it."""
    with relay.Relay(gateway.port) as path:
        yield f"ws://{HOST}:{path.port}", path


def cuts(path: relay.Relay, recovered: Callable[[], int]) -> Callable[[], object]:
    """Return what cuts a path in one way after another, in the middle of a message too.

    Args:
        path: to cut.
        recovered: says how often a client got what it missed; every other cut waits for that,
            the others may come before the answer.
    """
    ways = itertools.cycle([path.cut, path.reset, lambda: path.break_after(1500)])
    accepted, known, waits = [0], [0], itertools.cycle([False, True])

    def cut() -> None:
        wait_for(lambda: path.accepted > accepted[0], what="a client that came back")
        if next(waits):
            wait_for(lambda: recovered() > known[0], what="what was missed")
        accepted[0], known[0] = path.accepted, recovered()
        next(ways)()

    return cut


def publish_all(gateway: Server, market: str, cut: Callable[[], object]) -> None:
    """Publish numbers and a book's increments, and cut every now and then."""
    for number in range(1, EVENTS + 1):
        gateway.publish(f"public.{market}.trades", str(number))
        gateway.publish("private.ID1.order", str(number))
        body = {"sequence": number + 1, "asks": [str(number), "1"]}
        gateway.publish(f"public.{market}.ob-inc", json.dumps(body))
        if number % 40 == 0:
            cut()


def snapshot(gateway: Server, market: str) -> None:
    """Publish an empty book."""
    gateway.publish(f"public.{market}.ob-snap", '{"sequence":1,"asks":[],"bids":[]}')


@pytest.mark.parametrize("per_connection", [0, 2])
def test_nothing_is_missed_and_nothing_comes_twice(
    gateway: Server, market: str, per_connection: int
) -> None:
    """Fifteen cuts while events flow: every one arrives once, in order; the book goes on."""
    gaps: list[Gap] = []
    reasons: list[str] = []
    snapshot(gateway, market)
    with path_to(gateway) as (url, path):
        client = StreamClient(
            url, token=gateway.token(uid="ID1"), per_connection=per_connection, limits=QUICK,
            jitter=random.Random(1),
        )  # fmt: skip
        with client:
            client.on_gap(gaps.append)
            trades = client.subscribe(f"{market}.trades").wait(30)
            orders = client.subscribe("order").wait(30)
            book = client.book(market).wait_synced(30)
            book.on_invalid(reasons.append)
            publish_all(gateway, market, cuts(path, lambda: client.stats().recovered))
            wanted = [str(number) for number in range(1, EVENTS + 1)]
            assert [trades.get(30).body for _ in wanted] == wanted
            assert [orders.get(30).body for _ in wanted] == wanted
            wait_for(lambda: book.is_synced and book.sequence == EVENTS + 1, what="the book")
            assert [level.price for level in book.asks] == list(range(1, EVENTS + 1))
            stats = client.stats()
            assert trades.buffer.backlog()[0] == 0
    assert gaps == []
    assert stats.reconnects >= 5
    assert stats.recovered >= 3
    assert (stats.resyncs, stats.garbage) == (0, 0)
    assert reasons  # while it was away it was not to be trusted


def test_nothing_is_missed_under_asyncio(gateway: Server, market: str) -> None:
    """The other front has the same core."""
    snapshot(gateway, market)

    async def follow(url: str, path: relay.Relay) -> tuple[list[str], Any, list[Gap]]:
        gaps: list[Gap] = []
        token = gateway.token(uid="ID1")
        async with aio.StreamClient(url, token=token, limits=QUICK) as client:
            client.on_gap(gaps.append)
            trades = await client.subscribe(f"{market}.trades").wait(30)
            book = await client.book(market).wait_synced(30)
            cut = cuts(path, lambda: client.stats().recovered)
            publisher = threading.Thread(target=publish_all, args=(gateway, market, cut))
            publisher.start()
            seen = [(await trades.get(30)).body for _ in range(EVENTS)]
            await asyncio.get_running_loop().run_in_executor(None, publisher.join, 30)
            for _ in range(300):
                if book.is_synced and book.sequence == EVENTS + 1:
                    break
                await asyncio.sleep(0.1)
            return seen, (book.is_synced, book.sequence, client.stats()), gaps

    with path_to(gateway) as (url, path):
        seen, (is_synced, sequence, stats), gaps = asyncio.run(follow(url, path))
    assert seen == [str(number) for number in range(1, EVENTS + 1)]
    assert (is_synced, sequence, gaps) == (True, EVENTS + 1, [])
    assert (stats.reconnects >= 5, stats.recovered >= 3) == (True, True)


def test_what_cannot_be_recovered_is_a_gap_with_its_reason(market: str) -> None:
    """More than the gateway gives back; and what is said of both outcomes."""
    gaps: list[Gap] = []
    notices: list[Notice] = []
    with (
        start_gateway(env={"RANGO_RESUME_EVENTS": "5"}) as server,
        path_to(server) as (url, path),
        StreamClient(url, limits=QUICK) as client,
    ):
        client.on_gap(gaps.append)
        client.on_notice(notices.append)
        trades = client.subscribe(f"{market}.trades").wait(30)
        for count, is_recovered in ((3, True), (20, False)):
            path.refuse()
            path.cut()
            for number in range(count):
                server.publish(f"public.{market}.trades", str(number))
            server.catch_up()
            before = client.stats().reconnects
            path.heal()
            wait_for(lambda: client.stats().reconnects > before, what="a reconnect")  # noqa: B023
            if is_recovered:
                assert [trades.get(30).body for _ in range(count)] == ["0", "1", "2"]
                wait_for(lambda: client.stats().recovered == 1, what="the reply")
        wait_for(lambda: gaps, what="the gap")
        stats = client.stats()
    assert [(gap.streams, gap.reason) for gap in gaps] == [((f"{market}.trades",), "too_many")]
    assert (stats.recovered, stats.gaps) == (1, 1)
    texts = [notice.text for notice in notices if notice.kind == "state"]
    assert f"recovered {market}.trades: 3 events" in texts


def test_a_broker_that_was_away_is_a_gap(market: str) -> None:
    """The gateway cannot know what it missed, and says so on the connection that is there."""
    gaps: list[Gap] = []
    way = Relay()
    way.open()
    with (
        start_gateway(env={"RANGO_AMQP_URL": way.url}) as server,
        StreamClient(server.url, limits=QUICK) as client,
    ):
        client.on_gap(gaps.append)
        trades = client.subscribe(f"{market}.trades").wait(30)
        server.publish(f"public.{market}.trades", "1")
        assert trades.get(30).body == "1"
        way.cut()
        wait_for(lambda: gaps, what="the gap")
        way.open()
        wait_for(lambda: server.get("/readyz").status == 200, what="the broker")
        server.publish(f"public.{market}.trades", "2")
        assert trades.get(30).body == "2"
        assert client.stats().reconnects == 0
    way.cut()
    assert gaps[0].streams == (f"{market}.trades",)
    assert gaps[0].reason


def test_without_resume_it_is_as_before(gateway: Server, market: str) -> None:
    """Nothing is asked for, the gap is told, and the book begins with its snapshot."""
    gaps: list[Gap] = []
    snapshot(gateway, market)
    with (
        path_to(gateway) as (url, path),
        StreamClient(url, limits=QUICK, resume=False) as client,
    ):
        client.on_gap(gaps.append)
        client.subscribe(f"{market}.trades").wait(30)
        book = client.book(market).wait_synced(30)
        path.cut()
        wait_for(lambda: gaps, what="the gap")
        book.wait_synced(30)
        assert client.stats().recovered == 0
