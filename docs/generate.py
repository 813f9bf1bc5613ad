"""Write the pages about rules, attacks, topologies and partitions from the registries: `python3 docs/generate.py`.

What the pages say of each stands in its file: the first paragraph of its class's docstring, the parameters of its
formula, the context it needs, its `cost`, and the "Source:" of the file. Conditions on n and f are found by asking
`check`.
"""

import inspect
import re
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from aggregators import CONTEXT as RULE_CONTEXT
from aggregators import gars
from aggregators.pre import CONTEXT as PRE_CONTEXT
from aggregators.pre import pre_gars
from attacks import CONTEXT as ATTACK_CONTEXT
from attacks import attacks
from experiments.command_line import describe_argument
from experiments.partitions import CONTEXT as PARTITION_CONTEXT
from experiments.partitions import partitions
from experiments.topologies import CONTEXT as TOPOLOGY_CONTEXT
from experiments.topologies import Topology, topologies
from tools.arguments import explicit_parameters

MOST_WORKERS = 100
TEXTS = Path(__file__).resolve().parent / "texts"


def condition(check: Callable[..., None], most_byzantine: int = 5) -> str:
    """Return which numbers of workers a rule takes, as far as n ≥ af + b says it."""
    least = []
    for f in range(most_byzantine + 1):
        accepted = (n for n in range(1, MOST_WORKERS) if _accepts(check, n=n, f=f))
        least.append(next(accepted, None))
    slope = least[2] - least[1]
    offset = least[1] - slope
    if least[1:] != [slope * f + offset for f in range(1, most_byzantine + 1)]:
        raise ValueError(f"{check}: expected n ≥ af + b, got {least} for f = 0, 1, 2 …")
    terms = [{0: "", 1: "f"}.get(slope, f"{slope}f"), str(offset) if offset or not slope else ""]
    return f"n ≥ {' + '.join(filter(None, terms))}"


def _accepts(check: Callable[..., None], **numbers: int) -> bool:
    try:
        check(**numbers)
    except ValueError:
        return False
    return True


def definition(cls: type) -> str:
    """Return the first paragraph of a class's docstring, on one line."""
    return _one_line(inspect.getdoc(cls).split("\n\n")[0])


def source(cls: type) -> str:
    """Return the source that a class's file names, on one line: what follows "Source:", up to the first year in it."""
    found = re.search(r"^Source: (.*?)(?:\n\n|\Z)", inspect.getdoc(inspect.getmodule(cls)), re.DOTALL | re.MULTILINE)
    text = _one_line(found.group(1)) if found else "–"
    year = re.search(r"\b(?:19|20)\d\d\b(?!\.\d)\)?", text)  # with a digit after the point it numbers a preprint
    return text[: year.end()] if year else text


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def parameters(formula: Callable[..., Any], context: Collection[str]) -> str:
    """Return what a user may set, with defaults."""
    values = explicit_parameters(formula, context).values()
    return ", ".join(f"`{describe_argument(p)}{':None' if p.default is None else ''}`" for p in values) or "–"


def row(name: str, cls: type, *cells: str) -> str:
    """Return a row of a table, its name linked to the file."""
    file = Path(inspect.getfile(cls)).resolve().relative_to(ROOT)
    return f"| [`{name}`](../{file}) | {' | '.join(cells)} |"


def table(head: list[str], rows: list[str]) -> str:
    """Return a markdown table."""
    return "\n".join([f"| {' | '.join(head)} |", f"| {' | '.join('---' for _ in head)} |", *rows])


def rules_page() -> str:
    """Return the page about rules and pre-aggregators."""

    def rows(registry: Mapping[str, Any], formula: Callable[[Any], Callable], context: Collection[str]) -> list[str]:
        return [
            row(
                name,
                cls,
                definition(cls),
                parameters(formula(cls), context),
                "; ".join([condition(cls.check), *(f"needs `{piece}`" for piece in cls.needs)]),
                cls.cost,
                source(cls),
            )
            for name, cls in registry.items()
        ]

    head = ["name", "definition", "parameters", "conditions", "cost", "source"]
    return _fill(
        "rules.md",
        rules=table(head, rows(gars, lambda rule: rule.formula(), RULE_CONTEXT)),
        pre_aggregators=table(head, rows(pre_gars, lambda pre: pre.unchecked, PRE_CONTEXT)),
    )


def attacks_page() -> str:
    """Return the page about attacks."""

    def conditions(attack: Any) -> str:
        needs = [f"needs `{piece}`" for piece in attack.needs]
        kind = ["poisons data"] if attack.poisons() else ["one set per recipient"] if attack.per_recipient else []
        return "; ".join([*needs, *kind, *filter(None, [attack.condition])]) or "–"

    head = ["name", "definition", "parameters", "conditions", "cost", "source"]
    rows = [
        row(
            name,
            attack,
            definition(attack),
            parameters(attack.formula(), ATTACK_CONTEXT),
            conditions(attack),
            attack.cost,
            source(attack),
        )
        for name, attack in attacks.items()
    ]
    return _fill("attacks.md", attacks=table(head, rows))


def topologies_page() -> str:
    """Return the page about topologies."""

    def sizes(topology: type[Topology]) -> str:
        try:
            possible = [n for n in range(1, MOST_WORKERS) if _accepts(topology.check, n=n)]
        except TypeError:  # it needs an argument, which decides
            return "–"
        if possible[-1:] == [MOST_WORKERS - 1]:
            return f"n ≥ {possible[0]}"
        return f"{', '.join(map(str, possible[:4]))} …" if possible else "–"

    def in_time(topology: type[Topology]) -> str:
        return {None: "drawn anew every round", 1: "static"}.get(topology.period(MOST_WORKERS), "periodic")

    rows = [
        row(
            name,
            topology,
            definition(topology),
            parameters(topology.graph, TOPOLOGY_CONTEXT),
            sizes(topology),
            in_time(topology),
            source(topology),
        )
        for name, topology in topologies.items()
    ]
    return _fill(
        "topologies.md", topologies=table(["name", "definition", "parameters", "sizes", "in time", "source"], rows)
    )


def partitions_page() -> str:
    """Return the page about partitions."""
    rows = [
        row(name, cls, definition(cls), parameters(cls.split, PARTITION_CONTEXT), source(cls))
        for name, cls in partitions.items()
    ]
    return _fill("partitions.md", partitions=table(["name", "definition", "parameters", "source"], rows))


def _fill(name: str, **tables: str) -> str:
    text = (TEXTS / name).read_text(encoding="utf-8")
    for place, content in tables.items():
        text = text.replace(f"{{{{{place}}}}}", content)
    return text


PAGES: dict[str, Callable[[], str]] = {
    "rules.md": rules_page,
    "attacks.md": attacks_page,
    "topologies.md": topologies_page,
    "partitions.md": partitions_page,
}


def main() -> int:
    """Write all pages."""
    for name, page in PAGES.items():
        (Path(__file__).resolve().parent / name).write_text(page(), encoding="utf-8")
        print(f"docs/{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
