"""Queues with their policies, one by one and as one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rango_gevent.client.buffers import POLICIES, Buffer, Merged
from rango_gevent.client.model import Event, Overflow


def event(number: int) -> Event:
    """Return an event that tells itself from others."""
    return Event("a.b", str(number), float(number))


def filled(policy: str, size: int, count: int) -> Buffer:
    """Return a buffer that was offered so many events."""
    buffer = Buffer("a.b", policy, size)
    for number in range(count):
        buffer.offer(number, event(number))
    return buffer


def bodies(buffer: Buffer) -> list[str]:
    """Take everything."""
    found = []
    while True:
        taken = buffer.take()
        if taken is None:
            return found
        found.append(taken.body)


@pytest.mark.parametrize(
    ("policy", "kept", "dropped"),
    [("drop-oldest", ["2", "3", "4"], 2), ("latest", ["4"], 4), ("block", ["0", "1", "2"], 0)],
)
def test_what_a_full_queue_keeps(policy: str, kept: list[str], dropped: int) -> None:
    """Each policy has its own mind about five events in a queue of three."""
    buffer = filled(policy, 3, 5)
    assert bodies(buffer) == kept
    assert buffer.dropped == dropped


def test_block_takes_no_event_and_tells() -> None:
    """Whoever offers has to come again, and then finds room."""
    buffer = filled("block", 1, 1)
    assert not buffer.offer(1, event(1))
    buffer.take()
    assert buffer.offer(1, event(1))


def test_error_tells_once_where_events_are_missing() -> None:
    """After those that were there, and then goes on."""
    buffer = filled("error", 2, 5)
    assert [buffer.take(), buffer.take()] == [event(0), event(1)]
    with pytest.raises(Overflow, match="3 events found a full queue") as error:
        buffer.take()
    assert (error.value.stream, error.value.dropped, buffer.dropped) == ("a.b", 3, 3)
    assert buffer.offer(9, event(9))
    assert bodies(buffer) == ["9"]


def test_error_keeps_the_order() -> None:
    """While the error was not heard nothing newer is taken in, even where there is room."""
    buffer = filled("error", 1, 2)
    buffer.take()
    buffer.offer(2, event(2))
    with pytest.raises(Overflow, match="2 events"):
        buffer.take()


@pytest.mark.parametrize(("policy", "size"), [("drop", 1), ("block", 0)])
def test_what_is_no_queue(policy: str, size: int) -> None:
    """A policy by another name, or no room at all."""
    with pytest.raises(ValueError, match=r"policy|size"):
        Buffer("a.b", policy, size)


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.booleans())), st.data())
def test_many_as_one(steps: list[tuple[int, bool, bool]], data: st.DataObject) -> None:
    """Events come in order of arrival and each once, also when some are taken one by one."""
    buffers = [Buffer(str(n), data.draw(st.sampled_from(POLICIES[:3])), 4) for n in range(4)]
    merged, taken = Merged(), []
    for number, (which, takes, alone) in enumerate(steps):
        buffer = buffers[which]
        if buffer.offer(number, event(number)):
            merged.added(buffer)
        if takes and alone:
            one = buffer.take()
            taken += [] if one is None else [int(one.body)]
        elif takes:
            found = merged.take()
            assert found is not None
            waiting = [one.waiting[0][0] for one in buffers if one.waiting]
            assert int(found[1].body) < min(waiting, default=len(steps))
            taken.append(int(found[1].body))
    rest = []
    while (found := merged.take()) is not None:
        rest.append(int(found[1].body))
    assert rest == sorted(rest)
    assert len({*taken, *rest}) == len(taken) + len(rest)


def test_a_buffer_is_forgotten() -> None:
    """What was unsubscribed comes no more."""
    merged, one, other = Merged(), Buffer("a", "block", 9), Buffer("b", "block", 9)
    for number, buffer in enumerate((one, other)):
        buffer.offer(number, event(number))
        merged.added(buffer)
    merged.forget(one)
    assert merged.take() == (other, event(1))
    assert merged.take() is None
