"""What subcommands share about the terminal: harmless text, findings, Ctrl-C, a page to draw on.

Text from a publisher or a server may hold anything, and a terminal obeys what it is shown:
an escape sequence can rewrite the screen, and a direction override makes text read as
something else. So nothing from outside is printed but by `escaped`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from types import FrameType
from typing import TextIO

import gevent

from rango_gevent.commands.findings import FAIL, Finding

BROKEN_PIPE = 141  # what a shell reports for a process that SIGPIPE ended


def escaped(text: str, *, ascii_only: bool = False) -> str:
    """Return text that is one line and drives no terminal.

    The escapes are those of JSON and the white space that JSON knows becomes a blank, so a
    JSON text keeps its value.

    Args:
        text: anything.
        ascii_only: escape everything beyond ASCII too.
    """
    if text.isprintable() and (not ascii_only or text.isascii()):
        return text
    return "".join(_harmless(character, ascii_only) for character in text)


def _harmless(character: str, ascii_only: bool) -> str:
    if character in "\t\n\r":
        return " "
    if character.isprintable() and (not ascii_only or character.isascii()):
        return character
    # surrogatepass: half a pair is no character, but its escape is JSON
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))


def is_utf8(stream: TextIO) -> bool:
    """Tell whether a stream takes every character."""
    return (stream.encoding or "").lower().replace("-", "") == "utf8"


def say(text: str) -> None:
    """Print one line on standard error; whatever was said by others is harmless there."""
    print(escaped(text, ascii_only=not is_utf8(sys.stderr)), file=sys.stderr, flush=True)


def print_findings(findings: Iterable[Finding]) -> int:
    """Print a line for each as it comes; return the exit code, 1 when one has failed."""
    code = 0
    for finding in findings:
        has_failed = finding.level == FAIL
        print(f"{'failed' if has_failed else 'ok'}: {finding.words}", flush=True)
        code = code or int(has_failed)
    return code


def drop_stdout() -> None:
    """Let standard output lead nowhere: nobody reads it, and the interpreter flushes it at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


@contextlib.contextmanager
def interrupts_here() -> Iterator[None]:
    """Raise KeyboardInterrupt in the greenlet that runs this block, whichever runs at the time.

    Left alone, gevent raises it in the greenlet that happens to run: often its hub, which
    prints a traceback. A process that was started with SIGINT ignored, as a shell does for
    ``command &`` in a script, goes on ignoring it.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield
        return
    here = gevent.getcurrent()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if gevent.getcurrent() is here:
            raise KeyboardInterrupt
        gevent.get_hub().loop.run_callback(here.throw, KeyboardInterrupt)

    previous = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def can_draw(stream: TextIO) -> bool:
    """Tell whether a stream is a terminal that takes a `Screen`."""
    return stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


class Screen:
    """Draws lines in place, on a page of its own; what was on the terminal comes back at the end.

    A frame goes out as one write, over the one before and without erasing it first, so that
    nothing flickers; terminals that know the word show it as a whole.

    Args:
        out: a terminal, as `can_draw` tells.
    """

    _OPEN = "\x1b[?1049h\x1b[?25l"  # another page, no cursor
    _CLOSE = "\x1b[?25h\x1b[?1049l"
    _FRAME = "\x1b[?2026h\x1b[H{}\x1b[K\x1b[J\x1b[?2026l"  # all at once: from home, rest erased
    _NEXT = "\x1b[K\n"

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._ascii_only = not is_utf8(out)
        self._shown = ""

    def __enter__(self) -> Screen:
        """Take the terminal."""
        self._write(self._OPEN)
        return self

    def __exit__(self, *error: object) -> None:
        """Give the terminal back as it was."""
        self._write(self._CLOSE)

    def size(self) -> tuple[int, int]:
        """Return columns and rows, as they are now."""
        try:
            return os.get_terminal_size(self._out.fileno())
        except OSError:
            return 80, 24

    def draw(self, lines: Sequence[str]) -> None:
        """Show lines, as many and as much of each as there is room for."""
        columns, rows = self.size()
        fitting = [escaped(line, ascii_only=self._ascii_only)[:columns] for line in lines[:rows]]
        frame = self._FRAME.format(self._NEXT.join(fitting))
        if frame != self._shown:
            self._shown = frame
            self._write(frame)

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()
