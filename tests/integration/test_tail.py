"""``rango tail`` as a process: a book, rates and JSON, into a pipe and on a terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from pathlib import Path
from types import TracebackType

from support import PATIENCE_S, Server, free_port, server_env, start_gateway
from tailing import RANGO, tail

SNAPSHOT = '{"sequence":5,"asks":[["101","4"],["100.0","0.5"]],"bids":[["99.5","2"]]}'


def increment(sequence: int, price: str, amount: str) -> str:
    """Return an increment of the asks."""
    return json.dumps({"sequence": sequence, "asks": [price, amount]})


class Terminal:
    """A ``rango tail`` on a terminal of 60 by 12.

    Attributes:
        data: everything that it wrote.
    """

    def __init__(self, *words: str, term: str = "xterm") -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 12, 60, 0, 0))
        self.process = subprocess.Popen(
            [*RANGO, "tail", *words],
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            env=server_env("unused", {"TERM": term, "PYTHONIOENCODING": "utf-8"}),
        )
        os.close(theirs)
        self.data = b""

    def __enter__(self) -> Terminal:
        """Return it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        os.close(self._ours)

    def _read(self, timeout_s: float) -> bool:
        if not select.select([self._ours], [], [], timeout_s)[0]:
            return True
        try:
            data = os.read(self._ours, 65536)
        except OSError:  # the other end is closed
            return False
        self.data += data
        return bool(data)

    def frames(self) -> list[str]:
        """Return what was drawn, frame by frame, without the words for the terminal."""
        parts = self.data.decode().split("\x1b[?2026h")[1:]
        whole = [part.split("\x1b[?2026l")[0] for part in parts if "\x1b[?2026l" in part]
        return [re.sub("\x1b\\[[0-9;?]*[A-Za-z]", "", part) for part in whole]

    def shows(self, text: str) -> str:
        """Wait until a frame has a text, and return that frame."""
        deadline_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline_s and self._read(0.1):
            for frame in reversed(self.frames()):
                if text in frame:
                    return frame
        raise AssertionError(f"{text!r} not in {self.data!r}")

    def end(self) -> int:
        """Read to its end and return its exit code."""
        deadline_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline_s and self._read(0.1) and self.process.poll() is None:
            pass
        while self._read(0) and select.select([self._ours], [], [], 0)[0]:
            pass
        return self.process.wait(30)


def test_a_book_is_followed_line_by_line(gateway: Server, market: str, tmp_path: Path) -> None:
    """Snapshot, increments, a gap and the book after it, each in a line; the sequence is told."""
    stream = f"public.{market}.ob"
    gateway.publish(f"{stream}-snap", SNAPSHOT)
    gateway.publish(f"{stream}-inc", increment(6, "100.5", "1"))
    with tail(tmp_path, "--url", gateway.url, "--book", market) as tailed:
        tailed.subscribed(f"{market}.ob-inc")
        out = tailed.process.stdout
        assert out is not None
        first = out.readline().decode()
        assert first.startswith(f"{market}.ob-inc  ")
        assert first.endswith("sequence 6  bid 99.5 x 2  ask 100.0 x 0.5\n")
        gateway.publish(f"{stream}-inc", increment(7, "100.0", "0"))
        line = f"{market}.ob-inc  update  sequence 7  bid 99.5 x 2  ask 100.5 x 1\n"
        assert out.readline().decode() == line
        gateway.publish(f"{stream}-inc", increment(9, "99.9", "1"))
        assert out.readline().decode() == f"{market}.ob-inc  invalid  sequence 9 after 7\n"
        gateway.publish(f"{stream}-snap", SNAPSHOT.replace("5", "20", 1))
        gateway.publish(f"{stream}-inc", increment(21, "99.9", "1"))
        deadline_s = time.monotonic() + PATIENCE_S
        while "ask 99.9 x 1\n" not in (line := out.readline().decode()):
            assert time.monotonic() < deadline_s, line
        assert "sequence 21" in line


def test_a_book_as_json(gateway: Server, market: str, tmp_path: Path) -> None:
    """Each line is an object of its own."""
    gateway.publish(f"public.{market}.ob-snap", SNAPSHOT)
    words = ["--book", market, "--json", "--count", "1"]
    with tail(tmp_path, "--url", gateway.url, *words) as tailed:
        code, out = tailed.end()
    value = json.loads(out)
    assert code == 0
    assert (value["kind"], value["sequence"]) == ("sync", 5)
    assert (value["bid"], value["ask"]) == (["99.5", "2"], ["100.0", "0.5"])


def test_the_ladder_is_drawn_in_place(gateway: Server, market: str) -> None:
    """On a terminal: a page of its own, redrawn over itself, and Ctrl-C gives the old one back."""
    gateway.publish(f"public.{market}.ob-snap", SNAPSHOT)
    with Terminal("--url", gateway.url, "--book", market) as terminal:
        frame = terminal.shows("sequence 5")
        assert "best bid 99.5 x 2  best ask 100.0 x 0.5" in frame
        assert len(frame.split("\r\n")) <= 12
        gateway.publish(f"public.{market}.ob-inc", increment(6, "99.9", "1"))
        assert "best ask 99.9 x 1" in terminal.shows("sequence 6")
        assert "live: connected (ws://" in terminal.shows("live: ")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == 130
    assert terminal.data.startswith(b"\x1b[?1049h\x1b[?25l")
    assert terminal.data.endswith(b"\x1b[?25h\x1b[?1049l")
    assert b"\x1b[2J" not in terminal.data  # nothing is erased before it is drawn: no flicker
    assert b"Traceback" not in terminal.data


def test_the_ladder_survives_a_restart(market: str) -> None:
    """While the server is away the page says so; afterwards the book is there again."""
    env = {"RANGER_PORT": str(free_port())}
    with start_gateway(env=env) as server:
        server.publish(f"public.{market}.ob-snap", SNAPSHOT)
        with Terminal("--url", server.url, "--book", market) as terminal:
            terminal.shows("in sequence  sequence 5")
            server.stop()
            assert "INVALID: " in terminal.shows("\nidle, dials in ")
            with start_gateway(env=env) as again:
                again.publish(f"public.{market}.ob-snap", SNAPSHOT.replace("5", "70", 1))
                terminal.shows("in sequence  sequence 70")


def test_a_dumb_terminal_gets_lines(gateway: Server, market: str) -> None:
    """No escape sequence goes to a terminal that knows none."""
    gateway.publish(f"public.{market}.ob-snap", SNAPSHOT)
    words = ("--url", gateway.url, "--book", market, "--count", "1")
    with Terminal(*words, term="dumb") as terminal:
        assert terminal.end() == 0
    assert b"\x1b" not in terminal.data
    assert b"sync  sequence 5" in terminal.data


def test_a_first_connection_that_fails_is_told_after_the_page() -> None:
    """The page goes away, and the error is on the terminal that was there before."""
    with Terminal("--url", f"ws://127.0.0.1:{free_port()}", "--book", "btcusd") as terminal:
        assert terminal.end() == 1
    left = terminal.data.split(b"\x1b[?1049l")[-1]
    assert b"rango: cannot connect to " in left


def test_rates_are_told_each_second(gateway: Server, market: str, tmp_path: Path) -> None:
    """A line for each stream, one that is quiet too; events are counted, not shown."""
    streams = [f"{market}.trades", f"{market}.quiet"]
    with tail(tmp_path, "--url", gateway.url, "--rate", "--count", "30", *streams) as tailed:
        tailed.subscribed(*streams)
        for number in range(29):
            gateway.publish(f"public.{market}.trades", str(number))
        out = tailed.process.stdout
        assert out is not None
        wanted = re.compile(rf"{market}\.trades  \d+\.\d/s  29\n")
        lines = [out.readline().decode()]
        while not wanted.fullmatch(lines[-1]):
            lines.append(out.readline().decode())
            assert len(lines) < 30, lines
        assert f"{market}.quiet  0.0/s  0\n" in lines
        gateway.publish(f"public.{market}.trades", "29")
        assert tailed.end()[0] == 0


def test_rates_on_a_terminal_are_a_table(gateway: Server, market: str) -> None:
    """In place, with a sum."""
    with Terminal("--url", gateway.url, "--rate", f"{market}.trades") as terminal:
        terminal.shows("events/s")
        gateway.publish(f"public.{market}.trades", "1")
        frame = terminal.shows("           1\r\n")
        assert f"{market}.trades" in frame
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == 130


def test_events_as_json(gateway: Server, market: str, tmp_path: Path) -> None:
    """One object a line, with the stream, the time and the body."""
    stream = f"{market}.trades"
    before_s = time.time()
    with tail(tmp_path, "--url", gateway.url, "--json", "--count", "1", stream) as tailed:
        tailed.subscribed(stream)
        gateway.publish(f"public.{stream}", '{"a": 0.10}')
        code, out = tailed.end()
    assert code == 0
    assert out.endswith(b'"body":{"a": 0.10}}\n')
    value = json.loads(out)
    assert value["stream"] == stream
    assert before_s - 1 < value["received_at"] < time.time() + 1
