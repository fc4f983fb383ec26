"""The README's programs, taken from it and run as they are printed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import uuid
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, Iterator

import pytest
from support import ROOT, Server, wait_for

from rango_gevent.demo.exchange import Exchange

README = (ROOT / "README.md").read_text()


def program(first_line: str) -> str:
    """Return the Python block that begins so."""
    (found,) = re.findall(rf"^```python\n({re.escape(first_line)}\n.*?)^```$", README, re.M | re.S)
    return str(found)


def merger() -> tuple[Any, dict[str, Any]]:
    """Return `merge` and the book of the README, without the connection."""
    names: dict[str, Any] = {}
    exec(program("# book.py").partition("\nwith ")[0], names)
    return names["merge"], names["book"]


SNAPSHOT = {"asks": [["9001.0", "0.4"], ["9002", "1"]], "bids": [["8999.50", "1.2"]], "sequence": 7}


@pytest.mark.parametrize(
    ("event", "asks", "bids"),
    [
        ({"asks": ["9001.0", "0.1"]}, {"9001": "0.1", "9002": "1"}, {"8999.5": "1.2"}),
        ({"asks": [["9001.0", "0.1"]]}, {"9001": "0.1", "9002": "1"}, {"8999.5": "1.2"}),
        ({"asks": ["9001.00", ""]}, {"9002": "1"}, {"8999.5": "1.2"}),
        ({"asks": [["9001", "0"], ["9002", "0.0"]]}, {}, {"8999.5": "1.2"}),
        (
            {"asks": [["9003", "2"]], "bids": ["8999.5", 0]},
            {"9001": "0.4", "9002": "1", "9003": "2"},
            {},
        ),
        ({"asks": [], "bids": None}, {"9001": "0.4", "9002": "1"}, {"8999.5": "1.2"}),
        ({"bids": ["1", None]}, {"9001": "0.4", "9002": "1"}, {"8999.5": "1.2"}),
    ],
)
def test_a_level_is_set_or_taken_away(
    event: dict[str, Any], asks: dict[str, str], bids: dict[str, str]
) -> None:
    """Flat pairs and lists of pairs; an amount of nothing or zero, in any writing, takes away."""
    merge, book = merger()
    assert merge("btcusd.ob-snap", SNAPSHOT)
    assert merge("btcusd.ob-inc", {**event, "sequence": 8})
    assert book["asks"] == {Decimal(price): Decimal(amount) for price, amount in asks.items()}
    assert book["bids"] == {Decimal(price): Decimal(amount) for price, amount in bids.items()}


def test_a_gap_is_told_once_and_cured_by_the_snapshot() -> None:
    """What comes before a snapshot is left out, and only the first of a gap asks for one."""
    merge, book = merger()
    assert merge("b.ob-inc", {"sequence": 3}), "no snapshot yet"
    assert merge("b.ob-snap", SNAPSHOT)
    assert not merge("b.ob-inc", {"sequence": 9})
    assert merge("b.ob-inc", {"sequence": 10})
    assert book["sequence"] is None
    assert merge("b.ob-snap", {**SNAPSHOT, "sequence": 10})
    assert merge("b.ob-inc", {"asks": ["1", "1"], "sequence": 11})
    assert book["sequence"] == 11


def test_a_whole_market_is_followed() -> None:
    """After each increment of the simulated market the book is the market's own."""
    exchange = Exchange(seed=5, markets=("btcusd",), snapshot_every=50)
    merge, book = merger()
    merged = 0
    for second in range(300):
        for event in exchange.tick(1_700_000_000 + second):
            if event.routing_key == "public.btcusd.ob-inc" or (
                event.routing_key == "public.btcusd.ob-snap" and not merged
            ):
                assert merge(event.routing_key, json.loads(event.body))
                merged += 1
        theirs = exchange.book("btcusd")
        for side in ("asks", "bids"):
            levels = {Decimal(price): Decimal(amount) for price, amount in theirs[side]}
            assert book[side] == levels
        assert book["sequence"] == theirs["sequence"]
    assert merged > 300


@contextmanager
def running(text: str, directory: Path) -> Iterator[Path]:
    """Run a program until the block ends; give the file with what it printed."""
    out = directory / "out"
    with open(out, "wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-u", "-c", text], stdout=file, stderr=subprocess.STDOUT
        )
    try:
        yield out
    finally:
        process.kill()
        process.wait()


def test_the_book_of_the_readme(gateway: Server, tmp_path: Path) -> None:
    """Run against the gateway it follows the book, over a gap too."""
    market = f"m{uuid.uuid4().hex[:8]}"
    text = (
        program("# book.py").replace("btcusd", market).replace("ws://127.0.0.1:8080", gateway.url)
    )
    gateway.publish(
        f"public.{market}.ob-snap", '{"asks":[["9","1"]],"bids":[["7","1"]],"sequence":1}'
    )
    gateway.publish(f"public.{market}.ob-inc", '{"bids":["8","1"],"sequence":2}')
    gateway.catch_up()
    with running(text, tmp_path) as out:
        wait_for(lambda: "2 8 9" in out.read_text(), what="the book")
        gateway.publish(f"public.{market}.ob-inc", '{"asks":["9",""],"sequence":4}')
        wait_for(lambda: "None 8 9" in out.read_text(), what="the gap")
        gateway.publish(f"public.{market}.ob-snap", '{"asks":[["12","1"]],"bids":[],"sequence":4}')
        wait_for(lambda: "4 None 12" in out.read_text(), what="the book after it")


def test_the_connection_of_the_readme(gateway: Server, tmp_path: Path) -> None:
    """The first program prints a public and a private event."""
    text = program("from websockets.sync.client import connect")
    text = text.replace("ws://127.0.0.1:8080", gateway.url)
    with running(f"token = {gateway.token(uid='ID9')!r}\n{text}", tmp_path) as out:
        wait_for(lambda: '"order"' in out.read_text(), what="the reply")
        gateway.publish("public.btcusd.trades", '{"tid":1}')
        gateway.publish("private.ID9.order", '{"id":2}')
        wait_for(lambda: '{"order":{"id":2}}' in out.read_text(), what="the private event")
        assert '{"btcusd.trades":{"tid":1}}' in out.read_text()
