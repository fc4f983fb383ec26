"""A session: who a client is, what it holds, and what it is answered.

Pure: requests come in as text, and what is to be sent goes out as frames and segments. The
connection under it owns the socket; `Desk` is what all sessions share.
"""

from __future__ import annotations

from collections import Counter
from itertools import product
from typing import TYPE_CHECKING, Callable, Collection, Iterable, NamedTuple

from rango_gevent.auth.authenticator import Authenticator
from rango_gevent.auth.identity import Identity
from rango_gevent.auth.ways import MESSAGE, RANGER
from rango_gevent.delivery import login, resuming
from rango_gevent.delivery.outlet import Outlet, Part
from rango_gevent.errors import FatalClientError, RequestError, TokenError
from rango_gevent.hub.hub import Hub
from rango_gevent.model import Segment
from rango_gevent.protocol import close, codes, messages, routing
from rango_gevent.protocol.messages import Id, NameLimits, Request

if TYPE_CHECKING:
    from rango_gevent.hub.stream import Stream

_REPLY_BURST_S = 1.0  # so much of a client's allowance of reply bytes may be used at once


class SessionLimits(NamedTuple):
    """Bounds on what one client asks for.

    Attributes:
        requests_per_s: frames that it may send a second in the long run.
        requests_burst: frames that it may send at once.
        reply_bytes_per_s: bytes of replies and replays a second in the long run.
        names: bounds on the streams that it holds.
        bad_tokens: tokens that may be refused one after another before it is closed.
        replay_events: that may be replayed to one who comes back.
        replay_bytes: of these.
    """

    requests_per_s: float
    requests_burst: int
    reply_bytes_per_s: float
    names: NameLimits
    bad_tokens: int = 5
    replay_events: int = 10_000
    replay_bytes: int = 8 << 20


class Mark(NamedTuple):
    """A point in the dispatcher's work: monotonic time, and its processor time until then."""

    at_s: float
    busy_s: float


NEVER = Mark(0.0, 0.0)


class Desk:
    """What all sessions share.

    Args:
        hub: where they subscribe.
        limits: bounds on each.
        flush: hands a session what it is due before its subscriptions change.
        now: the Unix time in seconds.
        move: counts a connection for another user than before; False: that one has its share.
        await_position: waits a while for an event that others have had already.

    Attributes:
        authenticator: tells who a token belongs to; None as long as nobody can authenticate.
        by_event: `messages.AUTH` is known.
        by_jwt: `messages.JWT`, Ranger's way, is known.
        requests: requests by action, or ``error``.
        resumes: those who came back, by why nothing was replayed, or ``recovered``.
        replayed: events that were.
    """

    def __init__(
        self,
        hub: Hub,
        limits: SessionLimits,
        flush: Callable[[Session], None],
        *,
        now: Callable[[], float],
        move: Callable[[str | None, str | None], bool],
        await_position: Callable[[int], None] = lambda position: None,
    ) -> None:
        self.hub = hub
        self.limits = limits
        self.flush = flush
        self.now = now
        self.move = move
        self.await_position = await_position
        self.authenticator: Authenticator | None = None
        self.by_event = self.by_jwt = False
        self.requests: Counter[str] = Counter()
        self.resumes: Counter[str] = Counter()
        self.replayed = 0

    def set_ways(self, authenticator: Authenticator, ways: Collection[str]) -> None:
        """Let clients authenticate by requests, in the ways that are among these."""
        self.authenticator = authenticator
        self.by_event = MESSAGE in ways
        self.by_jwt = RANGER in ways


class Manner(NamedTuple):
    """How a client wants to be spoken to, as its handshake says.

    Attributes:
        notices: it asked to be told of stale books, and of the end of its token.
        numbered: it speaks the subprotocol in which errors have numbers.
        resumes: it is told positions, and comes back by them.
    """

    notices: bool = False
    numbered: bool = False
    resumes: bool = False


# one object for all who want the same
MANNERS = {manner: Manner(*manner) for manner in product((False, True), repeat=3)}
PLAIN_MANNER = MANNERS[False, False, False]


class Session:
    """One client as the hub and the dispatcher know it.

    Attributes:
        desk: what it shares with all others.
        bad_tokens: how many were refused since one was taken.
        identity: who it is, until it authenticates anew.
        manner: how it wants to be spoken to.
        in_band: it authenticated by a request, and so is told of the end of its token.
        streams: names it holds; the hub's to change.
        outlet: the connection that takes what it is due.
        served: when the dispatcher served it last.
        ended: it may not subscribe any more.
        stands: it has all that was published, but for what waits; for who comes back by positions.
    """

    __slots__ = (
        "_held",
        "_paid_until_s",
        "_refilled_s",
        "bad_tokens",
        "desk",
        "ended",
        "identity",
        "in_band",
        "manner",
        "outlet",
        "served",
        "stands",
        "streams",
        "tokens",
    )

    outlet: Outlet

    def __init__(
        self, desk: Desk, identity: Identity, manner: Manner = PLAIN_MANNER, *, now_s: float
    ) -> None:
        self.identity = identity
        self.manner = manner
        self.in_band = False
        self.streams: dict[str, Stream] = {}
        self.served = NEVER
        self.ended = False
        self.stands = False
        self.tokens = desk.limits.requests_burst
        self.desk = desk
        self._refilled_s = now_s
        self._paid_until_s = 0.0
        self._held = b""
        self.bad_tokens = 0

    @property
    def uid(self) -> str | None:
        """Return the user, None for anonymous."""
        return self.identity.uid

    @property
    def role(self) -> str:
        """Return the role for prefixed streams, empty for none."""
        return self.identity.role

    @property
    def notices(self) -> bool:
        """Tell whether it asked to be told of stale books."""
        return self.manner.notices

    @property
    def wants_warnings(self) -> bool:
        """Tell whether it is told of the end of its token before that comes."""
        return self.in_band or self.manner.notices

    # -- rate ---------------------------------------------------------------------------

    def admit(self, frames: int, now_s: float) -> bytes | None:
        """Take tokens for frames of any kind; the bucket refills with time, without a timer.

        Returns:
            None when they may be answered; else an error to send, empty when it was sent already.

        Raises:
            FatalClientError: it is far over its rate.
        """
        limits = self.desk.limits
        if now_s > self._refilled_s:
            due = (now_s - self._refilled_s) * limits.requests_per_s
            refill = int(due + 1e-6)  # seconds are binary fractions: 2.9999999 are three
            self.tokens += refill
            self._refilled_s += refill / limits.requests_per_s  # part of a token counts on
            if self.tokens >= limits.requests_burst:  # but not in a full bucket
                self.tokens, self._refilled_s = limits.requests_burst, now_s
        had = self.tokens
        self.tokens -= frames
        if self.tokens >= 0 or self.ended:
            return None
        if self.tokens < -limits.requests_burst:
            raise FatalClientError(close.TOO_MANY_REQUESTS)
        self.desk.requests["over_rate"] += frames
        if had < 0:
            return b""
        text = f"Too many requests: the limit is {limits.requests_per_s:g}/s"
        return messages.error(text, self.code(codes.RATE))

    def charge(self, part: Part, now_s: float) -> None:
        """Put a reply or a replay on the account of the client who asked for it."""
        size = part.size if isinstance(part, Segment) else len(part)
        per_s = self.desk.limits.reply_bytes_per_s
        self._paid_until_s = max(self._paid_until_s, now_s - _REPLY_BURST_S) + size / per_s

    def owed_s(self, now_s: float) -> float:
        """Return for how long no more should be answered; 0 mostly."""
        return max(0.0, self._paid_until_s - now_s)

    # -- requests -----------------------------------------------------------------------

    def answer(self, message: bytes) -> Iterable[Part]:
        """Answer one request; a binary message is read like text, as Rango does.

        A token may have to be asked about: this is the one request that others overtake.

        Raises:
            FatalClientError: too many tokens of this client were refused.
        """
        desk = self.desk
        request: Request | None = None
        try:
            text = message.decode("utf-8", "replace")
            request = messages.parse_request(text, desk.limits.names)
            if request is None:
                return ()
            desk.requests[request.action] += 1
            return _ANSWERS[request.action](self, request)
        except RequestError as error:
            desk.requests["error"] += 1
            return (self.error(error, request.id if request else error.id),)

    def error(self, error: RequestError, id: Id = None) -> bytes:
        """Word an error for this client."""
        return messages.error(str(error), self.code(error.code), id)

    def not_authenticated(self, error: TokenError) -> bytes:
        """Word for this client why the token of its handshake was refused."""
        return login.not_authenticated(self, error)

    def code(self, code: int) -> int | None:
        """Return an error's number where this client knows numbers."""
        return code if self.manner.numbered else None

    def _pong(self, request: Request) -> Iterable[Part]:
        return (messages.PONG_FRAME,)

    def _list(self, request: Request) -> Iterable[Part]:
        return (messages.held(messages.LIST, self.desk.hub.names(self), request.id),)

    def _time(self, request: Request) -> Iterable[Part]:
        return (messages.time(self.desk.now(), request.id),)

    def _snapshot(self, request: Request) -> list[Part]:
        """Send held books afresh: what is not held, or no book, is passed over."""
        names = [n for n in request.names if n in self.streams and routing.is_book(n)]
        books = self.desk.hub.books
        parts = self.replay(tuple(names))
        if parts is None:
            return []
        replayed = [name for name in names if name in books and books[name].live]
        more = resuming.standing(self) if self.manner.resumes else None
        return [*parts, messages.held(messages.SNAPSHOT, replayed, request.id, more)]

    # -- subscriptions ------------------------------------------------------------------

    def _subscribe(self, request: Request) -> list[Part]:
        return self.subscribe(request.names, request.id, request.since)

    def subscribe(
        self, names: tuple[str, ...], id: Id = None, since: str | None = None
    ) -> list[Part]:
        """Subscribe: notices, replays, then the list of all names held.

        Args:
            names: of the streams.
            id: of the request.
            since: where one who comes back says that it stands.

        Raises:
            RequestError: with these the client would hold too many names.
        """
        limits, patterns = self.desk.limits.names, self.desk.hub.patterns
        if patterns is not None:
            names, self._held = patterns.expand(names), b""
        most = limits.max_names
        if len(self.streams) + len(names) > most and len(self.streams.keys() | set(names)) > most:
            raise messages.too_many_streams(limits)
        refusals: list[Part] = []
        if self.manner.numbered:
            refusals = [self._refusal(name, id) for name in names if not self._may_have(name)]
            names = tuple(filter(self._may_have, names))
        if self.manner.resumes:
            return refusals + resuming.subscribe(self, names, id, since)
        parts = self.replay(names)
        if parts is None:
            return []
        if names:
            self._held = b""
        return refusals + parts + [self._all_held(id)]

    def _all_held(self, id: Id) -> bytes:
        """Return the reply to a subscription; without an id it is made once."""
        if id is not None:
            return messages.subscribed(self.desk.hub.names(self), id)
        if not self._held:
            self._held = messages.subscribed(self.desk.hub.names(self))
        return self._held

    def _may_have(self, name: str) -> bool:
        return self.desk.hub.may_have(self, routing.kind_of(name), name)

    @staticmethod
    def _refusal(name: str, id: Id) -> bytes:
        """Word for a client that knows numbers what Rango gives a notice, or nothing, for."""
        is_private = routing.kind_of(name) == routing.PRIVATE
        code = codes.NO_UID if is_private else codes.ROLE
        return messages.error(f"cannot subscribe to {name}", code, id)

    def replay(self, names: tuple[str, ...], *, recovered: bool = False) -> list[Part] | None:
        """Subscribe, for the first time or afresh; return what is to be sent for it.

        Args:
            names: of the streams.
            recovered: it is given what it missed, and needs no book afresh.

        What the dispatcher still holds for the client goes to it first: a replay contains it.
        None: the client was lost by that, and nothing would unsubscribe it again.
        """
        self.desk.flush(self)
        if self.ended:
            return None
        parts = self.desk.hub.subscribe(self, names, recovered=recovered)
        return resuming.take_due(self) + parts if self.manner.resumes else parts

    def _unsubscribe(self, request: Request) -> list[Part]:
        patterns = self.desk.hub.patterns
        names = request.names
        self._give_up(names if patterns is None else patterns.narrow(names, self.streams))
        return [messages.unsubscribed(self.desk.hub.names(self), request.id)]

    def _give_up(self, names: Collection[str]) -> None:
        """Unsubscribe, and leave out what waits of these streams where it may be left out."""
        desk = self.desk
        desk.flush(self)
        self.outlet.forget({self.streams[name].address for name in names if name in self.streams})
        desk.hub.unsubscribe(self, names)
        self._held = b""

    # -- who it is ----------------------------------------------------------------------

    def become(self, identity: Identity) -> list[Part]:
        """Change who it is; streams that it may not have any more are given up and told.

        Raises:
            RequestError: the user has all the connections that one may have.
        """
        before = self.identity
        lost = [name for name in self.streams if not self._keeps(name, identity)]
        if identity.uid != before.uid and not self.desk.move(before.uid, identity.uid):
            raise RequestError("Too many connections of this user", codes.RATE)
        self.identity = identity  # at once: it may be lost, and counted out, while it is flushed
        self.outlet.renewed()
        if lost:
            self._give_up(lost)
        return [messages.unsubscribed(self.desk.hub.names(self))] if lost else []

    def _keeps(self, name: str, identity: Identity) -> bool:
        """Tell whether a held stream stays under another identity."""
        kind = routing.kind_of(name)
        if kind == routing.PREFIXED:
            return self.desk.hub.allows(routing.prefix_of(name), identity.role)
        return kind == routing.PUBLIC or identity.uid == self.identity.uid

    def rest(self) -> None:
        """Give up what is only worth keeping while requests follow one another."""
        self._held = b""


_ANSWERS: dict[str, Callable[[Session, Request], Iterable[Part]]] = {
    messages.PING: Session._pong,
    messages.SUBSCRIBE: Session._subscribe,
    messages.UNSUBSCRIBE: Session._unsubscribe,
    messages.LIST: Session._list,
    messages.TIME: Session._time,
    messages.SNAPSHOT: Session._snapshot,
    messages.AUTH: login.authenticate,
    messages.JWT: login.authenticate_ranger,
}
