"""Rates of streams: counted while somebody looks, told of whole windows, bounded."""

from __future__ import annotations

from rango_gevent.admin import rates
from rango_gevent.admin.rates import Rate, RateMeter
from rango_gevent.hub.stream import Batch, Stream
from rango_gevent.model import Event


class Scene:
    """A meter, its clock, and whether it was told to stop."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.stops = 0
        self.meter = RateMeter(lambda: self.now_s, self._stop)

    def _stop(self) -> None:
        self.stops += 1

    def gather(self, name: str, events: int, size: int = 10) -> None:
        """Have the dispatcher gather events of a stream."""
        waiting = [Event(1, b"x" * size, 0, 0.0)] * events
        stream = Stream("public", name, name)
        self.meter.count([Batch(stream, waiting, events * size, {})])


def test_a_whole_window_is_told() -> None:
    """Events and bytes a second; before the first window is over there is nothing."""
    scene = Scene()
    assert scene.meter.read() == {}
    scene.gather("a.x", 30)
    scene.gather("a.x", 10)
    scene.gather("b.x", 4)
    scene.now_s += 1
    assert scene.meter.read() == {}
    scene.now_s += 3
    assert scene.meter.read() == {("public", "a.x"): Rate(10, 100), ("public", "b.x"): Rate(1, 10)}
    scene.now_s += 1
    assert ("public", "a.x") in scene.meter.read(), "who else looks is told the same"
    scene.now_s += 2
    assert scene.meter.read() == {}


def test_counting_ends_when_nobody_looks() -> None:
    """What was counted then is let go, and a later look begins anew."""
    scene = Scene()
    scene.meter.read()
    scene.gather("a.x", 1)
    scene.now_s += 11
    scene.gather("a.x", 1)
    assert scene.stops == 1
    assert scene.meter.read() == {}
    scene.gather("a.x", 6)
    scene.now_s += 2
    assert scene.meter.read() == {("public", "a.x"): Rate(3, 30)}


def test_streams_of_a_window_are_bounded() -> None:
    """Names beyond are not seen; those that are known go on."""
    scene = Scene()
    scene.meter.read()
    for n in range(rates._MOST + 10):
        scene.gather(f"s{n}.x", 1)
    scene.gather("s0.x", 1)
    scene.now_s += 2
    found = scene.meter.read()
    assert len(found) == rates._MOST
    assert found["public", "s0.x"].events == 1
