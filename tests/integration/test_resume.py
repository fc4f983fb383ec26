"""Clients that come back by a position, on the real gateway: what they get, and when they are told
that nobody knows what they missed. A client that asks for none of it sees nothing of it."""

from __future__ import annotations

import json
from typing import Any, Iterator

import pytest
from support import (
    Client,
    RawSocket,
    Relay,
    Server,
    connect,
    start_gateway,
    wait_for,
)
from websockets.sync.client import connect as websockets_connect

_PAD = "x" * 2000


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Run a gateway with short intervals, and policies for those who lag."""
    env = {
        "RANGO_RBAC_ADMIN": "admin",
        "RANGO_PATTERNS": "on",
        "RANGO_COMPRESSION": "on",
        "RANGO_COMPRESSION_MIN_BYTES": "20",
        "RANGO_PING_INTERVAL_S": "1",
        "RANGO_PONG_TIMEOUT_S": "60",
        "RANGO_RESUME_EVENTS": "2000",
        "RANGO_SLOW_CLIENT": "drop-oldest",
        "RANGO_OUTBOX_BYTES": str(64 * 1024),
        "RANGO_WRITE_TIMEOUT_S": "30",
        "RANGO_MAX_REQUESTS_PER_S": "100000",
        "RANGO_REQUESTS_BURST": "100000",
    }
    with start_gateway(env=env) as running:
        yield running


def come(
    server: Server,
    *names: str,
    since: str | None = None,
    token: str | None = None,
    more: str = "",
    path: str = "/public",
) -> Client:
    """Connect as a client that comes back, or will."""
    query = "&".join(f"stream={name}" for name in names) + more
    query += "" if since is None else f"&since={since}"
    return server.connect(f"{path}?resume=1&{query}", token)


def reply(client: Client) -> dict[str, Any]:
    """Return the members of a reply to a subscription."""
    success: dict[str, Any] = hear(client)["success"]
    return success


def hear(client: Client) -> Any:
    """Return the next message that is no notice of where a silent client stands."""
    while True:
        message = client.receive_json()
        if message.get("event") != "position" or message["at"] is None:
            return message


def hear_all(client: Client, count: int) -> list[tuple[str, Any]]:
    """Return so many events, and check that each has its position, last."""
    found = []
    for _ in range(count):
        message = hear(client)
        assert list(message)[1:] == ["at"], message
        found.append(next(iter(message.items())))
    return found


def publish(server: Server, key: str, *numbers: int) -> None:
    """Publish some numbers."""
    for number in numbers:
        server.publish(key, str(number))


def away(server: Server, *names: str, token: str | None = None) -> str:
    """Connect, learn where one stands, and leave."""
    with come(server, *names, token=token) as client:
        at = reply(client)["at"]
        assert isinstance(at, str)
        return at


def test_events_and_replies_carry_positions(server: Server, market: str) -> None:
    """For who asks for them; for all others not a byte is changed."""
    name = f"{market}.trades"
    with come(server, name) as client, server.connect(f"/public?stream={name}&since=1-0") as plain:
        first = client.receive()
        assert first.startswith(
            '{"success":{"message":"subscribed","streams":["' + name + '"],"at":"'
        )
        assert plain.receive() == (
            '{"success":{"message":"subscribed","streams":["' + name + '"]}}'
        )
        server.publish(f"public.{name}", '{"x": 1.0}')
        event = hear(client)
        assert event == {name: {"x": 1.0}, "at": event["at"]}
        assert event["at"] != json.loads(first)["success"]["at"]
        assert plain.receive() == '{"' + name + '":{"x": 1.0}}'
        plain.send({"event": "subscribe", "streams": ["b.c"], "since": event["at"]})
        assert "at" not in json.loads(plain.receive())["success"]


def test_what_was_missed_comes_before_the_reply_and_live_events_after_it(
    server: Server, market: str
) -> None:
    """In the order of publishing over all streams, each once."""
    names = [f"{market}.a", f"{market}.b"]
    with come(server, *names) as client:
        reply(client)
        publish(server, f"public.{market}.a", 1, 2)
        (_, _) = hear_all(client, 2)
        publish(server, f"public.{market}.a", 3)
        at = hear(client)["at"]
    for number in range(4, 104):
        publish(server, f"public.{market}.{'abc'[number % 3]}", number)
    server.catch_up()
    missed = [n for n in range(4, 104) if n % 3 != 2]
    with come(server, *names, since=at) as client:
        found = hear_all(client, len(missed))
        assert [number for _, number in found] == missed
        assert [name for name, _ in found] == [f"{market}.{'abc'[n % 3]}" for n in missed]
        told = reply(client)
        assert told == {
            "message": "subscribed",
            "streams": names,
            "at": told["at"],
            "recovered": True,
            "events": len(missed),
        }
        publish(server, f"public.{market}.a", 200)
        assert hear_all(client, 1) == [(f"{market}.a", 200)]
    with come(server, *names, since=told["at"]) as client:
        assert hear_all(client, 1) == [(f"{market}.a", 200)]
        assert reply(client)["events"] == 1


def test_private_and_prefixed_streams_are_those_of_the_token(server: Server, market: str) -> None:
    """Nobody gets back what he may not have now, though the name is the same."""
    mine, other = server.token(uid=market, role="admin"), server.token(uid="other" + market)
    names = ["order", f"admin.{market}.sys", f"{market}.trades"]
    at = away(server, f"{market}.trades")
    publish(server, f"private.{market}.order", 1)
    publish(server, f"private.other{market}.order", 2)
    publish(server, f"admin.{market}.sys", 3)
    publish(server, f"public.{market}.trades", 4)
    server.catch_up()
    with come(server, *names, since=at, token=mine) as client:
        assert hear_all(client, 3) == [("order", 1), (f"{market}.sys", 3), (f"{market}.trades", 4)]
        assert reply(client)["events"] == 3
    with come(server, *names, since=at, token=other) as client:
        assert "cannot subscribe" in reply(client)["message"]
        assert hear_all(client, 2) == [("order", 2), (f"{market}.trades", 4)]
        assert reply(client)["streams"] == [f"{market}.trades", "order"]
    with come(server, *names, since=at) as client:
        assert "cannot subscribe" in reply(client)["message"]
        assert hear_all(client, 1) == [(f"{market}.trades", 4)]
        assert reply(client)["streams"] == [f"{market}.trades"]


def test_a_request_may_come_back_too(server: Server, market: str) -> None:
    """Of what it holds already it has missed nothing: that is not given again."""
    one, two = f"{market}.one", f"{market}.two"
    with come(server, one) as client:
        at = reply(client)["at"]
        publish(server, f"public.{two}", 2)
        publish(server, f"public.{one}", 1)  # when it is heard, the other is there as well
        assert hear_all(client, 1) == [(one, 1)]
        client.send({"event": "subscribe", "streams": [one, two], "since": at, "id": 7})
        assert hear_all(client, 1) == [(two, 2)]
        told = hear(client)
        assert told["id"] == 7
        assert told["success"]["recovered"] is True
        assert told["success"]["events"] == 1
        client.send({"event": "subscribe", "streams": [one], "since": None})
        assert "recovered" not in reply(client)


@pytest.mark.parametrize(
    ("since", "reason"),
    [
        ("", "bad_position"),
        ("nonsense", "bad_position"),
        ("1-2", "bad_position"),
        ("9" * 4000 + "-00000000", "bad_position"),
        ("%00-\xff", "bad_position"),
        ("0-00000000", "bad_position"),
        ("1-00000000", "other_history"),
        ("9223372036854775807-00000000", "other_history"),
    ],
)
def test_a_position_that_nobody_gave_is_answered(server: Server, since: str, reason: str) -> None:
    """At once, and the streams are held all the same."""
    with come(server, "a.b", since=since) as client:
        told = reply(client)
        assert told == {
            "message": "subscribed",
            "streams": ["a.b"],
            "at": told["at"],
            "recovered": False,
            "reason": reason,
        }
        for value in (7, [], {}, True, since):
            client.send({"event": "subscribe", "streams": ["a.b"], "since": value})
            assert reply(client)["recovered"] is False


def test_who_knows_numbers_is_told_the_number(server: Server) -> None:
    """Of what went wrong, in the reply that tells it."""
    with connect(server.url, "/?resume=1&since=x", subprotocols=["rango.v1"]) as client:
        assert hear(client)["code"] == 1401
        client.send({"event": "subscribe", "streams": ["a.b"], "id": "x"})
        told = hear(client)
        assert "code" not in told
        assert told["id"] == "x"


def test_more_than_one_may_miss_is_not_given(server: Server, market: str) -> None:
    """It begins anew instead."""
    name = f"{market}.trades"
    at = away(server, name)
    publish(server, f"public.{name}", *range(2001))
    server.catch_up()
    with come(server, name, since=at) as client:
        assert reply(client)["reason"] == "too_many"
    assert server.metric("rango_resumes_total", outcome="too_many") >= 1


def test_a_book_gets_what_it_missed_or_all(server: Server, market: str) -> None:
    """Increments alone for who comes back, the snapshot again for whom nobody knows of."""
    name = f"{market}.ob-inc"
    publish(server, f"public.{market}.ob-snap", 1)
    publish(server, f"public.{name}", 2)
    server.catch_up()
    with come(server, name) as client:
        assert hear_all(client, 2) == [(f"{market}.ob-snap", 1), (name, 2)]
        at = reply(client)["at"]
    publish(server, f"public.{name}", 3, 4)
    server.catch_up()
    with come(server, name, since=at) as client:
        assert hear_all(client, 2) == [(name, 3), (name, 4)]
        assert reply(client)["recovered"] is True
        publish(server, f"public.{name}", 5)
        assert hear_all(client, 1) == [(name, 5)]
        client.send({"event": "snapshot", "streams": [name]})
        assert [n for _, n in hear_all(client, 5)] == [1, 2, 3, 4, 5]
        told = reply(client)
        assert told["streams"] == [name]
        publish(server, f"public.{market}.ob-snap", 6)
        publish(server, f"public.{name}", 7)
        assert hear_all(client, 1) == [(name, 7)]
    with come(server, name, f"{market}.ob-snap", since=told["at"]) as client:
        # a snapshot among what was missed is given too: nobody knows whether the book was good
        assert hear_all(client, 2) == [(f"{market}.ob-snap", 6), (name, 7)]
        assert reply(client)["events"] == 2
    with come(server, name, since="1-00000000") as client:
        assert [n for _, n in hear_all(client, 2)] == [6, 7]
        assert reply(client)["reason"] == "other_history"


def test_patterns_bring_topics_that_were_new_meanwhile(server: Server, market: str) -> None:
    """Those that match are given as if they had been held."""
    at = away(server, f"*.{market}")
    publish(server, f"public.one.{market}", 1)
    publish(server, f"public.two.{market}", 2)
    server.catch_up()
    with come(server, f"*.{market}", since=at) as client:
        assert hear_all(client, 2) == [(f"one.{market}", 1), (f"two.{market}", 2)]
        assert reply(client)["events"] == 2


def test_compressed_or_not_it_is_the_same(server: Server, market: str) -> None:
    """Live and replayed; what is replayed again is not compressed again."""
    name = f"{market}.trades"
    at = away(server, name)
    for number in range(20):
        server.publish(f"public.{name}", json.dumps({"n": number, "pad": _PAD}))
    server.catch_up()
    for _ in range(2):
        url = f"{server.url}/?resume=1&stream={name}&since={at}"
        with websockets_connect(url, proxy=None) as connection:
            client = Client(connection)
            assert [hear(client)[name]["n"] for _ in range(20)] == list(range(20))
            assert reply(client)["events"] == 20
            server.publish(f"public.{name}", json.dumps({"n": 20, "pad": _PAD}))
            event = hear(client)
            assert event[name]["n"] == 20
            assert list(event)[-1] == "at"
            with come(server, name, since=event["at"]) as other:
                assert reply(other)["events"] == 0
        at = event["at"]
        for number in range(20):
            server.publish(f"public.{name}", json.dumps({"n": number, "pad": _PAD}))
        server.catch_up()


def test_a_silent_client_is_told_where_it_stands(server: Server, market: str) -> None:
    """With each ping, so that it does not stand too far back; others are told nothing."""
    name = f"{market}.trades"
    with come(server, name) as client, server.connect(f"/?stream={name}") as plain:
        at = reply(client)["at"]
        plain.receive()
        publish(server, f"public.{market}.other", *range(5))
        notice = client.receive_until(lambda text: at not in text)[-1]
        assert list(json.loads(notice).items())[0] == ("event", "position")
        at = json.loads(notice)["at"]
        with pytest.raises(TimeoutError):
            plain.receive(1.5)
    publish(server, f"public.{name}", 7)
    server.catch_up()
    with come(server, name, since=at) as client:
        assert hear_all(client, 1) == [(name, 7)]


def test_one_that_lags_is_closed_whatever_the_policy(server: Server, market: str) -> None:
    """It comes back by the position that it has: others are left out of events instead."""
    name = f"{market}.trades"
    with RawSocket(server.port, receive_buffer=4096) as lagging:
        lagging.open(f"/public?stream={name}&resume=1")
        for number in range(2000):
            server.publish(f"public.{name}", json.dumps({"n": number, "pad": _PAD}))
        server.catch_up()
        seen, at, code = 0, "", 0
        while not code:
            opcode, payload = lagging.read_frame()
            if opcode == 8:
                code = int.from_bytes(payload[:2], "big")
            elif opcode == 1 and not payload.startswith(b'{"event":"position"'):
                event = json.loads(payload)
                assert event[name]["n"] == seen, "nothing is left out"
                seen, at = seen + 1, event["at"]
        assert code == 4008
    assert seen < 2000
    with come(server, name, since=at) as client:
        numbers = [hear(client)[name]["n"] for _ in range(2000 - seen)]
        assert numbers == list(range(seen, 2000))
        assert reply(client)["recovered"] is True


def test_an_instance_that_began_anew_says_so(market: str) -> None:
    """Without a log its positions are its own: nothing is given under those of the one before."""
    name = f"{market}.trades"
    with start_gateway() as server:
        at = away(server, name)
    with start_gateway(exchange=server.exchange) as server:
        with come(server, name) as client:
            reply(client)
        publish(server, f"public.{name}", *range(5))
        server.catch_up()
        with come(server, name, since=at) as client:
            told = reply(client)
            assert told["recovered"] is False
            assert told["reason"] == "other_history"


def test_what_is_kept_no_more_is_too_old() -> None:
    """And the metrics tell how far back one may stand."""
    with start_gateway(env={"RANGO_HISTORY_EVENTS": "1000"}) as server:
        at = away(server, "a.b")
        publish(server, "public.a.b", *range(3000))
        server.catch_up()
        with come(server, "a.b", since=at) as client:
            assert reply(client)["reason"] == "too_old"
        assert 900 < server.metric("rango_history_events") <= 1000
        assert server.metric("rango_history_bytes") > 0
        assert server.metric("rango_history_seconds") >= 0


def test_events_go_when_they_are_old() -> None:
    """Also when nothing more is published; who has seen the last one has missed nothing."""
    with start_gateway(env={"RANGO_HISTORY_S": "1"}) as server:
        at = away(server, "a.b")
        publish(server, "public.a.b", 1)
        server.catch_up()
        last = away(server, "a.b")
        wait_for(lambda: server.metric("rango_history_events") == 0, what="the end of all events")
        with come(server, "a.b", since=at) as client:
            assert reply(client)["reason"] == "too_old"
        with come(server, "a.b", since=last) as client:
            assert reply(client)["recovered"] is True


def test_it_may_be_switched_off() -> None:
    """Then nobody stands anywhere, and nobody is given anything."""
    with start_gateway(env={"RANGO_HISTORY_BYTES": "0"}) as server:
        with come(server, "a.b") as client:
            assert reply(client)["at"] is None
            publish(server, "public.a.b", 1)
            assert hear(client) == {"a.b": 1}
        with come(server, "a.b", since="1-00000000") as client:
            assert reply(client)["reason"] == "no_log"


def test_nothing_is_kept_before_somebody_asks() -> None:
    """So who has no such clients does not pay for them."""
    with start_gateway() as server:
        publish(server, "public.a.b", *range(100))
        server.catch_up()
        assert server.metric("rango_history_events") == 0
        away(server, "a.b")
        publish(server, "public.a.b", *range(100))
        server.catch_up()
        assert server.metric("rango_history_events") >= 100


def test_a_lost_broker_is_a_gap() -> None:
    """What was published meanwhile never came: live clients are told, and those who come back."""
    relay = Relay()
    relay.open()
    with start_gateway(env={"RANGO_AMQP_URL": relay.url}) as server, come(server, "a.b") as client:
        at = reply(client)["at"]
        publish(server, "public.a.b", 1)
        assert hear_all(client, 1) == [("a.b", 1)]
        relay.cut()
        assert hear(client) == {"event": "position", "at": None, "reason": "gap"}
        relay.open()
        wait_for(lambda: server.is_answering("/readyz"), what="the broker again")
        with come(server, "a.b", since=at) as other:
            assert reply(other)["reason"] == "gap"
        publish(server, "public.a.b", 2)
        event = hear(client)
        assert event["a.b"] == 2
        publish(server, "public.a.b", 3)
        server.catch_up()
        with come(server, "a.b", since=event["at"]) as other:
            assert hear_all(other, 1) == [("a.b", 3)]
            assert reply(other)["recovered"] is True
    relay.cut()


def test_strangers_who_come_back_again_and_again_hold_up_nobody(
    server: Server, market: str
) -> None:
    """A thousand replays in a row by requests, and far positions by many: others go on."""
    name, other = f"{market}.trades", f"{market}.other"
    at = away(server, name)
    publish(server, f"public.{name}", *range(1500))
    server.catch_up()
    crowd = [come(server, name, since="9223372036854775807-00000001") for _ in range(50)]
    with come(server) as attacker, server.connect(f"/?stream={other}") as good:
        good.receive()
        reply(attacker)
        for _ in range(1000):
            attacker.send({"event": "unsubscribe", "streams": [name]})
            attacker.send({"event": "subscribe", "streams": [name], "since": at})
        worst = 0.0
        for number in range(50):
            used_s = server.cpu_s()
            publish(server, f"public.{other}", number)
            assert good.receive() == json.dumps({other: number}, separators=(",", ":"))
            worst = max(worst, server.cpu_s() - used_s)
        assert worst < 1
    for client in crowd:
        assert reply(client)["reason"] == "other_history"
        client.close()
