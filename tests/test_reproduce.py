"""The script as a process of its own, and what is left when processes are killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from experiments.config import RunConfig

ROOT = Path(__file__).resolve().parent.parent
GRID = """
from experiments.config import RunConfig
from experiments.grids import Grid

class Mine(Grid, name="mine"):
    title = "A grid of the tests"
    seeds = "1"

    @classmethod
    def experiments(cls):
        {experiments}
"""
SHORT = 'yield "short", RunConfig(nb_steps=20, attack="alie", gar="krum")'
LONG = 'yield "long", RunConfig(nb_steps={steps}, momentum=0.5, evaluation_delta=50)'
ENDLESS = 10**7
PATIENCE_S = 120.0


class Reproduce:
    """Starts the script in a folder, with a grid of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.results = folder / "results-data"
        self._processes: list[subprocess.Popen] = []

    def grid(self, *experiments: str) -> None:
        (self.folder / "mine.py").write_text(GRID.format(experiments="\n        ".join(experiments)))

    def start(self, *arguments: str, grid: str = "mine.py") -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "reproduce.py"), "--grid", grid, "--devices", "cpu", *arguments],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self._processes.append(process)
        return process

    def run(self, *arguments: str, grid: str = "mine.py") -> tuple[int, str, str]:
        process = self.start(*arguments, grid=grid)
        out, err = process.communicate(timeout=PATIENCE_S)
        return process.returncode, out, err

    def names(self) -> list[str]:
        return sorted(path.name for path in self.results.iterdir() if not path.name.startswith("."))

    def has_steps(self, name: str, steps: int = 10) -> bool:
        study = self.results / name / "study"
        return study.exists() and study.read_bytes().count(b"\n") > steps

    def end(self) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()


@pytest.fixture
def reproduce(tmp_path: Path) -> Iterator[Reproduce]:
    reproduce = Reproduce(tmp_path)
    yield reproduce
    reproduce.end()


def until(condition: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def residents(process: subprocess.Popen) -> list[int]:
    """Return the processes that a running reproduce.py has started."""
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not path.exists():
        pytest.skip("needs /proc to find the children of a process")
    return [int(pid) for pid in path.read_text().split()]


def alone(folder: Path, config: RunConfig) -> Path:
    """Return the folder of the same run by attack.py."""
    arguments = [*config.to_argv(), "--device=cpu", "--seed=1", "--threads=1", "--result-directory", str(folder)]
    subprocess.run([sys.executable, str(ROOT / "attack.py"), *arguments], check=True, capture_output=True)
    return folder


def assert_same_bytes(first: Path, second: Path) -> None:
    for name in ("study", "eval"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_smoke_grid_by_one_and_by_two(reproduce: Reproduce) -> None:
    first, second = reproduce.folder / "one", reproduce.folder / "two"
    chosen = ["--seeds", "1", "--only", "*-n_9-*", "*_2-*"]
    for slots, folder in (("1", first), ("2", second)):
        status, out, err = reproduce.run(
            *chosen, "--supercharge", slots, "--result-directory", str(folder), grid="smoke"
        )
        assert (status, err) == (0, "")
        assert f"[9/9] {'digits'}" in out
        assert out.splitlines()[-1] == f"results in {folder}, page in results-plot/index.html"
        assert (reproduce.folder / "results-plot" / "index.html").is_file()
    names = sorted(path.name for path in first.glob("digits*"))
    assert len(names) == 9
    for name in names:
        assert_same_bytes(first / name, second / name)
    status, out, _ = reproduce.run(*chosen, "--result-directory", str(first), "--dry-run", grid="smoke")
    assert status == 0
    assert out.splitlines()[-1] == "9 runs: 9 to skip"


def test_killed_worker_costs_its_run_only(reproduce: Reproduce) -> None:
    reproduce.grid(LONG.format(steps=ENDLESS), SHORT, SHORT.replace("short", "second"))
    process = reproduce.start("--supercharge", "1")
    until(lambda: reproduce.has_steps("long-1.pending"))
    (worker,) = residents(process)
    os.kill(worker, signal.SIGKILL)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert "long-1: FAILED, its process ended by signal 9" in out
    assert "long-1: its process ended by signal 9, see results-data/long-1.failed/stderr.log" in err
    assert reproduce.names() == ["long-1.failed", "second-1", "short-1"]
    assert "signal 9" in (reproduce.results / "long-1.failed" / "stderr.log").read_text()


def test_killed_parent_leaves_nothing_that_looks_finished(reproduce: Reproduce) -> None:
    reproduce.grid(SHORT, LONG.format(steps=ENDLESS))
    process = reproduce.start("--supercharge", "1")
    until(lambda: reproduce.has_steps("long-1.pending"))
    (worker,) = residents(process)
    process.kill()
    process.communicate()
    until(lambda: not Path(f"/proc/{worker}").exists() or "Z" in Path(f"/proc/{worker}/stat").read_text()[:40], 2.0)
    assert reproduce.names() == ["long-1.pending", "short-1"]
    reproduce.grid(SHORT, LONG.format(steps=120))
    status, out, err = reproduce.run("--supercharge", "1")
    assert (status, err) == (0, "")
    assert "2 runs, 1 finished, 1 to do" in out
    config = RunConfig(nb_steps=120, momentum=0.5, evaluation_delta=50)
    assert_same_bytes(reproduce.results / "long-1", alone(reproduce.folder / "alone", config))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_runs_go_on_where_they_were(number: int, status: int, reproduce: Reproduce) -> None:
    reproduce.grid(LONG.format(steps=ENDLESS))
    process = reproduce.start()
    until(lambda: reproduce.has_steps("long-1.pending", 60))
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (status, "reproduce.py: interrupted; the same command goes on from here\n")
    (checkpoint,) = (reproduce.results / "long-1.pending").glob("checkpoint-*")
    steps = int(checkpoint.name.removeprefix("checkpoint-")) + 30
    reproduce.grid(LONG.format(steps=steps))
    _, out, _ = reproduce.run("--dry-run")
    assert out.startswith(f"continue long-1  from step {steps - 30}\n")
    assert reproduce.run()[0] == 0
    assert reproduce.names() == ["long-1"]
    config = RunConfig(nb_steps=steps, momentum=0.5, evaluation_delta=50)
    assert_same_bytes(reproduce.results / "long-1", alone(reproduce.folder / "alone", config))


def test_two_at_once_share_the_work(reproduce: Reproduce) -> None:
    names = [f"run{number}" for number in range(6)]
    reproduce.grid(*(SHORT.replace('"short"', f'"{name}"').replace("20", "150") for name in names))
    processes = [reproduce.start("--plot-directory", f"plots-{number}") for number in range(2)]
    outs = [process.communicate(timeout=PATIENCE_S) for process in processes]
    assert [(process.returncode, err) for process, (_, err) in zip(processes, outs, strict=True)] == [(0, "")] * 2
    assert reproduce.names() == [f"{name}-1" for name in names]  # none was done twice, or moved aside
    for name in names:
        done = [out for out, _ in outs if f"{name}-1: accuracy" in out]
        assert len(done) == 1


def test_a_full_disk_loses_nothing(reproduce: Reproduce) -> None:
    disk = reproduce.folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=192k", "none", str(disk)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs the right to mount a small disk: {error}")
    try:
        reproduce.grid(SHORT, LONG.format(steps=ENDLESS))
        status, _, err = reproduce.run("--supercharge", "1", "--result-directory", "disk")
        assert status == 2
        assert err.startswith("reproduce.py: --result-directory: cannot write to disk")
        assert err.count("\n") == 1
        assert sorted(path.name for path in disk.iterdir()) == [".locks", "long-1.pending", "short-1"]
        reproduce.results = disk
        reproduce.grid(SHORT, LONG.format(steps=100))
        assert reproduce.run("--supercharge", "1", "--result-directory", "disk", "--dry-run")[1].splitlines()[-1] == (
            "2 runs: 1 to skip, 1 to run"
        )
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_runs_without_data_are_skipped_and_said(reproduce: Reproduce) -> None:
    raw = reproduce.folder / "data" / "phishing"
    raw.mkdir(parents=True)
    (raw / "phishing").write_text("this is not the file\n")
    reproduce.grid(SHORT, 'yield "lost", RunConfig(dataset="phishing")')
    status, out, err = reproduce.run("--data-directory", "data")
    assert status == 1
    assert "skipped: 1 (lost-1 …)" in out
    assert "skipped for want of data: lost-1" in err
    assert reproduce.names() == ["short-1"]


def test_what_goes_wrong_after_the_runs_is_one_line(reproduce: Reproduce) -> None:
    reproduce.grid(SHORT)
    assert reproduce.run()[0] == 0
    (reproduce.results / "short-1" / "timing").unlink()
    status, _, err = reproduce.run()
    assert status == 0
    assert err.startswith("reproduce.py: results-data/short-1/timing: expected seconds by phase")
    assert err.count("\n") == 1
    page = reproduce.folder / "results-plot" / "index.html"
    page.unlink()
    page.mkdir()  # in the way
    status, _, err = reproduce.run()
    assert status == 2
    assert err.splitlines()[-1].startswith("reproduce.py: --plot-directory: cannot write to results-plot: ")
    (reproduce.folder / "other").mkdir()
    (reproduce.folder / "other" / ".locks").touch()  # where the folder of locks should be
    status, _, err = reproduce.run("--result-directory", "other")
    assert (status, err.count("\n")) == (2, 1)
    assert err.startswith("reproduce.py: --result-directory: cannot write to other")


def test_a_changed_configuration_is_done_again(reproduce: Reproduce) -> None:
    reproduce.grid(SHORT)
    assert reproduce.run()[0] == 0
    before = (reproduce.results / "short-1" / "study").read_bytes()
    reproduce.grid(SHORT.replace("20", "20, learning_rate=0.5"))
    assert reproduce.run()[0] == 0
    assert reproduce.names() == ["short-1", "short-1.0"]
    assert (reproduce.results / "short-1.0" / "study").read_bytes() == before
    assert (reproduce.results / "short-1" / "study").read_bytes() != before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--supercharge", "0"], "--supercharge: expected at least 1, got 0"),
        (["--seeds", "5-1"], '--seeds: expected e.g. "1-5" or "1,2,7-9", got \'5-1\''),
        (["--seeds", "1-99999999999"], '--seeds: expected e.g. "1-5"'),
        (["--seeds", "²"], '--seeds: expected e.g. "1-5"'),
        (["--seeds", "1,1"], "--seeds: expected every seed once"),
        (["--only", "nothing*"], "--only: expected a pattern that matches a run, such as short-1, got nothing*"),
        (["--devices", "cuda:99"], "--devices: expected auto, or some of cpu"),
        (["--devices", "cpu,cpu"], "--devices: expected each device once, got cpu again"),
        (
            ["--result-directory", "mine.py"],
            "--result-directory: expected a folder that can be written to, got mine.py",
        ),
        (["--ray-address", "auto"], "--ray-address: expected --engine ray as well"),
        (["--nonsense"], "unrecognized arguments: --nonsense; --help lists all flags"),
    ],
)
def test_errors_are_one_line_with_status_2(
    arguments: list[str],
    words: str,
    reproduce: Reproduce,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from reproduce import main

    monkeypatch.chdir(reproduce.folder)
    reproduce.grid(SHORT)
    assert main(["--grid", "mine.py", "--devices", "cpu", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"reproduce.py: {words}")
    assert err.count("\n") == 1
    assert sorted(path.name for path in reproduce.folder.iterdir() if path.name != "__pycache__") == ["mine.py"]
