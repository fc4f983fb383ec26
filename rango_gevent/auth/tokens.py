"""JSON Web Tokens: from a text to an identity, and a token for tests and the command line.

PyJWT checks the signature; the claims are checked here, because PyJWT reads the clock itself and
here the time is an argument. The rules:

* The allowed algorithms come with each key. ``none`` is never among them, and a shared secret
  verifies HMAC alone, so no public key can be taken for one.
* Of what a token's header offers to help with, ``kid`` and ``alg`` choose among the keys that are
  trusted already, and only where there are several; ``jku``, ``jwk`` and ``x5c`` choose nothing.
  ``crit`` is refused, since no extension is supported (RFC 7515 section 4.1.11), and so is a
  ``kid`` that is not text.
* Only an `Identity` leaves this module; a token or a claim never gets into an error.
"""

from __future__ import annotations

import base64
import json
import math
import re
from typing import Any, Iterable, Mapping, NoReturn, Sequence

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from jwt.algorithms import OKPAlgorithm
from nacl.bindings import crypto_sign_BYTES, crypto_sign_open
from nacl.exceptions import BadSignatureError

from rango_gevent.auth.identity import Identity
from rango_gevent.auth.keys import SigningKey, VerificationKey
from rango_gevent.errors import TokenError

DEFAULT_MAX_BYTES = 8192

# RFC 7515 section 7.1: three parts of base64url without padding. PyJWT's own strictness differs
# from version to version. The last part may be empty, so that `none` is refused for what it is.
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")

# The same with only one writing of each text: spare bits of a last character are zero (RFC 4648
# section 3.5).
_PART = "(?:[A-Za-z0-9_-]{4})*(?:[A-Za-z0-9_-][AQgw]|[A-Za-z0-9_-]{2}[AEIMQUYcgkosw048])?"
_CANONICAL = re.compile(rf"(?!\.){_PART}\.(?!\.){_PART}\.{_PART}")

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")

MALFORMED = "malformed"
SIGNATURE = "signature"
EXPIRED = "expired"
NOT_YET_VALID = "not yet valid"
ISSUER = "issuer"
AUDIENCE = "audience"
NO_UID = "no uid"
REVOKED = "revoked"
UNAVAILABLE = "unavailable"
REASONS = (
    MALFORMED,
    SIGNATURE,
    EXPIRED,
    NOT_YET_VALID,
    ISSUER,
    AUDIENCE,
    NO_UID,
    REVOKED,
    UNAVAILABLE,
)
"""Every value that ``TokenError.reason`` can have: what clients are told, and labels."""

# What PyJWT raises, the narrow ones first: the reason and the text for people.
_REFUSALS: tuple[tuple[type[Exception], str, str], ...] = (
    (jwt.InvalidAlgorithmError, SIGNATURE, "the token's algorithm does not fit the key"),
    (jwt.InvalidSignatureError, SIGNATURE, "the token's signature does not fit the key"),
    (jwt.DecodeError, MALFORMED, "the token is malformed"),
    (jwt.InvalidTokenError, MALFORMED, "the token's header is not supported"),
    (Exception, MALFORMED, "the token is malformed"),
)


class _Jws(jwt.PyJWS):
    """PyJWT's reader without its look at each character, which `_CANONICAL` has had."""

    # hot path: 20 of the 140 us of a token were spent here. Where PyJWT has no such method, or
    # names it otherwise one day, its own look is just taken again.
    @staticmethod
    def _decode_base64url_segment(segment: bytes, name: str) -> bytes:
        return base64.urlsafe_b64decode(segment + b"=" * (-len(segment) % 4))


class _Sodium(OKPAlgorithm):
    """EdDSA for one Ed25519 key by libsodium, in half of OpenSSL's time.

    What it accepts OpenSSL accepts too; it refuses a few more, such as keys of a small order.
    """

    # hot path: the signature is most of what a token costs, 55 us of 75 (105 of 125 by OpenSSL)
    def __init__(self, key: Ed25519PublicKey) -> None:
        super().__init__()
        self._key = key.public_bytes_raw()

    def verify(self, msg: Any, key: object, sig: Any) -> bool:
        """Tell whether a signature is the key's (RFC 8032 section 5.1.7); both are bytes here."""
        if len(sig) != crypto_sign_BYTES:
            return False  # the call below takes so many bytes for it, whatever follows
        try:
            crypto_sign_open(sig + msg, self._key)
        except BadSignatureError:
            return False
        return True


class _Check:
    """One key, and the only code that may use it."""

    def __init__(self, key: VerificationKey) -> None:
        self.key = key
        self.algorithms = list(key.algorithms)
        # An instance of our own knows the key's algorithms and no others, so a token that names
        # another finds no code that could accept it, even if the list above were wrong.
        self._jws = _Jws(algorithms=self.algorithms)
        if isinstance(key.key, Ed25519PublicKey):
            self._jws.unregister_algorithm("EdDSA")
            self._jws.register_algorithm("EdDSA", _Sodium(key.key))

    def signed(self, token: str) -> dict[str, Any]:
        """Return header and payload once the signature is proven; raises what PyJWT raises."""
        found: dict[str, Any] = self._jws.decode_complete(
            token, self.key.key, algorithms=self.algorithms
        )
        return found


class TokenVerifier:
    """Verify tokens with the keys that are trusted now.

    Args:
        keys: each decides which algorithms are allowed for it.
        leeway_s: seconds by which clocks may differ, for exp, nbf and iat.
        issuer: the ``iss`` that a token must have; None accepts any or none.
        audience: a token's ``aud`` must name it, or one of them; None accepts any or none.
        max_bytes: longest token that is looked at, in bytes.
    """

    def __init__(
        self,
        keys: Iterable[VerificationKey],
        *,
        leeway_s: float = 0,
        issuer: str | None = None,
        audience: str | Sequence[str] | None = None,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> None:
        self.set_keys(keys)
        self._leeway_s = leeway_s
        self._issuer = issuer
        self._audience = (audience,) if isinstance(audience, str) else audience
        self._max_bytes = max_bytes

    def set_keys(self, keys: Iterable[VerificationKey]) -> None:
        """Trust these keys from now on, and no others."""
        self._checks = [_Check(key) for key in keys]
        self._kids = {check.key.kid for check in self._checks} - {""}

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
        expires_at_s = self._check_times(claims, now_s)
        self._check_issuer(claims)
        self._check_audience(claims)
        uid, role = _text(claims, "uid") or None, _text(claims, "role")
        return Identity(uid, role, expires_at_s, _seconds(claims, "iat"))

    def _signed_payload(self, token: str) -> bytes:
        """Return the payload once the signature is proven."""
        if len(token) > self._max_bytes:
            raise TokenError("the token is too large", MALFORMED)
        if not _CANONICAL.fullmatch(token):
            _malformed()
        refusal = TokenError("no key fits the token", SIGNATURE)
        for check in self._fitting(token):
            try:
                jws = check.signed(token)
            except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
                refusal = _refusal(error)
                continue
            header = jws["header"]
            if "crit" in header or not isinstance(header.get("kid", ""), str):
                raise TokenError("the token's header is not supported", MALFORMED)
            payload: bytes = jws["payload"]
            return payload
        raise refusal  # outside the handler: PyJWT's error may quote the header

    def _fitting(self, token: str) -> Sequence[_Check]:
        """Return the keys to try: with one there is no choice, and a header has no say."""
        if len(self._checks) == 1:
            return self._checks
        header = header_of(token)
        kid, algorithm = header.get("kid"), header.get("alg")
        checks = self._checks
        if isinstance(kid, str) and kid in self._kids:
            checks = [check for check in checks if check.key.kid == kid]
        return [check for check in checks if algorithm in check.algorithms]

    def _check_times(self, claims: Mapping[str, Any], now_s: float) -> float | None:
        """Check exp, nbf and iat (RFC 7519 section 4.1); return the moment of expiry."""
        latest_start = now_s + self._leeway_s
        for name in ("nbf", "iat"):
            start = _seconds(claims, name)
            if start is not None and start > latest_start:
                raise TokenError("the token is not valid yet", NOT_YET_VALID)
        exp = _seconds(claims, "exp")
        if exp is None:
            return None
        expires_at_s = exp + self._leeway_s
        if now_s >= expires_at_s:
            raise TokenError("the token has expired", EXPIRED)
        return expires_at_s

    def _check_issuer(self, claims: Mapping[str, Any]) -> None:
        if self._issuer is not None and claims.get("iss") != self._issuer:
            raise TokenError("the token is from another issuer", ISSUER)

    def _check_audience(self, claims: Mapping[str, Any]) -> None:
        if self._audience is None:
            return
        named = claims.get("aud")
        if isinstance(named, str):
            named = [named]
        if not isinstance(named, list) or not any(one in named for one in self._audience):
            raise TokenError("the token is for another audience", AUDIENCE)


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
    raise TokenError("the token is malformed", MALFORMED)


def header_of(token: str) -> dict[str, Any]:
    """Return a token's header, which nobody has checked: a hint, never a proof.

    Raises:
        TokenError: it is not a JSON object.
    """
    part = token.partition(".")[0]
    try:
        header = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        _malformed()
    return header


def is_compact(token: str) -> bool:
    """Tell whether a text has the form of a JWT; any other is a token of another kind."""
    return _COMPACT.fullmatch(token) is not None


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
