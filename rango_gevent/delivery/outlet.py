"""What a session knows of the connection that its answers and events go out through."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Union

from rango_gevent.model import Event, Segment

if TYPE_CHECKING:
    from rango_gevent.hub.stream import Stream

Part = Union[bytes, Segment]


class Outlet(Protocol):
    """A session's connection as the dispatcher sees it.

    Attributes:
        ready: nothing waits for it.
    """

    @property
    def ready(self) -> bool:
        """Tell whether nothing waits for it."""

    def offer(self, segments: list[Segment]) -> bool:
        """Take segments to send; never waits. False: it is too slow."""

    def lag(self, stream: Stream, policy: str, events: list[Event]) -> int | None:
        """Take events of one stream while it lags; the number left out, None: too slow."""

    def forget(self, addresses: set[str]) -> None:
        """Leave out what waits of some streams, where it may be left out."""

    def push(self, part: bytes | Segment) -> None:
        """Take an answer, however much waits."""

    def pause(self) -> None:
        """Wait while it does not read what it was answered, has had much, or others wait."""

    def too_slow(self) -> None:
        """Close it for being too slow."""

    def renewed(self) -> None:
        """Take note that the client has another token than before."""


class Gone:
    """The outlet of a session whose connection is closed: it takes everything and keeps nothing."""

    ready = False

    def offer(self, segments: list[Segment]) -> bool:
        """Take segments."""
        return True

    def lag(self, stream: Stream, policy: str, events: list[Event]) -> int:
        """Take events."""
        return 0

    def forget(self, addresses: set[str]) -> None:
        """There is nothing to leave out."""

    def push(self, part: Part) -> None:
        """Take an answer."""

    def pause(self) -> None:
        """There is nothing to wait for."""

    def too_slow(self) -> None:
        """It is closed."""

    def renewed(self) -> None:
        """It is closed."""


GONE = Gone()
