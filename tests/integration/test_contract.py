"""The contract with publishers and clients, where it says more than the recorded transcripts."""

from __future__ import annotations

import base64
import contextlib
import hmac
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable, Iterator

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from support import (
    HEALTHY,
    HOST,
    Client,
    RawSocket,
    Server,
    amqp_url,
    broker_address,
    broker_channel,
    http_request,
    make_token,
    private_pem,
    public_pem,
    sample_of,
    server_env,
    signing_key,
    start_gateway,
    text_frame,
    wait_for,
)
from websockets.exceptions import ConnectionClosed, InvalidStatus

pytestmark = pytest.mark.usefixtures("documented")
EMPTY_REPLY = '{"success":{"message":"subscribed","streams":[]}}'


@pytest.fixture
def client(gateway: Server, market: str) -> Iterator[Client]:
    """An anonymous client that holds ``<market>.trades`` and has had its first reply."""
    with gateway.connect(f"/public?stream={market}.trades") as connected:
        connected.receive()
        yield connected


def subscriber(server: Server, *names: str, **claims: Any) -> Client:
    """Connect with a token, or anonymously without claims, and subscribe."""
    connected = server.connect("/public", server.token(**claims) if claims else None)
    assert connected.receive() == EMPTY_REPLY
    if names:
        connected.subscribe(*names)
    return connected


# -- bodies -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        "12345678901234567890",
        "0.10000000000000000001",
        "-0",
        "1e999",
        "[1E5,1e+5,100000.0]",
        '{"z":1,"a":2,"m":{"b":1,"a":2}}',
        '{"a":1,"a":2}',
        ' \n\t{ "sp" : [ 1 , 2 ] }\r\n ',
        '"\\u00e9 \\/ \\u0000 \\ud83d\\ude00"',
        '{"lone surrogates": ["\\ud800", "\\uDFFF x \\udbff"], "n": 1.50}',
        '"é € 😀 <b>&"',
        '"\x7f"',
        "true",
        "[" * 500 + "]" * 500,
        '"' + "x" * ((1 << 20) - 2) + '"',
    ],
    ids=lambda body: body[:24],
)
def test_a_body_reaches_the_client_byte_for_byte(
    gateway: Server, client: Client, market: str, body: str
) -> None:
    """Numbers, order of keys, white space and escapes stay as published, up to 1 MiB."""
    gateway.publish(f"public.{market}.trades", body)
    assert client.receive() == f'{{"{market}.trades":{body}}}'


BAD_BODIES = [
    b"",
    b" ",
    b"NaN",
    b"[Infinity]",
    b"{'x':1}",
    b'{"x":1,}',
    b"[1,]",
    b"01",
    b"1.",
    b".5",
    b"+1",
    b'"\t"',
    b'"\x00"',
    b"1 2",
    b"{} {}",
    b"\xef\xbb\xbf{}",
    b'"\xff"',
    b'"\xed\xa0\x80"',
    b'"\xc0\xaf"',
    b'["\\ud800",]',
    b'["\\ud800", NaN]',
    b'"\\ud800 \xff"',
    b'"\\ud800\\x"',
    b"nul",
    b'{"x"}',
    b"[" * 200_000,
    b"[" * 200_000 + b"]" * 200_000,
    b'"' + b"x" * (1 << 20) + b'"',
]


def dropped(server: Server) -> float:
    """Return the number of messages that were dropped, for whatever reason."""
    text = http_request(server.metrics_port, "/").body
    reasons = ("bad_json", "bad_routing_key", "too_big")
    return sum(sample_of(text, "rango_messages_dropped_total", reason=word) for word in reasons)


def test_bad_bodies_are_dropped_and_counted_and_the_stream_goes_on(
    gateway: Server, client: Client, market: str
) -> None:
    """What is not JSON, not UTF-8, too deep or too big never arrives; what follows does."""
    before = dropped(gateway)
    for number, body in enumerate(BAD_BODIES):
        gateway.publish(f"public.{market}.trades", body)
        gateway.publish(f"public.{market}.trades", str(number))
        assert client.receive() == f'{{"{market}.trades":{number}}}', body[:20]
    assert dropped(gateway) - before == len(BAD_BODIES)
    assert "dropped a message, bad_json" in gateway.log()


# -- routing keys -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    ["", ".", "..", "...", "{m}", "public", "public.", "public..", ".{m}.trades", "{m}.trades",
     "public.{m}.", "public..trades", "public.{m}.trades.more", "public.{m}.trades.",
     "public.{m}.trades.a.b", "private..trades", "private.trades", "PUBLIC.{m}.trades",
     "private.ID1.trades", "publicx.{m}.trades"],
)  # fmt: skip
def test_keys_that_fit_no_held_stream_reach_nobody(
    gateway: Server, client: Client, market: str, key: str
) -> None:
    """A key with too few, too many or empty parts harms nothing and goes to nobody here."""
    gateway.publish(key.replace("{m}", market), "1")
    gateway.publish(f"public.{market}.trades", "2")
    assert client.receive() == f'{{"{market}.trades":2}}'


@pytest.mark.parametrize(
    "key", [b"public.\xff\xfe.trades", b"\xff", b"public.\xed\xa0\x80.trades", b"a.b\x00.\n\x80"]
)
def test_keys_that_are_not_utf8_harm_nothing(
    gateway: Server, client: Client, market: str, key: bytes
) -> None:
    """The connection to the broker stays, the next message arrives, metrics can be read."""
    connects = gateway.metric("rango_broker_connects_total")
    gateway.publish(key, "1")
    gateway.publish(f"public.{market}.trades", "2")
    assert client.receive() == f'{{"{market}.trades":2}}'
    assert gateway.metric("rango_broker_connects_total") == connects > 0


def test_two_part_keys_name_their_scope_as_stream(gateway: Server, market: str) -> None:
    """``global.tickers`` is the topic ``global.tickers``, as ``public.tickers`` is its own."""
    with subscriber(gateway, "global.tickers", f"public.{market}") as client:
        gateway.publish("global.tickers", "1")
        gateway.publish("public.global.tickers", "2")
        gateway.publish(f"public.{market}", "3")
        received = [client.receive() for _ in range(3)]
    assert received == ['{"global.tickers":1}', '{"global.tickers":2}', f'{{"public.{market}":3}}']


def test_scopes_that_begin_like_private_are_prefixes(gateway: Server, market: str) -> None:
    """``privateer.a.b`` belongs to the roles of ``privateer``, not to a user and not to nobody."""
    name = f"privateer.{market}.sys"
    with subscriber(gateway, name, role="admin") as client:
        gateway.publish(name, "1")
        assert client.receive() == f'{{"{market}.sys":1}}'


def test_names_that_need_escaping_arrive_as_json(gateway: Server, market: str) -> None:
    """A quote or a backslash in a routing key does not break the frame."""
    name = f'{market}"\\.é'
    with subscriber(gateway, name) as client:
        gateway.publish(f"public.{name}", "[1]")
        assert client.receive_json() == {name: [1]}


# -- the connection's beginning ---------------------------------------------------------------


def test_the_query_is_percent_decoded(gateway: Server, market: str) -> None:
    """Names in the query may be encoded, the comma between two of them too."""
    path = f"/public?stream={market}%2Etrades%2C{market}.b&x=1&stream={market}.%C3%A9&stream="
    with gateway.connect(path) as client:
        names = client.receive_json()["success"]["streams"]
        assert names == [f"{market}.trades", f"{market}.b", f"{market}.é"]
        gateway.publish(f"public.{market}.trades", "1")
        assert client.receive() == f'{{"{market}.trades":1}}'


@pytest.mark.parametrize("path", ["/", "/public", "/public?", "/anything/else?stream=", "/?a=b"])
def test_the_first_frame_is_the_reply(gateway: Server, path: str) -> None:
    """Without streams in the query the list is empty; any path but /private is public."""
    with gateway.connect(path) as client:
        assert client.receive() == EMPTY_REPLY


def test_the_reply_lists_public_and_prefixed_then_private(gateway: Server, market: str) -> None:
    """Each group keeps the order of subscription."""
    names = ["order", f"{market}.b", f"admin.{market}.x", "trade", f"{market}.a"]
    with subscriber(gateway, uid="ID7", role="admin") as client:
        expected = [f"{market}.b", f"admin.{market}.x", f"{market}.a", "order", "trade"]
        assert client.subscribe(*names) == expected


# -- requests ---------------------------------------------------------------------------------


def streams_request(streams: str) -> str:
    """Return a subscribe request with a literal value of ``streams``."""
    return f'{{"event":"subscribe","streams":{streams}}}'


BAD_REQUESTS = [
    streams_request("null"),
    streams_request("[1]"),
    streams_request("[null]"),
    streams_request('["a.b",{"c":"d"}]'),
    streams_request('[["a.b"]]'),
    streams_request("[true]"),
    streams_request("7"),
    streams_request('["\\ud800"]'),
    streams_request('["a.\\udfff"]'),
    streams_request('["a.b\\u0000"]'),
    streams_request('["a\\n.b"]'),
    streams_request(json.dumps(["x" * 256])),
    streams_request(json.dumps(["é" * 128])),
    streams_request(json.dumps([f"{n}.b" for n in range(1001)])).replace(" ", "")[:8191],
    '{"event":null}',
    '{"event":["subscribe"],"streams":[]}',
    '{"event":{},"streams":[]}',
    '{"event":"subscribe"',
    "[" * 8000,
    '{"a":' * 1600,
    "NaN",
    "[]",
    '"subscribe"',
    "pong",
    "ping ping",
    "PING",
    "\\",
    "\x00",
    '{"event":"\\ud800"}',
    "1" * 8000,
]


@pytest.mark.parametrize("request_text", BAD_REQUESTS, ids=lambda text: text[:40])
def test_bad_requests_get_an_error_and_nothing_else_happens(
    gateway: Server, client: Client, market: str, request_text: str
) -> None:
    """The sender gets a reply and keeps its streams, other clients and metrics are untouched."""
    with subscriber(gateway) as sender:
        sender.send(request_text)
        reply = sender.receive_json()
        assert list(reply) == ["error"]
        assert isinstance(reply["error"], str)
        sender.send("ping")
        assert sender.receive() == "pong"
        assert sender.subscribe(f"{market}.b") == [f"{market}.b"]
    gateway.publish(f"public.{market}.trades", "1")
    assert client.receive() == f'{{"{market}.trades":1}}'
    assert gateway.metric("rango_hub_clients_count") >= 1


@pytest.mark.parametrize(
    ("sent", "reply"),
    [
        ('{"event":"nope"}', '{"error":"Could not parse Type: Invalid event"}'),
        ("null", '{"error":"Could not parse Type: Invalid event"}'),
        ('{"event":"subscribe"}', '{"error":"No streams provided"}'),
        ('{"event":"subscribe","streams":{"a.b":1}}', EMPTY_REPLY),
        ('{"event":"subscribe","streams":""}', EMPTY_REPLY),
        (
            '{"event":"unsubscribe","streams":["never.held","order"]}',
            '{"success":{"message":"unsubscribed","streams":[]}}',
        ),
        (" \tping\r\n", "pong"),
        (b"ping", "pong"),
        (b'{"event":"subscribe","streams":["bin.ary"]}',
         '{"success":{"message":"subscribed","streams":["bin.ary"]}}'),
    ],
)  # fmt: skip
def test_replies_are_those_of_rango(gateway: Server, sent: str | bytes, reply: str) -> None:
    """Texts are the same to the byte; binary messages are read like text."""
    with subscriber(gateway) as client:
        client.send(sent)
        assert client.receive() == reply


def test_parse_errors_begin_like_those_of_rango(gateway: Server) -> None:
    """What follows the words is the parser's own; it does not quote what the client sent."""
    with subscriber(gateway) as client:
        client.send('{"secret')
        reply = client.receive()
    assert reply.startswith('{"error":"Could not parse message: ')
    assert "secret" not in reply


def test_blank_frames_are_ignored(gateway: Server) -> None:
    """An empty message, or one of blanks, has no answer at all."""
    with subscriber(gateway) as client:
        for blank in ("", " ", "\r\n\t", b""):
            client.send(blank)
        client.send("ping")
        assert client.receive() == "pong"


def test_a_message_past_the_limit_closes_with_1009(gateway: Server, client: Client) -> None:
    """8192 bytes are read, one more ends the connection of its sender only."""
    with subscriber(gateway) as sender:
        sender.send("ping" + " " * 8188)
        assert sender.receive() == "pong"
        sender.send("ping" + " " * 8189)
        assert sender.closed() == (1009, "message too big")
    client.send("ping")
    assert client.receive() == "pong"


@pytest.fixture(scope="module")
def wide_gateway() -> Iterator[Server]:
    """A server that reads messages of 1 MiB, so that the other limits can be met."""
    with start_gateway(env={"RANGO_MAX_MESSAGE_BYTES": str(1 << 20)}) as server:
        yield server


@pytest.mark.parametrize(
    "names",
    [[f"{n}.b" for n in range(10_000)], ["x" * 65_536], ["\ud800"] * 50],
    ids=["10,000 names", "64 KiB name", "surrogates"],
)
def test_large_requests_are_refused_within_the_limits(
    wide_gateway: Server, names: list[str]
) -> None:
    """Too many or too long names get an error, and nothing of the request is done."""
    with subscriber(wide_gateway) as client:
        client.send(json.dumps({"event": "subscribe", "streams": names}))
        assert list(client.receive_json()) == ["error"]
        assert client.subscribe("a.b") == ["a.b"]
    wait_for(lambda: wide_gateway.metric("rango_hub_clients_count") == 0, what="the client is gone")


def test_the_limit_of_names_counts_all_that_are_held(wide_gateway: Server) -> None:
    """The 1000th name is held, the 1001st is refused, holding one of them again is no more."""
    names = [f"{n}.b" for n in range(1000)]
    with subscriber(wide_gateway) as client:
        assert client.subscribe(*names[:600]) == names[:600]
        assert client.subscribe(*names[600:]) == names
        client.send({"event": "subscribe", "streams": ["one.more"]})
        assert "error" in client.receive_json()
        assert client.subscribe(names[0]) == names
        assert len(client.unsubscribe(names[5])) == 999
        assert client.subscribe("one.more")[-1] == "one.more"


def test_anonymous_clients_are_refused_private_names_in_silence(gateway: Server) -> None:
    """The reply's list lacks the name; nothing sent to anybody's name arrives."""
    with subscriber(gateway) as client:
        assert client.subscribe("order", "order.", "") == ["order."]
        gateway.publish("private.ID1.order", "1")
        gateway.publish("private..order", "2")
        gateway.publish("private.None.order", "3")
        client.send("ping")
        assert client.receive() == "pong"


def test_unsubscribing_a_held_prefixed_stream(gateway: Server, market: str) -> None:
    """It is gone from the list and silent, and the server lives; Go's ended here."""
    name, other = f"admin.{market}.sys", f"{market}.trades"
    with subscriber(gateway, name, other, role="admin") as client:
        gateway.publish(name, "1")
        assert client.receive() == f'{{"{market}.sys":1}}'
        assert client.unsubscribe(name) == [other]
        gateway.publish(name, "2")
        gateway.publish(f"public.{market}.trades", "3")
        assert client.receive() == f'{{"{market}.trades":3}}'
        assert client.subscribe(name) == [other, name]
        gateway.publish(name, "4")
        assert client.receive() == f'{{"{market}.sys":4}}'


def test_refused_prefixed_streams_are_named_then_the_reply_follows(gateway: Server) -> None:
    """Each refused name gets its notice; what is allowed is held."""
    with subscriber(gateway, role="member", uid="ID1") as client:
        client.send(
            {"event": "subscribe", "streams": ["admin.a.b", "x.y", "nosuch.a.b", "private.a.b"]}
        )
        received = [client.receive() for _ in range(4)]
    cannot = '{"success":{"message":"cannot subscribe to %s"}}'
    assert received == [
        cannot % "admin.a.b",
        cannot % "nosuch.a.b",
        cannot % "private.a.b",
        '{"success":{"message":"subscribed","streams":["x.y"]}}',
    ]


@pytest.mark.parametrize("kind", ["public", "private", "prefixed"])
def test_subscribing_again_loses_nothing(gateway: Server, market: str, kind: str) -> None:
    """A name that is held and asked for again under a fast feed misses no message."""
    name, key = {
        "public": (f"{market}.trades", f"public.{market}.trades"),
        "private": ("order", f"private.{market}.order"),
        "prefixed": (f"admin.{market}.sys", f"admin.{market}.sys"),
    }[kind]
    token = gateway.token(uid=market, role="admin")
    received: list[int] = []
    with RawSocket(gateway.port, receive_buffer=65536) as raw:
        raw.open(f"/public?stream={name}", {"Authorization": f"Bearer {token}"})
        with flood(raw, text_frame({"event": "subscribe", "streams": [name]}) * 20):
            for number in range(300):
                gateway.publish(key, str(number))
                received += numbers_in([raw.read_text() for _ in range(50)])
        while received[-1:] != [299]:
            received += numbers_in([raw.read_text()])
    assert received == list(range(300))


def numbers_in(messages: list[str]) -> list[int]:
    """Return the bodies of those messages that are events; the others are replies."""
    parsed = [json.loads(message) for message in messages if not message.startswith('{"success')]
    return [next(iter(message.values())) for message in parsed]


@contextlib.contextmanager
def flood(raw: RawSocket, data: bytes) -> Iterator[None]:
    """Send the same bytes over and over from a thread, for the length of a block."""
    enough = threading.Event()

    def send() -> None:
        with contextlib.suppress(OSError):
            while not enough.is_set():
                raw.send(data)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        # the last send may wait for the server, and the server for somebody to read
        raw.keep_until(lambda: not thread.is_alive())
        thread.join()


# -- books ------------------------------------------------------------------------------------


def test_private_and_prefixed_snapshots_are_sent_as_increments(
    gateway: Server, market: str
) -> None:
    """They are stored nowhere: sent at once, renamed, and a newcomer gets nothing."""
    names = ("book-inc", "book-snap", f"admin.{market}.ob-inc", f"admin.{market}.ob-snap")
    with subscriber(gateway, *names, uid=market, role="admin") as client:
        gateway.publish(f"private.{market}.book-snap", "1")
        gateway.publish(f"private.{market}.book-inc", "2")
        gateway.publish(f"admin.{market}.ob-snap", "3")
        gateway.publish(f"admin.{market}.ob-inc", "4")
        received = [client.receive() for _ in range(4)]
    ob = f"{market}.ob-inc"
    assert received == ['{"book-inc":1}', '{"book-inc":2}', f'{{"{ob}":3}}', f'{{"{ob}":4}}']
    with subscriber(gateway, uid=market, role="admin") as newcomer:
        assert len(newcomer.subscribe(*names)) == 4  # and no replay before the reply


@pytest.mark.parametrize("scope", ["public", "global"])
def test_subscribing_a_book_again_replays_it_again(
    gateway: Server, market: str, scope: str
) -> None:
    """The replay comes before the reply, each time, and live increments go on after it."""
    key, stream = (f"public.{market}", market) if scope == "public" else ("global", "global")
    name = f"{stream}.{market}-inc"
    gateway.publish(f"{key}.{market}-snap", "1")
    gateway.publish(f"{key}.{market}-inc", "2")
    snapshot, first = f'{{"{stream}.{market}-snap":1}}', f'{{"{name}":2}}'
    with subscriber(gateway) as client:
        wait_for(lambda: replay_of(client, name) == [snapshot, first], what="the book is stored")
        gateway.publish(f"{key}.{market}-inc", "3")
        assert client.receive() == f'{{"{name}":3}}'
        assert replay_of(client, name) == [snapshot, first, f'{{"{name}":3}}']


def replay_of(client: Client, name: str) -> list[str]:
    """Subscribe and return what comes before the reply."""
    client.send({"event": "subscribe", "streams": [name]})
    return client.receive_until(lambda message: "success" in message)[:-1]


def test_a_name_of_snapshots_is_an_ordinary_silent_name(gateway: Server, market: str) -> None:
    """``X-snap`` can be held and gets neither the stored snapshot nor new ones."""
    gateway.publish(f"public.{market}.ob-snap", "1")
    with subscriber(gateway, f"{market}.ob-snap", f"{market}.end") as client:
        gateway.publish(f"public.{market}.ob-snap", "2")
        gateway.publish(f"public.{market}.ob-inc", "3")
        gateway.publish(f"public.{market}.end", "4")
        assert client.receive() == f'{{"{market}.end":4}}'


def test_subscribing_again_at_full_speed_gives_no_gap_and_no_duplicate(
    gateway: Server, market: str
) -> None:
    """Each replay ends where the live increments go on, however the two interleave."""
    name = f"{market}.ob-inc"
    gateway.publish(f"public.{market}.ob-snap", '{"sequence":0}')
    total = 1000
    gateway.catch_up()
    with subscriber(gateway) as client:
        for number in range(1, total + 1):
            gateway.publish(f"public.{market}.ob-inc", f'{{"sequence":{number}}}')
            if number % 5 == 0:
                client.send({"event": "subscribe", "streams": [name]})
        client.send({"event": "subscribe", "streams": [name]})
        replays = check_sequence(client, f"{market}.ob", total)
    assert replays > 5


def check_sequence(client: Client, book: str, last: int) -> int:
    """Read up to increment ``last``; each number is one more than that before it.

    A snapshot starts a replay: the numbers go on from the snapshot's.

    Returns:
        The number of replays met.
    """
    expected, replays = None, 0
    while expected != last + 1:
        message = client.receive_json()
        if "success" in message:
            continue
        [(name, body)] = message.items()
        if name == f"{book}-snap":
            replays += 1
        else:
            assert body["sequence"] == expected, f"after {replays} replays"
        expected = body["sequence"] + 1
    return replays


# -- tokens -----------------------------------------------------------------------------------


def hmac_token() -> str:
    """Sign with the public key's PEM as the secret of an HMAC, the classic confusion."""
    header = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').rstrip(b"=")
    payload = base64.urlsafe_b64encode(b'{"uid":"ID1","role":"admin"}').rstrip(b"=")
    signature = hmac.digest(public_pem().encode(), header + b"." + payload, "sha256")
    return b".".join([header, payload, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


def soon(seconds: int) -> int:
    """Return the Unix time in so many seconds."""
    return int(time.time()) + seconds


BAD_TOKENS: dict[str, Callable[[], str]] = {
    "alg none": lambda: jwt.encode({"uid": "ID1", "role": "admin"}, "", "none"),
    "public key as HMAC secret": hmac_token,
    "another key": lambda: make_token({}, ec.generate_private_key(ec.SECP256R1()), "ES256"),
    "expired": lambda: make_token({"exp": soon(-1)}),
    "not yet": lambda: make_token({"nbf": soon(60)}),
    "issued in the future": lambda: make_token({"iat": soon(60)}),
    "uid is a number": lambda: make_token({"uid": 1}),
    "uid is a list": lambda: make_token({"uid": ["ID1"]}),
    "exp is text": lambda: make_token({"exp": "tomorrow"}),
    "tampered": lambda: make_token({})[:-8] + "AAAAAAAA",
    "empty": lambda: "",
    "garbage": lambda: "a.b.c",
    "much too long": lambda: make_token({"x": "y" * 7000}) + "A" * 2000,
}


@pytest.mark.parametrize("make", BAD_TOKENS.values(), ids=BAD_TOKENS)
def test_bad_tokens_identify_nobody(gateway: Server, market: str, make: Callable[[], str]) -> None:
    """401 on /private before the upgrade; anonymous, without private streams, on /public."""
    token = make()
    with pytest.raises(InvalidStatus) as refused:
        gateway.connect("/private", token)
    assert refused.value.response.status_code == 401
    with gateway.connect(f"/public?stream=order,admin.{market}.x", token) as client:
        assert "cannot subscribe" in client.receive()
        assert client.receive() == EMPTY_REPLY


def test_a_token_without_exp_is_accepted(gateway: Server) -> None:
    """As by Go: expiry is the issuer's decision."""
    token = gateway.token(exp=None, iat=None, uid="ID8")
    with gateway.connect("/private?stream=order", token) as client:
        assert client.receive_json()["success"]["streams"] == ["order"]


@pytest.mark.parametrize("uid", [None, ""])
def test_a_token_without_uid_is_anonymous_for_private_streams(
    gateway: Server, market: str, uid: str | None
) -> None:
    """It opens /private and its role counts, but no private stream is its own."""
    token = gateway.token(uid=uid, role="admin")
    path = f"/private?stream=order,{market}.a,admin.{market}.x"
    with gateway.connect(path, token) as client:
        names = client.receive_json()["success"]["streams"]
        assert names == [f"{market}.a", f"admin.{market}.x"]
        gateway.publish("private..order", "1")
        gateway.publish(f"public.{market}.a", "2")
        assert client.receive() == f'{{"{market}.a":2}}'


@pytest.mark.parametrize(
    "value", ["Bearer  {}", "Bearer{}", "Basic {}", "{}", "Bearer {} x", "Token {}"]
)
def test_the_header_is_read_strictly(gateway: Server, value: str) -> None:
    """``Bearer`` in any case, one space, the token; anything else is no token."""
    with pytest.raises(InvalidStatus) as refused:
        gateway.connect("/private", headers={"Authorization": value.format(gateway.token())})
    assert refused.value.response.status_code == 401


def test_identity_comes_from_the_token_alone(gateway: Server, market: str) -> None:
    """Headers that name a user or a role mean nothing."""
    claimed = {"JwtUID": market, "JwtRole": "admin", "X-Uid": market, "Uid": market}
    path = f"/public?stream=order,admin.{market}.x"
    with gateway.connect(path, headers=claimed) as client:
        assert "cannot subscribe" in client.receive()
        assert client.receive() == EMPTY_REPLY


def test_private_streams_never_cross_users(gateway: Server, market: str) -> None:
    """A uid that looks like another's address gets its own messages only."""
    one, other = f"{market}", f"{market}.order"
    with subscriber(gateway, "order", uid=one) as a, subscriber(gateway, "order", uid=other) as b:
        gateway.publish(f"private.{one}.order", "1")
        gateway.publish(f"private.{one}.order.order", "2")
        gateway.publish(f"private.{one}.order", "3")
        assert [a.receive(), a.receive()] == ['{"order":1}', '{"order":3}']
        b.send("ping")
        assert b.receive() == "pong"


# -- keys -------------------------------------------------------------------------------------


def spki(key: Any) -> bytes:
    """Return the public half as a standard PEM."""
    pem: bytes = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return pem


def raw_pem() -> bytes:
    """Return the run's key as Openware's tools write it: a PEM around the bare 32 bytes."""
    raw = (
        signing_key()
        .public_key()
        .public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    )
    body = base64.b64encode(raw)
    return b"-----BEGIN PUBLIC KEY-----\n" + body + b"\n-----END PUBLIC KEY-----\n"


def key_forms() -> dict[str, tuple[str, Any, str]]:
    """Return form of key: JWT_PUBLIC_KEY, the private key that belongs to it, its algorithm."""
    rsa_key = rsa.generate_private_key(65537, 2048)
    ec_key = ec.generate_private_key(ec.SECP256R1())
    wrap, urlsafe = base64.b64encode, base64.urlsafe_b64encode
    return {
        "raw, base64": (wrap(raw_pem()).decode(), signing_key(), "EdDSA"),
        "raw, url-safe": (urlsafe(raw_pem()).decode().rstrip("="), signing_key(), "EdDSA"),
        "raw, plain": (raw_pem().decode(), signing_key(), "EdDSA"),
        "SPKI Ed25519": (wrap(spki(signing_key())).decode(), signing_key(), "EdDSA"),
        "RSA": (wrap(spki(rsa_key)).decode(), rsa_key, "RS256"),
        "EC": (urlsafe(spki(ec_key)).decode(), ec_key, "ES256"),
    }


@pytest.mark.parametrize("form", list(key_forms()))
def test_every_form_of_key_starts_a_server(form: str) -> None:
    """The token of the key that belongs to it is accepted, that of another key is not."""
    setting, key, algorithm = key_forms()[form]
    stranger = ec.generate_private_key(ec.SECP256R1())
    with start_gateway(env={"JWT_PUBLIC_KEY": setting}, until=HEALTHY) as server:
        with server.connect("/private", make_token({}, key, algorithm)) as client:
            assert client.receive() == EMPTY_REPLY
        with pytest.raises(InvalidStatus):
            server.connect("/private", make_token({}, stranger, "ES256"))


def failing_start(env: dict[str, str], *args: str) -> list[str]:
    """Start a server that must refuse its settings; return what it said, by line."""
    done = subprocess.run(
        [sys.executable, "-m", "rango_gevent", *args],
        env=server_env("unused", env),
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_a_private_key_is_refused_at_start() -> None:
    """Exit code 2 and one line that names the setting and no key material."""
    [line] = failing_start({"JWT_PUBLIC_KEY": base64.b64encode(private_pem().encode()).decode()})
    assert "JWT_PUBLIC_KEY: found a private key" in line
    assert private_pem().splitlines()[1][:12] not in line


def test_no_key_is_refused_at_start() -> None:
    """Exit code 2 and one line that says where a key was looked for."""
    [line] = failing_start({"JWT_PUBLIC_KEY": ""})
    assert "config/ed25519-key.pub" in line


def test_all_bad_settings_are_listed_at_once() -> None:
    """One start is enough to find every mistake, each on a line of its own."""
    bad = {
        "RANGER_PORT": "none",
        "RANGO_MAX_MESSAGE_BYTES": "0",
        "LOG_LEVEL": "loud",
        "API_CORS_ORIGINS": "http://a b",
        "RANGO_RBAC_PRIVATE": "admin",
        "RANGO_PONG_TIMEOUT_S": "30",
        "RANGO_AMQP_URL": "http://guest:geheim@localhost",
    }
    lines = failing_start(bad)
    assert len(lines) == len(bad)
    for name in bad:
        assert any(name in line for line in lines), name
    assert "geheim" not in "".join(lines)


def test_a_taken_port_is_refused_at_start(gateway: Server) -> None:
    """Exit code 2 and one line, for the port of clients and that of metrics."""
    [line] = failing_start({"RANGER_PORT": str(gateway.port)})
    assert str(gateway.port) in line
    lines = failing_start({"RANGO_METRICS_PORT": str(gateway.metrics_port)})
    assert "RANGO_METRICS_PORT" in lines[-1]


@pytest.mark.parametrize("dashes", ["-", "--"])
def test_flags_of_rango_win_over_the_environment(tmp_path: Path, dashes: str) -> None:
    """Address, broker, key file and exchange by flag; the environment's own are all wrong."""
    key = tmp_path / "key.pub"
    key.write_bytes(raw_pem())
    flags = {"ws-addr": f"{HOST}:{{port}}", "pubKey": str(key), "exchange": "{exchange}"}
    flags["amqp-addr"] = amqp_url()
    wrong = {
        "RANGER_HOST": "192.0.2.1",
        "RANGO_AMQP_URL": f"amqp://{HOST}:1//",
        "RANGO_EXCHANGE": "wrong",
        "RANGO_PUBLIC_KEY_FILE": "/wrong",
        "JWT_PUBLIC_KEY": "",
    }
    args = [word for flag, value in flags.items() for word in (dashes + flag, value)]
    with (
        start_gateway(env=wrong, args=args) as server,
        server.connect("/private?stream=order", server.token()) as client,
    ):
        client.receive()
        server.publish("private.ID1.order", "1")
        assert client.receive() == '{"order":1}'


def test_the_broker_may_be_given_in_parts(market: str) -> None:
    """Host, port, user, password and vhost, as Rango's deployments set them."""
    broker = broker_address()
    parts = {
        "RANGO_AMQP_URL": "",
        "RABBITMQ_HOST": broker.host,
        "RABBITMQ_PORT": str(broker.port),
        "RABBITMQ_USER": broker.user,
        "RABBITMQ_PASSWORD": broker.password,
        "RABBITMQ_VHOST": broker.vhost,
    }
    with start_gateway(env=parts) as server, server.connect(f"/?stream={market}.a") as client:
        client.receive()
        server.publish(f"public.{market}.a", "1")
        assert client.receive() == f'{{"{market}.a":1}}'


# -- exchange and metrics ---------------------------------------------------------------------


@pytest.mark.parametrize("is_durable", [True, False])
def test_an_exchange_that_exists_is_taken_as_it_is(is_durable: bool, market: str) -> None:
    """Whoever declared it first decides whether it is durable."""
    exchange = f"test.exchange.{market}"
    channel = broker_channel()
    channel.exchange_declare(exchange, "topic", durable=is_durable, auto_delete=False)
    try:
        with start_gateway(exchange=exchange) as server, server.connect("/?stream=a.b") as client:
            client.receive()
            server.publish("public.a.b", "1")
            assert client.receive() == '{"a.b":1}'
    finally:
        channel.exchange_delete(exchange)


def test_a_missing_exchange_is_declared_as_peatio_does(gateway: Server) -> None:
    """Topic, not durable, not auto-delete: declaring it so again is no conflict."""
    broker_channel().exchange_declare(gateway.exchange, "topic", durable=False, auto_delete=False)


def test_metrics_have_the_names_of_rango(gateway: Server, client: Client, market: str) -> None:
    """Under any path: connections, subscriptions by type and topic, process and handler."""
    gateway.publish(f"public.{market}.trades", "1")
    gateway.catch_up()
    pages = [http_request(gateway.metrics_port, path) for path in ("/", "/metrics", "/x/y")]
    assert {page.status for page in pages} == {200}
    text = pages[0].body
    assert sample_of(text, "rango_hub_clients_count") >= 1
    labels = {"type": "public", "topic": f"{market}.trades"}
    assert sample_of(text, "rango_hub_subscriptions_count", **labels) == 1
    for name in (
        "process_cpu_seconds_total",
        "process_open_fds",
        "process_max_fds",
        "process_virtual_memory_bytes",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
        "promhttp_metric_handler_requests_in_flight",
        "python_greenlets",
        "python_threads",
        "python_gc_duration_seconds_count",
        "python_allocated_blocks",
    ):
        assert sample_of(text, name) > 0, name
    assert 'python_info{implementation="CPython"' in text
    assert sample_of(pages[2].body, "promhttp_metric_handler_requests_total", code="200") >= 2


def test_subscription_counts_go_up_and_down_under_one_name(gateway: Server, market: str) -> None:
    """Every way to leave takes the count down: unsubscribing, closing, and being lost."""
    topics = {
        "public": f"{market}.trades",
        "prefixed": f"admin.{market}.sys",
        "private": f"order{market}",
    }

    def counts() -> list[float]:
        text = http_request(gateway.metrics_port, "/").body
        name = "rango_hub_subscriptions_count"
        return [sample_of(text, name, type=kind, topic=topic) for kind, topic in topics.items()]

    clients = [subscriber(gateway, *topics.values(), role="admin", uid="ID5") for _ in range(3)]
    for key in (
        f"public.{topics['public']}",
        topics["prefixed"],
        f"private.ID5.{topics['private']}",
    ):
        gateway.publish(key, "1")
        for one in clients:
            one.receive()
    assert counts() == [3, 3, 3]
    clients[0].subscribe(*topics.values())
    assert counts() == [3, 3, 3]
    clients[0].unsubscribe(*topics.values())
    assert counts() == [2, 2, 2]
    clients[0].close()
    clients[1].close()
    clients[2].connection.socket.shutdown(2)
    wait_for(lambda: counts() == [0, 0, 0], what="the counts are down")


def test_topics_in_metrics_are_bounded() -> None:
    """Further topics are summed, past the bound and without events: clients make no series."""
    with start_gateway(env={"RANGO_METRICS_TOPICS": "3"}) as server:
        with subscriber(server, *(f"m{n}.trades" for n in range(20))) as client:
            for number in range(10):
                server.publish(f"public.m{number}.trades", "1")
                client.receive()
            text = http_request(server.metrics_port, "/").body
        lines = [line for line in text.splitlines() if line.startswith("rango_hub_subscr")]
        assert len(lines) == 4
        other = {"type": "public", "topic": "_other"}
        assert sample_of(text, "rango_hub_subscriptions_count", **other) == 17
        assert sample_of(text, "rango_subscriptions") == 20


def test_names_that_clients_make_up_make_no_series(gateway: Server, market: str) -> None:
    """Other names before each scrape: the page stays as long as it is, and its sum is true."""
    gateway.publish(f"public.{market}.trades", "1")
    gateway.catch_up()
    pages = []
    with subscriber(gateway, f"{market}.trades") as client:
        for scrape in range(5):
            client.subscribe(*(f"{market}{scrape}.{number}" for number in range(150)))
            text = http_request(gateway.metrics_port, "/").body
            name = "rango_hub_subscriptions_count"
            pages.append({line for line in text.splitlines() if line.startswith(f"{name}{{")})
            assert sample_of(text, name, type="public", topic=f"{market}.trades") == 1
            assert sample_of(text, name, type="public", topic="_other") >= 150 * (scrape + 1)
    assert len({len(lines) for lines in pages}) == 1


def test_a_client_is_told_why_it_is_closed_at_shutdown() -> None:
    """SIGTERM: close code 1012 for every client, exit code 0, newcomers refused meanwhile."""
    with start_gateway() as server:
        clients = [subscriber(server, "a.b") for _ in range(5)]
        assert server.stop() == 0
        assert {client.closed() for client in clients} == {(1012, "service restart")}
        with pytest.raises(ConnectionClosed):
            clients[0].receive()
        assert "Traceback" not in server.log()
