"""One table of the reasons why a connection is refused before it is a WebSocket.

The answer has the status, the headers and a line of text, metrics and logs have the ``word``.
Rows without a status get no answer: the connection is closed, and counted.
"""

from __future__ import annotations

from typing import NamedTuple


class Refusal(NamedTuple):
    """A row of the table.

    Attributes:
        status: HTTP status code; 0 for a close without an answer.
        word: short name for metrics and logs.
        text: one line for the response body, where nothing more exact is known.
        headers: extra response headers.
    """

    status: int
    word: str
    text: str
    headers: tuple[tuple[str, str], ...] = ()


_BEARER = (("WWW-Authenticate", "Bearer"),)  # RFC 9110 section 15.5.2
_VERSION = (("Sec-WebSocket-Version", "13"),)  # RFC 6455 section 4.4
_RETRY = (("Retry-After", "5"),)

BAD_REQUEST = Refusal(400, "bad_request", "This is not a well-formed HTTP/1.1 request.")
HEAD_TOO_LARGE = Refusal(431, "head_too_large", "The head of the request is too large.")
BODY = Refusal(413, "body", "A request has no body here.")
BAD_HANDSHAKE = Refusal(400, "bad_handshake", "This is not a WebSocket handshake.")
BAD_VERSION = Refusal(426, "bad_version", "Only WebSocket version 13 is spoken here.", _VERSION)
BAD_STREAMS = Refusal(400, "bad_streams", "The streams in the query are unreadable.")
ORIGIN = Refusal(403, "origin", "This origin may not connect.")
NO_TOKEN = Refusal(401, "no_token", "A token is needed: Authorization: Bearer <jwt>.", _BEARER)
BAD_TOKEN = Refusal(401, "bad_token", "The token is not valid.", _BEARER)
NO_ANSWER = Refusal(503, "token_unchecked", "Tokens cannot be checked at the moment.", _RETRY)
FILLING = Refusal(503, "filling", "The gateway is still reading its log.", _RETRY)
DRAINING = Refusal(503, "draining", "The gateway is shutting down.", _RETRY)
TOO_MANY_CONNECTIONS = Refusal(503, "too_many_connections", "The gateway is full.", _RETRY)
TOO_MANY_OF_ADDRESS = Refusal(429, "too_many_of_address", "Too many connections.", _RETRY)
TOO_MANY_OF_UID = Refusal(429, "too_many_of_uid", "Too many connections of this user.", _RETRY)
TOO_MANY_FILES = Refusal(0, "too_many_files", "No more files can be opened.")
TOO_SLOW = Refusal(0, "too_slow", "The request or its answer took too long.")

TABLE = (
    BAD_REQUEST,
    HEAD_TOO_LARGE,
    BODY,
    BAD_HANDSHAKE,
    BAD_VERSION,
    BAD_STREAMS,
    ORIGIN,
    NO_TOKEN,
    BAD_TOKEN,
    NO_ANSWER,
    FILLING,
    DRAINING,
    TOO_MANY_CONNECTIONS,
    TOO_MANY_OF_ADDRESS,
    TOO_MANY_OF_UID,
    TOO_MANY_FILES,
    TOO_SLOW,
)

WORDS = tuple(row.word for row in TABLE)
