"""Messages: their bodies, and their bytes on the wire of each server's publishing side.

Pure. A message is encoded once, with a place for the time of sending, which the C tool fills
in (see ``native/pump.c``).

AMQP 0-9-1: a ``basic.publish`` method frame, a header frame with the size and no property, one
body frame (sections 2.3.5 and 4.2.6). NATS: ``PUB subject size``. HTTP: a ``POST`` to a channel.
"""

from __future__ import annotations

import json
import random
from struct import pack
from typing import Callable, Iterable

TIME = b"#" * 20  # the C tools write 20 characters here
STOP = b'{"end":"STOP"}'
_TURNS_OF_BOOKS = 50

Encode = Callable[[str, bytes], bytes]


def body(size: int) -> bytes:
    """Return a JSON object of so many bytes, at least of those that the time takes."""
    head = b'{"t":' + TIME + b',"p":"'
    return head + b"x" * max(0, size - len(head) - 2) + b'"}'


def deal_body(size: int) -> bytes:
    """Return a trade as Peatio publishes it, whose deal on `/viabtc` has about so many bytes."""
    head = b'{"trades":[{"tid":1,"taker_type":"buy","date":' + TIME + b',"price":"7000.'
    digits = max(2, min(110, size - 141))
    return b'%b%b","amount":"0.%b"}]}' % (head, b"1" * (digits // 2), b"1" * (digits // 2))


STOP_DEAL = b'{"trades":[{"tid":1,"date":1,"price":"1","amount":"1"}]}'
"""Its market tells that it is the last one."""


def book_body(size: int, seed: int) -> bytes:
    """Return an order book of about so many bytes: prices and amounts as publishers write them.

    Args:
        size: bytes.
        seed: another number, another book; the same, the same.
    """
    numbers = random.Random(seed)  # no secret: it must be the same book each time
    sides: dict[str, list[list[str]]] = {"asks": [], "bids": []}
    ticks = dict.fromkeys(sides, 6_000_000 + numbers.randrange(1000))
    text = b""
    while len(text) < size:
        text = json.dumps(sides, separators=(",", ":")).encode()
        for side, step in (("asks", 1), ("bids", -1)):
            ticks[side] += step * numbers.randint(1, 20)
            amount = numbers.expovariate(1)
            sides[side].append([f"{ticks[side] / 100:.2f}", f"{amount:.6f}"])
    return b'{"t":' + TIME + b"," + text[1:]


def amqp_publish(exchange: str, channel: int) -> Encode:
    """Return the encoder of messages to an exchange."""

    def encode(key: str, text: bytes) -> bytes:
        method = pack(">HHH", 60, 40, 0) + _short(exchange) + _short(key) + b"\0"
        header = pack(">HHQH", 60, 0, len(text), 0)
        return b"".join(_frame(kind, channel, part) for kind, part in
                        ((1, method), (2, header), (3, text)))  # fmt: skip

    return encode


def _short(text: str) -> bytes:
    raw = text.encode()
    return bytes((len(raw),)) + raw


def _frame(kind: int, channel: int, payload: bytes) -> bytes:
    return pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def nats_publish(subject: str, text: bytes) -> bytes:
    """Encode a message to a subject."""
    return f"PUB {subject} {len(text)}\r\n".encode() + text + b"\r\n"


def http_publish(channel: str, text: bytes) -> bytes:
    """Encode a message to a channel."""
    head = f"POST /pub/{channel} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(text)}\r\n\r\n"
    return head.encode() + text


def bodies(size: int, is_book: bool, is_deal: bool = False) -> list[bytes]:
    """Return the bodies that messages take in turn."""
    if is_deal:
        return [deal_body(size)]
    if not is_book:
        return [body(size)]
    return [book_body(size, seed) for seed in range(_TURNS_OF_BOOKS)]


def templates(
    keys: list[str],
    texts: list[bytes],
    stops: Iterable[str],
    encode: Encode,
    stop: bytes = STOP,
) -> bytes:
    """Return the file that ``pump`` reads: the messages in turn, then the last ones.

    Args:
        keys: where the messages go, in turn.
        texts: their bodies, in turn.
        stops: where a STOP goes at the end.
        encode: of the server's protocol.
        stop: body of the last ones.
    """
    turns = max(len(keys), len(texts))
    flow = [encode(keys[i % len(keys)], texts[i % len(texts)]) for i in range(turns)]
    return _list(flow) + _list([encode(key, stop) for key in stops])


def _list(encoded: list[bytes]) -> bytes:
    parts = [pack("=i", len(encoded))]
    for message in encoded:
        parts.append(pack("=ii", len(message), message.find(TIME)) + message)
    return b"".join(parts)
