"""How the training samples of a run are spread over its workers: partition.csv, drawn."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import pandas

from studies.plots import STYLE
from studies.session import Session
from tools.errors import UserError, one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FILE = "partition.csv"
FIRST_COLUMNS = ["node", "role", "samples"]
LABEL = "label "
COLORS = {"honest": "C0", "byzantine": "C3"}
DPI = 150
CELL_INCHES = 0.32
MOST_INCHES = (20.5, 9.0)  # of the dots; where there are too many for cells of that size, cells are smaller
LEAST_INCHES = (3.2, 1.0)
BAR_INCHES = 1.1
MARGIN_INCHES = (1.1, 1.5)
LINE_INCHES = 0.17  # of text; what is closer than that is left out
CHARACTER_INCHES = 0.09


def read_partition(source: str | Path | Session) -> pandas.DataFrame:
    """Return partition.csv of a result directory, or of a file of its own, one row per node.

    Raises:
        UserError: there is none, or it is something else.
    """
    path = source.path if isinstance(source, Session) else Path(source)
    path = path / FILE if path.is_dir() else path
    try:
        frame = pandas.read_csv(path)
    except FileNotFoundError as error:
        raise UserError(
            f"expected {path}, got no such file; runs with --partition shared have none, their workers read one stream"
        ) from error
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
        raise UserError(f"{path}: expected a partition, one row per node: {one_line(error)}") from error
    _check(frame, str(path))
    return frame


def plot_partition(source: str | Path | Session | pandas.DataFrame, title: str = "") -> "Figure":
    """Return a figure of how many samples each node has, as bars, and how many of each label, as areas of dots.

    Args:
        source: a result directory or its session, a file such as its partition.csv, or what `read_partition` returns.
        title: above the figure, by default the name of the run.

    Raises:
        UserError: there is no partition, or it is something else.
    """
    if isinstance(source, pandas.DataFrame):
        frame = source
        _check(frame, "the frame")
    else:
        frame = read_partition(source)
        title = title or _name_of(source)
    frame = frame.reset_index(drop=True)
    names = [name for name in frame.columns if name.startswith(LABEL)]
    counts = frame[names].to_numpy().T
    figure, bars, dots, cell = _empty(len(frame), len(names), title)
    _draw_bars(bars, frame, cell[0])
    if names:
        colors = frame["role"].map(COLORS).tolist()
        _draw_dots(dots, counts, colors, [name.removeprefix(LABEL) for name in names], cell[1])
    _label_nodes(dots if names else bars, frame, cell[0])
    return figure


def _check(frame: pandas.DataFrame, what: str) -> None:
    numbers = [name for name in frame.columns if name in ("node", "samples") or str(name).startswith(LABEL)]
    if (
        list(frame.columns[:3]) != FIRST_COLUMNS
        or len(numbers) != len(frame.columns) - 1
        or not set(frame["role"]) <= set(COLORS)
        or not (frame.empty or all(pandas.api.types.is_integer_dtype(frame[name]) for name in numbers))
    ):
        raise UserError(
            f"{what}: expected a partition, one row per node, with the columns {', '.join(FIRST_COLUMNS)} and one per "
            f"label, got the columns {', '.join(map(str, frame.columns[:5]))}{', …' if len(frame.columns) > 5 else ''}"
        )
    if frame.empty:
        raise UserError(f"{what}: expected a partition, one row per node, got no rows")


def _name_of(source: str | Path | Session) -> str:
    path = source.path if isinstance(source, Session) else Path(source)
    return (path if path.is_dir() else path.parent).resolve().name


def _empty(nodes: int, labels: int, title: str) -> tuple["Figure", Any, Any, tuple[float, float]]:
    """Return a figure, its axes of bars and of dots (None without labels), and the size of a cell in inches."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    width, height = (
        min(max(count * CELL_INCHES, least), most)
        for count, least, most in zip((nodes, labels), LEAST_INCHES, MOST_INCHES, strict=True)
    )
    heights = [BAR_INCHES, height] if labels else [BAR_INCHES]
    size = (width + MARGIN_INCHES[0], sum(heights) + MARGIN_INCHES[1])
    with rc_context(STYLE | {"font.size": 11}):
        figure = Figure(figsize=size, dpi=DPI, layout="constrained")
        axes = figure.subplots(len(heights), height_ratios=heights, sharex=True, squeeze=False)[:, 0]
        if title:
            figure.suptitle(title, fontsize=11, wrap=True)
    return figure, axes[0], axes[-1] if labels else None, (width / nodes, height / max(labels, 1))


def _draw_bars(axes: Any, frame: pandas.DataFrame, width: float) -> None:
    """Draw how many samples nodes have; their numbers as well if cells are wide enough."""
    for role, color in COLORS.items():
        part = frame[frame["role"] == role]
        if len(part):
            hatch = {"hatch": "///", "edgecolor": "white", "linewidth": 0} if role == "byzantine" else {}
            bars = axes.bar(part.index, part["samples"], width=0.8, color=color, label=role.capitalize(), **hatch)
            if width >= LINE_INCHES:
                axes.bar_label(bars, rotation=90, padding=2, fontsize=7)
                axes.margins(y=0.7)  # for the number of the highest
    axes.set_xlim(-0.5, len(frame) - 0.5)
    axes.set_ylabel("samples")
    axes.tick_params(labelsize=9)
    axes.grid(False, axis="x")
    if "byzantine" in set(frame["role"]):
        axes.figure.legend(loc="outside lower center", ncols=2, fontsize=9)


def _draw_dots(axes: Any, counts: numpy.ndarray, colors: list[str], names: list[str], height: float) -> None:
    """Draw counts (labels, nodes), the largest as a dot that fills its cell, round where cells are square."""
    from matplotlib.collections import EllipseCollection

    rows, columns = numpy.nonzero(counts)
    largest = counts.max()
    diameters = 0.95 * numpy.sqrt(counts[rows, columns] / largest)
    dots = EllipseCollection(
        diameters,
        diameters,
        numpy.zeros(len(rows)),
        units="xy",
        offsets=numpy.column_stack([columns, rows]),
        offset_transform=axes.transData,
        facecolors=[colors[column] for column in columns],
    )
    axes.add_collection(dots)
    axes.set_ylim(len(names) - 0.5, -0.5)
    stride = _stride(height, LINE_INCHES)
    axes.set_yticks(range(0, len(names), stride), names[::stride], fontsize=9)
    axes.set_ylabel("label")
    axes.set_title(f"area: samples of a label, at most {largest:,}", fontsize=9)


def _label_nodes(axes: Any, frame: pandas.DataFrame, width: float) -> None:
    shown = frame.iloc[:: _stride(width, CHARACTER_INCHES * (len(str(frame["node"].max())) + 1))]
    axes.set_xticks(shown.index, shown["node"], fontsize=9)
    for text, role in zip(axes.get_xticklabels(), shown["role"], strict=True):
        if role == "byzantine":
            text.set(color=COLORS[role], fontweight="bold")
    axes.set_xlabel("node")


def _stride(cell: float, text: float) -> int:
    """Return every how manyth cell can have a text of some inches."""
    return next(step for power in range(9) for step in (10**power, 2 * 10**power, 5 * 10**power) if step * cell >= text)
