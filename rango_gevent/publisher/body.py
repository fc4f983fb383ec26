"""Bodies of events: JSON as it is given, or made of an object.

Pure. The gateway drops what is not JSON, where no publisher would hear of it: so it is refused
here. A `Decimal` becomes a string with all its digits: in JSON's numbers prices lose some.
ujson turns one into a float before anybody is asked, hence the standard library.
"""

from __future__ import annotations

import json
from decimal import Decimal


def encode(body: object) -> bytes:
    """Return the bytes of a body.

    Args:
        body: bytes or a string that are JSON, which pass unchanged, or an object to encode.

    Raises:
        ValueError: it is not JSON, or holds a NaN or an infinity, which JSON does not know.
        TypeError: it holds something that has no form in JSON.
    """
    if isinstance(body, (bytes, bytearray, memoryview)):
        raw = bytes(body)
        _check(_decoded(raw))
        return raw
    if isinstance(body, str):
        _check(body)
        return body.encode()
    return _encoder.encode(body).encode()


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"the body is not UTF-8: {error}") from None


def _check(text: str) -> None:
    try:
        _decoder.decode(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the body is not JSON: {error}") from None


def _default(value: object) -> str:
    if not isinstance(value, Decimal):
        raise TypeError(f"{type(value).__name__} has no form in JSON: give text or a number")
    if not value.is_finite():
        raise ValueError(f"{value} has no form in JSON")
    return format(value, "f")


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_encoder = json.JSONEncoder(
    allow_nan=False, ensure_ascii=False, separators=(",", ":"), default=_default
)
_decoder = json.JSONDecoder(parse_constant=_refuse)
