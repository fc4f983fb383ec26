"""``rango keys`` and ``rango token``: files and their modes, claims, and every refusal."""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import re
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rango_gevent import settings
from rango_gevent.auth.keys import generate, load_private_key, load_public_key
from rango_gevent.auth.tokens import TokenVerifier, forge
from rango_gevent.commands import identify, keys, token
from rango_gevent.errors import ConfigError

NOTHING = argparse.Namespace(
    key="", uid="ID1", role="member", level=3, ttl=60, exp=None, no_exp=False, claim=[], check=None
)


def arguments(**changes: Any) -> argparse.Namespace:
    """Return the arguments of ``rango token`` with some changed."""
    return argparse.Namespace(**{**vars(NOTHING), **changes})


def problems(error: pytest.ExceptionInfo[ConfigError]) -> list[str]:
    """Return the lines that a refusal prints."""
    return error.value.problems


@pytest.mark.parametrize("raw", [False, True])
def test_the_pair_belongs_together(tmp_path: Path, raw: bool) -> None:
    """A token signed with one file is good for the other, in both forms of the public key."""
    private_path, public_path = keys.write_pair(tmp_path / "new" / "dir", raw, force=False)
    public = load_public_key(public_path.read_bytes(), "file")
    assert public.kind == "Ed25519"
    assert (len(base64.b64decode(public_path.read_text().split("\n")[1])) == 32) is raw
    signing = token.signing_key(private_path)
    identity = TokenVerifier([public]).verify(forge(signing, {"uid": "U"}, 1000, 60), 1001)
    assert identity.uid == "U"


def test_only_the_owner_can_read_the_private_key(tmp_path: Path) -> None:
    """The private key has mode 0600 even under a generous umask."""
    before = os.umask(0)
    try:
        private_path, public_path = keys.write_pair(tmp_path, raw=False, force=False)
    finally:
        os.umask(before)
    assert stat.S_IMODE(private_path.stat().st_mode) == 0o600
    assert stat.S_IMODE(public_path.stat().st_mode) == 0o644


@pytest.mark.parametrize("name", [keys.PRIVATE_NAME, keys.PUBLIC_NAME])
@pytest.mark.parametrize("kind", ["file", "dangling link"])
def test_what_is_there_stays(tmp_path: Path, name: str, kind: str) -> None:
    """One key that is there, even a link to nowhere, stops both from being written."""
    if kind == "file":
        (tmp_path / name).write_text("precious")
    else:
        (tmp_path / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="is there already") as error:
        keys.write_pair(tmp_path, raw=False, force=False)
    assert str(tmp_path / name) in problems(error)[0]
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert kind != "file" or (tmp_path / name).read_text() == "precious"


def test_force_replaces_the_pair_and_its_mode(tmp_path: Path) -> None:
    """With force a new pair takes the place of the old one, wherever a link led."""
    target = tmp_path / "elsewhere"
    target.write_text("precious")
    (tmp_path / keys.PRIVATE_NAME).symlink_to(target)
    (tmp_path / keys.PUBLIC_NAME).write_text("old")
    private_path, public_path = keys.write_pair(tmp_path, raw=False, force=True)
    assert target.read_text() == "precious"
    assert not private_path.is_symlink()
    assert stat.S_IMODE(private_path.stat().st_mode) == 0o600
    assert load_public_key(public_path.read_bytes(), "file").kind == "Ed25519"


def test_a_directory_that_is_a_file_is_told(tmp_path: Path) -> None:
    """An output directory that cannot be one is named with the cure."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"^--out='.*file'.*give a directory"):
        keys.write_pair(tmp_path / "file", raw=False, force=False)


@pytest.mark.parametrize(
    ("changes", "claims"),
    [
        ({}, {"uid": "ID1", "role": "member", "level": 3}),
        ({"exp": 99}, {"uid": "ID1", "role": "member", "level": 3, "exp": 99}),
        ({"no_exp": True}, {"uid": "ID1", "role": "member", "level": 3, "exp": None}),
        (
            {"claim": ["a=1", 'b={"c":[true]}', "d=null", 'e="x=y"', "level=4"]},
            {
                "uid": "ID1",
                "role": "member",
                "level": 4,
                "a": 1,
                "b": {"c": [True]},
                "d": None,
                "e": "x=y",
            },
        ),
    ],
)
def test_claims(changes: dict[str, Any], claims: dict[str, Any]) -> None:
    """Options become claims, and what a claim sets by name wins."""
    assert token.claims(arguments(**changes)) == claims


def test_every_wrong_claim_is_told_at_once() -> None:
    """Claims that are not name=json are told together, the good ones are not."""
    wrong = ["red", "team=red", "=1", "x=NaN", "y="]
    with pytest.raises(ConfigError) as error:
        token.claims(arguments(claim=[*wrong, "good=1"]))
    assert [line.split(":")[0] for line in problems(error)] == [
        f"--claim {text!r}" for text in wrong
    ]


def test_the_token_alone_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output holds the token and nothing else; its times are as asked for."""
    private_path, public_path = keys.write_pair(tmp_path, raw=False, force=False)
    assert token.run(arguments(key=str(private_path), ttl=60, claim=["iss=null"])) == 0
    out, err = capsys.readouterr()
    assert (out.count("\n"), err) == (1, "")
    public = load_public_key(public_path.read_bytes(), "file")
    identity = TokenVerifier([public]).verify(out.strip(), time.time())
    assert (identity.uid, identity.role) == ("ID1", "member")
    assert identity.expires_at_s is not None
    assert 0 < identity.expires_at_s - time.time() <= 60
    payload = out.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert "iss" not in claims


def test_no_private_key_is_one_clear_line(tmp_path: Path) -> None:
    """A missing key, a directory and a public key are each told with the cure, in one line."""
    public_path = tmp_path / "key.pub"
    private_pem, public_pem = generate()
    public_path.write_text(public_pem)
    for path, told in [
        (tmp_path / "missing", "No such file or directory"),
        (tmp_path, "Is a directory"),
        (public_path, "found a public key; give the private key"),
    ]:
        with pytest.raises(ConfigError) as error:
            token.signing_key(path)
        assert len(problems(error)) == 1
        assert told in problems(error)[0]
        assert str(path) in problems(error)[0]
        assert "\n" not in problems(error)[0]
    assert load_private_key(private_pem).kind == "Ed25519"


# -- whose a token is -------------------------------------------------------------------------


class Checked:
    """A key, a signer, and what ``rango token --check`` says by them."""

    def __init__(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        private_path, self._public = keys.write_pair(tmp_path, raw=False, force=False)
        self._signing = token.signing_key(private_path)
        self._capsys = capsys

    def make(self, **claims: Any) -> str:
        """Return a token."""
        return forge(self._signing, claims, time.time(), 60)

    def check(self, *words: str, **env: str) -> tuple[int, str]:
        """Return exit code and output."""
        loaded = settings.load({"RANGO_PUBLIC_KEY_FILE": str(self._public), **env}, {})
        code = identify.check(words, loaded.settings)
        return code, self._capsys.readouterr().out


@pytest.fixture
def checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Checked:
    """Give a signer and a checker."""
    return Checked(tmp_path, capsys)


def test_a_good_token_says_whose_it_is(checked: Checked) -> None:
    """User, role and end; with the word before it or without, in one word or two."""
    text = checked.make(uid="ID7", role="admin")
    for words in ([text], [f"Bearer {text}"], ["Bearer", text], [f" {text}\n"]):
        code, said = checked.check(*words)
        assert code == 0
        assert said.startswith("ok: token: uid ID7, role admin, until 20")
        assert re.search(r" UTC, (59|60) s left\n$", said)
        assert text not in said


def test_a_token_comes_from_standard_input(
    checked: Checked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a word, or with a dash; bytes that are no text are a bad token, no traceback."""
    for words in ([], ["-"]):
        stdin = io.TextIOWrapper(io.BytesIO(checked.make(uid="IN").encode() + b"\n"))
        monkeypatch.setattr("sys.stdin", stdin)
        assert checked.check(*words)[1].startswith("ok: token: uid IN,")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe")))
    assert checked.check() == (1, checked.check("x")[1])
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b" \n")))
    with pytest.raises(ConfigError, match="no token came"):
        checked.check()


@pytest.mark.parametrize(
    ("claims", "env", "told"),
    [
        ({"exp": 1000}, {}, "failed: token: expired: the token has expired: get a new one"),
        ({"nbf": 9999999999}, {}, "failed: token: not yet valid: "),
        ({"iss": "x"}, {"JWT_ISSUER": "barong"}, "failed: token: issuer: "),
        ({"aud": "x"}, {"JWT_AUDIENCE": "peatio"}, "JWT_AUDIENCE is peatio"),
        ({"uid": None}, {}, "ok: token: no uid, role member"),
        ({"uid": "a\u202eb\n"}, {}, "ok: token: uid a\\u202eb , role member"),
        ({"exp": None}, {}, "never expires"),
        ({"exp": 1e300}, {}, "s left"),
    ],
)
def test_a_token_says_why_it_is_not_good(
    checked: Checked, claims: dict[str, Any], env: dict[str, str], told: str
) -> None:
    """The reason and the cure; claims drive no terminal, and the token is not printed."""
    text = checked.make(**claims)
    code, said = checked.check(text, **env)
    assert told in said
    assert code == (1 if said.startswith("failed") else 0)
    assert text not in said
    assert len(said.splitlines()) == 1


def test_a_token_of_another_key_names_those_that_are_known(
    checked: Checked, tmp_path: Path
) -> None:
    """The key's kind and number help to see which one is meant."""
    other, _ = keys.write_pair(tmp_path / "other", raw=False, force=False)
    text = forge(token.signing_key(other), {}, time.time(), 60)
    code, said = checked.check(text)
    assert code == 1
    assert "signature" in said
    assert "Ed25519 key " in said


def test_a_token_is_not_repeated_by_the_command_line(tmp_path: Path) -> None:
    """However it is given, neither an error nor the answer has it."""
    _, public_path = keys.write_pair(tmp_path, raw=False, force=False)
    for words in (["Bearer", "eyJ.secret.token"], ["eyJ.secret.token", "more"]):
        argv = [sys.executable, "-m", "rango_gevent", "token", "--check", *words]
        done = subprocess.run(
            [*argv, "-pubKey", str(public_path)], capture_output=True, text=True, timeout=90
        )
        assert done.returncode == 1
        assert "secret" not in done.stdout + done.stderr
