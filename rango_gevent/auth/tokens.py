"""JSON Web Tokens: from a header's text to an identity, and a token for tests and the command line.

PyJWT checks the signature; the claims are checked here, because PyJWT reads the clock itself and
here the time is an argument. The rules:

* The allowed algorithms come with the key. ``none`` and the HMAC family are never among them.
* What a token's header offers to help with (``kid``, ``jku``, ``jwk``, ``x5c``) chooses nothing;
  ``crit`` is refused, since no extension is supported (RFC 7515 section 4.1.11), and so is a
  ``kid`` that is not text.
* Only ``uid``, ``role`` and the time of expiry leave this module; a token or a claim never gets
  into an error.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Mapping, NamedTuple, NoReturn, Sequence

import jwt

from rango_gevent.auth.keys import SigningKey, VerificationKey
from rango_gevent.errors import TokenError

DEFAULT_MAX_BYTES = 8192
_BEARER = "bearer "

# RFC 7515 section 7.1: three parts of base64url without padding. PyJWT's own strictness differs
# from version to version. The last part may be empty, so that `none` is refused for what it is.
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")

# What PyJWT raises, the narrow ones first: the machine word and the text for people.
_REFUSALS: tuple[tuple[type[Exception], str, str], ...] = (
    (jwt.InvalidAlgorithmError, "bad_algorithm", "the token's algorithm does not fit the key"),
    (jwt.InvalidSignatureError, "bad_signature", "the token's signature does not fit the key"),
    (jwt.DecodeError, "malformed", "the token is malformed"),
    (jwt.InvalidTokenError, "bad_header", "the token's header is not supported"),
    (Exception, "malformed", "the token is malformed"),
)

REASONS = frozenset(
    {
        "bad_algorithm",
        "bad_audience",
        "bad_header",
        "bad_issuer",
        "bad_signature",
        "expired",
        "malformed",
        "not_yet_valid",
        "too_large",
    }
)
"""Every value that ``TokenError.reason`` can have here, for metrics that bind labels once."""


class Identity(NamedTuple):
    """Who a connection belongs to, as a verified token says.

    A tuple because there is one per connection: no ``__dict__``, and nobody can change it.

    Args:
        uid: the user; None means anonymous.
        role: the role for prefixed streams; empty if the token has none.
        expires_at: the first moment, in seconds since the epoch and with the leeway included, at
            which the token no longer verifies; None if never. Any finite number, however large.
    """

    uid: str | None
    role: str
    expires_at: float | None


ANONYMOUS = Identity(None, "", None)


class TokenVerifier:
    """Verify tokens with one key.

    Args:
        key: the public key; it decides which algorithms are allowed.
        leeway_s: seconds by which clocks may differ, for exp, nbf and iat.
        issuer: the ``iss`` that a token must have; None accepts any or none.
        audience: a token's ``aud`` must name it, or one of them; None accepts any or none.
        max_bytes: longest token that is looked at, in bytes.
    """

    def __init__(
        self,
        key: VerificationKey,
        *,
        leeway_s: float = 0,
        issuer: str | None = None,
        audience: str | Sequence[str] | None = None,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> None:
        self._key = key.key
        self._algorithms = list(key.algorithms)
        # An instance of our own knows the key's algorithms and no others, so an HMAC or `none`
        # token finds no code that could accept it, even if the list below were wrong.
        self._jws = jwt.PyJWS(algorithms=self._algorithms)
        self._leeway_s = leeway_s
        self._issuer = issuer
        self._audience = (audience,) if isinstance(audience, str) else audience
        self._max_bytes = max_bytes

    def verify(self, token: str, now_s: float) -> Identity:
        """Check signature, times, issuer and audience of a token.

        Args:
            token: the compact JWS form, without ``Bearer``.
            now_s: the present, in seconds since the epoch.

        Returns:
            The identity; its uid is None when the token has none or an empty one.

        Raises:
            TokenError: the token is not valid; ``reason`` is one of `REASONS`.
        """
        claims = _claims(self._signed_payload(token))
        expires_at = self._check_times(claims, now_s)
        self._check_issuer(claims)
        self._check_audience(claims)
        return Identity(_text(claims, "uid") or None, _text(claims, "role"), expires_at)

    def _signed_payload(self, token: str) -> bytes:
        """Return the payload once the signature is proven."""
        if len(token) > self._max_bytes:
            raise TokenError("the token is too large", "too_large")
        if not _COMPACT.fullmatch(token):
            _malformed()
        try:
            jws = self._jws.decode_complete(token, self._key, algorithms=self._algorithms)
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            refusal = _refusal(error)
        else:
            header = jws["header"]
            if "crit" in header or not isinstance(header.get("kid", ""), str):
                raise TokenError("the token's header is not supported", "bad_header")
            payload: bytes = jws["payload"]
            return payload
        raise refusal  # outside the handler: PyJWT's error may quote the header

    def _check_times(self, claims: Mapping[str, Any], now_s: float) -> float | None:
        """Check exp, nbf and iat (RFC 7519 section 4.1); return the moment of expiry."""
        latest_start = now_s + self._leeway_s
        for name in ("nbf", "iat"):
            start = _seconds(claims, name)
            if start is not None and start > latest_start:
                raise TokenError("the token is not valid yet", "not_yet_valid")
        exp = _seconds(claims, "exp")
        if exp is None:
            return None
        expires_at = exp + self._leeway_s
        if now_s >= expires_at:
            raise TokenError("the token has expired", "expired")
        return expires_at

    def _check_issuer(self, claims: Mapping[str, Any]) -> None:
        if self._issuer is not None and claims.get("iss") != self._issuer:
            raise TokenError("the token is from another issuer", "bad_issuer")

    def _check_audience(self, claims: Mapping[str, Any]) -> None:
        if self._audience is None:
            return
        named = claims.get("aud")
        if isinstance(named, str):
            named = [named]
        if not isinstance(named, list) or not any(one in named for one in self._audience):
            raise TokenError("the token is for another audience", "bad_audience")


def bearer(header_value: str | None) -> str | None:
    """Return the token of an Authorization header, or None if it does not hold exactly one.

    The word ``Bearer`` may be in any case (RFC 9110 section 11.1); one space follows it.
    """
    if header_value is None or header_value[: len(_BEARER)].lower() != _BEARER:
        return None
    token = header_value[len(_BEARER) :]
    return token if token.split() == [token] else None


def forge(private_key: SigningKey, claims: Mapping[str, object], now_s: float, ttl_s: float) -> str:
    """Sign a token like Barong's, Openware's authentication server.

    Args:
        private_key: signs, and decides the algorithm.
        claims: override the defaults; a claim that is None is left out.
        now_s: the time of issue, in seconds since the epoch.
        ttl_s: seconds until it expires.
    """
    merged: dict[str, object] = {
        "iat": int(now_s),
        "exp": int(now_s + ttl_s),
        "sub": "session",
        "iss": "barong",
        "aud": ["peatio", "barong"],
        "uid": "ID0000000001",
        "email": "trader@example.com",
        "role": "member",
        "level": 3,
        "state": "active",
        **claims,
    }
    payload = json.dumps({name: value for name, value in merged.items() if value is not None})
    return jwt.PyJWS().encode(payload.encode(), private_key.key, private_key.algorithm)


def _refusal(error: Exception) -> TokenError:
    """Translate what PyJWT raised; its own text is dropped, it may quote the token."""
    reason, text = next((r, t) for kind, r, t in _REFUSALS if isinstance(error, kind))
    return TokenError(text, reason)


def _malformed(_: object = None) -> NoReturn:
    raise TokenError("the token is malformed", "malformed")


# Python's JSON reader takes NaN and Infinity, which are not JSON.
_JSON = json.JSONDecoder(parse_constant=_malformed)


def _claims(payload: bytes) -> dict[str, Any]:
    """Parse the payload, which must be a JSON object in UTF-8."""
    try:
        claims = _JSON.decode(payload.decode("utf-8"))
    except (ValueError, RecursionError):
        claims = None
    if not isinstance(claims, dict):
        _malformed()
    return claims


def _seconds(claims: Mapping[str, Any], name: str) -> float | None:
    """Return a NumericDate, None if it is absent; anything but a finite number is malformed."""
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        _malformed()
    try:
        seconds = float(value)
    except OverflowError:  # an integer of more than 308 digits
        seconds = math.inf
    if not math.isfinite(seconds):
        _malformed()
    return seconds


def _text(claims: Mapping[str, Any], name: str) -> str:
    """Return a text claim; absent and null are empty, as in Go, any other kind is malformed.

    A lone surrogate is refused here, since it would fail later wherever the text is encoded.
    """
    value = claims.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or _LONE_SURROGATE.search(value):
        _malformed()
    return value
