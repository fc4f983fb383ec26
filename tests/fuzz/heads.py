"""Any head of a request is taken or refused, and never gives a variable that it does not hold.

That is: `parse_head` gives the variables of one request, free of control characters, or raises
`Refused`, and `Handshake.decide` makes of them an `Accepted` or raises `Refused`, nothing else.
The 101 response holds no bytes of the request but the digest of its key and the name of a
subprotocol, and never one that brings a token.
"""

from __future__ import annotations

import re
from collections import Counter

from rango_gevent.auth.authenticator import Authenticator
from rango_gevent.auth.identity import ANONYMOUS
from rango_gevent.auth.keys import load_public_key
from rango_gevent.auth.origin import OriginPolicy
from rango_gevent.auth.tokens import TokenVerifier
from rango_gevent.errors import Refused
from rango_gevent.protocol import refusals
from rango_gevent.protocol.http import has_body, parse_head
from rango_gevent.protocol.messages import NameLimits
from rango_gevent.server.handshake import Handshake, wants_upgrade
from tests.fuzz.common import check_names

_BODY = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="
_KEY = f"-----BEGIN PUBLIC KEY-----\n{_BODY}\n-----END PUBLIC KEY-----"
_LIMITS = NameLimits(max_names=8, max_name_bytes=60)
_HANDSHAKE = Handshake(
    Authenticator(
        TokenVerifier([load_public_key(_KEY, "fuzz")]), lambda: 1_700_000_000.0, Counter()
    ),
    OriginPolicy(),
    _LIMITS,
    compression=True,
)
_OWN = {"REQUEST_METHOD", "SERVER_PROTOCOL", "PATH_INFO", "QUERY_STRING"}
_UNPREFIXED = ("CONTENT_LENGTH", "CONTENT_TYPE")
_CONTROLS = set(map(chr, range(32))) - {"\t"} | {"\x7f"}
_RESPONSE = re.compile(
    rb"HTTP/1\.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    rb"Sec-WebSocket-Accept: [A-Za-z0-9+/]{27}=\r\n"
    rb"(Sec-WebSocket-Protocol: (?!bearer\.)[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}\r\n)?"
    rb"(Sec-WebSocket-Extensions: permessage-deflate[a-z0-9_; =]*\r\n)?\r\n"
)


def check(data: bytes) -> None:
    """Parse a head, and decide about the handshake that it is."""
    try:
        environ = parse_head(data)
    except Refused as refused:
        assert refused.refusal in (refusals.BAD_REQUEST, refusals.HEAD_TOO_LARGE)
        _check_refusal(refused)
        return
    _check_variables(environ, data.decode("latin-1"))
    wants_upgrade(environ)
    try:
        accepted = _HANDSHAKE.decide(environ)
    except Refused as refused:
        _check_refusal(refused)
        return
    assert accepted.identity == ANONYMOUS, "nobody has signed a token"
    assert environ["PATH_INFO"] != "/private"
    assert not has_body(environ)
    check_names(accepted.names, _LIMITS)
    assert _RESPONSE.fullmatch(accepted.response)


def _check_refusal(refused: Refused) -> None:
    assert 400 <= refused.status < 500
    assert refused.text.isprintable()
    assert refused.cause.isprintable()


def _check_variables(environ: dict[str, str], head: str) -> None:
    """Check that each variable is a field, or several that make a list, and none is made up."""
    values: dict[str, list[str]] = {}
    for line in head.split("\r\n")[1:]:
        name, _, value = line.partition(":")
        if "_" not in name:
            key = name.upper().replace("-", "_")
            values.setdefault(key, []).append(value.strip(" \t"))
    found = {name: value for name, value in environ.items() if name not in _OWN}
    assert found == {
        name if name in _UNPREFIXED else f"HTTP_{name}": ", ".join(several)
        for name, several in values.items()
    }
    assert not any(set(value) & _CONTROLS for value in found.values())
    assert environ["REQUEST_METHOD"].isprintable()
    assert not set(environ["QUERY_STRING"]) & _CONTROLS


_GOOD = (
    b"GET /public?stream=a.b,c.d HTTP/1.1\r\nHost: a.example:80\r\nUpgrade: websocket\r\n"
    b"Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13"
)
SEEDS = (
    _GOOD,
    _GOOD + b"\r\nOrigin: http://A.example:80",
    _GOOD + b"\r\nOrigin: null\r\nCookie: a=b",
    _GOOD + b"\r\nAuthorization: Bearer a.b.c",
    _GOOD + b"\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits, x;y=1",
    _GOOD + b'\r\nSec-WebSocket-Extensions: permessage-deflate; server_max_window_bits="15"',
    _GOOD + b"\r\nSec-WebSocket-Protocol: rango.v1, bearer.a.b.c",
    _GOOD + b"\r\nSec-WebSocket-Protocol: x, bearer.a.b.c\r\nSec-WebSocket-Protocol: y",
    _GOOD.replace(b"/public", b"/private"),
    _GOOD.replace(b"/public", b"/%70rivate"),
    _GOOD.replace(b": 13", b": 8"),
    _GOOD.replace(b"Key: dGhl", b"Key: *"),
    _GOOD.replace(b"\r\n", b"\n"),
    _GOOD + b"\r\nHost: b\r\n folded",
    _GOOD + b"\r\nX-Forwarded-For: a\r\nX-Forwarded-For: b",
    _GOOD + b"\r\nTransfer-Encoding : chunked",
    _GOOD + b"\r\nContent-Length: 0\r\nContent-Length: 5",
    _GOOD + b"\r\nX: a\rAuthorization: Bearer a.b.c",
    b"POST / HTTP/1.0\r\nContent-Length: 1",
    b"GET / HTTP/1",
)
WORDS = (
    b"\r\n", b"GET /", b" HTTP/1.1", b"?stream=", b"%", b"\r\nUpgrade: websocket", b"Origin: http://",
    b"Authorization: Bearer ", b"permessage-deflate", b"; server_max_window_bits=15", b"Upgrade",
    b"client_no_context_takeover", b"\r\nX-A: ", b"[::1]", b"Content-Length", b"_", b"\xa0", b"\t",
    b"\r\nSec-WebSocket-Protocol: ", b"rango.v1", b"bearer.", b", ",
)  # fmt: skip
