"""How alerts read: a subject, a body of lines, and one line for sinks that take no more.

Pure. Texts come from the log and may hold what somebody outside sent: control characters are
escaped, and lines are cut.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from rango_gevent.alerts.tally import CRITICAL, RECOVERED, Line, Tally

MAX_TEXT = 500  # characters of one line
TEST = "test"
_WORDS = {CRITICAL: "CRITICAL", RECOVERED: "RECOVERED", TEST: "TEST"}


class Letter(NamedTuple):
    """A message.

    Attributes:
        subject: what it is about, short.
        body: lines.
        line: all of it on one line.
    """

    subject: str
    body: str
    line: str


def plain(text: str) -> str:
    """Return a text fit for one line of a message."""
    cut = text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)


def write(tally: Tally, host: str) -> Letter:
    """Write the message of what was counted.

    Args:
        tally: not empty.
        host: name of where it happened.
    """
    lines = tally.lines
    kinds = [(kind, sum(line.kind == kind for line in lines)) for kind in _WORDS]
    counts = [f"{count} {kind}" for kind, count in kinds if count]
    rest = [f"and {tally.others} more"] if tally.others else []
    subject = f"rango at {host}: {', '.join(counts + rest)}"
    body = "\n".join([*map(_paragraph, lines), *rest])
    short = " | ".join([*map(_short, lines), *rest])
    return Letter(subject, body, short)


def trial_letter(host: str) -> Letter:
    """Write a message that only tries whether messages arrive."""
    text = f"rango at {host}: a test of alerts, nothing is wrong"
    return Letter(text, f"{text}.", text)


def _paragraph(line: Line) -> str:
    head = f"{_WORDS[line.kind]} {_clock(line.first_s)} {plain(line.text)}"
    if line.times == 1:
        return head
    more = f"  {line.times} times until {_clock(line.last_s)}"
    return f"{head}\n{more}{f', in {len(line.pids)} processes' if len(line.pids) > 1 else ''}"


def _short(line: Line) -> str:
    times = f" ({line.times} times)" if line.times > 1 else ""
    return f"{_WORDS[line.kind]} {plain(line.text)}{times}"


def _clock(at_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at_s))
