"""Cells of the ICLR 2021 paper on CIFAR, a few steps each: its grids' configurations, on a few random images."""

import csv
import dataclasses
import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import attack
from experiments.config import RunConfig
from experiments.grids import grids
from experiments.model import Model
from tests.experiments.test_datasets import cifar_archive

CLASSES = {"cifar10": 10, "cifar100": 100}
SMALL = {"depth": 10, "widen_factor": 1, "dropout": 0.3}
Row = dict[str, float]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write both datasets, 20 training and 4 test images each, as they lie on disk; return the folder of both."""
    torchvision = pytest.importorskip("torchvision")
    training = [f"data_batch_{i}" for i in range(1, 6)]
    for name, key in (("cifar10", "labels"), ("cifar100", "fine_labels")):
        reader = getattr(torchvision.datasets, name.upper())
        files = {file: file for file in (*training, "test_batch")}
        cifar_archive(tmp_path, reader.base_folder, files, key, CLASSES[name])
        folder = tmp_path / reader.base_folder
        digests = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in folder.iterdir()}
        monkeypatch.setattr(reader, "train_list", [[file, digests[file]] for file in training])
        monkeypatch.setattr(reader, "test_list", [["test_batch", digests["test_batch"]]])
        monkeypatch.setattr(reader, "meta", {**reader.meta, "filename": "meta", "md5": digests["meta"]})
    return tmp_path


@pytest.fixture
def run(data: Path, capsys: pytest.CaptureFixture) -> Callable[..., list[Row]]:
    """Return a function that runs a cell for a few steps, and returns the rows of its study."""

    def run(grid: str, name: str, **changes: Any) -> list[Row]:
        folder = data / "run"
        fields = {"nb_steps": 3, "evaluation_delta": 2, "threads": 1, "device": "cpu", **changes}
        config = dataclasses.replace(cell(grid, name), data_directory=str(data), result_directory=str(folder), **fields)
        assert attack.main(config.to_argv()) == 0
        printed = capsys.readouterr()
        assert printed.err == ""
        assert "one worker after another" not in printed.out
        saved = json.loads((folder / "config.json").read_text())
        del saved["environment"]
        assert RunConfig.from_dict(saved) == config
        assert [row["Step number"] for row in read(folder / "eval")] == [0, 2]
        assert all(4 * row["Cross-accuracy"] in range(5) for row in read(folder / "eval"))
        return read(folder / "study")

    return run


def read(path: Path) -> list[Row]:
    header, *lines = csv.reader(path.read_text().splitlines(), delimiter="\t")
    header[0] = header[0].removeprefix("# ")
    return [dict(zip(header, map(float, line), strict=True)) for line in lines]


def cell(grid: str, name: str) -> RunConfig:
    return dict(grids[grid].experiments())[name]


def check(rows: list[Row], config: RunConfig, batch_size: int, rate: float) -> None:
    """Compare rows with what the cell's loss, clipping, attack and learning rate say that they must be."""
    h = config.nb_workers - config.nb_real_byz
    assert [row["Training point count"] for row in rows] == [batch_size * h * step for step in range(3)]
    classes = CLASSES[config.dataset]
    arguments = {"input_shape": (3, 32, 32), "num_outputs": classes, **config.model_args}
    norm = float(Model(config.model, arguments, seed=config.seed).parameters.norm())
    first = rows[0]["Average loss"] - config.l2_regularize * norm
    assert first == pytest.approx(math.log(classes), abs=0.2)  # of a network that knows nothing yet
    for row in rows:
        assert math.isfinite(row["Average loss"])
        assert 0 < row["Sampled gradient norm"] <= config.gradient_clip
        if config.attack == "empire":
            assert row["Attack gradient norm"] == pytest.approx(0.1 * row["Honest gradient norm"], rel=1e-3)
            assert row["Honest-attack cosine"] == pytest.approx(-1, abs=1e-4)
        if config.attack == "little":
            assert row["Attack gradient norm"] > row["Honest gradient norm"]
            assert row["Attack gradient deviation"] < 1e-3 * row["Honest gradient deviation"]
        if config.attack is None:
            assert row["Honest-defense cosine"] == pytest.approx(1, abs=1e-4)
    assert rows[1]["l2 from origin"] == pytest.approx(rate * rows[0]["Defense gradient norm"], rel=1e-3)
    if config.momentum_at == "worker":  # without it, the honest send what they sampled
        assert rows[2]["Honest gradient norm"] > 1.5 * rows[2]["Sampled gradient norm"]
    else:
        assert rows[2]["Sampled-honest cosine"] == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        ("cifar10-average-n_20-lr_0.01-nesterov", 0.01),
        ("cifar10-little-bulyan-f_5-lr_0.01-at_worker-nesterov", 0.01),
        ("cifar100-empire-median-f_11-lr_0.001-at_update", 0.001),
    ],
)
def test_convolutional_cells(name: str, rate: float, run: Callable[..., list[Row]]) -> None:
    check(run("iclr21", name, batch_size=1), cell("iclr21", name), 1, rate)


@pytest.mark.parametrize(
    "name",
    [
        "cifar10-average-n_9-lr_pow-nesterov",
        "cifar10-little-bulyan-f_2-lr_pow-at_worker-nesterov",
        "cifar10-empire-krum-f_4-lr_pow-at_update-nesterov",
    ],
)
def test_residual_cells(name: str, run: Callable[..., list[Row]]) -> None:
    config = dataclasses.replace(cell("iclr21-appendix", name), model_args=SMALL)
    check(run("iclr21-appendix", name, model_args=SMALL, batch_size=4), config, 4, 0.02)


def test_dropout_of_the_appendix_does_nothing_in_eval_mode(run: Callable[..., list[Row]]) -> None:
    """That is how its authors ran it; a run in train mode is another."""
    name = "cifar10-average-n_7-lr_pow-nesterov"
    losses = {
        (mode, dropout): [
            row["Average loss"]
            for row in run(
                "iclr21-appendix", name, batch_size=4, train_mode=mode, model_args={**SMALL, "dropout": dropout}
            )
        ]
        for mode in ("train", "eval")
        for dropout in (0.0, 0.3)
    }
    assert losses["eval", 0.3] == losses["eval", 0.0]
    assert losses["train", 0.3] != losses["train", 0.0] != losses["eval", 0.0]


def test_learning_rate_of_the_appendix_falls_by_its_schedule(run: Callable[..., list[Row]]) -> None:
    name = "cifar10-average-n_7-lr_pow-nesterov"
    schedule = "0.02,1,0.004,2,0.0008"
    settings = {"batch_size": 4, "model_args": SMALL}
    slower = run("iclr21-appendix", name, learning_rate_schedule=schedule, **settings)
    rows = run("iclr21-appendix", name, **settings)
    assert slower[1]["l2 from origin"] == rows[1]["l2 from origin"]
    assert slower[2]["l2 from origin"] < 0.7 * rows[2]["l2 from origin"]
