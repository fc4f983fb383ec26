"""Roles for prefixed streams: the settings become a table that forbids what it does not list."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rango_gevent.auth.rbac import Rbac, parse_rbac
from rango_gevent.errors import ConfigError


@pytest.mark.parametrize(
    ("env", "table"),
    [
        ({}, {}),
        ({"PATH": "/bin", "RANGO_RBAC": "x", "rango_rbac_low": "x", "XRANGO_RBAC_A": "x"}, {}),
        ({"RANGO_RBAC_ADMIN": "admin"}, {"admin": {"admin"}}),
        ({"RANGO_RBAC_ADMIN": "admin,superadmin"}, {"admin": {"admin", "superadmin"}}),
        ({"RANGO_RBAC_ADMIN": " admin ,\tsuper admin , ,,"}, {"admin": {"admin", "super admin"}}),
        ({"RANGO_RBAC_Admin": "a"}, {"admin": {"a"}}),
        ({"RANGO_RBAC_BACK_OFFICE-2": "a"}, {"back_office-2": {"a"}}),
        ({"RANGO_RBAC_A": "x,x", "RANGO_RBAC_B": "Y"}, {"a": {"x"}, "b": {"Y"}}),
        ({"RANGO_RBAC_PRIVATEER": "a"}, {"privateer": {"a"}}),
        ({"RANGO_RBAC_PUBLIC_": "a"}, {"public_": {"a"}}),
    ],
)
def test_settings_become_a_table(env: dict[str, str], table: dict[str, set[str]]) -> None:
    """The name is lower-cased, roles are trimmed, empty ones dropped, other settings ignored."""
    rbac = parse_rbac(env)
    assert rbac.roles_by_prefix == table
    assert rbac.roles_by_prefix.keys() == table.keys()


@pytest.mark.parametrize(
    ("prefix", "role", "is_allowed"),
    [
        ("admin", "admin", True),
        ("admin", "superadmin", True),
        ("admin", "member", False),
        ("admin", "Admin", False),
        ("admin", "admi", False),
        ("admin", "admin,superadmin", False),
        ("admin", " admin", False),
        ("admin", "", False),
        ("ADMIN", "admin", False),
        ("desk", "trader", True),
        ("desk", "admin", False),
        ("unknown", "admin", False),
        ("public", "admin", False),
        ("private", "admin", False),
        ("", "", False),
        ("", "admin", False),
        ("\ud800", "\ud800", False),
    ],
)
def test_allows(prefix: str, role: str, is_allowed: bool) -> None:
    """A role is compared exactly, within its own prefix; everything unlisted is forbidden."""
    rbac = parse_rbac({"RANGO_RBAC_ADMIN": "admin,superadmin", "RANGO_RBAC_DESK": "trader"})
    assert rbac.allows(prefix, role) is is_allowed


def test_an_empty_role_is_refused_even_if_a_table_lists_it() -> None:
    """Anonymous clients have no role, so no table can let them in."""
    assert not Rbac({"admin": frozenset({"", "admin"})}).allows("admin", "")


def test_without_rules_nothing_is_allowed() -> None:
    """The empty table forbids every prefix."""
    assert not Rbac().allows("admin", "admin")
    assert not Rbac().roles_by_prefix


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"RANGO_RBAC_ADMIN": ""}, "RANGO_RBAC_ADMIN='': lists no role"),
        ({"RANGO_RBAC_ADMIN": " , ,"}, "RANGO_RBAC_ADMIN=' , ,': lists no role"),
        ({"RANGO_RBAC_PUBLIC": "a"}, "the prefix public can never be reached"),
        ({"RANGO_RBAC_GLOBAL": "a"}, "the prefix global can never be reached"),
        ({"RANGO_RBAC_private": "a"}, "the prefix private can never be reached"),
        ({"RANGO_RBAC_": "a"}, "the name after RANGO_RBAC_ must be"),
        ({"RANGO_RBAC_A.B": "a"}, "RANGO_RBAC_A.B='a': the name after RANGO_RBAC_ must be"),
        ({"RANGO_RBAC_#": "a"}, "the name after RANGO_RBAC_ must be"),
        ({"RANGO_RBAC_A\nB": "a\nb"}, r"RANGO_RBAC_A\nB='a\nb': the name after"),
        ({"RANGO_RBAC_Ä": "a"}, "the name after RANGO_RBAC_ must be"),
        ({"RANGO_RBAC_ADMIN": "a", "RANGO_RBAC_admin": "b"}, "the prefix admin is set twice"),
    ],
)
def test_a_wrong_rule_is_a_problem(env: dict[str, str], expected: str) -> None:
    """The problem names the setting, its value and the cure, on one line."""
    with pytest.raises(ConfigError) as caught:
        parse_rbac(env)
    (problem,) = caught.value.problems
    assert expected in problem
    assert problem.startswith("RANGO_RBAC_")
    assert "\n" not in problem


def test_all_problems_come_at_once() -> None:
    """One start shows every wrong rule; right ones are not mentioned."""
    env = {"RANGO_RBAC_B": "", "RANGO_RBAC_PUBLIC": "a", "RANGO_RBAC_A": " ", "RANGO_RBAC_OK": "a"}
    with pytest.raises(ConfigError) as caught:
        parse_rbac(env)
    names = [problem.split("=")[0] for problem in caught.value.problems]
    assert names == ["RANGO_RBAC_A", "RANGO_RBAC_B", "RANGO_RBAC_PUBLIC"]


def test_the_table_is_immutable() -> None:
    """Neither the table nor what it was made from can change it later."""
    source = {"admin": frozenset({"admin"})}
    rbac = Rbac(source)
    source["desk"] = frozenset({"trader"})
    assert not rbac.allows("desk", "trader")
    with pytest.raises(dataclasses.FrozenInstanceError):
        rbac.roles_by_prefix = {}  # type: ignore[misc]
    with pytest.raises(TypeError):
        rbac.roles_by_prefix["desk"] = frozenset()  # type: ignore[index]


@given(st.dictionaries(st.text().map("RANGO_RBAC_".__add__) | st.text(), st.text()))
@settings(max_examples=150, deadline=None)
def test_any_environment_is_judged_without_another_error(env: dict[str, str]) -> None:
    """Any names and values lead to a table or to one line for each wrong rule."""
    try:
        found = parse_rbac(env)
    except ConfigError as error:
        lines = str(error).split("\n")
        rules = [name for name in env if name.startswith("RANGO_RBAC_")]
    else:
        lines, rules = [], []
        assert all(found.roles_by_prefix.values())
    assert len(lines) <= len(rules)
