"""Alert sinks: their URLs, what may be shown of them, and the bytes that ViaBTC's take."""

from __future__ import annotations

import pytest

from rango_gevent.alerts.deliver import MAX_DATAGRAM, datagram, missing, without_secrets
from rango_gevent.errors import ConfigError
from rango_gevent.settings import Settings, load, shown


def test_urls_are_read_and_shown_without_secrets() -> None:
    """Of most sinks only the kind is shown: their hosts and paths are the secrets."""
    urls = (
        "mailto://me:hunter2@mail.example?to=you@example.com; slack://AAA/BBB/CCC ;"
        "redis://u:pass@127.0.0.1:6379/alert:message;udp://10.0.0.1:4444"
    )
    settings = load({"RANGO_ALERT_URLS": urls}).settings
    assert len(settings.alert_urls) == 4
    told = shown(settings, "alert_urls")
    assert told == (
        "mailto://***;slack://***;redis://***@127.0.0.1:6379/alert:message;udp://10.0.0.1:4444"
    )
    assert "hunter2" not in repr(settings)


@pytest.mark.parametrize(
    "url",
    [
        "mail.example", "mailto://", "udp://host", "udp://host:0x1", "udp://host:4444/x",
        "redis://secret:6379", "redis://secret:6379/", "redis://host/a/b/c", "redis://:6379/key",
        "json://secret host/", "json://host:99999999/\x1b",
    ],
)  # fmt: skip
def test_a_bad_url_is_told_by_its_number(url: str) -> None:
    """Never by itself: it is a secret."""
    with pytest.raises(ConfigError) as caught:
        load({"RANGO_ALERT_URLS": f"udp://127.0.0.1:1;{url}"})
    assert "URL 2 of 2: give" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_too_many_urls_are_refused() -> None:
    """They have to fit into one message to the process that sends."""
    with pytest.raises(ConfigError, match="give at most 16384 bytes"):
        load({"RANGO_ALERT_URLS": ";".join(["udp://10.0.0.1:4444"] * 1000)})


def test_nobody_is_alerted_by_default() -> None:
    """And nothing needs a library."""
    assert Settings().alert_urls == ()
    assert missing(()) == set()
    assert missing(("udp://h:1", "redis://h/k", "mailto://h")) == {"redis", "apprise"}


def test_a_datagram_is_alertcenter_s_line() -> None:
    """Twenty characters, the host, a colon, a blank, the text, the end of the line."""
    assert datagram("shop-1", "CRITICAL x") == b"373d26968a5a2b698045shop-1: CRITICAL x\n"


def test_a_long_datagram_keeps_the_end_of_its_line() -> None:
    """Without it alertcenter would wait for more; no character is cut in two."""
    long = datagram("h", "é" * 10_000)
    assert MAX_DATAGRAM - 1 <= len(long) <= MAX_DATAGRAM
    assert long.endswith("é\n".encode())


def test_what_a_library_says_holds_no_secret() -> None:
    """Users, passwords, paths and queries are taken out, encoded or not."""
    url = "mailto://user:p%40ssw0rd@smtp.example/path?to=you%40there.example&key=abc123"
    words = "login of user with p@ssw0rd at smtp.example/path for you@there.example\nkey abc123"
    assert without_secrets(words, url) == "login of *** with *** at ***/*** for *** key ***"
    assert without_secrets("no 127.0.0.1:6379", "redis://127.0.0.1:6379/k") == "no 127.0.0.1:6379"
