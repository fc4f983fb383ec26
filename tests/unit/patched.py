"""Scripts in processes of their own, with the standard library patched by gevent.

The test's process is never patched: what needs it runs here, bounded in time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
_PATCH = "from gevent import monkey\nmonkey.patch_all()\n"


def run_patched(script: str, timeout_s: float = 90) -> Any:
    """Run a script and return what it printed last, which must be JSON.

    Raises:
        AssertionError: it failed, or did not end in time.
    """
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter
            [sys.executable, "-c", _PATCH + script],
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise AssertionError(f"no end in time: {error.stdout!r} {error.stderr!r}") from None
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
