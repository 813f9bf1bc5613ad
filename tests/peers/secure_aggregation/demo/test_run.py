"""The demo as a process with processes of its own."""

import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from peers.keys import create_keys, own_names, read_identity
from peers.secure_aggregation.demo.run import DeadEnd, dead_end
from peers.secure_aggregation.demo.settings import DemoSettings

ROOT = Path(__file__).resolve().parent.parent.parent.parent.parent
PATIENCE_S = 120


@pytest.fixture
def ports() -> list[str]:
    """Flags for ports that are free: eight in a row."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first:
            start = first.getsockname()[1]
            try:
                for port in range(start + 1, start + 8):
                    socket.create_server(("127.0.0.1", port)).close()
            except OSError:
                continue
        flags = ("--server-port", "--benchmark-server-port", "--client-start-port")
        return [word for flag, port in zip(flags, range(start, start + 3), strict=True) for word in (flag, str(port))]


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    return folder


class Run:
    """A demo under way, and its processes."""

    def __init__(self, temporary: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "peers", "demo", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "TMPDIR": str(temporary)},
        )
        self.lines: list[str] = []

    def wait_for(self, pattern: str) -> None:
        """Read until a line matches."""
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if re.match(pattern, line):
                return
        pytest.fail(f"no line is {pattern!r}: {self.lines}")

    def processes(self, count: int) -> dict[str, int]:
        """Return the numbers of its processes by name, of which there are so many, once they have been started."""
        told = [self.process.stderr.readline() for _ in range(count)]
        return {name: int(number) for name, number in (line.split(": process ") for line in told)}

    def end(self) -> tuple[int, list[str], str]:
        """Wait until it has ended, and return its status, all that it said, and its errors."""
        out, err = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, self.lines + out.splitlines(), err


@pytest.fixture
def start(temporary: Path) -> Iterator:
    runs: list[Run] = []

    def start(*arguments: str) -> Run:
        runs.append(Run(temporary, *arguments))
        return runs[-1]

    yield start
    for run in runs:
        with run.process as process:
            process.kill()


def exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_peers_learn_together(start: Callable[..., Run], ports: list[str], temporary: Path) -> None:
    keys = temporary / "keys"
    made = create_keys("peer-2", keys)
    run = start("--total", "3", "--epochs", "4", "--data-skip", "2", "--no-cuda", "--keys-directory", str(keys), *ports)
    status, lines, err = run.end()
    assert (status, err) == (0, "")
    begin = int(ports[-1])
    assert lines[:2] == [
        f"3 peers on ports {begin} to {begin + 2}, server on port {ports[1]}",
        "239 or 240 samples of digits each, which are their weights; Ctrl-C ends all",
    ]
    number = r"(\d\.\d+)"
    after = []
    for epoch, line in enumerate(lines[2:6], 1):
        pattern = (
            rf"epoch {epoch}: mean accuracy {number} before, {number} after aggregation in {number} s \(3 of 3 peers\)"
        )
        after.append(float(re.fullmatch(pattern, line)[2]))
    assert after[-1] > max(0.5, after[0])
    accuracy, seconds, sent = lines[6:]
    assert accuracy.startswith("accuracy in epoch 4: mean ")
    assert re.fullmatch(rf"time per aggregation: median {number} s, at most {number} s", seconds)
    assert re.fullmatch(rf"sent by a peer per aggregation: median {number} MB, at most {number} MB", sent)
    assert list(temporary.iterdir()) == [keys]
    assert own_names(keys) == {"server", "demo", "peer-1", "peer-2", "peer-3"}
    assert read_identity(keys, "peer-2") == made


def test_interruption_ends_all_processes(start: Callable[..., Run], ports: list[str], temporary: Path) -> None:
    run = start("--total", "3", "--epochs", "100000", "--debug", *ports)
    processes = run.processes(4)
    (keys,) = temporary.iterdir()
    assert stat.S_IMODE(keys.stat().st_mode) == 0o700
    assert all(map(exists, processes.values()))
    run.process.send_signal(signal.SIGINT)
    status, _, err = run.end()
    assert status == 130
    assert err.splitlines()[-1] == "peers: interrupted, and all processes ended"
    assert "Traceback" not in err
    assert not any(map(exists, processes.values()))
    assert list(temporary.iterdir()) == []


def test_others_go_on_without_a_peer_that_is_killed(
    start: Callable[..., Run], ports: list[str], temporary: Path
) -> None:
    run = start("--total", "4", "--timeout", "4", "--epochs", "100000", "--debug", "--no-cuda", *ports)
    processes = run.processes(5)
    assert list(processes) == ["server", "peer-1", "peer-2", "peer-3", "peer-4"]
    told: list[str] = []
    reading = threading.Thread(target=lambda: told.extend(run.process.stderr))
    reading.start()
    run.wait_for(r"epoch 1: .*\(4 of 4 peers\)")
    os.kill(processes["peer-2"], signal.SIGKILL)
    run.wait_for(r"epoch \d+: .*\(3 of 4 peers\)")
    os.kill(processes["server"], signal.SIGKILL)
    out = run.process.stdout.read().splitlines()
    assert run.process.wait(PATIENCE_S) == 1
    reading.join()
    said = [line.rstrip("\n") for line in told]
    assert [line for line in said if "signal" in line] == ["peer-2: ended by signal 9", "server: ended by signal 9"]
    assert said[-1] == "nobody can go on without the server"
    assert any(re.match(r"peer-1: epoch 1: sent bytes \d+, received bytes \d+", line) for line in said)
    assert not any("Traceback" in line for line in said)
    assert re.match("accuracy in epoch ", out[-3])
    assert not any(map(exists, processes.values()))
    assert list(temporary.iterdir()) == []


def peer(*, status: int | None = None, has_signed_up: bool = True, waits_s: float = 0.0) -> SimpleNamespace:
    return SimpleNamespace(status=status, has_signed_up=has_signed_up, waits_s=waits_s)


AT_WORK, SERVER = peer(), peer()
DEAD_ENDS = {
    "at work": ([AT_WORK] * 6, True, None),
    "all done": ([peer(status=0)] * 6, True, None),
    "starting": ([peer(has_signed_up=False)] * 6, False, None),
    "one gone before it began": (
        [peer(status=1, has_signed_up=False), *[AT_WORK] * 5],
        False,
        DeadEnd("no round can begin: peers left 5, --server-target-size 6", True),
    ),
    "one gone before the first round, another waits in its place": (
        [peer(status=1, has_signed_up=False), *[AT_WORK] * 6],
        False,
        None,
    ),
    "one gone in the first round": ([peer(status=1), *[AT_WORK] * 5], False, None),
    "one gone later": ([peer(status=1, has_signed_up=False), *[AT_WORK] * 5], True, None),
    "few for a while": ([*[peer(status=0)] * 4, *[peer(waits_s=11.9)] * 2], True, None),
    "too few for a round": (
        [*[peer(status=0)] * 4, peer(waits_s=12.0), peer(waits_s=50.0)],
        True,
        DeadEnd("too few peers are left for another round: 2", False),
    ),
    "one of them at work": ([*[peer(status=0)] * 4, peer(waits_s=12.0), peer()], True, None),
    "enough for a while": ([*[peer(status=0)] * 3, *[peer(waits_s=39.9)] * 3], True, None),
    "enough, but in vain": (
        [*[peer(status=0)] * 3, *[peer(waits_s=40.0)] * 3],
        True,
        DeadEnd("no round has come to an end for 40 s", True),
    ),
}


@pytest.mark.parametrize(("peers", "measured", "end"), DEAD_ENDS.values(), ids=DEAD_ENDS)
def test_when_nobody_can_go_on(peers: list[SimpleNamespace], measured: bool, end: DeadEnd | None) -> None:
    settings = DemoSettings(total=len(peers), server_target_size=6)
    assert dead_end(settings, SERVER, peers, measured=measured) == end
    without = DeadEnd("nobody can go on without the server", True)
    assert dead_end(settings, peer(status=1), peers, measured=measured) == without
