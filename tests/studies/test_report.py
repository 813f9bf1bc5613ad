import json
import re
from pathlib import Path

import pandas
import pytest

from studies.report import Circumstances, accuracy, duration, ranges, report_runs
from tests.studies.folders import write_run


def report(results: Path, plots: Path, **circumstances: object) -> str:
    plots.mkdir(exist_ok=True)
    report_runs(results, plots, title="A title", circumstances=Circumstances(**circumstances))
    return (plots / "index.html").read_text(encoding="utf-8")


def rows_of(text: str, table: str) -> list[list[str]]:
    body = re.search(rf'id="{table}">.*?<tbody>(.*?)</tbody>', text, re.DOTALL)[1]
    rows = [re.findall(r"<td.*?>(.*?)</td>", row, re.DOTALL) for row in re.findall(r"<tr.*?</tr>", body, re.DOTALL)]
    return [[re.sub("<.*?>", "", cell) for cell in row] for row in rows]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    for rule, best in (("krum", 0.5), ("median", 0.7)):
        for seed in (1, 2):
            write_run(folder, f"little-{rule}-{seed}", [0.1, best + 0.1 * seed, 0.4], gar=rule, seed=seed)
    return folder


def test_experiments_are_means_over_their_seeds(results: Path, tmp_path: Path) -> None:
    text = report(results, tmp_path)
    assert rows_of(text, "experiments-table") == [
        ["", "krum", "0.650 ± 0.071", "0.400 ± 0.000", "0.0 %", "2"],
        ["", "median", "0.850 ± 0.071", "0.400 ± 0.000", "0.0 %", "2"],
    ]
    exhibits = json.loads(re.search(r'id="exhibits">(.*?)</script>', text, re.DOTALL)[1])
    assert sorted(exhibit["title"] for exhibit in exhibits.values()) == ["little-krum", "little-median"]
    assert all(len(exhibit["pictures"]) == 3 for exhibit in exhibits.values())


def test_what_is_not_there_is_told_apart(results: Path, tmp_path: Path) -> None:
    (results / "little-trmean-1.pending").mkdir()
    (results / "little-phocas-1.failed").mkdir()
    expected = ["little-krum-1", "little-trmean-1", "little-phocas-1", "little-cc-1", "little-dnc-1", "little-nna-1"]
    text = report(
        results, tmp_path, expected=expected, failed={"little-cc-1": "killed"}, skipped={"little-dnc-1": "no data"}
    )
    assert dict(rows_of(text, "failed-table")) == {
        "little-phocas-1": "failed in an earlier start",
        "little-cc-1": "killed",
    }
    assert rows_of(text, "skipped-table") == [["little-dnc-1", "no data"]]
    assert dict(rows_of(text, "missing-table")) == {
        "little-trmean-1": "begun, not finished",
        "little-nna-1": "not begun",
    }


def test_nothing_missing_is_said(results: Path, tmp_path: Path) -> None:
    assert "Nothing: all 4 runs finished" in report(results, tmp_path)


def test_environments_and_times_are_told(results: Path, tmp_path: Path) -> None:
    path = results / "little-krum-1" / "config.json"
    config = json.loads(path.read_text())
    config["environment"]["device"] = "another <processor>"
    path.write_text(json.dumps(config))
    text = report(results, tmp_path, seconds=3725.0, slots=["cpu:0", "cpu:1"])
    rows = rows_of(text, "environments-table")
    assert [(row[-3], row[-1]) for row in rows] == [("another &lt;processor&gt;", "1"), ("a processor", "3")]
    assert rows_of(text, "seconds-table") == [["mnist", "simples-conv", "4", "15.0 s", "3.8 s", "3.8 s"]]
    assert "took 1 h 02 min on 2 slots" in text


def test_names_cannot_break_out_of_the_page(tmp_path: Path) -> None:
    name = "</script><script>alert(1)</script>&'\"-1".replace("/", "∕")
    write_run(tmp_path / "results", name, [0.1, 0.5])
    text = report(tmp_path / "results", tmp_path, expected=["<b>-1"])
    assert text.count("<script") == 2
    assert "<b>" not in text
    assert "alert(1)" in text


def test_a_page_is_written_whole_or_not_at_all(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = report(results, tmp_path)

    def fail(*paths: object) -> None:
        raise OSError("no room")

    monkeypatch.setattr("studies.page.os.replace", fail)
    with pytest.raises(OSError, match="no room"):
        report(results, tmp_path, seconds=1.0)
    assert (tmp_path / "index.html").read_text(encoding="utf-8") == before


def test_numbers_read_well() -> None:
    assert accuracy(0.5).text == "0.500"
    assert accuracy(-0.0123, 0.5, signed=True).text == "−0.012 ± 0.500"
    assert accuracy(0.0123, signed=True).text == "+0.012"
    assert accuracy(float("nan")).text == "–"
    assert [duration(seconds) for seconds in (7.25, 59.99, 90, 3600, 360_000)] == [
        *("7.2 s", "60.0 s", "2 min", "1 h 00 min", "100 h 00 min")
    ]
    assert [ranges(seeds) for seeds in ([], [1], [1, 2, 3], [1, 2, 7, 9, 10])] == ["–", "1", "1–3", "1–2, 7, 9–10"]


def test_a_value_of_a_number_sorts_by_the_number() -> None:
    assert accuracy(0.25, 0.1).order == 0.25
    assert pandas.isna(accuracy(float("nan")).order)
