import io
import sys

import pytest

from tools.console import Console, make_tree, render


def test_lines_go_to_the_terminal_and_to_the_logs(capsys: pytest.CaptureFixture) -> None:
    console, out, err = Console(), io.StringIO(), io.StringIO()
    console.say("before")
    with console.logs(out, err):
        console.say("a [line] of 3.5")
        console.warn("careful")
    console.say("after")
    captured = capsys.readouterr()
    assert captured.out == "before\na [line] of 3.5\nafter\n"
    assert captured.err == "careful\n"
    assert out.getvalue() == "a [line] of 3.5\n"
    assert err.getvalue() == "careful\n"


def test_no_live_line_without_a_terminal(capsys: pytest.CaptureFixture) -> None:
    console = Console()
    with console.live():
        console.update("step 3")
        console.say("line")
    assert capsys.readouterr().out == "line\n"


def test_live_line_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    console = Console()
    assert console.is_terminal
    with console.live():
        console.update("step 3")
        console.say("a line above")
        with console.paused():
            print("a prompt")
        console.update("step 4")
    written = terminal.getvalue()
    assert all(text in written for text in ("step 3", "a line above", "a prompt", "step 4"))


def test_tree() -> None:
    tree = make_tree("title", {"first": {"a": 1, "b": "x y"}, "second": {"c": None}})
    lines = render(tree).splitlines()
    assert lines[0] == "title"
    assert [line.lstrip("│├└─ ") for line in lines[1:]] == ["first", "a 1", "b x y", "second", "c None"]


def test_output_that_cannot_be_written_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    full = open("/dev/full", "w", encoding="utf-8")  # noqa: SIM115  closing it would fail
    monkeypatch.setattr("sys.stdout", full)
    console = Console()
    for _ in range(3):
        console.say("x" * 10_000)
    assert render(make_tree("title", {"a": {"b": 1}})) == "title\n└── a\n    └── b 1"
    full.detach().detach().close()


def test_long_values_are_shown_whole(capsys: pytest.CaptureFixture) -> None:
    Console().show(make_tree("title", {"group": {"name": "long " * 100 + "end"}}))
    lines = capsys.readouterr().out.splitlines()
    assert [line.strip(" │├└─") for line in lines] == ["title", "group", "name " + "long " * 100 + "end"]
