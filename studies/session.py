"""One run's data by step, under the names of the ICLR 2021 code's `study` module, so that scripts written for it run.

That module: LPD-EPFL/ByzantineMomentum, study.py. What it could not do works here: schedules of learning rates, chains
of calls after something could not be computed, folders that lack a file.
"""

import functools
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas

from studies.bounds import KINDS, bound_of, squared_ratio
from studies.display import display
from studies.files import STEP, UnreadableFileError, read_config, read_table
from studies.summary import wanted
from tools.errors import UserError
from tools.schedule import learning_rate

TRAINING_SAMPLES = {
    "mnist": 60_000,
    "fashionmnist": 60_000,
    "kmnist": 60_000,
    "cifar10": 50_000,
    "cifar100": 50_000,
    "digits": 1_437,
    "phishing": 8_400,
}
EPOCH, RATE, ENOUGH = "Epoch number", "Learning rate", "Ratio enough for GAR?"


def select(data: "Session | pandas.DataFrame", *only_columns: str) -> pandas.DataFrame:
    """Return the columns whose names contain any of these words, whatever the case; all if there are none.

    Columns come in the order of the words. What is no frame is returned as it is if there are no words.
    """
    if isinstance(data, Session):
        data = data.data
    if not only_columns:
        return data
    return data[list(dict.fromkeys(name for word in only_columns for name in _containing(data, word)))]


def discard(data: "Session | pandas.DataFrame", *only_columns: str) -> pandas.DataFrame:
    """Return all columns but those whose names contain any of these words, whatever the case."""
    if isinstance(data, Session):
        data = data.data
    if not only_columns:
        return data
    return data.drop(columns={name for word in only_columns for name in _containing(data, word)})


def _containing(data: pandas.DataFrame, word: str) -> list[str]:
    return [name for name in data.columns if word.lower() in name.lower()]


class Session:
    """A result directory, loaded.

    Files that are missing or damaged, other than those that the run was told not to write, are one warning each.

    Attributes:
        name: of the folder.
        path: of the folder.
        config: the configuration as text for people, or None.
        json: the configuration as config.json has it, or None.
        data: one row per step, `study` and `eval` joined; empty if there is neither. The `compute_` methods add columns
            to it, once, and return the session.

    Raises:
        UserError: there is no such folder.
    """

    def __init__(self, path_results: str | Path) -> None:
        self.path = Path(path_results)
        self.name = self.path.name
        if not self.path.is_dir():
            raise UserError(f"expected a result directory, got {self.path}, which does not exist or is no folder")
        self.config: str | None = self._read("config", lambda path: path.read_text(encoding="utf-8").strip())
        self.json: dict[str, Any] | None = self._read("config.json", lambda path: read_config(path.parent))
        tables = [self._read(name, read_table) for name in ("study", "eval") if self._has(name)]
        tables = [table for table in tables if table is not None]
        # The last evaluation comes after the last step, and has a row of its own
        self.data = functools.reduce(lambda left, right: left.join(right, how="outer"), tables, pandas.DataFrame())
        self.data.index.name = STEP

    def __repr__(self) -> str:
        return f"Session({str(self.path)!r})"

    def _has(self, name: str) -> bool:
        return (self.path / name).exists() or wanted(name, self.json or {})

    def _read(self, name: str, read: Callable[[Path], Any]) -> Any:
        try:
            return read(self.path / name)
        except (OSError, UnicodeDecodeError, UnreadableFileError) as error:
            complaint = error if isinstance(error, UnreadableFileError) else f"{self.path / name}: {error}"
            warnings.warn(str(complaint), stacklevel=3)
            return None

    def get(self, *only_columns: str) -> pandas.DataFrame:
        """Return the columns that `select` finds."""
        return select(self.data, *only_columns)

    def column(self, name: str) -> pandas.Series:
        """Return one column, computed if it is one of those that `compute_` methods add; empty if there is none."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an empty column says it
            if name not in self.data and name in (EPOCH, RATE):
                (self.compute_epoch if name == EPOCH else self.compute_lr)()
            elif name not in self.data and name in (ENOUGH, *(f"{kind} ratio" for kind in KINDS)):
                self.compute_ratio()
        return self.data.get(name, pandas.Series(name=name, dtype=float))

    def display(self, *only_columns: str, name: str | None = None) -> "Session":
        """Show columns in a window, titled with `name` if there is one."""
        subset = " (subset)" if only_columns else ""
        display(self.get(*only_columns), title=name or f"Session data{subset} for {self.name!r}")
        return self

    def compute_all(self) -> "Session":
        """Call every other method whose name starts with `compute_`, also those of subclasses."""
        for name in dir(self):
            if name.startswith("compute_") and name != "compute_all":
                getattr(self, name)()
        return self

    def compute_epoch(self) -> "Session":
        """Add how many times as many samples as the training set has were used before each step."""
        dataset = self._told("dataset", "the epoch number")
        points = "Training point count"
        if EPOCH in self.data or dataset is None:
            return self
        if dataset not in TRAINING_SAMPLES or points not in self.data:
            known = dataset in TRAINING_SAMPLES
            reason = f"{points} is not in the data" if known else f"the size of dataset {dataset!r} is not known"
            warnings.warn(f"{self.name}: the epoch number cannot be computed: {reason}", stacklevel=2)
            return self
        self.data[EPOCH] = self.data[points] / TRAINING_SAMPLES[dataset]
        return self

    def compute_lr(self) -> "Session":
        """Add the learning rate of each step."""
        initial = self._told("learning_rate", "the learning rate")
        if RATE in self.data or initial is None:
            return self
        rule = {
            "initial": initial,
            "decay": self.json.get("learning_rate_decay") or 0,
            "delta": self.json.get("learning_rate_decay_delta") or 1,
            "schedule": self.json.get("learning_rate_schedule"),
        }
        self.data[RATE] = [learning_rate(step, **rule) for step in self.data.index]
        return self

    def has_known_ratio(self) -> bool:
        """Return whether a bound on deviation / norm is known for the run's rule, n and f."""
        return self._told("gar", "whether a bound is known") is not None and bound_of(self.json) is not None

    def calc_max_ratio(self, nowarn: bool = False) -> float | None:
        """Return the bound on deviation / norm under which the run's rule is proven to work, None if none is known.

        Args:
            nowarn: say nothing if none is known.
        """
        rule = self._told("gar", "the bound on deviation / norm")
        bound = None if rule is None else bound_of(self.json)
        if rule is not None and bound is None and not nowarn:
            warnings.warn(f"{self.name}: no bound on deviation / norm is known for rule {rule!r}", stacklevel=2)
        return bound

    def compute_ratio(self, nowarn: bool = False) -> "Session":
        """Add (deviation / norm)² of sampled and honest vectors, and whether the second is below the bound, squared.

        That last column is missing where no bound is known, and False where the ratio is NaN.

        Args:
            nowarn: say nothing if no bound is known.
        """
        for kind in KINDS:
            missing = {f"{kind} gradient deviation", f"{kind} gradient norm"} - set(self.data.columns)
            if missing:
                warnings.warn(f"{self.name}: not in the data: {', '.join(sorted(missing))}", stacklevel=2)
                return self
            if f"{kind} ratio" not in self.data:
                self.data[f"{kind} ratio"] = squared_ratio(self.data, kind)
        bound = None if ENOUGH in self.data else self.calc_max_ratio(nowarn=nowarn)
        if bound is not None:
            self.data[ENOUGH] = self.data["Honest ratio"] < math.pow(bound, 2)
        return self

    def _told(self, field: str, what: str) -> Any:
        """Return a field of config.json; if it is not there, warn that something cannot be computed and return None."""
        value = (self.json or {}).get(field)
        if value is None:
            warnings.warn(f"{self.name}: config.json does not tell {field}, needed for {what}", stacklevel=3)
        return value
