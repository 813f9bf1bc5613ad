"""What the person at the terminal sees, and what goes to the logs of a result directory."""

import io
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self, TextIO

from rich.console import Console as RichConsole
from rich.console import RenderableType
from rich.live import Live
from rich.text import Text
from rich.tree import Tree

from tools.errors import one_line

WIDEST = 10_000
"""Columns that trees may take: what is longer than a terminal's line is for the terminal to wrap."""


class Output(RichConsole):
    """Standard output, of which nothing hangs on whether anybody reads it."""

    def on_broken_pipe(self) -> None:
        """Go on without output when nobody reads it any more, as in `attack.py | head`; the base class would exit."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def say(self, what: Text) -> None:
        """Print, if anybody can read it."""
        try:
            self.print(what)
        except OSError:  # no reason to lose a run
            self.quiet = True


class Console:
    """Lines and one live line on standard output, warnings on standard error; lines also to logs once there are any."""

    def __init__(self) -> None:
        self._out = Output(highlight=False, soft_wrap=True)
        self._logs: tuple[TextIO, TextIO] | None = None
        self._live: Live | None = None

    @property
    def is_terminal(self) -> bool:
        """Whether somebody sees a live line."""
        return self._out.is_terminal

    def say(self, text: str) -> None:
        """Print a line, above the live line if there is one."""
        self._out.say(Text(text))
        if self._logs:
            print(text, file=self._logs[0], flush=True)

    def warn(self, text: str) -> None:
        """Print a line on standard error."""
        if self._live:
            self._live.console.print(Text(text, style="yellow"))
        else:
            print(text, file=sys.stderr, flush=True)
        if self._logs:
            print(text, file=self._logs[1], flush=True)

    def show(self, tree: Tree) -> None:
        """Print a tree."""
        self._out.say(Text.from_ansi(render(tree, styled=True)))  # as a tree it would be cropped to the terminal
        if self._logs:
            print(render(tree), file=self._logs[0], flush=True)

    @contextmanager
    def logs(self, out: TextIO, err: TextIO) -> Iterator[None]:
        """Also write lines to these files, while inside."""
        self._logs = (out, err)
        try:
            yield
        finally:
            self._logs = None

    @contextmanager
    def live(self) -> Iterator[None]:
        """Keep a live line at the bottom while inside, if there is a terminal; it is gone afterwards."""
        if not self.is_terminal:
            yield
            return
        with Live(Text(""), console=self._out, transient=True, auto_refresh=False) as self._live:
            try:
                yield
            finally:
                self._live = None

    def update(self, text: str) -> None:
        """Change the live line."""
        if self._live:
            self._live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the terminal to somebody else while inside."""
        if self._live:
            self._live.stop()
        try:
            yield
        finally:
            if self._live:
                self._live.start()


class LiveView:
    """Something that is shown at the bottom of a terminal, and lines above it; use as a context manager.

    Subclasses say what, `render`, which is called for the first time when this is made.

    Args:
        settings: of rich's `Live`.
    """

    def __init__(self, **settings: Any) -> None:
        self._out = Output(highlight=False, soft_wrap=True)
        self._live = Live(console=self._out, transient=True, get_renderable=self.render, **settings)

    def __enter__(self) -> Self:
        if self._out.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._out.is_terminal:
            self._live.stop()

    def render(self) -> RenderableType:
        """Return what is to be seen now."""
        raise NotImplementedError

    def say(self, text: str, style: str = "") -> None:
        """Print a line, above what is shown if there is a terminal."""
        self._out.say(Text(text, style=style))


@contextmanager
def warnings_as_lines(program: str) -> Iterator[None]:
    """Print every UserWarning as one line on standard error, while inside."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_: print(f"{program}: {one_line(message)}", file=sys.stderr)
        yield


def duration(seconds: float) -> str:
    """Return a time as minutes:seconds, or hours:minutes:seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def make_tree(title: str, groups: Mapping[str, Mapping[str, Any]]) -> Tree:
    """Return groups of named values as a tree."""
    tree = Tree(Text(title, style="bold"))
    for group, values in groups.items():
        branch = tree.add(Text(group))
        for name, value in values.items():
            branch.add(Text.assemble((f"{name} ", "dim"), str(value)))
    return tree


def render(tree: Tree, styled: bool = False) -> str:
    """Return a tree as plain text, or with the escape sequences of its styles."""
    text = io.StringIO()
    system = "standard" if styled else None
    RichConsole(file=text, width=WIDEST, color_system=system, force_terminal=styled, soft_wrap=True).print(tree)
    return text.getvalue().rstrip("\n")
