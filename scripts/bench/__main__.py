"""``python -m bench``: measure the gateway, and its peers beside it; see ``make bench``.

Runs unpatched: it watches processes, and no greenlets of its own.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from types import FrameType
from typing import Iterator, Sequence

from bench import arguments, gateways, jobs, machine, native, output, runner
from bench.report import Result
from rango_gevent.commands.terminal import BROKEN_PIPE, drop_stdout
from rango_gevent.errors import ConfigError

_FAILED = 1
_WRONG = 2
_INTERRUPTED = 130


def main(words: Sequence[str]) -> int:
    """Run the command.

    Returns:
        0, 1 when a scenario could not be measured, 2 for wrong arguments, 130 after Ctrl-C, 141
        when nobody reads standard output any more.
    """
    try:
        status = run(words)
        sys.stdout.flush()  # here, where a pipe that nobody reads can be told
        return status
    except ConfigError as error:
        for problem in error.problems:
            print(f"bench: {problem}", file=sys.stderr)
        return _WRONG
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        drop_stdout()
        return BROKEN_PIPE


def run(words: Sequence[str]) -> int:
    """Measure and report.

    Raises:
        ConfigError: something is missing, or an argument is wrong.
        KeyboardInterrupt: after the report of what was measured.
    """
    asked = arguments.parse(words)
    if asked.list:
        print(output.listing())
        return 0
    chosen = arguments.chosen(asked)
    arguments.check_outputs(asked)
    settings = arguments.settings_of(asked)
    target = arguments.target(asked, settings.exchange)
    broker_url = arguments.broker_url(asked, settings)
    progress = output.Progress()
    options = runner.Options(
        native.build(),
        asked.seconds,
        asked.client_threads,
        gateways.broker_pids(broker_url),
        progress.show,
    )
    about = output.about(broker_url, asked)
    results: list[Result] = []
    try:
        with _ended_by_sigterm():
            work = jobs.jobs(chosen, asked, target, broker_url, options)
            for number, job in enumerate(work, 1):
                progress.begin(f"[{number}/{len(work)}] {job.scenario.name} on {job.server}")
                result = jobs.run_one(job, options)
                result.workers = job.scenario.workers if target is None else None
                results.append(result)
                progress.end(output.short(result))
    finally:  # what was measured until Ctrl-C counts too
        if results:
            about["load_after"] = machine.load()
            output.tell(about, chosen, results, asked)
    return _FAILED if any(result.error for result in results) else 0


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end this block like Ctrl-C, so that started processes are ended too."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
