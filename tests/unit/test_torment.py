"""The torment's pure parts: verdicts, what ss prints, frames, and the table of attacks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rango_gevent.protocol import frames
from tests.torment.attacks import ATTACKS, BASELINE, Attack, by_name
from tests.torment.crowd import whole_frames
from tests.torment.scene import Options
from tests.torment.target import Target, subscribe_frames
from tests.torment.verdict import Row, judge, longest_wait_ms, send_memory_bytes, table

_SECURITY = (Path(__file__).resolve().parents[2] / "docs/SECURITY.md").read_text()
_SS = """\
0 4096 127.0.0.1:8080 127.0.1.1:54068 skmem:(r0,rb131072,t4224,tb3939840,f3456,w4736,o0,bl0,d0)
0 0    127.0.0.1:8080 127.0.1.2:54070 skmem:(r0,rb131072,t0,tb2626560,f0,w0,o0,bl0,d0)
"""

each_attack = pytest.mark.parametrize("attack", ATTACKS[1:], ids=lambda attack: attack.name)


@pytest.mark.parametrize(
    ("measured", "bounds", "problems"),
    [
        ({"latency_ms": 30.0}, {"latency_ms": 30}, []),
        ({"latency_ms": 31.0}, {"latency_ms": 30}, ["latency_ms 31 > 30"]),
        ({"latency_ms": 31.0, "machine_ms": 2.0}, {"latency_ms": 30}, []),
        ({"latency_ms": 31.0, "machine_ms": 0.5, "baseline_ms": 2.0}, {"latency_ms": 30}, []),
        ({"latency_ms": 999.0, "baseline_ms": 1e6}, {"latency_ms": 30}, ["latency_ms 999 > 30"]),
        ({"memory_mb": 31.0, "machine_ms": 2.0}, {"memory_mb": 30}, ["memory_mb 31 > 30"]),
        ({}, {"series": 5}, ["series: not measured, bound 5"]),
        ({"lost": 1.0, "closed": 0.0}, {"lost": 0, "closed": 0}, ["lost 1 > 0"]),
        ({"anything": 1e9}, {}, []),
    ],
)
def test_verdict(measured: dict[str, float], bounds: dict[str, float], problems: list[str]) -> None:
    """A bound may be reached and not passed; only latencies get a busy machine's part."""
    assert judge(measured, bounds) == problems


def test_the_longest_wait_for_a_processor() -> None:
    """That of one process, not of all; who was not there at the first look has no wait."""
    assert longest_wait_ms({1: 1.0, 2: 5.0}, {1: 1.25, 2: 5.5, 3: 9.0}) == 500
    assert longest_wait_ms({1: 1.0}, {2: 5.0}) == 0
    assert longest_wait_ms({1: 1.0}, {}) == 0


def test_send_memory() -> None:
    """The memory of queued segments is read for each socket of ss's output."""
    assert send_memory_bytes(_SS) == [4736, 0]
    assert send_memory_bytes("") == []


def test_table() -> None:
    """A row of the table is aligned under its heads; what was not measured is a dash."""
    head, fine, bad = table(
        [
            Row("a", {"latency_ms": 1.24, "memory_mb": 0.0, "machine_ms": 2.0}, []),
            Row("long-name", {}, ["lost 1 > 0", "closed 2 > 0"]),
        ]
    ).splitlines()
    assert head.split() == ["attack", "good", "ms", "memory", "MB", "machine", "ms", "verdict"]
    assert fine.split() == ["a", "1.2", "0.0", "2.0", "ok"]
    assert bad.split("  ")[-1] == "worse: lost 1 > 0; closed 2 > 0"
    assert head.index("verdict") == fine.index("ok") == bad.index("worse")


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_frames_are_found(size: int) -> None:
    """Whole frames of all three forms of length are found, and one that is cut is not."""
    data = bytearray(frames.text(b"x" * size) + frames.ping() + frames.text(b"y" * size))
    found = [(opcode, bytes(data[start:end])) for opcode, start, end in whole_frames(data)]
    assert found == [(1, b"x" * size), (9, b""), (1, b"y" * size)]
    assert len(list(whole_frames(data[:-1]))) == 2
    assert list(whole_frames(data[:1])) == []


def test_requests_fit() -> None:
    """A thousand long names are asked for in messages that the gateway takes."""
    names = [f"{number}." + '"' * 250 for number in range(1000)]
    assert all(len(request) <= 8192 for request in subscribe_frames(names))


def test_names_are_unique() -> None:
    """Each attack can be asked for by its name."""
    assert [by_name(attack.name) for attack in ATTACKS] == list(ATTACKS)
    assert ATTACKS[0] is BASELINE


def test_bounds_of_a_form() -> None:
    """What is allowed for each client counts the clients of the form that is run."""
    attack = Attack(
        "a", "", Target.hold, 30, 10, 2, {"series": 5}, size={"clients": 10}, short={"clients": 3}
    )
    assert attack.bounds(False)["memory_mb"] == 30
    assert attack.bounds(True)["memory_mb"] == 16
    assert attack.bounds(True)["series"] == 5
    assert attack.sizes(True) == {"clients": 3}


def test_options_become_settings() -> None:
    """What is asked for on the command line reaches the gateway, over the attack's own settings."""
    attack = Attack("a", "", Target.hold, 30, env={"RANGO_MAX_STREAMS": "7"})
    plain = Options().env(attack)
    assert plain["RANGO_MAX_STREAMS"] == "7"
    assert plain["RANGO_SLOW_CLIENT"] == "close"
    assert not plain.keys() & {"RANGO_WORKERS", "RANGO_COMPRESSION", "RANGO_TRUSTED_PROXIES"}
    options = Options("workers", "nginx", "latest", compression=True)
    assert options.env(attack).items() >= {
        ("RANGO_WORKERS", "2"),
        ("RANGO_COMPRESSION", "on"),
        ("RANGO_TRUSTED_PROXIES", "127.0.0.1"),
        ("RANGO_SLOW_CLIENT", "latest"),
    }


@each_attack
def test_every_attack_is_in_the_docs(attack: Attack) -> None:
    """docs/SECURITY.md has a row for each attack, with its bounds."""
    row = re.search(rf"^\| `{attack.name}`.*$", _SECURITY, re.MULTILINE)
    assert row is not None
    bound = row.group().split(" | ")[-1]
    if attack.latency_ms is not None:
        assert f"{attack.latency_ms:g} ms" in bound
    assert f"{attack.memory_mb:g} MB" in bound
