"""The command line: which command runs, with which arguments, and what is refused."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest

from rango_gevent import cli
from rango_gevent.commands import serve
from rango_gevent.commands.arguments import setting_flags
from rango_gevent.errors import ConfigError


def parsed(*argv: str) -> Any:
    """Parse a command line as `cli.main` does."""
    return cli.parse(argv)


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Return what is said about a command line that ends with exit code 2."""
    with pytest.raises(SystemExit) as ended:
        parsed(*argv)
    assert ended.value.code == 2
    return capsys.readouterr().err


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    """Run ``rango`` as a process."""
    return subprocess.run(
        [sys.executable, "-m", "rango_gevent", *argv], capture_output=True, text=True, timeout=90
    )


@pytest.mark.parametrize(
    "argv",
    [
        ["-ws-addr", "127.0.0.1:1", "-exchange", "x"],
        ["--ws-addr", "127.0.0.1:1", "--exchange", "x"],
        ["-ws-addr=127.0.0.1:1", "--exchange=x"],
        ["--ws-addr=127.0.0.1:1", "-exchange=x"],
        ["serve", "-exchange", "x", "-ws-addr", "127.0.0.1:1"],
        ["-exchange=first", "-exchange=x", "-ws-addr=127.0.0.1:1"],
    ],
)
def test_flags_of_go_are_understood(argv: list[str]) -> None:
    """One dash or two, a blank or an equals sign, with serve and without; the last one wins."""
    arguments = parsed(*argv)
    assert arguments.run is serve.run
    assert setting_flags(arguments) == {"ws-addr": "127.0.0.1:1", "exchange": "x"}


def test_all_of_rangos_flags_exist() -> None:
    """The four flags of Go's Rango reach the settings under their own names."""
    flags = {"ws-addr": "a:1", "amqp-addr": "amqp://b", "pubKey": "c", "exchange": "d"}
    argv = [word for flag, value in flags.items() for word in (f"-{flag}", value)]
    assert setting_flags(parsed(*argv)) == flags


def test_nothing_means_serve() -> None:
    """Without any argument it serves, with no flag set."""
    arguments = parsed()
    assert arguments.run is serve.run
    assert setting_flags(arguments) == {}


def test_an_unknown_command_is_named_with_its_neighbour() -> None:
    """A typing error in a command is told as one, not as an argument of serve."""
    with pytest.raises(ConfigError, match=r"^no command 'servee': did you mean 'serve'\?$"):
        parsed("servee")
    with pytest.raises(ConfigError, match=r"^no command 'qqq': there are serve, demo, keys, "):
        parsed("qqq", "-exchange", "x")


def test_the_benchmark_that_was_a_command_says_where_it_is() -> None:
    """``rango bench`` names `make bench`, and what measures a deployment."""
    with pytest.raises(ConfigError, match=r"^no command 'bench': .*`make bench`.*`rango load`"):
        parsed("bench", "fan-50")


def test_flags_are_not_guessed(capsys: pytest.CaptureFixture[str]) -> None:
    """The beginning of a flag is not that flag: it may become another's one day."""
    assert "unrecognized arguments: --exch=x" in refused(capsys, "--exch=x")
    assert "unrecognized arguments: --forc" in refused(capsys, "keys", "--forc")


@pytest.mark.parametrize("command", cli.SUBCOMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """``--help`` of a command has a description and an example that parses."""
    with pytest.raises(SystemExit) as ended:
        parsed(command, "--help")
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert f"usage: rango {command}" in shown
    assert "\nexample:\n  " in shown
    for example in shown.split("example:\n")[1].splitlines():
        assert callable(parsed(*example.rsplit("rango ", 1)[1].split()).run)


@pytest.mark.parametrize("word", ["--help", "-h", "-help"])
def test_help_tells_of_serve_and_of_the_commands(
    word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first page says that it serves without a command, and lists flags and commands."""
    with pytest.raises(SystemExit) as ended:
        parsed(word)
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "Without a COMMAND it serves." in shown
    for name in cli.SUBCOMMANDS:
        assert re.search(rf"\n    {name}\s", shown)
    for flag in ("-ws-addr", "-amqp-addr", "-pubKey", "-exchange"):
        assert f"\n  {flag} " in shown


def test_defaults() -> None:
    """What is left out has the value that the help shows."""
    tail = parsed("tail", "a.b")
    assert (tail.url, tail.count, tail.timeout, tail.raw) == ("ws://127.0.0.1:8080", 0, 0, False)
    token = parsed("token")
    assert (token.key, token.ttl, token.exp, token.no_exp) == (
        "config/ed25519-key",
        3600,
        None,
        False,
    )
    inject = parsed("inject", "-")
    assert (inject.file, inject.rate, inject.count, inject.wait) == ("-", 0, 1, 0)
    demo = parsed("demo")
    assert (demo.seed, demo.rate, demo.ws_addr, demo.metrics_port) == (
        1,
        5.0,
        "127.0.0.1:8080",
        None,
    )


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["tail", "a", "--count", "-1"], "argument --count: '-1': give a whole number from 0"),
        (["tail", "a", "--count", "1.5"], "argument --count: '1.5': give a whole number"),
        (["tail", "a", "--timeout", "nan"], "argument --timeout: 'nan': give a number from 0"),
        (["tail", "a", "--token", "x", "--token-file", "y"], "not allowed with argument --token"),
        (["token", "--ttl", "x"], "argument --ttl: 'x': give a whole number"),
        (["token", "--no-exp", "--ttl", "1"], "--ttl: not allowed with argument --no-exp"),
        (["token", "--exp", "1_0"], "argument --exp: '1_0': give a whole number"),
        (["inject"], "the following arguments are required: FILE"),
        (["inject", "f", "--rate", "-1"], "argument --rate: '-1': give a number from 0"),
        (["inject", "f", "--rate", "inf"], "argument --rate: 'inf': give a number from 0"),
        (["inject", "f", "--wait", "x"], "argument --wait: 'x': give a number from 0 to 86400"),
        (["demo", "--rate", "0"], "argument --rate: '0': give a number from 0.01 to 1000"),
        (["demo", "--metrics-port", "65536"], "give a whole number from 0 to 65535"),
    ],
)
def test_wrong_arguments_are_told(
    argv: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong argument is exit code 2 and a line that says what is wanted."""
    assert told in refused(capsys, *argv)


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["tail"], "give the name of a STREAM, or several; or --book MARKET"),
        (["tail", "a.b", "--book", "a"], "give the name of a STREAM, or several; or --book MARKET"),
        (["tail", "a.b", "--raw", "--json"], "not with --book, --rate, --json"),
        (["tail", "--book", "a", "--rate"], "--rate goes with streams"),
    ],
)
def test_wishes_that_contradict_each_other_are_told(argv: list[str], told: str) -> None:
    """What to show must be one thing, and tail does not guess which."""
    with pytest.raises(ConfigError, match=re.escape(told)):
        arguments = parsed(*argv)
        arguments.run(arguments)


def test_a_token_may_be_expired_already() -> None:
    """A negative number is the value of ``--ttl``, not another flag."""
    assert parsed("token", "--ttl", "-5").ttl == -5


def test_the_process_tells_what_is_wrong_in_one_line() -> None:
    """Settings and commands that are wrong end with exit code 2, one line each, no traceback."""
    ended = run("-ws-addr", "nowhere")
    assert ended.returncode == 2
    assert ended.stderr.startswith("rango: -ws-addr='nowhere': give HOST:PORT")
    assert len(ended.stderr.splitlines()) == 1
    ended = run("servee")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "rango: no command 'servee': did you mean 'serve'?\n"


def test_help_and_token_import_nothing_heavy() -> None:
    """The quick commands do not wait for the broker's library, nor for the server."""
    script = """
import sys
from rango_gevent.cli import main
try:
    main(sys.argv[1:])
finally:
    heavy = {"kombu", "amqp", "geventwebsocket", "websockets", "prometheus_client", "msgspec"}
    print("heavy:", sorted(heavy & set(sys.modules)), file=sys.stderr)
"""
    for argv in (["--help"], ["token", "--key", "/nonexistent"], ["keys", "--help"]):
        ended = subprocess.run(
            [sys.executable, "-c", script, *argv], capture_output=True, text=True, timeout=90
        )
        assert ended.stderr.splitlines()[-1] == "heavy: []"


def test_importing_the_command_patches_nothing() -> None:
    """Only `main` patches the standard library; importing the module is harmless."""
    script = (
        "from gevent import monkey; import rango_gevent.cli as cli;"
        "before = monkey.is_module_patched('socket'); cli.main(['config', '--env-example']);"
        "assert (before, monkey.is_module_patched('socket')) == (False, True)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, timeout=90)


def test_nothing_is_imported_before_it_can_be_patched() -> None:
    """Modules that hold on to the plain sockets, such as a library of tokens, wait for their turn."""
    code = "import rango_gevent.cli, sys; print({'jwt', 'ssl', 'socket', 'urllib3'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
