"""What any grid's report has: experiments in a table, their curves, what is missing, where and how long it took."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas

from studies import grouping
from studies.frame import Study
from studies.page import Column, Exhibit, Markup, Row, Section, Value, element, join, paragraph, table, write_page
from studies.panels import (
    WORKER,
    Panels,
    Picture,
    bound_of,
    curves,
    draw_line,
    finish_accuracy,
    finish_loss,
    finish_ratio,
)
from studies.wording import file_name, text_of

FIGURES = "figures"
"""Folder of the figures, beside the page."""
CAPTIONS = {
    "Accuracy": "Accuracy by step; mean and standard deviation over seeds.",
    "Loss": "Average loss by step, up to twice what it is at the start.",
    "Ratio": "(deviation / norm)² of what honest workers send; mean and deviation of logarithms.",
}
LONG = 12
"""Lists longer than this are folded up."""


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """What the results do not say themselves.

    Attributes:
        expected: names of the runs that were asked for.
        failed: the runs that failed, with the reason.
        skipped: the runs that were not tried, with the reason.
        seconds: how long it took, from the first run to the last.
        slots: where runs were computed side by side, by name.
        experiments: names of all experiments of the grid, whose runs are `<experiment>-<seed>`; other runs of the
            folder are left out. Empty: all runs belong to it.
    """

    expected: Sequence[str] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    seconds: float | None = None
    slots: Sequence[str] = ()
    experiments: Sequence[str] = ()


def report_runs(results: Path, plots: Path, *, title: str, circumstances: Circumstances) -> None:
    """Write `index.html` about the runs of a folder, means over their seeds, and its figures.

    Args:
        results: folder of the runs.
        plots: where the page and the folder of figures go; it exists.
    """
    study, strangers = read(results, circumstances)
    fields = [name for name in study.varying() if name != "seed"]
    columns = [Column(name.replace("_", " "), chosen=True) for name in fields]
    columns += [
        Column("maximum accuracy", "mean ± standard deviation over seeds", number=True),
        Column("final accuracy", "mean ± standard deviation over seeds", number=True),
        Column("ratio held", "share of steps in which deviation / norm was below the bound of the rule", number=True),
        Column("seeds", number=True),
    ]
    rows, exhibits, panels = [], {}, Panels(3)
    keys = grouping.keys(study.runs, [name for name in study.deciding if name != "seed"])
    for number, (_, group) in enumerate(study.runs.groupby(keys, sort=False), 1):
        key = slug([experiment_of(group.iloc[0]["name"])], number)
        described = [field_text(group.iloc[0][name]) for name in fields]
        pictures = draw_experiment(study, group, plots / FIGURES, key, panels)
        exhibits[key] = Exhibit(experiment_of(group.iloc[0]["name"]), pictures)
        numbers = [mean_and_deviation(group[name]) for name in ("accuracy_max", "accuracy_final")]
        held = share(group["ratio_honest"].mean())
        rows.append(Row([*described, *numbers, held, Value(str(len(group)), len(group))], key if pictures else ""))
    sections = [
        Section(
            "experiments",
            "Every experiment",
            [table("experiments-table", columns, rows, "Every experiment", controls=True)],
        ),
        missing_section(study, circumstances, strangers, {}),
        provenance_section(study, circumstances),
    ]
    write_page(
        plots / "index.html",
        title=title,
        lead=f"{count(len(rows), 'experiment')}, each repeated with several seeds: accuracies are on the test set.",
        facts=overall_facts(study, circumstances),
        sections=sections,
        exhibits=exhibits,
    )


def read(results: Path, circumstances: Circumstances) -> tuple[Study, list[str]]:
    """Return the finished runs of the grid, and the names of other runs in the folder."""
    study = Study(results)
    # columns that a folder without one readable configuration lacks
    study.runs = study.runs.reindex(columns=list(dict.fromkeys((*study.runs, "dataset", "model", "seed"))))
    if not circumstances.experiments:
        return study, []
    own = study.runs["name"].map(experiment_of).isin(set(circumstances.experiments))
    strangers = study.runs["name"][~own].to_list()
    study.runs = study.runs[own].reset_index(drop=True)
    return study, strangers


def experiment_of(run: str) -> str:
    """Return the name of the experiment that a run repeats: its own without the seed."""
    return re.sub(r"-\d+$", "", run)


def draw_experiment(study: Study, group: pandas.DataFrame, folder: Path, key: str, panels: Panels) -> list[Picture]:
    """Draw accuracy, loss and ratio by step of the runs of one experiment, as far as they were recorded."""
    lines = curves([study.steps(name) for name in group["name"]])
    panels.clear()
    last = max((int(line.steps[-1]) for line in lines.values()), default=0)
    wanted: list[Picture | None] = []
    for axes, (name, caption) in zip(panels.axes, CAPTIONS.items(), strict=True):
        if name not in lines:
            wanted.append(None)
            continue
        wanted.append(Picture(folder / f"{key}-{name.lower()}.webp", caption))
        draw_line(axes, lines[name], "", WORKER, logarithms=name == "Ratio")
        if name == "Accuracy":
            finish_accuracy(axes, "accuracy", last)
        elif name == "Loss":
            finish_loss(axes, "loss", last, [lines[name]])
        else:
            finish_ratio(axes, "(deviation / norm)²", last, bound_of(group["ratio_bound"]))
    return panels.save(wanted)


def missing_section(
    study: Study, circumstances: Circumstances, strangers: Sequence[str], unused: Mapping[str, str]
) -> Section:
    """Return what failed, is missing or was left out.

    Args:
        strangers: runs of the folder that do not belong to the grid.
        unused: runs that the report does not use, or only in part, with the reason.
    """
    finished = set(study.runs["name"])
    failed = {**dict.fromkeys(study.failed, "failed in an earlier start"), **circumstances.failed}
    absent = [
        name for name in circumstances.expected if name not in finished | set(failed) | set(circumstances.skipped)
    ]
    expected = set(circumstances.expected) or set(study.pending)
    missing = {name: "begun, not finished" if name in study.pending else "not begun" for name in absent}
    missing |= {name: "begun, not finished" for name in study.pending if name in expected and name not in missing}
    if circumstances.experiments:
        own = set(circumstances.experiments)
        failed = {name: reason for name, reason in failed.items() if experiment_of(name) in own}
    lists = {
        "Failed": failed,
        "Skipped": circumstances.skipped,
        "Missing": missing,
        "Not compared": unused,
        "Not of this grid": dict.fromkeys(strangers, "in the same folder, left out of all of the above"),
    }
    parts = [reasons_list(heading, reasons) for heading, reasons in lists.items() if reasons]
    nothing = paragraph(f"Nothing: all {count(len(study.runs), 'run')} finished, and all of them are used.")
    return Section("missing", "What failed or is missing", parts or [nothing])


def reasons_list(heading: str, reasons: Mapping[str, str]) -> Markup:
    """Return names with what is to be said of each, folded up if there are many."""
    rows = [Row([name, reason]) for name, reason in reasons.items()]
    name = f"{heading.lower().replace(' ', '-')}-table"
    listed = table(name, [Column("run"), Column("reason")], rows, heading)
    if len(reasons) <= LONG:
        return join((element("h3", f"{heading}: {count(len(reasons), 'run')}"), listed))
    return element("details", join((element("summary", f"{heading}: {count(len(reasons), 'run')}"), listed)))


def provenance_section(study: Study, circumstances: Circumstances) -> Section:
    """Return where the runs were computed, and how long they took."""
    if study.runs.empty:
        return Section("provenance", "Environment and time", [paragraph("No run has finished.")])
    parts = []
    told = [name for name in study.runs if name.startswith("environment_") and name != "environment_seed"]
    rows = []
    for _, group in study.runs.groupby(grouping.keys(study.runs, told), sort=False):
        values = [field_text(group.iloc[0][name]) for name in told]
        rows.append(Row([*values, Value(str(len(group)), len(group))]))
    titles = [name.removeprefix("environment_").replace("_", " ") for name in told]
    columns = [*(Column(title) for title in titles), Column("runs", number=True)]
    parts.append(table("environments-table", columns, rows, "Environments"))
    rows = []
    for (dataset, model), group in study.runs.groupby(["dataset", "model"], dropna=False):
        seconds = group["seconds"]
        numbers = [seconds.count(), seconds.sum(), seconds.median(), seconds.max()]
        texts = [str(seconds.count()), *(duration(value) for value in numbers[1:])]
        values = [Value(text, float(value)) for text, value in zip(texts, numbers, strict=True)]
        rows.append(Row([field_text(dataset), field_text(model), *values]))
    columns = [Column("dataset"), Column("model")]
    columns += [Column(title, number=True) for title in ("timed runs", "in all", "median", "longest")]
    parts.append(table("seconds-table", columns, rows, "Time by dataset and model"))
    if circumstances.seconds is not None:
        side = f" on {count(len(circumstances.slots), 'slot')}" if circumstances.slots else ""
        parts.append(paragraph(f"The last start took {duration(circumstances.seconds)}{side}.", class_="note"))
    return Section("provenance", "Environment and time", parts)


def overall_facts(study: Study, circumstances: Circumstances) -> list[tuple[str, str]]:
    """Return the numbers at the top of the page: value, and what it is of."""
    finished = len(study.runs)
    of = len(set(circumstances.expected) | set(study.runs["name"]))
    seeds = sorted({int(seed) for seed in study.runs["seed"].dropna()})
    facts = [(f"{finished:,} of {of:,}", "runs finished"), (ranges(seeds), "seeds")]
    if circumstances.failed:
        facts.append((f"{len(circumstances.failed):,}", "failed"))
    seconds = study.runs["seconds"].sum()
    return [*facts, (duration(seconds), "of computing")] if seconds else facts


def mean_and_deviation(values: pandas.Series) -> Value:
    """Return the mean of accuracies and, of several, their sample standard deviation; a dash if there are none."""
    return accuracy(values.mean(), values.std())


def accuracy(mean: float, deviation: float = math.nan, *, signed: bool = False) -> Value:
    """Return an accuracy, or with a sign a difference of accuracies."""
    if math.isnan(mean):
        return Value("–", math.nan)
    text = f"{mean:+.3f}".replace("-", "−") if signed else f"{mean:.3f}"
    return Value(text if math.isnan(deviation) else f"{text} ± {deviation:.3f}", mean)


def share(value: float) -> Value:
    """Return a share of steps or runs in percent; a dash for NaN."""
    return Value("–", math.nan) if math.isnan(value) else Value(f"{value * 100:.1f} %", value)


def field_text(value: object) -> str:
    """Return a field of a configuration, a dash if it has none."""
    return text_of(value) or "–"


def duration(seconds: float) -> str:
    """Return seconds as people say them."""
    if math.isnan(seconds):
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60:02} min"


def count(number: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def ranges(numbers: Sequence[int]) -> str:
    """Return sorted numbers with runs of them drawn together: "1–3, 7"."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}–{part[-1]}" for part in parts) or "–"


def slug(words: Sequence[str], number: int) -> str:
    """Return a file name and address that is nobody else's thanks to the number."""
    return f"{file_name(words)}-{number}"
