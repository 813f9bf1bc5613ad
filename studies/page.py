"""One self-contained HTML page: prose, tables that can be filtered and sorted, figures that open by a click.

The page loads nothing, and its content security policy would not let it. All text is escaped here; what is markup is of
the type `Markup`, and everything else is not.
"""

import base64
import html
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

from studies.panels import Picture

SOURCES = Path(__file__).parent
LONG = 25
"""Tables of more rows scroll in a box, under their heads."""


class Markup(str):
    """Text that is HTML already; the sum of two is plain text, `join` is for that."""

    __slots__ = ()


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        hint: explains the title, where that needs it.
        number: values are numbers, aligned right.
        chosen: rows can be filtered by its values.
    """

    title: str
    hint: str = ""
    number: bool = False
    chosen: bool = False


@dataclass(frozen=True)
class Value:
    """What stands in a table, and what it is sorted by, if not its text; NaN goes last."""

    text: str
    order: float | None = None


@dataclass(frozen=True)
class Row:
    """A row of a table; `key` is that of the figures it opens, if any."""

    values: Sequence[Value | str]
    key: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the page; `name` is its address."""

    name: str
    title: str
    parts: Sequence[Markup]


@dataclass(frozen=True)
class Exhibit:
    """What opens by a click: figures, and facts beside them."""

    title: str
    pictures: Sequence[Picture]
    facts: Sequence[tuple[str, str]] = field(default_factory=tuple)


def escape(text: object) -> Markup:
    """Return text as markup."""
    return text if isinstance(text, Markup) else Markup(html.escape(str(text)))


def join(parts: Iterable[object], between: str = "") -> Markup:
    """Return the parts, escaped where they are not markup, one after another."""
    return Markup(between.join(escape(part) for part in parts))


def element(tag: str, content: object = "", **attributes: str | bool) -> Markup:
    """Return an element; of an attribute's name underscores at the end are dropped, others become hyphens."""
    written = [
        f" {name.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{html.escape(value)}"')
        for name, value in attributes.items()
        if value is not False
    ]
    return Markup(f"<{tag}{''.join(written)}>{escape(content)}</{tag}>")


def paragraph(text: object, class_: str = "") -> Markup:
    """Return a paragraph."""
    return element("p", text, class_=class_ or False)


def table(name: str, columns: Sequence[Column], rows: Sequence[Row], caption: str, *, controls: bool = False) -> Markup:
    """Return a table in a box of its own that scrolls.

    Args:
        name: its id.
        caption: what it holds, for those who cannot see it.
        controls: put filters above it, and let its columns be sorted.
    """
    figures = any(row.key for row in rows)
    heads = [element("th", element("span", "Figures", class_="unseen"), scope="col")] if figures else []
    heads += [_head(column, sortable=controls) for column in columns]
    body = join(_row(columns, row, figures=figures) for row in rows)
    box = element(
        "div",
        element(
            "table",
            join(
                (
                    element("caption", caption, class_="unseen"),
                    element("thead", element("tr", join(heads))),
                    element("tbody", body),
                )
            ),
            id=name,
        ),
        class_="scroll long" if len(rows) > LONG else "scroll",
        tabindex="0",
        role="region",
        aria_label=caption,
    )
    return join((_controls(name, columns, rows, offset=int(figures)), box)) if controls else box


def _head(column: Column, *, sortable: bool) -> Markup:
    title = element("button", column.title, type="button") if sortable else column.title
    return element("th", title, scope="col", class_="number" if column.number else False, title=column.hint or False)


def _row(columns: Sequence[Column], row: Row, *, figures: bool) -> Markup:
    cells = []
    if figures:
        label = " ".join(str(_text(value)) for column, value in zip(columns, row.values, strict=True) if column.chosen)
        button = element("button", "", type="button", class_="open", aria_label=f"Figures of {label}")
        cells.append(element("td", button if row.key else ""))
    for column, value in zip(columns, row.values, strict=True):
        order = value.order if isinstance(value, Value) else None
        sorted_by = False if order is None else ("" if math.isnan(order) else f"{order:.6g}")
        cells.append(element("td", _text(value), class_="number" if column.number else False, data_order=sorted_by))
    return join((element("tr", join(cells), data_key=row.key or False), "\n"))


def _text(value: Value | str) -> str:
    return value.text if isinstance(value, Value) else value


def _controls(name: str, columns: Sequence[Column], rows: Sequence[Row], *, offset: int) -> Markup:
    """Return a search field and one choice for each column whose values differ."""
    parts = [element("label", join(("search", Markup('<input type="search">'))))]
    for number, column in enumerate(columns):
        values = {_text(row.values[number]): row.values[number] for row in rows}
        if column.chosen and len(values) > 1:
            orders = {text: getattr(value, "order", None) for text, value in values.items()}
            known = sorted(values, key=lambda text: (orders[text] is None, orders[text] or 0.0, text))
            options = [element("option", "all", value="")] + [element("option", text, value=text) for text in known]
            select = element("select", join(options), data_column=str(number + offset))
            parts.append(element("label", join((column.title, select))))
    parts.append(element("button", "show all", type="reset"))
    count = element("output", f"{len(rows)} of {len(rows)}", aria_live="polite")
    return element("form", join((*parts, count)), class_="controls", data_table=name)


def data_address(picture: Picture) -> str:
    """Return a picture as an address that holds it."""
    return "data:image/webp;base64," + base64.b64encode(picture.path.read_bytes()).decode()


def gallery(pictures: Mapping[str, Picture]) -> Markup:
    """Return small pictures, each of which opens the exhibit of its key."""
    items = []
    for key, picture in pictures.items():
        image = Markup(f'<img src="{data_address(picture)}" alt="" loading="lazy" width="210" height="210">')
        items.append(
            element(
                "button", join((image, element("span", picture.caption))), type="button", class_="open", data_key=key
            )
        )
    return element("div", join(items), class_="gallery")


def write_page(
    path: Path,
    *,
    title: str,
    lead: Markup | str,
    facts: Sequence[tuple[str, str]],
    sections: Sequence[Section],
    exhibits: Mapping[str, Exhibit],
) -> None:
    """Write the page, whole or not at all.

    Args:
        lead: what it is about, in a few sentences.
        facts: what a hurried reader looks for: a number or word, and what it is of.
        exhibits: by the keys that rows and galleries refer to.
    """
    template = Template((SOURCES / "page.html").read_text(encoding="utf-8"))
    links = [element("a", section.title, href=f"#{section.name}") for section in sections]
    parts = [
        element("section", join((element("h2", section.title), *section.parts)), id=section.name)
        for section in sections
    ]
    content = {
        key: {
            "title": exhibit.title,
            "facts": list(exhibit.facts),
            "pictures": [[picture.caption, data_address(picture)] for picture in exhibit.pictures],
        }
        for key, exhibit in exhibits.items()
    }
    text = template.substitute(
        title=escape(title),
        lead=escape(lead),
        facts=join(element("div", join((element("dt", what), element("dd", value)))) for value, what in facts),
        links=join(links, "\n"),
        sections=join(parts, "\n"),
        style=(SOURCES / "page.css").read_text(encoding="utf-8"),
        script=(SOURCES / "page.js").read_text(encoding="utf-8"),
        # "<" must not stand in a script element, where "</script>" would end it
        exhibits=json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"),
    )
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)
