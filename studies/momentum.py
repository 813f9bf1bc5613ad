"""The report about worker momentum: claims, overview, every cell, the figures, in one page.

Source of what is counted and drawn: as `comparison` and `claims`.
"""

from pathlib import Path

import pandas

from studies import claims, comparison, report
from studies.comparison import SHOWN
from studies.momentum_figures import MomentumFigures
from studies.momentum_sections import (
    cell_facts,
    cells_section,
    claims_section,
    describe,
    describe_setting,
    overview_section,
    ratio_section,
)
from studies.page import Exhibit, Markup, join, write_page
from studies.panels import Picture
from studies.report import Circumstances, count

PAPER = Markup('<a href="https://openreview.net/forum?id=H8UHdhWG6A3">El Mhamdi, Guerraoui and Rouault (ICLR 2021)</a>')


def report_momentum(results: Path, plots: Path, *, title: str, circumstances: Circumstances) -> None:
    """Write `index.html` about momentum at update and at the workers, and its figures.

    Args:
        results: folder of the runs.
        plots: where the page and the folder of figures go; it exists.
    """
    study, strangers = report.read(results, circumstances)
    pairs = comparison.pairs(study.runs, study.deciding)
    cells = comparison.cells(pairs)
    figures = MomentumFigures(study, plots / report.FIGURES)
    overview, exhibits = overviews(pairs, figures)
    keys = {}
    for cell in cells.itertuples():
        key = report.slug([cell.dataset, cell.attack, cell.rule, f"f_{cell.f}"], cell.cell + 1)
        if pictures := figures.cell(key, pairs[pairs["cell"] == cell.cell]):
            keys[cell.cell] = key
            exhibits[key] = Exhibit(describe(cell), pictures, cell_facts(cell))
    sections = [
        claims_section(claims.claims(pairs), claims.subsets(pairs)),
        overview_section(overview),
        cells_section(cells, keys),
        ratio_section(pairs),
        report.missing_section(study, circumstances, strangers, comparison.left_out(study.runs, pairs)),
        report.provenance_section(study, circumstances),
    ]
    complete = len(comparison.complete(pairs))
    write_page(
        plots / "index.html",
        title=title,
        lead=join(
            (
                "Does momentum at the workers, instead of at the server’s update, help against Byzantine workers? ",
                f"{count(complete, 'pair')} of runs that differ in nothing else, beside what ",
                PAPER,
                " found.",
            )
        ),
        facts=[(f"{complete:,}", "pairs"), (f"{len(cells):,}", "cells"), *report.overall_facts(study, circumstances)],
        sections=sections,
        exhibits=exhibits,
    )


def overviews(
    pairs: pandas.DataFrame, figures: MomentumFigures
) -> tuple[dict[str, dict[str, Picture]], dict[str, Exhibit]]:
    """Return a box plot over rules and seeds for each setting, by dataset and attack, and what opens behind each."""
    overview: dict[str, dict[str, Picture]] = {}
    exhibits = {}
    settings = [name for name in SHOWN if name != "rule"]
    for number, (_, group) in enumerate(pairs.groupby(settings, sort=False), 1):
        first = group.iloc[0]
        key = report.slug(["overview", first["dataset"], first["attack"], f"f_{first['f']}"], number)
        pictures = overview.setdefault(f"{first['dataset']} · {first['attack']}", {})
        pictures[key] = figures.overview(key, group, describe_setting(first))
        exhibits[key] = Exhibit(f"{describe(first, rule=False)}: all rules", figures.rules(key, group))
    return overview, exhibits
