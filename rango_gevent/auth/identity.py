"""Who a connection belongs to: what a checked token leaves behind, and all that it leaves."""

from __future__ import annotations

from typing import NamedTuple


class Identity(NamedTuple):
    """Who a connection belongs to, as a checked token says.

    A tuple because there is one per connection: no ``__dict__``, and nobody can change it.

    Args:
        uid: the user; None means anonymous.
        role: the role for prefixed streams; empty if the token has none.
        expires_at_s: the first moment, in seconds since the epoch and with the leeway included,
            at which the token no longer verifies; None if never. Any finite number, however large.
        issued_at_s: when the token was issued, in seconds since the epoch; None if it is unknown.
    """

    uid: str | None
    role: str
    expires_at_s: float | None
    issued_at_s: float | None = None

    @property
    def is_anonymous(self) -> bool:
        """Tell whether it gives no right to anything: there is nothing that could expire."""
        return self.uid is None and not self.role


ANONYMOUS = Identity(None, "", None)
