"""Positions in a log: the same for all who read it, and another one wherever it differs."""

from __future__ import annotations

from typing import NamedTuple
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rango_gevent.model import make_position
from rango_gevent.source.amqp.chain import BLOCK, GAP, OTHER, Chain, block_of

LENGTH = 5 * BLOCK


class Handed(NamedTuple):
    """What was handed on, and which breaks came at which event."""

    events: list[tuple[bytes, int]]
    breaks: list[tuple[str, int]]


def reading() -> tuple[Chain, Handed]:
    """Return a chain and what it does."""
    handed = Handed([], [])
    chain = Chain(
        lambda key, body, at_s, position: handed.events.append((body, position)),
        lambda why: handed.breaks.append((why, len(handed.events))),
    )
    return chain, handed


def bodies(length: int, life: str = "") -> dict[int, bytes]:
    """Return a log: offset to body; some offsets are the broker's own."""
    return {n: f"{life}{n}".encode() for n in range(length) if n % 199 != 198 and n != 2 * BLOCK}


def read(chain: Chain, log: dict[int, bytes], start: int) -> None:
    """Read a log from an offset on."""
    for offset, body in log.items():
        if offset >= start:
            chain.take("k", body, 0.0, offset)


def by_definition(log: dict[int, bytes], offset: int) -> int:
    """Return a position, computed from the whole block at once."""
    block = b"".join(log[n] for n in range(block_of(offset), offset + 1) if n in log)
    return make_position(offset, crc32(block))


@settings(deadline=None)
@given(start=st.integers(0, LENGTH - 1))
def test_all_readers_compute_the_same(start: int) -> None:
    """Whoever begins at the start of a block, wherever that is."""
    log = bodies(LENGTH)
    chain, handed = reading()
    read(chain, log, block_of(start))
    wanted = [(log[n], by_definition(log, n)) for n in log if n >= block_of(start)]
    assert handed == (wanted, [])


def test_who_begins_within_a_block_knows_no_positions_of_it() -> None:
    """As where the log was trimmed; the next block is known from its first event on."""
    log = bodies(LENGTH)
    chain, handed = reading()
    read(chain, log, 100)
    assert {position for _, position in handed.events[: BLOCK - 101]} == {0}
    after = [(log[n], by_definition(log, n)) for n in log if n >= BLOCK]
    assert handed.events[-len(after) :] == after
    assert handed.breaks == []


@settings(deadline=None)
@given(last=st.integers(0, LENGTH - 2))
def test_who_comes_back_to_the_same_log_gets_what_follows(last: int) -> None:
    """Neither what was there already, nor a break."""
    log = bodies(LENGTH)
    chain, handed = reading()
    read(chain, {n: body for n, body in log.items() if n <= last}, 0)
    start = chain.join()
    assert start == block_of(max(n for n in log if n <= last))
    read(chain, log, start)
    assert handed == ([(log[n], by_definition(log, n)) for n in log], [])


@settings(deadline=None)
@given(
    last=st.integers(BLOCK, LENGTH - 2), changed=st.integers(0, 200), stops=st.integers(0, BLOCK)
)
def test_who_comes_back_to_another_log_is_told(last: int, changed: int, stops: int) -> None:
    """Also when a connection was lost before the last event had come once more."""
    log = bodies(LENGTH)
    chain, handed = reading()
    read(chain, {n: body for n, body in log.items() if n <= last}, 0)
    last = chain.last
    log.update({n: b"other" for n in log if n >= last - changed})
    start = chain.join()
    read(chain, {n: body for n, body in log.items() if n < min(last, start + stops)}, start)
    assert chain.join() == start
    count = len(handed.events)
    read(chain, log, start)
    assert handed.breaks == [(OTHER, count)]
    following = [(log[n], by_definition(log, n)) for n in log if n > last]
    assert handed.events[count:] == following


def test_who_comes_back_to_a_trimmed_log_is_told() -> None:
    """What is gone is a gap; positions are known again with the next block."""
    log = bodies(LENGTH)
    chain, handed = reading()
    read(chain, {n: body for n, body in log.items() if n <= 300}, 0)
    count = len(handed.events)
    chain.join()
    read(chain, log, 700)
    assert handed.breaks == [(GAP, count)]
    assert handed.events[-1] == (log[LENGTH - 1], by_definition(log, LENGTH - 1))


@pytest.mark.parametrize(("jump", "why"), [(2, GAP), (1000, GAP), (-5, OTHER), (-300, OTHER)])
def test_a_jump_is_told(jump: int, why: str) -> None:
    """One offset may be missing, the broker takes it where a segment rolls; not two."""
    chain, handed = reading()
    for offset in range(600):
        chain.take("k", b"x", 0.0, offset)
    chain.take("k", b"y", 0.0, 600 + jump)
    assert handed.breaks == [(why, 600)]
    assert handed.events[-1][0] == b"y"


@settings(deadline=None)
@given(size=st.integers(1, 50), cuts=st.sets(st.integers(1, 49)), offset=st.integers(500, 530))
def test_a_body_that_is_not_collected_is_a_part_of_the_chain(
    size: int, cuts: set[int], offset: int
) -> None:
    """Readers with other bounds compute the same."""
    log = {n: b"x" * size if n == offset else str(n).encode() for n in range(BLOCK, 600)}
    chain, handed = reading()
    for n in log:
        if n != offset:
            chain.take("k", log[n], 0.0, n)
            continue
        chain.skip(n, size)
        edges = [0, *sorted(cut for cut in cuts if cut < size), size]
        for start, end in zip(edges, edges[1:]):
            chain.skip_part(log[n][start:end])
    wanted = [(log[n], by_definition(log, n)) for n in log if n != offset]
    assert handed == (wanted, [])
    assert chain.count == len(log)


@pytest.mark.parametrize("offset", [300, 512])
def test_half_a_body_that_is_not_collected_changes_nothing(offset: int) -> None:
    """A connection that ends in it is followed by the same log."""
    log = {n: str(n).encode() for n in range(offset)}
    chain, handed = reading()
    read(chain, log, 0)
    chain.skip(offset, 10)
    chain.skip_part(b"12345")
    start = chain.join()
    assert start == block_of(offset - 1)
    read(chain, log, start)
    assert handed.breaks == []
    assert len(handed.events) == offset
    assert chain.position == by_definition(log, offset - 1)


def test_events_up_to_an_offset_can_pass_by() -> None:
    """Positions behind them are right."""
    log = bodies(LENGTH)
    chain, handed = reading()
    chain.begin(700)
    read(chain, log, block_of(700))
    assert handed == ([(log[n], by_definition(log, n)) for n in log if n > 700], [])
