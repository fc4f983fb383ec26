"""A client behind a path that misbehaves, what it should get, and the verdict.

Between two gaps that were told no event is missing, none comes twice and none out of order; and
in the end the book is the publisher's.
"""

from __future__ import annotations

import contextlib
import json
import random
import threading
import time
from typing import Any, Callable, Iterator

from relay import Relay
from support import HOST, Server, start_gateway, wait_for

from rango_gevent.client import Event, Gap, Limits, StateChange, StreamClient

LIMITS = Limits(
    open_s=5, close_s=0.5, idle_s=0.5, pong_s=2, first_wait_s=0.1, max_wait_s=0.3, resync_s=0.1
)
_SLACK_S = 3  # what was published was on its way for so long, on a busy machine


class Publisher:
    """Publishes numbered events and a book until it is ended; remembers when each was sent."""

    def __init__(self, publish: Callable[[str, str], None], market: str) -> None:
        self.at_s: list[float] = []
        self.book: dict[str, str] = {}
        self._publish = publish
        self._market = market
        self._random = random.Random(3)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._snapshot(0)
        self._thread.start()

    def _snapshot(self, sequence: int) -> None:
        body = {"bids": [[price, amount] for price, amount in self.book.items()]}
        text = json.dumps({**body, "asks": [], "sequence": sequence})
        self._publish(f"public.{self._market}.ob-snap", text)

    def _run(self) -> None:
        number = 0
        while not self._ended.wait(0.005):
            self.at_s.append(time.time())
            self._publish(f"public.{self._market}.trades", str(number))
            number += 1
            price, amount = str(self._random.randint(1, 50)), str(self._random.randint(0, 3))
            self.book[price] = amount
            if amount == "0":
                del self.book[price]
            body = json.dumps({"bids": [price, amount], "sequence": number})
            self._publish(f"public.{self._market}.ob-inc", body)
            if number % 50 == 0:
                self._snapshot(number)

    def end(self) -> int:
        """Stop, and return how many events there were."""
        self._ended.set()
        self._thread.join(30)
        return len(self.at_s)


class Scene:
    """A publisher, a gateway, a relay and a client with a stream and a book."""

    def __init__(self, server: Server, relay: Relay, market: str, **more: Any) -> None:
        self.server = server
        self.relay = relay
        self.gaps: list[Gap] = []
        self.states: list[StateChange] = []
        self.events: list[Event] = []
        self.publisher = Publisher(server.publish, market)
        url = f"ws://{HOST}:{relay.port}"
        self.client = StreamClient(
            url, limits=LIMITS, jitter=random.Random(1), **{"token": server.token, **more}
        )
        self.client.on_gap(self.gaps.append)
        self.client.on_state(self.states.append)
        self.stream = self.client.subscribe(f"{market}.trades", policy="block", size=100_000)
        self.book = self.client.book(market)
        self.client.start()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        self.events += self.stream

    def wait_flow(self) -> None:
        """Wait until events arrive that were published from now on, and the book is whole."""
        now_s = time.time()
        wait_for(
            lambda: (
                self.events
                and self.publisher.at_s[int(self.events[-1].body)] > now_s
                and self.book.is_synced
            ),
            what="events and the book",
        )

    def end(self) -> None:
        """Stop publishing, let everything arrive, and close."""
        count = self.publisher.end()
        with contextlib.suppress(AssertionError):  # the verdict says what is missing
            wait_for(lambda: self.events and self.events[-1].body == str(count - 1))
            wait_for(lambda: self.book.is_synced and self.book.sequence == count)
        self.client.close()
        self._reader.join(30)

    def verdict(self) -> None:
        """Hold what came against what was published and what was told."""
        numbers = [int(event.body) for event in self.events]
        assert numbers == sorted(set(numbers)), "twice, or out of order"
        assert numbers[-1] == len(self.publisher.at_s) - 1
        for before, after in zip(numbers, numbers[1:]):
            for missing in range(before + 1, after):
                at_s = self.publisher.at_s[missing]
                told = [
                    gap for gap in self.gaps if gap.from_s - _SLACK_S <= at_s <= gap.to_s + _SLACK_S
                ]
                assert told, f"{missing} is missing without a word"
        ours = {str(level.price): str(level.amount) for level in self.book.bids}
        assert ours == self.publisher.book
        assert self.book.sequence == len(self.publisher.at_s)


@contextlib.contextmanager
def scene(market: str, env: dict[str, str] | None = None, **more: Any) -> Iterator[Scene]:
    """Run all of it; the verdict comes at the end."""
    with start_gateway(env=env) as server, Relay(server.port) as relay:
        running = Scene(server, relay, market, **more)
        try:
            running.wait_flow()
            yield running
            relay.heal()
            running.wait_flow()
        finally:
            running.end()
        running.verdict()


def cut(it: Scene) -> None:
    """End the connection in order."""
    it.relay.cut()


def reset(it: Scene) -> None:
    """End it with a reset."""
    it.relay.reset()


def black_hole(it: Scene) -> None:
    """Swallow everything until the client notices."""
    it.relay.black_hole()
    wait_for(lambda: it.states[-1].state == "idle", what="the hole noticed")


def refuse(it: Scene) -> None:
    """Cut it, and refuse new ones until the client has tried."""
    it.relay.refuse()
    it.relay.cut()
    wait_for(lambda: any("refused" in one.reason for one in it.states), what="a refusal")


def stall(it: Scene) -> None:
    """Hold everything back until the client notices."""
    it.relay.stall()
    wait_for(lambda: it.states[-1].state != "live", what="the stall noticed")
    it.relay.resume()


def break_mid_frame(it: Scene) -> None:
    """Cut it in the middle of what the gateway sends."""
    before = it.relay.broken
    it.relay.break_after(1000, reset=False)
    wait_for(lambda: it.relay.broken > before, what="the break")


def garbage(it: Scene) -> None:
    """Send what is no frame."""
    it.relay.insert(b"\xff\xfe\xfd" * 10)
    wait_for(lambda: it.states[-1].state != "live", what="the garbage noticed")


FAULTS: tuple[Callable[[Scene], None], ...] = (
    cut,
    reset,
    black_hole,
    refuse,
    stall,
    break_mid_frame,
    garbage,
)
