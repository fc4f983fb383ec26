"""One table of the reasons why a WebSocket connection is closed by this server.

The server sends the code and text, metrics count by ``word``, logs show ``word``,
the client library reads ``reconnect`` and the README prints the table.
Codes below 4000 are RFC 6455 section 7.4.1 and the IANA registry; 4000-4999 are private
use (section 7.4.2).
"""

from __future__ import annotations

from typing import NamedTuple

NOW = "now"
WITH_TOKEN = "now, with a new token"
LATER = "later, with jitter"
NEVER = "never"


class CloseReason(NamedTuple):
    """A row of the table.

    Attributes:
        code: close code on the wire.
        word: short name for metrics and logs.
        text: reason text on the wire (at most 123 bytes, RFC 6455 section 5.5).
        reconnect: what a client should do: one of the four words above.
    """

    code: int
    word: str
    text: str
    reconnect: str


CLIENT_CLOSED = CloseReason(1000, "client_closed", "closed by the client", NOW)
LOST = CloseReason(1006, "connection_lost", "connection lost", LATER)
PROTOCOL_ERROR = CloseReason(1002, "protocol_error", "protocol error", NEVER)
BAD_UTF8 = CloseReason(1007, "bad_utf8", "text is not UTF-8", NEVER)
TOO_BIG = CloseReason(1009, "too_big", "message too big", NEVER)
INTERNAL = CloseReason(1011, "internal_error", "internal error", LATER)
RESTART = CloseReason(1012, "restart", "service restart", LATER)
SLOW = CloseReason(4008, "slow_client", "slow client", LATER)
PING_TIMEOUT = CloseReason(4009, "ping_timeout", "no pong in time", LATER)
TOO_OLD = CloseReason(4011, "max_age", "maximum connection age", NOW)
TOO_MANY_REQUESTS = CloseReason(4029, "too_many_requests", "too many requests", LATER)
UNAUTHENTICATED = CloseReason(
    4401, "unauthenticated", "authentication expired, missing or failed", WITH_TOKEN
)
REVOKED = CloseReason(4403, "revoked", "revoked", NEVER)
TOO_MANY_FRAGMENTS = CloseReason(4010, "too_many_fragments", "too many fragments", NEVER)

SENT = (
    PROTOCOL_ERROR,
    BAD_UTF8,
    TOO_BIG,
    INTERNAL,
    RESTART,
    SLOW,
    PING_TIMEOUT,
    TOO_MANY_FRAGMENTS,
    TOO_OLD,
    TOO_MANY_REQUESTS,
    UNAUTHENTICATED,
    REVOKED,
)
# the client's own word, and no word at all, which is never sent (RFC 6455 section 7.4.1)
TABLE = (CLIENT_CLOSED, LOST, *SENT)

BY_CODE = {reason.code: reason for reason in TABLE}
