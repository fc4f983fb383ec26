"""Which streams are busy: what the dispatcher gathers is counted while somebody looks. Pure.

Counting costs a step per stream and gathering, not per message, and nothing when nobody looked
for a while. Two windows take turns: rates are told of the last whole one.
"""

from __future__ import annotations

from typing import Callable, NamedTuple, Sequence

from rango_gevent.hub.stream import Batch

WINDOW_S = 2.0
_IDLE_S = 10.0  # nobody looked for so long: counting ends
_MOST = 20_000  # streams in a window; further ones are not seen


class Rate(NamedTuple):
    """What a stream had in a second: events, and bytes of their frames."""

    events: float
    bytes: float


class RateMeter:
    """Counts events by stream.

    Args:
        now: monotonic time in seconds; coarse is good enough for `count`.
        stop: called when nobody looks any more.
    """

    def __init__(self, now: Callable[[], float], stop: Callable[[], None]) -> None:
        self._now = now
        self._stop = stop
        self._since_s = self._asked_s = now()
        self._counts: dict[tuple[str, str], list[int]] = {}
        self._last: dict[tuple[str, str], Rate] = {}

    def count(self, batches: Sequence[Batch]) -> None:
        """Count what the dispatcher gathered."""
        if self._now() - self._asked_s > _IDLE_S:
            self._counts, self._last = {}, {}
            self._stop()
            return
        counts = self._counts
        for batch in batches:
            key = batch.stream.kind, batch.stream.address
            found = counts.get(key)
            if found is None:
                if len(counts) >= _MOST:
                    continue
                found = counts[key] = [0, 0]
            found[0] += len(batch.waiting)
            found[1] += batch.size

    def read(self) -> dict[tuple[str, str], Rate]:
        """Return the rates of the last whole window, by kind and address."""
        now_s = self._now()
        if now_s - self._asked_s > _IDLE_S:
            self._counts, self._last, self._since_s = {}, {}, now_s
        self._asked_s = now_s
        passed_s = now_s - self._since_s
        if passed_s >= WINDOW_S:
            self._last = {
                key: Rate(events / passed_s, size / passed_s)
                for key, (events, size) in self._counts.items()
            }
            self._counts, self._since_s = {}, now_s
        return self._last
