"""Where trades come from: a queue of our own, or the log that gateways share.

A queue of our own has what is published while we are there. The log has the past too: we attach
where the last saved message stood, and go on behind it if it is the same log still.
"""

from __future__ import annotations

import logging
from typing import Any, Callable

from kombu.connection import Connection

from rango_gevent.marketdata.desk import Place
from rango_gevent.source.amqp import declare
from rango_gevent.source.amqp.binder import Binder
from rango_gevent.source.amqp.chain import GAP, OTHER, Chain
from rango_gevent.source.amqp.pump import AmqpSource
from rango_gevent.source.amqp.reader import Reader
from rango_gevent.source.base import BrokerLimits, LogLimits, Sink, SourceError
from rango_gevent.source.bindings import Bindings

log = logging.getLogger(__name__)

TRADES = "public.*.trades"
MAX_BODY_BYTES = 1 << 20
_SUFFIX = ".trades"
_CHECK_BITS = 32
_ANSWER_S = 4.0


def accepts(key: str, size: int) -> bool:
    """Tell whether to collect a large body."""
    return key.endswith(_SUFFIX) and size <= MAX_BODY_BYTES


class LiveTrades(AmqpSource):
    """Trades as they are published.

    Args:
        on_heard: called when trades can be heard again.
        urls, exchange, sink, limits, pace: as `AmqpSource` takes them.
    """

    def __init__(
        self,
        urls: list[str],
        exchange: str,
        sink: Sink,
        limits: BrokerLimits,
        pace: Callable[[bool], None],
        *,
        on_heard: Callable[[], object],
    ) -> None:
        binder = Binder(Bindings([TRADES], follows=False))
        super().__init__(urls, exchange, sink, limits, pace, accepts, binder)
        self._on_heard = on_heard

    def _queue_of(self, connection: Connection) -> Any:
        queue = super()._queue_of(connection)
        self._on_heard()
        return queue


class LoggedTrades(Reader):
    """Everything in the log, from where somebody stood on; trades are a part of it.

    Args:
        sink: takes routing key, body, time, and the place in the log as one number.
        place: behind which to begin; None: at the beginning of the log.
        from_end: where there is no place to begin at, begin with what comes next.
        on_break: told why what comes does not follow what came, and what to do about it.
        log_limits: bounds that a log is declared with that is not there.
        others: arguments of `AmqpSource` but for the sink.
    """

    def __init__(
        self,
        urls: list[str],
        exchange: str,
        sink: Sink,
        *others: Any,
        place: Place | None,
        from_end: bool,
        on_break: Callable[[str], object],
        log_limits: LogLimits,
    ) -> None:
        chain = Chain(sink, self._broke)
        if place is not None:
            chain.resume(place.offset << _CHECK_BITS | place.check)
        self._starts_at = "next" if from_end else "first"
        self._is_other = False
        super().__init__(
            urls,
            exchange,
            sink,
            *others,
            chain=chain,
            log_limits=log_limits,
            from_end=False,
            span_s=0.0,
            on_break=on_break,
            on_read=lambda now: None,
            gate=lambda: None,
        )

    def _subscribe(self, connection: Connection) -> Any:
        declare.take(connection, self.exchange)
        return super()._subscribe(connection)

    def _begin(self, connection: Connection) -> None:
        """Attach to a log that nothing is known of."""
        (end,) = self._first_offsets(connection, ("last",))
        self._chain.begin()
        self._attach(connection, self._starts_at)
        self._goal(end, 0)

    def _join(self, connection: Connection) -> None:
        """Attach where the last event was read, if it is the same log."""
        last = self._chain.last
        self._attach(connection, self._chain.join())
        is_there = self._drain(connection, lambda: not self._chain.joining, _ANSWER_S)
        (end,) = self._first_offsets(connection, ("last",))
        if is_there:
            self._goal(end, last)
        elif end is not None and end > last:
            raise SourceError("the log does not answer")
        else:
            self._broke(OTHER)
        if self._is_other:
            self._begin_anew()
            self._begin(connection)

    def _broke(self, why: str) -> None:
        self._is_other = self._is_other or why == OTHER
        self._on_break(why)

    def _begin_anew(self) -> None:
        """Read from the beginning; what is known already is found out by the ids of trades."""
        self._is_other = False
        self._starts_at = "first"
        self._chain.begin()

    def _look(self) -> None:
        super()._look()
        if self._is_other:
            self._begin_anew()
            raise SourceError(WORDS[OTHER])


def place_of(position: int) -> Place | None:
    """Return a position of a source as a place; None for none."""
    if not position:
        return None
    return Place(position >> _CHECK_BITS, position & (1 << _CHECK_BITS) - 1)


WORDS = {
    GAP: "the log does not reach back to where we stood: trades in between are missing",
    OTHER: "the log was cut off, or is another one than we read before: it is read from its "
    "beginning, and what was in the one before and is not in this one is missing",
}
