"""Fuzzing: what strangers send meets the code that reads it, guided by the branches it takes.

Each target is a module whose first line is its invariant. It has ``check(data)``, which raises
whenever the invariant does not hold for some bytes, and what a search starts from: ``SEEDS``, some
inputs worth changing, and ``WORDS``, which are worth putting in.

``make fuzz SECONDS=60`` searches with each target in turn, see `tests.fuzz.__main__`; the unit
tests run the same functions for a moment. Everything is deterministic: the same bytes, the same
result, on any machine.
"""

from __future__ import annotations

TARGETS = (
    "inbound",
    "requests",
    "queries",
    "viabtc",
    "publish",
    "tokens",
    "trades",
    "heads",
    "deliveries",
    "environments",
    "forwarding",
)
