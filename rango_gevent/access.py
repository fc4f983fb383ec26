"""Who is let in and who has to go, as the settings and the control messages say.

Builds the authenticator and the rules of the handshake. What has to outlive a reload lives here
too: what was counted, and which tokens were taken back.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import Callable, Mapping, Sequence

from rango_gevent.auth.authenticator import GOOD, Authenticator
from rango_gevent.auth.control import BAD, COMMANDS, REVOKE, Command, parse_commands
from rango_gevent.auth.keys import VerificationKey, described
from rango_gevent.auth.revocation import Revocations
from rango_gevent.auth.tokens import REASONS, TokenVerifier
from rango_gevent.auth.ways import Ways
from rango_gevent.delivery.registry import Registry
from rango_gevent.delivery.token_watch import POLICIES, ExpiryRules
from rango_gevent.metrics import from_zero
from rango_gevent.protocol.messages import NameLimits
from rango_gevent.remote import jwks, lookup
from rango_gevent.remote.fetch import Fetcher
from rango_gevent.remote.jwks import Jwks
from rango_gevent.remote.lookup import Lookup, LookupLimits
from rango_gevent.server.handshake import DoorRules, Handshake
from rango_gevent.server.paths import DIALECTS
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
        jwks: keys by a URL; None for none.
        lookup: who is asked about opaque tokens; None for nobody.
        control_key: routing key of the control messages; None for none.
        tokens: tokens that were looked at, by outcome.
        commands: control messages, by action.
    """

    def __init__(
        self, settings: Settings, keys: Sequence[VerificationKey], registry: Registry
    ) -> None:
        self._fetched: tuple[VerificationKey, ...] = ()
        self.jwks = _jwks(settings, self._take_keys)
        self.lookup = _lookup(settings)
        self._registry = registry
        self._said = ThrottledLog(log, _EVERY_S)
        self.tokens: Counter[str] = Counter()
        self.commands: Counter[str] = Counter()
        self.revocations = Revocations(settings.max_revocations)
        self.set(settings, keys)

    def set(self, settings: Settings, keys: Sequence[VerificationKey]) -> None:
        """Let in by these settings and keys from now on; who is in stays in."""
        self.keys = tuple(keys)
        self.control_key = settings.control_key or None
        self.revocations.most = settings.max_revocations
        self._verifier = _verifier(settings, self.keys + self._fetched)
        self.authenticator = Authenticator(
            self._verifier if self.keys or self.jwks is not None else None,
            time.time,
            self.tokens,
            revocations=self.revocations,
            look_up=None if self.lookup is None else self.lookup.identify,
            fetch_keys=None if self.jwks is None else self.jwks.learn,
        )
        self._registry.desk.set_ways(self.authenticator, settings.auth_ways)
        self._registry.heartbeat.tokens.rules = ExpiryRules(
            settings.token_expiry, settings.token_grace_s
        )
        self.handshake = Handshake(
            self.authenticator,
            settings.origins,
            NameLimits(settings.max_streams, settings.max_name_bytes),
            DoorRules(
                Ways(settings.auth_ways, settings.auth_cookie),
                settings.private_grace_s,
                settings.admin_login_s if settings.admin_roles else 0.0,
            ),
            compression=settings.compression,
            dialects=(*DIALECTS, "viabtc") if settings.viabtc else DIALECTS,
        )

    def _take_keys(self, keys: tuple[VerificationKey, ...]) -> None:
        """Trust the keys that were fetched, beside those that are set."""
        if keys != self._fetched:
            log.info("keys by JWT_JWKS_URL: %s", described(keys))
        self._fetched = keys
        self._verifier.set_keys(self.keys + keys)

    def control(self, body: bytes) -> None:
        """Do what a control message says; one that cannot be read is logged and counted."""
        try:
            commands = parse_commands(body)
        except ValueError as error:
            self.commands[BAD] += 1
            self._said.warning(BAD, "a control message is not understood: %s", error)
            return
        for command in commands:
            self._do(command)

    def reading(self) -> dict[str, float | Mapping[str, int]]:
        """Return what was counted, for a scrape."""
        values: dict[str, float | Mapping[str, int]] = {
            "rango_tokens": from_zero((GOOD, *REASONS), self.tokens),
            "rango_tokens_ended": from_zero(POLICIES, self._registry.heartbeat.tokens.ended),
            "rango_control_messages": from_zero(COMMANDS, self.commands),
            "rango_revocations": len(self.revocations),
            "rango_revocations_forgotten": self.revocations.forgotten,
        }
        if self.lookup is not None:
            values["rango_token_lookups"] = from_zero(lookup.OUTCOMES, self.lookup.outcomes)
            values["rango_token_answers"] = len(self.lookup)
        if self.jwks is not None:
            values["rango_jwks_fetches"] = from_zero(jwks.OUTCOMES, self.jwks.fetches)
        return values

    def _do(self, command: Command) -> None:
        self.commands[command.action] += 1
        uid = command.uid
        if command.action == REVOKE:
            before_s = time.time() if command.before_s is None else command.before_s
            self.revocations.revoke(uid, before_s)
            if self.lookup is not None:
                self.lookup.forget(uid)
            closed = self._registry.disconnect(self.revocations.cover)
        else:
            closed = self._registry.disconnect(lambda identity: identity.uid == uid)
        text = "control message: %s uid %r, %d connections"
        self._said.say(logging.INFO, command.action, text, command.action, uid, closed)


def _jwks(settings: Settings, take: Callable[[tuple[VerificationKey, ...]], None]) -> Jwks | None:
    if not settings.jwks_url:
        return None
    fetcher = Fetcher(settings.jwks_url, settings.auth_timeout_s)
    return Jwks(fetcher.get, take, settings.jwks_refresh_s)


def _lookup(settings: Settings) -> Lookup | None:
    if not settings.auth_url:
        return None
    fetcher = Fetcher(settings.auth_url, settings.auth_timeout_s, settings.auth_concurrency)
    return Lookup(lambda token: fetcher.get({"Authorization": token}), lookup_limits(settings))


def lookup_limits(settings: Settings) -> LookupLimits:
    """Return the bounds on asking a service whose something is."""
    return LookupLimits(
        timeout_s=settings.auth_timeout_s,
        at_once=settings.auth_concurrency,
        waiting=settings.auth_queue,
        good_s=settings.auth_cache_s,
        bad_s=settings.auth_negative_cache_s,
        kept=settings.auth_cached,
    )


def _verifier(settings: Settings, keys: Sequence[VerificationKey]) -> TokenVerifier:
    audience = [name.strip() for name in settings.jwt_audience.split(",") if name.strip()]
    return TokenVerifier(
        keys,
        leeway_s=settings.jwt_leeway_s,
        issuer=settings.jwt_issuer or None,
        audience=audience or None,
    )
