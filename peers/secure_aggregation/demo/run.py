"""A server and peers that train together, as processes on this machine: `python3 -m peers demo`."""

import contextlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import zmq

from peers.keys import create_several, own_names, read_certificate, read_identity
from peers.secure_aggregation.demo.child import Child
from peers.secure_aggregation.demo.measurements import Collector, Measurement
from peers.secure_aggregation.demo.process import COLLECTOR_NAME, HOST, SERVER_NAME, Job
from peers.secure_aggregation.demo.settings import DemoSettings
from peers.secure_aggregation.demo.view import DemoView
from tools.interruption import Interrupted, Interruption

CLIP = 1_000
LOOK_EVERY_MS = 100
LAST_ROWS_S = 2.0


def run_demo(settings: DemoSettings) -> int:
    """Run the demo, and return the exit status: 0, or 1 if a process failed.

    Raises:
        UserError: it cannot be run so.
        Interrupted: a signal ended it, and its processes.
    """
    settings.check_free()
    view = DemoView(list(settings.ports), settings.epochs)
    with Interruption() as interruption, _keys(settings) as directory:
        interruption.at_once = True  # there is nothing yet that would have to be ended
        try:
            jobs = settings.make_jobs(directory)
        except KeyboardInterrupt:
            raise Interrupted(interruption.signal, "interrupted") from None
        interruption.at_once = False
        view.say(_introduction(settings, jobs))
        peers = {read_certificate(directory, job.name).key: job.name for job in jobs}
        with (
            Collector(settings.benchmark_server_port, read_identity(directory, COLLECTOR_NAME), peers) as collector,
            Demo(settings, jobs, directory, collector, view) as demo,
            view,
        ):
            demo.run(interruption)
    if interruption.signal is not None:
        raise Interrupted(interruption.signal, "interrupted, and all processes ended")
    for line in view.summary():
        view.say(line)
    return int(demo.failed)


class Demo:
    """The processes of the demo; use as a context manager, which starts and ends them.

    Attributes:
        failed: whether one of them failed.
    """

    def __init__(
        self, settings: DemoSettings, jobs: Sequence[Job], directory: Path, collector: Collector, view: DemoView
    ) -> None:
        self.failed = False
        self._settings = settings
        self._jobs = jobs
        self._directory = directory
        self._collector = collector
        self._view = view
        self._processes: list[Child] = []  # the server, and then the peers
        self._epochs: dict[str, set[int]] = {job.name: set() for job in jobs}

    def __enter__(self) -> "Demo":
        try:
            self._processes.append(Child(SERVER_NAME, "server", *self._server_arguments()))
            for job in self._jobs:
                self._processes.append(Child(job.name, "peer"))
            for process in self._processes:
                self._debug(process, f"process {process.id}")
            for peer, job in zip(self._peers, self._jobs, strict=True):  # now that all are starting
                self._view.started(peer.name, peer.id)
                peer.give(job.encode())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.end()

    def run(self, interruption: Interruption) -> None:
        """Return when all peers have ended, nobody can go on, or a signal has come."""
        end = None
        while interruption.signal is None and end is None and any(peer.status is None for peer in self._peers):
            self._look(LOOK_EVERY_MS)
            end = dead_end(self._settings, self._server, self._peers, measured=any(self._epochs.values()))
        if interruption.signal is not None:
            return
        if end is not None:
            self.failed |= end.is_failure
            self._view.warn(end.reason)
            for peer in self._peers:
                if peer.status is None:
                    self._view.left(peer.name, "left over")
        self._wait_for_last_rows()

    @property
    def _server(self) -> Child:
        return self._processes[0]

    @property
    def _peers(self) -> list[Child]:
        return self._processes[1:]

    def _server_arguments(self) -> list[str]:
        settings = self._settings
        options = {
            "--port": settings.server_port,
            "--host": HOST,
            "--keys": self._directory,
            "--name": SERVER_NAME,
            "--target-size": settings.target_size,
            "--group-size": settings.server_group_size,
            "--num-actors": settings.server_num_actors,
            "--timeout": settings.timeout,
            "--clip": CLIP,
            "--max-weight": max(job.weight for job in self._jobs),
        }
        return [str(word) for option in options.items() for word in option]

    def _look(self, timeout_ms: int) -> None:
        """Wait for news, for a while, and take them."""
        poller = zmq.Poller()
        poller.register(self._collector.socket, zmq.POLLIN)
        for process in self._processes:
            for output in process.outputs:
                poller.register(output, zmq.POLLIN)
        poller.poll(timeout_ms)
        for measurement in self._collector.receive():
            self._measured(measurement)
        for process in self._processes:
            if process.status is None:
                self._listen(process)
        self._view.refresh()

    def _measured(self, measurement: Measurement) -> None:
        if measurement.epoch not in self._epochs[measurement.name]:
            self._epochs[measurement.name].add(measurement.epoch)
            self._view.measured(measurement)

    def _listen(self, process: Child) -> None:
        for line in process.states():
            if process is self._server:
                self._debug(process, line)
            else:
                self._view.state(process.name, line)
        for line in process.complaints():
            self._debug(process, line)
        if process.has_ended():
            self._ended(process)

    def _debug(self, process: Child, line: str) -> None:
        if self._settings.debug:
            self._view.warn(f"{process.name}: {line}")

    def _ended(self, process: Child) -> None:
        if process.status == 0:
            self._view.left(process.name, "done")
            return
        self.failed = True
        self._view.warn(f"{process.name}: {process.reason}")
        if process is not self._server:
            self._view.left(process.name, "failed")

    def _wait_for_last_rows(self) -> None:
        """Take measurements that were still on their way when their peers ended."""
        every, deadline_s = set(range(1, self._settings.epochs + 1)), time.monotonic() + LAST_ROWS_S
        done = [peer.name for peer in self._peers if peer.status == 0]
        while any(self._epochs[name] != every for name in done) and time.monotonic() < deadline_s:
            self._look(LOOK_EVERY_MS)
        for name in done:
            if self._epochs[name] != every:
                self.failed = True
                self._view.warn(f"{name}: its measurements have not come")
        if self._collector.dropped:
            self._view.warn(f"dropped {self._collector.dropped} rows that were no measurements of their senders")


@dataclass(frozen=True)
class DeadEnd:
    """Why the peers that are at work cannot go on.

    Attributes:
        is_failure: whether that should not be, and not just because the number of peers does not come out even.
    """

    reason: str
    is_failure: bool


def dead_end(settings: DemoSettings, server: Child, peers: Sequence[Child], *, measured: bool) -> DeadEnd | None:
    """Return why the peers that are at work cannot go on, if so.

    Args:
        measured: whether there has been a round.
    """
    if server.status is not None:
        return DeadEnd("nobody can go on without the server", True)
    able = sum(peer.status is None or peer.has_signed_up for peer in peers)
    if not measured and able < settings.target_size:
        reason = f"peers left {able}, --server-target-size {settings.target_size}"
        return DeadEnd(f"no round can begin: {reason}", True)
    waits_s = [peer.waits_s for peer in peers if peer.status is None]
    few = len(waits_s) < settings.server_group_size
    patience_s = settings.timeout + 2 if few else 4 * settings.timeout
    if not waits_s or min(waits_s) < patience_s:
        return None
    if few:
        return DeadEnd(f"too few peers are left for another round: {len(waits_s)}", False)
    return DeadEnd(f"no round has come to an end for {patience_s:g} s", True)


@contextlib.contextmanager
def _keys(settings: DemoSettings) -> Iterator[Path]:
    """Give a folder with the keys of all; a fresh one, which is gone afterwards, unless there is one to be kept."""
    with contextlib.ExitStack() as stack:
        if settings.keys_directory is None:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="byzantium-demo-")))
        else:
            directory = Path(settings.keys_directory)
        there = own_names(directory) if directory.is_dir() else frozenset()
        missing = [name for name in (SERVER_NAME, COLLECTOR_NAME, *settings.ports) if name not in there]
        if missing:
            create_several(missing, directory)
        yield directory


def _introduction(settings: DemoSettings, jobs: Sequence[Job]) -> str:
    weights = sorted({job.weight for job in jobs})
    ports = list(settings.ports.values())
    return (
        f"{settings.total} peers on ports {ports[0]} to {ports[-1]}, server on port {settings.server_port}\n"
        f"{' or '.join(map(str, weights))} samples of {settings.dataset} each, which are their weights; Ctrl-C ends all"
    )
