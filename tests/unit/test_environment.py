"""The file of settings: what a line may look like, and that it wins over the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from rango_gevent.environment import load_settings
from rango_gevent.errors import ConfigError


@pytest.mark.parametrize(
    "line",
    [
        "RANGO_MAX_STREAMS=7",
        "  RANGO_MAX_STREAMS = 7  ",
        "export RANGO_MAX_STREAMS=7",
        "export \tRANGO_MAX_STREAMS='7'",
        '# a comment\n\nRANGO_MAX_STREAMS="7"',
    ],
)
def test_a_line_sets_a_value(tmp_path: Path, line: str) -> None:
    """A file that a shell can source is one, and it wins over the environment."""
    file = tmp_path / "env"
    file.write_text(line + "\n")
    environ = {"RANGO_ENV_FILE": str(file), "RANGO_MAX_STREAMS": "1", "RANGO_MAX_NAME_BYTES": "9"}
    settings = load_settings({}, environ).settings
    assert (settings.max_streams, settings.max_name_bytes) == (7, 9)


@pytest.mark.parametrize("line", ["RANGO_MAX_STREAMS", "export", "export =7", "a b=7", "set a=7"])
def test_another_line_is_told_by_its_place(tmp_path: Path, line: str) -> None:
    """What would change nothing in silence is a problem with its line's number."""
    file = tmp_path / "env"
    file.write_text(f"\n{line}\n")
    with pytest.raises(ConfigError) as error:
        load_settings({}, {"RANGO_ENV_FILE": str(file)})
    assert error.value.problems == [f"{file}:2: give NAME=value"]
