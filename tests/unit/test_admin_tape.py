"""What is recorded of a connection: within bounds, and never a token."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rango_gevent.admin.tape import MASK, Tape, TapeLimits, cut, masked
from rango_gevent.model import Event
from rango_gevent.protocol import frames

NOW = 1_700_000_000.25
SECRET = "s3cr3t-0paque"
JWT = "eyJhbGciOiJFZERTQSJ9.eyJ1aWQiOiJJRDEifQ.c2lnbmF0dXJl"


def tape(per_s: int = 5, size: int = 40) -> Tape:
    """Return a tape with small bounds."""
    return Tape(TapeLimits(per_s, size))


def event(text: bytes) -> Event:
    """Return an event with a frame."""
    return Event(1, frames.text(text), 2, NOW)


@pytest.mark.parametrize(
    "text",
    [
        f'{{"event":"auth","token":"{SECRET}"}}',
        f'{{"event":"auth","token":"{SECRET}","token":1}}',
        f'{{"event":"auth","\\u0074oken":"{SECRET}"}}',
        f'{{"event":"auth","value":"{SECRET}"}}',
        f'{{"event":"\\u0061uth","value":"{SECRET}"}}',
        f'{{"jwt":"Bearer {SECRET}"}}',
        f'{{"JWT":"{SECRET}"}}',
        f'{{"event":"subscribe","streams":["a.b"],"headers":{{"Authorization":"{SECRET}"}}}}',
        f'[{{"access_token":"{SECRET}"}}]',
        f'{{"event":"auth","token":"{SECRET}"',
        f"Bearer {SECRET}",
        f"token={SECRET}",
        '{"a":' * 30 + f'{{"token":"{SECRET}"}}' + "}" * 30,
        '{"a":' * 900 + f'{{"token":"{SECRET}"}}' + "}" * 900,
        '{"a":' * 1000 + f'{{"\\u0074oken":"{SECRET}"}}' + "}" * 1000,
        '{"a":' * 3000 + f'{{"token":"{SECRET}"}}' + "}" * 3000,
    ],
)
def test_a_token_is_masked_however_it_is_sent(text: str) -> None:
    """By its member's name, in whatever depth and spelling; what cannot be read is not shown."""
    assert SECRET not in masked(text)


@pytest.mark.parametrize(
    "text",
    [
        f'{{"id":1,"method":"server.auth","params":["{SECRET}","web"]}}',
        f'{{"id":1,"method":"server.sign","params":["key","{SECRET}",7]}}',
        f'{{"id":1,"method":"server.\\u0073ign","params":["key","{SECRET}",7]}}',
        f'{{"params":["key","{SECRET}",7],"method":"Server.Sign "}}',
        f'{{"method":"server.sign","params":["{SECRET}"],"token":"{SECRET}"}}',
        f'{{"method":"server.sign","params":["{SECRET}"],"a":' + "[" * 3000 + "]" * 3000 + "}",
        f'{{"method":"server.sign","params":["{SECRET}"],"a":' + "[" * 900 + "]" * 900 + "}",
        f'{{"id":1,"method":"server.sign","params":["key","{SECRET}",7]',
    ],
)
def test_what_methods_of_viabtc_hold_is_masked(text: str) -> None:
    """Tokens and signatures stand in a list there, without names."""
    assert SECRET not in masked(text)


@pytest.mark.parametrize(
    "text", [JWT, f'"{JWT}"', f'{{"x":"{JWT}"}}', f"{{{JWT}", JWT[:30], f"hello {JWT[:40]} you"]
)
def test_what_looks_like_a_jwt_is_masked_anywhere(text: str) -> None:
    """A part of one too, and in what is no request at all."""
    assert "eyJhbGci" not in masked(text)
    assert MASK in masked(text)


def test_what_holds_no_token_is_shown_as_it_came() -> None:
    """To the byte, what is no JSON too; the event and the id always."""
    for text in ('{"event":"subscribe", "streams":["a.b"]}', "ping", "hello", "{", "[1]", "5"):
        assert masked(text) == text
    shown = json.loads(masked(f'{{"event":"auth","token":"{SECRET}","id":7}}'))
    assert shown == {"event": "auth", "token": MASK, "id": 7}


@given(st.text(max_size=60))
def test_any_message_can_be_masked(text: str) -> None:
    """Whatever a client sends, lone surrogates and nonsense."""
    masked(text)
    masked(json.dumps({"token": text, "a\ud800": text}))


@given(st.text(max_size=60), st.integers(16, 40))
def test_a_cut_is_within_its_bytes(text: str, most: int) -> None:
    """And says that there was more."""
    found = cut(text, most)
    assert len(found.removesuffix("…").encode("utf-8", "replace")) <= most or found == text
    assert found == text or found.endswith("…")


def test_both_directions_are_recorded_in_order() -> None:
    """Text, control frames, closes with their codes; bodies are cut, sizes are whole."""
    found = tape(100)
    found.received(b'{"event":"list"}', True, NOW)
    found.received(b"\xff", False, NOW)
    found.sent_frame(frames.text(b'{"success":1}'), NOW)
    found.sent_events([event(b'{"a.b":"%s"}' % (b"x" * 500)), event(b'{"a.b":1}')], NOW)
    found.sent_frame(frames.ping(), NOW)
    found.sent_frame(frames.close(4403, "revoked"), NOW)
    found.end("revoked (4403)", NOW)
    found.end("twice", NOW)
    records, skipped = found.take()
    assert skipped == 0
    told = [(record["way"], record["kind"], record["size"], record["text"]) for record in records]
    assert told == [
        ("in", "text", 16, '{"event":"list"}'),
        ("in", "binary", 1, "\ufffd"),
        ("out", "text", 13, '{"success":1}'),
        ("out", "text", 510, '{"a.b":"' + "x" * 32 + "…"),
        ("out", "text", 9, '{"a.b":1}'),
        ("out", "ping", 0, ""),
        ("out", "close", 9, "4403 revoked"),
        ("out", "end", 0, "revoked (4403)"),
    ]
    assert found.take() == ([], 0)


def test_so_many_a_second_and_no_more() -> None:
    """The rest is counted; the next second begins anew."""
    found = tape(per_s=5)
    found.sent_events([event(b"1")] * 12, NOW)
    records, skipped = found.take()
    assert (len(records), skipped) == (5, 7)
    found.received(b"1", True, NOW + 0.5)
    assert found.take() == ([], 1)
    found.received(b"1", True, NOW + 1)
    assert len(found.take()[0]) == 1


def test_what_nobody_takes_is_bounded() -> None:
    """Two seconds' worth is kept, whatever comes for how long."""
    found = tape(per_s=5)
    for second in range(100):
        found.sent_events([event(b"1")] * 10, NOW + second)
    records, skipped = found.take()
    assert (len(records), skipped) == (10, 990)


def test_the_largest_record_is_bounded_in_bytes() -> None:
    """A megabyte of event costs the tape what it shows."""
    found = tape(size=100)
    found.sent_frame(frames.text("é".encode() * (1 << 19)), NOW)
    found.received(b'"' + b"x" * 8000 + b'"', True, NOW)
    for record in found.take()[0]:
        assert len(record["text"].encode()) <= 103
