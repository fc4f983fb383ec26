"""Origin policy: which pages may connect, after API_CORS_ORIGINS and the Host header."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rango_gevent.auth.origin import OriginPolicy, parse_origins
from rango_gevent.errors import ConfigError

SETTING = "API_CORS_ORIGINS"


@pytest.mark.parametrize("text", ["", " ", ",", " , ,\t"])
@pytest.mark.parametrize(
    ("origin", "host", "is_allowed"),
    [
        (None, "a.example", True),
        (None, None, True),
        ("https://a.example", "a.example", True),
        ("http://a.example", "a.example", True),
        ("HTTPS://A.Example", "a.eXAMPLE", True),
        ("https://a.example:8080", "a.example:8080", True),
        ("https://a.example/", "a.example", True),
        ("https://[::1]:8080", "[::1]:8080", True),
        ("https://[FE80::a]", "[fe80::A]", True),
        ("chrome-extension://abcdefgh", "abcdefgh", True),
        ("https://a.example", "b.example", False),
        ("https://a.example:443", "a.example", False),
        ("https://a.example", "a.example:443", False),
        ("http://a.example:80", "a.example", False),
        ("https://a.example:8080", "a.example:8081", False),
        ("https://a.example.evil.example", "a.example", False),
        ("https://evil-a.example", "a.example", False),
        ("https://a.example", "", False),
        ("https://a.example", None, False),
        ("", "a.example", False),
        ("", "", False),
        ("null", "null", False),
        ("null", "a.example", False),
        ("https://", "", False),
        ("file://", "", False),
        ("a.example", "a.example", False),
        ("//a.example", "a.example", False),
        ("https:a.example", "a.example", False),
        ("://a.example", "a.example", False),
    ],
)
def test_without_a_list_the_origin_must_be_the_host(
    text: str, origin: str | None, host: str | None, is_allowed: bool
) -> None:
    """The Origin's host equals the Host header, port included, blind to case."""
    assert parse_origins(text, SETTING).allows(origin, host) is is_allowed


LISTED = " app.example , https://Web.example/path,http://dev.example:3000,[::1]:8080,10.0.0.1 "


@pytest.mark.parametrize(
    ("origin", "is_allowed"),
    [
        (None, True),
        ("https://app.example", True),
        ("http://app.example", True),
        ("https://APP.EXAMPLE", True),
        ("https://web.example", True),
        ("http://web.example", True),
        ("http://dev.example:3000", True),
        ("http://[::1]:8080", True),
        ("http://10.0.0.1", True),
        ("http://dev.example", False),
        ("http://dev.example:3001", False),
        ("https://app.example:443", False),
        ("http://[::1]", False),
        ("https://sub.app.example", False),
        ("https://app.example.", False),
        ("https://gateway.example", False),
        ("app.example", False),
        ("null", False),
        ("", False),
    ],
)
def test_with_a_list_the_origins_host_must_be_in_it(origin: str | None, is_allowed: bool) -> None:
    """The list replaces the Host rule; hosts are compared as text, the scheme is not."""
    assert parse_origins(LISTED, SETTING).allows(origin, "gateway.example") is is_allowed


@pytest.mark.parametrize(
    ("origin", "is_allowed"),
    [
        ("http://localhost:3000", True),
        ("https://LOCALHOST", True),
        ("http://[::1]:5173", True),
        ("http://127.0.0.1:1", True),
        ("http://127.0.0.1", False),
        ("http://localhost.evil.example:3000", False),
        ("http://evil.example/localhost:3000", False),
        ("http://localhost:3000@evil.example", False),
        ("null", False),
    ],
)
def test_a_host_may_be_listed_with_any_port(origin: str, is_allowed: bool) -> None:
    """For pages of somebody's own machine, whose ports are many; only that very host."""
    policy = parse_origins("localhost:*, [::1]:*, 127.0.0.1:1", SETTING)
    assert policy.allows(origin, "gateway.example") is is_allowed
    assert parse_origins(str(policy), SETTING) == policy


@pytest.mark.parametrize("text", ["*", " * ", "app.example,*"])
@pytest.mark.parametrize("origin", [None, "https://a.example", "null", "", "garbage", "\ud800"])
def test_a_star_lets_any_origin_in(text: str, origin: str | None) -> None:
    """An operator who writes * wants no check at all, also for the origin null."""
    assert parse_origins(text, SETTING).allows(origin, "b.example")


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example@app.example",
        "https://app.example@evil.example",
        "https://user:pw@app.example",
        "https://evil.example\\@app.example",
        "https://app.example\\.evil.example",
        "https://app.example/@evil.example",
        "https://app.example\n",
        "https://app.example\r\nX: y",
        "https://app.example ",
        " https://app.example",
        "https://app.example https://evil.example",
        "https://app.example, https://evil.example",
        "https://app.example\x00",
        "https://app.example:",
        "https://app.example:99999",
        "https://app.example:8a",
        "https://app.example:-1",
        "https://app%2eexample",
        "https://аpp.example",
        "https://ａpp.example",
        "https://app.example\u200b",
        "https://[::1",
        "https://::1",
        "https://[::1]x",
        "\x00",
        "%",
        "https://" + "a" * 100_000,
        b"https://app.example",
        b"\xff",
        7,
        ["https://app.example"],
        object(),
    ],
)
def test_a_malformed_origin_is_refused(origin: Any) -> None:
    """Tricks, garbage and wrong types are refused, never an exception, with and without a list."""
    assert not parse_origins("app.example,[::1]", SETTING).allows(origin, "app.example")
    assert not parse_origins("", SETTING).allows(origin, "app.example")


@pytest.mark.parametrize("host", ["\u212aelvin.example", "\ud800", b"kelvin.example", 7])
def test_an_odd_host_header_matches_nothing(host: Any) -> None:
    """Case folding is ASCII only: the Kelvin sign is no k."""
    assert not OriginPolicy().allows("https://kelvin.example", host)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("https://", "malformed"),
        ("http:///path", "malformed"),
        ("https://a b", "malformed"),
        ("https://a.example:port", "malformed"),
        ("https://a.example:70000", "malformed"),
        ("https://a.example:", "malformed"),
        ("https://[::1", "malformed"),
        ("ftp://a.example", "malformed"),
        ("ws://a.example", "malformed"),
        ("//a.example", "malformed"),
        ("a.example/path", "malformed"),
        ("a.example b.example", "malformed"),
        ("::1", "malformed"),
        ("a.example:99999", "malformed"),
        ("https://a.example\nb", "malformed"),
        ("localhost:80:*", "a wildcard within a host is not supported"),
        (":*", "a wildcard within a host is not supported"),
        ("*.example", "a wildcard within a host is not supported"),
        ("https://*", "a wildcard within a host is not supported"),
        ("**", "a wildcard within a host is not supported"),
        ("null", "only * lets it in"),
        ("NULL", "only * lets it in"),
        ("bücher.example", "punycode"),
        ("https://bücher.example", "punycode"),
    ],
)
def test_a_malformed_entry_is_a_problem(entry: str, expected: str) -> None:
    """The problem names the setting and the entry, on one line; right entries are not named."""
    with pytest.raises(ConfigError) as caught:
        parse_origins(f"ok.example, {entry} ,https://fine.example", SETTING)
    (problem,) = caught.value.problems
    assert problem.startswith(f"API_CORS_ORIGINS: {ascii(entry)}: ")
    assert expected in problem
    assert "\n" not in problem


def test_all_malformed_entries_come_at_once() -> None:
    """One start shows every wrong entry."""
    with pytest.raises(ConfigError) as caught:
        parse_origins("https://, ok.example, *.example", SETTING)
    assert ["malformed" in problem for problem in caught.value.problems] == [True, False]


def test_a_password_in_an_entry_is_not_shown() -> None:
    """An entry with a user part is malformed, and the log does not learn the password."""
    with pytest.raises(ConfigError, match=r"'a\.example'") as caught:
        parse_origins("https://user:secret@a.example", SETTING)
    assert "secret" not in str(caught.value)


def test_a_long_entry_is_cut_in_the_problem() -> None:
    """A whole file pasted into the setting does not flood the log."""
    with pytest.raises(ConfigError) as caught:
        parse_origins("?" * 10_000, SETTING)
    assert len(str(caught.value)) < 300


def test_the_policy_is_immutable() -> None:
    """Nobody opens the door while the gateway runs."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        OriginPolicy().any_origin = True  # type: ignore[misc]


@example("https://ok.example", "ok.example")
@given(st.text() | st.text().map("https://{}".format), st.text() | st.none())
@settings(max_examples=200, deadline=None)
def test_any_origin_gets_an_answer(origin: str, host: str | None) -> None:
    """Any two headers get yes or no; yes without a list means that the host is in the origin."""
    assert parse_origins("ok.example", SETTING).allows(origin, host) in (True, False)
    if OriginPolicy().allows(origin, host):
        assert host
        assert f"://{host.lower()}" in origin.lower()


def outcome(text: str) -> object:
    """Return the policy or the ConfigError; any other error is the test's failure."""
    try:
        return parse_origins(text, SETTING)
    except ConfigError as error:
        return error


@given(st.text() | st.lists(st.text(alphabet="ah*[]:./@-1 \n", max_size=12)).map(",".join))
@settings(max_examples=200, deadline=None)
def test_any_text_is_a_policy_or_config_error(text: str) -> None:
    """A text is read, or each wrong entry gets one line that names the setting."""
    found = outcome(text)
    assert isinstance(found, (OriginPolicy, ConfigError))
    if isinstance(found, ConfigError):
        assert all(line.startswith("API_CORS_ORIGINS: ") for line in str(found).split("\n"))
        assert len(str(found).split("\n")) <= text.count(",") + 1


HOSTS = st.from_regex(r"[A-Za-z0-9-]{1,9}(\.[a-z0-9]{1,5}){0,3}(:[1-9][0-9]{0,3})?", fullmatch=True)


@given(HOSTS.filter(lambda host: host.lower() != "null"))
@settings(max_examples=100, deadline=None)
def test_a_listed_host_lets_its_own_pages_in(host: str) -> None:
    """Listed as a host or as a URL, the same pages get in."""
    for entry in (host, f"https://{host}", f"http://{host}/x"):
        assert parse_origins(entry, SETTING).allows(f"https://{host}", "other.example")
