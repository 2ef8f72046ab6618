"""Child processes that are waited for, watched and stopped."""

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path


class ProcessFailedError(Exception):
    """A process ended or did not get ready; the message ends with its last lines."""


# Below the ports that systems give to clients: one that retries could else take, as its own, the
# port that its server is about to listen on.
_PORTS = range(20_000, 30_000)


def free_ports(n: int) -> list[int]:
    """Different TCP ports that are free on loopback now."""
    drawn = random.sample(_PORTS, len(_PORTS))
    return list(islice(filter(_is_free, drawn), n))


def free_port() -> int:
    """A TCP port that is free on loopback now."""
    return free_ports(1)[0]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class ManagedProcess:
    """One child process, its output in a log file.

    Args:
        name: what messages call it.
        command: its argument vector.
        log: the file that takes its output.
        environment: added to ours.
    """

    def __init__(
        self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str] = {}
    ) -> None:
        self.name = name
        self.log = log
        self._command = list(command)
        self._environment = {**os.environ, **environment}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process id, 0 before it was started."""
        return self._process.pid if self._process else 0

    def start(self) -> None:
        """Start it in a process group of its own, so that Ctrl-C reaches only us."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def wait_until(self, ready: Callable[[], bool], timeout: float = 60.0) -> None:
        """Wait until `ready`. Raises: ProcessFailedError."""
        until = time.monotonic() + timeout
        while not ready():
            if not self.alive():
                raise ProcessFailedError(f"{self.name} ended by itself:\n{self.tail()}")
            if time.monotonic() > until:
                raise ProcessFailedError(
                    f"{self.name} was not ready in {timeout:.0f} s:\n{self.tail()}"
                )
            time.sleep(0.05)

    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def tail(self, lines: int = 12) -> str:
        """The last lines of its log."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def signal(self, number: int) -> None:
        """Send a signal to the process and its children."""
        if self.alive():
            os.killpg(self.pid, number)

    def ask_to_end(self) -> None:
        """Send SIGTERM; `stop` waits for what it does."""
        if self._process and self.alive():
            self._process.terminate()

    def stop(self, grace: float = 10.0) -> None:
        """Ask it to end; kill it after `grace` seconds."""
        if not self._process:
            return
        self.ask_to_end()
        try:
            self._process.wait(grace)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            self._process.wait()

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self.signal(signal.SIGKILL)
        if self._process:
            self._process.wait()
