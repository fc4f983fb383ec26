"""A gateway for tests of programs that use the client: it speaks the protocol and does as told.

    with FakeGateway() as gateway, StreamClient(gateway.url) as client:
        trades = client.subscribe("btcusd.trades").wait(5)
        gateway.publish("btcusd.trades", '{"tid":1}')
        gateway.close(4008, "slow client")

It serves on a port of this machine, in threads of its own. Who asks by ``resume=1`` is told
positions and gets what it missed of the newest events. Tokens are not checked, unless
`FakeGateway.accepts` says how; everybody may have every stream that `FakeGateway.refused` does
not name.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from http import HTTPStatus
from types import TracebackType
from typing import Any, Callable

from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

_HOST = "127.0.0.1"
_INVALID = "Could not parse Type: Invalid event"
_END_S = 5.0


class _Peer:
    """A client of the fake gateway, and what it holds."""

    def __init__(self, connection: ServerConnection, token: str, resumes: bool) -> None:
        self.connection = connection
        self.token = token
        self.resumes = resumes
        self.held: dict[str, None] = {}

    def send(self, text: str) -> None:
        """Send a message; one who has left misses it."""
        with contextlib.suppress(ConnectionClosed):
            self.connection.send(text)


class FakeGateway:
    """A gateway that does as it is told.

    Args:
        port: where to listen, 0 for any.
        extended: knows ids, ``list``, ``time``, ``snapshot`` and ``auth``, as this package's
            gateway does; without it is like Rango.
        history: events that are kept for who comes back by a position; 0: ``resume=1`` is ignored,
            as by an older gateway.

    Attributes:
        port: where it listens.
        requests: what clients sent, in order.
        tokens: what clients came with, by handshake or in band, in order.
        refused: names that nobody may have.
        accepts: tells whether a token is good.
        ttl_s: what a token's owner is told of the time that it has left.
        unrecoverable: why nobody is given what was missed, such as ``too_many``; empty: who can
            be is.
    """

    def __init__(self, port: int = 0, *, extended: bool = True, history: int = 10_000) -> None:
        self.requests: list[str] = []
        self.tokens: list[str] = []
        self.refused: set[str] = set()
        self.accepts: Callable[[str], bool] = lambda token: True
        self.ttl_s: float | None = None
        self.unrecoverable = ""
        self._history: deque[tuple[int, str, str]] = deque(maxlen=history)
        self._number = 1000
        self._lost_number = self._number
        self._life = 1
        self._extended = extended
        self._lock = threading.RLock()
        self._moving = threading.Condition(self._lock)
        self._is_stalled = False
        self._peers: list[_Peer] = []
        self._books: dict[str, list[tuple[int, str, str]]] = {}
        self._refusals: list[tuple[int, str, dict[str, str]]] = []
        self._accepted = 0
        self._goodbyes: list[threading.Thread] = []
        self._server = serve(
            self._serve, _HOST, port, compression=None, process_request=self._admit
        )
        self.port: int = self._server.socket.getsockname()[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="fake-gateway")
        self._thread.start()

    @property
    def url(self) -> str:
        """Return its URL, without a path."""
        return f"ws://{_HOST}:{self.port}"

    def __enter__(self) -> FakeGateway:
        """Do nothing: it serves already."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close everything."""
        self.end()

    # -- what it is told to do ------------------------------------------------------------

    def publish(self, stream: str, body: str) -> None:
        """Send an event to who holds its stream; ``X-snap`` and ``X-inc`` make a book."""
        with self._lock:
            self._number += 1
            event = (self._number, stream, body)
            if stream.endswith("-snap"):
                self._books[stream[: -len("-snap")] + "-inc"] = [event]
                return
            if len(self._history) == self._history.maxlen:
                self._lost_number = self._history[0][0] if self._history else self._number
            self._history.append(event)
            if stream.endswith("-inc") and stream in self._books:
                self._books[stream].append(event)
            for peer in self._peers:
                if stream in peer.held:
                    peer.send(self._text(peer, event))

    def tell_positions(self) -> None:
        """Tell everybody who wants to know where it stands, as a gateway does in a quiet market."""
        with self._lock:
            for peer in self._peers:
                if peer.resumes:
                    peer.send(_dump({"event": "position", "at": self._position()}))

    def break_history(self, reason: str = "other_history") -> None:
        """Forget what was published, and tell everybody who counts on it."""
        with self._lock:
            self._history.clear()
            self._life += 1
            for peer in self._peers:
                if peer.resumes:
                    peer.send(_dump({"event": "position", "at": None, "reason": reason}))

    def send(self, text: str) -> None:
        """Send a text to everybody, garbage too."""
        with self._lock:
            for peer in self._peers:
                peer.send(text)

    def send_bytes(self, data: bytes) -> None:
        """Send bytes that need be no WebSocket frame to everybody."""
        with self._lock:
            for peer in self._peers:
                with contextlib.suppress(OSError):
                    peer.connection.socket.sendall(data)

    def refuse(
        self,
        status: int = 503,
        text: str = "not now",
        *,
        times: int = 1,
        retry_after_s: int | None = None,
    ) -> None:
        """Answer the next handshakes with an HTTP status."""
        headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
        with self._lock:
            self._refusals += [(status, text, headers)] * times

    def close(self, code: int = 1012, reason: str = "service restart") -> None:
        """Close all connections with a code; does not wait until clients have answered."""
        for peer in self._leaving():
            goodbye = threading.Thread(target=peer.connection.close, args=(code, reason))
            goodbye.start()
            self._goodbyes.append(goodbye)

    def cut(self) -> None:
        """End all connections without a word."""
        for peer in self._leaving():
            with contextlib.suppress(OSError):
                peer.connection.socket.shutdown(socket.SHUT_RDWR)

    def stall(self) -> None:
        """Answer nothing until `resume`, pings neither; connections stay open."""
        with self._lock:
            self._is_stalled = True

    def resume(self) -> None:
        """Answer again, what came meanwhile too."""
        with self._moving:
            self._is_stalled = False
            self._moving.notify_all()

    def end(self) -> None:
        """Close everything."""
        self.resume()
        self.cut()
        self._server.shutdown()
        for thread in (self._thread, *self._goodbyes):
            thread.join(_END_S)

    # -- what it tells --------------------------------------------------------------------

    @property
    def connections(self) -> int:
        """Return how many clients it has."""
        with self._lock:
            return len(self._peers)

    @property
    def accepted(self) -> int:
        """Return how many it has had."""
        return self._accepted

    def wait_held(self, *streams: str, timeout_s: float = 10.0) -> None:
        """Wait until each stream is held by somebody.

        Raises:
            TimeoutError: it was not in time.
        """
        with self._moving:
            deadline_s = time.monotonic() + timeout_s
            while not all(any(name in peer.held for peer in self._peers) for name in streams):
                if not self._moving.wait(deadline_s - time.monotonic()):
                    raise TimeoutError(f"not held: {', '.join(streams)}")

    # -- clients --------------------------------------------------------------------------

    def _leaving(self) -> list[_Peer]:
        with self._lock:
            peers, self._peers = self._peers, []
            return peers

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        token = request.headers.get("Authorization", "").partition("Bearer ")[2]
        with self._lock:
            if self._refusals:
                status, text, headers = self._refusals.pop(0)
            elif request.path.startswith("/private") and not (token and self.accepts(token)):
                self.tokens.append(token)
                status, text, headers = 401, "The token is not valid", {}
            else:
                return None
        response = connection.respond(HTTPStatus(status), f"{text}\n")
        for name, value in headers.items():
            response.headers[name] = value
        return response

    def _serve(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        token = connection.request.headers.get("Authorization", "").partition("Bearer ")[2]
        asked = connection.request.path.partition("?")[2].split("&")
        peer = _Peer(connection, token, self._has_history and "resume=1" in asked)
        with self._lock:
            self._accepted += 1
            if token:
                self.tokens.append(token)
            self._peers.append(peer)
        try:
            self._wait_while_stalled()
            peer.send(self._subscribed(peer))
            for text in connection:
                self._wait_while_stalled()
                self._answer(peer, str(text))
        except ConnectionClosed:
            pass
        finally:
            with self._lock:
                if peer in self._peers:
                    self._peers.remove(peer)

    def _wait_while_stalled(self) -> None:
        with self._moving:
            while self._is_stalled:
                self._moving.wait()

    def _answer(self, peer: _Peer, text: str) -> None:
        with self._moving:
            if text == "ping":
                peer.send("pong")
                return
            self.requests.append(text)
            try:
                request = json.loads(text)
            except ValueError:
                request = {}
            for reply in self._replies(peer, request):
                peer.send(reply)
            self._moving.notify_all()

    def _replies(self, peer: _Peer, request: dict[str, Any]) -> Iterator[str]:
        event, names = request.get("event"), request.get("streams") or []
        number = {"id": request["id"]} if self._extended and "id" in request else {}
        if event == "subscribe":
            yield from self._subscribe(peer, names, request.get("since"), number)
        elif event == "unsubscribe":
            for name in names:
                peer.held.pop(name, None)
            yield _held("unsubscribed", peer, number)
        elif self._extended and event in ("list", "time", "snapshot", "auth"):
            yield from self._extended_replies(peer, request, number)
        else:
            yield _dump({"error": _INVALID, **number})

    def _subscribe(
        self, peer: _Peer, names: list[str], since: str | None, number: dict[str, Any]
    ) -> Iterator[str]:
        names = [name for name in names if name not in self.refused]
        is_return = peer.resumes and since is not None
        reason = self._why_not(str(since)) if is_return else ""
        missed = []
        if is_return and not reason:
            after = int(str(since).partition("-")[0])
            missed = [one for one in self._history if one[0] > after and one[1] in names]
        for name in names:
            peer.held[name] = None
            if not is_return or reason:
                yield from (self._text(peer, one) for one in self._books.get(name, ()))
        yield from (self._text(peer, one) for one in missed)
        more: dict[str, Any] = {}
        if is_return:
            more = {"recovered": not reason}
            more.update({"reason": reason} if reason else {"events": len(missed)})
        yield self._subscribed(peer, number, more)

    def _why_not(self, since: str) -> str:
        """Return why nothing can be recovered from a position; empty when it can."""
        number, _, life = since.partition("-")
        if not number.isdigit():
            return "bad_position"
        if life != f"{self._life:08x}":
            return "other_history"
        if int(number) > self._number:
            return "ahead"
        return "too_old" if int(number) < self._lost_number else self.unrecoverable

    @property
    def _has_history(self) -> bool:
        return bool(self._extended and self._history.maxlen)

    def _position(self) -> str:
        return f"{self._number}-{self._life:08x}"

    def _text(self, peer: _Peer, event: tuple[int, str, str]) -> str:
        number, stream, body = event
        at = f',"at":"{number}-{self._life:08x}"' if peer.resumes else ""
        return f'{{"{stream}":{body}{at}}}'

    def _subscribed(
        self, peer: _Peer, number: dict[str, Any] | None = None, more: dict[str, Any] | None = None
    ) -> str:
        at = {"at": self._position()} if peer.resumes else {}
        return _held("subscribed", peer, number, {**at, **(more or {})})

    def _extended_replies(
        self, peer: _Peer, request: dict[str, Any], number: dict[str, Any]
    ) -> Iterator[str]:
        event = request["event"]
        if event == "list":
            yield _held("list", peer, number)
        elif event == "time":
            yield _dump({"success": {"message": "time", "time": time.time()}, **number})
        elif event == "snapshot":
            books = [name for name in request["streams"] if name in self._books]
            for name in books:
                yield from (self._text(peer, one) for one in self._books[name])
            yield _dump({"success": {"message": "snapshot", "streams": books}, **number})
        else:
            peer.token = str(request.get("token"))
            self.tokens.append(peer.token)
            if self.accepts(peer.token):
                success = {"message": "authenticated", "uid": "ID1", "ttl": self.ttl_s}
                yield _dump({"success": success, **number})
            else:
                yield _dump({"error": "authentication failed: expired", **number})


def _held(
    message: str,
    peer: _Peer,
    number: dict[str, Any] | None = None,
    more: dict[str, Any] | None = None,
) -> str:
    success = {"message": message, "streams": list(peer.held), **(more or {})}
    return _dump({"success": success, **(number or {})})


def _dump(value: dict[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"))
