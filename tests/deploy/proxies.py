"""conf/nginx.conf and conf/haproxy.cfg in the real programs, before any upstream."""

from __future__ import annotations

import contextlib
import csv
import io
import socket
from pathlib import Path
from typing import Iterator, Mapping, NamedTuple

from processes import conf, running
from support import HOST, free_port, wait_for

_MAIN = """
daemon off;
pid {directory}/nginx.pid;
error_log stderr notice;
events {{ worker_connections 512; }}
http {{
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    include {directory}/rango.conf;
}}
"""


@contextlib.contextmanager
def start_nginx(
    directory: Path,
    upstream: str,
    read_timeout: str = "75s",
    changes: Mapping[str, str] | None = None,
) -> Iterator[int]:
    """Run nginx with conf/nginx.conf, or what changes make of it, before an upstream.

    Gives its port.
    """
    port = free_port()
    text = conf(
        "nginx.conf",
        {
            "listen 80;": f"listen {HOST}:{port};",
            "server 127.0.0.1:8080": f"server {upstream}",
            "/var/log/nginx/rango.log": f"{directory}/rango.log",
            "proxy_read_timeout 75s;": f"proxy_read_timeout {read_timeout};",
            **(changes or {}),
        },
    )
    (directory / "rango.conf").write_text(text)
    (directory / "nginx.conf").write_text(_MAIN.format(directory=directory))
    command = ["/usr/sbin/nginx", "-e", "stderr", "-p", str(directory), "-c", "nginx.conf"]
    with running([*command[:-1], str(directory / "nginx.conf")], directory) as nginx:
        nginx.wait_for_port(port)
        yield port


class Haproxy(NamedTuple):
    """A running HAProxy: its port, its URL and its admin socket."""

    port: int
    url: str
    admin: Path

    def ask(self, command: str) -> str:
        """Return the answer of the admin socket to a command."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(30)
            sock.connect(str(self.admin))
            sock.sendall(command.encode() + b"\n")
            return b"".join(iter(lambda: sock.recv(65536), b"")).decode()

    def is_there(self) -> bool:
        """Tell whether the admin socket answers: its file is there before anybody listens."""
        try:
            return bool(self.ask("show info"))
        except OSError:
            return False

    def server(self, name: str) -> dict[str, str]:
        """Return the statistics of one gateway."""
        rows = csv.DictReader(io.StringIO(self.ask("show stat").lstrip("# ")))
        return next(row for row in rows if (row["pxname"], row["svname"]) == ("gateways", name))

    def status(self, name: str) -> str:
        """Return UP, DOWN or DRAIN; on the way from one to another a word more."""
        return self.server(name)["status"]

    def wait_for_status(self, name: str, status: str) -> None:
        """Wait until a gateway's status begins so."""
        wait_for(lambda: self.status(name).startswith(status), 60, f"gateway {name} {status}")


@contextlib.contextmanager
def start_haproxy(
    directory: Path, a: str, b: str, tunnel_timeout: str = "75s"
) -> Iterator[Haproxy]:
    """Run HAProxy with conf/haproxy.cfg before two addresses."""
    port, admin = free_port(), directory / "admin.sock"
    text = conf(
        "haproxy.cfg",
        {
            "maxconn 50000\n": "maxconn 1000\n",  # few files may be open on a test machine
            "bind :80\n": f"bind {HOST}:{port}\n",
            "/run/haproxy/admin.sock mode": f"{admin} mode",
            "127.0.0.1:8080": a,
            "127.0.0.1:8081": b,
            "timeout tunnel 75s": f"timeout tunnel {tunnel_timeout}",
        },
    )
    path = directory / "haproxy.cfg"
    path.write_text(text)
    with running(["/usr/sbin/haproxy", "-db", "-f", str(path)], directory) as process:
        process.wait_for_port(port)
        proxy = Haproxy(port, f"ws://{HOST}:{port}", admin)
        wait_for(proxy.is_there, 60, "the admin socket")
        yield proxy
