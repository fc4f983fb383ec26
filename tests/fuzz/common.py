"""What several targets need: input in portions, frames read again, checks of names."""

from __future__ import annotations

import json
from typing import Iterator

from rango_gevent.protocol import messages
from rango_gevent.protocol.messages import NameLimits


def portions(data: bytes, size: int) -> Iterator[bytes]:
    """Cut bytes into pieces of a size, as a socket might."""
    return (data[start : start + size] for start in range(0, len(data), size))


def payload(frame: bytes) -> str:
    """Return the text of a server's text frame, which must be exactly one."""
    start = {126: 4, 127: 10}.get(frame[1], 2)
    size = frame[1] if start == 2 else int.from_bytes(frame[2:start], "big")
    assert (frame[0], size) == (0x81, len(frame) - start)
    return frame[start:].decode()


def check_names(names: tuple[str, ...], limits: NameLimits) -> None:
    """Check that names keep the limits and are told back to the client as they are."""
    assert len(names) <= limits.max_names
    for name in names:
        assert len(name.encode()) <= limits.max_name_bytes
        assert name.isprintable()
        notice = {"success": {"message": f"cannot subscribe to {name}"}}
        assert json.loads(payload(messages.refused(name))) == notice
        assert json.loads(messages.event_head(name) + b"0}") == {name: 0}
    held = {"success": {"message": "subscribed", "streams": list(names)}}
    assert json.loads(payload(messages.subscribed(list(names)))) == held
