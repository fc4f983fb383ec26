"""What was measured, held against bounds; and the readings that have to be parsed for it. Pure.

A bound is a maximum: what was measured may reach it and not pass it. Latencies get on top what
the machine itself stood still meanwhile, as the good clients' process noticed, or for how long
the gateway was ready and others had the processors, or what was waited without any attack, in
bounds: on a busy machine that is not the gateway's doing.
"""

from __future__ import annotations

import re
from typing import Iterable, Mapping, NamedTuple

_SEND_MEMORY = re.compile(r"\bskmem:\([^)]*\bw(\d+)")
_LATENCY = "_ms"
_BUSY_MS = 100.0  # a machine on which good clients wait longer unharmed is no place for verdicts


class Row(NamedTuple):
    """One line of the table.

    Attributes:
        name: of the attack.
        measured: all that was measured, by name.
        problems: what is worse than allowed, each with its bound; empty: the row is fine.
    """

    name: str
    measured: Mapping[str, float]
    problems: list[str]


def judge(measured: Mapping[str, float], bounds: Mapping[str, float]) -> list[str]:
    """Return what is worse than allowed; what was not measured counts as that too.

    Args:
        measured: values by name; ``machine_ms`` is what the machine itself stood still,
            or the gateway waited for it, ``baseline_ms`` what was waited before.
        bounds: maxima by name.
    """
    waited_ms = min(measured.get("baseline_ms", 0.0), _BUSY_MS)
    slack_ms = max(measured.get("machine_ms", 0.0), waited_ms)
    problems = []
    for name, bound in bounds.items():
        value = measured.get(name)
        allowed = bound + slack_ms if name.endswith(_LATENCY) else bound
        if value is None:
            problems.append(f"{name}: not measured, bound {bound:g}")
        elif value > allowed:
            problems.append(f"{name} {value:.4g} > {bound:g}")
    return problems


def longest_wait_ms(first: Mapping[int, float], last: Mapping[int, float]) -> float:
    """Return the longest time that one process waited for a processor between two looks.

    Args:
        first: seconds that each process had waited at the first look, by its id.
        last: the same at the last look; who came in between is left out.
    """
    waits = (seconds - first.get(pid, seconds) for pid, seconds in last.items())
    return max(waits, default=0.0) * 1000


def send_memory_bytes(text: str) -> list[int]:
    """Return the bytes that the kernel holds to be sent, by socket.

    Args:
        text: what ``ss -tmnOH`` prints; ``w`` is the memory of queued segments (ss(8)).
    """
    return [int(found) for found in _SEND_MEMORY.findall(text)]


def table(rows: Iterable[Row]) -> str:
    """Return the rows as text for people, aligned."""
    lines = [("attack", "good ms", "memory MB", "machine ms", "verdict")]
    for row in rows:
        values = (_shown(row.measured, key) for key in ("latency_ms", "memory_mb", "machine_ms"))
        verdict = "worse: " + "; ".join(row.problems) if row.problems else "ok"
        lines.append((row.name, *values, verdict))
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    return "\n".join(
        f"{name:<{widths[0]}}  {latency:>{widths[1]}}  {memory:>{widths[2]}}  "
        f"{machine:>{widths[3]}}  {verdict}"
        for name, latency, memory, machine, verdict in lines
    )


def _shown(measured: Mapping[str, float], name: str) -> str:
    value = measured.get(name)
    return "-" if value is None else f"{value:.1f}"
