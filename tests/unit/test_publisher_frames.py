"""The bytes of a publishing, and which events a confirm is about."""

from __future__ import annotations

import pytest

from rango_gevent.publisher.frames import Encoder, Event, Unsettled

EVENT = Event("public.a.b", b'{"x":1}', 1_700_000_000_123, "id-1")


def test_the_bytes_of_an_event() -> None:
    """Method, header with its properties, body (AMQP 0-9-1, sections 4.2.3 and 4.2.6)."""
    method = b"\0\x3c\0\x28\0\0\x02ex\x0apublic.a.b\0"
    header = (
        b"\0\x3c\0\0\0\0\0\0\0\0\0\x07\xf0\x80"
        b"\x10application/json\x05utf-8"
        b"\0\0\0\x19\x0ftimestamp_in_msl\0\0\x01\x8b\xcf\xe5\x68\x7b"
        b"\x01\x04id-1"
    )
    assert Encoder(3, "ex", 131072).encode(EVENT) == (
        b"\x01\0\x03" + len(method).to_bytes(4, "big") + method + b"\xce"
        b"\x02\0\x03" + len(header).to_bytes(4, "big") + header + b"\xce"
        b"\x03\0\x03\0\0\0\x07" + b'{"x":1}' + b"\xce"
    )


def test_the_mandatory_bit() -> None:
    """It is the last octet of the method."""
    encoder = Encoder(1, "ex", 131072)
    plain, mandatory = encoder.encode(EVENT), encoder.encode(EVENT._replace(mandatory=True))
    assert [(at, a, b) for at, (a, b) in enumerate(zip(plain, mandatory)) if a != b] == [(27, 0, 1)]


@pytest.mark.parametrize(("limit", "sizes"), [(0, [20]), (18, [10, 10]), (17, [9, 9, 2])])
def test_a_body_in_several_frames(limit: int, sizes: list[int]) -> None:
    """None is larger than agreed on; 0 is no limit."""
    data = Encoder(1, "ex", limit).encode(EVENT._replace(body=b"0123456789" * 2))
    found, rest = [], data
    while rest:
        size = int.from_bytes(rest[3:7], "big")
        assert rest[7 + size] == 0xCE
        if rest[0] == 3:
            found.append(size)
        rest = rest[8 + size :]
    assert found == sizes


def events(*names: str) -> list[Event]:
    """Return events of such ids."""
    return [EVENT._replace(message_id=name) for name in names]


def ids(found: list[Event]) -> str:
    """Return their ids."""
    return "".join(event.message_id for event in found)


def test_confirms_one_by_one_and_several_at_once() -> None:
    """In any order, and a tag that was answered already is nothing."""
    unsettled = Unsettled()
    unsettled.add(events(*"abc"))
    unsettled.add(events(*"defg"))
    assert ids(unsettled.settle(2, False)) == "b"
    assert ids(unsettled.settle(2, False)) == ""
    assert ids(unsettled.settle(4, True)) == "acd"
    assert ids(unsettled.settle(4, True)) == ""
    assert ids(unsettled.settle(6, False)) == "f"
    assert len(unsettled) == 2
    assert ids(unsettled.settle(99, True)) == "eg"


def test_a_tag_of_zero_is_all_of_them() -> None:
    """So says AMQP's table of methods (basic.ack, delivery-tag)."""
    unsettled = Unsettled()
    unsettled.add(events(*"ab"))
    assert ids(unsettled.settle(0, True)) == "ab"
    unsettled.add(events(*"c"))
    assert ids(unsettled.settle(3, False)) == "c"


def test_what_is_taken_out_is_not_settled_later() -> None:
    """A confirm that comes too late is about nothing, and tags go on."""
    unsettled = Unsettled()
    unsettled.add(events(*"ab"))
    assert ids(unsettled.take()) == "ab"
    unsettled.add(events(*"c"))
    assert ids(unsettled.settle(2, True)) == ""
    assert ids(unsettled.settle(3, True)) == "c"
