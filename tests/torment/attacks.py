"""The table of attacks: what each is, and what others may notice of it at most."""

from __future__ import annotations

from typing import Callable, Mapping, NamedTuple, Optional

from tests.torment import publishers, requests, returners, subscribers, viabtc
from tests.torment.target import Target

_NONE: Mapping[str, str] = {}
_FEW_FILES = 400  # what a bare `ulimit -n` leaves to find out sooner
_LOG_BYTES = 200
_KEPT_MB = 60.0  # when it is over and calm; what allocators do not give back


class Attack(NamedTuple):
    """One row.

    Attributes:
        name: on the command line and in the table.
        text: one line for people.
        run: what the attacker's process does.
        latency_ms: how late a good client's message may be at most; None: not judged.
        memory_mb: how much the gateway's resident memory may grow.
        memory_mb_each: that much more for each of ``size["clients"]``.
        checks: maxima of other values, by name: the good clients' (``newcomer_ms``,
            ``health_ms``, ``ping_ms``) and those that the attack itself finds.
        env: settings of the gateway.
        files: files that the gateway may open; 0: as many as this process.
        source: address that the good clients come from.
        size: numbers of the attack.
        short: those that differ in the short form; None: it has none.
        least_s: how long it must last at least to be told from none.
    """

    name: str
    text: str
    run: Callable[[Target], None]
    latency_ms: Optional[float]
    memory_mb: float = 50
    memory_mb_each: float = 0
    checks: Mapping[str, float] = {}
    env: Mapping[str, str] = _NONE
    files: int = 0
    source: str = "127.0.0.1"
    size: Mapping[str, int] = {}
    short: Optional[Mapping[str, int]] = {}
    least_s: float = 0

    def bounds(self, is_short: bool) -> dict[str, float]:
        """Return all maxima, by name of what is measured."""
        each = self.memory_mb_each * self.sizes(is_short).get("clients", 0)
        found = {
            "lost": 0.0,
            "closed": 0.0,
            "kept_mb": _KEPT_MB,
            "memory_mb": self.memory_mb + each,
            **self.checks,
        }
        if self.latency_ms is not None:
            found["latency_ms"] = self.latency_ms
        return found

    def sizes(self, is_short: bool) -> dict[str, int]:
        """Return the numbers of a form."""
        return {**self.size, **((self.short or {}) if is_short else {})}


BASELINE = Attack("baseline", "nothing", Target.hold, None)

_BIG = {"RANGO_MAX_EVENT_BYTES": str(16 << 20)}
_HANDSHAKE_2_S = {"RANGO_HANDSHAKE_TIMEOUT_S": "2"}
_COMING_IN_MS = {"newcomer_ms": 3000.0}
_ALIVE_MS = {"newcomer_ms": 3000.0, "health_ms": 3000.0}
_VIABTC = {"RANGO_VIABTC": "on"}
_VIABTC_RPC = {
    **_VIABTC,
    "RANGO_VIABTC_RPC": f"kline.query={viabtc.BIG},state.query={viabtc.SILENT},"
    "today.query=http://127.0.0.1:9",
}

ATTACKS = (
    BASELINE,
    Attack("pipelined-gets", "one connection pipelines GET / at 1.2 MB/s", requests.pipelined_gets, 30),
    Attack("endless-chunks", "a body without end in chunks of a byte", requests.endless_chunks, 30),
    Attack("refused-chunks", "the same to a request that is answered 405", requests.endless_refused_chunks, 30, short=None),
    Attack("pipelined-scrapes", "pipelined requests on the metrics port", requests.pipelined_scrapes, 30),
    Attack("metrics-chunks", "a body without end on the metrics port", requests.endless_metrics_chunks, 30, short=None),
    Attack("long-replies", "97 lists of 1000 long names, asked for in one write", subscribers.long_replies, 100, 100, size={"clients": 40, "names": 1000}, short={"clients": 12, "names": 400}),
    Attack("distinct-sets", "each client its own 1000 streams, and a burst", subscribers.distinct_sets, 150, 150, size={"clients": 100, "messages": 3000, "bytes": 4000}, short={"clients": 48, "bytes": 2000}),
    Attack("deaf-distinct", "readers that read nothing, each with its own bytes", subscribers.deaf_distinct, 150, 50, 1.01, {"gauge_short_percent": 30}, size={"clients": 80}, short={"clients": 25}),
    Attack("unique-names", "1000 names each, scrapes, all leave at once", subscribers.unique_names, 100, 800, checks={"kept_mb": 800}, size={"clients": 1000}, short={"clients": 100}),
    Attack("pings-behind-handshake", "2600 pings in the write of each handshake", requests.pings_behind_handshake, 150, size={"rate": 150}),
    Attack("polite-crowd", "clients within their rate, all at the same instant", subscribers.polite_crowd, 150, 100, size={"clients": 2000}, short={"clients": 700}),
    Attack("polite-subscribers", "1000 names subscribed and left, all at the same instant", subscribers.polite_subscribers, 150, 200, size={"clients": 400}, short=None),
    Attack("token-crowd", "a good token 48 times a second each, all at the same instant", subscribers.token_crowd, 150, 100, size={"clients": 100}),
    Attack("admin-strangers", "strangers ask for all that administrators may", subscribers.admin_strangers, 150, 100, checks={"let_in": 0}, env={"RANGO_ADMIN_ROLES": "admin", "RANGO_ADMIN_LOGIN_S": "60"}, size={"clients": 200}, short={"clients": 100}),
    Attack("odd-heads", "heads that two parsers read in two ways", requests.odd_heads, 150, checks={"upgraded": 0, "not_refused": 0}),
    Attack("unfinished-heads", "heads of 5.6 MB that do not end", requests.unfinished_heads, 150, 20, size={"sockets": 60}, short={"sockets": 20}),
    Attack("other-names", "other names at each scrape", subscribers.other_names, 150, checks={"series": 520, "unpublished_series": 5}, size={"scrapes": 20}, short={"scrapes": 6}),
    Attack("odd-version", "GET / HTTP/1", requests.odd_version, 150, checks={"log_bytes_each": _LOG_BYTES}, size={"requests": 100}),
    Attack("burst-deaf", "readers that read nothing, on the good client's stream", subscribers.burst_deaf, 50, 50, 1.01, {"kernel_kb_each": 512}, size={"clients": 50, "messages": 1500, "bursts": 3}, short={"clients": 30, "bursts": 1}),
    Attack("burst-read", "readers that do read, bursts of 6 MB to each", subscribers.burst_read, 60, 50, 1.01, size={"clients": 50, "messages": 1500, "bursts": 3}, short={"clients": 30, "bursts": 1}),
    Attack("deaf-resumes", "clients come back to 6 MB that they missed, again and again, and read nothing", returners.deaf_resumes, 150, 60, 1.01, size={"clients": 80, "events": 9000, "bytes": 700}, short={"clients": 30, "events": 4000}),
    Attack("far-resumes", "clients come back to where nobody is yet, again and again", returners.far_resumes, 150, size={"clients": 500}, short=None),
    Attack("surrogates", "1 MB bodies with half of a surrogate pair", publishers.surrogates, 30),
    Attack("odd-timestamps", "messages of impossible ages", publishers.odd_timestamps, 150, checks={"lag_sum_s": 100}),
    Attack("big-body", "one body of 100 MB", publishers.big_body, None, 30, size={"mb": 100}, short={"mb": 60}),
    Attack("junk-books", "10,000 junk snapshots, then real ones", publishers.junk_books, None, checks={"refused": 0}, size={"books": 10_000}),
    Attack("books-flood", "1500 books of 1 MB", publishers.books_flood, None, 400, checks={"kept_mb": 400}, size={"books": 1500}, short=None),
    Attack("held-bodies", "400 announce a body and send none, 400 files", requests.held_bodies, 150, checks=_COMING_IN_MS, env=_HANDSHAKE_2_S, files=_FEW_FILES, size={"sockets": 400}, short=None),
    Attack("unread-answers", "400 pipeline requests and read nothing, 400 files", requests.unread_answers, 150, checks=_COMING_IN_MS, env=_HANDSHAKE_2_S, files=_FEW_FILES, size={"sockets": 400}),
    Attack("silent-metrics", "450 say nothing on the metrics port, 400 files", requests.silent_metrics, 150, checks=_ALIVE_MS, files=_FEW_FILES, size={"sockets": 450}, short=None),
    Attack("one-address", "420 of one address say nothing, 400 files", requests.one_address, 150, checks={"newcomer_ms": 1000}, env={"RANGO_MAX_CONNECTIONS_PER_ADDRESS": "10"}, files=_FEW_FILES, source="127.0.0.2", size={"sockets": 420}, least_s=2),
    Attack("packed-books", "40 books at once, compressed", subscribers.packed_books, 150, 100, checks={"books_missing": 0}, env={"RANGO_COMPRESSION": "on"}, size={"books": 40}),
    Attack("repeated-book", "one handshake names a 10 MB book 690 times", subscribers.repeated_book, 150, 100, checks={"books_each": 1.2}, env=_BIG, size={"clients": 20, "book_mb": 10}, short={"clients": 3}),
    Attack("deaf-book", "readers that read nothing, and a 10 MB book that changes", subscribers.deaf_book, 150, 70, 1.01, {"gauge_short_percent": 30}, env=_BIG, size={"clients": 50, "book_mb": 10}, short={"clients": 30}),
    Attack("viabtc-queries", "/viabtc: the largest answers, all at the same instant", viabtc.viabtc_queries, 150, 100, env=_VIABTC, size={"clients": 50, "levels": 5000}, short=None),
    Attack("viabtc-lists", "/viabtc: 48 lists of hundreds a second, all at the same instant", viabtc.viabtc_lists, 150, 100, env=_VIABTC, size={"clients": 50}, short=None),
    Attack("viabtc-firsts", "/viabtc: first pushes of 400 markets, again and again, unread", viabtc.viabtc_firsts, 150, 150, env=_VIABTC, size={"clients": 100, "markets": 400}, short=None),
    Attack("viabtc-views", "/viabtc: other views of changing books for each, half of them unread", viabtc.viabtc_views, 150, 150, checks={"depth_ms": 5000, "levels": 50_000, "kept_mb": 100}, env=_VIABTC, size={"clients": 100, "markets": 60, "levels": 1000}, short={"clients": 40, "markets": 10, "levels": 300}),
    Attack("viabtc-deaf", "/viabtc: 190 large queries in one write, unread", viabtc.viabtc_deaf, 150, 100, 1.01, {"kept_mb": 100}, env=_VIABTC, size={"clients": 80}, short=None),
    Attack("viabtc-rubbish", "/viabtc: endless numbers, names and nesting, and floods", viabtc.viabtc_rubbish, 150, 100, env=_VIABTC, short=None),
    Attack("viabtc-tokens", "/viabtc: bad tokens as fast as connections are let in", viabtc.viabtc_tokens, 150, 100, env=_VIABTC, short=None),
    Attack("viabtc-silence", "/viabtc: 48 questions a second each to backends that are slow or dead", viabtc.viabtc_silence, 150, 100, env=_VIABTC_RPC, size={"clients": 50}, short=None),
    Attack("viabtc-answers", "/viabtc: answers of a megabyte from a backend, unread", viabtc.viabtc_answers, 150, 100, 1.01, {"kept_mb": 100}, env=_VIABTC_RPC, size={"clients": 50}, short=None),
)  # fmt: skip


def by_name(name: str) -> Attack:
    """Return the attack of a name.

    Raises:
        KeyError: there is none.
    """
    return {attack.name: attack for attack in ATTACKS}[name]
