"""A stream that is wanted: by whom, from which connection, and what became of it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from rango_gevent.client.model import Event, SubscriptionRefused

if TYPE_CHECKING:
    from rango_gevent.client.link import Link

PENDING = "pending"
ACTIVE = "active"
REFUSED = "refused"

BOOK_END = "-inc"
SNAPSHOT_END = "-snap"


class Sink(Protocol):
    """Whoever takes a stream's events."""

    @property
    def dropped(self) -> int:
        """Return how many events it did not keep."""

    def offer(self, number: int, event: Event) -> bool:
        """Take an event; False: there is no room yet, ask again."""

    def waiting(self) -> tuple[int, float | None]:
        """Return how many events wait, and when the oldest of them arrived."""

    def lost(self, reason: str) -> None:
        """Hear that events are missing from here on until more comes."""

    def paused(self, reason: str) -> bool:
        """Hear that the connection is gone; tell whether it could go on from here later."""

    def resumed(self, recovered: bool) -> None:
        """Hear that it is held again, with all that was missed, or with a gap or a snapshot."""


class Wanted:
    """A stream that somebody wants.

    Args:
        name: as it is subscribed to.

    Attributes:
        sinks: who takes its events.
        link: the connection that holds it.
        is_guest: it stands for a stream that moves here, and nobody knows of it.
        state: `PENDING`, `ACTIVE` or `REFUSED`.
        error: why it is refused.
        lost_at_s: until when it was whole, on the wall clock; None while nothing is missing.
        why_lost: why.
        since: position up to which nothing is missing, while it is not held; None: unknown.
        stale_after_s: seconds without an event after which somebody is to be told; 0: never.
        resyncs: snapshots that were asked for of late.
        resynced_at_s: when the last of them was.
        quiet_since_s: when its last event came, or it was subscribed; None: it was told already.
    """

    __slots__ = (
        "error",
        "is_guest",
        "link",
        "lost_at_s",
        "name",
        "quiet_since_s",
        "resynced_at_s",
        "resyncs",
        "since",
        "sinks",
        "stale_after_s",
        "state",
        "why_lost",
    )

    link: Link

    def __init__(self, name: str) -> None:
        self.name = name
        self.sinks: list[Sink] = []
        self.is_guest = False
        self.state = PENDING
        self.error: SubscriptionRefused | None = None
        self.lost_at_s: float | None = None
        self.why_lost = ""
        self.since: str | None = None
        self.stale_after_s = 0.0
        self.resyncs = 0
        self.resynced_at_s = 0.0
        self.quiet_since_s: float | None = None

    @property
    def is_book(self) -> bool:
        """Tell whether a snapshot comes first."""
        return self.name.endswith(BOOK_END)

    def routes(self) -> list[str]:
        """Return the names that its events come under.

        A prefixed stream's events come without the scope, a book's snapshot under its own name.
        """
        name = self.name
        if name.count(".") == 2:
            name = name.partition(".")[2]
        return [name, name[: -len(BOOK_END)] + SNAPSHOT_END] if self.is_book else [name]

    def activate(self, now_s: float) -> None:
        """Note that it is held."""
        self.state, self.error, self.since = ACTIVE, None, None
        self.quiet_since_s = now_s

    def refuse(self, text: str, code: int | None = None) -> None:
        """Note that it may not be held."""
        self.state, self.since = REFUSED, None
        self.error = SubscriptionRefused(self.name, text, code)

    def lose(self, at_s: float, why: str) -> None:
        """Note that its connection is gone."""
        if self.state == ACTIVE and self.lost_at_s is None:
            self.lost_at_s, self.why_lost = at_s, why
        self.state, self.error, self.quiet_since_s = PENDING, None, None


class Routes:
    """Which streams the events of a name are for; ``*.trades`` and ``btcusd.*`` match many."""

    def __init__(self) -> None:
        self._streams: dict[str, list[Wanted]] = {}
        self._patterns = 0

    def add(self, stream: Wanted) -> None:
        """Let a stream have its events."""
        self._patterns += "*" in stream.name
        for name in stream.routes():
            self._streams.setdefault(name, []).append(stream)

    def remove(self, stream: Wanted) -> None:
        """Take them from it."""
        self._patterns -= "*" in stream.name
        for name in stream.routes():
            self._streams[name].remove(stream)
            if not self._streams[name]:
                del self._streams[name]

    def get(self, name: str) -> Sequence[Wanted]:
        """Return the streams that an event of this name may be for."""
        found = self._streams.get(name, ())
        if not self._patterns:
            return found
        market, dot, kind = name.partition(".")
        if not dot:  # a private stream: patterns are of public ones
            return found
        by_kind, by_market = (self._streams.get(one, ()) for one in (f"*.{kind}", f"{market}.*"))
        return [*found, *by_kind, *by_market]
