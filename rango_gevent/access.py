"""Who is let in, as the settings say: builds the authenticator and the rules of the handshake.

What has to outlive a reload lives here too: what was counted, and which tokens were taken back.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Sequence

from rango_gevent.auth.authenticator import Authenticator
from rango_gevent.auth.keys import VerificationKey
from rango_gevent.auth.tokens import TokenVerifier
from rango_gevent.delivery.session import Desk
from rango_gevent.protocol.messages import NameLimits
from rango_gevent.server.handshake import Handshake
from rango_gevent.settings import Settings


class Access:
    """The doors of one gateway.

    Args:
        settings: what to run with.
        keys: what tokens are checked with.
        desk: where sessions authenticate.

    Attributes:
        keys: the same.
        authenticator: tells who a token belongs to.
        handshake: decides about newcomers.
        tokens: tokens that were looked at, by outcome.
    """

    def __init__(self, settings: Settings, keys: Sequence[VerificationKey], desk: Desk) -> None:
        self._desk = desk
        self.tokens: Counter[str] = Counter()
        self.set(settings, keys)

    def set(self, settings: Settings, keys: Sequence[VerificationKey]) -> None:
        """Let in by these settings and keys from now on; who is in stays in."""
        self.keys = tuple(keys)
        self.authenticator = Authenticator(_verifier(settings, keys), time.time, self.tokens)
        self._desk.set_ways(self.authenticator, settings.auth_ways)
        self.handshake = Handshake(
            self.authenticator,
            settings.origins,
            NameLimits(settings.max_streams, settings.max_name_bytes),
            compression=settings.compression,
        )


def _verifier(settings: Settings, keys: Sequence[VerificationKey]) -> TokenVerifier:
    audience = [name.strip() for name in settings.jwt_audience.split(",") if name.strip()]
    return TokenVerifier(
        keys,
        leeway_s=settings.jwt_leeway_s,
        issuer=settings.jwt_issuer or None,
        audience=audience or None,
    )
