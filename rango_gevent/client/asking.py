"""What a connection asks the gateway for, in order and in its own pace, and what it is answered.

Pure. What is wanted and what is held are compared after every connect; requests are cut by bytes
and made at the moment when they may go, so that many small wishes become one. A list that is
refused as a whole is asked for again in halves, down to the name that is at fault.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Callable, Union

from rango_gevent.client.limiter import wait_for_all
from rango_gevent.client.link import Link, Outgoing
from rango_gevent.client.matching import Pending
from rango_gevent.client.model import LIVE, NotNow
from rango_gevent.client.wanted import ACTIVE, PENDING, Wanted
from rango_gevent.client.wire import Reply, encode_request, is_unknown_event, requests

Outcome = Union["list[Reply]", Exception]

_OVER_RATE = "Too many requests"
_OVER_RATE_CODE = 1101
_PAUSE_S = 1.0
_BOOK_AGAIN_S = 30.0


class Asker:
    """Makes the requests of connections, and reads their replies.

    Args:
        request_bytes: size of a request.
        activated: called with streams that are held from now on, and the reply.
        refused: called with streams that are not.
        missing: the reason for a name that is missing in a reply without a word.
    """

    def __init__(
        self,
        request_bytes: int,
        activated: Callable[[list[Wanted], Reply], object],
        refused: Callable[[list[Wanted]], object],
        missing: str,
    ) -> None:
        self._request_bytes = request_bytes
        self._activated = activated
        self._refused = refused
        self._missing = missing
        self._number = 0

    def number(self, link: Link) -> int:
        """Return an id that no request of a connection has; users choose some too."""
        self._number += 1
        while self._number in link.matcher:
            self._number += 1
        return self._number

    # -- going out ----------------------------------------------------------------------

    def take(self, link: Link, now_s: float) -> list[str]:
        """Return what is to be sent now; it counts as sent."""
        texts, link.urgent = link.urgent, []
        if link.state != LIVE:
            return texts
        while now_s >= link.paced_until_s and self._prepare(link, now_s):
            outgoing = link.outgoing[0]
            wait_s = wait_for_all(link.buckets, now_s, outgoing.weight)
            if wait_s:
                link.paced_until_s = now_s + wait_s
                break
            link.outgoing.popleft()
            link.matcher.sent(outgoing.pending, now_s)
            texts.append(outgoing.text)
        return texts

    def _prepare(self, link: Link, now_s: float) -> bool:
        """See that a request waits, if there is anything to ask for."""
        if link.outgoing:
            return True
        due = [name for name, at_s in link.resyncs.items() if at_s <= now_s]
        if due:
            self._ask_for_book(link, due[0], now_s)
        elif link.unwanted:
            self._unsubscribe(link)
        elif link.can_ask():
            batch = link.batches.popleft() if link.batches else self._next_batch(link)
            self._subscribe(link, batch)
        return bool(link.outgoing)

    def _unsubscribe(self, link: Link) -> None:
        names = next(requests("unsubscribe", link.unwanted, self._request_bytes))
        for name in names:
            del link.unwanted[name]
        link.leaving.update(names)
        self._put(link, "unsubscribe", names, lambda outcome: link.leaving.difference_update(names))

    def _next_batch(self, link: Link) -> list[Wanted]:
        """Take streams that can be asked for together: all of them come from one position."""
        free = link.askable()
        since = next(iter(free.values())).since
        alike = (name for name, one in free.items() if one.since == since)
        names = next(requests("subscribe", alike, self._request_bytes))
        return [link.unasked.pop(name) for name in names]

    def _subscribe(self, link: Link, streams: list[Wanted]) -> None:
        streams = [one for one in streams if link.wanted.get(one.name) is one]
        if not streams:
            return
        since = streams[0].since
        more = {"since": since} if since else {}
        if since:  # one after another: each replay ends before the next one begins
            link.is_returning = True
        link.asked.update(streams)
        self._put(
            link,
            "subscribe",
            [one.name for one in streams],
            lambda outcome: self._answered(link, streams, outcome, is_return=bool(since)),
            more,
        )

    def _put(
        self,
        link: Link,
        kind: str,
        names: list[str],
        settle: Callable[[Outcome], None],
        more: Mapping[str, str] | None = None,
    ) -> None:
        number = self.number(link)
        request = {"event": kind, "streams": names, **(more or {}), "id": number}
        pending = Pending(number, kind, settle, is_own=True)
        link.outgoing.append(Outgoing(encode_request(request), pending))

    # -- users' own -----------------------------------------------------------------------

    def request(
        self,
        link: Link,
        request: Mapping[str, Any],
        settle: Callable[[Outcome], None],
        now_s: float,
        *,
        timeout_s: float = math.inf,
        answers: int = 1,
        until: Callable[[Any], bool] | None = None,
        weight: float = 1.0,
        wait: bool = True,
    ) -> None:
        """Send a request in its turn.

        Raises:
            NotNow: it would have to wait, and may not.
            TimeoutError: its turn comes after its time.
            ValueError: its id is in use, or its weight is more than a full bucket.
        """
        wait_s = max(bucket.wait_s(now_s, weight) for bucket in link.buckets)
        if not wait and (wait_s or link.outgoing):
            raise NotNow(f"the pace allows it in {wait_s:.3f} s")
        if wait_s > timeout_s:
            raise TimeoutError(f"the pace allows it in {wait_s:.3f} s, later than its time")
        number = request.get("id", self.number(link))
        taken = (waiting.pending.number for waiting in link.outgoing)
        if number in link.matcher or number in taken:
            raise ValueError(f"the id {number!r} is in use")
        kind = str(request.get("event", ""))
        pending = Pending(number, kind, settle, answers=answers, until=until)
        text = encode_request({**request, "id": number})
        while link.unwanted:  # what the user let go before is gone when this is answered
            self._unsubscribe(link)
        link.outgoing.append(Outgoing(text, pending, weight))

    # -- books --------------------------------------------------------------------------

    def _ask_for_book(self, link: Link, name: str, now_s: float) -> None:
        """Ask for a snapshot, and again later: the gateway may not have it yet."""
        stream = link.wanted.get(name)
        if stream is None:
            del link.resyncs[name]
            return
        link.resyncs[name] = now_s + _BOOK_AGAIN_S
        if stream.state != ACTIVE:
            return
        if link.knows_snapshot:
            link.replaying.add(name)
            self._put(link, "snapshot", [name], lambda outcome: self._sent(link, name, outcome))
        else:  # Rango sends a book to whoever subscribes it again
            self._put(link, "unsubscribe", [name], lambda outcome: None)
            self._subscribe(link, [stream])

    def _sent(self, link: Link, name: str, outcome: Outcome) -> None:
        if isinstance(outcome, Exception):  # it never came to its end
            return
        link.replaying.discard(name)
        if is_unknown_event(outcome[-1]):
            link.knows_snapshot = False
            if name in link.resyncs:
                link.resyncs[name] = float("-inf")

    # -- coming in ----------------------------------------------------------------------

    def _answered(
        self, link: Link, streams: list[Wanted], outcome: Outcome, is_return: bool
    ) -> None:
        if is_return:
            link.is_returning = False
        link.asked.difference_update(streams)
        if isinstance(outcome, Exception):  # the connection is gone, and all is asked for again
            return
        streams = [one for one in streams if link.wanted.get(one.name) is one]
        reply = outcome[-1]
        if reply.error is not None:
            self._failed(link, streams, reply)
            return
        held = set(reply.streams() or ())
        found = [one for one in streams if one.name in held]
        if found:
            self._activated(found, reply)
        self._refuse([one for one in streams if one.name not in held], self._missing)

    def _refuse(self, streams: list[Wanted], text: str, code: int | None = None) -> None:
        for one in streams:
            one.refuse(text, code)
        if streams:
            self._refused(streams)

    def _failed(self, link: Link, streams: list[Wanted], reply: Reply) -> None:
        error = reply.error or ""
        if error.startswith(_OVER_RATE) or reply.code == _OVER_RATE_CODE:
            link.batches.appendleft(streams)
            link.paced_until_s = max(link.paced_until_s, link.heard_at_s + _PAUSE_S)
        elif len(streams) > 1:
            middle = len(streams) // 2
            link.batches.extend((streams[:middle], streams[middle:]))
        else:
            self._refuse(streams, error, reply.code)

    def hear(self, link: Link, reply: Reply) -> None:
        """Take a reply that answers no request: the list of what is held after a change."""
        held = reply.streams()
        if held is not None:
            held_names = set(held)
            streams = link.wanted.values()
            gone = [one for one in streams if one.state == ACTIVE and one.name not in held_names]
            self._refuse(gone, "it is not allowed any more")


def ask_for(link: Link, stream: Wanted) -> None:
    """Put a stream on the list of those to ask for."""
    link.wanted[stream.name] = stream
    link.unasked[stream.name] = stream
    if stream.since is None:  # else what it holds would be given twice: it lets go first
        link.unwanted.pop(stream.name, None)
    stream.link = link
    stream.state = PENDING


def leave_out(link: Link, stream: Wanted) -> None:
    """Want a stream no longer from this connection."""
    link.wanted.pop(stream.name, None)
    link.resyncs.pop(stream.name, None)
    if link.unasked.pop(stream.name, None) is None and link.state == LIVE:
        link.unwanted[stream.name] = None
