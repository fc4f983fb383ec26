"""The handshake: everything that is decided before 101, by the RFC's example and by tables."""

from __future__ import annotations

import base64
from collections import Counter
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rango_gevent.auth.authenticator import Authenticator
from rango_gevent.auth.identity import ANONYMOUS, Identity
from rango_gevent.auth.keys import (
    SigningKey,
    VerificationKey,
    generate,
    load_private_key,
    load_public_key,
)
from rango_gevent.auth.origin import parse_origins
from rango_gevent.auth.tokens import TokenVerifier, forge
from rango_gevent.auth.ways import NAMES, Ways
from rango_gevent.errors import Refused, TokenError
from rango_gevent.protocol.messages import NameLimits
from rango_gevent.server.handshake import (
    Accepted,
    DoorRules,
    Handshake,
    accept_deflate,
    accept_key,
    check_upgrade,
    wants_upgrade,
)
from rango_gevent.server.paths import ADMIN_ROUTE, ROUTES

NOW = 1_700_000_000.0
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
GOOD: dict[str, object] = {
    "REQUEST_METHOD": "GET",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "PATH_INFO": "/public",
    "QUERY_STRING": "",
    "HTTP_HOST": "gateway.example",
    "HTTP_UPGRADE": "websocket",
    "HTTP_CONNECTION": "Upgrade",
    "HTTP_SEC_WEBSOCKET_KEY": KEY,
    "HTTP_SEC_WEBSOCKET_VERSION": "13",
}


@cache
def keys() -> tuple[SigningKey, VerificationKey]:
    """Return a key pair, made once."""
    private, public = generate()
    return load_private_key(private), load_public_key(public, "test")


def token(**claims: object) -> str:
    """Return a token that is valid now."""
    return forge(keys()[0], {"uid": "ID1", "role": "admin", **claims}, NOW, 60)


def look_up(token: str) -> Identity:
    """Refuse what is no JWT, or do not know about it."""
    if token == "unknown":
        raise TokenError("nobody answers", "unavailable")
    raise TokenError("the token is malformed", "malformed")


def handshake(
    origins: str = "", compression: bool = False, rules: DoorRules | None = None
) -> Handshake:
    """Return the rules of a gateway."""
    return Handshake(
        Authenticator(TokenVerifier([keys()[1]]), lambda: NOW, Counter(), look_up=look_up),
        parse_origins(origins, "API_CORS_ORIGINS"),
        NameLimits(max_names=3, max_name_bytes=20),
        rules,
        compression=compression,
    )


def decide(
    origins: str = "", compression: bool = False, **environ: object
) -> Accepted | tuple[int, str]:
    """Return what is decided: the acceptance, or status and word of the refusal."""
    try:
        return handshake(origins, compression).decide({**GOOD, **environ})
    except Refused as refused:
        assert refused.text.isprintable()
        return refused.status, refused.reason


def accepted(**environ: Any) -> Accepted:
    """Return the acceptance of a handshake that must be accepted."""
    found = decide(**environ)
    assert isinstance(found, Accepted), found
    return found


# -- the upgrade ----------------------------------------------------------------------------------


def test_the_rfcs_example() -> None:
    """RFC 6455 section 1.3 gives key and answer."""
    assert accept_key(KEY.encode()) == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_the_response_to_the_byte() -> None:
    """Nothing but what the RFC asks for."""
    assert accepted().response == (
        b"HTTP/1.1 101 Switching Protocols\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
        b"\r\n"
    )


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"HTTP_UPGRADE": "WebSocket"},
        {"HTTP_UPGRADE": "h2c, websocket"},
        {"HTTP_CONNECTION": "keep-alive, Upgrade"},
        {"HTTP_CONNECTION": "UPGRADE"},
        {"CONTENT_LENGTH": "0"},
        {"HTTP_SEC_WEBSOCKET_PROTOCOL": "mqtt"},
        {"HTTP_SEC_WEBSOCKET_KEY": base64.b64encode(bytes(16)).decode()},
        {"HTTP_SEC_WEBSOCKET_KEY": base64.b64encode(bytes([255] * 16)).decode()},
    ],
)
def test_good_upgrades(change: dict[str, object]) -> None:
    """All forms that RFC 6455 section 4.2.1 allows; the key is given back."""
    environ = {**GOOD, **change}
    assert check_upgrade(environ) == str(environ["HTTP_SEC_WEBSOCKET_KEY"]).encode()


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"REQUEST_METHOD": "POST"}, 400),
        ({"REQUEST_METHOD": "get"}, 400),
        ({"REQUEST_METHOD": None}, 400),
        ({"SERVER_PROTOCOL": "HTTP/1.0"}, 400),
        ({"SERVER_PROTOCOL": "HTTP/0.9"}, 400),
        ({"CONTENT_LENGTH": "1"}, 400),
        ({"CONTENT_LENGTH": "00"}, 400),
        ({"HTTP_TRANSFER_ENCODING": "chunked"}, 400),
        ({"HTTP_UPGRADE": None}, 400),
        ({"HTTP_UPGRADE": "websockets"}, 400),
        ({"HTTP_UPGRADE": "web socket"}, 400),
        ({"HTTP_CONNECTION": None}, 400),
        ({"HTTP_CONNECTION": "keep-alive"}, 400),
        ({"HTTP_CONNECTION": "not-upgrade"}, 400),
        ({"HTTP_SEC_WEBSOCKET_KEY": None}, 400),
        ({"HTTP_SEC_WEBSOCKET_KEY": ""}, 400),
        ({"HTTP_SEC_WEBSOCKET_KEY": KEY[:-1]}, 400),
        ({"HTTP_SEC_WEBSOCKET_KEY": KEY + "=="}, 400),
        ({"HTTP_SEC_WEBSOCKET_KEY": " " + KEY}, 400),
        ({"HTTP_SEC_WEBSOCKET_KEY": KEY.replace("d", "-")}, 400),
        ({"HTTP_SEC_WEBSOCKET_KEY": KEY.replace("d", "é")}, 400),
        ({"HTTP_SEC_WEBSOCKET_KEY": f"{KEY},{KEY}"}, 400),
        ({"HTTP_SEC_WEBSOCKET_KEY": base64.b64encode(bytes(15)).decode()}, 400),
        ({"HTTP_SEC_WEBSOCKET_KEY": base64.b64encode(bytes(17)).decode()}, 400),
        ({"HTTP_SEC_WEBSOCKET_VERSION": None}, 426),
        ({"HTTP_SEC_WEBSOCKET_VERSION": "8"}, 426),
        ({"HTTP_SEC_WEBSOCKET_VERSION": "013"}, 426),
        ({"HTTP_SEC_WEBSOCKET_VERSION": "13, 8"}, 426),
        ({"HTTP_SEC_WEBSOCKET_VERSION": "１３"}, 426),
    ],
)
def test_bad_upgrades(change: dict[str, object], status: int) -> None:
    """Each is refused by its own status; a wrong version is told the right one."""
    with pytest.raises(Refused) as caught:
        check_upgrade({**GOOD, **change})
    assert caught.value.status == status
    assert caught.value.reason == ("bad_version" if status == 426 else "bad_handshake")
    wanted = (("Sec-WebSocket-Version", "13"),) if status == 426 else ()
    assert caught.value.refusal.headers == wanted


@given(
    st.dictionaries(st.sampled_from(list(GOOD)), st.none() | st.text(max_size=30) | st.integers())
)
def test_any_environment_is_accepted_or_refused(change: dict[str, object]) -> None:
    """No header can raise anything else."""
    decide(**change)


@pytest.mark.parametrize(
    ("environ", "is_wanted"),
    [
        ({}, False),
        ({"HTTP_UPGRADE": "h2c"}, False),
        ({"HTTP_UPGRADE": "websocket"}, True),
        ({"HTTP_UPGRADE": "h2c, WebSocket"}, True),
        ({"HTTP_SEC_WEBSOCKET_KEY": "x"}, True),
        ({"HTTP_SEC_WEBSOCKET_VERSION": "8"}, True),
    ],
)
def test_who_wants_an_upgrade(environ: dict[str, object], is_wanted: bool) -> None:
    """Also a request that asks for it badly is answered as a handshake, not as a page."""
    assert wants_upgrade(environ) is is_wanted


# -- origin, token, names -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origins", "origin", "expected"),
    [
        ("", None, None),
        ("", "https://gateway.example", None),
        ("", "https://GATEWAY.example", None),
        ("", "https://shop.example", (403, "origin")),
        ("", "null", (403, "origin")),
        ("", "", (403, "origin")),
        ("shop.example", "https://shop.example", None),
        ("shop.example", "https://gateway.example", (403, "origin")),
        ("*", "https://anything.example", None),
    ],
)
def test_origins(origins: str, origin: str | None, expected: tuple[int, str] | None) -> None:
    """By the policy; a client that is no browser sends none."""
    found = decide(origins, **({} if origin is None else {"HTTP_ORIGIN": origin}))
    if expected is None:
        assert isinstance(found, Accepted)
    else:
        assert found == expected


@pytest.mark.parametrize(
    ("path", "authorization", "expected"),
    [
        ("/private", "Bearer {good}", ("ID1", "admin")),
        ("/public", "Bearer {good}", ("ID1", "admin")),
        ("/anything", "Bearer {good}", ("ID1", "admin")),
        ("/public", None, (None, "")),
        ("/public", "Bearer {expired}", (None, "")),
        ("/public", "Bearer nonsense", (None, "")),
        ("/public", "bearer {good}", ("ID1", "admin")),
        ("/", None, (None, "")),
        ("/private/", None, (None, "")),
        ("/Private", None, (None, "")),
        ("/private", None, (401, "no_token")),
        ("/private", "Basic eDp5", (401, "no_token")),
        ("/private", "BEARER {good}", ("ID1", "admin")),
        ("/private", "Bearer {expired}", (401, "bad_token")),
        ("/private", "Bearer nonsense", (401, "bad_token")),
        ("/private", "Bearer {good}x", (401, "bad_token")),
    ],
)
def test_identities(path: str, authorization: str | None, expected: tuple[Any, str]) -> None:
    """A valid token says who it is on every path; only one path takes nobody without."""
    tokens = {"good": token(), "expired": token(exp=int(NOW) - 1)}
    environ: dict[str, object] = {"PATH_INFO": path}
    if authorization is not None:
        environ["HTTP_AUTHORIZATION"] = authorization.format(**tokens)
    found = decide(**environ)
    assert (found.identity[:2] if isinstance(found, Accepted) else found) == expected


def test_a_refused_token_is_told_how_to_come_back() -> None:
    """With the scheme; the token itself never comes back."""
    sent = token(exp=1)
    with pytest.raises(Refused) as caught:
        handshake().decide(
            {**GOOD, "PATH_INFO": "/private", "HTTP_AUTHORIZATION": f"Bearer {sent}"}
        )
    assert caught.value.refusal.headers == (("WWW-Authenticate", "Bearer"),)
    assert caught.value.cause == "expired"
    assert sent not in caught.value.text


def test_identity_comes_from_the_token_alone() -> None:
    """Headers that a client may write mean nothing."""
    found = accepted(HTTP_JWTUID="ID9", HTTP_X_AUTH_UID="ID9", HTTP_ROLE="admin")
    assert found.identity[:2] == (None, "")


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", ()),
        ("stream=a.b,c.d&stream=e.f", ("a.b", "c.d", "e.f")),
        ("stream=a%2Eb&token=secret", ("a.b",)),
        ("stream=a,b,c,d", (400, "bad_streams")),
        ("stream=%ff", (400, "bad_streams")),
        ("stream=" + "x" * 21, (400, "bad_streams")),
    ],
)
def test_names_of_the_query(query: str, names: tuple[object, ...]) -> None:
    """They are subscribed at once; what cannot be a name is refused."""
    found = decide(QUERY_STRING=query)
    assert (found.names if isinstance(found, Accepted) else found) == names


@pytest.mark.parametrize(
    ("query", "is_asked"),
    [
        ("notices=1", True),
        ("stream=a.b&notices=1", True),
        ("notices=10", False),
        ("xnotices=1", False),
    ],
)
def test_notices_are_asked_for(query: str, is_asked: bool) -> None:
    """Clients of Rango know no such message, so nobody gets it who did not ask."""
    assert accepted(QUERY_STRING=query).manner.notices is is_asked


@pytest.mark.parametrize(
    ("query", "resumes", "since"),
    [
        ("", False, None),
        ("resume=1", True, None),
        ("stream=a.b&resume=1&since=12-0000ffff", True, "12-0000ffff"),
        ("since=12%2D0000ffff&resume=1", True, "12-0000ffff"),
        ("resume=1&since=", True, ""),
        ("resume=1&since", True, ""),
        ("resume=1&since=1&since=2", True, "1"),
        ("resume=1&since=\xff%ff%", True, "\xff\xff%"),
        ("since=12-0000ffff", False, None),
        ("resume=10&since=12-0000ffff", False, None),
    ],
)
def test_positions_are_asked_for(query: str, resumes: bool, since: str | None) -> None:
    """Whoever does not ask cannot bring one: Rango knows neither, and leaves them aside."""
    found = accepted(QUERY_STRING=query)
    assert (found.manner.resumes, found.since) == (resumes, since)


def test_the_order_of_checks() -> None:
    """Form, origin, token, names: nobody learns about tokens from a foreign page."""
    wrong: dict[str, object] = {
        "QUERY_STRING": "stream=%ff",
        "PATH_INFO": "/private",
        "HTTP_ORIGIN": "https://evil.example",
        "HTTP_UPGRADE": "x",
    }
    right = {
        "HTTP_UPGRADE": "websocket",
        "HTTP_ORIGIN": "https://gateway.example",
        "PATH_INFO": "/public",
        "QUERY_STRING": "",
    }
    found = [decide(**wrong)]
    for name, good in right.items():
        wrong[name] = good
        found.append(decide(**wrong))
    statuses = [answer[0] if not isinstance(answer, Accepted) else 101 for answer in found]
    assert statuses == [400, 403, 401, 400, 101]


# -- compression ------------------------------------------------------------------------------------

BOTH = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"


@pytest.mark.parametrize(
    ("offer", "answer"),
    [
        ("permessage-deflate", BOTH),
        ("permessage-deflate; client_max_window_bits", BOTH),
        ("permessage-deflate; client_max_window_bits=8", BOTH),
        ("permessage-deflate; client_no_context_takeover; server_no_context_takeover", BOTH),
        ("permessage-deflate; server_max_window_bits=15", f"{BOTH}; server_max_window_bits=15"),
        ("x-webkit-deflate-frame, permessage-deflate", BOTH),
        ("permessage-deflate; server_max_window_bits=10, permessage-deflate", BOTH),
        (None, None),
        ("", None),
        ("x-webkit-deflate-frame", None),
        ("permessage-deflate; server_max_window_bits=10", None),
        ("permessage-deflate; server_max_window_bits", None),
        ("permessage-deflate; client_max_window_bits=7", None),
        ("permessage-deflate; client_max_window_bits=16", None),
        ("permessage-deflate; client_max_window_bits=08", None),
        ("permessage-deflate; server_no_context_takeover=1", None),
        ("permessage-deflate; unknown", None),
        ("permessage-deflate; client_max_window_bits; client_max_window_bits=9", None),
        ("permessage-deflate;;", None),
        ("permessage-deflate; =", None),
        (";", None),
    ],
)
def test_offers_of_compression(offer: str | None, answer: str | None) -> None:
    """By RFC 7692 section 7.1; an offer that does not suit is passed over, never an error."""
    expected = f"Sec-WebSocket-Extensions: {answer}\r\n".encode() if answer else b""
    assert accept_deflate(offer) == expected
    environ: dict[str, object] = {} if offer is None else {"HTTP_SEC_WEBSOCKET_EXTENSIONS": offer}
    found = accepted(compression=True, **environ)
    assert found.deflate is (answer is not None)
    assert found.response.endswith(b"=\r\n" + expected + b"\r\n")


def test_compression_is_not_answered_when_it_is_off() -> None:
    """Whatever the client offers."""
    found = accepted(HTTP_SEC_WEBSOCKET_EXTENSIONS="permessage-deflate")
    assert not found.deflate
    assert b"Extensions" not in found.response


@given(st.text(max_size=60) | st.text('permessage-deflate;=, _wdx15"', max_size=60))
def test_any_offer_is_answered_or_passed_over(offer: str) -> None:
    """No header of a client can raise."""
    assert accept_deflate(offer) in (
        b"",
        f"Sec-WebSocket-Extensions: {BOTH}\r\n".encode(),
        f"Sec-WebSocket-Extensions: {BOTH}; server_max_window_bits=15\r\n".encode(),
    )


# -- ways that Rango does not know ----------------------------------------------------------------

OPEN = DoorRules(Ways(NAMES, "session"))
PATIENT = DoorRules(Ways(NAMES, "session"), private_grace_s=10)
OWN_PAGE = {"HTTP_ORIGIN": "https://gateway.example"}


def come(
    rules: DoorRules, path: str = "/public", origins: str = "", **environ: str
) -> Accepted | tuple[int, str]:
    """Knock, and return what is decided."""
    try:
        return handshake(origins, rules=rules).decide({**GOOD, "PATH_INFO": path, **environ})
    except Refused as refused:
        return refused.status, refused.reason


def ways_of(sent: str) -> dict[str, dict[str, str]]:
    """Return the variables of each way with a token."""
    return {
        "header": {"HTTP_AUTHORIZATION": f"Bearer {sent}"},
        "subprotocol": {"HTTP_SEC_WEBSOCKET_PROTOCOL": f"rango.v1, bearer.{sent}"},
        "cookie": {"HTTP_COOKIE": f"session={sent}", **OWN_PAGE},
        "query": {"QUERY_STRING": f"token={sent}"},
    }


@pytest.mark.parametrize("way", ["header", "subprotocol", "cookie", "query"])
@pytest.mark.parametrize("path", ["/public", "/private"])
def test_each_way_in(way: str, path: str) -> None:
    """A good token says who it is whichever way it comes; it is never in the answer."""
    sent = token()
    found = come(OPEN, path, **ways_of(sent)[way])
    assert isinstance(found, Accepted)
    assert found.identity.uid == "ID1"
    assert found.refused is None
    assert sent.encode() not in found.response


@pytest.mark.parametrize("way", ["header", "subprotocol", "cookie", "query"])
def test_a_bad_token_is_told_but_for_rango_s_way(way: str) -> None:
    """On a path that takes anybody; the other one refuses."""
    bad = ways_of(token(exp=1))[way]
    found = come(OPEN, **bad)
    assert isinstance(found, Accepted)
    assert found.identity == ANONYMOUS
    assert (found.refused.reason if found.refused else None) == (
        None if way == "header" else "expired"
    )
    assert come(OPEN, "/private", **bad) == (401, "bad_token")


def test_what_cannot_be_checked_now_is_no_bad_token() -> None:
    """Who comes back soon may get in."""
    assert come(OPEN, "/private", HTTP_AUTHORIZATION="Bearer unknown") == (503, "token_unchecked")


def test_a_cookie_needs_a_page_whose_origin_is_checked() -> None:
    """No page at all, or any page whatever: then whoever makes a browser connect would be in."""
    cookie = {"HTTP_COOKIE": f"session={token()}"}
    assert come(OPEN, "/private", **cookie) == (401, "no_token")
    assert come(OPEN, "/private", "*", **cookie, **OWN_PAGE) == (401, "no_token")
    listed = come(OPEN, "/private", "gateway.example", **cookie, **OWN_PAGE)
    assert isinstance(listed, Accepted)
    assert come(OPEN, "/private", "other.example", **cookie, **OWN_PAGE) == (403, "origin")


def test_a_while_to_bring_a_token() -> None:
    """For who has none, and for who is told that it is bad; a bot sees its 401 at once."""
    for environ in ({}, ways_of(token(exp=1))["subprotocol"]):
        found = come(PATIENT, "/private", **environ)
        assert isinstance(found, Accepted)
        assert found.identity == Identity(None, "", NOW + 10)
        assert bool(found.refused) is bool(environ)
    assert come(PATIENT, "/private", **ways_of("bad")["header"]) == (401, "bad_token")
    public = come(PATIENT, "/public")
    assert isinstance(public, Accepted)
    assert public.identity is ANONYMOUS


@pytest.mark.parametrize(
    ("offered", "line", "is_numbered"),
    [
        ("rango.v1", b"\r\nSec-WebSocket-Protocol: rango.v1\r\n", True),
        ("other, rango.v1, bearer.x", b"\r\nSec-WebSocket-Protocol: rango.v1\r\n", True),
        ("other", b"\r\nSec-WebSocket-Protocol: other\r\n", False),
        ("bearer.x", b"", False),
        ("other\r\nX: y", b"", False),
    ],
)
def test_subprotocols(offered: str, line: bytes, is_numbered: bool) -> None:
    """Ours has numbered errors; those that nobody knows do not end the connection."""
    found = come(OPEN, HTTP_SEC_WEBSOCKET_PROTOCOL=offered)
    assert isinstance(found, Accepted)
    assert line in found.response
    assert (b"Protocol:" in found.response) is bool(line)
    assert found.manner.numbered is is_numbered


# -- the administrators' path ---------------------------------------------------------------------

ADMINS = DoorRules(admin_login_s=5.0)


def decide_admin(origins: str = "", **environ: object) -> Accepted | tuple[int, str]:
    """Return what is decided on the administrators' path."""
    try:
        found = handshake(origins, True, ADMINS)
        return found.decide({**GOOD, "PATH_INFO": "/admin/ws", **environ})
    except Refused as refused:
        return refused.status, refused.reason


@pytest.mark.parametrize(
    "way",
    [
        {},
        {"HTTP_AUTHORIZATION": f"Bearer {token()}"},
        {"HTTP_SEC_WEBSOCKET_PROTOCOL": f"rango.v1, bearer.{token()}"},
        {"QUERY_STRING": f"token={token()}&stream=a.b"},
        {"HTTP_COOKIE": f"session={token()}", "HTTP_ORIGIN": "https://gateway.example"},
        {"HTTP_SEC_WEBSOCKET_EXTENSIONS": "permessage-deflate"},
    ],
)
def test_an_administrator_is_a_stranger_until_it_logs_in_by_a_message(way: dict[str, str]) -> None:
    """For a few seconds; nothing of the handshake counts, nor is a token answered."""
    found = decide_admin(**way)
    assert isinstance(found, Accepted)
    assert found.route is ADMIN_ROUTE
    assert found.identity == Identity(None, "", NOW + 5)
    assert (found.names, found.deflate, found.refused) == ((), False, None)
    assert b"eyJ" not in found.response


@pytest.mark.parametrize(
    ("origins", "origin", "is_let_in"),
    [
        ("", "https://gateway.example", True),
        ("", "https://evil.example", False),
        ("*", "https://gateway.example", True),
        ("*", "https://evil.example", False),
        ("*,ok.example", "https://ok.example", True),
        ("*,ok.example", "https://gateway.example", False),
    ],
)
def test_any_origin_is_not_any_administrator(origins: str, origin: str, is_let_in: bool) -> None:
    """A page must be listed or our own."""
    found = decide_admin(origins, HTTP_ORIGIN=origin)
    assert isinstance(found, Accepted) if is_let_in else found == (403, "origin")


def test_without_administrators_their_path_is_as_any_other() -> None:
    """A public one."""
    found = handshake(rules=DoorRules()).decide({**GOOD, "PATH_INFO": "/admin/ws"})
    assert found.route == ROUTES["/public"]
