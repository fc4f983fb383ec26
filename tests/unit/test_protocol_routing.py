"""Routing keys and names: every rule of Rango, and nothing else is taken apart anywhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rango_gevent.protocol.routing import (
    EVENT,
    INCREMENT,
    KINDS,
    PREFIXED,
    PRIVATE,
    PUBLIC,
    SNAPSHOT,
    Route,
    check_key,
    is_book,
    kind_of,
    parse_key,
    prefix_of,
    private_address,
)

any_text = st.text(st.characters())  # surrogates too: AMQP keys are bytes, decoded as they come
dotted = st.lists(
    st.sampled_from(["public", "global", "private", "admin", "ID1", "ob-inc", "ob-snap", "a", ""]),
    max_size=5,
).map(".".join)


@pytest.mark.parametrize(
    ("key", "route"),
    [
        # scope, stream and type
        ("public.eurusd.trades", (PUBLIC, "eurusd.trades", "eurusd.trades", EVENT)),
        ("global.eurusd.trades", (PUBLIC, "eurusd.trades", "eurusd.trades", EVENT)),
        ("public.global.tickers", (PUBLIC, "global.tickers", "global.tickers", EVENT)),
        ("private.ID1.order", (PRIVATE, "ID1.order", "order", EVENT)),
        ("admin.btcusd.sys", (PREFIXED, "admin.btcusd.sys", "btcusd.sys", EVENT)),
        # two parts: the topic is the whole key
        ("global.tickers", (PUBLIC, "global.tickers", "global.tickers", EVENT)),
        ("public.tickers", (PUBLIC, "public.tickers", "public.tickers", EVENT)),
        ("admin.sys", (PREFIXED, "admin.admin.sys", "admin.sys", EVENT)),
        # books of public and global scopes: a snapshot belongs to the increments' stream
        ("public.eurusd.ob-snap", (PUBLIC, "eurusd.ob-inc", "eurusd.ob-snap", SNAPSHOT)),
        ("public.eurusd.ob-inc", (PUBLIC, "eurusd.ob-inc", "eurusd.ob-inc", INCREMENT)),
        ("global.eurusd.ob-snap", (PUBLIC, "eurusd.ob-inc", "eurusd.ob-snap", SNAPSHOT)),
        ("global.ob-inc", (PUBLIC, "global.ob-inc", "global.ob-inc", INCREMENT)),
        ("global.ob-snap", (PUBLIC, "global.ob-inc", "global.ob-snap", SNAPSHOT)),
        ("public.eurusd.-snap", (PUBLIC, "eurusd.-inc", "eurusd.-snap", SNAPSHOT)),
        ("public.eurusd.snap", (PUBLIC, "eurusd.snap", "eurusd.snap", EVENT)),
        ("public.ob-snap.trades", (PUBLIC, "ob-snap.trades", "ob-snap.trades", EVENT)),
        ("public.eurusd.ob-SNAP", (PUBLIC, "eurusd.ob-SNAP", "eurusd.ob-SNAP", EVENT)),
        # other scopes keep no books: a snapshot goes out at once, renamed
        ("private.ID1.ob-snap", (PRIVATE, "ID1.ob-inc", "ob-inc", EVENT)),
        ("private.ID1.ob-inc", (PRIVATE, "ID1.ob-inc", "ob-inc", EVENT)),
        ("admin.btcusd.ob-snap", (PREFIXED, "admin.btcusd.ob-inc", "btcusd.ob-inc", EVENT)),
        ("admin.ob-snap", (PREFIXED, "admin.admin.ob-inc", "admin.ob-inc", EVENT)),
        # a scope that merely begins like a known one is a prefix
        ("privateer.a.b", (PREFIXED, "privateer.a.b", "a.b", EVENT)),
        ("publicity.a.b", (PREFIXED, "publicity.a.b", "a.b", EVENT)),
        ("Public.a.b", (PREFIXED, "Public.a.b", "a.b", EVENT)),
        ("PRIVATE.a.b", (PREFIXED, "PRIVATE.a.b", "a.b", EVENT)),
        # empty parts are parts
        ("public..", (PUBLIC, ".", ".", EVENT)),
        (".a.b", (PREFIXED, ".a.b", "a.b", EVENT)),
    ],
)
def test_a_key_of_two_or_three_parts(key: str, route: tuple[str, str, str, int]) -> None:
    """Scope, stream and type decide about kind, address, name and the part in a book."""
    assert parse_key(key) == Route(*route)


@pytest.mark.parametrize(
    "key", ["", "trades", "public", "private", "a.b.c.d", "public.a.b.c", "....", "private.order"]
)
def test_other_keys_fit_no_stream(key: str) -> None:
    """One part, more than three, and a private key without a user go nowhere."""
    assert parse_key(key) is None


@pytest.mark.parametrize("key", ["private..order", "private..", "private..ob-snap"])
def test_an_empty_uid_belongs_to_nobody(key: str) -> None:
    """What is meant for nobody is dropped, so no client without a uid can ever get it."""
    assert parse_key(key) is None


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("order", PRIVATE),
        ("", PRIVATE),
        ("eurusd.trades", PUBLIC),
        ("global.tickers", PUBLIC),
        ("admin.btcusd.sys", PREFIXED),
        ("public.eurusd.trades", PREFIXED),
        ("private.ID1.order", PREFIXED),
        ("..", PREFIXED),
        (".", PUBLIC),
        ("a.b.c.d", PUBLIC),
        ("a.b.c.d.e", PUBLIC),
    ],
)
def test_the_number_of_dots_is_the_kind(name: str, kind: str) -> None:
    """No dot is private, two are prefixed, everything else is public."""
    assert kind_of(name) == kind


@pytest.mark.parametrize("name", ["eurusd.ob-inc", "global.ob-inc", ".-inc"])
def test_a_books_name_is_that_of_its_increments(name: str) -> None:
    """And of nothing else that a client can ask for."""
    assert is_book(name)
    for other in (f"{name}.x", f"a.{name}", name.replace(".", ""), name.replace("inc", "snap")):
        assert not is_book(other)


@pytest.mark.parametrize(
    ("name", "prefix"),
    [("admin.btcusd.sys", "admin"), ("..", ""), ("private.ID1.order", "private")],
)
def test_the_prefix_is_the_first_part(name: str, prefix: str) -> None:
    """Roles are asked for the first part of a prefixed name."""
    assert prefix_of(name) == prefix


@given(any_text | dotted)
def test_any_key_gives_a_route_or_none(key: str) -> None:
    """No text of a publisher can raise, and a route leads where a client's name leads too."""
    route = parse_key(key)
    if route is None:
        return
    assert route.kind in KINDS
    if route.kind == PRIVATE:
        assert kind_of(route.name) == PRIVATE
        uid = key.split(".")[1]
        assert uid
        assert route.address == private_address(uid, route.name)
    else:
        assert kind_of(route.address) == route.kind
    assert route.kind == PUBLIC or route.action == EVENT


@given(any_text)
def test_any_name_has_a_kind(name: str) -> None:
    """No text of a client can raise."""
    assert kind_of(name) in KINDS
    assert "." not in prefix_of(name)


@given(any_text, any_text.filter(lambda name: "." not in name), any_text, any_text)
def test_private_addresses_never_collide(uid: str, name: str, uid2: str, name2: str) -> None:
    """Two users, or two private names of one, never share an address, whatever the uid holds."""
    name2 = name2.replace(".", "")
    is_same = (uid, name) == (uid2, name2)
    assert (private_address(uid, name) == private_address(uid2, name2)) is is_same


@given(st.text("ab.", max_size=4), st.text("ab", max_size=2), st.text("ab.", max_size=4))
def test_a_users_address_is_reached_by_that_users_keys_only(uid: str, name: str, part: str) -> None:
    """A key for one user never lands on the address of another, dots in a uid included."""
    route = parse_key(f"private.{part}.{name}")
    if route is not None:
        assert (route.address == private_address(uid, name)) is (uid == part)


@given(dotted)
def test_a_snapshot_and_its_increments_share_an_address(key: str) -> None:
    """``X-snap`` and ``X-inc`` of one scope belong together, in every scope."""
    snapshot, increment = parse_key(f"{key}-snap"), parse_key(f"{key}-inc")
    assert (snapshot is None) is (increment is None)
    if snapshot is not None and increment is not None:
        assert snapshot.address == increment.address
        assert (snapshot.action == SNAPSHOT) is (increment.action == INCREMENT)


@pytest.mark.parametrize(
    "key", ["public.btcusd.trades", "global.tickers", "private.ID1.order", "admin.btcusd.ob-inc"]
)
def test_keys_for_publishers(key: str) -> None:
    """What fits a stream passes as it is."""
    assert check_key(key) == key


@pytest.mark.parametrize(
    "key",
    [
        "", "trades", "a.b.c.d", "private.order", "private..order", "public..trades", ".trades",
        "public.btcusd.", "public.*.trades", "public.#", "public.btc usd.trades",
        "public.btcusd.trades\n", "public.a,b.trades", "public.\udc00.trades", "public.x." + "y" * 250,
    ],
)  # fmt: skip
def test_keys_that_a_publisher_may_not_use(key: str) -> None:
    """The gateway would drop it, or nobody could name its stream."""
    with pytest.raises(ValueError):  # noqa: PT011 - UnicodeEncodeError is one, with its own text
        check_key(key)
