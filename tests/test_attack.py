"""The script as a process of its own."""

import ast
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LONG = ["--nb-steps", "-1", "--evaluation-delta", "1"]


def start(arguments: list[str], folder: Path, root: Path = ROOT) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(root / "attack.py"), *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def test_bare_command_from_any_folder(tmp_path: Path) -> None:
    process = start(["--gar", "krum", "--attack", "alie", "--nb-steps", "20"], tmp_path)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert out.splitlines()[-1] == "results in results-data/digits-alie-krum-f_4-lr_0.01-at_update-1"
    assert (tmp_path / "results-data" / "digits-alie-krum-f_4-lr_0.01-at_update-1" / "study").is_file()


def test_errors_are_one_line_with_status_2(tmp_path: Path) -> None:
    process = start(["--gar", "krumm"], tmp_path)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (2, "")
    assert err.startswith("attack.py: unknown aggregation rule 'krumm', expected one of: aksel")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_a_run_cleanly(number: int, status: int, tmp_path: Path) -> None:
    process = start([*LONG, "--result-directory", "run"], tmp_path)
    for line in process.stdout:
        if line.startswith("step 5"):
            break
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == status
    assert "interrupted after step" in err
    assert err.count("\n") == 1
    pending = tmp_path / "run.pending"
    (checkpoint,) = pending.glob("checkpoint-*")
    step = int(checkpoint.name.removeprefix("checkpoint-"))
    assert len((pending / "study").read_text().splitlines()) == step + 1


def test_killed_run_never_looks_finished_and_the_next_moves_it_aside(tmp_path: Path) -> None:
    process = start([*LONG, "--result-directory", "run"], tmp_path)
    for line in process.stdout:
        if line.startswith("step 5"):
            break
    process.kill()
    process.communicate(timeout=60)
    assert [path.name for path in tmp_path.iterdir()] == ["run.pending"]
    again = start(["--nb-steps", "2", "--result-directory", "run"], tmp_path)
    assert again.wait(timeout=120) == 0
    again.communicate()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "run.pending.0"]


def test_reader_that_goes_away_does_not_stop_the_run(tmp_path: Path) -> None:
    process = start(["--nb-steps", "30", "--evaluation-delta", "1", "--result-directory", "run"], tmp_path)
    with process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0
    assert len((tmp_path / "run" / "eval").read_text().splitlines()) == 32


@pytest.mark.parametrize("keep", ["template", "mine"])
def test_new_parts_are_one_new_file_each(keep: str, tmp_path: Path) -> None:
    """Copy each template beside itself, use all of them by name, and test them, without any other change."""
    ignored = shutil.ignore_patterns(".*", "__pycache__", "cache", "results-*", "benchmarks")
    shutil.copytree(ROOT, tmp_path / "code", ignore=ignored)
    own = [f"experiments/{room}" for room in ("models", "datasets", "partitions", "topologies", "protocols")]
    for room in ("aggregators", "aggregators/pre", "attacks", *own):
        template = tmp_path / "code" / room / "template.py"
        text = template.read_text(encoding="utf-8").replace('name="template"', f'name="{keep}"')
        template.with_name("copied.py").write_text(text, encoding="utf-8")
    options = [
        "--gar-args",
        "keep:5",
        "--pre-gar-args",
        "factor:2",
        "--attack-args",
        "scale:3",
        "--model-args",
        "hidden:5",
        "--partition-args",
        "ratio:5",
    ]
    flags = ("--pre-gar", "--gar", "--attack", "--model", "--dataset", "--partition")
    names = [word for flag in flags for word in (flag, keep)]
    process = start([*names, *options, "--nb-steps", "5"], tmp_path, tmp_path / "code")
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    name = "-".join([keep] * 5)
    assert out.splitlines()[-1] == f"results in results-data/{name}-f_4-lr_0.01-at_update-1"
    network = [
        "--topology",
        keep,
        "--protocol",
        keep,
        "--protocol-args",
        "every:2",
        "--nb-decl-byz",
        "0",
        "--nb-steps",
        "5",
    ]
    process = start(network, tmp_path, tmp_path / "code")
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert out.splitlines()[-1] == f"results in results-data/digits-{keep}-{keep}-n_11-lr_0.01-at_worker-1"
    generic = ["tests/aggregators/test_aggregators.py", "tests/aggregators/pre/test_pre_gars.py"]
    generic += ["tests/attacks/test_attacks.py", "tests/experiments/partitions", "tests/experiments/topologies"]
    generic += ["-k", f"{keep} and not registered"]
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", *generic], cwd=tmp_path / "code", capture_output=True, text=True, check=False
    )
    assert tests.returncode == 0, tests.stdout
    assert " passed" in tests.stdout


def test_imports_point_one_way_and_do_nothing() -> None:
    """Importing prints nothing, seeds nothing, starts no GPU, and each room imports only those below it."""
    rooms = ["tools", "aggregators", "attacks", "experiments"]
    allowed = {"tools": {"tools"}, "aggregators": {"aggregators", "tools"}, "attacks": {"attacks", "tools"}}
    for room, below in allowed.items():
        for path in (ROOT / room).rglob("*.py"):
            nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
            imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
            imported |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
            assert not {module.split(".")[0] for module in imported} & set(rooms) - below, path
    check = (
        "import torch, warnings; before = torch.random.get_rng_state(); warnings.simplefilter('error');"
        "import experiments.run, sys;"
        "assert torch.equal(torch.random.get_rng_state(), before);"
        "assert not torch.cuda.is_initialized();"
        "heavy = {'torchvision', 'sklearn', 'pandas', 'matplotlib', 'tensorboard', 'torch._dynamo'};"
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()"
    )
    result = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
