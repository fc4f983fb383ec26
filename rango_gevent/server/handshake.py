"""Everything that is decided about a connection before its 101 response.

One function takes the request and gives either an `Accepted` or raises `Refused`; the
order of checks is: is it a WebSocket request at all (RFC 6455 section 4.2.1), may its
origin connect (403), is its token good (401 where one is needed), are its streams readable (400).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Collection, Mapping, NamedTuple, Sequence

from websockets.exceptions import InvalidHeader
from websockets.headers import parse_extension

from rango_gevent.auth.authenticator import Authenticator
from rango_gevent.auth.identity import ANONYMOUS, Identity
from rango_gevent.auth.origin import OriginPolicy
from rango_gevent.auth.tokens import UNAVAILABLE
from rango_gevent.auth.ways import Ways, chosen, protocols
from rango_gevent.delivery.session import MANNERS, Manner
from rango_gevent.errors import Refused, RequestError, TokenError
from rango_gevent.protocol import codes, messages, refusals
from rango_gevent.protocol.messages import NameLimits
from rango_gevent.server.paths import ADMIN_ROUTE, DIALECTS, ROUTES, Route, route

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
_VERSION = "13"
_SHOWN_CHARS = 80

_RESPONSE = (
    b"HTTP/1.1 101 Switching Protocols\r\n"
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n%s%s\r\n"
)
_PROTOCOL = b"Sec-WebSocket-Protocol: %s\r\n"
_DEFLATE = (
    b"Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; "
    b"client_no_context_takeover%s\r\n"
)
_WINDOW = "server_max_window_bits"
_DEFLATE_VALUES: dict[str, tuple[str | None, ...]] = {
    "server_no_context_takeover": (None,),
    "client_no_context_takeover": (None,),
    _WINDOW: ("15",),
    "client_max_window_bits": (None, *map(str, range(8, 16))),
}


class Accepted(NamedTuple):
    """A handshake that may go on: who it is, what it wants, and the 101 response.

    Behind that is why it is not who its token says, where the client is told, what is spoken, and
    where it says that it stands.
    """

    identity: Identity
    manner: Manner
    deflate: bool
    names: tuple[str, ...]
    response: bytes
    refused: TokenError | None = None
    route: Route = ROUTES["/public"]
    since: str | None = None


class DoorRules(NamedTuple):
    """How tokens may come.

    Attributes:
        ways: those that are open.
        private_grace_s: for how long a path that needs a token takes somebody without; 0: never.
        admin_login_s: for how long the administrators' path takes somebody; 0: there is none.
    """

    ways: Ways = Ways()
    private_grace_s: float = 0.0
    admin_login_s: float = 0.0


def wants_upgrade(environ: Mapping[str, object]) -> bool:
    """Tell whether a request asks for a WebSocket, well or badly."""
    return "websocket" in _tokens(environ, "HTTP_UPGRADE") or (
        "HTTP_SEC_WEBSOCKET_KEY" in environ or "HTTP_SEC_WEBSOCKET_VERSION" in environ
    )


class Handshake:
    """The rules of one gateway's handshake.

    Args:
        authenticator: tells who a token belongs to.
        origins: checks the Origin header.
        limits: bounds on the names in the query.
        rules: how tokens may come.
        compression: offer permessage-deflate to clients that ask for it.
        dialects: protocols that are spoken.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        origins: OriginPolicy,
        limits: NameLimits,
        rules: DoorRules | None = None,
        *,
        compression: bool = False,
        dialects: Collection[str] = DIALECTS,
    ) -> None:
        self._authenticator = authenticator
        self._origins = origins
        self._limits = limits
        self._rules = rules or DoorRules()
        self._compression = compression
        self._dialects = dialects

    def decide(self, environ: Mapping[str, object]) -> Accepted:
        """Accept a handshake or say why not.

        Args:
            environ: WSGI environment of the request.

        Raises:
            Refused: with the status and a line for the response body.
        """
        key = check_upgrade(environ)
        path = _text(environ, "PATH_INFO") or ""
        found = route(path, self._dialects, has_admins=bool(self._rules.admin_login_s))
        origin = _text(environ, "HTTP_ORIGIN")
        origins = self._origins.strict if found is ADMIN_ROUTE else self._origins
        if not origins.allows(origin, _text(environ, "HTTP_HOST")):
            raise Refused(refusals.ORIGIN, cause=ascii((origin or "")[:_SHOWN_CHARS]))
        if found is ADMIN_ROUTE:
            return self._accept_admin(environ, key)
        identity, refused = self._identify(environ, found, self._origins.checks(origin))
        query = _text(environ, "QUERY_STRING") or ""
        try:
            names = messages.names_in_query(query, self._limits)
        except RequestError as error:
            raise Refused(refusals.BAD_STREAMS, str(error)) from None
        protocol = ""
        if "HTTP_SEC_WEBSOCKET_PROTOCOL" in environ:
            protocol = chosen(protocols(environ), codes.SUBPROTOCOL)
        deflate = b""
        if self._compression:
            deflate = accept_deflate(_text(environ, "HTTP_SEC_WEBSOCKET_EXTENSIONS"))
        asked = query.split("&")
        is_numbered, resumes = protocol == codes.SUBPROTOCOL, "resume=1" in asked
        return Accepted(
            identity,
            MANNERS["notices=1" in asked, is_numbered, resumes],
            bool(deflate),
            names,
            _response(key, protocol, deflate),
            refused,
            found,
            since=messages.since_in_query(query) if resumes else None,
        )

    def _accept_admin(self, environ: Mapping[str, object], key: bytes) -> Accepted:
        """Take somebody who has to log in in band; a token that comes otherwise is not looked at.

        Nothing is compressed: what an administrator sees is chosen by others in part.
        """
        protocol = chosen(protocols(environ), codes.SUBPROTOCOL)
        stranger = self._authenticator.anonymous_for(self._rules.admin_login_s)
        response = _response(key, protocol, b"")
        manner = MANNERS[False, True, False]
        return Accepted(stranger, manner, False, (), response, route=ADMIN_ROUTE)

    def _identify(
        self, environ: Mapping[str, object], found: Route, is_checked: bool
    ) -> tuple[Identity, TokenError | None]:
        """Return who it is, and why it is not who its token says, where it is told.

        Not every path takes somebody without a token, or only for a while.
        """
        needs_token = found.needs_token
        offer = self._rules.ways.offer(environ, is_checked=is_checked)
        if offer is None:
            if needs_token and not self._rules.private_grace_s:
                raise Refused(refusals.NO_TOKEN)
            return self._stranger(needs_token), None
        try:
            return self._authenticator.identify(offer.token), None
        except TokenError as error:
            stays = self._rules.private_grace_s and offer.way.is_told
            if needs_token and not stays:
                raise _not_valid(error) from None
            return self._stranger(needs_token), error if offer.way.is_told else None

    def _stranger(self, needs_token: bool) -> Identity:
        if not needs_token:
            return ANONYMOUS
        return self._authenticator.anonymous_for(self._rules.private_grace_s)


def _not_valid(error: TokenError) -> Refused:
    if error.reason == UNAVAILABLE:
        return Refused(refusals.NO_ANSWER)
    return Refused(refusals.BAD_TOKEN, f"The token is not valid: {error}.", error.reason)


def _response(key: bytes, protocol: str, deflate: bytes) -> bytes:
    header = _PROTOCOL % protocol.encode("ascii") if protocol else b""
    return _RESPONSE % (accept_key(key), header, deflate)


def check_upgrade(environ: Mapping[str, object]) -> bytes:
    """Check the form of a handshake and return its key (RFC 6455 section 4.2.1).

    Raises:
        Refused: 400, or 426 for a version other than 13.
    """
    if environ.get("REQUEST_METHOD") != "GET":
        raise _bad("A WebSocket handshake is a GET.")
    if environ.get("SERVER_PROTOCOL") != "HTTP/1.1":
        raise _bad("A WebSocket handshake needs HTTP/1.1.")
    if environ.get("CONTENT_LENGTH", "0") != "0" or "HTTP_TRANSFER_ENCODING" in environ:
        raise _bad("A WebSocket handshake has no body.")
    if "websocket" not in _tokens(environ, "HTTP_UPGRADE"):
        raise _bad("The header Upgrade: websocket is missing.")
    if "upgrade" not in _tokens(environ, "HTTP_CONNECTION"):
        raise _bad("The header Connection: Upgrade is missing.")
    if _text(environ, "HTTP_SEC_WEBSOCKET_VERSION") != _VERSION:
        raise Refused(refusals.BAD_VERSION)
    return _check_key(_text(environ, "HTTP_SEC_WEBSOCKET_KEY") or "")


def _check_key(key: str) -> bytes:
    try:
        raw = base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 16:
        raise _bad("Sec-WebSocket-Key must be 16 bytes in base64.")
    return key.encode("ascii")


def accept_key(key: bytes) -> bytes:
    """Return Sec-WebSocket-Accept for a key (RFC 6455 section 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def accept_deflate(header: str | None) -> bytes:
    """Return the response header that accepts permessage-deflate, empty when no offer suits.

    Frames are compressed once for all clients, with the full window of 32 KiB, so an offer
    that wants a smaller one from the server is passed over (RFC 7692 section 7.1.2.1).
    """
    if not header:
        return b""
    try:
        offers = parse_extension(header)
    except InvalidHeader:
        return b""
    for name, parameters in offers:
        if name == "permessage-deflate" and _suits(parameters):
            return _DEFLATE % (b"; server_max_window_bits=15" * (_WINDOW in dict(parameters)))
    return b""


def _suits(parameters: Sequence[tuple[str, str | None]]) -> bool:
    """Tell whether an offer's parameters are valid and leave us the full window."""
    return len(dict(parameters)) == len(parameters) and all(
        value in _DEFLATE_VALUES.get(key, ()) for key, value in parameters
    )


def _text(environ: Mapping[str, object], name: str) -> str | None:
    value = environ.get(name)
    return value if isinstance(value, str) else None


def _tokens(environ: Mapping[str, object], name: str) -> set[str]:
    return {token.strip().lower() for token in (_text(environ, name) or "").split(",")}


def _bad(text: str) -> Refused:
    return Refused(refusals.BAD_HANDSHAKE, text)
