"""What administrators may ask: every event, and what is wrong with the rest."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rango_gevent.admin.requests import Place, Wanted, read_place, read_request
from rango_gevent.errors import RequestError

GOOD: list[tuple[str, Wanted | None]] = [
    ("", None),
    (" \n", None),
    ("ping", Wanted("ping")),
    ('{"event":"auth","token":"t","id":7}', Wanted("auth", token="t", id=7)),
    ('{"event":"auth","token":5}', Wanted("auth")),
    ('{"event":"overview","id":"a"}', Wanted("overview", id="a")),
    ('{"event":"connections"}', Wanted("connections")),
    ('{"event":"connections","uid":""}', Wanted("connections")),
    ('{"event":"connections","uid":"ID1"}', Wanted("connections", field="uid", value="ID1")),
    ('{"event":"connections","address":"::1"}', Wanted("connections", field="address", value="::1")),
    ('{"event":"connections","stream":"a.b"}', Wanted("connections", field="stream", value="a.b")),
    ('{"event":"tail","conn":"4711-12"}', Wanted("tail", place=Place(4711, 12))),
    ('{"event":"untail"}', Wanted("untail")),
    ('{"event":"disconnect","conn":"1-2"}', Wanted("disconnect", place=Place(1, 2))),
    ('{"event":"disconnect","uid":"ID1"}', Wanted("disconnect", field="uid", value="ID1")),
]  # fmt: skip
BAD = [
    ("{", "Could not parse message"),
    ("[]", "not a JSON object"),
    ("{}", "No such event"),
    ('{"event":"subscribe","streams":["a.b"]}', "No such event"),
    ('{"event":["auth"]}', "No such event"),
    ('{"event":"tail"}', "Give a conn"),
    ('{"event":"tail","conn":"1-2-3"}', "Give a conn"),
    ('{"event":"tail","conn":"\\u0661-2"}', "Give a conn"),
    ('{"event":"disconnect"}', "Give a conn"),
    ('{"event":"disconnect","uid":""}', "Give a uid or a conn"),
    ('{"event":"disconnect","uid":"a","conn":"1-2"}', "Give a uid or a conn"),
    ('{"event":"disconnect","uid":5}', "Give a text"),
    ('{"event":"connections","uid":{}}', "Give a text"),
    ('{"event":"connections","uid":"a","stream":"a.b"}', "Give one of"),
    (json.dumps({"event": "connections", "uid": "x" * 1025}), "Give a text"),
]


@pytest.mark.parametrize(("text", "wanted"), GOOD)
def test_what_can_be_asked(text: str, wanted: Any) -> None:
    """Each event with what it needs."""
    assert read_request(text) == wanted


@pytest.mark.parametrize(("text", "words"), BAD)
def test_what_is_wrong_is_told(text: str, words: str) -> None:
    """In words, and a request's id comes back."""
    with pytest.raises(RequestError, match=words):
        read_request(text)
    if text.startswith("{") and text.endswith("}"):
        with pytest.raises(RequestError) as caught:
            read_request(text[:-1] + (', "id": 9}' if len(text) > 2 else '"id": 9}'))
        assert caught.value.id == 9


def test_a_place_reads_as_it_is_written() -> None:
    """A connection's name is the same text in every row and request."""
    assert read_place(str(Place(17, 4))) == Place(17, 4)
    assert read_place(None) is None


_FIELDS = st.sampled_from(["event", "conn", "uid", "address", "stream", "token", "id"])
_VALUES = st.one_of(
    st.sampled_from(["tail", "disconnect", "connections", "auth", "overview", "1-2"]),
    st.text(),
    st.integers(),
    st.none(),
    st.lists(st.text()),
)


@given(st.one_of(st.text(), st.dictionaries(_FIELDS, _VALUES).map(json.dumps)))
def test_any_text_is_a_request_or_an_error(text: str) -> None:
    """Of the one kind that is answered; nothing else is ever raised."""
    try:
        read_request(text)
    except RequestError as error:
        assert str(error).isprintable()
