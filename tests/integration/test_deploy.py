"""The ways to run the gateway, each with real clients: they must not differ in what clients see."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Callable, Iterator, NamedTuple

import pytest
from support import (
    HOST,
    PATIENCE_S,
    ROOT,
    Client,
    RawSocket,
    Server,
    handshake,
    http_request,
    sample_of,
    start_gateway,
    wait_for,
)

GUNICORN = [sys.executable, "-m", "gunicorn"]
APP = "rango_gevent.wsgi:app"


class Way(NamedTuple):
    """A way to run the gateway: a command (None for ``rango``), settings, number of workers."""

    command: list[str] | None
    env: dict[str, str]
    workers: int


WAYS = {
    "rango": Way(None, {}, 1),
    "rango with two workers": Way(None, {"RANGO_WORKERS": "2"}, 2),
    "gunicorn with conf": Way(
        [*GUNICORN, "-c", str(ROOT / "conf" / "gunicorn.conf.py"), APP], {"RANGO_WORKERS": "2"}, 2
    ),
    "stock gunicorn": Way(
        [*GUNICORN, "-k", "geventwebsocket.gunicorn.workers.GeventWebSocketWorker"]
        + ["-b", f"{HOST}:{{port}}", "-w", "2", APP],
        {},
        2,
    ),
}


@contextlib.contextmanager
def running(way: Way, **env: str) -> Iterator[Server]:
    """Run a way until all its workers consume."""
    with start_gateway(command=way.command, env={**way.env, **env}) as server:
        wait_until_all_consume(server, way.workers)
        yield server


def wait_until_all_consume(server: Server, workers: int) -> None:
    """Wait until each worker has its queue, or a message could miss one of them."""
    wait_for(
        lambda: metric(server, "rango_broker_connected") == workers,
        what=f"{workers} workers consume",
    )


def metric(server: Server, name: str, **labels: str) -> float:
    """Return a sample, -1 while nobody listens on the metrics port."""
    try:
        return server.metric(name, **labels)
    except OSError:
        return -1


@pytest.fixture(scope="module", params=list(WAYS))
def deployed(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server run in each of the ways, shared by the tests that leave it as it was."""
    with running(WAYS[request.param]) as server:
        yield server


@pytest.fixture(params=[name for name, way in WAYS.items() if way.workers > 1])
def several(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server with several workers, for a test that harms it."""
    with running(WAYS[request.param]) as server:
        yield server


@contextlib.contextmanager
def clients_of(
    server: Server, count: int, path: str = "/public?stream=a.b"
) -> Iterator[list[Client]]:
    """Connect so many clients and take their first replies."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.connect(path)) for _ in range(count)]
        for client in clients:
            client.receive()
        yield clients


# -- what clients see -------------------------------------------------------------------------


def test_every_client_gets_every_event_once(deployed: Server, market: str) -> None:
    """Whichever worker serves it, public and private."""
    with clients_of(deployed, 6, f"/public?stream={market}.trades") as clients:
        token = deployed.token(uid=market)
        with deployed.connect("/private?stream=order", token) as owner:
            owner.receive()
            for number in range(20):
                deployed.publish(f"public.{market}.trades", str(number))
                deployed.publish(f"private.{market}.order", str(number))
            for client in clients:
                received = [client.receive() for _ in range(20)]
                assert received == [f'{{"{market}.trades":{n}}}' for n in range(20)]
            assert [owner.receive() for _ in range(20)] == [f'{{"order":{n}}}' for n in range(20)]


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (handshake("/private"), 401),
        (handshake("/private", {"Authorization": "Bearer a.b.c"}), 401),
        (handshake(headers={"Origin": "http://evil.example"}), 403),
        (handshake(leave_out=["Sec-WebSocket-Key"]), 400),
        (handshake(headers={"Sec-WebSocket-Key": "garbage"}), 400),
        (handshake(version="HTTP/1.0"), 400),
        (handshake(headers={"Sec-WebSocket-Version": "8"}), 426),
    ],
    ids=lambda value: value[:40] if isinstance(value, bytes) else value,
)
def test_refusals_come_before_the_upgrade(
    deployed: Server, request_bytes: bytes, status: int
) -> None:
    """A status and a line of text; no 101 first, no traceback in the log."""
    with RawSocket(deployed.port) as raw:
        raw.send(request_bytes)
        answer = raw.answer()
        assert answer.status == status
        assert len(answer.body.splitlines()) == 1
        assert raw.read_to_end() == b""
    assert "Traceback" not in deployed.log()


def test_plain_requests_are_answered(deployed: Server) -> None:
    """Health, readiness and the front page, and a 404 with a text."""
    statuses = [deployed.get(path).status for path in ("/", "/healthz", "/readyz", "/none")]
    assert statuses == [200, 200, 200, 404]


def test_bad_frames_close_their_sender_only(deployed: Server) -> None:
    """The protocol core is ours under every server."""
    with clients_of(deployed, 3) as clients, RawSocket(deployed.port) as raw:
        raw.open().send(b"\x81\x02hi")  # not masked
        assert raw.read_close() == 1002
        for client in clients:
            client.send("ping")
            assert client.receive() == "pong"


# -- metrics ----------------------------------------------------------------------------------


def test_metrics_count_the_clients_of_all_workers(deployed: Server, market: str) -> None:
    """One port tells the sum, and goes down again with the clients."""
    name, labels = "rango_hub_subscriptions_count", {"type": "public", "topic": f"{market}.a"}
    with clients_of(deployed, 6, f"/public?stream={market}.a"):
        deployed.publish(f"public.{market}.a", "1")
        wait_for(lambda: metric(deployed, "rango_hub_clients_count") == 6, what="6 clients")
        wait_for(lambda: metric(deployed, name, **labels) == 6, what="6 subscriptions")
    wait_for(lambda: metric(deployed, "rango_hub_clients_count") == 0, what="none is left")
    wait_for(lambda: metric(deployed, name, **labels) == 0, what="no subscription is left")


def test_metrics_are_valid_exposition_text(deployed: Server) -> None:
    """HELP and TYPE once for each family and before its samples, no series twice."""
    with clients_of(deployed, 4):
        deployed.publish("public.a.b", "1")
        deployed.publish("public.a.b", "no JSON")
        text = http_request(deployed.metrics_port, "/metrics").body
    assert text.endswith("\n")
    assert faults_in(text) == []
    assert {"rango_hub_clients_count", "process_open_fds", "python_info"} <= set(families_of(text))


def families_of(text: str) -> list[str]:
    """Return the names in TYPE lines, in their order."""
    return re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE)


SAMPLE = re.compile(r'([a-z_]+)(\{(?:[a-z]+="[^"\n]*",?)*\})? ([-+.e0-9]+|\+Inf)')


def faults_in(text: str) -> list[str]:
    """Return what is wrong with an exposition text (the format's rules on order and repeats)."""
    series: Counter[str] = Counter()
    family = ""
    faults = [f"TYPE twice: {name}" for name, n in Counter(families_of(text)).items() if n > 1]
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            family = line.split(" ")[2]
        elif not line.startswith("# HELP "):
            found = SAMPLE.fullmatch(line)
            if found is None:
                faults.append(f"not a sample: {line}")
                continue
            if not re.fullmatch(re.escape(family) + r"(_bucket|_sum|_count|_created)?", found[1]):
                faults.append(f"not under its TYPE: {line}")
            series[f"{found[1]}{found[2]}"] += 1
    return faults + [f"series twice: {name}" for name, n in series.items() if n > 1]


def test_promtool_reads_the_metrics(deployed: Server) -> None:
    """Prometheus' own checker: no error; of its advice only what Rango's names cannot follow."""
    promtool = shutil.which("promtool")
    assert promtool, "install Debian's package prometheus: scripts/test-packages"
    with clients_of(deployed, 3):
        text = http_request(deployed.metrics_port, "/metrics").body
    done = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    advice = [line for line in done.stderr.splitlines() if line]
    expected = [line for line in advice if re.match(r"rango_hub_\w+_count .*_count", line)]
    assert advice == expected
    assert done.returncode in (0, 3)


# -- the end of workers and servers -----------------------------------------------------------


def workers_of(server: Server) -> list[int]:
    """Return the process ids of the children of a server's parent process."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[1]) == server.process.pid and fields[0] != "Z":
                found.append(int(stat.parent.name))
    return found


def test_a_killed_worker_takes_its_clients_from_the_gauges(several: Server) -> None:
    """Its gauges go with it, no counter falls, and a new worker comes in its place."""
    opened = "rango_connections_opened_total"
    with clients_of(several, 12) as clients:
        wait_for(lambda: metric(several, "rango_hub_clients_count") == 12, what="12 clients")
        counted = metric(several, opened)
        victim = workers_of(several)[0]
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: victim not in workers_of(several), what="the worker is dead")
        living = [client for client in clients if is_alive(client)]
        lowest = lowest_until(
            lambda: metric(several, "rango_hub_clients_count") == len(living), several, opened
        )
        assert lowest >= counted >= 12
        wait_until_all_consume(several, 2)
        with clients_of(several, 6) as more:
            wait_for(
                lambda: metric(several, "rango_hub_clients_count") == len(living) + 6, what="6 more"
            )
            several.publish("public.a.b", "1")
            for client in living + more:
                assert client.receive() == '{"a.b":1}'
        wait_for(lambda: metric(several, opened) >= counted + 6, what="they are counted")
        assert faults_in(http_request(several.metrics_port, "/metrics").body) == []


def is_alive(client: Client) -> bool:
    """Tell whether a client is still answered."""
    with contextlib.suppress(Exception):
        client.send("ping")
        return client.receive() == "pong"
    return False


def lowest_until(is_enough: Callable[[], bool], server: Server, counter: str) -> float:
    """Poll until it is enough; return the lowest value that a counter had meanwhile."""
    lowest = float("inf")
    deadline = time.monotonic() + PATIENCE_S
    while True:
        with contextlib.suppress(OSError):  # the port may just change hands
            text = http_request(server.metrics_port, "/").body
            lowest = min(lowest, sample_of(text, counter))
        if is_enough():
            return lowest
        assert time.monotonic() < deadline, "it never was enough"


def test_stock_gunicorn_gives_up_on_bad_settings() -> None:
    """It ends with an exit code and the problem, and does not start workers for ever."""
    stock = WAYS["stock gunicorn"].command
    with start_gateway(command=stock, env={"JWT_PUBLIC_KEY": ""}, until=None) as server:
        # 3, or 1 when its second worker fails while it stops for the first
        assert server.process.wait(30) in (1, 3)
        assert "rango: no public key" in server.log()


@pytest.mark.parametrize("way", list(WAYS))
def test_clients_are_told_of_a_restart_and_nothing_is_left(way: str, tmp_path: Path) -> None:
    """SIGTERM: 1012 for every client, exit code 0, no process and no file left, in short time."""
    with running(WAYS[way], TMPDIR=str(tmp_path)) as server, clients_of(server, 8) as clients:
        started = time.monotonic()
        server.ask_to_stop()
        assert {client.closed() for client in clients} == {(1012, "service restart")}
        assert server.stop() == 0
        assert time.monotonic() - started < 25
        wait_for(lambda: not server.group_is_alive(), what="no process is left")
        assert "Traceback" not in server.log()
    left = [path.name for path in tmp_path.iterdir()]
    if way == "stock gunicorn":  # its parent runs no code of ours: the next start tidies up
        left = [name for name in left if not name.startswith("rango-metrics-")]
    assert left == []
