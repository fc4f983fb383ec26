"""The reader of the log: attaches where it left off, and says how far behind it is.

It has a connection of its own: a broker that hangs in a call for the log must not hold up what
else is asked of it. Nothing is tried twice here; the `LogSource` makes a new reader.

Attaching is done with py-amqp's own calls, and what comes meanwhile takes its slow way; from
then on all is read ahead and decoded as in `pump`. How far behind the end a reader is cannot be
asked for: a second consumer that begins at the last chunk tells where the end was.
"""

from __future__ import annotations

import logging
import math
import socket
import time
from functools import partial
from typing import Any, Callable

import amqp
from amqp.exceptions import AccessRefused, PreconditionFailed
from kombu.connection import Connection

from rango_gevent.source.amqp import declare
from rango_gevent.source.amqp.chain import OTHER, Chain, block_of
from rango_gevent.source.amqp.declare import TAG
from rango_gevent.source.amqp.decoder import Decoder
from rango_gevent.source.amqp.pump import AmqpSource
from rango_gevent.source.amqp.topology import log_name
from rango_gevent.source.base import LogLimits, SourceError, SourceRefused
from rango_gevent.source.bindings import EVERYTHING
from rango_gevent.source.message import hand_on, offset_of

log = logging.getLogger(__name__)

PREFETCH = 2000
ACK_EACH = 200
_ANSWER_S = 2.0  # a log that has an event tells it by then
_WINDOW_S = 0.3  # the same for its window, once it has told its end
_ASK_EACH_S = 5.0
_CAUGHT_UP_S = 0.5
_LAST = "last"


class FillsTooLong(SourceError):
    """What is to be read first takes longer than it may."""


class Reader(AmqpSource):
    """Reads the log, on one connection.

    Args:
        chain: what was read so far; it takes the events.
        log_limits: bounds of the log.
        from_end: begin at its end, whatever was read so far.
        span_s: seconds from the first event that will be read to now, about.
        on_break: told why what comes does not follow what came.
        on_read: called with the time after each read that brought events.
        gate: waits until events may be handed on.
        others: arguments of `AmqpSource`.

    Attributes:
        caught_up: what there was at the start was read; never false again.
        filled_s: seconds that this took.
        behind: events between the reader and the end, as it was last asked for.
    """

    def __init__(
        self,
        *others: Any,
        chain: Chain,
        log_limits: LogLimits,
        from_end: bool,
        span_s: float,
        on_break: Callable[[str], object],
        on_read: Callable[[float], object],
        gate: Callable[[], object],
    ) -> None:
        super().__init__(*others)
        self._gate = gate
        self._chain = chain
        self._log_limits = log_limits
        self._from_end = from_end
        self._on_break = on_break
        self._on_read = on_read
        self._name = log_name(self.exchange)
        self.channel: Any = None  # that is read from, for `pump`
        self._probe: Any = None
        self._control: Any = None
        self._acked = 0
        self._seen = 0
        self._asks = 0
        self._asked_at = self._asking_at = 0.0
        self._end = -1
        self._begun_at = 0.0
        self._span_s = span_s
        self._first = 0
        self.caught_up = False
        self.filled_s = 0.0
        self.behind = 0

    def behind_s(self) -> float:
        """Return for how many seconds the reader has not reached what was the end; 0: it has."""
        if self._chain.last >= self._end:
            return 0.0
        return time.monotonic() - self._asked_at

    def left_s(self) -> float:
        """Return how many seconds of what there was when it began are left, by events."""
        size, left = self._end - self._first, self._end - self._chain.last
        return self._span_s * min(1.0, max(0.0, left / size)) if size > 0 else 0.0

    # -- attaching -----------------------------------------------------------------------

    def _subscribe(self, connection: Connection) -> Any:
        """Declare and bind the log, and begin to read it; return its queue for `pump`."""
        is_new = declare.log_queue(connection, self.exchange, self._log_limits)
        self._control = connection.channel()
        self._probe = connection.channel()
        self._probe.basic_qos(0, 1, False)
        self._begun_at = time.monotonic()
        try:
            self._begin_to_read(connection, is_new)
        except PreconditionFailed as error:
            if "x-stream-offset" in str(error):
                raise SourceRefused(declare.no_stream(self._name)) from error
            # there is no replica to read from, yet
            raise SourceError(str(error)) from error
        except AccessRefused as error:
            raise SourceRefused(declare.no_rights(self._name, error)) from error
        return self

    def _begin_to_read(self, connection: Connection, is_new: bool) -> None:
        if is_new and self._chain.last < 0:
            self._attach_to(connection, None)
        elif self._from_end:
            self._skip_to_end(connection)
        elif self._chain.last >= 0:
            self._join(connection)
        else:
            self._begin(connection)

    def _begin(self, connection: Connection) -> None:
        """Attach to a log that nothing is known of, some time before its end."""
        window = f"{max(1, math.ceil(self._log_limits.window_s))}s"
        wanted = (_LAST, window) if self._log_limits.window_s else (_LAST,)
        end, *rest = self._first_offsets(connection, wanted)
        first = next((offset for offset in rest if offset is not None), end)
        self._chain.begin()
        self._attach(connection, "first" if first is None else block_of(first))
        self._goal(end, first)

    def _join(self, connection: Connection) -> None:
        """Attach where the last event was read, if it is the same log."""
        last = self._chain.last
        self._attach(connection, self._chain.join())
        if self._drain(connection, lambda: self._chain.count > 0, _ANSWER_S):
            (end,) = self._first_offsets(connection, (_LAST,))
            self._goal(end, last)
            return
        (end,) = self._first_offsets(connection, (_LAST,))
        if end is not None and end >= last:
            raise SourceError("the log does not answer")
        self._on_break(OTHER)
        self._attach_to(connection, end)

    def _skip_to_end(self, connection: Connection) -> None:
        (end,) = self._first_offsets(connection, (_LAST,))
        self._attach_to(connection, end)

    def _attach_to(self, connection: Connection, end: int | None) -> None:
        """Attach to the end of the log; None: it is empty."""
        self._chain.begin(-1 if end is None else end - 1)
        self._attach(connection, "first" if end is None else block_of(end))
        self._goal(end, end)

    def _attach(self, connection: Connection, offset: str | int) -> None:
        if self.channel is not None:
            self.channel.basic_cancel(TAG)
        self.channel = channel = connection.channel()
        channel.basic_qos(0, PREFETCH, False)
        channel.basic_consume(
            self._name,
            TAG,
            callback=self._slowly,
            arguments={"x-stream-offset": offset},
        )
        self._acked = self._seen = 0

    def _slowly(self, message: Any) -> None:
        """Take an event on py-amqp's way."""
        self._gate()
        offset = offset_of(message)
        if offset < 0:
            raise SourceRefused(declare.no_stream(self._name))
        hand_on(message, lambda key, body, at_s, _: self._chain.take(key, body, at_s, offset))

    def _first_offsets(self, connection: Connection, wanted: tuple[str, ...]) -> list[int | None]:
        """Return the offsets that the log has at some places, None where it tells nothing."""
        found: dict[str, int] = {}
        channel = connection.channel()
        channel.basic_qos(0, 1, False)
        for place in wanted:
            channel.basic_consume(
                self._name,
                place,
                callback=partial(_note, found, place),
                arguments={"x-stream-offset": place},
            )
        self._drain(connection, lambda: wanted[0] in found, _ANSWER_S)
        self._drain(connection, lambda: len(found) == len(wanted), _WINDOW_S)
        for place in wanted:
            channel.basic_cancel(place)
        channel.close()
        return [found.get(place) for place in wanted]

    @staticmethod
    def _drain(connection: Connection, done: Callable[[], bool], within_s: float) -> bool:
        """Take what comes until something is so; tell whether it is."""
        deadline = time.monotonic() + within_s
        while not done():
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            try:
                connection.connection.blocking_read(left_s)  # one frame: heartbeats count too
            except socket.timeout:
                return done()
        return True

    # -- reading -------------------------------------------------------------------------

    def _decoder(self, connection: amqp.Connection, channel: int) -> Decoder:
        other, take = connection.on_inbound_frame, self._chain.take
        return Decoder(channel, TAG, self.exchange, take, other, self._accepts, self._chain)

    def _tasks(self, queue: Any) -> tuple[Callable[[], object], ...]:
        return self._bind, self._ack, self._ask

    def _bind(self) -> None:
        self._control.queue_bind(self._name, self.exchange, EVERYTHING, nowait=True)

    def _look(self) -> None:
        count = self._chain.count
        if count == self._seen:
            return
        self._seen = count
        now = time.monotonic()
        self._on_read(now)
        if count - self._acked >= ACK_EACH:
            self._ack()
        if not self.caught_up:
            self._see(now)

    def _ack(self) -> None:
        """Tell the broker how far we are; delivery tags count from 1 on each channel."""
        if self._chain.count > self._acked:
            self._acked = self._chain.count
            self.channel.basic_ack(self._acked, multiple=True)

    # -- how far behind ------------------------------------------------------------------

    def _goal(self, end: int | None, first: int | None) -> None:
        self._first = 0 if first is None else first
        self._told_end(-1 if end is None else end, time.monotonic())

    def _ask(self) -> None:
        """Ask where the end is, if that was a while ago."""
        now = time.monotonic()
        if now - max(self._asked_at, self._asking_at) >= _ASK_EACH_S:
            self._ask_now(now)

    def _ask_now(self, now: float) -> None:
        self._asking_at = now
        self._asks += 1
        tag = f"end-{self._asks}"
        self._probe.basic_consume(
            self._name,
            tag,
            nowait=True,
            callback=partial(self._answered, tag, now),
            arguments={"x-stream-offset": _LAST},
        )

    def _answered(self, tag: str, asked_at: float, message: Any) -> None:
        """Take note of the first event that a question brought; more of its chunk may follow."""
        if self._asking_at != asked_at:
            return
        self._asking_at = 0.0
        self._probe.basic_cancel(tag, nowait=True)
        self._told_end(offset_of(message), asked_at)

    def _told_end(self, end: int, asked_at: float) -> None:
        self._end, self._asked_at = end, asked_at
        self.behind = max(0, end - self._chain.last)
        self._see(time.monotonic())

    def _see(self, now: float) -> None:
        """Find out whether the end is reached, until it was."""
        if self.caught_up or self._asking_at:
            return
        if self._chain.last < self._end:
            if now - self._begun_at >= self._log_limits.fill_s:
                raise FillsTooLong(f"{self._end - self._chain.last} events were left")
        elif now - self._asked_at <= _CAUGHT_UP_S:
            self.caught_up = True
            self.filled_s = now - self._begun_at
        else:
            self._ask_now(now)


def _note(found: dict[str, int], place: str, message: Any) -> None:
    found.setdefault(place, offset_of(message))
