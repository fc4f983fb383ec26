"""What the gateway answers to plain HTTP: a line of text, its health, its readiness, its files."""

from __future__ import annotations

import heapq
import json
from typing import TYPE_CHECKING, Any, Callable, Iterable

from rango_gevent.protocol import routing
from rango_gevent.server import static
from rango_gevent.server.exchange import status_line, text_headers
from rango_gevent.server.paths import ADMIN, ROUTES
from rango_gevent.server.static import Answer

if TYPE_CHECKING:  # the gateway is built of this room
    from _typeshed.wsgi import StartResponse

    from rango_gevent.gateway import Gateway

PROBES = ("/healthz", "/readyz")
_ABOUT = "/console/about.json"
_ADMIN_ABOUT = "/admin/about.json"
_MAX_FLOWING = 500


class App:
    """The WSGI application of one gateway.

    Args:
        gateway: whose state is told; `GatewayServer` finds it here too.

    Attributes:
        assets: files by path.
        about: what the console is told besides the streams that flow.
        admin_assets: files of the administrators' page, by path; served where there are any.
        admin_about: what that page is told before anybody has logged in; nothing, mostly.
        actions: what answers a POST, by path: it gets the environment, and gives a status and
            a line of text. A body is never read.
    """

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.assets = static.load(console=gateway.settings.console)
        self.about: dict[str, Any] = {}
        self.admin_assets = static.load_admin()
        self.admin_about: dict[str, Any] = {}
        self.actions: dict[str, Callable[[dict[str, Any]], tuple[int, str]]] = {}

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer a plain HTTP request."""
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if method in ("GET", "HEAD"):
            answer = self._file(path, environ) or _line(*self._answer(path))
        elif method == "POST" and path in self.actions:
            answer = _line(*self.actions[path](environ))
        else:
            answer = _line(405, "Only GET is known here.")
            answer.headers.append(("Allow", "GET, HEAD"))
        start_response(status_line(answer.status), answer.headers)
        return [] if method == "HEAD" else [answer.body]

    def _file(self, path: str, environ: dict[str, Any]) -> Answer | None:
        """Answer with a file; None: there is none."""
        asset = self.assets.get(path)
        if path == _ABOUT and static.PAGE in self.assets:
            asset = static.asset(self._about(), ".json")
        if asset is None and self.gateway.admin.is_open:
            asset = self.admin_assets.get(path)
            if path == _ADMIN_ABOUT:
                asset = static.asset(json.dumps(self.admin_about).encode(), ".json")
        return asset.answer(environ) if asset else None

    def _about(self) -> bytes:
        """Return what the console begins with, the public streams that flow among it."""
        topics = self.gateway.hub.topics.published(routing.PUBLIC)
        names = heapq.nsmallest(_MAX_FLOWING, topics)
        return json.dumps({"streams": names, **self.about}).encode()

    def _answer(self, path: str) -> tuple[int, str]:
        if path == "/":
            return 200, "rango_gevent: a WebSocket gateway. Connect to /public or /private."
        if path == "/healthz":
            problem = self.gateway.health()
        elif path == "/readyz":
            problem = self.gateway.readiness()
        elif path in ROUTES or (path == ADMIN and self.gateway.admin.is_open):
            return 400, "This is a WebSocket endpoint: connect with a WebSocket client."
        else:
            return 404, "Nothing here. WebSocket clients connect to /public or /private."
        return (503, problem) if problem else (200, "ok")


def _line(status: int, text: str) -> Answer:
    body = text.encode() + b"\n"
    return Answer(status, text_headers(body), body)
