"""``rango keys``, ``token``, ``inject`` and ``tail`` as processes, with real server and broker."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from support import (
    HOST,
    PATIENCE_S,
    Relay,
    Server,
    broker_address,
    free_port,
    private_pem,
    server_env,
    start_gateway,
    wait_for,
)
from tailing import RANGO, tail
from websockets.exceptions import InvalidStatus

from rango_gevent.auth.keys import load_public_key
from rango_gevent.auth.tokens import TokenVerifier
from rango_gevent.errors import TokenError

Ended = subprocess.CompletedProcess[bytes]


def run(
    *words: str,
    exchange: str = "",
    cwd: Path | None = None,
    stdin: bytes = b"",
    env: dict[str, str] | None = None,
) -> Ended:
    """Run ``rango`` to its end."""
    return subprocess.run(
        [*RANGO, *words],
        input=stdin,
        capture_output=True,
        cwd=cwd,
        env=server_env(exchange or new_exchange(), env),
        timeout=60,
    )


def new_exchange() -> str:
    """Return a name that no other test uses."""
    return f"test.{uuid.uuid4().hex[:12]}"


# -- keys and tokens --------------------------------------------------------------------


@pytest.mark.parametrize("raw", [False, True])
def test_keys_and_token_fit_together_and_the_server(tmp_path: Path, raw: bool) -> None:
    """The printed setting makes a server accept what ``rango token`` prints, and nothing else."""
    made = run("keys", *["--raw"] * raw, cwd=tmp_path)
    assert (made.returncode, made.stderr) == (0, b"")
    *told, setting = made.stdout.decode().splitlines()
    assert "config/ed25519-key " in told[0]
    assert told[1].endswith("config/ed25519-key.pub")
    assert (tmp_path / "config" / "ed25519-key").stat().st_mode & 0o777 == 0o600

    token = run("token", "--uid", "ID7", "--claim", "level=9", cwd=tmp_path).stdout.decode().strip()
    name, _, value = setting.partition("=")
    assert name == "JWT_PUBLIC_KEY"
    verifier = TokenVerifier([load_public_key(value, name)])
    assert verifier.verify(token, time.time()).uid == "ID7"

    with start_gateway(env={name: value}) as server:
        with server.connect("/private", token) as client:
            client.receive()
            assert client.subscribe("order") == ["order"]
        refused = run("tail", "--url", server.url, "order", env={"RANGO_TOKEN": server.token()})
        assert refused.returncode == 1
        assert b"refused with HTTP 401" in refused.stderr


def test_keys_are_not_replaced_unasked(tmp_path: Path) -> None:
    """A second run changes nothing and ends with 2; with force there is a new pair."""
    run("keys", "--out", "k", cwd=tmp_path)
    before = (tmp_path / "k" / "ed25519-key").read_bytes()
    again = run("keys", "--out", "k", cwd=tmp_path)
    assert (again.returncode, again.stdout) == (2, b"")
    assert b"k/ed25519-key is there already" in again.stderr
    assert len(again.stderr.splitlines()) == 1
    assert (tmp_path / "k" / "ed25519-key").read_bytes() == before
    assert run("keys", "--out", "k", "--force", cwd=tmp_path).returncode == 0
    assert (tmp_path / "k" / "ed25519-key").read_bytes() != before


@pytest.mark.parametrize(
    ("words", "reason"), [(["--ttl", "-1"], "expired"), (["--exp", "1000"], "expired")]
)
def test_an_expired_token_can_be_made(tmp_path: Path, words: list[str], reason: str) -> None:
    """A token for the unhappy path is made as easily."""
    run("keys", cwd=tmp_path)
    key = load_public_key((tmp_path / "config/ed25519-key.pub").read_bytes(), "file")
    token = run("token", *words, cwd=tmp_path).stdout.decode().strip()
    with pytest.raises(TokenError) as error:
        TokenVerifier([key]).verify(token, time.time())
    assert error.value.reason == reason


def test_a_token_without_expiry(tmp_path: Path) -> None:
    """A token may live for ever when that is asked for."""
    run("keys", cwd=tmp_path)
    key = load_public_key((tmp_path / "config/ed25519-key.pub").read_bytes(), "file")
    token = run("token", "--no-exp", cwd=tmp_path).stdout.decode().strip()
    assert TokenVerifier([key]).verify(token, time.time()).expires_at_s is None


def test_no_key_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    """Without a key, and with the public one, there is one clear line and no token."""
    missing = run("token", cwd=tmp_path)
    assert (missing.returncode, missing.stdout) == (2, b"")
    assert missing.stderr.startswith(b"rango: no private key: config/ed25519-key cannot be read")
    run("keys", cwd=tmp_path)
    public = run("token", "--key", "config/ed25519-key.pub", cwd=tmp_path)
    assert (public.returncode, public.stdout) == (2, b"")
    assert public.stderr.startswith(b"rango: config/ed25519-key.pub: found a public key")
    assert len(missing.stderr.splitlines()) == len(public.stderr.splitlines()) == 1


# -- inject and tail --------------------------------------------------------------------

LINES = [
    '{"price":"1.10",  "n": 12345678901234567890}',
    "0.10000000000000000001",
    '["\\u0000 \\ud83d\\ude00", "\U0001f4b9 \u202e"]',
    "null",
    *(f'{{"n":{n}}}' for n in range(500)),
]


def test_what_is_injected_is_tailed_in_order_byte_for_byte(gateway: Server, tmp_path: Path) -> None:
    """With --raw the very bytes of the file arrive, in its order."""
    stream = f"m{uuid.uuid4().hex}.trades"
    file = tmp_path / "events"
    file.write_text("# events\n\n" + "".join(f"public.{stream} {body}\n" for body in LINES))
    with tail(
        tmp_path, "--url", gateway.url, "--raw", "--count", str(len(LINES)), stream
    ) as tailed:
        tailed.subscribed(stream)
        injected = run("inject", str(file), exchange=gateway.exchange)
        code, out = tailed.end()
    assert (injected.returncode, injected.stdout) == (0, b"")
    assert re.fullmatch(
        rf"published {len(LINES)} messages in \d+\.\d s \(\d+/s\) to {gateway.exchange}\n",
        injected.stderr.decode(),
    )
    assert code == 0
    assert out.decode() == "".join(f"{body}\n" for body in LINES)


def test_the_terminal_is_safe_from_publishers(gateway: Server, tmp_path: Path) -> None:
    """Without --raw an event is one line of printable text, and still the same JSON."""
    stream = f"m{uuid.uuid4().hex}.trades"
    bodies = ['{"a":\n\t"\u009b2J\u202e\x7f"}', '"\U000e0041 ok ü"']
    with tail(tmp_path, "--url", gateway.url, "--count", "2", stream) as tailed:
        tailed.subscribed(stream)
        for body in bodies:
            gateway.publish(f"public.{stream}", body.encode())
        code, out = tailed.end()
    assert code == 0
    lines = out.decode().splitlines()
    assert [line.split("  ", 1)[0] for line in lines] == [stream, stream]
    assert all(line.isprintable() for line in lines)
    assert [json.loads(line.split("  ", 1)[1]) for line in lines] == [
        json.loads(body) for body in bodies
    ]
    assert lines[0].endswith('{"a":  "\\u009b2J\\u202e\\u007f"}')


def test_standard_input_and_passes(gateway: Server, tmp_path: Path) -> None:
    """``-`` reads standard input; passes repeat the whole, with a wait between them."""
    stream = f"m{uuid.uuid4().hex}.trades"
    text = f"public.{stream} 1\npublic.{stream} 2\n".encode()
    with tail(tmp_path, "--url", gateway.url, "--raw", "--count", "6", stream) as tailed:
        tailed.subscribed(stream)
        started = time.monotonic()
        words = ["inject", "-", "--count", "3", "--wait", "0.3", "--exchange", gateway.exchange]
        injected = run(*words, stdin=text)
        assert time.monotonic() - started > 0.6
        assert tailed.end() == (0, b"1\n2\n1\n2\n1\n2\n")
    assert injected.returncode == 0
    assert injected.stderr.startswith(b"published 6 messages")


def test_the_rate_is_kept(gateway: Server) -> None:
    """With a rate the messages are spread over time."""
    text = b"public.a.nobody 1\n" * 41
    injected = run("inject", "-", "--rate", "40", stdin=text, exchange=gateway.exchange)
    seconds = float(injected.stderr.split(b" in ")[1].split(b" s")[0])
    assert 1.0 <= seconds < 20


def test_a_bad_line_stops_everything(gateway: Server, tmp_path: Path) -> None:
    """All lines are checked before the first is published; wrong ones are told by place."""
    stream = f"m{uuid.uuid4().hex}.trades"
    file = tmp_path / "bad"
    file.write_text(f"public.{stream} 1\npublic.{stream} {{'a':1}}\n\nnonsense\n")
    with tail(tmp_path, "--url", gateway.url, "--raw", "--count", "1", stream) as tailed:
        tailed.subscribed(stream)
        injected = run("inject", str(file), exchange=gateway.exchange)
        gateway.publish(f"public.{stream}", "2")
        assert tailed.end() == (0, b"2\n")
    assert (injected.returncode, injected.stdout) == (2, b"")
    first, second = injected.stderr.decode().splitlines()
    assert first.startswith(f"rango: {file}:2: the body is not JSON: ")
    assert second == f"rango: {file}:4: give a routing key, a blank and JSON"


def test_a_broker_that_is_away_is_one_line(tmp_path: Path) -> None:
    """No broker, a wrong password and a virtual host that is not: one line, exit code 1."""
    broker = broker_address()
    away = free_port()
    for url, told in [
        (f"amqp://guest:secret@{HOST}:{away}//", "Connection refused"),
        (f"amqp://guest:secret@{broker.host}:{broker.port}//", "ACCESS_REFUSED"),
        (f"amqp://{broker.user}:{broker.password}@{broker.host}:{broker.port}/none", "vhost none"),
    ]:
        started = time.monotonic()
        injected = run("inject", "-", "-amqp-addr", url, stdin=b"public.a.b 1")
        assert time.monotonic() - started < 40
        assert (injected.returncode, injected.stdout) == (1, b"")
        (line,) = injected.stderr.decode().splitlines()
        assert line.startswith("rango: no broker at amqp://")
        assert told in line
        assert "secret" not in line


def test_a_broker_that_never_answers_is_given_up(tmp_path: Path) -> None:
    """A port that takes connections and says nothing is left after the time for the broker."""
    with socket.socket() as silent:
        silent.bind((HOST, 0))
        silent.listen()
        url = f"amqp://guest:guest@{HOST}:{silent.getsockname()[1]}//"
        env = {"RANGO_AMQP_URL": url, "RANGO_BROKER_TIMEOUT_S": "1"}
        injected = run("inject", "-", stdin=b"public.a.b 1", env=env)
    assert injected.returncode == 1
    (line,) = injected.stderr.decode().splitlines()
    assert line.startswith(f"rango: no broker at amqp://guest:***@{HOST}:")


class StallingRelay(Relay):
    """A way to the broker on which nothing moves any more once it is stalled."""

    def __init__(self) -> None:
        super().__init__()
        self.stalled = threading.Event()
        self.ended = threading.Event()

    def _copy(self, one: socket.socket, other: socket.socket) -> None:  # type: ignore[override]
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                if self.stalled.is_set():
                    self.ended.wait(30)
                other.sendall(data)


@pytest.mark.parametrize("how", ["cut", "stalled"])
def test_a_broker_that_is_lost_ends_the_injection(tmp_path: Path, how: str) -> None:
    """A connection that is cut, or that takes nothing more, ends with one line, a summary and 1."""
    relay = StallingRelay()
    relay.open()
    file = tmp_path / "events"
    file.write_text("public.a.nobody 1\n" * 10)
    exchange = new_exchange()
    with start_gateway(exchange=exchange) as server:
        process = subprocess.Popen(
            [*RANGO, "inject", str(file), "--count", "0", "--rate", "100"],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=server_env(exchange, {"RANGO_AMQP_URL": relay.url, "RANGO_BROKER_TIMEOUT_S": "5"}),
        )
        try:
            wait_for(
                lambda: server.metric("rango_messages_received_total", scope="public") > 0,
                what="a message",
            )
            relay.stalled.set()
            if how == "cut":
                relay.cut()
            _, said = process.communicate(timeout=60)
        finally:
            relay.ended.set()
            relay.cut()
            process.kill()
            process.communicate()
    assert process.returncode == 1
    problem, summary = said.decode().splitlines()
    assert problem.startswith("rango: the broker is lost")
    assert re.search(r"; go on with --skip \d+", problem)
    assert summary.startswith("published ")


def test_an_injection_goes_on_where_one_ended(gateway: Server, tmp_path: Path) -> None:
    """With --skip the first messages are left out, of the first pass alone."""
    stream = f"m{uuid.uuid4().hex}.trades"
    text = "".join(f"public.{stream} {number}\n" for number in range(3)).encode()
    with tail(tmp_path, "--url", gateway.url, "--raw", "--count", "4", stream) as tailed:
        tailed.subscribed(stream)
        words = ["inject", "-", "--skip", "2", "--count", "2", "--exchange", gateway.exchange]
        assert run(*words, stdin=text).returncode == 0
        assert tailed.end() == (0, b"2\n0\n1\n2\n")
    injected = run("inject", "-", "--skip", "4", stdin=text, exchange=gateway.exchange)
    assert (injected.returncode, injected.stderr) == (
        2, b"rango: --skip 4: there are only 3 messages\n",
    )  # fmt: skip


def test_the_second_broker_is_tried() -> None:
    """Of several brokers the first that answers is taken."""
    env = {"RANGO_AMQP_URL": f"amqp://{HOST}:{free_port()}//;{server_env('x')['RANGO_AMQP_URL']}"}
    injected = run("inject", "-", "--create", stdin=b"public.a.b 1", env=env)
    assert injected.returncode == 0
    assert injected.stderr.startswith(b"published 1 messages")


def test_an_exchange_that_is_missing_is_told_and_not_made() -> None:
    """A mistyped name is one line and exit code 1, again and again; --create makes it."""
    exchange = new_exchange()
    for _ in range(2):
        injected = run("inject", "-", stdin=b"public.a.b 1", exchange=exchange)
        assert (injected.returncode, injected.stdout) == (1, b"")
        (line,) = injected.stderr.decode().splitlines()
        assert line.startswith(f"rango: exchange '{exchange}' does not exist at amqp://")
        assert "--create" in line
    assert run("inject", "-", "--create", stdin=b"public.a.b 1", exchange=exchange).returncode == 0
    assert run("inject", "-", stdin=b"public.a.b 1", exchange=exchange).returncode == 0


def test_progress_is_shown_on_a_terminal(tmp_path: Path) -> None:
    """On a terminal a line grows while messages go out; Ctrl-C ends with the summary and 130."""
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            [*RANGO, "inject", "-", "--create", "--count", "0", "--rate", "200"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=theirs,
            env=server_env(new_exchange()),
        )
        os.close(theirs)
        assert process.stdin is not None
        process.stdin.write(b"public.a.b 1\npublic.a.b 2\n")
        process.stdin.close()
        shown = _read_until(ours, b"", lambda data: data.count(b"\rpublished ") >= 3)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        shown = _read_until(ours, shown, lambda data: data.endswith(b"\r\n"))
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    counts = [int(count) for count in re.findall(rb"published (\d+) messages", shown)]
    assert counts == sorted(counts)
    assert 1 <= counts[0] < counts[1] < counts[2]
    assert b"Traceback" not in shown
    assert re.search(
        rb"\x1b\[Kpublished \d+ messages in \d+\.\d s \(\d+/s\) to test\.\w+\r\n$", shown
    )


def _read_until(descriptor: int, data: bytes, is_enough: Any) -> bytes:
    """Read from a terminal until there is enough."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_enough(data):
        readable, _, _ = select.select([descriptor], [], [], max(0, deadline - time.monotonic()))
        assert readable, data
        data += os.read(descriptor, 4096)
    return data


@pytest.mark.parametrize("rate", ["0", "5"])
def test_an_interrupted_injection_says_how_far_it_came(tmp_path: Path, rate: str) -> None:
    """Ctrl-C, busy or waiting, ends with the summary, 130 and no traceback."""
    said = tmp_path / "said"
    file = tmp_path / "events"
    file.write_text("public.a.nobody 1\n")
    exchange = new_exchange()
    with start_gateway(exchange=exchange) as server, open(said, "wb") as stderr:
        process = subprocess.Popen(
            [*RANGO, "inject", str(file), "--count", "0", "--rate", rate],
            stdin=subprocess.DEVNULL,
            stderr=stderr,
            env=server_env(exchange),
        )
        try:
            received = ("rango_messages_received_total", {"scope": "public"})
            wait_for(lambda: server.metric(received[0], **received[1]) > 0, what="a message")
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 130
        finally:
            process.kill()
            process.wait()
    assert re.fullmatch(r"published \d+ messages in .* to test\.\w+\n", said.read_text())


def test_a_private_stream_with_a_token_from_the_environment(
    gateway: Server, tmp_path: Path
) -> None:
    """With a token tail goes to /private and gets what is its user's alone."""
    key = tmp_path / "key"
    key.write_text(private_pem())
    token = run("token", "--key", str(key), "--uid", "IDTAIL").stdout.decode().strip()
    token_file = tmp_path / "token"
    token_file.write_text(token + "\n")
    by_file = ["--token-file", str(token_file)]
    for words, env in [([], {"RANGO_TOKEN": token}), (by_file, {}), (["--token", token], {})]:
        with tail(
            tmp_path, "--url", gateway.url, "--count", "1", *words, "order", env=env
        ) as tailed:
            tailed.subscribed("order")
            gateway.publish("private.IDOTHER.order", '"not yours"')
            gateway.publish("private.IDTAIL.order", '"yours"')
            assert tailed.end() == (0, b'order  "yours"\n')


def test_a_bad_token_is_one_line(gateway: Server) -> None:
    """A token that is not good, in form or in signature, ends at once with one line."""
    for token, told in [("nonsense", "malformed"), ("a.b.c", "malformed")]:
        ended = run("tail", "--url", gateway.url, "--token", token, "order")
        assert (ended.returncode, ended.stdout) == (1, b"")
        (line,) = ended.stderr.decode().splitlines()
        assert line.startswith("rango: refused with HTTP 401: The token is not valid")
        assert told in line
    ended = run("tail", "--url", gateway.url, "--token", "two words", "order")
    assert (ended.returncode, ended.stderr.count(b"\n")) == (2, 1)


def test_a_full_server_is_one_line(tmp_path: Path) -> None:
    """503 on the first connection ends with one line: waiting would look like silence."""
    with start_gateway(env={"RANGO_MAX_CONNECTIONS": "1"}) as server, server.connect():
        ended = run("tail", "--url", server.url, "a.b")
    assert ended.returncode == 1
    (line,) = ended.stderr.decode().splitlines()
    assert line.startswith("rango: refused with HTTP 503: ")


def test_no_server_is_one_line() -> None:
    """A first connection that fails is told and not tried again."""
    url = f"ws://{HOST}:{free_port()}"
    ended = run("tail", "--url", url, "a.b")
    assert (ended.returncode, ended.stdout) == (1, b"")
    told = f"rango: cannot connect to {url}/public: Connection refused\n"
    assert ended.stderr.decode() == told


def test_what_is_not_held_is_told(gateway: Server, tmp_path: Path) -> None:
    """A name that the server left out of its reply is no silent success."""
    with tail(tmp_path, "--url", gateway.url, "a.b", "order", "admin.x.y") as tailed:
        tailed.subscribed("a.b")
        tailed.wait_said("rango: not subscribed to order, admin.x.y: that needs a token\n")
        assert '{"success":{"message":"cannot subscribe to admin.x.y"}}\n' in tailed.said()


def test_timeout_counts_what_came(gateway: Server, tmp_path: Path) -> None:
    """Too few events in time are exit code 1; without a count any event is enough."""
    stream = f"m{uuid.uuid4().hex}.trades"
    for words, bodies, code in [
        (["--count", "2", "--timeout", "8"], ["1"], 1),
        (["--timeout", "8"], ["1"], 0),
        (["--timeout", "8"], [], 1),
    ]:
        with tail(tmp_path, "--url", gateway.url, *words, stream) as tailed:
            tailed.subscribed(stream)
            for body in bodies:
                gateway.publish(f"public.{stream}", body)
            assert tailed.end() == (code, "".join(f"{stream}  {b}\n" for b in bodies).encode())
            of = " of 2" if "--count" in words else ""
            told = f"rango: {len(bodies)}{of} events within {words[-1]} s\n"
            assert (told in tailed.said()) is (code == 1)


def test_tail_comes_back_after_a_restart(tmp_path: Path) -> None:
    """A server that restarts is found again, and the streams are subscribed again."""
    port = str(free_port())
    env = {"RANGER_PORT": port}
    with start_gateway(env=env) as server:
        url = server.url
        with tail(tmp_path, "--url", url, "--count", "2", "a.b", "c.d") as tailed:
            tailed.subscribed("a.b", "c.d")
            server.publish("public.a.b", "1")
            assert tailed.process.stdout is not None
            assert tailed.process.stdout.readline() == b"a.b  1\n"
            assert server.stop() == 0
            tailed.wait_said("rango: the connection was closed: 1012 service restart; ")
            with start_gateway(env=env) as again:
                tailed.subscribed("a.b", "c.d", times=2)
                again.publish("public.c.d", "2")
                assert tailed.end() == (0, b"c.d  2\n")
            assert "rango: connected again\n" in tailed.said()


def test_without_reconnect_a_restart_is_the_end(tmp_path: Path) -> None:
    """With --no-reconnect a lost connection ends with its reason and 1."""
    with (
        start_gateway() as server,
        tail(tmp_path, "--url", server.url, "--no-reconnect", "a.b") as tailed,
    ):
        tailed.subscribed("a.b")
        server.stop()
        assert tailed.end() == (1, b"")
        assert tailed.said().endswith("rango: the connection was closed: 1012 service restart\n")


def test_an_interrupted_tail_is_quiet(gateway: Server, tmp_path: Path) -> None:
    """Ctrl-C ends with 130, without a word, and the server is told by a close frame."""
    before = gateway.metric("rango_connections_closed_total", reason="client_closed")
    with tail(tmp_path, "--url", gateway.url, "a.b") as tailed:
        tailed.subscribed("a.b")
        said = tailed.said()
        tailed.process.send_signal(signal.SIGINT)
        assert tailed.end() == (130, b"")
        assert tailed.said() == said
    wait_for(
        lambda: gateway.metric("rango_connections_closed_total", reason="client_closed") > before,
        what="a connection closed by the client",
    )


def test_a_reader_that_leaves_ends_tail_quietly(gateway: Server, tmp_path: Path) -> None:
    """``rango tail | head -1`` ends with 141, as a shell expects, and prints no traceback."""
    stream = f"m{uuid.uuid4().hex}.trades"
    with tail(tmp_path, "--url", gateway.url, stream) as tailed:
        tailed.subscribed(stream)
        said = tailed.said()
        out = tailed.process.stdout
        assert out is not None
        gateway.publish(f"public.{stream}", "1")
        assert out.readline() == f"{stream}  1\n".encode()
        out.close()
        gateway.publish(f"public.{stream}", "2")
        assert tailed.process.wait(30) == 141
        assert tailed.said() == said


def test_help_to_a_reader_that_leaves_is_quiet() -> None:
    """``rango --help | true`` prints no traceback either."""
    ours, theirs = os.pipe()
    os.close(ours)
    try:
        env = {**os.environ, "PYTHONUNBUFFERED": ""}  # unbuffered, argparse ignores the failure
        ended = subprocess.run(
            [*RANGO, "--help"], stdout=theirs, stderr=subprocess.PIPE, env=env, timeout=60
        )
    finally:
        os.close(theirs)
    assert (ended.returncode, ended.stderr) == (141, b"")


def test_tail_ends_in_peace_while_much_is_on_its_way() -> None:
    """Leaving early, with thousands of frames still coming, is exit code 0 every time."""
    with start_gateway() as server:
        server.publish("public.flood.ob-snap", "{}")
        for number in range(3000):
            server.publish("public.flood.ob-inc", f'{{"n":{number}}}')
        for _ in range(3):
            done = run("tail", "--url", server.url, "--count", "3", "flood.ob-inc")
            assert done.returncode == 0, done.stderr


# -- demo -------------------------------------------------------------------------------


def test_the_demo_serves_pages_of_this_machine() -> None:
    """A page on another port of it may connect, and is told so; one from elsewhere may not."""
    words = [*RANGO, "demo", "-ws-addr", "{port}", "--metrics-port", "{metrics_port}"]
    with start_gateway(command=words, env={"RANGO_AMQP_URL": ""}) as server:
        with server.connect("/?stream=btcusd.trades", headers={"Origin": "http://localhost:3000"}):
            pass
        with pytest.raises(InvalidStatus):
            server.connect("/", headers={"Origin": "http://shop.example"})
        assert "API_CORS_ORIGINS=127.0.0.1:*,[::1]:*,localhost:*" in server.log()


# -- config -----------------------------------------------------------------------------


def check(exchange: str, **env: str) -> tuple[int, list[str]]:
    """Run ``rango config --check --connect``; return its exit code and lines."""
    done = run("config", "--check", "--connect", exchange=exchange, env=env)
    assert done.stderr == b""
    return done.returncode, done.stdout.decode().splitlines()


def test_a_good_configuration_is_tried_to_the_end(gateway: Server) -> None:
    """Key, broker, exchange and rights: a line each, exit code 0."""
    code, lines = check(gateway.exchange)
    assert code == 0
    assert [line.split(" ")[0] for line in lines] == ["ok:"] * 4
    words = ("Ed25519", "broker amqp://", gateway.exchange, "rights")
    assert [word for word, line in zip(words, lines) if word in line] == list(words)


@pytest.mark.parametrize(
    ("env", "told"),
    [
        ({"JWT_PUBLIC_KEY": "bm9uZQ=="}, "JWT_PUBLIC_KEY"),
        ({"RANGO_AMQP_URL": "amqp://guest:guest@127.0.0.1:1//"}, "can be reached"),
        ({"RANGO_AMQP_URL": "{url}/none"}, "RABBITMQ_VHOST"),
        ({"RANGO_EXCHANGE": "no.such.exchange"}, "does not exist"),
        ({"RANGO_EXCHANGE": "amq.fanout"}, "is of type fanout, not topic"),
    ],
)
def test_what_would_not_work_is_told_with_the_cure(
    gateway: Server, env: dict[str, str], told: str
) -> None:
    """The one line that begins with failed says what to do; nothing is made; exit code 1."""
    broker = broker_address()
    url = f"amqp://{broker.user}:{broker.password}@{broker.host}:{broker.port}"
    for _ in range(2):
        code, lines = check(
            gateway.exchange, **{name: value.replace("{url}", url) for name, value in env.items()}
        )
        (failed,) = [line for line in lines if line.startswith("failed: ")]
        assert told in failed
        assert code == 1
        assert f":{broker.password}@" not in "".join(lines)
