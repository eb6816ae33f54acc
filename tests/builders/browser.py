"""A real browser for tests, driven over a pipe: what a page does in it, and how it looks."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--window-size=1200,1400", "--remote-debugging-pipe"),
)


class Browser:
    """One page of Chromium.

    `messages` are the errors that its console has shown, `refused` the answers of 400 and above
    that the page got, as (status, URL).
    """

    def __init__(self, profile: Path, login: tuple[str, str] | None = None) -> None:
        """Start it; `login` is the user and the password that it types where it is asked."""
        program = shutil.which("chromium") or shutil.which("chromium-browser")
        if program is None:
            pytest.skip("Chromium is not installed; the page is tried in a real browser")
        theirs, self._out = os.pipe()
        self._in, answers = os.pipe()
        # The browser reads from descriptor 3 and writes to 4; moved there by a shell of its own.
        command = f'exec 3<&{theirs} 4>&{answers}; exec "$0" "$@"'
        self._process = subprocess.Popen(
            ["bash", "-c", command, program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(theirs, answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs)
        os.close(answers)
        self._number, self._buffer, self._login = 0, b"", login
        self.messages: list[str] = []
        self.refused: list[tuple[int, str]] = []
        self.asked_for_login, self._session = 0, ""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")
        if login is not None:
            self._call("Fetch.enable", handleAuthRequests=True)

    def open(self, url: str) -> None:
        """Open a page."""
        self._call("Page.navigate", url=url)

    def run(self, script: str) -> Any:
        """Return the value of a script in the page; of a promise, when it is kept."""
        answer = self._call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, script: str, seconds: float = 120.0) -> Any:
        """Wait until a script's value is true, and return it."""
        end = time.monotonic() + seconds
        while not (value := self.run(script)):
            if time.monotonic() > end:
                shown = self.run("document.body.innerText")
                raise AssertionError(f"not true: {script}; {self.messages}; it shows {shown}")
            time.sleep(0.1)
        return value

    def picture(self, path: Path) -> None:
        """Write how the page looks as PNG."""
        shot = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        """End the browser."""
        self._process.terminate()
        self._process.wait(timeout=60)
        os.close(self._in)
        os.close(self._out)

    def shows(self, text: str, seconds: float = 120.0) -> None:
        """Wait until a text is on the page."""
        self.until(f"(document.body?.innerText || '').includes({json.dumps(text)})", seconds)

    def _call(self, method: str, **parameters: Any) -> Any:
        number = self._post(method, **parameters)
        while True:
            while b"\0" not in self._buffer:
                read = os.read(self._in, 1 << 20)
                assert read, "the browser has ended"
                self._buffer += read
            text, _, self._buffer = self._buffer.partition(b"\0")
            answer = json.loads(text)
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]
            self._handle(answer.get("method"), answer.get("params", {}))

    def _post(self, method: str, **parameters: Any) -> int:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        return self._number

    def _handle(self, event: str | None, told: dict[str, Any]) -> None:
        if event in ("Log.entryAdded", "Runtime.exceptionThrown"):
            self.messages.append(json.dumps(told)[:400])
        elif event == "Network.responseReceived" and told["response"]["status"] >= 400:
            self.refused.append((told["response"]["status"], told["response"]["url"]))
        elif event == "Fetch.requestPaused":
            self._post("Fetch.continueRequest", requestId=told["requestId"])
        elif event == "Fetch.authRequired" and self._login is not None:
            # What the browser would show a form for: name and password are typed into it.
            self.asked_for_login += 1
            user, password = self._login
            typed = {"response": "ProvideCredentials", "username": user, "password": password}
            self._post(
                "Fetch.continueWithAuth",
                requestId=told["requestId"],
                authChallengeResponse=typed,
            )


@contextmanager
def browser(profile: Path, login: tuple[str, str] | None = None) -> Iterator[Browser]:
    """Run a browser with a profile of its own; it types a login where it is asked for one."""
    running = Browser(profile, login)
    try:
        yield running
    finally:
        running.close()
