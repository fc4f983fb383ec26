"""The head of an HTTP/1.1 request, read strictly by RFC 9112.

What two readers could take for two things is no request: folded lines, blanks before a colon,
bare CR and LF, repeated fields that can stand only once, lengths that are no number. A proxy
before us may be more lenient; it then has no way to slip a second request past either of us.
"""

from __future__ import annotations

import re
from typing import Mapping
from urllib.parse import unquote

from rango_gevent.errors import Refused
from rango_gevent.protocol import refusals

HEAD_END = b"\r\n\r\n"
MAX_HEAD_BYTES = 16 * 1024
_MAX_FIELDS = 100

# RFC 9112 section 3, with a target in origin-form; bytes beyond ASCII are left to who reads names
_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+) (/[^\x00-\x20#\x7f]*) (HTTP/1\.[01])")
# RFC 9110 sections 5.1 and 5.5
_FIELD = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
_LENGTH = re.compile(r"[0-9]{1,18}")
_UNPREFIXED = ("CONTENT_LENGTH", "CONTENT_TYPE")  # by the names that PEP 3333 gives them
_ONCE = frozenset(
    (
        *_UNPREFIXED,
        "HTTP_AUTHORIZATION",
        "HTTP_HOST",
        "HTTP_ORIGIN",
        "HTTP_SEC_WEBSOCKET_KEY",
        "HTTP_SEC_WEBSOCKET_VERSION",
        "HTTP_TRANSFER_ENCODING",
        "HTTP_UPGRADE",
    )
)


def parse_head(head: bytes) -> dict[str, str]:
    """Return the WSGI variables of a request.

    Args:
        head: the request up to, and without, the empty line that ends its head.

    Raises:
        Refused: it is not well-formed.
    """
    # hot path: 10,000 clients may reconnect in the same second
    line, *fields = head.decode("latin-1").split("\r\n")
    found = _LINE.fullmatch(line)
    if found is None:
        raise _bad("The request line is malformed.")
    if len(fields) > _MAX_FIELDS:
        raise Refused(refusals.HEAD_TOO_LARGE)
    method, target, version = found.groups()
    path, _, query = target.partition("?")
    environ = {
        "REQUEST_METHOD": method,
        "SERVER_PROTOCOL": version,
        "PATH_INFO": unquote(path, "latin-1") if "%" in path else path,
        "QUERY_STRING": query,
    }
    for field in fields:
        _add(environ, field)
    if "HTTP_HOST" not in environ and version == "HTTP/1.1":  # RFC 9112 section 3.2
        raise _bad("The header Host is missing.")
    _check_length(environ)
    return environ


def _add(environ: dict[str, str], field: str) -> None:
    """Add a header field to the variables."""
    found = _FIELD.fullmatch(field)
    if found is None:
        raise _bad("A header field is malformed.")
    name, value = found.groups()
    if "_" in name:
        return  # WSGI could not tell it from a hyphen, and no proxy guards that spelling
    key = name.upper().replace("-", "_")
    if key not in _UNPREFIXED:
        key = "HTTP_" + key
    if key not in environ:
        environ[key] = value.rstrip(" \t")
    elif key in _ONCE:
        raise _bad("A header field stands twice that can stand only once.")
    else:
        environ[key] += ", " + value.rstrip(" \t")  # RFC 9110 section 5.3


def _check_length(environ: Mapping[str, str]) -> None:
    """Check that it is certain where the request ends (RFC 9112 section 6.3)."""
    length = environ.get("CONTENT_LENGTH")
    if length is not None and not _LENGTH.fullmatch(length):
        raise _bad("Content-Length is no number.")
    is_alone = length is None and environ["SERVER_PROTOCOL"] != "HTTP/1.0"
    if "HTTP_TRANSFER_ENCODING" in environ and not is_alone:
        raise _bad("Transfer-Encoding is out of place.")


def has_body(environ: Mapping[str, str]) -> bool:
    """Tell whether a body follows the head of this request."""
    return "HTTP_TRANSFER_ENCODING" in environ or int(environ.get("CONTENT_LENGTH", "0")) > 0


def _bad(text: str) -> Refused:
    return Refused(refusals.BAD_REQUEST, text)
