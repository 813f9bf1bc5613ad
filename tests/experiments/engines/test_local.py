"""The local engine: its slots, and what becomes of their processes."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.config import RunConfig
from experiments.engines import Ended, Outcome, Progress, Task
from experiments.engines.local import ROOT, LocalEngine, choose_slots
from tools.errors import UserError

CONFIG = RunConfig(nb_steps=4, evaluation_delta=2, threads=1)


def end_of(engine: LocalEngine, task: Task) -> Ended:
    engine.start(0, task)
    while True:
        for event in engine.wait(0.2):
            if not isinstance(event, Progress):
                return event


def pid_of(engine: LocalEngine) -> int:
    return engine._residents[0]._process.pid


def test_a_process_stays_until_a_task_fails(tmp_path: Path) -> None:
    (tmp_path / "phishing").mkdir()
    (tmp_path / "phishing" / "phishing").write_text("this is not the file\n")
    with LocalEngine(["cpu"]) as engine:
        configs = [dataclasses.replace(CONFIG, result_directory=str(tmp_path / name)) for name in "ab"]
        assert end_of(engine, Task(configs[0])).outcome is Outcome.DONE
        first = pid_of(engine)
        assert end_of(engine, Task(configs[1])).outcome is Outcome.DONE
        assert pid_of(engine) == first
        lost = dataclasses.replace(CONFIG, dataset="phishing", data_directory=str(tmp_path))
        ended = end_of(engine, Task(lost, only_data=True))
        assert ended.outcome is Outcome.FAILED
        assert "phishing" in ended.reason
        assert end_of(engine, Task(CONFIG, only_data=True)).outcome is Outcome.DONE
        assert pid_of(engine) != first
    assert engine._residents == [None]


def test_an_idle_process_ends_when_its_parent_is_gone() -> None:
    command = [sys.executable, "-m", "experiments.engines.resident"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (1, b"", b"")


@pytest.mark.parametrize(
    ("devices", "supercharge", "threads", "slots"),
    [
        ("cpu", 3, 1, ["cpu"] * 3),
        ("cpu", None, 1, ["cpu"] * 5),
        ("cpu", None, 2, ["cpu"] * 2),
        ("cpu", None, 8, ["cpu"]),
        ("auto", None, 1, ["cuda:0", "cuda:1"]),
        ("cuda", 2, 1, ["cuda:0", "cuda:0", "cuda:1", "cuda:1"]),
        ("cuda:1, cpu", 1, 1, ["cuda:1", "cpu"]),
    ],
)
def test_slots(
    devices: str, supercharge: int | None, threads: int, slots: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: range(5))
    assert choose_slots(devices, supercharge, threads) == slots


def test_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert choose_slots("auto", 1, 1) == ["cpu"]
    with pytest.raises(UserError, match="expected auto, or some of cpu parted by commas, got 'cuda'"):
        choose_slots("cuda", None, 1)


def test_slots_are_told_apart() -> None:
    assert LocalEngine(["cuda:0", "cuda:0", "cuda:1"]).slots == ["cuda:0 1", "cuda:0 2", "cuda:1 1"]
