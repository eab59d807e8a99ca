"""A real headless Chromium, driven over its debugging pipe: what it draws, says, asks of the network, and copies."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

_SWITCHES = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--hide-scrollbars", "--remote-debugging-pipe"),
)
_KEYS = {"Tab": 9, "Enter": 13, "Space": 32}
_DEADLINE = 240.0


class Browser:
    """One tab. `events` holds what happened since the last `open`, as the debugging protocol tells it."""

    def __init__(self, program: str, folder: Path) -> None:
        self.folder = folder
        self.events: list[dict[str, Any]] = []
        self._buffer, self._number, self._session = b"", 0, None
        (its_in, self._write), (self._read, its_out) = os.pipe(), os.pipe()
        # Numbers that cannot be 3 or 4, from which the browser reads its commands and to which it answers.
        high_in, high_out = (fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in (its_in, its_out))

        def place() -> None:
            os.dup2(high_in, 3)
            os.dup2(high_out, 4)

        command = [program, *_SWITCHES, f"--user-data-dir={folder / 'profile'}", "about:blank"]
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(command, close_fds=False, preexec_fn=place, **quiet)
        for end in (its_in, its_out, high_in, high_out):
            os.close(end)
        os.set_blocking(self._read, False)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)

    def close(self) -> None:
        """End the browser."""
        self._session = None
        self.call("Browser.close")
        self._process.wait(timeout=20)
        os.close(self._write)
        os.close(self._read)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the Chrome DevTools Protocol, and its answer."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            self._keep(answer)

    def open(self, page: str, *, width: int = 1280, height: int = 900, dark: bool = False, phone: bool = False) -> None:
        """Show a page and wait until it is loaded."""
        file = self.folder / "page.html"
        file.write_text(page, encoding="utf-8")
        size = {"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1, "mobile": phone}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.media(dark=dark)
        self.events.clear()
        self.call("Page.navigate", url=file.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._keep(self._next())

    def media(self, *, dark: bool = False) -> None:
        """The colour scheme."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def js(self, expression: str) -> Any:
        """The value of a JavaScript expression, awaited."""
        how = {"returnByValue": True, "awaitPromise": True, "userGesture": True}
        result = self.call("Runtime.evaluate", expression=expression, **how)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def press(self, key: str) -> None:
        """A key, down and up."""
        named = {"key": " " if key == "Space" else key, "code": key, "windowsVirtualKeyCode": _KEYS[key]}
        typed = {"Enter": {"text": "\r"}, "Space": {"text": " "}}.get(key, {})
        self.call("Input.dispatchKeyEvent", type="keyDown", **named, **typed)
        self.call("Input.dispatchKeyEvent", type="keyUp", **named)

    def complaints(self) -> list[str]:
        """Everything that the console got, every exception, and every dialog."""
        told = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded", "Page.javascriptDialogOpening")
        return [json.dumps(event) for event in self.events if event["method"] in told]

    def requests(self) -> list[str]:
        """The addresses that were asked for, but for the page itself and data in it."""
        asked = [event["params"] for event in self.events if event["method"] == "Network.requestWillBeSent"]
        urls = [request["request"]["url"] for request in asked]
        return [url for url in urls if not url.startswith("data:") and url != (self.folder / "page.html").as_uri()]

    def screenshot(self, file: Path, *, whole: bool = True) -> None:
        """A PNG of the page."""
        data = self.call("Page.captureScreenshot", captureBeyondViewport=whole, **self._clip() if whole else {})
        file.write_bytes(base64.b64decode(data["data"]))

    def pdf(self, file: Path) -> None:
        """The page as it is printed on A4."""
        size = {"paperWidth": 8.27, "paperHeight": 11.69}
        file.write_bytes(base64.b64decode(self.call("Page.printToPDF", **size)["data"]))

    def _clip(self) -> dict[str, Any]:
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}

    def _keep(self, event: dict[str, Any]) -> None:
        if "method" in event:
            self.events.append(event)
            if event["method"] == "Page.javascriptDialogOpening":
                raise AssertionError(f"a dialog opened: {event['params']}")

    def _next(self) -> dict[str, Any]:
        end = time.monotonic() + _DEADLINE
        while b"\0" not in self._buffer:
            try:
                part = os.read(self._read, 1 << 20)
                assert part, "the browser is gone"
                self._buffer += part
            except BlockingIOError:
                assert time.monotonic() < end, "the browser does not answer"
                time.sleep(0.005)
        message, _, self._buffer = self._buffer.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer
