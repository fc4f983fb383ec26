"""The HTTP surface, and the way from a WSGI server into the gateway.

For ``gunicorn rango_gevent.wsgi:app``: importing this module in a worker reads the settings
from the environment, starts the worker's gateway and gives geventwebsocket's worker class
a handler that decides before the upgrade. The stock handler sends 101 first and asks later,
which would lose every 401 and 403.

`GatewayHandler` keeps geventwebsocket's place in the deployment and none of its frame code:
it answers the handshake, hands the bare socket to the registry and ends.
"""

from __future__ import annotations

import atexit
import io
import logging
import os
import signal
import socket
import sys
from http.client import HTTPException
from types import FrameType
from typing import Any, Callable, Iterable, Mapping

import gevent
from gevent.pywsgi import WSGIServer
from gevent.timeout import Timeout
from geventwebsocket.gunicorn.workers import GeventWebSocketWorker
from geventwebsocket.handler import WebSocketHandler

from rango_gevent import logs
from rango_gevent.delivery.handshake import Accepted, wants_upgrade
from rango_gevent.environment import load_key, load_settings
from rango_gevent.errors import ConfigError, Refused
from rango_gevent.gateway import Gateway
from rango_gevent.protocol.http import HEAD_END, parse_handshake

log = logging.getLogger(__name__)

_HEAD_BYTES = 16 * 1024
_GIVE_UP = 3  # gunicorn's WORKER_BOOT_ERROR: with any other code it tries again for ever

_REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    426: "Upgrade Required",
    429: "Too Many Requests",
    503: "Service Unavailable",
}

StartResponse = Callable[[str, "list[tuple[str, str]]"], Any]


class App:
    """The WSGI application of one gateway.

    Args:
        gateway: whose state is told; `GatewayHandler` finds it here too.
    """

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer a plain HTTP request."""
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            refused = Refused(405, "method", "Only GET is known here.", [("Allow", "GET, HEAD")])
            return respond(start_response, refused)
        status, text = self._answer(environ["PATH_INFO"])
        if status == 404:
            return respond(start_response, Refused(404, "path", text))
        body = text.encode() + b"\n"
        start_response(_status(status), _headers(body))
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _answer(self, path: str) -> tuple[int, str]:
        if path == "/":
            return 200, "rango_gevent: a WebSocket gateway. Connect to /public or /private."
        if path == "/healthz":
            problem = self.gateway.health()
        elif path == "/readyz":
            problem = self.gateway.readiness()
        elif path in ("/public", "/private"):
            return 400, "This is a WebSocket endpoint: connect with a WebSocket client."
        else:
            return 404, "Nothing here. WebSocket clients connect to /public or /private."
        return (503, problem) if problem else (200, "ok")


def _status(code: int) -> str:
    return f"{code} {_REASONS[code]}"


def _headers(body: bytes) -> list[tuple[str, str]]:
    return [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]


def respond(start_response: StartResponse, refused: Refused) -> list[bytes]:
    """Answer with a refusal's status, headers and one line of text."""
    body = refused.text.encode() + b"\n"
    start_response(_status(refused.status), _headers(body) + refused.headers)
    return [body]


class _Unread(io.RawIOBase):
    """A socket to read from, with the bytes that were read ahead in front."""

    def __init__(self, ahead: bytes, sock: Any) -> None:
        self.ahead = ahead
        self._sock = sock

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what is ahead, then from the socket."""
        if not self.ahead:
            return int(self._sock.recv_into(buffer))
        size = min(len(buffer), len(self.ahead))
        buffer[:size], self.ahead = self.ahead[:size], self.ahead[size:]
        return size


class GatewayServer(WSGIServer):
    """A pywsgi server that closes at once what its process has no files for.

    It is decided when a connection is accepted: hundreds may wait for their handlers to start.
    """

    @property
    def _gateway(self) -> Gateway | None:
        return getattr(self.application, "gateway", None)

    def do_handle(self, sock: Any, address: Any) -> None:
        """Start a connection's handler, or close it."""
        gateway = self._gateway
        if gateway is not None and not gateway.registry.admission.begin_handshake():
            gateway.registry.refused["too_many_files"] += 1
            sock.close()
        else:
            super().do_handle(sock, address)

    def do_close(self, sock: Any, address: Any) -> None:
        """End a handler: its socket is a client's by now, or to be closed."""
        gateway = self._gateway
        if gateway is not None:
            gateway.registry.admission.end_handshake()
        super().do_close(sock, address)


class GatewayHandler(WebSocketHandler):
    """A connection of a pywsgi server: plain requests go to the app, handshakes to the gateway.

    A handshake in its usual form is parsed and decided here; everything else takes the way
    through the WSGI server, which ends in `run_application`.
    """

    def __init__(self, sock: Any, address: Any, server: Any) -> None:
        self.socket = sock
        self.client_address = address
        self.server = server
        self.application = server.application
        self.rfile: Any = None  # made when the short cut does not serve: it is costly
        self._taken = False
        self._refusal = ""
        self._deadline: Any = None
        self._gateway: Gateway | None = getattr(server.application, "gateway", None)
        gateway = self._gateway
        self._timeout_s = gateway.settings.handshake_timeout_s if gateway else 10.0

    def handle(self) -> None:
        """Serve the connection; a client has a bounded time to send each request."""
        try:
            with Timeout(self._timeout_s, socket.timeout("request too slow")):
                ahead = self.socket.recv(_HEAD_BYTES)
        except OSError:
            return  # lost or silent: the server closes the socket
        if not ahead or self._shortcut(ahead):
            return
        self._unread = _Unread(ahead, self.socket)
        self.rfile = io.BufferedReader(self._unread)
        super().handle()

    def _shortcut(self, ahead: bytes) -> bool:
        """Decide a handshake that came in one piece; False: it is not one."""
        head, end, early = ahead.partition(HEAD_END)
        environ = parse_handshake(head) if end else None
        if environ is None or self._gateway is None:
            return False
        try:
            accepted, address = self._decide(self._gateway, environ)
        except Refused:
            return False  # the WSGI server's way words and logs the refusal
        self._hand_over(self._gateway, accepted, address, early)
        return True

    def read_requestline(self) -> str:
        """Read the first line of a request within the handshake's time."""
        self._deadline = Timeout.start_new(self._timeout_s, socket.timeout("request too slow"))
        try:
            return str(super().read_requestline())
        except BaseException:
            self._deadline.close()
            raise

    def read_request(self, raw_requestline: str) -> bool:
        """Read the headers within what is left of the time."""
        try:
            return bool(super().read_request(raw_requestline))
        except (socket.timeout, HTTPException) as error:
            raise ValueError(str(error)) from error  # what the server takes for a bad request
        finally:
            self._deadline.close()

    def run_application(self) -> None:
        """Give handshakes to the gateway and everything else to the application."""
        gateway = self._gateway
        if gateway is None or not wants_upgrade(self.environ):
            super(WebSocketHandler, self).run_application()
            return
        try:
            accepted, address = self._decide(gateway, self.environ)
        except Refused as refused:
            gateway.registry.refused[refused.reason] += 1
            self._refusal = f" {refused.reason}"
            self.close_connection = True
            self.result = respond(self.start_response, refused)
            self.process_result()
            return
        self._hand_over(gateway, accepted, address, self._early())

    def _decide(self, gateway: Gateway, environ: Mapping[str, object]) -> tuple[Accepted, str]:
        """Decide a handshake: the accepted one and the client's address.

        Raises:
            Refused: it is not accepted.
        """
        admission = gateway.registry.admission
        address = admission.address_of(self._peer(), environ)
        admission.check(address, None)  # before the signature's cost
        accepted = gateway.handshake.decide(environ)
        admission.check(address, accepted.uid)
        return accepted, address

    def _early(self) -> bytes:
        """Return what was read ahead of the client's bytes behind its handshake."""
        self.socket.setblocking(False)  # so that looking does not wait for more
        try:
            return bytes(self.rfile.peek()) + self._unread.ahead
        except OSError:
            return b""

    def _hand_over(self, gateway: Gateway, accepted: Accepted, address: str, early: bytes) -> None:
        """Give the socket to the registry; this handler and its greenlet end."""
        self.close_connection = True
        self.code, self.status, self.headers_sent = 101, b"101 Switching Protocols", True
        self._taken = True
        fd = self.socket.detach()
        self.socket = None
        gateway.registry.adopt(
            fd,
            peer=address,
            uid=accepted.uid,
            role=accepted.role,
            deflate=accepted.deflate,
            notices=accepted.notices,
            response=accepted.response,
            names=accepted.names,
            early=early,
        )

    def _peer(self) -> str:
        address = self.client_address
        return str(address[0]) if isinstance(address, tuple) else ""

    def log_request(self) -> None:
        """Log refused and plain requests; an accepted connection is logged when it ends."""
        if self._taken:
            return
        path = (self.path or "").split("?", 1)[0]  # a query may hold a token
        status = (self._orig_status or "400").split(" ", 1)[0]
        level = logging.INFO if status[0] in "45" else logging.DEBUG
        line = f"{self.command or '-'} {path[:200]} {status}{self._refusal}"
        log.log(level, "%s", line, extra={"peer": self._peer()})

    def log_error(self, msg: str, *args: object) -> None:
        """Log a bad request as one line, without what it held."""
        log.info("bad request", extra={"peer": self._peer()})


def _drain_on(number: int, gateway: Gateway) -> None:
    """Begin to drain at a signal, and let the server's own handler act too."""
    previous = signal.getsignal(number)

    def handle(signum: int, frame: FrameType | None) -> None:
        gevent.spawn(gateway.drain)
        if callable(previous):
            previous(signum, frame)

    signal.signal(number, handle)


def make_app() -> App:
    """Build and start the gateway of a WSGI server's worker from the environment."""
    try:
        loaded = load_settings()
        settings = loaded.settings
        logs.configure(settings.log_level, settings.log_format)
        for warning in loaded.warnings:
            log.warning("%s", warning)
        gateway = Gateway(settings, load_key(settings), sibling_of=os.getppid())
    except ConfigError as error:
        for problem in error.problems:
            print(f"rango: {problem}", file=sys.stderr)
        sys.exit(_GIVE_UP)
    GeventWebSocketWorker.wsgi_handler = GatewayHandler
    GeventWebSocketWorker.server_class = GatewayServer
    gateway.start()
    _drain_on(signal.SIGTERM, gateway)
    atexit.register(gateway.stop)
    return App(gateway)


def __getattr__(name: str) -> App:
    """Make ``app`` when a server asks for it, so that importing this module starts nothing."""
    if name != "app":
        raise AttributeError(name)
    app = make_app()
    globals()["app"] = app
    return app
