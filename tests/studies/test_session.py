import math
import warnings
from pathlib import Path

import numpy
import pandas
import pytest

import studies.display
from aggregators import gars
from experiments.metrics import COLUMNS
from studies.session import Session, discard, select
from tests.studies.folders import write_iclr21_run, write_run
from tools.errors import UserError

KRUM_BOUND = gars["krum"].upper_bound(n=11, f=4, d=1)


def test_our_folder_is_loaded(tmp_path: Path) -> None:
    losses = [3.0, 2.0, 1.0, *[0.5] * 17]
    session = Session(write_run(tmp_path, "run", (0.1, 0.4, 0.7), columns={"Average loss": losses}))
    assert (session.name, session.path) == ("run", tmp_path / "run")
    assert session.config == "run\n└── run"
    assert session.json["gar"] == "krum"
    assert session.json["environment"]["seed"] == 1
    assert session.data.index.name == "Step number"
    assert session.data.index.tolist() == list(range(21))  # the last evaluation has a row of its own
    assert session.data.columns.tolist() == [*COLUMNS[1:], "Cross-accuracy"]
    assert session.data["Average loss"].tolist()[:20] == losses
    assert session.data["Cross-accuracy"].dropna().to_dict() == {0: 0.1, 10: 0.4, 20: 0.7}


def test_folder_of_the_iclr21_code_is_loaded(tmp_path: Path) -> None:
    session = Session(str(write_iclr21_run(tmp_path, "run", (0.1, 0.45, 0.3))))
    assert session.json["l1_regularize"] is None
    assert session.get("accuracy").max().values.item() == 0.45
    assert session.data["Attack acceptation ratio"].isna().all()
    assert math.isnan(session.data["Sampled-prev cosine"][0])
    assert session.compute_all().calc_max_ratio() == gars["krum-iclr21"].upper_bound(n=51, f=24, d=1)


def test_columns_are_selected_by_words() -> None:
    data = pandas.DataFrame({"Honest norm": [1], "Attack norm": [2], "Cross-accuracy": [3], "Honest cosine": [4]})
    assert select(data).columns.tolist() == data.columns.tolist()
    assert select(data, "ACCURACY", "norm", "honest").columns.tolist() == [
        "Cross-accuracy",
        "Honest norm",
        "Attack norm",
        "Honest cosine",
    ]
    assert discard(data, "Honest", "accuracy").columns.tolist() == ["Attack norm"]
    assert len(data.columns) == 4
    assert select(0.5) == 0.5  # as scripts do with what they computed already


@pytest.mark.parametrize(
    ("name", "gone"), [("config", "config"), ("config.json", "json"), ("study", "study"), ("eval", "eval")]
)
def test_one_missing_file_is_one_warning(name: str, gone: str, tmp_path: Path) -> None:
    folder = write_run(tmp_path, "run")
    (folder / name).unlink()
    with pytest.warns(UserWarning, match=f"{name}") as caught:
        session = Session(folder)
    assert len(caught) == 1
    assert "No such file" in str(caught[0].message)
    assert len(session.data) == (2 if gone == "study" else 20)
    if gone in ("config", "json"):
        assert getattr(session, gone) is None


def test_both_tables_missing_leave_an_empty_frame(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "run")
    for name in ("study", "eval"):
        (folder / name).unlink()
    with pytest.warns(UserWarning, match=r"study|eval"):
        session = Session(folder)
    assert session.data.empty
    with pytest.warns(UserWarning, match="not in the data"):
        assert session.compute_all() is session


def test_files_a_run_was_told_not_to_write_are_not_missed(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "run", nb_for_study=0)
    (folder / "study").unlink()
    assert Session(folder).data.columns.tolist() == ["Cross-accuracy"]


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda text: text[: text.rindex("\t")], "last row is cut off"),
        (lambda text: text.replace("1.00000000e+00", "one", 1), "Average loss holds what is no number"),
        (lambda text: text[2:], "header"),
        (lambda text: "", "header"),
    ],
)
def test_damaged_table_is_one_warning(damage: callable, complaint: str, tmp_path: Path) -> None:
    path = write_run(tmp_path, "run") / "study"
    path.write_text(damage(path.read_text()))
    with pytest.warns(UserWarning, match=complaint) as caught:
        session = Session(path.parent)
    assert len(caught) == 1
    assert session.data.columns.tolist() == ["Cross-accuracy"]


def test_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected a result directory, got .*nowhere"):
        Session(tmp_path / "nowhere")


def test_epochs_are_training_points_by_samples(tmp_path: Path) -> None:
    session = Session(write_run(tmp_path, "run")).compute_epoch()
    assert session.data["Epoch number"][4] == 100 / 60_000
    session.json["dataset"] = "unheard-of"
    del session.data["Epoch number"]
    with pytest.warns(UserWarning, match="size of dataset 'unheard-of' is not known"):
        assert session.compute_epoch() is session
    assert "Epoch number" not in session.data


@pytest.mark.parametrize(
    ("fields", "rates"),
    [
        ({"learning_rate": 0.3, "learning_rate_decay": 0.0}, {0: 0.3, 20: 0.3}),
        (
            {"learning_rate": 0.3, "learning_rate_decay": 10.0, "learning_rate_decay_delta": 5},
            {0: 0.3, 4: 0.3, 5: 0.2, 9: 0.2, 10: 0.15, 20: 0.1},
        ),
        (
            {"learning_rate_schedule": "0.02,8,0.004,16,0.0008"},
            {0: 0.02, 7: 0.02, 8: 0.004, 15: 0.004, 16: 0.0008, 20: 0.0008},
        ),
        ({"learning_rate_schedule": "0.25"}, {0: 0.25, 20: 0.25}),
    ],
)
def test_learning_rates_are_those_of_training(fields: dict, rates: dict[int, float], tmp_path: Path) -> None:
    session = Session(write_run(tmp_path, "run", (0.1, 0.2, 0.3), **fields)).compute_lr().compute_lr()
    assert session.data["Learning rate"][list(rates)].to_dict() == pytest.approx(rates, rel=1e-12)


def test_ratios_are_squared_and_compared_with_the_squared_bound(tmp_path: Path) -> None:
    deviations = [0.9 * KRUM_BOUND * 2, 1.1 * KRUM_BOUND * 2, *[math.nan] * 18]
    columns = {"Honest gradient deviation": deviations, "Honest gradient norm": [2.0] * 20}
    session = Session(write_run(tmp_path, "run", columns=columns))
    assert session.has_known_ratio()
    assert session.calc_max_ratio() == KRUM_BOUND
    data = session.compute_ratio().data
    assert data["Honest ratio"][0] == pytest.approx((0.9 * KRUM_BOUND) ** 2, rel=1e-6)
    assert data["Sampled ratio"].tolist() == [1.0] * 20
    assert data["Ratio enough for GAR?"].tolist() == [True] + [False] * 19
    assert ((data["Average loss"] <= 1) & data["Ratio enough for GAR?"]).sum() == 1  # as scripts count


def test_rules_without_a_bound_say_so(tmp_path: Path) -> None:
    session = Session(write_run(tmp_path, "run", gar="trmean"))
    assert not session.has_known_ratio()
    with pytest.warns(UserWarning, match="no bound on deviation / norm is known for rule 'trmean'"):
        assert session.calc_max_ratio() is None
    data = session.compute_ratio(nowarn=True).data  # a warning would be an error here
    assert "Honest ratio" in data
    assert "Ratio enough for GAR?" not in data


@pytest.mark.parametrize("fields", [{"pre_gar": ["nnm"]}, {"gars": "krum,1;median,1"}])
def test_no_bound_is_claimed_for_mixtures_and_after_pre_aggregators(fields: dict, tmp_path: Path) -> None:
    assert not Session(write_run(tmp_path, "run", **fields)).has_known_ratio()


def test_without_configuration_computations_warn_and_go_on(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "run")
    (folder / "config.json").write_text("{")
    with pytest.warns(UserWarning, match=r"config\.json: expected one JSON object"):
        session = Session(folder)
    with pytest.warns(UserWarning, match=r"config\.json does not tell"):
        assert session.compute_epoch().compute_lr() is session
    with pytest.warns(UserWarning, match=r"config\.json does not tell gar"):
        assert not session.has_known_ratio()


def test_computations_of_subclasses_are_among_all(tmp_path: Path) -> None:
    class Mine(Session):
        def compute_twice(self) -> "Mine":
            self.data["Twice"] = 2 * self.data["Average loss"]
            return self

    columns = Mine(write_run(tmp_path, "run")).compute_all().data.columns
    assert {"Twice", "Epoch number", "Learning rate", "Honest ratio"} <= set(columns)


def test_display_opens_a_page_or_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    opened = []
    monkeypatch.setattr(studies.display.webbrowser, "open", opened.append)
    monkeypatch.setattr(studies.display.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(studies.display, "_has_windows", lambda: False)
    session = Session(write_run(tmp_path, "run", (0.125, 0.25)))
    assert session.display("accuracy") is session
    assert "Session data (subset) for 'run'" in (printed := capsys.readouterr().out)
    assert "0.125" in printed
    assert opened == []
    monkeypatch.setattr(studies.display, "_has_windows", lambda: True)
    session.display("accuracy", name="<mine>")
    page = Path(opened[0].removeprefix("file://")).read_text()
    assert "&lt;mine&gt;" in page
    assert "<td>0.125</td>" in page


def test_numbers_are_read_to_the_last_digit(tmp_path: Path) -> None:
    values = numpy.random.default_rng(1).normal(size=20).tolist()
    session = Session(write_run(tmp_path, "run", columns={"l2 from origin": values}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert session.column("l2 from origin").tolist() == [float(f"{value:.8e}") for value in values]
    assert session.column("Learning rate").iloc[0] == 0.01
    assert session.column("unheard of").empty
