"""The tree of errors: who did wrong decides the type, and each carries what its catcher needs."""

from __future__ import annotations

import pytest

from rango_gevent import errors
from rango_gevent.errors import (
    ConfigError,
    FatalClientError,
    PublishError,
    RangoError,
    Refused,
    RequestError,
    TokenError,
)
from rango_gevent.protocol import close, refusals


def test_all_errors_have_one_base() -> None:
    """Whoever embeds the package catches everything that it raises on purpose by one name."""
    found = [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, Exception)
    ]
    assert set(found) == {
        RangoError, RequestError, FatalClientError, Refused, TokenError, ConfigError, PublishError
    }  # fmt: skip
    assert all(issubclass(error, RangoError) for error in found)


def test_no_error_is_a_kind_of_another() -> None:
    """A request's error must never be caught as one that ends the connection, or the reverse."""
    tree = [RequestError, FatalClientError, Refused, TokenError, ConfigError, PublishError]
    assert all(error.__bases__ == (RangoError,) for error in tree)


def test_a_request_error_is_its_reply() -> None:
    """The text goes back to the client as it is."""
    error = RequestError("No streams provided", 1003)
    assert (str(error), error.code, error.id) == ("No streams provided", 1003, None)


def test_a_fatal_error_names_its_row_of_the_close_table() -> None:
    """The reason says which code and text the client is closed with."""
    error = FatalClientError(close.TOO_BIG)
    assert error.reason is close.TOO_BIG
    assert str(error) == "message too big"


def test_a_refusal_names_its_row_of_the_table() -> None:
    """Status, word for metrics, text and headers make the answer; the cause is for the log."""
    error = Refused(refusals.BAD_TOKEN, "The token is not valid: expired.", "expired")
    assert error.refusal is refusals.BAD_TOKEN
    assert (error.status, error.reason) == (401, "bad_token")
    assert str(error) == error.text == "The token is not valid: expired."
    assert error.cause == "expired"


def test_a_refusal_has_its_rows_text_by_default() -> None:
    """Where nothing more exact is known."""
    error = Refused(refusals.ORIGIN)
    assert str(error) == error.text == refusals.ORIGIN.text
    assert error.cause == ""


def test_a_token_error_has_a_word() -> None:
    """The text is for people, the word for metrics."""
    error = TokenError("it has expired", "expired")
    assert (str(error), error.reason) == ("it has expired", "expired")


@pytest.mark.parametrize("problems", [[], ["A=1: give 2"], ["A=1: give 2", "B=3: give 4"]])
def test_a_config_error_lists_all_problems(problems: list[str]) -> None:
    """All problems at once, one line each."""
    error = ConfigError(*problems)
    assert error.problems == problems
    assert str(error).splitlines() == problems
