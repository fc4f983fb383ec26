"""The gateway's life without a network: what ends, ends, whatever went wrong before."""

from __future__ import annotations

import pytest
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

gateway = Failing(settings(), [KEY])
gateway.start()
try:
    gateway.drain()
except RuntimeError as error:
    failure = str(error)
with gevent.Timeout(60, False):
    gateway.stop()
    print(json.dumps({"failure": failure, "stopped": gateway.health()}))
"""
    )
    assert found == {"failure": "on purpose", "stopped": "not started"}


def test_the_first_line_says_what_runs() -> None:
    """Version, ports, exchange and the kind of key: what a report of a fault begins with."""
    found = run_patched(
        _PARTS
        + """
import io
from rango_gevent import __version__, logs
stream = io.StringIO()
logs.configure("info", "text", stream)
gateway = Gateway(settings(RANGER_PORT="8088", RANGO_EXCHANGE="my.events"), [KEY])
gateway.start()
gateway.stop()
print(json.dumps([stream.getvalue().splitlines()[0], __version__, KEY.fingerprint]))
"""
    )
    line, version, fingerprint = found
    assert line.endswith(
        f" info rango_gevent {version}: port 8088, exchange my.events, Ed25519 key {fingerprint}, "
        "no metrics"
    )


def test_a_reload_says_what_changed() -> None:
    """Names and values, secrets without; what needs a restart is told as that, and stays."""
    found = run_patched(
        _PARTS
        + """
import io
from rango_gevent import logs
stream = io.StringIO()
logs.configure("info", "text", stream)
gateway = Gateway(settings(), [KEY])
gateway.reload(settings(), [KEY])
other = load_public_key(generate()[1], "test")
gateway.reload(settings(RANGO_MAX_STREAMS="7", RANGO_EXCHANGE="x", RANGO_RBAC_OPS="a"), [other])
print(json.dumps({
    "log": stream.getvalue(), "key": other.fingerprint, "exchange": gateway.settings.exchange,
}))
"""
    )
    assert "settings are reloaded: nothing has changed\n" in found["log"]
    assert "RANGO_EXCHANGE needs a restart to change\n" in found["log"]
    told = f"RANGO_MAX_STREAMS=7, RANGO_RBAC_OPS=a, Ed25519 key {found['key']}"
    assert f"settings are reloaded: {told}\n" in found["log"]
    assert found["exchange"] == "peatio.events.ranger"


@pytest.mark.parametrize(("switch", "is_there"), [("off", False), ("on", True)])
def test_a_dialect_that_is_off_is_not_imported(switch: str, is_there: bool) -> None:
    """Nor what it alone needs; and its path is as any other."""
    found = run_patched(
        _PARTS
        + f"""
import sys
gateway = Gateway(settings(RANGO_VIABTC="{switch}"), [KEY])
gateway.start()
gateway.stop()
ours = [name for name in sys.modules if name.startswith("rango_gevent.")]
print(json.dumps(sorted({{name.split(".")[1] for name in ours}} & {{"viabtc", "rpc"}})))
"""
    )
    assert found == (["rpc", "viabtc"] if is_there else [])
