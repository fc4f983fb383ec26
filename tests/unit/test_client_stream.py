"""The client's pure parts: URLs, messages, close codes, deadlines."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rango_gevent.client.stream import Deadline, StreamClient
from rango_gevent.client.wire import (
    Event,
    endpoint,
    held_names,
    reconnect_when,
    requests,
    split_event,
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
    assert StreamClient("ws://h").url == "ws://h/public"
    assert StreamClient("ws://h", token=" Bearer abc\n").url == "ws://h/private"


@pytest.mark.parametrize(
    ("text", "event"),
    [
        ('{"a.b":1}', Event("a.b", "1")),
        ('{"a.b":{"x":  1.10}}', Event("a.b", '{"x":  1.10}')),
        ('{"a.b":[1,\n2] }', Event("a.b", "[1,\n2] ")),
        ('{"q\\"\\u00e9\\\\":"}"}', Event('q"é\\', '"}"')),
        ("pong", None),
        ("", None),
        ("{}", None),
        ('{"a"}', None),
        ('{"a', None),
        ('{"a":1', None),
        ('["a",1]', None),
    ],
)
def test_split_event(text: str, event: Event | None) -> None:
    """An event is a name and the text that follows it; everything else is none."""
    assert split_event(text) == event


@given(st.text(), st.sampled_from(["1", '{"a":"}"}', "[1,  2]", '"\\""', "1e400"]))
def test_what_the_gateway_sends_is_taken_apart_again(name: str, body: str) -> None:
    """Whatever the name, body and name come back as they went into the frame."""
    text = (messages.event_head(name) + body.encode() + b"}").decode()
    assert split_event(text) == Event(name, body)


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
    assert held_names(Event("success", body)) == names


@given(st.lists(st.text(min_size=1, max_size=80)))
def test_requests_are_small_and_whole(names: list[str]) -> None:
    """All names are asked for once, in order, in messages that Go's Rango takes too."""
    sent = list(requests("subscribe", names))
    assert [name for request in sent for name in json.loads(request)["streams"]] == names
    assert all(json.loads(request)["event"] == "subscribe" for request in sent)
    for request in sent:
        assert len(request) <= 500 or len(json.loads(request)["streams"]) == 1


def test_requests_are_read_by_the_gateway() -> None:
    """The gateway's own parser reads what the client sends."""
    (request,) = requests("unsubscribe", ["a.b", "é"])
    parsed = messages.parse_request(request, LIMITS)
    assert parsed == messages.Request("unsubscribe", ("a.b", "é"))


def test_no_names_need_no_request() -> None:
    """Nothing to ask for is not asked."""
    assert list(requests("subscribe", [])) == []


def test_close_codes_say_whether_to_come_back() -> None:
    """Codes of the table are obeyed; others, and none at all, are worth another try."""
    for reason in close.TABLE:
        assert reconnect_when(reason.code) == reason.reconnect
    for code in (None, 1001, 1006, 4999):
        assert reconnect_when(code) == close.LATER


def test_a_deadline_shortens_waits() -> None:
    """A wait never goes past the deadline; without one it is as asked for."""
    assert Deadline(None).at_most(5.0) == 5.0
    Deadline(None).check()
    assert 0 < Deadline(60.0).at_most(100.0) <= 60.0
    Deadline(60.0).check()
    over = Deadline(0.0)
    assert over.at_most(5.0) == 0.0
    with pytest.raises(TimeoutError):
        over.check()
