"""What is done about a run, given what is in its result directory."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.config import RunConfig
from experiments.plan import Action, plan
from experiments.run import run
from tools.console import Console


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return RunConfig(nb_steps=4, evaluation_delta=2, threads=1, device="cpu")


@pytest.fixture(scope="module")
def finished(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a finished run, with a checkpoint after two steps."""
    folder = tmp_path_factory.mktemp("runs") / "one"
    run(dataclasses.replace(config, result_directory=str(folder), checkpoint_delta=2), Console())
    return folder


@pytest.fixture
def place(finished: Path, config: RunConfig, tmp_path: Path) -> Callable[..., RunConfig]:
    """Return a function that copies the finished run to a name, and gives the configuration of `one` there."""

    def copy(name: str) -> RunConfig:
        shutil.copytree(finished, tmp_path / name)
        return dataclasses.replace(config, result_directory=str(tmp_path / "one"))

    return copy


def test_new(config: RunConfig, tmp_path: Path) -> None:
    planned = plan("one", dataclasses.replace(config, result_directory=str(tmp_path / "one")), {"cpu"})
    assert (planned.action, planned.why, planned.aside) == (Action.RUN, "new", ())


def test_finished(place: Callable[..., RunConfig]) -> None:
    assert plan("one", place("one"), {"cpu"}).action is Action.SKIP


def test_finished_on_one_of_several_kinds_of_device(place: Callable[..., RunConfig]) -> None:
    config = dataclasses.replace(place("one"), device="cuda:3")
    assert plan("one", config, {"cpu", "cuda"}).action is Action.SKIP
    planned = plan("one", config, {"cuda"})
    assert planned.action is Action.RUN
    assert "--device cpu instead of cuda" in planned.why


def test_options_that_decide_nothing_may_differ(place: Callable[..., RunConfig]) -> None:
    config = dataclasses.replace(place("one"), tensorboard=True, data_directory="elsewhere")
    assert plan("one", config, {"cpu"}).action is Action.SKIP


def test_another_configuration_is_moved_aside(place: Callable[..., RunConfig]) -> None:
    config = dataclasses.replace(place("one"), learning_rate=0.5)
    planned = plan("one", config, {"cpu"})
    assert planned.action is Action.RUN
    assert planned.why == "has --learning-rate 0.01 instead of 0.5: moved aside, and run again"
    folder = config.folder()
    assert planned.prepare() == config
    assert not folder.exists()
    assert (folder.parent / "one.0" / "study").is_file()


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("config.json", None, "unreadable config.json"),
        ("config.json", "{", "unreadable config.json"),
        ("config.json", "[]", "unreadable config.json"),
        ("config.json", '{"gar": "krumm"}', "unreadable config.json"),
        ("study", None, "study ends at step None instead of 3"),
        ("study", "", "study ends at step None"),
        ("study", "# Step number\n0\t1\n1\t", "study ends at step None"),
        ("study", "# Step number\n0\t1\n1\t1\n", "study ends at step 1 instead of 3"),
        ("eval", "# Step number\n0\t1\n2\t1\n", "eval ends at step 2 instead of 4"),
    ],
)
def test_damaged_results_are_done_again(
    file: str, content: str | None, words: str, place: Callable[..., RunConfig]
) -> None:
    config = place("one")
    path = config.folder() / file
    path.unlink()
    if content is not None:
        path.write_text(content)
    planned = plan("one", config, {"cpu"})
    assert planned.action is Action.RUN
    assert words in planned.why
    assert planned.aside == (config.folder(),)


@pytest.mark.parametrize(("steps", "last"), [(5, 3), (3, 3), (2, 3)])
def test_another_number_of_steps(steps: int, last: int, place: Callable[..., RunConfig]) -> None:
    planned = plan("one", dataclasses.replace(place("one"), nb_steps=steps), {"cpu"})
    assert planned.action is Action.RUN
    assert f"study ends at step {last} instead of {steps - 1}" in planned.why


def test_run_without_study_or_evaluation(config: RunConfig, tmp_path: Path) -> None:
    config = dataclasses.replace(config, nb_for_study=0, evaluation_delta=0, result_directory=str(tmp_path / "one"))
    run(config, Console())
    assert plan("one", config, {"cpu"}).action is Action.SKIP


def test_continues_from_the_latest_checkpoint(place: Callable[..., RunConfig]) -> None:
    config = place("one.pending")
    shutil.copy(config.folder().with_name("one.pending") / "checkpoint-2", config.folder().with_name("checkpoint-1"))
    planned = plan("one", config, {"cpu"})
    assert (planned.action, planned.why, planned.done) == (Action.CONTINUE, "from step 4", 4)
    rest = planned.prepare()
    assert (rest.nb_steps, rest.load_checkpoint) == (0, str(config.folder().with_name("one.pending") / "checkpoint-4"))


def test_continues_from_an_earlier_one_if_the_latest_is_damaged(
    place: Callable[..., RunConfig], finished: Path
) -> None:
    config = place("one.pending")
    (config.folder().with_name("one.pending") / "checkpoint-4").write_bytes(b"PK")
    planned = plan("one", config, {"cpu"})
    assert planned.done == 2
    run(planned.prepare(), Console())
    for name in ("study", "eval"):
        assert (config.folder() / name).read_bytes() == (finished / name).read_bytes()
    assert plan("one", config, {"cpu"}).action is Action.SKIP  # though its config.json says two steps


def test_checkpoints_of_another_configuration_or_beyond_the_end_are_left(place: Callable[..., RunConfig]) -> None:
    config = place("one.pending")
    planned = plan("one", dataclasses.replace(config, momentum=0.5), {"cpu"})
    assert planned.action is Action.RUN
    assert "without a checkpoint" in planned.why
    assert plan("one", dataclasses.replace(config, nb_steps=3), {"cpu"}).done == 2


def test_failed_runs_are_tried_again(place: Callable[..., RunConfig]) -> None:
    config = place("one.failed")
    planned = plan("one", config, {"cpu"})
    assert (planned.action, planned.why) == (Action.RUN, "failed before: from the start")
    planned.prepare()
    assert config.folder().with_name("one.failed.0").is_dir()


@pytest.mark.parametrize("stop_below", [1e9, 1e-9])
def test_a_run_that_stopped_by_itself_is_finished(stop_below: float, config: RunConfig, tmp_path: Path) -> None:
    config = dataclasses.replace(config, result_directory=str(tmp_path / "one"), stop_below=stop_below)
    run(config, Console())
    rows = len((tmp_path / "one" / "study").read_text().splitlines()) - 1
    assert rows == (1 if stop_below > 1 else 4)
    assert plan("one", config, {"cpu"}).action is Action.SKIP
    path = tmp_path / "one" / "eval"
    *kept, _ = path.read_text().splitlines(keepends=True)
    path.write_text("".join(kept))
    assert plan("one", config, {"cpu"}).action is Action.RUN
