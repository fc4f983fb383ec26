"""SIGHUP: roles, limits, key and log level change, and nobody is dropped."""

from __future__ import annotations

import base64
import signal
from pathlib import Path

import pytest
from support import public_key_setting, start_gateway, wait_for
from websockets.exceptions import InvalidStatus

from rango_gevent.auth.keys import generate

_STREAM = "admin.btcusd.sys"


def test_a_reload_takes_over_what_changed_and_drops_nobody(tmp_path: Path) -> None:
    """A new role may subscribe, a new limit holds, and the old client still gets events."""
    file = tmp_path / "env"
    file.write_text("RANGO_RBAC_ADMIN=admin\n")
    with (
        start_gateway(env={"RANGO_ENV_FILE": str(file)}) as server,
        server.connect("/private?stream=a.trades", token=server.token(role="ops")) as client,
    ):
        client.receive()
        client.send({"event": "subscribe", "streams": [_STREAM]})
        assert "cannot subscribe" in client.receive()
        client.receive()

        file.write_text(
            f"RANGO_RBAC_ADMIN=admin,ops\nRANGO_MAX_STREAMS=2\nRANGER_PORT={server.port}\n"
        )
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "settings are reloaded" in server.log(), what="the reload")

        client.send({"event": "subscribe", "streams": [_STREAM]})
        assert "cannot subscribe" not in client.receive()
        client.send({"event": "subscribe", "streams": ["b.trades"]})
        assert "Too many streams" in client.receive()
        server.publish("public.a.trades", '{"n":1}')
        assert client.receive() == '{"a.trades":{"n":1}}'


def test_a_new_key_replaces_the_old_one(tmp_path: Path) -> None:
    """After a reload tokens of the old key are refused; who is in stays in."""
    file = tmp_path / "env"
    file.write_text(f"JWT_PUBLIC_KEY={public_key_setting()}\n")
    with (
        start_gateway(env={"RANGO_ENV_FILE": str(file)}) as server,
        server.connect("/private?stream=order", token=server.token(uid="ID7")) as client,
    ):
        client.receive()
        _, other = generate()
        file.write_text(f"JWT_PUBLIC_KEY={base64.b64encode(other.encode()).decode()}\n")
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "settings are reloaded" in server.log(), what="the reload")

        with pytest.raises(InvalidStatus) as refused:
            server.connect("/private", token=server.token(uid="ID7"))
        assert refused.value.response.status_code == 401
        server.publish("private.ID7.order", '{"id":1}')
        assert client.receive() == '{"order":{"id":1}}'


def test_wrong_settings_change_nothing(tmp_path: Path) -> None:
    """A reload with a wrong value is one line in the log; the gateway serves on as it was."""
    file = tmp_path / "env"
    file.write_text("RANGO_MAX_STREAMS=10\n")
    with start_gateway(env={"RANGO_ENV_FILE": str(file)}) as server:
        file.write_text("RANGO_MAX_STREAMS=many\nRANGO_OUTBOX_BYTES=-1\n")
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: server.log().count("not reloaded") == 2, what="both problems")
        with server.connect("/public?stream=a.trades") as client:
            assert "subscribed" in client.receive()


def test_what_needs_a_restart_is_said(tmp_path: Path) -> None:
    """A changed exchange is not taken over, and the log says that it needs a restart."""
    file = tmp_path / "env"
    file.write_text("")
    with start_gateway(env={"RANGO_ENV_FILE": str(file)}) as server:
        file.write_text("RANGO_BROKER_HEARTBEAT_S=33\n")
        server.process.send_signal(signal.SIGHUP)
        wait_for(
            lambda: "RANGO_BROKER_HEARTBEAT_S needs a restart" in server.log(), what="the warning"
        )
