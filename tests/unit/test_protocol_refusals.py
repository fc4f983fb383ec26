"""The table of refusals: what a client, the metrics and the log are told."""

from __future__ import annotations

import pytest

from rango_gevent.protocol import refusals
from rango_gevent.protocol.refusals import TABLE, Refusal

rows = pytest.mark.parametrize("row", TABLE, ids=lambda row: row.word)


def test_every_row_is_in_the_table() -> None:
    """The metrics show each word from the start: a rate would miss the first of a new series."""
    defined = [value for value in vars(refusals).values() if isinstance(value, Refusal)]
    assert set(defined) == set(TABLE)
    assert len(set(refusals.WORDS)) == len(TABLE)


@rows
def test_a_row_can_be_told(row: Refusal) -> None:
    """A status of HTTP or none, a word for a label, one line of text."""
    assert row.status == 0 or 400 <= row.status < 600
    assert row.word.replace("_", "").isalpha()
    assert row.word == row.word.lower()
    assert row.text.isprintable()
    assert row.text.endswith(".")


@rows
def test_a_status_has_the_headers_that_it_must(row: Refusal) -> None:
    """401 names a scheme, 426 a version; who may come back is told when."""
    wanted = {401: {"WWW-Authenticate"}, 426: {"Sec-WebSocket-Version"}}
    retry = {429: {"Retry-After"}, 503: {"Retry-After"}}
    names = {name for name, _ in row.headers}
    assert names == {**wanted, **retry}.get(row.status, set())
