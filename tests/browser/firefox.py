"""Debian's Firefox, driven by the protocol that it speaks itself: WebDriver BiDi over a WebSocket.

Playwright drives only a Firefox of its own make, and Debian has no geckodriver; a handful of BiDi's
commands is all that these tests need (https://w3c.github.io/webdriver-bidi/).
"""

from __future__ import annotations

import contextlib
import json
import queue
import re
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from websockets.sync.client import connect

_START_S = 120.0
_COMMAND_S = 60.0
# nothing of the browser's own may be asked of the network
_PREFERENCES = {
    "app.update.enabled": False,
    "browser.aboutwelcome.enabled": False,
    "browser.newtabpage.enabled": False,
    "browser.safebrowsing.update.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.homepage_override.mstone": "ignore",
    "datareporting.policy.dataSubmissionEnabled": False,
    "extensions.systemAddon.update.enabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "data:,#",
    "toolkit.telemetry.enabled": False,
}


class Tab:
    """A page of `Firefox`."""

    def __init__(self, firefox: Firefox, context: str) -> None:
        self._firefox = firefox
        self._context = context

    def goto(self, url: str) -> None:
        """Load a page, wholly."""
        self._firefox.command(
            "browsingContext.navigate", context=self._context, url=url, wait="complete"
        )

    def evaluate(self, function: str, argument: Any = None) -> Any:
        """Call a function of the page's language with one argument; a promise is waited for."""
        code = f"async (given) => JSON.stringify(await ({function})(JSON.parse(given)) ?? null)"
        answer = self._firefox.command(
            "script.callFunction",
            functionDeclaration=code,
            arguments=[{"type": "string", "value": json.dumps(argument)}],
            awaitPromise=True,
            target={"context": self._context},
        )
        if answer["type"] != "success":
            raise AssertionError(answer["exceptionDetails"]["text"])
        return json.loads(answer["result"]["value"])

    def printed(self) -> list[str]:
        """Return what the page has printed to the browser's console so far."""
        self.evaluate("() => 1")  # what was printed before has come when this is answered
        return self._firefox.printed.get(self._context, [])

    def close(self) -> None:
        """Close it."""
        self._firefox.command("browsingContext.close", context=self._context)


class Firefox:
    """A running Firefox with a profile of its own.

    Attributes:
        printed: lines of the browser's console, by page.
    """

    def __init__(self) -> None:
        path = shutil.which("firefox-esr") or shutil.which("firefox")
        assert path, "scripts/test-packages installs firefox-esr"
        self.printed: dict[str, list[str]] = {}
        self._number = 0
        with contextlib.ExitStack() as stack:
            home = stack.enter_context(tempfile.TemporaryDirectory(prefix="rango-firefox-"))
            lines = (
                f"user_pref({json.dumps(k)}, {json.dumps(v)});" for k, v in _PREFERENCES.items()
            )
            Path(home, "user.js").write_text("\n".join(lines))
            self._process = subprocess.Popen(
                [path, "--headless", "--no-remote", "--profile", home, "--remote-debugging-port=0"],
                env={"HOME": home, "PATH": "/usr/bin:/bin"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.callback(self._end)
            self._said: queue.Queue[str] = queue.Queue()
            threading.Thread(target=self._listen, daemon=True).start()
            self._socket = stack.enter_context(
                connect(
                    f"{self._address()}/session",
                    compression=None,
                    proxy=None,
                    open_timeout=_COMMAND_S,
                    ping_interval=None,  # a browser that is busy is not lost
                    max_size=None,
                )
            )
            self.command("session.new", capabilities={})
            self.command("session.subscribe", events=["log.entryAdded"])
            self._stack = stack.pop_all()

    def __enter__(self) -> Firefox:
        """Do nothing: it runs already."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it, and take its profile away."""
        self._stack.close()

    def _listen(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._said.put(line)

    def _address(self) -> str:
        deadline = time.monotonic() + _START_S
        while True:
            line = self._said.get(timeout=max(0.01, deadline - time.monotonic()))
            found = re.search(r"WebDriver BiDi listening on (ws://\S+)", line)
            if found:
                return found[1]

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        assert self._process.stderr is not None
        self._process.stderr.close()

    def command(self, method: str, **params: Any) -> Any:
        """Send a command and return its result; events that come meanwhile are noted.

        Raises:
            AssertionError: Firefox says that it went wrong.
        """
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        deadline = time.monotonic() + _COMMAND_S
        while True:
            answer = json.loads(self._socket.recv(timeout=max(0.01, deadline - time.monotonic())))
            if answer.get("method") == "log.entryAdded":
                entry = answer["params"]
                lines = self.printed.setdefault(entry["source"].get("context", ""), [])
                lines.append(entry["text"] or "")
            elif answer.get("id") == self._number:
                assert answer["type"] == "success", answer
                return answer["result"]

    def tab(self) -> Tab:
        """Open a page."""
        return Tab(self, self.command("browsingContext.create", type="tab")["context"])

    def forget_cookies(self) -> None:
        """Delete all cookies."""
        self.command("storage.deleteCookies")

    def set_cookie(self, host: str, name: str, value: str) -> None:
        """Set a cookie that no script can read."""
        cookie = {"name": name, "domain": host, "httpOnly": True}
        cookie["value"] = {"type": "string", "value": value}
        self.command("storage.setCookie", cookie=cookie)
