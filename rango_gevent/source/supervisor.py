"""The supervisor: one greenlet that keeps a source running, whatever kind it is.

`Supervisor.run` ends only when it is stopped: any exception drops the connection, waits a
jittered while and makes a new one. Here is the whole policy of trying again, what readiness
hears, and what is counted. How long a fault goes unnoticed, and how soon messages flow after
it, is in docs/FAULTS.md.
"""

from __future__ import annotations

import logging
import random
import time
from typing import Any, Callable, Mapping

import gevent

from rango_gevent.backoff import Backoff
from rango_gevent.source.base import Overtaken, Source, SourceError, SourceRefused
from rango_gevent.throttle import ThrottledLog

log = logging.getLogger(__name__)

FIRST_WAIT_S = 0.1
MAX_WAIT_S = 0.5  # a broker that is back is found within a second
REFUSED_WAIT_S = 0.75  # refused for its configuration: each attempt is a line in the broker's log
PATIENT_WAIT_S = 5.0  # the same, when it lasts
_PATIENT_AFTER_S = 60.0
_STEADY_S = 5.0  # a connection that lived so long was a good one
_SAY_AGAIN_S = 60.0
_STOP_S = 2.0


class Supervisor:
    """Runs one source, for ever.

    Args:
        source: where messages come from.
        on_lost: called when a connection that was consumed from is lost.

    Attributes:
        connected: messages can arrive.
        connects: connections made so far.
        failures: connections lost and attempts failed so far.
    """

    def __init__(self, source: Source, on_lost: Callable[[], None] = lambda: None) -> None:
        self._source = source
        self._on_lost = on_lost
        self._backoff = Backoff(
            FIRST_WAIT_S, PATIENT_WAIT_S, steady_s=_STEADY_S, least=0.5, jitter=random.Random()
        )
        self._is_refused = False
        self._is_patient = False
        self._failure_log = ThrottledLog(log, _SAY_AGAIN_S)
        self._greenlet: Any = None
        self.connected = False
        self._problem = "not connected to the broker yet"
        self.connects = 0
        self.failures = 0
        self._away_s = 0.0
        self._since = time.monotonic()  # of being connected, or of being away

    def run(self) -> None:
        """Consume until stopped."""
        self._greenlet = gevent.getcurrent()
        while True:
            try:
                self._attend()
            except Exception as error:  # whatever it is, the cure is a new connection
                self._failed(error)
            gevent.sleep(self._next_wait())

    def stop(self) -> None:
        """End `run` from another greenlet; it leaves the broker cleanly, in bounded time."""
        if self._greenlet is not None:
            gevent.killall([self._greenlet], timeout=_STOP_S)

    @property
    def problem(self) -> str:
        """Say why clients should not be sent here; empty when they should."""
        return self._problem or self._source.waits_for

    def reading(self) -> dict[str, float | Mapping[str, int]]:
        """Return what the source has counted."""
        return self._source.reading()

    def away_s(self) -> float:
        """Return for how many seconds in all there was no broker."""
        now_away = 0.0 if self.connected else time.monotonic() - self._since
        return self._away_s + now_away

    def _attend(self) -> None:
        """Run the source for the life of one connection."""
        try:
            self._source.connect(hasty=not self._is_patient)
            self._ready()
            self._source.pump()
        except gevent.GreenletExit:
            self._source.leave()
            raise
        except Exception:
            self._lost()
            raise
        finally:
            self._source.drop()

    def _ready(self) -> None:
        now = time.monotonic()
        self._away_s += now - self._since
        self._since = now
        self.connects += 1
        self.connected = True
        self._problem = ""
        self._failure_log.clear()
        log.info("consuming %s at %s", self._source.exchange, self._source.place)

    def _lost(self) -> None:
        """Note that no messages can arrive; nothing changes when none could."""
        if not self.connected:
            return
        now = time.monotonic()
        self._backoff.lived(now - self._since)
        self._since = now
        self.connected = False
        self._on_lost()

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        self._is_refused = isinstance(error, SourceRefused)
        self._is_patient = isinstance(error, Overtaken)
        if self._is_patient:
            self._backoff.reset()
        detail = str(error) or type(error).__name__
        self._problem = f"broker: {detail}"
        self._say(error, detail)

    def _say(self, error: Exception, detail: str) -> None:
        """Log a failure; the same one again only once a minute."""
        place = self._source.place
        if self._is_refused:
            text = "the broker at %s refuses this configuration: %s"
            self._failure_log.error(detail, text, place, detail)
        else:
            foreseen = isinstance(error, (OSError, SourceError))
            text = "no broker at %s: %s"
            self._failure_log.warning(detail, text, place, detail, exc_info=not foreseen)

    def _next_wait(self) -> float:
        longest_s = MAX_WAIT_S
        if self._is_refused:
            is_new = time.monotonic() - self._since < _PATIENT_AFTER_S
            longest_s = REFUSED_WAIT_S if is_new else PATIENT_WAIT_S
        return self._backoff.next(longest_s)
