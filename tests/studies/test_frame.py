import json
import math
import os
import shutil
import warnings
from pathlib import Path

import pandas
import pytest

import studies.summary
from aggregators import gars
from studies.frame import Study
from studies.grouping import keys
from tests.studies.folders import write_iclr21_run, write_run
from tools.errors import UserError

KRUM_BOUND = gars["krum"].upper_bound(n=11, f=4, d=1)


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    """Two rules, both places of momentum, three seeds; krum gains 0.3, 0.4 and 0.5 at the worker, median loses 0.1."""
    for seed in (1, 2, 3):
        for gar, gains in (("krum", (0.3, 0.4, 0.5)), ("median", (-0.1, -0.1, -0.1))):
            for place in ("update", "worker"):
                best = 0.4 + (gains[seed - 1] if place == "worker" else 0)
                name = f"{gar}-{place}-{seed}"
                write_run(tmp_path, name, (0.1, best, 0.2), gar=gar, momentum_at=place, seed=seed)
    return tmp_path


def test_a_run_is_a_row(tmp_path: Path) -> None:
    alive, dead = 2.0, 2.1  # the first loss is 2
    below, above = 0.9 * KRUM_BOUND, 1.1 * KRUM_BOUND
    columns = {
        "Average loss": [alive, alive, dead, alive, *[dead] * 5, 1.25],
        "Honest gradient deviation": [below, above, below, below, *[above] * 6],
        "Sampled gradient deviation": [above, above, above, below, *[above] * 6],
    }
    write_run(tmp_path, "b", (0.1, 0.7, 0.7, 0.4), steps=10, columns=columns, attack_args={"factor": 1.5})
    write_run(tmp_path, "a", (0.1,), gar="trmean")
    runs = Study(tmp_path, last=3).runs
    assert runs["name"].tolist() == ["a", "b"]
    row = runs.iloc[1]
    assert row["path"] == str(tmp_path / "b")
    assert (row["gar"], row["nb_workers"], row["attack_args"]) == ("krum", 11, '{"factor": 1.5}')
    assert (row["steps"], row["loss_final"], row["seconds"]) == (10, 1.25, 3.75)
    assert (row["accuracy_final"], row["accuracy_max"], row["accuracy_max_step"]) == (0.4, 0.7, 10)
    assert row["accuracy_last"] == pytest.approx(0.6)
    assert row["ratio_bound"] == KRUM_BOUND
    assert (row["ratio_honest"], row["ratio_sampled"]) == (0.2, 0.1)  # steps 0 and 3 of ten; step 3
    environment = row[[name for name in runs.columns if name.startswith("environment_")]].tolist()
    assert environment == ["3.11.7", "2.6.0", "c0ffee", "a processor", 1, 1]
    assert runs.iloc[0][["ratio_bound", "ratio_honest", "ratio_sampled"]].isna().all()


def test_runs_of_the_iclr21_code_stand_beside_ours(tmp_path: Path) -> None:
    write_iclr21_run(tmp_path, "theirs", (0.1, 0.5, 0.25))
    write_run(tmp_path, "ours")
    runs = Study(tmp_path).runs.set_index("name")
    theirs = runs.loc["theirs"]
    assert (theirs["steps"], theirs["accuracy_max"], theirs["accuracy_max_step"], theirs["nb_honests"]) == (
        10,
        0.5,
        5,
        27,
    )
    assert pandas.isna(theirs["seconds"])
    assert pandas.isna(theirs["environment_torch"])
    assert pandas.isna(runs.loc["ours", "nb_honests"])


def test_only_finished_folders_are_runs(tmp_path: Path) -> None:
    for name in (
        "done",
        "done.0",
        "done.pending",
        "broken.failed",
        "broken.failed.3",
        "half.pending",
        "half.1",
        "lone.failed.0",
    ):
        write_run(tmp_path, name)
    for name in ("broken.failed", "half.2", ".hidden", "lr_0.5", "gone.0"):
        if not (tmp_path / name).exists():
            write_run(tmp_path, name)
    (tmp_path / "notes.txt").write_text("no folder")
    study = Study(tmp_path)
    assert study.runs["name"].tolist() == ["done", "gone.0", "lr_0.5"]
    assert (study.failed, study.pending) == (["broken"], ["half"])


def test_folder_without_results_is_one_warning(tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    with pytest.warns(UserWarning, match="figures: left out, has none of"):
        study = Study(tmp_path)
    assert len(study) == 0
    assert {"name", "accuracy_max", "environment_seed"} <= set(study.runs.columns)


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("eval", ["accuracy_final", "accuracy_max", "accuracy_last"]),
        ("study", ["steps", "loss_final", "ratio_honest"]),
        ("timing", ["seconds"]),
        ("config.json", ["gar", "seed", "ratio_honest", "environment_python"]),
    ],
)
@pytest.mark.parametrize("damage", ["missing", "garbage"])
def test_one_bad_file_is_one_warning_and_nothing_known(
    name: str, columns: list[str], damage: str, tmp_path: Path
) -> None:
    write_run(tmp_path, "good", (0.1, 0.6))
    bad = write_run(tmp_path, "bad", (0.1, 0.6)) / name
    if damage == "missing":
        bad.unlink()
    else:
        bad.write_bytes(b"# Step number\tno\n\xff\xfe garbage")
    for _ in range(2):  # what is wrong is said every time
        with pytest.warns(UserWarning, match=str(bad)) as caught:
            runs = Study(tmp_path).runs.set_index("name")
        assert len(caught) == 1
        known = {"steps"} if name == "study" else set()  # which the evaluations tell as well
        assert runs.loc["bad", [column for column in columns if column not in known]].isna().all()
        assert runs.loc["good", columns].notna().all()


def test_summary_is_kept_until_a_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_run(tmp_path, "run", (0.1, 0.5))
    first = Study(tmp_path).runs

    def refuse(*_: object) -> None:
        raise AssertionError("read again")

    with monkeypatch.context() as patch:
        patch.setattr(studies.summary, "read_table", refuse)
        again = Study(tmp_path).runs
        pandas.testing.assert_frame_equal(first, again)
        assert Study(tmp_path, last=1).runs["accuracy_last"].item() == 0.5  # what is asked for may differ
        patch.setattr(studies.summary, "FORMAT", -1)
        with pytest.raises(AssertionError, match="read again"):
            Study(tmp_path)
    text = (folder / "eval").read_text().replace("5.00000000e-01", "7.00000000e-01")
    before = (folder / "eval").stat()
    (folder / "eval").write_text(text)  # of equal size
    os.utime(folder / "eval", ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert Study(tmp_path).runs["accuracy_max"].item() == 0.7
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "gar": "median"}))
    row = Study(tmp_path).runs.iloc[0]
    assert (row["gar"], row["ratio_bound"]) == ("median", gars["median"].upper_bound(n=11, f=4, d=1))
    (folder / studies.summary.CACHE).write_text('{"state":')
    assert Study(tmp_path).runs["gar"].item() == "median"
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith(".")) == [studies.summary.CACHE]


def test_folder_that_cannot_be_written_to_goes_without_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_run(tmp_path, "run")

    def refuse(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "write_text", refuse)
    assert Study(tmp_path).runs["accuracy_max"].item() == 0.5
    assert not (folder / studies.summary.CACHE).exists()


def test_progress_is_told_after_each_run(tmp_path: Path) -> None:
    for name in "abc":
        write_run(tmp_path, name)
    told = []
    Study(tmp_path, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_wrong_directories_are_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected a folder of result directories, got .*nowhere"):
        Study(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"got one run's own: .*give its parent"):
        Study(write_run(tmp_path, "run"))
    with pytest.raises(UserError, match="near it: \\['run'\\]"):
        Study(tmp_path).session("rum")


def test_steps_are_those_of_the_run(grid: Path) -> None:
    study = Study(grid)
    assert study.steps("krum-update-1")["Cross-accuracy"].dropna().tolist() == [0.1, 0.4, 0.2]
    assert study.session("krum-update-1").json["gar"] == "krum"


def test_aggregate_is_student_t_over_seeds(grid: Path) -> None:
    table = Study(grid).aggregate()
    assert table[["gar", "momentum_at"]].values.tolist() == [
        ["krum", "update"],
        ["krum", "worker"],
        ["median", "update"],
        ["median", "worker"],
    ]
    assert table["runs"].tolist() == [3] * 4
    row = table.iloc[1]
    assert row["accuracy_max_mean"] == pytest.approx(0.8)
    assert row["accuracy_max_std"] == pytest.approx(0.1)
    half = 4.302652729911275 * 0.1 / math.sqrt(3)  # t for 95 % and two degrees of freedom
    assert row["accuracy_max_low"] == pytest.approx(0.8 - half)
    assert row["accuracy_max_high"] == pytest.approx(0.8 + half)
    assert "seed" not in table
    assert row["dataset"] == "mnist"


def test_aggregate_over_other_fields_and_single_runs(grid: Path) -> None:
    study = Study(grid)
    assert study.aggregate(over=["seed", "momentum_at"])["runs"].tolist() == [6, 6]
    single = study.aggregate(over=(), values="loss_final")
    assert len(single) == 12
    assert single["loss_final_mean"].tolist() == [1.0] * 12
    assert single[["loss_final_std", "loss_final_low", "loss_final_high"]].isna().all(axis=None)
    with pytest.raises(UserError, match="unknown field to aggregate over 'sed', expected one of: dataset"):
        study.aggregate(over="sed")
    with pytest.raises(UserError, match="unknown column of numbers 'gar'"):
        study.aggregate(values="gar")


def test_fields_that_decide_nothing_do_not_part_groups(tmp_path: Path) -> None:
    write_run(tmp_path, "a", seed=1, result_directory="here", data_directory="x", checkpoint_delta=0, device="cuda:0")
    write_run(tmp_path, "b", seed=2, result_directory="there", data_directory="y", checkpoint_delta=5, device="cuda:1")
    path = tmp_path / "b" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "nb_steps": 3}))  # continued: the last part only
    study = Study(tmp_path)
    assert study.aggregate()["runs"].tolist() == [2]
    assert study.varying() == ["seed"]
    write_run(tmp_path, "c", seed=3, steps=10)
    write_run(tmp_path, "d", seed=4, device="cpu")
    assert sorted(Study(tmp_path).aggregate()["runs"]) == [1, 1, 2]


def test_what_is_missing_is_equal(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_run(tmp_path, f"ours-{seed}", seed=seed, gradient_clip=None)
        write_iclr21_run(tmp_path, f"theirs-{seed}", seed=seed)
    assert Study(tmp_path).aggregate()["runs"].tolist() == [2, 2]


def test_field_that_one_run_does_not_have_is_as_if_empty(tmp_path: Path) -> None:
    write_run(tmp_path, "a", seed=1)
    path = write_run(tmp_path, "b", seed=2) / "config.json"
    config = json.loads(path.read_text())
    assert config.pop("init_multi") is None
    path.write_text(json.dumps(config))
    assert Study(tmp_path).aggregate()["runs"].tolist() == [2]
    column = pandas.Series([None, math.nan, "xavier_normal"], dtype=object)  # as some versions of pandas leave them
    first, second, third = keys(pandas.DataFrame({"init_multi": column}), ["init_multi"])
    assert first == second != third


def test_pairs_differ_in_one_field_only(grid: Path) -> None:
    shutil.rmtree(grid / "median-worker-2")
    pairs = Study(grid).pairs()
    assert len(pairs) == 5
    assert pairs["gar"].tolist() == ["krum"] * 3 + ["median"] * 2
    assert pairs["seed"].tolist() == [1, 2, 3, 1, 3]
    assert pairs["name_update"].tolist()[1] == "krum-update-2"
    assert pairs["name_worker"].tolist()[1] == "krum-worker-2"
    assert pairs["update"].tolist() == [0.4] * 5
    assert pairs["difference"].tolist() == pytest.approx([0.3, 0.4, 0.5, -0.1, -0.1])
    assert "momentum_at" not in pairs
    rules = Study(grid).pairs(on="gar", of=("krum", "median"), value="accuracy_final")
    assert rules["difference"].tolist() == [0.0] * 5


def test_pairs_say_which_runs_are_there_twice(grid: Path) -> None:
    shutil.copytree(grid / "krum-worker-1", grid / "krum-worker-again")
    with pytest.warns(UserWarning, match="left out of the pairs, others being the same: krum-worker-again"):
        assert len(Study(grid).pairs()) == 6


def test_fresh_seeds_are_those_that_were_drawn(tmp_path: Path) -> None:
    for name, drawn in (("a", 7), ("b", 8)):
        path = write_run(tmp_path, name, seed=-1) / "config.json"
        config = json.loads(path.read_text())
        config["environment"]["seed"] = drawn
        path.write_text(json.dumps(config))
    study = Study(tmp_path)
    assert study.varying() == ["seed"]
    assert len(study.aggregate(over=())) == 2


def test_parts_of_a_study(grid: Path) -> None:
    study = Study(grid)
    names = study.where(gar="krum", seed=[1, 3]).runs["name"].tolist()
    assert names == ["krum-update-1", "krum-update-3", "krum-worker-1", "krum-worker-3"]
    assert study.only("*-worker-2").runs["name"].tolist() == ["krum-worker-2", "median-worker-2"]
    assert len(study.where(gar_args={})) == 12
    assert len(study) == 12
    with pytest.raises(UserError, match="unknown column 'rule'"):
        study.where(rule="krum")


def test_arguments_that_follow_from_their_owner_are_not_shown(tmp_path: Path) -> None:
    write_run(tmp_path, "a", attack="little", attack_args={"factor": 1.5})
    write_run(tmp_path, "b", attack="empire", attack_args={"factor": 1.1})
    assert Study(tmp_path).varying() == ["attack"]
    write_run(tmp_path, "c", attack="empire", attack_args={"factor": 1.2})
    assert Study(tmp_path).varying() == ["attack", "attack_args"]


def test_no_warning_for_good_folders(grid: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        study = Study(grid)
        study.aggregate()
        study.pairs()
