"""One AMQP connection that publishes: sends events, and waits until the broker has answered.

A link is used by one thread or greenlet at a time. It never tries anything twice: it raises
`Failed`, which says what can be done about it, and which events are left.
"""

from __future__ import annotations

import contextlib
import copy
import os
import select
import socket
import time
from typing import Any, Iterator, Mapping, NamedTuple, Sequence
from urllib.parse import urlsplit

import amqp
from amqp.exceptions import NotFound
from kombu.connection import Connection
from kombu.transport.pyamqp import Transport

from rango_gevent import broker
from rango_gevent.publisher.frames import Encoder, Event, Unsettled
from rango_gevent.urls import mask_url

_SCHEMES = ("amqp", "amqps", "pyamqp")
_FINAL = ("nacked", "no_gateway", "no_exchange", "misconfigured")
_PART_BYTES = 64 * 1024
_LEAVE_S = 1.0
_TURN_S = 0.05  # how soon a sender that the broker does not read from looks for its reason


class Address(NamedTuple):
    """Where a broker is: for people without a password, and as kombu wants it."""

    place: str
    described: Connection


def address(url: str, timeout_s: float, options: Mapping[str, object]) -> Address:
    """Describe a broker; nothing is sent yet.

    It is done once and not for each connection: kombu looks for modules each time, and a process
    that is forked just then, by another thread, would wait for ever for the lock of an import.

    Args:
        url: broker as a kombu URL.
        timeout_s: how long it may take to publish.
        options: kombu's transport options.

    Raises:
        ValueError: it is no AMQP.
    """
    if urlsplit(url).scheme not in _SCHEMES:
        raise ValueError(f"{mask_url(url)}: give a URL of {' or '.join(_SCHEMES)}")
    # no heartbeats: nobody would send ours while nothing is published
    described = broker.describe(
        url, heartbeat_s=0, silence_s=timeout_s / 2, timeout_s=timeout_s, options=options
    )
    return Address(mask_url(url), described)


class Deadline:
    """A point in time that moves while there is progress.

    Args:
        seconds: from now on, and from each step of progress on.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.extend()

    def extend(self) -> None:
        """Begin anew: there was progress."""
        self._end = time.monotonic() + self._seconds

    def left_s(self) -> float:
        """Return the seconds until then, never below 0."""
        return max(0.0, self._end - time.monotonic())


class Failed(Exception):
    """Events could not be published.

    Args:
        text: why.
        reason: the word of `PublishError`.
        left: events that are not known to be taken.
        maybe_sent: some of them may have been.
    """

    def __init__(
        self, text: str, reason: str, left: Sequence[Event] = (), *, maybe_sent: bool = False
    ) -> None:
        super().__init__(text)
        self.reason = reason
        self.left = list(left)
        self.maybe_sent = maybe_sent
        self.is_stale = False  # the connection had been idle before

    @property
    def is_final(self) -> bool:
        """Tell whether trying again would not help."""
        return self.reason in _FINAL


class Link:
    """A connection with one channel.

    Args:
        address: the broker's.
        exchange: name of the exchange.
        deadline: until when it must be there.
        confirms: ask the broker to confirm what it takes.
        declare: declare the exchange if there is none.

    Attributes:
        usable: it can publish more.

    Raises:
        Failed: the broker cannot be reached, or refuses.
    """

    def __init__(
        self,
        address: Address,
        exchange: str,
        deadline: Deadline,
        *,
        confirms: bool,
        declare: bool,
    ) -> None:
        self.usable = True
        self._confirms = confirms
        self._blocked = ""
        self._unsettled = Unsettled()
        self._refused: list[Event] = []
        self._returned: set[str] = set()
        self._connection: amqp.Connection | None = None
        try:
            self._connect(address.described, exchange, deadline, declare)
        except Exception as error:  # kombu's own list of connection errors is not whole
            self.drop()
            reason = _reason(error).replace("late", "away")
            raise Failed(f"{address.place}: {_words(error)}", reason) from error

    def _connect(
        self, described: Connection, exchange: str, deadline: Deadline, declare: bool
    ) -> None:
        left_s = max(deadline.left_s(), 0.01)
        mine = copy.copy(described)
        mine.connect_timeout = left_s  # type: ignore[assignment]  # any number will do
        self._connection = connection = Transport(mine).establish_connection()
        connection.on_blocked = self._on_blocked
        connection.on_unblocked = self._on_unblocked
        # py-amqp waits for ever: with this, for each of its calls, at most so long
        connection.sock.settimeout(max(deadline.left_s(), 0.01))
        if not broker.exists(connection, exchange):
            if not declare:
                raise Failed(f"exchange {exchange!r} does not exist", "no_exchange")
            broker.exchange(connection.channel(), exchange)
        self._channel = channel = connection.channel()
        channel.events["basic_ack"].add(self._on_ack)
        channel.events["basic_nack"].add(self._on_nack)
        channel.events["basic_return"].add(self._on_return)
        if self._confirms:
            channel.confirm_select()
        self._poll = select.poll()
        self._poll.register(connection.sock, select.POLLIN)
        self._is_secure = hasattr(connection.sock, "pending")
        self._worked_s = time.monotonic()
        self._encoder = Encoder(channel.channel_id, exchange, connection.frame_max)

    def idle_s(self) -> float:
        """Return the seconds since it was last seen to work."""
        return time.monotonic() - self._worked_s

    # -- publishing ---------------------------------------------------------------------

    def publish(self, events: Sequence[Event], deadline: Deadline) -> None:
        """Send events; with confirms wait until the broker has taken all of them.

        Raises:
            Failed: it has not.
        """
        self._unsettled.take()  # what came too late for whoever waited
        self._returned.clear()
        self._refused.clear()
        sent = 0
        try:
            self._read_what_is_there()
            for part in _parts(events, self._encoder):
                self._check_blocked()
                data = b"".join(part)
                if self._confirms:
                    self._unsettled.add(events[sent : sent + len(part)])
                sent += len(part)
                self._write(data, deadline)
                if sent < len(events):
                    self._read_what_is_there()
            self._settle(deadline)
        except Exception as error:
            raise self._failed(error, events, sent) from error
        self._worked_s = time.monotonic()
        self._check_answers(events)

    def _failed(self, error: Exception, events: Sequence[Event], sent: int) -> Failed:
        """Return what is left of some events; this link can go on if it is only blocked."""
        reason = _reason(error)
        if reason != "blocked":
            self.drop()
        left = [*self._refused, *self._unsettled.take(), *events[sent:]]
        return Failed(_words(error), reason, left, maybe_sent=sent > 0)

    def _check_answers(self, events: Sequence[Event]) -> None:
        """Raise unless every event was taken, and has reached a queue where it must."""
        if self._refused:
            raise Failed("the broker refused to take it", "nacked", self._refused, maybe_sent=True)
        if self._returned:
            left = [event for event in events if event.message_id in self._returned]
            raise Failed("no gateway is bound to the exchange", "no_gateway", left)

    def _settle(self, deadline: Deadline) -> None:
        """Read until everything sent is answered for."""
        while self._unsettled:
            self._check_blocked()
            waiting = len(self._unsettled)
            left_s = deadline.left_s()
            if not left_s:
                raise TimeoutError("the broker did not confirm in time")
            try:
                self._connected.drain_events(timeout=left_s)
            except socket.timeout:
                continue
            if len(self._unsettled) < waiting:
                deadline.extend()

    def _write(self, data: bytes, deadline: Deadline) -> None:
        """Send bytes; a broker that stops reading has its reason in what it sent."""
        rest = memoryview(data)
        transport = self._connected.transport
        while rest:
            try:
                with transport.having_timeout(min(_TURN_S, max(deadline.left_s(), 0.001))):
                    rest = rest[transport.sock.send(rest) :]
            except socket.timeout:
                self._read_what_is_there()
                if self._blocked:
                    self.drop()  # in the middle of a frame: nothing can follow
                    self._check_blocked()
                if not deadline.left_s():
                    raise TimeoutError("the broker does not read") from None

    def _read_what_is_there(self) -> None:
        """Take the answers that have come, without waiting."""
        # hot path: py-amqp would need an exception to say that there is nothing, 15 us
        while self._has_input():
            try:
                self._connected.drain_events(timeout=0)
            except socket.timeout:  # a frame that is not whole yet
                return

    def _has_input(self) -> bool:
        return bool(self._poll.poll(0)) or (self._is_secure and self._connected.sock.pending() > 0)

    def _check_blocked(self) -> None:
        if self._blocked:
            raise Failed(f"the broker takes nothing: {self._blocked}", "blocked")

    @property
    def _connected(self) -> amqp.Connection:
        if self._connection is None:
            raise ConnectionError("the connection was left behind")
        return self._connection

    # -- what the broker says -----------------------------------------------------------

    def _on_ack(self, tag: int, multiple: bool) -> None:
        self._unsettled.settle(tag, multiple)

    def _on_nack(self, tag: int, multiple: bool) -> None:
        self._refused += self._unsettled.settle(tag, multiple)

    def _on_return(self, error: Exception, exchange: str, key: str, message: Any) -> None:
        self._returned.add(str(message.properties.get("message_id")))

    def _on_blocked(self, reason: str) -> None:
        self._blocked = str(reason) or "a resource alarm"

    def _on_unblocked(self) -> None:
        self._blocked = ""

    # -- leaving ------------------------------------------------------------------------

    def close(self) -> None:
        """Say goodbye, in bounded time."""
        connection = self._connection
        if connection is not None and not self._blocked:  # who does not read does not answer
            # one that is gone cannot be left any better
            with contextlib.suppress(Exception):
                connection.sock.settimeout(_LEAVE_S)
                connection.close()
        self.drop()

    def drop(self) -> None:
        """Close the socket at once, without a word: who is at its end may not answer."""
        self.usable = False
        connection, self._connection = self._connection, None
        if connection is None or connection._transport is None:
            return
        try:
            connection.sock.settimeout(0)  # TLS would wait for the other's goodbye
            connection.collect()
        except Exception:
            self._forget(connection)

    def forget(self) -> None:
        """Let go of a socket that is the parent's, in a process that was forked."""
        self.usable = False
        connection, self._connection = self._connection, None
        if connection is not None:
            self._forget(connection)

    @staticmethod
    def _forget(connection: amqp.Connection) -> None:
        """Close our descriptor alone: neither AMQP's goodbye nor a shutdown of the socket."""
        transport = connection._transport
        sock = getattr(transport, "sock", None)
        if sock is not None:
            transport.sock = None  # its destructor would shut the connection down
            with contextlib.suppress(OSError):
                os.close(sock.detach())


def _parts(events: Sequence[Event], encoder: Encoder) -> Iterator[list[bytes]]:
    """Yield the frames of events in parts of about `_PART_BYTES`."""
    part: list[bytes] = []
    size = 0
    for event in events:
        frames = encoder.encode(event)
        part.append(frames)
        size += len(frames)
        if size >= _PART_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


def _reason(error: Exception) -> str:
    if isinstance(error, Failed):
        return error.reason
    if isinstance(error, broker.MISCONFIGURED):
        return "misconfigured"
    return "late" if isinstance(error, (TimeoutError, socket.timeout)) else "away"


def _words(error: Exception) -> str:
    if isinstance(error, NotFound):
        return "the exchange is gone"
    return str(error) or type(error).__name__
