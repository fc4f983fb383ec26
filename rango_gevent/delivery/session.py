"""A session: who a client is, what it holds, and what it is answered.

Pure: requests come in as text, and what is to be sent goes out as frames and segments. The
connection under it owns the socket; `Desk` is what all sessions share.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Callable, Iterable, NamedTuple, Protocol, Union

from rango_gevent.errors import FatalClientError, RequestError
from rango_gevent.hub.hub import Hub
from rango_gevent.model import Event, Segment
from rango_gevent.protocol import close, messages
from rango_gevent.protocol.messages import NameLimits

if TYPE_CHECKING:
    from rango_gevent.hub.stream import Stream

Part = Union[bytes, Segment]

_REPLY_BURST_S = 1.0  # so much of a client's allowance of reply bytes may be used at once


class SessionLimits(NamedTuple):
    """Bounds on what one client asks for.

    Attributes:
        requests_per_s: frames that it may send a second in the long run.
        requests_burst: frames that it may send at once.
        reply_bytes_per_s: bytes of replies and replays a second in the long run.
        names: bounds on the streams that it holds.
    """

    requests_per_s: float
    requests_burst: int
    reply_bytes_per_s: float
    names: NameLimits


class Mark(NamedTuple):
    """A point in the dispatcher's work: monotonic time, and its processor time until then."""

    at_s: float
    busy_s: float


NEVER = Mark(0.0, 0.0)


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

    def too_slow(self) -> None:
        """Close it for being too slow."""


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

    def too_slow(self) -> None:
        """It is closed."""


GONE = Gone()


class Desk:
    """What all sessions share.

    Args:
        hub: where they subscribe.
        limits: bounds on each.
        flush: hands a session what it is due before its subscriptions change.

    Attributes:
        requests: requests by action, or ``error``.
    """

    def __init__(self, hub: Hub, limits: SessionLimits, flush: Callable[[Session], None]) -> None:
        self.hub = hub
        self.limits = limits
        self.flush = flush
        self.requests: Counter[str] = Counter()


class Session:
    """One client as the hub and the dispatcher know it.

    Attributes:
        uid: user id of its verified token, None for anonymous.
        role: role of its verified token.
        notices: it asked to be told of stale books.
        streams: names it holds; the hub's to change.
        outlet: the connection that takes what it is due.
        served: when the dispatcher served it last.
        ended: it may not subscribe any more.
    """

    __slots__ = (
        "_desk",
        "_held",
        "_paid_until_s",
        "_refilled_s",
        "ended",
        "notices",
        "outlet",
        "role",
        "served",
        "streams",
        "tokens",
        "uid",
    )

    outlet: Outlet

    def __init__(
        self, desk: Desk, *, uid: str | None, role: str, notices: bool, now_s: float
    ) -> None:
        self.uid = uid
        self.role = role
        self.notices = notices
        self.streams: dict[str, Stream] = {}
        self.served = NEVER
        self.ended = False
        self.tokens = desk.limits.requests_burst
        self._desk = desk
        self._refilled_s = now_s
        self._paid_until_s = 0.0
        self._held = b""

    # -- rate ---------------------------------------------------------------------------

    def admit(self, frames: int, now_s: float) -> str | None:
        """Take tokens for frames of any kind; the bucket refills with time, without a timer.

        Returns:
            None when they may be answered; else a text to tell, empty when it was told already.

        Raises:
            FatalClientError: it is far over its rate.
        """
        limits = self._desk.limits
        if now_s > self._refilled_s:
            due = (now_s - self._refilled_s) * limits.requests_per_s
            refill = int(due + 1e-6)  # seconds are binary fractions: 2.9999999 are three
            self.tokens += refill
            self._refilled_s += refill / limits.requests_per_s  # part of a token counts on
            if self.tokens >= limits.requests_burst:  # but not in a full bucket
                self.tokens, self._refilled_s = limits.requests_burst, now_s
        had = self.tokens
        self.tokens -= frames
        if self.tokens >= 0 or self.ended:
            return None
        if self.tokens < -limits.requests_burst:
            raise FatalClientError(close.TOO_MANY_REQUESTS)
        self._desk.requests["over_rate"] += frames
        return f"Too many requests: the limit is {limits.requests_per_s:g}/s" if had >= 0 else ""

    def charge(self, part: Part, now_s: float) -> None:
        """Put a reply or a replay on the account of the client who asked for it."""
        size = part.size if isinstance(part, Segment) else len(part)
        per_s = self._desk.limits.reply_bytes_per_s
        self._paid_until_s = max(self._paid_until_s, now_s - _REPLY_BURST_S) + size / per_s

    def owed_s(self, now_s: float) -> float:
        """Return for how long no more should be answered; 0 mostly."""
        return max(0.0, self._paid_until_s - now_s)

    # -- requests -----------------------------------------------------------------------

    def answer(self, message: bytes) -> Iterable[Part]:
        """Answer one request; a binary message is read like text, as Rango does."""
        desk = self._desk
        try:
            text = message.decode("utf-8", "replace")
            request = messages.parse_request(text, desk.limits.names)
            if request is None:
                return ()
            desk.requests[request.action] += 1
            if request.action == messages.PING:
                return (messages.PONG_FRAME,)
            if request.action == messages.SUBSCRIBE:
                return self.subscribe(request.names)
            return self._unsubscribe(request.names)
        except RequestError as error:
            desk.requests["error"] += 1
            return (messages.error(str(error)),)

    def subscribe(self, names: tuple[str, ...]) -> list[Part]:
        """Subscribe: notices, replays, then the list of all names held.

        Raises:
            RequestError: with these the client would hold too many names.
        """
        most = self._desk.limits.names.max_names
        if len(self.streams) + len(names) > most and len(self.streams.keys() | set(names)) > most:
            raise RequestError(f"Too many streams: the limit is {most}")
        parts = self.replay(names)
        if parts is None:
            return []
        if names:
            self._held = b""
        if not self._held:
            self._held = messages.subscribed(self._desk.hub.names(self))
        parts.append(self._held)
        return parts

    def replay(self, names: tuple[str, ...]) -> list[Part] | None:
        """Subscribe, for the first time or afresh; return what is to be sent for it.

        What the dispatcher still holds for the client goes to it first: a replay contains it.
        None: the client was lost by that, and nothing would unsubscribe it again.
        """
        self._desk.flush(self)
        return None if self.ended else self._desk.hub.subscribe(self, names)

    def _unsubscribe(self, names: tuple[str, ...]) -> list[Part]:
        desk = self._desk
        desk.flush(self)
        self.outlet.forget({self.streams[name].address for name in names if name in self.streams})
        desk.hub.unsubscribe(self, names)
        self._held = b""
        return [messages.unsubscribed(desk.hub.names(self))]

    def rest(self) -> None:
        """Give up what is only worth keeping while requests follow one another."""
        self._held = b""
