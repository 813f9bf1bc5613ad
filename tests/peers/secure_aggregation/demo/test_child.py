import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from peers.secure_aggregation.demo import child as module
from peers.secure_aggregation.demo.child import Child

PROGRAM = """
import sys
print("training 1", flush=True)
print("aggregating 1", flush=True)
words = sys.stdin.readline().split()
print(words[0], end="", flush=True)
print("first", "peers: why", "", sep="\\n", file=sys.stderr, flush=True)
sys.stdin.readline()
print(" 2\\nlast", flush=True)
sys.exit(int(words[1]))
"""


@contextmanager
def child(monkeypatch: pytest.MonkeyPatch, program: str = PROGRAM) -> Iterator[Child]:
    """Give a child that runs a program instead of its module."""
    start = module.subprocess.Popen
    monkeypatch.setattr(
        module.subprocess, "Popen", lambda _, **settings: start([sys.executable, "-c", program], **settings)
    )
    made = Child("peer-1", "peer")
    try:
        yield made
    finally:
        made.end()


def lines(child: Child, count: int) -> tuple[list[str], list[str]]:
    """Return so many lines of standard output, and what has come on standard error."""
    states, complaints = [], []
    while len(states) < count:
        states += child.states()
        complaints += child.complaints()
    return states, complaints


def wait_for_end(child: Child) -> tuple[list[str], list[str]]:
    states, complaints = [], []
    while not child.has_ended():
        states += child.states()
        complaints += child.complaints()
    return states, complaints


def test_lines_come_whole_and_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    with child(monkeypatch) as process:
        assert lines(process, 2) == (["training 1", "aggregating 1"], [])
        process.give(b"training 3\n")
        complaints: list[str] = []
        while len(complaints) < 3:
            assert list(process.states()) == []
            complaints += process.complaints()
        assert complaints == ["first", "peers: why", ""]
        assert len(process.outputs) == 2
        assert not process.has_ended()
        process.give(b"\n")
        assert wait_for_end(process) == (["training 2", "last"], [])
        assert process.outputs == []
        assert (process.status, process.reason) == (3, "why")


def test_what_it_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with child(monkeypatch) as process:
        assert not process.has_signed_up
        assert process.waits_s == 0
        lines(process, 2)
        assert process.has_signed_up
        now_s = module.time.monotonic()
        monkeypatch.setattr(module.time, "monotonic", lambda: now_s + 100)
        assert 100 <= process.waits_s < 200
        process.give(b"training 0\n")
        process.give(b"\n")
        lines(process, 1)
        assert process.has_signed_up
        assert process.waits_s == 0
        wait_for_end(process)
        assert process.status == 0


def test_child_that_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    with child(monkeypatch) as process:
        lines(process, 2)
        os.kill(process.id, signal.SIGKILL)
        wait_for_end(process)
        assert (process.status, process.reason) == (-9, "ended by signal 9")
        process.give(b"x" * (1 << 20))  # nobody reads it any more


def test_what_it_said_last_is_read_before_it_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    with child(monkeypatch, "print('one\\ntwo')") as process:
        os.waitid(os.P_PID, process.id, os.WEXITED | os.WNOWAIT)
        assert not process.has_ended()
        assert wait_for_end(process) == (["one", "two"], [])


def test_child_that_gives_no_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    with child(monkeypatch, "import sys; sys.exit(7)") as process:
        wait_for_end(process)
        assert process.reason == "ended with status 7"


def test_interruption_at_the_terminal_does_not_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with child(monkeypatch) as process:
        assert os.getpgid(process.id) == process.id


def test_end_is_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with child(monkeypatch, "import signal; signal.pause()") as process:
        process.end()
        with pytest.raises(ProcessLookupError):
            os.kill(process.id, 0)
