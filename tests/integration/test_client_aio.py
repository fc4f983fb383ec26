"""The asyncio client against a gateway that does as it is told, and against the real one."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from typing import Any, Awaitable, Callable, Iterator

import pytest
from support import Server

from rango_gevent.client import (
    ConnectionLost,
    Gap,
    Limits,
    Overflow,
    RequestFailed,
    StateChange,
    SubscriptionRefused,
)
from rango_gevent.client.aio import StreamClient
from rango_gevent.client.testing import FakeGateway
from rango_gevent.errors import Refused

QUICK = Limits(
    open_s=10, close_s=1, idle_s=0.3, pong_s=1, first_wait_s=0.01, max_wait_s=0.05, resync_s=0.01
)


@pytest.fixture(name="fake")
def fake_gateway() -> Iterator[FakeGateway]:
    """A gateway of this test's own."""
    with FakeGateway() as running:
        yield running


def client(fake: FakeGateway, **more: Any) -> StreamClient:
    """Return a client with short waits."""
    limits = more.pop("limits", QUICK)
    return StreamClient(fake.url, limits=limits, jitter=random.Random(1), **more)


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run a coroutine to its end, within bounds."""

    async def bounded() -> None:
        await asyncio.wait_for(test(), 120)

    asyncio.run(bounded())


async def until(predicate: Callable[[], object]) -> None:
    """Wait for something to be true; `run` bounds it."""
    while not predicate():
        await asyncio.sleep(0.005)


def test_streams_books_and_requests(fake: FakeGateway) -> None:
    """All of the API in a row, as its user would write it."""

    async def test() -> None:
        async def fetch() -> str:
            return "jwt"

        async with client(fake, token=fetch, per_connection=200) as ours:
            trades = await ours.subscribe("btcusd.trades").wait(30)
            fake.publish("b.ob-snap", '{"asks":[["9","1"]],"bids":[["7","1"]],"sequence":1}')
            async with ours.book("b") as book:
                await book.wait_synced(30)
                fake.publish("b.ob-inc", '{"bids":["8","2"],"sequence":2}')
                async for change in book:
                    if change.kind == "update":
                        break
                assert (book.best_bid, book.best_ask) == ((8, 2), (9, 1))
                assert (book.bids, book.asks) == ([(8, 2), (7, 1)], [(9, 1)])
            held = await ours.request({"event": "list"}, timeout=60)
            assert held["streams"][0] == "btcusd.trades"
            with pytest.raises(RequestFailed, match="Invalid event"):
                await ours.request({"event": "nothing"})
            for number in range(2):
                fake.publish("btcusd.trades", str(number))
            assert (await trades.get(30)).body == "0"
            async for event in ours:
                assert event[:2] == ("btcusd.trades", "1")
                break
            with pytest.raises(TimeoutError):
                await trades.get(0.05)
        assert fake.tokens == ["jwt"]

    run(test)


@pytest.mark.parametrize("reason", ["", "too_many"])
@pytest.mark.parametrize("fault", ["cut", "close", "stall"])
def test_it_comes_back_from_every_fault(fake: FakeGateway, fault: str, reason: str) -> None:
    """And holds its streams and books again; what was missed is there, or the gap is told."""
    fake.unrecoverable = reason

    async def test() -> None:
        gaps: list[Gap] = []
        states: list[StateChange] = []
        async with client(fake) as ours:
            ours.hooks.gap.append(gaps.append)
            ours.hooks.state.append(states.append)
            stream = await ours.subscribe("a.b").wait(30)
            fake.publish("m.ob-snap", '{"asks":[["9","1"]],"bids":[],"sequence":1}')
            book = await ours.book("m").wait_synced(30)
            reasons: list[str] = []
            book.on_invalid(reasons.append)
            getattr(fake, fault)()
            await until(lambda: any(change.state == "idle" for change in states))
            if not reason:  # else it comes or not, as it happens
                fake.publish("a.b", "0")
            fake.resume()
            if reason:
                await until(lambda: gaps)
                assert gaps[0].reason == "too_many"
            else:
                assert (await stream.get(30)).body == "0"
            await book.wait_synced(30)
            assert bool(gaps) is bool(reason)
            fake.publish("a.b", "1")
            assert (await stream.get(30)).body == "1"
            assert len(reasons) == 1
            assert ours.stats().reconnects == 1

    run(test)


def test_refusals_end_the_wait(fake: FakeGateway) -> None:
    """Of one stream, and of the whole client."""
    fake.refused.add("order")

    async def test() -> None:
        async with client(fake) as ours:
            with pytest.raises(SubscriptionRefused, match="needs a token"):
                await ours.subscribe("order").wait(30)
        fake.accepts = lambda token: False
        async with client(fake, token="old") as ours:
            with pytest.raises(SubscriptionRefused, match="HTTP 401"):
                await ours.subscribe("order").wait(30)
            with pytest.raises(Refused, match="HTTP 401"):
                await ours.request({"event": "list"})
            with pytest.raises(SubscriptionRefused, match="HTTP 401"):
                await ours.book("m").wait_synced(30)

    run(test)


@pytest.mark.parametrize("policy", ["block", "error"])
def test_who_is_slow_stops_nobody_else(fake: FakeGateway, policy: str) -> None:
    """Under ``block`` nothing is lost; under ``error`` its reader is told."""

    async def test() -> None:
        async with client(fake) as ours:
            slow = await ours.subscribe("a.b", policy=policy, size=2).wait(30)
            for number in range(10):
                fake.publish("a.b", str(number))
            if policy == "block":
                assert [(await slow.get(30)).body for _ in range(10)] == [str(n) for n in range(10)]
            else:
                await until(lambda: ours.stats().dropped == 8)
                assert [(await slow.get(30)).body for _ in range(2)] == ["0", "1"]
                with pytest.raises(Overflow, match="8 events"):
                    await slow.get(30)
            assert ours.stats().reconnects == 0

    run(test)


def test_pending_requests_fail_with_the_connection(fake: FakeGateway) -> None:
    """At once, and a closed client answers nothing more."""

    async def test() -> None:
        async with client(fake, limits=QUICK._replace(idle_s=60)) as ours:
            await ours.wait_live(30)
            fake.stall()
            request = asyncio.ensure_future(ours.request({"event": "list"}, timeout=50))
            await until(lambda: ours.core.pool.links[0].matcher._waiting)
            fake.cut()
            with pytest.raises(ConnectionLost):
                await request
            fake.resume()
        with pytest.raises(EOFError):
            await ours.request({"event": "list"})

    run(test)


def test_close_from_a_listener_ends_the_iteration(fake: FakeGateway) -> None:
    """It waits for nothing there, and whoever iterates just ends."""

    async def test() -> None:
        ours = client(fake)
        ours.hooks.state.append(lambda change: change.state == "live" and ours.close())
        async with ours:
            assert [event async for event in ours] == []

    run(test)


def test_close_ends_an_attempt_to_connect(fake: FakeGateway) -> None:
    """A gateway that never answers does not hold it up."""
    fake.stall()

    async def test() -> None:
        async with client(fake, limits=QUICK._replace(open_s=50)) as ours:
            await until(lambda: fake.accepted)
        assert ours.core.has_ended

    run(test)
    fake.resume()


def test_many_reconnects_leave_nothing(fake: FakeGateway) -> None:
    """No task, no thread and no descriptor is left."""

    async def test() -> None:
        gaps: list[Gap] = []
        limits = QUICK._replace(
            first_wait_s=0.001, max_wait_s=0.001, idle_s=60, requests_per_s=10_000
        )
        before = len(asyncio.all_tasks())
        fake.unrecoverable = "too_many"
        async with client(fake, limits=limits) as ours:
            ours.hooks.gap.append(gaps.append)
            await ours.subscribe("a.b").wait(30)
            tasks, files = len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd"))
            for number in range(200):
                (fake.cut if number % 2 else fake.close)()
                await until(lambda: len(gaps) > number)  # noqa: B023
            await until(lambda: len(asyncio.all_tasks()) <= tasks)
            assert len(os.listdir("/proc/self/fd")) <= files + 2
        await until(lambda: len(asyncio.all_tasks()) <= before)
        assert not [one for one in threading.enumerate() if "rango-client" in one.name]

    run(test)


def test_the_gateway(gateway: Server, market: str) -> None:
    """Public and private events, with a token for each connect."""

    async def test() -> None:
        token = lambda: gateway.token(uid="IDAIO")  # noqa: E731
        async with StreamClient(gateway.url, token=token) as ours:
            for name in (f"{market}.trades", "order"):
                await ours.subscribe(name).wait(30)
            gateway.publish(f"public.{market}.trades", "1")
            gateway.publish("private.IDAIO.order", "2")
            events = []
            async for event in ours:
                events.append(event[:2])
                if len(events) == 2:
                    break
            assert events == [(f"{market}.trades", "1"), ("order", "2")]

    run(test)
