"""Reading the files of one result directory, those of this program and of the ICLR 2021 code.

Both write tab-separated tables whose header starts with `# `. The older code ends no file with a line break.
"""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pandas

from tools.errors import UserError, one_line

STEP = "Step number"
TAIL_BYTES = 65_536  # far more than the longest line


class UnreadableFileError(UserError):
    """A file of a result directory that is missing or damaged."""


def read_config(folder: Path) -> dict[str, Any]:
    """Return what config.json says.

    Raises:
        UnreadableFileError: it is missing or not the JSON of an object.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UnreadableFileError(_complaint(path, "one JSON object", error)) from error
    if not isinstance(config, dict):
        raise UnreadableFileError(_complaint(path, "one JSON object", f"got a {type(config).__name__}"))
    return config


def read_table(path: Path, columns: Collection[str] | None = None) -> pandas.DataFrame:
    """Return a table of numbers by step.

    Args:
        columns: those to read, besides the step; all by default.

    Raises:
        UnreadableFileError: the file is missing, lacks a column, holds what is no number, or ends within a row.
    """
    try:
        header = _check_ends(path)
        table = pandas.read_csv(
            path,
            sep="\t",
            header=0,
            names=header,
            usecols=None if columns is None else [STEP, *columns],
            index_col=STEP,
            skipinitialspace=True,
        )
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
        raise UnreadableFileError(_complaint(path, "a table of numbers by step", error)) from error
    for name, values in (STEP, table.index), *table.items():
        if len(values) and not pandas.api.types.is_numeric_dtype(values.dtype):
            raise UnreadableFileError(_complaint(path, "a table of numbers by step", f"{name} holds what is no number"))
    return table


def read_seconds(folder: Path) -> float:
    """Return the seconds of all phases together.

    Raises:
        UnreadableFileError: `timing` is missing or damaged.
    """
    path = folder / "timing"
    try:
        rows = path.read_text(encoding="utf-8").splitlines()
        return sum(float(row.split("\t")[1]) for row in rows if not row.startswith("#"))
    except (OSError, ValueError, IndexError) as error:
        raise UnreadableFileError(_complaint(path, "seconds by phase", error)) from error


def _check_ends(path: Path) -> list[str]:
    """Return the names of the columns; raise ValueError if the first line is no header or the last one is cut off."""
    with path.open("rb") as file:
        header = file.readline().decode().rstrip("\r\n")
        length = file.seek(0, 2)
        file.seek(max(0, length - TAIL_BYTES))
        last = file.read().decode().rstrip("\r\n").splitlines()
    names = header.removeprefix("# ").split("\t")
    if not header.startswith("# ") or names[0] != STEP:
        raise ValueError(f"its header is {header[:80]!r}")
    if last and last[-1].count("\t") != len(names) - 1:
        raise ValueError("its last row is cut off")
    return names


def _complaint(path: Path, expected: str, problem: object) -> str:
    reason = problem.strerror if isinstance(problem, OSError) else problem
    return f"{path}: expected {expected}: {one_line(ValueError(reason))}"
