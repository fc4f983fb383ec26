"""Alerts arrive: at a mail server, Redis, a UDP socket, a webhook; and dead sinks harm nobody."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Iterator

import pytest
import redis
from aiosmtpd.controller import Controller
from support import HOST, PATIENCE_S, ROOT, Relay, free_port, start_gateway, wait_for

_SECRET = "hunter2hunter2"


class Webhook:
    """An HTTP server that keeps what is posted to it, and answers with a status of choice."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.status = 200
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if outer.status == 200:
                    outer.got.append(json.loads(body))
                self.send_response(outer.status)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                """Say nothing."""

        self._server = http.server.ThreadingHTTPServer((HOST, 0), Handler)
        self.url = f"json://me:{_SECRET}@{HOST}:{self._server.server_address[1]}/hook"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()

    def text(self) -> str:
        """Return all that was posted."""
        return "\n".join(f"{one['title']}\n{one['message']}" for one in self.got)


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    """Run a webhook."""
    running = Webhook()
    yield running
    running.close()


class Mailbox:
    """Takes mail."""

    def __init__(self) -> None:
        self.mails: list[str] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        """Keep a mail."""
        self.mails.append(envelope.content.decode())
        return "250 OK"


@pytest.fixture
def mail() -> Iterator[tuple[str, list[str]]]:
    """Run a mail server; give its URL and what it got."""
    box, port = Mailbox(), free_port()
    controller = Controller(box, hostname=HOST, port=port, ready_timeout=PATIENCE_S)
    controller.start()
    yield (
        f"mailto://{HOST}:{port}?from=rango@example.org&to=ops@example.org&mode=insecure",
        box.mails,
    )
    controller.stop()


@pytest.fixture
def redis_port() -> Iterator[int]:
    """Run a Redis of this test's own."""
    port = free_port()
    program = shutil.which("redis-server")
    assert program, "install redis-server: scripts/test-packages"
    with tempfile.TemporaryDirectory() as directory:
        words = [program, "--port", str(port), "--bind", HOST, "--save", "", "--dir", directory]
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        try:
            client = redis.Redis(HOST, port)
            wait_for(lambda: _answers(client), what="Redis")
            client.close()
            yield port
        finally:
            process.kill()
            process.wait()


def _answers(client: redis.Redis) -> bool:
    with contextlib.suppress(redis.ConnectionError):
        return bool(client.ping())
    return False


@pytest.fixture
def udp() -> Iterator[socket.socket]:
    """Listen where alertcenter would."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((HOST, 0))
        sock.settimeout(PATIENCE_S)
        yield sock


@pytest.fixture
def hanging() -> Iterator[str]:
    """Listen without ever answering; give the URL."""
    with socket.create_server((HOST, 0)) as listener:
        yield f"json://{HOST}:{listener.getsockname()[1]}/"


_SCRIPT = """
from time import sleep as native_sleep
from gevent import monkey
monkey.patch_all()
import json, logging, sys, time
import gevent
from rango_gevent import logs
from rango_gevent.alerts.watch import Watch
from rango_gevent.incidents import end_incident, open_incident
from rango_gevent.settings import load
settings = load({}).settings
import os
settings = load({k: v for k, v in os.environ.items() if k.startswith("RANGO_ALERT")}).settings
logs.configure("fatal", "text", open(os.devnull, "w"))
log = logging.getLogger("rango_gevent.test")
watch = Watch(settings, lambda: "", {})
watch.start()
gevent.spawn(watch.run)
# How late the loop is, without what the machine was late for a thread that only sleeps.
late = 0.0
naps = [(time.perf_counter(), time.perf_counter())]
def nap():
    while True:
        native_sleep(0.005)
        naps.append((naps[-1][1], time.perf_counter()))
gevent.get_hub().threadpool.spawn(nap)
def tick():
    global late
    while True:
        began = time.perf_counter()
        gevent.sleep(0.005)
        ended = time.perf_counter()
        seen = [*naps, (naps[-1][1], ended)]
        pauses = [b - a for a, b in seen if b > began and b - a > 0.05]
        late = max(late, ended - began - sum(pauses))
        del naps[:-100]
gevent.spawn(tick)
gevent.sleep(0.1)
late = 0.0
def until(is_so, timeout_s=60):
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, "it never came so far"
        gevent.sleep(0.05)
def outcomes(which):
    return watch.alerts.delivered[which]
"""


def run_script(script: str, urls: str, timeout_s: float = 120, **env: str) -> dict[str, Any]:
    """Run a process with alerts; return what it printed as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT + script],
        env={**os.environ, "PYTHONPATH": str(ROOT), "RANGO_ALERT_URLS": urls, **env},
        capture_output=True, text=True, timeout=timeout_s,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert _SECRET not in done.stdout + done.stderr
    return {**json.loads(done.stdout.splitlines()[-1]), "log": done.stderr}


_STORM = """
began = time.monotonic()
for number in range(10_000):
    open_incident(log, "storm", "disk %d is on fire", number)
    if number % 200 == 0:
        gevent.sleep(0.001)
storm_s = time.monotonic() - began
worst = late
until(lambda: outcomes("delivered") >= 1)
gevent.sleep(SLEEP)
watch.stop()
print(json.dumps({"late": worst, "storm_s": storm_s, "handed": watch.alerts.handed, "sent": watch.alerts.delivered}))
"""


def test_a_storm_of_critical_lines_is_one_mail_with_their_number(
    mail: tuple[str, list[str]],
) -> None:
    """Ten thousand lines: one mail, and the loop is never held up by it.

    What a slow machine says after the first second comes with another mail.
    """
    url, mails = mail
    found = run_script(
        _STORM.replace("SLEEP", "12"), url, RANGO_ALERT_NAME="shop-1", RANGO_ALERT_INTERVAL_S="5"
    )
    most = 1 if found["storm_s"] < 0.5 else 2 + found["storm_s"] / 5
    assert 1 <= len(mails) <= most
    assert "Subject: rango at shop-1: 1 critical" in mails[0]
    assert "disk 0 is on fire" in mails[0]
    assert sum(int(re.findall(r"(\d+) times", mail)[0]) for mail in mails) == 10_000
    assert found["handed"] == 10_000
    assert found["late"] < 0.5


def test_different_lines_beyond_the_bound_are_counted(webhook: Webhook) -> None:
    """Nothing is thrown away without being counted."""
    run_script(
        """
for number in range(264):
    open_incident(log, f"incident {number}", "number %d", number)
until(lambda: outcomes("delivered") == 1)
watch.stop()
print("{}")
""",
        webhook.url,
        RANGO_ALERT_LINES="50",
    )
    assert len(webhook.got) == 1
    assert webhook.got[0]["title"].endswith(": 50 critical, and 214 more")
    assert webhook.got[0]["message"].endswith("\nand 214 more")


def test_all_kinds_of_sinks_get_it(
    webhook: Webhook, mail: tuple[str, list[str]], redis_port: int, udp: socket.socket
) -> None:
    """What is said meanwhile waits for the next message, and recovery is told."""
    key = f"redis://{HOST}:{redis_port}/alert:message"
    urls = [webhook.url, mail[0], key, f"udp://{HOST}:{udp.getsockname()[1]}"]
    run_script(
        """
open_incident(log, "fire", "first")
until(lambda: outcomes("delivered") == 4)
open_incident(log, "fire", "second")
end_incident("fire", "put out")
end_incident("flood", "nobody knew of it")
until(lambda: outcomes("delivered") == 8)
watch.stop()
print("{}")
""",
        ";".join(urls),
        RANGO_ALERT_NAME="shop-1",
        RANGO_ALERT_INTERVAL_S="3",
    )
    assert [one["title"] for one in webhook.got] == [
        "rango at shop-1: 1 critical",
        "rango at shop-1: 1 critical, 1 recovered",
    ]
    assert re.fullmatch(r"CRITICAL \S+Z second\nRECOVERED \S+Z put out", webhook.got[1]["message"])
    assert len(mail[1]) == 2
    assert udp.recv(20_000) == b"373d26968a5a2b698045shop-1: CRITICAL first\n"
    assert udp.recv(20_000) == (
        b"373d26968a5a2b698045shop-1: CRITICAL second | RECOVERED put out\n"
    )
    with redis.Redis(HOST, redis_port) as client:
        told = [one.decode() for one in client.lrange("alert:message", 0, -1)]
    assert len(told) == 2
    assert told[0].startswith("shop-1: rango at shop-1: 1 critical\nCRITICAL ")


def test_sinks_that_hang_or_refuse_hold_up_nobody(webhook: Webhook, hanging: str) -> None:
    """The others get theirs at once, what these were due stays and is counted on."""
    refusing = f"udp://{HOST}:{free_port()}"
    found = run_script(
        """
open_incident(log, "fire", "first")
until(lambda: outcomes("delivered") == 1)
open_incident(log, "fire", "second")
until(lambda: outcomes("delivered") == 2 and outcomes("failed") >= 4)
worst = late
watch.stop()
print(json.dumps({"late": worst, "sent": watch.alerts.delivered}))
""",
        f"{hanging};{refusing};{webhook.url}",
        RANGO_ALERT_TIMEOUT_S="3",
        RANGO_ALERT_INTERVAL_S="2",
    )
    assert len(webhook.got) == 2
    assert found["late"] < 0.5
    assert found["sent"]["failed"] >= 4
    assert "alert sink 1 (json://***): " in found["log"]
    assert f"alert sink 2 ({refusing}): nobody listens there" in found["log"]
    assert " fatal " not in found["log"], "a dead sink must not alert"


def test_a_sink_that_comes_back_gets_all_of_it(webhook: Webhook) -> None:
    """One message with what happened meanwhile, and a line of the log."""
    webhook.status = 500
    timer = threading.Timer(6.0, lambda: setattr(webhook, "status", 200))
    timer.start()
    found = run_script(
        """
for number in range(8):
    open_incident(log, "fire", "still burning")
    gevent.sleep(1)
until(lambda: outcomes("delivered") >= 1)
gevent.sleep(3)
watch.stop()
print("{}")
""",
        webhook.url,
        RANGO_ALERT_INTERVAL_S="2",
    )
    timer.join()
    said = [int(times) for times in re.findall(r"(\d+) times", webhook.text())]
    once = webhook.text().count("still burning") - len(said)
    assert sum(said) + once == 8
    assert "takes alerts again" in found["log"]


def test_a_courier_that_was_killed_is_started_again(webhook: Webhook) -> None:
    """Whoever says something next finds out; a line of the log tells."""
    run_script(
        """
gevent.sleep(6)
os.kill(watch.alerts._pid, 9)
gevent.sleep(0.5)
open_incident(log, "fire", "after the kill")
until(lambda: outcomes("delivered") == 1)
watch.stop()
print("{}")
""",
        webhook.url,
    )
    assert "after the kill" in webhook.text()


def test_a_url_that_no_library_knows_is_told_at_the_start() -> None:
    """By its kind and number only."""
    found = run_script("gevent.sleep(5)\nwatch.stop()\nprint('{}')", f"nonsense://{_SECRET}")
    assert re.search(
        r"alert sink 1 \(nonsense://\*\*\*\): .*; correct RANGO_ALERT_URLS", found["log"]
    )


# -- of a whole gateway ---------------------------------------------------------------------------


def test_a_broker_that_is_away_is_told_and_that_it_is_back(webhook: Webhook) -> None:
    """Once after the time that is set, once when it is over; metrics count both."""
    relay = Relay()
    relay.open()
    env = {
        "RANGO_AMQP_URL": relay.url,
        "RANGO_ALERT_URLS": webhook.url,
        "RANGO_ALERT_NOT_READY_S": "1",
        "RANGO_ALERT_INTERVAL_S": "1",
    }
    with start_gateway(env=env) as server:
        relay.cut()
        wait_for(lambda: "not ready for 1 s: broker: " in webhook.text(), what="the alert")
        assert webhook.text().count("CRITICAL ") == 1
        relay.open()
        wait_for(lambda: "ready again after" in webhook.text(), what="the recovery")
        wait_for(
            lambda: server.metric("rango_alert_messages_total", outcome="delivered") == 2,
            what="both to be counted",
        )
        assert server.metric("rango_alert_lines_total") == 2
        assert _SECRET not in server.log()
        arguments = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True)
        assert _SECRET not in arguments.stdout
    relay.cut()


def test_a_gateway_that_is_killed_is_told_of(udp: socket.socket) -> None:
    """By the process that outlives it, at once; one that stops in peace is not.

    That process gives itself three seconds, so this sink is one that needs no large library.
    """
    env = {"RANGO_ALERT_URLS": f"udp://{HOST}:{udp.getsockname()[1]}"}
    with start_gateway(env=env) as server:
        assert server.stop() == 0
    wait_for(lambda: not server.group_is_alive(), what="the courier to end")
    assert not select.select([udp], [], [], 0)[0]
    with start_gateway(env=env) as server:
        wait_for(lambda: any(map(_is_courier, server.workers())), what="the courier")
        time.sleep(2)  # it listens by now
        server.process.send_signal(signal.SIGKILL)
        text = f"the gateway, process {server.process.pid}, is gone without a goodbye"
        assert text in udp.recv(20_000).decode()


def test_workers_share_one_message(webhook: Webhook) -> None:
    """An incident of all workers is one alert, and so is its end; the parent's lines come too."""
    relay = Relay()
    relay.open()
    env = {
        "RANGO_WORKERS": "2",
        "RANGO_WORKER_TIMEOUT_S": "8",
        "RANGO_AMQP_URL": relay.url,
        "RANGO_ALERT_URLS": webhook.url,
        "RANGO_ALERT_NOT_READY_S": "1",
        "RANGO_ALERT_INTERVAL_S": "4",
    }
    with start_gateway(env=env) as server:
        wait_for(lambda: server.metric("rango_ready") == 2, what="both workers")
        relay.cut()
        wait_for(lambda: "not ready for 1 s" in webhook.text(), what="the alert")
        assert "2 times" in webhook.text()
        assert "in 2 processes" in webhook.text()
        relay.open()
        wait_for(lambda: "ready again after" in webhook.text(), what="the recovery")
        assert len(webhook.got) == 2
        workers = [pid for pid in server.workers() if not _is_courier(pid)]
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGSTOP)
        text = f"WORKER TIMEOUT (pid:{workers[0]})"
        wait_for(lambda: text in webhook.text(), what="the parent's alert")
        assert server.stop() == 0
    assert "goodbye" not in webhook.text()
    relay.cut()


def _is_courier(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return "courier" in Path(f"/proc/{pid}/cmdline").read_text()
    return False


def test_workers_that_die_in_a_loop_are_told_and_that_they_live(webhook: Webhook) -> None:
    """The parent says the first, a worker that lives the second."""
    env = {
        "RANGO_WORKERS": "1",
        "RANGO_ALERT_URLS": webhook.url,
        "RANGO_ALERT_INTERVAL_S": "1",
    }
    command = [sys.executable, "-m", "gunicorn", "-c", "python:rango_gevent.gunicorn_hooks"]
    with start_gateway(env=env, command=[*command, "rango_gevent.wsgi:app"]) as server:

        def kill_some_more() -> bool:
            for pid in server.workers():
                if not _is_courier(pid):
                    with contextlib.suppress(ProcessLookupError):  # it was on its way out
                        os.kill(pid, signal.SIGKILL)
            time.sleep(0.2)
            return "workers die in a loop" in webhook.text()

        wait_for(kill_some_more, 60, "the alarm")
        assert "workers die in a loop: 6 in " in webhook.text()
        wait_for(lambda: "workers live again" in webhook.text(), 90, "the recovery")


# -- the command, and who uses none of it ----------------------------------------------------------


def _rango(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rango_gevent", *words],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_test_is_sent_by_the_command(webhook: Webhook, udp: socket.socket) -> None:
    """A line for each sink, and exit code 1 when one does not take it."""
    good = f"{webhook.url};udp://{HOST}:{udp.getsockname()[1]}"
    done = _rango("alert", "--test", RANGO_ALERT_URLS=good, RANGO_ALERT_NAME="shop-1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok: alert sink ") == 2
    assert "a test of alerts, nothing is wrong" in webhook.text()
    assert udp.recv(999).endswith(b"shop-1: rango at shop-1: a test of alerts, nothing is wrong\n")
    webhook.status = 403
    done = _rango("alert", "--test", RANGO_ALERT_URLS=webhook.url)
    assert done.returncode == 1
    assert done.stdout.startswith("failed: alert sink 1 (json://***): ")
    assert _SECRET not in done.stdout + done.stderr
    assert _rango("alert", "--test", RANGO_ALERT_URLS="").returncode == 1


def test_the_doctor_sends_a_test_when_asked(webhook: Webhook) -> None:
    """Among its other findings; without the flag nobody gets anything."""
    _rango("doctor", RANGO_ALERT_URLS=webhook.url)
    assert "a test of alerts" not in webhook.text()
    done = _rango("doctor", "--alert", RANGO_ALERT_URLS=webhook.url)
    assert "alert sink 1 (json://***) took a test" in done.stdout
    assert "a test of alerts, nothing is wrong" in webhook.text()


def test_who_has_no_sinks_imports_no_library_and_starts_no_process() -> None:
    """Alerts cost nothing where there are none."""
    with start_gateway() as server:
        assert server.workers() == []
        maps = Path(f"/proc/{server.process.pid}/maps").read_text()
        assert "apprise" not in maps
    found = subprocess.run(
        [sys.executable, "-c", "from gevent import monkey; monkey.patch_all()\n"
         "import sys, rango_gevent.wsgi, rango_gevent.commands.serve\n"
         "print({'apprise', 'redis', 'requests'} & set(sys.modules))"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert found.stdout == "set()\n", found.stderr
