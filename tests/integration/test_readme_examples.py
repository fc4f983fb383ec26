"""The README's programs, taken from it and run as they are printed."""

from __future__ import annotations

import re
import subprocess
import sys
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from support import ROOT, Server, wait_for

README = (ROOT / "README.md").read_text()


def program(first_line: str) -> str:
    """Return the Python block that begins so."""
    (found,) = re.findall(rf"^```python\n({re.escape(first_line)}\n.*?)^```$", README, re.M | re.S)
    return str(found)


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
        wait_for(lambda: "update 2 8 9" in out.read_text(), what="the book")
        gateway.publish(f"public.{market}.ob-inc", '{"asks":["9",""],"sequence":4}')
        wait_for(lambda: "invalid 2 8 9" in out.read_text(), what="the gap")
        gateway.publish(f"public.{market}.ob-snap", '{"asks":[["12","1"]],"bids":[],"sequence":4}')
        wait_for(lambda: "sync 4 None 12" in out.read_text(), what="the book after it")


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


def test_the_client_of_the_readme(gateway: Server, tmp_path: Path) -> None:
    """The first program of all follows a stream."""
    text = program("from rango_gevent.client import StreamClient")
    text = text.replace("ws://127.0.0.1:8080", gateway.url)
    with running(text, tmp_path) as out:

        def printed() -> bool:
            gateway.publish("public.btcusd.trades", '{"tid":3}')  # it does not say when it listens
            return 'btcusd.trades {"tid":3}' in out.read_text()

        wait_for(printed, what="the event")
