"""The client on a path that misbehaves: between it and the real gateway stands the fault relay."""

from __future__ import annotations

import time
from typing import Callable

import pytest
from client_scene import FAULTS, LIMITS, Scene, scene
from relay import Relay
from support import HOST, free_port, make_token, start_gateway, wait_for

from rango_gevent.client import ConnectionLost, StreamClient


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_healed_and_nothing_is_missed(
    fault: Callable[[Scene], None], market: str
) -> None:
    """It comes back by itself, twice in a row, by the position that it has."""
    with scene(market) as it:
        for _ in range(2):
            fault(it)
            it.relay.heal()
            it.wait_flow()
        stats = it.client.stats()
    assert (stats.reconnects >= 2, stats.recovered >= 2, stats.resyncs, it.gaps) == (1, 1, 0, [])
    numbers = [int(event.body) for event in it.events]
    assert numbers == list(range(numbers[0], len(it.publisher.at_s)))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_healed_and_told(fault: Callable[[Scene], None], market: str) -> None:
    """It comes back by itself, twice in a row, and says what it missed of who keeps nothing."""
    with scene(market, env={"RANGO_HISTORY_BYTES": "0"}) as it:
        for _ in range(2):
            fault(it)
            it.relay.heal()
            it.wait_flow()
        assert it.client.stats().reconnects >= 2
        assert it.gaps
        assert {gap.streams for gap in it.gaps} == {(f"{market}.trades",)}


def test_a_slow_path_loses_nothing(market: str) -> None:
    """What comes late still comes, and a path that is slow is not taken for dead."""
    with scene(market) as it:
        it.relay.delay(0.2)
        it.wait_flow()
        it.relay.delay(0)
        it.wait_flow()
        assert it.client.stats().reconnects == 0
    assert [int(event.body) for event in it.events] == list(
        range(int(it.events[0].body), len(it.publisher.at_s))
    )


def test_a_restart_of_the_gateway(market: str) -> None:
    """It says goodbye and comes back on its port; so does the client."""
    port = str(free_port())
    exchange = f"test.{market}.{port}"
    env = {"RANGER_PORT": port}
    with start_gateway(env=env, exchange=exchange) as first, Relay(int(port)) as relay:
        running = Scene(first, relay, market)
        try:
            running.wait_flow()
            assert first.stop() == 0
            with start_gateway(env=env, exchange=exchange):
                running.wait_flow()
                running.end()
        finally:
            running.end()
        running.verdict()
    assert any(change.code == 1012 for change in running.states)
    assert running.gaps


def test_an_expired_token_is_replaced(market: str) -> None:
    """Each connect asks for a token, so one that expired meanwhile does no harm."""
    made: list[int] = []

    def fetch() -> str:
        made.append(1)
        return make_token({"exp": int(time.time()) + 5})

    with start_gateway() as server, Relay(server.port) as relay:
        running = Scene(server, relay, market, token=fetch)
        try:
            running.wait_flow()
            expired_s = time.time() + 6
            wait_for(lambda: time.time() > expired_s, what="the expiry")
            relay.cut()
            running.wait_flow()
        finally:
            running.end()
        running.verdict()
    assert len(made) >= 2


def test_what_the_path_does_not_take_ends_the_connection() -> None:
    """A message that is not taken in time is noticed as such, whatever else is silent."""
    limits = LIMITS._replace(write_s=0.3, idle_s=60)
    with (
        start_gateway() as server,
        Relay(server.port) as relay,
        StreamClient(f"ws://{HOST}:{relay.port}", limits=limits) as client,
    ):
        reasons: list[str] = []
        client.on_state(lambda change: reasons.append(change.reason))
        client.wait_live(30)
        relay.stall()
        with pytest.raises(ConnectionLost):
            client.request({"event": "list", "pad": "x" * 30_000_000}, timeout=60)
        relay.resume()
        wait_for(lambda: client.stats().reconnects, what="the way back")
    assert any("timed out" in text for text in reasons)
