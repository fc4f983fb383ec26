"""The table of close reasons: one meaning a row, and every row fit for the wire."""

from __future__ import annotations

import re

import pytest
from websockets.frames import Close

from rango_gevent.protocol import close, frames
from rango_gevent.protocol.close import BY_CODE, SENT, TABLE, CloseReason

rows = pytest.mark.parametrize("reason", TABLE, ids=lambda reason: reason.word)


def test_codes_and_words_are_unique() -> None:
    """A code tells one reason, and so does a word in a metric."""
    assert len({reason.code for reason in TABLE}) == len(TABLE)
    assert len({reason.word for reason in TABLE}) == len(TABLE)


def test_every_reason_of_the_module_is_in_the_table() -> None:
    """A row that is left out would be missing in the README and for the client."""
    constants = {value for value in vars(close).values() if isinstance(value, CloseReason)}
    assert constants == set(TABLE)


def test_a_row_is_found_by_its_code() -> None:
    """The client looks a code up to know whether to come back."""
    assert {code: reason.code for code, reason in BY_CODE.items()} == {c: c for c in BY_CODE}
    assert set(BY_CODE.values()) == set(TABLE)


@pytest.mark.parametrize("reason", SENT, ids=lambda reason: reason.word)
def test_a_code_may_be_sent(reason: CloseReason) -> None:
    """An independent implementation sends and reads code and text (RFC 6455 section 7.4)."""
    assert reason.code == 1000 or 1002 <= reason.code <= 1014 or 4000 <= reason.code <= 4999
    assert reason.code not in (1004, 1005, 1006)  # never on the wire
    Close(reason.code, reason.text).check()
    payload = frames.close(reason.code, reason.text)[2:]
    assert Close.parse(payload) == Close(reason.code, reason.text)


@rows
def test_a_text_fits_a_control_frame(reason: CloseReason) -> None:
    """The code takes 2 of the 125 bytes (RFC 6455 section 5.5)."""
    assert 0 < len(reason.text.encode()) <= 123


@rows
def test_a_word_is_a_label(reason: CloseReason) -> None:
    """Words are values of a metric's label: lower case, digits and underscores."""
    assert re.fullmatch(r"[a-z][a-z0-9_]*", reason.word)


@rows
def test_a_client_is_told_what_to_do(reason: CloseReason) -> None:
    """Each row has one of four answers; a broken or banned client is never asked to come back."""
    assert reason.reconnect in (close.NOW, close.WITH_TOKEN, close.LATER, close.NEVER)
    unwanted = (1002, 1003, 1007, 1008, 1009, 1010, 4010, 4403)
    assert (reason.reconnect == close.NEVER) is (reason.code in unwanted)


@pytest.mark.parametrize(
    ("reason", "code", "text"),
    [
        (close.PROTOCOL_ERROR, 1002, "protocol error"),
        (close.BAD_UTF8, 1007, "text is not UTF-8"),
        (close.TOO_BIG, 1009, "message too big"),
        (close.INTERNAL, 1011, "internal error"),
        (close.RESTART, 1012, "service restart"),
        (close.SLOW, 4008, "slow client"),
        (close.PING_TIMEOUT, 4009, "no pong in time"),
        (close.TOO_MANY_FRAGMENTS, 4010, "too many fragments"),
        (close.UNAUTHENTICATED, 4401, "authentication expired, missing or failed"),
        (close.REVOKED, 4403, "revoked"),
    ],
)
def test_codes_are_a_contract(reason: CloseReason, code: int, text: str) -> None:
    """Clients in the field match on them: a change here is a change of the protocol."""
    assert (reason.code, reason.text) == (code, text)
