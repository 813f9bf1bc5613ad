"""The demo's side of its processes."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from peers.secure_aggregation.demo.process import AGGREGATING

ROOT = Path(__file__).resolve().parent.parent.parent.parent
MODULE = "peers.secure_aggregation.demo.process"


class Child:
    """A process of the demo.

    Args:
        name: for people.
        arguments: of `peers.secure_aggregation.demo.process`.

    Attributes:
        id: its number.
        status: how it ended; None while it is at work.
        has_signed_up: whether it has ever wished for an aggregation.
        outputs: descriptors of what can still be read of it.
    """

    def __init__(self, name: str, *arguments: str) -> None:
        self.name = name
        self.status: int | None = None
        self.has_signed_up = False
        self._waits_since_s: float | None = None
        self._complaint = ""
        self._process = subprocess.Popen(
            [sys.executable, "-m", MODULE, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C at the terminal is the parent's affair
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
            },
        )
        self.id = self._process.pid
        streams = self._process.stdout.fileno(), self._process.stderr.fileno()
        self._output, self._errors = streams
        self._unread = dict.fromkeys(streams, b"")
        for stream in streams:
            os.set_blocking(stream, False)

    def give(self, job: bytes) -> None:
        """Tell it what to do; whether it is still there shows later."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(job)
            self._process.stdin.flush()

    @property
    def outputs(self) -> list[int]:
        return list(self._unread)

    @property
    def waits_s(self) -> float:
        """How long it has been waiting for the present aggregation."""
        return 0.0 if self._waits_since_s is None else time.monotonic() - self._waits_since_s

    @property
    def reason(self) -> str:
        """Why it failed."""
        if self.status < 0:
            return f"ended by signal {-self.status}"
        return self._complaint.removeprefix("peers: ") or f"ended with status {self.status}"

    def states(self) -> Iterator[str]:
        """Yield what it has said it is doing."""
        for line in self._lines(self._output):
            waits = line.startswith(AGGREGATING)
            self._waits_since_s = time.monotonic() if waits else None
            self.has_signed_up |= waits
            yield line

    def complaints(self) -> Iterator[str]:
        """Yield what it has written on standard error."""
        for line in self._lines(self._errors):
            self._complaint = line or self._complaint
            yield line

    def has_ended(self) -> bool:
        """Return whether it has ended, and nothing of it is left to be read."""
        if not self._unread:
            self.status = self._process.poll()
        return self.status is not None

    def end(self) -> None:
        """End it at once: it has nothing that could be lost."""
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
        self._process.stderr.close()

    def _lines(self, stream: int) -> Iterator[str]:
        """Yield the whole lines that have come."""
        while stream in self._unread:
            try:
                data = os.read(stream, 1 << 16)
            except BlockingIOError:
                return
            *lines, rest = (self._unread.pop(stream) + data).split(b"\n")
            if data:
                self._unread[stream] = rest
            yield from (line.decode(errors="replace") for line in lines)
