"""Public keys by a URL (JWKS, RFC 7517): fetched now and then, and when a token names a new one.

Only public keys for signatures count; a secret in such a list is public and verifies nothing.
While a fetch fails the keys of the last one stay good. However many tokens name keys that nobody
knows, the list is fetched for them once in a while only.
"""

from __future__ import annotations

import dataclasses
import logging
import random
import time
from collections import Counter
from typing import Any, Callable, Iterable

import gevent
import jwt
import msgspec
from gevent.event import AsyncResult

from rango_gevent.auth.keys import MAX_KEYS, VerificationKey, public_key_of
from rango_gevent.auth.tokens import header_of
from rango_gevent.errors import ConfigError
from rango_gevent.remote.fetch import Answer, Unreachable
from rango_gevent.throttle import ThrottledLog

log = logging.getLogger(__name__)

GOOD = "good"
FAILED = "failed"
OUTCOMES = (GOOD, FAILED)

_LEAST_S = 10.0  # between two fetches that tokens ask for
_RETRY_S = 5.0
_EVERY_S = 60.0


class Jwks:
    """The keys of a URL.

    Args:
        fetch: gets the list, may wait; raises `Unreachable`.
        take: told the keys whenever they have been fetched.
        refresh_s: seconds from one fetch to the next.
        now: monotonic time in seconds.

    Attributes:
        fetches: by outcome.
    """

    def __init__(
        self,
        fetch: Callable[[], Answer],
        take: Callable[[tuple[VerificationKey, ...]], None],
        refresh_s: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._take = take
        self._refresh_s = refresh_s
        self._now = now
        self._kids: frozenset[str] = frozenset()
        self._is_complete = False
        self._fetched_s = float("-inf")
        self._under_way: AsyncResult[None] | None = None
        self._told = ThrottledLog(log, _EVERY_S)
        self.fetches: Counter[str] = Counter()

    def run(self) -> None:
        """Fetch for ever, a fifth sooner or later so that instances do not meet."""
        while True:
            self.refresh()
            wait_s = self._refresh_s if self._is_complete else _RETRY_S
            gevent.sleep(wait_s * random.uniform(0.8, 1.2))

    def learn(self, token: str) -> bool:
        """Fetch the keys first when a token names one that is not known; may wait.

        Returns:
            True when the keys have been fetched at least once.

        Raises:
            TokenError: the token has no header.
        """
        kid = header_of(token).get("kid")
        if self._is_complete and (not isinstance(kid, str) or kid in self._kids):
            return True
        if self._under_way is not None or self._now() - self._fetched_s >= _LEAST_S:
            self.refresh()
        return self._is_complete

    def refresh(self) -> None:
        """Fetch the keys, or wait for who does already."""
        if self._under_way is None:
            self._under_way = AsyncResult()
            gevent.spawn(self._run, self._under_way)
        self._under_way.get()

    def _run(self, result: AsyncResult[None]) -> None:
        try:
            keys = read_keys(self._fetch())
        except (Unreachable, ValueError) as error:
            self.fetches[FAILED] += 1
            self._told.warning(FAILED, "keys could not be fetched from JWT_JWKS_URL: %s", error)
        else:
            self.fetches[GOOD] += 1
            self._is_complete = True
            self._kids = frozenset(key.kid for key in keys)
            self._take(keys)
        finally:
            self._fetched_s = self._now()
            self._under_way = None
            result.set(None)


def read_keys(answer: Answer) -> tuple[VerificationKey, ...]:
    """Return the keys of a list that can verify tokens; others are passed over.

    Raises:
        ValueError: it is no such list, or holds none.
    """
    if answer.status != 200:
        raise ValueError(f"status {answer.status}")
    try:
        said = msgspec.json.decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("not JSON") from None
    listed = said.get("keys") if isinstance(said, dict) else None
    if not isinstance(listed, list):
        raise ValueError("no list of keys")
    keys = tuple(_usable(listed))[:MAX_KEYS]
    if not keys:
        raise ValueError("no key in it can verify tokens")
    return keys


def _usable(listed: Iterable[Any]) -> Iterable[VerificationKey]:
    for jwk in listed:
        if isinstance(jwk, dict) and jwk.get("use", "sig") == "sig":
            key = _key_of(jwk)
            if key is not None:
                yield key


def _key_of(jwk: dict[str, Any]) -> VerificationKey | None:
    kid, algorithm = jwk.get("kid", ""), jwk.get("alg")
    plain = {name: value for name, value in jwk.items() if name != "alg"}  # its kind decides
    try:
        key = public_key_of(jwt.PyJWK(plain).key, kid if isinstance(kid, str) else "", "a JWK")
    except (jwt.PyJWTError, ConfigError, ValueError, TypeError, KeyError):
        return None
    if algorithm is None:
        return key
    fits = algorithm in key.algorithms
    return dataclasses.replace(key, algorithms=(algorithm,)) if fits else None
