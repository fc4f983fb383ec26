"""The tree of errors: who did wrong decides the type.

``RequestError``      the client sent something wrong: it gets a reply and lives on.
``FatalClientError``  the client broke the connection's rules: it is closed with a reason.
``Refused``           the handshake is answered with an HTTP status instead of 101.
``ConfigError``       the operator set something wrong: all problems at once, exit code 2.
``PublishError``      an event is not known to be taken by the broker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Iterable

if TYPE_CHECKING:  # errors sits below protocol: the imports exist for the reader and mypy only
    from rango_gevent.protocol.close import CloseReason
    from rango_gevent.protocol.refusals import Refusal


class RangoError(Exception):
    """Base of every error that this package raises on purpose."""


class RequestError(RangoError):
    """A client's request is wrong; the text goes back as ``{"error": text}``.

    Args:
        text: what the client is told.
        code: its number, of `rango_gevent.protocol.codes`.
    """

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code
        self.id: int | str | None = None  # of the request, as far as it could be read


class FatalClientError(RangoError):
    """A client broke a rule that ends its connection.

    Args:
        reason: the row of the close table that tells it why.
    """

    def __init__(self, reason: CloseReason) -> None:
        super().__init__(reason.text)
        self.reason = reason


class Refused(RangoError):
    """A connection is refused before any upgrade.

    Args:
        refusal: the row of the table of refusals that says how.
        text: one line for the response body; the row's own by default.
        cause: what lies behind it, for the log alone; never a token.
    """

    def __init__(self, refusal: Refusal, text: str = "", cause: str = "") -> None:
        super().__init__(text or refusal.text)
        self.refusal = refusal
        self.text = text or refusal.text
        self.cause = cause

    @property
    def status(self) -> int:
        """Return the HTTP status code."""
        return self.refusal.status

    @property
    def reason(self) -> str:
        """Return the short word for metrics and logs."""
        return self.refusal.word


class TokenError(RangoError):
    """A token is not valid; the text says why and never holds the token or a claim.

    Args:
        text: one short line for a log or the body of a response.
        reason: one of `rango_gevent.auth.tokens.REASONS`, e.g. ``expired``.
        told: what the client is told in band; the reason by default.
        is_late: whoever knows such tokens did not answer in time.
    """

    def __init__(self, text: str, reason: str, told: str = "", *, is_late: bool = False) -> None:
        super().__init__(text)
        self.reason = reason
        self.told = told or reason
        self.is_late = is_late


class ConfigError(RangoError):
    """One or more settings are wrong.

    Args:
        problems: one line each, naming the setting, its value and the cure.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


class PublishError(RangoError):
    """Events are not known to be taken by the broker.

    Args:
        text: one line that says why.
        reason: short machine-readable word for metrics and logs: ``away``, ``late``, ``blocked``,
            ``busy``, ``nacked``, ``no_gateway``, ``no_exchange`` or ``misconfigured``.
        maybe_sent: some may have been taken all the same: they were sent, and no answer came.
        unconfirmed: routing key and body of each event that this is about, in their order.
    """

    def __init__(
        self,
        text: str,
        reason: str = "away",
        *,
        maybe_sent: bool = False,
        unconfirmed: Iterable[tuple[str, bytes]] = (),
    ) -> None:
        super().__init__(text)
        self.reason = reason
        self.maybe_sent = maybe_sent
        self.unconfirmed = tuple(unconfirmed)
