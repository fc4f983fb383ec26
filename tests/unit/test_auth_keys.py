"""Keys: every form of the field loads, everything else gets one clear line without key material."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import textwrap
from datetime import datetime, timedelta, timezone
from functools import cache
from typing import Any, Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization as ser
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa, x25519
from cryptography.x509.oid import NameOID
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rango_gevent.auth.keys import (
    MAX_TEXT_BYTES,
    SigningKey,
    VerificationKey,
    described,
    generate,
    load_private_key,
    load_public_key,
    load_public_keys,
    load_secret,
    public_key_of,
    public_pem_raw,
)
from rango_gevent.errors import ConfigError

SOURCE = "JWT_PUBLIC_KEY"
SEED = bytes(range(32))
ED = ed25519.Ed25519PrivateKey.from_private_bytes(SEED)
ED_RAW = ED.public_key().public_bytes(ser.Encoding.Raw, ser.PublicFormat.Raw)


@cache
def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    """Make one RSA key of each size: they are slow to make."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@cache
def ec_key(curve: type[ec.EllipticCurve]) -> ec.EllipticCurvePrivateKey:
    """Make one EC key for each curve."""
    return ec.generate_private_key(curve())


def spki(private: Any) -> str:
    """Return the standard public PEM."""
    form = ser.PublicFormat.SubjectPublicKeyInfo
    return str(private.public_key().public_bytes(ser.Encoding.PEM, form).decode())


def pkcs1(private: Any) -> str:
    """Return the RSA-only public PEM."""
    form = ser.PublicFormat.PKCS1
    return str(private.public_key().public_bytes(ser.Encoding.PEM, form).decode())


def private_pem(
    private: Any,
    form: ser.PrivateFormat = ser.PrivateFormat.PKCS8,
    password: bytes | None = None,
) -> str:
    """Return a private PEM, encrypted if there is a password."""
    lock = ser.BestAvailableEncryption(password) if password else ser.NoEncryption()
    return str(private.private_bytes(ser.Encoding.PEM, form, lock).decode())


def armour(label: str, body: bytes) -> str:
    """Put any bytes between PEM lines."""
    lines = "\n".join(textwrap.wrap(base64.b64encode(body).decode(), 64))
    return f"-----BEGIN {label}-----\n{lines}\n-----END {label}-----\n"


def certificate() -> str:
    """Return a self-signed certificate."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "barong")])
    start = datetime(2024, 1, 1, tzinfo=timezone.utc)
    built = (
        x509.CertificateBuilder(name, name, ED.public_key(), 1)
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=1))
        .sign(ED, None)
    )
    return built.public_bytes(ser.Encoding.PEM).decode()


def b64(text: str) -> str:
    """Wrap in standard base64."""
    return base64.b64encode(text.encode()).decode()


def url_b64(text: str) -> str:
    """Wrap in URL-safe base64."""
    return base64.urlsafe_b64encode(text.encode()).decode()


WRAPPINGS: dict[str, Callable[[str], str | bytes]] = {
    "plain": lambda pem: pem,
    "bytes": lambda pem: pem.encode(),
    "byte order mark": lambda pem: b"\xef\xbb\xbf" + pem.encode(),
    "CRLF": lambda pem: pem.replace("\n", "\r\n"),
    "surrounding blanks": lambda pem: f"\n\n  {pem}\n \t",
    "literal backslash-n": lambda pem: pem.replace("\n", "\\n"),
    "quotes kept": lambda pem: f'"{pem}"',
    "spaces for newlines": lambda pem: pem.replace("\n", " "),
    "spaces inside": lambda pem: pem.replace("\n", "\n  "),
    "text around": lambda pem: f"my key:\n{pem}and that was it\n",
    "no padding in the body": lambda pem: pem.replace("=", ""),
    "base64": b64,
    "base64 bytes": lambda pem: b64(pem).encode(),
    "base64 of CRLF": lambda pem: b64(pem.replace("\n", "\r\n")),
    "base64, no padding": lambda pem: b64(pem + "#").rstrip("="),
    "base64 in lines": lambda pem: "\n".join(textwrap.wrap(b64(pem), 20)) + "\n",
    "base64 with spaces": lambda pem: " ".join(textwrap.wrap(b64(pem), 7)),
    "URL-safe": url_b64,
    "URL-safe, no padding": lambda pem: url_b64(pem + "??>>").rstrip("="),
}

FORMS: dict[str, tuple[Callable[[], str], str, tuple[str, ...]]] = {
    "raw Ed25519": (lambda: armour("PUBLIC KEY", ED_RAW), "Ed25519", ("EdDSA",)),
    "Ed25519": (lambda: spki(ED), "Ed25519", ("EdDSA",)),
    "Ed448": (lambda: spki(ed448.Ed448PrivateKey.generate()), "Ed448", ("EdDSA",)),
    "RSA": (lambda: spki(rsa_key()), "RSA-2048", ("RS256", "RS384", "RS512")),
    "RSA PKCS#1": (lambda: pkcs1(rsa_key()), "RSA-2048", ("RS256", "RS384", "RS512")),
    "P-256": (lambda: spki(ec_key(ec.SECP256R1)), "EC-P256", ("ES256",)),
    "P-384": (lambda: spki(ec_key(ec.SECP384R1)), "EC-P384", ("ES384",)),
    "P-521": (lambda: spki(ec_key(ec.SECP521R1)), "EC-P521", ("ES512",)),
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_loads_in_every_wrapping(form: str, wrapping: str) -> None:
    """A key of each kind and encoding loads however it is wrapped; its kind decides the rest."""
    make, kind, algorithms = FORMS[form]
    key = load_public_key(WRAPPINGS[wrapping](make()), SOURCE)
    assert (key.kind, key.algorithms) == (kind, algorithms)


def test_the_recorded_raw_form_loads() -> None:
    """The literal bytes that Openware's tools write load as the key they hold."""
    wrapped = (
        "LS0tLS1CRUdJTiBQVUJMSUMgS0VZLS0tLS0KQTZFSHYvUE9FTDRkY04wWTUwdkFtV2ZrMWpDYnBRMWZIZHlH"
        "WkJKVk1iZz0KLS0tLS1FTkQgUFVCTElDIEtFWS0tLS0tCg=="
    )
    key = load_public_key(wrapped.replace("A6EH", "A6EH"), SOURCE)
    assert key.kind == "Ed25519"


def test_raw_and_standard_form_are_the_same_key() -> None:
    """The raw form holds the very key of the SPKI form: equal fingerprints, and it verifies."""
    raw, standard = (
        load_public_key(public_pem_raw(private_pem(ED)), SOURCE),
        load_public_key(spki(ED), SOURCE),
    )
    assert raw.fingerprint == standard.fingerprint
    assert isinstance(raw.key, ed25519.Ed25519PublicKey)
    raw.key.verify(ED.sign(b"m"), b"m")


def test_fingerprint_is_the_start_of_the_sha256_of_the_spki() -> None:
    """The fingerprint can be checked with openssl and sha256sum."""
    der = ED.public_key().public_bytes(ser.Encoding.DER, ser.PublicFormat.SubjectPublicKeyInfo)
    assert load_public_key(spki(ED), SOURCE).fingerprint == hashlib.sha256(der).hexdigest()[:16]


def test_different_keys_have_different_fingerprints() -> None:
    """A log line tells two keys apart."""
    prints = {load_public_key(make(), SOURCE).fingerprint for make, _, _ in FORMS.values()}
    assert len(prints) == 6  # eight forms, two of them twice the same key


def test_keys_are_immutable() -> None:
    """Nobody widens the algorithms of a key that is already checked."""
    key = load_public_key(spki(ED), SOURCE)
    with pytest.raises(dataclasses.FrozenInstanceError):
        key.algorithms = ("HS256",)  # type: ignore[misc]


REFUSED: dict[str, tuple[Callable[[], str | bytes], str]] = {
    "empty": (lambda: "", "found nothing"),
    "empty bytes": (lambda: b"", "found nothing"),
    "blank": (lambda: " \r\n\t ", "found nothing"),
    "quotes": (lambda: '""', "found nothing"),
    "private Ed25519": (lambda: private_pem(ED), "openssl pkey -in KEY -pubout"),
    "private, wrapped": (lambda: b64(private_pem(ED)), "found a private key"),
    "private RSA, PKCS#1": (
        lambda: private_pem(rsa_key(), ser.PrivateFormat.TraditionalOpenSSL),
        "found a private key",
    ),
    "private EC": (
        lambda: private_pem(ec_key(ec.SECP256R1), ser.PrivateFormat.TraditionalOpenSSL),
        "found a private key",
    ),
    "private, encrypted": (lambda: private_pem(ED, password=b"pw"), "found a private key"),
    "private OpenSSH": (
        lambda: private_pem(ED, ser.PrivateFormat.OpenSSH),
        "found a private key",
    ),
    "public and private": (lambda: spki(ED) + private_pem(ED), "found a private key"),
    "certificate": (certificate, "openssl x509 -in CERT -noout -pubkey"),
    "two keys": (lambda: spki(ED) + spki(rsa_key()), "found 2 PEM blocks"),
    "small RSA": (lambda: spki(rsa_key(1024)), "of 1024 bits; make one of at least 2048 bits"),
    "small RSA, PKCS#1": (lambda: pkcs1(rsa_key(1024)), "an RSA key of 1024 bits"),
    "secp256k1": (lambda: spki(ec_key(ec.SECP256K1)), "unsupported curve"),
    "X25519": (lambda: spki(x25519.X25519PrivateKey.generate()), "unsupported kind"),
    "DSA": (lambda: spki(dsa.generate_private_key(1024)), "unsupported kind"),
    "cut off": (lambda: spki(ED)[:60], "without matching BEGIN and END lines"),
    "no BEGIN": (lambda: spki(ED)[26:], "neither a PEM nor base64"),
    "labels differ": (
        lambda: spki(ED).replace("END PUBLIC", "END RSA PUBLIC"),
        "without matching BEGIN and END lines",
    ),
    "body damaged": (lambda: armour("PUBLIC KEY", ED_RAW[:31]), "not a key that can be read"),
    "raw body, wrong label": (
        lambda: armour("RSA PUBLIC KEY", ED_RAW),
        "not a key that can be read",
    ),
    "body empty": (lambda: armour("PUBLIC KEY", b""), "body is not base64"),
    "body not base64": (
        lambda: "-----BEGIN PUBLIC KEY-----\n?!\n-----END PUBLIC KEY-----",
        "body is not base64",
    ),
    "another label": (lambda: armour("PGP MESSAGE", b"x" * 40), "a PEM block of another kind"),
    "only the body": (
        lambda: "".join(spki(ED).splitlines()[1:-1]),
        "base64 that holds no PEM; the text inside must have its BEGIN and END lines",
    ),
    "bare 32 bytes": (lambda: base64.b64encode(ED_RAW).decode(), "base64 that holds no PEM"),
    "wrapped twice": (lambda: b64(b64(spki(ED))), "base64 wrapped twice"),
    "OpenSSH public": (
        lambda: ED.public_key().public_bytes(ser.Encoding.OpenSSH, ser.PublicFormat.OpenSSH),
        "found an OpenSSH public key",
    ),
    "JWK": (lambda: '{"kty":"OKP","crv":"Ed25519","x":"AA"}', "found JSON"),
    "file name": (lambda: "config/ed25519-key.pub", "found a file name"),
    "DER": (
        lambda: ED.public_key().public_bytes(
            ser.Encoding.DER, ser.PublicFormat.SubjectPublicKeyInfo
        ),
        "found binary DER",
    ),
    "binary": (lambda: bytes(range(128, 256)), "found binary data"),
    "UTF-16": (lambda: spki(ED).encode("utf-16"), "found binary data"),
    "not ASCII": (lambda: "schlüssel", "text that is not ASCII"),
    "wrong base64 length": (lambda: "AAAAA", "neither a PEM nor base64"),
    "words": (lambda: "changeme!", "neither a PEM nor base64"),
    "huge": (lambda: "A" * (MAX_TEXT_BYTES + 1), "far too many for a key"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_public_key_gets_one_clear_line(case: str) -> None:
    """The problem names the source, what was found and the cure, on one line."""
    make, expected = REFUSED[case]
    with pytest.raises(ConfigError) as caught:
        load_public_key(make(), SOURCE)
    (problem,) = caught.value.problems
    assert problem.startswith("JWT_PUBLIC_KEY: found ")
    assert expected in problem
    assert "; " in problem
    assert "\n" not in problem
    assert len(problem) < 200


@pytest.mark.parametrize("case", REFUSED)
def test_no_problem_repeats_any_of_the_input(case: str) -> None:
    """No run of ten characters of a refused key's encoded body shows up in the problem."""
    text = REFUSED[case][0]()
    readable = text.decode("latin-1") if isinstance(text, bytes) else text
    with pytest.raises(ConfigError) as caught:
        load_public_key(text, SOURCE)
    lines = [line for line in readable.splitlines() if not line.startswith("-----")]
    pieces = [line[at : at + 10] for line in lines for at in range(0, max(len(line) - 9, 0), 5)]
    assert not [piece for piece in pieces if piece.strip() and piece in str(caught.value)]
    assert caught.value.__context__ is None


def test_a_source_with_a_newline_stays_on_one_line() -> None:
    """A path may hold anything; the problem is still one line."""
    with pytest.raises(ConfigError, match=r"^odd name: found nothing"):
        load_public_key("", "odd\nname")


def test_a_tiny_rsa_key_is_refused() -> None:
    """An RSA key so small that the library itself may not read it is refused as well."""
    modulus = bytes([0xC5]) + bytes(62) + b"\x0b"
    body = b"\x02\x41\x00" + modulus + b"\x02\x03\x01\x00\x01"
    with pytest.raises(ConfigError, match="512 bits|not a key that can be read"):
        load_public_key(armour("RSA PUBLIC KEY", bytes([0x30, len(body)]) + body), SOURCE)


def mutated(pem: str, at: int, value: int) -> bytes:
    """Return the body of a PEM with one byte changed."""
    body = bytearray(base64.b64decode("".join(pem.splitlines()[1:-1])))
    body[at % len(body)] = value
    return bytes(body)


def outcome(load: Callable[[str | bytes, str], object], text: str | bytes) -> object:
    """Return the key or the ConfigError; any other error is the test's failure."""
    try:
        return load(text, SOURCE)
    except ConfigError as error:
        return error


@settings(max_examples=150, deadline=None)
@example("-----BEGIN PUBLIC KEY-----" * 50)
@example("-----BEGIN PUBLIC KEY----------END PUBLIC KEY-----")
@given(st.one_of(st.text(), st.binary(), st.text(alphabet="-BEGINPUBLICKEYD \n=Aa0+/_")))
def test_any_text_loads_or_raises_config_error(text: str | bytes) -> None:
    """Whatever the text, the outcome is a key or a ConfigError of one line."""
    found = outcome(load_public_key, text)
    assert isinstance(found, (VerificationKey, ConfigError))
    assert "\n" not in str(found)


@settings(max_examples=150, deadline=None)
@given(
    label=st.sampled_from(["PUBLIC KEY", "RSA PUBLIC KEY", "PRIVATE KEY", "EC PRIVATE KEY"]),
    body=st.one_of(
        st.binary(max_size=120),
        st.tuples(st.integers(0, 400), st.integers(0, 255)).map(
            lambda change: mutated(spki(rsa_key()), *change)
        ),
    ),
)
def test_any_pem_body_loads_or_raises_config_error(label: str, body: bytes) -> None:
    """Random and damaged bodies under every label never raise anything else."""
    for load in (load_public_key, load_private_key):
        found = outcome(load, armour(label, body))
        assert isinstance(found, (VerificationKey, SigningKey, ConfigError))
        assert "\n" not in str(found)


def test_generate_makes_a_pair_that_loads() -> None:
    """The private half signs what the public half verifies."""
    private, public = generate()
    assert private.startswith("-----BEGIN PRIVATE KEY-----\n")
    assert public.startswith("-----BEGIN PUBLIC KEY-----\n")
    signing, verification = load_private_key(private), load_public_key(public, SOURCE)
    assert isinstance(signing.key, ed25519.Ed25519PrivateKey)
    assert isinstance(verification.key, ed25519.Ed25519PublicKey)
    verification.key.verify(signing.key.sign(b"m"), b"m")


def test_generate_never_repeats() -> None:
    """Two pairs differ."""
    assert generate() != generate()


def test_public_pem_raw_is_openwares_form() -> None:
    """The body of the PEM is the bare 32 bytes."""
    lines = public_pem_raw(private_pem(ED)).splitlines()
    assert lines == [
        "-----BEGIN PUBLIC KEY-----",
        base64.b64encode(ED_RAW).decode(),
        "-----END PUBLIC KEY-----",
    ]


def test_only_ed25519_has_the_raw_form() -> None:
    """Another kind of key is refused by name."""
    with pytest.raises(ConfigError, match="found RSA-2048; only an Ed25519 key"):
        public_pem_raw(private_pem(rsa_key()))


TRADITIONAL = ser.PrivateFormat.TraditionalOpenSSL
PRIVATE_FORMS: dict[str, tuple[Callable[[], str], str, str]] = {
    "raw seed": (lambda: armour("PRIVATE KEY", SEED), "Ed25519", "EdDSA"),
    "Ed25519": (lambda: private_pem(ED), "Ed25519", "EdDSA"),
    "Ed448": (lambda: private_pem(ed448.Ed448PrivateKey.generate()), "Ed448", "EdDSA"),
    "RSA": (lambda: private_pem(rsa_key()), "RSA-2048", "RS256"),
    "RSA PKCS#1": (lambda: private_pem(rsa_key(), TRADITIONAL), "RSA-2048", "RS256"),
    "EC": (lambda: private_pem(ec_key(ec.SECP384R1)), "EC-P384", "ES384"),
    "EC SEC 1, parameters first": (
        lambda: (
            armour("EC PARAMETERS", bytes.fromhex("06082a8648ce3d030107"))
            + private_pem(ec_key(ec.SECP256R1), TRADITIONAL)
        ),
        "EC-P256",
        "ES256",
    ),
}


@pytest.mark.parametrize("wrap", [str, b64, url_b64], ids=["plain", "base64", "URL-safe"])
@pytest.mark.parametrize("form", PRIVATE_FORMS)
def test_private_keys_load(form: str, wrap: Callable[[str], str]) -> None:
    """A private key of each kind loads, and its kind decides the algorithm."""
    make, kind, algorithm = PRIVATE_FORMS[form]
    key = load_private_key(wrap(make()))
    assert (key.kind, key.algorithm) == (kind, algorithm)


def test_the_raw_seed_is_the_standard_key() -> None:
    """Openware's raw private form holds the same key as PKCS#8."""
    assert public_pem_raw(armour("PRIVATE KEY", SEED)) == public_pem_raw(private_pem(ED))


LEGACY_ENCRYPTED = (
    "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,AA\n\n"
    "AAAA\n-----END RSA PRIVATE KEY-----\n"
)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: "", "found nothing"),
        (lambda: spki(ED), "found a public key; give the private key"),
        (lambda: private_pem(ED, password=b"pw"), "found an encrypted private key; decrypt"),
        (lambda: LEGACY_ENCRYPTED, "found an encrypted private key; decrypt"),
        (lambda: private_pem(rsa_key(1024)), "an RSA key of 1024 bits"),
        (lambda: private_pem(x25519.X25519PrivateKey.generate()), "unsupported kind"),
        (lambda: private_pem(ec_key(ec.SECP256K1)), "unsupported curve"),
        (lambda: armour("PRIVATE KEY", SEED + b"x"), "not a key that can be read"),
        (lambda: private_pem(ED) * 2, "found 2 PEM blocks"),
        (lambda: private_pem(ED, ser.PrivateFormat.OpenSSH), "OpenSSH's own form"),
        (lambda: armour("RSA PRIVATE KEY", SEED), "not a key that can be read"),
        (certificate, "a PEM block of another kind; give the private key"),
    ],
)
def test_what_is_no_private_key_is_refused(make: Callable[[], str], expected: str) -> None:
    """The problem names the given source and says what was found."""
    with pytest.raises(ConfigError) as caught:
        load_private_key(make(), "key.pem")
    assert caught.value.problems[0].startswith("key.pem: found ")
    assert expected in caught.value.problems[0]


def test_reprs_hold_no_key_material() -> None:
    """A key object that ends up in a log shows its kind and no secret."""
    shown = repr(load_private_key(armour("PRIVATE KEY", SEED)))
    assert "Ed25519" in shown
    assert SEED.hex() not in shown
    assert base64.b64encode(SEED).decode() not in shown


def test_a_signature_by_the_loaded_rsa_key_verifies() -> None:
    """PKCS#1 and SPKI text of one RSA key load as that same key."""
    first, second = load_public_key(pkcs1(rsa_key()), "a"), load_public_key(spki(rsa_key()), "b")
    assert first.fingerprint == second.fingerprint
    assert isinstance(first.key, rsa.RSAPublicKey)
    pad = __import__("cryptography.hazmat.primitives.asymmetric.padding", fromlist=["x"])
    signature = rsa_key().sign(b"m", pad.PKCS1v15(), hashes.SHA256())
    first.key.verify(signature, b"m", pad.PKCS1v15(), hashes.SHA256())


# -- several keys, and secrets --------------------------------------------------------------------


@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS)
def test_several_public_keys_load(wrap: Callable[[str], str | bytes]) -> None:
    """One after another, wrapped as one key may be; the same one twice is one."""
    raw = public_pem_raw(private_pem(ED))
    both = spki(ED) + raw + spki(rsa_key())
    kinds = [key.kind for key in load_public_keys(wrap(both), SOURCE)]
    assert kinds == ["Ed25519", "RSA-2048"]
    assert load_public_keys(wrap(raw), SOURCE) == (load_public_key(raw, SOURCE),)


def test_one_bad_key_among_several_is_told() -> None:
    """A private one above all."""
    for bad in (private_pem(ED), certificate(), armour("PUBLIC KEY", b"x" * 31)):
        with pytest.raises(ConfigError):
            load_public_keys(spki(ED) + bad, SOURCE)


def test_keys_are_not_without_number() -> None:
    """Each may be tried for each token."""
    keys = [spki(ed25519.Ed25519PrivateKey.generate()) for _ in range(17)]
    assert len(load_public_keys("".join(keys[:16]), SOURCE)) == 16
    with pytest.raises(ConfigError, match="found 17 keys; leave 16 at most"):
        load_public_keys("".join(keys), SOURCE)


def test_a_secret_says_nothing_of_itself() -> None:
    """Not even a digest, by which a weak one could be guessed."""
    key = load_secret("s" * 32, "JWT_SECRET")
    assert str(key) == "shared secret"
    assert key.algorithms == ("HS256",)
    assert described([key, load_public_key(spki(ED), SOURCE)]).startswith("shared secret, Ed25519 ")


@pytest.mark.parametrize("text", ["s" * 31, spki(ED), private_pem(ED)])
def test_what_is_no_secret(text: str) -> None:
    """A short one can be guessed, and a public key is known to everybody."""
    with pytest.raises(ConfigError) as caught:
        load_secret(text, "JWT_SECRET")
    assert str(caught.value).startswith("JWT_SECRET: found ")
    assert text not in str(caught.value)


def test_keys_of_elsewhere_have_names() -> None:
    """And are checked like all others."""
    assert public_key_of(ED.public_key(), "k1", SOURCE).kid == "k1"
    with pytest.raises(ConfigError):
        public_key_of(b"secret", "k1", SOURCE)
