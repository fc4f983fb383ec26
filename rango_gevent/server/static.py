"""Files that the WebSocket port serves: the client for pages always, pages where they are on.

They are read once, at start. A page's parts lie under a path with a hash of them all, so
that a browser keeps them for ever and a new version has other paths; the page itself, and the
client under its fixed path, are asked for again by their ETag.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from pathlib import Path
from typing import Mapping, NamedTuple

CLIENT = "/client/rango.js"
PAGE = "/console"
ADMIN = "/admin"

_ROOM = Path(__file__).resolve().parent.parent / "console"
_KINDS = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".ts": "text/plain; charset=utf-8",
}
_SQUEEZED_FROM_BYTES = 1024
_FOR_EVER = "public, max-age=31536000, immutable"
_ASK_AGAIN = "no-cache"
_NEVER = "no-store"
_SHARED = ("console.css", "icon.svg", "paint.js")  # by the console and the administrators
_HOST = re.compile(r"[A-Za-z0-9.\-\[\]:]+")
# Safari before 15.4 leaves WebSockets out of 'self', so they are named
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'{sockets}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Answer(NamedTuple):
    """A response: its status, its headers, its body."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class Asset(NamedTuple):
    """A file as it is served.

    Attributes:
        body: its bytes.
        squeezed: the same by gzip, empty where that is not worth while.
        kind: its Content-Type.
        keep: its Cache-Control.
        open: pages of other origins may load it.
    """

    body: bytes
    squeezed: bytes
    kind: str
    keep: str
    open: bool

    def answer(self, environ: Mapping[str, str]) -> Answer:
        """Answer a GET, or tell that what the browser has is still right (RFC 9110 13.1.2)."""
        body, headers = self.body, self._headers(environ.get("HTTP_HOST", ""))
        if self.squeezed:
            headers.append(("Vary", "Accept-Encoding"))
            if "gzip" in environ.get("HTTP_ACCEPT_ENCODING", ""):
                body = self.squeezed
                headers.append(("Content-Encoding", "gzip"))
        etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        headers.append(("ETag", etag))
        if etag in environ.get("HTTP_IF_NONE_MATCH", ""):
            return Answer(304, headers, b"")
        return Answer(200, [*headers, ("Content-Length", str(len(body)))], body)

    def _headers(self, host: str) -> list[tuple[str, str]]:
        headers = [
            ("Content-Type", self.kind),
            ("Cache-Control", self.keep),
            ("X-Content-Type-Options", "nosniff"),
        ]
        if self.open:
            headers.append(("Access-Control-Allow-Origin", "*"))
        if self.kind == _KINDS[".html"]:
            sockets = f" ws://{host} wss://{host}" if _HOST.fullmatch(host) else ""
            headers += [
                ("Content-Security-Policy", _POLICY.format(sockets=sockets)),
                ("Referrer-Policy", "no-referrer"),
            ]
        return headers


def asset(body: bytes, suffix: str, keep: str = _NEVER, *, open: bool = False) -> Asset:
    """Make an asset of bytes; without more it is never kept by a browser."""
    squeezed = gzip.compress(body, 9, mtime=0) if len(body) >= _SQUEEZED_FROM_BYTES else b""
    return Asset(body, squeezed, _KINDS[suffix], keep, open)


def load(*, console: bool) -> dict[str, Asset]:
    """Read the files.

    Args:
        console: the console's too.

    Returns:
        What is served, by path.
    """
    script = (_ROOM / "client" / "rango.js").read_bytes()
    assets = {CLIENT: asset(script, ".js", _ASK_AGAIN, open=True)}
    if console:
        files = {"rango.js": script}
        for path in sorted((_ROOM / "page").rglob("*")):
            if path.is_file():
                files[path.relative_to(_ROOM / "page").as_posix()] = path.read_bytes()
        assets.update(_page(PAGE, files))
    return assets


def load_admin() -> dict[str, Asset]:
    """Read the administrators' page, which is made of some parts of the console; by path."""
    files = {name: (_ROOM / "page" / name).read_bytes() for name in _SHARED}
    for path in sorted((_ROOM / "admin").iterdir()):
        files[path.name] = path.read_bytes()
    return _page(ADMIN, files)


def _page(at: str, files: dict[str, bytes]) -> dict[str, Asset]:
    page = files.pop("index.html")
    together = hashlib.sha256(b"\0".join([page, *files.values()])).hexdigest()[:12]
    assets = {
        f"{at}/{together}/{name}": asset(body, Path(name).suffix, _FOR_EVER)
        for name, body in files.items()
    }
    assets[at] = asset(page.replace(b"{assets}", together.encode()), ".html", _ASK_AGAIN)
    return assets
