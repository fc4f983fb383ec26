"""Tokens: who gets in, who is refused and with which word; every known attack is refused."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
import json
from functools import cache
from typing import Any, Callable

import jwt
import pytest
from cryptography.hazmat.primitives import serialization as ser
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rango_gevent.auth.identity import ANONYMOUS, Identity
from rango_gevent.auth.keys import (
    SigningKey,
    VerificationKey,
    generate,
    load_private_key,
    load_public_key,
    load_secret,
)
from rango_gevent.auth.tokens import (
    REASONS,
    TokenVerifier,
    forge,
)
from rango_gevent.auth.ways import bearer
from rango_gevent.errors import RangoError, TokenError

NOW = 1_700_000_000.5
MAKERS: dict[str, Callable[[], Any]] = {
    "EdDSA": lambda: ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32))),
    "RS256": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ES384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ES512": lambda: ec.generate_private_key(ec.SECP521R1()),
}
KINDS = list(MAKERS)


@cache
def pair(kind: str) -> tuple[SigningKey, VerificationKey, str]:
    """Return the private key, the public key and its PEM, one pair for each algorithm."""
    private = MAKERS[kind]()
    pem = private.private_bytes(ser.Encoding.PEM, ser.PrivateFormat.PKCS8, ser.NoEncryption())
    form = ser.PublicFormat.SubjectPublicKeyInfo
    public = private.public_key().public_bytes(ser.Encoding.PEM, form).decode()
    return load_private_key(pem), load_public_key(public, "test"), public


def verifier(kind: str = "EdDSA", **options: Any) -> TokenVerifier:
    """Return a verifier for the pair of `kind`."""
    return TokenVerifier([pair(kind)[1]], **options)


def part(value: object) -> str:
    """Encode one part of a token: bytes as they are, anything else as JSON."""
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed(payload: object, header: object = None, kind: str = "EdDSA") -> str:
    """Sign by hand with the true key: any header, any payload, whatever a library would say."""
    key = pair(kind)[0]
    body = f"{part(header or {'alg': key.algorithm, 'typ': 'JWT'})}.{part(payload)}"
    signature = jwt.get_algorithm_by_name(key.algorithm).sign(body.encode(), key.key)
    return f"{body}.{part(signature)}"


def refusal(token: str, now_s: float = NOW, kind: str = "EdDSA", **options: Any) -> str:
    """Return the reason for which a token is refused; its text must repeat nothing of it."""
    with pytest.raises(TokenError) as caught:
        verifier(kind, **options).verify(token, now_s)
    error = caught.value
    assert error.reason in REASONS
    assert error.__context__ is None  # a chained error could quote a header or a claim
    assert not [bit for bit in token.split(".") if len(bit) > 3 and bit in str(error)]
    return error.reason


@pytest.mark.parametrize("kind", KINDS)
def test_a_forged_token_verifies(kind: str) -> None:
    """Each kind of key verifies what its private half signs."""
    token = forge(pair(kind)[0], {"uid": "ID1", "role": "admin"}, NOW, 3600)
    expected = Identity("ID1", "admin", int(NOW) + 3600)
    assert verifier(kind).verify(token, NOW) == expected._replace(issued_at_s=int(NOW))


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512"])
def test_an_rsa_key_verifies_each_rs_algorithm(algorithm: str) -> None:
    """All three hash sizes of PKCS#1 v1.5 are accepted."""
    token = jwt.encode({"uid": "ID1"}, pair("RS256")[0].key, algorithm)
    assert verifier("RS256").verify(token, NOW).uid == "ID1"


def test_the_example_of_rfc_8037_has_a_good_signature() -> None:
    """The signed example of RFC 8037 appendix A.4 passes the signature check; it is no JWT."""
    x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo="
    body = base64.b64encode(base64.urlsafe_b64decode(x)).decode()
    pem = f"-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----"
    token = (
        "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc."
        "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
    )
    check = TokenVerifier([load_public_key(pem, "RFC 8037")])
    with pytest.raises(TokenError) as caught:
        check.verify(token, NOW)
    assert caught.value.reason == "malformed"
    with pytest.raises(TokenError) as caught:
        check.verify(token.replace("hgyY", "hgyZ"), NOW)
    assert caught.value.reason == "signature"


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({}, ANONYMOUS),
        ({"uid": "ID1"}, Identity("ID1", "", None)),
        ({"uid": ""}, ANONYMOUS),
        ({"uid": None, "role": None}, ANONYMOUS),
        ({"role": "admin"}, Identity(None, "admin", None)),
        ({"uid": "Ünïcode ☃ 𝄞", "role": "роль"}, Identity("Ünïcode ☃ 𝄞", "роль", None)),
        ({"uid": "ID1", "level": "odd", "aud": 5, "iss": []}, Identity("ID1", "", None)),
        ({"UID": "ID2", "Role": "admin"}, ANONYMOUS),
        ({"uid": "ID1", "sub": 5, "jti": 5}, Identity("ID1", "", None)),
    ],
)
def test_identity_is_taken_from_uid_and_role(claims: dict[str, Any], expected: Identity) -> None:
    """Only uid, role and exp count; other claims may be anything."""
    assert verifier().verify(signed(claims), NOW) == expected


@pytest.mark.parametrize("value", [1, 1.5, True, False, [], ["ID1"], {}, {"a": 1}, 0])
@pytest.mark.parametrize("name", ["uid", "role"])
def test_a_uid_or_role_that_is_not_text_is_refused(name: str, value: object) -> None:
    """A number is not turned into a user."""
    assert refusal(signed({name: value})) == "malformed"


@pytest.mark.parametrize("name", ["uid", "role"])
def test_a_lone_surrogate_is_refused(name: str) -> None:
    """Text that cannot be encoded as UTF-8 never gets in: it would break a later scrape."""
    assert refusal(signed(b'{"%s":"\\ud800"}' % name.encode())) == "malformed"


@pytest.mark.parametrize(
    ("claims", "now_s", "leeway_s", "reason"),
    [
        ({"exp": 1000}, 999, 0, None),
        ({"exp": 1000}, 999.999, 0, None),
        ({"exp": 1000}, 1000, 0, "expired"),
        ({"exp": 1000.5}, 1000.4, 0, None),
        ({"exp": 1000.5}, 1000.5, 0, "expired"),
        ({"exp": 1000}, 1004.9, 5, None),
        ({"exp": 1000}, 1005, 5, "expired"),
        ({"exp": 0}, 1000, 0, "expired"),
        ({"exp": -5}, 1000, 0, "expired"),
        ({"exp": 1e300}, 1000, 0, None),
        ({"nbf": 1000}, 1000, 0, None),
        ({"nbf": 1000}, 999.9, 0, "not yet valid"),
        ({"nbf": 1000}, 995, 5, None),
        ({"nbf": 1000}, 994.9, 5, "not yet valid"),
        ({"iat": 1000}, 1000, 0, None),
        ({"iat": 1000}, 999.9, 0, "not yet valid"),
        ({"iat": 1000}, 995, 5, None),
        ({"iat": 1000}, 994.9, 5, "not yet valid"),
        ({"iat": 900, "nbf": 950, "exp": 1100}, 1000, 0, None),
        ({"iat": 0, "nbf": 0}, 1000, 0, None),
        ({"nbf": 2000, "exp": 500}, 1000, 0, "not yet valid"),
    ],
)
def test_time_claims(
    claims: dict[str, Any], now_s: float, leeway_s: float, reason: str | None
) -> None:
    """Exp is exclusive, nbf and iat inclusive, each moved by the leeway."""
    check = verifier(leeway_s=leeway_s)
    if reason:
        assert refusal(signed(claims), now_s, leeway_s=leeway_s) == reason
    else:
        assert isinstance(check.verify(signed(claims), now_s), Identity)


@pytest.mark.parametrize(
    "value",
    ["true", "false", "null", '"1800000000"', "[]", "{}", "NaN", "Infinity", "-Infinity", "1e999"]
    + ["9" * 400, "1" + "0" * 5000],
)
@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
def test_time_claims_must_be_finite_numbers(name: str, value: str) -> None:
    """Anything but a finite JSON number is refused, also null and numbers as text."""
    token = signed(f'{{"{name}":{value}}}'.encode())
    assert refusal(token, max_bytes=20_000) == "malformed"


@given(
    exp=st.integers(-(2**62), 2**62) | st.floats(-1e15, 1e15),
    now_s=st.floats(0, 1e11),
    leeway_s=st.integers(0, 600),
)
@settings(max_examples=100, deadline=None)
def test_expires_at_is_where_verification_ends(exp: float, now_s: float, leeway_s: int) -> None:
    """A token verifies at a moment exactly when that moment is before its expires_at_s."""
    check, token = verifier(leeway_s=leeway_s), signed({"exp": exp})
    ends = exp + leeway_s
    if now_s < float(exp) + leeway_s:
        assert check.verify(token, now_s).expires_at_s == pytest.approx(ends)
    else:
        assert refusal(token, now_s, leeway_s=leeway_s) == "expired"


@pytest.mark.parametrize(
    ("options", "claims", "reason"),
    [
        ({"issuer": "barong"}, {"iss": "barong"}, None),
        ({"issuer": "barong"}, {"iss": "Barong"}, "issuer"),
        ({"issuer": "barong"}, {"iss": ["barong"]}, "issuer"),
        ({"issuer": "barong"}, {"iss": None}, "issuer"),
        ({"issuer": "barong"}, {}, "issuer"),
        ({}, {"iss": "anyone"}, None),
        ({"audience": "peatio"}, {"aud": "peatio"}, None),
        ({"audience": "peatio"}, {"aud": ["barong", "peatio"]}, None),
        ({"audience": ["x", "peatio"]}, {"aud": ["peatio"]}, None),
        ({"audience": "peatio"}, {"aud": ["barong"]}, "audience"),
        ({"audience": "peatio"}, {"aud": "peatio2"}, "audience"),
        ({"audience": "peatio"}, {"aud": {"peatio": 1}}, "audience"),
        ({"audience": "peatio"}, {"aud": [["peatio"], {}, 1]}, "audience"),
        ({"audience": "peatio"}, {"aud": []}, "audience"),
        ({"audience": "peatio"}, {"aud": None}, "audience"),
        ({"audience": "peatio"}, {}, "audience"),
        ({}, {"aud": ["anyone"]}, None),
    ],
)
def test_issuer_and_audience(
    options: dict[str, Any], claims: dict[str, Any], reason: str | None
) -> None:
    """They are checked when they are configured and only then."""
    token = signed({"uid": "ID1", **claims})
    if reason:
        assert refusal(token, **options) == reason
    else:
        assert verifier(**options).verify(token, NOW).uid == "ID1"


def hmac_token(secret: bytes, algorithm: str) -> str:
    """Sign with HMAC by hand: PyJWT itself refuses to use a PEM as a secret."""
    digest = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}
    body = f"{part({'alg': algorithm, 'typ': 'JWT'})}.{part({'uid': 'ID1'})}"
    return f"{body}.{part(hmac.new(secret, body.encode(), digest[algorithm]).digest())}"


def secrets_of(kind: str) -> list[bytes]:
    """Return what an attacker who knows the public key could take for a shared secret."""
    key, pem = pair(kind)[1].key, pair(kind)[2]
    der = key.public_bytes(ser.Encoding.DER, ser.PublicFormat.SubjectPublicKeyInfo)
    return [pem.encode(), pem.strip().encode(), base64.b64encode(pem.encode()), der, der[-32:], b""]


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
@pytest.mark.parametrize("kind", KINDS)
def test_hmac_with_the_public_key_as_secret_is_refused(kind: str, algorithm: str) -> None:
    """Algorithm confusion, with every form of the public key as the secret."""
    for secret in secrets_of(kind):
        assert refusal(hmac_token(secret, algorithm), kind=kind) == "signature"


@pytest.mark.parametrize(
    "algorithm",
    ["none", "None", "NONE", "nOnE", "", " none", "eddsa", "EdDSA ", "HS256", "RS256", "ES256"]
    + ["PS256", "ES256K", "Ed448", None, 0, True, [], ["EdDSA"], {"EdDSA": 1}],
)
@pytest.mark.parametrize("signature", ["", "AAAA", "true"])
def test_no_other_algorithm_is_taken_from_the_token(algorithm: object, signature: str) -> None:
    """Whatever the header names, an Ed25519 key verifies EdDSA and nothing else."""
    header = {"alg": algorithm, "typ": "JWT"}
    whole = signed({"uid": "ID1"}, header)
    stem = whole.rsplit(".", 1)[0]
    token = whole if signature == "true" else f"{stem}.{signature}"
    assert refusal(token) == "signature"


def test_a_header_without_an_algorithm_is_refused() -> None:
    """The algorithm is not guessed."""
    assert refusal(signed({"uid": "ID1"}, {"typ": "JWT"})) == "signature"


@pytest.mark.parametrize("signer", KINDS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_token_of_another_key_is_refused(kind: str, signer: str) -> None:
    """A key accepts its own tokens and none of another kind's."""
    token = signed({"uid": "ID1"}, kind=signer)
    if kind == signer:
        assert verifier(kind).verify(token, NOW).uid == "ID1"
    else:
        assert refusal(token, kind=kind) == "signature"


def test_pss_is_refused_for_an_rsa_key() -> None:
    """The key keeps to one padding."""
    token = jwt.encode({"uid": "ID1"}, pair("RS256")[0].key, "PS256")
    assert refusal(token, kind="RS256") == "signature"


def test_a_token_of_a_stranger_of_the_same_kind_is_refused() -> None:
    """Another Ed25519 key's token fails on its signature."""
    stranger = SigningKey(ed25519.Ed25519PrivateKey.generate(), "EdDSA", "Ed25519")
    assert refusal(forge(stranger, {}, NOW, 60)) == "signature"


@pytest.mark.parametrize(
    "extra",
    [
        {"kid": "../../dev/null"},
        {"kid": "' OR 1=1 --"},
        {"jku": "http://127.0.0.1:9/jwks.json"},
        {"x5u": "http://127.0.0.1:9/cert.pem"},
        {"x5c": ["AAAA"]},
        {"jwk": {"kty": "oct", "k": "AAAA"}},
        {"typ": "at+jwt"},
        {"cty": "JWT"},
        {"b64": True},
    ],
)
def test_what_a_header_offers_changes_nothing(extra: dict[str, Any]) -> None:
    """Key hints are not looked at: the true key verifies, a stranger's token stays refused."""
    header = {"alg": "EdDSA", **extra}
    assert verifier().verify(signed({"uid": "ID1"}, header), NOW).uid == "ID1"
    stranger = ed25519.Ed25519PrivateKey.generate()
    body = f"{part(header)}.{part({'uid': 'ID1'})}"
    assert refusal(f"{body}.{part(stranger.sign(body.encode()))}") == "signature"


def test_an_embedded_key_is_not_trusted() -> None:
    """A token that brings the key it was signed with is refused."""
    stranger = ed25519.Ed25519PrivateKey.generate()
    raw = stranger.public_key().public_bytes(ser.Encoding.Raw, ser.PublicFormat.Raw)
    header = {"alg": "EdDSA", "jwk": {"kty": "OKP", "crv": "Ed25519", "x": part(raw)}}
    body = f"{part(header)}.{part({'uid': 'ID1'})}"
    assert refusal(f"{body}.{part(stranger.sign(body.encode()))}") == "signature"


@pytest.mark.parametrize(
    "extra",
    [
        {"crit": ["exp"], "exp": 1},
        {"crit": ["b64"], "b64": True},
        {"crit": ["unknown"]},
        {"crit": []},
        {"crit": None},
        {"crit": "b64"},
        {"crit": [1]},
        {"kid": 1},
    ],
)
def test_unsupported_headers_are_refused(extra: dict[str, Any]) -> None:
    """A crit header of any shape is refused, since no extension is supported."""
    assert refusal(signed({"uid": "ID1"}, {"alg": "EdDSA", **extra})) == "malformed"


def test_a_detached_payload_is_refused() -> None:
    """A token with b64 false, whose payload is elsewhere, does not verify."""
    header = {"alg": "EdDSA", "b64": False, "crit": ["b64"]}
    assert refusal(signed({"uid": "ID1"}, header)) == "malformed"


def test_a_header_text_never_gets_into_the_error() -> None:
    """An attacker's header cannot write into our log."""
    token = signed({}, {"alg": "EdDSA", "crit": ["INJECTED\nline"]})
    with pytest.raises(TokenError) as caught:
        verifier().verify(token, NOW)
    assert "INJECTED" not in f"{caught.value}{caught.value.__context__}{caught.value.__cause__}"


PAYLOADS = [b"", b" ", b"null", b"1", b'"x"', b"[]", b"[{}]", b"{", b"{}x", b'{"a":1,}', b"\xff"]
PAYLOADS += [b"{'a':1}", b'{"a":NaN}', b"\xef\xbb\xbf{}", "{}".encode("utf-16"), b'{"a":"\xff"}']
PAYLOADS += [b"[" * 3000, b'{"a":' * 1000, b'{"a":\x00}', b'{"a":"\n"}']


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_payload_must_be_a_json_object(payload: bytes) -> None:
    """Even well signed, anything but one strict UTF-8 JSON object is malformed."""
    assert refusal(signed(payload)) == "malformed"


HEADERS = [b"null", b"[]", b"1", b"{", b"\xff", b"[" * 5000, b'{"a":' * 900]


@pytest.mark.parametrize("header", HEADERS)
def test_a_header_must_be_a_json_object(header: bytes) -> None:
    """A header of any other shape is malformed, also one nested deep enough to hurt a parser."""
    assert refusal(signed({}, header)) == "malformed"


def test_of_a_repeated_claim_the_last_counts() -> None:
    """The same rule as Go's reader, so both gateways see the same user."""
    assert verifier().verify(signed(b'{"uid":"A","uid":"B"}'), NOW).uid == "B"


GOOD = signed({"uid": "ID1"})
HEAD, BODY, SIGNATURE = GOOD.split(".")


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "...",
        "a",
        "a.b",
        f"{HEAD}.{BODY}",
        f"{HEAD}.{BODY}.{SIGNATURE}.{SIGNATURE}",
        f"{GOOD}.",
        f".{GOOD}",
        f"{HEAD}..{SIGNATURE}",
        f".{BODY}.{SIGNATURE}",
        f"{GOOD}=",
        f"{GOOD}==",
        f"{HEAD}==.{BODY}.{SIGNATURE}",
        f"{HEAD}.{BODY}=.{SIGNATURE}",
        f"{GOOD} ",
        f" {GOOD}",
        f"{GOOD}\n",
        f"{GOOD}\x00",
        f"Bearer {GOOD}",
        f"{HEAD}.{BODY}.{SIGNATURE}+/",
        f"{HEAD}.{BODY}.A",
        f"{HEAD}A.{BODY}.{SIGNATURE}",
        f"{HEAD}.{BODY}.{SIGNATURE}!",
        f"{HEAD}.{BODY}.ſ{SIGNATURE}",
        "é.è.ê",
        "\ud800.\ud800.\ud800",
        "٣.٣.٣",
        "a" * 8000,
        ".".join("a" * 4000),
    ],
)
def test_text_that_is_no_token_is_malformed(token: str) -> None:
    """Wrong parts, padding, blanks, alphabets and non-ASCII text are refused."""
    assert refusal(token) == "malformed"


_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@pytest.mark.parametrize("part", [0, 1, 2])
@pytest.mark.parametrize("length", range(4))
def test_a_part_has_one_writing(part: int, length: int) -> None:
    """Bits that the last character has to spare must be zero, or a token had several texts."""
    pads = {"sub": "x" * length}  # so that parts end anywhere in a group of four
    key = pair("EdDSA")[0]
    token = jwt.PyJWS().encode(
        json.dumps({"uid": "ID1", **pads}).encode(), key.key, "EdDSA", headers={"typ": "x" * length}
    )
    assert verifier().verify(token, NOW).uid == "ID1"
    parts = token.split(".")
    spare = {0: 0, 2: 4, 3: 2}[len(parts[part]) % 4]
    last = _ALPHABET.index(parts[part][-1])
    for other in range(1, 1 << spare):
        changed = parts[part][:-1] + _ALPHABET[last | other]
        texts = [*parts[:part], changed, *parts[part + 1 :]]
        with pytest.raises(TokenError) as caught:
            verifier().verify(".".join(texts), NOW)
        assert caught.value.reason == "malformed"


@pytest.mark.parametrize("cut", range(1, len(SIGNATURE), 7))
def test_a_cut_signature_is_refused(cut: int) -> None:
    """A signature that is too short never verifies."""
    assert refusal(f"{HEAD}.{BODY}.{SIGNATURE[:-cut]}") in {"signature", "malformed"}


def test_a_signature_that_begins_the_message_is_refused() -> None:
    """Letters moved from the message to the signature leave the bytes in all as they were."""
    key = pair("EdDSA")[0]
    head = part(b"   " + json.dumps({"alg": "EdDSA"}).encode())  # blanks: JSON without them too
    message = f"{head}.{part({'uid': 'ID1'})}"
    signature = jwt.get_algorithm_by_name("EdDSA").sign(message.encode(), key.key)
    assert verifier().verify(f"{message}.{part(signature)}", NOW).uid == "ID1"
    moved = f"{message[4:]}.{part(signature + message[:4].encode())}"
    assert refusal(moved) == "signature"


def test_a_key_that_fits_everything_is_of_no_use() -> None:
    """Of a small order: one signature would fit any message (RFC 8032 section 8.4 warns of it)."""
    identity = b"\1" + bytes(31)
    key = ed25519.Ed25519PublicKey.from_public_bytes(identity)
    signature = identity + bytes(32)
    key.verify(signature, b"whatever")  # else this proves nothing
    token = f"{part({'alg': 'EdDSA'})}.{part({'uid': 'ID1'})}.{part(signature)}"
    check = TokenVerifier([VerificationKey(key, ("EdDSA",), "Ed25519", "")])
    with pytest.raises(TokenError) as caught:
        check.verify(token, NOW)
    assert caught.value.reason == "signature"


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_or_zero_signature_is_refused(kind: str) -> None:
    """No signature and one of zeros, the ECDSA trap of 2022 among them, are refused."""
    stem, signature = signed({"uid": "ID1"}, kind=kind).rsplit(".", 1)
    zeros = part(bytes(len(base64.urlsafe_b64decode(signature + "=="))))
    assert refusal(f"{stem}.", kind=kind) == "signature"
    assert refusal(f"{stem}.{zeros}", kind=kind) == "signature"


@given(at=st.integers(0, len(GOOD) - 1), letter=st.sampled_from("ABCxyz019-_.=+ é"))
@settings(max_examples=200, deadline=None)
def test_any_changed_letter_is_refused(at: int, letter: str) -> None:
    """No single change of a token leaves it valid: each identity has one spelling."""
    changed = GOOD[:at] + letter + GOOD[at + 1 :]
    if changed == GOOD:
        assert verifier().verify(changed, NOW).uid == "ID1"
    else:
        assert refusal(changed)


def test_a_payload_swapped_under_a_signature_is_refused() -> None:
    """The classic forgery."""
    assert refusal(f"{HEAD}.{part({'uid': 'ADMIN'})}.{SIGNATURE}") == "signature"


def test_a_large_token_is_refused_before_it_is_parsed() -> None:
    """The limit is inclusive and comes first: what is beyond it is not even malformed."""
    token = signed({"uid": "ID1", "pad": "x" * 500})
    assert verifier(max_bytes=len(token)).verify(token, NOW).uid == "ID1"
    assert refusal(token, max_bytes=len(token) - 1) == "malformed"
    assert refusal("?" * 10_000_000) == "malformed"


def test_the_default_limit_is_8_kib() -> None:
    """A token of 8192 characters is looked at, one more is not."""
    assert refusal("a" * 8192) == "malformed"
    assert refusal("a" * 8193) == "malformed"


def outcome(token: str, now_s: float = NOW, kind: str = "EdDSA") -> object:
    """Return the identity or the TokenError; any other error is the test's failure."""
    try:
        return verifier(kind).verify(token, now_s)
    except TokenError as error:
        return error


@example("." * 9000)
@example(f"{part(b'[' * 4000)}.e30.AA")
@given(
    st.text()
    | st.from_regex(r"[A-Za-z0-9_=-]{0,40}(\.[A-Za-z0-9_=-]{0,40}){0,4}", fullmatch=True)
    | st.builds("{}.{}.{}".format, *[st.binary(max_size=60).map(part)] * 3)
)
@settings(max_examples=200, deadline=None)
def test_any_text_is_refused_with_a_token_error(token: str) -> None:
    """Whatever a stranger sends, the outcome is a TokenError with a known reason."""
    found = outcome(token)
    assert isinstance(found, TokenError)
    assert found.reason in REASONS


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
HEADER_NAMES = st.sampled_from(["alg", "typ", "kid", "crit", "b64", "jku", "x5c", "zip"])
CLAIM_NAMES = st.sampled_from(["uid", "role", "exp", "nbf", "iat", "aud", "iss", "sub"])


@given(header=st.dictionaries(HEADER_NAMES, JSON, max_size=4), keep=st.booleans())
@settings(max_examples=200, deadline=None)
def test_any_header_is_judged_without_another_error(header: dict[str, Any], keep: bool) -> None:
    """A header of any content leads to an identity or a TokenError."""
    chosen = {**header, "alg": "EdDSA"} if keep else header or {"typ": 1}
    found = outcome(signed({"uid": "ID1"}, chosen))
    assert isinstance(found, (Identity, TokenError))
    assert keep or isinstance(found, TokenError) or header.get("alg") == "EdDSA"


@given(claims=JSON | st.dictionaries(CLAIM_NAMES, JSON, max_size=5))
@settings(max_examples=200, deadline=None)
def test_any_signed_payload_is_judged_without_another_error(claims: object) -> None:
    """Well signed claims of any content lead to a well-formed identity or a TokenError."""
    found = outcome(signed(claims))
    assert isinstance(found, (Identity, TokenError))
    if isinstance(found, Identity):
        assert found.uid is None or (found.uid and isinstance(found.uid, str))
        assert isinstance(found.role, str)
        assert found.expires_at_s is None or found.expires_at_s > NOW


def test_identity_is_immutable_and_small() -> None:
    """One exists per connection: it has no dict and nobody can change it."""
    identity = Identity("ID1", "admin", None)
    assert not hasattr(identity, "__dict__")
    with pytest.raises(AttributeError):
        identity.uid = "ID2"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("Bearer a.b.c", "a.b.c"),
        ("Bearer x", "x"),
        (None, None),
        ("", None),
        ("Bearer", None),
        ("Bearer ", None),
        ("Bearer  a.b.c", None),
        ("Bearer a.b.c ", None),
        ("Bearer a b", None),
        ("Bearer a, Bearer b", None),
        ("Bearer\ta.b.c", None),
        ("Bearer a\n", None),
        ("bearer a.b.c", "a.b.c"),
        ("BEARER a.b.c", "a.b.c"),
        (" Bearer a.b.c", None),
        ("Basic dTpw", None),
        ("Bearera.b.c", None),
        ("a.b.c", None),
        ("Token a.b.c", None),
        ("Bearer é", "é"),
    ],
)
def test_bearer(header: str | None, token: str | None) -> None:
    """Only the word Bearer in any case, one space and one token will do."""
    assert bearer(header) == token


@given(st.text())
@settings(max_examples=100, deadline=None)
def test_bearer_never_raises(header: str) -> None:
    """Any header is a token without blanks, or None."""
    found = bearer("Bearer " + header)
    assert found is None or (found == header and found.split() == [found])


def test_forge_sets_barongs_claims() -> None:
    """The defaults are those of Openware's authentication server."""
    token = forge(pair("EdDSA")[0], {"uid": "ID7"}, 1000.9, 60.3)
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert claims == {
        "iat": 1000,
        "exp": 1061,
        "sub": "session",
        "iss": "barong",
        "aud": ["peatio", "barong"],
        "uid": "ID7",
        "email": "trader@example.com",
        "role": "member",
        "level": 3,
        "state": "active",
    }


def test_forge_lets_the_caller_override_and_drop() -> None:
    """A value replaces the default, None leaves the claim out, new claims are added."""
    overrides = {"exp": None, "email": None, "role": "admin", "iat": 5, "referral_id": 1}
    token = forge(pair("EdDSA")[0], overrides, 1000, 60)
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert "exp" not in claims
    assert "email" not in claims
    assert (claims["role"], claims["iat"], claims["referral_id"]) == ("admin", 5, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_forge_names_the_algorithm_of_the_key(kind: str) -> None:
    """The header says what the key's kind decides, and that it is a JWT."""
    header = jwt.get_unverified_header(forge(pair(kind)[0], {}, NOW, 60))
    assert header == {"alg": kind, "typ": "JWT"}


def test_pyjwt_itself_accepts_a_forged_token() -> None:
    """A forged token is an ordinary JWT for any other reader."""
    token = forge(pair("EdDSA")[0], {"iat": 0, "exp": 2**40}, NOW, 60)
    claims = jwt.decode(token, pair("EdDSA")[1].key, ["EdDSA"], audience="peatio", issuer="barong")
    assert claims["sub"] == "session"


def test_token_error_carries_text_and_reason() -> None:
    """The reason is for machines, the text for people."""
    error = TokenError("the token has expired", "expired")
    assert (str(error), error.reason) == ("the token has expired", "expired")
    assert isinstance(error, RangoError)


# -- several keys ---------------------------------------------------------------------------------

SECRET = "0123456789abcdef" * 4


def named(kind: str, kid: str) -> VerificationKey:
    """Return the public key of a pair under a name."""
    return dataclasses.replace(pair(kind)[1], kid=kid)


def of_several(keys: list[VerificationKey], token: str) -> str:
    """Return the uid of a token, or why it is refused."""
    try:
        return TokenVerifier(keys).verify(token, NOW).uid or ""
    except TokenError as error:
        assert error.__context__ is None
        return error.reason


def test_each_of_several_keys_verifies() -> None:
    """While keys are rotated the old and the new one are good, in any order."""
    old = load_private_key(generate()[0])
    new = load_private_key(generate()[0])
    publics = [public_of(old), public_of(new), pair("RS256")[1]]
    for keys in (publics, publics[::-1]):
        for signing in (old, new, pair("RS256")[0]):
            assert of_several(keys, forge(signing, {"uid": "U"}, NOW, 60)) == "U"
        assert of_several(keys, forge(pair("EdDSA")[0], {}, NOW, 60)) == "signature"
        assert of_several(keys, forge(pair("ES256")[0], {}, NOW, 60)) == "signature"


def public_of(signing: SigningKey) -> VerificationKey:
    """Return the public half."""
    form = ser.PublicFormat.SubjectPublicKeyInfo
    pem = signing.key.public_key().public_bytes(ser.Encoding.PEM, form)
    return load_public_key(pem, "test")


def test_a_named_key_is_the_only_one_tried() -> None:
    """A name that is known chooses; one that is not leaves all to be tried."""
    keys = [named("EdDSA", "a"), named("ES256", "b")]
    header = {"alg": "EdDSA", "typ": "JWT"}
    assert of_several(keys, signed({"uid": "U"}, {**header, "kid": "a"})) == "U"
    assert of_several(keys, signed({"uid": "U"}, {**header, "kid": "b"})) == "signature"
    assert of_several(keys, signed({"uid": "U"}, {**header, "kid": "c"})) == "U"
    assert of_several(keys, signed({"uid": "U"}, header)) == "U"
    assert of_several(keys, signed({"uid": "U"}, {**header, "kid": ["a"]})) == "malformed"


def test_a_shared_secret_verifies_hs256_alone() -> None:
    """Never a token for a public key, and no public key one for the secret."""
    secret = load_secret(SECRET, "JWT_SECRET")
    good = jwt.encode({"uid": "U"}, SECRET, "HS256")
    assert of_several([secret], good) == "U"
    assert of_several([secret, pair("EdDSA")[1]], good) == "U"
    assert of_several([pair("EdDSA")[1], secret], signed({"uid": "U"})) == "U"
    assert of_several([pair("EdDSA")[1], pair("RS256")[1]], good) == "signature"
    for algorithm in ("HS384", "HS512"):
        assert of_several([secret], jwt.encode({}, SECRET, algorithm)) == "signature"
    assert of_several([secret], signed({"uid": "U"})) == "signature"
    assert of_several([secret], jwt.encode({}, None, "none")) == "signature"


@pytest.mark.parametrize("kind", KINDS)
def test_a_public_key_is_no_secret(kind: str) -> None:
    """HMAC with its PEM as the secret is refused beside a true secret as well."""
    keys = [load_secret(SECRET, "JWT_SECRET"), pair(kind)[1]]
    body = f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part({'uid': 'U'})}"
    mac = hmac.digest(pair(kind)[2].encode(), body.encode(), "sha256")
    assert of_several(keys, f"{body}.{part(mac)}") == "signature"


def test_no_key_verifies_nothing() -> None:
    """And that is no error of another kind."""
    assert of_several([], GOOD) == "signature"
    assert of_several([], "nonsense") == "malformed"
    assert of_several([], "a.b.c") == "malformed"
