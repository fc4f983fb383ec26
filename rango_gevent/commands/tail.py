"""``rango tail``: subscribe to streams and print their events, one a line; or rates, or a book.

What is asked for goes to standard output, everything else to standard error. On a terminal a
book's ladder and the rates are drawn in place; into a pipe they go as lines.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import Callable

from rango_gevent.client.buffers import BLOCK
from rango_gevent.client.deadline import Deadline
from rango_gevent.client.handles import Book
from rango_gevent.client.model import (
    IDLE,
    LIVE,
    STATE,
    ConnectionLost,
    Event,
    Notice,
    StateChange,
)
from rango_gevent.client.orderbook import INVALID
from rango_gevent.client.sinks import BookChange
from rango_gevent.client.stream import StreamClient
from rango_gevent.commands import ladder
from rango_gevent.commands.arguments import (
    add_token_arguments,
    decimal,
    given_token,
    whole,
)
from rango_gevent.commands.rates import Rates
from rango_gevent.commands.terminal import Screen, can_draw, escaped, is_utf8, say
from rango_gevent.errors import ConfigError, Refused

_FAILED = 1
_FRAME_S = 0.1  # a book that changes more often is drawn so often
_RATE_S = 1.0


DESCRIPTION = """\
Subscribe to streams and print each event as `stream  json`. Control characters are
escaped. Replies and errors go to standard error. Connects to /private with a token,
else to /public, and comes back after a lost connection. --book and --rate draw in
place in a terminal, and print a line for each change elsewhere."""
EXAMPLE = """\
  rango tail eurusd.trades global.tickers
  rango tail --book eurusd
  RANGO_TOKEN="$(rango token)" rango tail order trade --count 10 --timeout 60"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    add = parser.add_argument
    add("streams", nargs="*", metavar="STREAM", help="name of a stream, such as eurusd.trades")
    add("--book", metavar="MARKET", help="show a book instead: a live ladder in a terminal")
    add("--rate", action="store_true", help="show events a second of each stream instead")
    add("--json", action="store_true", help="print one JSON object a line, for pipes")
    add(
        "--url",
        default="ws://127.0.0.1:8080",
        help="of the gateway; /public or /private is added (default: %(default)s)",
    )
    add_token_arguments(parser)
    add(
        "--count",
        type=whole(0),
        default=0,
        metavar="N",
        help="end after N events (default: never)",
    )
    add(
        "--timeout",
        type=decimal(0, 10**7),
        default=0.0,
        metavar="S",
        help="end after S seconds, with exit code 1 when events are missing (default: never)",
    )
    add(
        "--raw",
        action="store_true",
        help="print the published bytes and nothing else, unescaped: for pipes and files",
    )
    add("--no-reconnect", action="store_true", help="end when the connection is lost")


def run(arguments: argparse.Namespace) -> int:
    """Print events until enough came or the time is over.

    Args:
        arguments: ``url``, ``streams``, ``book`` (a market), ``token``, ``token_file``, ``count``
            (events, 0: no bound), ``timeout`` (seconds, 0: no bound), ``raw``, ``json``, ``rate``,
            ``no_reconnect``.

    Returns:
        0 when all events came, 1 when not.

    Raises:
        ConfigError: the URL is none, the token cannot be read, or arguments contradict each other.
    """
    check(arguments)
    client = StreamClient(
        arguments.url,
        token=given_token(arguments, os.environ),
        reconnect=not arguments.no_reconnect,
    )
    listener = _Listener(client)
    tail = _Tail(client, listener, arguments)
    try:
        tail.follow()
    except (Refused, ConnectionLost) as error:
        say(f"rango: {error}")
    except TimeoutError:
        return _time_over(tail.count, arguments)
    except _Enough:
        return 0
    finally:
        client.close()
    if listener.failure:
        say(f"rango: {listener.failure}")
    return _FAILED


def check(arguments: argparse.Namespace) -> None:
    """See that the arguments make one wish.

    Raises:
        ConfigError: they do not.
    """
    if bool(arguments.streams) == bool(arguments.book):
        raise ConfigError("tail: give the name of a STREAM, or several; or --book MARKET")
    if arguments.raw and (arguments.book or arguments.rate or arguments.json):
        raise ConfigError("tail: --raw prints events as they are; not with --book, --rate, --json")
    if arguments.book and arguments.rate:
        raise ConfigError("tail: --book shows how often it changes; --rate goes with streams")


class _Enough(Exception):
    """As many events came as were asked for."""


class _Listener:
    """Says what a client hears, and ends one whose first connection fails.

    Whoever mistyped a URL wants to hear of it, and not wait.

    Attributes:
        failure: why there was no first connection.
        is_drawing: a page is drawn on the terminal, which lines would spoil.
        latest: how the connection is, in words.
    """

    def __init__(self, client: StreamClient) -> None:
        self.failure = ""
        self.is_drawing = False
        self.latest = ""
        self._client = client
        self._was_live = False
        client.on_state(self._hear_state)
        client.on_notice(self._hear_notice)

    def _hear_state(self, change: StateChange) -> None:
        self._was_live = self._was_live or change.state == LIVE
        again = f", dials in {change.wait_s:.1f} s" if change.wait_s else ""
        self.latest = f"{change.state}{again}: {change.reason} ({change.url})"
        if change.state == IDLE and not self._was_live:
            self.failure = change.reason
            self._client.close()

    def _hear_notice(self, notice: Notice) -> None:
        if not (self.failure or self.is_drawing):
            say(f"rango: {notice.text}" if notice.kind == STATE else notice.text)


class _Tail:
    """What is shown, and how much of it there was.

    Attributes:
        count: events, or changes of a book.
    """

    def __init__(
        self, client: StreamClient, listener: _Listener, arguments: argparse.Namespace
    ) -> None:
        self.count = 0
        self._client = client
        self._listener = listener
        self._arguments = arguments
        self._deadline = Deadline(arguments.timeout or None)

    def follow(self) -> None:
        """Show everything until the client ends.

        Raises:
            _Enough: it was as much as was asked for.
            TimeoutError: the time is over.
            Refused, ConnectionLost: the client has ended.
        """
        if self._arguments.book:
            book = self._client.book(self._arguments.book)
            self._client.start()
            self._draw_or_print(
                lambda screen: self._draw_book(book, screen), lambda: self._print_book(book)
            )
            return
        for name in dict.fromkeys(self._arguments.streams):
            self._client.subscribe(name, policy=BLOCK)
        if self._arguments.rate:
            rates = Rates(self._arguments.streams, time.monotonic())
            self._draw_or_print(
                lambda screen: self._follow_rates(rates, lambda: screen.draw(rates.page())),
                lambda: self._follow_rates(rates, lambda: self._print(rates.lines(self._json))),
            )
        else:
            self._print_events()

    @property
    def _json(self) -> bool:
        return bool(self._arguments.json)

    def _draw_or_print(
        self, draw: Callable[[Screen], None], print_lines: Callable[[], None]
    ) -> None:
        if self._json or not can_draw(sys.stdout):
            print_lines()
            return
        self._listener.is_drawing = True
        with Screen(sys.stdout) as screen:
            draw(screen)

    def _counted(self, number: int = 1) -> None:
        self.count += number
        if self.count >= self._arguments.count > 0:
            raise _Enough

    @staticmethod
    def _print(lines: list[str]) -> None:
        ascii_only = not is_utf8(sys.stdout)
        out = sys.stdout.buffer
        out.write("".join(f"{escaped(one, ascii_only=ascii_only)}\n" for one in lines).encode())
        out.flush()

    # -- events -------------------------------------------------------------------------

    def _print_events(self) -> None:
        show = printer(self._arguments.raw, self._json)
        for event in self._client.events(self._deadline.left_s()):
            show(event)
            self._counted()

    def _follow_rates(self, rates: Rates, show: Callable[[], None]) -> None:
        """Count events, and show the rates once a second."""
        while True:
            tick = Deadline(min(_RATE_S, self._deadline.left_s() or _RATE_S))
            try:
                for event in self._client.events(tick.left_s()):
                    rates.add(event.stream)
                    self._counted()
                return
            except TimeoutError:
                rates.close_window(time.monotonic(), self._listener.latest)
                show()
            self._deadline.check()

    # -- a book ---------------------------------------------------------------------------

    def _moment(self, book: Book, change: BookChange | None, levels: int) -> ladder.Moment:
        with self._client.lock:  # levels and sequence of one moment
            sequence, (bids, asks) = book.sequence, book.levels(levels)
        kind, reason, at_s = ("", "", 0.0)
        if change is not None:
            kind, reason, at_s = change.kind, change.reason, change.received_at_s
        return ladder.Moment(book.stream, kind, reason, sequence, bids, asks, at_s)

    def _changes(self, book: Book, deadline: Deadline) -> list[BookChange]:
        """Wait for changes and return all that are there.

        Raises:
            TimeoutError: none came.
            EOFError: the client was closed.
        """
        changes = [book.get(deadline.left_s())]
        try:
            while True:
                changes.append(book.get(0))
        except (TimeoutError, EOFError):
            return changes

    def _print_book(self, book: Book) -> None:
        """Print a line for what changed; of changes that came together the last is enough."""
        form = ladder.as_json if self._json else ladder.as_line
        while True:
            try:
                changes = self._changes(book, self._deadline)
            except EOFError:
                return
            newest = changes[-1]
            told = [one for one in changes[:-1] if one.kind == INVALID] + [newest]
            self._print([form(self._moment(book, change, 1)) for change in told])
            self._counted(len(changes))

    def _draw_book(self, book: Book, screen: Screen) -> None:
        newest: BookChange | None = None
        rates = Rates((), time.monotonic())
        while True:
            frame = Deadline(_FRAME_S)
            try:
                changes = self._changes(book, frame)
            except TimeoutError:
                changes = []
            except EOFError:
                return
            newest = changes[-1] if changes else newest
            rates.add(book.stream, len(changes))
            rates.close_window_after(_RATE_S, time.monotonic())
            rows = screen.size()[1]
            moment = self._moment(book, newest, ladder.levels_for(rows))
            rate = rates.per_s(book.stream)
            screen.draw(ladder.as_ladder(moment, rows, rate, self._listener.latest))
            self._counted(len(changes))
            self._deadline.check()
            time.sleep(frame.left_s() or 0.0)


def _time_over(count: int, arguments: argparse.Namespace) -> int:
    if count and not arguments.count:
        return 0
    wanted = f" of {arguments.count}" if arguments.count else ""
    say(f"rango: {count}{wanted} events within {arguments.timeout:g} s")
    return _FAILED


def printer(raw: bool, as_json: bool = False) -> Callable[[Event], None]:
    """Return what prints an event on standard output.

    Args:
        raw: print the publisher's bytes and nothing else; for pipes, not for terminals.
        as_json: print a JSON object.
    """
    out = sys.stdout.buffer
    ascii_only = not is_utf8(sys.stdout)
    form = json_line if as_json else line

    def show(event: Event) -> None:
        text = event.body if raw else form(event, ascii_only)
        out.write(text.encode() + b"\n")
        out.flush()

    return show


def line(event: Event, ascii_only: bool = False) -> str:
    """Return an event as one line that a terminal can show: ``stream json``."""
    name = escaped(event.stream, ascii_only=ascii_only)
    return f"{name}  {escaped(event.body, ascii_only=ascii_only)}"


def json_line(event: Event, ascii_only: bool = False) -> str:
    """Return an event as one JSON object on a line; the body is as it was published.

    Of a server that checks nothing a body may be no JSON: then it is a text, under ``text``.
    """
    body = escaped(event.body, ascii_only=ascii_only)
    try:
        json.loads(body)
        member = f'"body":{body}'
    except (ValueError, RecursionError):
        member = f'"text":{json.dumps(event.body)}'
    name = json.dumps(event.stream)
    return f'{{"stream":{name},"received_at":{event.received_at_s:.6f},{member}}}'
