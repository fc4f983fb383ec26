"""Requests between workers, over real sockets: what is answered, and what is bounded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from patched import run_patched

from rango_gevent.admin.siblings import ANSWER_S

_SCENE = """
import json
import os
import socket
import stat
import time
from pathlib import Path
import gevent
from rango_gevent.admin import siblings
from rango_gevent.admin.requests import Place, Wanted
from rango_gevent.admin.siblings import Siblings
from rango_gevent.errors import RequestError

directory = Path({directory!r})
siblings.ANSWER_S = {answer_s}
closed = []


def do(wanted):
    if wanted.value == "refuse":
        raise RequestError("not that", 1004)
    if wanted.value == "hang":
        gevent.sleep(60)
    return {{"answers": True, "event": wanted.event, "value": wanted.value}}


def follow(place):
    def portions():
        try:
            yield {{}}
            while True:
                gevent.sleep(0.01)
                yield {{"records": [place.number]}}
        finally:
            closed.append(place.number)
    made = portions()
    next(made)
    return {{"conn": str(place)}}, made


class Other(Siblings):
    # as if it were another process: only its name in the directory tells them apart
    def __init__(self, pid):
        super().__init__(directory, do, follow)
        self._own = directory / f"{{pid}}.sock"


one, two = Other(1), Other(2)
one.start()
two.start()


def raw(data):
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(30)
    sock.connect(str(directory / "2.sock"))
    sock.sendall(data)
    return sock


def rest(sock):
    found = b""
    while True:
        more = sock.recv(65536)
        if not more:
            return found
        found += more
"""


def run(tmp_path: Path, script: str, answer_s: float = 30) -> Any:
    """Run a script with two workers' ends, which wait for each other's answers for so long."""
    scene = _SCENE.format(directory=str(tmp_path), answer_s=answer_s)
    return run_patched(scene + script)


def test_each_asks_the_others(tmp_path: Path) -> None:
    """Not itself; a refusal is an error of the one who asks."""
    found = run(
        tmp_path,
        """
answers = one.ask_all(Wanted("overview", value="a"))
try:
    one.ask(2, Wanted("disconnect", value="refuse"))
except RequestError as error:
    refused = [str(error), error.code]
one.start()
files = sorted(path.name for path in directory.iterdir())
two.stop()
two.stop()
print(json.dumps([one.pids(), answers, refused, files, one.ask_all(Wanted("overview"))]))
""",
    )
    answer = {"answers": True, "event": "overview", "value": "a"}
    assert found == [[], {"2": answer}, ["not that", 1004], ["1.sock", "2.sock"], {}]


def test_a_worker_that_is_dead_is_forgotten_and_one_that_hangs_is_told(tmp_path: Path) -> None:
    """The socket of a dead one goes; a silent one costs a second, and is counted."""
    found = run(
        tmp_path,
        """
dead = socket.socket(socket.AF_UNIX)
dead.bind(str(directory / "3.sock"))
dead.close()
deaf = socket.socket(socket.AF_UNIX)
deaf.bind(str(directory / "4.sock"))
deaf.listen(5)
began = time.monotonic()
answers = one.ask_all(Wanted("overview", value="hang"))
print(json.dumps([answers, one.pids(), one.unanswered, time.monotonic() - began < 20]))
""",
        ANSWER_S,
    )
    assert found == [{"2": None, "4": None}, [2, 4], 2, True]


def test_nonsense_ends_the_connection_and_nothing_else(tmp_path: Path) -> None:
    """No JSON, no request, a line without end, none at all: no answer, and the next is served."""
    found = run(
        tmp_path,
        """
lines = [b"{\\n", b"[]\\n", b'{"event":"overview"}\\n', b"\\xff\\n", b"null\\n"]
answers = [rest(raw(line)).decode() for line in lines]
long = raw(b"")
try:
    for _ in range(100):
        long.sendall(b"x" * 4096)
        gevent.sleep(0)
    ended = long.recv(1) == b""
except OSError:
    ended = True
silent = rest(raw(b"")).decode()
print(json.dumps([answers, ended, silent, two.ask(2, Wanted("overview"))["answers"]]))
""",
        ANSWER_S,
    )
    assert found == [[""] * 5, True, "", True]


def test_following_ends_with_either_side(tmp_path: Path) -> None:
    """Who has enough closes its end, and the connection is let go there."""
    found = run(
        tmp_path,
        """
about, portions = one.follow(Place(2, 7))
got = [next(portions)["records"][0] for _ in range(3)]
portions.close()
with gevent.Timeout(60):
    while not closed:
        gevent.sleep(0.01)
about2, lost = one.follow(Place(2, 8))
next(lost)
two.stop()
left = sum(1 for _ in zip(range(1000), lost))
print(json.dumps([about, got, closed, left < 1000]))
""",
    )
    assert found[:2] == [{"conn": "2-7"}, [7, 7, 7]]
    assert found[2][0] == 7
    assert found[3] is True


def test_followed_connections_leave_room_for_requests(tmp_path: Path) -> None:
    """More than so many are refused, and all else is answered."""
    found = run(
        tmp_path,
        """
followed = [one.follow(Place(2, n)) for n in range(siblings.MOST_FOLLOWED)]
try:
    one.follow(Place(2, 99))
except RequestError as error:
    refused = str(error)
answer = one.ask(2, Wanted("overview"))
for _, portions in followed:
    portions.close()
with gevent.Timeout(60):
    while len(closed) < siblings.MOST_FOLLOWED:
        gevent.sleep(0.01)
one.follow(Place(2, 99))[1].close()
print(json.dumps([refused, answer["answers"]]))
""",
    )
    assert found == ["Too many connections are followed already", True]


def test_a_directory_that_is_too_deep_is_told(tmp_path: Path) -> None:
    """The worker serves its clients all the same, and the log has the cure."""
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    found = run_patched(
        f"""
import io, json
from pathlib import Path
from rango_gevent import logs
from rango_gevent.admin.siblings import Siblings
stream = io.StringIO()
logs.configure("info", "text", stream)
one = Siblings(Path({str(deep)!r}), None, None)
one.start()
one.stop()
print(json.dumps([stream.getvalue(), one.pids()]))
"""
    )
    assert "give a shorter TMPDIR" in found[0]
    assert found[1] == []
