"""What a source is: what it does for the supervisor, and the errors that it may say it with.

Pure: types and values.
"""

from __future__ import annotations

from typing import Callable, Mapping, NamedTuple, Protocol

Sink = Callable[[str, bytes, float, int], object]
"""Takes routing key, body, Unix time of publishing in seconds, and position; must not block.

The position tells where in the source's log the message stands; 0 where there is no log.
"""

Accepts = Callable[[str, int], bool]
"""Tells by routing key and size whether to collect a large body; else it is thrown away."""


class SourceError(Exception):
    """No messages can come; the text says why. Trying again may help."""


class SourceRefused(SourceError):
    """The broker refuses what it is asked for; nothing helps but other settings, or rights."""


class BrokerTimeout(OSError):
    """A call to the broker did not come back in time.

    It is an OSError so that py-amqp, where it is raised, closes the socket of a connection
    that is only half made.
    """


class Overtaken(BrokerTimeout):
    """An attempt to connect hung while the broker answered others."""


class QueueLimits(NamedTuple):
    """Bounds on a worker's queue in the broker: messages, and seconds that one may wait."""

    length: int
    ttl_s: float


class BrokerLimits(NamedTuple):
    """Seconds for any one call, seconds between heartbeats, bounds of the queue."""

    timeout_s: float
    heartbeat_s: int
    queue: QueueLimits


class KafkaWishes(NamedTuple):
    """What a source of Kafka is asked for.

    Attributes:
        keys: topic to the rule that makes its routing keys.
        window_s: seconds of the past that are read at first, of one partition.
        buffer_bytes: of messages that wait for each partition.
        on_break: told why what comes does not follow what came.
    """

    keys: Mapping[str, str]
    window_s: float
    buffer_bytes: int
    on_break: Callable[[str], object]


class LogLimits(NamedTuple):
    """What a source with a log is asked for.

    Attributes:
        bytes: of the log, about; the broker lets go whole segments.
        segment_bytes: size of one.
        window_s: seconds of the past to begin with.
        fill_s: seconds that reading them may take.
        spare: messages that may wait in the queue that stands by.
    """

    bytes: int
    segment_bytes: int
    window_s: float
    fill_s: float
    spare: int


class Log(NamedTuple):
    """A log as a source is told to keep one.

    Attributes:
        limits: its bounds.
        on_break: told why positions before and after this moment do not belong together.
    """

    limits: LogLimits
    on_break: Callable[[str], object]


def log_reading(**values: float | Mapping[str, int]) -> dict[str, float | Mapping[str, int]]:
    """Return what is counted of a log, by the names of the table of metrics; zeros by default."""
    names = "attached", "fallback", "fallback_seconds", "behind_events", "behind_seconds"
    zeros = dict.fromkeys((*names, "fill_seconds", "missed"), 0.0)
    reading: dict[str, float | Mapping[str, int]] = {**zeros, "breaks": {}, **values}
    return {f"rango_log_{name}": value for name, value in reading.items()}


class Source(Protocol):
    """One way to get messages. The supervisor calls it in the order of the methods here.

    One connection at a time; any exception of `connect` or `pump` ends it, and the supervisor
    begins anew. Of several brokers each `connect` takes the next one.
    """

    @property
    def exchange(self) -> str:
        """Name of what is consumed."""

    @property
    def place(self) -> str:
        """Where from, as a log may show it: the URL that was connected to, without secrets."""

    @property
    def waits_for(self) -> str:
        """Why clients should wait though messages can come; empty when they should not."""

    def reading(self) -> dict[str, float | Mapping[str, int]]:
        """Return what the source has counted, by the names of the table of metrics."""

    def connect(self, *, hasty: bool) -> None:
        """Connect and declare all that is needed, in bounded time; messages can come then.

        Args:
            hasty: give an attempt that hangs up as soon as the broker answers another.

        Raises:
            SourceRefused: the broker does not want to.
            Overtaken: a hasty attempt was given up.
            Exception: whatever else prevents it.
        """

    def pump(self) -> None:
        """Hand messages to the sink; ends by an exception only."""

    def leave(self) -> None:
        """Say goodbye, in bounded time."""

    def drop(self) -> None:
        """Close the connection, if there is one, at once and without a word."""
