"""A client logs in by a request: with a token, in one of two ways, as often as it likes.

Pure. A token that is refused changes nothing; who is refused too often is closed. A token may have
to be asked about, so what is done here may wait, in the greenlet of this one client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Iterable

from rango_gevent.auth.identity import Identity
from rango_gevent.auth.tokens import MALFORMED, NO_UID, UNAVAILABLE
from rango_gevent.auth.ways import bearer
from rango_gevent.delivery.outlet import Part
from rango_gevent.errors import FatalClientError, TokenError
from rango_gevent.protocol import close, codes, messages
from rango_gevent.protocol.messages import Id, Request

if TYPE_CHECKING:
    from rango_gevent.delivery.session import Session

_NO_END_S = float(1 << 53)  # beyond it JavaScript's whole numbers are none


def authenticate(session: Session, request: Request) -> Iterable[Part]:
    """Take a token, renew, or change the user."""
    if not session.desk.by_event:
        raise messages.no_such_event()
    try:
        identity = identity_of(session, request.token)
    except TokenError as error:
        return refused(session, error, not_authenticated(session, error, request.id))
    reply = messages.authenticated(identity.uid or "", ttl_s(session, identity), request.id)
    return admitted(session, identity, reply)


def authenticate_ranger(session: Session, request: Request) -> Iterable[Part]:
    """Do the same in Ranger's words."""
    if not session.desk.by_jwt:
        raise messages.no_such_event()
    try:
        identity = identity_of(session, bearer(request.token) or "")
    except TokenError as error:
        code = session.code(codes.OF_TOKENS[error.reason])
        return refused(session, error, messages.ranger_not_authenticated(code, request.id))
    return admitted(session, identity, messages.ranger_authenticated(request.id))


def not_authenticated(session: Session, error: TokenError, id: Id = None) -> bytes:
    """Word for a client why its token was refused."""
    code = session.code(codes.OF_TOKENS[error.reason])
    return messages.not_authenticated(error.told, code, id)


def identity_of(session: Session, token: str) -> Identity:
    """Return who a token belongs to.

    Raises:
        TokenError: it is refused, or names no user.
    """
    authenticator = session.desk.authenticator
    if not token or authenticator is None:
        raise TokenError("no token was given", MALFORMED)
    identity = authenticator.identify(token)
    if identity.uid is None:
        raise TokenError("the token names no user", NO_UID)
    return identity


def ttl_s(session: Session, identity: Identity) -> int | None:
    """Return the seconds that a token is good for; None for without end, or nearly."""
    expires_at_s = identity.expires_at_s
    if expires_at_s is None or expires_at_s > _NO_END_S:
        return None
    return max(0, int(expires_at_s - session.desk.now()))


def refused(session: Session, error: TokenError, reply: bytes) -> Iterable[Part]:
    """Answer a bad token; what is not the client's fault is not held against it.

    Raises:
        FatalClientError: too many of this client were refused.
    """
    if error.reason == UNAVAILABLE:
        return (reply,)
    session.bad_tokens += 1
    if session.bad_tokens < session.desk.limits.bad_tokens:
        return (reply,)
    session.outlet.push(reply)
    raise FatalClientError(close.UNAUTHENTICATED._replace(text="authentication failed too often"))


def admitted(session: Session, identity: Identity, reply: bytes) -> list[Part]:
    """Let a client be whom its token names; return the reply and what follows from it.

    Raises:
        RequestError: the user has all the connections that one may have.
    """
    if session.ended:
        return []  # it left while its token was asked about
    session.bad_tokens = 0
    session.in_band = True
    return [reply, *session.become(identity)]
