"""The one who notices that the machine stands still."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from patched import ROOT

_LOOKS = """
import sys
sys.path.insert(0, sys.argv[1])
from stillness import Stillness
with Stillness() as still:
    for line in sys.stdin:
        if line == "mark\\n":
            still.mark()
        print(still.worst_s, flush=True)
"""


def test_a_process_that_is_stopped_notices() -> None:
    """To what it was stopped for, until it begins anew."""
    with subprocess.Popen(
        [sys.executable, "-c", _LOOKS, str(ROOT / "tests")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:

        def ask(order: str = "") -> float:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(order + "\n")
            process.stdin.flush()
            return float(process.stdout.readline())

        ask()  # it runs
        os.kill(process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        time.sleep(0.5)  # the length of the stop
        os.kill(process.pid, signal.SIGCONT)
        assert ask() > 0.45
        deadline = time.monotonic() + 60
        while ask("mark") > 0.45:
            assert time.monotonic() < deadline
        process.kill()
