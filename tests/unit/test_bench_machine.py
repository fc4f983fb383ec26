"""What the benchmark reads from /proc, asked about this very process."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from typing import Iterator

import pytest
from bench import machine


def test_processor_time_grows_with_work() -> None:
    """Work of this process shows up in its processor time, as its own clock says too."""
    before, own = machine.cpu_s([os.getpid()]), sum(os.times()[:2])
    while sum(os.times()[:2]) - own < 0.1:
        sum(range(1000))
    assert 0.05 < machine.cpu_s([os.getpid()]) - before < 5


def test_processor_time_is_as_fine_as_a_light_load_needs() -> None:
    """A hundredth of a millisecond of work shows."""
    before, own = machine.cpu_s([os.getpid()]), time.process_time()
    while time.process_time() - own < 1e-5:
        pass
    assert machine.cpu_s([os.getpid()]) - before >= 1e-5


def test_a_process_that_others_keep_from_running_waits() -> None:
    """Two that want the same processor wait for each other; who sleeps waits for nobody."""
    core = min(os.sched_getaffinity(0))
    busy = f"import os; os.sched_setaffinity(0, {{{core}}})\nwhile True: pass"
    sleeping = "import time; time.sleep(600)"
    with contextlib.ExitStack() as stack:
        one, other, idle = (
            stack.enter_context(subprocess.Popen([sys.executable, "-c", code]))
            for code in (busy, busy, sleeping)
        )
        for process in (one, other, idle):
            stack.callback(process.kill)
        deadline = time.monotonic() + 60
        while machine.waited_s(one.pid) < 1.0:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert machine.waited_s(idle.pid) < machine.waited_s(one.pid)
    with pytest.raises(ProcessLookupError):
        machine.waited_s(one.pid)


def test_memory_is_that_of_all_processes() -> None:
    """The memory of several processes is their sum."""
    once = machine.rss_kb([os.getpid()])
    assert once > 1000
    assert machine.rss_kb([os.getpid()] * 2) >= 1.9 * once


def test_a_process_that_has_ended_is_an_error() -> None:
    """A figure of a process that is gone would be wrong, so there is none."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait(60)
    with pytest.raises(ProcessLookupError):
        machine.cpu_s([process.pid])
    with pytest.raises(ProcessLookupError):
        machine.rss_kb([process.pid])


def test_family_holds_children_of_children() -> None:
    """A process's family is the process and all its descendants."""
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    process = subprocess.Popen(
        [sys.executable, "-c", child], stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 60
        while len(machine.family(process.pid)) < 2 and time.monotonic() < deadline:
            pass
        family = machine.family(process.pid)
        assert family[0] == process.pid
        assert len(family) == 2
        assert set(family) <= set(machine.family(os.getpid()))
    finally:
        process.communicate(b"\n", timeout=60)


def test_listener_finds_who_listens_on_a_port() -> None:
    """The process behind a listening port is found, and nobody behind a free one."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        assert machine.listener(port) == []
        sock.listen()
        assert machine.listener(port) == [os.getpid()]


@contextlib.contextmanager
def stalled() -> Iterator[tuple[socket.socket, socket.socket, int]]:
    """Give a sender whose buffer is full, the peer that reads nothing, and the bytes sent."""
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.connect(listening.getsockname())
        sender, _ = listening.accept()
        sent = 0
        with sender:
            sender.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    sent += sender.send(bytes(65536))
            yield sender, reader, sent


def test_the_kernel_s_memory_behind_a_stalled_reader_is_seen() -> None:
    """It is at least what was sent, but for the reader's own buffer; another peer's is not in it."""
    with stalled() as (sender, reader, sent):
        port, peer = sender.getsockname()[1], reader.getsockname()[1]
        held = machine.send_memory_bytes(port, {peer})
        assert held is not None
        assert sent - 65536 <= held < 4 * sent
        assert machine.send_memory_bytes(port, {peer + 1}) == 0


def test_without_ss_there_is_no_such_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not seen is unmeasured, not 0."""
    monkeypatch.setenv("PATH", "/nowhere")
    assert machine.send_memory_bytes(1, {2}) is None


def test_busy_time_is_part_of_all_time() -> None:
    """The cores' busy seconds are no more than all their seconds."""
    busy_s, all_s = machine.busy_s()
    assert 0 < busy_s <= all_s


def test_machine_is_described() -> None:
    """The report can say what processor it was, and how many cores."""
    described = machine.describe()
    assert described["cpu"]
    assert described["cores"] == os.cpu_count()
