"""The programs of docs/AUTH.md for pages, and a connection that notes what becomes of it."""

from __future__ import annotations

import re
from typing import NamedTuple

from support import ROOT

TEXT = (ROOT / "docs" / "AUTH.md").read_text()
ADDRESS = "127.0.0.1:8080"


class Program(NamedTuple):
    """A program under its heading."""

    way: str
    code: str


PROGRAMS = [
    Program(section.partition("\n")[0].lower(), code)
    for section in TEXT.split("\n### ")[1:]
    for code in re.findall(r"^```js\n(.*?)^```$", section, re.M | re.S)
]
WAYS = [program.way for program in PROGRAMS]
# all ways open, and patience with a slow page on /private
SETTINGS = {
    "RANGO_AUTH_WAYS": "header,subprotocol,cookie,message,ranger,query",
    "RANGO_AUTH_COOKIE": "session",
    "RANGO_PRIVATE_GRACE_S": "30",
}
# for those who are to be sent away
IMPATIENT = {**SETTINGS, "RANGO_PRIVATE_GRACE_S": "1"}
# A connection that notes what it is told, and how it ends.
WATCH = """([url, protocols]) => new Promise((done) => {
  const heard = [];
  const ws = new WebSocket(url, protocols);
  ws.onmessage = ({ data }) => heard.push(data);
  ws.onclose = ({ code, reason }) => done({ code, reason, heard, protocol: ws.protocol });
})"""
