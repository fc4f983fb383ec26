"""The figures of ``rango load``: what was counted, what that comes to, how it is shown. Pure.

Times are microseconds until they are shown.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Mapping

_KEPT_BITS = 7  # of a value in a histogram: it is right to 1.6 %
_BUSY = 0.8  # share of a core
_LATE_MS = 10.0
_SLOW = 0.9  # share of the rate that was asked for
_OWN_SHARE = 0.5  # of the median latency


class Histogram:
    """Counts of values from 0, in a bounded number of steps.

    Attributes:
        count: number of values.
        largest: the largest one.
    """

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self.count = 0
        self.largest = 0

    def add(self, value: int) -> None:
        """Count a value."""
        value = max(0, value)
        shift = max(0, value.bit_length() - _KEPT_BITS)
        self._counts[value >> shift << shift] += 1
        self.count += 1
        self.largest = max(self.largest, value)

    def percentile(self, share: float) -> int:
        """Return the smallest value that at least this share of all does not exceed; 0: empty."""
        seen = 0
        for value, count in sorted(self._counts.items()):
            seen += count
            if seen >= share * self.count:
                return value
        return 0

    def as_ms(self) -> dict[str, float] | None:
        """Return percentiles in milliseconds; None when it is empty."""
        if not self.count:
            return None
        shares = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))
        found = {name: self.percentile(share) / 1e3 for name, share in shares}
        return {**found, "max": self.largest / 1e3}


class Sequence:
    """The numbers that one client got, of messages counted from 0.

    Attributes:
        got: how many different ones.
        repeated: those that came again, or behind a later one.
    """

    def __init__(self) -> None:
        self._next = 0
        self.got = 0
        self.repeated = 0

    def take(self, number: int) -> None:
        """Note a number that arrived."""
        if number < self._next:
            self.repeated += 1
            return
        self.got += 1
        self._next = number + 1

    def is_done(self, total: int) -> bool:
        """Tell whether the last of so many has arrived."""
        return self._next >= total


@dataclass
class Tally:
    """What all clients counted together.

    Attributes:
        wanted: clients that were to connect.
        up: clients that were let in.
        connect_s: seconds from the first attempt to the last client that was let in.
        handshakes: times from the connect to the response.
        refused: handshakes refused, by status.
        failed: connections that could not be made, by reason.
        closed: connections that ended before the run did, by close code.
        not_held: streams that the gateway did not subscribe clients to.
        seconds: length of the flow.
        messages: events that came in it.
        received_bytes: their bytes.
        gaps: times between two events of one client.
        published: events published by this run; None: it did not publish.
        rate: events a second that it was to publish.
        publish_s: seconds that it published for.
        latency: times from publishing to arrival.
        lost: events that did not arrive, over all clients.
        repeated: events that came again or out of order, over all clients.
        notes: what else there is to say.
        cpu: share of a core that this process used in the flow.
        late: times by which this process woke up too late.
    """

    wanted: int = 0
    up: int = 0
    connect_s: float = 0.0
    handshakes: Histogram = field(default_factory=Histogram)
    refused: Counter[int] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    closed: Counter[int] = field(default_factory=Counter)
    not_held: set[str] = field(default_factory=set)
    seconds: float = 0.0
    messages: int = 0
    received_bytes: int = 0
    gaps: Histogram = field(default_factory=Histogram)
    published: int | None = None
    rate: float = 0.0
    publish_s: float = 0.0
    latency: Histogram = field(default_factory=Histogram)
    lost: int = 0
    repeated: int = 0
    notes: list[str] = field(default_factory=list)
    cpu: float = 0.0
    late: Histogram = field(default_factory=Histogram)

    @property
    def is_whole(self) -> bool:
        """Tell whether nothing was lost: no message, no client, no stream."""
        gone = self.lost or self.refused or self.failed or self.closed or self.not_held
        return not gone and not self.notes

    def as_json(self) -> dict[str, Any]:
        """Return the figures as plain values; times in milliseconds."""
        return {
            "clients": {
                "wanted": self.wanted,
                "connected": self.up,
                "per_s": _per(self.up, self.connect_s),
                "handshake_ms": self.handshakes.as_ms(),
                "refused": _by_name(self.refused),
                "failed": _by_name(self.failed),
                "closed": _by_name(self.closed),
                "not_subscribed": sorted(self.not_held),
            },
            "messages": {
                "received": self.messages,
                "seconds": round(self.seconds, 3),
                "per_s": _per(self.messages, self.seconds),
                "bytes_per_s": _per(self.received_bytes, self.seconds),
                "gap_ms": self.gaps.as_ms(),
                "published": self.published,
                "published_per_s": self._published_per_s(),
                "latency_ms": self.latency.as_ms(),
                "lost": self.lost if self.published is not None else None,
                "repeated": self.repeated if self.published is not None else None,
            },
            "tool": {
                "cpu": round(self.cpu, 3),
                "late_ms": self.late.as_ms(),
                "is_the_limit": bool(self.limits()),
            },
            "notes": self.notes,
            "whole": self.is_whole,
        }

    def limits(self) -> list[str]:
        """Return why the figures may be this tool's and not the gateway's."""
        found = []
        if self.cpu > _BUSY:
            found.append(f"it used {100 * self.cpu:.0f} % of a core")
        late_ms = self.late.percentile(0.99) / 1e3
        if late_ms > _LATE_MS:
            found.append(f"it woke up {late_ms:.0f} ms late")
        if self._reading_ms() > _OWN_SHARE * self.latency.percentile(0.5) / 1e3:
            found.append(f"it takes {self._reading_ms():.1f} ms to read one event at all clients")
        if self.published is not None and self._published_per_s() < _SLOW * self.rate:
            found.append(f"it published {self._published_per_s():.0f}/s of {self.rate:g}/s")
        return found

    def _reading_ms(self) -> float:
        """Return by how much the last client's event is older than the first one's by our doing."""
        if self.published is None:
            return 0.0
        return 1e3 * self.up * _per(self.cpu * self.seconds, self.messages)

    def _published_per_s(self) -> float:
        return _per(self.published or 0, self.publish_s)

    def table(self) -> str:
        """Lay the figures out as text; what there is none of is left out."""
        rows = {
            "clients": f"{self.up:,} of {self.wanted:,} connected"
            f" ({_short(_per(self.up, self.connect_s))}/s), handshake {_times(self.handshakes)}",
            "refused": _counts(self.refused, "HTTP "),
            "failed": _counts(self.failed),
            "closed": _counts(self.closed, "code "),
            "not subscribed": ", ".join(sorted(self.not_held)),
            "received": f"{self.messages:,} in {self.seconds:.1f} s"
            f" ({_short(_per(self.messages, self.seconds))}/s,"
            f" {_short(_per(self.received_bytes, self.seconds) / 1e6)} MB/s)",
            "gaps": _times(self.gaps),
            **(self._end_to_end() if self.published is not None else {}),
            "this tool": f"{100 * self.cpu:.0f} % of a core, woke up late by {_times(self.late)}",
        }
        lines = [f"{name:<15} {text}" for name, text in rows.items() if text]
        return "\n".join(lines + self._warnings())

    def _end_to_end(self) -> Mapping[str, str]:
        return {
            "published": f"{self.published:,} ({_short(self._published_per_s())}/s)",
            "latency": _times(self.latency),
            "lost": f"{self.lost:,}",
            "repeated": f"{self.repeated:,}" if self.repeated else "",
        }

    def _warnings(self) -> list[str]:
        limits = " and ".join(self.limits())
        found = [f"the figures may be this tool's limit, not the gateway's: {limits}"]
        return [*self.notes, *(found if limits else [])]


def _per(amount: float, count: float) -> float:
    return round(amount / count, 6) if count > 0 else 0.0


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _by_name(counts: Mapping[Any, int]) -> dict[str, int]:
    return {str(name): count for name, count in sorted(counts.items())}


def _counts(counts: Mapping[Any, int], what: str = "") -> str:
    return ", ".join(f"{count:,} x {what}{name}" for name, count in sorted(counts.items()))


def _times(histogram: Histogram) -> str:
    found = histogram.as_ms() or {}
    return ", ".join(f"{name} {_short(value)} ms" for name, value in found.items())
