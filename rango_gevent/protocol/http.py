"""The head of a plain, well-formed handshake request, parsed in one go.

It takes only what nearly every WebSocket client sends; anything unusual (other methods and
versions, repeated or folded headers, odd bytes, great length) is None, and the WSGI server's
own parser decides about it. So this is a short cut, never a second opinion.
"""

from __future__ import annotations

from urllib.parse import unquote

HEAD_END = b"\r\n\r\n"

# The WSGI server refuses a line of 8 KiB and a hundred fields: stay clear of where it begins to.
_MAX_BYTES = 8000
_MAX_FIELDS = 64


def parse_handshake(head: bytes) -> dict[str, str] | None:
    """Return the WSGI environment of a GET request with an Upgrade header.

    Args:
        head: the request up to, and without, the empty line that ends it.

    Returns:
        The variables that a handshake is decided by; None for any other request.
    """
    # hot path: 10,000 clients may reconnect in the same second
    line, *fields = head.decode("latin-1").split("\r\n")
    if len(head) > _MAX_BYTES or len(fields) > _MAX_FIELDS:
        return None
    if not line.startswith("GET /") or not line.endswith(" HTTP/1.1"):
        return None
    target = line[4:-9]
    if " " in target or not target.isprintable():
        return None
    path, _, query = target.partition("?")
    if "%" in path:
        path = unquote(path, "latin-1")
    environ = {
        "REQUEST_METHOD": "GET",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "PATH_INFO": path,
        "QUERY_STRING": query,
    }
    for field in fields:
        name, colon, value = field.partition(":")
        if not (colon and name and _TOKEN.issuperset(name) and value.isprintable()):
            return None
        key = "HTTP_" + name.upper().replace("-", "_")
        if key in environ or key in _NOT_HERE:
            return None
        environ[key] = value.strip(" ")
    return environ if "HTTP_UPGRADE" in environ else None


# RFC 9110 section 5.6.2, without the underscore: WSGI could not tell it from a hyphen
_TOKEN = frozenset("!#$%&'*+-.^`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_NOT_HERE = ("HTTP_CONTENT_LENGTH", "HTTP_CONTENT_TYPE", "HTTP_TRANSFER_ENCODING", "HTTP_EXPECT")
