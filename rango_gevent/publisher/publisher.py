"""The publisher: checks and encodes what it is given, and brings it to the exchange.

One `Publisher` for a process, made when a module is imported: it connects when it first publishes,
and is safe to share by threads, greenlets and processes that are forked later.
"""

from __future__ import annotations

import atexit
import itertools
import logging
import os
import threading
import time
import uuid
import weakref
from types import TracebackType
from typing import Mapping, NamedTuple

from rango_gevent.errors import PublishError
from rango_gevent.protocol import routing
from rango_gevent.publisher import body as bodies
from rango_gevent.publisher import forks
from rango_gevent.publisher.backlog import Backlog
from rango_gevent.publisher.courier import Courier
from rango_gevent.publisher.frames import Event
from rango_gevent.publisher.link import Deadline, Failed, Link, address
from rango_gevent.publisher.pool import Pool

DEFAULT_EXCHANGE = "peatio.events.ranger"
POLICIES = ("buffer", "block", "raise")
_BATCH_EVENTS = 5000

log = logging.getLogger("rango_gevent.publisher")
_publishers: weakref.WeakSet[Publisher] = weakref.WeakSet()


class Stats(NamedTuple):
    """What a publisher of this process has done since it was made, in events.

    Attributes:
        published: given to the broker; with confirms: taken by it.
        waiting: in the buffer now.
        dropped: lost from the buffer: past its bound, or given up at the end.
        failed: raised as `PublishError`, or logged where an event followed a commit.
        retried: attempts beyond first ones.
    """

    published: int
    waiting: int
    dropped: int
    failed: int
    retried: int


class Publisher:
    """Publishes events to the exchange that gateways consume.

    Args:
        url: broker as a kombu URL; several, separated by ``;``, are tried in turn.
        exchange: name of the topic exchange; None: RANGO_EXCHANGE, else Peatio's.
        confirm: wait until the broker has taken what is published. Without it what is on its way
            when a connection breaks is lost without a word.
        deadline_s: seconds that publishing may last; a batch has as many from each confirm on.
        on_down: when the broker is away: ``buffer`` keeps events and returns, ``block`` tries
            until the deadline and raises, ``raise`` does so at once. A broker that takes nothing
            for an alarm of its own counts as away, and is not waited for.
        buffer: events that may wait for the broker; past it the oldest are dropped and counted.
        connections: connections at once, each for one thread or greenlet at a time.
        declare: declare the exchange as Peatio does if there is none.
        options: kombu's transport options; a copy is used.
    """

    def __init__(
        self,
        url: str,
        *,
        exchange: str | None = None,
        confirm: bool = True,
        deadline_s: float = 2.0,
        on_down: str = "block",
        buffer: int = 10_000,
        connections: int = 10,
        declare: bool = True,
        options: Mapping[str, object] | None = None,
    ) -> None:
        if on_down not in POLICIES:
            raise ValueError(f"on_down={on_down!r}: give one of {', '.join(POLICIES)}")
        if deadline_s <= 0 or buffer < 1 or connections < 1:
            raise ValueError("deadline_s, buffer and connections must be above 0")
        self.exchange = exchange or os.environ.get("RANGO_EXCHANGE") or DEFAULT_EXCHANGE
        self._brokers = [address(part, deadline_s, options or {}) for part in url.split(";")]
        self._turn = 0
        self._confirm = confirm
        self._deadline_s = deadline_s
        self._patient = on_down == "block"
        self._declare = declare
        # without confirms two connections would mix up the order of what one thread publishes
        self._pool = Pool(self._connect, connections if confirm else 1)
        self._courier = Courier(self._pool)
        self._backlog: Backlog | None = None
        if on_down == "buffer":
            self._backlog = Backlog(buffer, self._courier, deadline_s)
        self._published = self._failed = 0
        self._begin()
        _publishers.add(self)
        forks.tell(self)

    def __enter__(self) -> Publisher:
        """Return it; it connects when it first publishes."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Send what waits, and leave the broker."""
        self.close()

    def connect(self) -> None:
        """Connect now and not with the first event: for a start that must tell what is wrong.

        Raises:
            PublishError: no broker is there or lets us in, or there is no such exchange.
        """
        try:
            link, _ = self._pool.take(Deadline(self._deadline_s))
        except Failed as error:
            raise _publish_error(error) from error
        self._pool.give(link)

    # -- publishing ---------------------------------------------------------------------

    def publish(self, key: str, body: object, *, require_gateway: bool = False) -> None:
        """Publish an event.

        Args:
            key: routing key, ``scope.stream.type`` or ``scope.type``.
            body: JSON as bytes or text, or an object to encode.
            require_gateway: raise unless a gateway is bound to the exchange; never buffered.

        Raises:
            PublishError: it is not known to be taken.
            ValueError: the key fits no stream, or the body is no JSON.
            TypeError: the body holds something that has no form in JSON.
        """
        self._deliver([self._event(key, body, require_gateway)])

    def publish_on_commit(self, key: str, body: object, *, using: str | None = None) -> None:
        """Publish an event when Django's transaction is committed, and not if it is not.

        The body is encoded now. What goes wrong after the commit is logged and counted as
        failed: raised, it would tell the user that what is done has failed.

        Args:
            key: routing key.
            body: as `publish` takes it.
            using: name of the database; None: the default one.

        Raises:
            ValueError: the key fits no stream, or the body is no JSON.
            TypeError: the body holds something that has no form in JSON.
        """
        from django.db import transaction  # a shop without Django needs none

        event = self._event(key, body)
        transaction.on_commit(lambda: self._deliver_or_log(event), using=using)

    def batch(self) -> Batch:
        """Return a batch, for a ``with`` block: one wait for many events."""
        return Batch(self)

    def close(self) -> None:
        """Send what waits, for as long as the deadline, and leave the broker."""
        if self._backlog is not None:
            self._backlog.close(self._deadline_s)
        self._pool.close()

    def stats(self) -> Stats:
        """Return what was done so far."""
        backlog = self._backlog
        return Stats(
            published=self._published + (0 if backlog is None else backlog.sent),
            waiting=0 if backlog is None else len(backlog),
            dropped=0 if backlog is None else backlog.dropped,
            failed=self._failed,
            retried=self._courier.retried,
        )

    # -- inside -------------------------------------------------------------------------

    def _begin(self) -> None:
        """Set what no two processes may share."""
        self._counting = threading.Lock()
        self._run_id = uuid.uuid4().hex[:16]
        self._numbers = itertools.count(1)

    def _event(self, key: str, body: object, mandatory: bool = False) -> Event:
        if mandatory and not self._confirm:
            raise ValueError("require_gateway needs confirm=True: without it nobody answers")
        return Event(
            routing.check_key(key),
            bodies.encode(body),
            int(time.time() * 1000),
            f"{self._run_id}-{next(self._numbers)}",
            mandatory,
        )

    def _deliver(self, events: list[Event]) -> None:
        """Publish events, or let them wait where the policy says so."""
        backlog = self._backlog
        if any(event.mandatory for event in events):
            backlog = None
        if backlog is not None and len(backlog):  # this comes after what waits
            backlog.add(events, "others wait already")
            return
        try:
            self._courier.deliver(events, Deadline(self._deadline_s), patient=self._patient)
        except Failed as error:
            self._count(published=len(events) - len(error.left))
            if backlog is not None and not error.is_final:
                backlog.add(error.left, str(error))
                return
            self._count(failed=len(error.left))
            raise _publish_error(error) from error
        self._count(published=len(events))

    def _count(self, published: int = 0, failed: int = 0) -> None:
        with self._counting:
            self._published += published
            self._failed += failed

    def _deliver_or_log(self, event: Event) -> None:
        try:
            self._deliver([event])
        except PublishError as error:
            log.error("%s was committed and is not published: %s", event.key, error)

    def _connect(self, deadline: Deadline) -> Link:
        with forks.none_meanwhile():
            return self._connect_to_any(deadline)

    def _connect_to_any(self, deadline: Deadline) -> Link:
        """Connect to the first broker that lets us, beginning with the last one that did."""
        failures = []
        for tried in range(len(self._brokers)):
            try:
                return Link(
                    self._brokers[self._turn % len(self._brokers)],
                    self.exchange,
                    Deadline(deadline.left_s() / (len(self._brokers) - tried)),
                    confirms=self._confirm,
                    declare=self._declare,
                )
            except Failed as error:
                failures.append(error)
                self._turn += 1
        reason = next((one.reason for one in failures if not one.is_final), failures[0].reason)
        raise Failed("; ".join(map(str, failures)), reason)

    def after_fork(self) -> None:
        """Leave to the parent what is the parent's: its connections, and what waits there."""
        self._begin()
        self._pool.forget()
        if self._backlog is not None:
            self._backlog.forget()


class Batch:
    """Events that are published together, in their order, with one wait for all confirms.

    They go out when the block ends, and before that in parts of some thousands. A block that ends
    by an exception publishes no more.
    """

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._events: list[Event] = []

    def __enter__(self) -> Batch:
        """Begin."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Publish what is left, and wait until all of it is taken."""
        if kind is None:
            self.flush()

    def publish(self, key: str, body: object, *, require_gateway: bool = False) -> None:
        """Add an event; arguments and errors are those of `Publisher.publish`."""
        self._events.append(self._publisher._event(key, body, require_gateway))
        if len(self._events) >= _BATCH_EVENTS:
            self.flush()

    def flush(self) -> None:
        """Publish what was added, and wait until it is taken.

        Raises:
            PublishError: some is not known to be taken; ``unconfirmed`` says which.
        """
        events, self._events = self._events, []
        if events:
            self._publisher._deliver(events)


def _publish_error(error: Failed) -> PublishError:
    unconfirmed = [(event.key, event.body) for event in error.left]
    return PublishError(
        str(error), error.reason, maybe_sent=error.maybe_sent, unconfirmed=unconfirmed
    )


def _at_exit() -> None:
    for publisher in list(_publishers):
        publisher.close()


atexit.register(_at_exit)
