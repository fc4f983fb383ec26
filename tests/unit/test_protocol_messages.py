"""Requests and replies: every reply to the byte, every bad request with the text it is told."""

from __future__ import annotations

import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rango_gevent.errors import RequestError
from rango_gevent.protocol import messages
from rango_gevent.protocol.messages import (
    PING,
    SUBSCRIBE,
    UNSUBSCRIBE,
    NameLimits,
    Request,
    check_names,
    names_in_query,
    parse_request,
)

LIMITS = NameLimits(max_names=5, max_name_bytes=32)

any_text = st.text(st.characters())
printable = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


def request(event: object, streams: object) -> str:
    """Return a request as a client writes it."""
    return json.dumps({"event": event, "streams": streams})


# -- good requests ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ping", Request(PING, ())),
        (" ping\r\n", Request(PING, ())),
        ("\u2003ping\u00a0", Request(PING, ())),
        ('{"event":"subscribe","streams":["a.b","c.d"]}', Request(SUBSCRIBE, ("a.b", "c.d"))),
        ('{"event":"unsubscribe","streams":["a.b"]}', Request(UNSUBSCRIBE, ("a.b",))),
        ('\n{ "streams" : [ "a.b" ] , "event" : "subscribe" }\n', Request(SUBSCRIBE, ("a.b",))),
        ('{"event":"subscribe","streams":[],"id":7}', Request(SUBSCRIBE, (), id=7)),
        ('{"event":"subscribe","streams":["a.b","a.b"]}', Request(SUBSCRIBE, ("a.b",))),
        ('{"event":"subscribe","streams":["\\u00e9.b"]}', Request(SUBSCRIBE, ("é.b",))),
        ('{"event":"subscribe","streams":["a b.c"]}', Request(SUBSCRIBE, ("a b.c",))),
        ('{"event":"x","event":"subscribe","streams":["a.b"]}', Request(SUBSCRIBE, ("a.b",))),
        # a string and an object count as an empty list, as they do in Rango
        ('{"event":"subscribe","streams":"a.b"}', Request(SUBSCRIBE, ())),
        ('{"event":"subscribe","streams":{"a.b":1}}', Request(SUBSCRIBE, ())),
        # ujson is lenient where names are not concerned, and that harms nobody
        ('{"event":"subscribe","streams":["a.b"],"n":NaN}', Request(SUBSCRIBE, ("a.b",))),
        ('{"event":"subscribe","streams":["a.b"],"n":01}', Request(SUBSCRIBE, ("a.b",))),
        ('{"event":"subscribe","streams":["a.b"],"n":1.}', Request(SUBSCRIBE, ("a.b",))),
        ('{"event":"subscribe","streams":["a.b"],"n":"\t"}', Request(SUBSCRIBE, ("a.b",))),
        ('{"event":"subscribe","streams":["a.b"],"n":"\\ud800"}', Request(SUBSCRIBE, ("a.b",))),
        ('{"event":"subscribe","streams":["\\ud83d\\ude00.b"]}', Request(SUBSCRIBE, ("😀.b",))),
        ('{"event":"subscribe","streams":[],"since":"1-2"}', Request(SUBSCRIBE, since="1-2")),
        ('{"event":"subscribe","streams":[],"since":null}', Request(SUBSCRIBE)),
        ('{"event":"subscribe","streams":[],"since":[1]}', Request(SUBSCRIBE, since="")),
        ('{"event":"snapshot","streams":[],"since":7}', Request("snapshot", since="")),
    ],
)
def test_good_requests(text: str, expected: Request) -> None:
    """Requests that Rango takes are taken, in any layout."""
    assert parse_request(text, LIMITS) == expected


@pytest.mark.parametrize("text", ["", " ", "\n", "\r\n\t ", "\u2003"])
def test_blank_messages_are_no_request(text: str) -> None:
    """Blank frames are ignored."""
    assert parse_request(text, LIMITS) is None


# -- bad requests -----------------------------------------------------------------------------

NO_JSON = "Could not parse message: "
NO_TYPE = "Could not parse Type: Invalid event"
NO_STREAMS = "No streams provided"
UNPRINTABLE = "Could not parse streams: a name holds unprintable characters"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pong", NO_JSON),
        ("PING", NO_JSON),
        ("ping ping", NO_JSON),
        ("{", NO_JSON),
        ('{"event":"subscribe"', NO_JSON),
        ('{"event":"subscribe","streams":["a.b"]}}', NO_JSON),
        ('{"event":"subscribe","streams":["a.b"]} {}', NO_JSON),
        ("{'event':'subscribe'}", NO_JSON),
        ("[" * 5000, NO_JSON),
        ('{"n":' + "9" * 5000 + "}", NO_JSON),
        ("1e999", NO_JSON),
        ("[]", NO_JSON + "not a JSON object"),
        ('"subscribe"', NO_JSON + "not a JSON object"),
        ("1", NO_JSON + "not a JSON object"),
        ("true", NO_JSON + "not a JSON object"),
        ("NaN", NO_JSON + "not a JSON object"),
        ("null", NO_TYPE),
        ("{}", NO_TYPE),
        ('{"streams":["a.b"]}', NO_TYPE),
        ('{"event":null,"streams":["a.b"]}', NO_TYPE),
        ('{"event":"Subscribe","streams":["a.b"]}', NO_TYPE),
        ('{"event":"ping","streams":["a.b"]}', NO_TYPE),
        ('{"event":["subscribe"],"streams":["a.b"]}', NO_TYPE),
        ('{"event":{"a":1},"streams":["a.b"]}', NO_TYPE),
        ('{"event":"subscribe"}', NO_STREAMS),
        ('{"event":"unsubscribe","Streams":["a.b"]}', NO_STREAMS),
        ('{"event":"subscribe","streams":null}', "Could not parse streams: not a list"),
        ('{"event":"subscribe","streams":7}', "Could not parse streams: not a list"),
        ('{"event":"subscribe","streams":true}', "Could not parse streams: not a list"),
        (request("subscribe", [7]), "Could not parse streams: a name is not a string"),
        (request("subscribe", ["a.b", None]), "Could not parse streams: a name is not a string"),
        (request("unsubscribe", [["a.b"]]), "Could not parse streams: a name is not a string"),
        (
            request("subscribe", ["\ud800.b"]),
            "Could not parse streams: a name is not valid Unicode",
        ),
        (request("subscribe", ["a\n.b"]), UNPRINTABLE),
        (request("subscribe", ["a\x00.b"]), UNPRINTABLE),
        (request("subscribe", ["a\x7f.b"]), UNPRINTABLE),
        (request("subscribe", ["a\u202e.b"]), UNPRINTABLE),
        (request("subscribe", ["a\u2028.b"]), UNPRINTABLE),
        (request("subscribe", ["x" * 33]), "Stream name too long: the limit is 32 bytes"),
        (request("subscribe", ["é" * 17]), "Stream name too long: the limit is 32 bytes"),
        (request("subscribe", list("abcdef")), "Too many streams: the limit is 5"),
    ],
)
def test_bad_requests_are_told_why(text: str, expected: str) -> None:
    """Each wrong request has its text; that of the JSON parser follows where it has one."""
    with pytest.raises(RequestError) as caught:
        parse_request(text, LIMITS)
    if expected == NO_JSON:
        assert str(caught.value).startswith(NO_JSON)
        assert len(str(caught.value)) > len(NO_JSON)
    else:
        assert str(caught.value) == expected


def test_limits_are_the_last_that_is_allowed() -> None:
    """As many names as the limit, and one as long as the limit, are good."""
    names = ["x" * 32, "é" * 16, "a", "b", "c"]
    assert parse_request(request("subscribe", names), LIMITS) == Request(SUBSCRIBE, tuple(names))


@given(any_text)
@example('{"event":"subscribe","streams":["\ud800"]}')
@example("\ufeff{}")
@example('{"event":"subscribe","streams":["a"],"x":-}')
def test_any_text_is_none_a_request_or_a_request_error(text: str) -> None:
    """Nothing that a client sends can raise anything else, and an error can always be sent."""
    check_any(text)


@given(
    st.sampled_from([SUBSCRIBE, UNSUBSCRIBE]) | json_values,
    json_values | st.lists(any_text),
    any_text,
)
def test_any_json_is_none_a_request_or_a_request_error(
    event: object, streams: object, rest: str
) -> None:
    """The same for well-formed JSON of any content, whole and cut off."""
    text = request(event, streams)
    check_any(text)
    check_any(text[:-1] + rest)


def check_any(text: str) -> None:
    """Parse a text that may be anything."""
    try:
        parsed = parse_request(text, LIMITS)
    except RequestError as error:
        reply = payload_of(messages.error(str(error)))
        assert json.loads(reply) == {"error": str(error)}
        assert len(reply) < 400
        return
    if parsed is None:
        assert not text.strip()
        return
    assert parsed.action in (SUBSCRIBE, UNSUBSCRIBE, PING)
    for name in parsed.names:
        assert name.isprintable()
        assert len(name.encode()) <= LIMITS.max_name_bytes


# -- names in the query -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", ()),
        ("stream=a.b", ("a.b",)),
        ("stream=a.b,c.d&stream=e.f", ("a.b", "c.d", "e.f")),
        ("stream=a.b&x=1&stream=c.d", ("a.b", "c.d")),
        ("stream=", ()),
        ("stream", ()),
        ("stream=,a.b,,c.d,", ("a.b", "c.d")),
        ("&&stream=a.b&", ("a.b",)),
        ("streams=a.b", ()),
        ("Stream=a.b", ()),
        ("xstream=a.b", ()),
        ("stream=a%2Eb%2Cc.d", ("a.b", "c.d")),
        ("stream=a%26b.c", ("a&b.c",)),
        ("stream=a+b.c", ("a b.c",)),
        ("stream=a%2Bb.c", ("a+b.c",)),
        ("stream=a=b.c", ("a=b.c",)),
        ("stream=%C3%A9.b", ("é.b",)),
        ("stream=a%.b", ("a%.b",)),
        ("stream=a%zz.b", ("a%zz.b",)),
        ("stream=a.b;stream=c.d", ("a.b;stream=c.d",)),
        ("stream=a.b&stream=c.d,a.b", ("a.b", "c.d")),
    ],
)
def test_names_in_a_query(query: str, names: tuple[str, ...]) -> None:
    """Names are URL-decoded, empty ones left out, other fields and bad escapes left alone."""
    assert names_in_query(query, LIMITS) == names


def test_raw_utf8_in_a_query_is_read_as_what_it_is() -> None:
    """WSGI hands bytes beyond ASCII on as Latin-1; a name is the UTF-8 that they were."""
    assert names_in_query("stream=é.b".encode().decode("latin-1"), LIMITS) == ("é.b",)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("stream=%ff.b", "Could not parse streams: not UTF-8"),
        ("stream=%C3.b", "Could not parse streams: not UTF-8"),
        ("stream=%ED%A0%80.b", "Could not parse streams: not UTF-8"),
        ("stream=\xff.b", "Could not parse streams: not UTF-8"),
        ("stream=a%0Ab.c", UNPRINTABLE),
        ("stream=a%00.c", UNPRINTABLE),
        ("stream=" + "x" * 33, "Stream name too long: the limit is 32 bytes"),
        ("stream=a,b,c&stream=d,e,f", "Too many streams: the limit is 5"),
    ],
)
def test_bad_names_in_a_query_are_told(query: str, expected: str) -> None:
    """A query is as strict about names as a request is."""
    with pytest.raises(RequestError) as caught:
        names_in_query(query, LIMITS)
    assert str(caught.value) == expected


@given(st.lists(printable, max_size=5))
def test_what_a_client_quotes_is_what_is_read(names: list[str]) -> None:
    """Both ways to quote, each name in a field of its own or all in one, give the names."""
    wanted = tuple(dict.fromkeys(part for name in names for part in name.split(",") if part))
    for quoted in (quote_plus, quote):
        apart = "&".join(f"stream={quoted(name)}" for name in names)
        together = "stream=" + ",".join(quoted(name) for name in names)
        if len(wanted) <= LIMITS.max_names:
            assert names_in_query(apart, LIMITS) == wanted
            assert names_in_query(together, LIMITS) == wanted


@given(st.text(st.characters(max_codepoint=255)) | st.text("stream=&,%+f0cAé", max_size=40))
def test_any_query_gives_names_or_a_request_error(query: str) -> None:
    """No query can raise anything else."""
    try:
        names = names_in_query("stream=" + query, LIMITS)
    except RequestError:
        return
    assert check_names(names, LIMITS) == names


# -- what is sent -----------------------------------------------------------------------------


def payload_of(frame: bytes) -> bytes:
    """Return the payload of one short text frame."""
    assert frame[0] == 0x81
    start = {126: 4, 127: 10}.get(frame[1], 2)
    return frame[start:]


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (messages.PONG_FRAME, b"\x81\x04pong"),
        (messages.error("No streams provided"), b'\x81\x1f{"error":"No streams provided"}'),
        (
            messages.subscribed([]),
            b'\x81\x31{"success":{"message":"subscribed","streams":[]}}',
        ),
        (
            messages.subscribed(["a.b", "order"]),
            b'\x81\x3e{"success":{"message":"subscribed","streams":["a.b","order"]}}',
        ),
        (
            messages.unsubscribed(["a.b"]),
            b'\x81\x38{"success":{"message":"unsubscribed","streams":["a.b"]}}',
        ),
        (
            messages.refused("admin.btcusd.sys"),
            b'\x81\x3e{"success":{"message":"cannot subscribe to admin.btcusd.sys"}}',
        ),
        (
            messages.error('a "b" \\ / é <&> \n'),
            b'\x81\x22{"error":"a \\"b\\" \\\\ / \xc3\xa9 <&> \\n"}',
        ),
    ],
)
def test_replies_to_the_byte(frame: bytes, expected: bytes) -> None:
    """Clients in the field match on Rango's texts: no blanks, no escapes without need."""
    assert frame == expected


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("eurusd.trades", b'{"eurusd.trades":'),
        ("order", b'{"order":'),
        ('a"b\\.c/d', b'{"a\\"b\\\\.c/d":'),
        ("é.b", b'{"\xc3\xa9.b":'),
        ("", b'{"":'),
    ],
)
def test_event_heads(name: str, head: bytes) -> None:
    """An event starts with its name as a JSON string; the publisher's bytes follow."""
    assert messages.event_head(name) == head


@given(st.text(), st.lists(st.text(), max_size=3))
def test_whatever_is_sent_is_json(name: str, names: list[str]) -> None:
    """Names from publishers may hold anything that is Unicode: the frame stays strict JSON."""
    assert json.loads(messages.event_head(name) + b"1}") == {name: 1}
    assert json.loads(payload_of(messages.error(name))) == {"error": name}
    notice = json.loads(payload_of(messages.refused(name)))
    assert notice == {"success": {"message": f"cannot subscribe to {name}"}}
    held = json.loads(payload_of(messages.subscribed(names)))
    assert held == {"success": {"message": "subscribed", "streams": names}}


# -- what Rango does not know ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"event":"list"}', Request("list")),
        ('{"event":"time","streams":7}', Request("time")),
        ('{"event":"snapshot","streams":["a.ob-inc"]}', Request("snapshot", ("a.ob-inc",))),
        ('{"event":"auth","token":"x.y.z"}', Request("auth", token="x.y.z")),
        ('{"event":"auth","token":7}', Request("auth")),
        ('{"event":"auth"}', Request("auth")),
        ('{"jwt":"Bearer x"}', Request("jwt", token="Bearer x")),
        ('{"jwt":null}', Request("jwt")),
        ('{"event":"list","jwt":"Bearer x"}', Request("list")),
        ('{"event":"list","id":7}', Request("list", id=7)),
        ('{"event":"list","id":0}', Request("list", id=0)),
        ('{"event":"list","id":-9223372036854775808}', Request("list", id=-(1 << 63))),
        ('{"event":"list","id":""}', Request("list", id="")),
        (f'{{"event":"list","id":"{"é" * 32}"}}', Request("list", id="é" * 32)),
        # what is no id is passed over, as Rango passes over all of them
        ('{"event":"list","id":9223372036854775808}', Request("list")),
        ('{"event":"list","id":1.5}', Request("list")),
        ('{"event":"list","id":true}', Request("list")),
        ('{"event":"list","id":null}', Request("list")),
        ('{"event":"list","id":[1]}', Request("list")),
        ('{"event":"list","id":"\\ud800"}', Request("list")),
        (f'{{"event":"list","id":"{"x" * 65}"}}', Request("list")),
    ],
)
def test_requests_of_our_own(text: str, expected: Request) -> None:
    """Each is one that Rango answers with an error."""
    assert parse_request(text, LIMITS) == expected


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", 1001),
        ("[]", 1001),
        ('{"event":"subscribed","id":5}', 1002),
        ('{"event":"snapshot","id":5}', 1003),
        ('{"event":"subscribe","streams":null,"id":5}', 1003),
        ('{"event":"subscribe","streams":[7],"id":5}', 1004),
        ('{"event":"subscribe","streams":["a\\n"],"id":5}', 1004),
        ('{"event":"subscribe","streams":["a","b","c","d","e","f"],"id":5}', 1005),
    ],
)
def test_errors_have_a_number_and_the_id(text: str, code: int) -> None:
    """As far as a request could be read, its error can be told from others."""
    with pytest.raises(RequestError) as caught:
        parse_request(text, LIMITS)
    assert (caught.value.code, caught.value.id) == (code, 5 if '"id"' in text else None)


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (messages.held("list", ["a.b"], 7), '{"success":{"message":"list","streams":["a.b"]},"id":7}'),
        (messages.error("No", 1203, 7), '{"error":"No","code":1203,"id":7}'),
        (messages.error("No", id="a/é\n"), '{"error":"No","id":"a/é\\n"}'),
        (messages.error("No", id=0), '{"error":"No","id":0}'),
        (messages.time(1700000000.1234, 1), '{"success":{"message":"time","time":1700000000.123},"id":1}'),
        (
            messages.authenticated("ID1", 900),
            '{"success":{"message":"authenticated","uid":"ID1","ttl":900}}',
        ),
        (
            messages.authenticated("ID1", None, "x"),
            '{"success":{"message":"authenticated","uid":"ID1","ttl":null},"id":"x"}',
        ),
        (messages.not_authenticated("expired"), '{"error":"authentication failed: expired"}'),
        (messages.ranger_authenticated(), '{"success":{"message":"Authenticated."}}'),
        (messages.ranger_not_authenticated(), '{"error":{"message":"Authentication failed."}}'),
        (messages.auth_expiring(30), '{"event":"auth_expiring","in":30}'),
        (messages.stands("7-0000000a"), '{"event":"position","at":"7-0000000a"}'),
        (messages.history_broke("gap"), '{"event":"position","at":null,"reason":"gap"}'),
        (
            messages.held("subscribed", ["a.b"], 7, {"at": "7-0000000a", "recovered": False}, 1401),
            '{"success":{"message":"subscribed","streams":["a.b"],"at":"7-0000000a",'
            '"recovered":false},"code":1401,"id":7}',
        ),
    ],
)  # fmt: skip
def test_replies_of_our_own_to_the_byte(frame: bytes, expected: str) -> None:
    """An id comes last, a number before it."""
    assert payload_of(frame) == expected.encode()
