"""Attacks on /viabtc: strangers who ask in that protocol for all that costs most."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import threading
import time
from collections import deque
from typing import Any, Iterable, Iterator

import amqp
from bench.machine import family

from tests.support import RawSocket, broker_channel, new_broker_channel, text_frame
from tests.torment.subscribers import all_at_once
from tests.torment.target import Drain, Target

PATH = "/viabtc"
SILENT, BIG = "torment.silent", "torment.big"  # queues: nobody reads the one, the other answers
_SMALL_BUFFER = 4096  # a deaf client's: what it does not read stays at the gateway
_LIMITS = (1, 5, 10, 20, 30, 50, 100)
_MERGES = ("0", *(f"0.{'0' * zeros}1" for zeros in range(7, -1, -1)))
_WRITE = 48  # requests of one write, within the rate
_LIST_BYTES = 7900  # of the 8192 that a message may have
_SHARE_LEVELS, _SHARE_FORMS = 5000, 250  # of one client: a tenth of all levels, and a message
_CHANGE_S = 0.02
_LOOK_S = 0.3
_WAIT_S = 20.0
_NOW_S = 1_700_000_000
_TINY = "0.{:08d}"  # prices of which the coarse steps make one


def request(method: str, *params: Any, id: int = 1) -> bytes:
    """Return a request as a frame."""
    return text_frame(
        json.dumps({"id": id, "method": method, "params": params}, separators=(",", ":"))
    )


def _lists(method: str, entries: Iterable[tuple[Any, ...]]) -> Iterator[bytes]:
    """Return requests that fill a message with so many of these each."""
    params: list[Any] = []
    size = 0
    for entry in entries:
        needed = len(json.dumps(entry)) + 2
        if size + needed > _LIST_BYTES:
            yield request(method, *params)
            params, size = [], 0
        params += entry
        size += needed
    yield request(method, *params)


def _forms(markets: int) -> list[tuple[str, int, str]]:
    """Return all that one can ask of books, the costliest of each market first."""
    forms = itertools.product(reversed(_LIMITS), range(markets), reversed(_MERGES))
    return [(f"VB{number}", limit, merge) for limit, number, merge in forms]


def _shares(forms: list[tuple[str, int, str]]) -> list[bytes]:
    """Return requests for all of these, each for as much as one client may hold."""
    found, part, levels = [], [], 0
    for form in forms:
        if levels + 2 * form[1] > _SHARE_LEVELS or len(part) == _SHARE_FORMS:
            found.append(request("depth.subscribe", *itertools.chain(*part)))
            part, levels = [], 0
        part.append(form)
        levels += 2 * form[1]
    return [*found, request("depth.subscribe", *itertools.chain(*part))]


# -- what is published ------------------------------------------------------------------------


def _publish_market(target: Target, number: int, levels: int, deals: int, candles: int) -> None:
    """Publish a book of tiny prices, deals and candles."""
    middle = 10 * levels
    sides = {
        "asks": [[_TINY.format(middle + at), "1.5"] for at in range(1, levels + 1)],
        "bids": [[_TINY.format(middle - at), "1.5"] for at in range(levels)],
    }
    target.publish(f"public.vb{number}.ob-snap", json.dumps({**sides, "sequence": 1}))
    for tid in range(deals):
        trade = {"tid": tid, "date": _NOW_S, "price": "1.5", "amount": "2", "taker_type": "sell"}
        target.publish(f"public.vb{number}.trades", json.dumps({"trades": [trade]}))
    for at in range(candles):
        row = [_NOW_S + 60 * at, "1.5", "2.5", "0.5", "1.75", "1000.25"]
        target.publish(f"public.vb{number}.kline-1m", json.dumps(row))


def _wait_for_books(target: Target, books: int) -> None:
    end = time.monotonic() + _WAIT_S
    while target.metric("rango_books") < books and time.monotonic() < end:
        time.sleep(_LOOK_S)


class _Watch:
    """A good client's view of a book of its own, which changes with the others."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._began_ns: dict[int, int] = {}
        self._worst_ns = 0
        self._shown = 0
        target.publish("public.vbgood.ob-snap", '{"asks":[["1","1"]],"bids":[],"sequence":1}')
        time.sleep(_LOOK_S)
        self._sock = RawSocket(target.port)
        self._sock.send(target.head(PATH))
        assert self._sock.response()[0] == 101, "a good client is let in"
        self._sock.send(request("depth.subscribe", "VBGOOD", 5, "0"))
        self._numbers = itertools.count(2)
        threading.Thread(target=self._read, daemon=True).start()

    def change(self) -> None:
        """Change the book."""
        number = next(self._numbers)
        self._began_ns[number] = time.monotonic_ns()
        body = f'{{"asks":[["1","{number}"]],"sequence":{number}}}'
        self._target.publish("public.vbgood.ob-inc", body)

    def _read(self) -> None:
        while True:
            said = json.loads(self._sock.read_text())
            if said.get("method") == "depth.update" and not said["params"][0]:
                now_ns, shown = time.monotonic_ns(), int(said["params"][1]["asks"][0][1])
                first = next(iter(range(self._shown + 1, shown + 1)), shown)
                waited_ns = now_ns - self._began_ns.get(max(2, first), now_ns)
                self._worst_ns = max(self._worst_ns, waited_ns)
                self._shown = shown

    def worst_ms(self) -> float:
        """Return how late the view was at most, of what is not shown yet too."""
        began_ns = self._began_ns.get(max(2, self._shown + 1))
        waits_ns = 0 if began_ns is None else time.monotonic_ns() - began_ns
        return max(self._worst_ns, waits_ns) / 1e6


class _Changes:
    """Changes the books of markets and the watched one in turn; in a thread, as all publishing."""

    def __init__(self, target: Target, markets: int, watch: _Watch) -> None:
        self._target = target
        self._markets = markets
        self._watch = watch
        self._own = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        for number in itertools.count():
            if self._own.wait(_CHANGE_S):
                return
            market, sequence = number % self._markets, number // self._markets + 2
            body = {"asks": [["1", str(number)]], "bids": [[_TINY.format(9), str(number)]]}
            key = f"public.vb{market}.ob-inc"
            self._target.publish(key, json.dumps({**body, "sequence": sequence}))
            self._watch.change()

    def stop(self) -> None:
        """Change no more."""
        self._own.set()
        self._thread.join(_WAIT_S)


# -- attacks ----------------------------------------------------------------------------------


def viabtc_queries(target: Target) -> None:
    """A crowd within its rate asks for as much as an answer may hold, all at the same instant."""
    for number in range(3):
        _publish_market(target, number, target.size["levels"], 200, 500)
    _wait_for_books(target, 3)
    deep = (request("depth.query", f"VB{n}", 101, m) for m in _MERGES[3:] for n in range(3))
    much = (request("deals.query", f"VB{n}", 10_000, 0) for n in range(3))
    wide = (request("kline.query", f"VB{n}", 0, 1 << 40, 60) for n in range(3))
    kinds = [b"".join(itertools.islice(itertools.cycle(k), _WRITE)) for k in (deep, much, wide)]
    all_at_once(target, kinds, PATH)


def viabtc_lists(target: Target) -> None:
    """A crowd within its rate has its lists replaced again and again, all at the same instant."""
    _publish_market(target, 0, 100, 100, 10)
    names = [f"U{number}" for number in range(800)]
    families: dict[str, Iterable[tuple[Any, ...]]] = {
        "kline": ((name, interval) for name in names for interval in (60, 300)),
        "depth": ((name, 1, "0") for name in names),
        "deals": ((name,) for name in names),
        "state": ((name,) for name in names),
    }
    write = b""
    for name, entries in families.items():
        write += next(_lists(f"{name}.subscribe", entries)) + request(f"{name}.unsubscribe")
    all_at_once(target, [write * (_WRITE // 8)], PATH)


def viabtc_firsts(target: Target) -> None:
    """Each asks at once for the first pushes of many markets with many deals, and reads nothing."""
    markets = target.size["markets"]
    for number in range(markets):
        _publish_market(target, number, 1, 100, 1)
    _wait_for_books(target, markets)
    ask = next(_lists("deals.subscribe", ((f"VB{number}",) for number in range(markets))))
    target.begin()
    deaf: deque[socket.socket] = deque()
    for _ in target.until_over():
        with contextlib.suppress(OSError):
            deaf.append(target.websocket(PATH, _SMALL_BUFFER, behind=ask * 2))
        if len(deaf) > target.size["clients"]:
            deaf.popleft().close()
        _publish_market(target, 0, 1, 1, 0)


def viabtc_views(target: Target) -> None:
    """Many hold views of books that nobody else holds, while the books change.

    Half of them read nothing. A good client's own view comes how late?
    """
    markets = target.size["markets"]
    for number in range(markets):
        _publish_market(target, number, target.size["levels"], 0, 0)
    _wait_for_books(target, markets)
    watch = _Watch(target)
    asks = _shares(_forms(markets))
    changes = _Changes(target, markets, watch)
    target.begin()
    drain = Drain()
    for number in range(target.size["clients"]):
        with contextlib.suppress(OSError):
            sock = target.websocket(PATH, _SMALL_BUFFER if number % 2 else None)
            sock.sendall(asks[number % len(asks)])
            if number % 2 == 0:
                drain.add(sock)
    target.hold()
    changes.stop()
    target.found["depth_ms"] = watch.worst_ms()
    workers = max(1, len(family(target.pid)) - 1)  # a parent of workers has none
    levels = target.metric("rango_viabtc_depth_levels") / workers
    target.found["levels"] = levels
    views = target.metric("rango_viabtc_views")
    target.note(f"{views:.0f} views, {levels:.0f} levels, a view {watch.worst_ms():.0f} ms late")


def viabtc_deaf(target: Target) -> None:
    """Many ask for much in one write, and read nothing."""
    for number in range(3):
        _publish_market(target, number, 1000, 200, 500)
    _wait_for_books(target, 3)
    asks = itertools.cycle(
        (
            *(request("kline.query", f"VB{n}", 0, 1 << 40, 60) for n in range(3)),
            *(request("depth.query", f"VB{n}", 101, "0") for n in range(3)),
            *(request("deals.query", f"VB{n}", 10_000, 0) for n in range(3)),
        )
    )
    write = b"".join(itertools.islice(asks, 190))
    target.begin()
    for _ in range(target.size["clients"]):
        with contextlib.suppress(OSError):
            target.websocket(PATH, _SMALL_BUFFER, behind=write)
    target.hold()


def viabtc_rubbish(target: Target) -> None:
    """Numbers, names and nesting without end, and far more requests than the rate in one write."""
    digits = "9" * 7900
    rubbish = (
        f'{{"id":{digits},"method":"server.ping","params":[]}}',
        f'{{"id":"{digits}","method":"server.ping","params":[]}}',
        f'{{"id":1,"method":"{digits}","params":[]}}',
        f'{{"id":1,"method":"depth.query","params":["A",{digits},"0"]}}',
        f'{{"id":1,"method":"state.query","params":["{digits}",1]}}',
        f'{{"id":1,"method":"server.auth","params":["{digits}","web"]}}',
        '{"id":1,"method":"price.subscribe","params":' + "[" * 3900 + "]" * 3900 + "}",
        '{"a":' * 1300 + "1" + "}" * 1300,
        '{"id":1,"method":"price.subscribe","params":[' + "[]," * 2600 + "[]]}",
    )
    write = b"".join(text_frame(text) for text in rubbish) * 5
    flood = request("server.ping") * 5000
    drain = Drain()
    target.begin()
    held: deque[socket.socket] = deque()
    for number in target.until_over():
        with contextlib.suppress(OSError):
            sock = drain.add(target.websocket(PATH))
            sock.settimeout(0.2)
            sock.sendall(flood if number % 4 == 0 else write)
        time.sleep(0.002)
    del held


def viabtc_tokens(target: Target) -> None:
    """Bad tokens as fast as connections are let in, each a signature to be checked."""
    bad = target.token[:-8] + "AAAAAAAA"
    write = b"".join(request("server.auth", bad, "web", id=number) for number in range(6))
    drain = Drain()
    target.begin()
    for _ in target.until_over():
        with contextlib.suppress(OSError):
            drain.add(target.websocket(PATH, behind=write))


def viabtc_silence(target: Target) -> None:
    """A thousand questions to a backend that is slow, a thousand to one that is not there."""
    broker_channel().queue_declare(SILENT, durable=False, auto_delete=True)
    slow = b"".join(request("state.query", f"S{n}", 60, id=n) for n in range(_WRITE))
    dead = b"".join(request("today.query", f"S{n}", id=n) for n in range(_WRITE))
    all_at_once(target, [slow, dead], PATH)


def viabtc_answers(target: Target) -> None:
    """A backend answers with a megabyte, and those who ask read nothing."""
    backend = threading.Thread(target=_answer_big, daemon=True)
    broker_channel().queue_declare(BIG, durable=False, auto_delete=True)
    backend.start()
    write = b"".join(
        request("kline.query", f"B{number % 4}", 0, 1 << 40, 60, id=number)
        for number in range(_WRITE)
    )
    target.begin()
    for _ in range(target.size["clients"]):
        with contextlib.suppress(OSError):
            target.websocket(PATH, _SMALL_BUFFER, behind=write)
    target.hold()


def _answer_big() -> None:
    """Answer each question with 900 KB of candles, on a connection of this thread."""
    channel = new_broker_channel()
    candle = [_NOW_S, "1.5", "1.75", "2.5", "0.5", "1000.25", "1500.5", "X"]
    body = json.dumps({"error": None, "result": [candle] * 12_000}, separators=(",", ":"))

    def answer(message: Any) -> None:
        asked = message.properties
        reply = amqp.basic_message.Message(body, correlation_id=asked["correlation_id"])
        channel.basic_publish(reply, exchange="", routing_key=asked["reply_to"])

    channel.basic_consume(BIG, no_ack=True, callback=answer)
    while True:
        channel.connection.drain_events()
