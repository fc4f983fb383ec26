"""What the gateway answers to plain HTTP: a line of text, its health, its readiness."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Iterable

from rango_gevent.server.exchange import status_line, text_headers
from rango_gevent.server.paths import ROUTES

if TYPE_CHECKING:  # the gateway is built of this room
    from _typeshed.wsgi import StartResponse

    from rango_gevent.gateway import Gateway


class App:
    """The WSGI application of one gateway.

    Args:
        gateway: whose state is told; `GatewayServer` finds it here too.
    """

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer a plain HTTP request."""
        headers: list[tuple[str, str]] = []
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            status, text = self._answer(environ["PATH_INFO"])
        else:
            status, text = 405, "Only GET is known here."
            headers = [("Allow", "GET, HEAD")]
        body = text.encode() + b"\n"
        start_response(status_line(status), text_headers(body) + headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _answer(self, path: str) -> tuple[int, str]:
        if path == "/":
            return 200, "rango_gevent: a WebSocket gateway. Connect to /public or /private."
        if path == "/healthz":
            problem = self.gateway.health()
        elif path == "/readyz":
            problem = self.gateway.readiness()
        elif path in ROUTES:
            return 400, "This is a WebSocket endpoint: connect with a WebSocket client."
        else:
            return 404, "Nothing here. WebSocket clients connect to /public or /private."
        return (503, problem) if problem else (200, "ok")
