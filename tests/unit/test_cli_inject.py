"""``rango inject`` without a broker: the lines of a file, the pace, the line of progress."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rango_gevent.commands import inject
from rango_gevent.commands.inject import Message, Pace, Progress, parse
from rango_gevent.errors import ConfigError


def problems(text: bytes) -> list[str]:
    """Return what is told about a file called ``f`` that is not good."""
    with pytest.raises(ConfigError) as error:
        parse(text, "f")
    return error.value.problems


def test_lines_become_messages() -> None:
    """Key and body are parted by white space; comments and blank lines are left out."""
    text = (
        b"\xef\xbb\xbfpublic.a.b 1\n"
        b"\n"
        b"   # public.a.b 2\n"
        b'\tprivate.ID1.order \t {"a b":  1.10, "c":[ ]}  \r\n'
        b'global.tickers "\xf0\x9f\x92\xb9"'
    )
    assert parse(text, "f") == [
        Message("public.a.b", b"1"),
        Message("private.ID1.order", b'{"a b":  1.10, "c":[ ]}'),
        Message("global.tickers", '"💹"'.encode()),
    ]


@given(st.lists(st.sampled_from(["null", "-0.10e5", '"\\u0000 # "', '{"a": [1,  2]}', "123" * 30])))
def test_bodies_keep_their_bytes(bodies: list[str]) -> None:
    """Nothing is rewritten between the file and the broker."""
    text = "".join(f"public.a.b {body}\n" for body in ["0", *bodies]).encode()
    assert [message.body.decode() for message in parse(text, "f")] == ["0", *bodies]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"public.a.b", "give a routing key, a blank and JSON"),
        (b'{"a":1}', "give a routing key, a blank and JSON"),
        (b'{"a": 1}', "'{\"a\":' fits no stream; give scope.stream.type or scope.type"),
        (b"one 1", "'one' fits no stream"),
        (b"a.b.c.d 1", "'a.b.c.d' fits no stream"),
        (b"private..order 1", "'private..order' fits no stream"),
        (b"\xff.a.b 1", "the routing key is not UTF-8"),
        (b"public." + b"a" * 250 + b".b 1", "the routing key is longer than 255 bytes"),
        (b"public.a.b {", "the body is not JSON"),
        (b"public.a.b 01", "the body is not JSON"),
        (b"public.a.b NaN", "the body is not JSON"),
        (b"public.a.b 1 2", "the body is not JSON"),
        (b"public.a.b {'a':1}", "the body is not JSON"),
        (b'public.a.b "a\tb"', "the body is not JSON"),
        (b'public.a.b "\xff"', "the body is not UTF-8"),
        (b"public.a.b " + b"[" * 100_000, "the body is not JSON"),
    ],
)
def test_a_wrong_line_is_told_by_file_and_line(line: bytes, told: str) -> None:
    """A line that the gateway would drop is refused with the place and the reason."""
    (only,) = problems(b"public.a.b 1\n\n" + line + b"\npublic.a.b 2")
    assert only.startswith(f"f:3: {told}")
    assert "\n" not in only


def test_many_wrong_lines_are_cut() -> None:
    """A file that is something else altogether does not fill the screen."""
    told = problems(b"x\n" * 1000)
    assert len(told) == 21
    assert told[-1] == "f: 980 more lines are wrong"


@pytest.mark.parametrize("text", [b"", b"\n\n", b"# only a comment\n"])
def test_a_file_without_messages_is_told(text: bytes) -> None:
    """Publishing nothing is never a silent success."""
    assert problems(text) == ["f: no message in it; a line is a routing key, a blank and JSON"]


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """A missing file and a directory are told with the system's reason."""
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(ConfigError, match=rf"^{re.escape(str(path))}: cannot be read \("):
            inject.read(str(path))


class Clock:
    """Time that passes by sleeping, and a little with each sleep."""

    def __init__(self, late_s: float = 0.0) -> None:
        self.now_s = 100.0
        self.late_s = late_s

    def now(self) -> float:
        """Return the time."""
        return self.now_s

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        assert seconds > 0
        self.now_s += seconds + self.late_s


@pytest.mark.parametrize("late_s", [0.0, 0.001])
def test_the_pace_is_kept_although_sleeps_end_late(late_s: float) -> None:
    """The first message goes at once and the n-th after n - 1 gaps, not later and later."""
    clock = Clock(late_s)
    pace = Pace(100, clock.now, clock.sleep)
    pace.wait()
    assert clock.now_s == 100.0
    for _ in range(200):
        pace.wait()
    assert clock.now_s == pytest.approx(102.0, abs=late_s + 1e-6)


def test_a_broker_that_stood_still_is_not_flooded() -> None:
    """After a long stop one second's worth of messages is made up for, not all."""
    clock = Clock()
    pace = Pace(10, clock.now, clock.sleep)
    pace.wait()
    clock.now_s += 60
    burst = 0
    while clock.now_s == 160.0:
        pace.wait()
        burst += clock.now_s == 160.0
    assert burst == 11


def test_without_a_rate_nothing_waits() -> None:
    """A rate of 0 never sleeps."""
    clock = Clock()
    pace = Pace(0, clock.now, clock.sleep)
    for _ in range(1000):
        pace.wait()
    assert clock.now_s == 100.0


def test_progress_without_a_terminal_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a log only the summary is written, without a control character."""
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    progress = Progress(live=False)
    progress.start()
    for _ in range(3):
        progress.add()
    progress.finish("to x")
    assert re.fullmatch(r"published 3 messages in \d+\.\d s \(\d+/s\) to x\n", stream.getvalue())


def test_progress_on_a_terminal_is_written_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A live line is shown, taken away, and followed by the summary."""
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    progress = Progress(live=True)
    progress.start()
    progress.add()
    progress.add()  # too soon to be shown again
    progress.finish("to x")
    live, end = stream.getvalue().split("\r\x1b[K")
    assert re.fullmatch(r"\rpublished 1 messages in \d+\.\d s \(\d+/s\)\x1b\[K", live)
    assert re.fullmatch(r"published 2 messages in .* to x\n", end)


def test_progress_with_a_known_end_has_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal, and not in the summary."""
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    progress = Progress(live=True, total=200)
    progress.start()
    progress.add(50)
    progress.finish("to x")
    live, end = stream.getvalue().split("\r\x1b[K")
    assert live.endswith(" [#####---------------] 25%\x1b[K")
    assert "%" not in end


def test_a_run_that_never_began_has_no_summary(capsys: pytest.CaptureFixture[str]) -> None:
    """Where no broker was found nothing was published, and nothing says otherwise."""
    Progress(live=False).finish("to x")
    assert capsys.readouterr().err == ""


def test_a_broker_inside_of_another_process_is_refused() -> None:
    """kombu's in-memory broker would take every message and nobody would hear."""
    with pytest.raises(ConfigError, match="nobody outside of this process"):
        inject.connect(["memory://"], "x", 1.0)
