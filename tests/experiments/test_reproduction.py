"""All runs of a grid on an engine that computes nothing: what happens when tasks end in each way."""

import dataclasses
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from experiments.config import RunConfig
from experiments.engines import Ended, Engine, Event, Outcome, Progress, Task
from experiments.locks import Locks
from experiments.overview import Overview
from experiments.plan import plan
from experiments.reproduction import Reproduction
from experiments.results import UnwritableError
from tools.interruption import Interruption

CONFIG = RunConfig(nb_steps=2, evaluation_delta=2, threads=1, device="cpu")


class FakeEngine(Engine):
    """Ends every task at once, as told by the name of its run; a done run leaves a finished folder."""

    devices = frozenset({"cpu"})

    def __init__(self, slots: int, endings: dict[str, list[Outcome]] | None = None) -> None:
        self.slots = [f"slot {number}" for number in range(slots)]
        self.endings = endings or {}
        self.tasks: list[str] = []
        self.at_work: dict[int, Task] = {}
        self.most = 0
        self.grace_s: float | None = None

    def start(self, slot: int, task: Task) -> None:
        assert slot not in self.at_work
        self.at_work[slot] = task
        self.tasks.append("data" if task.only_data else task.config.folder().name)
        self.most = max(self.most, len(self.at_work))

    def wait(self, timeout_s: float) -> list[Event]:
        events: list[Event] = []
        for slot, task in list(self.at_work.items()):
            name = "data" if task.only_data else task.config.folder().name
            ending = self.endings.get(name, [])
            outcome = ending.pop(0) if ending else Outcome.DONE
            if outcome is Outcome.DONE and not task.only_data:
                finish(task.config)
            del self.at_work[slot]
            events += [Progress(slot, "step 1"), Ended(slot, outcome, f"it {outcome.value}", "printed\n")]
        return events

    def stop(self, grace_s: float) -> list[Event]:
        self.grace_s = grace_s
        return self.wait(0)


def finish(config: RunConfig) -> None:
    """Leave what a finished run leaves."""
    folder = config.folder()
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    (folder / "study").write_text("# Step number\n0\t1\n1\t1\n")
    (folder / "eval").write_text("# Step number\n0\t1.0e-01\n2\t5.0e-01\n")
    (folder / "checkpoint-1").write_bytes(b"large")


def calm() -> Interruption:
    return SimpleNamespace(signal=None)


@pytest.fixture
def reproduce(tmp_path: Path) -> Callable[..., Reproduction]:
    """Return a function that does runs of the given names on an engine."""

    def do(engine: Engine, names: str, interruption: Interruption | None = None) -> Reproduction:
        configs = {name: dataclasses.replace(CONFIG, result_directory=str(tmp_path / name)) for name in names}
        planned = [plan(name, config, engine.devices) for name, config in configs.items()]
        with Locks(tmp_path) as locks:
            reproduction = Reproduction(planned, engine, locks, Overview(engine.slots, len(planned), 0))
            reproduction.run(interruption or calm())
        return reproduction

    return do


def folders(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if path.name != ".locks")


def test_all_are_done_on_all_slots_in_order(reproduce: Callable[..., Reproduction], tmp_path: Path) -> None:
    engine = FakeEngine(2)
    reproduction = reproduce(engine, "abcde")
    assert engine.tasks == ["data", "a", "b", "c", "d", "e"]
    assert engine.most == 2
    assert (reproduction.failed, reproduction.skipped) == ({}, {})
    assert folders(tmp_path) == list("abcde")
    assert not list(tmp_path.rglob("checkpoint*"))
    assert sorted(path.name for path in (tmp_path / ".locks").iterdir()) == ["guard"]


def test_nothing_left_to_do(reproduce: Callable[..., Reproduction]) -> None:
    reproduce(FakeEngine(1), "ab")
    engine = FakeEngine(1)
    reproduce(engine, "ab")
    assert engine.tasks == []


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.CRASHED])
def test_a_failure_costs_one_run(outcome: Outcome, reproduce: Callable[..., Reproduction], tmp_path: Path) -> None:
    reproduction = reproduce(FakeEngine(1, {"b": [outcome]}), "abc")
    assert reproduction.failed == {"b": f"it {outcome.value}"}
    assert folders(tmp_path) == ["a", "b.failed", "c"]
    assert (tmp_path / "b.failed" / "stderr.log").read_text() == f"printed\nit {outcome.value}\n"
    assert json.loads((tmp_path / "b.failed" / "config.json").read_text())["nb_steps"] == 2
    assert reproduce(FakeEngine(1), "abc").failed == {}
    assert folders(tmp_path) == ["a", "b", "b.failed.0", "c"]


def test_what_a_crashed_run_wrote_is_kept(reproduce: Callable[..., Reproduction], tmp_path: Path) -> None:
    pending = tmp_path / "a.pending"
    pending.mkdir()
    (pending / "stderr.log").write_text("before\n")
    reproduce(FakeEngine(1, {"a": [Outcome.CRASHED]}), "a")
    assert folders(tmp_path) == ["a.failed"]
    assert (tmp_path / "a.failed" / "stderr.log").read_text() == "before\nprinted\nit crashed\n"


def test_without_data_runs_are_skipped(reproduce: Callable[..., Reproduction], tmp_path: Path) -> None:
    reproduction = reproduce(FakeEngine(1, {"data": [Outcome.FAILED]}), "ab")
    assert reproduction.skipped == {"a": "it failed", "b": "it failed"}
    assert folders(tmp_path) == []


def test_busy_runs_are_asked_for_again(
    reproduce: Callable[..., Reproduction], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("experiments.reproduction.ASK_AGAIN_S", 0.0)
    engine = FakeEngine(1, {"a": [Outcome.BUSY, Outcome.BUSY]})
    assert reproduce(engine, "ab").failed == {}
    assert engine.tasks.count("a") == 3
    assert folders(tmp_path) == ["a", "b"]


def test_locked_runs_are_left_to_their_owner(
    reproduce: Callable[..., Reproduction], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("experiments.reproduction.ASK_AGAIN_S", 0.0)
    other = Locks(tmp_path)
    assert other.acquire("a") is None

    class Finishing(FakeEngine):
        def wait(self, timeout_s: float) -> list[Event]:
            if "b" in self.tasks and not (tmp_path / "a").exists():
                finish(dataclasses.replace(CONFIG, result_directory=str(tmp_path / "a")))
                other.release("a")
            return super().wait(timeout_s)

    engine = Finishing(1)
    reproduce(engine, "ab")
    assert engine.tasks == ["data", "b"]


def test_a_lost_task_is_given_again(reproduce: Callable[..., Reproduction], tmp_path: Path) -> None:
    engine = FakeEngine(1, {"data": [Outcome.LOST], "a": [Outcome.LOST]})
    reproduction = reproduce(engine, "ab")
    assert engine.tasks == ["data", "data", "a", "b", "a"]
    assert (reproduction.failed, reproduction.skipped) == ({}, {})
    assert folders(tmp_path) == ["a", "b"]


def test_locks_are_kept_alive_as_long_as_runs_need_them(
    reproduce: Callable[..., Reproduction], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("experiments.reproduction.BEAT_EVERY_S", 0.0)
    held = []

    class Watching(FakeEngine):
        def wait(self, timeout_s: float) -> list[Event]:
            locks = list((tmp_path / ".locks").glob("*.lock"))
            held.append(sorted(path.stem for path in locks))
            assert all(path.stat().st_mtime > 1 for path in locks) or len(held) <= 2
            for path in locks:
                os.utime(path, (0, 0))
            waiting = len(held) % 2 and timeout_s  # every other time nothing happens, but a beat
            return [] if waiting else super().wait(timeout_s)

    reproduce(Watching(1), "ab")
    assert held[:6] == [[], [], ["a"], ["a"], ["b"], ["b"]]


def test_an_unwritable_folder_stops_everything(reproduce: Callable[..., Reproduction], tmp_path: Path) -> None:
    engine = FakeEngine(1, {"b": [Outcome.UNWRITABLE]})
    with pytest.raises(UnwritableError, match="it unwritable"):
        reproduce(engine, "abc")
    assert folders(tmp_path) == ["a"]
    assert engine.grace_s == 0.0


def test_interrupted(reproduce: Callable[..., Reproduction], tmp_path: Path) -> None:
    interruption = calm()

    class Interrupting(FakeEngine):
        def start(self, slot: int, task: Task) -> None:
            super().start(slot, task)
            if len(self.tasks) == 4:
                interruption.signal = signal.SIGINT
                self.endings["c"] = [Outcome.INTERRUPTED]

        def wait(self, timeout_s: float) -> list[Event]:
            return [] if timeout_s and interruption.signal else super().wait(timeout_s)

    engine = Interrupting(2)
    reproduction = reproduce(engine, "abcd", interruption)
    assert engine.tasks == ["data", "a", "b", "c", "d"]
    assert engine.grace_s > 0
    assert reproduction.failed == {}
    assert folders(tmp_path) == ["a", "b", "d"]  # d ended by itself while all was stopped
    assert sorted(path.name for path in (tmp_path / ".locks").iterdir()) == ["guard"]
