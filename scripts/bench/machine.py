"""What /proc says: processor time and memory of processes, and what machine this is."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import subprocess
import time
from typing import Collection, Iterable

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_LISTEN = "0A"  # state in /proc/net/tcp
# a line of ss and the next one: the peer's port, the memory of its write queue
_SOCKET = re.compile(r"^.*:(\d+)\s*\n\s+skmem:\(.*?,w(\d+),", re.MULTILINE)
_SS_S = 5.0
_QUIET_S = 0.2
_QUIET_CPU_S = 0.01
_OF_ALL_THREADS = 2  # Linux's clocks of a process: clock_getcpuclockid(3) gives this one
_SETTLE_S = 5.0


def cpu_s(pids: Iterable[int]) -> float:
    """Return the processor time of processes so far, in seconds, to the microsecond.

    Raises:
        ProcessLookupError: one has ended.
    """
    return sum(map(_cpu_s, pids))


def _cpu_s(pid: int) -> float:
    """Read a process's own clock: /proc counts in steps of 10 ms, more than a light load takes."""
    try:
        return time.clock_gettime((~pid << 3) | _OF_ALL_THREADS)
    except OSError:
        raise ProcessLookupError(f"process {pid} has ended") from None


def waited_s(pid: int) -> float:
    """Return for how long a process's main thread was ready to run and others ran, in seconds.

    Its processor time does not grow meanwhile (proc(5), schedstat); 0 where the kernel counts none.

    Raises:
        ProcessLookupError: it has ended.
    """
    try:
        with open(f"/proc/{pid}/schedstat") as file:
            return int(file.read().split()[1]) / 1e9
    except OSError:
        _stat(pid)
        return 0.0


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat behind the command's name, which may hold anything."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        raise ProcessLookupError(f"process {pid} has ended") from None


def rss_kb(pids: Iterable[int]) -> int:
    """Return the resident memory of processes, in KB.

    Raises:
        ProcessLookupError: one has ended.
    """
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/status") as file:
                lines = [line for line in file if line.startswith("VmRSS")]
        except OSError:
            raise ProcessLookupError(f"process {pid} has ended") from None
        total += int(lines[0].split()[1]) if lines else 0
    return total


def family(pid: int) -> list[int]:
    """Return a process and its descendants."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                children.setdefault(int(_stat(int(name))[1]), []).append(int(name))
            except ProcessLookupError:
                continue
    found = [pid]
    for member in found:  # grows while it is walked
        found += children.get(member, [])
    return found


def listener(port: int) -> list[int]:
    """Return the process that listens on a TCP port; empty when it is not ours to see."""
    sockets = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError), open(f"/proc/net/{table}") as file:
            for line in file:
                fields = line.split()
                if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                    sockets.add(f"socket:[{fields[9]}]")
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if any(_target(name, fd) in sockets for fd in os.listdir(f"/proc/{name}/fd")):
                return [int(name)]
    return []


def _target(pid: str, fd: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/fd/{fd}")
    except OSError:  # closed since it was listed
        return ""


def send_memory_bytes(port: int, peers: Collection[int]) -> int | None:
    """Return the memory that the kernel holds for what sockets have still to send.

    Args:
        port: their own port, on this machine.
        peers: the ports of their peers.

    Returns:
        The bytes of all of them (``w`` in ss(8)'s skmem), those of closed ones whose last bytes
        wait included; None without iproute2's ``ss``.
    """
    command = ["ss", "-tmnH", "state", "connected", f"sport = :{port}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SS_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    found = _SOCKET.findall(done.stdout)
    return sum(int(held) for peer, held in found if int(peer) in peers)


def settle(pids: list[int]) -> None:
    """Wait until processes do next to nothing, for a bounded time."""
    deadline = time.monotonic() + _SETTLE_S
    before = cpu_s(pids)
    while time.monotonic() < deadline:
        time.sleep(_QUIET_S)  # the length of the look, not a guess
        now = cpu_s(pids)
        if now - before <= _QUIET_CPU_S:
            return
        before = now


def busy_s() -> tuple[float, float]:
    """Return the seconds that the machine's cores were busy, and all their seconds."""
    with open("/proc/stat") as file:
        ticks = [int(field) for field in file.readline().split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / _TICKS_PER_S, sum(ticks) / _TICKS_PER_S


def load() -> list[float]:
    """Return the load averages of 1, 5 and 15 minutes."""
    return [round(value, 2) for value in os.getloadavg()]


def describe() -> dict[str, object]:
    """Return what machine this is."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count() or 1,
        "memory_mb": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20,
        "kernel": platform.release(),
        "system": platform.system(),
    }


def _cpu_model() -> str:
    with open("/proc/cpuinfo") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.machine()
