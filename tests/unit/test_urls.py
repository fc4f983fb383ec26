"""URLs that are shown: no secret in them, and enough to know which broker it is."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rango_gevent.urls import mask_url


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("amqp://guest:guest@localhost:5672//", "amqp://guest:***@localhost:5672//"),
        ("amqp://guest@localhost/v", "amqp://guest@localhost/v"),
        ("amqp://localhost", "amqp://localhost"),
        ("amqp://u:p@ss@host", "amqp://u:***@host"),
        ("amqp://u:@host", "amqp://u:***@host"),
        ("amqp://:secret@host", "amqp://:***@host"),
        ("amqps://u:p@[::1]:5671/v", "amqps://u:***@[::1]:5671/v"),
        ("amqps://u:p@h/v?ssl_keyfile_password=secret", "amqps://u:***@h/v?***"),
        ("amqp://h/v?password=secret", "amqp://h/v?***"),
        ("amqp://u:p@h/v#secret", "amqp://u:***@h/v"),
        ("amqp://a:p@b;amqp://c:q@d", "amqp://a:***@b;amqp://c:***@d"),
        ("memory://", "memory://"),
    ],
)
def test_urls_are_masked(url: str, masked: str) -> None:
    """What is left says where the broker is and who connects, and no secret."""
    assert mask_url(url) == masked


@given(st.text(st.characters(codec="utf-8")), st.text("ab@:;", max_size=3))
def test_no_quoted_password_comes_through(password: str, user: str) -> None:
    """Whatever it holds, once it is quoted as a URL wants it."""
    secret = quote(f"S3CRET{password}", "")
    url = f"amqps://{quote(user, '')}:{secret}@host:5671/v?ssl_keyfile_password={secret}"
    masked = mask_url(f"{url};{url}")
    assert "S3CRET" not in masked
    assert masked.count("@host:5671/v?***") == 2
