"""The scene of an attack: a gateway, a proxy before it if asked for, good clients, an attacker.

Gateway, good clients and attacker are processes of their own, and this one only looks on: at
the gateway's memory twenty times a second, which is stopped before it takes the machine's.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from pathlib import Path
from typing import IO, Any, Iterator, Mapping, NamedTuple

from bench.machine import cpu_s, family, rss_kb, waited_s

from tests.support import ROOT, Server, free_port, make_token, start_gateway
from tests.torment.attacks import Attack
from tests.torment.verdict import longest_wait_ms

_STREAM = "torment-good.t"
_LIMIT_MB = 3000
_LOOK_S = 0.05
_WINDOW_LOOKS = 7  # 0.3 s: as late as a message is on a machine that is twice as busy
_QUIET_S = 0.2
_QUIET_SHARE = 0.25
_CALM_S = 15.0
_SETTLE_S = 10.0
_MORE_S = 90.0  # what preparations may take

COMMANDS: Mapping[str, list[str]] = {
    "rango": [sys.executable, "-m", "rango_gevent"],
    "workers": [sys.executable, "-m", "rango_gevent"],
    "gunicorn": [
        *(sys.executable, "-m", "gunicorn", "-c", str(ROOT / "conf/gunicorn.conf.py")),
        "rango_gevent.wsgi:app",
    ],
    "stock": [
        *(sys.executable, "-m", "gunicorn", "-b", "127.0.0.1:{port}"),
        *("-k", "geventwebsocket.gunicorn.workers.GeventWebSocketWorker", "rango_gevent.wsgi:app"),
    ],
}
FRONTS = ("none", "nginx", "haproxy")


class Options(NamedTuple):
    """How all attacks of a run are made.

    Attributes:
        server: key of `COMMANDS`.
        front: one of `FRONTS`.
        policy: RANGO_SLOW_CLIENT.
        compression: attackers ask for it, and the gateway offers it.
        outage: the broker is away during the middle third of each attack.
        seconds: length of an attack, where that is a choice.
        short: the form for every change.
    """

    server: str = "rango"
    front: str = "none"
    policy: str = "close"
    compression: bool = False
    outage: bool = False
    seconds: float = 5.0
    short: bool = False

    def env(self, attack: Attack) -> dict[str, str]:
        """Return the gateway's settings."""
        # attackers would answer pings, if that were all it took to stay
        found = {"RANGO_PING_INTERVAL_S": "3600", "RANGO_PONG_TIMEOUT_S": "7200", **attack.env}
        found["RANGO_SLOW_CLIENT"] = self.policy
        if self.compression:
            found["RANGO_COMPRESSION"] = "on"
        if self.server == "workers":
            found["RANGO_WORKERS"] = "2"
        if self.front != "none":
            found["RANGO_TRUSTED_PROXIES"] = "127.0.0.1"
        return found


class Memory:
    """Looks at the memory of a gateway, and kills it before it takes the machine's."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.most_mb = 0.0
        self.was_killed = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def now_mb(self) -> float:
        """Return the resident memory of all its processes; 0 when it is gone."""
        try:
            return rss_kb(family(self._server.process.pid)) / 1024
        except ProcessLookupError:
            return 0.0

    def _run(self) -> None:
        while not self._stopping.wait(_LOOK_S):
            self.most_mb = max(self.most_mb, self.now_mb())
            if self.most_mb > _LIMIT_MB and not self.was_killed:
                self.was_killed = True
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._server.process.pid, signal.SIGKILL)

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()
        self._thread.join()


class Waits:
    """Looks for how long the gateway is ready to run while others have the processors.

    Attributes:
        most_ms: the longest such wait, in any of the windows in which a message is late.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self.most_ms = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        looks: deque[dict[int, float]] = deque(maxlen=_WINDOW_LOOKS)
        while not self._stopping.wait(_LOOK_S):
            with contextlib.suppress(ProcessLookupError):  # one is just ending
                looks.append({pid: waited_s(pid) for pid in family(self._server.process.pid)})
                self.most_ms = max(self.most_ms, longest_wait_ms(looks[0], looks[-1]))

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()
        self._thread.join()


class Child:
    """A Python process of this package that speaks lines of JSON."""

    def __init__(self, module: str, *arguments: str) -> None:
        command = [sys.executable, "-m", f"tests.torment.{module}", *arguments]
        self.process = subprocess.Popen(
            command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def line(self) -> dict[str, Any]:
        """Return the next line; empty at the end."""
        assert self.process.stdout is not None
        text = self.process.stdout.readline()
        return json.loads(text) if text else {}

    def ask(self, order: str) -> dict[str, Any]:
        """Give an order and return its answer."""
        stdin: IO[str] | None = self.process.stdin
        assert stdin is not None
        stdin.write(order + "\n")
        stdin.flush()
        return self.line()

    def end(self) -> None:
        """Kill the process: it holds nothing that matters."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


class Scene:
    """A gateway with good clients, for one attack after the other."""

    def __init__(self, server: Server, port: int, options: Options, source: str) -> None:
        self.server = server
        self.port = port
        self.options = options
        self.memory = Memory(server)
        self.waits = Waits(server)
        places = {
            "port": port,
            "health_port": server.port,
            "exchange": server.exchange,
            "stream": _STREAM,
            "source": source,
            "settle_s": 1.0 if options.outage else _SETTLE_S,
        }
        self.crowd = Child("crowd", json.dumps(places))
        self.crowd.line()
        self.calm()

    def close(self) -> None:
        """End the good clients."""
        self.memory.stop()
        self.waits.stop()
        self.crowd.end()

    def torment(self, attack: Attack) -> tuple[dict[str, float], list[str]]:
        """Make one attack; return what was measured, by name, and notes."""
        before_mb = self.memory.most_mb = self.memory.now_mb()
        self._mark()
        measured, notes = self._attack(attack)
        measured.update({**self.crowd.ask("report"), **measured})
        measured["machine_ms"] = max(measured["machine_ms"], self.waits.most_ms)
        if self.memory.was_killed:
            notes.append(f"killed at {_LIMIT_MB} MB")
        measured["alive"] = float(self.server.process.poll() is None)
        self.calm()
        measured["memory_mb"] = self.memory.most_mb - before_mb
        measured["kept_mb"] = self.memory.now_mb() - before_mb
        return measured, notes

    def _mark(self) -> None:
        """Begin to measure anew."""
        self.waits.most_ms = 0.0
        self.crowd.ask("mark")

    def _attack(self, attack: Attack) -> tuple[dict[str, float], list[str]]:
        found = {"attacked": 0.0}
        notes: list[str] = []
        attacker = Child("attacker", attack.name, json.dumps(self._options(attack)))
        limit = threading.Timer(self.options.seconds + _MORE_S, attacker.process.kill)
        limit.start()
        outage = self._start_outage()
        try:
            while line := attacker.line():
                if "begin" in line:
                    self._mark()
                if "found" in line:
                    found.update(line["found"], attacked=1.0)
                notes += [line["note"]] if "note" in line else []
        finally:
            limit.cancel()
            attacker.end()
            outage.join()
        return found, notes

    def _options(self, attack: Attack) -> dict[str, object]:
        return {
            "port": self.port,
            "gateway_port": self.server.port,
            "front": self.options.front,
            "metrics_port": self.server.metrics_port,
            "exchange": self.server.exchange,
            "stream": _STREAM,
            "pid": self.server.process.pid,
            "log_path": str(self.server.log_path),
            "seconds": max(self.options.seconds, attack.least_s),
            "size": attack.sizes(self.options.short),
            "compression": self.options.compression,
            "token": make_token({"uid": "TORMENT"}),
        }

    def _start_outage(self) -> threading.Thread:
        """Stop the broker after a third of the attack's time, and start it after two."""

        def run() -> None:
            time.sleep(self.options.seconds / 3)
            control("stop_app")
            time.sleep(self.options.seconds / 3)
            control("start_app")

        thread = threading.Thread(target=run if self.options.outage else lambda: None, daemon=True)
        thread.start()
        return thread

    def calm(self) -> None:
        """Wait, in bounds, until the gateway does little more than serve the good clients."""
        end = time.monotonic() + _CALM_S
        while time.monotonic() < end and self.server.process.poll() is None:
            try:
                before = cpu_s(family(self.server.process.pid))
                time.sleep(_QUIET_S)  # the length of the look
                now = cpu_s(family(self.server.process.pid))
            except ProcessLookupError:
                continue
            if now - before < _QUIET_S * _QUIET_SHARE:
                return


def control(order: str) -> None:
    """Give an order to the broker's node."""
    subprocess.run([os.environ["RABBITMQCTL"], order], check=True, stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def start_scene(attack: Attack, options: Options) -> Iterator[Scene]:
    """Start what an attack needs."""
    command = list(COMMANDS[options.server])
    if attack.files:
        command = ["sh", "-c", f'ulimit -n {attack.files}; exec "$@"', "sh", *command]
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(start_gateway(env=options.env(attack), command=command))
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="torment-")))
        port = stack.enter_context(_front(options.front, server, directory))
        scene = Scene(server, port, options, attack.source)
        stack.callback(scene.close)
        yield scene


@contextlib.contextmanager
def _front(front: str, server: Server, directory: Path) -> Iterator[int]:
    """Start a proxy before a gateway; gives the port that clients connect to."""
    if front == "none":
        yield server.port
        return
    sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests/deploy")]
    from proxies import start_haproxy, start_nginx  # type: ignore[import-not-found]

    if front == "nginx":
        with start_nginx(directory, f"127.0.0.1:{server.port}") as port:
            yield port
    else:
        other = f"127.0.0.1:{free_port()}"
        with start_haproxy(directory, f"127.0.0.1:{server.port}", other) as proxy:
            proxy.wait_for_status("a", "UP")
            yield proxy.port
