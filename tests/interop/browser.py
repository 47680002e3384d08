"""Headless Chromium, led over a pipe: it opens pages, runs scripts in them, and says what it saw.

It trusts one key by its hash and asks for nothing outside of this machine. Every question has a
deadline.
"""

import base64
import hashlib
import json
import os
import select
import subprocess
import time
from pathlib import Path

from papers import Paper
from processes import Failed

BINARY = "/usr/bin/chromium"
# Its start with a fresh profile included.
ANSWER_S_MAX = 60.0
END_S_MAX = 10.0
FLAGS = [
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--no-first-run",
    "--no-proxy-server",
    "--enable-quic",
    # Nothing else has a name; and the loopback address is the one that forebay has.
    "--host-resolver-rules=MAP localhost 127.0.0.1,MAP * ~NOTFOUND,EXCLUDE 127.0.0.1",
]


class Browser:
    """One Chromium, with a profile of its own in `folder`."""

    def __init__(self, folder: Path, server: Paper, origins: list[str]):
        """`origins`: host:port of those that are asked over HTTP/3 and nothing else."""
        digest = base64.b64encode(hashlib.sha256(server.public_key).digest()).decode()
        self._argv = [
            BINARY,
            *FLAGS,
            f"--user-data-dir={folder / 'chromium'}",
            f"--ignore-certificate-errors-spki-list={digest}",
            f"--origin-to-force-quic-on={','.join(origins)}",
            "about:blank",
        ]
        self._log = folder / "chromium.log"
        self._child: subprocess.Popen | None = None
        self._asked = 0
        self._pending = b""

    def start(self) -> None:
        to_read, self._to = os.pipe()
        self._from, to_write = os.pipe()
        # It reads from descriptor 3 and writes to 4.
        words = ["bash", "-c", f'exec "$0" "$@" 3<&{to_read} 4>&{to_write}', *self._argv]
        with self._log.open("wb") as log:
            self._child = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(to_read, to_write),
            )
        os.close(to_read)
        os.close(to_write)

    def open(self, url: str) -> str:
        """A page in a tab of its own; returns the tab's session."""
        target = self.ask("Target.createTarget", {"url": "about:blank"})["targetId"]
        attached = self.ask("Target.attachToTarget", {"targetId": target, "flatten": True})
        session = attached["sessionId"]
        self.ask("Page.enable", {}, session)
        gone = self.ask("Page.navigate", {"url": url}, session)
        if gone.get("errorText"):
            raise Failed(f"Chromium opens {url}: {gone['errorText']}")
        self._until(lambda one: one.get("method") == "Page.loadEventFired", f"{url} being loaded")
        return session

    def run(self, session: str, script: str):
        """The value of a script, which may be a promise's."""
        told = {"expression": script, "awaitPromise": True, "returnByValue": True}
        answer = self.ask("Runtime.evaluate", told, session)
        if "exceptionDetails" in answer:
            raise Failed(f"the page's script failed: {json.dumps(answer['exceptionDetails'])}")
        return answer["result"].get("value")

    def ask(self, method: str, params: dict, session: str | None = None) -> dict:
        self._asked += 1
        number = self._asked
        message = {"id": number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        answer = self._until(lambda one: one.get("id") == number, f"Chromium answering {method}")
        if "error" in answer:
            raise Failed(f"Chromium refuses {method}: {answer['error']}")
        return answer["result"]

    def _until(self, is_it, what: str) -> dict:
        end = time.monotonic() + ANSWER_S_MAX
        while True:
            message, found, rest = self._pending.partition(b"\0")
            if found:
                self._pending = rest
                if is_it(one := json.loads(message)):
                    return one
                continue
            ready, _, _ = select.select([self._from], [], [], max(0.0, end - time.monotonic()))
            piece = os.read(self._from, 1 << 16) if ready else b""
            if not piece:
                log = self._log.read_text(errors="replace")[-2000:]
                raise Failed(f"{what} did not happen within {ANSWER_S_MAX:g} s:\n{log}")
            self._pending += piece

    def end(self) -> None:
        self.ask("Browser.close", {})
        self._child.wait(END_S_MAX)

    def kill(self) -> None:
        if self._child and self._child.poll() is None:
            self._child.kill()
            self._child.wait(END_S_MAX)
