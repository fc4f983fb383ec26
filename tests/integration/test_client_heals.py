"""The client against a gateway that does as it is told, in threads and under gevent."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from typing import Any, Iterator

import pytest
from support import wait_for

from rango_gevent.client import (
    ConnectionLost,
    Gap,
    Limits,
    NotNow,
    Overflow,
    RequestFailed,
    StateChange,
    StreamClient,
    SubscriptionRefused,
)
from rango_gevent.client.limiter import TokenBucket
from rango_gevent.client.testing import FakeGateway
from rango_gevent.errors import Refused

QUICK = Limits(
    open_s=10, close_s=1, idle_s=0.3, pong_s=1, first_wait_s=0.01, max_wait_s=0.05, resync_s=0.01
)


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    """A gateway of this test's own."""
    with FakeGateway() as running:
        yield running


def client(gateway: FakeGateway, **more: Any) -> StreamClient:
    """Return a client with short waits."""
    limits = more.pop("limits", QUICK)
    return StreamClient(gateway.url, limits=limits, jitter=random.Random(1), **more)


def test_the_example(gateway: FakeGateway) -> None:
    """All of the API in a row, as its user would write it."""
    heard: list[StateChange] = []
    urls = [gateway.url, gateway.url]
    with StreamClient(urls, token=lambda: "jwt", per_connection=200, limits=QUICK) as client:
        client.on_state(heard.append)
        trades = client.subscribe("btcusd.trades", policy="drop-oldest", size=1000)
        trades.wait(30)
        gateway.publish("btcusd.ob-snap", '{"asks":[["9","1"]],"bids":[["7","1"]],"sequence":1}')
        with client.book("btcusd") as book:
            book.wait_synced(30)
            gateway.publish("btcusd.ob-inc", '{"bids":["8","2"],"sequence":2}')
            for change in book:
                if change.kind == "update":
                    assert (book.best_bid, book.best_ask) == ((8, 2), (9, 1))
                    break
            assert [*book.bids] == [(8, 2), (7, 1)]
            assert [*book.asks] == [(9, 1)]
        assert client.request({"event": "list"}, timeout=60)["streams"][0] == "btcusd.trades"
        gateway.publish("btcusd.trades", '{"tid": 1}')
        for event in client:
            assert event[:2] == ("btcusd.trades", '{"tid": 1}')
            assert abs(event.received_at_s - time.time()) < 60
            break
        assert client.stats().dropped == 0
    assert [change.state for change in heard][-2:] == ["draining", "closed"]
    assert gateway.tokens == ["jwt"]


@pytest.mark.parametrize("history", [0, 100])
@pytest.mark.parametrize("fault", ["cut", "close", "stall", "garbage", "bytes"])
def test_it_comes_back_from_every_fault(fault: str, history: int) -> None:
    """And holds its streams again; the gap is told, or what was missed is there.

    Garbage alone is no reason to leave.
    """
    gaps: list[Gap] = []
    states: list[str] = []
    with FakeGateway(history=history) as gateway, client(gateway) as ours:
        ours.on_gap(gaps.append)
        ours.on_state(lambda change: states.append(change.state))
        stream = ours.subscribe("a.b").wait(30)
        if fault == "garbage":
            for text in ("", "{", '{"a', "pong", "[]", '{"event":"?"}', "\x00"):
                gateway.send(text)
            wait_for(lambda: ours.stats().garbage == 6)
        else:
            {
                "cut": gateway.cut,
                "close": gateway.close,
                "stall": gateway.stall,
                "bytes": lambda: gateway.send_bytes(b"\xff\xff\xff"),
            }[fault]()
            wait_for(lambda: "idle" in states, what="the fault")
            if history:  # else it comes or not, as it happens
                gateway.publish("a.b", "0")
            gateway.resume()
            if history:
                assert stream.get(30).body == "0"
                wait_for(lambda: ours.stats().recovered == 1, what="the reply")
                assert not gaps
            else:
                wait_for(lambda: gaps, what="the gap")
                assert gaps[0].streams == ("a.b",)
        gateway.wait_held("a.b")
        gateway.publish("a.b", "1")
        assert stream.get(30).body == "1"
        assert ours.stats().reconnects == (fault != "garbage")


def test_a_token_is_fetched_before_every_connect(gateway: FakeGateway) -> None:
    """A getter that fails is tried again like any other failure; a 401 asks it anew."""
    tokens = iter(["old", "new", "newer"])
    gateway.accepts = lambda token: token != "old"

    def fetch() -> str:
        if not gateway.tokens and not failed:
            failed.append(1)
            raise OSError("no network")
        return next(tokens)

    failed: list[int] = []
    reasons: list[str] = []
    with client(gateway, token=fetch) as ours:
        ours.on_state(lambda change: reasons.append(change.reason))
        ours.wait_live(30)
        gateway.close(4401, "authentication expired")
        wait_for(lambda: ours.stats().reconnects == 1)
    assert gateway.tokens == ["old", "new", "newer"]
    assert "no token: no network" in reasons
    assert any("HTTP 401" in reason for reason in reasons)


def test_a_fixed_token_that_is_refused_is_the_end(gateway: FakeGateway) -> None:
    """It would be refused again: everybody who waits hears why."""
    gateway.accepts = lambda token: False
    with client(gateway, token="old") as ours:
        with pytest.raises(SubscriptionRefused, match="HTTP 401"):
            ours.subscribe("order").wait(30)
        with pytest.raises(Refused, match="HTTP 401"):
            next(iter(ours))
        with pytest.raises(Refused, match="HTTP 401"):
            ours.request({"event": "list"})


def test_a_token_is_renewed_in_band(gateway: FakeGateway) -> None:
    """Before it expires, on the same connection, as often as it takes."""
    gateway.ttl_s = 5.2
    tokens = iter(f"t{n}" for n in range(1000))
    with client(gateway, token=lambda: next(tokens), in_band=True) as ours:
        ours.subscribe("order").wait(30)
        wait_for(lambda: len(gateway.tokens) >= 3, what="two renewals")
        assert gateway.accepted == 1
    assert gateway.tokens[:3] == ["t0", "t1", "t2"]


def test_all_that_waits_for_an_answer_fails_with_the_connection(gateway: FakeGateway) -> None:
    """At once, not after its own time."""
    with client(gateway, limits=QUICK._replace(idle_s=60)) as ours:
        ours.wait_live(30)
        gateway.stall()
        errors: list[Exception] = []

        def ask() -> None:
            try:
                ours.request({"event": "list"}, timeout=60)
            except ConnectionLost as error:
                errors.append(error)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        wait_for(lambda: len(ours.core.pool.links[0].matcher._waiting) == 3)
        gateway.cut()
        for thread in threads:
            thread.join(30)
        assert len(errors) == 3


def test_requests_and_their_errors(gateway: FakeGateway) -> None:
    """An error is raised, no answer in time is a timeout, and a later request still works."""
    with client(gateway, limits=QUICK._replace(idle_s=60)) as ours:
        with pytest.raises(RequestFailed, match="Invalid event"):
            ours.request({"event": "nothing"}, timeout=60)
        gateway.stall()
        with pytest.raises(TimeoutError):
            ours.request({"event": "list"}, timeout=0.2)
        gateway.resume()
        assert ours.request({"event": "time"}, timeout=60)["message"] == "time"
        latencies: list[str] = []
        ours.on_latency(lambda what, seconds: latencies.append(what))
        ours.request({"event": "time"}, timeout=60)
        wait_for(lambda: latencies == ["request"])


def test_a_bucket_of_its_own_paces_requests(gateway: FakeGateway) -> None:
    """Of all connections together; who may not wait is told."""
    with client(gateway, bucket=TokenBucket(0.001, 1)) as ours:
        ours.request({"event": "time"}, timeout=60)
        with pytest.raises(NotNow):
            ours.request({"event": "time"}, wait=False)
        with pytest.raises(TimeoutError, match="later than its time"):
            ours.request({"event": "time"}, timeout=60)


def test_a_subscription_for_a_while(gateway: FakeGateway) -> None:
    """A ``with`` block subscribes and unsubscribes; what it missed is not told as a gap."""
    with client(gateway) as ours:
        with ours.subscription("a.b") as stream:
            stream.wait(30)
            assert stream.state == "active"
        assert ours.request({"event": "list"}, timeout=60)["streams"] == []
        with pytest.raises(EOFError):
            stream.get(30)


def test_a_quiet_stream_is_told(gateway: FakeGateway) -> None:
    """And its connection kept: it answers."""
    quiet: list[str] = []
    with client(gateway) as ours:
        ours.on_stale(quiet.append)
        ours.subscribe("a.b", stale_after_s=0.2).wait(30)
        ours.subscribe("c.d").wait(30)
        wait_for(lambda: quiet == ["a.b"])
        gateway.publish("a.b", "1")
        wait_for(lambda: quiet == ["a.b", "a.b"])
        assert ours.stats().reconnects == 0


def test_a_gateway_like_rango_is_enough() -> None:
    """No ids, no snapshot: answers are matched by order, and a book is subscribed again."""
    with FakeGateway(extended=False) as gateway, client(gateway) as ours:
        gateway.publish("m.ob-snap", '{"asks":[["9","1"]],"bids":[],"sequence":1}')
        gateway.refused.add("order")
        book = ours.book("m").wait_synced(30)
        ours.subscribe("a.b").wait(30)
        with pytest.raises(SubscriptionRefused):
            ours.subscribe("order").wait(30)
        with pytest.raises(RequestFailed, match="Invalid event"):
            ours.request({"event": "list"}, timeout=60)
        reasons: list[str] = []
        book.on_invalid(reasons.append)
        for sequence in (2, 4):
            gateway.publish("m.ob-inc", f'{{"asks":["9","{sequence}"],"sequence":{sequence}}}')
        wait_for(lambda: reasons, what="the gap")
        gateway.publish("m.ob-snap", '{"asks":[["5","1"]],"bids":[],"sequence":9}')
        book.wait_synced(30)
        assert book.asks == [(5, 1)]


@pytest.mark.parametrize("policy", ["block", "error"])
def test_who_is_slow_stops_nobody_else(gateway: FakeGateway, policy: str) -> None:
    """Under ``block`` nothing is lost; under ``error`` its reader is told; others go on."""
    with client(gateway) as ours:
        slow = ours.subscribe("a.b", policy=policy, size=2).wait(30)
        for number in range(10):
            gateway.publish("a.b", str(number))
        if policy == "block":
            assert [slow.get(30).body for _ in range(10)] == [str(n) for n in range(10)]
        else:
            wait_for(lambda: ours.stats().dropped == 8)
            assert [slow.get(30).body, slow.get(30).body] == ["0", "1"]
            with pytest.raises(Overflow, match="8 events"):
                slow.get(30)
        assert ours.request({"event": "time"}, timeout=60)
        assert ours.stats().reconnects == 0


def test_block_is_no_silence(gateway: FakeGateway) -> None:
    """While a full queue holds the reader the connection is not taken for dead."""
    with client(gateway) as ours:
        slow = ours.subscribe("a.b", policy="block", size=1).wait(30)
        for number in range(3):
            gateway.publish("a.b", str(number))
        wait_for(lambda: ours.core.pool.links[0].is_held)
        ended = threading.Event()
        ours.on_state(lambda change: ended.set())
        assert not ended.wait(3)  # more than twice the silence that it would bear
        assert [slow.get(30).body for _ in range(3)] == ["0", "1", "2"]


@pytest.mark.parametrize("where", ["state", "notice", "gap", "latency"])
def test_close_from_a_callback(gateway: FakeGateway, where: str) -> None:
    """Whatever calls, it ends: no thread waits for itself."""
    ours = client(gateway)
    getattr(ours, f"on_{where}")(lambda *what: ours.close())
    with ours:
        ours.subscribe("a.b")
        if where == "gap":
            gateway.unrecoverable = "too_many"
            gateway.wait_held("a.b")
            wait_for(lambda: ours.stats().connections[0].streams == 1)
            ours.request({"event": "time"})
            gateway.cut()
        list(ours)
    wait_for(lambda: not threads_of_clients(), what="the end of all threads")


def test_close_interrupts_whatever_happens() -> None:
    """An attempt to connect to who says nothing, and a wait for a stream that never comes."""
    with FakeGateway() as gateway:
        gateway.stall()
        with client(gateway, limits=QUICK._replace(open_s=60)) as ours:
            waiting = ours.subscribe("a.b")
            outcome: list[Exception] = []

            def wait() -> None:
                try:
                    waiting.wait(60)
                except SubscriptionRefused as error:
                    outcome.append(error)

            thread = threading.Thread(target=wait)
            thread.start()
            wait_for(lambda: gateway.accepted == 1)
        thread.join(30)
        assert [str(error) for error in outcome] == ["not subscribed to a.b: the client was closed"]
        gateway.resume()


def test_a_listener_may_take_its_time(gateway: FakeGateway) -> None:
    """It holds up no connection, and may ask the client things."""
    heard: list[str] = []
    go_on = threading.Event()
    with client(gateway) as ours:

        def ask(change: StateChange) -> None:
            if change.state == "live":
                go_on.wait(30)
                heard.append(ours.request({"event": "time"}, timeout=60)["message"])

        ours.on_state(ask)
        stream = ours.subscribe("a.b").wait(30)
        gateway.publish("a.b", "1")
        assert stream.get(30).body == "1"
        ended = threading.Event()
        assert not ended.wait(3)  # more than twice the silence that is borne
        assert ours.stats().reconnects == 0
        go_on.set()
        wait_for(lambda: heard == ["time"])


def test_nothing_is_begun_after_the_end(gateway: FakeGateway) -> None:
    """A closed client refuses, and dials no more."""
    ours = client(gateway)
    with ours:
        ours.subscribe("a.b").wait(30)
    with pytest.raises(SubscriptionRefused, match="the client was closed"):
        ours.subscribe("c.d").wait(30)
    with pytest.raises(SubscriptionRefused, match="the client was closed"):
        ours.book("m").wait_synced(30)
    with pytest.raises(EOFError):
        ours.request({"event": "time"})
    assert list(ours) == []
    assert gateway.accepted == 1


def test_a_listener_that_fails_ends_nothing(gateway: FakeGateway) -> None:
    """Its mistake is logged."""

    def fail(change: object) -> None:
        raise ZeroDivisionError

    with client(gateway) as ours:
        ours.on_state(fail)
        ours.subscribe("a.b").wait(30)
        gateway.publish("a.b", "1")
        assert next(iter(ours)).body == "1"


def test_streams_of_a_dead_connection_move() -> None:
    """Several connections to several gateways; one dies, and the others take what they can."""
    with FakeGateway() as one, FakeGateway() as two:
        urls = [one.url, two.url]
        with StreamClient(urls, per_connection=3, limits=QUICK, jitter=random.Random(1)) as ours:
            streams = [ours.subscribe(f"s{n}.x") for n in range(4)]
            for stream in streams:
                stream.wait(30)
            assert (one.connections, two.connections) == (1, 1)
            one.refuse(503, times=1000)
            one.cut()
            two.wait_held("s0.x", "s1.x", "s3.x")
            two.wait_held("s2.x")  # its own connection went to the next gateway
            for number in range(4):
                two.publish(f"s{number}.x", str(number))
                assert streams[number].get(30).body == str(number)


def threads_of_clients() -> list[threading.Thread]:
    """Return those that are there."""
    return [one for one in threading.enumerate() if "rango-client" in one.name]


def test_a_thousand_reconnects_leave_nothing() -> None:
    """No thread and no descriptor is left, and each gap was told."""
    gaps = threading.Semaphore(0)
    limits = QUICK._replace(first_wait_s=0.001, max_wait_s=0.001, idle_s=60, requests_per_s=10_000)
    with FakeGateway(history=0) as gateway, client(gateway, limits=limits) as ours:
        ours.on_gap(lambda gap: gaps.release())
        ours.subscribe("a.b").wait(30)
        threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
        for number in range(1000):
            (gateway.cut if number % 2 else gateway.close)()
            assert gaps.acquire(timeout=30), f"reconnect {number}"
        gateway.publish("a.b", "1")
        assert next(iter(ours)).body == "1"
        assert ours.stats().reconnects == 1000
        wait_for(lambda: threading.active_count() <= threads, what="threads as before")
        assert len(os.listdir("/proc/self/fd")) <= files + 2
    assert not threads_of_clients()


GREENLETS = """
from gevent import monkey; monkey.patch_all()
import gc, os, sys
import gevent
from greenlet import greenlet
from rango_gevent.client import Limits, StreamClient
from rango_gevent.client.testing import FakeGateway

def greenlets():
    gc.collect()
    return sum(isinstance(one, greenlet) and not one.dead for one in gc.get_objects())

limits = Limits(first_wait_s=0.001, max_wait_s=0.001, close_s=1, requests_per_s=10_000)
with FakeGateway(history=0) as gateway:
    idle = greenlets()
    with StreamClient(gateway.url, limits=limits) as client:
        gaps = []
        client.on_gap(gaps.append)
        stream = client.subscribe("a.b").wait(30)
        book = client.book("m")
        gateway.publish("m.ob-snap", '{"asks":[["9","1"]],"bids":[],"sequence":1}')
        before, files = greenlets(), len(os.listdir("/proc/self/fd"))
        for number in range(200):
            (gateway.cut if number % 2 else gateway.close)()
            with gevent.Timeout(60):
                while len(gaps) <= number:
                    gevent.sleep(0.001)
        gateway.publish("a.b", "1")
        assert stream.get(30).body == "1"
        book.wait_synced(30)
        with gevent.Timeout(60):
            while greenlets() > before + 2:
                gevent.sleep(0.01)
        assert len(os.listdir("/proc/self/fd")) <= files + 2
    with gevent.Timeout(60):
        while greenlets() > idle:
            gevent.sleep(0.01)
print("whole")
"""


def test_under_gevent() -> None:
    """The same code in greenlets: it comes back, and leaves no greenlet and no descriptor."""
    ended = subprocess.run(
        [sys.executable, "-c", GREENLETS], capture_output=True, text=True, timeout=300, check=False
    )
    assert (ended.stdout, ended.stderr) == ("whole\n", "")


# -- positions ----------------------------------------------------------------------------------


def test_a_fake_gateway_breaks_its_history(gateway: FakeGateway) -> None:
    """It tells who counts on it; who comes back from before gets a reason; then it goes on."""
    gaps: list[Gap] = []
    with client(gateway) as ours:
        ours.on_gap(gaps.append)
        trades = ours.subscribe("a.b").wait(30)
        gateway.tell_positions()
        gateway.break_history()
        wait_for(lambda: gaps, what="the gap")
        assert (gaps[0].streams, gaps[0].reason) == (("a.b",), "other_history")
        gateway.publish("a.b", '{"at":"1-a"}')
        assert trades.get(30).body == '{"at":"1-a"}'
        gateway.cut()
        gateway.publish("a.b", "2")
        assert trades.get(30).body == "2"
        wait_for(lambda: ours.stats().recovered == 1, what="the reply")
    assert len(gaps) == 1


@pytest.mark.parametrize(
    ("history", "missed", "reason"), [(3, 3, ""), (3, 4, "too_old"), (100, 50, "")]
)
def test_a_fake_gateway_keeps_so_many_events(history: int, missed: int, reason: str) -> None:
    """Those it has kept come, or none of them and a reason."""
    gaps: list[Gap] = []
    with FakeGateway(history=history) as gateway, client(gateway) as ours:
        ours.on_gap(gaps.append)
        trades = ours.subscribe("a.b").wait(30)
        gateway.publish("a.b", "0")
        assert trades.get(30).body == "0"
        gateway.refuse(503, times=3)
        gateway.cut()
        for number in range(1, missed + 1):
            gateway.publish("a.b", str(number))
        wait_for(lambda: ours.stats().reconnects == 1, what="a reconnect")
        if reason:
            wait_for(lambda: gaps, what="the gap")
            assert gaps[0].reason == reason
            assert trades.buffer.backlog()[0] == 0
        else:
            assert [trades.get(30).body for _ in range(missed)] == [
                str(number) for number in range(1, missed + 1)
            ]


def test_a_book_goes_on_where_it_was(gateway: FakeGateway) -> None:
    """Invalid while it is away, then one sync, and no snapshot was asked for."""
    kinds: list[str] = []
    gateway.publish("m.ob-snap", '{"asks":[["9","1"]],"bids":[],"sequence":1}')
    with client(gateway) as ours:
        book = ours.book("m").wait_synced(30)
        gateway.refuse(503, times=2)
        gateway.cut()
        for sequence in (2, 3):
            gateway.publish("m.ob-inc", f'{{"asks":["8","{sequence}"],"sequence":{sequence}}}')
        wait_for(lambda: book.is_synced and book.sequence == 3, what="the book")
        while len(kinds) < 3:
            kinds.append(book.get(30).kind)
        assert book.best_ask == (8, 3)
        assert ours.stats().resyncs == 0
    assert kinds == ["sync", "invalid", "sync"]
