"""``make bench`` as a process, tiny, with real gateway and broker; and its C tools by themselves.

What is checked is that it counts right and says what went wrong. No figure is compared with a
time: that is what the benchmark itself is for.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from bench import gateways, machine, messages, native, peers, scenarios
from bench.tools import BenchError, Load, Tool
from support import (
    HOST,
    KEY,
    amqp_url,
    broker_channel,
    free_port,
    private_pem,
    start_gateway,
    wait_for,
)

SCRIPTS = Path(native.__file__).resolve().parents[1]
BENCH = [sys.executable, "-m", "bench"]
TINY = ["--max-clients", "20", "--max-messages", "40"]
Ended = subprocess.CompletedProcess[str]


def bench_env(env: dict[str, str] | None = None) -> dict[str, str]:
    """Return the environment of the command, as `make bench` sets it."""
    return {**os.environ, "PYTHONPATH": str(SCRIPTS), "AMQP_URL": amqp_url(), **(env or {})}


def bench(*words: str, env: dict[str, str] | None = None) -> Ended:
    """Run the command to its end."""
    return subprocess.run(
        [*BENCH, *words],
        capture_output=True,
        text=True,
        timeout=240,
        env=bench_env(env),
    )


def results(*words: str, path: Path) -> dict[str, dict[str, Any]]:
    """Run the command and return its results by scenario, without the floor's and peers'."""
    ended = bench(*words, *TINY, "--json", str(path))
    assert ended.returncode == 0, ended.stderr + ended.stdout
    found = json.loads(path.read_text())
    return {
        row["scenario"]: row for row in found["results"] if row["server"] in ("rango", "gateway")
    }


# -- the command --------------------------------------------------------------------------------


def test_three_scenarios_count_what_was_delivered(tmp_path: Path) -> None:
    """A shared stream reaches all clients, own and private streams one client per message."""
    path = tmp_path / "results" / "bench.json"
    ended = bench("fan-50", "own-5000", "private-5000", *TINY, "--json", str(path))
    assert ended.returncode == 0, ended.stderr + ended.stdout
    found = json.loads(path.read_text())
    rows = {(row["scenario"], row["server"]): row for row in found["results"]}
    deliveries = {place: row["deliveries"] for place, row in rows.items()}
    assert deliveries == {
        ("fan-50", "rango"): 800,
        ("fan-50", "floor"): 800,
        ("own-5000", "rango"): 40,
        ("private-5000", "rango"): 40,
    }
    for row in rows.values():
        assert row["error"] == ""
        assert (row["clients"], row["messages"], row["lost"], row["gone"]) == (20, 40, 0, 0)
        assert 0 <= row["p50_ms"] <= row["p99_ms"] <= row["max_ms"] < 60_000
        assert row["cpu_s"] < 60
        assert row["bytes_per_delivery"] > 200
        assert 0 <= row["client_busy"] <= 1.1
    assert 1 < rows["fan-50", "rango"]["messages_per_s"] < 75, "as fast as asked for, or slower"
    assert found["machine"]["cores"] == os.cpu_count()
    assert found["versions"]["broker"].startswith("RabbitMQ")
    assert set(found["versions"]) >= {"rango_gevent", "python", "gevent"}
    assert len(found["load_before"]) == len(found["load_after"]) == 3
    assert found["goals"] == [], "a scenario that was cut down has no goals"
    assert "us/delivery" in ended.stdout
    assert ended.stderr.count("\n") == 4, "one line for each result"


def test_other_kinds_of_scenario_fill_in_their_own_figures(tmp_path: Path) -> None:
    """Connections, memory, replays, a backlog and newcomers are measured too."""
    names = [
        "ingest",
        "backlog",
        "idle",
        "connect",
        "connect-token",
        "connect-protocol",
        "connect-message",
    ]
    names += ["replay", "fairness"]
    names.append("resume-1000")
    rows = results(*names, "--seconds", "0.5", path=tmp_path / "bench.json")
    assert list(rows) == names
    for row in rows.values():
        assert row["error"] == ""
    assert rows["ingest"]["deliveries"] == 0
    assert rows["ingest"]["messages_per_s"] > 1
    assert rows["backlog"]["messages_per_s"] > 1
    assert rows["idle"]["kb_per_connection"] is not None
    assert rows["connect"]["connects_per_s"] > 1
    for name in ("connect-token", "connect-protocol", "connect-message"):
        assert rows[name]["connects_per_s"] > 1
        assert not rows[name]["refused"]
    assert (rows["replay"]["deliveries"], rows["replay"]["lost"]) == (20 * 41, 0)
    assert (rows["resume-1000"]["deliveries"], rows["resume-1000"]["lost"]) == (20 * 40, 0)
    assert 0 < rows["resume-1000"]["back_s"] < 60
    assert rows["fairness"]["lost"] == 0
    assert rows["fairness"]["probes"] >= 1
    assert rows["fairness"]["handshake_ms"] > 0
    assert rows["fairness"]["ping_ms"] > 0


def test_publishing_is_measured_beside_kombu(tmp_path: Path) -> None:
    """One by one and in batches, and every event reaches the queue."""
    path = tmp_path / "bench.json"
    ended = bench("publish", *TINY, "--json", str(path))
    assert ended.returncode == 0, ended.stderr + ended.stdout
    rows = json.loads(path.read_text())["results"]
    assert [(row["scenario"], row["server"]) for row in rows] == [
        ("publish-single", "rango"), ("publish-single", "kombu"),
        ("publish-batch", "rango"), ("publish-batch", "kombu"),
    ]  # fmt: skip
    for row in rows:
        assert (row["error"], row["messages"], row["lost"]) == ("", 40, 0)
        assert row["messages_per_s"] > 1
        assert row["us_per_message"] > 0
    assert all(0 < row["p50_ms"] <= row["p99_ms"] for row in rows[:2])


def test_what_the_kernel_keeps_for_the_deaf_is_measured(tmp_path: Path) -> None:
    """A burst to clients that read nothing stays behind their sockets; the others get it."""
    rows = results("burst-deaf", path=tmp_path / "bench.json")
    row = rows["burst-deaf"]
    assert (row["clients"], row["messages"], row["lost"]) == (10, 40, 0)
    assert row["kernel_kb_per_deaf"] >= 100
    assert row["max_ms"] > 0


def test_a_gateway_that_runs_already_is_measured_by_its_address(tmp_path: Path) -> None:
    """With --url the named processes and exchange are used; what needs an own one is left out."""
    key = tmp_path / "key"
    key.write_text(private_pem())
    with start_gateway() as server:
        ended = bench(
            "ten-streams",
            "private-5000",
            "workers-2-400",
            *("--url", server.url, "--pid", str(server.process.pid)),
            *("--exchange", server.exchange, "--token-key", str(key), "--name", "mine"),
            *TINY,
        )
    assert ended.returncode == 0, ended.stderr + ended.stdout
    rows = [line.split()[:2] for line in ended.stdout.split("\n")]
    assert ["ten-streams", "mine"] in rows
    assert ["private-5000", "mine"] in rows
    assert "workers-2-400 is left out" in ended.stderr


def test_peers_are_run_or_named_as_missing(tmp_path: Path) -> None:
    """With --compare every peer has a result, or a line says what to install."""
    path = tmp_path / "bench.json"
    ended = bench("fan-50", *TINY, "--seconds", "0.2", "--compare", "--json", str(path))
    assert ended.returncode == 0, ended.stderr + ended.stdout
    rows = {row["server"]: row for row in json.loads(path.read_text())["results"]}
    assert set(rows) >= {"rango", "floor"}
    for peer in peers.PEERS:
        if peer.missing():
            assert peer.needs in ended.stderr
        else:
            assert (rows[peer.name]["deliveries"], rows[peer.name]["lost"]) == (200, 0)


def test_a_scenario_that_fails_is_told_and_the_others_go_on() -> None:
    """What cannot be measured has its reason below the table, and makes the exit code 1."""
    ended = subprocess.run(
        ["bash", "-c", 'ulimit -n 110; exec "$@"', "-", *BENCH, "own-5000", "ingest", *TINY],
        capture_output=True,
        text=True,
        timeout=240,
        env=bench_env(),
    )
    assert ended.returncode == 1, ended.stderr + ended.stdout
    assert "own-5000, rango: failed: 20 clients need 120 open files" in ended.stdout
    assert "ingest, rango: failed" not in ended.stdout


def test_list_names_every_scenario_and_group() -> None:
    """--list needs neither broker nor compiler, and names everything that can be run."""
    ended = bench("--list", env={"AMQP_URL": "", "CC": "no-such-compiler"})
    assert ended.returncode == 0, ended.stderr
    words = ended.stdout.split()
    assert {scenario.name for scenario in scenarios.every()} <= set(words)
    assert set(scenarios.GROUPS) <= set(words)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["nope"], "no scenario is called 'nope'"),
        (["--url", "ws://192.0.2.1:80", "--pid", "1"], "give ws://127.0.0.1:PORT"),
        (["--url", "ws://127.0.0.1:80"], "--pid"),
        (["--pid", "1"], "belong to --url"),
        (["--url", "ws://127.0.0.1:80", "--pid", "4194305"], "has ended"),
        (["--json", "/proc/nowhere/file"], "cannot be written"),
        (["--amqp-addr", f"amqp://{HOST}:{free_port()}"], "refused"),
        (["--amqp-addr", "amqp://192.0.2.1"], "stays on this machine"),
    ],
)
def test_what_cannot_be_done_is_told_at_once(words: list[str], text: str) -> None:
    """A wrong argument is one line that names the cure, and exit code 2."""
    ended = bench("fan-50", *words)
    assert ended.returncode == 2
    assert text in ended.stderr
    assert "Traceback" not in ended.stderr


def test_no_compiler_is_one_line() -> None:
    """Without a C compiler the line says what to install."""
    ended = bench("fan-50", env={"CC": "no-such-compiler"})
    assert ended.returncode == 2
    assert "no C compiler (no-such-compiler)" in ended.stderr


def test_sigterm_ends_the_gateway_and_reports_what_there_is() -> None:
    """A run that is ended early leaves no process behind."""
    process = subprocess.Popen(
        [*BENCH, "own-5000", "fan-50", "--max-clients", "5", "--seconds", "60"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=bench_env(),
    )
    try:
        wait_for(lambda: len(machine.family(process.pid)) >= 4, 30, "gateway, clients, publisher")
        family = machine.family(process.pid)
    finally:
        process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 130
    wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in family), what="their end")


def test_its_exchange_is_gone_afterwards() -> None:
    """The exchange of a gateway that was started for a scenario is deleted with it."""
    (scenario,) = scenarios.select(["fan-50"])
    gateway = gateways.OwnGateway(amqp_url(), scenario, os.environ)
    exchange = gateway._exchange
    channel = broker_channel().connection.channel()
    channel.exchange_declare(exchange, "topic", passive=True)
    gateway.close()
    with pytest.raises(channel.connection.channel_errors, match="no exchange"):
        channel.exchange_declare(exchange, "topic", passive=True)


# -- the tools ----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def tools() -> dict[str, str]:
    """Return the paths of the C tools, built if need be."""
    return native.build()


def test_tools_are_built_once_and_again_when_a_source_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache is used as long as the sources are the same."""
    sources = tmp_path / "native"
    shutil.copytree(native._SOURCES, sources)
    monkeypatch.setattr(native, "_SOURCES", sources)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = native.build()
    made_at = {path: os.stat(path).st_mtime_ns for path in first.values()}
    assert native.build() == first
    assert {path: os.stat(path).st_mtime_ns for path in first.values()} == made_at
    (sources / "pump.c").write_text((sources / "pump.c").read_text() + "/* changed */\n")
    assert set(native.build().values()).isdisjoint(first.values())


def server_frame(payload: bytes, first: int = 0x81) -> bytes:
    """Encode a server's frame."""
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    return bytes((first, 126)) + size.to_bytes(2, "big") + payload


class ScriptedServer:
    """Accepts one WebSocket client and sends it bytes in portions of a given size."""

    def __init__(self, data: bytes, portion: int) -> None:
        self._listener = socket.create_server((HOST, 0))
        self.port = self._listener.getsockname()[1]
        self._data, self._portion = data, portion
        self.request = b""
        self.answers = b""
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        sock, _ = self._listener.accept()
        sock.settimeout(60)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._listener, sock:
            while b"\r\n\r\n" not in self.request:
                self.request += sock.recv(4096)
            response = b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + self._data
            for at in range(0, len(response), self._portion):
                sock.sendall(response[at : at + self._portion])
            with suppress(ConnectionResetError):  # a client that has seen enough
                while data := sock.recv(4096):
                    self.answers += data

    def join(self) -> None:
        """Wait until the client has left."""
        self._thread.join(30)
        assert not self._thread.is_alive()


def load(
    tools: dict[str, str], port: int, *words: str, expect: int = 0
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run one client to its end and return what it said."""
    command = [tools["wsload"], f"port={port}", "clients=1", f"expect={expect}", *words]
    client = Load(command, 60, lambda text: None)
    with client:
        return client.ready(60), client.done(60)


DELIVERY = b'{"m.trades":{"t":                   1,"p":"%s"}}'


@pytest.mark.parametrize("portion", [1, 7, 100, 10**6])
def test_load_client_counts_frames_however_they_are_cut(
    tools: dict[str, str], portion: int
) -> None:
    """Deliveries, replies, compressed frames, pings and the STOP are told apart in any portions."""
    data = b"".join(
        (
            server_frame(b'{"success":{"message":"subscribed","streams":[]}}'),
            server_frame(DELIVERY % b"short"),
            server_frame(DELIVERY % (b"x" * 300)),
            server_frame(b"are you there", 0x89),
            server_frame(b"\x01\x02\x03", 0xC1),
            server_frame(DELIVERY % b"last"),
            server_frame(
                b'{"method":"deals.update","params":["M0",[{"id":1,"time":123}]],"id":null}'
            ),
            server_frame(
                b'{"method":"deals.update","params":["STOP",[{"id":1,"time":1}]],"id":null}'
            ),
        )
    )
    server = ScriptedServer(data, portion)
    ready, done = load(tools, server.port, "path=/public?stream=m%d.trades", expect=5)
    server.join()
    assert (ready["up"], ready["refused"]) == (1, 0)
    counts = {name: done[name] for name in ("frames", "packed", "other", "stopped", "gone")}
    assert counts == {"frames": 5, "packed": 1, "other": 1, "stopped": 1, "gone": 0}
    assert sum(count for _, count in done["ages"]) == 4
    assert done["bytes"] == len(data)
    assert server.request.startswith(b"GET /public?stream=m0.trades HTTP/1.1\r\n")
    assert KEY in server.request
    assert server.answers == b"\x8a\x8d\0\0\0\0are you there"


@pytest.mark.parametrize("portion", [1, 50, 10**6])
def test_load_client_understands_nats_in_any_portions(
    tools: dict[str, str], portion: int, tmp_path: Path
) -> None:
    """NATS's messages are counted in the stream of payloads, not by frames."""
    text = DELIVERY % b"nats"
    message = b"MSG m 1 %d\r\n%s\r\n" % (len(text), text)
    stop = b"MSG m 1 %d\r\n%s\r\n" % (len(messages.STOP), messages.STOP)
    stream = b"INFO {}\r\nPING\r\n" + message * 5 + stop
    frames = [server_frame(stream[at : at + 90], 0x82) for at in range(0, len(stream), 90)]
    server = ScriptedServer(b"".join(frames), portion)
    hello = tmp_path / "hello"
    hello.write_text("SUB m%d 1\r\n")
    _, done = load(tools, server.port, "speak=nats", f"hello={hello}", expect=5)
    server.join()
    assert (done["frames"], done["stopped"]) == (5, 1)
    assert b"SUB m0 1\r\n" in server.answers
    assert b"PONG\r\n" in server.answers


def test_load_client_tells_a_refusal(tools: dict[str, str]) -> None:
    """A server that does not switch protocols refuses the client, and its words are kept."""
    with start_gateway() as server:
        ready, _ = load(tools, server.port, "path=/private", "stops=0", "quiet=0.1")
    assert (ready["up"], ready["refused"]) == (0, 1)
    assert ready["refusal"].startswith("HTTP/1.1 401")


def test_load_client_gives_up_after_its_quiet_time(tools: dict[str, str]) -> None:
    """What does not arrive is missing from the counts instead of waited for without end."""
    server = ScriptedServer(server_frame(DELIVERY % b"only one"), 10**6)
    _, done = load(tools, server.port, "quiet=0.2", expect=2)
    assert (done["frames"], done["stopped"]) == (1, 0)


def test_tools_end_when_their_input_does(tools: dict[str, str]) -> None:
    """A tool whose parent is gone does not stay behind."""
    server = ScriptedServer(b"", 1)
    client = Tool([tools["wsload"], f"port={server.port}", "clients=1"], 60)
    client.end()
    assert client.process.returncode == 0


def test_a_tool_that_fails_says_why(tools: dict[str, str]) -> None:
    """The tool's last words are in the error."""
    command = [tools["wsload"], f"port={free_port()}", "clients=1"]
    refused = pytest.raises(BenchError, match="connect: Connection refused")
    with Tool(command, 60) as client, refused:
        client.answer(60)


@pytest.mark.parametrize("spread_ms", [0, 30])
def test_pump_sends_bursts_at_the_rate_over_all(
    tools: dict[str, str], tmp_path: Path, spread_ms: int
) -> None:
    """Messages of one burst go out within its time, the next one when the rate allows it."""
    file = tmp_path / "templates"
    file.write_bytes(messages.templates(["a"], [messages.body(50)], [], messages.nats_publish))
    ours, theirs = socket.socketpair()
    words = [f"fd={theirs.fileno()}", f"templates={file}", "count=9", "rate=30", "burst=3"]
    command = [tools["pump"], *words, f"spread={spread_ms / 1000}"]
    with ours, theirs, Tool(command, 60, [theirs.fileno()]) as pump:
        published = pump.answer(60)
        lines = ours.recv(65536).split(b"\r\n")
    times = [json.loads(line)["t"] for line in lines[1::2]]
    sent_ms = [(time - published["start_ns"]) / 1e6 for time in times]
    due_ms = [100 * (i // 3) + spread_ms / 3 * (i % 3) for i in range(9)]
    assert len(sent_ms) == 9
    assert all(sent >= due - 0.01 for sent, due in zip(sent_ms, due_ms)), "never before its time"
    assert sent_ms == [pytest.approx(due, abs=10_000) for due in due_ms]


def test_pump_sends_every_message_with_the_time_in_it(
    tools: dict[str, str], tmp_path: Path
) -> None:
    """The messages take turns, each with a time of the machine's clock; the last ones follow."""
    file = tmp_path / "templates"
    texts = [messages.body(100)]
    file.write_bytes(messages.templates(["a", "b"], texts, ["a"], messages.nats_publish))
    ours, theirs = socket.socketpair()
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.extend(iter(lambda: ours.recv(65536), b"")))
    reader.start()
    command = [tools["pump"], f"fd={theirs.fileno()}", f"templates={file}", "count=5", "rate=500"]
    with ours, Tool(command, 60, [theirs.fileno()]) as pump:
        published = pump.answer(60)
        theirs.close()
        pump.process.wait(30)
        reader.join(30)
    lines = b"".join(received).split(b"\r\n")
    assert [line.split()[1] for line in lines[0:10:2]] == [b"a", b"b", b"a", b"b", b"a"]
    times = [json.loads(line)["t"] for line in lines[1:10:2]]
    assert times == sorted(times)
    assert published["start_ns"] <= times[0] <= times[-1] <= published["end_ns"]
    started = published["start_ns"]
    assert times[-1] - started >= 7_500_000, "not before four gaps of 2 ms are over"
    assert lines[10:] == [b"PUB a 14", messages.STOP, b""]
    assert published["published"] == 5
