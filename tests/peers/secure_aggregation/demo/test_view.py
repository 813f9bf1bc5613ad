import io
import sys

import pytest
from rich.console import Console

from peers.secure_aggregation.demo.measurements import Measurement
from peers.secure_aggregation.demo.view import DemoView


def row(name: str, epoch: int, before: float, after: float, seconds: float = 0.5, sent: int = 1_000_000) -> Measurement:
    return Measurement(name, epoch, before, after, 1.0, seconds, sent)


def table(view: DemoView, width: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width).print(view.render())
    return [line.rstrip() for line in out.getvalue().splitlines()]


def show_on(width: int, monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Let standard output be a terminal of that width."""
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(width))
    return terminal


def test_a_line_per_epoch_where_there_is_no_terminal(capsys: pytest.CaptureFixture) -> None:
    with DemoView(["a", "b", "c"], 3) as view:
        view.state("a", "training 1")
        for name, before, seconds in (("a", 0.5, 0.25), ("b", 0.6, 0.5)):
            view.measured(row(name, 1, before, 0.9, seconds))
            view.measured(row(name, 2, before, 0.95, seconds))
        assert capsys.readouterr().out == ""
        view.measured(row("c", 1, 0.7, 0.9, 0.75))
        assert (
            capsys.readouterr().out
            == "epoch 1: mean accuracy 0.6000 before, 0.9000 after aggregation in 0.50 s (3 of 3 peers)\n"
        )
        view.left("c", "failed")
        assert (
            capsys.readouterr().out
            == "epoch 2: mean accuracy 0.5500 before, 0.9500 after aggregation in 0.38 s (2 of 3 peers)\n"
        )
        view.left("a", "done")
        view.left("b", "done")
        view.refresh()
    assert capsys.readouterr().out == ""


def test_summary() -> None:
    view = DemoView(["a", "b"], 3)
    assert view.summary() == ["nothing was aggregated"]
    view.measured(row("a", 1, 0.1, 0.2, seconds=0.5, sent=3_000_000))
    view.measured(row("b", 1, 0.1, 0.2, seconds=0.75, sent=4_000_000))
    view.measured(row("a", 2, 0.3, 0.4, seconds=2.0, sent=50_000))
    assert view.summary() == [
        "accuracy in epoch 2: mean 0.3000 before, 0.4000 after aggregation (1 of 2 peers)",
        "time per aggregation: median 0.75 s, at most 2.00 s",
        "sent by a peer per aggregation: median 3.00 MB, at most 4.00 MB",
    ]


def test_table(monkeypatch: pytest.MonkeyPatch) -> None:
    show_on(100, monkeypatch)
    view = DemoView(["peer-1", "peer-2", "peer-3"], 2)
    view.started("peer-1", 123)
    view.started("peer-2", 4567)
    view.measured(row("peer-1", 1, 0.25, 0.5, 0.125))
    view.measured(row("peer-1", 2, 0.75, 0.8125, 1.0))
    view.measured(row("peer-3", 1, 0.125, 0.5))
    view.state("peer-2", "aggregating 1")
    view.left("peer-3", "failed")
    assert table(view, 100) == [
        "peer    process  epoch 1        epoch 2        s/aggregation  state",
        "peer-1  123      0.250 → 0.500  0.750 → 0.812           1.00  starting",
        "peer-2  4567                                                  aggregating 1",
        "peer-3           0.125 → 0.500                          0.50  failed",
    ]


@pytest.mark.parametrize(
    ("width", "measured", "shown"),
    [(65, 0, "1"), (80, 0, "1 2"), (80, 1, "1 2"), (80, 4, "3 4"), (200, 4, "1 2 3 4 5 6 7 8 9 10"), (65, 10, "10")],
)
def test_latest_epochs_for_which_there_is_room(
    width: int, measured: int, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    show_on(width, monkeypatch)
    view = DemoView(["peer-1", "peer-2"], 10)
    view.started("peer-1", 1_234_567)
    view.state("peer-1", "aggregating 10")
    for epoch in range(1, measured + 1):
        view.measured(row("peer-2", epoch, 0.5, 0.5))
    heading, *rows = table(view, width)
    epochs = heading.replace("epoch ", "").split()[2:-2]
    assert epochs == shown.split()
    assert all(len(line) <= width and "…" not in line for line in rows)
    assert rows[0].endswith("aggregating 10")


def test_live_table_stays_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = show_on(100, monkeypatch)
    monkeypatch.setattr(sys, "stderr", terminal)
    with DemoView(["peer-1"], 1) as view:
        view.state("peer-1", "training 1")
        view.refresh()
        view.warn("a warning")
        view.measured(row("peer-1", 1, 0.25, 0.5))
        view.left("peer-1", "done")
    written = terminal.getvalue()
    assert "training 1" in written
    assert "a warning" in written
    assert "epoch 1:" not in written
    assert written.rindex("0.250 → 0.500") > written.rindex("\x1b[2K")  # after all that was wiped away


def test_warnings_go_to_standard_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    DemoView(["peer-1"], 1).warn("first")
    terminal = show_on(100, monkeypatch)
    with DemoView(["peer-1"], 1) as view:
        view.warn("second")  # standard error is no terminal
    assert capsys.readouterr().err == "first\nsecond\n"
    assert "second" not in terminal.getvalue()
