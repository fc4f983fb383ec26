"""The source with a log: every event has a position, and a lost connection loses nothing.

All instances read one durable stream queue (`Reader`, a connection of its own that is made anew
as often as it breaks). Beside it stands a spare queue (`Spare`), exclusive and short as a
worker's queue without a log is: `Standby` decides which of the two clients get. The spare is
declared and bound before it is needed, because while a node of a cluster hangs nothing can be
declared for a minute.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from functools import partial
from random import Random
from typing import Any, Callable, Mapping

import amqp
import gevent
from gevent.event import Event
from kombu.connection import Connection

from rango_gevent.backoff import Backoff
from rango_gevent.incidents import end_incident, open_incident
from rango_gevent.source.amqp import declare, topology
from rango_gevent.source.amqp.chain import BREAKS, GAP, OTHER, Chain
from rango_gevent.source.amqp.declare import TAG
from rango_gevent.source.amqp.decoder import Decoder
from rango_gevent.source.amqp.pump import AmqpSource
from rango_gevent.source.amqp.reader import FillsTooLong, Reader
from rango_gevent.source.amqp.standby import LIVE, SETTLES, Standby
from rango_gevent.source.base import (
    Accepts,
    BrokerLimits,
    Log,
    QueueLimits,
    Sink,
    SourceError,
    SourceRefused,
    log_reading,
)
from rango_gevent.source.message import hand_on
from rango_gevent.throttle import ThrottledLog

log = logging.getLogger(__name__)

SPARE_TTL_S = 5.0  # so long a message waits in the spare: more than it takes to begin to read it
REFUSED_WAIT_S = 5.0
_FIRST_S = 30.0  # a broker that has just started has no leader for its streams yet
_AGAIN_S = 2.5  # clients are there and wait: then the spare serves them
_AT_ONCE_S = 0.4  # so long connecting waits for it; heartbeats are due after that
_LONGEST_WAIT_S = 0.5
_LEAVE_S = 1.5
_SAY_AGAIN_S = 60.0
_STALLED = "log stalled"
_IN_WORDS = {
    GAP: "some events are not in it, or were given without positions",
    OTHER: "it is another one than before, or has lost its end",
}


class Spare(AmqpSource):
    """The queue that stands by, on one connection; read only while it is listened to.

    Args:
        standby: takes what comes, and says whether to listen.
        on_look: called a few times a second with the time.
        gate: waits until events may be handed on.
        others: arguments of `AmqpSource`.
    """

    def __init__(
        self,
        *others: Any,
        standby: Standby,
        on_look: Callable[[float], object],
        gate: Callable[[], object],
    ) -> None:
        super().__init__(*others)
        self._gate = gate
        self._standby = standby
        self._on_look = on_look
        self._control: Any = None
        self._listens = False

    def _queue_of(self, connection: Connection) -> Any:
        self._listens = False
        # a channel waits as long as a binding takes, and must not keep deliveries waiting
        self._control = connection.channel()
        return declare.stand_by(connection, self.exchange, self._limits.queue)

    def _take(self, key: str, body: bytes, at_s: float, _: int) -> None:
        self._standby.spare(key, body, at_s)

    def _decoder(self, connection: amqp.Connection, channel: int) -> Decoder:
        other = connection.on_inbound_frame
        return Decoder(channel, TAG, self.exchange, self._take, other, self._accepts)

    def _tasks(self, queue: Any) -> tuple[Callable[[], object], ...]:
        return (partial(queue.queue_bind, nowait=True, channel=self._control),)

    def _look(self) -> None:
        self._on_look(time.monotonic())
        if self._standby.listening == self._listens:
            return
        self._listens = not self._listens
        channel = self._queue.channel
        if self._listens:
            channel.basic_consume(
                self._queue.name,
                TAG,
                no_ack=True,
                nowait=True,
                callback=partial(hand_on, sink=self._take),
            )
        else:
            channel.basic_cancel(TAG, nowait=True)


class LogSource:
    """A source of one exchange of RabbitMQ, by a log.

    Args:
        urls: brokers, tried in turn.
        exchange: name of the topic exchange.
        sink: where events go.
        limits: bounds of the connections.
        pace: called after each read, and told if more is there.
        accepts: asked before a large body is collected.
        kept: bounds of the log, and whom to tell when history breaks.
    """

    def __init__(
        self,
        urls: list[str],
        exchange: str,
        sink: Sink,
        limits: BrokerLimits,
        pace: Callable[[bool], None],
        accepts: Accepts,
        kept: Log,
    ) -> None:
        self.exchange = exchange
        self.name = topology.log_name(exchange)
        self._kept = kept
        self._undisturbed = Event()  # nobody is being told that history breaks
        self._undisturbed.set()
        self._standby = Standby(sink, self._broken, most=kept.limits.spare, keep_s=SPARE_TTL_S)
        self._chain = Chain(self._standby.log, self._chain_broke)
        self._standby.on_step = self._chain.hand_to
        self._spare = Spare(
            urls,
            exchange,
            sink,
            limits._replace(queue=QueueLimits(kept.limits.spare, SPARE_TTL_S)),
            pace,
            accepts,
            standby=self._standby,
            on_look=self._look,
            gate=self._undisturbed.wait,
        )
        if len(urls) == 2:
            log.warning(
                "two brokers are named: if they are all nodes of a cluster, %s has no quorum when "
                "one is gone, and then holds publishers up; use one node, or three and more",
                self.name,
            )
        self._for_readers = exchange, sink, limits, pace, accepts
        self._reader: Reader | None = None
        self._greenlet: Any = None
        self._leaves = False
        self._told = Event()  # the log is attached, or refused
        self._refused: SourceRefused | None = None
        self._backoff = Backoff(0.1, REFUSED_WAIT_S, steady_s=5.0, least=0.5, jitter=Random())
        self._failures = ThrottledLog(log, _SAY_AGAIN_S)
        self._from_end = False
        self._was_attached = False
        self._patient_until = 0.0
        self._problem = "not attached yet"
        self._breaks: Counter[str] = Counter()
        self._live_at = 0.0  # since when the spare is live, 0 when it is not
        self._live_s = 0.0

    # -- as the supervisor calls it ------------------------------------------------------

    @property
    def place(self) -> str:
        """The URL that was connected to, without secrets."""
        return self._spare.place

    @property
    def waits_for(self) -> str:
        """Why clients should wait: what they may ask for is not read yet."""
        reader = self._reader
        if self._live_at or (reader is None and self._was_attached):
            return ""  # the spare serves clients, or is about to
        if reader is None:
            is_patient = time.monotonic() < self._patient_until
            return f"waiting for the log: {self._problem}" * is_patient
        if reader.caught_up:
            return ""
        return f"filling from the log: {reader.left_s():.0f} s behind"

    def reading(self) -> dict[str, float | Mapping[str, int]]:
        """Return what is counted of the log."""
        reader, now = self._reader, time.monotonic()
        return log_reading(
            attached=float(reader is not None),
            fallback=float(self._live_at > 0),
            fallback_seconds=self._live_s + (now - self._live_at if self._live_at else 0.0),
            behind_events=reader.behind if reader else 0,
            behind_seconds=reader.behind_s() if reader else 0,
            fill_seconds=reader.filled_s if reader else 0,
            missed=self._standby.missed,
            breaks={**dict.fromkeys(BREAKS, 0), **self._breaks},
        )

    def connect(self, *, hasty: bool) -> None:
        """Connect to the next broker, declare all, begin to attach to the log."""
        self._spare.connect(hasty=hasty)
        if self._standby.state in (LIVE, SETTLES):
            # what the spare has delivered stands in the log too, and must not come again
            self._broken(GAP)
            self._from_end = True
        now = time.monotonic()
        again = self._was_attached
        self._standby.begin(now, _AGAIN_S if again else _FIRST_S, again=again)
        self._note_state(now)
        self._patient_until = now + _FIRST_S
        self._refused = None
        self._told.clear()
        self._greenlet = gevent.spawn(self._read, self._spare.url)
        self._told.wait(_AT_ONCE_S)

    def pump(self) -> None:
        """Hand events to the sink; ends by an exception only."""
        self._spare.pump()

    def leave(self) -> None:
        """Say goodbye, in bounded time."""
        self._leaves = True
        self._end_reading()
        self._spare.leave()

    def drop(self) -> None:
        """Close both connections at once."""
        self._end_reading()
        self._spare.drop()

    # -- the log -------------------------------------------------------------------------

    def _end_reading(self) -> None:
        if self._greenlet is not None:
            self._greenlet.kill(timeout=_LEAVE_S)
            self._greenlet = None

    def _read(self, url: str) -> None:
        """Read the log until killed; whatever goes wrong, the cure is a new reader."""
        while True:
            reader = Reader(
                [url],
                *self._for_readers,
                chain=self._chain,
                log_limits=self._kept.limits,
                from_end=self._from_end,
                span_s=self._span_s(),
                on_break=self._chain_broke,
                on_read=self._standby.heard,
                gate=self._undisturbed.wait,
            )
            started = time.monotonic()
            try:
                self._follow(reader)
            except Exception as error:
                self._failed(error)
            finally:
                self._reader = None
                if self._leaves:
                    reader.leave()
                reader.drop()
            self._backoff.lived(time.monotonic() - started)
            self._standby.detached(time.monotonic())
            gevent.sleep(self._backoff.next(None if self._refused else _LONGEST_WAIT_S))

    def _span_s(self) -> float:
        """Return from how many seconds ago a new reader will begin."""
        if self._chain.last < 0:
            return self._kept.limits.window_s
        return time.monotonic() - self._standby.heard_at

    def _follow(self, reader: Reader) -> None:
        reader.connect(hasty=False)
        self._from_end = False
        self._refused = None
        self._reader = reader
        self._was_attached = True
        self._standby.attached(time.monotonic())
        self._failures.clear()
        self._told.set()
        log.info("reading %s at %s", self.name, reader.place)
        reader.pump()

    def _failed(self, error: Exception) -> None:
        self._problem = detail = str(error) or type(error).__name__
        if isinstance(error, FillsTooLong):
            self._from_end = True
            self._broken(GAP)
            cure = "RANGO_LOG_FILL_S allows more time, RANGO_LOG_WINDOW_S asks for less"
            log.warning(
                "reading %s took too long, what is left is left out: %s; %s",
                self.name,
                detail,
                cure,
            )
        elif isinstance(error, SourceRefused):
            self._refused = error
            self._told.set()
            if self._was_attached:
                self._failures.error(detail, "the log cannot be had: %s", detail)
        else:
            foreseen = isinstance(error, (OSError, SourceError))
            text = "no log %s at %s: %s"
            place = self._spare.place
            self._failures.warning(detail, text, self.name, place, detail, exc_info=not foreseen)

    # -- history -------------------------------------------------------------------------

    def _chain_broke(self, why: str) -> None:
        self._broken(why)
        self._standby.broken()

    def _broken(self, why: str) -> None:
        self._breaks[why] += 1
        log.warning("history breaks in %s: %s", self.name, _IN_WORDS[why])
        self._undisturbed.clear()
        try:
            self._kept.on_break(why)  # it may give way, and what comes then must come behind it
        finally:
            self._undisturbed.set()

    def _look(self, now: float) -> None:
        self._undisturbed.wait()
        if self._refused is not None and not self._was_attached:
            raise self._refused
        self._standby.look(now)
        self._note_state(now)

    def _note_state(self, now: float) -> None:
        """Say and count when the spare begins to be what clients get, and when that ends."""
        is_live = self._standby.state in (LIVE, SETTLES)
        if is_live and not self._live_at:
            self._live_at = now
            text = (
                "%s delivers nothing: live events go on from a queue of our own, without positions"
            )
            open_incident(log, _STALLED, text, self.name)
        elif self._live_at and not is_live:
            end_incident(
                _STALLED, "%s delivers again, after %.1f s", self.name, now - self._live_at
            )
            self._live_s += now - self._live_at
            self._live_at = 0.0
