"""Text from outside: whatever it holds, it is one line and drives no terminal."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rango_gevent.commands.terminal import escaped, is_utf8

ANY_TEXT = st.text(alphabet=st.characters())  # surrogates and controls included


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ('{"price":"1.10"}', '{"price":"1.10"}'),
        ("grüße 交易 💹", "grüße 交易 💹"),
        ("back\\slash", "back\\slash"),
        ("a\tb\nc\rd", "a b c d"),
        ("\x1b[2J\x1b]0;title\x07", "\\u001b[2J\\u001b]0;title\\u0007"),
        ("\x7f\x00\x08", "\\u007f\\u0000\\u0008"),
        ("\x9b31m", "\\u009b31m"),  # CSI in one character
        ("\u202e\u2066abc", "\\u202e\\u2066abc"),  # direction overrides
        ("\u2028\u2029\ufeff", "\\u2028\\u2029\\ufeff"),
        ("\u200b", "\\u200b"),
        ("\xa0", "\\u00a0"),
        ("\ud800x", "\\ud800x"),
        ("\U000e0001", "\\udb40\\udc01"),  # an invisible tag, beyond the first plane
    ],
)
def test_escaped(text: str, shown: str) -> None:
    """Printable text stays, everything else becomes an escape of JSON or a blank."""
    assert escaped(text) == shown


def test_ascii_only() -> None:
    """Where the stream takes ASCII only, everything else is escaped."""
    assert escaped("grüße 💹\n", ascii_only=True) == "gr\\u00fc\\u00dfe \\ud83d\\udcb9 "


@given(ANY_TEXT, st.booleans())
def test_whatever_comes_is_harmless(text: str, ascii_only: bool) -> None:
    """The result is printable, one line, can be encoded, and is not escaped twice."""
    shown = escaped(text, ascii_only=ascii_only)
    assert shown.isprintable()
    assert shown.encode("ascii" if ascii_only else "utf-8")[:1] != b"\x1b"
    assert escaped(shown, ascii_only=ascii_only) == shown


@given(
    st.recursive(
        st.none() | st.integers() | ANY_TEXT,
        lambda inner: st.lists(inner) | st.dictionaries(ANY_TEXT, inner),
    ),
    st.sampled_from([None, 1, "\t"]),
)
def test_json_keeps_its_value(value: object, indent: object) -> None:
    """What was JSON before is the same JSON after, so the output can be piped on."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)  # type: ignore[arg-type]
    assert json.loads(escaped(text)) == json.loads(text)


@pytest.mark.parametrize(
    ("encoding", "takes_all"),
    [("utf-8", True), ("UTF8", True), ("latin-1", False), ("ascii", False)],
)
def test_is_utf8(encoding: str, takes_all: bool) -> None:
    """Only a stream known to be UTF-8 is given characters beyond ASCII."""
    assert is_utf8(io.TextIOWrapper(io.BytesIO(), encoding=encoding)) is takes_all


_INTERRUPTED = """
import os, signal, sys, time
from gevent import monkey; monkey.patch_all()
import gevent
from rango_gevent.commands.terminal import interrupts_here

def busy_elsewhere():
    for _ in range(3):
        gevent.sleep(0)
    if where == "other":
        os.kill(os.getpid(), signal.SIGINT)

def main():
    if where == "here":
        os.kill(os.getpid(), signal.SIGINT)
    else:
        gevent.spawn(busy_elsewhere)
        if where == "hub":
            gevent.get_hub().threadpool.spawn(lambda: (time.sleep(0.05), os.kill(os.getpid(), 2)))
    gevent.sleep(20)

where = sys.argv[1]
try:
    with interrupts_here():
        main()
except KeyboardInterrupt:
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    sys.exit(130)
"""


@pytest.mark.parametrize("where", ["here", "other", "hub"])
def test_an_interrupt_ends_the_block_quietly(where: str) -> None:
    """Ctrl-C ends the block whichever greenlet runs, with no traceback by gevent."""
    ended = subprocess.run(
        [sys.executable, "-c", _INTERRUPTED, where], capture_output=True, text=True, timeout=90
    )
    assert (ended.returncode, ended.stderr) == (130, "")


def test_an_ignored_interrupt_stays_ignored() -> None:
    """A process that a script started in the background is not ended by the script's Ctrl-C."""
    script = (
        "import os, signal; from rango_gevent.commands.terminal import interrupts_here\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "with interrupts_here(): os.kill(os.getpid(), signal.SIGINT)\n"
        "print('on')"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=90
    )
    assert (ended.returncode, ended.stdout) == (0, "on\n")
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
