"""An administrator's connection: it logs in in band, asks, and is told.

It is an ordinary connection with another session: the same limits on what it sends and on what
waits for it, the same heartbeat, the same watch on the end of its token. Before the login, and
without the role, it can do nothing and is closed within seconds; no cookie, no header and no
query counts.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Iterable, cast

import gevent

from rango_gevent.admin import requests
from rango_gevent.admin.requests import Wanted, read_request
from rango_gevent.auth.identity import Identity
from rango_gevent.auth.tokens import EXPIRED
from rango_gevent.delivery import login
from rango_gevent.delivery.outlet import Part
from rango_gevent.delivery.session import Desk, Manner, Session
from rango_gevent.errors import FatalClientError, RequestError, TokenError
from rango_gevent.protocol import close, codes, frames, messages
from rango_gevent.protocol.messages import Id

if TYPE_CHECKING:
    from rango_gevent.admin.office import Office
    from rango_gevent.delivery.connection import Connection

_NOT_ADMIN = close.REVOKED._replace(text="this role is no administrator's")
_EXPIRED = close.UNAUTHENTICATED._replace(text="authentication expired")
_MOST_WAITING = 256 * 1024  # bytes; of a tail no more is put behind them


class AdminSession(Session):
    """One administrator, or somebody who wants to be.

    Attributes:
        tail: the greenlet that tells of a connection; None for none.
        missed: records that were left out since this connection does not keep up.
    """

    __slots__ = ("_office", "missed", "tail")

    def __init__(
        self, office: Office, desk: Desk, identity: Identity, manner: Manner, *, now_s: float
    ) -> None:
        super().__init__(desk, identity, manner._replace(numbered=True), now_s=now_s)
        self._office = office
        self.tail: gevent.Greenlet[..., None] | None = None
        self.missed = 0

    @property
    def connection(self) -> Connection:
        """Return what it speaks through; `delivery.outlet.GONE` when that is closed."""
        return cast("Connection", self.outlet)

    def subscribe(
        self, names: tuple[str, ...], id: Id = None, since: str | None = None
    ) -> list[Part]:
        """Say nothing: nothing is subscribed here."""
        return []

    # -- requests -----------------------------------------------------------------------

    def answer(self, message: bytes) -> Iterable[Part]:
        """Answer one request.

        Raises:
            FatalClientError: too many tokens were refused, or one of another role was given.
        """
        wanted: Wanted | None = None
        try:
            wanted = read_request(message.decode("utf-8", "replace"))
            if wanted is None:
                return ()
            if wanted.event == requests.PING:
                return (messages.PONG_FRAME,)
            self._office.requests[wanted.event] += 1
            if wanted.event == requests.AUTH:
                return self._log_in(wanted)
            self.check()
            return (success(wanted.event, self._office.do(self, wanted), wanted.id),)
        except RequestError as error:
            self._office.requests["error"] += 1
            return (self.error(error, wanted.id if wanted else error.id),)

    def check(self) -> None:
        """Check that it is an administrator now.

        Raises:
            RequestError: it is not, or its token has expired.
        """
        if not self._office.has_role(self.identity):
            raise RequestError("Log in first, with an administrator's token", codes.ROLE)
        if self._has_expired():
            raise RequestError("authentication failed: expired", codes.OF_TOKENS[EXPIRED])

    def _has_expired(self) -> bool:
        expires_at_s = self.identity.expires_at_s
        return expires_at_s is not None and expires_at_s <= self.desk.now()

    @property
    def is_here(self) -> bool:
        """Tell whether it is connected, and an administrator now."""
        return not self.ended and self._office.has_role(self.identity) and not self._has_expired()

    # -- who it is ----------------------------------------------------------------------

    def _log_in(self, wanted: Wanted) -> Iterable[Part]:
        """Take a token for the first time or to renew; the role is looked at each time."""
        try:
            identity = login.identity_of(self, wanted.token)
        except TokenError as error:
            reply = login.not_authenticated(self, error, wanted.id)
            return login.refused(self, error, reply)
        if not self._office.has_role(identity):
            self._office.audit(self, "login refused: role %r, uid %r", identity.role, identity.uid)
            refusal = RequestError("This role is no administrator's", codes.ROLE)
            self.outlet.push(self.error(refusal, wanted.id))
            raise FatalClientError(_NOT_ADMIN)
        if self.ended:
            return []
        is_new, before = self not in self._office.admins, self.uid
        self._office.admit(self)
        reply = messages.authenticated(identity.uid or "", login.ttl_s(self, identity), wanted.id)
        try:
            parts = login.admitted(self, identity, reply)
        except RequestError:
            if is_new:
                self._office.admins.pop(self, None)
            raise
        if is_new or identity.uid != before:
            self._office.audit(self, "logged in: role %r", identity.role)
        return parts

    def become(self, identity: Identity) -> list[Part]:
        """Change who it is; who is no administrator any more has to go."""
        parts = super().become(identity)
        if not self._office.has_role(identity):
            self.connection.close(_EXPIRED)
        return parts

    # -- telling ------------------------------------------------------------------------

    def tell(self, notice: dict[str, Any]) -> bool:
        """Send a notice unless too much waits already; False: it is not left out but lost."""
        if self.connection.outbox_bytes > _MOST_WAITING:
            return False
        self.outlet.push(frames.text(dumped(notice)))
        return True

    def end_tail(self) -> None:
        """Follow no connection any more."""
        tail, self.tail = self.tail, None
        if tail is not None and tail is not gevent.getcurrent():
            tail.kill(block=False)


def success(message: str, content: dict[str, Any], id: Id) -> bytes:
    """Encode a reply as a frame."""
    reply: dict[str, Any] = {"success": {"message": message, **content}}
    if id is not None:
        reply["id"] = id
    return frames.text(dumped(reply))


def dumped(value: dict[str, Any]) -> bytes:
    """Encode as JSON in ASCII: names and uids are whatever somebody made up."""
    return json.dumps(value, separators=(",", ":")).encode()
