"""The client stands alone: it needs ``websockets`` and ``ujson``, and nothing of the server."""

from __future__ import annotations

import subprocess
import sys

_BLOCKED = (
    "gevent", "geventwebsocket", "kombu", "amqp", "gunicorn", "msgspec", "jwt", "cryptography",
    "prometheus_client", "celery",
)  # fmt: skip
_PROGRAM = """
import sys
for name in {blocked}:
    sys.modules[name] = None  # an import of it fails from here on
import rango_gevent.client
rango_gevent.client.StreamClient("ws://127.0.0.1:1").close()
ours = {{name.split(".")[1] for name in sys.modules if name.startswith("rango_gevent.")}}
print(sorted(ours))
"""


def test_it_needs_nothing_of_the_server() -> None:
    """Without gevent, kombu, gunicorn and all others of the server it is imported and made."""
    ended = subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(blocked=_BLOCKED)],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert ended.stderr == ""
    assert ended.stdout == "['backoff', 'client', 'errors', 'protocol']\n"
