"""A session of the dialect without a socket: whatever it is asked, it answers."""

from __future__ import annotations

from collections import Counter
from typing import Any, Callable, Iterator

import msgspec
import pytest
from gevent.queue import SimpleQueue
from hypothesis import given, settings
from hypothesis import strategies as st

from rango_gevent.auth.authenticator import Authenticator
from rango_gevent.auth.identity import ANONYMOUS, Identity
from rango_gevent.delivery.outlet import Gone
from rango_gevent.delivery.session import Desk, SessionLimits
from rango_gevent.errors import TokenError
from rango_gevent.hub.hub import Hub
from rango_gevent.protocol.messages import NameLimits
from rango_gevent.viabtc import methods, words
from rango_gevent.viabtc.board import Board, BoardLimits
from rango_gevent.viabtc.methods import DepthForms, Signed
from rango_gevent.viabtc.names import Names
from rango_gevent.viabtc.session import Hall, ViabtcSession
from rango_gevent.viabtc.words import Wrong

LIMITS = SessionLimits(1000.0, 1000, 1e9, NameLimits(max_names=20, max_name_bytes=64), 1000)


class Outlet(Gone):
    """What the session sends behind its answers."""

    def __init__(self) -> None:
        self.pushed: list[Any] = []
        self.pauses = 0
        self.on_pause: Callable[[], None] = lambda: None

    def pause(self) -> None:
        """Count it."""
        self.pauses += 1
        self.on_pause()

    def push(self, part: Any) -> None:
        """Keep it."""
        self.pushed.append(said(part))


class Backend:
    """Answers nothing well, unless it has an answer."""

    def __init__(self, known: bool) -> None:
        self.known = known
        self.result = b""
        self.asked: list[Any] = []

    def knows(self, method: str) -> bool:
        """Tell whether it answers."""
        return self.known

    def ask(self, method: str, params: list[Any], uid: str | None) -> bytes:
        """Answer, or refuse."""
        self.asked.append((method, params, uid))
        if self.result:
            return self.result
        raise Wrong(words.UNAVAILABLE)


def said(frame: Any) -> Any:
    """Return what a frame says."""
    return msgspec.json.decode(frame[frame.index(b"{") if frame[1] != 123 else 2 :])


def refuse(signed: Signed) -> Identity:
    """Know no signature."""
    raise TokenError("not known", "signature", "no such key")


def session(identity: Identity = ANONYMOUS, *, known: bool = False, **limits: Any) -> ViabtcSession:
    """Return a session in a world of its own."""
    hub = Hub(allows=lambda prefix, role: False, make_queue=SimpleQueue)
    desk = Desk(hub, LIMITS, lambda who: None, now=lambda: 1.0, move=lambda before, after: True)
    desk.set_ways(Authenticator(None, lambda: 1.0, Counter()), ("message",))
    hall = Hall(
        Board(hub, Names(), BoardLimits(**limits)),
        DepthForms(),
        Backend(known),
        sign=refuse,
        spawn=lambda work, *args: work(*args),
        now=lambda: 1.0,
        most_pending=4,
    )
    made = ViabtcSession(desk, hall, identity, now_s=1.0)
    made.outlet = Outlet()
    return made


def ask(client: ViabtcSession, method: Any, params: Any, id: Any = 1) -> list[Any]:
    """Return all that a request brings."""
    message = msgspec.json.encode({"id": id, "method": method, "params": params})
    outlet = client.outlet
    assert isinstance(outlet, Outlet)
    outlet.pushed.clear()
    return [said(part) for part in client.answer(message)] + outlet.pushed


NAMES = st.sampled_from(["BTCBCH", "A", "", "A" * 16, "a.b", "*", "0", "0.1", "web"])
NUMBERS = st.integers(-2, 101) | st.sampled_from([60, 86400, 604800, 2592000, 1 << 62, 1 << 64])
VALUES = (
    NAMES | NUMBERS | st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=3)
)
PARAMS = st.lists(VALUES | st.lists(VALUES, max_size=2), max_size=7)


@settings(max_examples=600)
@given(st.sampled_from(methods.ALL), PARAMS, st.booleans(), st.booleans())
def test_whatever_is_asked_is_answered_once(
    method: str, params: list[Any], is_user: bool, known: bool
) -> None:
    """By a result or an error of the table; nothing raises, and a wrong list changes nothing."""
    client = session(Identity("7", "", None) if is_user else ANONYMOUS, known=known)
    ask(client, "deals.subscribe", ["HELD"])
    ask(client, "order.subscribe", ["HELD"])
    held = set(client.streams)
    found = ask(client, method, params)
    replies = [message for message in found if "method" not in message]
    assert len(replies) == 1, found
    (reply,) = replies
    assert reply["id"] == 1
    if reply["error"] is None:
        return
    assert reply["result"] is None
    assert reply["error"]["code"] in (1, 2, 3, 5, 6, 11)
    assert set(client.streams) == held


@settings(max_examples=300)
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_answered(message: bytes) -> None:
    """By one error."""
    (reply,) = [said(part) for part in session().answer(message)]
    assert reply["error"]["code"] in (1, 4)


def test_the_thirty_methods() -> None:
    """As many as the server has."""
    assert len(set(methods.ALL)) == 30


@pytest.mark.parametrize("id", [0, -1, 2**63 - 1, -(2**63)])
def test_ids_are_echoed(id: int) -> None:
    """All that fit a whole number of 64 bits."""
    assert ask(session(), "server.ping", [], id)[0]["id"] == id


def test_a_client_holds_so_many() -> None:
    """Over all families; what takes the place of others is not counted twice."""
    client = session()
    assert ask(client, "deals.subscribe", [f"M{n}" for n in range(15)])[0]["error"] is None
    assert ask(client, "price.subscribe", [f"M{n}" for n in range(6)])[0]["error"]["code"] == 1
    assert ask(client, "price.subscribe", [f"M{n}" for n in range(5)])[0]["error"] is None
    assert ask(client, "deals.subscribe", [f"N{n}" for n in range(15)])[0]["error"] is None
    assert ask(client, "deals.subscribe", ["N1", "N1"])[0]["error"] is None
    assert len(client.streams) == 6


def everything() -> Iterator[tuple[str, list[Any]]]:
    """Yield a good request of each family."""
    for family in ("price", "state", "today", "deals", "order", "asset"):
        yield f"{family}.subscribe", ["BTCBCH"]
    yield "kline.subscribe", ["BTCBCH", 60]
    yield "depth.subscribe", ["BTCBCH", 5, "0"]


def test_another_user_gives_up_what_is_the_formers() -> None:
    """And keeps the rest; nobody keeps nothing that is private."""
    client = session(Identity("7", "", None))
    for method, params in everything():
        assert ask(client, method, params)[0]["error"] is None
    assert len(client.streams) == 8
    assert client.become(Identity("7", "", 99.0)) == []
    assert len(client.streams) == 8
    client.become(ANONYMOUS)
    assert len(client.streams) == 6
    assert not [name for name in client.streams if name.startswith(("order", "asset"))]


def test_endless_lists_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """More entries than a client may hold cannot all be good, so none of them is looked at."""
    client = session()
    looked: list[object] = []
    monkeypatch.setattr(Names, "stream_of", lambda names, market: looked.append(market))
    for method, entry in (
        ("deals.subscribe", ["A"]),
        ("kline.subscribe", ["A", 60]),
        ("depth.subscribe", ["A", 5, "0"]),
    ):
        assert ask(client, method, entry * 61)[0]["error"]["code"] == 1
    assert not looked


def test_a_client_has_a_tenth_of_the_levels_of_all() -> None:
    """More is an invalid argument; what is full for all is code 3. Nothing changes then."""
    client = session(depth_levels=4000)
    held = ["A", 100, "0", "B", 100, "0"]
    assert ask(client, "depth.subscribe", held)[0]["error"] is None
    assert ask(client, "depth.subscribe", [*held, "C", 1, "0"])[0]["error"]["code"] == 1
    assert ask(client, "depth.subscribe", ["C", 100, "0", "D", 100, "0"])[0]["error"] is None
    client._hall.board.depth_levels = 4000
    assert ask(client, "depth.subscribe", ["E", 100, "0", "F", 100, "0"])[0]["error"] is None
    client._hall.board.depth_levels = 4001
    assert ask(client, "depth.subscribe", ["G", 100, "0", "H", 100, "0"])[0]["error"]["code"] == 3
    assert {name.split(":")[1] for name in client.streams} == {"e", "f"}


def with_deals(client: ViabtcSession, *streams: str) -> None:
    """Publish a deal of each of these markets."""
    for stream in streams:
        deal = [1.5, "X", 1, 2, 3, 4, "7", "1", "0", "0", 1, 9]
        client._hall.board.take(f"public.{stream}.trades", msgspec.json.encode(deal), 1.0)


def test_others_have_their_turn_between_first_pushes() -> None:
    """What many markets show first is made one by one; what was never published costs no turn."""
    client = session()
    with_deals(client, "a", "b", "c")
    outlet = client.outlet
    assert isinstance(outlet, Outlet)
    found = ask(client, "deals.subscribe", ["A", "NONE", "B", "NOTHING", "C"])
    assert [said.get("params", [""])[0] for said in found] == ["", "A", "B", "C"]
    assert outlet.pauses == 3
    assert len(client.streams) == 5


def test_who_is_lost_between_first_pushes_holds_nothing_more() -> None:
    """Nobody would give up for it what it got then."""
    client = session()
    with_deals(client, "a", "b")
    outlet = client.outlet
    assert isinstance(outlet, Outlet)

    def lose() -> None:
        client.ended = True
        client.desk.hub.unsubscribe(client, list(client.streams))

    outlet.on_pause = lose
    assert len(ask(client, "deals.subscribe", ["A", "B"])) == 2
    assert not client.streams


def test_a_backends_answer_waits_for_who_does_not_read() -> None:
    """As the one that all share, and not as a copy for each."""
    client = session(known=True)
    backend, outlet = client._hall.backend, client.outlet
    assert isinstance(backend, Backend)
    assert isinstance(outlet, Outlet)
    backend.result = b"[]"
    seen: list[int] = []
    outlet.on_pause = lambda: seen.append(len(outlet.pushed))
    assert ask(client, "kline.query", ["A", 0, 1, 60])[0]["result"] == []
    assert seen == [0]


def test_a_backends_answer_is_not_for_who_is_somebody_else_by_now() -> None:
    """Not either when that happened while it waited to be sent."""
    client = session(Identity("7", "", None), known=True)
    backend, outlet = client._hall.backend, client.outlet
    assert isinstance(backend, Backend)
    assert isinstance(outlet, Outlet)
    backend.result = b"[]"
    outlet.on_pause = lambda: client.become(Identity("8", "", None)) and None
    assert ask(client, "asset.query", [])[0]["error"]["code"] == 6
