"""The threads of one connection: one dials and reads, one writes and watches the clock.

Both work under plain threads and, when the standard library is patched, as greenlets. The reader
never waits for a user, except under the policy ``block``, and is not the thread that a socket is
read by: ``websockets`` has its own, which answers pings meanwhile. Everything is decided by the
core, with the client's lock held; sockets and the token's function are called without it, and
listeners by a thread of their own (`Teller`).
"""

from __future__ import annotations

import inspect
import logging
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from rango_gevent.client.link import Link
from rango_gevent.client.model import CLOSED, IDLE, ConnectionLost
from rango_gevent.client.plan import connect_options
from rango_gevent.client.wire import End, end_of, expiry_s, reason
from rango_gevent.protocol import close

if TYPE_CHECKING:
    from rango_gevent.client.stream import StreamClient

log = logging.getLogger(__name__)

_JOIN_S = 1.0


class Teller:
    """Calls a client's listeners, one at a time and in order, so that none holds up a connection.

    Args:
        client: whose.
    """

    def __init__(self, client: StreamClient) -> None:
        self._client = client
        self._news = threading.Condition(client.lock)
        self._thread = threading.Thread(target=self._run, name="rango-client-teller", daemon=True)

    def start(self) -> None:
        """Start its thread."""
        self._thread.start()

    def wake(self) -> None:
        """Let it look for what is to be told; the lock is held."""
        self._news.notify_all()

    def is_current(self) -> bool:
        """Tell whether its thread asks."""
        return threading.current_thread() is self._thread

    def join(self, timeout_s: float) -> None:
        """Wait until everything is told, at most so long."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        core = self._client.core
        while True:
            with self._client.lock:
                while not core.news:
                    if core.has_ended:
                        return
                    self._news.wait()
                listener, args = core.news.popleft()
            try:
                listener(*args)
            except Exception:  # the user's own function
                log.exception("a listener of the client failed")


class Runner:
    """Runs a connection until the core closes it.

    Args:
        client: whose.
        link: what the core knows of it.
    """

    def __init__(self, client: StreamClient, link: Link) -> None:
        self._client = client
        self._link = link
        self._work = threading.Condition(client.lock)
        self._connection: ClientConnection | None = None
        self._dialling: ClientConnection | None = None
        name = f"rango-client-{link.number}"
        self._threads = [
            threading.Thread(target=self._read, name=name, daemon=True),
            threading.Thread(target=self._write, name=f"{name}-writer", daemon=True),
        ]

    def start(self) -> None:
        """Start both threads."""
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Let the threads look for what is to be done; the lock is held."""
        self._work.notify_all()

    def interrupt(self) -> None:
        """End an attempt to connect that waits for an answer."""
        dialling = self._dialling
        if dialling is not None:
            dialling.close_socket()

    def is_current(self) -> bool:
        """Tell whether one of its threads asks."""
        return threading.current_thread() in self._threads

    def join(self, timeout_s: float) -> None:
        """Wait until both threads have ended, at most so long."""
        deadline_s = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline_s - time.monotonic()))

    # -- reading ------------------------------------------------------------------------

    def _read(self) -> None:
        while self._await_turn():
            connection = self._open()
            if connection is not None:
                self._serve(connection)
        with self._client.lock:
            self._work.notify_all()
            self._client.ended(self._link)

    def _await_turn(self) -> bool:
        """Wait until it is time to dial; False when that never comes."""
        link = self._link
        with self._client.lock:
            while link.state == IDLE:
                wait_s = link.dial_at_s - time.monotonic()
                if wait_s <= 0:
                    return True
                self._work.wait(wait_s)
        return False

    def _open(self) -> ClientConnection | None:
        """Get a token, connect and tell the core how that went."""
        client, link = self._client, self._link
        with client.lock:
            url = client.core.dialled(link)
        client.tell()
        try:
            token = client.fetch_token()
        except Exception as error:  # the user's own function
            text = f"no token: {reason(error)}"
            self._lost(End(text, None, close.LATER, None, ConnectionLost(text)))
            return None
        try:
            connection = self._connect(url, token)
        except Exception as error:  # a peer that speaks something else gives errors of any kind
            self._lost(end_of(error, url, fresh_token=client.core.plan.renews))
            return None
        in_band = client.core.plan.in_band
        expires_s = expiry_s(token)
        expires_in_s = None if expires_s is None or in_band else expires_s - time.time()
        with client.lock:
            self._connection = connection
            client.core.opened(link, time.monotonic(), expires_in_s, token if in_band else "")
            self._work.notify_all()
        client.tell()
        return connection

    def _connect(self, url: str, token: str) -> ClientConnection:
        """Open a connection.

        Raises:
            Exception: whatever a foreign peer, the system or the library have to say.
        """
        client = self._client
        bearer = "" if client.core.plan.in_band else token
        options = connect_options(connect, client.limits, bearer, client.options)
        if "create_connection" in inspect.signature(connect).parameters:
            options.setdefault("create_connection", self._made)
        try:
            connection: ClientConnection = connect(url, **options)
        finally:
            self._dialling = None
        connection.socket.settimeout(client.limits.write_s)
        return connection

    def _made(self, *args: Any, **more: Any) -> ClientConnection:
        """Keep what is being opened, so that it can be interrupted."""
        self._dialling = ClientConnection(*args, **more)
        if self._link.is_leaving:
            self._dialling.close_socket()
        return self._dialling

    def _serve(self, connection: ClientConnection) -> None:
        """Read until the connection ends, and tell the core why."""
        end: End | None = None
        try:
            while True:
                text = connection.recv()
                self._take(text if isinstance(text, str) else text.decode("utf-8", "replace"))
        except ConnectionClosed as error:
            end = end_of(error, self._link.url, fresh_token=True)
        except Exception as error:  # a mistake of ours must not end the client in silence
            log.exception("the reader of a connection failed")
            text = f"internal error: {reason(error)}"
            end = End(text, None, close.LATER, None, ConnectionLost(text))
        finally:
            with self._client.lock:
                self._connection = None
            connection.close()
            connection.wait_closed(_JOIN_S)
        self._lost(end)

    def _take(self, text: str) -> None:
        client, link = self._client, self._link
        with client.lock:
            full = client.core.received(link, text, time.monotonic(), time.time())
            while full and not link.is_leaving:
                link.is_held = True
                client.room.wait()
                full = [one for one in full if not one[0].offer(one[1], one[2])]
            if link.is_held:
                link.is_held = False
                link.heard(time.monotonic())
        client.tell()

    def _lost(self, end: End) -> None:
        client = self._client
        with client.lock:
            client.core.lost(self._link, end, time.monotonic())
            client.wake_all()
        client.tell()

    # -- writing ------------------------------------------------------------------------

    def _write(self) -> None:
        while True:
            with self._client.lock:
                work = self._next_work()
            if work is None:
                return
            connection, texts, farewell, wants_token = work
            if wants_token:
                self._renew()
            with suppress(ConnectionClosed):  # the reader hears of it
                for text in texts:
                    connection.send(text)
                if farewell is not None:
                    connection.close(*farewell)

    def _next_work(
        self,
    ) -> tuple[ClientConnection, list[str], tuple[int, str] | None, bool] | None:
        """Wait until there is something to do; None when there never will be."""
        client, link = self._client, self._link
        while link.state != CLOSED:
            connection, wait_s = self._connection, None
            if connection is not None:
                now_s = time.monotonic()
                texts = client.core.due(link, now_s)
                wants_token = client.core.renewal.is_due(link, now_s)
                farewell, link.farewell = link.farewell, None
                if client.core.news:
                    client.tell()
                if texts or farewell or wants_token:
                    return connection, texts, farewell, wants_token
                next_s = client.core.next_at_s(link)
                wait_s = None if next_s == float("inf") else max(0.0, next_s - now_s)
            self._work.wait(wait_s)
        return None

    def _renew(self) -> None:
        """Get another token and send it; a failure is told, and tried again later."""
        client, link = self._client, self._link
        generation = link.generation
        try:
            token = client.fetch_token()
        except Exception as error:  # the user's own function
            log.warning("no token to renew with: %s", reason(error))
            return
        with client.lock:
            if link.generation == generation and link.is_open:
                client.core.renewal.send(link, token, time.monotonic())
