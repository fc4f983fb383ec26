"""``python -m tests.fuzz.guided TARGET [OPTION ...]``: one target under libFuzzer, by atheris.

It runs until an option of libFuzzer ends it, or an input breaks the invariant; `tests.fuzz` starts
it and reads what it writes. What is imported below is instrumented, so it comes late.
"""

from __future__ import annotations

import importlib
import sys

import atheris

_INSTRUMENTED = ["rango_gevent", "websockets", "jwt"]


def main() -> None:
    """Hand the target to libFuzzer, which never returns."""
    name = sys.argv.pop(1)
    with atheris.instrument_imports(include=_INSTRUMENTED):
        target = importlib.import_module(f"tests.fuzz.{name}")
    atheris.Setup(sys.argv, target.check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
