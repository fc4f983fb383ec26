"""Patterns of public names: ``*.trades`` and ``btcusd.*``.

A pattern is held like a name; whoever holds it is subscribed to each topic that matches, when the
pattern is subscribed and whenever a topic is published on for the first time. So a new topic costs
two look-ups, and a message none.
"""

from __future__ import annotations

from typing import Collection, Iterable

_NOTHING: dict[str, None] = {}


def is_pattern(name: str) -> bool:
    """Tell whether a name is a pattern: of two parts, one of them a star."""
    return name.count(".") == 1 and name.startswith("*.") != name.endswith(".*")


def patterns_of(address: str) -> tuple[str, str]:
    """Return the patterns that a public topic matches."""
    stream, _, type_ = address.partition(".")
    return f"*.{type_}", f"{stream}.*"


class Patterns:
    """The public topics that are published on, by the patterns that they match."""

    def __init__(self) -> None:
        self._topics: dict[str, dict[str, None]] = {}

    def publish(self, address: str) -> bool:
        """Note a topic; False when it was noted already."""
        by_type, by_stream = patterns_of(address)
        known = self._topics.setdefault(by_type, {})
        if address in known:
            return False
        known[address] = None
        self._topics.setdefault(by_stream, {})[address] = None
        return True

    def clear(self) -> None:
        """Forget all topics."""
        self._topics.clear()

    def expand(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return names with the topics that match those of them that are patterns, each once."""
        found: dict[str, None] = {}
        for name in names:
            found[name] = None
            if is_pattern(name):
                found.update(self._topics.get(name, _NOTHING))
        return tuple(found)

    def narrow(self, names: Iterable[str], held: Collection[str]) -> tuple[str, ...]:
        """Return names to give up with the topics that are held by those of them alone.

        Args:
            names: that are given up.
            held: all names that a client holds.
        """
        gone = tuple(names)
        kept = {name for name in held if is_pattern(name)}.difference(gone)
        found = dict.fromkeys(gone)
        for name in gone:
            if name in held and is_pattern(name):
                matched = (topic for topic in self._topics.get(name, _NOTHING) if topic in held)
                found.update((t, None) for t in matched if kept.isdisjoint(patterns_of(t)))
        return tuple(found)
