"""The gateway's port: handshakes become clients, plain requests are the app's.

``GatewayServer`` and ``GatewayHandler`` take the places of gunicorn's pywsgi server and of
geventwebsocket's handler. That handler sends 101 first and asks later, which would lose every
401 and 403; here a handshake is decided once, then its bare socket goes to the registry.
"""

from __future__ import annotations

import logging
import socket
import time
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, Mapping

from rango_gevent.errors import Refused
from rango_gevent.protocol import refusals
from rango_gevent.server.exchange import Exchange, ExchangeServer
from rango_gevent.server.handshake import Accepted, wants_upgrade
from rango_gevent.server.http import PROBES, App
from rango_gevent.throttle import ThrottledLog

if TYPE_CHECKING:  # the gateway is built of this room
    from rango_gevent.gateway import Gateway

log = logging.getLogger(__name__)

_EVERY_S = 1.0  # metrics count each; a stranger who repeats himself fills no disk
_SHOWN_CHARS = 200
# While a process has no files left: for how long a request may still be under way, and how many
# that are for longer make room for each newcomer who found none.
_PATIENCE_S = 1.0
_CUT_AT_ONCE = 5


class GatewayServer(ExchangeServer):
    """A pywsgi server of an `App`."""

    application: App

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._under_way: dict[Any, float] = {}  # since when, the oldest first
        self.refusals = ThrottledLog(log, _EVERY_S)
        self.probed: dict[str, int] = {}  # the last answer by path

    @property
    def gateway(self) -> Gateway:
        """Return whose port this is."""
        return self.application.gateway

    @property
    def timeout_s(self) -> float:
        """Return RANGO_HANDSHAKE_TIMEOUT_S as it is now."""
        return self.gateway.settings.handshake_timeout_s

    def admits(self, sock: Any, peer: str) -> bool:
        """Count a handshake in, while there are files for it and its address has no more."""
        registry = self.gateway.registry
        refusal = registry.admission.begin_handshake(peer)
        if refusal is None:
            self._under_way[sock] = time.monotonic()
            return True
        registry.refused[refusal.word] += 1
        if refusal is refusals.TOO_MANY_FILES:
            self._make_room()
        return False

    def ended(self, sock: Any, peer: str) -> None:
        """Count it out."""
        self._under_way.pop(sock, None)
        self.gateway.registry.admission.end_handshake(peer)

    def _make_room(self) -> None:
        """Cut off a few who take longer than anybody needs, so that the next ones find a place."""
        latest_s = time.monotonic() - _PATIENCE_S
        for sock, since_s in list(islice(self._under_way.items(), _CUT_AT_ONCE)):
            if since_s > latest_s:
                break
            del self._under_way[sock]
            self.gateway.registry.refused[refusals.TOO_SLOW.word] += 1
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # its handler sees an end


class GatewayHandler(Exchange):
    """A connection of a `GatewayServer`."""

    server: GatewayServer

    def takes(self, environ: dict[str, str], early: bytes) -> bool:
        """Decide a handshake and make a client of its socket; False: it is none.

        Raises:
            Refused: it is not accepted.
        """
        if not wants_upgrade(environ):
            return False
        gateway = self.server.gateway
        accepted, address = self._decide(gateway, environ)
        gateway.registry.adopt(
            self.socket.detach(),
            peer=address,
            identity=accepted.identity,
            manner=accepted.manner,
            deflate=accepted.deflate,
            response=accepted.response,
            names=accepted.names,
            early=early,
            refused=accepted.refused,
            since=accepted.since,
            make_session=gateway.registry.dialects[accepted.route.dialect],
        )
        return True

    def _decide(self, gateway: Gateway, environ: Mapping[str, object]) -> tuple[Accepted, str]:
        """Return the accepted handshake and the client's address.

        Raises:
            Refused: it is not accepted.
        """
        admission = gateway.registry.admission
        address = admission.address_of(self.peer, environ)
        admission.check(address, None)  # before the signature's cost
        accepted = gateway.access.handshake.decide(environ)
        admission.check(address, accepted.identity.uid)
        return accepted, address

    def refuse(self, environ: dict[str, str] | None, refused: Refused) -> None:
        """Count a refusal and log it, with its cause."""
        refusal = refused.refusal
        self.server.gateway.registry.refused[refusal.word] += 1
        cause = f": {refused.cause}" if refused.cause else ""
        self._log(environ, refusal.status, refusal.word, f" {refusal.word}{cause}")

    def answered(self, environ: dict[str, str], status: int) -> None:
        """Log a plain request; an accepted handshake is logged when its connection ends.

        Probes ask every second or so: their answer is told when it changes.
        """
        path = environ["PATH_INFO"]
        is_new = self.server.probed.get(path) != status
        if path in PROBES:
            self.server.probed[path] = status
        if status >= 400 and is_new:
            self._log(environ, status, str(status), "")
        else:
            log.debug("%s", _line(environ, status), extra={"peer": self.peer})

    def _log(self, environ: dict[str, str] | None, status: int, kind: str, what: str) -> None:
        line = _line(environ, status) + what
        self.server.refusals.say(logging.INFO, kind, "%s", line, extra={"peer": self.peer})


def _line(environ: Mapping[str, str] | None, status: int) -> str:
    """Return what a log says of a request: never the query, which may hold a token."""
    method, path = "-", "-"
    if environ is not None:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
    return f"{method[:_SHOWN_CHARS]} {path[:_SHOWN_CHARS]} {status or '-'}"
