"""A worker's state at the size of a full one: in slices, and of bounded size."""

from __future__ import annotations

from patched import run_patched

_SCENE = """
import json
import time
import gevent
from rango_gevent.admin import reading
from rango_gevent.admin.merging import ROWS, TOLD
from rango_gevent.admin.rates import Rate
from rango_gevent.auth.keys import generate, load_public_key
from rango_gevent.gateway import Gateway
from rango_gevent.settings import load

ENVIRON = {"RANGO_AMQP_URL": "memory://", "RANGO_METRICS_PORT": "0", "RANGO_DRAIN_S": "0"}
gateway = Gateway(load(ENVIRON).settings, [load_public_key(generate()[1], "test")])
hub = gateway.hub


class Subscriber:
    uid, role, notices = None, "", False

    def __init__(self):
        self.streams = {}


def subscribe(count, of_each, prefix):
    for n in range(count):
        hub.subscribe(Subscriber(), [f"{prefix}{n}x{m}.t" for m in range(of_each)])
"""


def test_a_hundred_thousand_topics_hold_up_nobody() -> None:
    """Others have their turn again and again, and the answer stays small."""
    found = run_patched(
        _SCENE
        + """
subscribe(1000, 100, "s")
for n in range(20):
    hub.subscribe(Subscriber(), ["s7x7.t"])
for n in range(5000):
    hub.publish(f"public.m{n}.ob-snap", b'{"sequence":1}', time.time() - n, 0)
turns = []
slices = []
give_way = reading.give_way


def noted():
    slices.append(time.thread_time() - began[0])
    give_way()
    began[0] = time.thread_time()


def others():
    while True:
        turns.append(1)
        gevent.sleep(0)


reading.give_way = noted
other = gevent.spawn(others)
rates = {("public", f"s{n}x7.t"): Rate(n, n) for n in range(1000)}
began = [time.thread_time()]
state = reading.read(gateway, rates, 0)
other.kill()
print(json.dumps({
    "turns": len(turns),
    "longest_s": max(slices),
    "size": len(json.dumps(state)),
    "lists": [len(state[name]) for name in ("streams", "rates", "books")],
    "top": state["streams"][0],
    "busiest": state["rates"][0]["name"],
    "oldest": state["books"][0]["name"],
    "total": state["worker"]["streams"],
}))
"""
    )
    assert found["total"] == 100_000
    assert found["turns"] >= 5
    assert found["longest_s"] < 0.02, "1 ms, and what a busy machine adds"
    assert found["lists"] == [100, 100, 50]
    assert found["size"] < 100_000
    assert found["top"]["name"] == "s7x7.t"
    assert found["top"]["subscribers"] == 21
    assert found["busiest"] == "s999x7.t"
    assert found["oldest"] == "m4999.ob-inc"


def test_a_book_that_is_stale_comes_first() -> None:
    """With the time since; it has no newest event any more."""
    found = run_patched(
        _SCENE
        + """
for name in "abc":
    hub.publish(f"public.{name}.ob-snap", b'{"sequence":1}', time.time() - 100, 0)
hub.limits = hub.limits._replace(book_increments=1)
for n in range(4):
    hub.publish("public.b.ob-inc", b"{}", time.time(), 0)
print(json.dumps(reading.read(gateway, {}, 0)["books"]))
"""
    )
    assert [book["name"] for book in found][0] == "b.ob-inc"
    assert found[0]["stale_s"] is not None
    assert found[0]["age_s"] is None
    assert found[1]["stale_s"] is None
    assert 99 < found[1]["age_s"] < 130


def test_counting_rates_stops_by_itself() -> None:
    """The dispatcher has a watcher while somebody looks, and none ten seconds later."""
    found = run_patched(
        _SCENE
        + """
from rango_gevent.admin.requests import Wanted
worker = gateway.admin._worker
clock = [time.monotonic()]
worker._rates._now = lambda: clock[0]
hub.subscribe(Subscriber(), ["a.t"])
before = gateway.dispatcher.watcher is None
worker.do(Wanted("overview"))
during = gateway.dispatcher.watcher is not None
clock[0] += 11
class Outlet:
    ready = True
    def offer(self, segments):
        return True
for subscriber in hub.streams["public"]["a.t"].subscribers:
    subscriber.outlet = Outlet()
hub.publish("public.a.t", b"1", time.time(), 0)
gateway.dispatcher.serve_all()
print(json.dumps([before, during, gateway.dispatcher.watcher is None]))
"""
    )
    assert found == [True, True, True]
