"""What the doctor looks at on the way to a gateway: through whatever proxies are before it.

Each check makes a connection of its own, shakes hands, and looks at what a client would notice.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from email.utils import parsedate_to_datetime
from typing import Iterator, NamedTuple
from urllib.parse import urlsplit

from rango_gevent.client.wire import bare, endpoint, reason
from rango_gevent.commands.findings import FAIL, OK, WARN, Finding
from rango_gevent.commands.terminal import escaped
from rango_gevent.commands.visit import Ended, NotUpgraded, Visit
from rango_gevent.protocol import refusals

_TIMEOUT_S = 5.0
_SKEW_S = 1.0
_BAD_SKEW_S = 30.0
_DATE_S = 1.0  # what an HTTP date is exact to
_STRANGER = "https://stranger.invalid"
# What a gateway says to a request without one of the headers of an upgrade
_STRIPPED = (
    "This is a WebSocket endpoint",
    "The header Upgrade",
    "The header Connection",
    "A WebSocket handshake needs HTTP/1.1",
)
_SHOWN = 120  # characters of a body
_UPGRADE_CURE = (
    "let the proxy hand the upgrade on; nginx: proxy_http_version 1.1; proxy_set_header Upgrade "
    '$http_upgrade; proxy_set_header Connection "upgrade"; see conf/nginx.conf'
)
_CURES = {
    401: "the path wants a token: give --token-file, or a URL that ends with /public",
    403: "a firewall, or the proxy's own rules, refuse it: see its log",
    404: "the proxy has no such path: give the one under which it passes /public on",
    429: "too many connections from this address: see RANGO_MAX_CONNECTIONS_PER_ADDRESS, and "
    "RANGO_TRUSTED_PROXIES where a proxy is in front",
    502: "the proxy cannot reach the gateway: see that it runs, and the proxy's upstream",
    503: "the gateway is full or going away: see its /readyz, and RANGO_MAX_CONNECTIONS",
    504: "the gateway does not answer the proxy: see its /healthz, and the proxy's upstream",
}


class Way(NamedTuple):
    """A way to a gateway.

    Attributes:
        url: of the gateway or its proxy, without ``/public``.
        token: empty for none; it goes into a header and nowhere else.
        origins: pages that shall be able to connect.
        idle_s: seconds of silence to try.
    """

    url: str
    token: str = ""
    origins: tuple[str, ...] = ()
    idle_s: float = 5.0

    def visit(self, *, private: bool = False, origin: str = "") -> Visit:
        """Return a connection that is to be opened."""
        headers = {"Authorization": f"Bearer {self.token}"} if private else {}
        return Visit(endpoint(self.url, private=private), headers, origin, _TIMEOUT_S)

    @property
    def page(self) -> str:
        """Return the origin of pages of the URL's own host."""
        parts = urlsplit(self.url)
        return f"{'https' if parts.scheme in ('wss', 'https') else 'http'}://{parts.netloc}"


def websocket(way: Way) -> Iterator[Finding]:
    """Open a WebSocket, hear the gateway's first word, and have a ping answered."""
    name = bare(endpoint(way.url, private=False))
    try:
        with way.visit() as visit:
            greeting = visit.frame(_TIMEOUT_S)
            if greeting is None:
                cure = "see that it is this gateway; a proxy must not buffer (proxy_buffering off)"
                yield Finding(FAIL, f"{name} opens, and says no word", cure)
                return
            took_s = visit.ping(_TIMEOUT_S)
    except NotUpgraded as error:
        yield _not_upgraded(name, error)
    except Ended as error:
        cure = "see the gateway's log for the reason, and the proxy's error log"
        yield Finding(FAIL, f"{name} opens and ends at once: {error}", cure)
    except OSError as error:
        yield Finding(FAIL, f"cannot connect to {name}: {reason(error)}", _connect_cure(error))
    else:
        if took_s is None:
            cure = "whatever is in between swallows control frames: it must pass WebSockets on"
            yield Finding(FAIL, f"{name} opens, and a ping is not answered", cure)
        else:
            yield Finding(OK, f"{name} opens, a ping takes {took_s * 1000:.1f} ms")


def _not_upgraded(name: str, error: NotUpgraded) -> Finding:
    body = escaped(error.body.strip().split("\n")[0][:_SHOWN])
    if not error.status or error.status == 101:
        text = f"{name}: the answer to the handshake is none: {escaped(str(error)[:_SHOWN])}"
        return Finding(FAIL, text, "see that the URL is a gateway's; " + _UPGRADE_CURE)
    text = f"{name} answers HTTP {error.status} and not 101"
    if body and "<" not in body:
        text += f": {body}"
    if error.status == 426 or any(words in error.body for words in _STRIPPED):
        return Finding(FAIL, f"{text}; the proxy strips Upgrade", _UPGRADE_CURE)
    if 300 <= error.status < 400:
        target = escaped(bare(str(error.headers.get("Location", "")))[:_SHOWN])
        return Finding(FAIL, text, f"clients follow no redirect: use the URL it leads to, {target}")
    other = "see that the URL is a gateway's, and the proxy's log"
    return Finding(FAIL, text, _CURES.get(error.status, other))


def _connect_cure(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return "serve the whole chain for this name; SSL_CERT_FILE names a private authority"
    if isinstance(error, ssl.SSLError):
        return "see that this port speaks TLS; ws:// is without"
    if isinstance(error, socket.gaierror):
        return "see the host's name, and this machine's resolver"
    if isinstance(error, ConnectionRefusedError):
        return "see that it runs, its port (RANGER_PORT), and that it listens beyond 127.0.0.1"
    return "see the address, and the firewalls in between"


def authorization(way: Way) -> Iterator[Finding]:
    """Bring the token to /private, and hear whether it arrives and is good there."""
    if not way.token:
        return
    try:
        with way.visit(private=True):
            yield Finding(OK, "the token arrives at the gateway and is good there")
    except NotUpgraded as error:
        if refusals.NO_TOKEN.text in error.body:
            cure = (
                "let the proxy hand it on; nginx: proxy_set_header Authorization "
                "$http_authorization"
            )
            yield Finding(FAIL, "the header Authorization is lost on the way", cure)
        else:
            body = escaped(error.body.strip().split("\n")[0][:_SHOWN])
            text = f"with the token the gateway answers HTTP {error.status}: {body}"
            yield Finding(FAIL, text, "see the check of the token; the gateway may have other keys")
    except (Ended, OSError) as error:
        yield Finding(FAIL, f"with the token: {reason(error)}", "see the gateway's log")


def origins(way: Way) -> Iterator[Finding]:
    """Connect as pages do, those that shall be able to, and one that shall not."""
    for origin in way.origins:
        if _may(way, origin):
            yield Finding(OK, f"pages of {escaped(origin)} may connect")
        else:
            cure = "list it in the gateway's API_CORS_ORIGINS; SIGHUP reads that again"
            yield Finding(FAIL, f"pages of {escaped(origin)} are refused", cure)
    if _may(way, way.page):
        yield Finding(OK, f"pages of {way.page} may connect")
    else:
        yield Finding(
            WARN,
            f"pages of {way.page} itself are refused",
            "the proxy must hand Host on with its port (nginx: proxy_set_header Host $http_host), "
            "or API_CORS_ORIGINS must list it; nothing to do when pages come from elsewhere",
        )
    if _may(way, _STRANGER):
        cure = "list your own in API_CORS_ORIGINS instead of *"
        yield Finding(WARN, "pages of any site may connect, as the user who looks at them", cure)
    else:
        yield Finding(OK, "pages of other sites are refused")


def _may(way: Way, origin: str) -> bool:
    try:
        with way.visit(origin=origin):
            return True
    except (NotUpgraded, Ended, OSError):
        return False


def clock(way: Way) -> Iterator[Finding]:
    """Compare this machine's clock with the gateway's; by the date of HTTP where it tells none."""
    told = _gateway_time(way)
    whose = "the gateway's"
    if told is None:
        told = _http_date(way)
        whose = "the HTTP date of what answers there"
    if told is None:
        yield Finding(WARN, "the clocks cannot be compared: no time is told")
        return
    ahead_s, exact_s = told
    skew_s = max(0.0, abs(ahead_s) - exact_s)
    text = f"this clock is {abs(ahead_s):.2f} s {'ahead of' if ahead_s > 0 else 'behind'} {whose}"
    if skew_s <= _SKEW_S:
        yield Finding(OK, f"{text}, exact to {exact_s:.2f} s")
        return
    yield Finding(
        FAIL if skew_s > _BAD_SKEW_S else WARN,
        f"{text}: good tokens look expired, or not yet valid",
        "let NTP set both clocks (timedatectl); RANGO_JWT_LEEWAY_S allows for a difference",
    )


def _gateway_time(way: Way) -> tuple[float, float] | None:
    """Return by how much this clock is ahead, and how exact that is; None: it does not tell."""
    try:
        with way.visit() as visit:
            started_s = time.time()
            reply = visit.ask({"event": "time"}, _TIMEOUT_S)
            ended_s = time.time()
    except (NotUpgraded, Ended, OSError):
        return None
    success = reply.get("success")
    told_s = success.get("time") if isinstance(success, dict) else None
    if not isinstance(told_s, (int, float)):
        return None
    return (started_s + ended_s) / 2 - told_s, (ended_s - started_s) / 2


def _http_date(way: Way) -> tuple[float, float] | None:
    parts = urlsplit(way.url)
    is_secure = parts.scheme in ("wss", "https")
    kind = http.client.HTTPSConnection if is_secure else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=_TIMEOUT_S)
    try:
        started_s = time.time()
        connection.request("HEAD", "/")
        date = connection.getresponse().getheader("Date")
        ended_s = time.time()
        told_s = parsedate_to_datetime(date or "").timestamp() + _DATE_S / 2
    except (OSError, http.client.HTTPException, ValueError, TypeError):
        return None
    finally:
        connection.close()
    return (started_s + ended_s) / 2 - told_s, (ended_s - started_s + _DATE_S) / 2


def idle(way: Way) -> Iterator[Finding]:
    """Be silent for a while, and see whether the connection lives."""
    started_s, pings = time.monotonic(), 0
    try:
        with way.visit() as visit:
            started_s = time.monotonic()
            while (left_s := started_s + way.idle_s - time.monotonic()) > 0:
                frame = visit.frame(left_s)
                pings += frame is not None and frame.opcode.name == "PING"
            if visit.ping(_TIMEOUT_S) is not None:
                text = f"a silent connection lives for {way.idle_s:g} s"
                known = "" if pings else "; --idle 65 tries the usual 60 s of proxies"
                yield Finding(OK, text + (f", {pings} pings of the gateway" if pings else known))
                return
            ended = "a ping is not answered any more"
    except (NotUpgraded, Ended, OSError) as error:
        ended = reason(error)
    after_s = time.monotonic() - started_s
    yield Finding(
        FAIL,
        f"a silent connection is lost after {after_s:.1f} s: {escaped(ended)}",
        "let the proxy wait longer than RANGO_PING_INTERVAL_S (nginx: proxy_read_timeout and "
        "proxy_send_timeout 75s, HAProxy: timeout tunnel 75s), or lower that",
    )
