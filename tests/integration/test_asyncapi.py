"""docs/asyncapi.yaml: it is AsyncAPI 3, and it is what goes over the wire, no more and no less."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
from asyncapi import (
    ADMIN,
    CLIENT,
    PRIVATE,
    PUBLIC,
    SCHEMA,
    SERVER,
    VIABTC,
    document,
    found,
    is_message,
    kinds,
    names_of,
    operations,
    payload_of,
    references,
    senders,
)
from jsonschema import Draft7Validator
from support import ROOT, Client, Server, connect, make_token, start_gateway

from rango_gevent.hub.history import REASONS
from rango_gevent.protocol import close, codes, refusals

ALL = document()["components"]["messages"]
MESSAGES = names_of(PUBLIC)


# -- the document ---------------------------------------------------------------------------------


def test_it_is_asyncapi() -> None:
    """By the schema that AsyncAPI publishes for version 3.0."""
    errors = Draft7Validator(json.loads(SCHEMA.read_text())).iter_errors(document())
    assert [(list(error.absolute_path), error.message[:200]) for error in errors] == []


def test_it_has_no_loose_ends() -> None:
    """Every reference names something, every message is sent by somebody, on both channels alike."""
    for reference in references(document()):
        found(reference)
    parts = document()["components"].items()
    named = {f"#/components/{kind}/{name}" for kind, names in parts for name in names}
    assert named == {ref for ref in references(document()) if ref.startswith("#/components/")}
    channels = document()["channels"]
    assert set(channels) == {PUBLIC, PRIVATE, VIABTC, ADMIN}
    for channel in channels:
        assert senders(channel)[CLIENT] | senders(channel)[SERVER] == names_of(channel)
    assert set().union(*map(names_of, channels)) == set(ALL)
    assert names_of(PUBLIC) == names_of(PRIVATE)
    twins = operations(PRIVATE)
    for name, operation in operations(PUBLIC).items():
        text = json.dumps(operation).replace("channels/public", "channels/private")
        assert json.loads(text) == twins.pop(f"{name}OnPrivate")
    assert not twins


@pytest.mark.parametrize(
    ("channel", "name"),
    [(channel, name) for channel in (PUBLIC, VIABTC, ADMIN) for name in sorted(names_of(channel))],
)
def test_an_example_is_its_message_alone(channel: str, name: str) -> None:
    """So that nobody has to guess what a message is; results are told apart by their requests."""
    sender = CLIENT if name in senders(channel)[CLIENT] else SERVER
    assert ALL[name]["examples"]
    for example in ALL[name]["examples"]:
        payload = example["payload"]
        text = payload if isinstance(payload, str) else json.dumps(payload)
        if channel == VIABTC and payload.get("result") is not None:
            assert is_message(text, name), text
        else:
            assert kinds(text, sender, channel) == [name], text


@pytest.mark.parametrize(
    ("text", "sender"),
    [
        ('{"event":"subscribe"}', CLIENT),
        ('{"event":"subscribe","streams":[7]}', CLIENT),
        ('{"event":"subscribe","streams":[],"id":1.5}', CLIENT),
        ('{"event":"subscribe","streams":[],"since":""}', CLIENT),
        ('{"event":"dance"}', CLIENT),
        ("pong", CLIENT),
        ("ping", SERVER),
        ("{}", SERVER),
        ('{"a.b":1,"c.d":2}', SERVER),
        ('{"a.b":1,"at":2}', SERVER),
        ('{"success":{"message":"subscribed"}}', SERVER),
        ('{"success":{"message":"subscribed","streams":[],"recovered":true}}', SERVER),
        ('{"success":{"message":"subscribed","streams":[],"reason":"gap"}}', SERVER),
        (
            '{"success":{"message":"subscribed","streams":[],"recovered":true,"reason":"gap"}}',
            SERVER,
        ),
        ('{"success":{"message":"subscribed","streams":[]},"error":"x"}', SERVER),
        ('{"success":{"message":"list","streams":[],"at":"1-a"}}', SERVER),
        ('{"success":{"message":"authenticated","uid":"ID1"}}', SERVER),
        ('{"error":"x","code":1}', SERVER),
        ('{"error":{"message":"x"}}', SERVER),
        ('{"event":"position","at":null}', SERVER),
        ('{"event":"auth_expiring"}', SERVER),
    ],
)
def test_what_is_wrong_is_no_message(text: str, sender: str) -> None:
    """A schema that takes anything would prove nothing."""
    assert kinds(text, sender) == []


def test_it_has_the_tables_of_the_code() -> None:
    """Close codes, refusals of a handshake, and numbers of errors."""
    closes = [(row["code"], row["text"], row["reconnect"]) for row in document()["x-closes"]]
    assert closes == [(row.code, row.text, row.reconnect) for row in close.TABLE]
    told = [(row["status"], row["text"]) for row in document()["x-refusals"]]
    assert told == [(row.status, row.text) for row in refusals.TABLE if row.status]
    reasons = {row["const"] for row in found("#/components/schemas/reason")["oneOf"]}
    assert reasons == set(REASONS)
    numbers = {
        row["const"]: row["description"] for row in found("#/components/schemas/code")["oneOf"]
    }
    ours = {value for value in vars(codes).values() if isinstance(value, int)}
    assert set(numbers) == ours | set(codes.OF_TOKENS.values())
    assert {word: numbers[code] for word, code in codes.OF_TOKENS.items()} == {
        word: word for word in codes.OF_TOKENS
    }


# -- what was recorded, and what is written elsewhere ---------------------------------------------


def named(text: str, sender: str) -> str:
    """Name a message by looking at it as a client does; empty: a request that is refused."""
    payload = payload_of(text)
    if isinstance(payload, str):
        return payload if payload in MESSAGES else ""
    if not isinstance(payload, dict):
        return ""
    if sender == CLIENT:
        is_whole = "streams" not in payload or isinstance(payload["streams"], list)
        with_streams = payload.get("event") in ("subscribe", "unsubscribe", "snapshot")
        if not is_whole or (with_streams and "streams" not in payload):
            return ""
        name = payload.get("event", "jwt" if "jwt" in payload else "")
        return name if name in MESSAGES else ""
    if "success" in payload:
        message = payload["success"]["message"]
        others = {"list": "listed", "time": "timed", "snapshot": "snapshotted"}
        others["Authenticated."] = "rangerAuthenticated"
        is_refusal = message.startswith("cannot subscribe")
        return "cannotSubscribe" if is_refusal else others.get(message, message)
    if "error" in payload:
        return "error" if isinstance(payload["error"], str) else "rangerRefused"
    notices = {"resync": "resync", "auth_expiring": "authExpiring", "position": "position"}
    return notices.get(payload.get("event"), "event")


def check(text: str, sender: str) -> str:
    """Check that a text is the one message of the document that it looks like."""
    name = named(text, sender)
    assert kinds(text, sender) == ([name] if name else []), (sender, text)
    return name


def test_the_transcripts_of_rango_are_in_it() -> None:
    """Every message that was recorded, of either end."""
    seen = set()
    for scenario in json.loads((ROOT / "tests/vectors/rango.json").read_text()):
        for step in scenario["steps"]:
            if step.get("send") and step["text"].strip():
                seen.add(check(step["text"], CLIENT))
        for name, expected in scenario["expect"].items():
            for text in () if name.startswith("__") else expected["received"]:
                seen.add(check(text, SERVER))
    assert seen == {"", "subscribe", "unsubscribe", "ping", "pong", "subscribed"} | {
        "unsubscribed",
        "cannotSubscribe",
        "error",
        "event",
    }


def test_the_examples_of_the_pages_are_in_it() -> None:
    """Of PROTOCOL.md, AUTH.md and the README: with a direction, alone on a line, or within one."""
    seen = set()
    for page in ("docs/PROTOCOL.md", "docs/AUTH.md", "README.md"):
        text = (ROOT / page).read_text()
        for direction, line in re.findall(r"^([<>]) (.*)$", text, re.M):
            seen.add(check(line, CLIENT if direction == ">" else SERVER))
        alone = re.findall(r"^(\{\".*?\})(?: {4}.*)?$", text, re.M)
        within = re.findall(r"`(\{\"(?:success|error|event|jwt)\".*?\})`", text)
        for line in [*alone, *within]:
            if re.search("[,:]…", line):  # only named, not shown
                continue
            whole = re.sub(r"\[…[^\]]*\]", "[]", line.replace("{…}", "{}"))
            whole = whole.replace("…", "x")  # a part was left out
            ends = [end for end in (CLIENT, SERVER) if kinds(whole, end)]
            assert ends, (page, line)
            seen.add(check(whole, ends[0]))  # a request may look like an event
    assert seen - {""} == set(MESSAGES)


# -- the gateway itself ---------------------------------------------------------------------------


class Tour:
    """Clients of one gateway; all that they send and get is looked up in the document.

    Attributes:
        seen: names of the messages that went over the wire.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.seen: set[str] = set()

    def send(self, client: Client, message: Any) -> None:
        """Send a request that the document knows, or bytes that it must not know."""
        text = message if isinstance(message, str) else json.dumps(message)
        self.seen.add(check(text, CLIENT))
        client.send(text)

    def expect(self, client: Client, *names: str) -> str:
        """Receive these messages, in this order; return the last.

        Where a client stands is told at any time, with a ping: it may come between any two.
        """
        text = ""
        for name in names:
            found = ""
            while found != name:
                text = client.receive()
                found = check(text, SERVER)
                assert found in (name, "position"), text
                self.seen.add(found)
        return text

    def ask(self, client: Client, message: Any, *names: str) -> str:
        """Send a request and expect these messages."""
        self.send(client, message)
        return self.expect(client, *names)


def visit_plain_protocol(tour: Tour) -> None:
    """Streams, books, errors, as Rango has them."""
    with tour.server.connect("/public?stream=b.trades") as client:
        tour.expect(client, "subscribed")
        tour.ask(client, "ping", "pong")
        tour.ask(client, {"event": "subscribe", "streams": ["b.ob-inc"]}, "subscribed")
        tour.ask(client, {"event": "subscribe", "streams": ["desk.b.sys"]}, "cannotSubscribe", "subscribed")  # fmt: skip
        tour.ask(client, {"event": "subscribe", "streams": ["order"]}, "subscribed")
        tour.ask(client, {"event": "unsubscribe", "streams": ["x.y"]}, "unsubscribed")
        for text in ('{"event":"dance"}', '{"event":"subscribe"}', "[]", "{"):
            tour.ask(client, text, "error")
        for body in ("1", '"text"', "null", "[[]]", '{"at":"1-a"}'):
            tour.server.publish("public.b.trades", body)
            tour.expect(client, "event")
        tour.server.publish("public.b.ob-snap", '{"asks":[],"bids":[],"sequence":1}')
        tour.server.publish("public.b.ob-inc", '{"asks":["1","1"],"sequence":2}')
        tour.expect(client, "event", "event")
        tour.ask(client, {"event": "subscribe", "streams": ["b.ob-inc"]}, "event", "event", "subscribed")  # fmt: skip


def visit_extensions(tour: Tour) -> None:
    """Requests with ids, tokens in band, as text and in Ranger's words."""
    with tour.server.connect("/public?stream=e.ob-inc") as client:
        tour.expect(client, "subscribed")
        tour.server.publish("public.e.ob-snap", '{"asks":[],"bids":[],"sequence":1}')
        tour.expect(client, "event")
        tour.ask(client, {"event": "list", "id": 1}, "listed")
        tour.ask(client, {"event": "time", "id": "t"}, "timed")
        tour.ask(client, {"event": "snapshot", "streams": ["e.ob-inc"], "id": 2}, "event", "snapshotted")  # fmt: skip
        tour.ask(client, {"event": "auth", "token": "x.y.z", "id": 3}, "error")
        tour.ask(client, {"jwt": "Bearer x.y.z"}, "rangerRefused")
        tour.ask(client, {"jwt": f"Bearer {make_token({'role': 'trader'})}"}, "rangerAuthenticated")
        tour.ask(client, {"event": "subscribe", "streams": ["order", "desk.b.sys"]}, "subscribed")
        tour.server.publish("private.ID1.order", '{"id":1}')
        tour.server.publish("desk.b.sys", "1")
        tour.expect(client, "event", "event")
        lesser = {"event": "auth", "token": make_token({}), "id": 4}
        tour.ask(client, lesser, "authenticated", "unsubscribed")
        endless = {"event": "auth", "token": make_token({"uid": "ID2", "exp": None})}
        tour.ask(client, endless, "authenticated", "unsubscribed")


def visit_numbers(tour: Tour) -> None:
    """Each error that a client of ``rango.v1`` can be told, with its number."""

    def code(text: str) -> int:
        return int(json.loads(text)["code"])

    told = []
    token = make_token({"exp": 1})
    protocols = ["rango.v1", f"bearer.{token}"]
    with connect(tour.server.url, "/public", subprotocols=protocols) as client:
        told.append(code(tour.expect(client, "subscribed", "error")))
        for request in (
            "{",
            {"event": "dance"},
            {"event": "subscribe"},
            {"event": "subscribe", "streams": ["x" * 300]},
            {"event": "subscribe", "streams": [f"{n}.x" for n in range(6)]},
            {"event": "auth", "token": "x.y.z"},
            {"event": "auth", "token": make_token({}, algorithm="EdDSA")[:-4] + "AAAA"},
            {"event": "auth", "token": make_token({"nbf": 1 << 40})},
            {"event": "auth", "token": make_token({"uid": None})},
        ):
            text = request if isinstance(request, str) else json.dumps(request)
            client.send(text)
            told.append(code(tour.expect(client, "error")))
        for name in ("order", "desk.b.sys"):
            client.send(json.dumps({"event": "subscribe", "streams": [name]}))
            told.append(code(tour.expect(client, "error")))
            tour.expect(client, "subscribed")
        told.append(code(client.ping_to_the_limit(10)))
    assert told == [1203, 1001, 1002, 1003, 1004, 1005, 1201, 1202, 1204, 1207, 1302, 1301, 1101]


def visit_notices(tour: Tour) -> None:
    """A token that ends, a book that is stale."""
    token = make_token({"exp": int(time.time()) + 8})
    with tour.server.connect("/private?notices=1&stream=s.ob-inc", token) as client:
        tour.expect(client, "resync", "subscribed")
        tour.expect(client, "authExpiring")
        assert client.closed()[0] == 4401


def visit_positions(tour: Tour) -> None:
    """A client that comes back by its position, in every way that this may go."""

    def come(*names: str, query: str = "", protocols: tuple[str, ...] = ()) -> Client:
        path = f"/public?resume=1&stream={','.join(names)}{query}"
        return connect(tour.server.url, path, subprotocols=protocols)

    with come("p.trades", "p.ob-inc") as client:
        tour.expect(client, "subscribed")
        tour.server.publish("public.p.ob-snap", '{"asks":[],"bids":[],"sequence":1}')
        tour.server.publish("public.p.trades", '{"n":1}')
        tour.expect(client, "event")
        at = json.loads(tour.expect(client, "event"))["at"]
        if "position" not in tour.seen:
            tour.expect(client, "position")
        tour.ask(client, {"event": "snapshot", "streams": ["p.ob-inc"]}, "event", "snapshotted")
        tour.server.publish("public.p.ob-inc", '{"asks":["1","1"],"sequence":2}')
        tour.expect(client, "event")
    with come("p.trades", query=f"&since={at}") as client:
        assert json.loads(tour.expect(client, "subscribed"))["success"]["events"] == 0
        request = {"event": "subscribe", "streams": ["p.ob-inc"], "since": at, "id": 5}
        told = json.loads(tour.ask(client, request, "event", "subscribed"))
        assert told["success"]["recovered"] is True
    with come("p.trades", query="&since=nonsense", protocols=("rango.v1",)) as client:
        told = json.loads(tour.expect(client, "subscribed"))
        assert (told["success"]["reason"], told["code"]) == ("bad_position", codes.NOT_RECOVERED)


def test_a_tour_of_the_gateway() -> None:
    """All that goes over the wire is in the document, and nothing is there that never does."""
    env = {
        "RANGO_RBAC_DESK": "trader",
        "RANGO_TOKEN_GRACE_S": "0",
        "RANGO_MAX_STREAMS": "5",
        "RANGO_MAX_REQUESTS_PER_S": "20",
        "RANGO_REQUESTS_BURST": "20",
        "RANGO_PING_INTERVAL_S": "1",
        "RANGO_PONG_TIMEOUT_S": "60",
    }
    visits = (
        visit_plain_protocol,
        visit_extensions,
        visit_numbers,
        visit_notices,
        visit_positions,
    )
    with start_gateway(env=env) as server:
        tour = Tour(server)
        for visit in visits:
            visit(tour)
    assert tour.seen - {""} == set(MESSAGES)
