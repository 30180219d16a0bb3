"""A headless Chromium, driven over the pipe of its DevTools protocol; no package needed.

The variable CHROMIUM names the binary; else it is looked for on PATH.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome", "headless_shell")
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--no-first-run",
    "--disable-gpu",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)


def find() -> str | None:
    """Where the browser is."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One page in a browser.

    Attributes:
        requests: the addresses that it asked for.
        errors: what its scripts threw or complained of.
    """

    def __init__(self, write: int, read: int) -> None:
        self.requests: list[str] = []
        self.errors: list[Any] = []
        self._write, self._read, self._number, self._rest = write, read, 0, b""
        self._session: str | None = None
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Sends a command and waits for its answer."""
        self.post(method, **parameters)
        while (answer := self._next()).get("id") != self._number:
            self._note(answer)
        assert "error" not in answer, (method, answer["error"])
        result: dict[str, Any] = answer["result"]
        return result

    def post(self, method: str, **parameters: Any) -> None:
        """Sends a command, whose answer comes when it comes."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")

    def _next(self) -> dict[str, Any]:
        parts = [self._rest]
        while b"\0" not in parts[-1]:
            part = os.read(self._read, 1 << 20)
            assert part, "the browser has ended"
            parts.append(part)
        message, self._rest = b"".join(parts).split(b"\0", 1)
        answer: dict[str, Any] = json.loads(message)
        return answer

    def _note(self, event: dict[str, Any]) -> None:
        parameters = event.get("params", {})
        if event.get("method") == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        if event.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
            self.errors.append(parameters)

    def show(self, width: int, height: int, *, scale: float = 1, scheme: str = "light") -> None:
        """Sets the size of the window, and light or dark."""
        size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 500}
        self.send("Emulation.setDeviceMetricsOverride", **size)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.send("Emulation.setEmulatedMedia", features=[feature])

    def open(self, path: Path) -> None:
        """Opens a page of this project, and waits until it has unpacked its networks."""
        self.send("Page.navigate", url=path.resolve().as_uri())
        self.run(
            "new Promise((done) => { const wait = () =>"
            " globalThis.lenet ? done(1) : setTimeout(wait, 10); wait(); })"
        )

    def run(self, script: str) -> Any:
        """What an expression gives, awaited."""
        answer = self.send(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def move(self, x: float, y: float) -> None:
        """Moves the mouse to a place."""
        self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def drag(self, places: list[list[float]], *, in_turn: bool = False) -> None:
        """Presses the mouse at the first place, moves it through all, and lets go at the last.

        Args:
            places: x and y of each.
            in_turn: whether each waits until the page has heard of the one before.
        """
        kinds = ["mousePressed", *["mouseMoved"] * (len(places) - 1), "mouseReleased"]
        for kind, (x, y) in zip(kinds, [*places, places[-1]], strict=True):
            held = {"button": "left", "buttons": int(kind != "mouseReleased"), "clickCount": 1}
            send = self.send if in_turn or kind == "mouseReleased" else self.post
            send("Input.dispatchMouseEvent", type=kind, x=x, y=y, **held)

    def photograph(self, path: Path) -> None:
        """Writes a picture of the window."""
        data = self.send("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))


@contextlib.contextmanager
def browser(binary: str, folder: Path) -> Iterator[Browser]:
    """Starts a browser that keeps its files in a folder, and ends it."""
    (from_us, to_browser), (from_browser, to_us) = os.pipe(), os.pipe()
    # It reads commands from 3 and writes answers to 4.
    command = f'exec "$@" 3<&{from_us} 4>&{to_us}'
    process = subprocess.Popen(
        ["bash", "-c", command, "bash", binary, *OPTIONS, f"--user-data-dir={folder}"],
        pass_fds=(from_us, to_us),
        stderr=subprocess.DEVNULL,
    )
    os.close(from_us)
    os.close(to_us)
    try:
        yield Browser(to_browser, from_browser)
    finally:
        process.kill()
        process.wait()
        os.close(to_browser)
        os.close(from_browser)
