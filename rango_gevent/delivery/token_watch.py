"""When tokens end: connections whose token ends soon, by the second in which that is.

The heartbeat's wheel looks at each connection once a round; one whose token ends before the next
look is put under the second in which something is due, and every tick takes the seconds that are
over. So a connection with a token for an hour, or with none, costs one comparison a round.

Times here are Unix times, as in tokens; when the clock is set, ends follow it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Callable, NamedTuple

from rango_gevent.auth.identity import ANONYMOUS, Identity
from rango_gevent.protocol import close, messages
from rango_gevent.turns import give_way

if TYPE_CHECKING:
    from rango_gevent.delivery.connection import Connection

CLOSE = "close"
DOWNGRADE = "downgrade"
IGNORE = "ignore"
POLICIES = (CLOSE, DOWNGRADE, IGNORE)

_NOTICE_S = 30.0
_ENDS_BETWEEN_YIELDS = 32

_EXPIRED = close.UNAUTHENTICATED._replace(text="authentication expired")
_MISSING = close.UNAUTHENTICATED._replace(text="authentication missing")


class ExpiryRules(NamedTuple):
    """What follows when a connection's token ends.

    Attributes:
        policy: one of `POLICIES`.
        grace_s: for how long one goes on with an expired token.
    """

    policy: str = CLOSE
    grace_s: float = 25.0


class TokenWatch:
    """The connections whose tokens end soon.

    Args:
        now: the Unix time in seconds.
        round_s: seconds from one look at a connection to the next.

    Attributes:
        rules: what follows when one ends.
        ended: tokens that ended, by policy.
    """

    def __init__(self, now: Callable[[], float], round_s: float) -> None:
        self._now = now
        self._soon_s = round_s + _NOTICE_S + 1
        self._due: dict[int, dict[Connection, None]] = {}
        self.rules = ExpiryRules()
        self.ended: Counter[str] = Counter()

    def __len__(self) -> int:
        """Return how many are waited for."""
        return sum(map(len, self._due.values()))

    def look(self, connection: Connection) -> None:
        """Wait for the end of a connection's token if it comes before the next look."""
        # hot path: ten thousand a round, nearly all of them have no token or a long one
        identity = connection.session.identity
        if identity.expires_at_s is None or connection.due_s:
            return
        end_s = self._end_s(identity)
        if end_s is not None and end_s - self._now() < self._soon_s:
            self._wait(connection, end_s - _NOTICE_S)

    def look_anew(self, connection: Connection) -> None:
        """Do the same when it has another token than before."""
        self.forget(connection)
        self.look(connection)

    def forget(self, connection: Connection) -> None:
        """Wait for its end no more; no error when nobody does."""
        if connection.due_s:
            waiting = self._due.get(connection.due_s)
            if waiting is not None:
                waiting.pop(connection, None)
            connection.due_s = 0

    def tick(self) -> None:
        """Do what is due; called once a second."""
        now_s = self._now()
        for second in [second for second in self._due if second <= now_s]:
            for count, connection in enumerate(self._due.pop(second), 1):
                if connection.due_s == second:  # else it has left or renewed meanwhile
                    connection.due_s = 0
                    self._act(connection, now_s)
                if count % _ENDS_BETWEEN_YIELDS == 0:
                    give_way()

    def _end_s(self, identity: Identity) -> float | None:
        """Return when something follows for an identity; None for never."""
        if identity.expires_at_s is None:
            return None
        if identity.is_anonymous:
            return identity.expires_at_s  # it may be here for so long without a token
        if self.rules.policy == IGNORE:
            return None
        return identity.expires_at_s + self.rules.grace_s

    def _wait(self, connection: Connection, at_s: float) -> None:
        second = int(max(at_s, self._now())) + 1
        connection.due_s = second
        self._due.setdefault(second, {})[connection] = None

    def _act(self, connection: Connection, now_s: float) -> None:
        end_s = self._end_s(connection.session.identity)
        if end_s is None or not connection.open:
            return
        left_s = end_s - now_s
        if left_s <= 0:
            self._end(connection)
        elif left_s > _NOTICE_S:
            self.look(connection)
        else:
            self._warn(connection, left_s)
            self._wait(connection, end_s)

    @staticmethod
    def _warn(connection: Connection, left_s: float) -> None:
        session = connection.session
        if session.wants_warnings and not session.identity.is_anonymous:
            connection.push(messages.auth_expiring(round(left_s)))

    def _end(self, connection: Connection) -> None:
        session = connection.session
        if session.identity.is_anonymous:
            connection.close(_MISSING)
            return
        self.ended[self.rules.policy] += 1
        if self.rules.policy == DOWNGRADE:
            connection.answer(session.become(ANONYMOUS))
        else:
            connection.close(_EXPIRED)
