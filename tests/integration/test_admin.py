"""Administrators over the wire: who is let in, what they see and end, with one worker and two."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
from support import (
    PATIENCE_S,
    ROOT,
    Client,
    Server,
    connect,
    http_request,
    start_gateway,
    wait_for,
)
from websockets.exceptions import InvalidStatus

ENV = {
    "RANGO_ADMIN_ROLES": "admin, boss",
    "RANGO_ADMIN_LOGIN_S": "60",
    "RANGO_ADMIN_CONNECTIONS": "3",
    "RANGO_TOKEN_GRACE_S": "0",
}
PATH = "/admin/ws"
NOT_FOUND = "Nothing here. WebSocket clients connect to /public or /private.\n"


class Admin:
    """An administrator's connection."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.notices: list[Any] = []
        self._number = 0

    def ask(self, event: str, **fields: Any) -> Any:
        """Return a reply: its success, or all of an error."""
        self._number += 1
        self.client.send({"event": event, **fields, "id": self._number})
        while True:
            reply = self.client.receive_json()
            if reply.get("id") == self._number:
                return reply.get("success", reply)
            self.notices.append(reply)

    def conn_of(self, uid: str) -> str:
        """Return the name of a user's only connection, which may be at another worker."""
        rows = wait_for(lambda: self.ask("connections", uid=uid)["connections"], what="its row")
        [row] = rows
        conn: str = row["conn"]
        return conn

    def tail(self, conn: str) -> Any:
        """Follow a connection, and return what is said of it.

        Another worker has a second to answer, which on a busy machine is asked again.
        """
        reply = wait_for(
            lambda: (
                (said := self.ask("tail", conn=conn))
                and "does not answer" not in said.get("error", "")
                and said
            ),
            what="an answer of the worker",
        )
        return reply["connection"]

    def records(self, enough: Callable[[list[Any]], bool]) -> list[Any]:
        """Return records of a tail, until they are enough."""
        found: list[Any] = []
        deadline = time.monotonic() + PATIENCE_S
        while not enough(found):
            notice = (
                self.notices.pop(0)
                if self.notices
                else self.client.receive_json(max(0.01, deadline - time.monotonic()))
            )
            if notice.get("event") == "tail":
                found += notice.get("records", [])
        return found


@contextlib.contextmanager
def logged_in(
    server: Server, uid: str = "BOSS", role: str = "boss", **claims: Any
) -> Iterator[Admin]:
    """Connect and log in."""
    with server.connect(PATH) as client:
        admin = Admin(client)
        reply = admin.ask("auth", token=server.token(uid=uid, role=role, **claims))
        assert reply["message"] == "authenticated", reply
        yield admin


@pytest.fixture(scope="module")
def one() -> Iterator[Server]:
    """A gateway of one process, with administrators."""
    with start_gateway(env=ENV) as server:
        yield server


@pytest.fixture(scope="module")
def two() -> Iterator[Server]:
    """Two workers."""
    with start_gateway(env={**ENV, "RANGO_WORKERS": "2"}) as server:
        wait_for(lambda: len(server.workers()) == 2, what="both workers")
        wait_for(lambda: server.log().count("consuming") == 2, what="both workers' sources")
        yield server


def connected(server: Server, uid: str, path: str = "/private") -> Client:
    """Connect as a user, and wait until that is done."""
    client = server.connect(path, server.token(uid=uid))
    client.receive()
    return client


# -- who is let in ----------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/admin", "/admin/about.json", PATH])
def test_by_default_there_is_no_such_path(gateway: Server, path: str) -> None:
    """It is answered as any unknown one, and its WebSocket is a public one as everywhere."""
    assert (gateway.get(path).status, gateway.get(path).body) == (404, NOT_FOUND)
    assert gateway.get(path).headers.keys() == gateway.get("/unknown").headers.keys()
    with gateway.connect(path, gateway.token(role="admin")) as client:
        assert client.receive_json()["success"]["message"] == "subscribed"
        client.send({"event": "overview"})
        assert "Invalid event" in client.receive()


def test_a_stranger_can_do_nothing_and_has_to_go(one: Server) -> None:
    """Every request is refused, and soon the connection is closed."""
    env = {**ENV, "RANGO_ADMIN_LOGIN_S": "1"}
    with start_gateway(env=env) as server, server.connect(PATH) as client:
        assert client.closed() == (4401, "authentication missing")
    with one.connect(PATH) as client:
        admin = Admin(client)
        for request in (
            {"event": "overview"},
            {"event": "connections"},
            {"event": "tail", "conn": "1-1"},
            {"event": "disconnect", "uid": "ID1"},
            {"event": "untail"},
        ):
            reply = admin.ask(**request)
            assert (reply["code"], "Log in first" in reply["error"]) == (1301, True)


@pytest.mark.parametrize("way", ["header", "subprotocol", "query", "cookie"])
def test_only_a_message_logs_in(one: Server, way: str) -> None:
    """A token that comes with the handshake is not looked at, and never echoed."""
    token = one.token(uid="BOSS", role="boss")
    headers = {"Cookie": f"session={token}", "Origin": one.http} if way == "cookie" else {}
    if way == "header":
        headers = {"Authorization": f"Bearer {token}"}
    protocols = ["rango.v1", f"bearer.{token}"] if way == "subprotocol" else ()
    path = f"{PATH}?token={token}" if way == "query" else PATH
    with connect(one.url, path, headers=headers, subprotocols=protocols) as client:
        assert client.connection.subprotocol in (None, "rango.v1")
        assert Admin(client).ask("overview")["code"] == 1301
    assert token not in one.log()


@pytest.mark.parametrize(
    "claims", [{"role": "member"}, {"role": ""}, {"role": "Admin"}, {"role": "admin, boss"}]
)
def test_another_role_is_refused_and_told(one: Server, claims: dict[str, Any]) -> None:
    """Once for all: a new token of the same user would not help; the log says who it was."""
    with one.connect(PATH) as client:
        reply = Admin(client).ask("auth", token=one.token(uid="NOBODY", **claims))
        assert (reply["code"], reply["error"]) == (1301, "This role is no administrator's")
        assert client.closed() == (4403, "this role is no administrator's")
    assert "administrator: login refused: role" in one.log()


def test_a_role_without_a_uid_is_nobody(one: Server) -> None:
    """Whom would the log name."""
    with one.connect(PATH) as client:
        reply = Admin(client).ask("auth", token=one.token(uid=None, role="boss"))
        assert reply["code"] == 1207


def test_bad_tokens_are_told_and_counted(one: Server) -> None:
    """As everywhere: five of them end the connection."""
    with one.connect(PATH) as client:
        admin = Admin(client)
        for _ in range(4):
            assert admin.ask("auth", token="a.b.c")["error"] == "authentication failed: malformed"
        client.send({"event": "auth", "token": "a.b.c"})
        assert client.closed() == (4401, "authentication failed too often")


@pytest.mark.parametrize(
    ("origins", "origin", "is_let_in"),
    [
        ("", None, True),
        ("", "http://{host}", True),
        ("", "http://evil.example", False),
        ("*", "http://evil.example", False),
        ("*", "http://{host}", True),
        ("ok.example", "https://ok.example", True),
        ("ok.example", "http://{host}", False),
        ("*,ok.example", "https://ok.example", True),
        ("*", "null", False),
    ],
)
def test_the_origin_is_checked(origins: str, origin: str | None, is_let_in: bool) -> None:
    """`*` is not enough: a page has to be listed or our own."""
    with start_gateway(env={**ENV, "API_CORS_ORIGINS": origins}) as server:
        host = f"127.0.0.1:{server.port}"
        headers = {} if origin is None else {"Origin": origin.format(host=host)}
        if is_let_in:
            server.connect(PATH, headers=headers).close()
            return
        with pytest.raises(InvalidStatus, match="403"):
            server.connect(PATH, headers=headers)


def test_so_many_administrators_and_no_more(one: Server) -> None:
    """Only who is logged in counts; renewing takes no further place, and leaving frees one."""
    with contextlib.ExitStack() as stack:
        strangers = [stack.enter_context(one.connect(PATH)) for _ in range(20)]
        admins = [stack.enter_context(logged_in(one)) for _ in range(3)]
        reply = Admin(strangers[0]).ask("auth", token=one.token(uid="BOSS", role="boss"))
        assert (reply["code"], reply["error"]) == (1101, "Too many administrators are logged in")
        token = one.token(uid="BOSS", role="admin")
        assert admins[0].ask("auth", token=token)["message"] == "authenticated"
        assert one.metric("rango_admin_connections") == 3
        admins[2].client.close()
        wait_for(lambda: one.metric("rango_admin_connections") == 2, what="a place")
        assert Admin(strangers[1]).ask("auth", token=token)["message"] == "authenticated"


def test_another_administrator_on_the_same_connection_is_written_down(one: Server) -> None:
    """A renewal of the same one is not."""
    with logged_in(one, uid="FIRST") as admin:
        for uid in ("FIRST", "SECOND"):
            admin.ask("auth", token=one.token(uid=uid, role="boss"))
    for uid in ("FIRST", "SECOND"):
        assert one.log().count(f"uid={uid} administrator: logged in: role 'boss'") == 1


def test_the_role_is_looked_at_when_a_token_is_renewed(one: Server) -> None:
    """Who comes back with a lesser one has to go."""
    with logged_in(one) as admin:
        reply = admin.ask("auth", token=one.token(uid="BOSS", role="member"))
        assert reply["code"] == 1301
        assert admin.client.closed()[0] == 4403


@pytest.mark.parametrize("policy", ["close", "downgrade", "ignore"])
def test_an_expired_administrator_sees_nothing(policy: str) -> None:
    """Whatever happens to other clients then: requests are refused, and a tail ends."""
    env = {**ENV, "RANGO_TOKEN_EXPIRY": policy}
    with start_gateway(env=env) as server, contextlib.ExitStack() as stack:
        victim = stack.enter_context(connected(server, "V"))
        expires_at_s = int(time.time()) + 8
        admin = stack.enter_context(logged_in(server, exp=expires_at_s))
        conn = admin.conn_of("V")
        assert admin.ask("tail", conn=conn)["connection"]["conn"] == conn
        victim.send("ping")
        admin.records(lambda found: len(found) >= 2)
        if policy == "ignore":
            time.sleep(max(0.0, expires_at_s - time.time()))  # it may not ask that often
            wait_for(lambda: "code" in admin.ask("overview"), what="the end of the token")
            assert admin.ask("overview")["error"] == "authentication failed: expired"
        else:
            assert admin.client.closed()[0] == 4401
        # another one sees two portions more; if the first tail lived, it would be told them too
        later = stack.enter_context(logged_in(server))
        before = server.metric("rango_admin_records_total", outcome="told")
        later.ask("tail", conn=conn)
        seen = 0
        for _ in range(2):
            victim.send("ping")
            seen += len(later.records(lambda found: len(found) >= 2))
        assert server.metric("rango_admin_records_total", outcome="told") == before + seen


def test_a_reload_takes_roles_away(tmp_path: Path) -> None:
    """Who has lost the role has to go at once; without any role the path is gone."""
    file = tmp_path / "env"
    file.write_text("RANGO_ADMIN_ROLES=boss\n")
    with start_gateway(env={**ENV, "RANGO_ADMIN_ROLES": "", "RANGO_ENV_FILE": str(file)}) as server:
        assert server.get("/admin").status == 200
        with logged_in(server) as admin:
            file.write_text("RANGO_ADMIN_ROLES=other\n")
            server.process.send_signal(signal.SIGHUP)
            assert admin.client.closed()[0] == 4403
        file.write_text("RANGO_ADMIN_ROLES=\n")
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: server.get("/admin").status == 404, what="no page")
        assert server.get(PATH).status == 404


# -- what they see ----------------------------------------------------------------------------


def test_the_overview_of_one_worker(one: Server, market: str) -> None:
    """Connections, streams by subscribers and by rate, books, broker, ends."""
    stream, book = f"{market}.trades", f"{market}.ob-inc"
    with contextlib.ExitStack() as stack:
        connected(one, "LEFT").close()
        admin = stack.enter_context(logged_in(one))
        for _ in range(3):
            client = stack.enter_context(one.connect(f"/public?stream={stream},{book}"))
            client.receive()
        stack.enter_context(connected(one, "SEEN"))
        one.publish(f"public.{market}.ob-snap", '{"asks":[],"bids":[],"sequence":1}')

        def busy() -> Any:
            for n in range(5):
                one.publish(f"public.{stream}", str(n))
            seen = admin.ask("overview")
            return [row for row in seen["rates"] if row["name"] == stream] and seen

        seen = wait_for(busy, what="rates")
    [worker] = seen["workers"]
    assert worker["answers"] is True
    assert worker["problem"] == ""
    assert worker["connections"] == worker["anonymous"] + worker["authenticated"] >= 5
    assert worker["broker"]["connected"] is True
    assert worker["counts"]["opened"] >= 5
    assert seen["streams"][0]["subscribers"] == 3
    [row] = [row for row in seen["rates"] if row["name"] == stream]
    assert row["rate"] > 0
    assert row["bytes"] > 0
    [found] = [row for row in seen["books"] if row["name"] == book]
    assert found["stale_s"] is None
    assert 0 <= found["age_s"] < 30
    assert {"uid": "SEEN", "connections": 1} in seen["users"]
    assert seen["closed"]["client_closed"] >= 1


def test_who_looks_at_the_same_time_is_told_the_same(one: Server) -> None:
    """A state is gathered once a second at most."""
    with logged_in(one) as first, logged_in(one) as second:

        def at(admin: Admin) -> float:
            return float(admin.ask("overview")["workers"][0]["at"])

        # both within the same second, which a busy machine does not always allow at once
        seen = wait_for(lambda: (found := at(first)) == at(second) and found, what="the same")
        wait_for(lambda: at(first) > seen, what="another state")


def test_connections_are_found(one: Server, market: str) -> None:
    """By uid, address and stream, exactly; the newest first."""
    stream = f"{market}.trades"
    with contextlib.ExitStack() as stack:
        admin = stack.enter_context(logged_in(one))
        stack.enter_context(connected(one, "F1", f"/public?stream={stream}"))
        stack.enter_context(connected(one, "F2", f"/public?stream={stream}"))
        found = admin.ask("connections", stream=stream)
        assert [row["uid"] for row in found["connections"]] == ["F2", "F1"]
        assert found["total"] == 2
        assert found["connections"][0]["role"] == "member"
        assert found["connections"][0]["streams"] == 1
        assert [r["uid"] for r in admin.ask("connections", uid="F1")["connections"]] == ["F1"]
        assert admin.ask("connections", address="127.0.0.1")["total"] >= 3
        assert admin.ask("connections", uid="F")["total"] == 0


def test_a_slow_client_is_seen(market: str) -> None:
    """With what waits for it, and for how long."""
    env = {**ENV, "RANGO_OUTBOX_BYTES": str(64 << 20), "RANGO_SEND_BUFFER_BYTES": "16384"}
    with start_gateway(env=env) as server, logged_in(server) as admin:
        stream = f"{market}.big"
        deaf = stalled(server, stream)
        try:
            body = json.dumps("x" * 500_000)
            for _ in range(8):
                server.publish(f"public.{stream}", body)

            def seen() -> Any:
                rows = admin.ask("overview")["slow"]
                return [row for row in rows if row["uid"] == "DEAF" and row["waits_s"] > 1]

            [row] = wait_for(seen, what="the slow client")
            assert row["bytes"] > 1_000_000
        finally:
            deaf.close()


def stalled(server: Server, stream: str) -> Any:
    """Return the socket of a user who subscribes and then reads nothing."""
    from support import RawSocket, handshake

    raw = RawSocket(server.port, receive_buffer=4096)
    token = server.token(uid="DEAF")
    raw.send(handshake(f"/public?stream={stream}", {"Authorization": f"Bearer {token}"}))
    raw.response()
    raw.read_frame()
    return raw.sock


# -- following and ending ---------------------------------------------------------------------


@pytest.mark.parametrize("workers", ["one", "two"])
def test_a_tail(workers: str, market: str, request: pytest.FixtureRequest) -> None:
    """What goes to and comes from one connection, wherever it is; others are not recorded."""
    server: Server = request.getfixturevalue(workers)
    stream, token = f"{market}.trades", server.token(uid="T0")
    with logged_in(server) as admin:
        for n in range(6 if workers == "two" else 1):  # some are at the other worker
            with connected(server, f"T{n}") as client, connected(server, "OTHER") as other:
                about = admin.tail(admin.conn_of(f"T{n}"))
                assert about["uid"] == f"T{n}"
                other.subscribe(stream)
                client.subscribe(stream)
                client.send({"event": "auth", "token": token})
                client.send({"jwt": f"Bearer {token}"})
                server.publish(f"public.{stream}", f'{{"n":{n}}}')
                found = admin.records(lambda rows: any('"n":' in row["text"] for row in rows))
                texts = [(row["way"], row["text"]) for row in found]
                assert ("in", f'{{"event": "subscribe", "streams": ["{stream}"]}}') in texts
                assert ("out", f'{{"{stream}":{{"n":{n}}}}}') in texts
                assert any(way == "out" and "subscribed" in text for way, text in texts)
                assert any('"token": "***"' in text for way, text in texts if way == "in")
                assert any('"jwt": "***"' in text for way, text in texts if way == "in")
                assert "eyJ" not in json.dumps(found)
                admin.ask("disconnect", conn=about["conn"])
                assert client.closed() == (4403, "revoked")
                rest = admin.records(lambda rows: any(row["kind"] == "end" for row in rows))
                assert ("close", "4403 revoked") in [(row["kind"], row["text"]) for row in rest]
    log = server.log()
    assert re.search(r"uid=BOSS administrator: tails connection \d+-\d+ of uid 'T0'", log)
    assert re.search(r"uid=BOSS administrator: disconnects connection \d+-\d+", log)
    assert token not in log


def test_a_tail_is_bounded(market: str) -> None:
    """In messages a second and in bytes of each; how many more there were is told."""
    env = {**ENV, "RANGO_ADMIN_TAIL_PER_S": "10", "RANGO_ADMIN_TAIL_BYTES": "20"}
    with start_gateway(env=env) as server, logged_in(server) as admin:
        stream = f"{market}.trades"
        with connected(server, "T", f"/public?stream={stream}") as client:
            admin.ask("tail", conn=admin.conn_of("T"))
            for _ in range(300):
                server.publish(f"public.{stream}", json.dumps("x" * 1000))
            for _ in range(300):
                client.receive()
            shown = skipped = 0
            while shown + skipped < 300:
                notice = admin.client.receive_json()
                shown += len(notice["records"])
                skipped += notice["skipped"]
                for record in notice["records"]:
                    assert len(record["text"].encode()) <= 23
                    assert record["size"] > 1000
            assert 10 <= shown < 200  # ten a second, and a few seconds on a busy machine
            wait_for(
                lambda: server.metric("rango_admin_records_total", outcome="skipped") == skipped,
                what="the metric",
            )
            assert server.metric("rango_admin_records_total", outcome="told") == shown


def test_one_tail_at_a_time(one: Server) -> None:
    """A second takes the place of the first; `untail` ends it; the admin's own end ends it."""
    with logged_in(one) as admin, connected(one, "A") as a, connected(one, "B") as b:
        admin.ask("tail", conn=admin.conn_of("A"))
        admin.ask("tail", conn=admin.conn_of("B"))
        a.send("ping")
        b.send('"b"')
        found = admin.records(lambda rows: any(row["text"] == '"b"' for row in rows))
        assert "ping" not in [row["text"] for row in found]
        assert admin.ask("untail") == {"message": "untail"}
        b.send("ping")
        assert b.receive_until(lambda text: text == "pong")
        admin.notices.clear()
        time_was = one.metric("rango_admin_records_total", outcome="told")
        admin.ask("overview")
        assert not admin.notices
        assert one.metric("rango_admin_records_total", outcome="told") == time_was


def test_what_cannot_be_followed_or_ended(one: Server) -> None:
    """What is not there, and administrators, whose tail would hear itself."""
    with logged_in(one) as admin:
        own = admin.conn_of("BOSS")
        assert "not listened to" in admin.ask("tail", conn=own)["error"]
        pid = own.partition("-")[0]
        for conn in (f"{pid}-999999", "1-1", "4194305-3"):
            for event in ("tail", "disconnect"):
                assert admin.ask(event, conn=conn)["error"] == "No such connection"


@pytest.mark.parametrize("workers", ["one", "two"])
def test_a_user_is_disconnected_everywhere(workers: str, request: pytest.FixtureRequest) -> None:
    """All connections of a uid, at all workers, with 4403; nobody else's."""
    server: Server = request.getfixturevalue(workers)
    with contextlib.ExitStack() as stack:
        admin = stack.enter_context(logged_in(server))
        victims = [stack.enter_context(connected(server, "GONE")) for _ in range(8)]
        other = stack.enter_context(connected(server, "STAYS"))
        closed: list[int] = []

        def all_answer() -> bool:
            answer = admin.ask("disconnect", uid="GONE")
            closed.append(answer["closed"])
            return bool(answer["unanswered"] == [])

        wait_for(all_answer, what="all workers, in the second that they have for it")
        assert len(closed) > 1 or closed == [8]
        for victim in victims:
            assert victim.closed() == (4403, "revoked")
        other.send("ping")
        assert other.receive() == "pong"
        assert admin.ask("disconnect", uid="GONE")["closed"] == 0
    assert "uid=BOSS administrator: disconnects uid 'GONE'" in server.log()


# -- several workers --------------------------------------------------------------------------


def test_all_workers_are_seen(two: Server, market: str) -> None:
    """Whichever of them the administrator is at: rows for both, sums over both."""
    stream = f"{market}.trades"
    with contextlib.ExitStack() as stack:
        for _ in range(12):
            client = stack.enter_context(two.connect(f"/public?stream={stream}"))
            client.receive()
        admins = [stack.enter_context(logged_in(two)) for _ in range(3)]
        wait_for(
            lambda: (
                [row["subscribers"] for row in admins[0].ask("overview")["streams"]][:1] == [12]
            ),
            what="all subscribers",
        )
        for admin in admins:
            seen = wait_for(lambda admin=admin: whole(admin.ask("overview")), what="both")
            assert {worker["pid"] for worker in seen["workers"]} == set(two.workers())
            assert sum(worker["connections"] for worker in seen["workers"]) >= 15


def whole(seen: Any) -> Any:
    """Return an overview that all workers had a part in, in the second that they have for it."""
    return seen if all(worker["answers"] for worker in seen["workers"]) else None


def test_the_workers_sockets_are_private(two: Server) -> None:
    """A directory that only this user can enter, and sockets of this run only."""
    path = Path(tempfile.gettempdir()) / f"rango-metrics-{os.getuid()}-{two.process.pid}"
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert {int(each.stem) for each in path.glob("*.sock")} == set(two.workers())


def test_workers_find_each_other_when_a_reload_lets_administrators_in(tmp_path: Path) -> None:
    """Before that nobody listens for anybody."""
    file = tmp_path / "env"
    file.write_text("")
    env = {**ENV, "RANGO_ADMIN_ROLES": "", "RANGO_WORKERS": "2", "RANGO_ENV_FILE": str(file)}
    with start_gateway(env=env) as server:
        wait_for(lambda: server.log().count("consuming") == 2, what="both workers' sources")
        path = Path(tempfile.gettempdir()) / f"rango-metrics-{os.getuid()}-{server.process.pid}"
        assert not list(path.glob("*.sock"))
        file.write_text("RANGO_ADMIN_ROLES=boss\n")
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: len(list(path.glob("*.sock"))) == 2, what="both workers' sockets")
        with logged_in(server) as admin:
            seen = wait_for(lambda: whole(admin.ask("overview")), what="both workers")["workers"]
            assert [worker["answers"] for worker in seen] == [True, True]
    assert not path.exists()


def test_a_worker_that_hangs_or_dies_holds_up_nobody() -> None:
    """It is shown as silent within a second, and forgotten when it is dead."""
    env = {**ENV, "RANGO_WORKERS": "2", "RANGO_ADMIN_CONNECTIONS": "9"}
    with start_gateway(env=env) as server, contextlib.ExitStack() as stack:
        wait_for(lambda: server.log().count("consuming") == 2, what="both workers' sources")
        admin = stack.enter_context(logged_in(server))
        own = admin.ask("overview")["pid"]
        [other] = set(server.workers()) - {own}

        def other_answers() -> bool:
            return all(worker["answers"] for worker in admin.ask("overview")["workers"])

        wait_for(other_answers, what="both")
        os.kill(other, signal.SIGSTOP)
        try:
            wait_for(lambda: not other_answers(), what="silence")
            began = time.monotonic()
            seen = admin.ask("overview")
            assert time.monotonic() - began < 15  # it would hang as long as the other
            assert {"pid": other, "answers": False} in seen["workers"]
            assert admin.ask("disconnect", uid="X")["unanswered"] == [other]
            assert "does not answer" in admin.ask("tail", conn=f"{other}-1")["error"]
        finally:
            os.kill(other, signal.SIGCONT)
        wait_for(other_answers, what="both again")
        os.kill(other, signal.SIGKILL)
        wait_for(lambda: other not in server.workers(), what="the end of a worker")

        def replaced() -> bool:
            seen = admin.ask("overview")["workers"]
            return {w["pid"] for w in seen} == set(server.workers()) and all(
                w["answers"] for w in seen
            )

        wait_for(replaced, what="the new worker")
        assert server.metric("rango_admin_unanswered_total") >= 1


# -- the page of the docs ------------------------------------------------------------------------


def test_the_program_of_the_docs(one: Server) -> None:
    """As it is printed."""
    text = (ROOT / "docs" / "ADMIN.md").read_text()
    [program] = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
    program = program.replace("127.0.0.1:8080", f"127.0.0.1:{one.port}")
    for role, expected in (("boss", r"^1 connections$"), ("member", "no administrator")):
        token = f"token = {one.token(uid='BOSS', role=role)!r}\n"
        wait_for(lambda: one.metric("rango_hub_clients_count") == 0, what="nobody")
        done = subprocess.run(
            [sys.executable, "-c", token + program], capture_output=True, text=True, timeout=60
        )
        assert re.search(expected, done.stdout + done.stderr, re.M), done


# -- nobody else notices ----------------------------------------------------------------------


def test_strangers_do_no_harm(one: Server) -> None:
    """Hundreds who never log in, or send nonsense: an administrator works beside them."""
    with contextlib.ExitStack() as stack:
        nonsense = ["{", '{"event":"auth","token":"' + "x" * 4000 + '"}', "[]", '{"event":"tail"}']
        for n in range(200):
            client = stack.enter_context(one.connect(PATH))
            client.send(nonsense[n % len(nonsense)])
        began = time.monotonic()
        with logged_in(one) as admin:
            assert admin.ask("overview")["message"] == "overview"
        assert time.monotonic() - began < 20
    wait_for(lambda: one.metric("rango_hub_clients_count") == 0, what="everybody to be gone")
    assert one.get("/readyz").status == 200


def test_the_page_holds_no_data(one: Server) -> None:
    """It is the same for everybody, may be framed by nobody, and asks nobody else."""
    page = one.get("/admin")
    assert page.status == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=|style=|https?://", page.body)
    for path in re.findall(r'(?:href|src)="(admin/[^"]+)"', page.body):
        part = one.get(f"/{path}")
        assert part.status == 200
        assert "immutable" in part.headers["cache-control"]
    assert one.get("/admin/about.json").body == "{}"
    assert http_request(one.port, "/admin", "POST").status == 405
