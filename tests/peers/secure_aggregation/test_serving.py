import os
import signal
from typing import Any

import pytest

from peers.secure_aggregation import serving
from peers.secure_aggregation.serving import events, nuisances, serve
from tools.console import Console
from tools.interruption import Interrupted

QUIET = {"rounds": 0, "repeats": 0, "peers": 0, "refused": 0}


class Server:
    """Gives statistics that were written down; at the last of them a signal comes."""

    def __init__(self, *statistics: dict[str, int], number: int = signal.SIGINT) -> None:
        self._left = list(statistics)
        self._number = number
        self.entered = self.left = 0

    def __enter__(self) -> "Server":
        self.entered += 1
        return self

    def __exit__(self, *_: object) -> None:
        self.left += 1

    def wait(self, timeout_s: float) -> None:
        assert 0 < timeout_s < 1
        if len(self._left) == 2:
            os.kill(os.getpid(), self._number)

    @property
    def statistics(self) -> dict[str, int]:
        return QUIET | (self._left.pop(0) if len(self._left) > 1 else self._left[0])


def lines_of(server: Server, capsys: pytest.CaptureFixture, **expected: Any) -> list[str]:
    with pytest.raises(Interrupted) as caught:
        serve(server, Console(), lambda console: console.say("hello"))
    assert (server.entered, server.left) == (1, 1)
    assert (caught.value.signal, str(caught.value)) == (expected["signal"], expected["message"])
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "hello"
    return [line[len("2026-11-21 22:00:00  ") :] for line in lines]


def test_what_happens_is_said_as_it_happens(capsys: pytest.CaptureFixture) -> None:
    server = Server(
        {"peers": 6}, {"peers": 6, "rounds": 2}, {"peers": 5, "rounds": 2, "repeats": 1, "refused": 9}, {"rounds": 3}
    )
    message = "interrupted, rounds complete: 3; peers wait for the server's return"
    assert lines_of(server, capsys, signal=signal.SIGINT, message=message) == [
        "peers present: 6",
        "round 1 complete",
        "round 2 complete",
        "peers present: 5",
        "attempts given up: 1",
    ]


def test_nuisances_are_said_from_time_to_time(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "NUISANCES_EVERY_S", 0.0)
    server = Server({"refused": 1}, {"refused": 1}, {"refused": 4, "dropped: repeated": 2}, {}, number=signal.SIGTERM)
    message = "interrupted, rounds complete: 0; peers wait for the server's return"
    assert lines_of(server, capsys, signal=signal.SIGTERM, message=message) == [
        "refused 1",
        "refused 4, dropped: repeated 2",
    ]


def test_events() -> None:
    assert events({}, QUIET) == []
    assert events(QUIET, QUIET | {"refused": 5}) == []
    assert events(QUIET | {"repeats": 3}, QUIET | {"repeats": 5}) == [
        "attempts given up: 4",
        "attempts given up: 5",
    ]


def test_nuisances() -> None:
    now = QUIET | {"rounds": 5, "peers": 3, "refused": 2, "dropped: repeated": 1}
    assert nuisances({}, now) == ["refused 2, dropped: repeated 1"]
    assert nuisances(now, now) == []
    assert nuisances(now, now | {"dropped: repeated": 2}) == ["dropped: repeated 2"]
