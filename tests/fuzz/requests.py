"""Any text from a client is blank, a request within the limits, or answered with an error.

Nothing else is raised, every reply that follows from it is JSON that says what it should, and what
a strict parser reads as a request within the limits is never refused or read in another way.
"""

from __future__ import annotations

import json

from rango_gevent.errors import RequestError
from rango_gevent.protocol import messages
from rango_gevent.protocol.messages import NameLimits, Request
from tests.fuzz.common import check_names, payload

_LIMITS = NameLimits(max_names=5, max_name_bytes=40)
_WITH_NAMES = (messages.SUBSCRIBE, messages.UNSUBSCRIBE, messages.SNAPSHOT)
_ACTIONS = (
    *_WITH_NAMES,
    messages.PING,
    messages.LIST,
    messages.TIME,
    messages.AUTH,
    messages.JWT,
)


def check(data: bytes) -> None:
    """Parse a message as it comes from a connection, and write the replies to it."""
    text = data.decode("utf-8", "replace")
    expected = _strictly(text)
    try:
        request = messages.parse_request(text, _LIMITS)
    except RequestError as error:
        _check_refusal(str(error), expected)
        return
    if request is None:
        assert not text.strip()
        return
    assert isinstance(request, Request)
    assert expected in (None, request._replace(id=None))
    assert request.action in _ACTIONS
    assert not request.token or request.action in (messages.AUTH, messages.JWT)
    _check_id(request)
    check_names(request.names, _LIMITS)


def _check_id(request: Request) -> None:
    """It can be echoed, as JSON that says the same."""
    reply = json.loads(payload(messages.held("list", [], request.id)))
    assert reply.get("id") == request.id
    assert len(str(request.id)) <= 64


def _strictly(text: str) -> Request | None:
    """Read a request by another parser; None for anything else, or what is past the limits."""
    try:
        message = json.loads(text, parse_int=len, parse_float=len)
        action, names = message["event"], message["streams"]
        if action in _WITH_NAMES and isinstance(names, list):
            return Request(action, messages.check_names(names, _LIMITS))
    except (ValueError, LookupError, TypeError, RecursionError, RequestError):
        pass
    return None


def _check_refusal(text: str, expected: Request | None) -> None:
    assert expected is None
    assert json.loads(payload(messages.error(text))) == {"error": text}


SEEDS = (
    b'{"event":"subscribe","streams":["eurusd.trades","global.tickers"]}',
    b'{"event":"unsubscribe","streams":["order"]}',
    b' {"streams": ["a.b.c", "\\u00e9\\ud83d\\ude00"], "event": "subscribe", "x": [1.5e3, null]} ',
    b'{"event":"subscribe","streams":"a.b"}',
    b'{"event":"subscribe","streams":{"a":true}}',
    b'{"event":"subscribe","streams":[1]}',
    b'{"event":"subscribe","streams":["\\ud800"]}',
    b'{"event":["subscribe"],"streams":[]}',
    b'{"jwt":"Bearer x"}',
    b'{"jwt":null,"id":-1}',
    b'{"event":"auth","token":"a.b.c","id":"\\ud83d\\ude00"}',
    b'{"event":"list","id":9223372036854775807}',
    b'{"event":"time","id":true}',
    b'{"event":"snapshot","streams":["m.ob-inc"],"id":"\\ud800"}',
    b"ping",
    b" \n",
    b"null",
    b"[[[[[[[[]]]]]]]]",
    b"-12345678901234567890e400",
    b'{"event":"subscribe","streams":["a","b","c","d","e","f"]}',
)
WORDS = (
    b'"event":', b'"subscribe"', b'"unsubscribe"', b'"streams":', b"\\u", b"\\ud83d\\ude00",
    b"null", b"true", b"NaN", b"Infinity", b"[]", b"{}", b"ping", b"e308", b"\xe2\x80\xa8",
    b'"id":', b'"auth"', b'"token":', b'"list"', b'"time"', b'"snapshot"', b'"jwt":',
)  # fmt: skip
