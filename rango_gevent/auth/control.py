"""Commands that come from the exchange, on a routing key of their own: who has to go.

They are for the gateway alone and are never broadcast. Each instance of it receives them, since
each has a queue of its own.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import msgspec

REVOKE = "revoke"
DISCONNECT = "disconnect"
BAD = "bad"
COMMANDS = (REVOKE, DISCONNECT, BAD)


class Command(NamedTuple):
    """A command.

    Attributes:
        action: `REVOKE` or `DISCONNECT`.
        uid: whom it is about.
        before_s: tokens issued before this Unix time are revoked; None: all of now.
    """

    action: str
    uid: str
    before_s: float | None = None


def parse_commands(body: bytes) -> list[Command]:
    """Read ``{"revoke":{"uid":"ID1","before":1700000000}}`` or ``{"disconnect":{"uid":"ID1"}}``.

    Raises:
        ValueError: it is neither, with one line about that.
    """
    try:
        message = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("not JSON") from None
    if not isinstance(message, dict) or not message.keys() & {REVOKE, DISCONNECT}:
        raise ValueError("neither revoke nor disconnect")
    return [_command(name, message[name]) for name in (REVOKE, DISCONNECT) if name in message]


def _command(action: str, about: object) -> Command:
    if not isinstance(about, dict):
        raise ValueError(f"{action} is not an object")
    uid, before = about.get("uid"), about.get("before")
    if not isinstance(uid, str) or not uid:
        raise ValueError(f"{action} names no uid")
    if before is None or action == DISCONNECT:
        return Command(action, uid)
    if isinstance(before, bool) or not isinstance(before, (int, float)):
        raise ValueError("before is not a Unix time")
    before_s = float(before) if abs(before) < 1 << 53 else math.inf
    if not math.isfinite(before_s):
        raise ValueError("before is not a Unix time")
    return Command(action, uid, before_s)
