"""What a client hands to its user: events, states, gaps, figures, bounds and errors. Pure."""

from __future__ import annotations

from typing import Callable, NamedTuple

from rango_gevent.errors import RangoError

IDLE = "idle"
CONNECTING = "connecting"
AUTHENTICATING = "authenticating"
LIVE = "live"
DRAINING = "draining"
CLOSED = "closed"

REPLY = "reply"
ERROR = "error"
STATE = "state"


class Event(NamedTuple):
    """An event.

    Attributes:
        stream: its name, as the gateway sends it: without the scope of a prefixed stream.
        body: the JSON text as the publisher wrote it.
        received_at_s: when it arrived, seconds of the wall clock.
    """

    stream: str
    body: str
    received_at_s: float


class StateChange(NamedTuple):
    """A connection came into another state.

    Attributes:
        connection: its number, from 0.
        state: `IDLE` (waiting to dial), `CONNECTING`, `AUTHENTICATING` (until the gateway's first
            word), `LIVE`, `DRAINING` (saying goodbye) or `CLOSED` (for good).
        code: the close code or HTTP status that led there, None without one.
        reason: the same in words.
        url: of the gateway, without a query.
        wait_s: seconds until it dials, 0 when it does not.
    """

    connection: int
    state: str
    code: int | None
    reason: str
    url: str
    wait_s: float = 0.0


class Notice(NamedTuple):
    """What a client hears besides events, for people.

    Attributes:
        kind: `REPLY` or `ERROR` from the gateway, `STATE` about the connection.
        text: a reply as it came, or a line for people. It may hold anything: escape it
            before a terminal sees it.
    """

    kind: str
    text: str


class Gap(NamedTuple):
    """Streams were not received for a while, and what was published meanwhile is missing.

    Attributes:
        streams: their names.
        from_s: when the last message came before they were lost, seconds of the wall clock.
        to_s: when they were held again.
        reason: why they were lost, or could not be recovered.
    """

    streams: tuple[str, ...]
    from_s: float
    to_s: float
    reason: str


class ConnectionStats(NamedTuple):
    """One connection's figures; times in seconds."""

    number: int
    state: str
    url: str
    streams: int
    connects: int
    latency_s: float | None


class Stats(NamedTuple):
    """A client's figures.

    Attributes:
        events: events that arrived for somebody.
        dropped: events that found a full queue.
        gaps: streams that were lost for a while, each time.
        recovered: streams that came back with all that they had missed.
        resyncs: snapshots that books asked for.
        reconnects: connections made again.
        garbage: messages that were no event and no reply.
        waiting: events that wait to be taken.
        lag_s: how long the oldest of them has waited.
        connections: each connection.
    """

    events: int
    dropped: int
    gaps: int
    recovered: int
    resyncs: int
    reconnects: int
    garbage: int
    waiting: int
    lag_s: float
    connections: tuple[ConnectionStats, ...]


class Limits(NamedTuple):
    """Bounds of a client.

    Attributes:
        open_s: seconds to connect, and as many to the gateway's first word.
        close_s: seconds for the closing handshake.
        idle_s: seconds of silence after which the gateway is asked for a sign of life.
        message_bytes: size of one message.
        first_wait_s: longest wait before the first attempt to come back.
        max_wait_s: longest wait before any attempt.
        steady_s: a connection that lived for so long was a good one, and waits begin anew.
        pong_s: seconds for that sign of life; then the connection is given up.
        write_s: seconds for a message to be taken by the system.
        reply_s: seconds for the reply to a subscription; then the connection is given up.
        request_bytes: size of a request for names; Rango takes up to 512.
        requests_per_s: requests a second in the long run, of one connection.
        requests_burst: requests at once.
        resync_s: longest wait before a book asks for its snapshot, so that a crowd does not.
    """

    open_s: float = 10.0
    close_s: float = 2.0
    idle_s: float = 30.0
    message_bytes: int = 32 << 20
    first_wait_s: float = 1.0
    max_wait_s: float = 30.0
    steady_s: float = 10.0
    pong_s: float = 10.0
    write_s: float = 10.0
    reply_s: float = 30.0
    request_bytes: int = 500
    requests_per_s: float = 25.0
    requests_burst: int = 50
    resync_s: float = 1.0


class Hooks:
    """Whom a client tells; each list holds functions.

    Attributes:
        state: of each `StateChange`.
        gap: of each `Gap`.
        stale: of the name of a stream that is quiet.
        latency: of what was answered (``request`` or ``ping``), and after how many seconds.
        notice: of each `Notice`.
    """

    def __init__(self) -> None:
        self.state: list[Callable[[StateChange], object]] = []
        self.gap: list[Callable[[Gap], object]] = []
        self.stale: list[Callable[[str], object]] = []
        self.latency: list[Callable[[str, float], object]] = []
        self.notice: list[Callable[[Notice], object]] = []


class ConnectionLost(RangoError):
    """A connection could not be made, or ended.

    Args:
        text: what happened.
        code: the close code, None when there was none.
    """

    def __init__(self, text: str, code: int | None = None) -> None:
        super().__init__(text)
        self.code = code


class RequestFailed(RangoError):
    """The gateway answered a request with an error.

    Args:
        text: the gateway's words.
        code: its number for it, None without one.
    """

    def __init__(self, text: str, code: int | None = None) -> None:
        super().__init__(text)
        self.code = code


class SubscriptionRefused(RequestFailed):
    """A stream may not be subscribed to.

    Args:
        stream: its name.
        text: why.
        code: the gateway's number for it, None without one.
    """

    def __init__(self, stream: str, text: str, code: int | None = None) -> None:
        super().__init__(f"not subscribed to {stream}: {text}", code)
        self.stream = stream


class Overflow(RangoError):
    """A queue with the policy ``error`` was full.

    Args:
        stream: whose queue.
        dropped: events that are missing here.
    """

    def __init__(self, stream: str, dropped: int) -> None:
        super().__init__(f"{stream}: {dropped} events found a full queue")
        self.stream = stream
        self.dropped = dropped


class NotNow(RangoError):
    """A request would have to wait, and may not."""
