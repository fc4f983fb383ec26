"""Tokens that are taken back before they expire, within a bound on memory.

A user's tokens are revoked as of a time: those that were issued before it, and those that do not
say when they were, are refused. A user's later log-in is not touched.
"""

from __future__ import annotations

from collections import OrderedDict

from rango_gevent.auth.identity import Identity


class Revocations:
    """Users whose tokens of before a time are refused.

    Args:
        most: users that are remembered; of more the first to be revoked is forgotten.

    Attributes:
        forgotten: how many were, for the bound.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.forgotten = 0
        self._before_s: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._before_s)

    def revoke(self, uid: str, before_s: float) -> None:
        """Refuse the tokens of a user that were issued before a Unix time."""
        self._before_s[uid] = max(before_s, self._before_s.pop(uid, before_s))
        while len(self._before_s) > self.most:
            self._before_s.popitem(last=False)
            self.forgotten += 1

    def cover(self, identity: Identity) -> bool:
        """Tell whether the token behind an identity is revoked."""
        if not self._before_s or identity.uid is None:
            return False
        before_s = self._before_s.get(identity.uid)
        if before_s is None:
            return False
        return identity.issued_at_s is None or identity.issued_at_s < before_s
