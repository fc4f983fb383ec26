"""What only time can tell: not ready for too long, failed and well since. The clock is a number."""

from __future__ import annotations

from typing import Any

from patched import run_patched

_PARTS = """
import io, json
from rango_gevent import logs
from rango_gevent.alerts.watch import Watch
from rango_gevent.settings import load
stream = io.StringIO()
logs.configure("fatal", "text", stream)
now, problem, restarts = [0.0], [""], {}
watch = Watch(load({}).settings, lambda: problem[0], restarts, lambda: now[0])
def at(second):
    now[0] = second
    watch.look()
    return [line.partition(" ")[2] for line in stream.getvalue().splitlines()]
"""


def seen(script: str) -> Any:
    """Run a script over the parts and return what it printed."""
    return run_patched(_PARTS + script)


def test_not_ready_is_told_after_its_time_and_once() -> None:
    """And that it is over, even where the log has no other lines than CRITICAL ones."""
    found = seen(
        """
problem[0] = "broker: gone"
before = [at(0), at(29.9)]
after = [at(30), at(60)][-1]
problem[0] = ""
print(json.dumps([before, after, at(75), at(80)]))
"""
    )
    told = "fatal not ready for 30 s: broker: gone"
    over = "info ready again after 75 s"
    assert found == [[[], []], [told], [told, over], [told, over]]


def test_a_short_break_is_not_told() -> None:
    """Each one counts from its own beginning."""
    found = seen(
        """
for second in range(0, 200, 20):
    problem[0] = "broker: gone" if second % 40 else ""
    lines = at(second)
print(json.dumps(lines))
"""
    )
    assert found == []


def test_a_gateway_that_ends_is_not_ready_again() -> None:
    """It did not recover."""
    found = seen(
        """
problem[0] = "broker: gone"
at(0), at(30)
problem[0] = None
print(json.dumps(at(40)))
"""
    )
    assert found == ["fatal not ready for 30 s: broker: gone"]


def test_a_greenlet_that_runs_again_is_told() -> None:
    """Ten seconds after it failed last."""
    found = seen(
        """
restarts["dispatcher"] = 1
at(0)
restarts["dispatcher"] = 2
print(json.dumps([at(5), at(14.9), at(15), at(100)]))
"""
    )
    over = "info greenlet dispatcher has run for 10 s since"
    assert found == [[], [], [over], [over]]


def test_a_greenlet_that_fails_is_critical() -> None:
    """With its traceback; it is started again, and counted."""
    found = run_patched(
        """
import io, json
import gevent
from rango_gevent import logs
from rango_gevent.auth.keys import generate, load_public_key
from rango_gevent.gateway import Gateway
from rango_gevent.settings import load
stream = io.StringIO()
logs.configure("fatal", "text", stream)
environ = {"RANGO_AMQP_URL": "memory://", "RANGO_METRICS_PORT": "0"}
gateway = Gateway(load(environ).settings, [load_public_key(generate()[1], "test")])
def fail():
    raise RuntimeError("on purpose")
gateway.spawn("example", fail)
with gevent.Timeout(60):
    while not gateway.restarts:
        gevent.sleep(0)
gateway.stop()
print(json.dumps([stream.getvalue(), dict(gateway.restarts)]))
"""
    )
    text, restarts = found
    assert " fatal greenlet example failed\n" in text
    assert "RuntimeError: on purpose" in text
    assert restarts == {"example": 1}
