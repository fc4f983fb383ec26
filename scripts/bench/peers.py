"""What the gateway is compared with: servers that Debian ships, and the floor of plain sends.

Peers are fed directly, by the protocol that they speak.
"""

from __future__ import annotations

import contextlib
import getpass
import grp
import os
import socket
from typing import Iterator, Mapping

from rabbitmq_node import free_port

from bench import machine, messages
from bench.scenarios import (
    CONNECT,
    FLOOR,
    FLOW,
    IDLE,
    NOBODY,
    OWN,
    SHARED,
    Scenario,
)
from bench.servers import (
    HOST,
    START_S,
    Dial,
    Server,
    Started,
    Work,
    find,
    listens,
    pump_on,
    said,
)
from bench.tools import BenchError, Tool

_BROKER_TIMEOUT_S = 10.0
_QUIET_S = 0.5  # without an answer: there are no more
_FLOOR_DELIVERIES_PER_S = 160_000  # more than this a loop of sends does not reach
_NCHAN_MODULE = "/usr/lib/nginx/modules/ngx_nchan_module.so"


class Nats(Server):
    """NATS with its WebSocket listener, fed by its own protocol.

    Args:
        environ: what it inherits.
    """

    name = "nats"
    needs = "nats-server is not installed: apt-get install nats-server"

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._port, self._feed_port = free_port(), free_port()
        config = (
            f"listen: {HOST}:{self._feed_port}\n"
            f"websocket {{ listen: {HOST}:{self._port}, no_tls: true }}\n"
        )
        command = [find("nats-server"), "-c", "{directory}/nats.conf"]
        self._own = Started(command, environ, {"nats.conf": config})
        try:
            self._own.wait_until(lambda: listens(self._port) and listens(self._feed_port))
        except BaseException:
            self.close()
            raise

    @staticmethod
    def missing() -> bool:
        """Tell whether it is not installed."""
        return not find("nats-server")

    @staticmethod
    def version() -> str:
        """Return its version."""
        return said([find("nats-server"), "--version"])

    @property
    def pids(self) -> list[int]:
        """Return its process."""
        return [self._own.process.pid]

    def dial(self, scenario: Scenario) -> Dial:
        """Return its path and the commands that subscribe."""
        names = enumerate(scenario.topics().held, 1)
        hello = 'CONNECT {"verbose":false,"pedantic":false}\r\n' + "".join(
            f"SUB {name} {number}\r\n" for number, name in names
        )
        return Dial(self._port, "/", hello, "nats")

    @contextlib.contextmanager
    def flow(self, work: Work) -> Iterator[Tool]:
        """Publish by its own protocol."""
        with socket.create_connection((HOST, self._feed_port), _BROKER_TIMEOUT_S) as sock:
            sock.recv(4096)  # INFO
            sock.sendall(b'CONNECT {"verbose":false,"pedantic":false}\r\nPING\r\n')
            if not sock.recv(64).startswith(b"PONG"):
                raise BenchError("nats-server refuses the publisher")
            with pump_on(work, sock, messages.nats_publish) as tool:
                yield tool
            sock.settimeout(work.limit_s)
            sock.sendall(b"PING\r\n")
            while b"PONG" not in sock.recv(4096):
                pass  # it has taken everything when it answers

    def close(self) -> None:
        """End it."""
        self._own.end()


_NGINX = """
load_module {module};
daemon off;
worker_processes 1;
{user}pid {{directory}}/pid;
error_log {{directory}}/log warn;
events {{ worker_connections {connections}; }}
http {{
  access_log off;
  client_body_temp_path {{directory}}/body;
  proxy_temp_path {{directory}}/proxy;
  fastcgi_temp_path {{directory}}/fastcgi;
  uwsgi_temp_path {{directory}}/uwsgi;
  scgi_temp_path {{directory}}/scgi;
  keepalive_requests 100000000;
  nchan_max_reserved_memory 256M;
  server {{
    listen {host}:{port};
    location ~ ^/pub/(.+)$ {{
      nchan_publisher http;
      nchan_channel_id $1;
      nchan_message_buffer_length 1000;
      nchan_message_timeout 10s;
    }}
    location ~ ^/sub/(.+)$ {{
      nchan_subscriber websocket;
      nchan_channel_id $1;
      nchan_channel_id_split_delimiter ",";
      nchan_subscriber_first_message newest;
    }}
  }}
}}
"""


class Nchan(Server):
    """nginx with its nchan module, one worker, fed by HTTP requests on one connection.

    Args:
        environ: what it inherits.
        connections: most clients.
    """

    name = "nchan"
    needs = "nginx with nchan is not installed: apt-get install nginx libnginx-mod-nchan"

    def __init__(self, environ: Mapping[str, str], connections: int) -> None:
        self._port = free_port()
        user = ""
        if os.geteuid() == 0:  # or its worker could not reach its directory
            user = f"user {getpass.getuser()} {grp.getgrgid(os.getegid()).gr_name};\n"
        config = _NGINX.format(
            module=_NCHAN_MODULE, user=user, connections=connections, host=HOST, port=self._port
        )
        command = [find("nginx"), "-p", "{directory}", "-c", "{directory}/nginx.conf",
                   "-e", "{directory}/log"]  # fmt: skip
        self._own = Started(command, environ, {"nginx.conf": config})
        try:
            self._own.wait_until(lambda: listens(self._port) and len(self.pids) > 1)
        except BaseException:
            self.close()
            raise

    @staticmethod
    def missing() -> bool:
        """Tell whether it is not installed."""
        return not find("nginx") or not os.path.exists(_NCHAN_MODULE)

    @staticmethod
    def version() -> str:
        """Return nginx's version and the module's."""
        package = "libnginx-mod-nchan"
        module = said(["dpkg-query", "-W", "-f", "nchan ${Version}", package])
        return f"{said([find('nginx'), '-v'])}, {module}"

    @property
    def pids(self) -> list[int]:
        """Return nginx's master and its worker."""
        return machine.family(self._own.process.pid)

    def dial(self, scenario: Scenario) -> Dial:
        """Return the path of its channels."""
        return Dial(self._port, f"/sub/{','.join(scenario.topics().held) or 'none'}")

    @contextlib.contextmanager
    def flow(self, work: Work) -> Iterator[Tool]:
        """Publish by requests, one behind the other."""
        with (
            socket.create_connection((HOST, self._port), _BROKER_TIMEOUT_S) as sock,
            pump_on(work, sock, messages.http_publish, drain=True) as tool,
        ):
            yield tool
            # closing now would throw away what it has not read yet
            sock.settimeout(_QUIET_S)
            with contextlib.suppress(socket.timeout):
                while sock.recv(65536):
                    pass

    def close(self) -> None:
        """End it."""
        self._own.end()


class Floor(Server):
    """A loop of plain sends in C: what the system calls alone cost.

    Args:
        program: path of the tool.
        scenario: sets clients, size and rate.
        count: number of messages.
        limit_s: seconds after which it gives up.
    """

    name = FLOOR

    def __init__(self, program: str, scenario: Scenario, count: int, limit_s: float) -> None:
        sizes = (f"clients={scenario.clients}", f"size={scenario.size}")
        self._tool = Tool([program, *sizes, f"count={count}", f"rate={scenario.rate}"], limit_s)
        self._port = int(self._tool.answer(START_S)["port"])

    @property
    def pids(self) -> list[int]:
        """Return its process."""
        return [self._tool.process.pid]

    def dial(self, scenario: Scenario) -> Dial:
        """Return any path: it reads none."""
        return Dial(self._port, "/")

    @contextlib.contextmanager
    def flow(self, work: Work) -> Iterator[Tool]:
        """Let it send."""
        self._tool.tell()
        yield self._tool

    def close(self) -> None:
        """End it."""
        self._tool.end()


PEERS: tuple[type[Nats] | type[Nchan], ...] = (Nats, Nchan)


def peer_can(scenario: Scenario) -> bool:
    """Tell whether a scenario means something to peers: no users, books or workers of ours."""
    return (
        scenario.kind in (FLOW, IDLE, CONNECT)
        and scenario.audience in (SHARED, OWN, NOBODY)
        and scenario.workers == 1
        and not scenario.deflate
        and not scenario.backlog
        and not scenario.deaf
    )


def floor_can(scenario: Scenario) -> bool:
    """Tell whether the floor can do a scenario: one stream, at a rate that it keeps up with."""
    return (
        scenario.kind == FLOW
        and scenario.audience == SHARED
        and scenario.streams == 1
        and scenario.workers == 1
        and not scenario.book
        and not scenario.deaf
        and 0 < scenario.clients * scenario.rate <= _FLOOR_DELIVERIES_PER_S
    )
