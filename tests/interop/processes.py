"""Child processes with deadlines: started in the open, found ready by asking, ended by id.

Nothing here waits without a deadline, and nothing ends a process that it did not start.
"""

import random
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

LOOPBACK = "127.0.0.1"
POLL_S = 0.02
PORT_MIN, PORT_END = 20_000, 32_768

_ports_given: set[int] = set()


class Failed(Exception):
    """A check of a scenario that did not hold; the text says which and what was seen."""


def free_port() -> int:
    """A loopback port that nothing listens on and that this run has not handed out before.

    From below the range that the kernel takes for outgoing connections: in it, a connection could
    get the port before the server does.
    """
    while True:
        port = random.randrange(PORT_MIN, PORT_END)
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
        if port not in _ports_given:
            _ports_given.add(port)
            return port


def wait_until(holds, what: str, deadline_s: float = 15.0, poll_s: float = POLL_S) -> None:
    """Asks again and again until `holds()` is true; past the deadline it fails, naming `what`."""
    end = time.monotonic() + deadline_s
    while not holds():
        if time.monotonic() > end:
            raise Failed(f"{what} did not happen within {deadline_s:g} s")
        time.sleep(poll_s)


def answers_200(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return response.status == 200
    except (OSError, urllib.error.URLError):
        return False


def listens(port: int) -> bool:
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1):
            return True
    except OSError:
        return False


def run(
    argv: list, what: str, deadline_s: float = 60.0, codes=(0,), merged: bool = False, **options
) -> str:
    """Runs a command to its end and returns its standard output, with `merged` its errors too;
    any other exit than `codes` fails."""
    try:
        done = subprocess.run(
            [str(word) for word in argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if merged else subprocess.PIPE,
            timeout=deadline_s,
            **options,
        )
    except subprocess.TimeoutExpired as late:
        raise Failed(f"{what} was not done within {deadline_s:g} s") from late
    if done.returncode not in codes:
        tail = (done.stderr or done.stdout).decode(errors="replace")[-3000:]
        raise Failed(f"{what} ended with {done.returncode}:\n{tail}")
    return done.stdout.decode(errors="replace")


class Server:
    """A process that listens until it is told to end. Its output lies in `folder`."""

    def __init__(self, name: str, argv: list, folder: Path, env: dict | None = None):
        self.name = name
        self.stdout_path = folder / f"{name}.stdout"
        self.stderr_path = folder / f"{name}.stderr"
        self._stdout = self.stdout_path.open("ab")
        self._stderr = self.stderr_path.open("ab")
        self._child = subprocess.Popen(
            [str(word) for word in argv],
            stdin=subprocess.DEVNULL,
            stdout=self._stdout,
            stderr=self._stderr,
            env=env,
        )

    def wait_ready(self, ready, deadline_s: float = 15.0) -> None:
        def ready_or_gone() -> bool:
            if self._child.poll() is not None:
                raise Failed(
                    f"{self.name} ended with {self._child.returncode} before it was ready:\n"
                    f"{self.tail()}"
                )
            return ready()

        wait_until(ready_or_gone, f"{self.name} getting ready", deadline_s)

    def runs(self) -> bool:
        return self._child.poll() is None

    def end(self, deadline_s: float = 15.0) -> int:
        """SIGTERM, then the exit code; a process that outlives the deadline is killed and fails."""
        if self.runs():
            self._child.send_signal(signal.SIGTERM)
        try:
            return self._wait(deadline_s)
        except subprocess.TimeoutExpired as late:
            self.kill()
            raise Failed(f"{self.name} still ran {deadline_s:g} s after SIGTERM") from late
        finally:
            self._stdout.close()
            self._stderr.close()

    def _wait(self, deadline_s: float) -> int:
        """Halfway through the wait it writes down what each thread is doing."""
        try:
            return self._child.wait(deadline_s / 2)
        except subprocess.TimeoutExpired:
            self.stderr_path.with_suffix(".threads").write_text(self._threads())
            return self._child.wait(deadline_s / 2)

    def _threads(self) -> str:
        """Name, state, and the system call of each thread, from /proc."""
        lines = []
        for task in Path(f"/proc/{self._child.pid}/task").glob("*"):
            try:
                seen = [(task / name).read_text() for name in ("comm", "stat", "wchan", "syscall")]
            except OSError:
                continue
            name, stat, *rest = (text.strip() for text in seen)
            lines.append(" ".join([name, stat.rpartition(")")[2].split()[0], *rest]))
        return "\n".join(lines) + "\n"

    def signal(self, number: int) -> None:
        """For stopping and going on."""
        self._child.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, for crashes on purpose and for clearing up."""
        if self.runs():
            self._child.kill()
            self._child.wait(10)

    def resident_bytes(self) -> int:
        """What the kernel counts as resident, from /proc."""
        status = Path(f"/proc/{self._child.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024

    def tail(self, chars: int = 2500) -> str:
        texts = [path.read_text(errors="replace") for path in (self.stdout_path, self.stderr_path)]
        return "\n".join(text[-chars:] for text in texts if text)
