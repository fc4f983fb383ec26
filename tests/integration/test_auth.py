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
from support import (
    Client,
    Server,
    connect,
    http_request,
    make_token,
    public_pem,
    start_gateway,
    wait_for,
)
from websockets.exceptions import InvalidStatus

pytestmark = pytest.mark.usefixtures("documented")
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


# -- ways in --------------------------------------------------------------------------------------

PAGE = "http://shop.example"


@pytest.fixture(scope="module")
def open_server() -> Iterator[Server]:
    """A server with all ways open, a grace on /private, short ends, and a control key."""
    env = {
        "API_CORS_ORIGINS": "shop.example",
        "RANGO_AUTH_WAYS": "header,subprotocol,cookie,query,message,ranger",
        "RANGO_AUTH_COOKIE": "session",
        "RANGO_PRIVATE_GRACE_S": "5",
        "RANGO_TOKEN_GRACE_S": "0",
        "RANGO_CONTROL_KEY": "rango.control",
        "LOG_LEVEL": "debug",
    }
    with start_gateway(env=env) as started:
        yield started


def come(server: Server, way: str, token: str, path: str = "/private") -> Client:
    """Connect with a token that comes in some way."""
    if way == "header":
        return server.connect(path, token)
    if way == "subprotocol":
        return connect(server.url, path, subprotocols=["rango.v1", f"bearer.{token}"])
    if way == "cookie":
        return server.connect(path, headers={"Cookie": f"session={token}", "Origin": PAGE})
    return server.connect(f"{path}?token={token}")


WAYS = ["header", "subprotocol", "cookie", "query"]


@pytest.mark.parametrize("way", WAYS)
def test_each_way_in(open_server: Server, way: str) -> None:
    """A good token opens the private path; of the subprotocols only ours is answered."""
    with come(open_server, way, make_token({"uid": "W1"})) as client:
        client.receive()
        assert client.subscribe("order") == ["order"]
        assert client.connection.subprotocol == ("rango.v1" if way == "subprotocol" else None)


@pytest.mark.parametrize("way", WAYS)
def test_a_bad_token_on_a_path_that_takes_anybody(open_server: Server, way: str) -> None:
    """Anonymous, and told behind the first reply but for Rango's own way."""
    with come(open_server, way, make_token({"exp": 1}), "/public") as client:
        client.receive()
        client.send("ping")
        told: dict[str, Any] = {"error": "authentication failed: expired"}
        if way == "subprotocol":
            told["code"] = 1203
        if way != "header":
            assert client.receive_json() == told
        assert client.receive() == "pong"


def test_unknown_subprotocols(open_server: Server) -> None:
    """A browser ends a connection when none of those that it offered is answered."""
    for offered, answer in ((["a", "b"], "a"), (["a", "rango.v1"], "rango.v1")):
        with connect(open_server.url, subprotocols=offered) as client:
            client.receive()
            assert client.connection.subprotocol == answer


def test_a_while_on_the_private_path(open_server: Server) -> None:
    """Who authenticates in time stays; who does not is told why."""
    with open_server.connect("/private") as one, open_server.connect("/private") as two:
        one.receive()
        two.receive()
        assert "success" in authenticate(one, make_token({"uid": "G1"}))
        assert two.closed() == (4401, "authentication missing")
        assert ask(one, event="list")["success"]["streams"] == []


def test_a_token_ends(open_server: Server) -> None:
    """With a code that asks for a new one; who renews in time stays, and hears of the end."""
    with open_server.connect("/private", make_token({"uid": "E1", "exp": time.time() + 8})) as one:
        one.receive()
        with open_server.connect() as two:
            two.receive()
            authenticate(two, make_token({"uid": "E1", "exp": time.time() + 8}))
            notice = two.receive_json()
            assert notice["event"] == "auth_expiring"
            assert 0 <= notice["in"] <= 8
            assert "success" in authenticate(two, make_token({"uid": "E1"}))
            assert one.closed() == (4401, "authentication expired")
            assert ask(two, event="list")["success"]["streams"] == []
    assert open_server.metric("rango_tokens_ended_total", policy="close") == 1


# -- control messages -----------------------------------------------------------------------------


def test_tokens_are_taken_back(open_server: Server) -> None:
    """Their connections end and they are refused; a later token and other users are let in."""
    old = make_token({"uid": "C1", "iat": time.time() - 100})
    new = make_token({"uid": "C1"})
    with (
        open_server.connect("/private", old) as one,
        open_server.connect("/private", new) as two,
        open_server.connect("/public?stream=rango.control") as listener,
    ):
        for client in (one, two, listener):
            client.receive()
        command = {"revoke": {"uid": "C1", "before": time.time() - 50}}
        open_server.publish("rango.control", json.dumps(command))
        assert one.closed() == (4403, "revoked")
        assert ask(two, event="list")["success"]["streams"] == []
        assert authenticate(two, old) == {"error": "authentication failed: revoked"}
        with pytest.raises(InvalidStatus) as refused:
            open_server.connect("/private", old)
        assert refused.value.response.status_code == 401
        open_server.publish("rango.control", '{"disconnect":{"uid":"C1"}}')
        assert two.closed() == (4403, "revoked")
        with open_server.connect("/private", new) as three:
            three.receive()
        open_server.publish("rango.control", '{"revoke":7}')
        wait_for(lambda: open_server.metric("rango_control_messages_total", action="bad"))
        held = ask(listener, event="list")
        assert held["success"]["streams"] == ["rango.control"], "nothing of it was broadcast"
    assert open_server.metric("rango_revocations") == 1


# -- secrets --------------------------------------------------------------------------------------


def test_no_token_reaches_a_log_a_metric_or_an_answer(open_server: Server) -> None:
    """Good ones and bad ones, whichever way they come, at the most talkative level."""
    secrets = []
    for index, way in enumerate(WAYS):
        for claims in ({"uid": f"T{index}"}, {"uid": f"T{index}", "exp": 1}):
            token = make_token(claims)
            secrets += [token, token.rpartition(".")[2]]
            with come(open_server, way, token, "/public") as client:
                heard = [client.receive()]
                client.send({"event": "auth", "token": token})
                client.send({"event": "auth", "token": f"{token}x"})
                client.send({"jwt": f"Bearer {token}"})
                client.send({"jwt": f"Bearer {token}", "event": token, "streams": [1]})
                client.send('{"event":"auth","token":"' + token)
                client.send("ping")
                heard += client.receive_until(lambda message: message == "pong")
            assert not [one for one in secrets for message in heard if one in message]
            for headers in ({"Authorization": f"Bearer {token}x"}, {"Cookie": f"session={token}x"}):
                answer = refusal_of(open_server, f"/private?token={token}x", headers)
                assert not [one for one in secrets if one in answer]
    log = open_server.log() + http_request(open_server.metrics_port, "/metrics").body
    assert not [one for one in secrets if one in log]


def refusal_of(server: Server, path: str, headers: dict[str, str]) -> str:
    """Return all that a refused handshake is answered."""
    try:
        with server.connect(path, headers=headers) as client:
            return client.receive()
    except InvalidStatus as error:
        return f"{error.response.headers} {error.response.body!r}"


def test_a_renewal_leaves_no_gap(server: Server) -> None:
    """Each event comes once and in order while the token is renewed again and again."""
    with server.connect(
        "/private?stream=order&stream=n.ob-inc", make_token({"uid": "N1"})
    ) as client:
        client.receive()
        count = 100
        for number in range(count):
            server.publish("private.N1.order", str(number))
            if number % 10 == 0:
                client.send({"event": "auth", "token": make_token({"uid": "N1"}), "id": number})
        heard = client.receive_until(lambda message: message == f'{{"order":{count - 1}}}')
        assert [message for message in heard if message.startswith('{"order"')] == [
            f'{{"order":{number}}}' for number in range(count)
        ]


def test_every_worker_acts() -> None:
    """Each has a queue of its own, so a control message reaches all."""
    env = {"RANGO_WORKERS": "2", "RANGO_CONTROL_KEY": "rango.control"}
    token = make_token({"uid": "X1", "iat": time.time() - 10})
    with start_gateway(env=env) as started:
        wait_for(lambda: started.metric("rango_ready") == 2, what="both workers")
        clients = [started.connect("/private", token) for _ in range(12)]
        for client in clients:
            client.receive()
        started.publish("rango.control", '{"revoke":{"uid":"X1"}}')
        assert [client.closed() for client in clients] == [(4403, "revoked")] * 12

        def is_refused() -> bool:
            with pytest.raises(InvalidStatus) as refused:
                started.connect("/private", token)
            return refused.value.response.status_code == 401

        assert all(is_refused() for _ in range(12))
