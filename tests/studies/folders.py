"""Result folders with chosen numbers, as this program and as the ICLR 2021 code write them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.config import RunConfig
from experiments.metrics import COLUMNS

DEFAULTS = {"dataset": "mnist", "gar": "krum", "attack": "little", "nb_workers": 11, "nb_decl_byz": 4}
ENVIRONMENT = {
    "python": "3.11.7",
    "versions": {"torch": "2.6.0", "numpy": "2.0.0"},
    "commit": "c0ffee",
    "device": "a processor",
    "threads": 1,
}


def write_run(
    results: Path,
    name: str,
    accuracies: Sequence[float] = (0.1, 0.5),
    steps: int = 20,
    columns: Mapping[str, Sequence[float]] | None = None,
    **fields: Any,
) -> Path:
    """Write a finished run, evaluated every 10 steps; columns of `study` are 1 unless they are given."""
    folder = results / name
    folder.mkdir(parents=True)
    config = RunConfig(**{**DEFAULTS, "nb_steps": steps, **fields}).to_dict()
    environment = {**ENVIRONMENT, "seed": config["seed"] if config["seed"] >= 0 else 12345}
    (folder / "config").write_text(f"{name}\n└── run\n")
    (folder / "config.json").write_text(json.dumps({**config, "environment": environment}, indent=2) + "\n")
    evaluations = [f"{10 * index}\t{accuracy:.8e}" for index, accuracy in enumerate(accuracies)]
    (folder / "eval").write_text("\n".join(["# Step number\tCross-accuracy", *evaluations]) + "\n")
    (folder / "study").write_text("\n".join(study_lines(steps, columns or {}, "{:.8e}")) + "\n")
    (folder / "timing").write_text("# Phase\tSeconds\nstart\t1.500000\ngradients\t2.250000\n")
    return folder


def write_iclr21_run(results: Path, name: str, accuracies: Sequence[float] = (0.1, 0.5), **fields: Any) -> Path:
    """Write a run as that code's attack.py does: 10 steps, no line break at the end, no environment, no timing."""
    folder = results / name
    folder.mkdir(parents=True)
    config = {
        **{"attack": "little", "attack_args": {"factor": 1.5, "negative": True}, "batch_size": 83},
        **{"checkpoint_delta": 0, "criterion": "top-k", "criterion_args": {}, "dampening": 0.0, "dataset": "mnist"},
        **{"device": "auto", "device_gar": "same", "evaluation_delta": 5, "gar": "krum", "gar_args": {}, "gars": None},
        **{"gradient_clip": 2.0, "init_mono": None, "init_mono_args": {}, "l1_regularize": None},
        **{"l2_regularize": 1e-4, "learning_rate": 0.5, "learning_rate_decay": 5000, "learning_rate_decay_delta": 300},
        **{"learning_rate_schedule": None, "load_checkpoint": None, "loss": "nll", "loss_args": {}, "momentum": 0.9},
        **{"momentum_at": "worker", "momentum_nesterov": False, "nb_decl_byz": 24, "nb_for_study": 1},
        **{"nb_for_study_past": 150, "nb_honests": 27, "nb_local_steps": 1, "nb_real_byz": 24, "nb_steps": 10},
        **{"nb_workers": 51, "no_transform": False, "result_directory": "/somewhere/else/x.pending", "seed": 1},
        **{"user_input_delta": 0, "weight_decay": 0},
    }
    (folder / "config").write_text("Configuration\n· Reproducibility - enforced (seed 1)\n")
    (folder / "config.json").write_text(json.dumps({**config, **fields}, ensure_ascii=False, indent="\t"))
    evaluations = [f"{5 * index}\t{accuracy}" for index, accuracy in enumerate(accuracies)]
    (folder / "eval").write_text("\n".join(["# Step number\tCross-accuracy", *evaluations]))
    columns = {"Sampled-prev cosine": [float("nan"), *[0.5] * 9], "Attack acceptation ratio": [float("nan")] * 10}
    (folder / "study").write_text("\n".join(study_lines(10, columns, "{:.8e}")))
    return folder


def study_lines(steps: int, columns: Mapping[str, Sequence[float]], form: str) -> list[str]:
    """Return the lines of a `study` file whose columns are 1 unless they are given."""
    values = [columns.get(name, [1.0] * steps) for name in COLUMNS[2:]]
    rows = (
        f"{step}\t{25 * step}\t" + "\t".join(form.format(column[step]) for column in values) for step in range(steps)
    )
    return ["# " + "\t".join(COLUMNS), *rows]
