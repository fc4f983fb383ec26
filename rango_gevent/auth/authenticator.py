"""The authenticator: one answer to "whose token is this", for handshakes and sessions alike.

Pure in itself: the clock comes in, and so do the two helpers that ask others by network. They
may wait; who calls `Authenticator.identify` runs in a greenlet of its own, and nobody else waits.
"""

from __future__ import annotations

from collections import Counter
from typing import Callable

from rango_gevent.auth.identity import ANONYMOUS, Identity
from rango_gevent.auth.revocation import Revocations
from rango_gevent.auth.tokens import (
    MALFORMED,
    REVOKED,
    SIGNATURE,
    UNAVAILABLE,
    TokenVerifier,
    is_compact,
)
from rango_gevent.errors import TokenError

GOOD = "good"  # beside the reasons, in the metrics


class Authenticator:
    """Tells who a token belongs to.

    Args:
        verifier: checks tokens that are signed; None: nobody's keys are known.
        now: the Unix time in seconds.
        outcomes: counts the tokens seen, by `GOOD` or by reason.
        revocations: tokens that were taken back.
        look_up: asks another service about a token, and may wait; None: nobody is asked.
        fetch_keys: called with a token before it is verified, to learn of new keys; may wait.
            False: some keys are not known yet.
    """

    def __init__(
        self,
        verifier: TokenVerifier | None,
        now: Callable[[], float],
        outcomes: Counter[str],
        *,
        revocations: Revocations | None = None,
        look_up: Callable[[str], Identity] | None = None,
        fetch_keys: Callable[[str], bool] | None = None,
    ) -> None:
        self._verifier = verifier
        self._now = now
        self._revocations = revocations
        self._look_up = look_up
        self._fetch_keys = fetch_keys
        self._outcomes = outcomes

    def identify(self, token: str) -> Identity:
        """Return whose token it is.

        Raises:
            TokenError: it is nobody's, or that cannot be found out now.
        """
        try:
            identity = self._identity(token)
        except TokenError as error:
            self._outcomes[error.reason] += 1
            raise
        self._outcomes[GOOD] += 1
        return ANONYMOUS if identity.is_anonymous else identity

    def _verified(self, verifier: TokenVerifier, token: str) -> Identity:
        is_complete = self._fetch_keys is None or self._fetch_keys(token)
        try:
            return verifier.verify(token, self._now())
        except TokenError as error:
            if is_complete or error.reason != SIGNATURE:
                raise
        raise TokenError("keys could not be fetched", UNAVAILABLE)

    def anonymous_for(self, seconds: float) -> Identity:
        """Return the identity of somebody who has so long to bring a token."""
        return Identity(None, "", self._now() + seconds)

    def _identity(self, token: str) -> Identity:
        """Ask whom the form of the token tells to ask: keys for a JWT, else the other service."""
        if self._verifier is not None and (self._look_up is None or is_compact(token)):
            identity = self._verified(self._verifier, token)
        elif self._look_up is not None:
            identity = self._look_up(token)
        else:
            raise TokenError("no key is known", MALFORMED)
        if self._revocations is not None and self._revocations.cover(identity):
            raise TokenError("the token is revoked", REVOKED)
        return identity
