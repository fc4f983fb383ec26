"""The tasks of one connection of the asyncio client: one dials and reads, one writes."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from rango_gevent.client.aiohandles import Signal
from rango_gevent.client.link import Link
from rango_gevent.client.model import CLOSED, IDLE, ConnectionLost
from rango_gevent.client.plan import connect_options
from rango_gevent.client.wire import End, end_of, expiry_s, reason
from rango_gevent.protocol import close

if TYPE_CHECKING:
    from rango_gevent.client.aio import StreamClient

log = logging.getLogger(__name__)


class Runner:
    """The tasks of one connection: one dials and reads, one writes and watches the clock."""

    def __init__(self, client: StreamClient, link: Link) -> None:
        self.work = Signal()
        self._client = client
        self._link = link
        self._connection: ClientConnection | None = None
        self._reader = asyncio.ensure_future(self._read())
        self._writer = asyncio.ensure_future(self._write())

    def wake(self) -> None:
        """Let the tasks look for what is to be done."""
        self.work.notify_all()

    async def end(self, timeout_s: float) -> None:
        """Wait for both tasks, and cancel them when they take too long."""
        tasks = {self._reader, self._writer}
        if self._connection is None:  # an attempt to connect has nobody to say goodbye to
            self._reader.cancel()
        _, late = await asyncio.wait(tasks, timeout=timeout_s + 1.0)
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- reading ------------------------------------------------------------------------

    async def _read(self) -> None:
        try:
            while await self._await_turn():
                connection = await self._open()
                if connection is not None:
                    await self._serve(connection)
        except asyncio.CancelledError:
            self._lost(End("the client was closed"))
            raise
        finally:
            self.work.notify_all()
            self._client.ended(self._link)

    async def _await_turn(self) -> bool:
        """Wait until it is time to dial; False when that never comes."""
        link = self._link
        while link.state == IDLE:
            wait_s = link.dial_at_s - time.monotonic()
            if wait_s <= 0:
                return True
            await self.work.wait(wait_s)
        return False

    async def _open(self) -> ClientConnection | None:
        """Get a token, connect and tell the core how that went."""
        client, link = self._client, self._link
        url = client.core.dialled(link)
        client.tell()
        try:
            token = await client.fetch_token()
        except Exception as error:  # the user's own function
            text = f"no token: {reason(error)}"
            self._lost(End(text, None, close.LATER, None, ConnectionLost(text)))
            return None
        in_band = client.core.plan.in_band
        options = connect_options(connect, client.limits, "" if in_band else token, client.options)
        try:
            connection = self._connection = await connect(url, **options)
        except Exception as error:  # a peer that speaks something else gives errors of any kind
            self._lost(end_of(error, url, fresh_token=client.core.plan.renews))
            return None
        expires_s = expiry_s(token)
        expires_in_s = None if expires_s is None or in_band else expires_s - time.time()
        client.core.opened(link, time.monotonic(), expires_in_s, token if in_band else "")
        self.work.notify_all()
        client.tell()
        return connection

    async def _serve(self, connection: ClientConnection) -> None:
        """Read until the connection ends, and tell the core why."""
        try:
            while True:
                text = await connection.recv()
                await self._take(text if isinstance(text, str) else text.decode("utf-8", "replace"))
        except asyncio.CancelledError:
            connection.transport.abort()
            raise
        except ConnectionClosed as error:
            end = end_of(error, self._link.url, fresh_token=True)
        except Exception as error:  # a mistake of ours must not end the client in silence
            log.exception("the reader of a connection failed")
            text = f"internal error: {reason(error)}"
            end = End(text, None, close.LATER, None, ConnectionLost(text))
        finally:
            self._connection = None
        await connection.close()
        self._lost(end)

    async def _take(self, text: str) -> None:
        client, link = self._client, self._link
        full = client.core.received(link, text, time.monotonic(), time.time())
        client.tell()
        while full and not link.is_leaving:
            link.is_held = True
            await client.room.wait(None)
            full = [one for one in full if not one[0].offer(one[1], one[2])]
        if link.is_held:
            link.is_held = False
            link.heard(time.monotonic())

    def _lost(self, end: End) -> None:
        self._client.core.lost(self._link, end, time.monotonic())
        self._client.wake_all()
        self._client.tell()

    # -- writing ------------------------------------------------------------------------

    async def _write(self) -> None:
        client, link = self._client, self._link
        while link.state != CLOSED:
            connection, wait_s = self._connection, None
            if connection is not None:
                now_s = time.monotonic()
                texts = client.core.due(link, now_s)
                farewell, link.farewell = link.farewell, None
                client.tell()
                if client.core.renewal.is_due(link, now_s):
                    await self._renew()
                elif texts or farewell:
                    await self._send(connection, texts, farewell)
                else:
                    next_s = client.core.next_at_s(link)
                    wait_s = None if next_s == float("inf") else max(0.0, next_s - now_s)
                    await self.work.wait(wait_s)
            else:
                await self.work.wait(None)

    async def _send(
        self, connection: ClientConnection, texts: list[str], farewell: tuple[int, str] | None
    ) -> None:
        with suppress(ConnectionClosed):  # the reader hears of it
            try:
                for text in texts:
                    await asyncio.wait_for(connection.send(text), self._client.limits.write_s)
            except asyncio.TimeoutError:  # no built-in TimeoutError before Python 3.11
                connection.transport.abort()
            if farewell is not None:
                await connection.close(*farewell)

    async def _renew(self) -> None:
        """Get another token and send it; a failure is told, and tried again later."""
        client, link = self._client, self._link
        generation = link.generation
        try:
            token = await client.fetch_token()
        except Exception as error:  # the user's own function
            log.warning("no token to renew with: %s", reason(error))
            return
        if link.generation == generation and link.is_open:
            client.core.renewal.send(link, token, time.monotonic())
