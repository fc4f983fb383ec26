"""The programs of docs/AUTH.md, taken from it and run as they are printed."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import Iterator, NamedTuple

import pytest
from support import ROOT, Server, make_token, start_gateway, wait_for

TEXT = (ROOT / "docs" / "AUTH.md").read_text()
ADDRESS = "127.0.0.1:8080"


class Program(NamedTuple):
    """A program under its heading."""

    way: str
    language: str
    code: str


def programs() -> list[Program]:
    """Return all of them."""
    found = []
    for section in TEXT.split("\n### ")[1:]:
        way = section.partition("\n")[0].lower()
        for language, code in re.findall(r"^```(js|python)\n(.*?)^```$", section, re.M | re.S):
            found.append(Program(way, language, code))
    return found


PYTHON = [program for program in programs() if program.language == "python"]


def test_each_way_has_a_program() -> None:
    """In both languages, where a page can do it."""
    ways = {(program.way, program.language) for program in programs()}
    of_python = {"subprotocol", "message", "header", "cookie", "query"}
    assert {way for way, language in ways if language == "python"} == of_python
    assert {way for way, language in ways if language == "js"} == of_python - {"header"}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A gateway with all ways open; by the settings that the text names."""
    (opened,) = re.findall(r"`(RANGO_AUTH_WAYS=[a-z,]+query)`", TEXT)
    (cookie,) = re.findall(r"`(RANGO_AUTH_COOKIE=\w+)`", TEXT)
    env = dict(setting.split("=") for setting in (opened, cookie))
    with start_gateway(env=env) as started:
        yield started


@contextmanager
def running(command: list[str]) -> Iterator[list[str]]:
    """Run a program for the length of a ``with`` block; the list grows by what it prints."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    lines: list[str] = []
    reader = threading.Thread(target=lines.extend, args=(process.stdout,), daemon=True)
    reader.start()
    try:
        yield lines
    finally:
        process.kill()
        process.wait(30)
        reader.join(30)
        process.stdout.close()


@pytest.mark.parametrize("program", PYTHON, ids=[program.way for program in PYTHON])
def test_a_program_receives_what_is_private(server: Server, program: Program) -> None:
    """It prints the user's order."""
    uid = f"PY{PYTHON.index(program)}"
    code = program.code.replace(ADDRESS, f"127.0.0.1:{server.port}")
    prelude = f"token = {make_token({'uid': uid})!r}\n"
    with running([sys.executable, "-u", "-c", prelude + code]) as lines:

        def has_come() -> bool:
            server.publish(f"private.{uid}.order", '{"id":1}')
            return any('{"order":{"id":1}}' in line for line in list(lines))

        try:
            wait_for(has_come, what="the order")
        except AssertionError as error:
            raise AssertionError(f"{error}; it printed {lines}") from None
