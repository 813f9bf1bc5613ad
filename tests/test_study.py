"""The script as a process of its own, and as the library that scripts of the ICLR 2021 code expect."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import study
from tests.studies.folders import write_iclr21_run, write_run

ROOT = Path(__file__).resolve().parent.parent

OLD_SCRIPT = """
import pathlib
import numpy
import pandas
import study

directory = pathlib.Path("results-data")


def averages(name, *columns):
    datas = tuple(
        study.select(study.Session(directory / f"{name}-{seed}").compute_ratio(nowarn=True), *columns)
        for seed in (1, 2)
    )
    frames = []
    for column in columns:
        parts = tuple(study.select(data, column).dropna() for data in datas)
        frame = pandas.DataFrame(index=parts[0].index)
        for label in parts[0]:
            stacked = numpy.stack(tuple(part[label].to_numpy() for part in parts))
            frame[label] = stacked.mean(axis=0)
            frame[label + "-err"] = stacked.std(axis=0)
        frames.append(frame)
    return frames


def held(path):
    session = study.Session(path)
    best = study.select(session.get("accuracy").max().values.item())
    if not session.has_known_ratio():
        return best, None
    data = session.compute_ratio().data
    alive = data["Average loss"] <= data["Average loss"][0]
    return best, (alive & data["Ratio enough for GAR?"]).sum(), len(data) - 1


for path in sorted(directory.iterdir()):
    print(path.name, *held(path))
plot = study.LinePlot()
for rule in ("krum", "trmean"):
    plot.include(averages(rule, "Accuracy", "Honest ratio")[0], "Accuracy", errs="-err", lalp=0.8)
plot.finalize(None, "Step number", "Top-1 cross-accuracy", xmin=0, xmax=10, ymin=0, ymax=1, legend=["Krum", "Trmean"])
plot.save("lines.png", xsize=3, ysize=1.5)
box = study.BoxPlot()
box.include(numpy.array([0.1, 0.4]), "Standard\\nformulation")
box.hline(0.9)
box.finalize(None, "Max. top-1 cross-accuracy", ymin=0, ymax=1)
box.save("box.png", xsize=1.5, ysize=1.5)
everything = study.Session(directory / "krum-1").compute_all()
computed = study.discard(everything.data, "gradient", "coordinate", "cosine", "loss", "origin", "curvature")
print(*computed.columns, sep="|")
study.LinePlot("Epoch number").include(everything, "loss").finalize("t", "x", "y").save("epochs.pdf")
"""


def run(arguments: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", **environment},
        check=False,
    )


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for gar in ("krum", "median"):
        for place in ("update", "worker"):
            for seed in (1, 2):
                best = 0.5 + 0.1 * seed
                write_run(
                    tmp_path / "results-data",
                    f"{gar}-{place}-{seed}",
                    (0.1, best),
                    gar=gar,
                    momentum_at=place,
                    seed=seed,
                    attack="little" if gar == "krum" else "empire",
                )
    return tmp_path


def test_script_of_the_old_module_runs(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_iclr21_run(tmp_path / "results-data", f"krum-{seed}", (0.1, 0.25 * seed, 0.2), seed=seed)
        write_run(tmp_path / "results-data", f"trmean-{seed}", (0.1, 0.8), 10, gar="trmean", seed=seed)
    (tmp_path / "script.py").write_text(OLD_SCRIPT)
    done = run(["-W", "error", "script.py"], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        *("krum-1 0.25 0 10", "krum-2 0.5 0 10", "trmean-1 0.8 None", "trmean-2 0.8 None"),
        "Training point count|Attack acceptation ratio|Cross-accuracy|Epoch number|Learning rate|Sampled ratio|"
        "Honest ratio|Ratio enough for GAR?",
    ]
    assert (tmp_path / "lines.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "box.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "epochs.pdf").read_bytes().startswith(b"%PDF")


def test_examples_of_the_documentation_run(tmp_path: Path) -> None:
    for gar in ("krum", "median"):
        for place in ("update", "worker"):
            for seed in (1, 2):
                name = f"{gar}-{place}-{seed}"
                write_run(tmp_path / "results-data", name, gar=gar, attack="alie", momentum_at=place, seed=seed)
    text = (ROOT / "docs" / "study.md").read_text(encoding="utf-8")
    examples = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len(examples) == 5
    done = run(["-W", "error", "-c", "\n".join(examples)], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name for path in tmp_path.glob("*.png")} == {"accuracies.png", "ratios.png", "run.png"}


def test_table_from_any_folder(results: Path) -> None:
    script = str(ROOT / "study.py")
    done = run([script, "table", "--columns", "gar,momentum-at,accuracy_max"], results)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "| gar    | momentum at | runs | maximum accuracy |",
        "| ------ | ----------- | ---- | ---------------- |",
        "| krum   | update      | 2    | 0.650 ± 0.071    |",
        "| krum   | worker      | 2    | 0.650 ± 0.071    |",
        "| median | update      | 2    | 0.650 ± 0.071    |",
        "| median | worker      | 2    | 0.650 ± 0.071    |",
    ]


def test_table_into_a_file(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(results)
    arguments = ["--only", "krum-*", "--over", "seed,momentum-at", "--format", "csv", "-o", "table.csv"]
    assert study.main(["table", "results-data", *arguments]) == 0
    header, row = (results / "table.csv").read_text().splitlines()
    assert header.startswith("runs,accuracy_max_mean,")
    assert row.startswith("4,0.6499999999999999,0.0577350269")


def test_plot_writes_all_figures(results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(results)
    assert study.main(["plot", "results-data", "-o", "figures"]) == 0
    names = sorted(path.stem for path in (results / "figures").iterdir())
    parts = [f"{attack}-momentum_at_{place}" for attack in ("empire", "little") for place in ("update", "worker")]
    curves = [f"{what}-{part}" for what in ("accuracy", "loss", "ratio") for part in parts]
    assert names == sorted([*curves, "heatmap-momentum_at_update", "heatmap-momentum_at_worker", "momentum"])
    assert sorted(capsys.readouterr().out.split()) == [f"figures/{name}.png" for name in names]


def test_figures_that_cannot_be_drawn_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    (write_run(tmp_path / "results-data", "run", nb_for_study=0) / "study").unlink()
    assert study.main(["plot"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "results-plot/accuracy.png\n"
    assert [line.split(":")[2] for line in captured.err.splitlines()] == [
        *(" Average loss of all runs", " Honest ratio of all runs")
    ]


def test_what_is_wrong_with_folders_is_one_line_each(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(results)
    write_run(results / "results-data", "broken.failed")
    write_run(results / "results-data", "half.pending")
    (results / "results-data" / "krum-update-1" / "timing").unlink()
    assert study.main(["table"]) == 0
    captured = capsys.readouterr()
    assert captured.err.splitlines() == [
        "study.py: results-data/krum-update-1/timing: expected seconds by phase: No such file or directory",
        "study.py: failed, left out: broken",
        "study.py: not finished, left out: half",
    ]
    assert len(captured.out.splitlines()) == 6


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["table", "nowhere"], "expected a folder of result directories, got nowhere, which is none"),
        (["table", "--only", "x*"], "expected finished runs in results-data that match 'x*', found 8 of other names"),
        (["table", "--over", "rule"], "unknown field to aggregate over 'rule', expected one of: dataset"),
        (["table", "-o", "no/where"], "--output: cannot write no/where: No such file or directory; name another file"),
        (["plot", "-o", "file"], "--output: cannot write to file: File exists; name another folder"),
        ([], "the following arguments are required: COMMAND; --help lists all flags"),
        (["foo"], "argument COMMAND: invalid choice: 'foo'"),
        (["table", "--form", "csv"], "unrecognized arguments: --form; --help lists all flags"),
    ],
)
def test_errors_are_one_line_with_status_2(
    arguments: list[str],
    complaint: str,
    results: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(results)
    (results / "file").touch()
    assert study.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"study.py: {complaint}")
    assert captured.err.count("\n") == 1


def test_help_names_every_command(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit, match="0"):
        study.main(["--help"])
    text = capsys.readouterr().out
    assert all(word in text for word in ("table", "plot", "examples:", "docs/study.md"))


def test_all_names_of_the_library_are_there() -> None:
    assert set(study.__all__) == {
        *("BoxPlot", "LinePlot", "Session", "Study", "discard", "display", "main", "plot_partition", "select"),
        "draw_topology",
    }
    assert all(hasattr(study, name) for name in study.__all__)
