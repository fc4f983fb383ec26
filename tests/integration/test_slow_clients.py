"""Clients that lag: what each policy keeps for them, and that nobody else feels it."""

from __future__ import annotations

import json
from typing import Iterator

import pytest
from support import RawSocket, Server, start_gateway, wait_for

_PAD = "x" * 2000
_LAST = 3000
_BOUND = 64 * 1024


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Run a gateway with a small outbox and a policy by kind of stream."""
    env = {
        "RANGO_SLOW_CLIENT": "close",
        "RANGO_SLOW_STREAMS": "*.tickers=latest,*.kline-1m=drop-oldest,*.ob-inc=latest",
        "RANGO_OUTBOX_BYTES": str(_BOUND),
        "RANGO_WRITE_TIMEOUT_S": "30",
        "RANGO_MAX_EVENT_BYTES": str(1 << 20),
        # the good client reads when all is published: until then the kernel keeps it
        "RANGO_SEND_BUFFER_BYTES": "0",
    }
    with start_gateway(env=env) as running:
        yield running


def _lag(server: Server, stream: str) -> RawSocket:
    """Connect a client that reads nothing for now."""
    sock = RawSocket(server.port, receive_buffer=4096)
    sock.open(f"/public?stream={stream}")
    return sock


def _flood(server: Server, key: str, last: int = _LAST) -> None:
    for number in range(1, last + 1):
        server.publish(key, json.dumps({"n": number, "pad": _PAD}))


def _numbers(sock: RawSocket, name: str, last: int = _LAST) -> list[int]:
    found: list[int] = []
    while not found or found[-1] != last:
        found.append(json.loads(sock.read_text())[name]["n"])
    return found


def test_latest_keeps_the_newest_frame_of_a_stream(server: Server) -> None:
    """A client that lags on a ticker gets the newest one when it reads again."""
    with _lag(server, "a.tickers") as lagging, server.connect("/public?stream=a.tickers") as good:
        good.receive()
        _flood(server, "public.a.tickers")
        seen = [json.loads(good.receive())["a.tickers"]["n"] for _ in range(_LAST)]
        got = _numbers(lagging, "a.tickers")
        assert seen == list(range(1, _LAST + 1)), "the other client misses nothing"
        assert got == sorted(set(got))
        assert len(got) < _LAST
    assert server.metric("rango_frames_skipped_total", policy="latest") > 0


def test_drop_oldest_keeps_the_newest_frames_within_the_bound(server: Server) -> None:
    """A client that lags gets the last frames that fit, in order, to the very last."""
    with _lag(server, "a.kline-1m") as lagging, server.connect("/public?stream=a.kline-1m") as good:
        good.receive()
        _flood(server, "public.a.kline-1m")
        for _ in range(_LAST):
            good.receive()
        got = _numbers(lagging, "a.kline-1m")
        assert got == sorted(set(got))
        tail = list(range(_LAST - 20, _LAST + 1))
        assert got[-len(tail) :] == tail, "the newest are all there"
        assert len(got) < _LAST
    assert server.metric("rango_frames_skipped_total", policy="drop-oldest") > 0


def test_a_lagging_book_is_given_afresh(server: Server) -> None:
    """Increments are never left out one by one: the book comes again, then goes on."""
    server.publish("public.a.ob-snap", json.dumps({"n": 0}))
    server.catch_up()
    with _lag(server, "a.ob-inc") as lagging, server.connect("/public?stream=a.ob-inc") as good:
        assert "subscribed" in lagging.read_text(), "its book was the first frame"
        assert "a.ob-snap" in good.receive()
        assert "subscribed" in good.receive()
        _flood(server, "public.a.ob-inc")
        for _ in range(_LAST):
            good.receive()
        book = _follow(lagging)
        assert book == _LAST
        server.publish("public.a.ob-inc", json.dumps({"n": _LAST + 1, "pad": ""}))
        assert json.loads(lagging.read_text())["a.ob-inc"]["n"] == _LAST + 1


def _follow(sock: RawSocket) -> int:
    """Apply increments as a client does: only the next one fits, a snapshot starts again."""
    at, snapshots = 0, 0
    while at != _LAST:
        message = json.loads(sock.read_text())
        if "a.ob-snap" in message:
            at, snapshots = message["a.ob-snap"]["n"], snapshots + 1
        elif "a.ob-inc" in message:
            assert message["a.ob-inc"]["n"] == at + 1, "a gap"
            at += 1
    assert snapshots > 0
    return at


def test_close_is_the_default(server: Server) -> None:
    """A client that lags on any other stream is closed with 4008, and only it."""
    before = server.metric("rango_connections_closed_total", reason="slow_client")
    with _lag(server, "a.trades") as lagging, server.connect("/public?stream=a.trades") as good:
        good.receive()
        _flood(server, "public.a.trades")
        for number in range(1, _LAST + 1):
            assert json.loads(good.receive())["a.trades"]["n"] == number
        assert lagging.skip_to_close() == 4008
    wait_for(
        lambda: server.metric("rango_connections_closed_total", reason="slow_client") == before + 1,
        what="the slow client to be counted",
    )
