"""The fuzz targets, run for a moment without guidance, so that none of them rots.

``make fuzz`` searches with the same functions for as long as one likes.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import fuzz

MODULES = [importlib.import_module(f"tests.fuzz.{name}") for name in fuzz.TARGETS]
ALL = pytest.mark.parametrize("target", MODULES, ids=fuzz.TARGETS)
NO_TARGETS = {"__init__", "__main__", "common", "guided"}


@st.composite
def changed(draw: st.DrawFn, target: ModuleType) -> bytes:
    """Draw one of the target's seeds with a few places overwritten, cut out or filled in."""
    data: bytes = draw(st.sampled_from(target.SEEDS))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 8)))
        put_in = draw(st.sampled_from(target.WORDS) | st.binary(max_size=4))
        data = data[:start] + put_in + data[end:]
    return data


def test_every_target_is_listed() -> None:
    """What is not in the list is searched by nobody."""
    found = {path.stem for path in Path(*fuzz.__path__).glob("*.py")} - NO_TARGETS
    assert found == set(fuzz.TARGETS)


@ALL
def test_a_target_says_its_invariant_first(target: ModuleType) -> None:
    """The first line of the module is one sentence, which a search prints."""
    first, second, *_ = (target.__doc__ or "").splitlines()
    assert first.endswith(".")
    assert second == ""


@ALL
def test_the_seeds_keep_the_invariant(target: ModuleType) -> None:
    """Usual inputs, rare ones, and those that once broke it."""
    for data in target.SEEDS:
        target.check(data)
    target.check(b"")


@ALL
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_input_keeps_the_invariant(target: ModuleType, data: st.DataObject) -> None:
    """The same for bytes of any kind, most of them close to a seed."""
    target.check(data.draw(changed(target) | st.binary(max_size=300)))
