"""Bodies that a publisher sends: what passes, what is encoded, what is refused."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from rango_gevent.publisher.body import encode


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        (b'{"b": 1.10, "a":[ ]}', b'{"b": 1.10, "a":[ ]}'),
        ('{"name":"\u00e9"}', '{"name":"\u00e9"}'.encode()),
        (bytearray(b"12345678901234567890"), b"12345678901234567890"),
        ({"price": Decimal("1.10")}, b'{"price":"1.10"}'),
        ({"price": Decimal("0.10000000000000000001")}, b'{"price":"0.10000000000000000001"}'),
        ([Decimal("1E-9"), Decimal("1E+3")], b'["0.000000001","1000"]'),
        ({"\u00e9": ["/", None, True, 0.1]}, '{"\u00e9":["/",null,true,0.1]}'.encode()),
        ({1: (2, 3)}, b'{"1":[2,3]}'),
    ],
)
def test_a_body_is_json(body: object, sent: bytes) -> None:
    """Bytes and text pass unchanged, objects are encoded, decimals keep all their digits."""
    assert encode(body) == sent


_nan: Any = float("nan")


@pytest.mark.parametrize(
    "body",
    [
        b"", "", "hello", b"{'x':1}", b'{"x":1,}', b"01", b"1.", b"NaN", "[Infinity]", b'"\t"',
        b"1 2", b"\xff", "\ufeff1", b"[" * 100_000,
        {"x": _nan}, {"x": float("inf")}, {"x": Decimal("NaN")}, "\ud800", {"x": "\ud800"},
    ],
)  # fmt: skip
def test_what_the_gateway_would_drop_is_refused(body: object) -> None:
    """By a ValueError, before anything is sent."""
    with pytest.raises(ValueError):  # noqa: PT011 - UnicodeEncodeError is one, with its own text
        encode(body)


@pytest.mark.parametrize("body", [object(), {"x": b"bytes"}, {"x": {1, 2}}, {(1, 2): 3}])
def test_what_has_no_form_is_refused(body: object) -> None:
    """Nothing is turned into text by guessing."""
    with pytest.raises(TypeError):
        encode(body)
