"""Who is let in and who has to go, as the settings and the control messages say.

Builds the authenticator and the rules of the handshake. What has to outlive a reload lives here
too: what was counted, and which tokens were taken back.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import Sequence

from rango_gevent.auth.authenticator import Authenticator
from rango_gevent.auth.control import BAD, REVOKE, Command, parse_commands
from rango_gevent.auth.keys import VerificationKey
from rango_gevent.auth.revocation import Revocations
from rango_gevent.auth.tokens import TokenVerifier
from rango_gevent.auth.ways import Ways
from rango_gevent.delivery.registry import Registry
from rango_gevent.delivery.token_watch import ExpiryRules
from rango_gevent.protocol.messages import NameLimits
from rango_gevent.server.handshake import DoorRules, Handshake
from rango_gevent.settings import Settings
from rango_gevent.throttle import ThrottledLog

log = logging.getLogger(__name__)

_EVERY_S = 1.0


class Access:
    """The doors of one gateway.

    Args:
        settings: what to run with.
        keys: what tokens are checked with.
        registry: whose clients authenticate, and may have to go.

    Attributes:
        keys: the same.
        authenticator: tells who a token belongs to.
        handshake: decides about newcomers.
        revocations: tokens that were taken back.
        control_key: routing key of the control messages; None for none.
        tokens: tokens that were looked at, by outcome.
        commands: control messages, by action.
    """

    def __init__(
        self, settings: Settings, keys: Sequence[VerificationKey], registry: Registry
    ) -> None:
        self._registry = registry
        self._bad_commands = ThrottledLog(log, _EVERY_S)
        self.tokens: Counter[str] = Counter()
        self.commands: Counter[str] = Counter()
        self.revocations = Revocations(settings.max_revocations)
        self.set(settings, keys)

    def set(self, settings: Settings, keys: Sequence[VerificationKey]) -> None:
        """Let in by these settings and keys from now on; who is in stays in."""
        self.keys = tuple(keys)
        self.control_key = settings.control_key or None
        self.revocations.most = settings.max_revocations
        self.authenticator = Authenticator(
            _verifier(settings, keys), time.time, self.tokens, revocations=self.revocations
        )
        self._registry.desk.set_ways(self.authenticator, settings.auth_ways)
        self._registry.heartbeat.tokens.rules = ExpiryRules(
            settings.token_expiry, settings.token_grace_s
        )
        self.handshake = Handshake(
            self.authenticator,
            settings.origins,
            NameLimits(settings.max_streams, settings.max_name_bytes),
            DoorRules(Ways(settings.auth_ways, settings.auth_cookie), settings.private_grace_s),
            compression=settings.compression,
        )

    def control(self, body: bytes) -> None:
        """Do what a control message says; one that cannot be read is logged and counted."""
        try:
            commands = parse_commands(body)
        except ValueError as error:
            self.commands[BAD] += 1
            self._bad_commands.warning(BAD, "a control message is not understood: %s", error)
            return
        for command in commands:
            self._do(command)

    def _do(self, command: Command) -> None:
        self.commands[command.action] += 1
        uid = command.uid
        if command.action == REVOKE:
            before_s = time.time() if command.before_s is None else command.before_s
            self.revocations.revoke(uid, before_s)
            closed = self._registry.disconnect(self.revocations.cover)
        else:
            closed = self._registry.disconnect(lambda identity: identity.uid == uid)
        log.info("control message: %s uid %r, %d connections", command.action, uid, closed)


def _verifier(settings: Settings, keys: Sequence[VerificationKey]) -> TokenVerifier:
    audience = [name.strip() for name in settings.jwt_audience.split(",") if name.strip()]
    return TokenVerifier(
        keys,
        leeway_s=settings.jwt_leeway_s,
        issuer=settings.jwt_issuer or None,
        audience=audience or None,
    )
