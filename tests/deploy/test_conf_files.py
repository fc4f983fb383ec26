"""The files of conf/ that no server here reads: they must fit the settings of today."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from processes import CONF, conf, run, yaml_of
from support import ROOT, Server, free_port

from rango_gevent.environment import load_settings
from rango_gevent.settings import ENV_FILE, Settings, load, options

DRAIN_S = Settings.drain_s + Settings.close_timeout_s


def known_settings() -> set[str]:
    """Return the names of all environment variables that the gateway reads."""
    return {option.env for option in options().values()} | {ENV_FILE}


# -- rango.env.example ------------------------------------------------------------------------


def test_env_example_is_what_the_command_prints(tmp_path: Path) -> None:
    """The file is the output of ``rango config --env-example``."""
    command = [sys.executable, "-m", "rango_gevent", "config", "--env-example"]
    assert run(command, tmp_path, os.environ).stdout == conf("rango.env.example")


def test_env_example_uncommented_changes_nothing() -> None:
    """Each line may be uncommented as it is: its value is the default."""
    assignments = re.findall(r"^#([A-Z_]+)=(.*)$", conf("rango.env.example"), re.M)
    environ = {name: value for name, value in assignments if not name.startswith("RANGO_RBAC_")}
    assert set(environ) == known_settings()
    assert load(environ).settings == Settings()


# -- rango.service ----------------------------------------------------------------------------


def unit() -> dict[str, list[str]]:
    """Return the keys of rango.service with their values."""
    found = defaultdict(list)
    for name, value in re.findall(r"^(\w+)=(.*)$", conf("rango.service"), re.M):
        found[name].append(value)
    return found


@pytest.mark.parametrize("name", ["rango.service", "rango@.service", "rango-marketdata.service"])
def test_unit_is_valid(tmp_path: Path, name: str) -> None:
    """systemd finds no fault with the unit, once its program exists; nor with one for several."""
    path = tmp_path / name
    text = conf(name.replace("@", ""))
    text = re.sub(r"/opt/rango/bin/rango( marketdata)?\n", "/bin/true\n", text)
    path.write_text(text.replace("rango.env", "%i.env") if "@" in name else text)
    done = run(["/usr/bin/systemd-analyze", "verify", "--man=no", str(path)], tmp_path)
    ours = [line for line in done.stdout.splitlines() if "rango" in line]
    assert (done.returncode, ours) == (0, []), done.stdout


@pytest.mark.parametrize("name", ["rango.service", "rango-marketdata.service"])
def test_unit_is_hardened(tmp_path: Path, name: str) -> None:
    """systemd's own measure of exposure (0 best, 10 worst) stays low."""
    command = ["/usr/bin/systemd-analyze", "security", "--offline=true", "--threshold=20"]
    done = run([*command, str(CONF / name)], tmp_path)
    assert done.returncode == 0, done.stdout


def test_unit_reads_its_file_anew(tmp_path: Path) -> None:
    """The settings are in a file that a reload reads again, and the example is such a file."""
    (name,) = unit()["Environment"]
    path = tmp_path / "rango.env"
    path.write_text(conf("rango.env.example", {"#RANGO_DRAIN_S=10": "RANGO_DRAIN_S=3"}))
    variable, _, _ = name.partition("=")
    assert load_settings({}, {variable: str(path)}).settings.drain_s == 3
    assert unit()["ExecReload"] == ["/bin/kill -HUP $MAINPID"]


def test_unit_waits_for_the_drain() -> None:
    """systemd kills no sooner than gunicorn would, and files suffice for all connections."""
    (stop,) = unit()["TimeoutStopSec"]
    assert int(stop.rstrip("s")) > DRAIN_S + 10
    assert unit()["KillSignal"] == ["SIGTERM"]
    (files,) = unit()["LimitNOFILE"]
    assert int(files) > Settings.max_connections


# -- compose.yaml and Dockerfile --------------------------------------------------------------


def test_compose_uses_existing_settings() -> None:
    """Every variable of the gateway's service is a setting, and the two services fit together."""
    services = yaml_of(CONF / "compose.yaml")["services"]
    gateway, broker = services["gateway"], services["rabbitmq"]
    assert set(gateway["environment"]) - known_settings() == set()
    assert gateway["environment"]["RABBITMQ_HOST"] in services
    user = broker["environment"]["RABBITMQ_DEFAULT_USER"]
    assert gateway["environment"]["RABBITMQ_USER"] == user
    password = broker["environment"]["RABBITMQ_DEFAULT_PASS"]
    assert gateway["environment"]["RABBITMQ_PASSWORD"] == password
    assert int(gateway["stop_grace_period"].rstrip("s")) > DRAIN_S + 10
    assert gateway["ulimits"]["nofile"] > Settings.max_connections
    build = gateway["build"]
    assert (CONF / build["context"] / build["dockerfile"]).resolve() == CONF / "Dockerfile"


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions with their arguments."""
    text = conf("Dockerfile").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in lines]


def test_dockerfile_copies_what_exists() -> None:
    """What is copied from the project exists, and nothing that the package needs is left out."""
    words = [shlex.split(text) for name, text in instructions() if name == "COPY"]
    sources = {source for copy in words if "--from=build" not in copy for source in copy[:-1]}
    assert {source for source in sources if not (ROOT / source).exists()} == set()
    assert sources >= {"setup.cfg", "pyproject.toml", "README.md", "LICENSE", "rango_gevent"}


def test_image_is_not_root() -> None:
    """The last stage copies only the environment, and becomes a user before its entry point."""
    names = [name for name, _ in instructions()]
    last = instructions()[len(names) - 1 - names[::-1].index("FROM") :]
    assert [text for name, text in last if name == "COPY"] == ["--from=build /opt/rango /opt/rango"]
    assert dict(last)["USER"] == "10001"
    assert dict(last)["STOPSIGNAL"] == "SIGTERM"
    assert dict(last)["EXPOSE"] == f"{Settings.ws_port} {Settings.metrics_port}"


def test_health_check_of_the_image(gateway: Server, tmp_path: Path) -> None:
    """The image's health check passes on a living gateway and fails where none answers."""
    health = dict(instructions())["HEALTHCHECK"]
    words = shlex.split(health.split("CMD ", 1)[1].strip("[]").replace('", "', '" "'))
    command = [sys.executable, *words[1:]]
    assert words[0] == "python"
    for port, healthy in ((gateway.port, True), (free_port(), False)):
        done = run(command, tmp_path, {**os.environ, "RANGER_PORT": str(port)})
        assert (done.returncode == 0) is healthy, done.stdout


# -- README.md --------------------------------------------------------------------------------


def test_readme_names_every_file() -> None:
    """The page about conf/ has a line for each file there."""
    listed = re.findall(r"^\| `([^`]+)` \|", conf("README.md"), re.M)
    files = [path.relative_to(CONF) for path in Path(CONF).rglob("*") if path.is_file()]
    named = {str(path) for path in files if "__pycache__" not in path.parts}
    assert sorted(listed) == sorted(named - {"README.md"})
