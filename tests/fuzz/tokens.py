"""Any token gives an Identity or a TokenError, and an Identity only if our key signed it.

The first byte says how the rest becomes a token: as it is, or as ``header NUL payload`` signed with
our key, with another one, or by HMAC with our public key as the secret.
"""

from __future__ import annotations

import base64
import hmac
import math

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from rango_gevent.auth.identity import Identity
from rango_gevent.auth.keys import load_public_key
from rango_gevent.auth.tokens import REASONS, TokenVerifier
from rango_gevent.auth.ways import bearer
from rango_gevent.errors import TokenError

_NOW_S = 1_700_000_000.0
_OURS = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)
_ANOTHER = Ed25519PrivateKey.from_private_bytes(b"\x02" * 32)
_PUBLIC_PEM = _OURS.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)
_PUBLIC_RAW = _OURS.public_key().public_bytes(
    serialization.Encoding.Raw, serialization.PublicFormat.Raw
)
_VERIFIER = TokenVerifier([load_public_key(_PUBLIC_PEM, "fuzz")])
_HEADER = b'{"alg":"EdDSA","typ":"JWT"}'


def check(data: bytes) -> None:
    """Make a token of the bytes and verify it, bare and as the header of a handshake."""
    if not data:
        return
    how, rest = data[0] % 5, data[1:]
    if how == 0:
        token = rest.decode("latin-1")
        verified = _verify(token)
        assert verified is None or token.rpartition(".")[0] in _SIGNED, "not signed by us"
        _check_bearer(token, verified)
        return
    header, _, payload = rest.partition(b"\0")
    verified = _verify(_token(how, header, payload))
    assert how == 1 or verified is None, "not signed by us"


def _check_bearer(token: str, verified: Identity | None) -> None:
    found = bearer(f"Bearer {token}")
    assert found in (token, None)
    assert verified is None or found == token


def _verify(token: str) -> Identity | None:
    """Return an identity that anybody can work with; None for a TokenError."""
    try:
        identity = _VERIFIER.verify(token, _NOW_S)
    except TokenError as error:
        _check_refusal(error)
        return None
    assert identity.uid is None or (identity.uid and identity.uid.encode())
    identity.role.encode()
    expires_at_s = identity.expires_at_s
    assert expires_at_s is None or (math.isfinite(expires_at_s) and expires_at_s > _NOW_S)
    return identity


def _check_refusal(error: TokenError) -> None:
    assert error.reason in REASONS
    assert str(error).isprintable()


def _token(how: int, header: bytes, payload: bytes) -> str:
    signed = f"{_base64(header)}.{_base64(payload)}"
    text = signed.encode()
    if how == 1:
        signature = _OURS.sign(text)
    elif how == 2:
        signature = _ANOTHER.sign(text)
    else:
        signature = hmac.digest(_PUBLIC_PEM if how == 3 else _PUBLIC_RAW, text, "sha256")
    return f"{signed}.{_base64(signature)}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


_TOKENS = tuple(
    _token(1, _HEADER, payload)
    for payload in (
        b'{"uid":"ID1","role":"admin","exp":1700000100}',
        b'{"uid":null}',
        b'{"uid":"ID2","nbf":1600000000,"iat":1.6e9}',
    )
)
_SIGNED = {token.rpartition(".")[0] for token in _TOKENS}

SEEDS = (
    *(b"\0" + token.encode() for token in _TOKENS),
    b"\0" + f"{_base64(b'{}')}.{_base64(b'{}')}.".encode(),
    b"\1" + _HEADER + b'\0{"uid":"ID1","role":"admin","exp":1700000100}',
    b"\1" + _HEADER + b'\0{"uid":"\\ud800","exp":1e999}',
    b"\1" + _HEADER + b'\0{"uid":1,"exp":NaN,"nbf":true}',
    b"\1" + b'{"alg":"EdDSA","kid":1,"crit":["b64"],"b64":false}\0{"iat":-1}',
    b"\1" + b'{"alg":"none"}\0{"uid":"ID1"}',
    b"\1[]\0[]",
    b"\2" + _HEADER + b'\0{"uid":"ID1"}',
    b"\3" + b'{"alg":"HS256"}\0{"uid":"ID1"}',
    b"\4" + b'{"alg":"HS256","jwk":{"kty":"oct","k":"AA"}}\0{"uid":"ID1"}',
)
WORDS = (
    b'"alg":', b'"EdDSA"', b'"HS256"', b'"none"', b'"kid":', b'"crit":', b'"b64":false', b'"jwk":',
    b'"uid":', b'"role":', b'"exp":', b'"nbf":', b'"iat":', b"1700000100", b"e308", b"NaN", b"null",
    b"\\ud800", b"\0", b"-", b"true", b"[]", b"{}",
)  # fmt: skip
