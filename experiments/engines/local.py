"""The local engine: one long-lived process per slot of this machine's devices."""

import contextlib
import dataclasses
import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import torch

from experiments.engines import Ended, Engine, Event, Outcome, Progress, Task
from tools.errors import UserError

ROOT = Path(__file__).resolve().parent.parent.parent
LONGEST_LOG = 20_000
"""Characters kept of what a crashed process printed."""


def choose_slots(devices: str, supercharge: int | None, threads: int) -> list[str]:
    """Return the device of every slot.

    Args:
        devices: "auto" (all GPUs, or else the CPU), or names parted by commas.
        supercharge: slots per device; by default one on a GPU, and cores ÷ threads on the CPU.
        threads: of each run.

    Raises:
        UserError: a device that is not here, or a name that is none.
    """
    count = torch.cuda.device_count()
    every = [f"cuda:{index}" for index in range(count)]
    names = [name.strip() for name in devices.split(",")]
    if names == ["auto"]:
        names = every or ["cpu"]
    names = [device for name in names for device in (every if name == "cuda" and every else [name])]
    for name in names:
        if name != "cpu" and name not in every:
            raise UserError(
                f"--devices: expected auto, or some of {', '.join(['cpu', *every])} parted by commas, got {name!r}"
            )
    if repeated := [name for name in names if names.count(name) > 1]:
        raise UserError(f"--devices: expected each device once, got {repeated[0]} again; --supercharge gives it slots")
    on_cpu = max(1, len(os.sched_getaffinity(0)) // threads)
    return [name for name in names for _ in range(supercharge or (on_cpu if name == "cpu" else 1))]


class LocalEngine(Engine):
    """Resident processes, one per slot.

    Args:
        devices: the device of every slot.
    """

    def __init__(self, devices: Sequence[str]) -> None:
        self.slots = [f"{device} {devices[:index].count(device) + 1}" for index, device in enumerate(devices)]
        self.devices = frozenset(device.partition(":")[0] for device in devices)
        self._assigned = list(devices)
        self._residents: list[_Resident | None] = [None] * len(devices)
        self._selector = selectors.DefaultSelector()

    def start(self, slot: int, task: Task) -> None:
        """Give a free slot a task."""
        if self._residents[slot] is None:
            self._residents[slot] = _Resident()
            self._selector.register(self._residents[slot].output, selectors.EVENT_READ, slot)
        config = dataclasses.replace(task.config, device=self._assigned[slot])
        self._residents[slot].send(config=config.to_dict(), only_data=task.only_data)

    def wait(self, timeout_s: float) -> list[Event]:
        """Return what slots have said, at latest after a time."""
        if not self._selector.get_map():
            time.sleep(timeout_s)
            return []
        events: list[Event] = []
        for key, _ in self._selector.select(timeout_s):
            slot, resident = key.data, self._residents[key.data]
            answers, open_ = resident.receive()
            for answer in answers:
                events += self._event(slot, answer)
            if not open_ and self._residents[slot] is resident:
                events += self._bury(slot)
        return events

    def _event(self, slot: int, answer: dict[str, Any]) -> list[Event]:
        if "progress" in answer:
            return [Progress(slot, answer["progress"])]
        resident, outcome = self._residents[slot], Outcome(answer["outcome"])
        resident.at_work = False
        ended = Ended(slot, outcome, answer["reason"], resident.printed())
        if outcome is Outcome.FAILED:
            self._bury(slot)  # whatever broke may have broken more than the run: a failed CUDA kernel, memory
        return [ended]

    def _bury(self, slot: int) -> list[Event]:
        """End a slot's process; the next task starts another."""
        resident, self._residents[slot] = self._residents[slot], None
        self._selector.unregister(resident.output)
        status, printed = resident.end()
        if not resident.at_work:
            return []
        how = f"by signal {-status}" if status < 0 else f"with status {status}"
        return [Ended(slot, Outcome.CRASHED, f"its process ended {how}", printed)]

    def stop(self, grace_s: float) -> list[Event]:
        """End all tasks and slots, and return what they said last."""
        events: list[Event] = []
        deadline = time.monotonic() + grace_s
        try:
            for resident in self._residents:
                if resident is not None and resident.at_work:
                    resident.interrupt()
            while any(r is not None and r.at_work for r in self._residents) and time.monotonic() < deadline:
                events += self.wait(max(0.0, min(0.1, deadline - time.monotonic())))
        finally:
            for slot, resident in enumerate(self._residents):
                if resident is not None:
                    self._bury(slot)
        return events


class _Resident:
    """The parent's side of one resident process.

    Attributes:
        at_work: whether it has a task and has not answered yet.
    """

    def __init__(self) -> None:
        self.at_work = False
        # Appending, because the two processes share the position; closed with the process
        self._stderr: IO[bytes] = tempfile.TemporaryFile("a+b")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "experiments.engines.resident"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            start_new_session=True,  # Ctrl-C at the terminal is the parent's affair
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))},
        )
        self.output = self._process.stdout
        os.set_blocking(self.output.fileno(), False)
        self._rest = b""

    def send(self, **request: Any) -> None:
        """Send a request; whether the process is still there shows when it answers."""
        self.at_work = True
        self._stderr.seek(0)
        self._stderr.truncate()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()

    def receive(self) -> tuple[list[dict[str, Any]], bool]:
        """Return the answers that have come in, and whether more may come."""
        data = os.read(self.output.fileno(), 1 << 20)
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines], bool(data)

    def interrupt(self) -> None:
        """Ask for the run under way to be saved and left."""
        self._process.terminate()

    def end(self) -> tuple[int, str]:
        """Make sure that the process is gone, and return its exit status and what it printed last."""
        try:
            status = self._process.wait(0.5 if self.at_work else 0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self.output.close()
        with self._stderr:
            return status, self.printed()

    def printed(self) -> str:
        """Return the end of what the process printed since it got its task."""
        self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, self._stderr.tell() - LONGEST_LOG))
        return self._stderr.read().decode(errors="replace")
