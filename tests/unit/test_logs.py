"""Logs: text and JSON lines, one line a record, whatever somebody outside puts into it."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import sys
from typing import Any, Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rango_gevent import logs
from rango_gevent.settings import LOG_LEVELS

log = logging.getLogger("rango_gevent.test")
any_text = st.text(st.characters())


@pytest.fixture(autouse=True)
def _restore_the_logger() -> Iterator[None]:
    """Leave the package's logger as it was found."""
    before = logs.log.handlers[:], logs.log.level, logs.log.propagate
    yield
    logs.log.handlers[:], logs.log.level, logs.log.propagate = before
    logs._shows_pid = False


def written(log_format: str, level: str = "debug") -> io.StringIO:
    """Configure the log and return what it writes to."""
    stream = io.StringIO()
    logs.configure(level, log_format, stream)
    return stream


def record(message: str, *args: object, **extra: object) -> logging.LogRecord:
    """Return a record of a fixed time."""
    made = logging.LogRecord("rango_gevent.test", logging.INFO, "f.py", 1, message, args, None)
    made.created, made.msecs = 1_769_860_800.1239, 123.9
    made.__dict__.update(extra)
    return made


# -- text ---------------------------------------------------------------------------------------


def test_a_text_line() -> None:
    """Time in UTC with milliseconds, level, connection, peer, message."""
    line = logs.TextFormatter().format(record("ended after %.1f s", 2, conn=7, peer="1.2.3.4:5"))
    assert line == "2026-01-31T12:00:00.123Z info conn=7 peer=1.2.3.4:5 ended after 2.0 s"


def test_a_text_line_about_no_connection() -> None:
    """Fields that a record does not have are left out."""
    assert logs.TextFormatter().format(record("hello")) == "2026-01-31T12:00:00.123Z info hello"


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("a\nb", r"a\nb"),
        ("a\r\nb", r"a\r\nb"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("a\x00\x7f\x9b", r"a\x00\x7f\x9b"),
        ("a\u2028b\u202e", r"a\u2028b\u202e"),
        ("\ud800", r"\ud800"),
        ("é 価格 😀", "é 価格 😀"),
        ("a\\nb", "a\\nb"),
    ],
)
def test_control_characters_are_escaped(message: str, shown: str) -> None:
    """A line stays a line and drives no terminal; all that can be read is left alone."""
    assert logs.TextFormatter().format(record("%s", message)).endswith(" info " + shown)


@given(any_text, any_text)
@example("2026-01-31T12:00:00.123Z error forged", "\n")
def test_any_message_is_one_printable_line(message: str, peer: str) -> None:
    """Nobody outside can write lines of their own, by a message or by an address."""
    line = logs.TextFormatter().format(record("%s", message, peer=peer))
    assert line.isprintable()
    line.encode()


@given(any_text)
@example("x\n2026-01-31T12:00:00.123Z error forged")
def test_a_traceback_cannot_be_taken_for_a_record(message: str) -> None:
    """An exception's text may come from outside too: its lines are escaped and set off."""
    line, *rest = logs.TextFormatter().format(with_exception(message)).split("\n")
    assert line.endswith(" info it failed")
    assert len(rest) >= 3
    assert all(text.startswith("  ") for text in rest)
    assert all(text.isprintable() for text in rest)


def with_exception(message: str) -> logging.LogRecord:
    """Return a record with the traceback of an exception."""
    made = record("it failed")
    try:
        raise ValueError(message)
    except ValueError:
        made.exc_info = sys.exc_info()
    return made


def test_a_traceback_is_readable() -> None:
    """File, line and text of the exception are there."""
    text = logs.TextFormatter().format(with_exception("bad thing"))
    assert "Traceback (most recent call last):" in text
    assert "in with_exception" in text
    assert text.endswith("ValueError: bad thing")


# -- JSON ---------------------------------------------------------------------------------------


def test_a_json_line() -> None:
    """The same fields as an object; the connection's number stays a number."""
    line = logs.JsonFormatter().format(record("ended: %s", "bye", conn=7, peer="1.2.3.4:5"))
    assert json.loads(line) == {
        "time": "2026-01-31T12:00:00.123Z",
        "level": "info",
        "logger": "rango_gevent.test",
        "message": "ended: bye",
        "conn": 7,
        "peer": "1.2.3.4:5",
    }


def test_a_json_line_holds_the_traceback() -> None:
    """An exception does not break the rule of one object a line."""
    line = logs.JsonFormatter().format(with_exception("bad\nthing"))
    assert "\n" not in line
    assert json.loads(line)["exception"].endswith("ValueError: bad\nthing")


@given(st.text(), any_text)
@example("\ud800", "")
def test_any_message_is_one_json_line(message: str, peer: str) -> None:
    """Pure ASCII, so that no encoding of a stream and no viewer can stumble."""
    line = logs.JsonFormatter().format(record("%s", message, peer=peer))
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["message"] == message


# -- configuration ------------------------------------------------------------------------------

WORDS = {
    "trace": "debug", "debug": "debug", "info": "info", "warn": "warn", "error": "error",
    "fatal": "fatal", "panic": "fatal",
}  # fmt: skip
NUMBERS = {"debug": 10, "info": 20, "warn": 30, "error": 40, "fatal": 50}


@pytest.mark.parametrize("level", LOG_LEVELS)
def test_levels(level: str) -> None:
    """Rango's words let through their own level and what is worse, under Rango's words."""
    stream = written("json", level)
    for number in NUMBERS.values():
        log.log(number, "x")
    found = [json.loads(line)["level"] for line in stream.getvalue().splitlines()]
    assert found == [word for word, number in NUMBERS.items() if number >= NUMBERS[WORDS[level]]]


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_line_is_written_once(log_format: str) -> None:
    """Configured twice, or below a configured root, the log still says everything once."""
    written(log_format)
    stream = written(log_format)
    root = io.StringIO()
    handler = logging.StreamHandler(root)
    logging.getLogger().addHandler(handler)
    try:
        log.warning("hello", extra={"conn": 1, "peer": "unix"})
    finally:
        logging.getLogger().removeHandler(handler)
    assert stream.getvalue().count("hello") == 1
    assert stream.getvalue().endswith("\n")
    assert root.getvalue() == ""


def test_other_libraries_are_left_alone() -> None:
    """Only this package's log is configured."""
    stream = written("text")
    logging.getLogger("kombu").warning("not ours")
    assert stream.getvalue() == ""


def test_standard_error_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output belongs to the commands."""
    logs.configure("info", "text")
    log.info("hello")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(r"\S+Z info hello\n", captured.err)


def test_one_of_several_processes_names_itself() -> None:
    """The pid stands before what the line is about, as a number in JSON."""
    logs.show_pid()
    made = record("hello", conn=7)
    assert logs.TextFormatter().format(made).endswith(f"Z info pid={os.getpid()} conn=7 hello")
    assert json.loads(logs.JsonFormatter().format(made))["pid"] == os.getpid()


@pytest.mark.parametrize(
    ("text", "lines"),
    [("bad thing\n", ["bad thing"]), ("\n", []), ("", []), ("two\nlines\n", [r"two\nlines"])],
)
def test_a_librarys_complaint_becomes_a_line(text: str, lines: list[str]) -> None:
    """What a server writes to its error log is a warning under a name, and blank lines are not."""
    stream = written("text")
    complaints: Any = logs.AsFile("server")
    complaints.write(text)
    complaints.flush()
    assert [line.split(" warn ")[1] for line in stream.getvalue().splitlines()] == lines
