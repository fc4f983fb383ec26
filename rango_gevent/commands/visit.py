"""One WebSocket connection taken step by step, each step with a deadline: for the doctor.

The client that heals would hide what is to be seen here: the response to the handshake, pings,
silence and how it ends.
"""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections import deque
from types import TracebackType
from typing import Any, Mapping

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.typing import Origin
from websockets.uri import parse_uri

_READ_BYTES = 1 << 16
_MESSAGE_BYTES = 32 << 20


class Ended(Exception):
    """The connection is over; the text says how.

    Args:
        text: how.
        code: close code, None when there was none.
    """

    def __init__(self, text: str, code: int | None = None) -> None:
        super().__init__(text)
        self.code = code


class NotUpgraded(Exception):
    """The handshake was answered otherwise than by 101.

    Args:
        text: what came instead.
        response: the answer; None when it was none that could be read.
    """

    def __init__(self, text: str, response: Response | None) -> None:
        super().__init__(text)
        self.status = response.status_code if response is not None else 0
        self.headers = response.headers if response is not None else {}
        self.body = (response.body or b"").decode("utf-8", "replace") if response else ""


class Visit:
    """A connection.

    Args:
        url: whole URL, ``ws://`` or ``wss://``.
        headers: more of them, for the handshake.
        origin: the page that connects; empty for none.
        timeout_s: limit for connecting, and for the handshake.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        origin: str = "",
        timeout_s: float = 10.0,
    ) -> None:
        self._uri = parse_uri(url)
        self._headers = dict(headers or {})
        self._timeout_s = timeout_s
        self._protocol = ClientProtocol(
            self._uri, origin=Origin(origin) if origin else None, max_size=_MESSAGE_BYTES
        )
        self._frames: deque[Frame] = deque()
        self._sock: socket.socket | None = None

    def __enter__(self) -> Visit:
        """Connect and shake hands.

        Raises:
            NotUpgraded: the answer is no 101.
            OSError: there is no connection, or no TLS, or no answer in time.
        """
        try:
            self._open()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Say goodbye, if that goes at once, and close."""
        try:
            if self._protocol.state is State.OPEN:
                self._protocol.send_close(1000)
                self._flush()
        except OSError:
            pass
        self._close()

    def _close(self) -> None:
        if self._sock is not None:
            self._sock.close()

    def _open(self) -> None:
        uri, deadline_s = self._uri, time.monotonic() + self._timeout_s
        self._sock = socket.create_connection((uri.host, uri.port), self._timeout_s)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if uri.secure:
            context = ssl.create_default_context()
            self._sock = context.wrap_socket(self._sock, server_hostname=uri.host)
        request = self._protocol.connect()
        for name, value in self._headers.items():
            request.headers[name] = value
        self._protocol.send_request(request)
        while self._protocol.state is State.CONNECTING and not self._protocol.handshake_exc:
            if not self._exchange(deadline_s):
                raise socket.timeout("no answer to the handshake in time")
        error = self._protocol.handshake_exc
        if error is not None:
            response = getattr(error, "response", None)
            text = str(error) if isinstance(error, InvalidHandshake) else "no HTTP answer"
            raise NotUpgraded(text, response)

    def _flush(self) -> None:
        assert self._sock is not None
        for data in self._protocol.data_to_send():
            if data:
                self._sock.sendall(data)

    def _exchange(self, deadline_s: float) -> bool:
        """Send what is due and read once; False: nothing came in time.

        Raises:
            Ended: the connection is over.
        """
        assert self._sock is not None
        self._flush()
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            return False
        self._sock.settimeout(left_s)
        try:
            data = self._sock.recv(_READ_BYTES)
        except socket.timeout:
            return False
        except OSError as error:
            raise Ended(error.strerror or str(error)) from None
        if data:
            self._protocol.receive_data(data)
        else:
            self._protocol.receive_eof()
        if self._protocol.state is not State.CONNECTING:
            self._frames += [
                one for one in self._protocol.events_received() if isinstance(one, Frame)
            ]
        if not data and self._protocol.handshake_exc is None:
            raise Ended("it was cut, without a close frame")
        return True

    def frame(self, timeout_s: float) -> Frame | None:
        """Return the next frame, None when none came in time; pings are answered.

        Raises:
            Ended: the connection is over.
        """
        deadline_s = time.monotonic() + timeout_s
        while not self._frames:
            if not self._exchange(deadline_s):
                return None
        frame = self._frames.popleft()
        self._flush()
        if frame.opcode is Opcode.CLOSE:
            code, reason = self._protocol.close_code, self._protocol.close_reason
            raise Ended(f"closed with {code} {reason or ''}".rstrip(), code)
        return frame

    def ping(self, timeout_s: float) -> float | None:
        """Return the seconds until a ping was answered, None when it was not.

        Raises:
            Ended: the connection is over.
        """
        started_s = time.monotonic()
        self._protocol.send_ping(b"doctor")
        left_s = timeout_s
        while left_s > 0:
            frame = self.frame(left_s)
            if frame is not None and frame.opcode is Opcode.PONG:
                return time.monotonic() - started_s
            left_s = started_s + timeout_s - time.monotonic()
        return None

    def ask(self, request: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """Send a request and return the reply with its id; an empty object when none came.

        Raises:
            Ended: the connection is over.
        """
        self._protocol.send_text(json.dumps({**request, "id": "doctor"}).encode())
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            frame = self.frame(deadline_s - time.monotonic())
            value = _object(frame)
            if value.get("id") == "doctor" or "error" in value:
                return value
        return {}


def _object(frame: Frame | None) -> dict[str, Any]:
    if frame is None or frame.opcode is not Opcode.TEXT:
        return {}
    try:
        value = json.loads(bytes(frame.data))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
