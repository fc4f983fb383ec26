"""Brings events to the broker: takes a link, tries, and tries again for as long as it may.

An event keeps its ``message_id`` over all attempts. One that was sent and not confirmed is sent
again, so it may arrive twice; it is never left out without an error.
"""

from __future__ import annotations

import random
import time
from typing import Sequence

from rango_gevent.backoff import Backoff
from rango_gevent.publisher.frames import Event
from rango_gevent.publisher.link import Deadline, Failed
from rango_gevent.publisher.pool import Pool

_FIRST_WAIT_S = 0.05
_MAX_WAIT_S = 1.0
_IDLE_S = 1.0


def waits() -> Backoff:
    """Return the waits between attempts."""
    return Backoff(_FIRST_WAIT_S, _MAX_WAIT_S, steady_s=0.0, least=0.5, jitter=random.Random())


class Courier:
    """Publishes by the links of a pool.

    Args:
        pool: the links.

    Attributes:
        retried: attempts beyond the first ones.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.retried = 0

    def deliver(self, events: Sequence[Event], deadline: Deadline, *, patient: bool) -> None:
        """Publish events, in their order.

        Args:
            events: what to publish.
            deadline: until when.
            patient: wait for a broker that is away until then.

        Raises:
            Failed: with those that are not known to be taken.
        """
        backoff = waits()
        left, maybe_sent = list(events), False
        while True:
            try:
                self._try(left, deadline)
                return
            except Failed as error:
                left, maybe_sent = error.left or left, maybe_sent or error.maybe_sent
                error.left, error.maybe_sent = left, maybe_sent
                if error.is_final or error.reason == "blocked" or not deadline.left_s():
                    raise
                # a link that was idle may be dead, which says nothing about the broker
                wait_s = 0.0 if error.is_stale else backoff.next(deadline.left_s())
                if wait_s and not patient:
                    raise
            self.retried += 1
            time.sleep(wait_s)

    def _try(self, events: list[Event], deadline: Deadline) -> None:
        link, was_used = self._pool.take(deadline)
        # what lies between may have forgotten a quiet connection, and swallow all: keep some time
        part = Deadline(deadline.left_s() / 2) if link.idle_s() >= _IDLE_S else deadline
        try:
            link.publish(events, part)
        except Failed as error:
            error.is_stale = was_used
            raise
        except BaseException:  # killed, or timed out by somebody: answers may still come
            link.drop()
            raise
        finally:
            self._pool.give(link)
