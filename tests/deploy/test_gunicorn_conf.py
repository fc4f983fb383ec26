"""conf/gunicorn.conf.py in the real gunicorn."""

from __future__ import annotations

import contextlib
import runpy
import signal
import socket
import sys
from pathlib import Path

import pytest
from gunicorn.config import Config
from processes import CONF, handshake_status, run
from support import HOST, Client, Server, server_env, start_gateway, wait_for

from rango_gevent import logs

COMMAND = [sys.executable, "-m", "gunicorn", "-c", str(CONF / "gunicorn.conf.py")]
COMMAND += ["rango_gevent.wsgi:app"]
WORKERS = 2


def open_clients(gateway: Server, stack: contextlib.ExitStack, count: int) -> list[Client]:
    """Connect clients and take their first replies."""
    clients = [stack.enter_context(gateway.connect()) for _ in range(count)]
    for client in clients:
        client.receive()
    return clients


def test_serves_with_two_workers() -> None:
    """Two workers consume, refuse and serve; at SIGTERM every client hears 1012 and all ends."""
    with contextlib.ExitStack() as stack:
        env = {"RANGO_WORKERS": str(WORKERS)}
        gateway = stack.enter_context(start_gateway(command=COMMAND, env=env))
        wait_for(lambda: gateway.metric("rango_broker_connected") == WORKERS, 60, "two workers")
        assert handshake_status(gateway.url, "/private") == 401
        clients = open_clients(gateway, stack, 8)
        for client in clients:
            client.subscribe("btcusd.trades")
        gateway.publish("public.btcusd.trades", "[1]")
        for client in clients:
            assert client.receive() == '{"btcusd.trades":[1]}'
        assert gateway.stop() == 0
        assert {client.closed()[0] for client in clients} == {1012}
        assert not gateway.group_is_alive()
        assert "Traceback" not in gateway.log()


def test_slow_drain_outlives_the_timeout(tmp_path: Path) -> None:
    """A worker that drains for longer than gunicorn's timeout is left in peace by its parent."""
    short = tmp_path / "short.conf.py"
    short.write_text((CONF / "gunicorn.conf.py").read_text() + "\ntimeout = 4\n")
    command = [word.replace(str(CONF / "gunicorn.conf.py"), str(short)) for word in COMMAND]
    env = {"RANGO_WORKERS": "2", "RANGO_DRAIN_S": "7"}
    with contextlib.ExitStack() as stack:
        gateway = stack.enter_context(start_gateway(command=command, env=env))
        wait_for(lambda: gateway.metric("rango_broker_connected") == 2, 60, "two workers")
        clients = open_clients(gateway, stack, 12)
        gateway.process.send_signal(signal.SIGTTOU)  # one worker less
        wait_for(lambda: "stopped" in gateway.log(), 60, "the end of one worker")
        assert "WORKER TIMEOUT" not in gateway.log()

        def codes() -> set[int | None]:
            return {client.connection.protocol.close_code for client in clients}

        wait_for(lambda: 1012 in codes(), 60, "the news at the clients")
        assert codes() == {1012, None}


def test_reload_reaches_every_worker_and_drops_nobody(tmp_path: Path) -> None:
    """At SIGHUP to the parent all workers take over what changed; they and their clients stay."""
    file = tmp_path / "env"
    file.write_text("")
    env = {"RANGO_WORKERS": str(WORKERS), "RANGO_ENV_FILE": str(file)}
    with contextlib.ExitStack() as stack:
        gateway = stack.enter_context(start_gateway(command=COMMAND, env=env))
        wait_for(lambda: gateway.metric("rango_broker_connected") == WORKERS, 60, "two workers")
        clients = open_clients(gateway, stack, 12)
        file.write_text("RANGO_MAX_STREAMS=1\n")
        gateway.process.send_signal(signal.SIGHUP)
        reloaded = "settings are reloaded"
        wait_for(lambda: gateway.log().count(reloaded) == WORKERS, 60, "the reload")
        for client in clients:
            client.subscribe("btcusd.trades")
            client.send({"event": "subscribe", "streams": ["btcusd.tickers"]})
            assert "Too many streams: the limit is 1" in client.receive()
        gateway.publish("public.btcusd.trades", "[1]")
        for client in clients:
            assert client.receive() == '{"btcusd.trades":[1]}'
        assert gateway.log().count("Booting worker") == WORKERS


def test_raises_the_limit_of_open_files() -> None:
    """A worker may open as many files as the system allows, a client each."""
    shell = ["/bin/sh", "-c", 'ulimit -Sn 256; exec "$@"', "sh"]
    with contextlib.ExitStack() as stack:
        gateway = stack.enter_context(start_gateway(command=[*shell, *COMMAND]))
        clients = open_clients(gateway, stack, 300)
        assert gateway.metric("rango_hub_clients_count") == len(clients)


@pytest.mark.parametrize(
    ("wrong", "problem", "code"),
    [
        ({"RANGO_WORKERS": "many", "RANGER_PORT": "0"}, "RANGO_WORKERS='many': give a whole", 2),
        ({"RANGER_HOST": "192.0.2.1"}, "cannot listen on 192.0.2.1:", 2),
        ({"JWT_PUBLIC_KEY": ""}, "no public key: JWT_PUBLIC_KEY is not set", 3),
    ],
)
def test_wrong_settings_end_it(
    wrong: dict[str, str], problem: str, code: int, tmp_path: Path
) -> None:
    """A wrong setting is told in one line, and gunicorn ends in place of trying again for ever."""
    done = run(COMMAND, tmp_path, server_env("none", wrong), timeout_s=90)
    assert done.returncode == code
    assert done.stdout.count(f"rango: {problem}") == 1
    assert "Traceback" not in done.stdout


def test_taken_port_is_not_shared(tmp_path: Path) -> None:
    """A second gateway on the same port does not start, SO_REUSEPORT or not."""
    with socket.create_server((HOST, 0), reuse_port=True) as other:
        port = str(other.getsockname()[1])
        done = run(COMMAND, tmp_path, server_env("none", {"RANGER_PORT": port}), timeout_s=90)
    assert done.returncode == 2
    assert f"rango: cannot listen on {HOST}:{port} (Address already in use)" in done.stdout


def test_file_names_every_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file sets what ``RANGO_WORKERS=N rango`` sets, to the same values, and no more."""
    monkeypatch.setattr(logs, "_shows_pid", False)  # the hooks are for a process of their own
    from rango_gevent import gunicorn_hooks

    known = set(Config().settings)
    ours = {name: value for name, value in vars(gunicorn_hooks).items() if name in known}
    file = runpy.run_path(str(CONF / "gunicorn.conf.py"))
    assert {name: value for name, value in file.items() if name in known} == ours
