"""run.py [CASE ...]: run Autobahn's testsuite against the gateway's WebSocket layer.

The suite is the client; the server is tests/conformance/echo.py, the gateway's own delivery
layer with an echo on top. A CASE is a case or a pattern such as ``7.*``; all by default.
Sections 12 and 13 are about compression and get a server that takes it.

Exit status: 0 all is well; 1 a case failed; 2 the suite did not run to its end; 3 there is no
CPython 2.7 for it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Iterator

sys.path.insert(0, str(Path(__file__).resolve().parent))
import report  # noqa: E402 - found beside this file

_HERE = Path(__file__).resolve().parent
_ROOT = _HERE.parent.parent
_AGENT = "rango_gevent"
_PLAIN = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*"]
_COMPRESSED = ["12.*", "13.*"]
_START_TIMEOUT_S = 20.0


def main() -> int:
    """Install what is missing, run the cases, print what came out."""
    parser = argparse.ArgumentParser(description="Run Autobahn's testsuite.")
    parser.add_argument("cases", nargs="*", metavar="CASE", default=_PLAIN + _COMPRESSED)
    parser.add_argument(
        "--limit", type=float, default=3600, metavar="S", help="end after S seconds (%(default)s)"
    )
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # ends what runs below
    home = Path(os.environ.get("CONFORMANCE_DIR") or "~/.cache/rango_gevent-conformance")
    home = home.expanduser().resolve()
    installed = subprocess.run(
        [str(_HERE / "install"), str(home)],
        env={"PYTHON": sys.executable, **os.environ},
        check=False,
    )
    if installed.returncode:
        return installed.returncode
    deadline = time.monotonic() + arguments.limit
    compressed = [case for case in arguments.cases if case.startswith(("12.", "13."))]
    plain = [case for case in arguments.cases if case not in compressed]
    status = 0
    for name, cases in (("plain", plain), ("compressed", compressed)):
        if cases:
            status = max(status, _run(home, name, cases, deadline))
    return status


def _run(home: Path, name: str, cases: list[str], deadline: float) -> int:
    """Run cases against one server and return the exit status."""
    directory = home / "reports" / name
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "index.json").unlink(missing_ok=True)
    print(f"{name}: {' '.join(cases)}", flush=True)
    started = time.monotonic()
    with _echo_server(directory / "server.log", name == "compressed") as port:
        planned = _run_suite(home, directory, cases, port, deadline - started)
    results = report.read_cases(directory, _AGENT)
    if not planned or len(results) != planned:
        log = directory / "wstest.log"
        print(f"  INCOMPLETE: {len(results)} of {planned} cases ran, see {log}", file=sys.stderr)
        return 2
    print("\n".join(report.lines(results, time.monotonic() - started)))
    print(f"  report: {directory / 'index.html'}", flush=True)
    return int(any(report.problem(case, result) for case, result in results.items()))


@contextlib.contextmanager
def _echo_server(log_path: Path, compression: bool) -> Iterator[int]:
    """Run the echo server for the length of a ``with`` block and yield its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    command = [sys.executable, "-m", "tests.conformance.echo", "--port", str(port)]
    command += ["--compression"] * compression
    with open(log_path, "wb") as log:
        server = subprocess.Popen(command, cwd=_ROOT, stdout=log, stderr=subprocess.STDOUT)
    try:
        _wait_for_port(server, port, log_path)
        yield port
    finally:
        server.kill()  # an echo has nothing to say goodbye to
        server.wait()


def _wait_for_port(server: subprocess.Popen[bytes], port: int, log_path: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if server.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"conformance: the echo server does not start:\n{log_path.read_text()}")
        time.sleep(0.05)


def _run_suite(home: Path, directory: Path, cases: list[str], port: int, limit_s: float) -> int:
    """Run the suite and return how many cases it said it would run.

    It has no time limit of its own, and its exit status is always 0.
    """
    spec = {
        "outdir": str(directory),
        "servers": [{"agent": _AGENT, "url": f"ws://127.0.0.1:{port}/"}],
        "cases": cases,
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    (directory / "spec.json").write_text(json.dumps(spec))
    command = [str(home / "py27/bin/wstest"), "-m", "fuzzingclient"]
    command += ["-s", str(directory / "spec.json")]
    with (
        open(directory / "wstest.log", "wb") as log,
        contextlib.suppress(subprocess.TimeoutExpired),
    ):
        subprocess.run(
            command,
            cwd=directory,
            stdout=log,
            stderr=subprocess.STDOUT,
            timeout=max(1.0, limit_s),
            check=False,
        )
    said = re.search(
        r"will run (\d+) test cases", (directory / "wstest.log").read_text("utf-8", "replace")
    )
    return int(said[1]) if said else 0


sys.exit(main())
