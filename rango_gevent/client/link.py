"""One connection's life: when it dials, whether it lives, what it sends. Pure: the time comes in.

            ┌──────────────── lost ───────────────┐
            ▼                                     │
          idle ──► connecting ──► authenticating ─┴► live ──► draining ──► closed
                       │  refused for good: closed  │
                       └────────────────────────────┘

A `Link` outlives its connections: it is a place in the pool that is dialled again and again. The
front that owns its socket does what `dial`, `take` and `farewell` say, and tells what happened.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Callable, NamedTuple

from rango_gevent.backoff import Backoff
from rango_gevent.client.limiter import TokenBucket
from rango_gevent.client.matching import Matcher, Pending
from rango_gevent.client.model import (
    AUTHENTICATING,
    CLOSED,
    CONNECTING,
    DRAINING,
    IDLE,
    LIVE,
    ConnectionLost,
    ConnectionStats,
    Limits,
    StateChange,
)
from rango_gevent.client.wire import End, bare
from rango_gevent.protocol import close

if TYPE_CHECKING:
    from rango_gevent.client.wanted import Wanted

TRANSITIONS = {
    IDLE: {CONNECTING, CLOSED},
    CONNECTING: {AUTHENTICATING, IDLE, CLOSED},
    AUTHENTICATING: {LIVE, DRAINING, IDLE, CLOSED},
    LIVE: {DRAINING, IDLE, CLOSED},
    DRAINING: {CLOSED},
    CLOSED: set(),
}

_NOW_PART = 0.1  # of the usual wait: a farewell to this client alone, there is no crowd to avoid
_OPENED = (AUTHENTICATING, LIVE)


class Outgoing(NamedTuple):
    """A request that waits for its turn."""

    text: str
    pending: Pending
    weight: float = 1.0


class Link:
    """One connection, made again and again.

    Args:
        number: its number.
        urls: of gateways, the one to begin with first.
        limits: bounds.
        buckets: what its requests take tokens from.
        jitter: spreads waits.
        tell: called with each `StateChange`.
        comes_back: it is dialled again when it is lost.

    Attributes:
        wanted: streams that it is to hold, by name.
        unasked: those that are still to be asked for.
        batches: lists of those that are to be asked for as they are.
        unwanted: names to unsubscribe.
        resyncs: books that want a snapshot, and when to ask.
        replaying: books whose snapshot was asked for and is not answered.
        leaving: names whose unsubscribing is not answered.
        asked: streams that were asked for, and that is not answered.
        is_returning: some of them from where they stood.
        knows_snapshot: the gateway sends a book to whoever asks for it.
        knows_auth: it spoke of tokens.
        outgoing: requests that wait for their turn.
        urgent: texts to send at once.
        farewell: what to close with, None to stay.
        dial_at_s: when to dial.
        balance_at_s: when to look whether it has fewer streams than others.
        renew_at_s: when its token is to be renewed.
        token: to be sent in band, after the gateway's first word.
        is_held: nothing is read from it, as somebody's queue is full.
        is_greeted: that word came.
        position: where it stands, where the gateway tells.
        heard_at_s: when the last sign of life came.
        heard_wall_s: the same on the wall clock.
        heard_before_s: when the one before that came.
        generation: counts connections: what was begun for an earlier one is void.
    """

    def __init__(
        self,
        number: int,
        urls: Sequence[str],
        limits: Limits,
        buckets: Sequence[TokenBucket],
        jitter: Random,
        tell: Callable[[StateChange], object],
        *,
        comes_back: bool = True,
    ) -> None:
        self.number = number
        self.state = IDLE
        self.wanted: dict[str, Wanted] = {}
        self.unasked: dict[str, Wanted] = {}
        self.batches: deque[list[Wanted]] = deque()
        self.unwanted: dict[str, None] = {}
        self.resyncs: dict[str, float] = {}
        self.replaying: set[str] = set()
        self.leaving: set[str] = set()
        self.asked: set[Wanted] = set()
        self.is_returning = False
        self.outgoing: deque[Outgoing] = deque()
        self.urgent: list[str] = []
        self.matcher = Matcher()
        self.buckets = buckets
        self.farewell: tuple[int, str] | None = None
        self.dial_at_s = -math.inf
        self.paced_until_s = -math.inf
        self.renew_at_s = self.balance_at_s = math.inf
        self.position: str | None = None
        self.is_greeted = self.is_held = False
        self.token = ""
        self.knows_snapshot = True
        self.knows_auth = False
        self.generation = self.connects = 0
        self.latency_s: float | None = None
        self.error: Exception | None = None
        self._urls = list(urls)
        self._refusing: set[str] = set()
        self._limits = limits
        self._jitter = jitter
        self._tell = tell
        self._comes_back = comes_back
        self._is_dismissed = False
        self._given_up: End | None = None
        self._since_s = self.heard_at_s = 0.0
        self.heard_wall_s = self.heard_before_s = 0.0
        self._pinged_at_s: float | None = None
        self._measured_from_s: float | None = None
        self._backoff = Backoff(
            limits.first_wait_s,
            limits.max_wait_s,
            steady_s=limits.steady_s,
            least=0.0,
            jitter=jitter,
        )

    @property
    def url(self) -> str:
        """Return the URL of the gateway that it is with, or will try next."""
        return self._urls[0]

    @property
    def is_open(self) -> bool:
        """Tell whether requests can be sent."""
        return self.state in _OPENED

    def stats(self) -> ConnectionStats:
        """Return its figures."""
        latency_s = self.latency_s if self.latency_s is not None else self.matcher.latency_s
        return ConnectionStats(
            self.number, self.state, bare(self.url), len(self.wanted), self.connects, latency_s
        )

    # -- states -------------------------------------------------------------------------

    def _enter(self, state: str, end: End, wait_s: float = 0.0) -> None:
        assert state in TRANSITIONS[self.state], f"{self.state} to {state}"
        self.state = state
        self._tell(StateChange(self.number, state, end.code, end.reason, bare(self.url), wait_s))

    def dial(self) -> str:
        """Return the URL to connect to now."""
        self.generation += 1
        self._enter(CONNECTING, End("dialling"))
        return self.url

    def opened(self, now_s: float) -> None:
        """Note that the handshake is done; the gateway's first word is to come."""
        self._since_s = self.heard_at_s = now_s
        self.is_greeted = False
        self.position = None
        self.replaying.clear()
        self._given_up = self.farewell = self._pinged_at_s = self._measured_from_s = None
        self._enter(AUTHENTICATING, End("connected"))
        if self._is_dismissed:
            self.drain("it is not wanted any more")

    def greeted(self, now_s: float) -> None:
        """Note the gateway's first word."""
        self._since_s = self.heard_at_s = now_s
        self.connects += 1
        self._refusing.clear()
        if self.connects > 1:  # its streams have gone elsewhere
            self.balance_at_s = now_s + self._limits.steady_s
        self._enter(LIVE, End("connected" if self.connects == 1 else "connected again"))

    def lost(self, end: End, now_s: float) -> None:
        """Note that the connection, or an attempt to make one, ended."""
        if self.state == CLOSED:
            return
        if self.state == LIVE:
            self._backoff.lived(now_s - self._since_s)
        end, self._given_up = self._given_up or end, None
        self._fail_requests(end)
        if self.is_leaving or not self._comes_back or self._is_final(end):
            self.error = None if self.is_leaving else end.error
            self._enter(CLOSED, end)
            return
        wait_s = self._wait_s(end)
        self.dial_at_s = now_s + wait_s
        self._enter(IDLE, end, wait_s)
        self._urls.append(self._urls.pop(0))

    def _fail_requests(self, end: End) -> None:
        error = ConnectionLost(end.reason, end.code)
        outgoing, self.outgoing = self.outgoing, deque()
        for waiting in outgoing:
            waiting.pending.settle(error)
        self.matcher.fail_all(error)
        self.leaving.clear()
        self.asked.clear()
        self.is_returning = False
        self.urgent.clear()
        self.renew_at_s = self.balance_at_s = math.inf

    def _is_final(self, end: End) -> bool:
        """Tell whether there is no coming back: every gateway said so."""
        if end.when != close.NEVER:
            return False
        self._refusing.add(self.url)
        return len(self._refusing) == len(set(self._urls))

    def _wait_s(self, end: End) -> float:
        wait_s = self._backoff.next()
        if end.when == close.NOW:
            return wait_s * _NOW_PART
        if end.retry_after_s is None:
            return wait_s
        return end.retry_after_s + wait_s  # never sooner, and not all at once

    def drain(self, reason: str) -> None:
        """Leave for good: at once when there is no connection, else with a goodbye."""
        end = End(reason)
        if self.is_open:
            self._enter(DRAINING, end)
            self.farewell = (1000, "")
        elif self.state == IDLE:
            self._fail_requests(end)
            self._enter(CLOSED, end)
        elif self.state == CONNECTING:
            self._is_dismissed = True  # it ends as soon as its attempt does

    @property
    def is_leaving(self) -> bool:
        """Tell whether it will not come back."""
        return self.state in (CLOSED, DRAINING) or self._is_dismissed

    def askable(self) -> Mapping[str, Wanted]:
        """Return the streams that can be asked for now.

        One that comes back waits until all is let go that could have its events too: they would
        be taken for what it missed.
        """
        if not (self.leaving or self.unwanted):
            return self.unasked
        return {name: one for name, one in self.unasked.items() if one.since is None}

    def can_ask(self) -> bool:
        """Tell whether streams can be asked for now."""
        return not self.is_returning and bool(self.batches or self.askable())

    # -- liveness -----------------------------------------------------------------------

    def heard(self, now_s: float) -> None:
        """Note a sign of life."""
        self.heard_at_s = now_s
        self._pinged_at_s = None

    def ponged(self, now_s: float) -> float | None:
        """Note the answer to `ping`; return how long it took, None when none was asked for."""
        if self._measured_from_s is None:
            return None
        self.latency_s, self._measured_from_s = now_s - self._measured_from_s, None
        return self.latency_s

    def ping(self, now_s: float) -> None:
        """Ask for a sign of life, unless one is awaited already."""
        if self.state == LIVE and self._pinged_at_s is None:
            self._pinged_at_s = self._measured_from_s = now_s
            self.urgent.append("ping")

    def check(self, now_s: float) -> None:
        """Do what is due: ask a silent gateway, give up one that stays silent."""
        if self.farewell is not None or self.is_held:
            return
        deadline = self._deadline()
        if deadline is None or now_s < deadline[0]:
            return
        if deadline[1] is None:
            self.ping(now_s)
        else:
            self.give_up(deadline[1])

    def _deadline(self) -> tuple[float, str | None] | None:
        """Return the next moment of its own, and why it is given up then; None: it asks."""
        limits = self._limits
        if self.state == AUTHENTICATING:
            return self._since_s + limits.open_s, "the server says no word"
        if self.state != LIVE:
            return None
        if self._pinged_at_s is None:
            first: tuple[float, str | None] = (self.heard_at_s + limits.idle_s, None)
        else:
            first = (self._pinged_at_s + limits.pong_s, "the server is silent")
        asked_s = self.matcher.oldest_own_s()
        if asked_s is not None and asked_s + limits.reply_s < first[0]:
            return asked_s + limits.reply_s, "a subscription was not answered"
        return first

    def give_up(self, reason: str, when: str = close.LATER) -> None:
        """End a connection that does not work, and come back."""
        self._given_up = End(reason, None, when, None, ConnectionLost(reason))
        self.farewell = (1000, "")

    def next_at_s(self) -> float:
        """Return when `check` has something to do, or a request may go."""
        moments = [self.renew_at_s, self.balance_at_s, *self.resyncs.values()]
        deadline = self._deadline()
        if deadline is not None and self.farewell is None and not self.is_held:
            moments.append(deadline[0])
        if self.state == LIVE and (self.outgoing or self.unwanted or self.can_ask()):
            moments.append(self.paced_until_s)
        return min(moments)
