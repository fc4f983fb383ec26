"""A resilient client: subscribes to streams, iterates their events, comes back when it is cut.

    with StreamClient("ws://127.0.0.1:8080", ["eurusd.trades"]) as client:
        for name, body in client:
            ...

Data comes from one WebSocket connection at a time, by the synchronous client of
``websockets``; it works with threads and, when the standard library is patched, with
greenlets. Rules:

- An event's body is the JSON text as the publisher wrote it; nothing here parses it.
- A lost connection is made again after a jittered wait, unless the close code or the HTTP
  status says that this cannot help. The first connection must work.
- Events that were published between two connections are missed; a book's stream begins
  with its snapshot again.
- Every wait is bounded. A silent server is pinged, and given up when it stays silent.
"""

from __future__ import annotations

import inspect
import random
import threading
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Callable, NamedTuple

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from rango_gevent.backoff import Backoff
from rango_gevent.client.wire import (
    ConnectionLost,
    Event,
    checked_token,
    endpoint,
    held_names,
    lost,
    reason,
    reconnect_when,
    refused,
    requests,
    split_event,
)
from rango_gevent.errors import Refused
from rango_gevent.protocol import close, messages

REPLY = "reply"
ERROR = "error"
STATE = "state"

_EARLY_S = 0.005  # by which a wait may end before its time


class Notice(NamedTuple):
    """What a client hears besides events.

    Attributes:
        kind: `REPLY` or `ERROR` from the server, `STATE` about the connection.
        text: a reply as it came, or a line for people. It may hold anything: escape it
            before a terminal sees it.
    """

    kind: str
    text: str


class Limits(NamedTuple):
    """Bounds of a client.

    Attributes:
        open_s: seconds to connect.
        close_s: seconds for the closing handshake.
        idle_s: seconds of silence after which the server is pinged, and again until it is
            given up.
        message_bytes: size of one message.
        first_wait_s: longest wait before the first attempt to come back.
        max_wait_s: longest wait before any attempt.
        steady_s: a connection that lived for so long was a good one, and waits begin anew.
    """

    open_s: float = 10.0
    close_s: float = 2.0
    idle_s: float = 30.0
    message_bytes: int = 32 << 20
    first_wait_s: float = 1.0
    max_wait_s: float = 30.0
    steady_s: float = 10.0


class StreamClient:
    """A client of one gateway.

    Args:
        url: of the gateway, ``ws://host:port`` or with a path before ``/public``.
        streams: names to subscribe to.
        token: JWT; with one the client connects to ``/private``.
        reconnect: come back when the connection is lost.
        on_notice: called with each `Notice`.
        limits: bounds.
        jitter: spreads waits; a generator of random numbers.

    Raises:
        ConfigError: the URL or the token cannot be one.
    """

    def __init__(
        self,
        url: str,
        streams: Iterable[str] = (),
        *,
        token: str = "",
        reconnect: bool = True,
        on_notice: Callable[[Notice], object] = lambda notice: None,
        limits: Limits = Limits(),  # noqa: B008 - a tuple: nobody can change it
        jitter: random.Random | None = None,
    ) -> None:
        self._token = checked_token(token)
        self.url = endpoint(url, private=bool(self._token))
        self._names = dict.fromkeys(streams)  # a set that keeps the order
        self._reconnect = reconnect
        self._on_notice = on_notice
        self._limits = limits
        self._backoff = Backoff(
            limits.first_wait_s,
            limits.max_wait_s,
            steady_s=limits.steady_s,
            least=0.1,
            jitter=jitter or random.Random(),
        )
        self._connection: ClientConnection | None = None
        self._ended = threading.Event()
        self._unanswered = 0
        self._connects = 0

    def __enter__(self) -> StreamClient:
        """Do nothing: iterating connects."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    def __iter__(self) -> Iterator[Event]:
        """Connect and give events for ever, as `events` without a timeout."""
        return self.events()

    def events(self, timeout_s: float | None = None) -> Iterator[Event]:
        """Connect and give events until `close`.

        Args:
            timeout_s: seconds for all of it; None: no bound.

        Raises:
            TimeoutError: the time is over.
            Refused: the server answered with another status than 101.
            ConnectionLost: the connection is lost and will not be made again.
        """
        deadline = Deadline(timeout_s)
        while not self._ended.is_set():
            try:
                yield from self._session(deadline)
            except (Refused, ConnectionLost) as error:
                if self._ended.is_set():
                    return
                if not self._may_return(error):
                    raise
                self._wait(error, deadline)

    def subscribe(self, *names: str) -> None:
        """Subscribe now, and again after each reconnect."""
        self._names.update(dict.fromkeys(names))
        self._request(messages.SUBSCRIBE, names)

    def unsubscribe(self, *names: str) -> None:
        """Unsubscribe now and for later."""
        for name in names:
            self._names.pop(name, None)
        self._request(messages.UNSUBSCRIBE, names)

    def close(self) -> None:
        """Close the connection and end the iteration."""
        self._ended.set()
        if self._connection is not None:
            self._connection.close()

    # -- one connection -----------------------------------------------------------------

    def _session(self, deadline: Deadline) -> Iterator[Event]:
        """Connect, subscribe, give events; always ends by an exception or `close`."""
        connection = self._connection = self._open(deadline)
        opened_s = time.monotonic()  # not before: a path that swallows everything takes long too
        self._connects += 1
        self._unanswered = 1  # the first frame is a reply that nobody asked for
        try:
            if self._connects > 1:
                self._tell(STATE, "connected again")
            self._request(messages.SUBSCRIBE, self._names)
            while not self._ended.is_set():
                message = self._receive(connection, deadline)
                event = split_event(message)
                if event is None or self._is_reply(event):
                    self._take_reply(message, event)
                else:
                    yield event
        except ConnectionClosed as error:
            raise lost(error) from None
        finally:
            self._backoff.lived(time.monotonic() - opened_s)
            self._connection = None
            connection.close()

    def _open(self, deadline: Deadline) -> ClientConnection:
        try:
            connection: ClientConnection = connect(self.url, **self._options(deadline))
        except InvalidStatus as error:
            raise refused(error) from None
        except Exception as error:  # a peer that speaks something else gives errors of any kind
            deadline.check()
            raise ConnectionLost(f"cannot connect to {self.url}: {reason(error)}") from None
        return connection

    def _options(self, deadline: Deadline) -> dict[str, Any]:
        wanted = {
            "additional_headers": {"Authorization": f"Bearer {self._token}"} if self._token else {},
            "user_agent_header": "rango_gevent",
            "compression": None,
            "open_timeout": deadline.at_most(self._limits.open_s),
            "close_timeout": self._limits.close_s,
            "max_size": self._limits.message_bytes,
            "proxy": None,
            "ping_interval": None,  # not in all versions: `_receive` pings
            "legacy": True,  # connect, now; not in all versions either
        }
        known = inspect.signature(connect).parameters
        return {name: value for name, value in wanted.items() if name in known}

    def _receive(self, connection: ClientConnection, deadline: Deadline) -> str:
        """Return the next message, and ping while there is none.

        Raises:
            TimeoutError: the deadline is over.
            ConnectionLost: the server is silent.
            ConnectionClosed: the connection ended.
        """
        pong: threading.Event | None = None
        while True:
            wait_s = deadline.at_most(self._limits.idle_s)
            try:
                message = connection.recv(timeout=wait_s)
            except TimeoutError:
                if wait_s < self._limits.idle_s:
                    raise
                if pong is not None and not pong.is_set():
                    raise ConnectionLost("the server is silent") from None
                pong = connection.ping()
            else:
                return message if isinstance(message, str) else message.decode("utf-8", "replace")

    def _request(self, action: str, names: Iterable[str]) -> None:
        """Send names in messages that every gateway takes, if there is a connection."""
        connection = self._connection
        if connection is None:
            return
        for request in requests(action, names):
            self._unanswered += 1
            try:
                connection.send(request)
            except ConnectionClosed:
                return  # whoever iterates hears of it

    # -- replies ------------------------------------------------------------------------

    def _is_reply(self, event: Event) -> bool:
        """Tell a reply from an event: a private stream may be called ``error`` too."""
        return event.name in ("success", "error") and event.name not in self._names

    def _take_reply(self, text: str, event: Event | None) -> None:
        is_error = event is not None and event.name == "error"
        self._tell(ERROR if is_error else REPLY, text)
        held = held_names(event) if event else None
        if is_error or held is not None:
            self._unanswered -= 1
        if held is not None and self._unanswered == 0:
            missing = [name for name in self._names if name not in held]
            if missing:
                why = "the token does not allow it" if self._token else "that needs a token"
                self._tell(STATE, f"not subscribed to {', '.join(missing)}: {why}")

    def _tell(self, kind: str, text: str) -> None:
        self._on_notice(Notice(kind, text))

    # -- coming back --------------------------------------------------------------------

    def _may_return(self, error: Refused | ConnectionLost) -> bool:
        if not self._reconnect or not self._connects:
            return False
        if isinstance(error, Refused):
            return error.status >= 500  # a server that restarts; the others would say it again
        return reconnect_when(error.code) != close.NEVER

    def _wait(self, error: Refused | ConnectionLost, deadline: Deadline) -> None:
        wait_s = self._backoff.next()
        if isinstance(error, ConnectionLost) and reconnect_when(error.code) == close.NOW:
            wait_s /= 10  # a farewell to this client alone: there is no crowd to avoid
        self._tell(STATE, f"{error}; connecting again in {wait_s:.1f} s")
        self._ended.wait(deadline.at_most(wait_s))
        deadline.check()


class Deadline:
    """A moment by which all is over.

    Args:
        timeout_s: seconds from now; None: never.
    """

    def __init__(self, timeout_s: float | None) -> None:
        self._at = None if timeout_s is None else time.monotonic() + timeout_s

    def at_most(self, seconds: float) -> float:
        """Return a wait that does not go past it."""
        if self._at is None:
            return seconds
        return max(0.0, min(seconds, self._at - time.monotonic()))

    def check(self) -> None:
        """Raise TimeoutError when it is over."""
        if self._at is not None and time.monotonic() >= self._at - _EARLY_S:
            raise TimeoutError("the time is over")
