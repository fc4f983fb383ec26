"""A client without sockets, threads and clocks: what all fronts share. Pure.

`Core` knows what is wanted, spreads it over connections, routes events to who wants them, and
keeps count. A front owns the sockets: it tells the core what happened (`dialled`, `opened`,
`received`, `lost`) and does what `due` says. It calls with its lock held, and runs what `news`
holds without it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from random import Random
from typing import Any, Callable

from rango_gevent.client import coming_back
from rango_gevent.client.asking import Asker, leave_out
from rango_gevent.client.limiter import TokenBucket
from rango_gevent.client.link import Link
from rango_gevent.client.model import (
    AUTHENTICATING,
    ERROR,
    LIVE,
    REPLY,
    STATE,
    Event,
    Gap,
    Hooks,
    Limits,
    Notice,
    StateChange,
    Stats,
)
from rango_gevent.client.moving import Mover
from rango_gevent.client.plan import Plan
from rango_gevent.client.pool import Pool
from rango_gevent.client.renewal import Renewal
from rango_gevent.client.wanted import ACTIVE, Routes, Sink, Wanted
from rango_gevent.client.wire import (
    End,
    Reply,
    parse_object,
    parse_reply,
    split_event,
    split_position,
    with_parameters,
    without_streams,
)

_ENDED = "the client was closed"
_CONTROL = ("success", "error", "event")
_RESYNC_DOUBLINGS = 5
_RESYNCS_FORGOTTEN_S = 60.0


class Core:
    """All of a client but its sockets.

    Args:
        plan: how it connects.
        limits: bounds.
        jitter: spreads waits and moments.
        wake: called with a connection that has something to send, or another deadline.
        bucket: what the requests of all connections take tokens from together.

    Attributes:
        hooks: whom to tell.
        news: what is to be called, without the lock.
        pool: the connections.
        asker: what they ask for.
        renewal: authenticates them.
        error: why the client ended, None when it was closed or lives.
        has_ended: nothing will come any more.
    """

    def __init__(
        self,
        plan: Plan,
        limits: Limits,
        jitter: Random,
        wake: Callable[[Link], object],
        bucket: TokenBucket | None = None,
    ) -> None:
        self.plan = plan
        self.hooks = Hooks()
        self.news: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self.error: Exception | None = None
        self.has_ended = self._is_closing = False
        self._limits = limits
        self._jitter = jitter
        self._wake = wake
        self._bucket = bucket
        self._wanted: dict[str, Wanted] = {}
        self._routes = Routes()
        self._full: list[tuple[Sink, int, Event]] = []
        self._arrivals = 0
        self._garbage = self._gaps = self._recovered = self._resyncs = 0
        self._dropped_before = 0
        missing = "the token does not allow it" if plan.has_token else "that needs a token"
        self._at_s = 0.0
        self.asker = Asker(limits.request_bytes, self._activated, self._refused, missing)
        self.renewal = Renewal(
            self.asker,
            jitter,
            renews=plan.renews,
            failed=lambda link, text: self.say(self.hooks.notice, Notice(STATE, text)),
        )
        self.pool = Pool(self._make_link, wake, plan.per_connection)
        self._mover = Mover(self.pool, self._routes, self._deliver, wake)

    def say(self, listeners: Sequence[Callable[..., object]], *args: object) -> None:
        """Leave word for listeners."""
        self.news.extend((listener, args) for listener in listeners)

    # -- what is wanted -----------------------------------------------------------------

    def want(self, name: str, sink: Sink, stale_after_s: float = 0.0) -> Wanted:
        """Let a sink have a stream's events."""
        if self.has_ended or self._is_closing:
            late = Wanted(name)
            late.refuse(str(self.error or _ENDED))
            return late
        stream = self._wanted.get(name)
        if stream is None:
            stream = self._wanted[name] = Wanted(name)
            self._routes.add(stream)
            self.pool.place(stream)
        elif stream.is_book and stream.state == ACTIVE:
            self.resync(stream, 0.0)  # the newcomer needs the snapshot
        stream.sinks.append(sink)
        stream.stale_after_s = stale_after_s or stream.stale_after_s
        return stream

    def unwant(self, stream: Wanted, sink: Sink) -> None:
        """Take a sink's stream away; the last one unsubscribes."""
        if sink not in stream.sinks:
            return
        stream.sinks.remove(sink)
        self._dropped_before += sink.dropped
        if stream.sinks:
            return
        del self._wanted[stream.name]
        self._routes.remove(stream)
        self._mover.forget(stream)
        leave_out(stream.link, stream)
        self.pool.leave_empty(stream.link)
        self._wake(stream.link)

    def _make_link(self, number: int) -> Link:
        urls = list(self.plan.urls)
        first = number % len(urls)
        limits = self._limits
        buckets = [TokenBucket(limits.requests_per_s, limits.requests_burst)]
        return Link(
            number,
            urls[first:] + urls[:first],
            limits,
            [*buckets, self._bucket] if self._bucket else buckets,
            self._jitter,
            self._tell_state,
            comes_back=self.plan.reconnect,
        )

    # -- what a front tells -------------------------------------------------------------

    def dialled(self, link: Link) -> str:
        """Return the whole URL to connect to now."""
        url = link.dial()
        if not self.plan.resume:
            return with_parameters(url, "notices=1")
        # its streams are asked for, from where they stood
        return with_parameters(without_streams(url), "notices=1", "resume=1")

    def opened(self, link: Link, now_s: float, expires_in_s: float | None, token: str = "") -> None:
        """Take the end of the handshake.

        Args:
            link: whose.
            now_s: the time.
            expires_in_s: seconds to the end of the token that was sent, None when unknown.
            token: to be sent in band; empty for none.
        """
        link.opened(now_s)
        link.token = token
        self.renewal.plan(link, expires_in_s)
        self._wake(link)

    def received(
        self, link: Link, text: str, now_s: float, at_s: float
    ) -> list[tuple[Sink, int, Event]]:
        """Take a message.

        Args:
            link: where it came from.
            text: the message.
            now_s: monotonic time.
            at_s: time of the wall clock.

        Returns:
            What found no room, and has to be offered again.
        """
        link.heard(now_s)
        link.heard_before_s = link.heard_wall_s
        self._at_s = link.heard_wall_s = at_s
        message = split_event(text)
        if message is None:
            self._odd(link, text)
            return []
        name, body = message
        streams = self._routes.get(name)
        if name in _CONTROL and (not streams or self._is_answer(link, text)):
            self._control(link, text)
            return self._take_full()
        if link.state == AUTHENTICATING and not link.is_greeted:
            self._greet(link)
        position = None
        if self.plan.resume:
            body, position = split_position(body)
        event = Event(name, body, at_s)
        for stream in coming_back.takers(link, streams, position):
            stream.quiet_since_s = now_s
            if position is not None:
                coming_back.note(link, stream, name, position)
            self._deliver(stream, event)
            self._mover.delivered(stream, event)
        return self._take_full()

    def _deliver(self, stream: Wanted, event: Event) -> None:
        self._arrivals += 1
        for sink in stream.sinks:
            if not sink.offer(self._arrivals, event):
                self._full.append((sink, self._arrivals, event))

    def _take_full(self) -> list[tuple[Sink, int, Event]]:
        full, self._full = self._full, []
        return full

    @staticmethod
    def _is_answer(link: Link, text: str) -> bool:
        """Tell a reply from an event: a private stream may be called ``error``."""
        reply = parse_reply(text)
        return reply is not None and reply.number in link.matcher

    def lost(self, link: Link, end: End, now_s: float) -> None:
        """Take the end of a connection, or of an attempt to make one."""
        link.lost(end, now_s)
        self._mover.lost(link)
        for stream in link.wanted.values():
            coming_back.pause(link, stream, end.reason)
        link.unasked = dict(link.wanted)
        link.batches.clear()
        link.unwanted.clear()
        link.resyncs.clear()
        if not self._is_closing:
            for stream in self.pool.evacuate(link):
                stream.refuse(str(link.error or end.reason))
        self._look_for_end(link)
        self._wake(link)

    def _look_for_end(self, link: Link) -> None:
        """End the client when none of its connections will come back."""
        if self.has_ended or not self.pool.is_over():
            return
        self.has_ended = True
        self.error = None if self._is_closing else link.error
        for stream in self._wanted.values():
            stream.refuse(str(self.error or _ENDED))

    def close(self) -> None:
        """Leave for good."""
        self._is_closing = True
        for link in list(self.pool):
            link.drain(_ENDED)
            self._look_for_end(link)
            self._wake(link)

    # -- what a front does --------------------------------------------------------------

    def due(self, link: Link, now_s: float) -> list[str]:
        """Return the texts to send now."""
        link.check(now_s)
        if link.state == LIVE:
            self._check_streams(link, now_s)
            if now_s >= link.balance_at_s:
                link.balance_at_s = math.inf
                self._mover.balance()
        return self.asker.take(link, now_s)

    def next_at_s(self, link: Link) -> float:
        """Return when `due` should be asked again at the latest; infinite for no such time."""
        at_s = link.next_at_s()
        if link.state == LIVE:
            for stream in link.wanted.values():
                if stream.stale_after_s and stream.quiet_since_s is not None:
                    at_s = min(at_s, stream.quiet_since_s + stream.stale_after_s)
        return at_s

    def _check_streams(self, link: Link, now_s: float) -> None:
        """Tell of streams that are quiet, and see whether their connection lives."""
        for stream in link.wanted.values():
            since_s = stream.quiet_since_s
            if since_s is None or not stream.stale_after_s:
                continue
            if now_s >= since_s + stream.stale_after_s:
                stream.quiet_since_s = None
                link.ping(now_s)
                self.say(self.hooks.stale, stream.name)

    # -- books --------------------------------------------------------------------------

    def resync(self, stream: Wanted, within_s: float | None = None) -> None:
        """Ask for a book's snapshot, some time soon: others may have lost it at once with us."""
        link = stream.link
        if stream.state != ACTIVE or stream.name in link.resyncs:
            return
        if link.heard_at_s - stream.resynced_at_s > _RESYNCS_FORGOTTEN_S:
            stream.resyncs = 0
        spread_s = self._limits.resync_s if within_s is None else within_s
        spread_s *= 2.0 ** min(stream.resyncs, _RESYNC_DOUBLINGS)  # a gap may be the publisher's
        stream.resyncs += 1
        stream.resynced_at_s = link.heard_at_s
        self._resyncs += 1
        link.resyncs[stream.name] = link.heard_at_s + self._jitter.uniform(0.0, spread_s)
        self._wake(link)

    def synced(self, stream: Wanted) -> None:
        """Note that a book has its snapshot."""
        stream.link.resyncs.pop(stream.name, None)

    # -- words ------------------------------------------------------------------------

    def _control(self, link: Link, text: str) -> None:
        """Take what is no event: the gateway's first word, a reply, a notice."""
        reply = parse_reply(text)
        if reply is None:
            self._hear_notice(link, text)
            return
        kind = REPLY if reply.error is None else ERROR
        self.say(self.hooks.notice, Notice(kind, text))
        if isinstance(reply.get("at"), str):
            link.position = reply.get("at")
        if link.state == AUTHENTICATING and not link.is_greeted:
            self._greet(link)
        elif link.matcher.take(reply, link.heard_at_s):
            self.say(self.hooks.latency, "request", link.matcher.latency_s)
        else:
            self.asker.hear(link, reply)
        self._wake(link)

    def _greet(self, link: Link) -> None:
        """Take the gateway's first word: a token that goes in band is due now."""
        link.is_greeted = True
        token, link.token = link.token, ""
        if token:
            self.renewal.send(link, token, link.heard_at_s)
        else:
            link.greeted(link.heard_at_s)

    def _odd(self, link: Link, text: str) -> None:
        if text != "pong":
            self._garbage += 1
            return
        latency_s = link.ponged(link.heard_at_s)
        if latency_s is not None:
            self.say(self.hooks.latency, "ping", latency_s)

    def _hear_notice(self, link: Link, text: str) -> None:
        value = parse_object(text)
        kind = value.get("event")
        if kind == "resync":
            for name in value.get("streams") or ():
                stream = link.wanted.get(name)
                for sink in stream.sinks if stream else ():
                    sink.lost("the gateway waits for the next snapshot")
        elif kind == "auth_expiring":
            link.knows_auth = True
            link.renew_at_s = link.heard_at_s if self.plan.renews else link.renew_at_s
        elif kind == "position":
            if isinstance(value.get("at"), str):
                link.position = value["at"]
                return
            missed = coming_back.broke(link)
            self._miss(missed, link.heard_before_s, str(value.get("reason")))
        else:
            self._garbage += 1
            return
        self.say(self.hooks.notice, Notice(REPLY, text))
        self._wake(link)

    def _miss(self, streams: list[Wanted], from_s: float, why: str) -> None:
        """Tell that events of streams are missing."""
        if streams:
            self._gaps += len(streams)
            names = tuple(one.name for one in streams)
            self.say(self.hooks.gap, Gap(names, from_s, self._at_s, why))

    def _activated(self, streams: list[Wanted], reply: Reply) -> None:
        recovered = reply.get("recovered") is True
        missed = [one for one in streams if one.lost_at_s is not None and not one.is_book]
        if recovered:
            back = [one for one in streams if one.lost_at_s is not None]
            self._recovered += len(back)
            if back:
                self.say(self.hooks.notice, Notice(STATE, coming_back.recovered(back, reply)))
        elif missed:
            from_s = min(one.lost_at_s or 0.0 for one in missed)
            self._miss(missed, from_s, str(reply.get("reason") or missed[0].why_lost))
        for stream in streams:
            stream.lost_at_s = None
            stream.activate(stream.link.heard_at_s)
            for sink in list(stream.sinks):
                sink.resumed(recovered)
        self._mover.activated(streams)

    def _refused(self, streams: list[Wanted]) -> None:
        streams = self._mover.refused(streams)
        if not streams:
            return
        for sink in (sink for stream in streams for sink in stream.sinks):
            sink.lost(str(streams[0].error))
        names = ", ".join(stream.name for stream in streams)
        why = str(streams[0].error).partition(": ")[2]
        self.say(self.hooks.notice, Notice(STATE, f"not subscribed to {names}: {why}"))

    def _tell_state(self, change: StateChange) -> None:
        self.say(self.hooks.state, change)
        if change.wait_s or (change.state == LIVE and change.reason != "connected"):
            again = f"; connecting again in {change.wait_s:.1f} s" if change.wait_s else ""
            self.say(self.hooks.notice, Notice(STATE, change.reason + again))

    def stats(self, at_s: float) -> Stats:
        """Return the figures; ``at_s`` is the time of the wall clock."""
        sinks = {id(sink): sink for one in self._wanted.values() for sink in one.sinks}.values()
        backlogs = [sink.waiting() for sink in sinks]
        oldest_s = min((at for _, at in backlogs if at is not None), default=at_s)
        return Stats(
            events=self._arrivals,
            dropped=self._dropped_before + sum(sink.dropped for sink in sinks),
            gaps=self._gaps,
            recovered=self._recovered,
            resyncs=self._resyncs,
            reconnects=self.pool.reconnects_before
            + sum(max(0, link.connects - 1) for link in self.pool),
            garbage=self._garbage,
            waiting=sum(count for count, _ in backlogs),
            lag_s=max(0.0, at_s - oldest_s),
            connections=tuple(link.stats() for link in self.pool),
        )
