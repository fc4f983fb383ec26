"""Books under load: what a newcomer gets, what a bound does, and that no sequence has a gap."""

from __future__ import annotations

import json
import random
import re
import threading
from typing import Any, Iterator

import pytest
from support import Client, Server, start_gateway, wait_for

pytestmark = pytest.mark.usefixtures("documented")
BOUND = 300


def increment(number: int, size: int = 0) -> str:
    """Return an increment's body with a sequence number, filled up to a size."""
    body = f'{{"asks":["10.5","0.1"],"sequence":{number}}}'
    return body[:-1] + ',"fill":"' + "x" * max(0, size - len(body) - 10) + '"}'


def snapshot(number: int) -> str:
    """Return a snapshot's body with a sequence number."""
    return f'{{"asks":[],"bids":[],"sequence":{number}}}'


def publish_book(server: Server, market: str, count: int, size: int = 0) -> None:
    """Publish a snapshot of sequence 0 and so many increments."""
    server.publish(f"public.{market}.ob-snap", snapshot(0))
    for number in range(1, count + 1):
        server.publish(f"public.{market}.ob-inc", increment(number, size))


def sequence_of(client: Client, market: str) -> tuple[str, int]:
    """Return type and sequence of the next message; ``subscribed`` has its number of names."""
    message: dict[str, Any] = client.receive_json()
    [(name, body)] = message.items()
    if name == "success":
        return body["message"], len(body["streams"])
    stream, _, type_ = name.partition(".")
    assert stream == market
    return type_, body["sequence"]


@pytest.mark.parametrize("count", [2000, 10_000])
def test_a_newcomer_gets_the_whole_book(gateway: Server, market: str, count: int) -> None:
    """The snapshot, every increment in order, then the reply, then what is new."""
    publish_book(gateway, market, count, size=200)
    gateway.catch_up()
    with gateway.connect(f"/public?stream={market}.ob-inc") as client:
        assert sequence_of(client, market) == ("ob-snap", 0)
        received = [sequence_of(client, market) for _ in range(count)]
        assert received == [("ob-inc", number) for number in range(1, count + 1)]
        assert sequence_of(client, market) == ("subscribed", 1)
        gateway.publish(f"public.{market}.ob-snap", snapshot(count + 1))
        gateway.publish(f"public.{market}.ob-inc", increment(count + 2))
        assert sequence_of(client, market) == ("ob-inc", count + 2)


def test_a_replay_larger_than_the_outbox_closes_nobody(gateway: Server, market: str) -> None:
    """Five books of 2 MB each arrive whole, though the outbox is bounded at 1 MiB."""
    names = [f"{market}{letter}" for letter in "abcde"]
    for name in names:
        publish_book(gateway, name, 200, size=10_000)
    gateway.catch_up()
    wanted = ",".join(f"{name}.ob-inc" for name in names)
    with gateway.connect(f"/public?stream={wanted}") as client:
        for name in names:
            received = [sequence_of(client, name)[1] for _ in range(201)]
            assert received == list(range(201))
        assert client.receive_json()["success"]["message"] == "subscribed"


@pytest.fixture(scope="module", params=["increments", "bytes"])
def bounded(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server whose books are bounded at 300 increments of the tests' size."""
    bounds = {
        "increments": {"RANGO_BOOK_INCREMENTS": str(BOUND)},
        "bytes": {"RANGO_BOOK_BYTES": str(BOUND * 1000)},
    }
    with start_gateway(env=bounds[request.param]) as server:
        yield server


def test_a_book_past_its_bound_is_stale_until_the_next_snapshot(
    bounded: Server, market: str
) -> None:
    """Live subscribers go on, newcomers wait, the next snapshot is sent to all of them."""
    before = bounded.metric("rango_books_dropped_total")
    with bounded.connect(f"/public?stream={market}.ob-inc") as early:
        early.receive()
        publish_book(bounded, market, BOUND + 50, size=970)
        assert sequence_of(early, market) == ("ob-snap", 0)  # it waited for it
        received = [sequence_of(early, market) for _ in range(BOUND + 50)]
        assert received == [("ob-inc", number) for number in range(1, BOUND + 51)]
        assert bounded.metric("rango_books_dropped_total") == before + 1
        assert re.search(rf"warn book {market}\.ob-inc .*stale", bounded.log())
        with bounded.connect(f"/public?stream={market}.ob-inc") as late:
            assert sequence_of(late, market) == ("subscribed", 1)  # no replay from a stale book
            bounded.publish(f"public.{market}.ob-inc", increment(BOUND + 51))
            bounded.publish(f"public.{market}.ob-snap", snapshot(BOUND + 52))
            bounded.publish(f"public.{market}.ob-inc", increment(BOUND + 53))
            for client in (early, late):
                assert sequence_of(client, market) == ("ob-inc", BOUND + 51)
                assert sequence_of(client, market) == ("ob-snap", BOUND + 52)
                assert sequence_of(client, market) == ("ob-inc", BOUND + 53)
        with bounded.connect(f"/public?stream={market}.ob-inc") as newcomer:
            received = [sequence_of(newcomer, market) for _ in range(3)]
        assert received == [("ob-snap", BOUND + 52), ("ob-inc", BOUND + 53), ("subscribed", 1)]
        bounded.publish(f"public.{market}.ob-snap", snapshot(BOUND + 54))
        bounded.publish(f"public.{market}.ob-inc", increment(BOUND + 55))
        assert sequence_of(early, market) == ("ob-inc", BOUND + 55)


def test_a_book_at_its_bound_is_whole(market: str) -> None:
    """The bound itself is held: 10,000 increments by default, and here 5."""
    with start_gateway(env={"RANGO_BOOK_INCREMENTS": "5"}) as server:
        publish_book(server, market, 5)
        server.catch_up()
        with server.connect(f"/public?stream={market}.ob-inc") as client:
            assert [sequence_of(client, market)[1] for _ in range(6)] == [0, 1, 2, 3, 4, 5]
        assert server.metric("rango_books") == 1
        assert server.metric("rango_books_dropped_total") == 0


def test_the_number_of_books_is_bounded(market: str) -> None:
    """Ten times as many junk books: those go, and the one that is read stays."""
    with start_gateway(env={"RANGO_MAX_BOOKS": "20"}) as server:
        publish_book(server, market, 1)
        server.catch_up()
        with server.connect(f"/public?stream={market}.ob-inc") as client:
            assert [sequence_of(client, market)[1] for _ in range(2)] == [0, 1]
            client.receive()
            for number in range(200):
                server.publish(f"public.junk{number}.ob-snap", snapshot(1))
            server.publish(f"public.{market}.ob-inc", increment(2))
            assert sequence_of(client, market) == ("ob-inc", 2)
            assert server.metric("rango_books") == 20
            assert server.metric("rango_books_dropped_total") == 181
            assert server.log().count("too many books") < 20
        with server.connect(f"/public?stream={market}.ob-inc") as newcomer:
            assert [sequence_of(newcomer, market)[1] for _ in range(3)] == [0, 1, 2]
        publish_book(server, "new", 1)
        server.catch_up()
        with server.connect("/public?stream=new.ob-inc") as newcomer:
            assert [sequence_of(newcomer, "new")[1] for _ in range(2)] == [0, 1]


def test_the_bytes_of_all_books_are_bounded(market: str) -> None:
    """Past it those go that nobody reads, and what is held is told."""
    with start_gateway(env={"RANGO_BOOKS_BYTES": "3000000"}) as server:
        publish_book(server, market, 10, size=1000)
        server.catch_up()
        with server.connect(f"/public?stream={market}.ob-inc") as client:
            for number in range(50):
                server.publish(f"public.junk{number}.ob-snap", f'"{"x" * 500_000}"')
            server.publish(f"public.{market}.ob-inc", increment(11))
            assert [sequence_of(client, market)[1] for _ in range(11)] == list(range(11))
            client.receive()
            assert sequence_of(client, market) == ("ob-inc", 11)
            assert 2_000_000 < server.metric("rango_book_bytes") <= 3_000_000
            assert server.metric("rango_books_stale") >= 44
            assert server.log().count("too many bytes of books") < 20
        with server.connect(f"/public?stream={market}.ob-inc") as newcomer:
            assert [sequence_of(newcomer, market)[1] for _ in range(12)] == list(range(12))


class Feed:
    """Publishes a book from a thread, up to 2500 increments a second, a snapshot now and then."""

    def __init__(self, server: Server, market: str, snapshot_every: int) -> None:
        self.server = server
        self.market = market
        self.snapshot_every = snapshot_every
        self.sequence = 0
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._enough.wait(0.002):  # a pace, so that this process can read it all
            for _ in range(5):
                self._publish()

    def _publish(self) -> None:
        """Publish an increment, and where one is due a snapshot that has it in."""
        self.sequence += 1
        self.server.publish(f"public.{self.market}.ob-inc", increment(self.sequence))
        if self.sequence % self.snapshot_every == 0:
            self.server.publish(f"public.{self.market}.ob-snap", snapshot(self.sequence))

    def __enter__(self) -> Feed:
        """Begin, with a snapshot that is stored before anybody can ask for it."""
        self.server.publish(f"public.{self.market}.ob-snap", snapshot(0))
        self.server.catch_up()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End, with one last increment."""
        self._enough.set()
        self._thread.join()
        self._publish()


def test_clients_that_join_a_fast_book_see_no_gap(gateway: Server, market: str) -> None:
    """50 clients join at random times, half of them by query; each sequence is whole."""
    feed = Feed(gateway, market, snapshot_every=700)
    chance = random.Random(7)
    clients: list[Client] = []
    with feed:
        wait_for(lambda: feed.sequence > 100, what="the feed runs")
        for number in range(50):
            join_at = feed.sequence + chance.randrange(20)
            wait_for(lambda: feed.sequence >= join_at, what="the feed runs on")  # noqa: B023 - at once
            clients.append(join(gateway, market, by_query=number % 2 == 0))
    last = feed.sequence
    for client in clients:
        check_whole(client, market, last)
        client.close()


def join(server: Server, market: str, *, by_query: bool) -> Client:
    """Connect and subscribe to a book, in the query or by a message."""
    if by_query:
        return server.connect(f"/public?stream={market}.ob-inc")
    client = server.connect("/public")
    client.receive()
    client.send({"event": "subscribe", "streams": [f"{market}.ob-inc"]})
    return client


def check_whole(client: Client, market: str, last: int) -> None:
    """Read up to the last increment: snapshot, increments, with one reply among them."""
    type_, sequence = sequence_of(client, market)
    assert type_ == "ob-snap"
    replies = 0
    while sequence != last or not replies:  # the reply is last where all was in the replay
        type_, number = sequence_of(client, market)
        if type_ == "subscribed":
            replies += 1
        else:
            assert (type_, number) == ("ob-inc", sequence + 1)
            sequence = number
    assert replies == 1


def test_a_book_survives_its_last_subscriber(gateway: Server, market: str) -> None:
    """Joining, leaving and joining again: the book is kept all the time."""
    publish_book(gateway, market, 3)
    gateway.catch_up()
    with gateway.connect("/public") as client:
        client.receive()
        for _ in range(3):
            client.send({"event": "subscribe", "streams": [f"{market}.ob-inc"]})
            received = [sequence_of(client, market) for _ in range(5)]
            assert received[-1] == ("subscribed", 1)
            assert [number for _, number in received[:4]] == [0, 1, 2, 3]
            assert client.unsubscribe(f"{market}.ob-inc") == []
            gateway.publish(f"public.{market}.ob-snap", snapshot(0))
            for number in (1, 2, 3):
                gateway.publish(f"public.{market}.ob-inc", increment(number))
            gateway.catch_up()


def test_bodies_in_a_replay_are_unchanged(gateway: Server, market: str) -> None:
    """A book stores the publisher's bytes."""
    bodies = ['{"z": 0.10000000000000000001,  "a":[ ]}', '{"b":12345678901234567890}']
    gateway.publish(f"public.{market}.ob-snap", bodies[0])
    gateway.publish(f"public.{market}.ob-inc", bodies[1])
    gateway.catch_up()
    with gateway.connect(f"/public?stream={market}.ob-inc") as client:
        assert client.receive() == f'{{"{market}.ob-snap":{bodies[0]}}}'
        assert client.receive() == f'{{"{market}.ob-inc":{bodies[1]}}}'
        assert json.loads(client.receive())["success"]["message"] == "subscribed"


class Churner:
    """A client that subscribes and unsubscribes at random and checks every number it gets.

    Each of its streams counts up by one. Held means: from the reply to the request that names
    a stream, or from a book's snapshot, the next number is the one expected.
    """

    def __init__(self, server: Server, seed: int, streams: list[str]) -> None:
        self.client = server.connect("/public")
        self.client.receive()
        self.chance = random.Random(seed)
        self.streams = streams
        self.expected: dict[str, int | None] = {}  # None: any number may be the first
        self.faults: list[str] = []

    def run(self, is_over: threading.Event) -> None:
        """Change subscriptions and read events until told that it is over."""
        while not is_over.is_set():
            names = self.chance.sample(self.streams, self.chance.randrange(1, 4))
            self.change(self.chance.choice(["subscribe", "unsubscribe"]), names)
            for _ in range(self.chance.randrange(50) if self.expected else 0):
                self.check(self.client.receive())
        self.client.close()

    def change(self, event: str, names: list[str]) -> None:
        """Send a request, and read up to its reply."""
        if event == "subscribe":
            self.expected.update({name: None for name in names if name not in self.expected})
        self.client.send({"event": event, "streams": names})
        *events, reply = self.client.receive_until(lambda text: text.startswith('{"success"'))
        for text in events:
            self.check(text)
        if event == "unsubscribe":
            self.expected = {n: e for n, e in self.expected.items() if n not in names}
        if set(json.loads(reply)["success"]["streams"]) != set(self.expected):
            self.faults.append(f"{reply} but expected {list(self.expected)}")

    def check(self, text: str) -> None:
        """Check that an event is of a held stream and has the next number."""
        [(name, body)] = json.loads(text).items()
        number = body["sequence"]
        expected = None if name.endswith("-snap") else self.expected.get(name, -1)
        if expected not in (None, number):
            self.faults.append(f"{name}: {number}, expected {expected}")
        self.expected[name.replace("-snap", "-inc")] = number + 1


def test_subscriptions_that_change_all_the_time_lose_and_repeat_nothing(
    gateway: Server, market: str
) -> None:
    """Eight clients on two books and a plain stream, under a feed without a pause."""
    books = [f"{market}a", f"{market}b"]
    streams = [*(f"{book}.ob-inc" for book in books), f"{market}.trades"]
    over = threading.Event()
    churners = [Churner(gateway, seed, streams) for seed in range(8)]
    threads = [threading.Thread(target=churner.run, args=(over,)) for churner in churners]
    for book in books:
        gateway.publish(f"public.{book}.ob-snap", snapshot(0))
    for thread in threads:
        thread.start()
    number = 0
    while number < 3000 or any(thread.is_alive() for thread in threads):
        number += 1  # the feed goes on until all have ended: they may wait for it
        for book in books:
            gateway.publish(f"public.{book}.ob-inc", increment(number))
            if number % 400 == 0:
                gateway.publish(f"public.{book}.ob-snap", snapshot(number))
        gateway.publish(f"public.{market}.trades", increment(number))
        if number == 3000:
            over.set()
    for thread in threads:
        thread.join()
    assert [churner.faults for churner in churners] == [[]] * len(churners)
