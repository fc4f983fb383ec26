"""Which routing keys a worker's queue is bound to: fixed ones, or those that its clients hold.

Pure. Following the clients (`auto`), a queue is bound to a market, a user or a prefix as long as
somebody here holds a stream of it, and for a while after. A market whose book was asked for stays
bound: a book is only whole if none of its increments was missed. Of each kind there are so many
bindings at most; when more would be needed the kind is bound as a whole.
"""

from __future__ import annotations

from typing import Iterable, NamedTuple

from rango_gevent.protocol import routing

EVERYTHING = "#"
AUTO = "auto"

_ALWAYS = "global.#"  # few messages, of which many markets' streams are made
_WHOLE = {routing.PUBLIC: "public.#", routing.PRIVATE: "private.#", routing.PREFIXED: EVERYTHING}
_WILD = frozenset("*#")
_LONGEST = routing.MAX_KEY_BYTES


class Change(NamedTuple):
    """What is to be bound, and what not to be any more."""

    bind: list[str]
    unbind: list[str]


class Bindings:
    """The bindings of one queue.

    Args:
        fixed: keys that are always bound.
        follows: follow what clients hold.
        most: bindings of one kind.
        keep_s: seconds for which one stays that nobody needs any more.

    Attributes:
        bound: the keys that are bound, by what was told last.
    """

    def __init__(
        self, fixed: Iterable[str], *, follows: bool, most: int = 1000, keep_s: float = 60.0
    ) -> None:
        self._fixed = tuple(fixed)
        if follows:
            self._fixed = (*self._fixed, _ALWAYS)
        self._follows = follows
        self._most = most
        self._keep_s = keep_s
        self._counts: dict[str, dict[str, int]] = {kind: {} for kind in routing.KINDS}
        self._idle: dict[tuple[str, str], float] = {}
        self._for_ever: set[str] = set()
        self._is_whole = dict.fromkeys(routing.KINDS, False)
        self._turn = 0
        self.bound: dict[str, None] = dict.fromkeys(self._fixed)

    @property
    def follows(self) -> bool:
        """Tell whether they change with what clients hold."""
        return self._follows

    def held(self, kind: str, address: str, is_held: bool, now_s: float) -> bool:
        """Note that a stream has its first subscriber, or no more; True: look at `change` now.

        Args:
            kind: of the stream.
            address: of the stream.
            is_held: somebody holds it.
            now_s: monotonic time.
        """
        if not self._follows or kind not in self._counts:
            return False
        key = key_of(kind, address)
        if key is None:
            return False
        counts = self._counts[kind]
        if not is_held:
            counts[key] -= 1
            if not counts[key] and key not in self._for_ever:
                self._idle[kind, key] = now_s
            return False
        if kind == routing.PUBLIC and routing.is_book(address):
            self._for_ever.add(key)
        self._idle.pop((kind, key), None)
        counts[key] = counts.get(key, 0) + 1
        return key not in self.bound and not self._is_whole[kind]

    def change(self, now_s: float) -> Change:
        """Return what differs from what is bound; from now on it is taken for bound."""
        self._forget_idle(now_s)
        wanted = dict.fromkeys(self._fixed)
        for kind, counts in self._counts.items():
            self._is_whole[kind] = self._needs_whole(kind)
            wanted.update(dict.fromkeys([_WHOLE[kind]] if self._is_whole[kind] else counts))
        change = Change(
            [key for key in wanted if key not in self.bound],
            [key for key in self.bound if key not in wanted],
        )
        self.bound = wanted
        return change

    def _forget_idle(self, now_s: float) -> None:
        for (kind, key), since_s in list(self._idle.items()):
            if now_s - since_s < self._keep_s:
                break  # they are in the order of time
            del self._idle[kind, key]
            del self._counts[kind][key]

    def _needs_whole(self, kind: str) -> bool:
        """Tell whether a kind is bound as a whole; it ends at half of what began it."""
        count = len(self._counts[kind])
        return count > (self._most // 2 if self._is_whole[kind] else self._most)

    def some(self, count: int) -> list[str]:
        """Return the next so many of the bound keys in turn, to be bound again.

        A binding goes with its exchange, and the broker does not say so.
        """
        keys = list(self.bound)
        if len(keys) <= count:
            return keys
        start = self._turn % len(keys)
        self._turn = start + count
        return (keys + keys)[start : start + count]


def key_of(kind: str, address: str) -> str | None:
    """Return the binding that brings all messages of a stream; None: there can be none.

    Args:
        kind: of the stream.
        address: of the stream, made up by a client perhaps.
    """
    if kind == routing.PRIVATE:
        uid = address.rpartition(".")[0]
        key = f"private.{uid}.*"
        is_possible = uid and "." not in uid and not _WILD & {uid}
    elif kind == routing.PREFIXED:
        prefix = routing.prefix_of(address)
        key, is_possible = f"{prefix}.#", prefix and not _WILD & {prefix}
    else:
        market, _, type_ = address.partition(".")
        key = f"public.{market}.*"
        if market == "*":
            key = f"public.*.{type_}"  # a pattern, which AMQP reads in the same way
        elif market in ("public", "global"):
            key = "public.#" if market == "public" else "public.global.*"
        is_possible = market and not _WILD & {market, type_} - {"*"}
    return key if is_possible and len(key.encode()) <= _LONGEST else None
