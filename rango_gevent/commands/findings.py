"""What a check found: a line for people, and what to do about it. Pure."""

from __future__ import annotations

from typing import NamedTuple

OK = "OK"
WARN = "WARN"
FAIL = "FAIL"


class Finding(NamedTuple):
    """What a check found.

    Attributes:
        level: `OK`, `WARN` (it works, or was not tried, and deserves a look) or `FAIL`.
        text: what was found; never a secret.
        cure: what to do; empty when all is well.
    """

    level: str
    text: str
    cure: str = ""

    @property
    def words(self) -> str:
        """Return text and cure as one line."""
        return f"{self.text}: {self.cure}" if self.cure else self.text
