"""docs/MARKETDATA.md against the tables of settings and metrics, and the settings themselves."""

from __future__ import annotations

import argparse
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from rango_gevent.commands import marketdata_options
from rango_gevent.commands.marketdata import midnight_in
from rango_gevent.commands.marketdata_options import Options, load, options
from rango_gevent.errors import ConfigError
from rango_gevent.marketdata import metrics
from rango_gevent.marketdata.worker import ClockWatch
from rango_gevent.settings import load as load_settings

_DOCS = Path(__file__).resolve().parents[2].joinpath("docs", "MARKETDATA.md").read_text()


def parsed(*words: str) -> argparse.Namespace:
    """Return arguments as the command gets them."""
    parser = argparse.ArgumentParser()
    marketdata_options.add_arguments(parser)
    return parser.parse_args(words)


def test_every_setting_and_metric_is_in_the_docs() -> None:
    """With its text, as the program has it."""
    assert marketdata_options.table() in _DOCS
    assert metrics.table() in _DOCS


@pytest.mark.parametrize("name", options())
def test_a_default_is_shown_as_it_is_read(name: str) -> None:
    """What the table shows can be set, and is the same."""
    option, value = options()[name], getattr(Options(), name)
    assert load(parsed(), {option.env: option.show(value)}) == Options()
    assert load(parsed(f"--{option.flag}", option.show(value)), {}) == Options()


def test_a_flag_wins_over_the_environment() -> None:
    """And an empty variable is an unset one."""
    environ = {"RANGO_MARKETDATA_FLUSH_S": "3", "RANGO_MARKETDATA_LATE_S": ""}
    assert load(parsed(), environ).flush_s == 3
    assert load(parsed("--flush-s", "4"), environ).flush_s == 4
    assert load(parsed(), environ).late_s == 3600


@pytest.mark.parametrize(
    ("name", "value", "cure"),
    [
        ("SOURCE", "kafka", "give one of auto, stream, live"),
        ("PERIODS", "1m,2m", "give all, or a comma list of 1s, 1m"),
        ("PERIODS", ",", "give all, or"),
        ("TIMEZONE", "Mars/Olympus", "give the name of a time zone"),
        ("TIMEZONE", "../etc/passwd", "give the name of a time zone"),
        ("KEEP", "1s", "give PERIOD=TIME"),
        ("KEEP", "1s=5", "give PERIOD=TIME"),
        ("KEEP", "7m=5d", "give PERIOD=TIME"),
        ("KEEP", "1s=1m", "1s=1m is too short: longer candles and corrections need 3780 s"),
        ("KEEP", "1m=1d", "1m=1d is too short"),
        ("KEEP", "1d=20d", "1d=20d is too short"),
        ("FLUSH_S", "0", "give seconds from 0.05 to 60"),
        ("TRADES", "1", "give a whole number from 10"),
        ("COLOUR", "red", "is not a setting"),
    ],
)
def test_a_wrong_value_names_its_cure(name: str, value: str, cure: str) -> None:
    """By the name of the setting."""
    with pytest.raises(ConfigError, match=f"RANGO_MARKETDATA_{name}") as caught:
        load(parsed(), {f"RANGO_MARKETDATA_{name}": value})
    assert cure in str(caught.value)


def test_all_problems_come_at_once() -> None:
    """Not one by one."""
    environ = {"RANGO_MARKETDATA_FLUSH_S": "x", "RANGO_MARKETDATA_SILENT": "x"}
    with pytest.raises(ConfigError) as caught:
        load(parsed(), environ)
    assert len(caught.value.problems) == 2


def test_the_gateway_does_not_mind_these_settings() -> None:
    """Both may read one file."""
    assert load_settings({"RANGO_MARKETDATA_STORE": "redis://x/0"}).warnings == []


@pytest.mark.parametrize(
    "zone", ["UTC", "Asia/Kathmandu", "America/Sao_Paulo", "Australia/Lord_Howe"]
)
def test_a_day_begins_at_midnight_of_its_zone(zone: str) -> None:
    """Days of 23 and 25 hours too."""
    midnight = midnight_in(zone)
    for at_s in range(1_540_000_000, 1_575_000_000, 7001):
        start = datetime.fromtimestamp(midnight(at_s), ZoneInfo(zone))
        now = datetime.fromtimestamp(at_s, ZoneInfo(zone))
        assert start.date() == now.date()
        assert 0 <= at_s - midnight(at_s) < 25 * 3600
        before = datetime.fromtimestamp(midnight(at_s) - 1, ZoneInfo(zone))
        assert before.date() < now.date()


def test_a_clock_that_is_set_is_noticed() -> None:
    """Forwards and back; one that drifts is none."""
    clock = ClockWatch(1000.0, 5.0)
    assert clock.look(1001.0, 6.0) == 0
    assert clock.look(1003.5, 7.0) == 0
    assert clock.look(4603.5, 7.0) == 3600
    assert clock.look(1004.5, 8.0) == -3600
    assert clock.jumps == 2
