"""What goes over the wire from a client's side: URLs, messages, close codes, ends."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rango_gevent.client import Limits, StreamClient
from rango_gevent.client.deadline import Deadline
from rango_gevent.client.wire import (
    Message,
    encode_request,
    endpoint,
    expiry_s,
    held_names,
    names_in_url,
    parse_reply,
    reconnect_when,
    requests,
    retry_after_s,
    split_event,
    split_position,
    with_parameters,
)
from rango_gevent.errors import ConfigError
from rango_gevent.protocol import close, messages
from rango_gevent.protocol.messages import NameLimits

LIMITS = NameLimits(max_names=10_000, max_name_bytes=10_000)


@pytest.mark.parametrize(
    ("url", "private", "wanted"),
    [
        ("ws://h:8080", False, "ws://h:8080/public"),
        ("ws://h:8080/", True, "ws://h:8080/private"),
        ("wss://h/api/v2/ranger", True, "wss://h/api/v2/ranger/private"),
        ("ws://h/public", True, "ws://h/public"),
        ("ws://h/x/private/", False, "ws://h/x/private"),
        ("http://h:1", False, "ws://h:1/public"),
        ("https://[::1]:1", False, "wss://[::1]:1/public"),
        ("ws://h?stream=a.b#c", False, "ws://h/public?stream=a.b"),
    ],
)
def test_endpoint(url: str, private: bool, wanted: str) -> None:
    """The path is added unless it is there, and http is what people paste for ws."""
    assert endpoint(url, private=private) == wanted


@pytest.mark.parametrize(
    "url", ["", "h:8080", "ftp://h", "ws://", "ws://h:x", "ws://u:p@h", "ws://h\n", "ws://h/a b"]
)
def test_what_is_no_url_is_refused(url: str) -> None:
    """A URL that cannot be connected to is told before anything is tried."""
    with pytest.raises(ConfigError, match="give one such as ws://"):
        endpoint(url, private=False)


@pytest.mark.parametrize("token", ["a b", "a\r\nX: y", "tök", "a\x00"])
def test_a_token_cannot_write_headers(token: str) -> None:
    """A token goes into a header, so it must be one word of plain characters."""
    with pytest.raises(ConfigError, match="no JWT has") as error:
        StreamClient("ws://h", token=token)
    assert token not in str(error.value)


def test_a_token_chooses_the_private_endpoint() -> None:
    """With a token, bare or pasted with its prefix, the client goes to /private."""
    assert StreamClient("ws://h").core.plan.urls == ["ws://h/public"]
    with_token = StreamClient("ws://h", token=" Bearer abc\n")
    assert with_token.core.plan.urls == ["ws://h/private"]
    assert with_token.fetch_token() == "abc"


def test_a_call_of_the_first_client_still_works() -> None:
    """Names behind the URL, and what went by name."""
    client = StreamClient(
        "ws://h?stream=x.y",
        ["a.b", "c.d"],
        token="",
        reconnect=False,
        on_notice=print,
        limits=Limits(idle_s=5.0),
        jitter=Random(1),
    )
    assert list(client.core.pool.links[0].wanted) == ["x.y", "a.b", "c.d"]
    with pytest.raises(TypeError):
        client.subscribe("e.f", "g.h")  # type: ignore[misc]
    client.close()


def test_a_client_needs_a_gateway() -> None:
    """An empty list of URLs is told at once."""
    with pytest.raises(ConfigError, match="give the URL of a gateway"):
        StreamClient([])


@pytest.mark.parametrize(
    ("text", "event"),
    [
        ('{"a.b":1}', Message("a.b", "1")),
        ('{"a.b":{"x":  1.10}}', Message("a.b", '{"x":  1.10}')),
        ('{"a.b":[1,\n2] }', Message("a.b", "[1,\n2] ")),
        ('{"q\\"\\u00e9\\\\":"}"}', Message('q"é\\', '"}"')),
        ("pong", None),
        ("", None),
        ("{}", None),
        ('{"a"}', None),
        ('{"a', None),
        ('{"a":1', None),
        ('["a",1]', None),
    ],
)
def test_split_event(text: str, event: Message | None) -> None:
    """An event is a name and the text that follows it; everything else is none."""
    assert split_event(text) == event


@given(st.text(), st.sampled_from(["1", '{"a":"}"}', "[1,  2]", '"\\""', "1e400"]))
def test_what_the_gateway_sends_is_taken_apart_again(name: str, body: str) -> None:
    """Whatever the name, body and name come back as they went into the frame."""
    text = (messages.event_head(name) + body.encode() + b"}").decode()
    assert split_event(text) == Message(name, body)


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ('{"message":"subscribed","streams":["a","b"]}', ["a", "b"]),
        ('{"message":"unsubscribed","streams":[]}', []),
        ('{"message":"cannot subscribe to a.b.c"}', None),
        ('{"streams":"a"}', None),
        ('"text"', None),
        ("{", None),
    ],
)
def test_held_names(body: str, names: list[str] | None) -> None:
    """Only a reply with a list of names answers a request."""
    assert held_names(Message("success", body)) == names


@given(st.lists(st.text(min_size=1, max_size=80)))
def test_requests_are_small_and_whole(names: list[str]) -> None:
    """All names are asked for once, in order, in messages that Go's Rango takes too."""
    sent = list(requests("subscribe", names))
    assert [name for batch in sent for name in batch] == names
    for batch in sent:
        request = {"event": "subscribe", "streams": batch, "since": "1" * 40, "id": 10**12}
        assert len(encode_request(request)) <= 512 or len(batch) == 1


def test_requests_are_read_by_the_gateway() -> None:
    """The gateway's own parser reads what the client sends."""
    request = encode_request({"event": "unsubscribe", "streams": ["a.b", "é"], "id": 1})
    parsed = messages.parse_request(request, LIMITS)
    assert parsed is not None
    assert (parsed.action, parsed.names, parsed.id) == ("unsubscribe", ("a.b", "é"), 1)


def test_no_names_need_no_request() -> None:
    """Nothing to ask for is not asked."""
    assert list(requests("subscribe", [])) == []


@pytest.mark.parametrize(
    ("text", "message", "error", "code", "number"),
    [
        ('{"success":{"message":"subscribed","streams":[]}}', "subscribed", None, None, None),
        ('{"success":{"message":"list"},"id":7}', "list", None, None, 7),
        ('{"error":"no","code":1203,"id":"x"}', None, "no", 1203, "x"),
        (
            '{"error":{"message":"Authentication failed."}}',
            None,
            "Authentication failed.",
            None,
            None,
        ),
    ],
)
def test_replies(
    text: str, message: str | None, error: str | None, code: int | None, number: object
) -> None:
    """With an id and a code where the gateway gives them; Ranger's form of an error too."""
    reply = parse_reply(text)
    assert reply is not None
    assert (reply.message, reply.error, reply.code, reply.number) == (message, error, code, number)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"error":1}', '{"success":"x"}', "[" * 9999])
def test_what_is_no_reply(text: str) -> None:
    """Anything may come."""
    assert parse_reply(text) is None


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ('{"a":1},"at":"12-ab"', ('{"a":1}', "12-ab")),
        ('{"a":1}', ('{"a":1}', None)),
        ('{"x":",\\"at\\":\\"1\\""}', ('{"x":",\\"at\\":\\"1\\""}', None)),
    ],
)
def test_a_position_is_taken_off(body: str, wanted: tuple[str, str | None]) -> None:
    """It stands last, behind the body; what only looks like one stays."""
    assert split_position(body) == wanted


def test_when_a_token_expires() -> None:
    """A JWT says it without its key; an opaque token does not."""
    assert expiry_s("e30.eyJleHAiOjE3MDB9.c2ln") == 1700
    for token in ("", "opaque", "a.b.c", "e30.W10.x", "e30.e30.x"):
        assert expiry_s(token) is None


def test_parameters_go_into_the_query() -> None:
    """What is there stays as it was written: Rango does not decode it."""
    assert with_parameters("ws://h/public", "a=1", "b=2") == "ws://h/public?a=1&b=2"
    assert with_parameters("ws://h?stream=a.b,c.d", "a=1") == "ws://h?stream=a.b,c.d&a=1"
    assert names_in_url("ws://h?stream=a.b,c.d&stream=e&x=1") == ["a.b", "c.d", "e"]


def test_retry_after() -> None:
    """In seconds; a date is not read."""
    assert retry_after_s("7") == 7.0
    assert retry_after_s("Fri, 31 Dec 1999 23:59:59 GMT") is None
    assert retry_after_s("") is None


def test_close_codes_say_whether_to_come_back() -> None:
    """Codes of the table are obeyed; others, and none at all, are worth another try."""
    for reason in close.TABLE:
        assert reconnect_when(reason.code) == reason.reconnect
    for code in (None, 1001, 1006, 4999):
        assert reconnect_when(code) == close.LATER


def test_a_deadline_ends() -> None:
    """Without one there is no end; with one the time that is left shrinks to nothing."""
    assert Deadline(None).left_s() is None
    Deadline(None).check()
    assert 0 < (Deadline(60.0).left_s() or 0) <= 60.0
    Deadline(60.0).check()
    over = Deadline(0.0)
    assert over.left_s() == 0.0
    with pytest.raises(TimeoutError):
        over.check()


@pytest.mark.parametrize(
    "url", ["ws://user:hush@host", "http//host?token=hush", "wss://host:x/?token=hush"]
)
def test_a_url_that_is_none_is_not_shown_where_it_may_hold_secrets(url: str) -> None:
    """The error goes to a terminal, or into a log."""
    with pytest.raises(ConfigError) as raised:
        endpoint(url, private=False)
    assert "hush" not in str(raised.value)
    assert "wss://host/path" in str(raised.value)
