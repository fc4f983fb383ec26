"""Lines that wait to be told: the same ones counted, all of them bounded, none forgotten.

Pure: times come in. What does not fit into a `Tally` is still counted in it.
"""

from __future__ import annotations

from typing import Iterable, NamedTuple

CRITICAL = "critical"
RECOVERED = "recovered"
_MAX_PIDS = 64
_MAX_INCIDENTS = 1000


class Line(NamedTuple):
    """What was said, once or more often.

    Attributes:
        kind: `CRITICAL` or `RECOVERED`.
        key: lines of one kind and key are the same.
        text: as it was said first; one line.
        first_s: Unix time of the first.
        last_s: Unix time of the last.
        times: how often.
        pids: processes that said it.
    """

    kind: str
    key: str
    text: str
    first_s: float
    last_s: float
    times: int
    pids: frozenset[int]

    def joined(self, other: Line) -> Line:
        """Return this line with another of its kind and key counted in."""
        first, last = (self, other) if self.first_s <= other.first_s else (other, self)
        pids = self.pids | other.pids
        return first._replace(
            last_s=max(first.last_s, last.last_s),
            times=self.times + other.times,
            pids=pids if len(pids) <= _MAX_PIDS else self.pids,
        )


class Tally:
    """Lines by kind and key, at most so many; of more there is only the number.

    Args:
        most: different lines that are kept.

    Attributes:
        others: lines beyond that, which are only counted.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lines: dict[tuple[str, str], Line] = {}
        self.others = 0

    def __bool__(self) -> bool:
        """Tell whether there is anything to tell."""
        return bool(self._lines or self.others)

    @property
    def lines(self) -> list[Line]:
        """Return the lines by the time of their first."""
        return sorted(self._lines.values(), key=lambda line: line.first_s)

    def add(self, line: Line) -> None:
        """Count a line in."""
        place = line.kind, line.key
        known = self._lines.get(place)
        if known is not None:
            self._lines[place] = known.joined(line)
        elif len(self._lines) < self._most:
            self._lines[place] = line
        else:
            self.others += line.times

    def take(self) -> Tally:
        """Return what there is, and begin anew."""
        taken = Tally(self._most)
        taken._lines, taken.others = self._lines, self.others
        self._lines, self.others = {}, 0
        return taken

    def give_back(self, lines: Iterable[Line], others: int) -> None:
        """Put back what could not be told; it was there before what came since."""
        newer = self.take()
        self.others = others
        for line in (*lines, *newer.lines):
            self.add(line)
        self.others += newer.others


class Incidents:
    """Which incidents are open, and in which processes: a recovery is told when the last is over.

    An incident that some process opened ends there, by that process, or everywhere, by one that
    never opened it: the parent of workers says that they die, and a worker that they live again.
    """

    def __init__(self) -> None:
        self._open: dict[str, set[int]] = {}

    def opened(self, key: str, pid: int) -> None:
        """Note an incident of a process."""
        if key in self._open or len(self._open) < _MAX_INCIDENTS:
            self._open.setdefault(key, set()).add(pid)

    def is_over(self, key: str, pid: int, alive: frozenset[int]) -> bool:
        """Note a recovery; tell whether it ends an incident that was told.

        Args:
            key: of the incident.
            pid: of the process that recovered.
            alive: processes that run; incidents of others went with them.
        """
        pids = self._open.get(key)
        if pids is None:
            return False
        if pid in pids:
            pids.discard(pid)
            pids &= alive
        else:
            pids.clear()
        if pids:
            return False
        del self._open[key]
        return True

    def processes(self, key: str) -> frozenset[int]:
        """Return the processes in which an incident is open."""
        return frozenset(self._open.get(key, ()))
