"""Authentication by the real server: every way in, what a token allows, and how it ends."""

from __future__ import annotations

import base64
import json
import time
from typing import Any, Iterator

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from support import Client, Server, make_token, public_pem, start_gateway, wait_for

SECRET = "a secret of at least thirty-two bytes"
OTHER_KEY = Ed25519PrivateKey.generate()


def keys_setting() -> str:
    """Return two public keys as JWT_PUBLIC_KEY takes them."""
    other = OTHER_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(public_pem().encode() + other).decode()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server that knows two keys and a secret."""
    env = {
        "JWT_PUBLIC_KEY": keys_setting(),
        "JWT_SECRET": SECRET,
        "JWT_ISSUER": "barong",
        "JWT_AUDIENCE": "peatio,other",
        "RANGO_RBAC_DESK": "trader",
        "RANGO_MAX_CONNECTIONS_PER_UID": "2",
    }
    with start_gateway(env=env) as started:
        yield started


def ask(client: Client, **request: Any) -> Any:
    """Send a request and return the next message."""
    client.send(json.dumps(request))
    return json.loads(client.receive())


def authenticate(client: Client, token: str, **more: Any) -> Any:
    """Send a token and return the next message."""
    return ask(client, event="auth", token=token, **more)


def test_in_band_and_private_streams(server: Server) -> None:
    """On any path, at any time; events of the user come on the same connection."""
    with server.connect("/public?stream=a.b") as client:
        client.receive()
        reply = authenticate(client, make_token({"uid": "IN1"}), id=7)
        assert reply["id"] == 7
        assert reply["success"]["uid"] == "IN1"
        assert 3590 <= reply["success"]["ttl"] <= 3600
        assert ask(client, event="subscribe", streams=["order"])["success"]["streams"] == [
            "a.b",
            "order",
        ]
        server.publish("private.IN1.order", '{"id":1}')
        assert client.receive() == '{"order":{"id":1}}'


def test_each_key_and_the_secret(server: Server) -> None:
    """Old and new keys during a rotation, and HS256 by the secret."""
    claims = {"uid": "K1", "iss": "barong", "aud": "other", "exp": time.time() + 60}
    for token in (
        make_token({"uid": "K1"}),
        make_token({"uid": "K1"}, OTHER_KEY),
        jwt.encode(claims, SECRET, "HS256"),
    ):
        with server.connect("/private", token) as client:
            client.receive()


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"exp": 1}, "expired"),
        ({"nbf": 1 << 40}, "not yet valid"),
        ({"iss": "mallory"}, "issuer"),
        ({"aud": "mallory"}, "audience"),
        ({"uid": None}, "no uid"),
    ],
)
def test_reasons(server: Server, claims: dict[str, Any], reason: str) -> None:
    """A refused token is told why, and the connection lives."""
    with server.connect() as client:
        client.receive()
        refused = {"error": f"authentication failed: {reason}"}
        assert authenticate(client, make_token(claims)) == refused
        assert ask(client, event="list")["success"]["streams"] == []


def test_five_bad_tokens(server: Server) -> None:
    """Each is told, then the connection ends with a code that asks for a new token."""
    with server.connect() as client:
        client.receive()
        for _ in range(5):
            assert authenticate(client, "x.y.z") == {"error": "authentication failed: malformed"}
        assert client.closed() == (4401, "authentication failed too often")
    assert server.metric("rango_connections_closed_total", reason="unauthenticated") >= 1


def test_another_user_and_a_lesser_role(server: Server) -> None:
    """What may not be held any more is gone, and told."""
    with server.connect("/private?stream=order&stream=desk.a.b", make_token({"uid": "A1", "role": "trader"})) as client:  # fmt: skip
        client.receive()
        authenticate(client, make_token({"uid": "A1", "role": "member"}))
        assert json.loads(client.receive())["success"] == {
            "message": "unsubscribed",
            "streams": ["order"],
        }
        authenticate(client, make_token({"uid": "A2"}))
        assert json.loads(client.receive())["success"]["streams"] == []
        ask(client, event="subscribe", streams=["order"])
        server.publish("private.A1.order", "1")
        server.publish("private.A2.order", "2")
        assert client.receive() == '{"order":2}'


def test_a_user_s_share_is_the_same_in_band(server: Server) -> None:
    """Who comes anonymous and authenticates counts as who authenticated at once."""
    token = make_token({"uid": "S1"})
    with server.connect() as one, server.connect() as two, server.connect() as three:
        for client in (one, two, three):
            client.receive()
        assert "success" in authenticate(one, token)
        assert "success" in authenticate(two, token)
        assert authenticate(three, token) == {"error": "Too many connections of this user"}
        assert "success" in authenticate(two, make_token({"uid": "S2"}))
        assert "success" in authenticate(three, token)
    wait_for(lambda: server.metric("rango_hub_clients_count") == 0)


def test_ranger_s_way(server: Server) -> None:
    """Old bots that authenticate by a message are answered as Ranger did."""
    with server.connect() as client:
        client.receive()
        assert ask(client, jwt="Bearer nonsense") == {
            "error": {"message": "Authentication failed."}
        }
        assert ask(client, jwt="Bearer " + make_token({"uid": "R1"})) == {
            "success": {"message": "Authenticated."}
        }


def test_a_snapshot_on_the_same_connection(server: Server) -> None:
    """After a gap one asks for the book: it comes, and what follows is neither missing nor twice."""
    with server.connect("/public?stream=snap.ob-inc") as client:
        client.receive()
        server.publish("public.snap.ob-snap", '{"sequence":1}')
        server.publish("public.snap.ob-inc", '{"sequence":2}')
        assert client.receive() == '{"snap.ob-snap":{"sequence":1}}'
        assert client.receive() == '{"snap.ob-inc":{"sequence":2}}'
        client.send('{"event":"snapshot","streams":["snap.ob-inc","none.ob-inc"],"id":1}')
        assert client.receive() == '{"snap.ob-snap":{"sequence":1}}'
        assert client.receive() == '{"snap.ob-inc":{"sequence":2}}'
        assert json.loads(client.receive()) == {
            "success": {"message": "snapshot", "streams": ["snap.ob-inc"]},
            "id": 1,
        }
        server.publish("public.snap.ob-inc", '{"sequence":3}')
        assert client.receive() == '{"snap.ob-inc":{"sequence":3}}'
