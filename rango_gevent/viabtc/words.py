"""The wire of the dialect: requests in, replies and pushes out. Pure.

``{"id":1,"method":"price.query","params":["BTCBCH"]}`` is a request, its reply
``{"error":null,"result":"7000","id":1}``, or with an error ``{"code":1,"message":"…"}`` and the
result ``null``;
``{"method":"price.update","params":["BTCBCH","7000"],"id":null}`` is a push.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from rango_gevent.errors import RangoError
from rango_gevent.protocol import frames

_MAX_ID = 1 << 63


class Fault(NamedTuple):
    """A row of the table of errors."""

    code: int
    message: str


INVALID = Fault(1, "invalid argument")
INTERNAL = Fault(2, "internal error")
UNAVAILABLE = Fault(3, "service unavailable")
NO_METHOD = Fault(4, "method not found")
TIMEOUT = Fault(5, "service timeout")
UNAUTHENTICATED = Fault(6, "require authentication")
REFUSED = Fault(11, "authentication failed")  # with the text of whoever refused


class Wrong(RangoError):
    """A request is answered with an error.

    Args:
        fault: the row of the table.
        id: of the request, None where it could not be read.
    """

    def __init__(self, fault: Fault, id: int | None = None) -> None:
        super().__init__(fault.message)
        self.fault = fault
        self.id = id


class Request(NamedTuple):
    """A request whose form is right."""

    id: int
    method: str
    params: list[Any]


def parse(message: bytes) -> Request:
    """Read a request.

    Raises:
        Wrong: it is none; with its id where that could be read.
    """
    try:
        said = msgspec.json.decode(message)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Wrong(INVALID) from None
    if not isinstance(said, dict):
        raise Wrong(INVALID)
    id = said.get("id")
    if type(id) is not int or not -_MAX_ID <= id < _MAX_ID:
        raise Wrong(INVALID)
    method, params = said.get("method"), said.get("params")
    if not isinstance(method, str) or not isinstance(params, list):
        raise Wrong(INVALID, id)
    return Request(id, method, params)


def result(value: object, id: int) -> bytes:
    """Word a reply as a frame."""
    return raw_result(msgspec.json.encode(value), id)


def raw_result(value: bytes, id: int) -> bytes:
    """Word a reply whose result is JSON already, as a frame."""
    return frames.text(b'{"error":null,"result":%b,"id":%d}' % (value, id))


def success(id: int) -> bytes:
    """Word that what was asked for is done, as a frame."""
    return raw_result(b'{"status":"success"}', id)


def error(fault: Fault, id: int | None) -> bytes:
    """Word an error as a frame."""
    return frames.text(
        msgspec.json.encode(
            {"error": {"code": fault.code, "message": fault.message}, "result": None, "id": id}
        )
    )


def push(method: str, params: object) -> bytes:
    """Word a push as a frame."""
    return raw_push(method, msgspec.json.encode(params))


def raw_push(method: str, params: bytes) -> bytes:
    """Word a push whose params are JSON already, as a frame."""
    head = b'{"method":"%b","params":' % method.encode()
    return frames.text(b"".join((head, params, b',"id":null}')))
