"""The figures of the report about worker momentum.

Source of what is drawn: reproduce.py of El Mhamdi, Guerraoui and Rouault, ICLR 2021. It drew accuracies and losses of
all rules in one figure for each place of the momentum (`rules`), box plots of the maximum accuracies over all rules and
seeds (`overview`), and the ratios under each rule. Here each cell has figures of its own (`cell`).
"""

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas

from studies.comparison import PLACES
from studies.frame import Study
from studies.panels import (
    REFERENCE,
    RULE_COLOURS,
    UPDATE,
    WORKER,
    Line,
    Panels,
    Picture,
    bound_of,
    curves,
    draw_boxes,
    draw_line,
    finish_accuracy,
    finish_loss,
    finish_ratio,
)
from studies.report import CAPTIONS

COLOURS = {"update": UPDATE, "worker": WORKER, "reference": REFERENCE}
LABELS = {"update": "at update", "worker": "at worker", "reference": "unattacked"}


class MomentumFigures:
    """Draws figures of a study's runs into a folder, each picture in a file `<key>-<what>.webp`."""

    def __init__(self, study: Study, folder: Path) -> None:
        self._study = study
        self._folder = folder
        self._known: dict[tuple[str, ...], dict[str, Line]] = {}
        self._three, self._four, self._one = Panels(3), Panels(4), Panels(1, 1.5, 1.5, margins=(0.3, 0.05, 0.22, 0.08))

    def cell(self, key: str, pairs: pandas.DataFrame) -> list[Picture]:
        """Draw accuracy, loss and ratio by step, at update, at worker and unattacked, as far as they were recorded.

        Args:
            pairs: rows of `comparison.pairs` of one cell.
        """
        lines = {name: self._curves(pairs[f"{name}_name"]) for name in (*PLACES, "reference")}
        last = _last_step(lines.values())
        panels = self._three
        panels.clear()
        accuracy, loss, ratio = panels.axes
        for axes, quantity in (accuracy, "Accuracy"), (loss, "Loss"), (ratio, "Ratio"):
            for name, recorded in lines.items():
                if quantity in recorded:
                    draw_line(axes, recorded[quantity], LABELS[name], COLOURS[name], logarithms=axes is ratio)
        bound = bound_of(pairs["bound"])
        finish_accuracy(accuracy, "accuracy", last)
        finish_loss(loss, "loss", last, _of_all(lines.values(), "Loss"))
        finish_ratio(ratio, "(deviation / norm)²", last, bound)
        known = "dotted: the rule's bound" if bound is not None else "no bound is known for this rule"
        captions = CAPTIONS | {"Ratio": CAPTIONS["Ratio"].removesuffix(".") + f"; {known}."}
        wanted = [
            Picture(self._folder / f"{key}-{name.lower()}.webp", caption) if _of_all(lines.values(), name) else None
            for name, caption in captions.items()
        ]
        return panels.save(wanted)

    def rules(self, key: str, pairs: pandas.DataFrame) -> list[Picture]:
        """Draw accuracy and loss by step of all rules, at update and at worker, with the unattacked reference.

        Args:
            pairs: rows of `comparison.pairs` that differ only in their rules and seeds.
        """
        reference = self._curves(dict.fromkeys(pairs["reference_name"]))
        by_rule = list(pairs.groupby("rule"))
        lines = {place: {rule: self._curves(group[f"{place}_name"]) for rule, group in by_rule} for place in PLACES}
        every = [reference, *lines["update"].values(), *lines["worker"].values()]
        last = _last_step(every)
        panels = self._four
        panels.clear()
        wanted = []
        for axes, (quantity, place) in zip(panels.axes, itertools.product(("Accuracy", "Loss"), PLACES), strict=True):
            if quantity in reference:
                draw_line(axes, reference[quantity], "no attack", REFERENCE, dashes="--", band=False)
            for colour, (rule, recorded) in zip(itertools.cycle(RULE_COLOURS), lines[place].items(), strict=False):
                if quantity in recorded:
                    draw_line(axes, recorded[quantity], rule, colour)
            if quantity == "Accuracy":
                finish_accuracy(axes, f"accuracy, {LABELS[place]}", last)
            else:
                finish_loss(axes, f"loss, {LABELS[place]}", last, _of_all(every, "Loss"))
            path = self._folder / f"{key}-{quantity.lower()}-{place}.webp"
            caption = f"{quantity} by step with momentum {LABELS[place]}; mean and standard deviation over seeds."
            wanted.append(Picture(path, caption) if _of_all(every, quantity) else None)
        return panels.save(wanted)

    def overview(self, key: str, pairs: pandas.DataFrame, caption: str) -> Picture:
        """Draw box plots of the maximum accuracies at update and at worker, over all rules and seeds.

        Args:
            pairs: rows of `comparison.pairs` that differ only in their rules and seeds.
        """
        self._one.clear()
        boxes = {place: (pairs[place].dropna().to_list(), COLOURS[place]) for place in PLACES}
        reference = pairs.drop_duplicates("reference_name")["reference"].median()
        draw_boxes(self._one.axes[0], boxes, reference)
        return self._one.save([Picture(self._folder / f"{key}.webp", caption)])[0]

    def _curves(self, names: Iterable[str]) -> dict[str, Line]:
        """Return the mean curves of the runs of these names, empty ones left out; read and computed once."""
        key = tuple(filter(None, names))
        if key not in self._known:
            self._known[key] = curves([self._study.steps(name) for name in key])
        return self._known[key]


def _of_all(recorded: Iterable[Mapping[str, Line]], quantity: str) -> list[Line]:
    return [lines[quantity] for lines in recorded if quantity in lines]


def _last_step(recorded: Iterable[Mapping[str, Line]]) -> int:
    return max((int(line.steps[-1]) for lines in recorded for line in lines.values()), default=0)
