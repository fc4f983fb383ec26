"""The authenticator: whom it asks about which token, and what has been taken back."""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import Any

import pytest

from rango_gevent.auth.authenticator import Authenticator
from rango_gevent.auth.identity import Identity
from rango_gevent.auth.keys import SigningKey, VerificationKey, generate, load_private_key
from rango_gevent.auth.keys import load_public_key as load
from rango_gevent.auth.revocation import Revocations
from rango_gevent.auth.tokens import REASONS, TokenVerifier, forge
from rango_gevent.errors import TokenError
from rango_gevent.protocol import codes

NOW = 1_700_000_000.0


@cache
def pair() -> tuple[SigningKey, VerificationKey]:
    """Return a key pair, made once."""
    private, public = generate()
    return load_private_key(private), load(public, "test")


def token(**claims: Any) -> str:
    """Return a token that is valid now."""
    return forge(pair()[0], {"uid": "ID1", **claims}, NOW, 60)


def authenticator(counts: Counter[str] | None = None, **more: Any) -> Authenticator:
    """Return one that knows the key of the pair."""
    outcomes = Counter() if counts is None else counts
    return Authenticator(TokenVerifier([pair()[1]]), lambda: NOW, outcomes, **more)


def refusal(someone: Authenticator, token: str) -> str:
    """Return why a token is refused."""
    with pytest.raises(TokenError) as caught:
        someone.identify(token)
    return caught.value.reason


def test_every_reason_has_a_number() -> None:
    """Clients are told the one, or both."""
    assert tuple(codes.OF_TOKENS) == REASONS
    assert list(codes.OF_TOKENS.values()) == list(range(1201, 1210))


def test_tokens_are_counted() -> None:
    """By outcome, for the metrics."""
    counts: Counter[str] = Counter()
    someone = authenticator(counts)
    assert someone.identify(token()).uid == "ID1"
    assert refusal(someone, token(exp=1)) == "expired"
    assert refusal(someone, "opaque") == "malformed"
    assert counts == {"good": 1, "expired": 1, "malformed": 1}


def test_what_is_no_jwt_is_looked_up() -> None:
    """The other service is asked about tokens that are not signed, and never about others."""
    asked: list[str] = []

    def look_up(token: str) -> Identity:
        asked.append(token)
        return Identity("ID7", "", None)

    someone = authenticator(look_up=look_up)
    assert someone.identify("opaque").uid == "ID7"
    assert someone.identify(token()).uid == "ID1"
    assert refusal(someone, token(exp=1)) == "expired"
    assert asked == ["opaque"]
    alone = Authenticator(None, lambda: NOW, Counter(), look_up=look_up)
    assert alone.identify("a.b.c").uid == "ID7", "without keys every token is looked up"


def test_keys_are_fetched_before_they_are_needed() -> None:
    """With the token, whose header says which key it wants."""
    asked: list[str] = []
    sent = token()
    authenticator(fetch_keys=asked.append).identify(sent)
    assert asked == [sent]


def test_a_revoked_token_is_refused() -> None:
    """Those of before a time, of that user alone; a later log-in goes on."""
    taken_back = Revocations(10)
    someone = authenticator(revocations=taken_back)
    taken_back.revoke("ID1", NOW)
    assert someone.identify(token()).uid == "ID1"
    assert refusal(someone, token(iat=int(NOW) - 1)) == "revoked"
    assert refusal(someone, token(iat=None)) == "revoked", "it does not say when it was issued"
    assert someone.identify(token(uid="ID2", iat=None)).uid == "ID2"
    assert someone.identify(token(uid=None, iat=None)).uid is None


def test_revocations_are_bounded() -> None:
    """The first to be revoked is forgotten; an earlier time does not undo a later one."""
    taken_back = Revocations(2)
    taken_back.revoke("a", 10)
    taken_back.revoke("b", 10)
    taken_back.revoke("a", 5)
    taken_back.revoke("c", 10)
    assert len(taken_back) == 2
    assert taken_back.forgotten == 1
    assert taken_back.cover(Identity("a", "", None, 9))
    assert not taken_back.cover(Identity("b", "", None, 9))
    assert not taken_back.cover(Identity("a", "", None, 10))
