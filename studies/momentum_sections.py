"""The sections of the report about worker momentum."""

import math
from collections.abc import Mapping, Sequence

import pandas

from studies.claims import Claim, percent
from studies.comparison import PLACES
from studies.page import Column, Markup, Row, Section, Value, element, gallery, join, paragraph, table
from studies.panels import Picture, bound_of
from studies.report import accuracy, share

EFFECTIVE = 0.20
"""The threshold of the outcomes in the table of cells, that of most of the paper’s claims."""


def describe(cell: object, *, rule: bool = True) -> str:
    """Return a row of `comparison.cells` or `pairs` in words; without the rule, the setting it shares with others."""
    return " · ".join((cell.dataset, cell.attack, *([cell.rule] if rule else []), describe_setting(cell)))


def describe_setting(cell: object) -> str:
    """Return what tells the cells of one dataset, attack and rule apart, in words."""
    return " · ".join((f"f = {cell.f} of {cell.n}", f"rate {cell.rate}", *(["Nesterov"] if cell.nesterov else [])))


def cell_facts(cell: object) -> list[tuple[str, str]]:
    """Return the numbers of a row of `comparison.cells`, each with what it is."""
    return [
        (accuracy(cell.reference_mean, cell.reference_std).text, "unattacked"),
        (accuracy(cell.update_mean, cell.update_std).text, "at update"),
        (accuracy(cell.worker_mean, cell.worker_std).text, "at worker"),
        (accuracy(cell.gain_mean, cell.gain_std, signed=True).text, "gain"),
        (str(cell.seeds), "complete pairs"),
        (f"{share(cell.ratio_update).text} / {share(cell.ratio_worker).text}", "ratio held, update / worker"),
    ]


def claims_section(found: Sequence[Claim], subsets: pandas.DataFrame) -> Section:
    """Return the paper’s claims beside what was counted."""
    titles = {"Claim": "statement", "Paper": "number", "Here": "number", "0 to 100 %": "strip"}
    head = join(element("th", title, class_=class_, scope="col") for title, class_ in titles.items())
    content = (
        element("caption", "The paper’s claims, and what was counted here", class_="unseen"),
        element("thead", element("tr", head)),
        element("tbody", join(map(_claim_row, found), "\n")),
    )
    parts = [
        paragraph(
            "A pair is two runs of the same seed that differ only in where momentum is. Its reference is the "
            "unattacked mean of as many honest workers, of that seed too. Of the maximum accuracies of these three "
            "runs, cost = reference − at update, and gain = at worker − at update. Both are absolute: 20 % is 0.20."
        ),
        _key({"here": "measured here", "interval": "its 95 % interval", "paper": "the paper"}),
        element("table", join(content), class_="claims"),
        paragraph(
            "The intervals are Wilson's. They take pairs as independent, although seeds of one cell are alike: the "
            "true ones are wider.",
            class_="note",
        ),
        element("h3", "The same counts by subset"),
        _subsets_table(subsets),
    ]
    return Section("claims", "The paper’s claims", parts)


def _claim_row(claim: Claim) -> Markup:
    definition = join((claim.definition, Markup("<br>") if claim.note else "", claim.note))
    statement = join((claim.statement, element("p", definition, class_="note")))
    if claim.total:
        low, high = claim.interval
        counted = f"{claim.count:,} of {claim.total:,}"
        detail = join((counted, Markup("<br>"), f"{percent(low, 1)} to {percent(high, 1)}"))
        here = join((element("span", percent(claim.share), class_="big"), element("p", detail, class_="note")))
        strip = _scale(
            {"interval": low, "paper": claim.paper_share, "here": claim.share}, claim.measured, width=high - low
        )
    else:
        here, strip = element("span", claim.measured, class_="note"), Markup()
    cells = (
        element("td", statement, class_="statement"),
        element("td", element("span", claim.paper, class_="big"), class_="number", data_label="paper"),
        element("td", here, class_="number", data_label="here"),
        element("td", strip, class_="strip"),
    )
    return element("tr", join(cells))


def _scale(marks: Mapping[str, float], label: str, *, width: float = 0.0) -> Markup:
    """Return marks on a line from 0 to 1, by their kind; the first has a width. NaN marks are left out."""
    drawn = []
    for number, (kind, place) in enumerate(marks.items()):
        if not math.isnan(place):
            size = f";width:{width * 100:.1f}%" if number == 0 else ""
            drawn.append(element("i", class_=kind, style=f"left:{place * 100:.1f}%{size}"))
    return element("span", join(drawn), class_="scale", role="img", aria_label=label)


def _key(kinds: Mapping[str, str]) -> Markup:
    """Return what the marks of a scale mean."""
    items = []
    for kind, text in kinds.items():
        style = "left:0;width:12px" if kind in ("interval", "way") else "left:6px"
        mark = element("span", element("i", class_=kind, style=style), class_="scale", aria_hidden="true")
        items.append(element("span", join((mark, text))))
    return element("p", join(items), class_="key")


def _subsets_table(subsets: pandas.DataFrame) -> Markup:
    columns = [Column("subset"), Column("pairs", number=True)]
    for percents in (10, 20, 40):
        columns.append(Column(f"cost > {percents} %", number=True))
        columns.append(Column(f"and gain > {percents} %", number=True))
    columns += [Column(f"gain < {limit}", number=True) for limit in ("0", "−2 %", "−5 %")]
    rows = []
    for subset in subsets.to_dict("records"):
        total = subset.pop("pairs")
        values: list[Value | str] = [subset.pop("subset"), f"{total:,}"]
        for name, number in subset.items():
            of = subset[name.replace("recovered", "effective")] if name.startswith("recovered") else total
            values.append(f"{number:,} ({percent(number / of, 1)})" if of else "–")
        rows.append(Row(values))
    return table("subsets-table", columns, rows, "Counts by subset")


def overview_section(pictures: Mapping[str, Mapping[str, Picture]]) -> Section:
    """Return a box plot for each setting, by dataset and attack; each opens the curves of all rules."""
    parts = [
        paragraph(
            "Maximum accuracies over all rules and seeds, with momentum at the server’s update and at the workers. The "
            "dashed line is the median of the unattacked runs. Each opens the curves of every rule."
        )
    ]
    for heading, group in pictures.items():
        parts += [element("h3", heading), gallery(group)]
    return Section("overview", "Overview", parts)


def cells_section(cells: pandas.DataFrame, keys: Mapping[int, str]) -> Section:
    """Return the table of all cells.

    Args:
        keys: that of the figures, by cell.
    """
    columns = [
        *(Column(title, chosen=True) for title in ("dataset", "attack", "rule")),
        Column("f of n", "Byzantine workers of all", chosen=True),
        Column("rate", "learning rate", number=True, chosen=True),
        Column("Nesterov", chosen=True),
        Column("unattacked", "maximum accuracy of the mean of as many honest workers", number=True),
        Column("at update", "maximum accuracy with momentum at the server’s update", number=True),
        Column("at worker", "maximum accuracy with momentum at the workers", number=True),
        Column("gain", "at worker − at update, of pairs with the same seed", number=True),
        Column("0 to 1", "from at update to at worker, and unattacked"),
        Column("outcome", "of the means, with a threshold of 0.20", chosen=True),
        Column("seeds", "complete pairs", number=True),
        Column("ratio, update", "share of steps in which the ratio condition held", number=True),
        Column("ratio, worker", "share of steps in which the ratio condition held", number=True),
    ]
    rows = [Row(_cell_values(cell), keys.get(cell.cell, "")) for cell in cells.itertuples()]
    parts = [
        paragraph(
            "Mean ± sample standard deviation of the maximum accuracies over seeds. A row opens its figures: accuracy, "
            "loss and variance-norm ratio by step. Outcome: the attack costs at most 0.20 (no effect), or else worker "
            "momentum gains more than 0.20 (recovered) or does not."
        ),
        _key({"update": "at update", "worker": "at worker", "reference": "unattacked"}),
        table("cells-table", columns, rows, "Every cell", controls=True),
    ]
    return Section("cells", "Every cell", parts)


def _cell_values(cell: object) -> list[Value | str]:
    """Return what stands in the row of a cell, a row of `comparison.cells`."""
    low, high = sorted((cell.update_mean, cell.worker_mean))
    marks = {"way": low, "reference": cell.reference_mean, "update": cell.update_mean, "worker": cell.worker_mean}
    try:
        rate = Value(cell.rate, float(cell.rate))
    except ValueError:  # a schedule
        rate = Value(cell.rate)
    return [
        *(cell.dataset, cell.attack, cell.rule),
        Value(f"{cell.f} of {cell.n}", cell.f / cell.n),
        rate,
        "yes" if cell.nesterov else "no",
        *(accuracy(getattr(cell, f"{name}_mean"), getattr(cell, f"{name}_std")) for name in ("reference", *PLACES)),
        accuracy(cell.gain_mean, cell.gain_std, signed=True),
        Value(_scale(marks, "", width=high - low), cell.worker_mean),
        _outcome(cell.reference_mean - cell.update_mean, cell.worker_mean - cell.update_mean),
        Value(str(cell.seeds), cell.seeds),
        share(cell.ratio_update),
        share(cell.ratio_worker),
    ]


def _outcome(cost: float, gain: float) -> str:
    if math.isnan(cost) or math.isnan(gain):
        return "incomplete"
    if cost <= EFFECTIVE:
        return "no effect"
    return "recovered" if gain > EFFECTIVE else "not recovered"


def ratio_section(pairs: pandas.DataFrame) -> Section:
    """Return in how many steps the condition held under which a rule is proven to work."""
    columns = [Column("dataset"), Column("rule"), Column("f of n"), Column("bound", number=True)]
    for place in PLACES:
        columns += [Column(f"at {place}: runs", number=True), Column("never held", number=True)]
        columns += [Column("mean share", number=True), Column("largest share", number=True)]
    rows = []
    for (dataset, rule, n, f), group in pairs.groupby(["dataset", "rule", "n", "f"], sort=False):
        if (bound := bound_of(group["bound"])) is not None:
            values = [value for place in PLACES for value in _ratio_values(group[f"ratio_{place}"].dropna())]
            rows.append(Row([dataset, rule, f"{f} of {n}", f"{bound:.4f}", *values]))
    text = (
        "A rule is proven to withstand attacks where deviation / norm of what honest workers send is below a bound. "
        "This is the share of steps in which it was, of attacked runs; steps whose loss is above that of the first "
        "one count as steps in which it was not. Never held: the share of runs in which it was in no step. No bound "
        "is known for the other rules."
    )
    known = table("ratio-table", columns, rows, "Share of steps in which the ratio condition held")
    none = paragraph("None of the rules that were run has a known bound.")
    return Section("ratio", "The ratio condition", [paragraph(text), known if rows else none])


def _ratio_values(shares: pandas.Series) -> list[Value | str]:
    never = f"{percent((shares == 0).mean(), 1)}" if len(shares) else "–"
    return [f"{len(shares):,}", never, share(shares.mean()), share(shares.max())]
