import os
from pathlib import Path

import pytest

from experiments.metrics import COLUMNS
from experiments.results import ResultDirectory, move_aside
from tools.errors import UserError

ROW = (3, 75, 0.5, *[float("nan")] * 21)


def write(folder: Path, steps: range, continued: tuple[Path, int] | None = None) -> ResultDirectory:
    with ResultDirectory(folder, continued) as results:
        results.write_config("title", {"group": {"a": 1}}, {"a": 1})
        results.write_study(COLUMNS, [(step, *ROW[1:]) for step in steps])
        for step in steps[::2]:
            results.write_evaluation(step, ("Cross-accuracy",), (step / 10,))
        results.write_timing({"data": 1.0})
    return results


def steps_in(path: Path) -> list[int]:
    return [int(line.split("\t")[0]) for line in path.read_text().splitlines()[1:]]


def test_layout_and_formats(tmp_path: Path) -> None:
    with ResultDirectory(tmp_path / "deep" / "run") as results:
        results.write_config("title", {"group": {"a": 1}}, {"a": 1})
        results.write_study(COLUMNS, [ROW])
        results.write_evaluation(3, ("Cross-accuracy",), (0.25,))
        results.write_timing({"data": 1.5, "rule": 0.25})
        assert (tmp_path / "deep" / "run.pending").is_dir()
        results.finish()
    folder = tmp_path / "deep" / "run"
    assert sorted(path.name for path in folder.parent.iterdir()) == ["run"]
    names = {"config", "config.json", "study", "eval", "timing", "stdout.log", "stderr.log"}
    assert {path.name for path in folder.iterdir()} == names
    header, row = (folder / "study").read_text().splitlines()
    assert header.startswith("# Step number\tTraining point count\tAverage loss\tl2 from origin\t")
    assert len(header.split("\t")) == 24
    assert row == "\t".join(["3", "75", "5.00000000e-01", *["nan"] * 21])
    assert (folder / "eval").read_text() == "# Step number\tCross-accuracy\n3\t2.50000000e-01\n"
    assert (folder / "timing").read_text() == "# Phase\tSeconds\ndata\t1.500000\nrule\t0.250000\n"
    assert (folder / "config").read_text().splitlines()[0] == "title"
    assert (folder / "config.json").read_text() == '{\n  "a": 1\n}\n'


def test_unfinished_stays_pending_and_is_moved_aside_by_the_next(tmp_path: Path) -> None:
    write(tmp_path / "run", range(3))
    assert [path.name for path in tmp_path.iterdir()] == ["run.pending"]
    write(tmp_path / "run", range(5))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.pending", "run.pending.0"]
    assert steps_in(tmp_path / "run.pending.0" / "study") == [0, 1, 2]


def test_finished_is_moved_aside_when_the_next_finishes(tmp_path: Path) -> None:
    for last in (1, 2, 3):
        with ResultDirectory(tmp_path / "run") as results:
            results.write_study(COLUMNS, [(step, *ROW[1:]) for step in range(last)])
            assert (tmp_path / "run").exists() == (last > 1)
            results.finish()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "run.0", "run.1"]
    assert [len(steps_in(tmp_path / name / "study")) for name in ("run.0", "run.1", "run")] == [1, 2, 3]


def test_failed_is_named_so(tmp_path: Path) -> None:
    for _ in range(2):
        with ResultDirectory(tmp_path / "run") as results:
            results.fail()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.failed", "run.failed.0"]


def test_continuing_in_the_same_folder_cuts_and_appends(tmp_path: Path) -> None:
    write(tmp_path / "run", range(6))
    with (tmp_path / "run.pending" / "study").open("a") as study:
        study.write("1")  # a killed run left half a row, of step 12 say
    write(tmp_path / "run", range(4, 8), (tmp_path / "run.pending", 4))
    assert [path.name for path in tmp_path.iterdir()] == ["run.pending"]
    assert steps_in(tmp_path / "run.pending" / "study") == list(range(8))
    assert steps_in(tmp_path / "run.pending" / "eval") == [0, 2, 4, 6]
    assert (tmp_path / "run.pending" / "timing").read_text().splitlines()[1] == "data\t2.000000"


def test_damaged_timing_is_forgotten_and_damaged_rows_are_an_error(tmp_path: Path) -> None:
    write(tmp_path / "run", range(6))
    pending = tmp_path / "run.pending"
    (pending / "timing").write_text("# Phase\tSeconds\nda")
    write(tmp_path / "run", range(4, 6), (pending, 4))
    assert (pending / "timing").read_text().splitlines()[1] == "data\t1.000000"
    (pending / "eval").write_text("# Step number\nrubbish\n")
    with pytest.raises(UserError, match=r"--load-checkpoint: expected rows that begin with a step in .*eval"):
        ResultDirectory(tmp_path / "run", (pending, 4))


def test_continuing_a_finished_result_keeps_it_aside(tmp_path: Path) -> None:
    with ResultDirectory(tmp_path / "run") as results:
        results.write_study(COLUMNS, [(step, *ROW[1:]) for step in range(6)])
        results.finish()
    with ResultDirectory(tmp_path / "run", (tmp_path / "run", 4)) as results:
        results.write_study(COLUMNS, [(4, *ROW[1:])])
        assert steps_in(tmp_path / "run" / "study") == list(range(6))
        results.finish()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "run.0"]
    assert steps_in(tmp_path / "run" / "study") == list(range(5))
    assert steps_in(tmp_path / "run.0" / "study") == list(range(6))


def test_continuing_elsewhere_writes_only_what_follows(tmp_path: Path) -> None:
    write(tmp_path / "run", range(6))
    write(tmp_path / "other", range(4, 8), (tmp_path / "run.pending", 4))
    assert steps_in(tmp_path / "other.pending" / "study") == [4, 5, 6, 7]
    assert steps_in(tmp_path / "run.pending" / "study") == list(range(6))


def test_two_runs_never_share_a_folder(tmp_path: Path) -> None:
    with (
        ResultDirectory(tmp_path / "run") as first,
        pytest.raises(UserError, match=r"another run is writing to .*run\.pending"),
    ):
        ResultDirectory(tmp_path / "run")
    assert first.pending.is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["run.pending"]
    ResultDirectory(tmp_path / "run").finish()


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        UserError, match=r"--result-directory: cannot write to .*file/run\.pending: .*; make room, or name another"
    ):
        ResultDirectory(tmp_path / "file" / "run")
    if os.geteuid() == 0:
        return  # root may write anywhere
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(UserError, match="Permission denied"):
        ResultDirectory(tmp_path / "closed" / "run")


def test_moving_aside_takes_the_first_free_name(tmp_path: Path) -> None:
    (tmp_path / "run.0").mkdir()
    (tmp_path / "run").mkdir()
    assert move_aside(tmp_path / "run").name == "run.1"
