"""The gateway's life without a network: what ends, ends, whatever went wrong before."""

from __future__ import annotations

from patched import run_patched

_PARTS = """
import json
import gevent
from rango_gevent.auth.keys import generate, load_public_key
from rango_gevent.gateway import Gateway
from rango_gevent.settings import load

ENVIRON = {"RANGO_AMQP_URL": "memory://", "RANGO_METRICS_PORT": "0", "RANGO_DRAIN_S": "0"}
KEY = load_public_key(generate()[1], "test")

def settings(**more):
    return load({**ENVIRON, **more}).settings
"""


def test_stopping_goes_on_after_a_drain_that_failed() -> None:
    """Who waits for a drain hears of its end, however it ended."""
    found = run_patched(
        _PARTS
        + """
class Failing(Gateway):
    def _tell_restart(self, clients):
        raise RuntimeError("on purpose")

gateway = Failing(settings(), KEY)
gateway.start()
try:
    gateway.drain()
except RuntimeError as error:
    failure = str(error)
with gevent.Timeout(10, False):
    gateway.stop()
    print(json.dumps({"failure": failure, "stopped": gateway.health()}))
"""
    )
    assert found == {"failure": "on purpose", "stopped": "not started"}
