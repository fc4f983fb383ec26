"""The clients of docs/CLIENTS.md, taken from that page and run as they are printed."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Iterator, Sequence

import pytest
from support import ROOT, Server, make_token, wait_for

PAGE = (ROOT / "docs" / "CLIENTS.md").read_text()
URL = "ws://127.0.0.1:8080"
START_S = 60  # a program may take that long to start and to say something


def program(name: str) -> str:
    """Return the Python program whose first line is its file's name."""
    (found,) = re.findall(rf"^```python\n(# {name}\n.*?)^```$", PAGE, re.M | re.S)
    return str(found)


def lines(tool: str) -> list[str]:
    """Return the command lines of a tool, in order."""
    return re.findall(rf"^{tool} .*$", PAGE, re.M)


class Program:
    """A program that runs, and what it has printed."""

    def __init__(self, out: Path) -> None:
        self._out = out

    def wait(self, text: str) -> None:
        """Wait until it has printed something."""
        try:
            wait_for(lambda: text in self._out.read_text("utf-8", "replace"), START_S)
        except AssertionError:
            raise AssertionError(f"no {text!r} in:\n{self._out.read_text()}") from None


@contextlib.contextmanager
def running(command: Sequence[str], directory: Path, **env: str) -> Iterator[Program]:
    """Run a program until the block ends; its input stays open."""
    out = directory / "out"
    with open(out, "wb") as file:
        process = subprocess.Popen(  # the command is the page's own
            list(command),
            cwd=directory,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **env},
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Program(out)
    finally:
        process.kill()
        process.communicate()


class Shop:
    """A gateway, and a market of its own in place of the page's."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.market = f"m{uuid.uuid4().hex[:8]}"

    def adapted(self, text: str) -> str:
        """Return a text of the page for this gateway and market."""
        return text.replace(URL, self.server.url).replace("btcusd", self.market)

    def publish(self, kind: str, body: str) -> None:
        """Publish a public event of the market."""
        self.server.publish(f"public.{self.market}.{kind}", body)

    def publish_book(self) -> None:
        """Publish a book with one level on each side."""
        self.publish("ob-snap", '{"asks":[["9","1"]],"bids":[["7","1"]],"sequence":1}')
        self.publish("ob-inc", '{"bids":["8","1"],"sequence":2}')
        self.server.catch_up()


@pytest.fixture
def shop(gateway: Server) -> Shop:
    """Give the shared gateway and a new market."""
    return Shop(gateway)


def test_the_bot(shop: Shop, tmp_path: Path) -> None:
    """It is told what it may not have, and prints events."""
    text = shop.adapted(program("bot.py"))
    with running([sys.executable, "-c", text], tmp_path, TOKEN=make_token({})) as bot:
        bot.wait(f"not subscribed to admin.{shop.market}.sys: the token does not allow it")
        bot.wait("live\n")
        shop.publish("trades", '{"tid": 1}')
        bot.wait(f'{shop.market}.trades {{"tid": 1}}')


def test_the_quotes(shop: Shop, tmp_path: Path) -> None:
    """The book is followed over a gap."""
    shop.publish_book()
    with running([sys.executable, "-c", shop.adapted(program("quotes.py"))], tmp_path) as quotes:
        quotes.wait("update 2 8 9")
        shop.publish("ob-inc", '{"asks":["9",""],"sequence":4}')
        quotes.wait("do not trade: sequence 4 after 2")
        shop.publish("ob-snap", '{"asks":[["12","1"]],"bids":[["3","1"]],"sequence":4}')
        quotes.wait("sync 4 3 12")


def test_the_greenlets(shop: Shop, tmp_path: Path) -> None:
    """The same client under gevent."""
    text = shop.adapted(program("greenlets.py"))
    with running([sys.executable, "-c", text], tmp_path) as greenlets:
        wait_for(lambda: "ethusd.trades" in _printed_when_published(shop, tmp_path), START_S)
        greenlets.wait(f"{shop.market}.trades 1")


def _printed_when_published(shop: Shop, directory: Path) -> str:
    """Publish again, as a program that prints nothing before does not say when it listens."""
    shop.publish("trades", "1")
    shop.server.publish("public.ethusd.trades", "2")
    return (directory / "out").read_text()


def test_the_loop(shop: Shop, tmp_path: Path) -> None:
    """The asyncio client has states, a book and events."""
    shop.publish_book()
    with running([sys.executable, "-c", shop.adapted(program("loop.py"))], tmp_path) as loop:
        loop.wait("live\n")
        loop.wait("8 9\n")
        shop.publish("trades", "3")
        loop.wait(f"{shop.market}.trades 3")


def test_the_test(tmp_path: Path) -> None:
    """The bot's own test passes under pytest."""
    (tmp_path / "test_bot.py").write_text(program("test_bot.py"))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_bot.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=180, check=False)
    assert done.returncode == 0, done.stdout.decode()


@pytest.mark.parametrize("tool", ["wscat", "websocat"])
def test_a_terminal(shop: Shop, tmp_path: Path, tool: str) -> None:
    """Public events without, private ones with a token."""
    public, private = (shop.adapted(line) for line in lines(tool))
    path = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "NODE_PATH": "/usr/share/nodejs",  # where a node that is not Debian's does not look
    }
    with running(["sh", "-c", f"exec {public}"], tmp_path, **path) as terminal:
        terminal.wait(f'"streams":["{shop.market}.trades"]')
        shop.publish("trades", "4")
        terminal.wait(f'{{"{shop.market}.trades":4}}')
    uid = f"ID{shop.market}"
    token = make_token({"uid": uid})
    with running(["sh", "-c", f"exec {private}"], tmp_path, TOKEN=token, **path) as terminal:
        terminal.wait('"streams":["order"]')
        shop.server.publish(f"private.{uid}.order", "5")
        terminal.wait('{"order":5}')
