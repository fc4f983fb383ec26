"""Keys by a URL: which of them count, when they are fetched, and what happens when they are not."""

from __future__ import annotations

import json
from typing import Any, Iterator

import gevent
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from gevent.event import Event
from jwt.algorithms import ECAlgorithm, HMACAlgorithm, OKPAlgorithm, RSAAlgorithm

from rango_gevent.auth.keys import VerificationKey
from rango_gevent.auth.tokens import TokenVerifier
from rango_gevent.errors import TokenError
from rango_gevent.remote.fetch import Answer, Unreachable
from rango_gevent.remote.jwks import Jwks, read_keys

ED = Ed25519PrivateKey.generate()


def jwk(key: Any = ED, **more: Any) -> dict[str, Any]:
    """Return the JWK of a public or any other key."""
    public = key.public_key() if hasattr(key, "public_key") else key
    if isinstance(key, rsa.RSAPrivateKey):
        form: dict[str, Any] = RSAAlgorithm.to_jwk(public, as_dict=True)
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        form = ECAlgorithm.to_jwk(public, as_dict=True)
    else:
        form = OKPAlgorithm.to_jwk(public, as_dict=True)
    return {**form, **more}


def listed(*keys: Any) -> Answer:
    """Return a list of keys as it is answered."""
    return Answer(200, json.dumps({"keys": keys}).encode())


def token(kid: object = None, key: Any = ED) -> str:
    """Return a token that names a key."""
    return jwt.encode({"uid": "U"}, key, "EdDSA", headers={} if kid is None else {"kid": kid})


@pytest.fixture(autouse=True)
def _in_time() -> Iterator[None]:
    with gevent.Timeout(60):
        yield


def test_public_keys_of_each_kind() -> None:
    """Under their names; an algorithm that is named is the only one."""
    small = rsa.generate_private_key(65537, 2048)
    keys = read_keys(
        listed(
            jwk(kid="a"),
            jwk(small, kid="b", alg="RS256"),
            jwk(small, use="sig"),
            jwk(ec.generate_private_key(ec.SECP256R1()), kid=5),
        )
    )
    assert [(key.kid, key.algorithms) for key in keys] == [
        ("a", ("EdDSA",)),
        ("b", ("RS256",)),
        ("", ("RS256", "RS384", "RS512")),
        ("", ("ES256",)),
    ]


SECRET = HMACAlgorithm.to_jwk("s" * 32, as_dict=True)


@pytest.mark.parametrize(
    "bad",
    [
        SECRET,
        {**SECRET, "alg": "HS256"},
        OKPAlgorithm.to_jwk(ED, as_dict=True),
        jwk(use="enc"),
        jwk(alg="RS256"),
        jwk(alg="none"),
        jwk(alg=["EdDSA"]),
        {},
        {"kty": "OKP"},
        {"kty": "OKP", "crv": "Ed25519", "x": "short"},
        {"kty": ["OKP"]},
        5,
        None,
    ],
)
def test_what_is_no_public_key_is_passed_over(bad: Any) -> None:
    """A secret in such a list is known to everybody, and a private key has no place in it."""
    with pytest.raises(ValueError, match="no key in it can verify tokens"):
        read_keys(listed(bad))
    assert [key.kid for key in read_keys(listed(bad, jwk(kid="good")))] == ["good"]


@pytest.mark.parametrize(
    "answer",
    [
        Answer(500, listed(jwk()).body),
        Answer(200, b""),
        Answer(200, b"[]"),
        Answer(200, b'{"keys":{}}'),
        Answer(200, b"[" * 100_000),
        listed(),
    ],
)
def test_what_is_no_list(answer: Answer) -> None:
    """Then the keys of before stay."""
    with pytest.raises(ValueError, match="."):
        read_keys(answer)


class Source:
    """A list that changes, and who uses it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.keys = [jwk(kid="a")]
        self.is_broken = False
        self.may_answer = Event()
        self.may_answer.set()
        self.fetches = 0
        self.taken: tuple[VerificationKey, ...] = ()
        self.jwks = Jwks(self.fetch, self.take, 300.0, lambda: self.now)

    def fetch(self) -> Answer:
        """Answer with the list of now."""
        self.fetches += 1
        self.may_answer.wait()
        if self.is_broken:
            raise Unreachable("timeout")
        return listed(*self.keys)

    def take(self, keys: tuple[VerificationKey, ...]) -> None:
        """Take note of keys."""
        self.taken = keys


def test_a_new_name_fetches_the_list() -> None:
    """At once when that was long ago, and only then; a known name never does."""
    source = Source()
    assert source.jwks.learn(token("a"))
    assert TokenVerifier(source.taken).verify(token("a"), 0).uid == "U"
    for name in ("a", None):
        source.jwks.learn(token(name))
    source.now += 9
    for index in range(50):
        source.jwks.learn(token(f"x{index}"))
    assert source.fetches == 1
    source.keys.append(jwk(Ed25519PrivateKey.generate(), kid="b"))
    source.now += 1
    assert source.jwks.learn(token("b"))
    assert [key.kid for key in source.taken] == ["a", "b"]
    assert source.fetches == 2


def test_many_who_wait_make_one_fetch() -> None:
    """And all have its keys."""
    source = Source()
    source.may_answer.clear()
    greenlets = [gevent.spawn(source.jwks.learn, token("a")) for _ in range(50)]
    gevent.sleep(0)
    source.may_answer.set()
    assert all(greenlet.get() for greenlet in greenlets)
    assert source.fetches == 1


def test_keys_stay_while_none_come() -> None:
    """A failure takes nothing away; before the first success it is known that keys are missing."""
    source = Source()
    source.is_broken = True
    assert not source.jwks.learn(token("a"))
    assert not source.jwks.learn(token())
    assert source.fetches == 1, "not for each token"
    source.is_broken = False
    source.now += 10
    assert source.jwks.learn(token())
    source.is_broken = True
    source.now += 10
    assert source.jwks.learn(token("new"))
    assert [key.kid for key in source.taken] == ["a"]
    assert source.jwks.fetches == {"good": 1, "failed": 2}


def test_a_token_without_a_header_is_malformed() -> None:
    """And fetches nothing."""
    source = Source()
    for nonsense in ("", "nonsense", "\ud800.a.b", "e30"):
        with pytest.raises(TokenError) if nonsense != "e30" else gevent.Timeout(5):
            source.jwks.learn(nonsense)
    assert source.fetches == 1
