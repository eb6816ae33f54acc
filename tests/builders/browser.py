"""A real browser, driven by its DevTools protocol; it types a login where it is asked for one."""

from __future__ import annotations

import itertools
import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
)


class Page:
    """One page; `refused` are the answers of 400 and above that it got, as (status, URL)."""

    def __init__(self, connection: ClientConnection, login: tuple[str, str]) -> None:
        self._connection, self._login = connection, login
        self._numbers = itertools.count(1)
        self.refused: list[tuple[int, str]] = []
        self.asked_for_login = 0
        for method, options in (
            ("Page.enable", {}),
            ("Network.enable", {}),
            ("Fetch.enable", {"handleAuthRequests": True}),
        ):
            self.send(method, **options)

    def open(self, url: str) -> None:
        """Go to an address."""
        self.send("Page.navigate", url=url)

    def shows(self, text: str, seconds: float = 60) -> bool:
        """Tell whether a text is on the page, waiting for it."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = self.send("Runtime.evaluate", expression="document.body?.innerText || ''")
            if text in found.get("result", {}).get("value", ""):
                return True
            self._listen(0.2)
        return False

    def send(self, method: str, **options: Any) -> dict[str, Any]:
        """Give a command and return its answer; events that come before it are taken care of."""
        number = self._post(method, **options)
        while True:
            message = json.loads(self._connection.recv(timeout=30))
            if message.get("id") == number:
                result: dict[str, Any] = message.get("result", {})
                return result
            self._handle(message)

    def _post(self, method: str, **options: Any) -> int:
        number = next(self._numbers)
        self._connection.send(json.dumps({"id": number, "method": method, "params": options}))
        return number

    def _listen(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                self._handle(json.loads(self._connection.recv(timeout=left)))
            except TimeoutError:
                return

    def _handle(self, message: dict[str, Any]) -> None:
        method, params = message.get("method"), message.get("params", {})
        if method == "Fetch.requestPaused":
            self._post("Fetch.continueRequest", requestId=params["requestId"])
        elif method == "Fetch.authRequired":
            # What the browser would show a form for: name and password are typed into it.
            self.asked_for_login += 1
            user, password = self._login
            self._post(
                "Fetch.continueWithAuth",
                requestId=params["requestId"],
                authChallengeResponse={
                    "response": "ProvideCredentials",
                    "username": user,
                    "password": password,
                },
            )
        elif method == "Network.responseReceived" and params["response"]["status"] >= 400:
            self.refused.append((params["response"]["status"], params["response"]["url"]))


@contextmanager
def browser(profile: Path, login: tuple[str, str]) -> Iterator[Page]:
    """Start a browser with a page; `login` is the user and the password that it types."""
    process = subprocess.Popen(
        [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        port = _port(profile / "DevToolsActivePort")
        with httpx.Client(trust_env=False, timeout=30) as client:
            pages = client.get(f"http://127.0.0.1:{port}/json").json()
        address = next(page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page")
        with connect(address, max_size=None, proxy=None) as connection:
            yield Page(connection, login)
    finally:
        process.terminate()
        process.wait(timeout=20)


def _port(path: Path) -> int:
    deadline = time.monotonic() + 60
    while True:
        lines = path.read_text().split() if path.exists() else []
        if lines:
            return int(lines[0])
        assert time.monotonic() < deadline, "the browser did not start"
        time.sleep(0.05)
