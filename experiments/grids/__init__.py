"""Grids: all the runs of a paper or of a question, one file each.

A grid is a class that registers itself under its name. It yields named configurations, which `reproduce.py` repeats
with every seed, and says how their results are summarised. `template.py` is there to be copied; a file elsewhere works
too: `reproduce.py --grid path/to/mine.py`.
"""

import dataclasses
import importlib.util
import inspect
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from experiments.config import RunConfig
from tools.errors import UserError, one_line
from tools.registry import Registry, UnknownNameError, import_modules

if TYPE_CHECKING:
    from studies.report import Circumstances


class Grid(ABC):
    """Runs that belong together: `class Smoke(Grid, name="smoke")`.

    Attributes:
        title: what it is, in one line.
        seeds: those it is repeated with by default, as `--seeds` takes them.
        threads: CPU threads of every run, however many run side by side, since they decide the last digits.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    seeds: ClassVar[str] = "1-5"
    threads: ClassVar[int] = 1

    def __init_subclass__(cls, /, name: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if name:
            cls.name = name
            if cls.__module__.startswith(f"{__name__}."):  # those of files elsewhere are found by their path
                grids.register(name, cls)

    @classmethod
    @abstractmethod
    def experiments(cls) -> Iterator[tuple[str, RunConfig]]:
        """Yield every experiment's name and configuration; seed, threads, device and folders are set by the runner."""

    @classmethod
    def runs(cls, seeds: Sequence[int]) -> Iterator[tuple[str, RunConfig]]:
        """Yield every run's name, `<experiment>-<seed>`, and configuration: all of one seed, then of the next.

        Raises:
            UserError: two experiments of one name.
        """
        experiments = list(cls.experiments())
        names = [name for name, _ in experiments]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise UserError(f"--grid {cls.name}: expected every experiment under its own name, got {repeated[0]} twice")
        for seed in seeds:
            for name, config in experiments:
                yield f"{name}-{seed}", dataclasses.replace(config, seed=seed, threads=cls.threads)

    @classmethod
    def report(cls, results: Path, plots: Path, circumstances: "Circumstances") -> None:
        """Write `index.html` and the figures about all results in a folder.

        Args:
            results: folder of the runs.
            plots: where the page and the figures go; it exists.
            circumstances: what the results do not say themselves, such as the runs that failed.
        """
        from studies.report import report_runs  # here, because drawing takes a second to import

        report_runs(results, plots, title=cls.title, circumstances=circumstances)


grids: Registry[Grid] = Registry("grid")


def find(name: str) -> type[Grid]:
    """Return the grid of that name, or the one in the file of that name.

    Raises:
        UserError: neither exists, or the file is not a grid.
    """
    if not name.endswith(".py"):
        try:
            return grids[name]
        except UnknownNameError as error:
            raise UserError(f"--grid: {error}, or the path of a .py file") from None
    path = Path(name)
    if not path.is_file():
        raise UserError(f"--grid: expected a file, found none at {path}")
    specification = importlib.util.spec_from_file_location(f"grid_{path.stem}", path)
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    try:
        specification.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise UserError(f"--grid: cannot import {path}: {type(error).__name__}: {one_line(error)}") from error
    found = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Grid) and value.__module__ == module.__name__
    ]
    if len(found) != 1 or inspect.isabstract(found[0]):
        raise UserError(f"--grid: expected one grid in {path}, got {len(found)}; experiments/grids/template.py is one")
    return found[0]


import_modules(__name__, __path__)
