"""The metrics port: any path gives the text, as Rango does.

It has a bound of its own on connections, so that whoever reaches it can use up neither the
files of the gateway's clients nor more than a few of its own.
"""

from __future__ import annotations

import logging
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Callable, Iterable

import gevent
from gevent.lock import BoundedSemaphore
from prometheus_client import CONTENT_TYPE_LATEST

from rango_gevent.server.exchange import Exchange, ExchangeServer, status_line
from rango_gevent.turns import give_way

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

log = logging.getLogger(__name__)

_RETRY_S = 1.0
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n"
    b"Connection: close\r\n\r\n"
)


class MetricsServer:
    """Serves the exposition text.

    Args:
        text: the exposition text of now.
        host: address to listen on.
        port: port to listen on.
        connections: connections at once; more are refused, with a 503 if it can still be heard.
        timeout_s: seconds that a request and its answer may take together.

    Attributes:
        in_flight: scrapes being served.
        scrapes: answers by status code.
    """

    def __init__(
        self,
        text: Callable[[], bytes],
        host: str,
        port: int,
        *,
        connections: int,
        timeout_s: float,
    ) -> None:
        self._text = text
        self._address = (host, port)
        self._server: _Server | None = None
        self._turn = BoundedSemaphore()  # a text takes milliseconds: never two without a rest
        self.connections = connections
        self.timeout_s = timeout_s
        self.in_flight = 0
        self.scrapes: Counter[str] = Counter({"200": 0, "500": 0, "503": 0})

    def start(self) -> None:
        """Listen.

        Raises:
            OSError: the port is taken.
        """
        server = _Server(self._address, self, handler_class=Exchange, log=None, error_log=None)
        server.start()
        self._server = server

    def run_when_free(self) -> None:
        """Listen as soon as the port is free: one of several workers holds it."""
        while self._server is None:
            try:
                self.start()
            except OSError:
                gevent.sleep(_RETRY_S)

    def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.stop(timeout=1)
            self._server = None

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer a scrape; this is a WSGI application."""
        self.in_flight += 1
        try:
            with self._turn:
                give_way()
                body, status = self._text(), 200
        except Exception:
            log.exception("metrics failed")
            body, status = b"metrics failed, see the log\n", 500
        finally:
            self.in_flight -= 1
        self.scrapes[str(status)] += 1
        kind = CONTENT_TYPE_LATEST if status == 200 else "text/plain"
        headers = [("Content-Type", kind), ("Content-Length", str(len(body)))]
        start_response(status_line(status), headers)
        return [body]


class _Server(ExchangeServer):
    """Counts its connections."""

    application: MetricsServer

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._open = 0

    @property
    def timeout_s(self) -> float:
        return self.application.timeout_s

    def admits(self, sock: Any, peer: str) -> bool:
        if self._open < self.application.connections:
            self._open += 1
            return True
        self.application.scrapes["503"] += 1
        with suppress(OSError):
            sock.setblocking(False)
            sock.send(_FULL)  # a fresh socket takes so little at once
        return False

    def ended(self, sock: Any, peer: str) -> None:
        self._open -= 1
