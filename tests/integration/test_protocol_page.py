"""The page of the wire for authors of clients: what it shows is what the gateway answers."""

from __future__ import annotations

import re
from pathlib import Path

from support import Server

_PAGE = (Path(__file__).resolve().parents[2] / "docs/PROTOCOL.md").read_text()


def test_the_exchanges_of_the_page_are_answered_as_they_stand(gateway: Server) -> None:
    """All on one connection of somebody anonymous, from the first line to the last."""
    lines = re.findall(r"^([<>]) (.*)$", _PAGE, re.MULTILINE)
    assert len(lines) > 20
    with gateway.connect("/public") as client:
        client.receive()
        for direction, text in lines:
            if direction == ">":
                client.send(text)
            else:
                assert client.receive() == text
