"""A session of the dialect: what a client is answered. No socket here, as in all sessions.

Requests are answered in their order, but for queries that a backend is asked about: replies to
later requests overtake theirs. `server.auth` and `server.sign` are not overtaken: what follows
waits, since it may depend on them.
"""

from __future__ import annotations

from typing import Any, Callable, Collection, Iterable, Iterator, Protocol

from rango_gevent.auth.identity import Identity
from rango_gevent.auth.tokens import NO_UID, UNAVAILABLE
from rango_gevent.delivery import login
from rango_gevent.delivery.outlet import Part
from rango_gevent.delivery.session import PLAIN_MANNER, Desk, Manner, Session
from rango_gevent.errors import RequestError, TokenError
from rango_gevent.protocol.messages import Id
from rango_gevent.viabtc import methods, views, words
from rango_gevent.viabtc.board import Board
from rango_gevent.viabtc.methods import DepthForms
from rango_gevent.viabtc.queries import Held
from rango_gevent.viabtc.views import Spec
from rango_gevent.viabtc.words import Fault, Request, Wrong


class Backend(Protocol):
    """Who is asked about what the gateway does not hold."""

    def knows(self, method: str) -> bool:
        """Tell whether somebody answers a method."""

    def ask(self, method: str, params: list[Any], uid: str | None) -> bytes:
        """Return the result as JSON; may wait.

        Raises:
            Wrong: it is an error.
        """


class Hall:
    """What all sessions of the dialect share.

    Args:
        board: what was published.
        forms: which views of books there may be.
        backend: who is asked about the rest.
        sign: tells whose a signature is; may wait. None: nobody knows.
        spawn: runs something that may wait.
        now: monotonic time in seconds.
        most_pending: queries of one client that a backend may be asked about at once.
    """

    def __init__(
        self,
        board: Board,
        forms: DepthForms,
        backend: Backend,
        *,
        sign: Callable[[methods.Signed], Identity] | None,
        spawn: Callable[..., object],
        now: Callable[[], float],
        most_pending: int,
    ) -> None:
        self.board = board
        self.held = Held(board, forms)
        self.backend = backend
        self.sign = sign
        self.spawn = spawn
        self.now = now
        self.most_pending = most_pending
        # of one client's views of books; but one of each form fits
        self.most_levels = max(board.limits.depth_levels // _SHARE, 2 * max(forms.limits))
        self.specs: dict[str, Callable[[list[Any], Any, str], list[Spec]]] = {
            **{family: methods.markets(family) for family in _LISTS},
            views.ASSET: methods.assets,
            views.KLINE: methods.klines,
            views.DEPTH: methods.depths(forms),
        }


_SHARE = 10  # one client may have this part of what there is for all

_MEMBERS = 3  # of the largest entry of a list: market, limit, merge

_LISTS = (views.PRICE, views.STATE, views.TODAY, views.DEALS, views.ORDER)


class ViabtcSession(Session):
    """One client of the dialect."""

    __slots__ = ("_hall", "_pending")

    def __init__(
        self,
        desk: Desk,
        hall: Hall,
        identity: Identity,
        manner: Manner = PLAIN_MANNER,
        *,
        now_s: float,
    ) -> None:
        super().__init__(desk, identity, PLAIN_MANNER, now_s=now_s)
        self._hall = hall
        self._pending = 0

    @property
    def wants_warnings(self) -> bool:
        """Tell that nothing comes before the end of a token: there are no words for it."""
        return False

    # -- in other words than the plain protocol's -----------------------------------------

    def admit(self, frames: int, now_s: float) -> bytes | None:
        """Take tokens for frames, as the plain protocol does; the error is worded here."""
        refused = super().admit(frames, now_s)
        return words.error(words.UNAVAILABLE, None) if refused else refused

    def error(self, error: RequestError, id: Id = None) -> bytes:
        """Word an error."""
        return words.error(words.INVALID, None)

    def not_authenticated(self, error: TokenError) -> bytes:
        """Word why a token was refused that came with the handshake."""
        return words.error(_fault_of(error), None)

    def subscribe(
        self, names: tuple[str, ...], id: Id = None, since: str | None = None
    ) -> list[Part]:
        """Subscribe nothing: this protocol has no names in the query and no first frame."""
        return []

    def become(self, identity: Identity) -> list[Part]:
        """Change who it is; what was the former user's is given up without a word."""
        super().become(identity)
        return []

    def _keeps(self, name: str, identity: Identity) -> bool:
        return name.partition(":")[0] not in views.PRIVATE or identity.uid == self.identity.uid

    # -- requests -----------------------------------------------------------------------

    def answer(self, message: bytes) -> Iterable[Part]:
        """Answer one request, whatever it is.

        Raises:
            FatalClientError: too many tokens of this client were refused.
        """
        requests = self.desk.requests
        try:
            request = words.parse(message)
            act = _ANSWERS.get(request.method)
            if act is None:
                raise Wrong(words.NO_METHOD, request.id)
            requests[request.method] += 1
        except Wrong as wrong:
            requests["error"] += 1
            return (words.error(wrong.fault, wrong.id),)
        try:
            return act(self, request)
        except Wrong as wrong:
            requests["error"] += 1
            return (words.error(wrong.fault, request.id),)

    def _ping(self, request: Request) -> Iterable[Part]:
        return (words.result("pong", request.id),)

    def _now(self, request: Request) -> Iterable[Part]:
        return (words.result(int(self.desk.now()), request.id),)

    # -- subscriptions ------------------------------------------------------------------

    def _subscribe_to(self, request: Request) -> Iterable[Part]:
        family = request.method.partition(".")[0]
        uid = self._user() if family in views.PRIVATE else ""
        if len(request.params) > _MEMBERS * self.desk.limits.names.max_names:
            raise Wrong(words.INVALID)  # without a look at each of them
        specs = self._hall.specs[family](request.params, self._hall.board.names, uid)
        return self._replace(family, specs, request.id)

    def _unsubscribe_from(self, request: Request) -> Iterable[Part]:
        family = request.method.partition(".")[0]
        if family in views.PRIVATE:
            self._user()
        return self._replace(family, [], request.id)

    def _user(self) -> str:
        if self.uid is None:
            raise Wrong(words.UNAUTHENTICATED)
        return self.uid

    def _replace(self, family: str, specs: list[Spec], id: int) -> Iterable[Part]:
        """Hold these of a family, and no others; nothing changes where that may not be."""
        wanted = {spec.address: spec for spec in specs}
        before = [name for name in self.streams if name.partition(":")[0] == family]
        self._check_room(len(wanted) - len(before), len(wanted.keys() - set(before)))
        if family == views.DEPTH:
            self._check_levels(wanted, before)
        self._give_up([name for name in before if name not in wanted])
        if self.ended:
            return ()  # lost while it was handed what it was due
        return self._subscribed(id, list(wanted.values()))

    def _subscribed(self, id: int, specs: list[Spec]) -> Iterator[Part]:
        """Subscribe one by one: what many show first may take long, and be more than is read."""
        yield words.success(id)
        for spec in specs:
            for first in self._join((spec,)):
                yield first
                self.outlet.pause()
                if self.ended:
                    return

    def _check_room(self, more: int, new: int) -> None:
        most = self.desk.limits.names.max_names
        if more > 0 and len(self.streams) + more > most:
            raise Wrong(words.INVALID)
        if new and not self._hall.board.deriver.has_room(max(0, more)):
            raise Wrong(words.UNAVAILABLE)

    def _check_levels(self, wanted: dict[str, Spec], before: list[str]) -> None:
        """Check that books may be shown so: each view is drawn, and its picture kept."""
        hall = self._hall
        if sum(spec.levels for spec in wanted.values()) > hall.most_levels:
            raise Wrong(words.INVALID)
        going = (self.streams[name] for name in before if name not in wanted)
        specs = [view.spec for view in going if isinstance(view, views.View)]
        if not hall.board.has_room(wanted.values(), specs):
            raise Wrong(words.UNAVAILABLE)

    def _join(self, specs: Collection[Spec]) -> list[Part]:
        """Subscribe; return what each shows first."""
        board = self._hall.board
        parts: list[Part] = []
        for spec in specs:
            view, first = board.open(spec)
            if first or spec.address not in self.streams:
                # held already and nothing shown: what waits is still theirs
                board.deriver.join(self, view)
            if first:
                parts.append(first)
        return parts

    def replay(self, names: tuple[str, ...], *, recovered: bool = False) -> list[Part] | None:
        """Show views of books afresh to a client that lagged."""
        self.desk.flush(self)
        if self.ended:
            return None
        held = (self.streams[name] for name in names if name in self.streams)
        return self._join([view.spec for view in held if isinstance(view, views.View)])

    # -- who it is ----------------------------------------------------------------------

    def _auth(self, request: Request) -> Iterable[Part]:
        token = methods.auth(request.params)
        authenticator = self.desk.authenticator
        if authenticator is None or not self.desk.by_event:
            raise Wrong(words.INTERNAL)
        return self._identify(lambda: authenticator.identify(token), request.id)

    def _sign(self, request: Request) -> Iterable[Part]:
        signed = methods.sign(request.params)
        sign = self._hall.sign
        if sign is None:
            raise Wrong(words.INTERNAL)
        return self._identify(lambda: sign(signed), request.id)

    def _identify(self, ask: Callable[[], Identity], id: int) -> Iterable[Part]:
        """Become who somebody says that it is; whoever says it may take a while."""
        try:
            identity = ask()
            if identity.uid is None:
                raise TokenError("the token names no user", NO_UID)
        except TokenError as error:
            return login.refused(self, error, words.error(_fault_of(error), id))
        if self.ended:
            return ()
        self.bad_tokens = 0
        try:
            self.become(identity)
        except RequestError:  # the user has all the connections that one may have
            raise Wrong(words.UNAVAILABLE) from None
        return (words.success(id),)

    # -- queries ------------------------------------------------------------------------

    def _query(self, request: Request) -> Iterable[Part]:
        """Answer a public query from what is held, else ask the backend."""
        hall, method, params = self._hall, request.method, request.params
        result = hall.held.answer(method, params)
        if result is None and not hall.backend.knows(method):
            result = hall.held.partial(method, params)
        if result is not None:
            return (words.result(result, request.id),)
        market = methods.market(params, hall.board.names)
        if hall.backend.knows(method):
            return self._ask(request, [market, *params[1:]], None)
        raise Wrong(words.INTERNAL if hall.held.knows(market) else words.INVALID)

    def _user_query(self, request: Request) -> Iterable[Part]:
        uid = self._user()
        params = methods.user_query(request.method, request.params, self._hall.board.names)
        if not self._hall.backend.knows(request.method):
            raise Wrong(words.INTERNAL)
        return self._ask(request, params, uid)

    def _ask(self, request: Request, params: list[Any], uid: str | None) -> Iterable[Part]:
        if self._pending >= self._hall.most_pending:
            raise Wrong(words.UNAVAILABLE)
        self._pending += 1
        self._hall.spawn(self._wait_for, request, params, uid)
        return ()

    def _wait_for(self, request: Request, params: list[Any], uid: str | None) -> None:
        """Ask, in a greenlet of its own, and send the reply when it is there."""
        hall = self._hall
        try:
            result = hall.backend.ask(request.method, params, uid)
            self.outlet.pause()
            if uid is not None and uid != self.uid:
                raise Wrong(words.UNAUTHENTICATED)  # it is somebody else's client by now
            reply = words.raw_result(result, request.id)
        except Wrong as wrong:
            reply = words.error(wrong.fault, request.id)
        finally:
            self._pending -= 1
        self.charge(reply, hall.now())
        self.outlet.push(reply)


def _fault_of(error: TokenError) -> Fault:
    if error.reason != UNAVAILABLE:
        return Fault(words.REFUSED.code, error.told)
    return words.TIMEOUT if error.is_late else words.INTERNAL


_ANSWERS: dict[str, Callable[[ViabtcSession, Request], Iterable[Part]]] = {
    "server.ping": ViabtcSession._ping,
    "server.time": ViabtcSession._now,
    "server.auth": ViabtcSession._auth,
    "server.sign": ViabtcSession._sign,
    **dict.fromkeys(methods.PUBLIC_QUERIES, ViabtcSession._query),
    **dict.fromkeys(methods.USER_QUERIES, ViabtcSession._user_query),
    **{
        method: ViabtcSession._subscribe_to
        if method.endswith(".subscribe")
        else ViabtcSession._unsubscribe_from
        for method in methods.SUBSCRIPTIONS
    },
}
