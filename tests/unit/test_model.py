"""Positions: one number inside, one text outside, and nothing else is taken for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rango_gevent.model import make_position, number_of, position_text, read_position

numbers = st.integers(0, 2**63 - 1)
checks = st.integers(0, 2**32 - 1)


@given(numbers, checks)
def test_a_position_comes_back_from_its_text(number: int, check: int) -> None:
    """Clients hand back what they were given, in 40 bytes at most."""
    position = make_position(number, check)
    text = position_text(position)
    assert read_position(text) == position
    assert number_of(position) == number
    assert len(text) <= 40


def test_the_text_of_a_position() -> None:
    """The number in decimal, the check in eight hexadecimal digits."""
    assert position_text(make_position(12346, 0x1A2B3C4D)) == "12346-1a2b3c4d"


@pytest.mark.parametrize(
    "text",
    ["", "1", "-", "1-", "01-00000000", "1-0000000", "1-000000000", "1-0000000G", "1-0000000A",
     "+1-00000000", "1-00000000\n", "\u0661-00000000", "9223372036854775808-00000000"],
)  # fmt: skip
def test_what_is_no_position(text: str) -> None:
    """Only what was made here is read."""
    assert read_position(text) is None
