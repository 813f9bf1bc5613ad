"""Every figure that a folder of runs suggests by itself, for those who do not want to choose."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from studies import grouping
from studies.figures import DPI
from studies.frame import Study
from studies.wording import file_name, title_of, words_for
from tools.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = {"accuracy": "Cross-accuracy", "loss": "Average loss", "ratio": "Honest ratio"}
"""What is drawn by step, by the first word of the file's name."""
RULE = ("gar", "gar_args", "gars", "pre_gar", "pre_gar_args")
ATTACK = ("attack", "attack_args", "nb_real_byz")


def figures_of(study: Study) -> Iterator[tuple[str, "Figure"]]:
    """Yield figures with names for their files.

    Runs that differ in their rule and seed only share a figure of each of `COLUMNS`, one line per rule. Where attacks
    and rules differ, the maximum accuracies of both are a coloured table, one for all that else differs; where momentum
    is at the update in some runs and at the workers in others, pairs of such runs are a box plot.
    """
    varying = [name for name in study.varying() if name != "seed"]
    for words, part in _parts(study, [name for name in varying if name not in RULE]):
        rules = [name for name in varying if name in RULE] or ["gar"]
        for name, column in COLUMNS.items():
            try:
                yield file_name([name, *words]), part.curves(column, by=rules, title=", ".join(words))
            except UserError as error:  # no study was made, or too many rules share the figure
                warnings.warn(f"not drawn: {column} of {', '.join(words) or 'all runs'}: {error}", stacklevel=2)
    if {"attack", "gar"} <= set(varying):
        for words, part in _parts(study, [name for name in varying if name not in (*RULE, *ATTACK)]):
            yield file_name(["heatmap", *words]), part.heatmap(title=", ".join(words))
    if "momentum_at" in varying and (figure := _momentum(study)) is not None:
        yield "momentum", figure


def save(study: Study, directory: Path) -> Iterator[Path]:
    """Write all figures into a folder as PNG, and yield the path of each.

    Raises:
        UserError: the folder cannot be written to.
    """
    taken: set[str] = set()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, figure in figures_of(study):
            number, free = 2, name
            while free in taken:
                number, free = number + 1, f"{name}-{number}"
            taken.add(free)
            path = directory / f"{free}.png"
            figure.savefig(path, dpi=DPI)
            yield path
    except OSError as error:
        raise UserError(f"--output: cannot write to {directory}: {error.strerror}; name another folder") from error


def _parts(study: Study, fields: list[str]) -> Iterator[tuple[list[str], Study]]:
    """Yield the parts of a study that are equal in some fields, with the words for these."""
    key = grouping.keys(study.runs, fields)
    shown = grouping.comparable(study.runs, fields)
    for group in dict.fromkeys(key):
        first = shown[key == group].iloc[0]
        yield words_for({name: first[name] for name in fields}), study.part(key == group)


def _momentum(study: Study) -> "Figure | None":
    from studies.plots import BoxPlot

    pairs = study.pairs()
    if pairs.empty:
        return None
    plot = BoxPlot()
    for place in ("update", "worker"):
        plot.include(pairs[place], f"momentum at {place}")
    figure = plot.finalize(f"{len(pairs)} pairs of runs", title_of("accuracy_max"), ymin=0, ymax=1).figure
    figure.set_size_inches(6, 4.2)
    return figure
