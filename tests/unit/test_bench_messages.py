"""The benchmark's messages: JSON bodies, and their bytes in three protocols."""

from __future__ import annotations

import json
from struct import unpack_from

import pytest
from bench import messages

from rango_gevent.viabtc import shapes, words


def filled(text: bytes) -> bytes:
    """Put a time where the tools put one."""
    assert text.count(messages.TIME) == 1
    return text.replace(messages.TIME, b"123".rjust(len(messages.TIME)))


@pytest.mark.parametrize("size", [100, 200, 1024, 10240])
def test_body_is_json_of_the_size(size: int) -> None:
    """A body has the size that was asked for, and is JSON once the time is in."""
    text = messages.body(size)
    assert len(text) == size
    assert json.loads(filled(text))["t"] == 123


def test_book_is_json_of_about_the_size() -> None:
    """A book holds prices and amounts as text, best price first on both sides."""
    text = messages.book_body(2048, 1)
    assert 2048 <= len(text) <= 2200
    book = json.loads(filled(text))
    asks = [float(price) for price, _ in book["asks"]]
    bids = [float(price) for price, _ in book["bids"]]
    assert asks == sorted(asks)
    assert bids == sorted(bids, reverse=True)
    assert bids[0] < asks[0]


def test_books_differ_by_seed_alone() -> None:
    """The same seed gives the same book on every run."""
    assert messages.book_body(500, 1) == messages.book_body(500, 1)
    assert messages.book_body(500, 1) != messages.book_body(500, 2)


def test_a_deal_is_as_large_on_the_wire_as_it_should_be() -> None:
    """What `/viabtc` makes of it, with the time where the client looks for it."""
    body = messages.deal_body(200).replace(messages.TIME, b"    1234567890123456")
    deals = shapes.deals(json.loads(body))
    frame = words.push("deals.update", ["M0", deals])
    assert deals[0]["time"] == 1234567890123456
    assert abs(len(frame) - 200) < 15
    assert frame.index(b'"time":') < 128


def test_amqp_publish_is_three_frames() -> None:
    """A message is a method frame, a header frame with the body's size, and the body."""
    data = messages.amqp_publish("exch", 7)("public.m0.trades", b"{}")
    frames = []
    while data:
        kind, channel, size = unpack_from(">BHI", data)
        assert channel == 7
        assert data[7 + size] == 0xCE
        frames.append((kind, data[7 : 7 + size]))
        data = data[8 + size :]
    assert [kind for kind, _ in frames] == [1, 2, 3]
    assert frames[0][1] == b"\0\x3c\0\x28\0\0\x04exch\x10public.m0.trades\0"
    assert unpack_from(">HHQH", frames[1][1]) == (60, 0, 2, 0)
    assert frames[2][1] == b"{}"


def test_nats_and_http_say_the_size() -> None:
    """The peers' protocols carry the body with its length."""
    assert messages.nats_publish("m0.trades", b"{}") == b"PUB m0.trades 2\r\n{}\r\n"
    request = messages.http_publish("m0.trades", b"{}")
    assert request.startswith(b"POST /pub/m0.trades HTTP/1.1\r\n")
    assert b"\r\nContent-Length: 2\r\n" in request
    assert request.endswith(b"\r\n\r\n{}")


def read_list(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """Read a list of the file as the tool does; return it and what is behind it."""
    (length,) = unpack_from("=i", data)
    data, found = data[4:], []
    for _ in range(length):
        size, time_at = unpack_from("=ii", data)
        found.append((time_at, data[8 : 8 + size]))
        data = data[8 + size :]
    return found, data


def test_templates_hold_keys_and_bodies_in_turn_and_the_stops() -> None:
    """Keys and bodies take turns independently, each with the place of its time."""
    texts = [messages.body(50), messages.book_body(300, 1)]
    data = messages.templates(["a", "b", "c"], texts, ["a"], messages.nats_publish)
    flow, rest = read_list(data)
    stops, rest = read_list(rest)
    assert rest == b""
    assert [text.split()[1] for _, text in flow] == [b"a", b"b", b"c"]
    for time_at, text in flow:
        assert text[time_at : time_at + len(messages.TIME)] == messages.TIME
    assert texts[0] in flow[0][1]
    assert texts[1] in flow[1][1]
    assert stops == [(-1, messages.nats_publish("a", messages.STOP))]
