"""All runs of a folder as one table, one row per run."""

import copy
import difflib
import fnmatch
import json
import math
import re
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas

from studies import figures, grouping, tables
from studies.session import Session
from studies.summary import NODES, summarise
from studies.wording import title_of, words_for
from tools.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MEASURED = (
    *("steps", "accuracy_final", "accuracy_max", "accuracy_max_step", "accuracy_last", "loss_final"),
    *("ratio_bound", "ratio_sampled", "ratio_honest", "seconds", *NODES),
)
"""Columns that say what a run came to."""
ENVIRONMENT = ("python", "torch", "commit", "device", "threads", "seed")
"""What is told of where a run took place, each in a column `environment_…`."""
ACCURACIES = ("accuracy_final", "accuracy_max", "accuracy_last")
MOST_CURVES = 20
SUFFIXES = (".failed", ".pending")
MOVED_ASIDE = re.compile(r"(.+)\.\d+")
RUN_FILES = ("config.json", "eval", "study")


class Study:
    """The finished runs of a folder of result directories, of this program or of the ICLR 2021 code.

    Folders being written (`….pending`), failed ones (`….failed`), those moved aside (`<name>.0`, …) and hidden ones are
    no runs. A file that is missing or damaged is one warning, and NaN where it would have told something.

    Args:
        directory: holds one folder per run.
        last: how many evaluations at the end `accuracy_last` is the mean of.
        progress: called after each run with how many are read, and of how many.

    Attributes:
        runs: one row per run, sorted by name: `name`; `path`; every field of config.json (lists and objects as JSON
            text, `None` or NaN where a run does not have it); the columns `MEASURED`; and those of `ENVIRONMENT`.
            `accuracy_max_step` is the first step with the maximum; `ratio_sampled` and `ratio_honest` are the shares of
            steps in which deviation / norm was below `ratio_bound`, see `studies.bounds`; `seconds` is by `timing`.
        fields: names of the configuration's columns.
        failed, pending: names of runs that failed or were not completed, and have no finished folder.

    Raises:
        UserError: the directory is not there, or is a run's own folder.
    """

    def __init__(
        self, directory: str | Path, *, last: int = 10, progress: Callable[[int, int], None] | None = None
    ) -> None:
        self.directory = Path(directory)
        if last < 1:
            raise UserError(f"last: expected a number of evaluations from 1 up, got {last}")
        folders, self.failed, self.pending = _find(self.directory)
        rows: list[dict[str, Any]] = []
        known: dict[str, None] = {}  # keeps the order in which fields come
        for index, folder in enumerate(folders, 1):
            summary, problems = summarise(folder)
            for problem in problems:
                warnings.warn(problem, stacklevel=2)
            fields = {key: _flat(value) for key, value in summary["config"].items() if key != "environment"}
            known |= dict.fromkeys(fields)
            rows.append({"name": folder.name, "path": str(folder), **fields, **_measure(summary, last)})
            if progress is not None:
                progress(index, len(folders))
        self.fields = list(known)
        columns = ["name", "path", *self.fields, *MEASURED, *(f"environment_{name}" for name in ENVIRONMENT)]
        self.runs = pandas.DataFrame(rows, columns=columns)

    def __len__(self) -> int:
        return len(self.runs)

    def __repr__(self) -> str:
        counts = f"{len(self)} runs, {len(self.failed)} failed, {len(self.pending)} pending"
        return f"Study({str(self.directory)!r}: {counts})"

    @property
    def deciding(self) -> list[str]:
        """The columns that two runs must agree in to be the same experiment: what decides numbers, and the steps."""
        return [*grouping.deciding_fields(self.fields), "steps"]

    def varying(self) -> list[str]:
        """Return the deciding columns in which the runs differ."""
        return grouping.varying(self.runs, self.deciding)

    def where(self, **wanted: Any) -> "Study":
        """Return the part of the study whose columns have these values, or one of these, if several are given."""
        grouping.check_names(wanted, self.runs.columns, "column")
        chosen = pandas.Series(True, index=self.runs.index)
        for name, values in wanted.items():
            several = isinstance(values, Collection) and not isinstance(values, str | dict)
            chosen &= self.runs[name].isin(list(values) if several else [_flat(values)])
        return self.part(chosen)

    def only(self, pattern: str) -> "Study":
        """Return the part of the study whose names match a pattern with the wildcards `*`, `?` and `[…]`."""
        return self.part(self.runs["name"].map(lambda name: fnmatch.fnmatchcase(name, pattern)).astype(bool))

    def part(self, chosen: pandas.Series) -> "Study":
        """Return the part of the study in the rows of `runs` that are chosen."""
        part = copy.copy(self)
        part.runs = self.runs[chosen].reset_index(drop=True)
        return part

    def session(self, name: str) -> Session:
        """Return one run with its data by step."""
        names = self.runs["name"].to_list()
        if name not in names:
            close = difflib.get_close_matches(name, names)
            raise UserError(f"expected the name of a run in {self.directory}, got {name!r}; near it: {close or 'none'}")
        return Session(self.directory / name)

    def steps(self, name: str) -> pandas.DataFrame:
        """Return one run's data by step, `study` joined with `eval`; read anew with every call."""
        return self.session(name).data

    def aggregate(
        self, over: str | Sequence[str] = "seed", values: str | Sequence[str] = ACCURACIES
    ) -> pandas.DataFrame:
        """Return statistics over runs that are equal in all that decides but these fields.

        Args:
            over: the field or fields in which runs of a group may differ; none: a group for every configuration.
            values: columns of numbers.

        Returns:
            One row per group: all deciding columns but those, and what `grouping.statistics` says.
        """
        over, values = _several(over), _several(values)
        grouping.check_names(over, self.deciding, "field to aggregate over")
        grouping.check_names(values, self.runs.select_dtypes("number").columns, "column of numbers")
        fields = [field for field in self.deciding if field not in over]
        return grouping.statistics(self.runs, fields, values)

    def pairs(
        self, on: str = "momentum_at", of: tuple[Any, Any] = ("update", "worker"), value: str = "accuracy_max"
    ) -> pandas.DataFrame:
        """Return the pairs of runs that are equal in all that decides, the seed included, but one field.

        Args:
            on: the field they differ in.
            of: its value in the first and in the second run of a pair.
            value: what is compared.

        Returns:
            One row per pair: the deciding columns that both share, `name_<of>` for both, the value of both in columns
            named after `of`, and `difference`, second minus first.
        """
        grouping.check_names([on], self.deciding, "field")
        grouping.check_names([value], self.runs.select_dtypes("number").columns, "column of numbers")
        pairs, twice = grouping.matched(self.runs, self.deciding, on, of, value)
        if twice:
            warnings.warn(f"runs left out of the pairs, others being the same: {', '.join(twice)}", stacklevel=2)
        return pairs

    def table(
        self,
        format: str = "markdown",
        *,
        over: str | Sequence[str] = "seed",
        columns: Sequence[str] | None = None,
    ) -> str:
        """Return `aggregate` as text.

        Args:
            format: markdown, latex or csv.
            over: see `aggregate`.
            columns: deciding columns to show, by default those in which groups differ, and values, by default the
                maximum and the final accuracy. A group keeps its row, even if what tells it from others is not shown.
        """
        over, columns = _several(over), list(columns or ())
        grouping.check_names(columns, [*self.deciding, *MEASURED], "column")
        values = [name for name in columns if name not in self.deciding] or ["accuracy_max", "accuracy_final"]
        fields = [name for name in columns if name in self.deciding and name not in over]
        fields = fields or [name for name in self.varying() if name not in over]
        return tables.render(grouping.in_order(self.aggregate(over, values), fields), fields, values, format)

    def heatmap(
        self,
        rows: str | Sequence[str] = "attack",
        columns: str | Sequence[str] = "gar",
        value: str = "accuracy_max",
        title: str | None = None,
    ) -> "Figure":
        """Return a figure of the mean of a value over all runs of equal rows and columns, whatever else they differ in.

        Args:
            rows: the field or fields that a row stands for.
            columns: the same for a column.
            value: a column of numbers.
            title: by default what the means are over.
        """
        rows, columns = _several(rows), _several(columns)
        grouping.check_names([*rows, *columns], self.deciding, "field")
        grouping.check_names([value], self.runs.select_dtypes("number").columns, "column of numbers")
        mixed = [name for name in self.varying() if name not in {*rows, *columns}]
        means = grouping.statistics(self.runs, [*rows, *columns], [value])
        sides = [[", ".join(words_for(row)) for row in means[side].to_dict("records")] for side in (rows, columns)]
        cells = means[f"{value}_mean"].groupby(sides, sort=False).first().unstack(sort=False)
        cells = cells.reindex(index=list(dict.fromkeys(sides[0])), columns=list(dict.fromkeys(sides[1])))
        cells.index.name, cells.columns.name = (", ".join(map(title_of, side)) for side in (rows, columns))
        if title is None:
            title = f"mean over {', '.join(map(title_of, mixed))}" if mixed else ""
        return figures.heatmap(cells, value, title)

    def curves(
        self, column: str = "Cross-accuracy", by: str | Sequence[str] | None = None, title: str = ""
    ) -> "Figure":
        """Return a figure of a column by step, one line for the mean of every group of runs, with its deviation.

        Args:
            column: of `study` or `eval`, or one that a session computes, such as "Honest ratio"; the bound on that,
                where one is known, is drawn with it.
            by: the fields whose values a line stands for, whatever else its runs differ in; by default all that differ
                but the seed.
            title: above the figure.

        Raises:
            UserError: so many lines that nobody could tell them apart; a column that no run has.
        """
        by = [name for name in self.varying() if name != "seed"] if by is None else _several(by)
        grouping.check_names(by, self.deciding, "field")
        groups = list(self.runs.groupby(grouping.keys(self.runs, by), sort=False))
        if len(groups) > MOST_CURVES:
            raise UserError(
                f"expected at most {MOST_CURVES} lines, got {len(groups)}; choose runs with where(…), or by"
            )
        lines, levels = {}, {}
        for _, group in groups:
            label = ", ".join(words_for({name: group[name].iloc[0] for name in by})) or "all runs"
            steps = pandas.concat([self.session(name).column(column) for name in group["name"]], axis=1).sort_index()
            if steps.empty:
                continue
            lines[label] = pandas.DataFrame({"mean": steps.mean(axis=1), "std": steps.std(axis=1)})
            if column in ("Sampled ratio", "Honest ratio") and group["ratio_bound"].nunique(dropna=False) == 1:
                levels[label] = float(group["ratio_bound"].iloc[0]) ** 2
        if not lines:
            raise UserError(f"expected a column of study or eval, got {column!r}, which no run has")
        levels = {label: level for label, level in levels.items() if not math.isnan(level)}
        return figures.curves(lines, column, title, levels)


def _several(names: str | Sequence[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def _flat(value: Any) -> Any:
    """Return lists and objects as JSON text, so that values can be compared and grouped."""
    return json.dumps(value, sort_keys=True) if isinstance(value, dict | list) else value


def _find(directory: Path) -> tuple[list[Path], list[str], list[str]]:
    """Return the folders of finished runs, and the names of failed and of pending ones."""
    if not directory.is_dir():
        raise UserError(f"expected a folder of result directories, got {directory}, which is none")
    if any((directory / name).is_file() for name in RUN_FILES):
        raise UserError(f"expected a folder of result directories, got one run's own: {directory}; give its parent")
    names = {path.name for path in directory.iterdir() if path.is_dir() and not path.name.startswith(".")}
    unfinished = {end: {name.removesuffix(end) for name in names if name.endswith(end)} for end in SUFFIXES}
    bases = names.union(*unfinished.values())
    found = []
    for name in sorted(names):
        aside = MOVED_ASIDE.fullmatch(name)
        if name.endswith(SUFFIXES) or (aside and (aside[1] in bases or aside[1].endswith(SUFFIXES))):
            continue
        if any((directory / name / file).exists() for file in RUN_FILES):
            found.append(directory / name)
        else:
            warnings.warn(f"{directory / name}: left out, has none of {', '.join(RUN_FILES)}", stacklevel=3)
    finished = {folder.name for folder in found}
    failed, pending = (sorted(unfinished[end] - finished) for end in SUFFIXES)
    return found, failed, pending


def _object(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    return values[name] if isinstance(values.get(name), dict) else {}


def _measure(summary: Mapping[str, Any], last: int) -> dict[str, Any]:
    """Return the columns `MEASURED` and `ENVIRONMENT` of one run."""
    evaluations = summary["evaluations"]
    steps, accuracies = zip(*evaluations, strict=True) if evaluations else ((), ())
    measured = {name: summary[name] for name in MEASURED if name in summary}
    measured["accuracy_final"] = accuracies[-1] if accuracies else math.nan
    measured["accuracy_last"] = math.fsum(accuracies[-last:]) / len(accuracies[-last:]) if accuracies else math.nan
    known = [accuracy for accuracy in accuracies if not math.isnan(accuracy)]
    measured["accuracy_max"] = max(known) if known else math.nan
    measured["accuracy_max_step"] = steps[accuracies.index(max(known))] if known else math.nan
    environment = _object(summary["config"], "environment")
    environment = {**environment, "torch": _object(environment, "versions").get("torch")}
    return measured | {f"environment_{name}": environment.get(name) for name in ENVIRONMENT}
