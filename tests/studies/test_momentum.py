import dataclasses
import json
import re
from pathlib import Path

import pytest
from PIL import Image

from experiments.config import RunConfig
from studies.momentum import report_momentum
from studies.report import Circumstances
from tests.studies.folders import write_run

ACCURACIES = {"reference": 0.95, "update": 0.4, "worker": 0.85}
CONFIGS = {"average": RunConfig(nb_workers=7, nb_decl_byz=0)} | {
    f"{attack}-{rule}-at_{place}": RunConfig(gar=rule, attack=attack, momentum_at=place)
    for attack in ("little", "empire")
    for rule in ("krum", "trmean")
    for place in ("update", "worker")
}
RUNS = {f"{name}-{seed}": dataclasses.replace(CONFIGS[name], seed=seed) for name in CONFIGS for seed in (1, 2)}
ABSENT = "empire-krum-at_worker-2"
FAILED = {ABSENT: "killed by <signal> 9"}


def write(results: Path, name: str, config: RunConfig, accuracy: float | None = None) -> Path:
    """Write a run whose maximum accuracy is the given one, or that of its kind."""
    kind = config.momentum_at if config.nb_real_byz else "reference"
    best = ACCURACIES[kind] if accuracy is None else accuracy
    return write_run(results, name, [0.1, best, best - 0.05], **config.to_dict())


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All runs but one."""
    folder = tmp_path_factory.mktemp("results")
    for name, config in RUNS.items():
        if name != ABSENT:
            write(folder, name, config, 0.8 if name == "little-krum-at_worker-2" else None)
    return folder


def report(results: Path, plots: Path, **circumstances: object) -> str:
    plots.mkdir()
    report_momentum(results, plots, title="A <title>", circumstances=Circumstances(**circumstances))
    return (plots / "index.html").read_text(encoding="utf-8")


def report_all(results: Path, plots: Path) -> str:
    slots = ["cpu", "cpu"]
    return report(results, plots, expected=[*RUNS], failed=FAILED, seconds=75.0, slots=slots, experiments=[*CONFIGS])


@pytest.fixture(scope="module")
def page(results: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    plots = tmp_path_factory.mktemp("plots") / "results-plot"
    return report_all(results, plots), plots


def exhibits(text: str) -> dict[str, dict]:
    return json.loads(re.search(r'id="exhibits">(.*?)</script>', text, re.DOTALL)[1])


def rows_of(text: str, table: str) -> list[list[str]]:
    body = re.search(rf'id="{table}">.*?<tbody>(.*?)</tbody>', text, re.DOTALL)[1]
    rows = [re.findall(r"<td.*?>(.*?)</td>", row, re.DOTALL) for row in re.findall(r"<tr.*?</tr>", body, re.DOTALL)]
    return [[re.sub("<.*?>", "", cell) for cell in row] for row in rows]


def test_every_cell_is_in_the_table_with_its_numbers(page: tuple[str, Path]) -> None:
    rows = rows_of(page[0], "cells-table")
    assert len(rows) == 4
    cells = {tuple(row[2:4]): row[4:] for row in rows}
    described, accuracies, rest = (
        cells["little", "krum"][:3],
        cells["little", "krum"][3:7],
        cells["little", "krum"][8:10],
    )
    assert described == ["4 of 11", "0.01", "no"]
    assert accuracies == ["0.950 ± 0.000", "0.400 ± 0.000", "0.825 ± 0.035", "+0.425 ± 0.035"]
    assert rest == ["recovered", "2"]
    assert cells["empire", "krum"][5:7] == ["0.850", "+0.450"]
    assert cells["empire", "krum"][9] == "1"


def test_each_cell_and_setting_opens_figures_that_are_there(page: tuple[str, Path]) -> None:
    text, plots = page
    found = exhibits(text)
    keys = set(re.findall(r'data-key="(.*?)"', text))
    assert keys == set(found)
    assert sum(key.startswith("overview") for key in keys) == 2
    for key, exhibit in found.items():
        assert len(exhibit["pictures"]) == (4 if key.startswith("overview") else 3)
        for caption, address in exhibit["pictures"]:
            assert caption
            assert address.startswith("data:image/webp;base64,")
    for path in (plots / "figures").iterdir():
        with Image.open(path) as picture:
            assert picture.format == "WEBP"
            assert picture.convert("L").getextrema()[0] < 128, "nothing is drawn"


def test_a_ratio_s_caption_says_whether_a_bound_is_known(page: tuple[str, Path]) -> None:
    captions = {key: exhibit["pictures"][-1][0] for key, exhibit in exhibits(page[0]).items() if "overview" not in key}
    assert len(captions) == 4
    for key, caption in captions.items():
        assert ("dotted: the rule's bound" in caption) == ("krum" in key)
        assert ("no bound is known" in caption) == ("trmean" in key)


def test_the_claims_are_there_with_counts_and_intervals(page: tuple[str, Path]) -> None:
    text = re.sub("<.*?>", " ", page[0])
    assert re.search(r"fully connected models\s+pairs with cost &gt; 0.20", text)
    assert re.search(r"25.80 %\s+100.00 %\s+7 of 7\s+64.6 % to 100.0 %", text)
    assert "digits (digits-mlp)" in text
    assert text.count("not measured here") == 6


def test_what_failed_and_what_lacks_a_partner_is_listed_and_escaped(page: tuple[str, Path]) -> None:
    text = page[0]
    assert rows_of(text, "failed-table") == [[ABSENT, "killed by &lt;signal&gt; 9"]]
    ((name, reason),) = rows_of(text, "not-compared-table")
    assert name == "empire-krum-at_update-2"
    assert "momentum at the workers is missing" in reason
    assert "missing-table" not in text
    assert "<signal>" not in text
    assert "<h1>A &lt;title&gt;</h1>" in text


def test_the_same_results_give_the_same_page(page: tuple[str, Path], results: Path, tmp_path: Path) -> None:
    assert report_all(results, tmp_path / "again") == page[0]


def test_runs_that_are_not_of_the_grid_count_nowhere(tmp_path: Path) -> None:
    results = tmp_path / "results"
    for name in ("average-1", "little-krum-at_update-1", "little-krum-at_worker-1"):
        write(results, name, RUNS[name])
        write(results, f"mine-{name}", RUNS[name], 0.2)
    text = report(results, tmp_path / "plots", experiments=[*CONFIGS])
    assert len(rows_of(text, "cells-table")) == 1
    strangers = [name for name, _ in rows_of(text, "not-of-this-grid-table")]
    assert len(strangers) == 3
    assert all(name.startswith("mine-") for name in strangers)


def test_without_any_finished_run_there_is_a_page_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    text = report(tmp_path / "results", tmp_path / "plots", expected=["a-1"], skipped={"b-1": "no data"})
    assert "not measured here" in text
    assert rows_of(text, "missing-table") == [["a-1", "not begun"]]
    assert rows_of(text, "skipped-table") == [["b-1", "no data"]]


def test_runs_without_a_study_have_an_accuracy_figure_only(tmp_path: Path) -> None:
    for name in ("average-1", "little-krum-at_update-1", "little-krum-at_worker-1"):
        config = dataclasses.replace(RUNS[name], nb_for_study=0)
        (write(tmp_path / "results", name, config) / "study").unlink()
    found = exhibits(report(tmp_path / "results", tmp_path / "plots"))
    cell = next(exhibit for key, exhibit in found.items() if not key.startswith("overview"))
    assert [caption.split()[0] for caption, _ in cell["pictures"]] == ["Accuracy"]
