"""Events a second, by stream, in windows of about a second. Pure: the time comes in.

Names are bounded: a pattern may stand for any number of streams.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

_MOST_NAMES = 1000
_OTHERS = "(others)"


class Rates:
    """Counts events.

    Args:
        names: streams that are shown from the start; patterns only once they bring something.
        now_s: the time.
    """

    def __init__(self, names: Iterable[str], now_s: float) -> None:
        self._totals: dict[str, int] = {name: 0 for name in names if "*" not in name}
        self._counts: dict[str, int] = {}
        self._per_s: dict[str, float] = {}
        self._since_s = now_s
        self._told = ""

    def add(self, name: str, number: int = 1) -> None:
        """Count events of a stream."""
        if name not in self._totals and len(self._totals) >= _MOST_NAMES:
            name = _OTHERS
        self._totals[name] = self._totals.get(name, 0) + number
        self._counts[name] = self._counts.get(name, 0) + number

    def close_window(self, now_s: float, told: str = "") -> None:
        """Work the rates out, and begin to count anew.

        Args:
            now_s: the time.
            told: what else is to be said on the page.
        """
        elapsed_s = max(now_s - self._since_s, 1e-9)
        self._per_s = {name: count / elapsed_s for name, count in self._counts.items()}
        self._counts.clear()
        self._since_s, self._told = now_s, told

    def close_window_after(self, length_s: float, now_s: float) -> None:
        """Do so if the window is as long already."""
        if now_s - self._since_s >= length_s:
            self.close_window(now_s)

    def per_s(self, name: str) -> float:
        """Return a stream's rate in the last window."""
        return self._per_s.get(name, 0.0)

    def lines(self, as_json: bool) -> list[str]:
        """Return a line for each stream."""
        if as_json:
            return [
                json.dumps({"stream": name, "per_s": round(self.per_s(name), 2), "total": total})
                for name, total in sorted(self._totals.items())
            ]
        return [
            f"{name}  {self.per_s(name):.1f}/s  {total}"
            for name, total in sorted(self._totals.items())
        ]

    def page(self) -> list[str]:
        """Return a table: the busiest first, then the quiet ones by name."""
        names = sorted(self._totals, key=lambda name: (-self.per_s(name), name))
        width = max([len("stream"), *(len(name) for name in names)])
        rows = [
            f"{name.ljust(width)}  {self.per_s(name):>10.1f}  {self._totals[name]:>12}"
            for name in names
        ]
        all_per_s, total = sum(self._per_s.values()), sum(self._totals.values())
        head = f"{'stream'.ljust(width)}  {'events/s':>10}  {'events':>12}"
        whole = f"{'all'.ljust(width)}  {all_per_s:>10.1f}  {total:>12}"
        return [self._told, head, whole, *rows]
