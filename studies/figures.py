"""Figures of several runs: a frame in, a figure out, no window opened."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import pandas

from studies.plots import LINE_STYLES, STYLE
from studies.wording import number, title_of
from tools.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 150
FORMATS = (".png", ".pdf", ".svg")
CELL_INCHES = (1.15, 0.5)
SPREAD_OF_LOGARITHMIC = 100
"""Where the largest number is so many times the smallest, equal steps of a scale are equal factors."""


def save(figure: "Figure", path: Path) -> None:
    """Write a figure in the format that the file name's ending says.

    Raises:
        UserError: another ending than .png, .pdf and .svg, or a file that cannot be written.
    """
    if path.suffix not in FORMATS:
        raise UserError(f"--output: expected a name that ends in {', '.join(FORMATS)}, got {path}")
    try:
        figure.savefig(path)
    except OSError as error:
        raise UserError(f"--output: cannot write {path}: {error.strerror}; name another file") from error


def curves(
    lines: Mapping[str, pandas.DataFrame], column: str, title: str = "", levels: Mapping[str, float] | None = None
) -> "Figure":
    """Return lines by step, with a band of one deviation around each where there is one.

    Args:
        lines: by what they are called, frames by step with `mean` and `std`; what is not finite is passed over.
        column: what is drawn.
        title: above the figure.
        levels: dotted horizontal lines in the colours of the lines of the same names, such as bounds; of
            equal ones the first.
    """
    figure, axes = _empty(7.5, 4.2, title)
    levels, drawn = levels or {}, set()
    for index, (name, line) in enumerate(lines.items()):
        line = line[numpy.isfinite(line["mean"])]
        color, spread = f"C{index % 10}", line["std"].fillna(0)
        style = LINE_STYLES[(index // 10 + index) % len(LINE_STYLES)]
        axes.plot(line.index, line["mean"], label=name, color=color, linestyle=style)
        if spread.any():
            axes.fill_between(line.index, line["mean"] - spread, line["mean"] + spread, color=color, alpha=0.15, lw=0)
        if name in levels and levels[name] not in drawn:
            axes.axhline(levels[name], color=color, linestyle=(0, (1, 3)), label=f"{name}: bound")
            drawn.add(levels[name])
    if column.endswith("accuracy"):
        axes.set_ylim(0, 1)
    elif _needs_logarithm([*(line["mean"] for line in lines.values()), pandas.Series(levels, dtype=float)]):
        axes.set_yscale("log", nonpositive="clip")
    axes.set(xlabel="step", ylabel=title_of(column))
    axes.margins(x=0.01)
    if lines:
        figure.legend(loc="outside right center", fontsize=10)
    return figure


def _needs_logarithm(numbers: Sequence[pandas.Series]) -> bool:
    """Return whether small numbers could not be read beside large ones."""
    everything = pandas.concat(numbers)
    finite = everything[numpy.isfinite(everything)]
    return len(finite) > 0 and 0 < finite.min() * SPREAD_OF_LOGARITHMIC < finite.max()


def heatmap(cells: pandas.DataFrame, value: str, title: str = "") -> "Figure":
    """Return a coloured table of numbers.

    Args:
        cells: the numbers, with the names of rows and columns; NaN is left blank.
        value: what the numbers are.
        title: above the figure.
    """
    rows, columns = cells.shape
    figure, axes = _empty(2.8 + CELL_INCHES[0] * columns, 1.9 + CELL_INCHES[1] * rows, title)
    numbers = cells.to_numpy(dtype=float)
    shares = value.startswith(("accuracy", "ratio")) and value != "accuracy_max_step"
    image = axes.imshow(numbers, aspect="auto", cmap="viridis", **({"vmin": 0, "vmax": 1} if shares else {}))
    for (row, column), entry in numpy.ndenumerate(numbers):
        dark = not numpy.isnan(entry) and image.norm(entry) < 0.6
        text = number(entry, value) or "–"
        axes.text(column, row, text, ha="center", va="center", fontsize=10, color="white" if dark else "black")
    longest = max((len(name) for name in cells.columns), default=0)
    turned = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if longest > 12 else {}
    axes.set_xticks(range(columns), cells.columns, fontsize=10, **turned)
    axes.set_yticks(range(rows), cells.index, fontsize=10)
    axes.set(xlabel=cells.columns.name or "", ylabel=cells.index.name or "")
    axes.grid(False)
    axes.tick_params(length=0)
    figure.colorbar(image, ax=axes, label=title_of(value))
    return figure


def _empty(width: float, height: float, title: str) -> tuple["Figure", Any]:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE | {"font.size": 11}):
        figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
        axes = figure.subplots()
        axes.tick_params(labelsize=10)  # ticks made later would follow the settings of then
        if title:
            figure.suptitle(title, fontsize=11, wrap=True)
    return figure, axes
