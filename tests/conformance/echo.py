"""An echo server on the gateway's own delivery layer, for RFC 6455 and RFC 7692 suites.

``python -m tests.conformance.echo --port 9001 [--compression]``

Handshake, frames, bounds, outbox and closing are the gateway's; the two methods below are
all that is different. The bounds are wider than any server's, because the suites send
messages of 16 MiB and of 65,536 fragments. There is no broker.
"""

# ruff: noqa: E402 - the patch comes before everything else, as in the gateway itself
from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import argparse

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from rango_gevent.auth.keys import load_public_key
from rango_gevent.delivery.connection import Connection
from rango_gevent.delivery.encoding import PLAIN
from rango_gevent.errors import TokenError
from rango_gevent.gateway import Gateway
from rango_gevent.protocol import frames
from rango_gevent.server.handler import GatewayHandler, GatewayServer
from rango_gevent.server.http import App
from rango_gevent.settings import Settings

_MESSAGE_BYTES = 17 << 20
_FRAGMENTS = 200_000
_OUTBOX_BYTES = 64 << 20


class EchoConnection(Connection):
    """A connection whose messages come back to it."""

    __slots__ = ()

    def subscribe(self, names: tuple[str, ...], refused: TokenError | None = None) -> None:
        """Send no first reply: the suites expect only what they sent."""

    def handle(self, message: bytes, is_text: bool) -> None:
        """Send a message back."""
        frame = frames.text(message)
        if self.encoding is not PLAIN:
            frame = frames.packed(frame, min_bytes=0, level=1)
        if not is_text:
            frame = bytes((frame[0] + 1,)) + frame[1:]  # opcode 2 where there was 1
        self.push(frame)


def make_gateway(compression: bool) -> Gateway:
    """Build a gateway that echoes; its consumer is never started."""
    settings = Settings(
        compression=compression,
        max_message_bytes=_MESSAGE_BYTES,
        max_fragments=_FRAGMENTS,
        outbox_bytes=_OUTBOX_BYTES,
        requests_per_s=1e6,
        requests_burst=10**9,
    )
    pem = Ed25519PrivateKey.generate().public_key()
    key = load_public_key(pem.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), "")
    gateway = Gateway(settings, [key])
    gateway.registry.make_connection = EchoConnection
    return gateway


def main() -> None:
    """Serve on the loopback until a signal ends the process."""
    parser = argparse.ArgumentParser(description="Echo messages through the delivery layer.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--compression", action="store_true", help="accept permessage-deflate")
    arguments = parser.parse_args()
    gateway = make_gateway(arguments.compression)
    gateway.spawn("heartbeat", gateway.heartbeat.run)
    address = ("127.0.0.1", arguments.port)
    server = GatewayServer(address, App(gateway), handler_class=GatewayHandler, log=None)
    server.serve_forever()


if __name__ == "__main__":
    main()
