"""Why a question has no good answer."""

from __future__ import annotations

from rango_gevent.errors import RangoError


class RpcError(RangoError):
    """A question has no good answer; the text says why and holds nothing of it."""


class Away(RpcError):
    """Whoever would answer is not there."""


class Late(RpcError):
    """No answer came in time."""


class Busy(RpcError):
    """So many questions wait that one more may not."""


class Answered(RpcError):
    """The answer is an error.

    Args:
        code: its number.
        message: in words.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
