"""What one finished run came to, in a few numbers; kept beside the run, so that it is computed once."""

import contextlib
import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from studies.bounds import KINDS, LOSS, bound_of, ratio_columns, share_held
from studies.files import UnreadableFileError, read_config, read_seconds, read_table

CACHE = ".summary.json"
FORMAT = 2
"""To be raised with every change of what is kept or of how it is computed."""
ACCURACY = "Cross-accuracy"
NODES = {
    "node_minimum_final": "Node minimum",
    "node_maximum_final": "Node maximum",
    "node_deviation_final": "Node deviation",
    "averaged_model_final": "Averaged model",
}
"""Numbers of a summary that are last values of columns of `eval`, where nodes have models of their own."""


def summarise(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Return a run's summary and what was wrong with its files.

    The summary has `config`, as config.json has it; `evaluations`, the pairs of step and accuracy; and the numbers
    `steps`, `loss_final`, `ratio_bound`, `ratio_sampled`, `ratio_honest`, `seconds` and those of `NODES`. What no file
    tells is NaN. It comes from the cache unless a file changed since. Runs with something wrong are not cached, so as
    to complain again.
    """
    state = _state(folder)
    if (known := _from_cache(folder, state)) is not None:
        return known, []
    summary: dict[str, Any] = {"config": {}}
    problems: list[str] = []
    for name, read in _READERS.items():
        try:
            # A run that was told not to write a file has nothing wrong with it
            if (folder / name).exists() or wanted(name, summary["config"]):
                summary |= read(folder, summary["config"])
        except UnreadableFileError as error:
            problems.append(str(error))
    summary = _BLANK | summary
    if math.isnan(summary["steps"]) and summary["evaluations"]:  # without a study, evaluations tell
        summary["steps"] = summary["evaluations"][-1][0]
    if not problems:
        _to_cache(folder, state, summary)
    return summary, problems


def wanted(name: str, config: Mapping[str, Any]) -> bool:
    """Return whether a run of this configuration writes a file of this name."""
    if name == "timing":  # the ICLR 2021 code writes neither
        return "environment" in config
    field = {"eval": "evaluation_delta", "study": "nb_for_study"}.get(name)
    return not isinstance(config.get(field), int) or config[field] > 0


def _read_evaluations(folder: Path, _: Mapping[str, Any]) -> dict[str, Any]:
    table = read_table(folder / "eval")
    if ACCURACY not in table:
        read_table(folder / "eval", [ACCURACY])  # which complains
    evaluations = [[int(step), float(accuracy)] for step, accuracy in table[ACCURACY].items()]
    last = {name: float(table[column].iloc[-1]) for name, column in NODES.items() if column in table and len(table)}
    return {"evaluations": evaluations, **last}


def _read_study(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    study = read_table(folder / "study", ratio_columns())
    bound = bound_of(config)
    summary = {"steps": len(study), "loss_final": float(study[LOSS].iloc[-1]) if len(study) else math.nan}
    if bound is not None:
        summary |= {f"ratio_{kind.lower()}": share_held(study, kind, bound) for kind in KINDS}
        summary["ratio_bound"] = bound
    return summary


_READERS: dict[str, Callable[[Path, Mapping[str, Any]], dict[str, Any]]] = {
    "config.json": lambda folder, _: {"config": read_config(folder)},
    "eval": _read_evaluations,
    "study": _read_study,
    "timing": lambda folder, _: {"seconds": read_seconds(folder)},
}
_NUMBERS = ("steps", "loss_final", "ratio_bound", "ratio_sampled", "ratio_honest", "seconds", *NODES)
_BLANK: dict[str, Any] = {"evaluations": [], **dict.fromkeys(_NUMBERS, math.nan)}


def _state(folder: Path) -> dict[str, Any]:
    """Return what changes when any file of the run does."""
    state: dict[str, Any] = {"format": FORMAT}
    for name in _READERS:
        try:
            status = (folder / name).stat()
            state[name] = [status.st_size, status.st_mtime_ns]
        except OSError:
            state[name] = None
    return state


def _from_cache(folder: Path, state: dict[str, Any]) -> dict[str, Any] | None:
    try:
        cached = json.loads((folder / CACHE).read_bytes())
        return cached["summary"] if cached["state"] == state else None
    except (OSError, ValueError, LookupError, TypeError):  # none yet, or a damaged one: it is made again
        return None


def _to_cache(folder: Path, state: dict[str, Any], summary: dict[str, Any]) -> None:
    """Write the cache in one go; a folder that cannot be written to goes without."""
    unfinished = folder / f"{CACHE}.{os.getpid()}"
    try:
        unfinished.write_text(json.dumps({"state": state, "summary": summary}), encoding="utf-8")
        unfinished.replace(folder / CACHE)
    except OSError:
        with contextlib.suppress(OSError):  # what a full disk took of it
            unfinished.unlink(missing_ok=True)
