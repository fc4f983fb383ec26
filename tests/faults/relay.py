"""A TCP relay that misbehaves on command: what stands between a gateway and its broker here.

`Relay.cut`         ends the connections in order (FIN)
`Relay.reset`       ends them with a reset (RST)
`Relay.stall`       passes nothing on but keeps everything open, until `Relay.resume`
`Relay.black_hole`  swallows what comes, on old connections and new ones; nothing is ended
`Relay.refuse`      closes the port: new connections are refused
`Relay.heal`        new connections are passed on again; what was swallowed stays so
`Relay.delay`       holds everything back for a while
`Relay.break_after` ends a connection after so many more bytes to the client
`Relay.insert`      sends the clients bytes that the server did not

One thread owns all sockets, so that closing one takes effect at once: a socket that another
thread reads from is not closed, nor is its reset sent, before that read returns. The methods
may be called from any thread; each returns when what it does is done.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import struct
import threading
import time
from collections import deque
from types import TracebackType
from typing import Callable

HOST = "127.0.0.1"
_READ_BYTES = 64 * 1024
_MOST_WAITING = 256 * 1024
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 seconds: close() sends RST
_LATER = {errno.EAGAIN, errno.EWOULDBLOCK}


class _Way:
    """One direction of a connection: what was read and waits until it is due."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source = source
        self.sink = sink
        self.waiting: deque[tuple[float, bytes]] = deque()
        self.size = 0
        self.ended = False

    def put(self, due: float, data: bytes) -> None:
        """Add what was read."""
        self.waiting.append((due, data))
        self.size += len(data)

    def is_due(self, now: float) -> bool:
        """Tell whether something is to be sent now."""
        return bool(self.waiting) and self.waiting[0][0] <= now

    def send(self) -> int:
        """Send the oldest portion, as much of it as goes; return the number of bytes."""
        due, data = self.waiting.popleft()
        try:
            sent = self.sink.send(data)
        except OSError as error:
            if error.errno not in _LATER:
                raise
            sent = 0
        self.size -= sent
        if sent < len(data):
            self.waiting.appendleft((due, data[sent:]))
        return sent


class _Link:
    """A client's connection and the relay's own one to the server."""

    def __init__(self, client: socket.socket, server: socket.socket | None) -> None:
        self.sockets = [client] if server is None else [client, server]
        self.swallows = server is None
        self.up = _Way(client, server or client)
        self.down = _Way(server or client, client)
        self.ways = [self.up] if server is None else [self.up, self.down]

    def is_over(self) -> bool:
        """Tell whether one end has ended and all that it sent is passed on."""
        return any(way.ended and not way.waiting for way in self.ways)

    def close(self, reset: bool) -> None:
        """Close both ends."""
        for sock in self.sockets:
            if reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            sock.close()


class Relay:
    """Listens on a port of its own and passes everything on to another, until told otherwise.

    Args:
        target_port: port of the real server.

    Attributes:
        port: port to connect to.
        accepted: connections accepted so far.
        broken: connections that `break_after` has ended.
    """

    def __init__(self, target_port: int) -> None:
        self._target = (HOST, target_port)
        self._listener: socket.socket | None = _listen(0)
        self.port: int = self._listener.getsockname()[1]
        self.accepted = 0
        self.broken = 0
        self._links: list[_Link] = []
        self._stalls = False
        self._swallows = False
        self._delay_s = 0.0
        self._left: int | None = None
        self._break_resets = True
        self._orders: deque[tuple[Callable[[], None], threading.Event]] = deque()
        self._wake_in, self._wake_out = socket.socketpair()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._thread.start()

    def __enter__(self) -> Relay:
        """Do nothing: it runs already."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close everything."""
        self.close()

    # -- orders -------------------------------------------------------------------------

    def cut(self) -> None:
        """End all connections in order."""
        self._order(lambda: self._close_links(reset=False))

    def reset(self) -> None:
        """End all connections with a reset."""
        self._order(lambda: self._close_links(reset=True))

    def stall(self) -> None:
        """Pass nothing on; keep everything open."""
        self._order(lambda: self._set_stall(True))

    def resume(self) -> None:
        """Pass on again, also what was held back."""
        self._order(lambda: self._set_stall(False))

    def black_hole(self) -> None:
        """Swallow everything, on the connections that are there and on new ones."""
        self._order(self._swallow)

    def refuse(self) -> None:
        """Refuse new connections; those that are there go on."""
        self._order(self._close_listener)

    def heal(self) -> None:
        """Pass new connections on; those that were swallowed stay so until somebody ends them."""
        self._order(self._heal)

    def delay(self, delay_s: float) -> None:
        """Hold everything back for some seconds, in both directions; 0 for no delay."""
        self._order(lambda: self._set_delay(delay_s))

    def break_after(self, count: int, *, reset: bool = True) -> None:
        """End the connection that passes so many more bytes to a client, right behind them."""
        self._order(lambda: self._set_break(count, reset))

    def insert(self, data: bytes) -> None:
        """Send bytes to all clients as if they were the server's."""
        self._order(lambda: self._insert(data))

    def close(self) -> None:
        """Close everything and end the thread."""
        if not self._ended:
            self._order(self._end)
            self._thread.join(30)

    def _order(self, order: Callable[[], None]) -> None:
        done = threading.Event()
        self._orders.append((order, done))
        self._wake_in.send(b"x")
        if not done.wait(30):
            raise RuntimeError("the relay does not answer")

    # -- what the thread does with them -------------------------------------------------

    def _close_links(self, *, reset: bool) -> None:
        for link in self._links:
            link.close(reset)
        self._links.clear()

    def _set_stall(self, stalls: bool) -> None:
        self._stalls = stalls

    def _set_delay(self, delay_s: float) -> None:
        self._delay_s = delay_s

    def _set_break(self, count: int, reset: bool) -> None:
        self._left, self._break_resets = count, reset

    def _insert(self, data: bytes) -> None:
        for link in self._links:
            link.down.put(time.monotonic(), data)

    def _swallow(self) -> None:
        self._swallows = True
        for link in self._links:
            link.swallows = True

    def _close_listener(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _heal(self) -> None:
        self._swallows = False
        if self._listener is None:
            self._listener = _listen(self.port)

    def _end(self) -> None:
        self._ended = True
        self._close_listener()
        self._close_links(reset=True)

    # -- the thread ---------------------------------------------------------------------

    def _run(self) -> None:
        while not self._ended:
            self._turn()
        self._wake_in.close()
        self._wake_out.close()

    def _turn(self) -> None:
        """Wait until something can be done, and do it."""
        now = time.monotonic()
        ways = [way for link in self._links for way in link.ways]
        sources = [way.source for way in ways if not way.ended and way.size < _MOST_WAITING]
        sinks = [] if self._stalls else [way.sink for way in ways if way.is_due(now)]
        others = [self._wake_out] if self._listener is None else [self._wake_out, self._listener]
        readable, writable, _ = select.select([*sources, *others], sinks, [], self._rest(ways, now))
        if self._wake_out in readable:
            self._obey()
        if self._listener is not None and self._listener in readable:
            self._accept()
        for link in list(self._links):
            self._serve(link, readable, writable)

    def _rest(self, ways: list[_Way], now: float) -> float | None:
        """Return the seconds until the next portion is due, None when there is none."""
        dues = [way.waiting[0][0] for way in ways if way.waiting and not way.is_due(now)]
        return min(dues) - now if dues else None

    def _obey(self) -> None:
        self._wake_out.recv(_READ_BYTES)
        while self._orders:
            order, done = self._orders.popleft()
            order()
            done.set()

    def _accept(self) -> None:
        assert self._listener is not None
        client, _ = self._listener.accept()
        self.accepted += 1
        server = None
        if not self._swallows:
            try:
                server = socket.create_connection(self._target, 10)
            except OSError:  # as if the client had asked the target itself
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                client.close()
                return
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            server.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.setblocking(False)
        self._links.append(_Link(client, server))

    def _serve(
        self, link: _Link, readable: list[socket.socket], writable: list[socket.socket]
    ) -> None:
        """Read and send for one connection; one that fails or ends on a side ends on both."""
        try:
            for way in link.ways:
                if way.source in readable and not way.ended:
                    self._read(link, way)
                if way.sink in writable and way.is_due(time.monotonic()):
                    self._send(link, way)
            if not (link.swallows or self._stalls) and link.is_over():
                self._remove(link, reset=False)
        except OSError:
            self._remove(link, reset=True)

    def _read(self, link: _Link, way: _Way) -> None:
        try:
            data = way.source.recv(_READ_BYTES)
        except ConnectionResetError:
            if not link.swallows:
                raise
            data = b""
        if not data:
            way.ended = True
        elif not link.swallows:
            way.put(time.monotonic() + self._delay_s, data)

    def _send(self, link: _Link, way: _Way) -> None:
        if way is link.down and self._left is not None:
            due, data = way.waiting.popleft()
            if len(data) >= self._left:
                self._break(link, data[: self._left])
                return
            self._left -= len(data)
            way.waiting.appendleft((due, data))
        way.send()

    def _break(self, link: _Link, last: bytes) -> None:
        """Pass the last bytes on, and end right behind them."""
        client = link.sockets[0]
        client.setblocking(True)
        client.sendall(last)
        self._left = None
        self.broken += 1
        self._remove(link, reset=self._break_resets)

    def _remove(self, link: _Link, reset: bool) -> None:
        with contextlib.suppress(ValueError):  # ended and broken in one turn
            self._links.remove(link)
            link.close(reset)


def _listen(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((HOST, port))
    listener.listen(128)
    return listener
