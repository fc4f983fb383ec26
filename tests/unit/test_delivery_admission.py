"""Admission: counts, limits, and whose word about an address is taken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rango_gevent.delivery.admission import Admission, AdmissionLimits
from rango_gevent.errors import Refused
from rango_gevent.parsers import networks
from rango_gevent.protocol import refusals

_NONE = AdmissionLimits(10, 0, 0)


def _refusal(admission: Admission, address: str = "1.2.3.4", uid: str | None = None) -> str:
    with pytest.raises(Refused) as refused:
        admission.check(address, uid)
    return f"{refused.value.status} {refused.value.reason}"


def test_the_total_is_bounded_and_comes_back() -> None:
    """The connection over the limit is refused with 503 until another leaves."""
    admission = Admission(AdmissionLimits(1, 0, 0))
    admission.enter("1.2.3.4", None)
    assert _refusal(admission) == "503 too_many_connections"
    admission.leave("1.2.3.4", None)
    admission.check("1.2.3.4", None)


def test_nobody_is_let_in_while_old_events_come() -> None:
    """Once they have all come it is not asked again."""
    admission, answers = Admission(_NONE), ["", "3 s behind"]
    admission.fills = answers.pop
    assert _refusal(admission) == "503 filling"
    admission.check("1.2.3.4", None)
    admission.check("1.2.3.4", None)
    assert answers == []


def test_an_address_has_its_share() -> None:
    """One address is refused with 429 over its limit; another is not."""
    admission = Admission(AdmissionLimits(10, 2, 0))
    for _ in range(2):
        admission.check("1.2.3.4", None)
        admission.enter("1.2.3.4", None)
    assert _refusal(admission) == "429 too_many_of_address"
    admission.check("1.2.3.5", None)


def test_a_user_has_a_share_wherever_it_comes_from() -> None:
    """One uid is refused with 429 over its limit, from any address; anonymous ones are not."""
    admission = Admission(AdmissionLimits(10, 0, 1))
    admission.enter("1.2.3.4", "ID1")
    assert _refusal(admission, "9.9.9.9", "ID1") == "429 too_many_of_uid"
    admission.check("9.9.9.9", "ID2")
    admission.check("9.9.9.9", None)


def test_an_address_has_its_share_of_handshakes() -> None:
    """They count apart from connections, so that one over the limit can still be told so."""
    admission = Admission(AdmissionLimits(10, 2, 0))
    for _ in range(2):
        admission.enter("1.2.3.4", None)
        assert admission.begin_handshake("1.2.3.4") is None
    assert admission.begin_handshake("1.2.3.4") is refusals.TOO_MANY_OF_ADDRESS
    assert admission.begin_handshake("1.2.3.5") is None
    admission.end_handshake("1.2.3.4")
    assert admission.begin_handshake("1.2.3.4") is None


def test_a_proxys_handshakes_are_nobodys_own() -> None:
    """Whose they are is known when their head is read, and then they are over."""
    admission = Admission(AdmissionLimits(10, 1, 0), networks("10.0.0.0/8"))
    assert [admission.begin_handshake("10.0.0.1") for _ in range(5)] == [None] * 5
    assert admission.begin_handshake("1.2.3.4") is None
    assert admission.begin_handshake("1.2.3.4") is refusals.TOO_MANY_OF_ADDRESS


def test_handshakes_and_connections_share_the_files() -> None:
    """Whatever their address."""
    admission = Admission(AdmissionLimits(10, 0, 0, sockets=2))
    admission.enter("1.2.3.4", None)
    assert admission.begin_handshake("1.2.3.5") is None
    assert admission.begin_handshake("1.2.3.6") is refusals.TOO_MANY_FILES


def test_nobody_comes_in_while_it_drains() -> None:
    """A closed admission refuses with 503 and a time to come back."""
    admission = Admission(_NONE)
    admission.open = False
    with pytest.raises(Refused) as refused:
        admission.check("1.2.3.4", None)
    assert refused.value.status == 503
    assert dict(refused.value.refusal.headers)["Retry-After"]


@pytest.mark.parametrize(
    ("peer", "headers", "expected"),
    [
        ("10.0.0.1", {"HTTP_X_FORWARDED_FOR": "1.2.3.4"}, "1.2.3.4"),
        ("10.0.0.1", {"HTTP_X_FORWARDED_FOR": "6.6.6.6, 1.2.3.4"}, "1.2.3.4"),
        ("10.0.0.1", {"HTTP_X_FORWARDED_FOR": "1.2.3.4, 10.0.0.2"}, "1.2.3.4"),
        ("10.0.0.1", {"HTTP_X_FORWARDED_FOR": "1.2.3.4:5678"}, "1.2.3.4"),
        ("10.0.0.1", {"HTTP_FORWARDED": 'for="[2001:db8::1]:4711";proto=https'}, "2001:db8::1"),
        ("10.0.0.1", {"HTTP_FORWARDED": "for=6.6.6.6, For=1.2.3.4"}, "1.2.3.4"),
        ("10.0.0.1", {"HTTP_X_FORWARDED_FOR": "garbage"}, "10.0.0.1"),
        ("10.0.0.1", {"HTTP_X_FORWARDED_FOR": "1.2.3.4, garbage"}, "10.0.0.1"),
        ("10.0.0.1", {"HTTP_X_FORWARDED_FOR": "10.0.0.7"}, "10.0.0.1"),
        ("10.0.0.1", {}, "10.0.0.1"),
        ("8.8.8.8", {"HTTP_X_FORWARDED_FOR": "1.2.3.4"}, "8.8.8.8"),
        ("", {"HTTP_X_FORWARDED_FOR": "1.2.3.4"}, "1.2.3.4"),
    ],
)
def test_only_trusted_proxies_are_believed(
    peer: str, headers: dict[str, str], expected: str
) -> None:
    """The client's address is the last one that no trusted proxy has."""
    admission = Admission(_NONE, networks("10.0.0.0/8"))
    assert admission.address_of(peer, headers) == expected


def test_without_trusted_networks_nobody_is_believed() -> None:
    """By default the address is the socket's."""
    admission = Admission(_NONE)
    assert admission.address_of("10.0.0.1", {"HTTP_X_FORWARDED_FOR": "1.2.3.4"}) == "10.0.0.1"


@given(st.text(), st.text())
def test_any_forwarding_header_gives_an_address(forwarded: str, other: str) -> None:
    """Whatever a header says, an address comes out and nothing is raised."""
    admission = Admission(_NONE, networks("10.0.0.1"))
    for name in ("HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED"):
        assert admission.address_of("10.0.0.1", {name: forwarded + "," + other})


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["x", "y", None]))))
def test_counts_are_empty_when_all_have_left(visits: list[tuple[str, str | None]]) -> None:
    """Entering and leaving in any order leaves nothing behind."""
    admission = Admission(AdmissionLimits(1, 1, 1))
    for address, uid in visits:
        admission.enter(address, uid)
    for address, uid in reversed(visits):
        admission.leave(address, uid)
    for address in "abc":
        for uid in ("x", "y", None):
            admission.check(address, uid)


def test_a_connection_moves_to_another_user() -> None:
    """Who authenticates anew counts for the new user, within that one's share."""
    admission = Admission(AdmissionLimits(10, 0, 1))
    admission.enter("1.2.3.4", None)
    admission.enter("1.2.3.4", "ID1")
    assert not admission.move(None, "ID1"), "it has its share"
    assert admission.move("ID1", "ID2")
    assert admission.move(None, "ID1")
    assert _refusal(admission, uid="ID1") == "429 too_many_of_uid"
    assert admission.move("ID2", None)
    admission.leave("1.2.3.4", "ID1")
    admission.leave("1.2.3.4", None)
    admission.check("1.2.3.4", "ID1")
    admission.check("1.2.3.4", "ID2")
