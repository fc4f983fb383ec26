"""Whose a token is, as a gateway would say: for ``token --check`` and ``doctor``.

A gateway also knows which tokens were revoked; that is told to it by message, and not here.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from datetime import datetime, timezone
from typing import Sequence

from rango_gevent import access
from rango_gevent.auth.authenticator import Authenticator
from rango_gevent.auth.identity import Identity
from rango_gevent.auth.keys import VerificationKey
from rango_gevent.auth.tokens import (
    AUDIENCE,
    EXPIRED,
    ISSUER,
    MALFORMED,
    NOT_YET_VALID,
    SIGNATURE,
    UNAVAILABLE,
)
from rango_gevent.commands.findings import FAIL, OK, WARN, Finding
from rango_gevent.commands.terminal import escaped, print_findings
from rango_gevent.environment import load_keys
from rango_gevent.errors import ConfigError, TokenError
from rango_gevent.settings import Settings

_MOST_READ = 1 << 20
_CURES = {
    MALFORMED: "give the whole JWT, three parts with dots between, without quotes",
    SIGNATURE: "set JWT_PUBLIC_KEY to the public key of whoever signs, or sign with its private "
    "key; the gateway's keys: {keys}",
    EXPIRED: "get a new one; if it is new, compare the clocks of both machines",
    NOT_YET_VALID: "compare the clocks of both machines; RANGO_JWT_LEEWAY_S is their difference",
    ISSUER: "JWT_ISSUER is {issuer}: have tokens issued so, or change it",
    AUDIENCE: "JWT_AUDIENCE is {audience}: have tokens made for it, or change it",
    UNAVAILABLE: "see whether JWT_JWKS_URL and RANGO_AUTH_URL can be reached from here",
}


def check(words: Sequence[str], settings: Settings) -> int:
    """Say whose a token is; it is never printed.

    Args:
        words: the token, with or without the word before it; none, or ``-``: standard input.
        settings: the gateway's.

    Returns:
        0 when it is good, 1 when not.

    Raises:
        ConfigError: there is no key or no token.
    """
    given = " ".join(words)
    if given in ("", "-"):
        given = sys.stdin.buffer.read(_MOST_READ).decode("utf-8", "replace")
    if not given.strip():
        raise ConfigError("token --check: no token came; give it on standard input")
    return print_findings([examine(settings, given)])


def examine(settings: Settings, token: str) -> Finding:
    """Say whose a token is, or why it is nobody's; the token itself is never in it.

    Raises:
        ConfigError: there is no key, or one that is none.
    """
    keys = load_keys(settings)
    try:
        identity = _authenticator(settings, keys).identify(bare(token))
    except TokenError as error:
        cure = _CURES.get(error.reason, "").format(
            keys=", ".join(map(str, [*keys, *settings.asked])),
            issuer=settings.jwt_issuer,
            audience=settings.jwt_audience,
        )
        return Finding(FAIL, f"token: {error.reason}: {error}", cure)
    return _described(identity, time.time())


def bare(token: str) -> str:
    """Return a token without the word in front of it and white space around."""
    word, _, rest = token.strip().partition(" ")
    return rest.strip() if word.lower() == "bearer" else token.strip()


def _authenticator(settings: Settings, keys: Sequence[VerificationKey]) -> Authenticator:
    verifier = access.verifier_of(settings, keys)
    jwks = access.jwks_of(settings, lambda fetched: verifier.set_keys([*keys, *fetched]))
    lookup = access.lookup_of(settings)
    return Authenticator(
        verifier if keys or jwks is not None else None,
        time.time,
        Counter(),
        look_up=None if lookup is None else lookup.identify,
        fetch_keys=None if jwks is None else jwks.learn,
    )


def _described(identity: Identity, now_s: float) -> Finding:
    who = [f"uid {identity.uid}" if identity.uid else "no uid"]
    who.append(f"role {identity.role}" if identity.role else "no role")
    text = escaped(f"token: {', '.join(who)}, {_until(identity.expires_at_s, now_s)}")
    if identity.uid is None:
        return Finding(WARN, text, "private streams need a uid: have the signer put one in")
    return Finding(OK, text)


def _until(expires_at_s: float | None, now_s: float) -> str:
    if expires_at_s is None:
        return "never expires"
    left = f"{expires_at_s - now_s:.0f} s left"
    try:
        moment = datetime.fromtimestamp(expires_at_s, timezone.utc)
    except (ValueError, OverflowError, OSError):  # past the calendar's end
        return left
    return f"until {moment:%Y-%m-%d %H:%M:%S} UTC, {left}"
