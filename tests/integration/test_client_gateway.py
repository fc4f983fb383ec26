"""The client and the real gateway's own extensions: ids, lists, snapshots, tokens in band."""

from __future__ import annotations

import random
import time
from typing import Any, Iterator

import pytest
from support import Server, make_token, start_gateway, wait_for

from rango_gevent.client import Limits, RequestFailed, StreamClient, SubscriptionRefused

QUICK = Limits(open_s=10, close_s=1, first_wait_s=0.05, max_wait_s=0.1, resync_s=0.01)


@pytest.fixture
def ours(gateway: Server) -> Iterator[StreamClient]:
    """Give a client of the shared gateway, without a token."""
    with client(gateway) as running:
        yield running


def client(server: Server, **more: Any) -> StreamClient:
    """Return a client with short waits."""
    return StreamClient(server.url, limits=QUICK, jitter=random.Random(1), **more)


def test_requests_are_answered_by_id(ours: StreamClient, market: str) -> None:
    """What is held, the time, and an error for what the gateway does not know."""
    ours.subscribe(f"{market}.trades").wait(30)
    assert ours.request({"event": "list"}, timeout=60)["streams"] == [f"{market}.trades"]
    assert abs(ours.request({"event": "time"}, timeout=60)["time"] - time.time()) < 60
    with pytest.raises(RequestFailed, match="Invalid event"):
        ours.request({"event": "nothing"}, timeout=60)
    assert ours.core.pool.links[0].matcher.echoes


def test_a_gap_is_healed_on_the_same_connection(
    ours: StreamClient, gateway: Server, market: str
) -> None:
    """By the request for a snapshot, without leaving the stream."""
    gateway.publish(f"public.{market}.ob-snap", '{"asks":[["9","1"]],"bids":[],"sequence":1}')
    book = ours.book(market).wait_synced(30)
    reasons: list[str] = []
    book.on_invalid(reasons.append)
    gateway.publish(f"public.{market}.ob-inc", '{"asks":["9","2"],"sequence":3}')
    wait_for(lambda: reasons[:1] == ["sequence 3 after 1"])
    gateway.publish(f"public.{market}.ob-snap", '{"asks":[["5","1"]],"bids":[],"sequence":9}')
    wait_for(lambda: book.is_synced and book.sequence == 9, what="the book")
    assert ours.core.pool.links[0].knows_snapshot
    assert ours.stats().reconnects == 0


def test_a_pattern_brings_all_that_match(market: str) -> None:
    """Under their own names, those too that begin to flow later."""
    with start_gateway(env={"RANGO_PATTERNS": "on"}) as server, client(server) as ours:
        stream = ours.subscribe("*.trades").wait(30)
        for name in (market, f"{market}b"):
            server.publish(f"public.{name}.trades", "1")
            assert stream.get(30)[:2] == (f"{name}.trades", "1")


def test_a_token_in_band(gateway: Server) -> None:
    """It opens private streams on the public path."""
    with client(gateway, token=lambda: make_token({"uid": "IDBAND"}), in_band=True) as ours:
        order = ours.subscribe("order").wait(30)
        gateway.publish("private.IDBAND.order", "1")
        assert order.get(30).body == "1"


def test_a_bad_token_in_band_is_told(gateway: Server) -> None:
    """The connection is live all the same, as nobody's."""
    told: list[str] = []
    with client(gateway, token="nonsense", in_band=True) as ours:
        ours.on_notice(lambda notice: told.append(notice.text))
        with pytest.raises(SubscriptionRefused):
            ours.subscribe("order").wait(30)
        wait_for(lambda: any("authentication failed" in text for text in told))


@pytest.mark.parametrize("in_band", [True, False])
def test_a_token_is_renewed_on_the_connection(in_band: bool) -> None:
    """Before it expires, whichever way the first one went."""
    made: list[int] = []

    def fetch() -> str:
        made.append(1)
        return make_token({"uid": "IDRENEW", "exp": int(time.time()) + 10})

    with start_gateway() as server, client(server, token=fetch, in_band=in_band) as ours:
        order = ours.subscribe("order").wait(30)
        wait_for(lambda: len(made) >= 4, 90, "three renewals")
        server.publish("private.IDRENEW.order", "1")
        assert order.get(30).body == "1"
        assert ours.stats().reconnects == 0
