"""Settings: one table, every problem at once, and no secret in anything that is shown."""

from __future__ import annotations

import dataclasses
from ipaddress import ip_network
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from kombu.utils.url import url_to_parts

from rango_gevent.auth.origin import OriginPolicy
from rango_gevent.errors import ConfigError
from rango_gevent.settings import (
    LOG_LEVELS,
    Settings,
    flag_names,
    load,
    options,
    shown,
    told_changes,
)

TABLE = options()
rows = pytest.mark.parametrize("name", TABLE)


def problems_of(environ: dict[str, str], flags: dict[str, str] | None = None) -> list[str]:
    """Return what is wrong with these settings."""
    with pytest.raises(ConfigError) as caught:
        load(environ, flags)
    return caught.value.problems


# -- the table --------------------------------------------------------------------------------


def test_every_field_is_in_the_table() -> None:
    """Only what is parsed from other settings has no row."""
    fields = {field.name for field in dataclasses.fields(Settings)}
    assert fields - set(TABLE) == {"rbac"}


def test_variables_and_flags_are_unique() -> None:
    """No variable sets two fields."""
    assert len({option.env for option in TABLE.values()}) == len(TABLE)
    flags = [option.flag for option in TABLE.values() if option.flag]
    assert len(set(flags)) == len(flags)
    assert flag_names() == {option.flag: name for name, option in TABLE.items() if option.flag}


def test_the_names_of_rango_are_known() -> None:
    """A drop-in reads the variables and flags of what it replaces."""
    assert {option.env for option in TABLE.values()} >= {
        "RANGER_HOST", "RANGER_PORT", "RABBITMQ_HOST", "RABBITMQ_PORT", "RABBITMQ_USER",
        "RABBITMQ_PASSWORD", "JWT_PUBLIC_KEY", "LOG_LEVEL", "API_CORS_ORIGINS",
    }  # fmt: skip
    assert set(flag_names()) == {"amqp-addr", "pubKey", "exchange"}


def test_the_defaults_of_rango_are_kept() -> None:
    """Without any setting it listens and connects where Rango does."""
    settings = load({}).settings
    assert (settings.ws_host, settings.ws_port) == ("0.0.0.0", 8080)
    assert settings.broker_urls == ["amqp://guest:guest@localhost:5672/%2F"]
    assert settings.exchange == "peatio.events.ranger"
    assert settings.public_key_file == "config/ed25519-key.pub"
    assert settings.metrics_port == 4242


def test_without_settings_all_are_defaults() -> None:
    """Loading nothing gives what the table says, and says where it came from."""
    loaded = load({})
    assert loaded.settings == Settings()
    assert loaded.sources == dict.fromkeys(TABLE, "default")
    assert loaded.warnings == []


@rows
def test_a_row_has_a_text_that_can_be_printed(name: str) -> None:
    """Texts go into a Markdown table, into `--help` and into an environment file."""
    option = TABLE[name]
    assert option.text
    assert option.text.isprintable()
    assert "|" not in option.text
    assert not option.text.endswith(".")
    assert option.env.isupper()


@rows
def test_a_shown_default_can_be_set(name: str) -> None:
    """The value that is printed, pasted into the environment, gives that value again."""
    option, default = TABLE[name], getattr(Settings(), name)
    if option.secret or not shown(Settings(), name):
        return
    loaded = load({option.env: shown(Settings(), name)})
    assert getattr(loaded.settings, name) == default
    assert loaded.sources[name] == option.env


@given(st.floats(0, 10_000_000).map(lambda value: round(value, 6)))
@example(10_000_000.0)
@example(1234567.5)
@example(0.000001)
def test_shown_seconds_can_be_set(value: float) -> None:
    """Decimals are shown in full, in the form that the parser takes."""
    text = shown(dataclasses.replace(Settings(), max_age_s=value), "max_age_s")
    assert load({"RANGO_MAX_AGE_S": text}).settings.max_age_s == value


# -- where values come from ---------------------------------------------------------------------


def test_a_variable_beats_the_default() -> None:
    """Values arrive in their types."""
    loaded = load({"RANGER_PORT": "9000", "RANGO_DRAIN_S": "0.25", "LOG_LEVEL": "WARN"})
    assert loaded.settings.ws_port == 9000
    assert loaded.settings.drain_s == 0.25
    assert loaded.settings.log_level == "warn"
    assert loaded.sources["ws_port"] == "RANGER_PORT"


def test_a_flag_beats_the_variable() -> None:
    """Rango's order: flag, environment, default."""
    environ = {
        "RANGO_EXCHANGE": "env", "RANGO_PUBLIC_KEY_FILE": "env", "RANGO_AMQP_URL": "amqp://env",
        "RANGER_HOST": "10.0.0.1", "RANGER_PORT": "1",
    }  # fmt: skip
    flags = {
        "exchange": "flag", "pubKey": "flag", "amqp-addr": "amqp://flag", "ws-addr": "127.0.0.1:2"
    }  # fmt: skip
    settings, sources, _ = load(environ, flags)
    assert settings.exchange == settings.public_key_file == "flag"
    assert settings.broker_urls == ["amqp://flag"]
    assert (settings.ws_host, settings.ws_port) == ("127.0.0.1", 2)
    assert sources["exchange"] == "-exchange"
    assert sources["ws_host"] == sources["ws_port"] == "-ws-addr"


def test_a_variable_that_a_flag_beats_is_not_looked_at() -> None:
    """A wrong value that nobody uses stops nobody."""
    assert load({"RANGER_PORT": "x"}, {"ws-addr": ":1"}).settings.ws_port == 1
    assert load({"RANGO_EXCHANGE": "  "}, {"exchange": "e"}).settings.exchange == "e"


@rows
def test_an_empty_variable_is_unset(name: str) -> None:
    """Compose files and systemd units unset a variable by setting it to nothing."""
    loaded = load({TABLE[name].env: ""})
    assert getattr(loaded.settings, name) == getattr(Settings(), name)
    assert loaded.sources[name] == "default"


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("127.0.0.1:9000", ("127.0.0.1", 9000)),
        (":9000", ("0.0.0.0", 9000)),
        ("localhost:1", ("localhost", 1)),
        ("[::1]:9000", ("::1", 9000)),
        ("[::]:65535", ("::", 65535)),
    ],
)
def test_the_address_flag_sets_host_and_port(value: str, address: tuple[str, int]) -> None:
    """Go's forms: host and port, a port alone behind a colon, IPv6 in brackets."""
    settings = load({}, {"ws-addr": value}).settings
    assert (settings.ws_host, settings.ws_port) == address


def test_a_port_alone_keeps_the_host() -> None:
    """The host is RANGER_HOST's then, and only ":9000" is Go's word for all addresses."""
    settings, sources, _ = load({"RANGER_HOST": "10.0.0.1"}, {"ws-addr": "9000"})
    assert (settings.ws_host, settings.ws_port) == ("10.0.0.1", 9000)
    assert (sources["ws_host"], sources["ws_port"]) == ("RANGER_HOST", "-ws-addr")
    assert load({}, {"ws-addr": "9000"}).settings.ws_host == "0.0.0.0"


# -- the broker's address -----------------------------------------------------------------------


def test_the_brokers_parts_are_quoted() -> None:
    """Whatever user, password and vhost hold, the URL is read back as them."""
    environ = {
        "RABBITMQ_HOST": "mq.example", "RABBITMQ_PORT": "5673", "RABBITMQ_USER": "u/s:e@r",
        "RABBITMQ_PASSWORD": "p#a?s%s@/", "RABBITMQ_VHOST": "/v h",
    }  # fmt: skip
    (url,) = load(environ).settings.broker_urls
    assert url == "amqp://u%2Fs%3Ae%40r:p%23a%3Fs%25s%40%2F@mq.example:5673/%2Fv%20h"


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_the_brokers_host_may_be_ipv6(host: str) -> None:
    """An IPv6 address stands in brackets in a URL."""
    (url,) = load({"RABBITMQ_HOST": host}).settings.broker_urls
    assert urlsplit(url).hostname == "::1"
    assert urlsplit(url).port == 5672


def test_the_brokers_host_may_have_an_ipv6_zone() -> None:
    """Its per cent sign is quoted (RFC 6874): kombu would take what follows for a character."""
    (url,) = load({"RABBITMQ_HOST": "fe80::1%eb0"}).settings.broker_urls
    assert url_to_parts(url).hostname == "fe80::1%eb0"


def test_one_url_beats_all_parts() -> None:
    """Several URLs are tried in turn, and blanks between them do not matter."""
    environ = {"RANGO_AMQP_URL": " amqp://a; amqps://b:1/v ", "RABBITMQ_HOST": "c"}
    assert load(environ).settings.broker_urls == ["amqp://a", "amqps://b:1/v"]


# -- what is wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "value"),
    [
        ("RANGER_PORT", "0"),
        ("RANGER_PORT", "65536"),
        ("RANGER_PORT", "-1"),
        ("RANGER_PORT", "8080 "),
        ("RANGER_PORT", "8_080"),
        ("RANGER_PORT", "８０８０"),
        ("RANGER_PORT", "80.0"),
        ("RANGER_PORT", "http"),
        ("RANGER_PORT", "9" * 400),
        ("RANGER_HOST", "  "),
        ("RANGO_EXCHANGE", "\t"),
        ("RANGO_DRAIN_S", "-1"),
        ("RANGO_DRAIN_S", "1e3"),
        ("RANGO_DRAIN_S", "nan"),
        ("RANGO_DRAIN_S", "inf"),
        ("RANGO_DRAIN_S", "601"),
        ("RANGO_DRAIN_S", "1,5"),
        ("RANGO_DRAIN_S", ".5"),
        ("LOG_LEVEL", "loud"),
        ("RANGO_LOG_FORMAT", "xml"),
        ("RANGO_MAX_MESSAGE_BYTES", "124"),
        ("RANGO_WORKERS", "0"),
        ("RANGO_BINDINGS", ","),
        ("RANGO_BINDINGS", "auto,public.#"),
        ("RANGO_BINDINGS", "public .#"),
        ("RANGO_BINDINGS", "x" * 256),
        ("RANGO_AMQP_URL", "http://x"),
        ("RANGO_AMQP_URL", "localhost:5672"),
        ("RANGO_AMQP_URL", "amqp://x:0"),
        ("RANGO_AMQP_URL", "amqp://x:70000"),
        ("RANGO_AMQP_URL", "amqp://[::1"),
        ("RANGO_AMQP_URL", "amqp://x;"),
        ("RANGO_AMQP_URL", "amqp://x;memory://"),
        ("RANGO_AMQP_URL", "amqp://u:pa/ss@x"),
        ("RANGO_AMQP_URL", "amqp://u:12/34@x"),
        ("RANGO_AMQP_URL", "amqp://u:12?34@x"),
        ("RANGO_AMQP_URL", "amqp://u:12#34@x"),
        ("RANGO_AMQP_URL", "amqp:x"),
        ("RANGO_AMQP_URL", "amqp:/x:amqps://1"),
        ("RANGO_AMQP_URL", "amqp://u:p\udcfc@x"),
        ("RABBITMQ_HOST", "mq.example:5672"),
        ("RABBITMQ_HOST", "amqp://mq.example"),
        ("RABBITMQ_HOST", ":"),
        ("RABBITMQ_HOST", "fe80::1%\u202a2Feth0"),
        ("RABBITMQ_HOST", "fe80::1%"),
        ("RABBITMQ_HOST", "mq example"),
        ("RABBITMQ_USER", "\udcff"),
        ("RABBITMQ_PASSWORD", "a\udc80"),
        ("RANGO_EXCHANGE", "a\udcff"),
    ],
)
def test_a_wrong_value_is_one_problem(env: str, value: str) -> None:
    """The problem names the setting, shows the value unless it is secret, and gives the cure."""
    (problem,) = problems_of({env: value})
    assert problem.startswith(env)
    assert ": give " in problem
    assert problem.isprintable()
    is_secret = next(option.secret for option in TABLE.values() if option.env == env)
    assert (repr(value) in problem) is not is_secret
    if is_secret:
        assert value not in problem


@pytest.mark.parametrize(
    "value", ["", "127.0.0.1", "127.0.0.1:", ":x", ":0", ":65536", "[::1]", "\udcff:1"]
)
def test_a_wrong_address_flag_is_one_problem(value: str) -> None:
    """The same for the one flag that sets two fields."""
    (problem,) = problems_of({}, {"ws-addr": value})
    assert problem == f"-ws-addr={value!r}: give HOST:PORT, such as 0.0.0.0:8080"


def test_an_empty_flag_is_a_value() -> None:
    """Unlike an empty variable, an empty flag was written by somebody who meant something."""
    assert problems_of({}, {"exchange": ""}) == [
        "-exchange='': give a value that is not empty, or unset it"
    ]


def test_all_problems_come_at_once() -> None:
    """An operator corrects everything in one go."""
    found = problems_of(
        {
            "RANGER_PORT": "x",
            "LOG_LEVEL": "loud",
            "RANGO_AMQP_URL": "http://user:hunter2@x",
            "RANGO_RBAC_PUBLIC": "admin",
            "RANGO_RBAC_ADMIN": "",
            "API_CORS_ORIGINS": "ok.example,bad host",
            "RANGO_PING_INTERVAL_S": "60",
            "RANGO_PONG_TIMEOUT_S": "60",
        },
        {"exchange": " ", "ws-addr": "x"},
    )
    starts = ["-ws-addr", "RANGO_AMQP_URL", "-exchange", "LOG_LEVEL", "RANGO_RBAC_ADMIN"]
    starts += ["RANGO_RBAC_PUBLIC", "API_CORS_ORIGINS", "RANGO_PONG_TIMEOUT_S"]
    assert [next((p for p in found if p.startswith(start)), None) for start in starts].count(
        None
    ) == 0
    assert len(found) == len(starts)
    assert "hunter2" not in "".join(found)


@pytest.mark.parametrize(
    ("environ", "is_good"),
    [
        ({"RANGO_PING_INTERVAL_S": "30", "RANGO_PONG_TIMEOUT_S": "30"}, False),
        ({"RANGO_PING_INTERVAL_S": "30", "RANGO_PONG_TIMEOUT_S": "29"}, False),
        ({"RANGO_PING_INTERVAL_S": "60"}, False),
        ({"RANGO_PONG_TIMEOUT_S": "54"}, False),
        ({"RANGO_PING_INTERVAL_S": "30", "RANGO_PONG_TIMEOUT_S": "31"}, True),
    ],
)
def test_a_pong_is_waited_for_longer_than_a_ping(environ: dict[str, str], is_good: bool) -> None:
    """Otherwise every client would be closed before it was asked."""
    if is_good:
        load(environ)
    else:
        (problem,) = problems_of(environ)
        assert problem.startswith("RANGO_PONG_TIMEOUT_S=")


def test_a_log_is_read_whole() -> None:
    """All that is wrong is told at once."""
    problems = problems_of(
        {"RANGO_LOG": "stream", "RANGO_BINDINGS": "auto", "RANGO_PONG_TIMEOUT_S": "1"}
    )
    named = {problem.partition("=")[0] for problem in problems}
    assert named == {"RANGO_BINDINGS", "RANGO_PONG_TIMEOUT_S"}


def test_policies_are_parsed() -> None:
    """Roles and origins arrive as the rules that the rooms work with."""
    settings = load({"RANGO_RBAC_ADMIN": "admin", "API_CORS_ORIGINS": "https://a.example"}).settings
    assert settings.rbac.allows("admin", "admin")
    assert settings.origins.allows("https://a.example", "gateway")
    assert not settings.origins.allows("https://b.example", "b.example")


def test_unknown_variables_are_warned_about() -> None:
    """A mistyped name would otherwise change nothing in silence; others' variables are theirs."""
    loaded = load({"RANGO_EXCHAGNE": "x", "RANGO_RBAC_ADMIN": "a", "PATH": "x", "RANGOX": "y"})
    assert loaded.warnings == ["RANGO_EXCHAGNE is not a setting: see `rango config`"]


def test_an_unknown_name_is_told_on_one_line() -> None:
    """A name may hold anything but =, so what is printed of it is escaped."""
    loaded = load({"RANGO_A\n\x1b[31m\udcff": "1"})
    assert loaded.warnings == [r"RANGO_A\n\x1b[31m\udcff is not a setting: see `rango config`"]


@given(st.dictionaries(st.sampled_from([o.env for o in TABLE.values()]), st.text(max_size=12)))
def test_any_environment_loads_or_says_what_is_wrong(environ: dict[str, str]) -> None:
    """No value raises anything but `ConfigError`, with one printable line a problem."""
    try:
        load(environ)
    except ConfigError as error:
        assert error.problems
        assert all(problem.isprintable() for problem in error.problems)


# -- secrets --------------------------------------------------------------------------------------


secrets = st.text(st.characters(codec="utf-8"), min_size=1).map(lambda text: f"S3CRET{text}")


@given(secrets, st.integers(1, 3))
def test_no_password_is_shown(password: str, count: int) -> None:
    """A quoted password of any content never comes through."""
    url = ";".join(
        [f"amqp://user:{quote(password, '')}@host:5672/v?x={quote(password, '')}"] * count
    )
    settings = load({"RANGO_AMQP_URL": url, "RABBITMQ_PASSWORD": password}).settings
    for text in (
        shown(settings, "amqp_urls"),
        shown(settings, "rabbitmq_password"),
        repr(settings),
    ):
        assert "S3CRET" not in text
    assert shown(settings, "amqp_urls").count("host:5672/v") == count


def test_an_unquoted_password_is_masked_or_refused() -> None:
    """Where a password was not quoted the URL means something else; it is not printed either."""
    for password in (
        "S3CRET/x",
        "1/S3CRET",
        "S3CRET?x",
        "1?S3CRET",
        "S3CRET#x",
        "1#S3CRET",
        "@S3CRET",
    ):
        try:
            settings = load({"RANGO_AMQP_URL": f"amqp://user:{password}@host/v"}).settings
        except ConfigError as error:
            assert "S3CRET" not in str(error)
        else:
            assert "S3CRET" not in shown(settings, "amqp_urls")


@pytest.mark.parametrize("level", LOG_LEVELS)
def test_the_levels_of_rango_are_taken(level: str) -> None:
    """Go's words in any case, so that a deployment's environment works unchanged."""
    assert load({"LOG_LEVEL": level.upper()}).settings.log_level == level


def test_settings_cannot_change() -> None:
    """All values are of types that nobody can change under who reads them."""
    settings = Settings()
    hash(tuple(getattr(settings, name) for name in TABLE))
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.ws_port = 1  # type: ignore[misc]  # that it cannot be done is the test


@pytest.mark.parametrize(
    ("env", "text", "value"),
    [
        ("RANGO_BINDINGS", "public.#, private.#", ("public.#", "private.#")),
        ("RANGO_BINDINGS", "auto", ("auto",)),
        ("RANGO_SLOW_STREAMS", "*.a=latest, b=close", (("*.a", "latest"), ("b", "close"))),
        ("RANGO_TRUSTED_PROXIES", "10.0.0.1/8, ::1", (ip_network("10.0.0.0/8"), ip_network("::1"))),
        ("RANGO_COMPRESSION", "ON", True),
        ("RANGO_AMQP_URL", "amqp://a ;amqp://b", ("amqp://a", "amqp://b")),
        (
            "API_CORS_ORIGINS",
            "B.example, https://a.example:1",
            OriginPolicy(frozenset({"b.example", "a.example:1"})),
        ),
        ("API_CORS_ORIGINS", "*", OriginPolicy(any_origin=True)),
    ],
)
def test_values_are_parsed_once(env: str, text: str, value: Any) -> None:
    """A value arrives as what it is worked with, and what is shown of it is read as the same."""
    (name,) = [name for name, option in TABLE.items() if option.env == env]
    settings = load({env: text}).settings
    assert getattr(settings, name) == value
    assert getattr(load({env: shown(settings, name)}).settings, name) == value


def test_what_a_reload_changes_is_told() -> None:
    """By name and value; of a secret the name alone, of roles the prefix's variable."""
    before = load({"RANGO_RBAC_OPS": "ops", "RANGO_RBAC_ADMIN": "admin"}).settings
    after = load(
        {
            "RANGO_RBAC_ADMIN": "root,admin",
            "RANGO_MAX_STREAMS": "7",
            "JWT_PUBLIC_KEY": "S3CRET",
            "RABBITMQ_PASSWORD": "S3CRET",
        }
    ).settings
    assert told_changes(before, before) == []
    assert told_changes(before, after) == [
        "RABBITMQ_PASSWORD",
        "JWT_PUBLIC_KEY",
        "RANGO_MAX_STREAMS=7",
        "RANGO_RBAC_ADMIN=admin,root",
        "RANGO_RBAC_OPS=",
    ]
