"""Statistics over groups of runs as text: Markdown and LaTeX to be read, CSV with all digits."""

from collections.abc import Sequence

import pandas

from studies.wording import number, text_of, title_of
from tools.errors import UserError

FORMATS = ("markdown", "latex", "csv")
LATEX_SPECIAL = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"},
}


def render(statistics: pandas.DataFrame, fields: Sequence[str], values: Sequence[str], format: str) -> str:
    """Return a table of these fields, the number of runs, and values as mean ± deviation.

    Args:
        statistics: see `grouping.statistics`.
        format: one of `FORMATS`; in CSV each value is the five columns of the statistics.

    Raises:
        UserError: an unknown format.
    """
    if format not in FORMATS:
        raise UserError(f"unknown format {format!r}, expected one of: {', '.join(FORMATS)}")
    if format == "csv":
        columns = [f"{name}_{what}" for name in values for what in ("mean", "std", "count", "low", "high")]
        return statistics[[*fields, "runs", *columns]].to_csv(index=False, lineterminator="\n")
    header = [*(title_of(name) for name in (*fields, "runs", *values))]
    rows = []
    for row in statistics.to_dict("records"):
        measured = [_with_deviation(row[f"{name}_mean"], row[f"{name}_std"], name) for name in values]
        rows.append([*(text_of(row[field]) for field in fields), str(row["runs"]), *measured])
    return _markdown(header, rows) if format == "markdown" else _latex(header, rows, len(fields))


def _with_deviation(mean: float, deviation: float, name: str) -> str:
    spread = number(deviation, name)
    return f"{number(mean, name)} ± {spread}" if spread else number(mean, name)


def _markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [[cell.replace("|", r"\|") for cell in row] for row in (header, *rows)]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    padded = ([cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in padded)


def _latex(header: list[str], rows: list[list[str]], texts: int) -> str:
    def line(cells: list[str]) -> str:
        escaped = ("".join(LATEX_SPECIAL.get(character, character) for character in cell) for cell in cells)
        return f"  {' & '.join(escaped)} \\\\\n"

    columns = "l" * texts + "r" * (len(header) - texts)
    body = "".join(map(line, rows))
    return f"\\begin{{tabular}}{{{columns}}}\n  \\hline\n{line(header)}  \\hline\n{body}  \\hline\n\\end{{tabular}}\n"
