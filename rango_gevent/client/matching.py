"""Requests that wait for their replies, and which reply is whose. Pure.

Every request carries an ``id``. A gateway that knows ids sends it back with the reply; Rango
knows none, but answers in order: there an error belongs to the oldest request that waits, and a
success to the oldest that such a success answers.
"""

from __future__ import annotations

from typing import Any, Callable, Union

from rango_gevent.client.wire import Reply

Id = Union[int, str]
Settle = Callable[[Union["list[Reply]", Exception]], None]

ANSWERS = {
    "subscribe": "subscribed",
    "unsubscribe": "unsubscribed",
    "auth": "authenticated",
    "list": "list",
    "time": "time",
    "snapshot": "snapshot",
}


class Pending:
    """A request that waits.

    Args:
        number: its id.
        kind: its ``event``.
        settle: called once, with the replies or with an error.
        answers: replies to wait for; an error is always the last.
        until: takes a reply's whole object, tells whether it is the last; wins over ``answers``.
        is_own: the client's own, whose reply the connection's health depends on.

    Attributes:
        sent_at_s: when it was sent.
    """

    def __init__(
        self,
        number: Id,
        kind: str,
        settle: Settle,
        *,
        answers: int = 1,
        until: Callable[[Any], bool] | None = None,
        is_own: bool = False,
    ) -> None:
        self.number = number
        self.kind = kind
        self.settle = settle
        self.is_own = is_own
        self.sent_at_s = 0.0
        self._answers = answers
        self._until = until
        self._replies: list[Reply] = []

    def add(self, reply: Reply) -> bool:
        """Take a reply; tell whether it was the last."""
        self._replies.append(reply)
        if reply.error is not None:
            return True
        if self._until is not None:
            return self._until(reply.value)
        return len(self._replies) >= self._answers

    def finish(self) -> None:
        """Settle with what came."""
        self.settle(self._replies)


class Matcher:
    """The requests of one connection that wait, oldest first.

    Attributes:
        echoes: the gateway sends ids back.
        latency_s: time of the last reply, None before any.
    """

    def __init__(self) -> None:
        self.echoes = False
        self.latency_s: float | None = None
        self._waiting: dict[Id, Pending] = {}

    def __contains__(self, number: object) -> bool:
        """Tell whether an id is taken."""
        return number in self._waiting

    def sent(self, pending: Pending, now_s: float) -> None:
        """Note that a request is on its way."""
        pending.sent_at_s = now_s
        self._waiting[pending.number] = pending

    def take(self, reply: Reply, now_s: float) -> bool:
        """Give a reply to its request, and settle that; False when it answers none."""
        pending = self._find(reply)
        if pending is None:
            return False
        self.latency_s = now_s - pending.sent_at_s
        if pending.add(reply):
            del self._waiting[pending.number]
            pending.finish()
        return True

    def _find(self, reply: Reply) -> Pending | None:
        if reply.number is not None:
            self.echoes = True
            return self._waiting.get(reply.number)
        if self.echoes:
            return None
        for pending in self._waiting.values():
            if reply.error is not None or ANSWERS.get(pending.kind) == reply.message:
                return pending
        return None

    def oldest_own_s(self) -> float | None:
        """Return when the oldest of the client's own requests was sent; None without any."""
        return next((one.sent_at_s for one in self._waiting.values() if one.is_own), None)

    def fail_all(self, error: Exception) -> None:
        """Settle everything with an error, at once: nothing will be answered any more."""
        waiting, self._waiting = self._waiting, {}
        self.echoes = False
        for pending in waiting.values():
            pending.settle(error)
