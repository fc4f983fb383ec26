"""The stream client against the real server, and against peers that misbehave."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import threading
import time
from typing import Any, Callable, Iterator

import pytest
from support import HOST, TEXT, Server, frame, free_port, start_gateway, wait_for
from websockets.sync.server import ServerConnection, serve

from rango_gevent.client import ConnectionLost, Limits, Notice, StateChange, StreamClient
from rango_gevent.client.model import ERROR, REPLY, STATE
from rango_gevent.errors import Refused
from rango_gevent.server.handshake import accept_key

QUICK = Limits(open_s=10, close_s=1, idle_s=5, first_wait_s=0.05, max_wait_s=0.1)
EMPTY = '{"success":{"message":"subscribed","streams":[]}}'


@contextlib.contextmanager
def peer(handler: Callable[[ServerConnection], None], **more: Any) -> Iterator[str]:
    """Run a WebSocket server that behaves as the handler does; gives its URL."""
    with serve(handler, HOST, 0, compression=None, **more) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"ws://{HOST}:{server.socket.getsockname()[1]}"
        finally:
            server.shutdown()
            thread.join(30)


def client(url: str, *streams: str, heard: list[Notice] | None = None, **more: Any) -> StreamClient:
    """Return a client with short waits that keeps what it hears, and asks for no positions."""
    notices: list[Notice] = [] if heard is None else heard
    more = {"limits": QUICK, "resume": False, **more}
    return StreamClient(url, streams, on_notice=notices.append, jitter=random.Random(1), **more)


def cut(ours: StreamClient) -> None:
    """Cut a client's first connection, as a network does."""
    connection = ours._runners[0]._connection
    assert connection is not None
    connection.socket.shutdown(socket.SHUT_RDWR)


def close_when(ours: StreamClient, is_time: Callable[[], object]) -> threading.Thread:
    """Close a client from another thread as soon as something is true."""

    def wait_and_close() -> None:
        wait_for(is_time)
        ours.close()

    thread = threading.Thread(target=wait_and_close)
    thread.start()
    return thread


def test_events_and_replies(gateway: Server) -> None:
    """Events are iterated in order with the bytes unchanged; replies are heard beside them."""
    heard: list[Notice] = []
    bodies = ['{"n": 1.10}', "12345678901234567890", '"é\\u0000"']
    with client(gateway.url, "c1.trades", heard=heard) as ours:
        events = ours.events(timeout_s=30)
        threading.Thread(
            target=lambda: (
                wait_for(lambda: len(heard) == 2),
                [gateway.publish("public.c1.trades", body) for body in bodies],
            )
        ).start()
        assert [next(events)[:2] for _ in bodies] == [("c1.trades", body) for body in bodies]
    assert heard == [
        Notice(REPLY, EMPTY),
        Notice(REPLY, '{"success":{"message":"subscribed","streams":["c1.trades"]},"id":1}'),
    ]


def test_subscribe_and_unsubscribe_while_iterating(gateway: Server) -> None:
    """Names can be added and removed at any time; what is left is told by the server."""
    heard: list[Notice] = []
    with client(gateway.url, "c2.a", heard=heard) as ours:
        events = ours.events(timeout_s=30)
        feed = threading.Thread(
            target=lambda: (
                wait_for(lambda: len(heard) == 2),
                gateway.publish("public.c2.a", "1"),
                wait_for(lambda: len(heard) == 4),
                gateway.publish("public.c2.a", "2"),
                gateway.publish("public.c2.b", "3"),
            )
        )
        feed.start()
        assert next(events)[:2] == ("c2.a", "1")
        ours.subscribe("c2.b")
        ours.unsubscribe("c2.a")
        assert next(events)[:2] == ("c2.b", "3")
        feed.join(30)
    told = sorted(notice.text.split('"')[5] for notice in heard[1:])
    assert told == ["subscribed", "subscribed", "unsubscribed"]


def test_many_names_are_subscribed(gateway: Server) -> None:
    """A thousand names are asked for in small messages, and all are held in the end."""
    names = [f"c3x{n:04}.trades" for n in range(1000)]
    heard: list[Notice] = []
    with client(gateway.url, *names, heard=heard):
        wait_for(lambda: heard and heard[-1].text.count(".trades") == 1000, what="all of them")
    assert heard[-1].kind == REPLY
    assert not [notice for notice in heard if notice.kind == STATE]


class Longest(random.Random):
    """Randomness that always gives the most, so that waits can be compared."""

    def uniform(self, a: float, b: float) -> float:
        """Return the upper end."""
        return b


def test_waits_grow_before_a_black_hole() -> None:
    """An attempt that hangs is no connection that lived, however long it hung."""
    waits: list[float] = []

    def hear(change: StateChange) -> None:
        if change.wait_s:
            waits.append(change.wait_s)
            if len(waits) == 4:
                ours.close()

    limits = QUICK._replace(open_s=0.3, first_wait_s=0.1, max_wait_s=0.4, steady_s=0.2)
    with socket.create_server((HOST, 0)) as hole:  # connects, and says no word
        url = f"ws://{HOST}:{hole.getsockname()[1]}"
        ours = StreamClient(url, ["a.b"], limits=limits, jitter=Longest())
        ours.on_state(hear)
        assert list(ours.events(timeout_s=30)) == []
    assert waits == [0.1, 0.2, 0.4, 0.4]


def test_closing_from_another_thread_ends_the_iteration(gateway: Server) -> None:
    """`close` wakes up whoever waits for events, and the iteration just ends."""
    heard: list[Notice] = []
    ours = client(gateway.url, "c4.a", heard=heard)
    closer = close_when(ours, lambda: len(heard) == 2)
    assert list(ours) == []
    closer.join(30)
    assert list(ours) == []


def test_closing_ends_the_wait_between_connections() -> None:
    """`close` does not wait until the next attempt to connect."""
    heard: list[Notice] = []

    def handler(connection: ServerConnection) -> None:
        connection.close(1012, "service restart")

    slow = QUICK._replace(first_wait_s=60.0, max_wait_s=60.0)
    with peer(handler) as url:
        ours = client(url, heard=heard, limits=slow)
        closer = close_when(ours, lambda: heard)
        started = time.monotonic()
        assert list(ours) == []
        assert time.monotonic() - started < 30
        closer.join(30)


@pytest.mark.parametrize("code", [1000, 1001, 1011, 1012, 4008, 4009, 4999])
def test_it_comes_back_after_codes_that_allow_it(code: int) -> None:
    """Connections that end for a passing reason are made again, with the names of the time."""
    asked: list[str | bytes] = []

    def handler(connection: ServerConnection) -> None:
        connection.send(EMPTY)
        asked.append(connection.recv(timeout=30))
        connection.send(f'{{"a.b":{len(asked)}}}')
        connection.close(code, "reason")

    heard: list[Notice] = []
    with peer(handler) as url, client(url, "a.b", heard=heard) as ours:
        events = ours.events(timeout_s=30)
        assert [next(events).body for _ in range(3)] == ["1", "2", "3"]
    assert [json.loads(text)["streams"] for text in asked] == [["a.b"]] * 3
    states = [notice.text for notice in heard if notice.kind == STATE]
    assert states[0].startswith(f"the connection was closed: {code} reason; connecting again in 0.")
    assert states[1] == "connected again"


def test_it_comes_back_sooner_when_the_code_says_now() -> None:
    """After 4011, the connection's maximum age, the wait is a tenth of that after 1012."""
    waits = [_first_wait_s(code) for code in (1012, 4011)]
    assert waits[1] == pytest.approx(waits[0] / 10, abs=0.06)


def _first_wait_s(code: int) -> float:
    """Return the wait that a client announces after a close code."""

    def handler(connection: ServerConnection) -> None:
        connection.close(code, "reason")

    heard: list[Notice] = []
    limits = QUICK._replace(first_wait_s=10.0, max_wait_s=10.0)
    with peer(handler) as url:
        ours = client(url, heard=heard, limits=limits)
        closer = close_when(ours, lambda: heard)
        assert list(ours) == []
        closer.join(30)
    return float(heard[0].text.split(" in ")[1].split()[0])


@pytest.mark.parametrize("code", [1002, 1007, 1009, 4010])
def test_it_stays_away_after_codes_that_forbid_it(code: int) -> None:
    """Doing the same again would end the same way."""

    def handler(connection: ServerConnection) -> None:
        connection.close(code, "reason")

    with peer(handler) as url, pytest.raises(ConnectionLost) as error:
        list(client(url).events(timeout_s=30))
    assert error.value.code == code
    assert str(error.value) == f"the connection was closed: {code} reason"


def test_a_cut_connection_is_made_again() -> None:
    """A connection that ends without a close frame is one that was lost."""
    connections = []

    def handler(connection: ServerConnection) -> None:
        connections.append(connection)
        if len(connections) == 1:
            assert connection.ping().wait(30), "it is connected on both sides"
            connection.socket.shutdown(socket.SHUT_RDWR)
        else:
            connection.send('{"a.b":1}')
            connection.recv(timeout=30)

    heard: list[Notice] = []
    with peer(handler) as url, client(url, "a.b", heard=heard) as ours:
        assert next(ours.events(timeout_s=30))[:2] == ("a.b", "1")
    assert heard[0].text.startswith("the connection was cut; connecting again in ")


def test_a_message_over_the_bound_ends_for_good() -> None:
    """A message larger than the client takes would come again, so it does not come back."""

    def handler(connection: ServerConnection) -> None:
        connection.send('{"a.b":"%s"}' % ("x" * 2000))
        with contextlib.suppress(Exception):
            connection.recv(timeout=30)

    small = QUICK._replace(message_bytes=1000)
    with peer(handler) as url, pytest.raises(ConnectionLost) as error:
        list(client(url, limits=small).events(timeout_s=30))
    assert error.value.code == 1009


def test_it_is_there_before_its_gateway() -> None:
    """Started first, it finds the gateway when that comes."""
    port = free_port()
    heard: list[Notice] = []
    with client(f"ws://{HOST}:{port}", "early.a", heard=heard) as ours:
        wait_for(lambda: heard, what="a first attempt")
        assert "Connection refused; connecting again in 0." in heard[0].text
        with start_gateway(env={"RANGER_PORT": str(port)}) as server:
            ours.unsubscribe("early.a")
            early = ours.subscribe("early.a").wait(30)
            server.publish("public.early.a", "1")
            assert early.get(30).body == "1"


@pytest.mark.parametrize(("status", "again"), [(503, True), (429, True), (403, False)])
def test_a_status_says_whether_to_come_back(status: int, again: bool) -> None:
    """What passes is waited for, as long as the gateway asks; what does not ends the client."""
    tried: list[float] = []

    def refuse(connection: ServerConnection, request: object) -> object:
        tried.append(time.monotonic())
        if len(tried) == 1:
            response = connection.respond(status, "not now\n")
            response.headers["Retry-After"] = "1"
            return response
        return None

    def handler(connection: ServerConnection) -> None:
        connection.send(EMPTY)
        with contextlib.suppress(Exception):
            connection.recv(timeout=30)

    with peer(handler, process_request=refuse) as url, client(url) as ours:
        if again:
            ours.wait_live(30)
            assert tried[1] - tried[0] >= 0.99
        else:
            with pytest.raises(Refused, match=f"^refused with HTTP {status}: not now$"):
                next(iter(ours))


@contextlib.contextmanager
def silent_peer(greet: bool) -> Iterator[tuple[str, list[bytes]]]:
    """Run a server that at most makes the handshake and then only listens."""
    received: list[bytes] = []
    ended = threading.Event()

    def listen(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while not ended.is_set():
                connection, _ = listener.accept()
                with connection:
                    request = connection.recv(4096)
                    if greet:
                        key = request.split(b"Sec-WebSocket-Key: ")[1].split(b"\r\n")[0]
                        connection.sendall(
                            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                            b"Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n%s"
                            % (accept_key(key), frame(TEXT, EMPTY.encode(), masked=False))
                        )
                    while data := connection.recv(4096):
                        received.append(data)

    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen()
        thread = threading.Thread(target=listen, args=(listener,))
        thread.start()
        try:
            yield f"ws://{HOST}:{listener.getsockname()[1]}", received
        finally:
            ended.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(30)


def test_a_silent_server_is_pinged_and_given_up() -> None:
    """A connection that is dead without a word is noticed by a ping that nobody answers."""
    quick = QUICK._replace(idle_s=0.3, pong_s=0.3, close_s=0.2)
    with silent_peer(greet=True) as (url, received):
        started = time.monotonic()
        with pytest.raises(ConnectionLost, match="the server is silent"):
            list(client(url, reconnect=False, limits=quick))
        assert 0.5 < time.monotonic() - started < 20
    head, length, *rest = received[0]
    assert (head, length) == (0x81, 0x80 | 4)  # a masked text of four bytes,
    assert bytes(rest[4 + n] ^ rest[n] for n in range(4)) == b"ping"


def test_an_idle_server_that_answers_pings_is_kept(gateway: Server) -> None:
    """Silence alone is no reason to leave: the server answers pings."""
    heard: list[Notice] = []
    quick = QUICK._replace(idle_s=0.1, pong_s=20)
    ours = client(gateway.url, "c5.a", heard=heard, limits=quick)
    with ours, pytest.raises(TimeoutError):
        list(ours.events(timeout_s=1.5))
    assert [notice.kind for notice in heard] == [REPLY, REPLY]


def test_a_timeout_holds_while_connecting() -> None:
    """A server that never answers the handshake does not hold up the timeout."""
    with silent_peer(greet=False) as (url, _):
        started = time.monotonic()
        patient = QUICK._replace(open_s=60)
        with client(url, limits=patient) as ours, pytest.raises(TimeoutError):
            list(ours.events(timeout_s=0.5))
        assert time.monotonic() - started < 20


def test_a_timeout_holds_while_events_never_pause(gateway: Server, market: str) -> None:
    """The time is over for whoever never catches up, too."""
    with client(gateway.url) as ours:
        ours.subscribe(f"{market}.trades").wait(30)
        for number in range(100):
            gateway.publish(f"public.{market}.trades", str(number))
        wait_for(lambda: ours.stats().waiting == 100, what="all events")
        taken = 0
        with pytest.raises(TimeoutError):
            for _ in ours.events(timeout_s=1):
                taken += 1
                time.sleep(0.05)
    assert 1 <= taken <= 21  # fewer on a machine that lets us sleep for longer


def test_an_error_is_heard_as_one(gateway: Server) -> None:
    """An error reply is told, and does not end the connection."""
    heard: list[Notice] = []
    with client(gateway.url, "x" * 300, heard=heard):
        wait_for(lambda: len(heard) >= 2, what="the error")
    told = '{"error":"Stream name too long: the limit is 255 bytes","id":1}'
    assert heard[1] == Notice(ERROR, told)


def test_a_stream_may_be_called_error(gateway: Server) -> None:
    """A private stream called ``error`` gives events, not errors, to who subscribed to it."""
    heard: list[Notice] = []
    with client(gateway.url, "error", token=gateway.token(uid="IDERR"), heard=heard) as ours:
        events = ours.events(timeout_s=30)
        threading.Thread(
            target=lambda: (
                wait_for(lambda: len(heard) == 2),
                gateway.publish("private.IDERR.error", '"text"'),
            )
        ).start()
        assert next(events)[:2] == ("error", '"text"')


def test_a_proxy_in_the_environment_is_ignored(
    gateway: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway on this machine is not looked for behind a proxy."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://{HOST}:{free_port()}")
    heard: list[Notice] = []
    with client(gateway.url, heard=heard):
        wait_for(lambda: heard, what="the reply")
    assert heard == [Notice(REPLY, EMPTY)]


def test_a_book_begins_with_its_snapshot_after_each_reconnect() -> None:
    """Coming back to a book gives the snapshot again, under its own name."""
    with start_gateway() as server, client(server.url, "m.ob-inc") as ours:
        with server.connect() as probe:
            probe.receive()
            probe.subscribe("m.ob-inc")
            server.publish("public.m.ob-snap", '{"sequence":1}')
            server.publish("public.m.ob-inc", '{"sequence":2}')
            probe.receive()
        events = ours.events(timeout_s=30)
        book = [("m.ob-snap", '{"sequence":1}'), ("m.ob-inc", '{"sequence":2}')]
        assert [next(events)[:2] for _ in range(2)] == book
        cut(ours)
        assert [next(events)[:2] for _ in range(2)] == book
