"""Several workers: one that dies or hangs is replaced, and its clients can come back."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from contextlib import suppress
from typing import Iterator

import pytest
from support import Server, start_gateway, wait_for

_WORKERS = 2


@pytest.fixture
def server() -> Iterator[Server]:
    """Run two workers that are taken for hung after two seconds."""
    env = {"RANGO_WORKERS": str(_WORKERS), "RANGO_WORKER_TIMEOUT_S": "2"}
    with start_gateway(env=env) as running:
        wait_for(lambda: len(running.workers()) == _WORKERS, what="both workers")
        yield running


def _can_subscribe(server: Server) -> bool:
    try:
        with server.connect("/public?stream=a.trades") as client:
            return "subscribed" in client.receive(2)
    except (OSError, TimeoutError):
        return False


def test_a_killed_worker_is_replaced_at_once(server: Server) -> None:
    """After kill -9 a new worker is there within a second or so, and clients can connect."""
    victim = server.workers()[0]
    killed = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    wait_for(
        lambda: victim not in server.workers() and len(server.workers()) == _WORKERS,
        what="a new worker",
    )
    assert time.monotonic() - killed < 5
    wait_for(lambda: _can_subscribe(server), what="clients to come back")


def test_a_hung_worker_is_replaced(server: Server) -> None:
    """A worker that stands still is killed and replaced."""
    victim = server.workers()[0]
    os.kill(victim, signal.SIGSTOP)
    wait_for(
        lambda: victim not in server.workers() and len(server.workers()) == _WORKERS,
        timeout_s=20,
        what="the hung worker to be replaced",
    )
    assert re.search(rf"WORKER TIMEOUT \(pid:{victim}\)", server.log())


def test_a_worker_that_hangs_while_it_starts_is_replaced(server: Server) -> None:
    """Silence counts from the fork, not from the first sign of life."""
    first = set(server.workers())
    os.kill(min(first), signal.SIGKILL)
    [victim] = wait_for(lambda: set(server.workers()) - first, what="a worker that starts")
    os.kill(victim, signal.SIGSTOP)
    wait_for(
        lambda: victim not in server.workers() and len(server.workers()) == _WORKERS,
        timeout_s=20,
        what="the hung worker to be replaced",
    )


def test_a_worker_is_reloaded_and_not_replaced(server: Server) -> None:
    """SIGHUP to the parent, while a worker starts too: the workers stay."""
    victim = server.workers()[0]
    os.kill(victim, signal.SIGKILL)
    wait_for(
        lambda: victim not in server.workers() and len(server.workers()) == _WORKERS,
        what="a worker that starts",
    )
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

    wait_for(kill_one_more, timeout_s=30, what="the alarm")
    wait_for(lambda: len(server.workers()) == _WORKERS, timeout_s=20, what="workers again")


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
