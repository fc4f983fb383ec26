"""Several workers: one that dies or hangs is replaced, and its clients can come back."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from contextlib import contextmanager, suppress
from typing import Iterator

import pytest
from support import Server, start_gateway, wait_for
from websockets.exceptions import WebSocketException

_WORKERS = 2
_HUNG_S = 6  # longer than a busy machine keeps a worker that is well from saying so


@contextmanager
def _two_workers(timeout_s: int) -> Iterator[Server]:
    env = {"RANGO_WORKERS": str(_WORKERS), "RANGO_WORKER_TIMEOUT_S": str(timeout_s)}
    with start_gateway(env=env) as running:
        wait_for(lambda: len(running.workers()) == _WORKERS, what="both workers")
        yield running


@pytest.fixture
def server() -> Iterator[Server]:
    """Run two workers that nobody takes for hung within a test."""
    with _two_workers(120) as running:
        yield running


@pytest.fixture
def impatient() -> Iterator[Server]:
    """Run two workers that are taken for hung after some seconds."""
    with _two_workers(_HUNG_S) as running:
        yield running


def _wait_replaced(server: Server, victim: int) -> None:
    wait_for(
        lambda: victim not in server.workers() and len(server.workers()) == _WORKERS,
        what=f"a new worker in place of {victim}",
    )


def _can_subscribe(server: Server) -> bool:
    try:
        with server.connect("/public?stream=a.trades") as client:
            return "subscribed" in client.receive(5)
    except (OSError, EOFError, WebSocketException):  # at a worker that is just killed
        return False


def test_a_killed_worker_is_replaced_at_once(server: Server) -> None:
    """After kill -9 a new worker is there, long before one is taken for hung; clients connect."""
    _wait_replaced(server, server.signal_a_worker(signal.SIGKILL))
    wait_for(lambda: _can_subscribe(server), what="clients to come back")


def test_a_hung_worker_is_replaced(impatient: Server) -> None:
    """A worker that stands still is killed and replaced."""
    victim = impatient.signal_a_worker(signal.SIGSTOP)
    _wait_replaced(impatient, victim)
    assert re.search(rf"WORKER TIMEOUT \(pid:{victim}\)", impatient.log())


def test_a_worker_that_hangs_while_it_starts_is_replaced(impatient: Server) -> None:
    """Silence counts from the fork, not from the first sign of life."""
    first = set(impatient.workers())
    impatient.signal_a_worker(signal.SIGKILL)
    victim = max(wait_for(lambda: set(impatient.workers()) - first, what="a worker that starts"))
    os.kill(victim, signal.SIGSTOP)
    _wait_replaced(impatient, victim)


def test_a_worker_is_reloaded_and_not_replaced(server: Server) -> None:
    """SIGHUP to the parent, while a worker starts too: the workers stay."""
    _wait_replaced(server, server.signal_a_worker(signal.SIGKILL))
    before = set(server.workers())
    for _ in range(20):
        server.process.send_signal(signal.SIGHUP)
        time.sleep(0.05)
    wait_for(lambda: _can_subscribe(server), what="clients to come in")
    assert set(server.workers()) == before


def test_a_crash_loop_is_slowed_down_and_said(server: Server) -> None:
    """Workers that die one after the other are started again more slowly, with an alarm."""

    def kill_one_more() -> bool:
        for pid in server.workers()[:1]:
            with suppress(ProcessLookupError):  # it was just on its way out
                os.kill(pid, signal.SIGKILL)
        return "workers die in a loop" in server.log()

    wait_for(kill_one_more, 60, "the alarm")
    wait_for(lambda: len(server.workers()) == _WORKERS, 60, "workers again")


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_all_lines_of_all_processes_are_alike(log_format: str) -> None:
    """gunicorn's own lines have the gateway's format, and each says which process it is of."""
    env = {"RANGO_WORKERS": str(_WORKERS), "RANGO_LOG_FORMAT": log_format}
    with start_gateway(env=env) as server:
        wait_for(lambda: server.log().count("Booting worker") == _WORKERS, what="both workers")
        wait_for(lambda: server.log().count("consuming") == _WORKERS, what="both workers' sources")
        pids = {server.process.pid, *server.workers()}
        assert server.stop() == 0
        lines = server.log().splitlines()
    if log_format == "json":
        found = {json.loads(line)["pid"] for line in lines}
    else:
        form = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z [a-z]+ pid=(\d+) .+")
        assert [line for line in lines if not form.fullmatch(line)] == []
        found = {int(form.fullmatch(line)[1]) for line in lines}  # type: ignore[index]  # see above
    assert found == pids
