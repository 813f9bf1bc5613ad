import io
from pathlib import Path

import pandas
import pytest

from studies.frame import Study
from studies.tables import render
from studies.wording import file_name, number, text_of, words_for
from tests.studies.folders import write_run
from tools.errors import UserError

STATISTICS = ("mean", "std", "count", "low", "high")


@pytest.fixture
def study(tmp_path: Path) -> Study:
    for seed, best in ((1, 0.5), (2, 0.7)):
        write_run(tmp_path, f"krum-{seed}", (0.1, best, 0.25), gar="krum", seed=seed, learning_rate=0.5)
    write_run(tmp_path, "median", (0.1, 0.9), gar="median", momentum_nesterov=True)
    return Study(tmp_path)


def test_markdown(study: Study) -> None:
    assert study.table() == (
        "| gar    | learning rate | momentum nesterov | runs | maximum accuracy | final accuracy |\n"
        "| ------ | ------------- | ----------------- | ---- | ---------------- | -------------- |\n"
        "| krum   | 0.5           | no                | 2    | 0.600 ± 0.141    | 0.250 ± 0.000  |\n"
        "| median | 0.01          | yes               | 1    | 0.900            | 0.900          |\n"
    )


def test_latex(study: Study) -> None:
    assert study.table("latex", columns=["gar", "accuracy_max"]) == (
        "\\begin{tabular}{lrr}\n"
        "  \\hline\n"
        "  gar & runs & maximum accuracy \\\\\n"
        "  \\hline\n"
        "  krum & 2 & 0.600 $\\pm$ 0.141 \\\\\n"
        "  median & 1 & 0.900 \\\\\n"
        "  \\hline\n"
        "\\end{tabular}\n"
    )


def test_csv_has_all_digits(study: Study) -> None:
    text = study.table("csv", over=(), columns=["seed", "gar", "loss_final", "accuracy_final"])
    frame = pandas.read_csv(io.StringIO(text))
    values = [f"{name}_{what}" for name in ("loss_final", "accuracy_final") for what in STATISTICS]
    assert frame.columns.tolist() == ["seed", "gar", "runs", *values]
    assert frame[["seed", "gar"]].values.tolist() == [[1, "krum"], [1, "median"], [2, "krum"]]
    runs = study.runs.set_index("name").loc[["krum-1", "median", "krum-2"]]
    assert frame["accuracy_final_mean"].tolist() == runs["accuracy_final"].tolist()
    assert frame["loss_final_std"].isna().all()


def test_special_characters_are_escaped() -> None:
    statistics = pandas.DataFrame({"gars": ["krum,1|a_b & {c}\\ 50%"], "runs": [1], "seconds_mean": [1234.5678]})
    statistics["seconds_std"] = float("nan")
    assert r"| krum,1\|a_b & {c}\ 50% | 1    | 1235     |" in render(statistics, ["gars"], ["seconds"], "markdown")
    latex = render(statistics, ["gars"], ["seconds"], "latex")
    assert r"krum,1|a\_b \& \{c\}\textbackslash{} 50\% & 1 & 1235 \\" in latex


def test_errors(study: Study) -> None:
    with pytest.raises(UserError, match="unknown format 'html', expected one of: markdown, latex, csv"):
        study.table("html")
    with pytest.raises(UserError, match="unknown column 'rule', expected one of: dataset"):
        study.table(columns=["rule"])


def test_wording() -> None:
    assert [text_of(value) for value in (None, float("nan"), "{}", True, 0.5, 5000.0, 3, "krum")] == [
        *("", "", "", "yes", "0.5", "5000", "3", "krum")
    ]
    values = {"gar": "krum", "attack": None, "momentum_nesterov": False, "nb_workers": 11, "gradient_clip": None}
    assert words_for(values) == ["krum", "no attack", "no momentum nesterov", "nb workers 11", "gradient clip none"]
    assert file_name(["accuracy", "learning rate 0.5", '{"a": 1/2}']) == "accuracy-learning_rate_0.5-a_1_2"
    assert [number(0.12345, "accuracy_max"), number(0.12345, "loss_final"), number(30.0, "accuracy_max_step")] == [
        *("0.123", "0.1235", "30")
    ]
