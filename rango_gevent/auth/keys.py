"""Keys for tokens: every form that exists in the field becomes one checked object.

The text comes from a setting or from a file that somebody else has read, the result goes to
``tokens``. Two rules hold:

* The algorithms a key may verify follow from the key's kind alone, never from a token.
* No error holds key material: a problem says where the text came from, what it looks like and
  the cure, on one line.

Forms that load: PEM in the standard encodings (SPKI, PKCS#1, PKCS#8, SEC 1), PEM whose body is
the bare 32 bytes of an Ed25519 key (what Openware's tools write), and any of these wrapped in
base64 once more, standard or URL-safe, padded or not, with white space anywhere.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
from dataclasses import dataclass
from typing import Callable, Iterable, NamedTuple, Union

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey, Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
)

from rango_gevent.errors import ConfigError

PublicKey = Union[Ed25519PublicKey, Ed448PublicKey, RSAPublicKey, EllipticCurvePublicKey]
PrivateKey = Union[Ed25519PrivateKey, Ed448PrivateKey, RSAPrivateKey, EllipticCurvePrivateKey]

MIN_RSA_BITS = 2048
MIN_SECRET_BYTES = 32  # as many as the hash has (RFC 7518 section 3.2)
MAX_KEYS = 16  # each is tried where a token does not name its key
MAX_TEXT_BYTES = 32 * 1024  # the PEM of a 16384-bit RSA key, wrapped once more, has 5 KB
RAW_ED25519_BYTES = 32

# RSA keys verify PKCS#1 v1.5 signatures only. Nothing in this field signs PS*, and a key is best
# kept to one padding (RFC 8017 section 6), so the smaller door stays the only one.
_RSA_ALGORITHMS = ("RS256", "RS384", "RS512")
_CURVES = {
    "secp256r1": ("EC-P256", ("ES256",)),
    "secp384r1": ("EC-P384", ("ES384",)),
    "secp521r1": ("EC-P521", ("ES512",)),
}
_KINDS_TEXT = "Ed25519, RSA of at least 2048 bits, or EC P-256, P-384, P-521"
_PUBLIC_LABELS = frozenset({"PUBLIC KEY", "RSA PUBLIC KEY"})
_PRIVATE_LABELS = frozenset({"PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"})

_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----(.*?)-----END \1-----", re.DOTALL)
_BASE64 = re.compile(r"[A-Za-z0-9+/]+")
_FILE_NAME = re.compile(r"[\w./~-]{1,255}\.(pub|pem|key|crt|cer|der)", re.ASCII)


@dataclass(frozen=True)
class VerificationKey:
    """A key and what it may verify.

    Args:
        key: the key object of the cryptography package; bytes of a secret that is shared.
        algorithms: JWS names that a token's ``alg`` may have, e.g. ``("EdDSA",)``.
        kind: the key's kind for people, e.g. ``Ed25519``, ``RSA-2048``, ``EC-P256``.
        fingerprint: first 16 hex digits of the SHA-256 of the key's SPKI form; fit for logs,
            and the same whichever form the key was given in. Empty for a secret, which a weak
            one's digest would give away.
        kid: name by which tokens choose it among others; empty for none.
    """

    key: PublicKey | bytes
    algorithms: tuple[str, ...]
    kind: str
    fingerprint: str
    kid: str = ""

    def __str__(self) -> str:
        """Describe the key for people."""
        return f"{self.kind} key {self.fingerprint}" if self.fingerprint else self.kind


@dataclass(frozen=True)
class SigningKey:
    """A private key and the algorithm that it signs with.

    Args:
        key: the key object of the cryptography package.
        algorithm: JWS name, e.g. ``EdDSA``.
        kind: the key's kind for people, e.g. ``Ed25519``.
    """

    key: PrivateKey
    algorithm: str
    kind: str


class _Wanted(NamedTuple):
    """What is being loaded, so that every refusal names its source and a cure."""

    source: str
    labels: frozenset[str]
    cure: str

    def refuse(self, found: str, cure: str = "") -> ConfigError:
        """Build the one-line problem; white space in the source cannot break the line."""
        return ConfigError(f"{' '.join(self.source.split())}: found {found}; {cure or self.cure}")


def load_public_key(text: str | bytes, source: str) -> VerificationKey:
    """Load the public key that tokens are verified with, in any form of the module's list.

    Args:
        text: the key as given by the operator.
        source: where it came from, e.g. ``JWT_PUBLIC_KEY`` or a path; named in every problem.

    Raises:
        ConfigError: one line that says what was found instead and the cure.
    """
    wanted = _Wanted(
        source, _PUBLIC_LABELS, "give the public key as a PEM, plain or wrapped in base64"
    )
    label, body = _pem_block(text, wanted)
    if label == "PUBLIC KEY" and len(body) == RAW_ED25519_BYTES:
        return _verification_key(Ed25519PublicKey.from_public_bytes(body), wanted)
    return _verification_key(_parse(lambda: load_der_public_key(body), wanted), wanted)


def load_public_keys(text: str | bytes, source: str) -> tuple[VerificationKey, ...]:
    """Load one or several public keys, each in any form of the module's list, one after another.

    Raises:
        ConfigError: as `load_public_key`, or they are too many.
    """
    keys: dict[str, VerificationKey] = {}
    for block in _several(text):
        key = load_public_key(block, source)
        keys[key.fingerprint] = key
    if len(keys) > MAX_KEYS:
        raise ConfigError(f"{source}: found {len(keys)} keys; leave {MAX_KEYS} at most")
    return tuple(keys.values())


def _several(text: str | bytes) -> list[str | bytes]:
    """Return the PEM blocks of a text that holds several; else the text, to be judged whole."""
    plain = text.decode("latin-1") if isinstance(text, bytes) else text
    if "-----BEGIN" not in plain:
        plain = (_from_base64(plain.strip().strip("\"'")) or b"").decode("latin-1")
    blocks = _BLOCK.finditer(plain[: MAX_KEYS * MAX_TEXT_BYTES])
    found: list[str | bytes] = [block.group(0) for block in blocks]
    return found if len(found) > 1 else [text]


def described(keys: Iterable[VerificationKey | str]) -> str:
    """Describe keys, and what else tokens are checked with, on one line for people."""
    return ", ".join(map(str, keys)) or "no key"


def load_secret(text: str, source: str) -> VerificationKey:
    """Take a shared secret, which verifies HS256 and nothing else.

    Raises:
        ConfigError: it is short enough to be guessed, or the text of another kind of key.
    """
    secret = text.encode()
    if "-----BEGIN" in text:
        raise ConfigError(f"{source}: found a PEM; give a public key as JWT_PUBLIC_KEY")
    if len(secret) < MIN_SECRET_BYTES:
        raise ConfigError(
            f"{source}: found {len(secret)} bytes; give at least {MIN_SECRET_BYTES} random ones"
        )
    return VerificationKey(secret, ("HS256",), "shared secret", "")


def public_key_of(key: object, kid: str, source: str) -> VerificationKey:
    """Take a public key that was read from elsewhere, such as a JWK, under its name.

    Raises:
        ConfigError: it is of a kind that is not supported.
    """
    wanted = _Wanted(source, _PUBLIC_LABELS, f"supported: {_KINDS_TEXT}")
    return dataclasses.replace(_verification_key(key, wanted), kid=kid)


def load_private_key(text: str | bytes, source: str = "the private key") -> SigningKey:
    """Load a private key to sign tokens with, in any form of the module's list.

    Args:
        text: the key as given by the operator; it must not be encrypted.
        source: where it came from; named in every problem.

    Raises:
        ConfigError: one line that says what was found instead and the cure.
    """
    wanted = _Wanted(
        source, _PRIVATE_LABELS, "give the private key as a PEM, plain or wrapped in base64"
    )
    label, body = _pem_block(text, wanted)
    if label == "PRIVATE KEY" and len(body) == RAW_ED25519_BYTES:
        return _signing_key(Ed25519PrivateKey.from_private_bytes(body), wanted)
    return _signing_key(_parse(lambda: load_der_private_key(body, None), wanted), wanted)


def generate() -> tuple[str, str]:
    """Make a new Ed25519 key pair.

    The one function of this room that is not a function of its arguments: the randomness is the
    operating system's, taken by the cryptography package, because a key must never depend on a
    generator that a caller could pass in.

    Returns:
        The private key as a PKCS#8 PEM and the public key as an SPKI PEM.
    """
    key = Ed25519PrivateKey.generate()
    private_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public_pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return private_pem.decode("ascii"), public_pem.decode("ascii")


def public_pem_raw(private_pem: str | bytes) -> str:
    """Return the public half in Openware's form: a PEM around the bare 32 bytes.

    Raises:
        ConfigError: the key is not a private Ed25519 key.
    """
    signing = load_private_key(private_pem)
    if not isinstance(signing.key, Ed25519PrivateKey):
        raise ConfigError(
            f"the private key: found {signing.kind}; only an Ed25519 key has the raw form"
        )
    raw = signing.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    body = base64.b64encode(raw).decode("ascii")
    return f"-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n"


def _pem_block(text: str | bytes, wanted: _Wanted) -> tuple[str, bytes]:
    """Return the label, checked, and the decoded body of the one PEM block in `text`."""
    blocks = _pem_blocks(_ascii(text, wanted), wanted)
    for label, _ in blocks:
        if label not in wanted.labels:
            raise _wrong_label(label, wanted)
    if len(blocks) > 1:
        raise wanted.refuse(f"{len(blocks)} PEM blocks", "leave only the one key")
    label, armoured = blocks[0]
    if "Proc-Type:" in armoured:  # the old OpenSSL way to encrypt, RFC 1421
        raise _wrong_label("ENCRYPTED PRIVATE KEY", wanted)
    body = _from_base64(armoured)
    if body is None:
        raise wanted.refuse("a PEM whose body is not base64", "copy it whole")
    return label, body


def _ascii(text: str | bytes, wanted: _Wanted) -> str:
    """Return `text` as clean ASCII, without what env files and editors put around it."""
    if len(text) > MAX_TEXT_BYTES:
        raise wanted.refuse(f"{len(text)} bytes, far too many for a key")
    if isinstance(text, bytes):
        if text.startswith(b"\x30") and not text.isascii():  # an ASN.1 sequence
            raise wanted.refuse(
                "binary DER", "make it a PEM: openssl pkey -inform DER, a public key with -pubin"
            )
        text = text.decode("utf-8", "replace")
    # A quoted value keeps its quotes in some env files, and newlines often come as a literal \n.
    text = text.lstrip("\ufeff").strip().strip("\"'").replace("\\r", "").replace("\\n", "\n")
    if not text.isascii():
        raise wanted.refuse("binary data or text that is not ASCII")
    if not text.strip():
        raise wanted.refuse("nothing")
    return text


def _pem_blocks(text: str, wanted: _Wanted) -> list[tuple[str, str]]:
    """Return label and body text of each PEM block, unwrapping one layer of base64."""
    if "-----BEGIN" not in text:
        text = _unwrapped(text, wanted)
    # OpenSSL writes the curve's name as a block of its own before an EC private key.
    blocks = [found for found in _BLOCK.findall(text) if found[0] != "EC PARAMETERS"]
    if not blocks:
        raise wanted.refuse("a PEM without matching BEGIN and END lines", "copy it whole")
    return blocks


def _unwrapped(text: str, wanted: _Wanted) -> str:
    """Return the PEM text that `text` holds in base64."""
    decoded = _from_base64(text)
    if decoded is None or b"-----BEGIN" not in decoded:
        raise _not_a_pem(text, decoded, wanted)
    return _ascii(decoded, wanted)


def _from_base64(text: str) -> bytes | None:
    """Decode either alphabet, with or without padding; None if it is not base64."""
    compact = "".join(text.split()).replace("-", "+").replace("_", "/").rstrip("=")
    if not _BASE64.fullmatch(compact) or len(compact) % 4 == 1:
        return None
    return base64.b64decode(compact + "=" * (-len(compact) % 4))


def _not_a_pem(text: str, decoded: bytes | None, wanted: _Wanted) -> ConfigError:
    """Say what `text` looks like, without repeating any of it."""
    if _FILE_NAME.fullmatch(text):
        return wanted.refuse("a file name", "give the key itself here, or the file with -pubKey")
    if text.startswith(("ssh-", "ecdsa-sha2-")):
        return wanted.refuse("an OpenSSH public key")
    if text.startswith("{"):
        return wanted.refuse("JSON, perhaps a JWK")
    if decoded is None:
        return wanted.refuse("neither a PEM nor base64 of one")
    if b"-----BEGIN" in (_from_base64(decoded.decode("latin-1")) or b""):
        return wanted.refuse("base64 wrapped twice", "wrap the PEM in base64 once, or not at all")
    return wanted.refuse(
        "base64 that holds no PEM", "the text inside must have its BEGIN and END lines"
    )


def _wrong_label(label: str, wanted: _Wanted) -> ConfigError:
    """Say which kind of PEM was found; an unknown label is not repeated, it may be anything."""
    if wanted.labels is _PRIVATE_LABELS:
        return _not_private(label, wanted)
    if label.endswith("PRIVATE KEY"):
        return wanted.refuse(
            "a private key", "give its public half: openssl pkey -in KEY -pubout, and keep KEY away"
        )
    if label.endswith("CERTIFICATE"):
        return wanted.refuse("a certificate", "take its key: openssl x509 -in CERT -noout -pubkey")
    return wanted.refuse("a PEM block of another kind")


def _not_private(label: str, wanted: _Wanted) -> ConfigError:
    """Say which kind of PEM was found where a private key was wanted."""
    if label == "ENCRYPTED PRIVATE KEY":
        return wanted.refuse("an encrypted private key", "decrypt it first: openssl pkey -in KEY")
    if label == "OPENSSH PRIVATE KEY":
        return wanted.refuse("a private key in OpenSSH's own form", "make it a PKCS#8 PEM")
    if label in _PUBLIC_LABELS:
        return wanted.refuse("a public key", "give the private key that belongs to it")
    return wanted.refuse("a PEM block of another kind")


def _parse(load: Callable[[], object], wanted: _Wanted) -> object:
    """Run one of the cryptography package's DER readers; its errors are many and unhelpful."""
    try:
        return load()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        problem = wanted.refuse(
            "a PEM whose body is not a key that can be read", f"supported: {_KINDS_TEXT}"
        )
    raise problem


def _verification_key(key: object, wanted: _Wanted) -> VerificationKey:
    """Check the key's kind and size and derive all that follows from them."""
    if not isinstance(
        key, (Ed25519PublicKey, Ed448PublicKey, RSAPublicKey, EllipticCurvePublicKey)
    ):
        raise wanted.refuse("a key of an unsupported kind", f"supported: {_KINDS_TEXT}")
    kind, algorithms = _kind(key, wanted)
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return VerificationKey(key, algorithms, kind, hashlib.sha256(spki).hexdigest()[:16])


def _signing_key(key: object, wanted: _Wanted) -> SigningKey:
    """Check the private key by way of its public half; the first algorithm is the usual one."""
    if not isinstance(
        key, (Ed25519PrivateKey, Ed448PrivateKey, RSAPrivateKey, EllipticCurvePrivateKey)
    ):
        raise wanted.refuse("a key of an unsupported kind", f"supported: {_KINDS_TEXT}")
    kind, algorithms = _kind(key.public_key(), wanted)
    return SigningKey(key, algorithms[0], kind)


def _kind(key: PublicKey, wanted: _Wanted) -> tuple[str, tuple[str, ...]]:
    """Return the kind's name and the algorithms that it allows (RFC 7518, RFC 8037)."""
    if isinstance(key, Ed25519PublicKey):
        return "Ed25519", ("EdDSA",)
    if isinstance(key, Ed448PublicKey):
        return "Ed448", ("EdDSA",)
    if isinstance(key, EllipticCurvePublicKey):
        if key.curve.name not in _CURVES:
            raise wanted.refuse("an EC key on an unsupported curve", f"supported: {_KINDS_TEXT}")
        return _CURVES[key.curve.name]
    if key.key_size < MIN_RSA_BITS:
        raise wanted.refuse(
            f"an RSA key of {key.key_size} bits", f"make one of at least {MIN_RSA_BITS} bits"
        )
    return f"RSA-{key.key_size}", _RSA_ALGORITHMS
